"""Equal error rate: identity, empty, invalid, golden, its twin, and what every error rate obeys."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twins import detection as twin

from xaibench.errors import XaibenchError
from xaibench.metrics.detection import Decisions, decisions, detection_error_tradeoff, equal_error_point, equal_error_rate

scores = st.lists(st.integers(-8, 8).map(float), min_size=1, max_size=12)
wide = st.lists(st.floats(-100, 100), min_size=2, max_size=24, unique=True)


def test_a_perfect_countermeasure_makes_no_error_and_an_inverted_one_only_errors():
    assert equal_error_rate([2.0, 3.0], [-1.0, 0.0, 1.0]) == 0.0
    assert equal_error_rate([-1.0, 0.0, 1.0], [2.0, 3.0]) == 1.0


def test_golden():
    # Rejecting the three lowest (-2, 0, 1): bona fide 0 is missed (1 of 4), spoof 2 and 3 are accepted (2 of 4);
    # rejecting four: bona fide 0 and spoof -2, 1, 2 -> miss 1/4, false alarm 1/4.
    assert equal_error_rate([0.0, 4.0, 5.0, 6.0], [-2.0, 1.0, 2.0, 3.0]) == 0.25


def test_golden_curve():
    miss, false_alarm, thresholds = detection_error_tradeoff([1.0, 3.0], [0.0, 2.0, 2.5, 9.0])
    assert miss.tolist() == [0, 0, 0.5, 0.5, 0.5, 1, 1]
    assert false_alarm.tolist() == [1, 0.75, 0.75, 0.5, 0.25, 0.25, 0]
    assert thresholds.tolist() == [-0.001, 0, 1, 2, 2.5, 3, 9]


@pytest.mark.parametrize("empty", [([], [1.0]), ([1.0], [])])
def test_one_class_alone_has_no_error_rate(empty):
    with pytest.raises(XaibenchError, match="at least one of each"):
        equal_error_rate(*empty)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_must_be_finite(bad):
    with pytest.raises(XaibenchError, match="1 spoof scores are NaN or infinite"):
        equal_error_rate([1.0], [0.0, bad])


@given(scores, scores)
def test_agrees_with_the_twin_ties_included(bonafide, spoof):
    miss, false_alarm, _ = detection_error_tradeoff(bonafide, spoof)
    np.testing.assert_allclose(np.stack([miss, false_alarm], 1), twin.det_curve(bonafide, spoof), atol=1e-12)
    assert equal_error_rate(bonafide, spoof) == pytest.approx(twin.equal_error_rate(bonafide, spoof), abs=1e-12)


@given(wide, st.integers(1, 23), st.floats(0.1, 10), st.floats(-5, 5))
def test_only_the_order_of_scores_counts(values, cut, scale, shift):
    cut = min(cut, len(values) - 1)
    bonafide, spoof = np.array(values[:cut]), np.array(values[cut:])
    moved = np.argsort(np.argsort(np.concatenate([bonafide, spoof]))) * scale + shift
    assert equal_error_rate(moved[:cut], moved[cut:]) == equal_error_rate(bonafide, spoof)


@given(wide, st.integers(1, 23))
def test_both_rates_are_monotone_and_span_the_unit_interval(values, cut):
    cut = min(cut, len(values) - 1)
    miss, false_alarm, thresholds = detection_error_tradeoff(values[:cut], values[cut:])
    assert (np.diff(miss) >= 0).all() and (np.diff(false_alarm) <= 0).all() and (np.diff(thresholds) >= 0).all()
    assert (miss[0], false_alarm[0], miss[-1], false_alarm[-1]) == (0, 1, 1, 0)


def test_decisions_by_hand():
    made = decisions([3.0, 1.0, -1.0, 0.0], [2.0, -2.0, -3.0, -4.0, 0.0, -5.0])  # 2 of 4 accepted, 5 of 6 rejected
    assert made == Decisions(0.0, 0.7, (5 / 6 + 1 / 2) / 2, 5 / 7, 5 / 6, 10 / 13, 2 / 3, 1 / 2, 4 / 7)
    assert decisions([3.0, 1.0], [2.0], threshold=2.0) == Decisions(2.0, 2 / 3, 3 / 4, 1 / 2, 1.0, 2 / 3, 1.0, 1 / 2, 2 / 3)
    nothing = decisions([3.0, 1.0], [2.0], threshold=9.0)
    assert np.isnan(nothing.bonafide_precision) and nothing.bonafide_f1 == 0 and nothing.precision == 1 / 3
    everything = decisions([3.0, 1.0], [2.0], threshold=-9)
    assert np.isnan(everything.precision) and everything.f1 == 0 and type(everything.threshold) is float


def test_scores_of_any_shape_are_a_list_and_bona_fide_comes_first_among_ties():
    miss, alarm, thresholds = detection_error_tradeoff(np.array([[2], [1]]), [[1, 0]])
    assert (miss.tolist(), alarm.tolist()) == ([0, 0, 0.5, 0.5, 1], [1, 0.5, 0.5, 0, 0])
    assert thresholds.tolist() == [-0.001, 0, 1, 1, 2]
    many = detection_error_tradeoff(np.ones(50), np.ones(50))
    assert many[0].tolist() == [*np.arange(51) / 50, *[1.0] * 50]
    assert many[1].tolist() == [*[1.0] * 51, *np.arange(49, -1, -1) / 50]
    assert equal_error_point([1.0, 1.0], [1.0, 1.0]) == (1.0, 1.0)
