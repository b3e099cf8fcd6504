"""What users call on scores rather than maps: error rates, t-DCF, intervals, tests, agreement, tops, RCQ and pure scores.

Each gets vectors that nobody would make on purpose: NaN, infinity, ties, one class only, one element, a hundred thousand,
numbers that overflow when squared, tensors of other types, text. Each answers with numbers in their range, NaN where that is
said to mean "unknown", or an XaibenchError. One call of one function is one input.
"""

from __future__ import annotations

import math
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing import TIMES, fuzz, handed
from hypothesis import given
from hypothesis import strategies as st
from twins import detection as twin

from xaibench import agreement, comparisons, stats, top
from xaibench.errors import XaibenchError
from xaibench.metrics import axioms, detection, faithfulness, rcq, readouts, soft_masks, stability, subsets, tdcf
from xaibench.metrics.probe import Curve
from xaibench.numbers import real_numbers

SIZES = st.sampled_from([1, 1, 2, 3, 5, 6, 7, 12, 40])

#: Vectors by kind, `(rng, n) -> (n,)`.
VECTORS: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "noise": lambda rng, n: rng.standard_normal(n),
    "ties": lambda rng, n: rng.integers(-2, 3, n).astype(float),
    "constant": lambda rng, n: np.full(n, rng.choice([0.0, -0.0, 0.1, 1e4, -3.5])),
    "nearly constant": lambda rng, n: 0.1 + 1e-16 * rng.integers(0, 3, n),
    "saturated": lambda rng, n: rng.choice([-1e4, 1e4], n),
    "shares": lambda rng, n: rng.random(n),
    "huge": lambda rng, n: rng.choice([-1, 1], n) * 10 ** rng.uniform(150, 308, n),
    "tiny": lambda rng, n: rng.integers(-3, 4, n) * 5e-324,
    "small": lambda rng, n: rng.standard_normal(n) * 1e-200,
    "all scales": lambda rng, n: rng.choice([-1, 1], n) * 10 ** rng.uniform(-300, 300, n),
    "one away": lambda rng, n: np.where(np.arange(n) == rng.integers(n), 1e6, 0.25),
    "integers": lambda rng, n: rng.integers(-5, 5, n),
    "bools": lambda rng, n: rng.random(n) < 0.5,
    "float16": lambda rng, n: rng.standard_normal(n).astype(np.float16),
    "a list": lambda rng, n: [float(x) for x in rng.standard_normal(n)],
    "NaN": lambda rng, n: np.where(rng.random(n) < 0.4, np.nan, rng.standard_normal(n)),
    "all NaN": lambda rng, n: np.full(n, np.nan),
    "inf": lambda rng, n: np.where(np.arange(n) == rng.integers(n), np.inf, rng.standard_normal(n)),
    "-inf": lambda rng, n: np.full(n, -np.inf),
    "a tensor": lambda rng, n: torch.from_numpy(rng.standard_normal(n)),
    "a tensor with history": lambda rng, n: torch.from_numpy(rng.standard_normal(n)).requires_grad_() * 2,
    "bfloat16": lambda rng, n: torch.from_numpy(rng.standard_normal(n)).bfloat16(),
    "complex": lambda rng, n: rng.standard_normal(n) * 1j,
    "none": lambda rng, n: [],
    "text": lambda rng, n: ["a"] * n,
    "None": lambda rng, n: [None] * n,
    "ragged": lambda rng, n: [[1.0], [2.0, 3.0]],
    "two dimensions": lambda rng, n: rng.standard_normal((n, 2)),
    "a number": lambda rng, n: 0.5,
    "many": lambda rng, n: rng.standard_normal(100_000) if n == 40 else rng.standard_normal(n),
}
#: Those that are vectors of finite numbers of a usual size.
USUAL = ("noise", "ties", "constant", "nearly constant", "saturated", "shares", "one away", "integers", "a list")


def vector(kind: str, size: int, seed: int) -> Any:
    return VECTORS[kind](np.random.default_rng(seed), size)


def unit(value: float) -> None:
    assert 0 <= value <= 1, value


def numbers(values: object) -> np.ndarray:
    return real_numbers(values, "vectors")


def line(values: object, other: object = None) -> torch.Tensor:
    """For functions that take tensors only: a vector of one number or more, as long as the other."""
    found = numbers(values)
    if found.ndim != 1 or not found.size or (other is not None and found.shape != numbers(other).shape):
        raise XaibenchError("no vectors of one length")
    return torch.from_numpy(found)


# ---- what is asked, and what the answer must be: name -> (kinds of argument, call, check) ------------------------------


def eer(bonafide, spoof):
    rate, threshold = detection.equal_error_point(bonafide, spoof)
    unit(rate)
    assert math.isfinite(threshold) and rate == detection.equal_error_rate(bonafide, spoof)
    if max(numbers(bonafide).size, numbers(spoof).size) <= 40:
        wanted = twin.equal_error_rate(numbers(bonafide).ravel().tolist(), numbers(spoof).ravel().tolist())
        assert rate == pytest.approx(wanted, abs=1e-12)


def det(bonafide, spoof):
    miss, alarm, thresholds = detection.detection_error_tradeoff(bonafide, spoof)
    assert (np.diff(miss) >= 0).all() and (np.diff(alarm) <= 0).all() and (np.diff(thresholds) >= 0).all()
    assert (miss[0], alarm[0], miss[-1], alarm[-1]) == (0, 1, 1, 0)


def decided(bonafide, spoof):
    for threshold in (0.0, 1e300, -1e4):
        made = vars(detection.decisions(bonafide, spoof, threshold=threshold))
        assert made.pop("threshold") == threshold
        assert all(math.isnan(v) or 0 <= v <= 1 for v in made.values())
        assert not any(math.isnan(v) for k, v in made.items() if "precision" not in k)


def costs(bonafide, spoof, other):
    rates = tdcf.asv_error_rates(bonafide, spoof, other)
    for least, actual in (
        (tdcf.min_tdcf_2019_legacy, tdcf.actual_tdcf_2019_legacy),
        (tdcf.min_tdcf_2021, tdcf.actual_tdcf_2021),
    ):
        try:
            cost = least(bonafide, other, rates)
        except XaibenchError:
            continue
        assert 0 <= cost <= 1 + 1e-12 and actual(bonafide, other, rates) >= cost - 1e-12


def interval(found, *, ratio=False):
    mean, low, high = found
    assert math.isnan(low) == math.isnan(high), found
    assert not math.isinf(mean) and not math.isinf(low) and not math.isinf(high), found
    if not math.isnan(low):
        assert low <= mean <= high or ratio, found


def bootstrap(values, clusters):
    found = stats.cluster_bootstrap(values, clusters, draws=200)
    interval(found)
    assert math.isnan(found.low) == (len(set(clusters)) == 1)
    least, most = numbers(values).min(), numbers(values).max()
    assert least - 1e-9 * abs(least) <= found.mean <= most + 1e-9 * abs(most)


def paired(first, second, clusters):
    interval(stats.paired_difference(first, second, clusters, draws=200))


def ratio(first, second, clusters):
    interval(stats.ratio_of_means(first, second, clusters, draws=200), ratio=True)


def tau(first, second):
    found = stats.rank_agreement(first, second)
    assert math.isnan(found.tau) or (-1 <= found.tau <= 1 and 0 <= found.p <= 1)


def orders(first, second):
    a, b = (np.resize(line(v).numpy(), (max(len(line(first)) // 3, 1), 3)) for v in (first, second))
    found, count = agreement.order_agreement(a, b, draws=200)
    assert 0 <= count <= 3 and all(math.isnan(v) or -1 <= v <= 1 for v in found)
    assert math.isnan(found.low) or found.low <= found.mean <= found.high


def signed(differences):
    found = comparisons.signed_rank(differences)
    unit(found.p)
    assert -1 <= found.effect <= 1 and 0 <= found.zeros <= found.n


def corrected(p):
    found = comparisons.holm(p)
    known = ~np.isnan(found)
    assert ((found[known] >= 0) & (found[known] <= 1)).all() and (np.isnan(numbers(p)) == ~known).all()
    assert (found[known] >= numbers(p)[known]).all()


def blocks(first, second, third):
    found = comparisons.friedman(np.stack([line(first), line(second, first), line(third, first)], 1))
    unit(found.p)
    unit(found.p_f)
    assert found.chi_square >= 0 and found.f >= 0 and found.ranks.sum() == pytest.approx(6)
    assert ((found.nemenyi >= 0) & (found.nemenyi <= 1 + 1e-9)).all() and found.groups() is not None


def posterior(differences):
    found = comparisons.bayesian_signed_rank(differences, rope=0.01, draws=50)
    assert all(0 <= p <= 1 + 1e-12 for p in found) and sum(found) == pytest.approx(1)


def needed(differences):
    found = comparisons.needed_clusters(differences)
    assert math.isnan(found.clusters) or found.clusters >= 6
    assert math.isnan(found.detectable) or 0 <= found.detectable < math.inf


def means(values, clusters):
    found, labels = comparisons.cluster_means(values, clusters)
    assert len(found) == len(labels) == len(set(clusters)) and not np.isinf(found).any()


def topped(values, other):
    a = numbers(values)
    mask = top.top_mask(a.reshape(1, -1) if a.ndim == 1 else a, 0.3)
    assert mask.dtype == bool and mask.sum() in (0, top.share_count(0.3, np.ones(mask.shape, bool)))


def contribution(values, other):
    heat = rcq.heat(values)
    assert np.isfinite(heat).all() and (heat >= 0).all() and (heat <= 1).all()
    found = rcq.rcq([heat], [{"BS": [0], "SS": [len(heat) - 1]}])
    assert all(math.isnan(v) or -100 <= v < math.inf for v in found.values())


def correlated(first, second):
    a, b = line(first, second)[None], line(second)[None]
    found = subsets.correlation(a, b)
    assert found.isnan() or -1 <= found <= 1
    error = subsets.scaled_infidelity(a, b)
    assert error.isnan() or 0 <= error < math.inf, error


def falls(first, second):
    a, b = line(first, second), line(second)
    for name in readouts.READOUTS:
        found = readouts.fall(a, b, name)
        sound = a.isfinite() & b.isfinite()
        if name == "probability":
            assert (found[sound].abs() <= 1).all() and not found[sound].isnan().any()
    share = soft_masks.relative_fall(a, b)[a.isfinite() & b.isfinite()]
    assert ((share >= 0) & (share <= 1)).all()
    effect = faithfulness.top_share_effect(a, b)
    assert effect[(b < 1) | b.isnan()].isnan().all()


def areas(values, other):
    a = line(values)[None]
    at = torch.linspace(0, 1, a.shape[1], dtype=torch.float64)
    found = faithfulness.area_under_curve(at, a)
    least, most = a.min(), a.max()
    assert found.isnan() == bool(a.isnan().any()) or a.isinf().any()
    assert found.isnan() or least - 1e-9 * least.abs() <= found <= most + 1e-9 * most.abs()
    faithfulness.pixel_flipping(Curve(at, a))


def gaps(values, other):
    maps, difference = line(values)[None, None], line(other)[:1]
    gap = axioms.completeness_gap(maps, difference)
    assert gap.isnan() or 0 <= gap < math.inf
    assert not stability.relative_change(maps, maps) > 0 and not stability.rank_correlation(maps, maps) < 1


CALLS: dict[str, Callable[..., None]] = {
    f.__name__: f for f in (
        eer, det, decided, costs, bootstrap, paired, ratio, tau, orders, signed, corrected, blocks, posterior, needed, means,
        topped, contribution, correlated, falls, areas, gaps,
    )
}  # fmt: skip


def ask(name: str, kinds: tuple[str, ...], sizes: tuple[int, ...], seed: int) -> str:
    """Call it; an XaibenchError is its answer, anything else that it raises or warns of fails the test."""
    call = CALLS[name]
    wanted = call.__code__.co_varnames[: call.__code__.co_argcount]
    same = "clusters" in wanted or name in ("tau", "blocks", "correlated", "falls")
    sizes = (sizes[0],) * 3 if same else sizes
    given = [vector(kind, size, seed + i) for i, (kind, size) in enumerate(zip(kinds, sizes, strict=True))]
    length = len(given[0]) if isinstance(given[0], np.ndarray) and given[0].ndim else sizes[0]
    clusters = [f"c{int(c)}" for c in np.random.default_rng(seed).integers(0, 1 + seed % 9, length)]
    arguments = [clusters if n == "clusters" else given[i] for i, n in enumerate(wanted)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            call(*arguments)
        except XaibenchError as error:
            return str(error)
    return ""


KINDS = st.one_of(st.sampled_from(USUAL), st.sampled_from(list(VECTORS)))
#: Calls of each function by default, and what is dear.
CHEAP, DEAR = (
    350,
    {"bootstrap": 120, "paired": 120, "ratio": 120, "blocks": 60, "posterior": 120, "needed": 60, "orders": 150},
)


@pytest.mark.parametrize("times", [TIMES, pytest.param(30 * TIMES, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("name", CALLS)
def test_an_answer_in_its_range_or_an_error_of_ours(name, times):
    handed[name] = handed[f"{name}, answered"] = 0

    @fuzz(DEAR.get(name, CHEAP), times=times)
    @given(kinds=st.tuples(KINDS, KINDS, KINDS), sizes=st.tuples(SIZES, SIZES, SIZES), seed=st.integers(0, 2**31))
    def asked(kinds, sizes, seed):
        said = ask(name, kinds, sizes, seed)
        handed[name] += 1
        handed[f"{name}, answered"] += not said

    asked()
    assert handed[name] >= times * DEAR.get(name, CHEAP) and handed[f"{name}, answered"] > 0.1 * handed[name], dict(handed)


@pytest.mark.parametrize("name", ["eer", "det", "costs", "tau", "orders", "signed", "means", "topped", "falls"])
def test_a_hundred_thousand(name):
    """Memory grows with the number, not with its square."""
    tracemalloc.start()
    try:
        assert not ask(name, ("many", "many", "many"), (40, 40, 40), 5)
        assert tracemalloc.get_traced_memory()[1] < 400e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", CALLS)
def test_each_kind_of_vector(name):
    """None is left to chance, and what is usual is answered."""
    for kind in VECTORS:
        ask(name, (kind, "noise", "noise"), (12, 12, 12), 5)
        ask(name, (kind, kind, kind), (12, 12, 12), 5)
        ask(name, ("noise", kind, "noise"), (1, 1, 1), 5)
    for kind in ("noise", "shares", "a list"):
        assert not ask(name, ("shares" if name == "corrected" else kind, "noise", "noise"), (12, 12, 12), 5)
