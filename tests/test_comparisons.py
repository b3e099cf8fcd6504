"""Tests between methods hold the level they state, agree with other programs, and know what they do not know."""

import itertools

import numpy as np
import pytest
import scikit_posthocs
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests

from xaibench import comparisons as tests_of
from xaibench.agreement import order_agreement
from xaibench.errors import XaibenchError

NAN = float("nan")


# --- the level ---------------------------------------------------------------------------------------------------------


def any_false_call(*, clustered: bool, repeats: int, methods: int = 5, n_clusters: int = 15, each: int = 5) -> float:
    """How often Wilcoxon and Holm call any of some equal methods different; 60 % of a difference is the cluster's."""
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(n_clusters), each)
    calls = 0
    for _ in range(repeats):
        shared, own = rng.normal(size=(n_clusters, methods)), rng.normal(size=(clusters.size, methods))
        differences = np.sqrt(0.6) * shared[clusters] + np.sqrt(0.4) * own
        used = tests_of.cluster_means(differences, clusters)[0] if clustered else differences
        calls += bool((tests_of.holm([tests_of.signed_rank(d).p for d in used.T]) <= 0.05).any())
    return calls / repeats


def test_equal_methods_are_called_different_once_in_twenty_boards():
    # exact p values come in steps, so the rate lies below 5 %; three standard errors over 300 boards are 0.038
    assert 0.005 <= any_false_call(clustered=True, repeats=300) <= 0.05 + 0.038


def test_counting_twins_as_observations_would_inflate_that():
    assert any_false_call(clustered=False, repeats=100) > 0.4


@pytest.mark.heavy
def test_the_level_with_many_boards():
    assert any_false_call(clustered=True, repeats=4000) <= 0.05 + 0.0104  # three standard errors


def power_at(clusters: int, effect: float, repeats: int) -> float:
    rng = np.random.default_rng(2)
    return float(np.mean([tests_of.signed_rank(rng.normal(effect, 1, clusters)).p <= 0.05 for _ in range(repeats)]))


@pytest.mark.parametrize("effect", [0.9, 0.5])
def test_the_number_of_clusters_gives_the_promised_power(effect):
    shape = scipy_stats.zscore(scipy_stats.norm.ppf((np.arange(40) + 0.5) / 40), ddof=1)
    needed = tests_of.needed_clusters(shape + effect)
    # three standard errors of 0.8 over 500 are 0.054
    assert power_at(int(needed.clusters), effect, repeats=500) == pytest.approx(0.8, abs=0.06)
    assert power_at(40, needed.detectable, repeats=500) == pytest.approx(0.8, abs=0.06)


# --- Wilcoxon ----------------------------------------------------------------------------------------------------------


def slow_p(differences: list[float]) -> float:
    """Pratt's ranks and every choice of signs, in plain loops."""
    sizes = [abs(d) for d in differences]
    ranks = [sum(s < size for s in sizes) + (sum(s == size for s in sizes) + 1) / 2 for size in sizes]
    ranked = [(r, d) for r, d in zip(ranks, differences, strict=True) if d != 0]
    observed = sum(r for r, d in ranked if d > 0)
    sums = [sum(r for (r, _), s in zip(ranked, signs, strict=True) if s) for signs in
            itertools.product((0, 1), repeat=len(ranked))]  # fmt: skip
    below, above = sum(s <= observed for s in sums) / len(sums), sum(s >= observed for s in sums) / len(sums)
    return min(1.0, 2 * min(below, above))


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9).filter(any))
def test_p_is_exact_with_ties_and_zeros(differences):
    found = tests_of.signed_rank([float(d) for d in differences])
    assert found.p == pytest.approx(slow_p(differences))
    assert found.zeros == differences.count(0) and -1 <= found.effect <= 1
    other = tests_of.signed_rank([-0.1 * d for d in differences])  # whose tenths are not quite equal
    assert (other.p, other.effect) == (pytest.approx(found.p), pytest.approx(-found.effect))


@pytest.mark.parametrize("n", [6, 20, 50, 80])
def test_p_agrees_with_scipy(n):
    differences = np.random.default_rng(n).normal(0.2, 1, n)
    method = "exact" if n <= tests_of.EXACT else "asymptotic"
    assert tests_of.signed_rank(differences).p == pytest.approx(scipy_stats.wilcoxon(differences, method=method).pvalue)


def test_the_effect_by_hand():
    # ranks of 1 -2 3 4: negative 2 of 10
    assert tests_of.signed_rank([1.0, -2.0, 3.0, 4.0]).effect == pytest.approx((8 - 2) / 10)
    assert tests_of.signed_rank([0.0, 0.0]) == (1.0, 0.0, 2, 2)
    assert tests_of.signed_rank([0.5]).p == 1.0


@pytest.mark.parametrize("bad", [[], [1.0, NAN], [[1.0, 2.0]]])
def test_what_cannot_be_tested_is_refused(bad):
    for function in (tests_of.signed_rank, tests_of.needed_clusters, lambda d: tests_of.bayesian_signed_rank(d, rope=0.1)):
        with pytest.raises(XaibenchError, match="paired difference"):
            function(bad)


def test_holm_by_hand():
    # 3 * .01, then 2 * .02, then 1 * .04, never falling
    assert tests_of.holm([0.04, 0.01, NAN, 0.02]) == pytest.approx([0.04, 0.03, NAN, 0.04], nan_ok=True)
    assert np.isnan(tests_of.holm([NAN])).all() and tests_of.holm([]).size == 0


@settings(max_examples=10)  # each call of statsmodels collects all garbage
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_agrees_with_statsmodels(p):
    assert tests_of.holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_cluster_means_leave_out_what_is_missing():
    means, labels = tests_of.cluster_means([[1.0, NAN], [3.0, NAN], [5.0, 2.0]], ["b", "b", "a"])
    assert labels == ["b", "a"]
    assert means.tolist() == [pytest.approx([2.0, NAN], nan_ok=True), [5.0, 2.0]]
    with pytest.raises(XaibenchError, match="one cluster a score"):
        tests_of.cluster_means([1.0, 2.0], ["a"])


# --- Friedman and Nemenyi ----------------------------------------------------------------------------------------------

#: Table 6 of Demsar (2006): AUC of C4.5, its -m, -cf and -m-cf variants on 14 data sets.
DEMSAR = """.763 .768 .771 .798
.599 .591 .590 .569
.954 .971 .968 .967
.628 .661 .654 .657
.882 .888 .886 .898
.936 .931 .916 .931
.661 .668 .609 .685
.583 .583 .563 .625
.775 .838 .866 .875
1.000 1.000 1.000 1.000
.940 .962 .965 .962
.619 .666 .614 .669
.972 .981 .9751 .975
.957 .978 .946 .970"""


def test_the_example_of_demsar():
    blocks = np.array([[float(v) for v in line.split()] for line in DEMSAR.splitlines()])
    found = tests_of.friedman(blocks)
    assert found.ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=1e-3)
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    # he does not correct for ties: chi-square 9.28, F 3.69
    ties = 1 - (3 * (2**3 - 2) + (4**3 - 4)) / (14 * 4 * 15)
    assert found.chi_square * ties == pytest.approx(9.28, abs=0.01)
    assert found.p_f == pytest.approx(scipy_stats.f.sf(found.f, 3, 39))
    assert found.nemenyi == pytest.approx(scikit_posthocs.posthoc_nemenyi_friedman(blocks).to_numpy())


def test_groups_are_the_pairs_that_nemenyi_does_not_reject():
    rng = np.random.default_rng(5)
    found = tests_of.friedman(rng.normal(size=(30, 12)) + np.linspace(0, 2, 12))
    joined = {frozenset(pair) for group in found.groups() for pair in itertools.combinations(group, 2)}
    kept = {frozenset((i, j)) for i, j in itertools.combinations(range(12), 2) if found.nemenyi[i, j] > 0.05}
    assert joined == kept and len(kept) > 3


def test_blocks_that_tie_everything_and_blocks_that_never_do():
    same = tests_of.friedman(np.ones((4, 3)))
    assert (same.p, same.p_f, same.ranks.tolist()) == (1.0, 1.0, [2.0, 2.0, 2.0])
    sure = tests_of.friedman(np.tile([3.0, 2.0, 1.0], (5, 1)))
    assert sure.f == np.inf and sure.p_f == 0 and sure.ranks.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("bad", [np.ones((1, 3)), np.ones((4, 2)), np.ones(3), np.full((3, 3), NAN)])
def test_blocks_that_cannot_be_ranked_are_refused(bad):
    with pytest.raises(XaibenchError, match="Friedman"):
        tests_of.friedman(bad)


# --- Bayes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rope", [0.0, 0.1, 0.4])
def test_the_posterior_is_that_of_baycomp(rope):
    import baycomp

    differences = np.random.default_rng(4).normal(0.15, 1, 14)
    probabilities = baycomp.SignedRankTest.probs(
        np.zeros(14), differences, rope=rope, nsamples=20_000, random_state=1
    )  # left: the first is better
    worse, *same, better = probabilities
    found = tests_of.bayesian_signed_rank(differences, rope=rope)
    # the standard error of a share over 20,000 draws is at most 0.0035, of a difference 0.005
    assert found == pytest.approx((better, sum(same), worse), abs=0.02)
    assert found == tests_of.bayesian_signed_rank(differences, rope=rope)
    assert found != tests_of.bayesian_signed_rank(differences, rope=rope, seed=1)


def test_equal_methods_are_practically_equal_and_a_negative_region_is_refused():
    assert tests_of.bayesian_signed_rank([0.0] * 8, rope=0.01) == (0.0, 1.0, 0.0)
    assert tests_of.bayesian_signed_rank([0.0] * 8, rope=0.0) == (0.5, 0.0, 0.5)
    with pytest.raises(XaibenchError, match="half-width"):
        tests_of.bayesian_signed_rank([1.0], rope=-0.1)


# --- sample size -------------------------------------------------------------------------------------------------------


def test_numbers_of_clusters():
    unlike = np.array([1.0, -1.0, 1.0, -1.0])
    assert tests_of.needed_clusters(unlike).clusters == np.inf  # equal means: no number does
    assert tests_of.needed_clusters(unlike + 1e-3).clusters == pytest.approx(7.849 / (3 / 4) / 1e-6 * np.pi / 3, rel=0.3)
    assert tests_of.needed_clusters([1.0] * 8).clusters == 6  # below six no exact p is under 5 %
    assert tests_of.needed_clusters([1.0, 1.001]).clusters == 6
    assert np.isnan(tests_of.needed_clusters([0.3])).all()
    assert np.isnan(tests_of.needed_clusters([0.3, 0.4]).detectable)
    assert tests_of.needed_clusters([0.0] * 8) == (np.inf, 0.0)


def test_the_solvers_branches_meet():
    for effect in (0.01, 3.0):
        low, high = (tests_of._t_test_clusters(effect * f, 0.8, 0.05) for f in (0.999, 1.001))
        assert low == pytest.approx(high, rel=0.06)


# --- orders ------------------------------------------------------------------------------------------------------------


def test_orders_agree_by_hand_and_with_noise_in_between():
    rng = np.random.default_rng(0)
    first = np.arange(6.0) + rng.normal(0, 0.01, (10, 6))
    assert order_agreement(first, first)[0] == (1.0, 1.0, 1.0)
    assert order_agreement(first, -first)[0] == (-1.0, -1.0, -1.0)
    noisy = np.arange(6.0) + rng.normal(0, 5, (10, 6))
    (tau, low, high), count = order_agreement(first, noisy)
    assert tau == pytest.approx(scipy_stats.kendalltau(first.mean(0), noisy.mean(0)).statistic)
    assert -1 <= low < tau <= high <= 1 and high - low > 0.2 and count == 6


def test_a_resample_is_of_both_orders_at_once():
    # the order of two methods hangs on one utterance, and on the same one in both
    first = np.array([[3.0, 0.0, 1.0, -5.0]] + [[0.0, 0.1, 0.2, -5.0]] * 9)
    assert order_agreement(first, 2 * first)[0].low == 1.0


def test_methods_and_clusters_that_one_order_lacks():
    first = np.array([[1.0, 2.0, 3.0, NAN], [1.0, 2.0, 3.0, NAN], [NAN] * 4])
    second = np.array([[NAN] * 4, [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 0.0]])
    interval, count = order_agreement(first, second)
    assert (interval.mean, count) == (1.0, 3)
    assert np.isnan(order_agreement(first[:, :2], second[:, :2])[0]).all()
    assert np.isnan(order_agreement(np.ones((4, 3)), second[:1].repeat(4, 0)[:, :3])[0]).all()
    one = order_agreement(first[:1, :3], first[:1, :3])[0]
    assert one.mean == 1.0 and np.isnan(one.low)


def test_orders_of_other_methods_are_refused():
    with pytest.raises(XaibenchError, match="same methods"):
        order_agreement(np.ones((3, 4)), np.ones((3, 5)))
    with pytest.raises(XaibenchError, match="200 draws"):
        order_agreement(np.ones((3, 4)), np.ones((3, 4)), draws=10)
