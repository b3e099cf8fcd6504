"""The commands `submit` and `verify`: a run in one file, and that file checked by somebody else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xaibench.cli.app import app
from xaibench.cli.output import note, progress_bar, say
from xaibench.cli.words import checkpoints_of, cm_options, roots_of


@app.command()
def submit(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.")],
    out: Annotated[Path | None, typer.Option(help="The pack. Default: the folder's name, here, with `.zip`.")] = None,
    claims: Annotated[
        Path | None, typer.Option(help="TOML file of numbers you published, to stand beside the re-measured ones.")
    ] = None,
) -> None:
    """Pack a finished run into one file: its rows, its board, what they were made with; no folder and no name of yours.

    A run that a board would not rank is refused. `xaibench submit results/demo`, then `xaibench verify demo.zip`
    """
    from xaibench.files import write_bytes
    from xaibench.submission.submit import pack_run

    content, notes = pack_run(run, claims)
    for sentence in notes:
        note(sentence)
    place = write_bytes(out or Path(f"{run.resolve().name}.zip"), content)
    say(f"{place}: {len(content):,} bytes")


@app.command()
def verify(
    pack: Annotated[Path, typer.Argument(help="What `xaibench submit` wrote.")],
    cells: Annotated[
        int, typer.Option(min=1, help="Cells computed again, drawn at random from every part of the pack.")
    ] = 20,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Which cells are drawn. Default: nobody can foresee it; it is printed.")
    ] = None,
    root: Annotated[list[str] | None, typer.Option(help="Folder of the data set, where not embedded.")] = None,
    data: Annotated[Path | None, typer.Option(help="Your manifest, where the pack's data set is a manifest.")] = None,
    checkpoint: Annotated[list[str] | None, typer.Option(help="CM=FILE: weights instead of the shipped.")] = None,
    cm_set: Annotated[list[str] | None, typer.Option(help="CM.OPTION=VALUE of a countermeasure, repeatable.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Also write the report: .md, .json or .txt.")] = None,
) -> None:
    """Check a pack and compute a random sample of its cells again, with the code, weights and data that are here.

    Exit code 0: it agrees. 1: it does not. 2: it cannot be verified here, or is no pack; the report says why.
    `xaibench verify demo.zip --cells 50 --out report.md`
    """
    from xaibench.submission import report as reports
    from xaibench.submission.remeasure import Own
    from xaibench.submission.verify import verify_pack

    given = [text.partition(".")[0] for text in cm_set or []]
    own = Own(
        root=roots_of(root or [], str(data or "")),
        data=str(data) if data else None,
        checkpoints=checkpoints_of(checkpoint or [], ["all"]),
        cm_options=cm_options(given, cm_set or [], None),
        device=device,
    )
    with progress_bar() as show_step:
        verdict = verify_pack(pack, cells=cells, seed=seed, own=own, report=show_step)
    say(reports.as_text(verdict), end="")
    if out is not None:
        say(reports.write(verdict, out))
    if verdict.code:
        raise typer.Exit(verdict.code)
