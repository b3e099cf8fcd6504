"""Intervals cover as often as they promise, clusters are the unit, and what is unknown stays NaN."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, kendalltau, norm
from twins import board as twin

from xaibench.errors import XaibenchError
from xaibench.stats import Batch, cluster_bootstrap, paired_difference, rank_agreement, ratio_of_means


def coverage(n_clusters: int, *, skewed: bool, repeats: int = 400, each: int = 4) -> float:
    """Share of simulated data sets whose 95 % interval holds the true mean; 60 % of the variance is the cluster's."""
    rng = np.random.default_rng(7)
    clusters = np.repeat(np.arange(n_clusters), each)
    shared, own = rng.normal(size=(repeats, n_clusters)), rng.normal(size=(repeats, clusters.size))
    normal = np.sqrt(0.6) * shared[:, clusters] + np.sqrt(0.4) * own
    data, mean = (beta.ppf(norm.cdf(normal), 1.5, 12), 1.5 / 13.5) if skewed else (normal, 0.0)
    intervals = [cluster_bootstrap(values, clusters, draws=1000) for values in data]
    return float(np.mean([low <= mean <= high for _, low, high in intervals]))


@pytest.mark.parametrize("n_clusters", [10, 30])
@pytest.mark.parametrize("skewed", [False, True])
def test_the_interval_covers_the_truth_as_often_as_it_says(n_clusters, skewed):
    # two standard errors of a share of 0.95 over 400 repeats are 0.022
    assert coverage(n_clusters, skewed=skewed) == pytest.approx(0.95, abs=0.03)


def test_three_clusters_are_not_taken_for_certainty():
    assert coverage(3, skewed=False) >= 0.92


def test_twins_of_one_recording_are_not_independent():
    values = np.random.default_rng(0).normal(size=10)
    single = cluster_bootstrap(values, range(10))
    tenfold = cluster_bootstrap(np.repeat(values, 10), np.repeat(range(10), 10))
    assert tenfold == pytest.approx(single)  # ten copies of each score say nothing new
    pretended = cluster_bootstrap(np.repeat(values, 10), range(100))
    assert pretended.high - pretended.low < 0.5 * (single.high - single.low)


def test_the_mean_is_over_scores_and_order_decides_nothing():
    values, clusters = np.array([0.0, 1.0, 1.0, 1.0, 0.5, 0.2, 0.9, 0.4]), list("abbbcdef")
    result = cluster_bootstrap(values, clusters)
    assert result.mean == pytest.approx(values.mean())
    assert cluster_bootstrap(values, clusters) == result
    assert cluster_bootstrap(values, clusters, seed=1) != result


def test_one_cluster_has_an_unknown_interval():
    mean, low, high = cluster_bootstrap([0.1, 0.3], ["a", "a"])
    assert mean == pytest.approx(0.2)
    assert np.isnan(low) and np.isnan(high)


@pytest.mark.parametrize("n_clusters", [2, 5, 40])
def test_equal_scores_have_no_width(n_clusters):
    assert cluster_bootstrap(np.full(n_clusters, 0.1), range(n_clusters)) == (pytest.approx(0.1),) * 3


def test_few_clusters_use_students_t():
    mean, low, high = cluster_bootstrap([1.0, 3.0], ["a", "b"])
    # se = 1, t(0.975, 1) = 12.706
    assert (mean, low, high) == (2.0, pytest.approx(2 - 12.7062, abs=1e-3), pytest.approx(2 + 12.7062, abs=1e-3))


def test_nine_equal_clusters_and_one_other_do_not_make_the_interval_collapse():
    mean, low, high = cluster_bootstrap([0.0] * 9 + [1.0], range(10))
    assert low < mean - 0.1 and high > mean + 0.1


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.integers(1, 5))
def test_ends_stay_in_range_and_around_the_mean(values, n_clusters):
    clusters = [i % n_clusters for i in range(len(values))]
    mean, low, high = cluster_bootstrap(values, clusters, draws=200, bounds=(0.0, 1.0))
    if not np.isnan(low):
        assert 0 <= low <= mean + 1e-12 and mean - 1e-12 <= high <= 1


@pytest.mark.parametrize(
    ("values", "clusters", "options", "message"),
    [
        ([], [], {}, "at least one value"),
        ([1.0, np.nan], ["a", "b"], {}, "1 of 2 values"),
        ([1.0, np.inf], ["a", "b"], {}, "infinite"),
        ([1.0, 2.0], ["a"], {}, "1 labels for 2 values"),
        ([[1.0, 2.0]], ["a", "b"], {}, "one dimension"),
        ([1.0, 2.0], ["a", "b"], {"level": 95}, "percentage"),
        ([1.0, 2.0], ["a", "b"], {"draws": 10}, "at least 200"),
    ],
)
def test_what_cannot_be_averaged_is_refused(values, clusters, options, message):
    with pytest.raises(XaibenchError, match=message):
        cluster_bootstrap(values, clusters, **options)


def test_pairing_takes_the_common_utterances_and_removes_what_they_share():
    rng = np.random.default_rng(3)
    hardness = rng.normal(0, 1, 20)
    first, second = hardness + 0.1 + rng.normal(0, 0.02, 20), hardness + rng.normal(0, 0.02, 20)
    first[0], second[1] = np.nan, np.nan
    difference = paired_difference(first, second, range(20))
    assert difference.mean == pytest.approx((first - second)[2:].mean())
    assert 0 < difference.low < 0.1 < difference.high + 0.02
    alone = cluster_bootstrap(first[1:], range(19))
    assert difference.high - difference.low < 0.1 * (alone.high - alone.low)
    swapped = paired_difference(second, first, range(20))
    assert swapped.mean == pytest.approx(-difference.mean)


def test_nothing_in_common_and_misaligned_scores_are_refused():
    with pytest.raises(XaibenchError, match="no utterance in common"):
        paired_difference([1.0, np.nan], [np.nan, 1.0], ["a", "b"])
    with pytest.raises(XaibenchError, match="aligned"):
        paired_difference([1.0], [1.0, 2.0], ["a"])
    with pytest.raises(XaibenchError, match="one cluster a score"):
        paired_difference([1.0, 2.0], [1.0, 2.0], ["a"])


def test_kendalls_tau_by_hand():
    # pairs of (1 2 3 4) against (1 3 2 4): five agree, one does not
    assert rank_agreement([1, 2, 3, 4], [1, 3, 2, 4]).tau == pytest.approx(4 / 6)
    assert rank_agreement([1, 2, 3, np.nan, 4], [4, 3, 2, 0, 1]) == (pytest.approx(-1), pytest.approx(1 / 12), 4)
    assert np.isnan(rank_agreement([1, 2], [1, 2]).tau)
    assert np.isnan(rank_agreement([1, 1, 1], [1, 2, 3]).tau)
    with pytest.raises(XaibenchError, match="same items"):
        rank_agreement([1, 2, 3], [1, 2])


@pytest.mark.parametrize("ties", [1, 3, 100])  # how many different numbers a unit has
def test_kendalls_tau_and_its_p_value_are_those_of_scipy(ties):
    rng = np.random.default_rng(ties)
    for n in [*range(3, 12), 33, 34, 60]:
        for noise in (0.0, 0.01, 1.0, 5.0):  # from orders that agree but for a pair to unrelated ones
            first = np.round(rng.normal(size=n) * ties) / ties if ties < 100 else rng.normal(size=n)
            second = -first + noise * (np.round(rng.normal(size=n) * ties) / ties if ties < 100 else rng.normal(size=n))
            expected, found = kendalltau(first, second), rank_agreement(first, second)
            assert found == (
                pytest.approx(expected.statistic, nan_ok=True),
                pytest.approx(expected.pvalue, nan_ok=True, rel=1e-9),
                n,
            )


# --- many at once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_clusters", [1, 2, 5, 6, 12, 40])
def test_intervals_asked_together_are_those_asked_alone(n_clusters):
    rng = np.random.default_rng(n_clusters)
    batch, expected = Batch(draws=500, seed=3), []
    for kind in range(12):
        owner = rng.integers(0, n_clusters, 3 * n_clusters)
        owner = np.sort(
            owner[owner != n_clusters - 2] if kind % 3 else owner
        )  # the twin's order of appearance is the rising one
        values = rng.normal(size=len(owner)) if kind % 2 else rng.integers(0, 3, len(owner)) / 3
        second = rng.normal(1.0 if kind < 9 else 0.0, 0.3, size=len(owner)) * (-1) ** kind
        asked = [batch.mean(values, owner, bounds=(0, 1)), batch.ratio(values, second, owner), batch.mean(values, owner)]
        assert batch.mean(values, owner) == asked[2], "the same question is asked once"
        labels, options = [f"u{i}" for i in owner], {"draws": 500, "seed": 3}
        answers = (
            twin.cluster_bootstrap(values, labels, bounds=(0, 1), **options),
            twin.ratio_of_means(values, second, labels, **options),
        )
        expected += zip(asked, (*answers, twin.cluster_bootstrap(values, labels, **options)), strict=True)
    found = batch.intervals()
    for place, interval in expected:
        np.testing.assert_allclose(found[place], interval, rtol=0, atol=1e-12)


def test_a_ratio_to_nothing_is_unknown_in_a_batch_too():
    batch, owner = Batch(), np.arange(8)
    nothing, some = batch.ratio(np.arange(8.0), np.zeros(8), owner), batch.mean(np.arange(8.0), owner)
    found = batch.intervals()
    assert np.isnan(found[nothing]).all() and found[some].mean == 3.5
    with pytest.raises(XaibenchError, match="1 of 8 values"):
        batch.mean(np.array([*range(7), np.inf]), owner)


# --- ratio of means ----------------------------------------------------------------------------------------------------


def skill_coverage(n_clusters: int, *, repeats: int, each: tuple[int, int] = (1, 4)) -> float:
    """Share of data sets whose interval of mean(score - floor) / mean(1 - floor) holds the truth; skewed scores."""
    rng = np.random.default_rng(11)
    truth = (1.5 / 7.5 - 1.5 / 13.5) / (1 - 1.5 / 13.5)
    hits = []
    for _ in range(repeats):
        clusters = np.repeat(np.arange(n_clusters), rng.integers(each[0], each[1] + 1, n_clusters))
        shared, own = rng.normal(size=(2, n_clusters))[:, clusters], rng.normal(size=(2, clusters.size))
        z = np.sqrt(0.6) * shared + np.sqrt(0.4) * own
        score, floor = beta.ppf(norm.cdf(0.6 * z[0] + 0.8 * z[1]), 1.5, 6), beta.ppf(norm.cdf(z[1]), 1.5, 12)
        _, low, high = ratio_of_means(score - floor, 1 - floor, clusters, draws=1000)
        hits.append(low <= truth <= high)
    return float(np.mean(hits))


@pytest.mark.parametrize("n_clusters", [10, 30])
def test_the_interval_of_a_ratio_covers_the_truth_as_often_as_it_says(n_clusters):
    assert skill_coverage(n_clusters, repeats=300) == pytest.approx(0.95, abs=0.03)  # two standard errors are 0.025


def test_a_constant_denominator_only_scales_the_interval_of_the_mean():
    values, clusters = np.random.default_rng(0).normal(1, 1, 24), np.repeat(np.arange(12), 2)
    mean, low, high = cluster_bootstrap(values, clusters)
    assert ratio_of_means(values, np.full(24, 2.0), clusters) == pytest.approx((mean / 2, low / 2, high / 2))
    assert ratio_of_means(values, np.full(24, -2.0), clusters) == pytest.approx((-mean / 2, -high / 2, -low / 2))


def test_fiellers_interval_by_hand():
    # four clusters of one score, so Student's t: 3.18245. Means 2 and 10; variances of the means 1/6 and 1/6, covariance 0.
    # (100 - t2/6) rho2 - 2 * 20 rho + (4 - t2/6) = 0 with t2 = 10.1280
    first, second = [1.0, 2.0, 2.0, 3.0], [10.0, 9.0, 11.0, 10.0]
    square, constant = 100 - 10.1280 / 6, 4 - 10.1280 / 6
    ends = np.roots([square, -40.0, constant])
    assert ratio_of_means(first, second, list("abcd")) == pytest.approx((0.2, ends.min(), ends.max()), abs=1e-4)


def test_a_ratio_is_unknown_where_the_sign_of_the_denominator_is():
    mean, low, high = ratio_of_means([1.0, 2.0, 3.0, 2.0], [1.0, -1.0, 2.0, -1.0], list("abcd"))
    assert mean == pytest.approx(8.0) and np.isnan(low) and np.isnan(high)
    assert np.isnan(ratio_of_means([1.0, 2.0], [0.0, 0.0], list("ab"))).all()
    assert np.isnan(ratio_of_means([1.0, 2.0], [1.0, -1.0], list("ab"))).all()
    one = ratio_of_means([1.0, 2.0], [2.0, 4.0], list("aa"))
    assert one.mean == 0.5 and np.isnan(one.low)


def test_a_ratio_takes_what_both_have_and_refuses_the_rest():
    first, second = [1.5, np.nan, 2.0, 2.5, 9.0], [3.0, 7.0, 4.0, 5.0, np.nan]
    assert ratio_of_means(first, second, list("abcde")) == (0.5, 0.5, 0.5)
    with pytest.raises(XaibenchError, match="no utterance in common"):
        ratio_of_means([1.0, np.nan], [np.nan, 1.0], list("ab"))
    with pytest.raises(XaibenchError, match="aligned"):
        ratio_of_means([1.0], [1.0, 2.0], "a")


def paired_coverage(n_clusters: int, *, repeats: int) -> float:
    """The same for the difference of two methods that share their utterances' hardness and have gaps."""
    rng = np.random.default_rng(13)
    clusters = np.repeat(np.arange(n_clusters), 4)
    hits = []
    for _ in range(repeats):
        hard, twin = rng.normal(size=(3, n_clusters))[:, clusters], rng.normal(size=(2, clusters.size))
        first, second = 0.2 + hard[0] + 0.7 * hard[1] + twin[0], hard[0] + 0.7 * hard[2] + twin[1]
        first[rng.random(clusters.size) < 0.1] = np.nan
        _, low, high = paired_difference(first, second, clusters, draws=1000)
        hits.append(low <= 0.2 <= high)
    return float(np.mean(hits))


@pytest.mark.parametrize("n_clusters", [10, 30])
def test_the_interval_of_a_paired_difference_covers_the_truth(n_clusters):
    assert paired_coverage(n_clusters, repeats=300) == pytest.approx(0.95, abs=0.03)


@pytest.mark.heavy
@pytest.mark.parametrize("n_clusters", [10, 30, 60])
def test_coverage_with_many_data_sets(n_clusters):
    # two standard errors of 0.95 over 4,000 are 0.007; the docstring's tables fall short by up to 0.005 on these scores
    assert skill_coverage(n_clusters, repeats=4000) == pytest.approx(0.95, abs=0.012)
    assert paired_coverage(n_clusters, repeats=4000) == pytest.approx(0.95, abs=0.012)
    assert coverage(n_clusters, skewed=True, repeats=4000) == pytest.approx(0.95, abs=0.012)
