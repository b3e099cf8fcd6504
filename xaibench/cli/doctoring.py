"""The command `doctor`: what is wrong with a run folder, and putting right what can be."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xaibench.cli.app import app
from xaibench.cli.output import say

if TYPE_CHECKING:
    from xaibench.harness.doctor import Finding


class Format(StrEnum):
    """How findings are printed."""

    text = "text"
    json = "json"


@app.command()
def doctor(
    run: Annotated[Path, typer.Argument(help="A run folder: the --out of `xaibench run`.")],
    repair: Annotated[bool, typer.Option("--repair", help="Move what is damaged to RUN/damaged; remove scratch.")] = False,
    format_: Annotated[Format, typer.Option("--format", help="Sentences, or JSON for machines.")] = Format.text,
) -> None:
    """Look for damage in a run folder: files cut short, edited or rotted, doubled rows, leftovers of killed runs.

    Reads files only, runs no plugin. Ends with 0 when nothing is wrong, or nothing any more; with 1 otherwise.

    `xaibench doctor results/demo --repair`
    """
    from xaibench.harness import doctor as surgery

    found = surgery.repair(run) if repair else surgery.examine(run)
    ill = [finding for finding in found if finding.ill]
    if format_ is Format.json:
        import json
        from dataclasses import asdict

        facts = [{k: v for k, v in asdict(f).items() if k != "action"} for f in found]
        say(json.dumps({"run": str(run), "healthy": not ill, "findings": facts}, indent=2))
    else:
        _print(run, found, repair)
    if ill:
        raise typer.Exit(1)


def _print(run: Path, found: list[Finding], repair: bool) -> None:
    for finding in found:
        say(finding)
    ill = [f for f in found if f.ill]
    again = any("xaibench run" in f.consequence for f in found if f.repaired or f.cure == "run")
    if not ill:
        say(f"{run}: healthy" + ("; `xaibench run` with the same options makes what is missing" if again else ""))
        return
    curable = sum(f.cure == "repair" for f in ill)
    rest = len(ill) - curable
    words = [f"{curable} to repair: `xaibench doctor {run} --repair`"] * (curable > 0 and not repair)
    words += [f"{curable} could not be repaired"] * (curable > 0 and repair)
    words += [f"{rest} for you"] * (rest > 0)
    say(f"{run}: not healthy; {', '.join(words)}")
