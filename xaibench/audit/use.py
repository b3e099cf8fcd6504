"""Does the countermeasure use the truth region? Deleting it must do more than deleting as much elsewhere.

The fall of the score is a share of the gap between the halves of the pair (`drop-twin`, `drop-silence`), so it is an effect
size of its own: 1 is the whole difference between fake and real.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from xaibench.audit.runs import clusters, scores
from xaibench.audit.section import Section, per_cent
from xaibench.leaderboard.table import SHAMS
from xaibench.stats import cluster_bootstrap, paired_difference
from xaibench.truth import DIFFERENCES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = (
    "The truth says where the vocoder changed the speech, not what the countermeasure listens to. If it listens there, then "
    "replacing the truth's region by the same cells of the bona fide twin must move the score towards bona fide, and by "
    "more than replacing an equally large region does: the same shape moved elsewhere (`moved-truth`), and other cells as "
    "loud (`energy-matched`). Numbers are shares of the score's gap between the halves of a pair, means with 95 % "
    "intervals over source utterances; pairs that the countermeasure hardly tells apart (less than 1 in log-odds) are left "
    "out. With silence in place of the twin the same cells are emptied: the fall then also says how strange the input has "
    "become."
)
ALL = "all"
REGIONS = ("oracle", *SHAMS, "random")
COLUMNS = ("truth", "fill", "vocoder", "pairs", *(f"{name}{end}" for name in (*REGIONS, *(f"over {s}" for s in SHAMS))
                                                  for end in ("", " low", " high")))  # fmt: skip


def use_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a truth x fill x vocoder (and all vocoders together): the falls, and what the truth has over each sham."""
    lines = []
    for truth in DIFFERENCES:
        for fill in ("twin", "silence"):
            if not (rows["truth"].eq(truth) & rows["metric"].eq(f"drop-{fill}")).any():
                continue
            wide = scores(rows, f"drop-{fill}", truth=truth).reindex(columns=list(REGIONS))  # unknown where there is none
            for vocoder in (ALL, *sorted(set(wide.index.get_level_values("vocoder")))):
                part = wide if vocoder == ALL else wide.xs(vocoder, level="vocoder", drop_level=False)
                line = {"truth": truth, "fill": fill, "vocoder": vocoder, "pairs": int(part["oracle"].notna().sum())}
                for name in REGIONS:
                    there = part[name].dropna()
                    line |= _named(name, cluster_bootstrap(there, clusters(there)) if len(there) else (np.nan,) * 3)
                for sham in SHAMS:
                    both = part[["oracle", sham]].dropna()
                    found = (np.nan,) * 3
                    if len(both):
                        found = paired_difference(both["oracle"].to_numpy(), both[sham].to_numpy(), clusters(both))
                    line |= _named(f"over {sham}", found)
                lines.append(line)
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _named(name: str, interval: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((name, f"{name} low", f"{name} high"), interval, strict=True))


def used(line: pd.Series | dict) -> bool | None:
    """Whether the score falls, and by more than under either sham, beyond the intervals; None where that is unknown."""
    lows = [line["oracle low"], *(line[f"over {sham} low"] for sham in SHAMS)]
    return None if any(np.isnan(low) for low in lows) else all(low > 0 for low in lows)


def use_section(rows: pd.DataFrame, countermeasure: str) -> Section:
    """The part of the audit."""
    table = use_table(rows)
    answer = []
    for truth in DIFFERENCES:
        every = table[table["truth"].eq(truth) & table["vocoder"].eq(ALL)].set_index("fill")
        if "twin" not in every.index:
            continue
        line = every.loc["twin"]
        if not line["pairs"]:
            answer.append(f"Truth {truth}: whether {countermeasure} uses the region is unknown: no pair has a score.")
            continue
        effect = (
            f"Deleting it (twin fill) takes away {_share(line, 'oracle')} of the gap, the shape moved elsewhere "
            f"{_share(line, 'moved-truth')}, cells as loud {_share(line, 'energy-matched')}; the truth has "
            f"{_share(line, 'over moved-truth')} and {_share(line, 'over energy-matched')} over them."
        )
        verdict = used(line)
        if verdict is None:
            answer.append(f"Truth {truth}: whether {countermeasure} uses the region is unknown. {effect}")
        elif verdict:
            answer.append(f"Truth {truth}: {countermeasure} uses the region. {effect}")
        else:
            answer.append(
                f"Warning: truth {truth}: {countermeasure} is not shown to use the region. {effect} Then localisation "
                f"scores of this countermeasure under this truth say nothing about faithfulness."
            )
        apart = table[table["truth"].eq(truth) & table["fill"].eq("twin") & ~table["vocoder"].eq(ALL)].to_dict("records")
        found = []
        for judged, words in ((True, "used beyond doubt"), (False, "not beyond doubt"), (None, "unknown")):
            each = [f"{row['vocoder']} {_share(row, 'oracle')}" for row in apart if used(row) is judged]
            found += [f"{words}: {', '.join(each)}"] if each else []
        if found:
            answer.append(f"By vocoder, with what deleting the region takes away, under {truth}: {'; '.join(found)}.")
    shown = table[table["truth"].eq("eq2") & table["fill"].eq("twin")]
    return Section(
        "use", "Does the countermeasure use the truth region?", QUESTION,
        tuple(answer) or (f"Whether {countermeasure} uses the region is unknown: nothing was measured.",), table,
        (lambda: _draw(shown)) if shown["oracle"].notna().any() else None,
    )  # fmt: skip


def _share(line: pd.Series | dict, name: str) -> str:
    """
    >>> _share({"oracle": 0.142, "oracle low": 0.08, "oracle high": 0.22}, "oracle")
    '14 % [8, 22]'
    """
    ends = (line[f"{name} low"], line[f"{name} high"])
    return per_cent(line[name]) + (f" [{round(100 * ends[0])}, {round(100 * ends[1])}]" if np.isfinite(ends).all() else "")


def _draw(table: pd.DataFrame) -> Figure:
    from xaibench.figures.style import BLUE, GREY, ORANGE, VERMILLION, new_figure

    colours = dict(zip(REGIONS, (VERMILLION, BLUE, ORANGE, GREY), strict=True))
    figure = new_figure(7.2, 0.55 * len(table) + 1.1, layout="constrained")
    axes = figure.subplots()
    for y, line in enumerate(table.to_dict("records")):
        for k, (name, colour) in enumerate(colours.items()):
            at = y + 0.18 * (k - 1.5)
            axes.plot([line[f"{name} low"], line[f"{name} high"]], [at, at], color=colour, linewidth=1)
            axes.plot(line[name], at, "o", color=colour, markersize=4, label=name if y == 0 else None)
    axes.axvline(0, color="black", linewidth=0.5)
    axes.set_xlim(*_limits(table))
    axes.set_yticks(range(len(table)), [f"{v} ({n})" for v, n in zip(table["vocoder"], table["pairs"], strict=True)])
    axes.invert_yaxis()
    axes.set_xlabel(
        "fall of the score when the cells are replaced by the twin's,\nshare of the gap (long intervals are cut)"
    )
    axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """The axis holds every point and the intervals over all vocoders: those of two utterances may be ten times as long."""
    every = table[table["vocoder"].eq(ALL)]
    ends = [every[f"{name}{end}"].to_numpy() for name in REGIONS for end in (" low", " high")]
    values = np.concatenate([*(table[name].to_numpy() for name in REGIONS), *ends, [0.0]])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = 0.15 * (high - low or 1.0)
    return low - room, high + room
