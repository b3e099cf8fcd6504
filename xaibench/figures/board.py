"""A board as bars with their 95 % intervals: ceiling, methods, shams and floors in blocks of their own.

Methods are sorted by the first metric. The dashed line is the best floor, the dotted one chance; of skill the floor is 0 and
the ceiling 100 %. What lies far beyond all else is cut: the ceiling's bar, with its value on it, and the end of an interval
far longer than the methods are apart, with an arrow. Intervals are the board's (`xaibench.leaderboard.table`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from xaibench import maps, registry
from xaibench.errors import XaibenchError
from xaibench.figures import style
from xaibench.figures.style import GREY, KINDS, VERMILLION, Look, Picture
from xaibench.leaderboard.table import SECTION, metric_facts, metrics_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLOCKS = {"ceiling": "ceiling", "method": "methods", "sham": "shams", "floor": "floors"}
REACH = 1.5  # how far an interval may widen the axis, in spans of the values
SKILL = "_skill"


def board_bars(board: pd.DataFrame, out: Path) -> list[Path]:
    """A board for the screen, alignment left and faithfulness right: one PNG a section, in the folder `out`."""
    paths = []
    for facts, part in _sections(board):
        chosen = _usual(board)
        name = "__".join(maps.component(facts[k]) for k in ("dataset", "truth", "countermeasure", "route"))
        with style.style():
            figure = _bars(part, chosen, width=4.2 + 2.6 * len(chosen), size=8, title=_title(part.iloc[0]))
            paths.append(style.save_as(figure, Path(out) / f"board__{name}.png"))
    return paths


def draw_board(
    board: pd.DataFrame, out: Path, *, metrics: Sequence[str] = (), skill: bool = False, look: Look | None = None
) -> list[Picture]:
    """A board for a page: one picture a section, a panel a metric, in the folder `out`.

    metrics: of the board; by default its first of each kind, in one column the first alone. skill: the share of the way from
    the best floor to the ceiling, in place of the score.

    Raises XaibenchError for a metric that the board lacks, and where no row of a section has a skill.
    """
    look = look or Look()
    known = metrics_of(board)
    for name in metrics:
        if name not in known:
            raise XaibenchError(registry.unknown("metric of this board", name, known))
    pictures = []
    for facts, part in _sections(board):
        usual = _usual(board)
        chosen = [m for m in metrics or usual if m in metrics_of(part)] or usual
        if not metrics and look.width < style.DOUBLE - 1:
            chosen = chosen[:1]
        if skill and part[[m + SKILL for m in chosen]].isna().all(axis=None):
            raise XaibenchError(
                f"{', '.join(chosen)}: no row of {facts['countermeasure']} has a skill, for want of a ceiling above a "
                "floor; draw the scores, without --skill"
            )
        names = [*(facts[k] for k in SECTION), *chosen, *(["skill"] if skill else [])]
        with style.style(look.font_size):
            figure = _bars(part, chosen, skill=skill, width=look.width, size=look.font_size)
            paths = style.save(figure, Path(out) / "__".join(["board", *map(maps.component, names)]), look)
        pictures.append(Picture(paths, _caption(part, chosen, skill)))
    return pictures


def _sections(board: pd.DataFrame) -> list[tuple[dict[str, str], pd.DataFrame]]:
    return [(dict(zip(SECTION, map(str, key), strict=True)), part) for key, part in board.groupby(list(SECTION), sort=True)]


def _usual(board: pd.DataFrame) -> list[str]:
    """The board's first metric of localisation and of faithfulness, or its first."""
    metrics = metrics_of(board)
    first = [next((m for m in metrics if metric_facts(m).family == f), None) for f in ("localisation", "faithfulness")]
    return [m for m in first if m] or metrics[:1]


def _bars(
    part: pd.DataFrame, chosen: Sequence[str], *, width: float, size: float, skill: bool = False, title: str = ""
) -> Figure:
    """One section, laid out in inches: a line a row and a line a block's heading."""
    lead = chosen[0]
    sign = -1.0 if metric_facts(lead).direction == "higher" else 1.0
    rank = part["kind"].map({name: i for i, name in enumerate(BLOCKS)})
    part = part.assign(_k=rank, _v=sign * part[lead]).sort_values(["_k", "_v", "attributor"], na_position="last")
    line = 1.26 * size / style.POINTS
    blocks = [name for name in BLOCKS if part["kind"].eq(name).any()]
    y = -np.array([1.35 * (1 + blocks.index(k)) + i for i, k in enumerate(part["kind"])])
    small = max(size - 1, 4)
    room = 0.45 * width if len(chosen) == 1 else 0.3 * width
    names = [style.fitted(name, small, room) for name in part["attributor"]]
    left = max(style.text_width(*each) for each in names) + 0.12
    head = 0.06 + (0.3 if title else 0.0)
    foot = 0.2 + 4.2 * size / style.POINTS
    tall = line * (1.2 - y.min())
    height = head + tall + foot
    figure = style.new_figure(width, height)
    gap, right = 0.22, 0.12
    wide = (width - left - right - gap * (len(chosen) - 1)) / len(chosen)
    for n, metric in enumerate(chosen):
        at = (left + n * (wide + gap)) / width, foot / height, wide / width, tall / height
        axes = figure.add_axes(at)
        _panel(axes, part, metric, y, SKILL if skill else "", size)
        axes.set(ylim=(y.min() - 0.8, 0.4))
        axes.set_yticks(y, [""] * len(y))
        axes.tick_params(axis="y", length=0)
        style.quiet(axes)
        axes.grid(False, axis="y")
        if n == 0:
            for (name, points), place in zip(names, y, strict=True):
                axes.annotate(
                    name, (0, place), xytext=(-4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                    ha="right", va="center", fontsize=points,
                )  # fmt: skip
            for k in blocks:
                first = y[part["kind"].eq(k).to_numpy()].max()
                axes.annotate(
                    BLOCKS[k], (0, first + 1.05), xytext=(-4, 0), xycoords=("axes fraction", "data"),
                    textcoords="offset points", ha="right", va="center", fontsize=small, color=GREY, style="italic",
                )  # fmt: skip
        for k in blocks[1:]:
            axes.axhline(y[part["kind"].eq(k).to_numpy()].max() + 1.62, color="#BBBBBB", linewidth=0.5)
    _key(figure, chosen, skill, small)
    if title:
        figure.text(0.12 / width, 1 - 0.1 / height, title, va="top", weight="bold", fontsize=size + 1)
    return figure


def _panel(axes: Axes, part: pd.DataFrame, metric: str, y: np.ndarray, what: str, size: float) -> None:
    facts, scale = metric_facts(metric), 100.0 if what else 1.0
    means, lows, highs = (scale * part[f"{metric}{what}{end}"].to_numpy() for end in ("", "_low", "_high"))
    low, high = _limits(part, metric, what)
    low, high = scale * low, scale * high
    colours = part["kind"].map(KINDS).to_numpy()
    axes.barh(y, np.clip(means, low, high), color=colours, height=0.72)
    for place, mean, a, b in zip(y, means, lows, highs, strict=True):
        if math.isnan(mean):
            axes.text(max(low, 0), place, " no value", va="center", fontsize=size - 2, color=GREY)
        elif not low <= mean <= high:
            end, side = (high, "right") if mean > high else (low, "left")
            axes.text(end, place, f" {mean:.3g} ", va="center", ha=side, fontsize=size - 2, color="white", weight="bold")
        elif not math.isnan(a):
            axes.plot([max(a, low), min(b, high)], [place, place], color="black", linewidth=0.8, solid_capstyle="butt")
            for end, beyond, mark in ((low, a < low, 4), (high, b > high, 5)):
                if beyond:  # carets left and right
                    axes.plot([end], [place], marker=mark, markersize=3, color="black", clip_on=False)
    if what:
        axes.axvline(0, color="black", linewidth=0.8, linestyle="--")
        axes.axvline(100, color="black", linewidth=0.8, linestyle="-.") if high >= 100 else None
    else:
        floors = part.loc[part["kind"].eq("floor"), metric].dropna()
        if not floors.empty:
            best = floors.max() if facts.direction == "higher" else floors.min()
            axes.axvline(best, color="black", linewidth=0.8, linestyle="--")
        if facts.chance is not None:
            axes.axvline(facts.chance, color=VERMILLION, linewidth=1.0, linestyle=":")
    axes.set_xlim(low, high)
    axes.locator_params(axis="x", nbins=5)
    arrow = "→" if facts.direction == "higher" else "←"
    axes.set_xlabel(f"skill in {metric} (%)" if what else f"{metric} ({arrow} better)", labelpad=2)


def _key(figure: Figure, chosen: Sequence[str], skill: bool, size: float) -> None:
    from matplotlib.lines import Line2D

    dash = Line2D([], [], color="black", linewidth=0.8, linestyle="--", label="floor" if skill else "best floor")
    handles = [dash]
    if not skill and any(metric_facts(m).chance is not None for m in chosen):
        handles.append(Line2D([], [], color=VERMILLION, linewidth=1.0, linestyle=":", label="chance"))
    handles.append(Line2D([], [], color="black", linewidth=0.8, label="95 % interval"))
    figure.legend(
        handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=size, borderaxespad=0.2,
        handlelength=1.8, columnspacing=1.2, handletextpad=0.5,
    )  # fmt: skip


def _limits(part: pd.DataFrame, metric: str, what: str = "") -> tuple[float, float]:
    """Axis limits that show the methods and floors; a ceiling may fall outside, and so may the end of a long interval."""
    inner = part[~part["kind"].eq("ceiling")]
    values = inner[f"{metric}{what}"].dropna()
    ends = pd.concat([inner[f"{metric}{what}_low"], inner[f"{metric}{what}_high"]]).dropna()
    if values.empty:
        return 0.0, 1.0
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    span = REACH * ((high - low) or 1.0)
    if not ends.empty:
        low, high = min(low, max(float(ends.min()), low - span)), max(high, min(float(ends.max()), high + span))
    room = 0.06 * (high - low or 1.0)
    return (low - room if low < 0 else 0.0), (high + room if high > 0 else 0.0)


def _title(row: pd.Series) -> str:
    eer = "EER unknown" if math.isnan(row["eer"]) else f"EER {row['eer']:.1%}"
    return (
        f"{row['countermeasure']} ({eer}), {row['route']} route, truth {row['truth']}: {row['utterances']} utterances x "
        f"{row['vocoders']} vocoders"
    )


def _caption(part: pd.DataFrame, chosen: Sequence[str], skill: bool) -> str:
    row = part.iloc[0]
    words = f"{', '.join(chosen)} of {_title(row)}, {row['pairs']} pairs of {row['dataset']}"
    if skill:
        ends = "; ".join(f"{m}: {row[f'{m}_floor']} is 0, {row[f'{m}_ceiling']} is 100 %" for m in chosen)
        words = f"Skill in {words} ({ends})"
    return f"{words}. Bars: means; black: 95 % intervals, clustered by source utterance; methods sorted by {chosen[0]}."
