"""Result files to comparisons: which methods differ from a control and from each other, and do orders agree.

A comparison is one section x metric. The unit is the cluster: the source utterance or, by choice, the speaker. A paired
difference is taken over the pairs (utterance x vocoder) that both methods scored, and is positive where the first method is
better, whatever the metric's direction. Its mean and interval are the board's (`xaibench.stats.paired_difference`, every
score counts once); the tests average the differences within a cluster first (`xaibench.comparisons`).

Methods are tested against one reference, by default the section's best control. That control was chosen on these scores,
so its mean is, if anything, too good, and a method that differs from it does so with something to spare. The oracle and the
other controls are in no test and no order. No torch is imported here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from xaibench import registry
from xaibench.agreement import FEWEST, order_agreement
from xaibench.comparisons import (
    ALPHA,
    Friedman,
    bayesian_signed_rank,
    cluster_means,
    friedman,
    holm,
    needed_clusters,
    signed_rank,
)
from xaibench.errors import PluginError, RunError, XaibenchError
from xaibench.files import write_text
from xaibench.leaderboard.render import number, short, with_interval
from xaibench.leaderboard.table import ALIGNMENT, FAITHFULNESS, SECTION, TEMPORAL, kind, metric_facts, read_rows
from xaibench.leaderboard.writing import escape, plain, table_line
from xaibench.maps import component
from xaibench.stats import Interval, paired_difference
from xaibench.tables import csv_text

CLUSTERS = ("utterance", "speaker")
FEWEST_BLOCKS = 6  # for average ranks: of fewer, a chance order of similar methods is soon "significant"
#: A section, and the run folder it came from where runs could not share a table.
KEY = ("source", *SECTION)
LEGEND = (
    "difference: mean paired difference to {against}, positive is better, with its 95 % interval clustered by {cluster}; "
    "p: Wilcoxon's signed-rank test over {cluster} means, zeros by Pratt's rule, Holm: corrected for all methods; r: "
    "matched-pairs rank-biserial correlation, -1 to 1 "
    "(ranks: one great difference moves the mean, not r); rank: average rank, 1 is best; n at 80 %: {cluster}s that would "
    "show the observed difference with a power of 80 % (5 %, two-sided, one test)."
)
BAYES = " P: posterior probability of better / within {rope:.3g}, which counts as the same / worse."
NAMED = 5


@dataclass(frozen=True)
class Comparison:
    """One section x metric, compared.

    facts: `KEY` -> value; source is "" unless runs could not share a table. table: a row a method, best mean first (see
    `paired_table`). pairs: every two methods (see `pair_table`). friedman: None where there are too few complete clusters
    or methods; its methods are `ranked`. complete, clusters: those in the blocks, and all; scarce: the method whose gaps
    cost most blocks.
    """

    facts: Mapping[str, str]
    metric: str
    cluster: str
    against: str
    table: pd.DataFrame
    pairs: pd.DataFrame
    friedman: Friedman | None
    ranked: tuple[str, ...]
    complete: int
    clusters: int
    scarce: str = ""
    rope: float | None = None

    @property
    def title(self) -> str:
        """The section and metric, in words."""
        f = self.facts
        source = f"{f['source']}: " if f["source"] else ""
        where = f"{source}{f['countermeasure']}, {f['route']} route, truth {f['truth']}, {f['dataset']}"
        return f"{where}: {self.metric}, {metric_facts(self.metric).direction} is better"


@dataclass(frozen=True)
class Orders:
    """Agreement of several orders: `tau`, `low`, `high` are `(m, m)`, `methods` `(m, m)` how many both orders have."""

    name: str
    what: str
    labels: tuple[str, ...]
    tau: np.ndarray
    low: np.ndarray
    high: np.ndarray
    methods: np.ndarray

    def frame(self) -> pd.DataFrame:
        """A row for each two orders."""
        lines = [
            {
                "first": self.labels[i], "second": self.labels[j], "tau": self.tau[i, j], "low": self.low[i, j],
                "high": self.high[i, j], "methods": int(self.methods[i, j]),
            }
            for i, j in combinations(range(len(self.labels)), 2)
        ]  # fmt: skip
        return pd.DataFrame(lines)


@dataclass(frozen=True)
class Report:
    """Everything `compare` found. notes: what a reader must know before the numbers."""

    comparisons: tuple[Comparison, ...]
    orders: tuple[Orders, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Scores:
    """Scores of one section x metric. wide: pairs x attributors, better = greater, NaN where not ok."""

    wide: pd.DataFrame
    clusters: np.ndarray
    methods: tuple[str, ...]
    controls: tuple[str, ...]
    facts: Mapping[str, str] = field(default_factory=dict)

    def difference(self, first: str, second: str) -> np.ndarray:
        return (self.wide[first] - self.wide[second]).to_numpy()


def read_sources(runs: Sequence[Path]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Rows of some run folders with the column `source`, and notes. Runs that can share a table do, and it is "" then.

    Others (two trainings of one countermeasure, say) are read each by itself and named by their folders: methods are
    compared within a run, orders across runs. Raises as `xaibench.leaderboard.table.read_rows` for one run.
    """
    runs = list(dict.fromkeys(Path(run) for run in runs))
    try:
        return read_rows(runs).assign(source=""), ()
    except RunError as error:
        if len(runs) < 2:
            raise
        names = [run.name for run in runs]
        labels = names if len(set(names)) == len(names) else [str(run) for run in runs]
        parts = [read_rows([run]).assign(source=label) for run, label in zip(runs, labels, strict=True)]
        return pd.concat(parts, ignore_index=True), (f"Each run is compared by itself, orders across runs: {error}",)


class Ranking(NamedTuple):
    """Friedman's test of a section (None with too few methods or clusters), its methods, the clusters that all of them
    scored, all clusters, and the method whose gaps cost most of them.
    """

    friedman: Friedman | None
    methods: tuple[str, ...]
    complete: int
    clusters: int
    scarce: str


def compare(
    rows: pd.DataFrame,
    *,
    metrics: Sequence[str] | None = None,
    against: str | None = None,
    cluster: str = "utterance",
    rope: float | Literal["auto"] | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """Everything about the rows of `read_sources`, section by section and metric by metric.

    metrics: by default the first alignment and the first faithfulness metric that were computed. against: the reference;
    None is the best control of each section and metric. rope: half-width of the region of practical equivalence in the
    metric's units for the Bayesian test, or "auto" (see `region`); None leaves the test out. notes: kept for the report.
    Everything random is seeded with 0.

    Raises XaibenchError for an unknown metric, reference or cluster, naming the nearest, and for rows without speakers.
    """
    rows = rows if "source" in rows else rows.assign(source="")
    chosen = _metrics(rows, metrics)
    comparisons = []
    for metric in chosen:
        for scores in _sections(rows, metric, cluster):
            reference = _reference(scores, against)
            rank = _ranks(scores)
            half = None if rope is None else region(scores.wide[list(scores.methods)], metric) if rope == "auto" else rope
            table = _against(scores, metric, reference, rope=half, seed=0)
            places: Iterable[float] = rank.friedman.ranks if rank.friedman else ()
            table["rank"] = table["attributor"].map(dict(zip(rank.methods, places, strict=False)))
            pairs = _all_pairs(scores, metric, seed=0)
            comparisons.append(Comparison(scores.facts, metric, cluster, reference, table, pairs, *rank, rope=half))
    return Report(tuple(comparisons), tuple(agreements(rows, chosen, cluster=cluster)), tuple(notes))


def paired_table(
    rows: pd.DataFrame, metric: str, *, against: str | None = None, cluster: str = "utterance", seed: int = 0
) -> pd.DataFrame:
    """Every method against one reference, section by section, best mean first.

    Columns: `KEY`, `metric`, `attributor`, `mean` (over its scores), `against`, `difference`, `low`, `high` (95 %), `p`,
    `p_holm` (over the methods of the section), `effect`, `n` (clusters both have), `zeros` (equal in both), `needed`
    (clusters for a power of 80 %) and `detectable` (difference that `n` clusters show with that power). Raises as `compare`.
    """
    rows = rows if "source" in rows else rows.assign(source="")
    found = [
        _against(scores, metric, _reference(scores, against), rope=None, seed=seed)
        for scores in _sections(rows, _metrics(rows, [metric])[0], cluster)
    ]
    return pd.concat(found, ignore_index=True)


def pair_table(rows: pd.DataFrame, metric: str, *, cluster: str = "utterance", seed: int = 0) -> pd.DataFrame:
    """Every two methods of each section: the columns of `paired_table`, `first` and `second` for the names.

    `difference` is first minus second; `p_holm` corrects for all pairs of the section.
    """
    rows = rows if "source" in rows else rows.assign(source="")
    found = [_all_pairs(s, metric, seed=seed) for s in _sections(rows, _metrics(rows, [metric])[0], cluster)]
    return pd.concat(found, ignore_index=True)


def region(scores: pd.DataFrame, metric: str) -> float:
    """Default half-width of practical equivalence: 1 % of the metric's range (Benavoli et al. 2017 take 1 % of accuracy).

    Where the range is unbounded: a tenth of the standard deviation of the scores, pooled over methods.
    """
    low, high = metric_facts(metric).range
    if math.isfinite(high - low):
        return 0.01 * (high - low)
    return 0.1 * float(np.sqrt(scores.var(ddof=1).mean()))


def agreements(rows: pd.DataFrame, metrics: Sequence[str], *, cluster: str = "utterance", seed: int = 0) -> Iterator[Orders]:
    """Orders of the methods: by metric within a section, and by section (countermeasure, route, run) for a metric."""
    rows = rows if "source" in rows else rows.assign(source="")
    by_metric = {metric: list(_sections(rows, metric, cluster)) for metric in metrics}
    keys = {tuple(s.facts.values()): s.facts for found in by_metric.values() for s in found}
    varying = [k for k in KEY if len({facts[k] for facts in keys.values()}) > 1]
    for key, facts in keys.items():
        found = {m: s for m, sections in by_metric.items() for s in sections if tuple(s.facts.values()) == key}
        if len(found) > 1:
            where = " ".join(facts[k] for k in varying)
            name = "__".join(["metrics", *(component(facts[k]) for k in varying)])
            yield _orders(name, f"metrics{', ' if where else ''}{where}", found, seed)
    for metric, sections in by_metric.items():
        if len(sections) > 1:
            labelled = {" ".join(s.facts[k] for k in varying): s for s in sections}
            yield _orders(component(metric), f"{metric} by {', '.join(varying)}", labelled, seed)


def _orders(name: str, what: str, found: Mapping[str, _Scores], seed: int) -> Orders:
    labels, size = tuple(found), len(found)
    means = {}
    for label, scores in found.items():
        values, clusters = cluster_means(scores.wide[list(scores.methods)].to_numpy(), scores.clusters)
        means[label] = pd.DataFrame(values, index=clusters, columns=list(scores.methods))
    tau, low, high = (np.full((size, size), np.nan) for _ in range(3))
    methods = np.zeros((size, size), dtype=int)
    for i in range(size):
        for j in range(i, size):
            first, second = means[labels[i]], means[labels[j]]
            shared = [m for m in first.columns if m in second.columns]
            rows = first.index.union(second.index, sort=False)
            interval, methods[i, j] = order_agreement(
                first.reindex(rows)[shared].to_numpy(), second.reindex(rows)[shared].to_numpy(), seed=seed
            )
            if i == j and not math.isnan(interval.mean):
                interval = Interval(1.0, 1.0, 1.0)
            tau[i, j], low[i, j], high[i, j] = interval
            tau[j, i], low[j, i], high[j, i], methods[j, i] = tau[i, j], low[i, j], high[i, j], methods[i, j]
    return Orders(name, what, labels, tau, low, high, methods)


def rankings(rows: pd.DataFrame, metric: str, *, cluster: str = "utterance") -> list[Ranking]:
    """The average ranks of the methods in each section that has the metric. Raises as `compare`."""
    rows = rows if "source" in rows else rows.assign(source="")
    return [_ranks(scores) for scores in _sections(rows, _metrics(rows, [metric])[0], cluster)]


def _metrics(rows: pd.DataFrame, metrics: Sequence[str] | None) -> tuple[str, ...]:
    computed = sorted(set(rows["metric"]))
    if metrics:
        for name in metrics:
            if name not in computed:
                raise PluginError(registry.unknown("metric of these runs", name, computed))
        return tuple(dict.fromkeys(metrics))
    valued = set(rows.loc[rows["status"].eq("ok"), "metric"])
    families = ((*ALIGNMENT, *TEMPORAL), FAITHFULNESS)
    usual = [next((m for m in family if m in valued), None) for family in families]
    return tuple(m for m in usual if m) or tuple(sorted(valued)[:1])


def _sections(rows: pd.DataFrame, metric: str, cluster: str) -> Iterator[_Scores]:
    """The scores of every section that has the metric."""
    if cluster not in CLUSTERS:
        raise XaibenchError(registry.unknown("cluster", cluster, list(CLUSTERS)))
    part = rows[rows["metric"].eq(metric) & rows["status"].eq("ok")]
    if part.empty:
        raise XaibenchError(f"no cell has a value of {metric}: there is nothing to compare")
    unnamed = part["speaker"].isna() | part["speaker"].eq("")
    if cluster == "speaker" and unnamed.any():
        raise XaibenchError(
            f"{part.loc[unnamed, 'utterance'].nunique()} utterances have no speaker in these runs; use --cluster utterance"
        )
    sign = 1.0 if metric_facts(metric).direction == "higher" else -1.0
    for key, section in part.groupby(list(KEY), sort=True):
        wide = sign * section.pivot(index=["utterance", "vocoder"], columns="attributor", values="value")
        names = list(wide.columns)
        methods = tuple(n for n in names if kind(n) == "method")
        controls = tuple(n for n in names if kind(n) == "floor")
        utterances = wide.index.get_level_values("utterance")
        speakers = dict(zip(section["utterance"], section["speaker"], strict=True))
        labels = (utterances if cluster == "utterance" else utterances.map(speakers)).to_numpy()
        yield _Scores(wide, labels, methods, controls, dict(zip(KEY, key, strict=True)))


def _reference(scores: _Scores, against: str | None) -> str:
    """The attributor every method is compared with."""
    if against is not None:
        if against not in scores.wide.columns:
            raise PluginError(
                registry.unknown("attributor with scores to compare against", against, list(scores.wide.columns))
            )
        return against
    if not scores.controls:
        raise XaibenchError(
            "no control has a score to compare the methods with; name a reference with --against, or run with "
            "--xai including inverse-energy,constant"
        )
    counts = scores.wide[list(scores.controls)].notna().sum()
    full = [name for name in scores.controls if counts[name] == counts.max()]  # a mean over fewer is of other utterances
    return max(full, key=lambda name: scores.wide[name].mean())


def _tested(scores: _Scores, first: str, second: str, *, rope: float | None, seed: int) -> dict[str, Any]:
    """The columns of one paired comparison; NaN where the two have no pair in common."""
    difference = scores.difference(first, second)
    there = ~np.isnan(difference)
    columns = ("difference", "low", "high", "p", "effect", "needed", "detectable")
    line: dict[str, Any] = {**dict.fromkeys(columns, math.nan), "n": 0, "zeros": 0}
    if not there.any():
        return line
    interval = paired_difference(scores.wide[first], scores.wide[second], scores.clusters, seed=seed)
    means, _ = cluster_means(difference[there], scores.clusters[there])
    test, needed = signed_rank(means), needed_clusters(means)
    line |= zip(("difference", "low", "high"), interval, strict=True)
    line |= {"p": test.p, "effect": test.effect, "n": test.n, "zeros": test.zeros}
    line |= {"needed": needed.clusters, "detectable": needed.detectable}
    if rope is not None:
        posterior = bayesian_signed_rank(means, rope=rope, seed=seed)
        line |= {"p_better": posterior.better, "p_same": posterior.same, "p_worse": posterior.worse}
    return line


def _against(scores: _Scores, metric: str, reference: str, *, rope: float | None, seed: int) -> pd.DataFrame:
    sign = 1.0 if metric_facts(metric).direction == "higher" else -1.0
    lines = [
        {
            **scores.facts, "metric": metric, "attributor": name, "mean": sign * scores.wide[name].mean(),
            "against": reference, **_tested(scores, name, reference, rope=rope, seed=seed),
        }
        for name in scores.methods
        if name != reference
    ]  # fmt: skip
    if not lines:
        raise XaibenchError(f"no method but {reference} has a value of {metric}: there is nothing to compare")
    table = pd.DataFrame(lines)
    table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(table["p"]))
    order = (sign * table["mean"]).sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index(drop=True)


def _all_pairs(scores: _Scores, metric: str, *, seed: int) -> pd.DataFrame:
    ordered = sorted(scores.methods, key=lambda name: -scores.wide[name].mean())
    lines = [
        {**scores.facts, "metric": metric, "first": a, "second": b, **_tested(scores, a, b, rope=None, seed=seed)}
        for a, b in combinations(ordered, 2)
    ]
    if not lines:
        return pd.DataFrame(columns=[*KEY, "metric", "first", "second", "difference", "p", "p_holm", "needed"])
    table = pd.DataFrame(lines)
    table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(table["p"]))
    return table


def _ranks(scores: _Scores) -> Ranking:
    """A section's ranking.

    A block is a cluster's mean over the pairs that every method scored: no method is ranked on an easier vocoder.
    """
    methods = list(scores.methods)
    wide = scores.wide[methods]
    everyone = wide.notna().all(axis=1).to_numpy()
    total = len(set(scores.clusters))
    complete = len(set(scores.clusters[everyone]))
    gaps = wide.isna().sum()
    scarce = str(gaps.idxmax()) if complete < total and len(gaps) else ""
    if complete < FEWEST_BLOCKS or len(methods) < 3:
        return Ranking(None, tuple(methods), complete, total, scarce)
    blocks, _ = cluster_means(wide[everyone].to_numpy(), scores.clusters[everyone])
    return Ranking(friedman(blocks), tuple(methods), complete, total, scarce)


# --- in words ------------------------------------------------------------------------------------------------------------


def sentences(comparison: Comparison) -> list[str]:
    """What a comparison says, computed from it."""
    return [*_differing(comparison), *_pairwise(comparison), *_friedman_line(comparison), *_size_lines(comparison)]


def _differing(c: Comparison) -> list[str]:
    tested = c.table[c.table["p_holm"].notna()]
    if tested.empty:
        return [f"No method has a {c.cluster} in common with {c.against}: nothing could be tested."]
    found = tested[tested["p_holm"] <= ALPHA]
    better, worse = (list(found.loc[found["effect"] * s > 0, "attributor"]) for s in (1, -1))
    named = [f"{side}: {_listed(names)}" for side, names in (("better", better), ("worse", worse)) if names]
    verb = "differs" if len(found) == 1 else "differ"
    said = f"Of {_count(len(tested), 'method')}, {len(found) or 'none'} {verb} from {c.against} after Holm's correction"
    lines = [f"{said}{' (' + '; '.join(named) + ')' if named else ''}."]
    most = int(tested["n"].max())
    fewest = math.ceil(1 + math.log2(len(tested) / ALPHA))
    if most < fewest:
        lines.append(
            f"With {_count(most, c.cluster)} no method can: Wilcoxon's test corrected for {_count(len(tested), 'method')} "
            f"needs {fewest}."
        )
    return lines


def _pairwise(c: Comparison) -> list[str]:
    tested = c.pairs[c.pairs["p_holm"].notna()]
    if tested.empty:
        return []
    count = int((tested["p_holm"] <= ALPHA).sum())
    return [
        f"Of {_count(len(tested), 'pair')} of methods, {count or 'none'} {'differs' if count == 1 else 'differ'} after "
        "Holm's correction for all pairs."
    ]


def _friedman_line(c: Comparison) -> list[str]:
    left = c.clusters - c.complete
    out = "none left out" if not left else f"{left} left out, most for want of {c.scarce}"
    if c.friedman is None:
        if len(c.ranked) < 3:
            return []
        return [
            f"No ranks: {_count(c.complete, c.cluster)} in which every method has a value, {out}; "
            f"ranks need {FEWEST_BLOCKS}."
        ]
    f = c.friedman
    differ = f.p_f <= ALPHA
    lines = [
        f"Friedman's test over {_count(f.n, c.cluster)} ({out}) and {len(c.ranked)} methods: chi-square {f.chi_square:.1f}, "
        f"p = {f.p:.2g}; after Iman and Davenport F = {f.f:.2f}, p = {f.p_f:.2g}: the average ranks "
        f"{'differ' if differ else 'are not shown to differ'}."
    ]
    if differ:
        groups = [[c.ranked[i] for i in group] for group in f.groups()]
        told = "; ".join(f"({_listed(g, 8)})" for g in groups[:4])
        more = f" and {len(groups) - 4} further groups" if len(groups) > 4 else ""
        lines.append(
            f"Critical difference {f.critical_difference:.2f} ranks (Nemenyi, 5 %); not told apart: {told}{more}."
            if groups
            else f"Critical difference {f.critical_difference:.2f} ranks (Nemenyi, 5 %): every method is told apart."
        )
    return lines


def _size_lines(c: Comparison) -> list[str]:
    found = []
    best = c.table.iloc[0]
    for first, second, line in (
        (best["attributor"], c.against, best),
        *((p["first"], p["second"], p) for p in c.pairs.iloc[:1].to_dict("records")),
    ):
        if math.isnan(line["needed"]):
            continue
        sure = line["low"] > 0 or line["high"] < 0
        doubt = "" if sure else "; a guess, since the interval of the difference holds 0"
        what = (
            f"no number of {c.cluster}s, since their means are equal"
            if math.isinf(line["needed"])
            else f"about {_rounded(line['needed'])} {c.cluster}s ({line['n']} here{doubt})"
        )
        shown = "" if math.isnan(line["detectable"]) else f" A difference of {number(line['detectable'])} would show here."
        found.append(f"To tell {first} from {second} with a power of 80 % takes {what}.{shown}")
    return found


def _rounded(count: float) -> str:
    """Two significant digits, as many as an observed effect deserves.

    >>> _rounded(6.0), _rounded(137.0), _rounded(12345.0)
    ('6', '140', '12,000')
    """
    return f"{count if count < 100 else float(f'{count:.2g}'):,.0f}"


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _listed(names: Sequence[str], limit: int = NAMED) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} others" if len(names) > limit else "")


def _p(p: float) -> str:
    """
    >>> _p(0.03125), _p(0.00002), _p(1.0), _p(float("nan"))
    ('.031', '<.001', '1.00', '-')
    """
    return "<.001" if p < 0.0005 else number(p)


# --- on paper ------------------------------------------------------------------------------------------------------------


def _header(c: Comparison) -> list[str]:
    posterior = ["P b/s/w"] if "p_better" in c.table else []
    return ["attributor", "mean", "difference", "p", "Holm", "r", "rank", "n at 80 %", *posterior]


def _cells(c: Comparison, row: Mapping[str, Any]) -> list[str]:
    needed = row["needed"]
    size = "-" if math.isnan(needed) else "inf" if math.isinf(needed) else _rounded(needed)
    rank = "-" if pd.isna(row["rank"]) else f"{row['rank']:.1f}"
    posterior = [" ".join(short(row[k]) for k in ("p_better", "p_same", "p_worse"))] if "p_better" in row else []
    difference = with_interval(row["difference"], row["low"], row["high"])
    return [row["attributor"], number(row["mean"]), difference, _p(row["p"]), _p(row["p_holm"]), short(row["effect"]), rank,
            size, *posterior]  # fmt: skip


def _legend(c: Comparison) -> str:
    return LEGEND.format(against=c.against, cluster=c.cluster) + ("" if c.rope is None else BAYES.format(rope=c.rope))


def _order_lines(orders: Orders) -> list[str]:
    lines = []
    for row in orders.frame().to_dict("records"):
        if math.isnan(row["tau"]):
            why = f"fewer than {FEWEST} methods in common" if row["methods"] < FEWEST else "one of them ties every method"
            lines.append(f"{row['first']} and {row['second']}: no tau, {why}.")
        else:
            tau = with_interval(row["tau"], row["low"], row["high"], text=short)
            lines.append(f"{row['first']} and {row['second']}: tau {tau} over {row['methods']} methods.")
    return lines


ORDERS = "Agreement of orders (Kendall's tau-b of the methods' means, [a b]: 95 % of resamples of the clusters)"


def terminal(report: Report) -> RenderableType:
    """A report for `rich`."""
    parts: list[RenderableType] = [item for note in report.notes for item in (Text(note), Text())]
    for c in report.comparisons:
        table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False, collapse_padding=False)
        for i, name in enumerate(_header(c)):
            table.add_column(name, justify="left" if i == 0 else "right", overflow="fold", min_width=12 if i == 0 else None)
        table.padding = (0, 1, 0, 0)
        for row in c.table.to_dict("records"):
            table.add_row(*_cells(c, row), style="bold" if row["p_holm"] <= ALPHA else "")
        parts += [Text(c.title, style="bold"), Text(), table, Text(), Text(_legend(c), style="dim"), Text()]
        parts += [*(Text(f"- {line}") for line in sentences(c)), Text()]
    if report.orders:
        parts += [Text(ORDERS, style="bold"), Text()]
        for orders in report.orders:
            parts += [Text(orders.what), *(Text(f"- {line}") for line in _order_lines(orders)), Text()]
    return Group(*parts)


def markdown(report: Report) -> str:
    """GitHub-flavoured markdown: a table for each section and metric, what it says, and the agreement of orders."""
    lines = [line for note in report.notes for line in (escape(note), "")]
    for c in report.comparisons:
        header = _header(c)
        lines += [f"## {escape(c.title)}", "", _legend(c), ""]
        lines += [table_line(header), table_line(["---", *["---:"] * (len(header) - 1)])]
        lines += [table_line(_cells(c, row)) for row in c.table.to_dict("records")]
        lines += ["", *(f"- {escape(s)}" for s in sentences(c)), ""]
    if report.orders:
        lines += [f"## {ORDERS}", ""]
        for orders in report.orders:
            lines += [f"### {escape(orders.what)}", "", *(f"- {escape(s)}" for s in _order_lines(orders)), ""]
    return "\n".join(lines).rstrip() + "\n"


def as_csv(report: Report) -> str:
    """Every method against the reference, all digits, unknown is empty."""
    return csv_text(pd.concat([c.table for c in report.comparisons]))


def as_json(report: Report) -> str:
    """`{"notes", "comparisons": [{..., rows, pairs, friedman, says}], "orders": [...]}`; unknown and infinite are null."""
    content = {
        "notes": list(report.notes),
        "comparisons": [
            {
                **c.facts, "metric": c.metric, "cluster": c.cluster, "against": c.against, "rope": c.rope,
                "clusters": c.clusters, "complete": c.complete, "rows": _records(c.table), "pairs": _records(c.pairs),
                "friedman": _friedman_json(c), "says": sentences(c),
            }
            for c in report.comparisons
        ],
        "orders": [{"name": o.name, "what": o.what, "pairs": _records(o.frame())} for o in report.orders],
    }  # fmt: skip
    return json.dumps(plain(content), indent=1, allow_nan=False) + "\n"


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.drop(columns=[c for c in (*KEY, "metric", "against") if c in table.columns]).to_dict("records")


def _friedman_json(c: Comparison) -> dict[str, Any] | None:
    if c.friedman is None:
        return None
    f = c.friedman
    return {
        "n": f.n, "chi_square": f.chi_square, "p": f.p, "f": f.f, "p_f": f.p_f, "alpha": f.alpha,
        "critical_difference": f.critical_difference, "ranks": dict(zip(c.ranked, f.ranks, strict=True)),
        "groups": [[c.ranked[i] for i in group] for group in f.groups()], "methods": list(c.ranked), "nemenyi": f.nemenyi,
    }  # fmt: skip


def write(report: Report, out: Path) -> list[Path]:
    """compare.md, .csv, .json, cd-METRIC.png and .svg, agreement-NAME.csv and .png in the folder `out`. Returns the paths.

    With several sections the pictures' names also hold what tells the sections apart. Raises RunError when the folder
    cannot be written.
    """
    from xaibench import diagrams  # matplotlib only when pictures are asked for

    out = Path(out)
    texts = {"compare.md": markdown(report), "compare.csv": as_csv(report), "compare.json": as_json(report)}
    texts |= {f"agreement-{o.name}.csv": csv_text(o.frame()) for o in report.orders}
    paths = [write_text(out / name, content) for name, content in texts.items()]
    varying = [k for k in KEY if len({c.facts[k] for c in report.comparisons}) > 1]
    for c in report.comparisons:
        if c.friedman is not None:
            name = "__".join(["cd-" + component(c.metric), *(component(c.facts[k]) for k in varying)])
            paths += diagrams.critical_difference(c.friedman, c.ranked, out / name, title=c.title, unit=c.cluster)
    for orders in report.orders:
        title = f"agreement of orders: {orders.what}"
        paths += diagrams.agreement(orders.tau, orders.labels, out / f"agreement-{orders.name}", title=title)
    return paths
