"""Do the truth's own constants decide who wins? The same maps, scored against other truths.

Maps are those kept by the audit's run, on its grid; for a truth on another STFT they are projected to that grid (mass
kept). Rows of the leaderboard are the methods; controls made from a truth would move with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from xaibench.agreement import order_agreement
from xaibench.audit.section import Section
from xaibench.errors import RunError
from xaibench.grid import Grid
from xaibench.harness.plan import ordered_pairs
from xaibench.harness.workbench import Workbench
from xaibench.leaderboard.table import kind
from xaibench.maps import map_path, read_map
from xaibench.metrics.localisation import relevance_rank_accuracy
from xaibench.project import project
from xaibench.stats import Interval, rank_agreement
from xaibench.truth import TruthSpec, smooth, truth
from xaibench.types import Attribution, Pair

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xaibench.protocols import Countermeasure

QUESTION = (
    "Rank accuracy depends on how the truth is made: the formula, the share of cells that count as changed, the STFT, a "
    "small constant in a denominator, the alignment of the pair. Each line changes one of these choices (the last "
    "smooths the maps instead), scores the same maps again, and gives Kendall's tau between the order of the methods then "
    "and in the reference (1: same order, 0: unrelated). "
    "Where methods differ by no more than chance, their order is noise under any truth: the yardstick is tau between the "
    "orders of two random halves of the utterances under the reference itself."
)
HALVES = 200


@dataclass(frozen=True)
class Variant:
    """One way to make the truth. `late`: samples by which the bona fide half is delayed; `smoothed`: the maps are, too."""

    name: str
    spec: TruthSpec = field(default_factory=TruthSpec)
    grid: Grid = field(default_factory=Grid)
    late: int = 0
    smoothed: bool = False


def variants(grid: Grid, own: Grid | None = None) -> tuple[Variant, ...]:
    """The reference first. `grid` is the run's, `own` the countermeasure's STFT where it differs."""
    base = Variant("reference: Eq. 2, top 5 %", grid=grid)
    made = [
        base,
        replace(base, name="Eq. 1 (not smoothed)", spec=TruthSpec("eq1")),
        replace(base, name="|log difference|", spec=TruthSpec("log-difference")),
        replace(base, name="top 10 % (tau 0.90)", spec=TruthSpec(share=0.10)),
        replace(base, name="top 1 % (tau 0.99)", spec=TruthSpec(share=0.01)),
        replace(base, name="STFT 1024/256", grid=Grid(grid.sample_rate, 1024, 256, grid.window)),
        replace(base, name="STFT 320/160", grid=Grid(grid.sample_rate, 320, 160, grid.window)),
        replace(base, name="epsilon 1e-4", spec=TruthSpec(epsilon=1e-4)),
        replace(base, name="epsilon 1e-2", spec=TruthSpec(epsilon=1e-2)),
        replace(base, name=f"{grid.hop // 4} samples late (1/4 hop)", late=grid.hop // 4),
        replace(base, name=f"{grid.n_fft // 4} samples late (1/4 window)", late=grid.n_fft // 4),
        replace(base, name="maps smoothed as the truth is", smoothed=True),
    ]
    if own is not None and own != grid:
        made.insert(7, replace(base, name=f"the countermeasure's own STFT {own.n_fft}/{own.hop}", grid=own))
    return tuple(made)


def own_grid(module: Countermeasure) -> Grid | None:
    """The STFT in front of a countermeasure, where it has one."""
    grids = (getattr(stage, "grid", None) for stage in module.frontend.modules())
    return next((grid for grid in grids if isinstance(grid, Grid)), None)


def rescored(bench: Workbench, run: Path, countermeasure: str, done: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rank accuracies of the kept maps under every variant: name -> pairs x methods, the reference first.

    done: those of the run, pairs x attributors (`xaibench.audit.runs.scores`). What has none there, a map without
    frequencies or a void method, has none here.
    """
    spec, module = bench.spec, bench.countermeasure(countermeasure).module
    route = bench.route(countermeasure)
    chosen = ordered_pairs(bench.corpus, spec.split)[: spec.pairs]
    methods = [name for name in spec.attributors if kind(name) == "method" and name in done.columns]
    kinds = variants(spec.grid, own_grid(module))
    found: dict[str, dict[tuple[str, str], Mapping[str, float]]] = {v.name: {} for v in kinds}
    for pair in chosen:
        key = (pair.spoof.source, pair.spoof.vocoder)
        scored = [name for name in methods if key in done.index and np.isfinite(done.at[key, name])]
        paths = {name: map_path(run, countermeasure, route, name, pair.id) for name in scored}
        kept = {name: torch.from_numpy(read_map(path).values) for name, path in paths.items()}
        if not kept:
            continue
        maps = Attribution(torch.stack(list(kept.values())), spec.grid.frequency, spec.grid.time(module.n_samples))
        for variant in kinds:
            values = _scores(bench, pair, maps, variant, module.n_samples)
            found[variant.name][key] = dict(zip(kept, values, strict=True))
    return {name: pd.DataFrame.from_dict(lines, orient="index", columns=methods) for name, lines in found.items()}


def _scores(bench: Workbench, pair: Pair, maps: Attribution, variant: Variant, n_samples: int) -> list[float]:
    real, fake = bench.waveforms([pair], n_samples)
    if real is None:
        raise RunError(f"{pair.id} has no bona fide twin, which every variant of the truth is made from")
    if variant.late:
        real = torch.nn.functional.pad(real, (variant.late, 0))[:, :n_samples]
    of = truth(fake, real, grid=variant.grid, band=bench.corpus.valid_band, spec=variant.spec)
    values = project(maps, variant.grid.frequency, variant.grid.time(n_samples)).values
    if variant.smoothed:
        values = smooth(values, kernel=variant.spec.kernel, variance=variant.spec.variance)
    region = of.region.cpu().expand(values.shape)
    return relevance_rank_accuracy(values, region, of.valid.cpu()).tolist()


def constants_table(scored: Mapping[str, pd.DataFrame], *, seed: int = 0) -> pd.DataFrame:
    """One line a variant, and the yardstick: tau with its interval over source utterances, and who wins.

    Empty where no map has a score.
    """
    first, *_ = scored
    if scored[first].isna().all(axis=None):
        return pd.DataFrame()
    reference = _by_source(scored[first])
    lines = []
    for name, wide in scored.items():
        order = _by_source(wide)
        tau, _ = order_agreement(reference.to_numpy(), order.to_numpy(), seed=seed)
        means = order.mean().dropna()
        lines.append(_line(name, tau, *((means.idxmax(), means.max()) if len(means) else ("", np.nan))))
    half = _halves(reference.to_numpy(), seed)
    spread = Interval(float(half.mean()), *np.quantile(half, [0.025, 0.975])) if len(half) else Interval(*[np.nan] * 3)
    lines.insert(1, _line("yardstick: two halves of the utterances", spread, "", np.nan))
    return pd.DataFrame(lines)


def _line(name: str, tau: Interval, best: str, score: float) -> dict[str, object]:
    return {
        "truth": name, "tau": tau.mean, "low": tau.low, "high": tau.high, "best method": best, "its rank accuracy": score,
    }  # fmt: skip


def _by_source(wide: pd.DataFrame) -> pd.DataFrame:
    """Mean over the vocoded twins of each source utterance."""
    return wide.groupby(wide.index.map(lambda key: key[0])).mean()


def _halves(order: np.ndarray, seed: int) -> np.ndarray:
    """tau between the orders of two random halves of the utterances, `HALVES` times; without those where it is undefined."""
    draw = np.random.default_rng(seed)
    taus = []
    for _ in range(HALVES):
        halves = np.array_split(draw.permutation(len(order)), 2)
        taus.append(rank_agreement(*(_means(order[half]) for half in halves)).tau)
    return np.array([tau for tau in taus if np.isfinite(tau)])


def _means(scores: np.ndarray) -> np.ndarray:
    """Mean of each method over the utterances that have it; NaN without any. Shape: `(G, k)` -> `(k,)`."""
    counts = np.isfinite(scores).sum(axis=0)
    return np.divide(np.nansum(scores, axis=0), counts, out=np.full(scores.shape[1], np.nan), where=counts > 0)


def constants_section(table: pd.DataFrame) -> Section | None:
    """The part of the audit; None for an empty table."""
    if table.empty:
        return None
    reference, yardstick, *_ = table.to_dict("records")
    others = table.iloc[2:]
    winners = sorted(set(others["best method"]) - {reference["best method"], ""})
    answer = (
        _yardstick(yardstick),
        _moved(others.dropna(subset=["tau"]), yardstick["tau"]),
        f"The first place goes to {reference['best method']} in the reference"
        + (f", and to {', '.join(winners)} under other choices." if winners else " and under every other choice."),
    )
    return Section("constants", "Do the truth's constants decide?", QUESTION, answer, table, lambda: _draw(table))


def _yardstick(line: Mapping[str, float]) -> str:
    """How much of the order of the methods is noise."""
    if np.isnan(line["tau"]):
        return (
            "How well two halves of the utterances agree on the order of the methods is unknown: either half needs scores "
            "of three methods that are not all alike."
        )
    if line["low"] <= 0:
        meaning = "the order of the methods may be noise altogether"
    else:
        meaning = "much of the order is noise" if line["tau"] < 0.5 else "most of the order is not noise"
    return (
        f"Two halves of the utterances agree on the order of the methods with tau {line['tau']:.2f} [{line['low']:.2f}, "
        f"{line['high']:.2f}]: {meaning}."
    )


def _moved(others: pd.DataFrame, yardstick: float) -> str:
    """Which choice moves the order most, and which beyond what another half of the utterances does. `others` have a tau."""
    if others.empty:
        return "Whether a choice moves the order is unknown: tau needs three methods that are not all alike."
    worst = others.loc[others["tau"].idxmin()]
    if worst["tau"] > 1 - 1e-9:
        return "No choice moves the order of the methods: tau is 1 for each."
    ends = "" if np.isnan(worst["low"]) else f" [{worst['low']:.2f}, {worst['high']:.2f}]"
    text = f"The choice that moves the order most is '{worst['truth']}': tau {worst['tau']:.2f}{ends}."
    if np.isnan(yardstick):
        return text
    below = others[others["high"] < yardstick]
    names = ", ".join(f"'{name}'" for name in below["truth"])
    return f"{text} Below the yardstick beyond the interval: {names or 'none'}."


def _draw(table: pd.DataFrame) -> Figure:
    from xaibench.figures.style import BLUE, VERMILLION, new_figure

    figure = new_figure(7.2, 0.28 * len(table) + 0.8, layout="constrained")
    axes = figure.subplots()
    for y, line in enumerate(table.to_dict("records")):
        colour = BLUE if y == 1 else VERMILLION
        axes.plot([line["low"], line["high"]], [y, y], color=colour, linewidth=1)
        axes.plot(line["tau"], y, "o", color=colour, markersize=4)
    axes.set_yticks(range(len(table)), table["truth"])
    axes.invert_yaxis()
    axes.set_xlim(-1, 1.05)
    axes.axvline(0, color="black", linewidth=0.5)
    axes.set_xlabel("Kendall's tau with the order of the methods in the reference")
    return figure
