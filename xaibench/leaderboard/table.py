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

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xaibench import registry
from xaibench.errors import PluginError, RunError, XaibenchError
from xaibench.protocols import Metric
from xaibench.stats import cluster_bootstrap, paired_difference, ratio_of_means
from xaibench.types import ROW_COLUMNS, STATUSES

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

SECTION = ("dataset", "truth", "countermeasure", "route")
CELL = (*SECTION, "attributor", "utterance", "vocoder", "metric")
#: What `read_rows` adds to `ROW_COLUMNS`, from run.json: the countermeasure's equal error rate on these utterances (a
#: share), how many pairs the run planned, and whether it came from uncommitted code.
RUN_COLUMNS = ("eer", "pairs", "dirty")
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

    return sorted(set(rows["metric"]) - set(METRICS) - set(registry.plugins("metrics")))


def read_rows(runs: Sequence[Path]) -> pd.DataFrame:
    """Every row of some run folders, with `RUN_COLUMNS`; each cell once.

    Runs are merged only when they agree on what is benchmarked: data set (name, hash, number of utterances and pairs),
    truth, grid, preset (it fixes the steps of deletion curves) and the weights of every countermeasure they share. A
    cell that two files hold is taken once when its fingerprints agree (an ok one before a failed one).

    Raises RunError: no folder given, not a run folder, damaged or empty, runs that differ, or a cell with two
    fingerprints.
    """
    if not runs:
        raise RunError("no run folder given; `xaibench run --out FOLDER` makes one")
    records = {Path(run): _record(Path(run)) for run in runs}
    _check_identities(records)
    parts = [_with_run_columns(_row_files(run), record) for run, record in records.items()]
    return _unique_cells(pd.concat(parts, ignore_index=True))


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
    rows = rows.assign(cluster=_clusters(rows, cluster))
    sections = []
    for key, part in rows.groupby(list(SECTION), sort=True):
        chosen = _chosen(part if metrics is None else rows, metrics)
        if sort is not None and sort not in chosen:
            raise PluginError(registry.unknown("column to sort by", sort, list(chosen)))
        facts = dict(zip(SECTION, key, strict=True))
        mine = part[part["metric"].isin(chosen)]
        if mine.empty:  # another section has the metrics asked for
            continue
        found = _section(mine, chosen, facts, draws=draws, seed=seed)
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


def _record(run: Path) -> Mapping[str, Any]:
    path = run / "run.json"
    if not path.is_file():
        hint = "no such folder" if not run.is_dir() else "it has no run.json"
        raise RunError(f"{run}: not a run folder ({hint}); expected the --out of `xaibench run`")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: damaged ({error}); run again with the same --out to have it made again") from error
    if not isinstance(record, dict):
        raise RunError(f"{path}: expected an object, got {type(record).__name__}; is it another program's file?")
    return record


def _identity(record: Mapping[str, Any]) -> dict[str, Any]:
    spec = record.get("spec", {})
    facts = {f"dataset.{k}": v for k, v in record.get("dataset", {}).items()}
    facts |= {name: spec.get(name) for name in ("truth", "grid", "preset")}
    return facts


def _check_identities(records: Mapping[Path, Mapping[str, Any]]) -> None:
    """Refuse runs that benchmark different things, naming the first fact that differs."""
    first, *others = records
    expected = _identity(records[first])
    weights: dict[str, tuple[Path, str]] = {}
    for run in others:
        found = _identity(records[run])
        for fact in [*expected, *(f for f in found if f not in expected)]:
            if found.get(fact) != expected.get(fact):
                raise RunError(
                    f"{first} and {run} cannot share a table: {fact} is {expected.get(fact)!r} and {found.get(fact)!r}; "
                    "make two boards, or run both with the same --data, --limit, --preset and --truth"
                )
    for run, record in records.items():
        for name, facts in record.get("countermeasures", {}).items():
            other, digest = weights.setdefault(name, (run, facts.get("weights")))
            if digest != facts.get("weights"):
                raise RunError(
                    f"{other} and {run} cannot share a table: countermeasure {name!r} has weights {digest} and "
                    f"{facts.get('weights')}; make two boards"
                )


def _row_files(run: Path) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = []
    for file in sorted((run / "rows").rglob("*.parquet")):
        try:
            part = pq.ParquetFile(file).read().to_pandas()
        except (pa.ArrowException, OSError) as error:
            raise RunError(f"{file}: damaged ({error}); remove it and run again, its cells are computed again") from error
        missing = [c for c in ROW_COLUMNS if c not in part.columns]
        if missing:
            raise RunError(f"{file}: not a row file, it lacks {', '.join(missing)}; written by another version?")
        odd = set(part["status"]) - set(STATUSES)
        if odd or (part["status"].eq("ok") == part["value"].isna()).any():
            raise RunError(f"{file}: a row must have a value if and only if it is ok, and a status of {', '.join(STATUSES)}")
        parts.append(part[list(ROW_COLUMNS)])
    if not parts:
        raise RunError(f"{run}: no rows yet; has the run finished its first chunk?")
    return pd.concat(parts, ignore_index=True)


def _with_run_columns(rows: pd.DataFrame, record: Mapping[str, Any]) -> pd.DataFrame:
    stamps = [record, *record.get("earlier", [])]
    eers = {name: facts.get("eer") for name, facts in record.get("countermeasures", {}).items()}
    return rows.assign(
        eer=rows["countermeasure"].map(eers).astype(float),
        pairs=float(record.get("dataset", {}).get("pairs") or 0),
        dirty=any(stamp.get("environment", {}).get("git_dirty") for stamp in stamps),
    )


def _unique_cells(rows: pd.DataFrame) -> pd.DataFrame:
    kinds = rows.groupby(list(CELL))["fingerprint"].nunique()
    if (kinds > 1).any():
        cell = " / ".join(kinds.index[kinds.to_numpy() > 1][0])
        raise RunError(
            f"the cell {cell} is there {int(kinds[kinds > 1].iloc[0])} times with different fingerprints (other code, "
            f"options or versions), and {int((kinds > 1).sum())} cells in all; give only one of these runs"
        )
    ok_first = rows.assign(_late=rows["status"].ne("ok")).sort_values("_late", kind="stable")
    return ok_first.drop_duplicates(list(CELL)).drop(columns="_late").sort_index().reset_index(drop=True)


def _chosen(rows: pd.DataFrame, metrics: Sequence[str] | None) -> tuple[str, ...]:
    computed = sorted(set(rows["metric"]))
    if metrics is None:
        valued = set(rows.loc[rows["status"].eq("ok"), "metric"])
        alignment = ALIGNMENT if valued & set(ALIGNMENT) or not valued & set(TEMPORAL) else TEMPORAL
        return tuple(m for m in (*alignment, *FAITHFULNESS) if m in computed) or tuple(computed)
    for name in metrics:
        if name not in computed:
            raise PluginError(registry.unknown("metric of these runs", name, computed))
    if not metrics:
        raise XaibenchError("a board needs at least one metric")
    return tuple(dict.fromkeys(metrics))


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
    """Coverage, cost and gaps of one attributor in one section."""
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
    """Mean, interval, count, skill, and margin over the best floor. `wide` is pairs x attributors, NaN where not ok."""
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
        line = dict.fromkeys(_ENDS, np.nan)
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
    """The candidate with the best mean, of those with the most pairs: a mean over fewer is of other utterances."""
    counts = {name: int(wide[name].notna().sum()) for name in candidates if name in wide.columns}
    full = [name for name, count in counts.items() if 0 < count == max(counts.values())]
    return max(full, key=lambda name: sign * wide[name].mean(), default=None)


def _skill(
    wide: pd.DataFrame, name: str, floor: str, ceiling: str, sign: float, *, draws: int, seed: int
) -> tuple[float, float, float]:
    """Skill of a row and its interval; NaN where the ceiling's mean is not above the floor's, or no pair has all three."""
    common = wide[list(dict.fromkeys((name, floor, ceiling)))].dropna()
    if common.empty or not sign * (common[ceiling] - common[floor]).mean() > 0:
        return np.nan, np.nan, np.nan
    clusters = common.index.get_level_values("cluster").to_numpy()
    reach = sign * (common[ceiling] - common[floor]).to_numpy()
    return tuple(ratio_of_means(sign * (common[name] - common[floor]).to_numpy(), reach, clusters, draws=draws, seed=seed))
