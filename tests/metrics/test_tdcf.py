"""Both t-DCFs: golden values, the evaluation packages' twins, and what a cost must obey; decisions at a threshold."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, precision_score, recall_score
from twins import asvspoof as twin

from xaibench.errors import Undefined, XaibenchError
from xaibench.metrics import tdcf
from xaibench.metrics.detection import decisions, equal_error_point, equal_error_rate
from xaibench.metrics.tdcf import AsvErrorRates, asv_error_rates, min_tdcf_2019_legacy, min_tdcf_2021

PERFECT = AsvErrorRates(miss=0.0, false_alarm=0.0, spoof_miss=0.0, spoof_false_alarm=1.0)
TYPICAL = AsvErrorRates(miss=0.1, false_alarm=0.05, spoof_miss=0.4, spoof_false_alarm=0.6)
tied = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=10)
wide = st.lists(st.floats(-50, 50), min_size=1, max_size=15)
some = st.one_of(tied, wide)


def test_golden_2019_legacy():
    # C1 = 0.9405 (1 - 0.1) - 0.0095 * 10 * 0.05 = 0.8417; C2 = 10 * 0.05 * (1 - 0.4) = 0.3.
    bonafide, spoof = [1.0, 3.0], [0.0, 2.0, 2.5, 9.0]
    c1, c2 = tdcf.weights_2019_legacy(TYPICAL)
    assert (c1, c2) == (pytest.approx(0.8417), pytest.approx(0.3))
    # operating points (miss, false alarm): (0, 1) (0, .75) (.5, .75) (.5, .5) (.5, .25) (1, .25) (1, 0); over C2 = 0.3:
    wanted = [1, 0.75, 0.5 * 0.8417 / 0.3 + 0.75, 0.5 * 0.8417 / 0.3 + 0.5, 0.5 * 0.8417 / 0.3 + 0.25]
    wanted += [0.8417 / 0.3 + 0.25, 0.8417 / 0.3]
    curve, thresholds = tdcf.tdcf_2019_legacy(bonafide, spoof, TYPICAL)
    np.testing.assert_allclose(curve, wanted, atol=1e-12)
    assert thresholds.tolist() == [-0.001, 0, 1, 2, 2.5, 3, 9]
    assert min_tdcf_2019_legacy(bonafide, spoof, TYPICAL) == pytest.approx(0.75)


def test_golden_2021():
    # C0 = 0.9405 * 0.1 + 0.0095 * 10 * 0.05 = 0.0988; C1 = 0.9405 - 0.0988 = 0.8417; C2 = 0.05 * 10 * 0.6 = 0.3.
    assert tdcf.weights_2021(TYPICAL) == (pytest.approx(0.0988), pytest.approx(0.8417), pytest.approx(0.3))
    # The best point misses nothing and accepts 3 of 4 spoofs: (0.0988 + 0.3 * 0.75) / (0.0988 + 0.3).
    found = min_tdcf_2021([1.0, 3.0], [0.0, 2.0, 2.5, 9.0], TYPICAL)
    assert found == pytest.approx((0.0988 + 0.225) / 0.3988, abs=1e-12)


def test_golden_asv_rates():
    # Targets 1, 3, 4 against nontargets 0, 0.5, 2: rejecting {0, 0.5, 1} misses 1/3 and accepts 1/3, so t = 1;
    # at t itself scores are accepted, so no target is missed and one nontarget of three is accepted.
    rates = asv_error_rates([1.0, 3.0, 4.0], [0.0, 0.5, 2.0], [2.5, -1.0, 0.9, 1.0])
    assert asdict(rates) == {
        "miss": 0.0, "false_alarm": 1 / 3, "spoof_miss": 0.5, "spoof_false_alarm": 0.5, "threshold": 1.0,
    }  # fmt: skip
    assert asv_error_rates([1.0, 3.0, 4.0], [0.0, 0.5, 2.0], [2.5], threshold=3.5).miss == pytest.approx(2 / 3)


def test_a_perfect_countermeasure_leaves_the_errors_of_the_asv_system():
    bonafide, spoof = [2.0, 3.0], [-1.0, -2.0, 0.0]
    assert min_tdcf_2019_legacy(bonafide, spoof, TYPICAL) == 0
    assert min_tdcf_2021(bonafide, spoof, TYPICAL) == pytest.approx(0.0988 / 0.3988)
    assert min_tdcf_2021(bonafide, spoof, PERFECT) == 0


@pytest.mark.parametrize("cost", [min_tdcf_2019_legacy, min_tdcf_2021])
def test_a_countermeasure_that_is_all_wrong_is_worth_as_much_as_none(cost):
    assert cost([-1.0, -2.0, 0.0], [2.0, 3.0], TYPICAL) == 1.0
    assert cost([-1.0, -2.0, 0.0], [2.0, 3.0], PERFECT) == 1.0


@given(some, some, some, some, some)
def test_both_agree_with_the_packages_twins(bonafide, spoof, target, nontarget, asv_spoof):
    rates = asv_error_rates(target, nontarget, asv_spoof)
    p_fa, p_miss, p_miss_spoof, p_fa_spoof = twin.asv_error_rates(target, nontarget, asv_spoof)
    found = (rates.false_alarm, rates.miss, rates.spoof_miss, rates.spoof_false_alarm)
    assert found == pytest.approx((p_fa, p_miss, p_miss_spoof, p_fa_spoof), abs=1e-12)
    for ours, theirs, of_spoofs in (
        (min_tdcf_2019_legacy, twin.min_tdcf_2019_legacy, p_miss_spoof),
        (min_tdcf_2021, twin.min_tdcf_2021, p_fa_spoof),
    ):
        try:
            wanted = theirs(bonafide, spoof, p_fa, p_miss, of_spoofs)
        except (ValueError, ZeroDivisionError):  # refused there, refused here
            with pytest.raises(XaibenchError):
                ours(bonafide, spoof, rates)
        else:
            assert ours(bonafide, spoof, rates) == pytest.approx(wanted, abs=1e-9)


def test_a_thousand_random_trials_agree_with_the_twins():
    draw = np.random.default_rng(0)
    for separation in (0.0, 1.0, 3.0, -2.0):
        bonafide, spoof = draw.normal(separation, 1, 300).round(2), draw.normal(0, 1, 700).round(2)  # rounded: ties
        target, nontarget, asv_spoof = draw.normal(3, 1, 300), draw.normal(0, 1, 400), draw.normal(1.5, 1, 300)
        rates = asv_error_rates(target, nontarget, asv_spoof)
        p_fa, p_miss, p_miss_spoof, p_fa_spoof = twin.asv_error_rates(list(target), list(nontarget), list(asv_spoof))
        a, b = list(bonafide), list(spoof)
        legacy = twin.min_tdcf_2019_legacy(a, b, p_fa, p_miss, p_miss_spoof)
        assert min_tdcf_2019_legacy(bonafide, spoof, rates) == pytest.approx(legacy, abs=1e-9)
        assert min_tdcf_2021(bonafide, spoof, rates) == pytest.approx(
            twin.min_tdcf_2021(a, b, p_fa, p_miss, p_fa_spoof), abs=1e-9
        )


@given(some, some)
def test_the_equal_error_threshold_is_the_twins(positive, negative):
    assert equal_error_point(positive, negative) == pytest.approx(twin.equal_error_point(positive, negative), abs=1e-12)
    assert equal_error_point(positive, negative)[0] == equal_error_rate(positive, negative)


@given(some, some, st.floats(-60, 60))
def test_the_minimum_is_a_share_and_no_threshold_beats_it(bonafide, spoof, threshold):
    assume(len({*bonafide, *spoof}) >= 3)
    for least, actual in (
        (min_tdcf_2019_legacy, tdcf.actual_tdcf_2019_legacy),
        (min_tdcf_2021, tdcf.actual_tdcf_2021),
    ):
        minimum = least(bonafide, spoof, TYPICAL)
        assert 0 <= minimum <= 1 + 1e-12
        assert actual(bonafide, spoof, TYPICAL, threshold=threshold) >= minimum - 1e-12
        best = min(actual(bonafide, spoof, TYPICAL, threshold=t) for t in [*bonafide, *spoof, -1e6])
        assert best >= minimum - 1e-12
        if len({*bonafide, *spoof}) == len(bonafide) + len(spoof):  # without ties every operating point is a threshold
            assert best == pytest.approx(minimum, abs=1e-12)


def test_golden_actual_cost():
    # At 0: one of two bona fide is missed, one of two spoofs accepted.
    assert tdcf.actual_tdcf_2019_legacy([1.0, -1.0], [-2.0, 4.0], PERFECT) == pytest.approx((0.9405 + 0.5) / 2 / 0.5)
    assert tdcf.actual_tdcf_2021([1.0, -1.0], [-2.0, 4.0], PERFECT) == pytest.approx((0.9405 + 0.5) / 2 / 0.5)


def test_the_two_versions_differ():
    bonafide, spoof = [0.0, 1.0, 2.0, 3.0], [-1.0, 0.5, 1.5]
    assert abs(min_tdcf_2019_legacy(bonafide, spoof, TYPICAL) - min_tdcf_2021(bonafide, spoof, TYPICAL)) > 0.02


@pytest.mark.parametrize("cost", [min_tdcf_2019_legacy, min_tdcf_2021])
def test_an_asv_system_worse_than_rejecting_everyone_is_refused_by_name(cost):
    hopeless = AsvErrorRates(miss=0.95, false_alarm=0.95, spoof_miss=0.5, spoof_false_alarm=0.5)
    with pytest.raises(XaibenchError, match=r"C1 = -0\.04.*inverted"):
        cost([1.0, 2.0], [0.0, -1.0], hopeless)


def test_an_asv_system_no_spoof_can_fool_leaves_the_legacy_cost_undefined():
    proof = AsvErrorRates(miss=0.1, false_alarm=0.1, spoof_miss=1.0, spoof_false_alarm=0.0)
    with pytest.raises(Undefined, match=r"min\(C1, C2\) = 0"):
        min_tdcf_2019_legacy([1.0, 2.0], [0.0, -1.0], proof)
    assert min_tdcf_2021([1.0, 2.0], [0.0, 3.0], proof) == 1.0  # the ASV system's own errors, as without a CM


@pytest.mark.parametrize("cost", [min_tdcf_2019_legacy, min_tdcf_2021])
def test_decisions_are_no_scores(cost):
    with pytest.raises(XaibenchError, match=r"2 different values.*soft scores"):
        cost([1.0, 1.0, 0.0], [0.0, 1.0], TYPICAL)


@pytest.mark.parametrize("name", ["miss", "false_alarm", "spoof_miss", "spoof_false_alarm"])
@pytest.mark.parametrize("value", [-0.1, 5.0, math.nan])
def test_rates_are_shares(name, value):
    with pytest.raises(XaibenchError, match=f"{name} = .*share in"):
        AsvErrorRates(**{"miss": 0.1, "false_alarm": 0.1, "spoof_miss": 0.5, "spoof_false_alarm": 0.5, name: value})


def test_spoofs_are_rejected_or_accepted():
    with pytest.raises(XaibenchError, match="sum of 1"):
        AsvErrorRates(0.1, 0.1, 0.5, 0.6)


@pytest.mark.parametrize("which", range(3))
def test_asv_scores_must_be_there_and_finite(which):
    kinds = ["target", "nontarget", "spoof"]
    for bad, message in (([], f"no ASV {kinds[which]} scores"), ([np.nan], f"1 ASV {kinds[which]} scores are NaN")):
        scores = [[1.0, 2.0], [0.0, 0.5], [0.2]]
        scores[which] = bad
        with pytest.raises(XaibenchError, match=message):
            asv_error_rates(*scores)


@given(some, some, st.floats(-60, 60))
def test_decisions_agree_with_scikit_learn(bonafide, spoof, threshold):
    found = decisions(bonafide, spoof, threshold=threshold)
    truth = [0] * len(bonafide) + [1] * len(spoof)  # 1 = spoof
    said = [int(s <= threshold) for s in (*bonafide, *spoof)]
    assert found.accuracy == pytest.approx(accuracy_score(truth, said))
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, said))
    for label, prefix in ((1, ""), (0, "bonafide_")):
        rates = asdict(found)
        nothing = said.count(label) == 0
        precision = math.nan if nothing else precision_score(truth, said, pos_label=label)
        assert rates[f"{prefix}precision"] == pytest.approx(precision, nan_ok=True)
        assert rates[f"{prefix}recall"] == pytest.approx(recall_score(truth, said, pos_label=label))
        assert rates[f"{prefix}f1"] == pytest.approx(f1_score(truth, said, pos_label=label, zero_division=0))


def test_a_score_on_the_threshold_is_called_spoof():
    found = decisions([0.0, 1.0], [0.0, -1.0])
    assert (found.recall, found.bonafide_recall, found.accuracy) == (1.0, 0.5, 0.75)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=20, unique=True), st.integers(1, 19))
def test_decisions_at_the_equal_error_threshold_make_that_error(values, cut):
    cut = min(cut, len(values) - 1)
    rate, threshold = equal_error_point(values[:cut], values[cut:])
    made = decisions(values[:cut], values[cut:], threshold=threshold)
    assert 1 - made.balanced_accuracy == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_threshold_is_finite(bad):
    with pytest.raises(XaibenchError, match="expected a finite number"):
        decisions([1.0], [0.0], threshold=bad)
    with pytest.raises(XaibenchError, match="expected a finite number"):
        tdcf.actual_tdcf_2021([1.0], [0.0], TYPICAL, threshold=bad)
