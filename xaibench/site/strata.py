"""Where a method does well and where it does not: means by vocoder and by speaker, and the utterances at both ends.

The mean of every method over the same cells stands beside a method's own: a vocoder that all find hard says nothing of one.
Intervals are those of the board (95 %, clustered), given where a stratum has `FEWEST` clusters or more. Values are in the
metric's units. Ranks count methods only, 1 is best, equal means share a rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from xaibench.leaderboard.table import kind, metric_facts
from xaibench.stats import Batch

FEWEST = 3  # clusters of an interval: with two it is wider than any range
ENDS = 3  # utterances shown at each end
MOST = 12  # values of a stratum shown; of more, those where the method does best and worst


@dataclass(frozen=True)
class Stratum:
    """One vocoder or speaker. mean, low, high: of the method; others: mean of the methods' means; rank of `of` methods."""

    name: str
    pairs: int
    mean: float
    low: float
    high: float
    others: float
    rank: int | None
    of: int


@dataclass(frozen=True)
class Cell:
    """One utterance and vocoder, with the method's score and the mean of all methods there."""

    utterance: str
    vocoder: str
    speaker: str
    value: float
    others: float


@dataclass(frozen=True)
class Places:
    """Of one method, section and metric. strata: "vocoder" | "speaker" -> best first; left_out: how many are not shown."""

    metric: str
    direction: str
    strata: dict[str, tuple[Stratum, ...]]
    left_out: dict[str, int]
    best: tuple[Cell, ...]
    worst: tuple[Cell, ...]


def places(rows: pd.DataFrame, metric: str, *, cluster: str = "utterance") -> dict[str, Places]:
    """attributor -> where it does well, from the encoded rows of one section. Attributors without a value are left out."""
    facts = metric_facts(metric)
    sign = 1.0 if facts.direction == "higher" else -1.0
    ok = rows[rows["metric"].eq(metric) & rows["status"].eq("ok")]
    table = pd.DataFrame({c: ok[c].astype(str) for c in ("attributor", "utterance", "vocoder", "speaker")})
    table = table.assign(value=ok["value"].to_numpy(), cluster=ok[cluster].astype(str).to_numpy())
    table["method"] = table["attributor"].map({n: kind(n) == "method" for n in table["attributor"].unique()})
    table["others"] = table["value"].where(table["method"]).groupby([table["utterance"], table["vocoder"]]).transform("mean")
    batch, asked = Batch(), {}
    sizes: dict[tuple[str, str, str], int] = {}
    for by in ("vocoder", "speaker"):
        for (value, name), part in table.groupby([by, "attributor"], sort=True):
            owner, clusters = pd.factorize(part["cluster"])
            sizes[by, value, name] = len(clusters)
            asked[by, value, name] = batch.mean(part["value"].to_numpy(), owner, bounds=facts.range), len(part)
    intervals = batch.intervals()
    found = {place: (intervals[i], count) for place, (i, count) in asked.items()}
    means: dict[tuple[str, str], list[float]] = {}
    for (by, value, name), (interval, _) in found.items():
        if kind(name) == "method":
            means.setdefault((by, value), []).append(interval.mean)
    names = sorted(table["attributor"].unique())
    strata: dict[str, dict[str, list[Stratum]]] = {n: {"vocoder": [], "speaker": []} for n in names}
    for (by, value, name), (interval, count) in found.items():
        low, high = interval[1:] if sizes[by, value, name] >= FEWEST else (np.nan, np.nan)
        if by == "speaker" and value in ("", "nan"):
            continue  # the data set names no speakers
        rivals = np.array(means.get((by, value), ()))
        better = (sign * rivals > sign * interval.mean) & ~np.isclose(rivals, interval.mean, rtol=1e-12, atol=0)
        rank = 1 + int(better.sum()) if kind(name) == "method" else None
        others = float(rivals.mean()) if len(rivals) else np.nan
        strata[name][by].append(Stratum(value, count, interval.mean, low, high, others, rank, len(rivals)))
    result = {}
    for name, part in table.groupby("attributor", sort=True):
        lists = {by: sorted(found, key=lambda s: (-sign * s.mean, s.name)) for by, found in strata[name].items()}
        shown = {by: tuple(_both_ends(found, MOST)) for by, found in lists.items()}
        cells = _cells(part, sign)
        half = min(ENDS, len(cells) // 2)
        result[str(name)] = Places(
            metric, facts.direction, shown, {by: len(lists[by]) - len(shown[by]) for by in lists},
            tuple(cells[:half]), tuple(cells[::-1][:half]),
        )  # fmt: skip
    return result


def _both_ends(found: Sequence[Stratum], most: int) -> list[Stratum]:
    if len(found) <= most:
        return list(found)
    return [*found[: most // 2], *found[-(most // 2) :]]


def _cells(part: pd.DataFrame, sign: float) -> list[Cell]:
    """The cells of a method, best first."""
    part = part.assign(key=-sign * part["value"]).sort_values(["key", "utterance", "vocoder"], kind="stable")
    return [Cell(*row) for row in part[["utterance", "vocoder", "speaker", "value", "others"]].itertuples(index=False)]
