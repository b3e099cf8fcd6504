"""The command `activations`: a run's maps over time, against voice activity and truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xaibench.cli.app import app
from xaibench.cli.output import console, note, say
from xaibench.cli.words import split_names
from xaibench.errors import XaibenchError


@app.command()
def activations(
    run_folder: Annotated[Path, typer.Argument(help="A run made with --keep-maps.", metavar="RUN")],
    out: Annotated[Path, typer.Option(help="Folder for the tables, the page activations.html and pictures.")],
    utt: Annotated[list[str] | None, typer.Option(help="Utterance, or utterance/vocoder; repeatable. Default: all.")] = None,
    xai: Annotated[str, typer.Option(help="Methods, separated by commas, or `all`.")] = "all",
    threshold: Annotated[str, typer.Option(help="On the activation, separated by commas.")] = "0.3,0.5,0.7",
    vad: Annotated[str, typer.Option(help="Voice activity: `energy`, or `silero` (extra `speech`).")] = "energy",
    guard: Annotated[float, typer.Option(help="Seconds around edges that are set aside.")] = 0.1,
    guard_at: Annotated[str, typer.Option(help="Which edges: ends, speech, splices, or `none`.")] = "ends,speech,splices",
    scale: Annotated[str, typer.Option(help="`relu` (positive part, min-max), `minmax` (signed), `peak`.")] = "relu",
    gap: Annotated[float, typer.Option(help="Segments at most so many seconds apart become one.")] = 0.0,
    shortest: Annotated[float, typer.Option(help="Segments shorter than so many seconds are dropped.")] = 0.0,
    explain_bonafide: Annotated[
        bool, typer.Option("--explain-bonafide", help="Also explain the bona fide twins, with the run's settings.")
    ] = False,
    figures: Annotated[int, typer.Option(min=0, help="Utterances to draw over time.")] = 3,
    device: Annotated[str, typer.Option(help="For --explain-bonafide: auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """When do maps speak for spoof: activation over time, segments above thresholds, bona fide against spoofed frames.

    The analysis stage of the WeDefense tutorial, for every method of a run (docs/activations.md).

    `xaibench run --cm lcnn --xai grad-cam --data minivoc-partial --truth segments --keep-maps --out results/partial`

    `xaibench activations results/partial --out results/partial/activations`
    """
    from rich.table import Table
    from rich.text import Text

    from xaibench.analysis.activation_page import Wanted, analyse
    from xaibench.analysis.activations import Rules
    from xaibench.leaderboard.table import kind
    from xaibench.site.shell import number

    rules = Rules(
        thresholds=_numbers(threshold), guard=guard, guard_at=() if guard_at == "none" else tuple(split_names(guard_at)),
        scale=scale, vad=vad, gap=gap, shortest=shortest,
    )  # fmt: skip
    where = "cpu"
    if explain_bonafide:
        from xaibench.harness.device import choose_device

        where = str(choose_device(device))
    names = () if xai == "all" else tuple(split_names(xai))
    wanted = Wanted(tuple(utt or ()), names, figures, explain_bonafide, where)
    screen = console()
    with screen.status("reading") as status:
        made = analyse(run_folder, out, rules=rules, wanted=wanted, report=lambda text: status.update(Text(text)))
    middle = sorted(rules.thresholds)[len(rules.thresholds) // 2]
    heads = ("half", "countermeasure", "attributor", "kind", "delta", "above", "segments", "precision", "recall", "F1")
    caption = f"means over utterances, threshold {middle:g}; see {out}/activations.html"
    table = Table(*heads, box=None, pad_edge=False, caption=caption)
    shown = made.means[made.means["threshold"].eq(middle)]
    shown = shown.sort_values(["half", "countermeasure", "delta"], ascending=[False, True, False])
    for line in shown.to_dict("records"):
        cells = [number(line[k], 2) for k in ("delta", "share_above", "segments", "precision", "recall", "f1")]
        who = (line["half"], line["countermeasure"], line["attributor"], kind(line["attributor"]))
        table.add_row(*who, *cells)
    screen.print(table)
    for sentence in made.notes:
        note(sentence)
    for path in made.files:
        say(path)


def _numbers(text: str) -> tuple[float, ...]:
    """Numbers separated by commas. Raises XaibenchError for anything else."""
    try:
        return tuple(float(part) for part in split_names(text))
    except ValueError as error:
        raise XaibenchError(f"--threshold {text!r}: expected numbers separated by commas, as 0.3,0.5,0.7") from error
