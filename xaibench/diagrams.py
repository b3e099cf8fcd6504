"""Pictures of comparisons: the critical-difference diagram and the heat map of agreeing orders. Writes PNG and SVG.

The critical-difference diagram has the form of Demsar (JMLR 7, 2006, figure 1): an axis of average ranks, best on the left,
methods on leader lines below it, and a bar over every largest group that the Nemenyi test does not tell apart. Names stand
in two columns, the better half on the left, so that forty methods remain readable; the bars lie between axis and leaders'
bends. Colours, fonts and the rule "same numbers, same file" are those of `xaibench.figures`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xaibench.comparisons import Friedman
from xaibench.errors import RunError, XaibenchError
from xaibench.figures import BLUE, DPI, GREY, VERMILLION, _figure, _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE = 0.19  # inches a name
BAR = 0.07  # inches a group's bar


def critical_difference(
    found: Friedman, methods: Sequence[str], path: Path, *, title: str = "", unit: str = "utterance"
) -> list[Path]:
    """Draw `found`, whose ranks are those of `methods`, to `path`.png and .svg. Returns both.

    unit: what a block is, for the note below. Raises XaibenchError for another number of names than ranks, RunError where
    the file cannot be written.
    """
    if len(methods) != len(found.ranks):
        raise XaibenchError(f"one name a rank: got {len(methods)} names for {len(found.ranks)} average ranks")
    with _style():
        return _save(_ranks(found, list(methods), title, unit), Path(path))


def agreement(tau: np.ndarray, labels: Sequence[str], path: Path, *, title: str = "") -> list[Path]:
    """Draw a matrix of Kendall's tau `(m, m)` to `path`.png and .svg: red agrees, blue is reversed, grey is unknown.

    Raises XaibenchError for another number of labels, RunError where the file cannot be written.
    """
    tau = np.asarray(tau, dtype=np.float64)
    if tau.shape != (len(labels), len(labels)):
        raise XaibenchError(f"one label a row and column: got {len(labels)} labels for a matrix {tau.shape}")
    with _style():
        return _save(_matrix(tau, list(labels), title), Path(path))


def _ranks(found: Friedman, methods: list[str], title: str, unit: str) -> Figure:
    """The figure of `critical_difference`, laid out in inches."""
    order = np.argsort(found.ranks, kind="stable")
    ranks, names = found.ranks[order], [methods[i] for i in order]
    place = {int(i): n for n, i in enumerate(order)}
    groups = [[place[i] for i in group] for group in found.groups()]
    levels = _levels([(ranks[g[0]], ranks[g[-1]]) for g in groups])
    half = math.ceil(len(names) / 2)
    margin = 0.075 * max(map(len, names)) + 0.75  # for a name and its rank
    axis = 5.2
    first, last = math.floor(ranks[0]), math.ceil(ranks[-1])
    if last - first < 2:
        last = first + 2
    last = max(last, first + math.ceil(found.critical_difference))  # the bar of the critical difference must fit
    bars = BAR * (max(levels, default=-1) + 1)
    head, top = 0.42, 0.66  # the title; the critical difference and the ticks' labels
    foot, room = 0.42, 0.14
    width, height = axis + 2 * margin, head + top + bars + room + LINE * half + foot
    figure = _figure(width, height)
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set(xlim=(0, width), ylim=(0, height))
    canvas.set_axis_off()

    def x(rank: float) -> float:
        return margin + axis * (rank - first) / (last - first)

    line = height - head - top
    canvas.plot([x(first), x(last)], [line, line], color="black", linewidth=0.9, solid_capstyle="butt")
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100) if (last - first) / s <= 12)
    for tick in range(first, last + 1):
        major = tick % step == 0 or step == 1
        canvas.plot([x(tick)] * 2, [line, line + (0.08 if major else 0.045)], color="black", linewidth=0.7)
        if major:
            canvas.text(x(tick), line + 0.11, str(tick), ha="center", va="bottom")
    up = line + 0.42
    ends = x(first), x(first + found.critical_difference)
    canvas.plot(ends, [up, up], color=VERMILLION, linewidth=1.6, solid_capstyle="butt")
    for end in ends:
        canvas.plot([end, end], [up - 0.04, up + 0.04], color=VERMILLION, linewidth=1.0)
    canvas.text(ends[1] + 0.06, up, f"CD = {found.critical_difference:.2f}", va="center", color=VERMILLION)
    for (a, b), level in zip([(g[0], g[-1]) for g in groups], levels, strict=True):
        y = line - BAR * (level + 1)
        canvas.plot([x(ranks[a]) - 0.03, x(ranks[b]) + 0.03], [y, y], color="black", linewidth=2.4, solid_capstyle="butt")
    for n, (rank, name) in enumerate(zip(ranks, names, strict=True)):
        left = n < half
        row = n if left else len(names) - 1 - n  # the outermost names stand highest, so no leader crosses another
        y = line - bars - room - LINE * (row + 0.5)
        edge = margin - 0.05 if left else width - margin + 0.05
        canvas.plot([x(rank), x(rank), edge], [line, y, y], color=BLUE if left else GREY, linewidth=0.6)
        canvas.plot([x(rank)], [line], marker="o", markersize=2.4, color=BLUE if left else GREY)
        canvas.text(
            edge + (-0.05 if left else 0.05), y, f"{name}  {rank:.2f}" if left else f"{rank:.2f}  {name}",
            ha="right" if left else "left", va="center",
        )  # fmt: skip
    note = (
        f"average rank over {found.n} {unit}{'' if found.n == 1 else 's'}, 1 is best; a bar joins methods that the Nemenyi "
        f"test ({found.alpha:.0%}) does not tell apart\nFriedman, after Iman and Davenport: "
        f"{'p < 0.001' if found.p_f < 0.001 else f'p = {found.p_f:.2g}'}"
    )
    canvas.text(0.12, height - 0.12, title, va="top", weight="bold")
    canvas.text(0.12, 0.1, note, va="bottom", color="#444444", fontsize=7)
    return figure


def _levels(spans: Sequence[tuple[float, float]]) -> list[int]:
    """The first level on which each span touches no other; spans come sorted by their start.

    >>> _levels([(1, 3), (2, 4), (3.5, 5), (6, 7)])
    [0, 1, 0, 0]
    """
    ends: list[float] = []
    found = []
    for start, end in spans:
        level = next((n for n, taken in enumerate(ends) if taken < start), len(ends))
        ends[level : level + 1] = [end]
        found.append(level)
    return found


def _matrix(tau: np.ndarray, labels: list[str], title: str) -> Figure:
    size = len(labels)
    cell = 0.46 if size <= 14 else 0.34
    margin = 0.075 * max(map(len, labels)) + 0.2
    side = cell * size
    width, height = max(margin + side + 0.95, 0.068 * len(title) + 0.4), side + margin + 0.5
    figure = _figure(width, height)
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    axes.set_facecolor("#DDDDDD")
    image = axes.imshow(np.ma.masked_invalid(tau), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for i in range(size):
        for j in range(size):
            known = np.isfinite(tau[i, j])
            text = f"{tau[i, j]:.2f}" if known else "-"
            dark = known and abs(tau[i, j]) > 0.65
            axes.text(
                j, i, text, ha="center", va="center", fontsize=7 if size <= 14 else 5.5, color="white" if dark else "black"
            )
    axes.set_xticks(range(size), labels, rotation=90)
    axes.set_yticks(range(size), labels)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(
        image, cax=figure.add_axes(((margin + side + 0.15) / width, margin / height, 0.1 / width, side / height))
    )
    bar.set_ticks([-1, 0, 1])
    bar.outline.set_visible(False)
    bar.set_label("Kendall's tau", labelpad=2)
    figure.text(0.1 / width, 1 - 0.12 / height, title, va="top", weight="bold")
    return figure


def _save(figure: Figure, path: Path) -> list[Path]:
    """`path`.png and .svg, without a date, a version or random names in them."""
    import matplotlib

    paths = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg")]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context({"svg.hashsalt": "xaibench"}):
            figure.savefig(paths[0], dpi=DPI, metadata={"Software": None})
            figure.savefig(paths[1], metadata={"Date": None, "Creator": None})
    except OSError as error:
        raise RunError(f"{path}: cannot write the figure here ({error.strerror}); choose another --out") from error
    return paths
