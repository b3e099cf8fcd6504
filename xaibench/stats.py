"""Uncertainty of a board: intervals for means and paired differences, agreement of two orders.

The vocoded twins of one recording share its speech, so their scores are not independent: the unit that is resampled is
the *cluster* (the source utterance), never the single score. Shapes: scores `(n,)`, one cluster label a score `(n,)`.
Units are those of the scores.

The interval is the studentised cluster bootstrap (bootstrap-t; Efron and Tibshirani 1993, section 12.5; for clusters
Cameron, Gelbach and Miller 2008, section III). For cluster sums S_g and counts N_g, and G clusters,

    m = sum S_g / sum N_g,    se = sqrt(G / (G - 1) * sum (S_g - m N_g)^2) / sum N_g

and the quantiles of `(m* - m) / se*` over resamples of whole clusters replace those of the normal distribution.

Measured coverage of the 95 % interval (2,000 simulated data sets a line, correlation 0.6 within a cluster):

    clusters  scores                        percentile  cluster t  studentised (used)
    10        normal, 4 a cluster                 90.0       95.0                95.1
    10        skewed (beta), 1..4 a cluster       88.6       92.1                94.6
    10        log-normal, 4 a cluster             84.0       88.5                92.7
    30        skewed (beta), 1..4 a cluster       93.4       94.1                94.7
    60        log-normal, 4 a cluster             92.2       92.6                94.0

Below six clusters the resamples are too few to studentise and the cluster t interval (G - 1 degrees of freedom) is
given: 91 to 95 % on the first two kinds of scores, and wide. It also stands in where most resamples have no spread.

A ratio of two means (`ratio_of_means`; same simulation, 1 to 4 scores a cluster; data sets whose denominator's sign is
uncertain have no interval and are left out, as many as `kept` says):

    clusters  first / second                    kept  percentile  delta, t  bootstrap-t  Fieller, t  studentised (used)
    10        skewed score - floor / 1 - floor   100        89.0      93.0         94.5        93.0                94.8
    10        normal / normal, cv 0.9             92        88.3      95.1         88.9        92.7                92.8
    10        log-normal / log-normal             94        85.8      85.3         90.3        91.5                94.7
    30        skewed score - floor / 1 - floor   100        93.6      95.4         95.5        95.2                95.6
    30        normal / normal, cv 0.9            100        92.7      95.2         92.2        94.6                94.4
    30        log-normal / log-normal            100        91.0      90.3         93.1        94.2                94.4
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from xaibench.errors import XaibenchError
from xaibench.numbers import check_squarable, real_numbers

FEWEST_CLUSTERS = 6  # fewer give the cluster t interval; see the module's docstring
_RESAMPLES = 4_000_000  # numbers of a block of resamples: 32 MB
_MANY = 2_000  # items whose pairs are listed: 32 MB a side
_SMALL, _UP = 1e-100, 2.0**600  # squares of smaller numbers would vanish; times this, exactly, they do not
_SUMS = 500_000  # numbers of a block of their sums: 4 MB, near a core


class Interval(NamedTuple):
    """A mean and the ends of its interval; both ends are NaN where the uncertainty is unknown (one cluster)."""

    mean: float
    low: float
    high: float


def cluster_bootstrap(
    values: object,
    clusters: Sequence[object] | np.ndarray,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Interval:
    """Mean of `values` `(n,)` and its studentised interval over `clusters` `(n,)`.

    bounds: the range of the score; the ends are cut there, which cannot lose a mean that lies inside.
    With one cluster the ends are NaN: one utterance says nothing about others. Equal clusters give a zero width.
    Coverage: see the module's docstring; with strong skew and few clusters it falls short of `level` by some per cent.

    Raises XaibenchError for no values, NaN or infinity among them, another number of clusters, or impossible options.

    >>> mean, low, high = cluster_bootstrap([1.0, 2.0, 4.0, 5.0], ["a", "a", "b", "b"])
    >>> mean, low < mean < high
    (3.0, True)
    """
    values = real_numbers(values, "values")
    owner = _owners(values, clusters)
    batch = Batch(draws=draws, seed=seed, level=level)
    asked = batch.mean(values, owner, bounds=bounds)
    return batch.intervals()[asked]


def paired_difference(
    first: object,
    second: object,
    clusters: Sequence[object] | np.ndarray,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Mean of `first - second` on the utterances both have, with its interval. All `(n,)`, aligned; NaN = missing.

    Pairing removes what an utterance does to every method, so this is the comparison to make between two methods; two
    overlapping intervals of single means decide nothing.

    Raises XaibenchError when no utterance is common, or as `cluster_bootstrap`.

    >>> paired_difference([0.3, 0.5, np.nan], [0.1, 0.3, 0.9], ["a", "b", "c"]).mean.__round__(6)
    0.2
    """
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
) -> Interval:
    """Mean of `first` over mean of `second` on the utterances both have, with its interval. All `(n,)`; NaN = missing.

    For a score put on a scale of its own, as skill = mean(score - floor) / mean(ceiling - floor). The interval is
    Fieller's (1954, J. R. Stat. Soc. B 16: 175): the ratios rho for which the mean of `first - rho * second` is not told
    apart from zero, with the cluster standard error and the studentised quantiles of the module's docstring in place of
    those of Student's t. A constant `second` gives the interval of `cluster_bootstrap(first)` divided by it.

    Both ends are NaN where the denominator's sign is uncertain (its own interval holds 0): any ratio is then possible.
    They are NaN with one cluster too, and all three are where the denominator is exactly 0.
    Coverage: see the module's docstring. Raises as `paired_difference`.

    >>> ratio_of_means([1.5, 2.0, 2.5], [3.0, 4.0, 5.0], ["a", "b", "c"])
    Interval(mean=0.5, low=0.5, high=0.5)
    """
    first, second, labels = _paired(first, second, clusters)
    owner = _owners(first, labels)
    batch = Batch(draws=draws, seed=seed, level=level)
    asked = batch.ratio(first, second, owner)
    return batch.intervals()[asked]


class Batch:
    """Many intervals of one kind of resample, computed together: a board asks thousands.

    Each is that of `cluster_bootstrap` or `ratio_of_means` to rounding. What they share is done once: the resamples of
    so many clusters, and the sums over resamples, which are one matrix product for all.

    >>> batch = Batch()
    >>> one = batch.mean(np.array([1.0, 2.0, 4.0, 5.0]), np.array([0, 0, 1, 1]))
    >>> batch.intervals()[one] == cluster_bootstrap([1.0, 2.0, 4.0, 5.0], ["a", "a", "b", "b"])
    True
    """

    def __init__(self, *, draws: int = 2000, seed: int = 0, level: float = 0.95) -> None:
        _check(draws, level)
        self.draws, self.seed, self.level = draws, seed, level
        self._open: list[_Pivot] = []
        self._close: list[Callable[[np.ndarray], Interval]] = []
        self._known: dict[tuple[bytes, ...], int] = {}

    def mean(self, values: np.ndarray, owner: np.ndarray, *, bounds: tuple[float, float] = (-np.inf, np.inf)) -> int:
        """Ask for the mean of finite `values` `(n,)` over the clusters `owner` `(n,)`, from 0; its place in `intervals`."""
        known = (values.tobytes(), owner.tobytes(), repr(bounds).encode())
        if known not in self._known:
            self._known[known] = self._add(self._mean(values, *_cluster_sums(values, owner), bounds))
        return self._known[known]

    def ratio(self, first: np.ndarray, second: np.ndarray, owner: np.ndarray) -> int:
        """Ask for mean of `first` over mean of `second`, all finite and `(n,)`; its place in `intervals`."""
        a, counts = _cluster_sums(first, owner)
        b, _ = _cluster_sums(second, owner)
        if any(0 < np.abs(part).max() < _SMALL for part in (first, second)):
            raise XaibenchError(
                f"the scores of a ratio are below {_SMALL:g} in size; their squares vanish, scale them first"
            )
        below = self.mean(second, owner)
        if abs(b.sum() / counts.sum()) <= 1e-15 * np.abs(second).max():  # also where every value is 0
            return self._add(lambda _: Interval(np.nan, np.nan, np.nan))
        ratio = float(a.sum() / b.sum())
        if b.sum() < 0:
            a, b = -a, -b
        n_clusters, total = len(a), counts.sum()
        if n_clusters == 1:
            return self._add(lambda _: Interval(ratio, np.nan, np.nan))
        residual = a - ratio * b
        scale = n_clusters / (n_clusters - 1) / total**2
        error = float(np.sqrt(scale * (residual**2).sum()))
        exact = error <= 1e-12 * max(np.abs(first).max(), abs(ratio) * np.abs(second).max())  # nothing but rounding
        pivot = None if exact else self._ask(residual, counts, error)
        means = a.sum() / total, b.sum() / total
        a, b = a - means[0] * counts, b - means[1] * counts
        moments = scale * (a @ a), scale * (a @ b), scale * (b @ b)

        def close(ends: np.ndarray) -> Interval:
            sign = self._close[below](ends)
            if not (sign.low > 0 or sign.high < 0):
                return Interval(ratio, np.nan, np.nan)
            if pivot is None:
                return Interval(ratio, ratio, ratio)
            low, high = _fieller(means, moments, ends[pivot, 1]), _fieller(means, moments, ends[pivot, 0])
            return Interval(ratio, low, high) if np.isfinite(low + high) else Interval(ratio, np.nan, np.nan)

        return self._add(close)

    def intervals(self) -> list[Interval]:
        """What was asked, in that order."""
        ends = _studentised(self._open, draws=self.draws, seed=self.seed, level=self.level)
        return [close(ends) for close in self._close]

    def _mean(
        self, values: np.ndarray, sums: np.ndarray, counts: np.ndarray, bounds: tuple[float, float]
    ) -> Callable[[np.ndarray], Interval]:
        n_clusters, total = len(sums), counts.sum()
        mean, size = float(sums.sum() / total), np.abs(values).max()
        if n_clusters == 1:
            return lambda _: Interval(mean, np.nan, np.nan)
        if 0 < size < _SMALL:
            unscaled = self._mean(values * _UP, sums * _UP, counts, (bounds[0] * _UP, bounds[1] * _UP))
            return lambda ends: Interval(*(end / _UP for end in unscaled(ends)))
        residual = sums - mean * counts
        error = float(np.sqrt(n_clusters / (n_clusters - 1)) * np.sqrt((residual**2).sum()) / total)
        if error <= 1e-12 * max(abs(mean), np.abs(values).max()):  # nothing but rounding
            return lambda _: Interval(mean, mean, mean)
        pivot = self._ask(residual, counts, error)
        least, most = min(bounds[0], mean), max(bounds[1], mean)  # a declared range may be wrong; an interval may not

        def close(ends: np.ndarray) -> Interval:
            low, high = mean - ends[pivot, 1] * error, mean - ends[pivot, 0] * error
            return Interval(mean, float(min(max(low, least), most)), float(min(max(high, least), most)))

        return close

    def _ask(self, residual: np.ndarray, counts: np.ndarray, error: float) -> int:
        self._open.append(_Pivot(residual, counts, error))
        return len(self._open) - 1

    def _add(self, close: Callable[[np.ndarray], Interval]) -> int:
        self._close.append(close)
        return len(self._close) - 1


def _fieller(means: tuple[float, float], moments: tuple[float, float, float], t: float) -> float:
    """The rho at which `(A - rho B) / se(A - rho B)` is t, for B > 0; NaN where no finite rho is. `moments`: of A and B."""
    (a, b), (aa, ab, bb) = means, moments
    square, linear, constant = b * b - t * t * bb, a * b - t * t * ab, a * a - t * t * aa
    if square <= 0:
        return np.nan
    root = np.sqrt(max(linear * linear - square * constant, 0.0))
    return float((linear - root if t > 0 else linear + root) / square)


class Agreement(NamedTuple):
    """Kendall's tau-b of two orders, its p value (no agreement), and over how many items."""

    tau: float
    p: float
    n: int


def rank_agreement(first: object, second: object) -> Agreement:
    """Kendall's tau-b (Kendall 1945) between two scores of the same items `(n,)`, over items finite in both.

    tau is NaN below three items, or where one score ties them all. The p value is that of `scipy.stats.kendalltau`, whose
    import would cost a board half a second: exact without ties up to 33 items, else of the normal approximation with
    ties (Kendall 1970, Rank correlation methods, 4th ed., sections 4 and 5). Time and memory grow with n squared, so more
    than 2,000 items are left to scipy.

    >>> rank_agreement([1, 2, 3, 4], [1, 2, 4, 3]).tau.__round__(3)
    0.667
    """
    first, second = real_numbers(first, "scores"), real_numbers(second, "scores")
    if first.shape != second.shape or first.ndim != 1:
        raise XaibenchError(f"two scores of the same items are needed, got shapes {first.shape} and {second.shape}")
    both = np.isfinite(first) & np.isfinite(second)
    n = int(both.sum())
    if n < 3:
        return Agreement(np.nan, np.nan, n)
    if n > _MANY:
        from scipy.stats import kendalltau

        found = kendalltau(first[both], second[both])
        return Agreement(float(found.statistic), float(found.pvalue), n)
    return Agreement(*_kendall(first[both], second[both]), n)


def _kendall(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """tau-b and its two-sided p value. Shapes: `(n,)`, n > 2."""
    n = len(x)
    upper = np.triu_indices(n, 1)
    sides = [np.sign(v[:, None] - v[None])[upper] for v in (x, y)]
    score, total = int((sides[0] * sides[1]).sum()), n * (n - 1) // 2  # concordant pairs less discordant ones
    tied = [int((side == 0).sum()) for side in sides]
    if total in tied:
        return np.nan, np.nan
    tau = float(np.clip(score / np.sqrt(total - tied[0]) / np.sqrt(total - tied[1]), -1, 1))
    discordant = (total - score) // 2
    fewest = min(discordant, total - discordant)
    if not any(tied) and (n <= 33 or fewest <= 1):
        return tau, _kendall_exact(n, fewest)
    groups = [np.unique(v, return_counts=True)[1].astype(np.float64) for v in (x, y)]
    cubic = [float((t * (t - 1) * (t - 2)).sum()) for t in groups]
    spread = [float((t * (t - 1) * (2 * t + 5)).sum()) for t in groups]
    m = n * (n - 1.0)
    variance = (m * (2 * n + 5) - sum(spread)) / 18 + 2 * tied[0] * tied[1] / m + cubic[0] * cubic[1] / (9 * m * (n - 2))
    return tau, math.erfc(abs(score) / math.sqrt(variance) / math.sqrt(2))


def _kendall_exact(n: int, fewest: int) -> float:
    """Probability of at most so many discordant pairs, or of as many concordant ones, of n items in random orders."""
    if 4 * fewest == n * (n - 1):
        return 1.0
    orders = [1] + [0] * fewest  # how many orders of j items have 0, 1 ... discordant pairs
    for j in range(2, n + 1):
        running = list(accumulate(orders))
        orders = [here - (running[k - j] if k >= j else 0) for k, here in enumerate(running)]
    return min(1.0, float(Fraction(2 * sum(orders), math.factorial(n))))


def _paired(
    first: object, second: object, clusters: Sequence[object] | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both scores and the clusters where neither score is missing. Shapes: `(n,)` -> `(m,)`."""
    first, second = real_numbers(first, "scores"), real_numbers(second, "scores")
    if first.shape != second.shape:
        raise XaibenchError(f"paired scores must be aligned, got shapes {first.shape} and {second.shape}")
    if np.isinf(first).any() or np.isinf(second).any():
        raise XaibenchError("paired scores are infinite; expected numbers, or NaN where there is none")
    common = ~(np.isnan(first) | np.isnan(second))
    if not common.any():
        raise XaibenchError("the two methods have no utterance in common: nothing to pair")
    labels = np.asarray(clusters, dtype=object)
    if labels.shape != first.shape:
        raise XaibenchError(f"one cluster a score: got {labels.shape} labels for {first.shape} scores")
    return first[common], second[common], labels[common]


def _check(draws: int, level: float) -> None:
    if draws < 200:
        raise XaibenchError(f"draws must be at least 200 to estimate a tail, got {draws}")
    if not 0 < level < 1:
        raise XaibenchError(f"level is a share between 0 and 1, got {level}; is it a percentage?")


def _owners(values: np.ndarray, clusters: Sequence[object] | np.ndarray) -> np.ndarray:
    """The number of every value's cluster, in order of first appearance (so order alone decides). `(n,)` -> `(n,)`."""
    if values.ndim != 1 or values.size == 0:
        raise XaibenchError(f"a mean needs at least one value in one dimension, got shape {values.shape}")
    if len(clusters) != values.size:
        raise XaibenchError(f"one cluster a value: got {len(clusters)} labels for {values.size} values")
    number: dict[object, int] = {}
    return np.fromiter((number.setdefault(c, len(number)) for c in clusters), dtype=np.intp, count=values.size)


def _cluster_sums(values: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of every cluster that has a value, `(G,)` each, in rising order of `owner` `(n,)`."""
    if not np.isfinite(values).all():
        bad = np.count_nonzero(~np.isfinite(values))
        raise XaibenchError(
            f"{bad} of {values.size} values are NaN or infinite; leave undefined scores out, with their count"
        )
    check_squarable(values, "values")
    counts = np.bincount(owner)
    there = counts > 0
    return np.bincount(owner, weights=values)[there], counts[there].astype(np.float64)


@dataclass(frozen=True, eq=False)
class _Pivot:
    """A statistic whose distribution is wanted: the clusters' parts of its deviation and their sizes, `(G,)` each."""

    residual: np.ndarray
    counts: np.ndarray
    error: float


@lru_cache(maxsize=4)  # every row of a board resamples the same clusters
def _resamples(n_clusters: int, draws: int, seed: int) -> np.ndarray:
    """How often each cluster is drawn. Shape: `(draws, n_clusters)`, the smallest integers that hold it."""
    drawn = np.random.default_rng(seed).multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=draws)
    drawn = drawn.astype(np.min_scalar_type(int(drawn.max())))
    drawn.setflags(write=False)
    return drawn


def _studentised(pivots: Sequence[_Pivot], *, draws: int, seed: int, level: float) -> np.ndarray:
    """Lower and upper quantile of `(m* - m) / se*` of each; those of Student's t where the bootstrap has none. `(P, 2)`."""
    ends = np.full((len(pivots), 2), np.nan)
    sizes: dict[int, list[int]] = {}
    for place, pivot in enumerate(pivots):
        sizes.setdefault(len(pivot.counts), []).append(place)
    for n_clusters, places in sizes.items():
        block = max(1, _SUMS // max(draws, n_clusters) // 5)
        for start in range(0, len(places) if n_clusters >= FEWEST_CLUSTERS else 0, block):
            some = places[start : start + block]
            ends[some] = _quantiles([pivots[i] for i in some], n_clusters, draws=draws, seed=seed, level=level)
        unknown = [i for i in places if not np.isfinite(ends[i]).all()]
        if unknown:
            from scipy.special import stdtrit  # costs 0.2 s to import, and a board of many utterances does without

            student = float(stdtrit(n_clusters - 1, 1 - (1 - level) / 2))
            ends[unknown] = -student, student
    return ends


def _quantiles(pivots: Sequence[_Pivot], n_clusters: int, *, draws: int, seed: int, level: float) -> np.ndarray:
    """The same of pivots with so many clusters each, which may be infinite."""
    residual = np.stack([p.residual for p in pivots])
    errors, kind = np.array([[p.error] for p in pivots]), []
    counts: dict[bytes, tuple[int, np.ndarray]] = {}
    for pivot in pivots:  # most rows of a board have every pair, so one count of scores a cluster serves them all
        kind.append(counts.setdefault(pivot.counts.tobytes(), (len(counts), pivot.counts))[0])
    sizes = np.stack([size for _, size in counts.values()])
    sums = _sums_over_resamples(
        np.concatenate([residual, residual**2, residual * sizes[kind], sizes, sizes**2]), n_clusters, draws, seed
    )
    s, ss, sn, n, nn = np.split(sums, np.cumsum([len(pivots)] * 3 + [len(sizes)]))
    shift = s / n[kind]
    variance = ss - 2 * shift * sn + shift**2 * nn[kind]
    spread = np.sqrt(np.maximum(variance, 0) * n_clusters / (n_clusters - 1)) / n[kind]
    # A resample without spread (one cluster drawn again and again) is infinitely sure of itself: it belongs in the tail.
    # Its variance is then a difference of equal sums, and what is left is their rounding, not a spread.
    flat = (spread <= 1e-9 * errors) | (variance <= 1e-13 * (ss + shift**2 * nn[kind]))
    ratio = shift / np.where(flat, 1.0, spread)
    ratio[flat & (shift > 1e-9 * errors)] = np.inf
    ratio[flat & (shift < -1e-9 * errors)] = -np.inf
    tail = (1 - level) / 2
    return np.quantile(ratio, [tail, 1 - tail], axis=1, method="inverted_cdf").T


def _sums_over_resamples(parts: np.ndarray, n_clusters: int, draws: int, seed: int) -> np.ndarray:
    """Sum of the drawn clusters' parts, of every resample. Shapes: `(P, n_clusters)` -> `(P, draws)`."""
    drawn = _resamples(n_clusters, draws, seed)
    sums = np.empty((len(parts), draws))
    block = max(1, _RESAMPLES // n_clusters)
    for start in range(0, draws, block):
        sums[:, start : start + block] = parts @ drawn[start : start + block].T.astype(np.float64)
    return sums
