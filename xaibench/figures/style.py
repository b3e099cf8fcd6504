"""The look of every picture: colours, type, sizes, and the one way to disk.

Colours are Okabe and Ito's (2008, "Color universal design") and four more for the lines of a curve chart. Any two of
`LINES`, and any two of `KINDS`, differ by 15 or more in CIELAB (Euclidean) for normal sight and for full protanopia,
deuteranopia and tritanopia as Machado, Oliveira and Fernandes simulate them (IEEE TVCG 15, 2009); a test computes it.

Type is DejaVu Sans, which comes with matplotlib: a picture looks alike on every machine. PDF holds it as TrueType (type
42; many publishers refuse type 3), SVG as paths or, if asked, as text. Names come from plugins, so a `$` is a dollar, never
maths. No date, version or random name is written: the same numbers give the same bytes. Lengths in inches, type in points.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xaibench.errors import XaibenchError
from xaibench.files import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, BROWN, PINK, NAVY = "#6B14D6", "#5F2E0D", "#FB57F9", "#1D2E5C"
GREY, PALE = "#5E5E5E", "#ACACAC"  # of lines and words; of areas
LINES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, BROWN, PINK, NAVY)  # of a chart's curves, in this order
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")  # their marks, so that a grey print tells them apart, too
KINDS = {"ceiling": GREEN, "method": BLUE, "sham": ORANGE, "floor": PALE}  # `leaderboard.table.kind`
SPECTROGRAM, MAP, DIFFERENCE = "viridis", "RdBu_r", "PuOr_r"
FONT = "DejaVu Sans"
DPI = 180  # of pictures for the screen
SINGLE, DOUBLE = 3.35, 7.0  # inches: one and two columns of a journal's page
FORMATS = ("pdf", "svg", "png")
POINTS = 72.0  # an inch
_PLACES = ("backend", "interactive", "toolbar", "webagg", "tk.", "macosx")  # settings of a window, not of a picture


@dataclass(frozen=True)
class Look:
    """How a picture for a page is made.

    width: inches of the whole picture. formats: of `FORMATS`. dpi: of PNG, and of the images within PDF and SVG.
    font_size: points of the words; ticks are smaller by one. svg_text: words as text, which needs the font where it is
    read, and not as paths. Raises XaibenchError for what no page can hold.

    >>> Look(width=SINGLE).formats
    ('pdf',)
    """

    width: float = DOUBLE
    formats: tuple[str, ...] = ("pdf",)
    dpi: int = 600
    font_size: float = 8.0
    svg_text: bool = False

    def __post_init__(self) -> None:
        if not 1.5 <= self.width <= 30:
            raise XaibenchError(f"a width of {self.width:g} inches: expected 1.5 to 30; is it in millimetres?")
        strange = [name for name in self.formats if name not in FORMATS]
        if strange or not self.formats:
            named = repr(strange[0]) if strange else "none"
            raise XaibenchError(f"formats of a picture are {', '.join(FORMATS)}, got {named}")
        if not 50 <= self.dpi <= 2400:
            raise XaibenchError(f"{self.dpi} dots an inch: expected 50 to 2400")
        if not 4 <= self.font_size <= 30:
            raise XaibenchError(f"a font of {self.font_size:g} points: expected 4 to 30")


@dataclass(frozen=True)
class Picture:
    """What was drawn: the files, one a format, and a caption with every fact that the picture itself leaves out."""

    paths: tuple[Path, ...]
    caption: str


def style(font_size: float = 8.0) -> AbstractContextManager[None]:
    """A context in which pictures are drawn and saved; whatever a user's matplotlibrc says, they look the same."""
    import matplotlib

    usual = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith(_PLACES)}
    small = max(font_size - 1, 4)
    return matplotlib.rc_context(
        usual
        | {
            "font.family": [FONT], "font.size": font_size, "text.parse_math": False, "axes.titlesize": font_size,
            "axes.labelsize": font_size, "xtick.labelsize": small, "ytick.labelsize": small, "legend.fontsize": small,
            "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5,
            "ytick.major.size": 2.5, "axes.titlepad": 3, "figure.facecolor": "white", "savefig.facecolor": "white",
            "pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "xaibench", "axes.formatter.useoffset": False,
        }
    )  # fmt: skip


def new_figure(width: float, height: float, *, layout: Literal["constrained"] | None = None) -> Figure:
    """An empty figure of so many inches, that no window knows of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def columns_of_axes(width: float, height: float, *, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side."""
    figure = new_figure(width, height)
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def quiet(axes: Axes) -> None:
    """No box, a light grid along the values."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, axis="both" if not axes.patches else "x", color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)


def text_width(text: str, size: float) -> float:
    """Inches of a line of text set in so many points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(family=FONT, size=size), ismath=False)
    return width / POINTS


def fitted(text: str, size: float, room: float, *, least: float = 5.0) -> tuple[str, float]:
    """The text and its size in points such that it is at most `room` inches long: smaller, and then shorter.

    >>> fitted("grad-cam", 8, 2.0)
    ('grad-cam', 8)
    """
    width = text_width(text, size)
    if width <= room:
        return text, size
    size = max(least, math.floor(20 * size * room / width) / 20)
    if text_width(text, size) <= room:
        return text, size
    while text and text_width(text + "…", size) > room:
        text = text[:-1]
    return text + "…", size


def save(figure: Figure, stem: Path, look: Look) -> tuple[Path, ...]:
    """Write `stem` with the ending of each format; a stem may hold dots. Raises RunError where it cannot be written."""
    return tuple(
        _written(figure, stem.with_name(f"{stem.name}.{name}"), look.dpi, text=look.svg_text)
        for name in dict.fromkeys(look.formats)
    )


def save_as(figure: Figure, path: Path, *, dpi: int | None = None) -> Path:
    """Write one file in the format of its ending. Raises XaibenchError for another ending, RunError as `save`."""
    path = Path(path)
    if path.suffix[1:].lower() not in FORMATS:
        raise XaibenchError(f"{path}: the ending is {path.suffix!r}, expected one of {', '.join('.' + f for f in FORMATS)}")
    return _written(figure, path, dpi or DPI)


def _written(figure: Figure, path: Path, dpi: int, *, text: bool = False) -> Path:
    import matplotlib

    kind = path.suffix[1:].lower()
    nothing: dict[str, Any] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }[kind]
    rules: Any = {"pdf.fonttype": 42, "svg.fonttype": "none" if text else "path", "svg.hashsalt": "xaibench"}
    with whole(path) as scratch, matplotlib.rc_context(rules):
        figure.savefig(scratch, dpi=dpi, metadata=nothing, format=kind)
    return path
