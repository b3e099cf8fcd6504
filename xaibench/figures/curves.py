"""Deletion and insertion curves: the spoof log-odds while a method's cells go, or come, in their order.

A curve is the mean over pairs (source x vocoder), the same pairs for every method drawn; its band is the 95 % interval of
that mean at each fraction, clustered by source utterance (`xaibench.stats`), and so pointwise. `scale="gap"` draws the share
of the gap between an utterance and its twin that is left, a ratio of two means with Fieller's interval: what utterances
differ in from the start is not in it, so the bands are the method's, and the ends are 100 and 0 %.

A deletion curve that falls early, and an insertion curve that rises early, is a faithful order. Floors are dashed, ceilings
(the truth, the optimised order) dotted and without bands; one that lies far beyond the methods leaves the axes. The curves
are those that `xaibench run --keep-maps` kept beside the maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xaibench import maps, registry
from xaibench.errors import RunError, XaibenchError
from xaibench.figures import style
from xaibench.figures.style import GREY, LINES, MARKERS, Look, Picture
from xaibench.leaderboard.table import kind, read_rows
from xaibench.stats import Batch

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.typing import LineStyleType

DIRECTIONS = ("deletion", "insertion")
SCALES = ("log-odds", "gap")
MOST = len(LINES)  # methods with a colour of their own
BEST, WORST = 5, 3  # of more methods
_UNITS = {
    "log-odds": "Spoof score: the countermeasure's score with its sign turned, so above 0 it leans to spoof.",
    "gap": "The gap is that between an utterance's score and its twin's: a ratio of means, with Fieller's intervals.",
}
#: Floors are dashed, ceilings dotted, each in its own way.
DASHES: dict[str, list[LineStyleType]] = {
    "floor": [(0, (4, 2)), (0, (7, 2, 1.5, 2)), (0, (2, 1))],
    "ceiling": [(0, (1, 1)), (0, (1, 3))],
    "sham": [(0, (5, 1, 1, 1, 1, 1))],
}


@dataclass(frozen=True, eq=False)
class Curves:
    """Curves of one countermeasure and route: `values` by attributor, `(P, S)` spoof log-odds at `fractions` `(S,)`.

    pairs: of the P rows, (source, vocoder).
    """

    countermeasure: str
    route: str
    fractions: np.ndarray
    pairs: tuple[tuple[str, str], ...]
    values: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Line:
    """A curve on paper: `mean`, `low` and `high` `(S,)`; the ends are NaN where one utterance says nothing of others."""

    name: str
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def draw_curves(
    runs: Sequence[Path], out: Path, *, xai: Sequence[str] = (), curve: str = "deletion-twin", scale: str = "log-odds",
    look: Look | None = None,
) -> list[Picture]:  # fmt: skip
    """A picture for each countermeasure and route of runs that kept curves.

    xai: the methods, at most `MOST`; by default all, or of more the `BEST` best and `WORST` worst. Controls: the best floor,
    random, and the ceilings; one that `xai` names is drawn, too. curve: direction and fill, as the run kept it.

    Raises RunError where no run kept that curve, saying how to get it, XaibenchError for unknown names.
    """
    direction, _, fill = curve.partition("-")
    if direction not in DIRECTIONS or scale not in SCALES:
        wrong, known = (curve, DIRECTIONS) if direction not in DIRECTIONS else (scale, SCALES)
        raise XaibenchError(registry.unknown("direction" if wrong == curve else "scale", wrong, list(known)))
    if scale == "gap" and fill != "twin":
        raise XaibenchError(f"the gap is that between an utterance and its twin; --fill {fill} has no scale but log-odds")
    pictures, look = [], look or Look()
    for found in read_curves(runs, curve):
        chosen, note = _chosen(found, xai, direction, fill)
        lines = _lines(found, chosen, direction, scale)
        label = {"log-odds": "spoof score (log-odds)", "gap": "share of the score's gap left (%)"}[scale]
        label = "share of the score's gap regained (%)" if (scale, direction) == ("gap", "insertion") else label
        words = [found.countermeasure, found.route, curve, *(["gap"] if scale == "gap" else [])]
        with style.style(look.font_size):
            figure = _figure(found.fractions, lines, _axis(direction, fill), label, look)
            paths = style.save(figure, Path(out) / "__".join(["curves", *map(maps.component, words)]), look)
        sources = len({source for source, _ in found.pairs})
        pictures.append(
            Picture(
                paths,
                f"{direction.capitalize()} curves of {found.countermeasure}, {found.route} route, {fill} fill: means over "
                f"{len(found.pairs)} pairs of {sources} utterances; bands: pointwise 95 % intervals, clustered by source "
                f"utterance. {_UNITS[scale]}{note}",
            )
        )
    return pictures


def read_curves(runs: Sequence[Path], curve: str) -> list[Curves]:
    """The curves that runs kept, one a countermeasure and route; attributors that lack most pairs are left out.

    Raises RunError where there is none, or runs that cannot share a table or ask at different fractions.
    """
    if len(runs) > 1:
        read_rows(runs, encoded=True)  # refuses to mix two trainings, data sets or truths
    found: dict[tuple[str, str], dict[str, dict[tuple[str, str], np.ndarray]]] = {}
    fractions: np.ndarray | None = None
    others: set[str] = set()
    for run in map(Path, runs):
        if not run.is_dir():
            raise RunError(f"{run}: no such folder; expected the --out of `xaibench run --keep-maps`")
        for one in maps.kept(run):
            kept = maps.read_curves(one.path)
            others |= set(kept) - {"fractions"}
            if curve not in kept:
                continue
            if fractions is not None and not np.array_equal(fractions, kept["fractions"]):
                raise RunError(
                    f"{run}: curves at other fractions than the first of these; another --preset? draw each alone"
                )
            fractions = kept["fractions"]
            mine = found.setdefault((one.countermeasure, one.route), {}).setdefault(one.attributor, {})
            mine.setdefault(maps.split_pair(one.pair), kept[curve])
    if fractions is None:
        some = f"; there are {', '.join(sorted(others))}" if others else ""
        raise RunError(
            f"{', '.join(map(str, runs))}: no {curve} curve was kept{some}; `xaibench run --keep-maps` with the metric "
            f"{curve} keeps it (runs of before curves were kept: run again to another --out)"
        )
    return [_common(*key, fractions, by_name) for key, by_name in sorted(found.items())]


def _common(
    cm: str, route: str, fractions: np.ndarray, by_name: Mapping[str, Mapping[tuple[str, str], np.ndarray]]
) -> Curves:
    """The pairs that all have, of attributors with at least half of the most pairs: means of others are of other speech."""
    most = max(map(len, by_name.values()))
    kept = {name: curves for name, curves in sorted(by_name.items()) if 2 * len(curves) >= most}
    pairs = sorted(set.intersection(*(set(curves) for curves in kept.values())))
    if not pairs:
        raise RunError(f"{cm}, {route} route: no pair has a curve of every attributor; name some with --xai")
    values = {name: np.stack([curves[pair] for pair in pairs]) for name, curves in kept.items()}
    return Curves(cm, route, fractions, tuple(pairs), values)


def _area(found: Curves, name: str, direction: str) -> float:
    """Area under the mean curve, smaller is better."""
    area = float(np.trapezoid(found.values[name].mean(axis=0), found.fractions))
    return area if direction == "deletion" else -area


def _chosen(found: Curves, xai: Sequence[str], direction: str, fill: str) -> tuple[list[str], str]:
    """Names to draw, best first, and what the caption says of the others."""
    for name in xai:
        if name not in found.values:
            raise XaibenchError(registry.unknown(f"method with {direction} curves", name, sorted(found.values)))
    order = sorted(found.values, key=lambda name: (_area(found, name, direction), name))
    methods = [name for name in order if kind(name) == "method"]
    floors = [name for name in order if kind(name) == "floor"]
    controls = {*floors[:1], "random", "oracle", f"extremal-{fill}", *xai}
    note = ""
    if xai:
        methods = [name for name in methods if name in xai]
        if len(methods) > MOST:
            raise XaibenchError(f"{len(methods)} methods: at most {MOST} can be told apart by colour; name fewer with --xai")
    elif len(methods) > MOST:
        note = f" Of {len(methods)} methods the {BEST} best and {WORST} worst by the area under the curve."
        methods = methods[:BEST] + methods[-WORST:]
    return [name for name in order if name in methods or (kind(name) != "method" and name in controls)], note


def _lines(found: Curves, names: Sequence[str], direction: str, scale: str) -> list[Line]:
    """Means and bands, of one batch of resamples: every point of every curve has the same pairs."""
    _, owner = np.unique([source for source, _ in found.pairs], return_inverse=True)
    batch, asked = Batch(), []
    for name in names:
        values = found.values[name]
        if scale == "gap":
            start, end = (0, -1) if direction == "deletion" else (-1, 0)
            gap = values[:, start] - values[:, end]
            asked.append([batch.ratio(values[:, s] - values[:, end], gap, owner) for s in range(values.shape[1])])
        else:
            asked.append([batch.mean(np.ascontiguousarray(values[:, s]), owner) for s in range(values.shape[1])])
    intervals = batch.intervals()
    factor = 100.0 if scale == "gap" else 1.0
    points = [factor * np.array([intervals[place] for place in places]).T for places in asked]
    return [Line(name, *three) for name, three in zip(names, points, strict=True)]


def _axis(direction: str, fill: str) -> str:
    done = "deleted" if direction == "deletion" else "inserted"
    into = "replaced by" if direction == "deletion" else "over"
    what = {"twin": "the twin's", "mean": "the frequency's mean"}.get(fill, fill)
    return f"cells {done} (%), {into} {what}"


def _looks(lines: Sequence[Line]) -> dict[str, dict[str, Any]]:
    """Colour, mark and dashes of every line, by name; `lines` best first, so the best has the first colour."""
    found: dict[str, dict[str, Any]] = {}
    counts = dict.fromkeys(("method", "ceiling", "floor", "sham"), 0)
    for line in lines:
        which = kind(line.name)
        n = counts[which]
        counts[which] += 1
        if which == "method":
            found[line.name] = {"color": LINES[n % MOST], "marker": MARKERS[n % MOST], "zorder": 4}
        else:
            colour = "black" if which == "ceiling" else GREY
            found[line.name] = {"color": colour, "linestyle": DASHES[which][n % len(DASHES[which])], "zorder": 3}
    return found


def _figure(fractions: np.ndarray, lines: Sequence[Line], below: str, beside: str, look: Look) -> Figure:
    """Curves, and to their right the names in the order in which the curves lie where they are widest apart."""
    size, em = look.font_size, look.font_size / style.POINTS
    small = max(size - 1, 4)
    inner = [line for line in lines if kind(line.name) != "ceiling"] or list(lines)
    low, high = _ends(inner)
    apart = np.ptp(np.stack([line.mean for line in inner]), axis=0)
    there = np.array([line.mean[int(apart.argmax())] for line in lines])
    gone = ["" if low <= y <= high else " ↓" if y < low else " ↑" for y in there]
    names = [style.fitted(line.name + mark, small, 0.3 * look.width) for line, mark in zip(lines, gone, strict=True)]
    column = max(style.text_width(*name) for name in names) + 3.2 * em
    left, bottom, top = 4.6 * em, 2.3 * em + 0.16, 0.7 * em
    wide = look.width - left - column - 0.5 * em
    step = 1.35 * small / style.POINTS
    tall = max(min(0.85 * wide, 2.8), step * len(lines) + 0.1, style.text_width(beside, size) + 0.1)
    height = tall + bottom + top
    figure = style.new_figure(look.width, height)
    axes = figure.add_axes((left / look.width, bottom / height, wide / look.width, tall / height))
    x, looks = 100 * fractions, _looks(lines)
    for line in reversed(lines):
        if kind(line.name) == "method":
            colour = looks[line.name]["color"]
            axes.fill_between(x, line.low, line.high, color=colour, alpha=0.1, linewidth=0, zorder=1)
            for edge in (line.low, line.high):  # of overlapping bands the edges can still be followed
                axes.plot(x, edge, color=colour, alpha=0.6, linewidth=0.35, zorder=2)
        axes.plot(x, line.mean, linewidth=1.1, markersize=3, markeredgewidth=0, **looks[line.name])
    axes.set(xlim=(0, 100), ylim=(low, high), ylabel=beside)
    axes.set_xlabel(below, fontsize=style.fitted(below, size, wide + left)[1])
    axes.locator_params(axis="y", nbins=7)
    style.quiet(axes)
    for i, y in enumerate(spread([(y - low) / (high - low) * tall for y in there], step, tall)):
        start, end = wide + 0.7 * em, wide + 2.7 * em
        axes.plot(
            [start / wide, (start + end) / 2 / wide, end / wide], [y / tall] * 3, transform=axes.transAxes, clip_on=False,
            linewidth=1.1, markersize=3, markeredgewidth=0, markevery=[1], **looks[lines[i].name],
        )  # fmt: skip
        axes.text(
            (end + 0.4 * em) / wide, y / tall, names[i][0], transform=axes.transAxes, va="center", fontsize=names[i][1]
        )
    return figure


def _ends(inner: Sequence[Line]) -> tuple[float, float]:
    """Ends of the axis: what holds every mean, and of the bands as much as leaves the means three fifths of it."""
    means = np.concatenate([line.mean for line in inner])
    methods = (line for line in inner if kind(line.name) == "method")
    bands = np.concatenate([end for line in methods for end in (line.low, line.high)] or [means])
    low, high = float(means.min()), float(means.max())
    room = (high - low or 1.0) / 3
    bands = bands[np.isfinite(bands)]
    if len(bands):
        low, high = max(min(low, float(bands.min())), low - room), min(max(high, float(bands.max())), high + room)
    margin = 0.03 * (high - low or 1.0)
    return low - margin, high + margin


def spread(wanted: Sequence[float], step: float, most: float) -> list[float]:
    """Heights at least `step` apart and within 0 and `most`, in the order of those wanted and as near as that allows.

    >>> spread([1.0, 1.0, 5.0], 1.0, 10.0)
    [0.5, 1.5, 5.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[tuple[list[int], float]] = []  # members from below, and the height of the middle

    def middle(members: Sequence[int]) -> float:
        room = step * len(members) / 2
        return min(max(float(np.mean([wanted[i] for i in members])), room), max(most - room, room))

    for i in order:
        members = [i]
        while groups and groups[-1][1] + step * (len(groups[-1][0]) + len(members)) / 2 > middle(members):
            members = groups.pop()[0] + members
        groups.append((members, middle(members)))
    heights = [0.0] * len(wanted)
    for members, height in groups:
        for place, i in enumerate(members):
            heights[i] = height + step * (place - (len(members) - 1) / 2)
    return heights
