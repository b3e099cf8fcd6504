"""The command `explain`: any recording of the user's."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xaibench.cli.app import app
from xaibench.cli.output import console, note, progress_bar, say
from xaibench.cli.words import checkpoints_of, cm_options
from xaibench.errors import XaibenchError

if TYPE_CHECKING:
    from xaibench.analysis.explanation import Explanation


@app.command()
def explain(
    files: Annotated[list[Path], typer.Argument(help="Recordings: wav, flac, ogg, mp3, m4a ...", metavar="FILE...")],
    cm: Annotated[str, typer.Option(help="Countermeasure.", metavar="NAME")],
    xai: Annotated[str, typer.Option(help="Methods, or `all`; `ig`, `gradcam` and the like will do.")] = "grad-cam",
    route: Annotated[
        str, typer.Option(help="`native` (at the tap), `grid` (STFT in front of the model), or `auto`.")
    ] = "auto",
    share: Annotated[float, typer.Option(help="Share of the cells that count as a map's top.")] = 0.05,
    top: Annotated[int, typer.Option(min=1, help="Regions to list a method.")] = 10,
    threshold: Annotated[
        float | None, typer.Option(help="Of the decision, log-odds; default: that of the weights' card, else 0.")
    ] = None,
    channel: Annotated[
        int | None, typer.Option(min=0, help="Take this channel, counted from 0; default: their mean.")
    ] = None,
    start: Annotated[float, typer.Option(min=0.0, help="Begin here, in seconds.")] = 0.0,
    end: Annotated[float | None, typer.Option(help="End here, in seconds.")] = None,
    overlap: Annotated[float, typer.Option(help="Share that neighbouring windows have in common.")] = 0.5,
    longest: Annotated[float, typer.Option(help="Refuse to explain more seconds than this at a time.")] = 600.0,
    listen: Annotated[bool, typer.Option(help="Make and score the sounds of what a map keeps and removes.")] = True,
    checkpoint: Annotated[list[str] | None, typer.Option(help="Weights (safetensors) instead of the shipped.")] = None,
    cm_set: Annotated[list[str] | None, typer.Option(help="CM.OPTION=VALUE on top of its card's, repeatable.")] = None,
    ssl: Annotated[Path | None, typer.Option(help="Local Hugging Face folder of a wav2vec 2.0 encoder.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Folder; with several files one for each within it. Default: explanations/NAME.")
    ] = None,
) -> None:
    """Explain a recording of yours: the decision, and the places that speak for spoof, in seconds and Hz.

    Writes one HTML page with pictures and sounds, and the same as JSON, CSV, PNG and WAV.

    `xaibench explain FILE.wav --cm lcnn --xai grad-cam,ig`
    """
    from xaibench.analysis.explanation import bench_for, explain_on
    from xaibench.analysis.page import make_folder, write_folder
    from xaibench.analysis.recording import Settings
    from xaibench.harness.device import tune_allocator
    from xaibench.harness.run import Progress
    from xaibench.recordings import Excerpt

    tune_allocator()
    settings = Settings(
        route=route, overlap=overlap, most=top, threshold=threshold, sounds=listen, seed=seed,
        excerpt=Excerpt(channel, start, end, longest), checkpoint=checkpoints_of(checkpoint or [], [cm]).get(cm),
        cm_options=cm_options((cm,), cm_set or [], ssl).get(cm, {}),
    )  # fmt: skip
    bench = bench_for(cm, xai, device=device, settings=settings)
    failed, training = [], ""
    for path, folder in zip(files, _folders(files, out), strict=True):
        try:
            make_folder(folder)
            with progress_bar() as step:

                def report(done: int, total: int, name: str = path.name, show: Callable[[Progress], None] = step) -> None:
                    show(Progress(name, done, total, ""))

                found = explain_on(bench, path, share=share, settings=settings, report=report)
                page = write_folder(found, folder, listen=listen)
        except XaibenchError as error:
            if len(files) == 1:
                raise
            note(str(error))
            failed.append(str(path))
            continue
        finally:
            _drop_empty(folder)
        _tell(found)
        say(page)
        training = found.training()
    if training:
        note(training)
    if failed:
        raise XaibenchError(f"{len(failed)} of {len(files)} recordings were not explained: {', '.join(failed)}")


def _folders(files: list[Path], out: Path | None) -> list[Path]:
    """A folder for each recording; two of the same name do not share one."""
    from xaibench.site.shell import slug

    if len(files) == 1 and out is not None:
        return [out]
    folders: list[str] = []
    for name in (slug(path.stem) for path in files):
        free = (n for n in itertools.chain([name], (f"{name}-{k}" for k in itertools.count(2))) if n not in folders)
        folders.append(next(free))
    return [(out or Path("explanations")) / name for name in folders]


def _drop_empty(folder: Path) -> None:
    """Take away a folder that was made for nothing."""
    with contextlib.suppress(OSError):  # it holds something, or was never there
        folder.rmdir()


def _tell(found: Explanation) -> None:
    """The decision, the first regions of every method, and what went wrong."""
    from rich.table import Table
    from rich.text import Text

    screen = console()
    screen.print(Text(found.sentence(), style="bold"))
    if len(found.windows) > 1:
        worst = found.worst
        screen.print(Text(f"most like spoof: {worst.start:.1f} to {worst.end:.1f} s, score {worst.score:+.2f}"))
    heads = ("method", "#", "time (s)", "frequency (Hz)", "evidence", "box filled")
    table = Table(*heads, box=None, pad_edge=False)
    for name, one in found.maps.items():
        for number, p in enumerate(one.places.found[: min(found.most, 3)], start=1):
            time = f"{p.start:.3f} to {p.end:.3f}" if "time" in one.resolves else "all"
            frequency = f"{p.low:.0f} to {p.high:.0f}" if "frequency" in one.resolves else "all"
            shares = f"{p.share:.1%}", f"{p.filled:.0%}"
            table.add_row(Text(name if number == 1 else ""), str(number), time, frequency, *shares)
        if one.empty:
            table.add_row(Text(name), "-", "nothing speaks for spoof", "", "", "")
    screen.print(table)
    for name, reason in found.failures.items():
        note(f"{name} has no map: {reason}")
    for name, sentence in ((name, sentence) for name, one in found.maps.items() for sentence in one.notes):
        note(f"{name}: {sentence}")
    for sentence in found.recording.notes:
        note(f"{found.recording.name}: {sentence}")
