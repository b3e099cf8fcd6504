"""What a board says, in plain sentences. Every sentence is computed from the board; none is there by default.

The first question is whether the countermeasure uses the truth at all: deleting its region (twin fill) must move the score
by more than deleting the same shape elsewhere and cells as loud (the shams). Where it does not, the truth is not what the
score rests on, and finding it is no sign of a good explanation.

"Above" always means better: for a metric where lower is better, a smaller mean. A method *exceeds* a floor when the 95 %
interval of its paired difference to that floor (same utterances, clustered; see `xaibench.stats`) lies above zero. No
correction for the number of methods is made: of 40 methods equal to the floor, about one would exceed it by luck.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from xaibench.leaderboard.table import SECTION, SHAMS, metric_facts, metrics_of
from xaibench.stats import rank_agreement

EER_LIMIT = 0.2  # share; above it a countermeasure decides so poorly that its reasons are of little use
CLOSE = 1e-4  # the oracle must be perfect, but for cells tied at the edge of the region
FEWEST_ORDERED = 10  # methods; with fewer Kendall's tau says little either way
NAMED = 5  # methods a sentence names before it counts


def verdict(board: pd.DataFrame) -> list[str]:
    """The sentences of a board, section by section; with several sections each sentence names its own.

    Sentences without the rows they need are left out, never guessed.
    """
    sections = [(key, part) for key, part in board.groupby(list(SECTION), sort=True)]
    sentences = []
    for (_, truth, countermeasure, route), part in sections:
        prefix = f"{countermeasure}, {route} route, truth {truth}: " if len(sections) > 1 else ""
        sentences += [prefix + sentence for sentence in _section(part)]
    return sentences


def _section(part: pd.DataFrame) -> list[str]:
    metrics = metrics_of(part)
    families = {m: metric_facts(m).family for m in metrics}
    alignment = next((m for m in metrics if families[m] == "localisation"), None)
    faithfulness = next((m for m in metrics if families[m] == "faithfulness"), None)
    sentences = _eer(part) + uses_truth(part)
    for metric in (alignment, faithfulness):
        if metric is not None:
            sentences += _controls(part, metric) + _exceed(part, metric) + _skill(part, metric)
    if alignment is not None and faithfulness is not None:
        sentences += _agreement(part, alignment, faithfulness)
    if alignment is not None:
        sentences += _sanity(part, alignment)
    return sentences + _gaps(part)


def _eer(part: pd.DataFrame) -> list[str]:
    name, eer = part["countermeasure"].iloc[0], part["eer"].iloc[0]
    if np.isnan(eer):
        return [f"The equal error rate of {name} on these utterances is unknown: its maps may explain nothing."]
    if eer > EER_LIMIT:
        return [
            f"{name} errs on {eer:.1%} of these utterances (equal error rate; 50 % is guessing): a decision this poor "
            f"explains little, whatever the maps say."
        ]
    return []


def uses_truth(part: pd.DataFrame, metric: str = "drop-twin") -> list[str]:
    """Does the countermeasure use the truth's region more than the shams?"""
    name, rows = part["countermeasure"].iloc[0], part.set_index("attributor")
    shams = [s for s in SHAMS if s in rows.index]
    if metric not in metrics_of(part) or "oracle" not in rows.index or not shams:
        return []
    lows = rows.loc[shams, f"{metric}_margin_low"]
    if np.isnan(rows.at["oracle", metric]) or lows.isna().any():
        return [f"Whether {name} uses the truth's region is unknown: too few pairs that it tells apart."]
    effects = [
        f"{_percent(rows.at[s, metric])} % for {s} (difference {_percent(rows.at[s, metric + '_margin'])} % "
        f"[{_percent(rows.at[s, metric + '_margin_low'])}, {_percent(rows.at[s, metric + '_margin_high'])}])"
        for s in shams
    ]
    effect = (
        f"Deleting the truth's region (twin fill) takes away {_percent(rows.at['oracle', metric])} % of the score's gap "
        f"between the halves of a pair, against {_listed(effects)}"
    )
    if (lows > 0).all() and rows.at["oracle", f"{metric}_low"] > 0:
        return [f"{effect}: {name} does use it."]
    return [
        f"Warning: {effect[0].lower()}{effect[1:]}: this does not show that {name} uses it, and then the "
        f"localisation scores of this countermeasure say nothing about faithfulness."
    ]


def _skill(part: pd.DataFrame, metric: str) -> list[str]:
    """How far the best method gets from floor to ceiling."""
    methods = part[part["kind"].eq("method") & part[f"{metric}_skill"].notna()]
    if methods.empty:
        return []
    best = methods.loc[methods[f"{metric}_skill"].idxmax()]
    skill, low, high = (best[f"{metric}_skill{end}"] for end in ("", "_low", "_high"))
    if not np.isfinite(low):  # the ceiling is not above the floor beyond doubt: a share of what?
        return []
    far = f"{_percent(skill)} % [{_percent(low)}, {_percent(high)}]"
    return [
        f"The best method in {metric}, {best['attributor']}, goes {far} of the way from "
        f"{best[f'{metric}_floor']} to {best[f'{metric}_ceiling']}."
    ]


def _percent(share: float) -> str:
    """
    >>> _percent(0.142), _percent(-0.001)
    ('14', '0')
    """
    return str(round(100 * share))


def _sign(metric: str) -> int:
    return 1 if metric_facts(metric).direction == "higher" else -1


def _scored(part: pd.DataFrame, metric: str, kind: str) -> pd.DataFrame:
    """Rows of a kind that have the metric, best first."""
    rows = part[part["kind"].eq(kind) & part[metric].notna()]
    return rows.sort_values(metric, ascending=_sign(metric) < 0, kind="stable")


def _count(number: int, what: str) -> str:
    """
    >>> _count(1, "method"), _count(0, "method")
    ('1 method', '0 methods')
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _listed(items: Sequence[str], limit: int = NAMED) -> str:
    """
    >>> _listed(["a", "b", "c"]), _listed(["a", "b", "c"], 1)
    ('a, b and c', 'a and 2 others')
    """
    items = list(items)
    if len(items) > limit:
        rest = len(items) - limit
        items = [*items[:limit], "1 other" if rest == 1 else f"{rest} others"]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _controls(part: pd.DataFrame, metric: str) -> list[str]:
    """How many methods each floor beats."""
    floors, methods = _scored(part, metric, "floor"), _scored(part, metric, "method")
    if floors.empty or methods.empty:
        return []
    sign, total = _sign(metric), len(methods)
    above: list[str] = []
    for name, value in zip(floors["attributor"], floors[metric], strict=True):
        count = int((sign * methods[metric] < sign * value).sum())
        if count:
            much = f"scores above {count} of {_count(total, 'method')}" if not above else f"above {count}"
            above.append(f"{name} ({value:.3g}) {much}")
    if above:
        return [f"In {metric}, {_listed(above, len(above))}."]
    best, value = floors["attributor"].iloc[0], floors[metric].iloc[0]
    return [
        f"In {metric}, no control scores above any of {_count(total, 'method')}; the best control is {best} ({value:.3g})."
    ]


def _exceed(part: pd.DataFrame, metric: str) -> list[str]:
    """Which methods are better than the best floor by more than the interval of the paired difference."""
    floors, methods = _scored(part, metric, "floor"), _scored(part, metric, "method")
    judged = methods[methods[f"{metric}_margin_low"].notna()]
    if floors.empty or methods.empty:
        return []
    best = floors["attributor"].iloc[0]
    if judged.empty:
        return [f"Whether any method exceeds {best} in {metric} is unknown: an interval needs two utterances or more."]
    passed = judged[judged[f"{metric}_margin_low"] > 0]
    verb = "exceeds" if 1 in (len(passed), len(judged)) else "exceed"
    names = "" if passed.empty else f": {_listed(list(passed['attributor']))}"
    return [
        f"{len(passed)} of {_count(len(judged), 'method')} {verb} the best control, {best}, in {metric} beyond the 95 % "
        f"interval of the paired difference{names} (not corrected for their number; `xaibench compare` does)."
    ]


def _agreement(part: pd.DataFrame, alignment: str, faithfulness: str) -> list[str]:
    """Do the two axes order the methods alike?"""
    methods = part[part["kind"].eq("method")]
    tau, p, n = rank_agreement(_sign(alignment) * methods[alignment], _sign(faithfulness) * methods[faithfulness])
    if np.isnan(tau):
        return []
    if p >= 0.05 and n < FEWEST_ORDERED:
        meaning = "too few methods to say whether the orders are related"
    elif p >= 0.05:
        meaning = "not told apart from chance: to find the vocoder's traces need not be to name what the score uses"
    elif tau < 0:
        meaning = "the methods that find the vocoder's traces best name worst what the score uses"
    elif tau < 0.5:
        meaning = "they agree in part; neither order replaces the other"
    else:
        meaning = "they largely agree"
    return [
        f"The orders of {n} methods by {alignment} and by {faithfulness}: Kendall tau {tau:.2f} (p = {p:.2g}); {meaning}."
    ]


def _sanity(part: pd.DataFrame, metric: str) -> list[str]:
    """The ceiling must be perfect, the random map at chance: otherwise the numbers beside them mean nothing."""
    facts, rows, sentences = metric_facts(metric), part.set_index("attributor"), []
    perfect = facts.range[1] if facts.direction == "higher" else facts.range[0]
    if "oracle" in rows.index and np.isfinite(rows.at["oracle", metric]) and metric in ("rank-accuracy", "roc-auc"):
        value = rows.at["oracle", metric]
        if abs(value - perfect) <= CLOSE:
            sentences.append(f"Check: the oracle scores {perfect:g} in {metric}, as it must.")
        elif part["route"].eq("grid").all():
            sentences.append(f"Check failed: the oracle scores {value:.4g} in {metric} and must score {perfect:g}.")
        else:  # through few bands or frames the truth itself is blurred
            name = part["countermeasure"].iloc[0]
            sentences.append(
                f"Check: the oracle, the truth averaged onto the cells of {name}, scores {value:.4g} in {metric}. It must "
                f"score {perfect:g} unless these are coarser than the grid's, as mel or CQT bands and frames are."
            )
    # The chance level of a rank accuracy is the share of the truth: 5 %, unless the truth is segments of any length.
    known = facts.chance is not None and not (part["truth"].eq("segments").all() and metric == "rank-accuracy-time")
    if "random" in rows.index and known:
        value, low, high = (rows.at["random", metric + end] for end in ("", "_low", "_high"))
        if np.isfinite(low):
            inside = low <= facts.chance <= high
            sentences.append(
                f"Check{'' if inside else ' failed'}: the random map's {metric} is {value:.4g} [{low:.4g}, {high:.4g}], "
                f"{'which contains' if inside else 'which does not contain'} chance, {facts.chance:.3g}"
                f"{'.' if inside else ' (1 in 20 do so by luck).'}"
            )
    return sentences


def _gaps(part: pd.DataFrame) -> list[str]:
    gaps = part[part["coverage"] < 1].sort_values("coverage", kind="stable")
    if gaps.empty:
        return []
    without = gaps.loc[gaps["coverage"].eq(0), "attributor"].tolist()
    partly = gaps[gaps["coverage"].gt(0)]
    names = [f"{name} ({share:.0%})" for name, share in zip(partly["attributor"], partly["coverage"], strict=True)]
    sentences = [f"No cell has a value for {_listed(without)}."] if without else []
    if names:
        sentences.append(f"Not all cells are ok for {_listed(names)}: their means are over fewer cells than the others'.")
    return sentences
