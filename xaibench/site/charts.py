"""Figures of a board as plotly's JSON (`data`, `layout`): pure functions of `content.Board` and of rows.

A colour is `var:NAME`, the page's own variable `--NAME`, which charts.js puts in and changes with the theme. Every chart has
a title, a caption, a sentence for who does not see it, and its numbers as a table where the board's does not hold them.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from xaibench.leaderboard.render import number
from xaibench.leaderboard.table import metric_facts
from xaibench.site.bands import Bands
from xaibench.site.content import Board, Line
from xaibench.stats import rank_agreement

MOST_METRICS = 40  # in the heat map of orders; the usual ones come first
MOST_COLUMNS = 24  # speakers a breakdown shows
COLOURS = {"method": "var:accent", "ceiling": "var:ceiling-fill", "sham": "var:sham-fill", "floor": "var:floor-fill"}
DIVERGING = [[0, "#0072B2"], [0.5, "#f4f4f4"], [1, "#D55E00"]]
SEQUENTIAL = "Viridis"
LEFT, RIGHT = -60.0, 150.0  # per cent of skill where an axis ends at most: an interval may be endless
ROW = 17  # pixels of a method
LONGEST = 40  # characters of a name in a chart
_INHERITED = re.compile("__.*__|constructor|hasOwnProperty|isPrototypeOf|propertyIsEnumerable|to(Locale)?String|valueOf")


@dataclass(frozen=True)
class Chart:
    """A figure of a page. alt: what it shows, in words; height: pixels; header, rows: its numbers as texts, or ()."""

    name: str
    title: str
    caption: str
    alt: str
    figure: Mapping[str, Any]
    height: int
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def skills(board: Board, metric: str) -> Chart | None:
    """Skill of every method and sham with its interval, best first; None where no method has one."""
    place = _place(board, metric)
    read = [(line, line.readings[place]) for line in board.lines if line.kind in ("method", "sham")]
    ranked = sorted(((r.skill, line, r) for line, r in read if r.skill is not None), key=lambda item: item[0])
    rows = [(line, r) for _, line, r in ranked]
    if not any(line.kind == "method" for line, _ in rows):
        return None
    column = board.columns[place]
    best = next(line.name for line, _ in reversed(rows) if line.kind == "method")
    values = [100 * skill for skill, _, _ in ranked]
    up, down = zip(*(_whiskers(skill, r.skill_low, r.skill_high) for skill, _, r in ranked), strict=True)
    trace = {
        "type": "bar", "orientation": "h", "y": [_plain(line.name) for line, _ in rows], "x": values,
        "marker": {"color": [COLOURS[line.kind] for line, _ in rows]},
        "error_x": {"type": "data", "array": up, "arrayminus": down, "color": "var:ink", "thickness": 1, "width": 2.5},
        "customdata": [f"{r.skill_words}<br>score {r.words}" for _, r in rows],
        "hovertemplate": "%{y}: %{customdata}<extra></extra>",
    }  # fmt: skip
    low = min(0.0, *(v - (d or 0) for v, d in zip(values, down, strict=True)))
    high = max(5.0, *(v + (u or 0) for v, u in zip(values, up, strict=True)))
    cut = " What is beyond the axis is cut." if low < LEFT or high > RIGHT else ""
    low, high = max(low, LEFT), min(high, RIGHT)
    layout = {
        "xaxis": {"title": {"text": "skill, %"}, "range": [low * 1.06, high * 1.06], "zeroline": True},
        "yaxis": {"type": "category", "tickmode": "linear", "automargin": True}, "bargap": 0.35, "showlegend": False,
    }  # fmt: skip
    return Chart(
        f"skill-{metric}", f"Skill by {metric}",
        f"0 % is the best control ({column.floor}), 100 % the ceiling ({column.ceiling}). Lines: 95 % intervals. Shams in "
        f"their own colour.{cut}",
        f"Bars of the skill of {len(rows)} rows by {metric}; the best method is {best}, {_skill_of(board, best, place)}.",
        {"data": [trace], "layout": layout}, 90 + ROW * len(rows),
    )  # fmt: skip


def _whiskers(skill: float, low: float | None, high: float | None) -> tuple[float | None, float | None]:
    """How far an interval reaches above and below, in per cent; None where it is unknown."""
    return (None, None) if low is None or high is None else (100 * (high - skill), 100 * (skill - low))


def cost(board: Board, metric: str) -> Chart | None:
    """Seconds an utterance (log) against skill; methods that nothing cheaper surpasses are named."""
    place = _place(board, metric)
    known = ((line, line.seconds, line.readings[place].skill) for line in board.methods)
    timed = sorted(((line, t, s) for line, t, s in known if t and s is not None), key=lambda item: (item[1], -item[2]))
    points = [(line, s) for line, _, s in timed]
    if len(points) < 2:
        return None
    front: list[str] = []
    best = -math.inf
    for line, skill in points:
        if skill > best:
            front.append(line.name)
            best = skill
    ends = [math.log10(timed[0][1]) - 0.6, math.log10(timed[-1][1]) + 0.4]  # room for the names
    trace = {
        "type": "scatter", "mode": "markers+text", "x": [line.seconds for line, _ in points],
        "y": [100 * s for _, s in points],
        "text": [_plain(line.name) if line.name in front else "" for line, _ in points], "textposition": "top center",
        "textfont": {"size": 11, "color": "var:ink"}, "cliponaxis": False,
        "hovertext": [
            f"{_plain(line.name)}<br>{line.cost} s an utterance<br>skill {line.readings[place].skill_words}"
            for line, _ in points
        ],
        "hoverinfo": "text",
        "marker": {
            "size": 9, "line": {"width": 1, "color": "var:paper"},
            "color": ["var:spoof-fill" if line.name in front else "var:accent" for line, _ in points],
        },
    }  # fmt: skip
    layout = {
        "xaxis": {
            "type": "log", "title": {"text": "seconds per utterance"}, "exponentformat": "power", "dtick": 1, "range": ends,
        },
        "yaxis": {"title": {"text": f"skill by {_plain(metric)}, %"}, "zeroline": True}, "showlegend": False,
    }  # fmt: skip
    return Chart(
        f"cost-{metric}", f"What skill by {metric} costs",
        "Time is of this machine, on a log scale. Named, in orange: no cheaper method has more skill.",
        f"{len(points)} methods by seconds an utterance and skill. No cheaper method has more skill than "
        f"{', '.join(front)}.",
        {"data": [trace], "layout": layout}, 420,
    )  # fmt: skip


def orders(board: Board) -> Chart | None:
    """Kendall's tau-b between the orders of the methods by every two metrics; None with fewer than two or three methods."""
    columns = board.columns[:MOST_METRICS]
    signs = [1.0 if c.direction == "higher" else -1.0 for c in columns]
    scores = [
        np.array([math.nan if (v := line.readings[i].value) is None else sign * v for line in board.methods])
        for i, sign in enumerate(signs)
    ]
    names = [c.metric for c in columns]
    shown = [_plain(n) for n in names]
    if len(names) < 2 or len(board.methods) < 3:
        return None
    tau = [[rank_agreement(a, b).tau for b in scores] for a in scores]
    words = [["-" if math.isnan(v) else f"{v:+.2f}" for v in row] for row in tau]
    trace = {
        "type": "heatmap", "x": shown, "y": shown, "z": [[None if math.isnan(v) else v for v in row] for row in tau],
        "zmin": -1, "zmax": 1, "colorscale": DIVERGING, "xgap": 1, "ygap": 1,
        "hovertemplate": "%{y} and %{x}: tau %{z:.2f}<extra></extra>", "hoverongaps": False,
        "colorbar": {"title": {"text": "tau"}, "thickness": 12, "len": 0.6, "tickvals": [-1, 0, 1]},
    }  # fmt: skip
    layout = {
        "xaxis": {"type": "category", "tickangle": -90, "automargin": True, "tickmode": "linear", "showgrid": False},
        "yaxis": {"type": "category", "autorange": "reversed", "automargin": True, "tickmode": "linear", "showgrid": False},
    }  # fmt: skip
    more = f" The first {MOST_METRICS} of {len(board.columns)} metrics." if len(board.columns) > MOST_METRICS else ""
    return Chart(
        "orders", "Do the metrics order the methods alike?",
        f"Kendall's tau of the methods' orders by every two metrics: +1 the same order, 0 unrelated, -1 reversed.{more}",
        f"A matrix of rank agreement among {len(names)} metrics; the table below has its numbers.",
        {"data": [trace], "layout": layout}, 260 + 22 * len(names),
        ("metric", *names), tuple((n, *row) for n, row in zip(names, words, strict=True)),
    )  # fmt: skip


def breakdown(board: Board, rows: pd.DataFrame, metric: str, by: str) -> Chart | None:
    """Mean score of every method by vocoder or speaker. rows: the section's; None where there is one group only."""
    part = rows[rows["metric"].eq(metric) & rows["status"].eq("ok")]
    if part.empty:
        return None
    part = part.assign(**{c: part[c].astype(str) for c in ("attributor", by)})
    table = part.pivot_table(index="attributor", columns=by, values="value", aggfunc="mean")
    counts = part.drop_duplicates(["attributor", by, "utterance", "vocoder"]).groupby(by).size() / table.shape[0]
    if table.shape[1] < 2 or "" in table.columns:
        return None
    dropped = table.shape[1] - MOST_COLUMNS
    table = table[list(counts.sort_values(ascending=False, kind="stable").index[:MOST_COLUMNS])].sort_index(axis=1)
    place = _place(board, metric)
    lines = [line for line in board.lines if line.name in table.index and line.kind != "ceiling"]
    sign = 1.0 if metric_facts(metric).direction == "higher" else -1.0
    lines.sort(key=lambda line: (line.kind != "method", -sign * (line.readings[place].value or 0.0)))
    values = table.loc[[line.name for line in lines]].to_numpy()
    labels = [_label(line) for line in lines]
    columns = [_plain(c) for c in table.columns]
    low, high = (float(np.nanpercentile(values, q)) for q in (5, 95))  # one far cell would blank the rest
    trace = {
        "type": "heatmap", "x": columns, "y": labels, "z": [[None if math.isnan(v) else v for v in row] for row in values],
        "colorscale": SEQUENTIAL, "reversescale": sign < 0, "zmin": low, "zmax": max(high, low + 1e-9), "ygap": 1, "xgap": 1,
        "hovertemplate": "%{y}, %{x}: %{z:.3g}<extra></extra>", "hoverongaps": False,
        "colorbar": {"thickness": 12, "len": 0.5, "title": {"text": "score"}},
    }  # fmt: skip
    layout = {
        "xaxis": {"side": "top", "type": "category", "automargin": True, "showgrid": False},
        "yaxis": {"type": "category", "autorange": "reversed", "automargin": True, "tickmode": "linear", "showgrid": False},
    }  # fmt: skip
    means = (sign * table.loc[[line.name for line in lines if line.kind == "method"]]).mean()
    ends = f" On average methods score best on {means.idxmax()}, worst on {means.idxmin()}." if means.notna().any() else ""
    more = f" The {MOST_COLUMNS} with most utterances, of {MOST_COLUMNS + dropped}." if dropped > 0 else ""
    size = "" if table.shape[1] > 8 else " Pairs: " + ", ".join(f"{c} {counts[c]:.0f}" for c in table.columns) + "."
    return Chart(
        f"{by}-{metric}", f"{metric} by {by}",
        f"Mean score, yellow is better; colours end at the 5th and 95th percentile.{size}{more}",
        f"Scores of {len(lines)} rows by {metric} for {len(columns)} {by}s.{ends} The table below has the "
        "numbers.",
        {"data": [trace], "layout": layout}, 130 + ROW * len(lines),
        ("attributor", *table.columns),
        tuple((line.name, *(number(v) for v in row)) for line, row in zip(lines, values, strict=True)),
    )  # fmt: skip


def frequency(board: Board, found: Bands) -> Chart:
    """The share of every method's top cells in each frequency band; the truth stands first."""
    kinds = {line.name: line for line in board.lines}
    names = [n for n in kinds if n in found.shares and n != "oracle"]
    distance = {n: sum(abs(a - b) for a, b in zip(found.shares[n], found.truth, strict=True)) / 2 for n in names}
    names.sort(key=lambda n: (kinds[n].kind != "method", distance[n]))
    values = [found.truth, *(found.shares[n] for n in names)]
    top = max(100 * float(np.percentile(values, 95)), 100 * max(found.truth))  # one band may hold all of a method's cells
    labels = ["<b>the truth</b>", *(_label(kinds[n]) for n in names)]
    trace = {
        "type": "heatmap", "x": list(found.labels), "y": labels, "z": [[100 * v for v in row] for row in values],
        "colorscale": SEQUENTIAL, "xgap": 1, "ygap": 1, "zmin": 0, "zmax": top,
        "hovertemplate": "%{y}, %{x} kHz: %{z:.0f} %<extra></extra>",
        "colorbar": {"thickness": 12, "len": 0.5, "title": {"text": "%"}},
    }  # fmt: skip
    layout = {
        "xaxis": {"side": "top", "type": "category", "title": {"text": "kHz"}, "automargin": True, "showgrid": False},
        "yaxis": {"type": "category", "autorange": "reversed", "automargin": True, "tickmode": "linear", "showgrid": False},
    }  # fmt: skip
    peak = found.labels[int(np.argmax(found.truth))]
    seen = f"{found.pairs} of {found.total} pairs" if found.pairs < found.total else _pairs(found.pairs)
    blind = f" Not shown, as they do not tell frequencies apart: {', '.join(found.blind)}." if found.blind else ""
    near = f" Closest to the truth in this: {names[0]}." if names else ""
    return Chart(
        "bands", "Where in frequency the methods look",
        f"Share of the top cells in each band, over {seen}; as many cells as the truth has. Methods whose shares are "
        f"closest to the truth's come first; colours end at {top:.0f} %.{blind}",
        f"Shares of top cells by frequency band for {len(names)} rows and the truth, most of whose cells lie at {peak} kHz."
        f"{near} The table below has the numbers.",
        {"data": [trace], "layout": layout}, 130 + ROW * len(labels),
        ("attributor, % of top cells", *(f"{label} kHz" for label in found.labels)),
        tuple((n, *(f"{100 * v:.0f}" for v in row)) for n, row in zip(["the truth", *names], values, strict=True)),
    )  # fmt: skip


def _place(board: Board, metric: str) -> int:
    return next(i for i, column in enumerate(board.columns) if column.metric == metric)


def _skill_of(board: Board, name: str, place: int) -> str:
    return next(line.readings[place].skill_words for line in board.lines if line.name == name)


def _plain(name: str) -> str:
    """A name as plotly shows it: it reads a few HTML elements in texts, so that `<` must be written out.

    A long name is cut, and told from others by its hash; one that all objects of JavaScript have (plotly keeps the names of
    an axis in an object) gets a sign without width.

    >>> _plain("<b>"), len(_plain("x" * 99)), _plain("constructor") == "constructor\u200b"
    ('&lt;b&gt;', 40, True)
    """
    if len(name) > LONGEST:
        name = f"{name[: LONGEST - 6]}… {hashlib.sha256(name.encode()).hexdigest()[:4]}"
    name += "\u200b" if _INHERITED.fullmatch(name) else ""
    for sign, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("$", "&#36;")):  # $x$ would ask for MathJax
        name = name.replace(sign, written)
    return name


def _label(line: Line) -> str:
    return _plain(line.name) if line.kind == "method" else f"<i>{_plain(line.name)}</i>"


def _pairs(count: int) -> str:
    return f"{count} pair{'' if count == 1 else 's'}"
