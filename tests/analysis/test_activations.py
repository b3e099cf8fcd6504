"""Activations: scales, segments, guards and statistics by slow literal twins, golden values, and what is refused."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xaibench.analysis.activations import (
    Rules,
    activation,
    changes,
    frame_edges,
    guarded,
    marginal,
    observe,
    of_recording,
    segments_above,
)  # fmt: skip
from xaibench.analysis.statistics import cliffs_delta, described, detection, histograms, statistics, summary
from xaibench.errors import XaibenchError
from xaibench.metrics.rcq import heat
from xaibench.types import Axis

LEVELS = st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.6, 0.9, 1.0]), min_size=1, max_size=30)
CURVES = st.lists(st.integers(-9, 9), min_size=1, max_size=30)


def edges_of(count):
    """Uneven frames, so that frames and seconds are not the same thing."""
    return np.cumsum(np.r_[0.0, np.where(np.arange(count) % 3 == 0, 0.02, 0.01)])


@given(CURVES)
def test_relu_is_the_authors_scaling_without_its_epsilon(curve):
    curve = np.array(curve, dtype=float)
    h = activation(curve)
    assert h.min() == 0 and h.max() in (0.0, 1.0)
    assert h == pytest.approx(heat(curve), abs=2e-7)


def test_small_numbers_are_scaled_like_large_ones():
    curve = np.array([0.0, 1.0, 4.0])
    assert activation(curve).tolist() == [0, 0.25, 1] and activation(1e-9 * curve) == pytest.approx([0, 0.25, 1])
    assert heat(1e-9 * curve).max() < 0.1  # what the epsilon of the tutorial's program does


def test_scales():
    curve = np.array([-2.0, 0.0, 2.0])
    assert activation(curve, "minmax").tolist() == [0, 0.5, 1] and activation(curve, "peak").tolist() == [0, 0, 1]
    lifted = curve + 4
    assert activation(lifted).tolist() == [0, 0.5, 1] and activation(lifted, "peak") == pytest.approx([1 / 3, 2 / 3, 1])
    for scale in ("relu", "minmax"):
        assert not activation(np.full(3, 5.0), scale).any()
    assert activation(np.full(3, 5.0), "peak").tolist() == [1, 1, 1] and not activation(-curve[:1] * 0, "peak").any()
    assert not activation(np.array([-1.0, -3.0])).any()


def segments_twin(h, threshold, edges, gap, shortest):
    """The tutorial's loop, with the segment that is open at the end; then joins, one at a time, then drops."""
    found, inside, start = [], False, 0
    for t, value in enumerate(h):
        if value > threshold and not inside:
            start, inside = t, True
        elif not value > threshold and inside:
            found.append([start, t])
            inside = False
    if inside:
        found.append([start, len(h)])
    while gap > 0:
        for a, b in pairwise(found):
            if edges[b[0]] - edges[a[1]] <= gap + 1e-9:
                a[1] = b[1]
                found.remove(b)
                break
        else:
            break
    kept = [(a, b) for a, b in found if edges[b] - edges[a] >= shortest - 1e-9]
    return [(edges[a], edges[b], sum(h[a:b]) / (b - a), max(h[a:b])) for a, b in kept]


@given(LEVELS, st.sampled_from([0.3, 0.5, 0.7]), st.sampled_from([0, 0.01, 0.03]), st.sampled_from([0, 0.015, 0.05]))
def test_segments_are_their_twin(h, threshold, gap, shortest):
    edges = edges_of(len(h))
    ours = segments_above(np.array(h), threshold, edges, gap=gap, shortest=shortest)
    theirs = segments_twin(h, threshold, edges.tolist(), gap, shortest)
    assert [(s.start, s.end) for s in ours] == [(a, b) for a, b, *_ in theirs]
    assert [s.mean for s in ours] == pytest.approx([m for _, _, m, _ in theirs])
    assert [s.peak for s in ours] == [p for *_, p in theirs]


def test_a_segment_open_at_the_end_is_not_lost_and_the_threshold_itself_is_below():
    found = segments_above(np.array([0.5, 0.6, 0.2, 0.9]), 0.5, np.arange(5.0))
    assert [(s.start, s.end) for s in found] == [(1, 2), (3, 4)]


@given(st.lists(st.booleans(), min_size=2, max_size=20), st.sampled_from([0.0, 0.011, 0.03]))
def test_the_guard_is_its_twin(mask, seconds):
    edges = edges_of(len(mask))
    times = changes(np.array(mask), edges)
    assert times.tolist() == [edges[i] for i in range(1, len(mask)) if mask[i] != mask[i - 1]]
    aside = guarded(edges, times, seconds)
    for t in range(len(mask)):
        middle = (edges[t] + edges[t + 1]) / 2
        assert aside[t] == (seconds > 0 and any(abs(middle - time) <= seconds + 1e-9 for time in times))


def test_where_the_guard_stands():
    edges = frame_edges(101, 0.01)
    speech = np.arange(101) >= 50
    every = observe(np.zeros(101), edges, speech, rules=Rules(), splices=[0.745])
    assert np.flatnonzero(~every.aside).tolist() == [*range(11, 40), *range(60, 65), *range(85, 90)]
    ends = observe(np.zeros(101), edges, speech, rules=Rules(guard_at=("ends",)), splices=[0.745])
    assert np.flatnonzero(~ends.aside).tolist() == list(range(11, 90))
    assert not observe(np.zeros(101), edges, speech, rules=Rules(guard_at=())).aside.any()


@given(st.lists(st.integers(0, 5), max_size=12), st.lists(st.integers(0, 5), max_size=12))
def test_cliffs_delta_counts_pairs(first, second):
    if not first or not second:
        assert math.isnan(cliffs_delta(np.array(first), np.array(second)))
        return
    pairs = [(a > b) - (a < b) for a in first for b in second]
    assert cliffs_delta(np.array(first), np.array(second)) == pytest.approx(sum(pairs) / len(pairs))


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from([0.0, 0.01, 0.02])), min_size=1, max_size=20))
def test_detection_counts_seconds(frames):
    found, truth, weight = (np.array(x) for x in zip(*frames, strict=True))
    ours = detection(found, truth, weight)
    tp = sum(w for f, t, w in frames if f and t)
    fp = sum(w for f, t, w in frames if f and not t)
    fn = sum(w for f, t, w in frames if t and not f)
    if not tp + fn:
        assert all(math.isnan(v) for v in ours.values())
        return
    assert ours["recall"] == pytest.approx(tp / (tp + fn)) and ours["iou"] == pytest.approx(tp / (tp + fp + fn))
    assert ours["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert ours["precision"] == pytest.approx(tp / (tp + fp) if tp + fp else math.nan, nan_ok=True)


def test_statistics_golden():
    # Five frames of 1 s; the guard of 0.5 s at the ends takes the outer two. Truth: frames 1 and 2; speech: frames 1 and 3.
    curve = np.array([9.0, 8.0, 4.0, 2.0, -1.0])
    seen = observe(
        curve, np.arange(6.0), np.array([0, 1, 0, 1, 0], bool), rules=(rules := Rules((0.3, 0.6), 0.5, ("ends",))),
        truth=np.array([0, 1, 1, 0, 0], bool),
    )  # fmt: skip
    low, high = statistics(seen, rules)
    assert (low["threshold"], high["threshold"]) == (0.3, 0.6)
    assert (low["frames"], low["aside"], low["flat"]) == (5, 2, 0)
    assert low["truth_mean"] == pytest.approx((8 / 9 + 4 / 9) / 2) and low["other_mean"] == pytest.approx(2 / 9)
    assert low["difference"] == pytest.approx(4 / 9) and low["delta"] == 1
    assert low["speech_delta"] == 0 and low["all_n"] == 3 and low["nonspeech_n"] == 1
    assert low["raw_mean"] == pytest.approx(14 / 3) and low["raw_max"] == 8
    assert low["truth_share"] == pytest.approx(2 / 3) and low["f1_of_all"] == pytest.approx(0.8)
    # Above 0.3: frames 0 to 2, of which 1 and 2 count; above 0.6: 0 and 1, of which 1 counts.
    assert (low["segments"], low["segment_seconds"], low["longest"], low["share_above"]) == (1, 3, 3, pytest.approx(2 / 3))
    assert (low["precision"], low["recall"], low["f1"], low["iou"]) == (1, 1, 1, 1)
    assert (high["precision"], high["recall"], high["iou"]) == (1, 0.5, 0.5) and high["all_mean"] == low["all_mean"]


def test_a_bona_fide_half_has_no_detection_and_a_wholly_guarded_one_no_numbers():
    seen = observe(np.array([0.0, 1.0, 0.0]), np.arange(4.0), np.ones(3, bool), rules=(rules := Rules(guard=0)))
    row = statistics(seen, rules)[0]
    assert math.isnan(row["f1"]) and math.isnan(row["delta"]) and row["other_mean"] == pytest.approx(1 / 3)
    nothing = statistics(observe(np.arange(3.0), np.arange(4.0), np.ones(3, bool), rules=(wide := Rules(guard=9))), wide)[0]
    assert nothing["all_n"] == 0 and math.isnan(nothing["share_above"]) and math.isnan(nothing["raw_mean"])


def test_described():
    found = described(np.array([0.0, 0.0, 1.0, 1.0, 0.5]))
    assert found == pytest.approx(
        {"n": 5, "mean": 0.5, "std": math.sqrt(0.2), "max": 1, "q25": 0, "median": 0.5, "q75": 1, "q95": 1}
    )


def lines(delta, sources):
    rules = Rules(thresholds=(0.5,), guard=0)
    table = []
    for source, d in zip(sources, delta, strict=True):
        seen = observe(
            np.array([0.0, d, 1.0]), np.arange(4.0), np.ones(3, bool), rules=rules, truth=np.array([0, 1, 0], bool)
        )
        about = {"half": "spoof", "countermeasure": "c", "route": "r", "attributor": "a", "utterance": source}
        table += [{**about, **row} for row in statistics(seen, rules)]
    return pd.DataFrame(table)


def test_summary_means_with_intervals_over_sources():
    table = lines([0.1, 0.2, 0.3, 0.9], ["x", "x", "y", "z"])
    (line,) = summary(table).to_dict("records")
    assert line["utterances"] == 4 and line["flat"] == 0
    assert line["difference"] == pytest.approx(np.mean([0.1, 0.2, 0.3, 0.9]) - 0.5)
    assert line["difference_low"] < line["difference"] < line["difference_high"]
    assert math.isnan(line["speech_delta"]) and line["recall"] == 0.25
    twins = summary(lines([0.1, 0.2, 0.3, 0.9], ["x", "x", "x", "x"])).to_dict("records")[0]
    assert math.isnan(twins["difference_low"])  # one source says nothing of others, however many twins


def test_histograms_sum_to_one_a_side():
    found = histograms({"a": [np.array([0.0, 0.5]), np.array([1.0])], "b": []}, 4)
    assert found.shares["a"] == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3]) and found.count == {"a": 3, "b": 0}
    assert not found.shares["b"].any() and found.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    with pytest.raises(XaibenchError, match="expected \\[0, 1\\]"):
        histograms({"a": [np.array([1.5])]})


def test_a_recording():
    rate = 8000
    draw = np.random.default_rng(0).standard_normal(2 * rate) * np.repeat([1e-4, 0.1], rate)
    time, frequency = Axis("time", np.linspace(0, 2, 41)), Axis("frequency", [0.0, 1000, 2000, 4000])
    values = np.zeros((3, 40))
    values[0, 20:30], values[2, :5] = 1.0, 50.0
    found = of_recording(values, frequency, time, draw, rate, band=(0.0, 2000.0), rules=Rules((0.3, 0.5)))
    assert found.h.tolist() == [0] * 20 + [1] * 10 + [0] * 10 and found.truth is None
    assert [(s.start, s.end) for s in found.segments[0.5]] == [(1.0, 1.5)] and sorted(found.segments) == [0.3, 0.5]
    assert not found.speech[:19].any() and found.speech[21:].all()
    assert found.aside[[0, 19, 20, 39]].all() and not found.aside[[5, 30]].any()
    whole = of_recording(values, frequency, time, draw, rate)
    assert whole.h[:5].tolist() == [1] * 5
    with pytest.raises(XaibenchError, match="does not fit axes"):
        of_recording(values.T, frequency, time, draw, rate)
    with pytest.raises(XaibenchError, match="between 3500"):
        of_recording(values, frequency, time, draw, rate, band=(3500.0, 3600.0))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"thresholds": ()}, "at least one"), ({"thresholds": (1.0,)}, "each in"), ({"thresholds": (0.5, 0.5)}, "twice"),
        ({"guard": -0.1}, "guard = -0.1"), ({"guard": math.nan}, "guard = nan"), ({"gap": math.inf}, "gap = inf"),
        ({"guard_at": ("edges",)}, "ends, speech, splices"), ({"scale": "softmax"}, "relu, minmax, peak"),
        ({"vad": "loud"}, "energy, silero"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be(options, says):
    with pytest.raises(XaibenchError, match=says):
        Rules(**options)


def test_what_is_refused():
    with pytest.raises(XaibenchError, match="expected \\(F, T\\)"):
        marginal(np.zeros(3))
    with pytest.raises(XaibenchError, match="finite"):
        marginal(np.array([[np.nan]]))
    with pytest.raises(XaibenchError, match="sum a map over frequency"):
        activation(np.zeros((2, 3)))
    with pytest.raises(XaibenchError, match="\\(T,\\) and \\(T \\+ 1,\\)"):
        segments_above(np.zeros(3), 0.5, np.zeros(3))
    with pytest.raises(XaibenchError, match="speech of shape"):
        observe(np.zeros(3), np.arange(4.0), np.zeros(2, bool), rules=Rules())
    with pytest.raises(XaibenchError, match="truth of shape"):
        observe(np.zeros(3), np.arange(4.0), np.zeros(3, bool), rules=Rules(), truth=np.zeros(2, bool))


def test_the_band_of_a_marginal():
    values = np.array([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])
    assert marginal(values).tolist() == [111, 222]
    assert marginal(values, np.array([False, True, True])).tolist() == [110, 220]
