"""Result files to a board: one row for each countermeasure x route x truth x attributor.

A board is a plain data frame. For every metric `m` it has the columns `m` (mean over the cells that are ok), `m_low` and
`m_high` (95 % interval, clustered by source utterance, see `xaibench.stats`), `m_n` (cells) and, for methods,
`m_margin`, `m_margin_low`, `m_margin_high`: the paired difference to the best floor of the same section, positive where
the method is better, whatever the metric's direction (of a sham: how much better the oracle is than it). `m_skill`,
`m_skill_low`, `m_skill_high` say where a row stands between floor and ceiling:

    skill = (score - floor) / (ceiling - floor)        means over the pairs that all three have

floor: the best control of the section; ceiling: the truth itself (`oracle`) for localisation, for faithfulness the better
of that and of the optimised order (`extremal-*`). 0 = no better than knowing nothing, 1 = as good as can be, below 0 =
worse than the control. Other families have no ceiling and no skill. `m_floor` and `m_ceiling` name the rows that were used.
The interval of a skill is Fieller's, clustered alike; it is unknown where the ceiling is not above the floor beyond doubt.

A *section* is one data set x truth x countermeasure x route; sections are never mixed, and nothing is averaged across
them. A cell that is not ok lowers `coverage`; it is never counted as zero. No torch is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from xaibench import registry
from xaibench.errors import PluginError, XaibenchError
from xaibench.harness.results import keys
from xaibench.leaderboard.reading import CELL as CELL
from xaibench.leaderboard.reading import RUN_COLUMNS as RUN_COLUMNS
from xaibench.leaderboard.reading import SECTION as SECTION
from xaibench.leaderboard.reading import encode
from xaibench.leaderboard.reading import read_rows as read_rows
from xaibench.protocols import Metric
from xaibench.stats import Batch
from xaibench.types import STATUSES

#: Reference rows (`xaibench.controls`, `xaibench.extremal`): floors know nothing of the countermeasure; ceilings are the
#: truth itself and the optimised order; shams have the truth's size and shape in the wrong place.
FLOORS = ("random", "constant", "energy", "inverse-energy", "frequency-prior", "centre")
CEILINGS = ("oracle", "extremal-twin", "extremal-silence")
SHAMS = ("moved-truth", "energy-matched")
#: Which rows can be the ceiling of a family of metrics. What other families ask has no right answer to compare with.
CEILINGS_OF = {"localisation": ("oracle",), "faithfulness": CEILINGS}
ALIGNMENT = ("rank-accuracy", "roc-auc")
FAITHFULNESS = ("drop-twin", "deletion-twin", "insertion-twin")
DEFAULT_METRICS = (*ALIGNMENT, *FAITHFULNESS)
#: Shown instead of `ALIGNMENT` where no map, or not the truth, tells frequencies apart.
TEMPORAL = ("rank-accuracy-time", "roc-auc-time")

_USED = (*CELL, "status", "note", "value", "seconds", *RUN_COLUMNS)  # with the cluster
#: What a board says of a metric: numbers, and the names of two rows.
_ENDS = ("", "_low", "_high", "_skill", "_skill_low", "_skill_high", "_margin", "_margin_low", "_margin_high")
_NAMES = ("_floor", "_ceiling")
_KIND_ORDER = {"ceiling": 0, "method": 1, "sham": 2, "floor": 3}


def kind(attributor: str) -> str:
    """ "method", "floor", "sham" or "ceiling"."""
    kinds = {"floor": FLOORS, "ceiling": CEILINGS, "sham": SHAMS}
    return next((name for name, members in kinds.items() if attributor in members), "method")


def metric_facts(name: str) -> Metric:
    """The metric's declared facts: the catalogue's, or those of the plugin that offers it. Raises PluginError."""
    from xaibench.metrics.catalog import METRICS

    return METRICS[name] if name in METRICS else registry.load("metrics", name)


def unknown_metrics(rows: pd.DataFrame) -> list[str]:
    """Metrics of rows that neither the catalogue nor a plugin has: of another version, or of a plugin that is gone."""
    from xaibench.metrics.catalog import METRICS

    return sorted(set(rows["metric"].unique()) - set(METRICS) - set(registry.plugins("metrics")))


def board(
    rows: pd.DataFrame,
    *,
    metrics: Sequence[str] | None = None,
    sort: str | None = None,
    cluster: str = "utterance",
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """The board of `read_rows(...)`: ceiling, methods, floors in each section, best first by `sort`.

    metrics: columns, in order; by default those of `DEFAULT_METRICS` that were computed, with `TEMPORAL` in place of
    `ALIGNMENT` in a section where none of these has a value: `metrics_of` a section says which it has. sort: one of them,
    by default the section's first. cluster: what the intervals resample, "utterance" (source) or "speaker".

    Beside the metrics' columns: `SECTION`, `attributor`, `kind`, `utterances`, `vocoders` and `pairs` (planned), `eer`,
    `dirty`, `coverage` (share of planned cells that are ok), `seconds` (an utterance), one count a status, `missing`
    (planned, no row) and `gaps` (the reasons, in words).

    Raises XaibenchError for no rows, or a metric that is unknown or was not computed (with the nearest names).
    """
    if rows.empty:
        raise XaibenchError("no rows: nothing has been computed yet")
    rows = encode(rows)
    rows = rows[list(_USED)].assign(cluster=_clusters(rows, cluster))
    section, _ = pd.factorize(keys(rows, SECTION), sort=True)
    metric, names = rows["metric"].cat.codes.to_numpy(), rows["metric"].cat.categories
    computed = _table(section, metric, len(names))
    ok = rows["status"].eq("ok").to_numpy()
    valued = _table(section[ok], metric[ok], len(names), like=computed)
    asked = None if metrics is None else _asked(metrics, set(names[computed.any(axis=0)]))
    columns = [asked or _usual(set(names[c]), set(names[v])) for c, v in zip(computed, valued, strict=True)]
    shown = np.stack([names.isin(some) for some in columns])
    sections = []
    for chosen, some in zip(columns, _split(section, shown[section, metric], len(columns)), strict=True):
        if sort is not None and sort not in chosen:
            raise PluginError(registry.unknown("column to sort by", sort, list(chosen)))
        if not len(some):  # another section has the metrics asked for
            continue
        found = _section(rows.iloc[some], chosen, draws=draws, seed=seed)
        first = sort or chosen[0]
        better = -1.0 if metric_facts(first).direction == "higher" else 1.0
        found = found.assign(_kind=found["kind"].map(_KIND_ORDER), _value=found[first] * better)
        found = found.sort_values(["_kind", "_value", "attributor"], kind="stable", na_position="last")
        sections.append(found.drop(columns=["_kind", "_value"]))
    table = pd.concat(sections, ignore_index=True)
    return table if metrics is not None else _in_usual_order(table)


def _clusters(rows: pd.DataFrame, cluster: str) -> pd.Series:
    """The cluster of every row. Raises XaibenchError for an unknown cluster, or utterances without a speaker."""
    if cluster not in ("utterance", "speaker"):
        raise PluginError(registry.unknown("cluster", cluster, ["utterance", "speaker"]))
    unnamed = rows[cluster].isna() | rows[cluster].eq("")
    if unnamed.any():
        count = rows.loc[unnamed, "utterance"].nunique()
        raise XaibenchError(f"{count} utterances have no speaker in these runs; cluster by utterance")
    return rows[cluster]


def _in_usual_order(table: pd.DataFrame) -> pd.DataFrame:
    """Alignment before faithfulness in every section, whichever section came first."""
    usual = [m for m in (*ALIGNMENT, *TEMPORAL, *FAITHFULNESS) if m in table.columns]
    ends = (*_ENDS, *_NAMES, "_n")
    moved = [m + end for m in usual for end in ends]
    return table[[c for c in table.columns if c not in moved] + moved]


def metrics_of(table: pd.DataFrame) -> list[str]:
    """The metrics a board, or one section of it, has, in its order."""
    names = [c.removesuffix("_margin_low") for c in table.columns if c.endswith("_margin_low")]
    return [name for name in names if table[f"{name}_n"].notna().any()]


def _asked(metrics: Sequence[str], computed: set[str]) -> tuple[str, ...]:
    """The metrics asked for, once each."""
    for name in metrics:
        if name not in computed:
            raise PluginError(registry.unknown("metric of these runs", name, sorted(computed)))
    if not metrics:
        raise XaibenchError("a board needs at least one metric")
    return tuple(dict.fromkeys(metrics))


def _usual(computed: set[str], valued: set[str]) -> tuple[str, ...]:
    """The metrics of a section that asks for none: of those with rows, by those that have a value."""
    alignment = ALIGNMENT if valued & set(ALIGNMENT) or not valued & set(TEMPORAL) else TEMPORAL
    return tuple(m for m in (*alignment, *FAITHFULNESS) if m in computed) or tuple(sorted(computed))


def _table(lines: np.ndarray, columns: np.ndarray, width: int, like: np.ndarray | None = None) -> np.ndarray:
    """Whether any row is of that line and column. Shape: `(lines, width)` bool."""
    height = len(like) if like is not None else int(lines.max()) + 1
    return np.bincount(lines * width + columns, minlength=height * width).reshape(height, width) > 0


def _split(section: np.ndarray, kept: np.ndarray, count: int) -> list[np.ndarray]:
    """The rows of every section that are kept, in their order."""
    rows = np.flatnonzero(kept)
    rows = rows[np.argsort(section[rows], kind="stable")]
    return np.split(rows, np.searchsorted(section[rows], np.arange(1, count)))


def _section(rows: pd.DataFrame, metrics: Sequence[str], *, draws: int, seed: int) -> pd.DataFrame:
    """The board of one section, of encoded rows."""
    pair, _ = pd.factorize(keys(rows, ["utterance", "vocoder"]))
    planned = max(int(pair.max()) + 1, int(rows["pairs"].max()))
    eers = rows["eer"].dropna()
    common = {
        **{name: rows[name].iloc[0] for name in SECTION},
        "utterances": rows["utterance"].nunique(),
        "vocoders": rows["vocoder"].nunique(),
        "pairs": planned,
        "eer": eers.iloc[0] if len(eers) else np.nan,
        "dirty": bool(rows["dirty"].any()),
        "precision": rows["precision"].iloc[0],
    }
    cells = _cells(rows, pair, planned * len(metrics))
    lines = {name: {**common, "attributor": name, "kind": kind(name), **found} for name, found in cells.items()}
    scores, owner = _scores(rows[rows["status"].eq("ok")], metrics)
    batch = Batch(draws=draws, seed=seed)
    asked = {metric: _ask(batch, scores[metric], owner, metric) for metric in metrics}
    intervals = batch.intervals()
    for metric, (names, questions) in asked.items():
        for name, line in lines.items():
            numbers = dict.fromkeys(_ENDS, np.nan)
            for end, place in questions.get(name, {}).items():
                numbers |= zip((end, f"{end}_low", f"{end}_high"), intervals[place], strict=True)
            line |= {f"{metric}{end}": number for end, number in numbers.items()} | names
            line[f"{metric}_n"] = int((~np.isnan(scores[metric].get(name, np.nan))).sum())
    return pd.DataFrame(lines.values())


def _cells(rows: pd.DataFrame, pair: np.ndarray, planned: int) -> dict[str, dict[str, Any]]:
    """Coverage, cost and gaps of every attributor of a section, by name. `pair` `(n,)` numbers the pairs of the rows."""
    attributor, names = rows["attributor"].cat.codes.to_numpy(), rows["attributor"].cat.categories
    there = np.bincount(attributor, minlength=len(names))
    counts = {s: np.bincount(attributor[rows["status"].eq(s)], minlength=len(names)) for s in STATUSES}
    ok = rows["status"].eq("ok").to_numpy()
    once = pd.DataFrame({"attributor": attributor, "pair": pair, "seconds": rows["seconds"].to_numpy()})[ok]
    seconds = once.drop_duplicates(["attributor", "pair"]).groupby("attributor")["seconds"].mean()
    metrics = rows[["attributor", "metric"]].drop_duplicates().groupby("attributor", observed=True).size()
    gaps = rows.loc[~ok, ["attributor", "status", "note", "metric"]]
    reasons: dict[str, list[tuple[int, str]]] = {}
    for (name, status, note), part in gaps.groupby(["attributor", "status", "note"], dropna=False, observed=True):
        missed = sorted(part["metric"].unique())
        where = "every metric" if len(missed) == metrics[name] else ", ".join(missed)
        reason = f"{status} {len(part)} ({where}): {note or 'no reason given'}"
        reasons.setdefault(name, []).append((-len(part), reason))
    result = {}
    for code in np.flatnonzero(there):
        found = sorted(reasons.get(names[code], []))
        texts = [text for _, text in found[:3]] + ([f"{len(found) - 3} other reasons"] if len(found) > 3 else [])
        missing = planned - int(there[code])
        if missing:
            texts.append(f"missing {missing}: planned, not computed")
        result[names[code]] = {
            "coverage": int(counts["ok"][code]) / planned,
            "seconds": float(seconds.get(code, np.nan)),
            **{status: int(count[code]) for status, count in counts.items()},
            "missing": missing,
            "gaps": " | ".join(texts),
        }
    return result


def _scores(ok: pd.DataFrame, metrics: Sequence[str]) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray]:
    """Of the ok rows of a section: scores by metric and attributor, `(pairs,)` each, NaN where there is none, attributors
    without any left out; and the cluster of every pair, from 0. Pairs stand in the order of their clusters.
    """
    pair, first, place = np.unique(keys(ok, ["cluster", "utterance", "vocoder"]), return_index=True, return_inverse=True)
    names, every = ok["attributor"].cat.categories, ok["metric"].cat.categories
    number = {metric: i for i, metric in enumerate(metrics)}
    metric = np.array([number.get(name, -1) for name in every], dtype=np.intp)[ok["metric"].cat.codes]
    at = (metric, ok["attributor"].cat.codes.to_numpy(), place)
    values = np.full((len(metrics), len(names), len(pair)), np.nan)
    there = np.zeros(values.shape, dtype=bool)
    values[at], there[at] = ok["value"].to_numpy(), True
    if np.count_nonzero(there) < len(ok):
        raise XaibenchError("a cell is there twice; give the rows as `read_rows` returns them")
    owner, _ = pd.factorize(ok["cluster"].cat.codes.to_numpy()[first])
    return {m: {names[a]: values[i, a] for a in np.flatnonzero(there[i].any(axis=1))} for i, m in enumerate(metrics)}, owner


def _ask(
    batch: Batch, scores: Mapping[str, np.ndarray], owner: np.ndarray, metric: str
) -> tuple[dict[str, str | None], dict[str, dict[str, int]]]:
    """Ask for mean, skill, and margin over the best floor, of every attributor of a section that has scores `(pairs,)`.

    Returns the names of floor and ceiling, and by attributor where `batch` has the interval of "", "_skill", "_margin".
    """
    facts = metric_facts(metric)
    sign = 1.0 if facts.direction == "higher" else -1.0
    floor = best_of(scores, FLOORS, sign)
    ceiling = best_of(scores, CEILINGS_OF.get(facts.family, ()), sign)
    reach = sign * (scores[ceiling] - scores[floor]) if floor is not None and ceiling is not None else None
    asked: dict[str, dict[str, int]] = {}
    for name, values in scores.items():
        there = ~np.isnan(values)
        places = asked[name] = {"": batch.mean(values[there], owner[there], bounds=facts.range)}
        better, worse = {"method": (name, floor), "sham": ("oracle", name)}.get(kind(name), (None, None))
        if better is not None and worse is not None and {better, worse} <= set(scores):
            margin = sign * (scores[better] - scores[worse])
            both = ~np.isnan(margin)
            if both.any():
                places["_margin"] = batch.mean(margin[both], owner[both])
        if reach is not None and floor is not None:
            common = there & ~np.isnan(reach)
            # No skill where the ceiling's mean is not above the floor's, or where no pair has all three.
            if common.any() and reach[common].mean() > 0:
                gain = sign * (values - scores[floor])
                places["_skill"] = batch.ratio(gain[common], reach[common], owner[common])
    return {f"{metric}_floor": floor, f"{metric}_ceiling": ceiling}, asked


def best_of(wide: pd.DataFrame | Mapping[str, np.ndarray], candidates: Sequence[str], sign: float) -> str | None:
    """The candidate with the best mean, of those with the most pairs: a mean over fewer is of other utterances."""
    scores = {name: np.asarray(wide[name], dtype=np.float64) for name in candidates if name in wide}
    counts = {name: int((~np.isnan(values)).sum()) for name, values in scores.items()}
    full = [name for name, count in counts.items() if 0 < count == max(counts.values())]
    return max(full, key=lambda name: sign * np.nanmean(scores[name]), default=None)
