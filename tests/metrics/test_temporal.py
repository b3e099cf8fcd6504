"""Temporal scores: identity, empty, invalid, golden; twins, ties, and the frames of a truth."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from twins import temporal as twin

from xaibench.errors import XaibenchError
from xaibench.metrics import localisation
from xaibench.metrics import temporal as ours
from xaibench.metrics.catalog import METRICS
from xaibench.metrics.detection import equal_error_rate
from xaibench.types import Truth

SCORES = {
    "rank-accuracy-time": ours.rank_accuracy,
    "roc-auc-time": ours.roc_auc,
    "average-precision-time": ours.average_precision,
    "spearman-time": ours.spearman,
    "frame-eer": ours.frame_eer,
}
every_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
CHANCE = {"roc-auc-time": 0.5, "spearman-time": 0.0, "frame-eer": 0.5}


def truth_of(region, valid=None, values=None):
    """A truth from `(F, T)` or `(B, F, T)` lists."""
    region = torch.as_tensor(region, dtype=torch.bool)
    region = region[None] if region.ndim == 2 else region
    valid = torch.ones(region.shape[1:], dtype=torch.bool) if valid is None else torch.as_tensor(valid, dtype=torch.bool)
    values = region.float() if values is None else torch.as_tensor(values, dtype=torch.float32).view(region.shape)
    return Truth(values=values * valid, region=region, valid=valid, name="eq2")


@st.composite
def cases(draw, *, values=st.integers(-3, 3), batch=1):  # noqa: B008
    """Maps `(batch, F, T)` and a truth with spoofed and other frames."""
    f, t = draw(st.integers(1, 3)), draw(st.integers(3, 5))
    maps = torch.tensor(draw(st.lists(values, min_size=batch * f * t, max_size=batch * f * t)), dtype=torch.float32)
    bits = st.lists(st.booleans(), min_size=f * t, max_size=f * t)
    region = torch.tensor([draw(bits) for _ in range(batch)]).view(batch, f, t)
    valid = torch.tensor(draw(bits)).view(f, t)
    valid[:, :2] = True
    region[:, :, 0], region[:, :, 1] = True, False
    levels = torch.tensor(draw(st.lists(st.integers(0, 4), min_size=batch * f * t, max_size=batch * f * t)))
    return maps.view(batch, f, t), truth_of(region, valid, levels.view(batch, f, t))


# 2 frequencies x 6 frames; the last frame of the second row is not valid.
MAP = torch.tensor([[[4.0, 1.0, 0.0, 2.0, -1.0, 3.0], [1.0, 2.0, -1.0, 2.0, 1.0, 90.0]]])  # marginal 5 3 -1 4 0 3
TRUTH = truth_of(  # share 1, 0, 1/2, 0, 0, 1: two and a half frames, rounded to 2
    [[1, 0, 1, 0, 0, 1], [1, 0, 0, 0, 0, 0]], [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]]
)


def test_the_frames_of_a_truth_are_those_of_largest_share():
    assert ours.region_share(TRUTH).tolist() == [[1, 0, 0.5, 0, 0, 1]]
    assert ours.temporal_region(TRUTH).tolist() == [[True, False, False, False, False, True]]
    assert ours.time_marginal(MAP, TRUTH.valid).tolist() == [[5, 3, -1, 4, 0, 3]]


def test_equal_shares_are_told_apart_by_the_mean_truth_then_by_order():
    region = [[1, 1, 1, 1], [0, 0, 0, 0]]  # four halves: two frames
    levels = [[1.0, 1.0, 5.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    assert ours.temporal_region(truth_of(region, values=levels)).tolist() == [[True, False, True, False]]


# Falling: 5* 4 3 3* 0 -1, the two threes in random order.
@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (ours.rank_accuracy, 1 / 2),
        (ours.roc_auc, (4 + 2.5) / 8),
        (ours.average_precision, (1 + (2 / 3 + 2 / 4) / 2) / 2),
        # ranks 5 4 (3 or 2) 1 0 of the frames 0 3 {1, 5} 4 2; g has mid-ranks 4.5 1 3 1 1 4.5
        (ours.spearman, (2.5 * 2 + 0 * -1.5 + -2.5 * 0.5 + 1.5 * -1.5 + -1.5 * -1.5 + 0 * 2) / (17.5 * 15) ** 0.5),
        # (miss, false alarm): (1, 0) (.5, 0) (.5, .25) (0, .5) after both threes; equal a third of the way along the last
        (ours.frame_eer, 1 / 3),
    ],
)
def test_golden(score, expected):
    result = score(MAP, TRUTH)
    assert result.dtype == torch.float64 and result.shape == (1,)
    assert result.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", [n for n in SCORES if n != "spearman-time"])
@given(case=cases())
@settings(max_examples=30)
def test_identity_the_temporal_region_itself_is_perfect(name, case):
    _, truth = case
    spoofed = ours.temporal_region(truth)
    assume(not spoofed.all(1).any() and spoofed.any())
    perfect = (spoofed[:, None] * truth.valid).float()
    perfect /= perfect.sum(1, keepdim=True).clamp_min(1)
    best = 0.0 if METRICS[name].direction == "lower" else 1.0
    assert SCORES[name](perfect, truth).item() == pytest.approx(best, abs=1e-12)


@given(cases())
@settings(max_examples=30)
def test_no_map_correlates_better_than_the_share_itself(case):
    values, truth = case
    share = ours.region_share(truth)[:, None] * truth.valid / truth.valid.sum(0).clamp_min(1)
    best = ours.spearman(share, truth).item()
    assume(not np.isnan(best) and ours.time_marginal(values, truth.valid).any())
    assert ours.spearman(values, truth).item() <= best + 1e-12 and best > 0


@every_score
def test_empty_and_full_regions_are_undefined_and_empty_batches_stay_empty(score):
    values = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))
    region = torch.zeros(3, 2, 5, dtype=torch.bool)
    region[1] = True
    region[2, :, 1] = True
    result = score(values, truth_of(region))
    assert result.isnan().tolist() == [True, True, False]
    assert score(values[:0], truth_of(region[:0])).shape == (0,)


@every_score
def test_a_region_of_less_than_half_a_frame_is_undefined(score):
    region = torch.zeros(1, 5, 6, dtype=torch.bool)
    region[0, 0, :2] = True
    assert score(torch.rand(1, 5, 6), truth_of(region)).isnan().all()


@every_score
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attribution": torch.ones(1, 4, 3)}, r"shape \(1, 3, 4\), got \(1, 4, 3\)"),
        ({"attribution": torch.ones(3, 4)}, "project the attribution"),
        ({"attribution": torch.ones(1, 3, 4, dtype=torch.long)}, "floating-point"),
        ({"attribution": torch.full((1, 3, 4), torch.nan)}, "12 NaN or infinite cells of 12"),
        ({"region": torch.ones(1, 3, 4)}, "bool region"),
        ({"valid": torch.ones(4, 3, dtype=torch.bool)}, "valid mask"),
        ({"valid": torch.zeros(3, 4, dtype=torch.bool)}, "no valid cell"),
    ],
)
def test_invalid_arguments_are_named(score, change, message):
    good = {"region": torch.ones(1, 3, 4, dtype=torch.bool), "valid": torch.ones(3, 4, dtype=torch.bool)}
    parts = {k: v for k, v in {**good, **change}.items() if k != "attribution"}
    with pytest.raises(XaibenchError, match=message):
        score(change.get("attribution", torch.ones(1, 3, 4)), Truth(values=torch.ones(1, 3, 4), name="eq2", **parts))


@every_score
def test_a_marginal_of_zeros_is_undefined(score):
    values = torch.zeros(3, 2, 6)
    values[1, 0], values[1, 1] = 2.0, -2.0  # cancels in every frame but the last, of one valid cell
    values[1, 0, 5] = 0.0
    values[2, 0, 3] = 1.0
    truth = Truth(TRUTH.values.expand(3, -1, -1), TRUTH.region.expand(3, -1, -1), TRUTH.valid, "eq2")
    assert score(values, truth).isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("value", [7.0, 0.1, -1e-20])
@pytest.mark.parametrize("bins", [1, 97, 257])
def test_a_map_that_is_constant_over_time_is_chance(value, bins):
    region = torch.zeros(1, bins, 203, dtype=torch.bool)
    region[:, :, 40:71] = True
    profile = torch.linspace(0.3, 1.7, bins)[None, :, None] * value
    maps = profile.expand(1, bins, 203)
    truth = truth_of(region)
    assert ours.rank_accuracy(maps, truth).item() == pytest.approx(31 / 203, abs=1e-12)
    for name, chance in CHANCE.items():
        assert SCORES[name](maps, truth).item() == pytest.approx(chance, abs=1e-12), name


@pytest.mark.parametrize("name", CHANCE)
def test_the_mean_of_random_maps_is_the_declared_chance(name):
    draw = torch.Generator().manual_seed(0)
    region = torch.zeros(400, 3, 60, dtype=torch.bool)
    region[:, :, 10:25] = True
    scores = SCORES[name](torch.rand(400, 3, 60, generator=draw), truth_of(region))
    assert METRICS[name].chance == CHANCE[name]
    assert abs(scores.mean() - CHANCE[name]) < 4 * scores.std() / 20


@given(cases(values=st.integers(-(10**6), 10**6)))
@settings(max_examples=60)
def test_without_ties_every_score_is_its_twin(case):
    values, truth = case
    _compare(values, truth, tied=False)


@given(cases(values=st.integers(-1, 1)))
@settings(max_examples=60)
def test_a_tied_map_scores_the_mean_over_all_orders_of_its_ties(case):
    values, truth = case
    _compare(values, truth, tied=True)


def _compare(values, truth, *, tied):
    numbers, region, valid = values[0].numpy().astype(float), truth.region[0].numpy(), truth.valid.numpy()
    seen = [t for t in range(valid.shape[1]) if valid[:, t].any()]
    spoofed = twin.frames(truth.values[0].numpy(), region, valid)
    assert spoofed == set(ours.temporal_region(truth)[0].nonzero()[:, 0].tolist())
    a = twin.marginal(numbers, valid)[seen]
    g = [twin.share(region, valid)[t] for t in seen]
    spoofed = {seen.index(t) for t in spoofed}
    assume(0 < len(spoofed) < len(seen) and a.any() and (tied or len(set(a)) == len(a)))
    listed = list(twin.orders(a))
    for score, reference in (
        (ours.rank_accuracy, lambda o: twin.rank_accuracy(o, spoofed)),
        (ours.roc_auc, lambda o: twin.roc_auc(o, spoofed)),
        (ours.average_precision, lambda o: twin.average_precision(o, spoofed)),
        (ours.spearman, lambda o: twin.spearman(o, g)),
    ):
        assert score(values, truth).item() == pytest.approx(np.mean([reference(o) for o in listed]), abs=1e-9)
    assert ours.frame_eer(values, truth).item() == pytest.approx(twin.frame_eer(a, spoofed), abs=1e-9)


@given(cases(values=st.integers(-(10**6), 10**6)))
@settings(max_examples=60)
def test_the_frame_error_rate_is_less_than_a_frame_from_the_countermeasures_own(case):
    values, truth = case
    frames = truth.valid.any(0)
    a = ours.time_marginal(values, truth.valid)[0][frames]
    spoofed = ours.temporal_region(truth)[0][frames]
    assume(spoofed.any() and not spoofed.all() and len(a.unique()) == len(a))
    theirs = equal_error_rate(-a[~spoofed].numpy(), -a[spoofed].numpy())
    step = 1 / min(int(spoofed.sum()), int((~spoofed).sum()))
    assert abs(ours.frame_eer(values, truth).item() - theirs) < step


@given(cases(values=st.integers(-(10**6), 10**6)))
@settings(max_examples=40)
def test_spearman_is_scipys_where_the_map_has_no_ties(case):
    values, truth = case
    frames = truth.valid.any(0)
    a = ours.time_marginal(values, truth.valid)[0][frames]
    g = ours.region_share(truth)[0][frames]
    spoofed = ours.temporal_region(truth)[0][frames]
    assume(spoofed.any() and not spoofed.all() and len(a.unique()) == len(a))
    assert ours.spearman(values, truth).item() == pytest.approx(spearmanr(a, g).statistic, abs=1e-12)


@every_score
@given(case=cases(batch=3))
@settings(max_examples=30)
def test_a_batch_scores_as_its_maps_do_alone(score, case):
    values, truth = case
    parts = [replace(truth, values=truth.values[i : i + 1], region=truth.region[i : i + 1]) for i in range(3)]
    alone = torch.cat([score(values[i : i + 1], part) for i, part in enumerate(parts)])
    torch.testing.assert_close(score(values, truth), alone, equal_nan=True, rtol=0, atol=1e-12)


@every_score
@given(case=cases())
@settings(max_examples=30)
def test_cells_that_are_not_valid_change_nothing(score, case):
    values, truth = case
    other = replace(truth, region=truth.region ^ ~truth.valid)
    changed = score(torch.where(truth.valid, values, 99.0), other)
    torch.testing.assert_close(score(values, truth), changed, equal_nan=True, rtol=0, atol=0)


@every_score
@given(case=cases())
@settings(max_examples=30)
def test_only_the_marginal_counts(score, case):
    values, truth = case
    spread = (ours.time_marginal(values, truth.valid) / truth.valid.sum(0).clamp_min(1))[:, None] * truth.valid
    exact = torch.allclose(ours.time_marginal(spread, truth.valid), ours.time_marginal(values, truth.valid))
    assume(exact and len(values[0]) in (1, 2))  # halves are exact, so ties stay ties
    torch.testing.assert_close(score(values, truth), score(spread.float(), truth), equal_nan=True, rtol=0, atol=1e-12)


@given(cases())
@settings(max_examples=30)
def test_turning_the_sign_turns_ranking_over(case):
    values, truth = case
    turned = [score(-values, truth).item() for score in (ours.roc_auc, ours.spearman, ours.frame_eer)]
    plain = [score(values, truth).item() for score in (ours.roc_auc, ours.spearman, ours.frame_eer)]
    assume(not np.isnan(plain[0]))
    assert turned == pytest.approx([1 - plain[0], -plain[1], 1 - plain[2]], abs=1e-12)


def test_with_one_frequency_the_scores_are_those_of_localisation():
    values = torch.randn(4, 1, 50, generator=torch.Generator().manual_seed(1))
    region = torch.zeros(4, 1, 50, dtype=torch.bool)
    region[:, 0, 5:17] = True
    for score, flat in (
        (ours.rank_accuracy, localisation.relevance_rank_accuracy),
        (ours.roc_auc, localisation.roc_auc),
        (ours.average_precision, localisation.average_precision),
    ):
        torch.testing.assert_close(score(values, truth_of(region)), flat(values, region), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SCORES)
def test_the_catalogue_says_that_only_time_is_needed(name):
    metric = METRICS[name]
    assert metric.needs == {"truth", "time"} and metric.family == "localisation"
    assert metric.direction == ("lower" if name == "frame-eer" else "higher")


# --- relative contribution of the spoofed frames -------------------------------------------------------------------------


def test_rcq_golden_perfect_constant_and_empty():
    # heights 5 3 0 4 0 3, mean 2.5; frames 0 and 5 are spoofed: mean 4
    assert ours.rcq(MAP, TRUTH).item() == pytest.approx(60.0, abs=1e-12)
    spoofed = ours.temporal_region(TRUTH)[:, None].expand(1, 2, 6).float()
    assert ours.rcq(spoofed, TRUTH).item() == pytest.approx(100 * (6 / 2 - 1), rel=0.3)  # valid cells differ by one
    level = TRUTH.valid.float()[None] / TRUTH.valid.sum(0)
    assert ours.rcq(level, TRUTH).item() == pytest.approx(0.0, abs=1e-9)
    assert ours.rcq(-MAP.abs(), TRUTH).isnan().all(), "no evidence for spoof: undefined, not -100"
    assert ours.rcq(torch.zeros_like(MAP), TRUTH).isnan().all()
    for region in (torch.zeros(1, 2, 5), torch.ones(1, 2, 5)):
        assert ours.rcq(torch.rand(1, 2, 5), truth_of(region)).isnan().all()
    with pytest.raises(XaibenchError, match="NaN or infinite"):
        ours.rcq(torch.full((1, 2, 6), torch.nan), TRUTH)


@given(cases(values=st.integers(-5, 5)))
@settings(max_examples=60)
def test_rcq_is_its_twin_and_does_not_depend_on_scale(case):
    values, truth = case
    seen = truth.valid.any(0)
    a = ours.time_marginal(values, truth.valid)[0][seen].numpy()
    spoofed = set(ours.temporal_region(truth)[0][seen].nonzero()[:, 0].tolist())
    assume(0 < len(spoofed) < len(a) and (a > 0).any())
    assert ours.rcq(values, truth).item() == pytest.approx(twin.rcq(a, spoofed), abs=1e-9)
    assert ours.rcq(7 * values, truth).item() == pytest.approx(twin.rcq(a, spoofed), abs=1e-9)


def test_a_frame_of_one_valid_cell_has_that_cells_level():
    # shares 1/2, 1, 1/2, 1: two of one cell (level 3, 2), two of two; three frames, the last by its mean level
    valid = [[1, 0, 1, 0], [1, 1, 1, 1]]
    truth = truth_of([[1, 1, 0, 1], [0, 1, 1, 1]], valid, [[2.0, 9.0, 0.0, 9.0], [0.0, 3.0, 2.5, 2.0]])
    assert ours.region_share(truth).tolist() == [[0.5, 1, 0.5, 1]]
    assert ours.temporal_region(truth).tolist() == [[False, True, True, True]]
    valid = [[1, 0, 1, 1], [1, 1, 1, 1]]
    level = truth_of([[1, 0, 1, 1], [0, 1, 0, 0]], valid, [[3.0, 0.0, 3.5, 1.0], [1.0, 2.5, 1.0, 9.0]])
    # shares 1/2, 1, 1/2, 1/2 and levels 2, 2.5, 2.25, 5: two and a half frames are two
    assert ours.temporal_region(level).tolist() == [[False, True, False, True]]


def test_maps_of_four_axes_and_truths_of_two_sizes_are_refused():
    truth = truth_of(torch.ones(1, 2, 3, dtype=torch.bool))
    for values in (torch.ones(1, 2, 3, 1), torch.ones(2, 3), torch.ones(2, 2, 3)):
        with pytest.raises(XaibenchError, match="project the attribution"):
            ours.roc_auc(values, truth)
    flat = Truth(values=torch.ones(2, 3), region=torch.ones(2, 3, dtype=torch.bool), valid=truth.valid, name="eq2")
    with pytest.raises(XaibenchError, match="project the attribution"):
        ours.roc_auc(torch.ones(2, 3), flat)
    deep = Truth(values=torch.ones(1, 2, 3, 1), region=torch.ones(1, 2, 3, 1) > 0, valid=torch.ones(2, 3, 1) > 0, name="eq2")
    with pytest.raises(XaibenchError, match="project the attribution"):
        ours.roc_auc(torch.ones(1, 2, 3, 1), deep)
    with pytest.raises(XaibenchError, match="a bool valid mask"):
        ours.roc_auc(torch.ones(1, 2, 3), replace(truth, valid=torch.ones(2, 3)))


def test_a_batch_of_frames_by_hand():
    """Two utterances of one truth: each has its own order, its own ties and its own crossing."""
    truth = truth_of(torch.tensor([[[1, 1, 0, 0, 0]], [[1, 1, 0, 0, 0]], [[0, 0, 0, 1, 1]]], dtype=torch.bool))
    maps = torch.tensor([[[5.0, 1.0, 4.0, 0.0, 0.0]], [[2.0, 2.0, 2.0, 2.0, 2.0]], [[-1.0, -2.0, -3.0, 7.0, 8.0]]])
    assert ours.rank_accuracy(maps, truth).tolist() == pytest.approx([0.5, 0.4, 1])
    assert ours.roc_auc(maps, truth).tolist() == pytest.approx([5 / 6, 0.5, 1])
    assert ours.frame_eer(maps, truth).tolist() == pytest.approx([1 / 3, 0.5, 0])
    assert ours.rcq(maps, truth).tolist() == pytest.approx([50, 0, 150])
    assert ours.rcq(maps * torch.tensor([[[0.0]], [[-1.0]], [[1.0]]]), truth).tolist() == pytest.approx(
        [np.nan, np.nan, 150], nan_ok=True
    )


def test_of_equal_shares_the_larger_mean_comes_first_not_the_larger_sum():
    valid = [[1, 1], [1, 1], [0, 1], [0, 1]]
    truth = truth_of([[1, 1], [0, 1], [0, 0], [0, 0]], valid, [[3.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    assert ours.region_share(truth).tolist() == [[0.5, 0.5]]
    assert ours.temporal_region(truth).tolist() == [[True, False]]
