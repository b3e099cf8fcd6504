"""Commands that draw: `show`, for the screen, and `figure`, for a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xaibench.cli.app import app
from xaibench.cli.output import note, say
from xaibench.cli.words import roots_of, split_names
from xaibench.errors import XaibenchError

if TYPE_CHECKING:
    import pandas as pd

    from xaibench.figures.style import Look, Picture

figure_app = typer.Typer(
    no_args_is_help=True,
    help="Pictures for a paper: PDF, SVG or PNG at a column's width, fonts embedded, with a caption on the screen.\n\n"
    "Colours are told apart by the colour-blind; the same numbers give the same bytes.",
)
app.add_typer(figure_app, name="figure")

Runs = Annotated[list[Path], typer.Argument(help="Run folders.", metavar="RUN...")]
Out = Annotated[Path, typer.Option(help="Folder for the files.")]
Format = Annotated[str, typer.Option("--format", help="pdf, svg, png, separated by commas.")]
Width = Annotated[str, typer.Option(help="`single` (3.35 in), `double` (7 in) or inches.")]
Dpi = Annotated[int, typer.Option(help="Dots an inch: of PNG, and of the images within PDF and SVG.")]
FontSize = Annotated[float, typer.Option(help="Points of the words; ticks are smaller by one.")]
SvgText = Annotated[bool, typer.Option("--svg-text", help="Words in SVG as text, which can be edited, and not as paths.")]
Xai = Annotated[str, typer.Option(help="Attribution methods, separated by commas.", metavar="NAME[,NAME]")]


@app.command()
def show(
    run_folder: Annotated[Path, typer.Argument(help="A run made with --keep-maps.", metavar="RUN")],
    utt: Annotated[str, typer.Option(help="Utterance, or utterance/vocoder for one of its twins.")],
    out: Annotated[Path, typer.Option(help="Folder for the PNG.")] = Path("figures"),
) -> None:
    """Draw real, fake, the truth over the fake, and every method's map with its top 5 % (PNG).

    `xaibench show results/demo --utt june_fr_002`
    """
    from xaibench.figures import show_run
    from xaibench.harness.warned import said_over

    for path in show_run(run_folder, utt, out):
        say(path)
    for line in said_over(run_folder, utt):
        note(line)


@figure_app.command()
def comparison(
    run_folder: Annotated[Path | None, typer.Argument(help="A run made with --keep-maps.", metavar="[RUN]")] = None,
    utt: Annotated[str, typer.Option(help="Utterance, or utterance/vocoder.")] = "",
    vocoder: Annotated[str | None, typer.Option(help="One of the utterance's vocoders; default: each.")] = None,
    xai: Xai = "",
    data: Annotated[str | None, typer.Option(help="Data set, in place of a run: whole recordings, no methods.")] = None,
    root: Annotated[list[str] | None, typer.Option(help="Folder of the data set, where not embedded.")] = None,
    truth: Annotated[str, typer.Option(help="With --data: eq2, eq1 or log-difference.")] = "eq2",
    seconds: Annotated[str | None, typer.Option(help="Only this stretch.", metavar="FROM:TO")] = None,
    out: Out = Path("figures"),
    formats: Format = "pdf",
    width: Width = "double",
    dpi: Dpi = 600,
    font_size: FontSize = 8.0,
    svg_text: SvgText = False,
) -> None:
    """Bona fide, vocoded, their difference, the truth's mask, and methods' maps with their top 5 %.

    `xaibench figure comparison results/demo --utt june_fr_002 --vocoder lyra --xai grad-cam,input-x-gradient`

    `xaibench figure comparison --data minivoc --utt june_fr_002/hifigan --width single`
    """
    from xaibench.figures.comparison import compare_data, compare_run

    if (run_folder is None) == (data is None):
        raise XaibenchError("give a run folder, or --data NAME for a picture without a run; one of the two")
    if not utt:
        raise XaibenchError("which utterance? --utt SOURCE or SOURCE/VOCODER, as june_fr_002/hifigan")
    if vocoder is not None:
        utt = f"{utt.partition('/')[0]}/{vocoder}"
    look, stretch = _look(formats, width, dpi, font_size, svg_text), _stretch(seconds)
    if run_folder is not None:
        _say(compare_run(run_folder, utt, out, xai=split_names(xai), seconds=stretch, look=look))
    elif xai:
        raise XaibenchError("--xai: maps are those of a run; `xaibench run --keep-maps` makes them, then name its folder")
    elif data is not None:
        _say(compare_data(data, utt, out, root=roots_of(root or [], data), truth=truth, seconds=stretch, look=look))


@figure_app.command()
def board(
    runs: Runs,
    metric: Annotated[list[str] | None, typer.Option(help="Metric; again for more. Default: the usual.")] = None,
    xai: Xai = "",
    skill: Annotated[
        bool, typer.Option("--skill", help="The share of the way from floor to ceiling, not the score.")
    ] = False,
    out: Out = Path("figures"),
    formats: Format = "pdf",
    width: Width = "double",
    dpi: Dpi = 600,
    font_size: FontSize = 8.0,
    svg_text: SvgText = False,
) -> None:
    """Bars with 95 % intervals: ceiling, methods, shams and floors in blocks of their own.

    `xaibench figure board results/demo --metric rank-accuracy --width single --format pdf,png`
    """
    from xaibench.figures.board import draw_board
    from xaibench.leaderboard.table import board as board_of
    from xaibench.leaderboard.table import read_rows

    look, rows = _look(formats, width, dpi, font_size, svg_text), _of_methods(read_rows(runs), xai)
    _say(draw_board(board_of(rows, metrics=metric or None), out, metrics=metric or (), skill=skill, look=look))


@figure_app.command()
def curves(
    runs: Runs,
    xai: Xai = "",
    fill: Annotated[str, typer.Option(help="What stands where cells are gone: twin, silence or mean.")] = "twin",
    direction: Annotated[str, typer.Option(help="deletion or insertion.")] = "deletion",
    scale: Annotated[
        str, typer.Option(help="log-odds, or gap: the share of the gap to the twin that is left.")
    ] = "log-odds",
    out: Out = Path("figures"),
    formats: Format = "pdf",
    width: Width = "double",
    dpi: Dpi = 600,
    font_size: FontSize = 8.0,
    svg_text: SvgText = False,
) -> None:
    """Mean deletion or insertion curve of each method, with 95 % bands clustered by source utterance.

    `xaibench figure curves results/demo --xai grad-cam,lrp --width single`
    """
    from xaibench.figures.curves import draw_curves

    look = _look(formats, width, dpi, font_size, svg_text)
    _say(draw_curves(runs, out, xai=split_names(xai), curve=f"{direction}-{fill}", scale=scale, look=look))


@figure_app.command("critical-difference")
def critical_difference(
    runs: Runs,
    metric: Annotated[list[str] | None, typer.Option(help="Metric; again for more. Default: one of each kind.")] = None,
    xai: Xai = "",
    cluster: Annotated[str, typer.Option(help="What counts as one observation: utterance or speaker.")] = "utterance",
    out: Out = Path("figures"),
    formats: Format = "pdf",
    width: Width = "double",
    dpi: Dpi = 600,
    font_size: FontSize = 8.0,
    svg_text: SvgText = False,
) -> None:
    """Average ranks, and which of them the Nemenyi test does not tell apart (Demsar 2006).

    `xaibench figure critical-difference results/demo --metric rank-accuracy --xai grad-cam,lrp,saliency,lime`
    """
    from xaibench.figures.orders import draw_ranks

    look, rows = _look(formats, width, dpi, font_size, svg_text), _of_methods(_sources(runs), xai)
    _say(draw_ranks(rows, out, metrics=metric or None, cluster=cluster, look=look))


@figure_app.command()
def agreement(
    runs: Runs,
    metric: Annotated[list[str] | None, typer.Option(help="Metric; again for more. Default: one of each kind.")] = None,
    xai: Xai = "",
    cluster: Annotated[str, typer.Option(help="What counts as one observation: utterance or speaker.")] = "utterance",
    out: Out = Path("figures"),
    formats: Format = "pdf",
    width: Width = "single",
    dpi: Dpi = 600,
    font_size: FontSize = 8.0,
    svg_text: SvgText = False,
) -> None:
    """Whether metrics, or runs, order the methods alike: Kendall's tau as a heat map.

    `xaibench figure agreement results/demo --metric rank-accuracy --metric drop-twin --metric deletion-twin`
    """
    from xaibench.figures.orders import draw_agreement

    look, rows = _look(formats, width, dpi, font_size, svg_text), _of_methods(_sources(runs), xai)
    _say(draw_agreement(rows, out, metrics=metric or None, cluster=cluster, look=look))


def _look(formats: str, width: str, dpi: int, font_size: float, svg_text: bool) -> Look:
    from xaibench.figures.style import DOUBLE, SINGLE, Look

    try:
        inches = {"single": SINGLE, "double": DOUBLE}.get(width) or float(width)
    except ValueError:
        raise XaibenchError(f"--width {width!r}: expected single, double or inches, as 5.5") from None
    return Look(inches, tuple(split_names(formats)), dpi, font_size, svg_text)


def _stretch(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        start, end = map(float, text.split(":"))
    except ValueError:
        raise XaibenchError(f"--seconds {text!r}: expected FROM:TO, as 0.5:1.5") from None
    return start, end


def _sources(runs: list[Path]) -> pd.DataFrame:
    """Rows of the runs; what a reader must know of them is a note."""
    from xaibench.cli.output import note
    from xaibench.leaderboard.compare import read_sources

    rows, notes = read_sources(runs)
    for line in notes:
        note(line)
    return rows


def _of_methods(rows: pd.DataFrame, xai: str) -> pd.DataFrame:
    """The rows of some methods, and of every control. Raises XaibenchError for a method without rows."""
    from xaibench import registry
    from xaibench.leaderboard.table import kind

    wanted, known = split_names(xai), sorted(rows["attributor"].unique())
    for name in wanted:
        if name not in known:
            raise XaibenchError(registry.unknown("attributor of these runs", name, known))
    kept = [name for name in known if not wanted or name in wanted or kind(name) != "method"]
    return rows[rows["attributor"].isin(kept)]


def _say(pictures: Sequence[Picture]) -> None:
    for picture in pictures:
        for path in picture.paths:
            say(path)
        say(f"  {picture.caption}")
