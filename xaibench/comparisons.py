"""Tests between methods scored on the same utterances: which differ, by how much, and how many utterances it takes.

The unit is the *cluster* (source utterance, or speaker): the vocoded twins of a recording share its speech, so a test that
counts each twin as an observation of its own rejects far too often. On simulated equal methods (15 utterances, five twins,
60 % of the variance shared), where 5 % is promised, it calls one method different in 30 % of the boards, any of five after
Holm's correction in 56 %, any of 35 in 97 %; over clusters 4.9, 3.8 and 5.3 % (2,000, 2,000 and 400 boards). So scores are
averaged within a cluster first; every function here takes one number a cluster. Shapes: `(G,)` paired differences, `(G, k)`
blocks of k methods, better = greater throughout.

References: Demsar, JMLR 7 (2006) 1-30 (tests over blocks, critical difference); Wilcoxon, Biometrics Bulletin 1 (1945)
80-83; Pratt, JASA 54 (1959) 655-667 (zeros); Holm, Scand. J. Statist. 6 (1979) 65-70; Kerby, Comprehensive Psychology 3
(2014) 11.IT.3.1 (rank-biserial correlation); Benavoli et al., ICML 2014 and JMLR 18 (2017) 1-36 (Bayesian signed ranks);
Hodges and Lehmann, Ann. Math. Statist. 27 (1956) 324-335 (efficiency of ranks). Libraries are imported when first needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from xaibench.errors import XaibenchError
from xaibench.numbers import check_squarable, real_numbers

EXACT = 50  # clusters up to which the signed-rank p value is exact
ALPHA = 0.05
#: Asymptotic relative efficiency of Wilcoxon's test to the t test for normal differences (Hodges and Lehmann 1956).
EFFICIENCY = 3 / math.pi


def cluster_means(values: object, clusters: Sequence[object] | np.ndarray) -> tuple[np.ndarray, list[object]]:
    """Mean of each cluster and the clusters' labels, in order of first appearance. NaN are left out.

    values: `(n,)` or `(n, k)`. Returns `(G,)` or `(G, k)`, NaN where a cluster has no value.

    >>> means, labels = cluster_means([1.0, 3.0, 5.0], ["a", "a", "b"])
    >>> means.tolist(), labels
    ([2.0, 5.0], ['a', 'b'])
    """
    values = real_numbers(values, "scores")
    if values.ndim == 0 or len(clusters) != len(values):
        raise XaibenchError(f"one cluster a score: got {len(clusters)} labels for scores of shape {values.shape}")
    if np.isinf(values).any():
        raise XaibenchError(f"{np.count_nonzero(np.isinf(values))} scores are infinite; expected numbers, or NaN for none")
    check_squarable(values, "scores")
    number: dict[object, int] = {}
    owner = np.fromiter((number.setdefault(c, len(number)) for c in clusters), dtype=np.intp, count=len(values))
    there = ~np.isnan(values)
    sums = np.zeros((len(number), *values.shape[1:]))
    counts = np.zeros_like(sums)
    np.add.at(sums, owner, np.where(there, values, 0.0))
    np.add.at(counts, owner, there)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0), list(number)


class SignedRank(NamedTuple):
    """Wilcoxon's test: two-sided p, matched-pairs rank-biserial effect (-1 to 1, positive = greater), n, and zeros."""

    p: float
    effect: float
    n: int
    zeros: int


def signed_rank(differences: object) -> SignedRank:
    """Wilcoxon's signed-rank test that paired differences `(G,)` lie symmetrically about zero.

    Zeros are ranked and then dropped (Pratt 1959), so that methods which often tie are not called different. Up to 50
    clusters p is exact: the distribution over all signs of the ranks at hand, ties and zeros included; above it is normal
    (scipy). Differences that agree to 1e-10 of the largest are tied. The effect is the rank sum of the positive minus that
    of the negative differences, over both (Kerby 2014, eq. 5). With all differences zero p is 1 and the effect 0.

    Raises XaibenchError for no differences or NaN among them.

    >>> signed_rank([0.1, 0.2, 0.3, 0.4, 0.5, -0.05])
    SignedRank(p=0.0625, effect=0.9047619047619048, n=6, zeros=0)
    """
    from scipy.stats import rankdata, wilcoxon

    values = _differences(differences)
    scale = np.abs(values).max()
    if scale == 0:
        return SignedRank(1.0, 0.0, len(values), len(values))
    values = np.round(values / scale, 10)
    zeros = int((values == 0).sum())
    ranks = rankdata(np.abs(values))
    positive, negative = float(ranks[values > 0].sum()), float(ranks[values < 0].sum())
    if len(values) > EXACT:
        p = float(wilcoxon(values, zero_method="pratt", method="asymptotic").pvalue)
    else:
        p = _exact_p(ranks[values != 0], positive)
    return SignedRank(p, (positive - negative) / (positive + negative), len(values), zeros)


def _exact_p(ranks: np.ndarray, positive: float) -> float:
    """Two-sided p of a sum of positive ranks over all 2^n signs. Ranks are halves at the finest, so doubled ones count."""
    doubled = np.rint(2 * ranks).astype(np.intp)
    ways = np.zeros(int(doubled.sum()) + 1)
    ways[0] = 1.0
    for rank in doubled:  # a rank is positive or negative with the same probability
        shifted = np.zeros_like(ways)
        shifted[rank:] = ways[: len(ways) - rank]
        ways = (ways + shifted) / 2
    at = round(2 * positive)
    return float(min(1.0, 2 * min(ways[: at + 1].sum(), ways[at:].sum())))


def holm(p: object) -> np.ndarray:
    """Holm's (1979) p values, keeping the chance of any false call at alpha over all tests. NaN stays NaN, uncounted.

    >>> holm([0.01, 0.04, float("nan"), 0.03]).round(3).tolist()
    [0.03, 0.06, nan, 0.06]
    """
    # By hand: statsmodels' multipletests collects the garbage of the whole process, a tenth of a second a call.
    p = real_numbers(p, "p values")
    if p.ndim != 1 or ((p < 0) | (p > 1)).any():
        outside = np.count_nonzero((p < 0) | (p > 1))
        raise XaibenchError(f"p values lie in [0, 1], in one dimension; got shape {p.shape}, {outside} of them outside")
    corrected = np.full_like(p, np.nan)
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]  # NaN sort last
    steps = len(order) - np.arange(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps * p[order]), 1.0)
    return corrected


@dataclass(frozen=True)
class Friedman:
    """k methods ranked within each of n blocks. `ranks` `(k,)`: average rank, 1 is best; `nemenyi` `(k, k)`: p values.

    chi_square, p: Friedman's test. f, p_f: Iman and Davenport's correction of it (Demsar 2006, section 3.2.2), the one to
    read: the former is too careful. critical_difference: average ranks further apart differ (Nemenyi, level alpha).
    """

    n: int
    ranks: np.ndarray
    chi_square: float
    p: float
    f: float
    p_f: float
    critical_difference: float
    nemenyi: np.ndarray
    alpha: float = ALPHA

    def groups(self) -> list[list[int]]:
        """`not_told_apart` of these ranks."""
        return not_told_apart(self.ranks, self.critical_difference)


def friedman(blocks: object, *, alpha: float = ALPHA) -> Friedman:
    """Friedman's test and Nemenyi's critical difference (Demsar 2006, section 3.2.2). blocks: `(n, k)`, greater is better.

    Ties share their average rank; the statistic is corrected for them (scipy). Two methods are a matter for `signed_rank`.
    The test takes methods to be exchangeable. Where they come in two families that rise and fall together (correlation .8),
    it finds a difference that is not there in 13 to 15 % of simulated boards of 20 methods and 7 % of 6, in place of 5 %;
    Nemenyi's difference keeps its level (4 to 6 %), but depends on which other methods are on the board (Benavoli et al.,
    JMLR 17 (2016) 152). The paired tests have neither weakness.

    Raises XaibenchError for fewer than three methods, fewer than two blocks, or NaN.

    >>> found = friedman([[3.0, 2.0, 1.0], [3.0, 1.0, 2.0], [3.0, 2.0, 1.0], [2.0, 3.0, 1.0]])
    >>> found.ranks.tolist(), round(found.chi_square, 2), round(found.critical_difference, 3)
    ([1.25, 2.0, 2.75], 4.5, 1.657)
    """
    from scipy.stats import f as f_distribution
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    blocks = real_numbers(blocks, "blocks")
    if blocks.ndim != 2 or blocks.shape[0] < 2 or blocks.shape[1] < 3:
        raise XaibenchError(f"Friedman's test needs two blocks of three methods or more, got shape {blocks.shape}")
    if not np.isfinite(blocks).all():
        raise XaibenchError("Friedman's test needs complete blocks; leave out those with NaN, with their count")
    n, k = blocks.shape
    ranks = rankdata(-_coarse(blocks), axis=1).mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        chi_square, p = map(float, friedmanchisquare(*_coarse(blocks).T))
    if math.isnan(chi_square):  # every block ties every method
        chi_square, p, f, p_f = 0.0, 1.0, 0.0, 1.0
    else:
        rest = n * (k - 1) - chi_square
        f = math.inf if rest <= 1e-9 * chi_square else (n - 1) * chi_square / rest
        p_f = float(f_distribution.sf(f, k - 1, (k - 1) * (n - 1)))
    difference = float(studentized_range.ppf(1 - alpha, k, np.inf)) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n))
    return Friedman(n, ranks, chi_square, p, f, p_f, difference, _nemenyi(_coarse(blocks)), alpha)


def not_told_apart(ranks: object, difference: float) -> list[list[int]]:
    """The largest sets of methods whose average ranks `(k,)` lie within `difference`, best first; none of one method alone.

    >>> not_told_apart([1.0, 3.0, 1.8, 2.5], 1.0)
    [[0, 2], [2, 3], [3, 1]]
    """
    ranks = real_numbers(ranks, "ranks")
    order = np.argsort(ranks, kind="stable")
    found: list[list[int]] = []
    end = 0
    for start in range(len(order)):
        last = int(np.searchsorted(ranks[order], ranks[order[start]] + difference + 1e-12, side="right"))
        if last > end and last - start > 1:
            found.append([int(i) for i in order[start:last]])
        end = max(end, last)
    return found


def _nemenyi(blocks: np.ndarray) -> np.ndarray:
    from scikit_posthocs import posthoc_nemenyi_friedman

    return posthoc_nemenyi_friedman(blocks).to_numpy()


class Posterior(NamedTuple):
    """Posterior probabilities that the difference is above, inside and below the region of practical equivalence."""

    better: float
    same: float
    worse: float


def bayesian_signed_rank(
    differences: object, *, rope: float, draws: int = 20_000, seed: int = 0, prior: float = 0.5
) -> Posterior:
    """The Bayesian signed-rank test of paired differences `(G,)` (Benavoli et al. 2014; 2017, section 4.2).

    rope: half-width of the region of practical equivalence, in the metric's units. The weights of the differences, and of
    one pseudo-difference at zero, are Dirichlet (`prior` for the latter, 1 each for the others); the mean of a pair of
    differences is above, inside or below the region with the pair's weight. Each returned number is the share of draws in
    which that answer weighs most; ties are shared. With rope 0 a mean of zero counts half on either side, and `same` is 0.

    Raises XaibenchError for a negative rope, no differences, or NaN.

    >>> posterior = bayesian_signed_rank([0.05, 0.06, 0.04, 0.07, 0.05, 0.06], rope=0.01)
    >>> posterior.better > 0.99, round(sum(posterior), 6)
    (True, 1.0)
    """
    values = np.concatenate([[0.0], _differences(differences)])
    if not rope >= 0:
        raise XaibenchError(f"the region of practical equivalence is a half-width of 0 or more, got {rope}")
    order = np.argsort(values, kind="stable")
    ordered, random = values[order], np.random.default_rng(seed)
    # Of each difference: where, among the sorted others, the mean with it leaves the region; equal ones count half.
    ends = [np.searchsorted(ordered, edge - ordered, side=s) for edge in (2 * rope, -2 * rope) for s in ("left", "right")]
    won = np.zeros(3)
    block = max(1, min(500, 5_000_000 // len(values)))  # 500 draws of thousands of clusters fit into memory, 40 MB
    for start in range(0, draws, block):
        weights = random.dirichlet([prior, *[1.0] * (len(values) - 1)], size=min(block, draws - start))[:, order]
        before = np.pad(weights.cumsum(axis=1), ((0, 0), (1, 0)))
        sums = [np.einsum("ij,ij->i", before[:, end], weights) for end in ends]
        better, worse = 1 - (sums[0] + sums[1]) / 2, (sums[2] + sums[3]) / 2
        shares = np.stack([better, 1 - better - worse, worse], axis=1)
        if rope == 0:
            shares[:, 1] = -1.0  # what is left is rounding
        most = shares >= shares.max(axis=1, keepdims=True) - 1e-12
        won += (most / most.sum(axis=1, keepdims=True)).sum(axis=0)
    return Posterior(*(float(w) for w in won / draws))


class Needed(NamedTuple):
    """clusters: how many tell the methods apart (inf: no number does); detectable: the difference these here would show."""

    clusters: float
    detectable: float


def needed_clusters(differences: object, *, power: float = 0.8, alpha: float = ALPHA) -> Needed:
    """How many clusters a two-sided signed-rank test needs to find a difference as large as the mean of these `(G,)`.

    The count of the paired t test (statsmodels' TTestPower, from mean / sd), divided by 3 / pi, the efficiency of ranks for
    normal differences, rounded up; never fewer than the smallest number whose exact p can fall below alpha (6 at 5 %). It is
    for one test, without Holm's correction. The effect put in is the observed one, itself uncertain: where its interval
    holds zero, the number is a guess, and `detectable`, which knows only the spread, says more: the mean difference that
    as many clusters as here find with this power (NaN for fewer than 6).

    >>> needed_clusters([1.0, -1.0, 2.0, 0.0, 1.5, -0.5, 0.5, 0.5]).clusters
    35.0
    """
    values = _differences(differences)
    fewest = math.ceil(1 + math.log2(1 / alpha))
    if len(values) < 2:
        return Needed(math.nan, math.nan)
    largest = float(np.abs(values).max())
    scaled = values / largest if largest else values  # squares of small numbers would vanish
    mean, sd = abs(float(values.mean())), float(scaled.std(ddof=1)) * (largest or 1.0)
    if mean <= 1e-12 * largest or largest == 0:
        clusters = math.inf
    else:
        clusters = float(max(fewest, math.ceil(_t_test_clusters(mean / sd, power, alpha) / EFFICIENCY))) if sd else fewest
    if len(values) < fewest:
        return Needed(float(clusters), math.nan)
    return Needed(float(clusters), _detectable_effect(len(values), power, alpha) * sd)


@lru_cache(maxsize=64)  # every pair of methods of a section asks for the same number of clusters
def _detectable_effect(clusters: int, power: float, alpha: float) -> float:
    """The mean / sd that so many clusters find."""
    from statsmodels.stats.power import TTestPower

    nobs = clusters * EFFICIENCY
    return float(np.squeeze(TTestPower().solve_power(nobs=nobs, power=power, alpha=alpha, alternative="two-sided")))


def _t_test_clusters(effect: float, power: float, alpha: float) -> float:
    """Observations of a paired t test for an effect of mean / sd."""
    from scipy.stats import norm
    from statsmodels.stats.power import TTestPower

    if effect > 3:  # three or fewer, where the solver fails; the exact test needs more anyway
        return 3.0
    if effect < 0.01:  # more than 78,000: the normal limit, where the solver loses its way
        return float(((norm.isf(alpha / 2) + norm.ppf(power)) / effect) ** 2)
    return float(np.squeeze(TTestPower().solve_power(effect_size=effect, power=power, alpha=alpha, alternative="two-sided")))


def _differences(differences: object) -> np.ndarray:
    values = real_numbers(differences, "paired differences")
    if values.ndim != 1 or values.size == 0:
        raise XaibenchError(f"a test needs at least one paired difference in one dimension, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise XaibenchError("paired differences must be finite; leave clusters that lack a score out, with their count")
    check_squarable(values, "paired differences")
    return values


def _coarse(blocks: np.ndarray) -> np.ndarray:
    """Scores without the rounding of their sums, which would break ties at random."""
    scale = np.abs(blocks).max()
    return np.round(blocks / scale, 12) if scale else blocks
