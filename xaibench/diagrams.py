"""Pictures of comparisons: the critical-difference diagram and the heat map of agreeing orders.

Beside a comparison's tables they are PNG and SVG of their natural size, with a title. With a `Look` they are for a page: of
its width and formats, without a title or note, which belong to the caption.

The critical-difference diagram has the form of Demsar (JMLR 7, 2006, figure 1): an axis of average ranks, best on the left,
methods on leader lines below it, and a bar over every largest group that the Nemenyi test does not tell apart. Names stand
in two columns, the better half on the left, so that forty methods remain readable; the bars lie between axis and leaders'
bends. Colours, fonts and the rule "same numbers, same file" are those of `xaibench.figures.style`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xaibench.comparisons import Friedman
from xaibench.errors import XaibenchError
from xaibench.figures import style
from xaibench.figures.style import BLUE, GREY, MAP, VERMILLION, Look, text_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE = 0.19  # inches a name, in type of 8 points
BAR = 0.07  # inches a group's bar
LEAST = 0.8  # inches of the axis


def critical_difference(
    found: Friedman,
    methods: Sequence[str],
    path: Path,
    *,
    title: str = "",
    unit: str = "utterance",
    look: Look | None = None,
) -> list[Path]:
    """Draw `found`, whose ranks are those of `methods`, to `path`.png and .svg, or in the formats of `look`.

    unit: what a block is, for the note below. Returns the files. Raises XaibenchError for another number of names than ranks
    or a `look` too narrow for the names, RunError where the file cannot be written.
    """
    if len(methods) != len(found.ranks):
        raise XaibenchError(f"one name a rank: got {len(methods)} names for {len(found.ranks)} average ranks")
    with style.style(look.font_size if look else 8):
        return _save(_ranks(found, list(methods), title, unit, look), Path(path), look)


def agreement(
    tau: np.ndarray, labels: Sequence[str], path: Path, *, title: str = "", look: Look | None = None
) -> list[Path]:
    """Draw a matrix of Kendall's tau `(m, m)` to `path`.png and .svg, or in the formats of `look`.

    Red agrees, blue is reversed, grey is unknown. Raises XaibenchError for another number of labels or a `look` too narrow
    for them, RunError where the file cannot be written.
    """
    tau = np.asarray(tau, dtype=np.float64)
    if tau.shape != (len(labels), len(labels)):
        raise XaibenchError(f"one label a row and column: got {len(labels)} labels for a matrix {tau.shape}")
    with style.style(look.font_size if look else 8):
        return _save(_matrix(tau, list(labels), title, look), Path(path), look)


def _ranks(found: Friedman, methods: list[str], title: str, unit: str, look: Look | None = None) -> Figure:
    """The figure of `critical_difference`, laid out in inches."""
    order = np.argsort(found.ranks, kind="stable")
    ranks, names = found.ranks[order], [methods[i] for i in order]
    place = {int(i): n for n, i in enumerate(order)}
    groups = [[place[i] for i in group] for group in found.groups()]
    levels = stacked([(ranks[g[0]], ranks[g[-1]]) for g in groups])
    half = math.ceil(len(names) / 2)
    size = look.font_size if look else 8.0
    small = max(size - 1, 4)
    words = [
        (f"{name}  {rank:.2f}", f"{rank:.2f}  {name}")[n >= half]
        for n, (rank, name) in enumerate(zip(ranks, names, strict=True))
    ]
    margin = max(text_width(word, small if look else size) for word in words) + (0.12 if look else 0.35)
    axis = look.width - 2 * margin if look else 5.2
    if look and axis < LEAST:
        raise XaibenchError(
            f"{look.width:g} inches are too narrow for these {len(names)} names: {2 * margin + LEAST:.1f} are needed; take "
            "--width double, a smaller --font-size, or fewer methods"
        )
    first, last = math.floor(ranks[0]), math.ceil(ranks[-1])
    if last - first < 2:
        last = first + 2
    last = max(last, first + math.ceil(found.critical_difference))  # the bar of the critical difference must fit
    bars = BAR * (max(levels, default=-1) + 1)
    em = size / style.POINTS
    head, top = (0.0, 0.3 + 3.2 * em) if look else (0.42, 0.66)  # the title; the critical difference and the ticks' labels
    foot, room = (0.04, 0.1) if look else (0.42, 0.14)
    line_height = LINE * small / 8 if look else LINE
    width, height = axis + 2 * margin, head + top + bars + room + line_height * half + foot
    figure = style.new_figure(width, height)
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set(xlim=(0, width), ylim=(0, height))
    canvas.set_axis_off()

    def x(rank: float) -> float:
        return margin + axis * (rank - first) / (last - first)

    line = height - head - top
    canvas.plot([x(first), x(last)], [line, line], color="black", linewidth=0.9, solid_capstyle="butt")
    most = min(12, axis / (3 * em))  # labels side by side
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100) if (last - first) / s <= most)
    for tick in range(first, last + 1):
        major = tick % step == 0 or step == 1
        canvas.plot([x(tick)] * 2, [line, line + (0.08 if major else 0.045)], color="black", linewidth=0.7)
        if major:
            canvas.text(x(tick), line + 0.11, str(tick), ha="center", va="bottom", fontsize=small)
    up = line + 0.18 + 2.1 * em
    ends = x(first), x(first + found.critical_difference)
    canvas.plot(ends, [up, up], color=VERMILLION, linewidth=1.6, solid_capstyle="butt")
    for end in ends:
        canvas.plot([end, end], [up - 0.04, up + 0.04], color=VERMILLION, linewidth=1.0)
    words_of_it = f"CD = {found.critical_difference:.2f}"
    beside = ends[1] + 0.06 + text_width(words_of_it, size) <= width
    canvas.text(
        ends[1] + 0.06 if beside else ends[0] - 0.06, up, words_of_it, va="center", ha="left" if beside else "right",
        color=VERMILLION,
    )  # fmt: skip
    for (a, b), level in zip([(g[0], g[-1]) for g in groups], levels, strict=True):
        y = line - BAR * (level + 1)
        canvas.plot([x(ranks[a]) - 0.03, x(ranks[b]) + 0.03], [y, y], color="black", linewidth=2.4, solid_capstyle="butt")
    for n, rank in enumerate(ranks):
        left = n < half
        row = n if left else len(names) - 1 - n  # the outermost names stand highest, so no leader crosses another
        y = line - bars - room - line_height * (row + 0.5)
        edge = margin - 0.05 if left else width - margin + 0.05
        canvas.plot([x(rank), x(rank), edge], [line, y, y], color=BLUE if left else GREY, linewidth=0.6)
        canvas.plot([x(rank)], [line], marker="o", markersize=2.4, color=BLUE if left else GREY)
        canvas.text(
            edge + (-0.05 if left else 0.05), y, words[n], ha="right" if left else "left", va="center",
            fontsize=small if look else size,
        )  # fmt: skip
    if look:
        return figure
    note = (
        f"average rank over {found.n} {unit}{'' if found.n == 1 else 's'}, 1 is best; a bar joins methods that the Nemenyi "
        f"test ({found.alpha:.0%}) does not tell apart\nFriedman, after Iman and Davenport: "
        f"{'p < 0.001' if found.p_f < 0.001 else f'p = {found.p_f:.2g}'}"
    )
    canvas.text(0.12, height - 0.12, title, va="top", weight="bold")
    canvas.text(0.12, 0.1, note, va="bottom", color="#444444", fontsize=7)
    return figure


def stacked(spans: Sequence[tuple[float, float]]) -> list[int]:
    """The first level on which each span touches no other; spans come sorted by their start.

    >>> stacked([(1, 3), (2, 4), (3.5, 5), (6, 7)])
    [0, 1, 0, 0]
    """
    ends: list[float] = []
    found = []
    for start, end in spans:
        level = next((n for n, taken in enumerate(ends) if taken < start), len(ends))
        ends[level : level + 1] = [end]
        found.append(level)
    return found


def _matrix(tau: np.ndarray, labels: list[str], title: str, look: Look | None = None) -> Figure:
    """The figure of `agreement`, laid out in inches."""
    count, size = len(labels), look.font_size if look else 8.0
    small = max(size - 1, 4)
    cell = 0.46 if count <= 14 else 0.34
    margin = max(text_width(label, small) for label in labels) + 0.15
    bar, head = (
        0.33 + 2.6 * size / style.POINTS,
        0.06 if look else 0.5,
    )  # inches of the colour bar with its words, and of the title
    if look:
        cell = min((look.width - margin - bar) / count, 0.6)
        if cell < 0.1:
            raise XaibenchError(
                f"{look.width:g} inches are too narrow for a matrix of {count} orders with names {margin:.1f} inches long; "
                "take --width double or a smaller --font-size"
            )
    side = cell * count
    width = look.width if look else max(margin + side + 0.95, text_width(title, 1.1 * size) + 0.4)
    height = side + margin + head
    figure = style.new_figure(width, height)
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    axes.set_facecolor("#DDDDDD")
    image = axes.imshow(np.ma.masked_invalid(tau), cmap=MAP, vmin=-1, vmax=1, aspect="auto")
    points = min(small, 0.85 * cell * style.POINTS / 2.4)  # "-0.85" fits its cell
    for i in range(count):
        for j in range(count):
            known = np.isfinite(tau[i, j])
            dark = known and abs(tau[i, j]) > 0.65
            text = f"{tau[i, j]:.2f}" if known else "-"
            axes.text(j, i, text, ha="center", va="center", fontsize=points, color="white" if dark else "black")
    axes.set_xticks(range(count), labels, rotation=90)
    axes.set_yticks(range(count), labels)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    place = (margin + side + 0.12) / width, margin / height, 0.1 / width, side / height
    scale = figure.colorbar(image, cax=figure.add_axes(place))
    scale.set_ticks([-1, 0, 1])
    scale.outline.set_visible(False)
    scale.set_label("Kendall's tau", labelpad=1, fontsize=style.fitted("Kendall's tau", size, side)[1])
    if not look:
        figure.text(0.1 / width, 1 - 0.12 / height, title, va="top", weight="bold")
    return figure


def _save(figure: Figure, path: Path, look: Look | None) -> list[Path]:
    """In the formats of `look`, else `path`.png and .svg for the screen."""
    return list(style.save(figure, path, look or Look(formats=("png", "svg"), dpi=style.DPI)))
