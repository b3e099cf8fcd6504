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

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from xaibench.errors import XaibenchError

FEWEST_CLUSTERS = 6  # fewer give the cluster t interval; see the module's docstring


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
    values = np.asarray(values, dtype=np.float64)
    sums, counts = _cluster_sums(values, clusters)
    _check(draws, level)
    n_clusters, total = len(sums), counts.sum()
    mean = float(sums.sum() / total)
    if n_clusters == 1:
        return Interval(mean, np.nan, np.nan)
    residual = sums - mean * counts
    spread = np.sqrt(n_clusters / (n_clusters - 1))
    error = float(spread * np.sqrt((residual**2).sum()) / total)
    if error <= 1e-12 * max(abs(mean), np.abs(values).max()):  # nothing but rounding
        return Interval(mean, mean, mean)
    low_t, high_t = _studentised(residual, counts, error, draws=draws, seed=seed, level=level)
    low, high = mean - high_t * error, mean - low_t * error
    return Interval(mean, float(np.clip(low, *_around(bounds, mean))), float(np.clip(high, *_around(bounds, mean))))


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
    denominator = cluster_bootstrap(second, labels, draws=draws, seed=seed, level=level)
    a, counts = _cluster_sums(first, labels)
    b, _ = _cluster_sums(second, labels)
    if abs(denominator.mean) <= 1e-15 * np.abs(second).max():  # also where every value is 0
        return Interval(np.nan, np.nan, np.nan)
    ratio = float(a.sum() / b.sum())
    if not (denominator.low > 0 or denominator.high < 0):
        return Interval(ratio, np.nan, np.nan)
    if b.sum() < 0:
        a, b = -a, -b
    n_clusters, total = len(a), counts.sum()
    residual = a - ratio * b
    scale = n_clusters / (n_clusters - 1) / total**2
    error = float(np.sqrt(scale * (residual**2).sum()))
    if error <= 1e-12 * max(np.abs(first).max(), abs(ratio) * np.abs(second).max()):  # nothing but rounding
        return Interval(ratio, ratio, ratio)
    low_t, high_t = _studentised(residual, counts, error, draws=draws, seed=seed, level=level)
    means = a.sum() / total, b.sum() / total
    a, b = a - means[0] * counts, b - means[1] * counts
    moments = scale * (a @ a), scale * (a @ b), scale * (b @ b)
    low, high = _fieller(means, moments, high_t), _fieller(means, moments, low_t)
    return Interval(ratio, low, high) if np.isfinite(low + high) else Interval(ratio, np.nan, np.nan)


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

    tau is NaN below three items, or where one score ties them all.

    >>> rank_agreement([1, 2, 3, 4], [1, 2, 4, 3]).tau.__round__(3)
    0.667
    """
    from scipy.stats import kendalltau  # costs a second to import, and only verdicts need it

    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise XaibenchError(f"two scores of the same items are needed, got shapes {first.shape} and {second.shape}")
    both = np.isfinite(first) & np.isfinite(second)
    n = int(both.sum())
    if n < 3:
        return Agreement(np.nan, np.nan, n)
    result = kendalltau(first[both], second[both])
    return Agreement(float(result.statistic), float(result.pvalue), n)


def _paired(
    first: object, second: object, clusters: Sequence[object] | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both scores and the clusters where neither score is missing. Shapes: `(n,)` -> `(m,)`."""
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape:
        raise XaibenchError(f"paired scores must be aligned, got shapes {first.shape} and {second.shape}")
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


def _cluster_sums(values: np.ndarray, clusters: Sequence[object] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of every cluster, `(G,)` each, clusters in order of first appearance (so order alone decides)."""
    if values.ndim != 1 or values.size == 0:
        raise XaibenchError(f"a mean needs at least one value in one dimension, got shape {values.shape}")
    if not np.isfinite(values).all():
        bad = np.count_nonzero(~np.isfinite(values))
        raise XaibenchError(
            f"{bad} of {values.size} values are NaN or infinite; leave undefined scores out, with their count"
        )
    if len(clusters) != values.size:
        raise XaibenchError(f"one cluster a value: got {len(clusters)} labels for {values.size} values")
    number: dict[object, int] = {}
    owner = np.fromiter((number.setdefault(c, len(number)) for c in clusters), dtype=np.intp, count=values.size)
    return np.bincount(owner, weights=values), np.bincount(owner).astype(np.float64)


@lru_cache(maxsize=4)  # every row of a board resamples the same clusters
def _resamples(n_clusters: int, draws: int, seed: int) -> np.ndarray:
    """How often each cluster is drawn. Shape: `(draws, n_clusters)` float64."""
    drawn = np.random.default_rng(seed).multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=draws)
    drawn = drawn.astype(np.float64)
    drawn.setflags(write=False)
    return drawn


def _studentised(
    residual: np.ndarray, counts: np.ndarray, error: float, *, draws: int, seed: int, level: float
) -> tuple[float, float]:
    """Lower and upper quantile of `(m* - m) / se*`; those of Student's t where the bootstrap has none."""
    n_clusters = len(counts)
    tail = (1 - level) / 2
    student = float(stdtrit(n_clusters - 1, 1 - tail))
    if n_clusters < FEWEST_CLUSTERS:
        return -student, student
    parts = np.stack([residual, counts, residual**2, residual * counts, counts**2], axis=1)
    s, n, ss, sn, nn = (_resamples(n_clusters, draws, seed) @ parts).T
    shift = s / n
    variance = np.maximum(ss - 2 * shift * sn + shift**2 * nn, 0) * n_clusters / (n_clusters - 1)
    errors = np.sqrt(variance) / n
    # A resample without spread (one cluster drawn again and again) is infinitely sure of itself: it belongs in the tail.
    flat = errors <= 1e-9 * error
    ratio = shift / np.where(flat, 1.0, errors)
    ratio[flat & (shift > 1e-9 * error)] = np.inf
    ratio[flat & (shift < -1e-9 * error)] = -np.inf
    low, high = np.quantile(ratio, [tail, 1 - tail], method="inverted_cdf")
    if not (np.isfinite(low) and np.isfinite(high)):
        return -student, student
    return float(low), float(high)


def _around(bounds: tuple[float, float], mean: float) -> tuple[float, float]:
    """The bounds, widened where the mean itself lies outside (a declared range may be wrong; an interval may not)."""
    return min(bounds[0], mean), max(bounds[1], mean)
