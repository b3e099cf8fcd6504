"""A board once more, one interval at a time: the code as it stood before intervals were computed together.

Every mean, margin and skill resamples for itself, scores are spread by `DataFrame.pivot`, cells are counted by masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from xaibench.leaderboard import table
from xaibench.leaderboard.table import (
    ALIGNMENT,
    CEILINGS_OF,
    CELL,
    FAITHFULNESS,
    FLOORS,
    SECTION,
    TEMPORAL,
    kind,
    metric_facts,
)
from xaibench.types import STATUSES

FEWEST_CLUSTERS = 6


def unique_cells(rows: pd.DataFrame) -> pd.DataFrame:
    kinds = rows.groupby(list(CELL))["fingerprint"].nunique()
    if (kinds > 1).any():
        raise ValueError(kinds.index[kinds.to_numpy() > 1][0])
    ok_first = rows.assign(_late=rows["status"].ne("ok")).sort_values("_late", kind="stable")
    return ok_first.drop_duplicates(list(CELL)).drop(columns="_late").sort_index().reset_index(drop=True)


def board(
    rows: pd.DataFrame, *, metrics: list[str] | None = None, cluster: str = "utterance", draws: int = 2000, seed: int = 0
) -> pd.DataFrame:
    rows = rows.assign(cluster=rows[cluster])
    sections = []
    for key, part in rows.groupby(list(SECTION), sort=True):
        chosen = _chosen(part if metrics is None else rows, metrics)
        facts = dict(zip(SECTION, key, strict=True))
        mine = part[part["metric"].isin(chosen)]
        if mine.empty:  # another section has the metrics asked for
            continue
        found = _section(mine, chosen, facts, draws=draws, seed=seed)
        first = chosen[0]
        better = -1.0 if metric_facts(first).direction == "higher" else 1.0
        found = found.assign(_kind=found["kind"].map(table._KIND_ORDER), _value=found[first] * better)
        found = found.sort_values(["_kind", "_value", "attributor"], kind="stable", na_position="last")
        sections.append(found.drop(columns=["_kind", "_value"]))
    whole = pd.concat(sections, ignore_index=True)
    return whole if metrics is not None else table._in_usual_order(whole)


def _chosen(rows: pd.DataFrame, metrics: list[str] | None) -> tuple[str, ...]:
    computed = sorted(set(rows["metric"]))
    if metrics is None:
        valued = set(rows.loc[rows["status"].eq("ok"), "metric"])
        alignment = ALIGNMENT if valued & set(ALIGNMENT) or not valued & set(TEMPORAL) else TEMPORAL
        return tuple(m for m in (*alignment, *FAITHFULNESS) if m in computed) or tuple(computed)
    return tuple(metrics)


def _section(rows: pd.DataFrame, metrics: Sequence[str], facts: Mapping[str, str], *, draws: int, seed: int) -> pd.DataFrame:
    seen = rows[["utterance", "vocoder"]].drop_duplicates()
    planned = max(len(seen), int(rows["pairs"].max()))
    common = {
        **facts,
        "utterances": int(seen["utterance"].nunique()),
        "vocoders": int(seen["vocoder"].nunique()),
        "pairs": planned,
        "eer": rows["eer"].dropna().iloc[0] if rows["eer"].notna().any() else np.nan,
        "dirty": bool(rows["dirty"].any()),
        "precision": rows["precision"].iloc[0],
    }
    lines = {
        name: {**common, "attributor": name, "kind": kind(name), **_cells(part, planned * len(metrics))}
        for name, part in rows.groupby("attributor")
    }
    ok = rows[rows["status"].eq("ok")]
    for metric in metrics:
        wide = ok[ok["metric"].eq(metric)].pivot(
            index=["cluster", "utterance", "vocoder"], columns="attributor", values="value"
        )
        for name, values in _scores(wide, metric, list(lines), draws=draws, seed=seed).items():
            lines[name] |= values
    return pd.DataFrame(lines.values())


def _cells(rows: pd.DataFrame, planned: int) -> dict[str, Any]:
    counts = {status: int(rows["status"].eq(status).sum()) for status in STATUSES}
    timed = rows[rows["status"].eq("ok")].drop_duplicates(["utterance", "vocoder"])["seconds"]
    reasons = []
    for (status, note), part in rows[~rows["status"].eq("ok")].groupby(["status", "note"], dropna=False):
        where = sorted(set(part["metric"]))
        where = "every metric" if len(where) == len(set(rows["metric"])) else ", ".join(where)
        reasons.append((-len(part), f"{status} {len(part)} ({where}): {note or 'no reason given'}"))
    reasons.sort()
    texts = [text for _, text in reasons[:3]] + ([f"{len(reasons) - 3} other reasons"] if len(reasons) > 3 else [])
    missing = planned - len(rows)
    if missing:
        texts.append(f"missing {missing}: planned, not computed")
    return {
        "coverage": counts["ok"] / planned,
        "seconds": float(timed.mean()) if len(timed) else np.nan,
        **counts,
        "missing": missing,
        "gaps": " | ".join(texts),
    }


def _scores(
    wide: pd.DataFrame, metric: str, attributors: Sequence[str], *, draws: int, seed: int
) -> dict[str, dict[str, float]]:
    facts = metric_facts(metric)
    sign = 1.0 if facts.direction == "higher" else -1.0
    clusters = wide.index.get_level_values("cluster").to_numpy()
    options = {"draws": draws, "seed": seed}
    floor = best_of(wide, FLOORS, sign)
    ceiling = best_of(wide, CEILINGS_OF.get(facts.family, ()), sign)
    names = {f"{metric}_floor": floor, f"{metric}_ceiling": ceiling}
    result = {}
    for name in attributors:
        values = wide[name].to_numpy() if name in wide.columns else np.full(len(wide), np.nan)
        there = ~np.isnan(values)
        line = dict.fromkeys(table._ENDS, np.nan)
        if there.any():
            interval = cluster_bootstrap(values[there], clusters[there], bounds=facts.range, **options)
            line |= zip(("", "_low", "_high"), interval, strict=True)
            better, worse = {"method": (name, floor), "sham": ("oracle", name)}.get(kind(name), (None, None))
            if {better, worse} <= set(wide.columns) and (wide[better] - wide[worse]).notna().any():
                margin = paired_difference(
                    sign * wide[better].to_numpy(), sign * wide[worse].to_numpy(), clusters, **options
                )
                line |= zip(("_margin", "_margin_low", "_margin_high"), margin, strict=True)
            if floor is not None and ceiling is not None:
                line |= zip(
                    ("_skill", "_skill_low", "_skill_high"), _skill(wide, name, floor, ceiling, sign, **options), strict=True
                )
        result[name] = {f"{metric}{end}": value for end, value in line.items()} | names
        result[name][f"{metric}_n"] = int(there.sum())
    return result


def best_of(wide: pd.DataFrame, candidates: Sequence[str], sign: float) -> str | None:
    counts = {name: int(wide[name].notna().sum()) for name in candidates if name in wide.columns}
    full = [name for name, count in counts.items() if 0 < count == max(counts.values())]
    return max(full, key=lambda name: sign * wide[name].mean(), default=None)


def _skill(
    wide: pd.DataFrame, name: str, floor: str, ceiling: str, sign: float, *, draws: int, seed: int
) -> tuple[float, float, float]:
    common = wide[list(dict.fromkeys((name, floor, ceiling)))].dropna()
    if common.empty or not sign * (common[ceiling] - common[floor]).mean() > 0:
        return np.nan, np.nan, np.nan
    clusters = common.index.get_level_values("cluster").to_numpy()
    reach = sign * (common[ceiling] - common[floor]).to_numpy()
    return tuple(ratio_of_means(sign * (common[name] - common[floor]).to_numpy(), reach, clusters, draws=draws, seed=seed))


def cluster_bootstrap(
    values: object,
    clusters: Sequence[object] | np.ndarray,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[float, float, float]:
    values = np.asarray(values, dtype=np.float64)
    sums, counts = _cluster_sums(values, clusters)
    n_clusters, total = len(sums), counts.sum()
    mean = float(sums.sum() / total)
    if n_clusters == 1:
        return (mean, np.nan, np.nan)
    residual = sums - mean * counts
    spread = np.sqrt(n_clusters / (n_clusters - 1))
    error = float(spread * np.sqrt((residual**2).sum()) / total)
    if error <= 1e-12 * max(abs(mean), np.abs(values).max()):  # nothing but rounding
        return (mean, mean, mean)
    low_t, high_t = _studentised(residual, counts, error, draws=draws, seed=seed, level=level)
    low, high = mean - high_t * error, mean - low_t * error
    return (mean, float(np.clip(low, *_around(bounds, mean))), float(np.clip(high, *_around(bounds, mean))))


def paired_difference(
    first: object,
    second: object,
    clusters: Sequence[object] | np.ndarray,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    first, second, labels = _paired(first, second, clusters)
    return cluster_bootstrap(first - second, labels, draws=draws, seed=seed, level=level)


def ratio_of_means(
    first: object,
    second: object,
    clusters: Sequence[object] | np.ndarray,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    first, second, labels = _paired(first, second, clusters)
    below, low, high = cluster_bootstrap(second, labels, draws=draws, seed=seed, level=level)
    a, counts = _cluster_sums(first, labels)
    b, _ = _cluster_sums(second, labels)
    if abs(below) <= 1e-15 * np.abs(second).max():  # also where every value is 0
        return (np.nan, np.nan, np.nan)
    ratio = float(a.sum() / b.sum())
    if not (low > 0 or high < 0):
        return (ratio, np.nan, np.nan)
    if b.sum() < 0:
        a, b = -a, -b
    n_clusters, total = len(a), counts.sum()
    residual = a - ratio * b
    scale = n_clusters / (n_clusters - 1) / total**2
    error = float(np.sqrt(scale * (residual**2).sum()))
    if error <= 1e-12 * max(np.abs(first).max(), abs(ratio) * np.abs(second).max()):  # nothing but rounding
        return (ratio, ratio, ratio)
    low_t, high_t = _studentised(residual, counts, error, draws=draws, seed=seed, level=level)
    means = a.sum() / total, b.sum() / total
    a, b = a - means[0] * counts, b - means[1] * counts
    moments = scale * (a @ a), scale * (a @ b), scale * (b @ b)
    low, high = _fieller(means, moments, high_t), _fieller(means, moments, low_t)
    return (ratio, low, high) if np.isfinite(low + high) else (ratio, np.nan, np.nan)


def _fieller(means: tuple[float, float], moments: tuple[float, float, float], t: float) -> float:
    (a, b), (aa, ab, bb) = means, moments
    square, linear, constant = b * b - t * t * bb, a * b - t * t * ab, a * a - t * t * aa
    if square <= 0:
        return np.nan
    root = np.sqrt(max(linear * linear - square * constant, 0.0))
    return float((linear - root if t > 0 else linear + root) / square)


def _paired(first, second, clusters):
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    common = ~(np.isnan(first) | np.isnan(second))
    return first[common], second[common], np.asarray(clusters, dtype=object)[common]


def _cluster_sums(values, clusters):
    number: dict[object, int] = {}
    owner = np.fromiter((number.setdefault(c, len(number)) for c in clusters), dtype=np.intp, count=values.size)
    return np.bincount(owner, weights=values), np.bincount(owner).astype(np.float64)


def _resamples(n_clusters, draws, seed):
    drawn = np.random.default_rng(seed).multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=draws)
    return drawn.astype(np.float64)


def _studentised(
    residual: np.ndarray, counts: np.ndarray, error: float, *, draws: int, seed: int, level: float
) -> tuple[float, float]:
    n_clusters = len(counts)
    tail = (1 - level) / 2
    student = float(stdtrit(n_clusters - 1, 1 - tail))
    if n_clusters < FEWEST_CLUSTERS:
        return -student, student
    parts = np.stack([residual, counts, residual**2, residual * counts, counts**2], axis=1)
    s, n, ss, sn, nn = (_resamples(n_clusters, draws, seed) @ parts).T
    shift = s / n
    difference = ss - 2 * shift * sn + shift**2 * nn
    variance = np.maximum(difference, 0) * n_clusters / (n_clusters - 1)
    errors = np.sqrt(variance) / n
    # A resample without spread (one cluster drawn again and again) is infinitely sure of itself: it belongs in the tail.
    flat = (errors <= 1e-9 * error) | (difference <= 1e-13 * (ss + shift**2 * nn))
    ratio = shift / np.where(flat, 1.0, errors)
    ratio[flat & (shift > 1e-9 * error)] = np.inf
    ratio[flat & (shift < -1e-9 * error)] = -np.inf
    low, high = np.quantile(ratio, [tail, 1 - tail], method="inverted_cdf")
    if not (np.isfinite(low) and np.isfinite(high)):
        return -student, student
    return float(low), float(high)


def _around(bounds: tuple[float, float], mean: float) -> tuple[float, float]:
    return min(bounds[0], mean), max(bounds[1], mean)
