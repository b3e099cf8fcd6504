"""Localisation: identity, empty, invalid, golden; twins, ties and the properties of rank scores."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom
from sklearn.metrics import average_precision_score, roc_auc_score
from twins import localisation as twin

from xaibench.errors import XaibenchError
from xaibench.metrics import localisation as ours
from xaibench.metrics.ranking import Ranking

iou = partial(ours.intersection_over_union, share=0.3)
AT = {
    "iou": (iou, twin.jaccard),
    "dice": (partial(ours.dice, share=0.3), twin.dice),
    "precision": (partial(ours.precision, share=0.3), twin.precision),
    "recall": (partial(ours.recall, share=0.3), twin.recall),
    "concept": (partial(ours.concept_influence, share=0.3), twin.concept_influence),
}
top = partial(ours.top_k_intersection, count=4)
RANK_SCORES = {
    "rank": ours.relevance_rank_accuracy,
    **{name: score for name, (score, _) in AT.items()},
    "top": top,
    "auc": ours.roc_auc,
    "ap": ours.average_precision,
    "pointing": ours.pointing_game,
}
SCORES = {**RANK_SCORES, "mass": ours.relevance_mass_accuracy}
every_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
every_rank_score = pytest.mark.parametrize("score", RANK_SCORES.values(), ids=RANK_SCORES)


@st.composite
def cases(draw, *, values=st.integers(-3, 3), batch=1):  # noqa: B008
    """Maps `(batch, F, T)`, regions and a common valid mask; every region has cells in and out of it among valid ones."""
    f, t = draw(st.integers(1, 4)), draw(st.integers(3, 5))
    maps = torch.tensor(draw(st.lists(values, min_size=batch * f * t, max_size=batch * f * t)), dtype=torch.float32)
    bits = st.lists(st.booleans(), min_size=f * t, max_size=f * t)
    region = torch.tensor([draw(bits) for _ in range(batch)]).view(batch, f, t)
    valid = torch.tensor(draw(bits)).view(f, t)
    valid.flatten()[:3] = True
    region.view(batch, -1)[:, 0], region.view(batch, -1)[:, 1] = True, False
    return maps.view(batch, f, t), region, valid


distinct = st.integers(-(10**6), 10**6)


# One map of 2 x 5 cells by hand. Valid: all but the last column. Falling: 9 7 4 2 | 1 0 -1 -5; region cells marked *.
ATTRIBUTION = torch.tensor([[[9.0, 2.0, -1.0, 4.0, 50.0], [1.0, 7.0, 0.0, -5.0, 60.0]]])  # 9* 7 4* 2 1 0* -1 -5
REGION = torch.tensor([[[1, 0, 0, 1, 1], [0, 0, 1, 0, 0]]], dtype=torch.bool)
VALID = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 0]], dtype=torch.bool)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (ours.relevance_rank_accuracy, 2 / 3),  # 9 and 4 among 9 7 4
        (partial(ours.intersection_over_union, share=0.25), 1 / 4),  # {9, 7} and three cells: 1 shared of 4
        (partial(ours.dice, share=0.25), 2 / 5),
        (partial(ours.precision, share=0.25), 1 / 2),
        (partial(ours.recall, share=0.25), 1 / 3),
        (partial(ours.concept_influence, share=0.25), (1 / 2) / (3 / 8)),
        (partial(ours.top_k_intersection, count=3), 2 / 3),
        (ours.top_k_intersection, 3 / 8),  # 1000 are more than there are
        (ours.relevance_mass_accuracy, 13 / 23),  # (9 + 4 + 0) / (9 + 2 + 4 + 1 + 7)
        (ours.roc_auc, (5 + 4 + 2) / 15),  # cells outside beaten by 9, by 4 and by 0, of 3 x 5 pairs
        (ours.average_precision, (1 / 1 + 2 / 3 + 3 / 6) / 3),
        (ours.pointing_game, 1.0),
    ],
)
def test_golden(score, expected):
    result = score(ATTRIBUTION, REGION, VALID)
    assert result.dtype == torch.float64 and result.shape == (1,)
    assert result.item() == pytest.approx(expected, abs=1e-12)


@every_score
@given(case=cases())
@settings(max_examples=30)
def test_identity_the_region_itself_is_perfect(score, case):
    _, region, valid = case
    size, cells = int((region[0] & valid).sum()), int(valid.sum())
    if isinstance(score, partial):
        score = partial(score.func, count=size) if score is top else partial(score.func, share=size / cells)
    best = cells / size if getattr(score, "func", None) is ours.concept_influence else 1.0
    assert score(region.float(), region, valid).item() == pytest.approx(best, abs=1e-12)


@every_score
def test_empty_regions_are_undefined_and_empty_batches_stay_empty(score):
    values = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    region = torch.zeros(2, 3, 4, dtype=torch.bool)
    region[1, 0, 1] = True
    result = score(values, region)
    assert result[0].isnan() and result[1].isfinite()
    assert score(values[:0], region[:0]).shape == (0,)


@every_score
def test_a_region_outside_the_valid_cells_is_empty(score):
    valid = torch.ones(3, 4, dtype=torch.bool)
    valid[0] = False
    region = torch.zeros(1, 3, 4, dtype=torch.bool)
    region[0, 0] = True
    assert score(torch.rand(1, 3, 4) + 1, region, valid).isnan().all()


@every_score
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attribution": torch.ones(1, 4, 3)}, r"one shape .*\(1, 4, 3\)"),
        ({"attribution": torch.ones(3, 4)}, "one shape"),
        ({"attribution": torch.ones(1, 3, 4, dtype=torch.long)}, "floating-point"),
        ({"attribution": torch.full((1, 3, 4), torch.nan)}, "12 NaN or infinite cells of 12"),
        ({"attribution": torch.full((1, 3, 4), torch.inf)}, "infinite"),
        ({"region": torch.ones(1, 3, 4)}, "bool region"),
        ({"valid": torch.ones(4, 3, dtype=torch.bool)}, "valid must be bool"),
        ({"valid": torch.ones(3, 4)}, "valid must be bool"),
        ({"valid": torch.zeros(3, 4, dtype=torch.bool)}, "at least one cell"),
    ],
)
def test_invalid_arguments_are_named(score, change, message):
    good = {
        "attribution": torch.ones(1, 3, 4),
        "region": torch.ones(1, 3, 4, dtype=torch.bool),
        "valid": torch.ones(3, 4, dtype=torch.bool),
    }
    with pytest.raises(XaibenchError, match=message):
        score(**{**good, **change})


@pytest.mark.parametrize("share", [0.0, 0.01, 1.5])
@pytest.mark.parametrize("name", AT)
def test_a_share_is_at_least_one_cell_and_at_most_all(name, share):
    with pytest.raises(XaibenchError, match="expected 1 to 8"):
        AT[name][0](ATTRIBUTION, REGION, VALID, share=share)


def test_the_top_k_are_at_least_one():
    with pytest.raises(XaibenchError, match="the top 0 cells are none"):
        ours.top_k_intersection(ATTRIBUTION, REGION, VALID, count=0)


@every_score
def test_a_ranking_stands_for_its_attribution(score):
    ranking = Ranking(ATTRIBUTION, VALID)
    for _ in range(2):  # asked twice, answered alike
        for region in (REGION, ~REGION):
            assert score(ranking, region).item() == score(ATTRIBUTION, region, VALID).item()
    with pytest.raises(XaibenchError, match=r"bool region of shape \(1, 2, 5\), got torch.bool \(1, 5, 2\)"):
        score(ranking, REGION.mT)


@given(cases())
@settings(max_examples=60)
def test_at_the_size_of_the_region_the_four_scores_are_one(case):
    values, region, valid = case
    assume(values[0][valid].any())
    share = int((region[0] & valid).sum()) / int(valid.sum())
    x = ours.relevance_rank_accuracy(*case).item()
    for score in (ours.precision, ours.recall, ours.dice):
        assert score(*case, share=share).item() == pytest.approx(x, abs=1e-12)
    # convex in the intersection: under ties its expected value is more
    assert ours.intersection_over_union(*case, share=share).item() >= x / (2 - x) - 1e-12


@given(case=cases(values=distinct), share=st.floats(0.35, 1.0))
@settings(max_examples=60)
def test_without_ties_iou_follows_from_dice(case, share):
    values, _, valid = case
    assume(values[0][valid].any() and len(values[0][valid].unique()) == int(valid.sum()))
    d, j = (score(*case, share=share).item() for score in (ours.dice, ours.intersection_over_union))
    assert j == pytest.approx(d / (2 - d), abs=1e-12)


@given(case=cases(), share=st.floats(0.35, 1.0))
@settings(max_examples=60)
def test_dice_is_the_harmonic_mean_of_precision_and_recall_and_iou_follows_from_it(case, share):
    values, _, valid = case
    assume(values[0][valid].any())
    scores = (ours.precision, ours.recall, ours.dice, ours.intersection_over_union)
    p, r, d, j = (score(*case, share=share).item() for score in scores)
    assert d == pytest.approx(2 * p * r / (p + r) if p else 0.0, abs=1e-12)
    assert d / (2 - d) - 1e-12 <= j <= 1


@every_score
def test_a_map_that_says_nothing_where_it_counts_is_undefined(score):
    values = torch.zeros(2, 2, 5)
    values[:, :, 4] = 3.0  # not valid
    values[1, 0, 0] = -1.0
    result = score(values, REGION.expand(2, -1, -1), VALID)
    assert result[0].isnan()
    assert result[1].isnan() == (score is ours.relevance_mass_accuracy)  # no positive mass


@pytest.mark.parametrize("value", [7.0, 1e-30, -2.0])
def test_a_constant_map_is_chance(value):
    values = torch.full((1, 2, 5), value)
    assert ours.relevance_rank_accuracy(values, REGION, VALID).item() == 3 / 8
    assert ours.roc_auc(values, REGION, VALID).item() == 0.5
    assert ours.pointing_game(values, REGION, VALID).item() == 3 / 8
    assert ours.intersection_over_union(values, REGION, VALID, share=0.25).item() == pytest.approx(
        15 / 28 * 1 / 4 + 3 / 28 * 2 / 3  # one or both of two cells, of eight of which three are right
    )
    assert ours.precision(values, REGION, VALID, share=0.25).item() == 3 / 8
    assert ours.recall(values, REGION, VALID, share=0.25).item() == 1 / 4
    assert ours.dice(values, REGION, VALID, share=0.25).item() == pytest.approx(2 * 0.75 / 5)
    assert ours.concept_influence(values, REGION, VALID, share=0.25).item() == pytest.approx(1)
    if value > 0:
        assert ours.relevance_mass_accuracy(values, REGION, VALID).item() == pytest.approx(3 / 8, abs=1e-7)


def test_roc_auc_needs_cells_on_both_sides():
    assert ours.roc_auc(torch.rand(1, 3, 4), torch.ones(1, 3, 4, dtype=torch.bool)).isnan().all()


@given(cases(values=distinct))
@settings(max_examples=60)
def test_without_ties_every_score_is_its_twin(case):
    values, region, valid = case
    numbers = values[0].numpy()
    assume(len(np.unique(numbers)) == numbers.size and (numbers[valid.numpy()] > 0).any())
    order = next(twin.orders(numbers, valid.numpy()))
    inside, allowed = region[0].numpy(), valid.numpy()
    count = round(0.3 * int(valid.sum()))
    close = partial(pytest.approx, abs=1e-9)
    assert ours.relevance_rank_accuracy(*case).item() == close(twin.rank_accuracy(order, inside))
    for score, reference in AT.values():
        assert score(*case).item() == close(reference(order, inside, count))
    assert top(*case).item() == close(twin.precision(order, inside, 4))
    assert ours.average_precision(*case).item() == close(twin.average_precision(order, inside))
    assert ours.pointing_game(*case).item() == close(twin.pointing_game(order, inside))
    assert ours.roc_auc(*case).item() == close(twin.roc_auc(numbers, inside, allowed))
    assert ours.relevance_mass_accuracy(*case).item() == pytest.approx(
        twin.mass_accuracy(numbers, inside, allowed), rel=1e-6
    )


@pytest.mark.parametrize(
    "numbers",
    [
        [[1, 1, 1], [1, 1, 1]],
        [[2, 2, 1], [1, 2, 1]],
        [[3, 2, 2], [2, 2, 0]],
        [[0, 0, 1], [0, -1, -1]],
    ],
)
@pytest.mark.parametrize("inside", [[[1, 0, 0], [0, 0, 0]], [[0, 1, 0], [1, 0, 1]], [[1, 1, 1], [0, 1, 1]]])
def test_a_tied_map_scores_the_mean_over_all_orders_of_its_ties(numbers, inside):
    values, region = np.array(numbers, float), np.array(inside, bool)
    valid = np.ones_like(region)
    listed = list(twin.orders(values, valid))
    case = torch.tensor(values)[None], torch.tensor(region)[None]
    expected = {
        ours.relevance_rank_accuracy: np.mean([twin.rank_accuracy(o, region) for o in listed]),
        ours.average_precision: np.mean([twin.average_precision(o, region) for o in listed]),
        ours.pointing_game: np.mean([twin.pointing_game(o, region) for o in listed]),
        ours.roc_auc: twin.roc_auc(values, region, valid),
    }
    for score, mean in expected.items():
        assert score(*case).item() == pytest.approx(mean, abs=1e-12), score.__name__
    for name, (score, reference) in AT.items():
        result, mean = score(*case, share=1 / 3).item(), np.mean([reference(o, region, 2) for o in listed])
        assert result == pytest.approx(mean, abs=1e-12), name


def test_iou_of_a_constant_map_by_hand_and_of_a_large_one_as_scipy_has_it():
    case = torch.ones(1, 1, 4), torch.tensor([[[True, True, False, False]]])
    # two of four cells: both, one and none right with probability 1/6, 4/6 and 1/6
    assert ours.intersection_over_union(*case, share=0.5).item() == pytest.approx(1 / 6 * 1 + 4 / 6 * 1 / 3)
    region = torch.rand(1, 90, 110, generator=torch.Generator().manual_seed(0)) < 0.05
    values = torch.rand(1, 90, 110, generator=torch.Generator().manual_seed(1)).mul(3).floor() + 1
    count, size, ties = round(0.05 * 9900), int(region.sum()), int((values == 3).sum())
    inside = int((region & (values == 3)).sum())
    hits = np.arange(inside + 1)
    expected = (hypergeom.pmf(hits, ties, inside, count) * hits / (count + size - hits)).sum()
    assert ours.intersection_over_union(values, region).item() == pytest.approx(expected, rel=1e-9)


def test_a_tied_map_scores_the_mean_over_random_tie_breaks():
    rng = np.random.default_rng(0)
    values, region = rng.integers(0, 4, (6, 9)).astype(float), rng.random((6, 9)) < 0.2
    valid = rng.random((6, 9)) < 0.8
    draws = [twin.random_order(values, valid, rng) for _ in range(2000)]
    case = torch.tensor(values)[None], torch.tensor(region)[None], torch.tensor(valid)
    rank = [twin.rank_accuracy(o, region) for o in draws]
    precision = [twin.average_precision(o, region) for o in draws]
    # Four standard errors of the mean over the draws; a fixed order would be off by tens of them.
    for score, sample in ((ours.relevance_rank_accuracy, rank), (ours.average_precision, precision)):
        assert np.std(sample) > 0
        assert abs(score(*case).item() - np.mean(sample)) < 4 * np.std(sample) / len(sample) ** 0.5


@given(cases())
@settings(max_examples=60)
def test_roc_auc_is_scikit_learns_ties_included(case):
    values, region, valid = case
    assume(values[0][valid].any())
    expected = roc_auc_score(region[0][valid].numpy(), values[0][valid].numpy())
    assert ours.roc_auc(*case).item() == pytest.approx(expected, abs=1e-12)


@given(cases(values=distinct))
@settings(max_examples=60)
def test_average_precision_is_scikit_learns_without_ties(case):
    values, region, valid = case
    assume(len(values[0].unique()) == values[0].numel())
    expected = average_precision_score(region[0][valid].numpy(), values[0][valid].numpy())
    assert ours.average_precision(*case).item() == pytest.approx(expected, abs=1e-12)


@every_rank_score
@given(case=cases())
@settings(max_examples=30)
def test_a_monotone_transform_changes_no_rank_score(score, case):
    values, region, valid = case
    assume(values[0][valid].any())
    transformed = (values / 4).exp() + 1  # rising, and never zero
    assert score(values, region, valid).item() == score(transformed, region, valid).item()


@every_score
@given(case=cases(), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_moving_the_cells_of_map_region_and_mask_together_changes_nothing(score, case, seed):
    values, region, valid = case
    order = torch.randperm(valid.numel(), generator=torch.Generator().manual_seed(seed))
    moved = [x.flatten(1)[:, order].view_as(x) for x in (values, region)]
    both = score(values, region, valid), score(*moved, valid.flatten()[order].view_as(valid))
    torch.testing.assert_close(*both, equal_nan=True, rtol=0, atol=1e-12)


@every_score
@given(case=cases(batch=3))
@settings(max_examples=30)
def test_a_batch_scores_as_its_maps_do_alone(score, case):
    values, region, valid = case
    alone = torch.cat([score(values[i : i + 1], region[i : i + 1], valid) for i in range(3)])
    torch.testing.assert_close(score(values, region, valid), alone, equal_nan=True, rtol=0, atol=1e-12)


@every_score
@given(case=cases())
@settings(max_examples=30)
def test_cells_that_are_not_valid_change_nothing(score, case):
    values, region, valid = case
    other = torch.where(valid, values, 99.0), region ^ ~valid
    torch.testing.assert_close(score(values, region, valid), score(*other, valid), equal_nan=True, rtol=0, atol=0)


@given(cases())
@settings(max_examples=30)
def test_turning_the_sign_turns_roc_auc_over(case):
    values, region, valid = case
    assume(values[0][valid].any())
    assert ours.roc_auc(-values, region, valid).item() == pytest.approx(1 - ours.roc_auc(values, region, valid).item())


def test_the_whole_map_is_a_share_and_sums_are_in_double_precision():
    values = torch.tensor([[[2.0**24, 1.0, 1.0, 1.0]]])
    region = torch.tensor([[[False, True, True, False]]])
    assert ours.relevance_mass_accuracy(values, region).item() == pytest.approx(2 / (2**24 + 3), rel=1e-12)
    assert ours.relevance_mass_accuracy(values, ~region).item() == pytest.approx(1 - 2 / (2**24 + 3), rel=1e-12)
    for score, whole in ((ours.precision, 0.5), (ours.recall, 1), (ours.dice, 2 / 3), (ours.intersection_over_union, 0.5)):
        assert score(values, region, share=1.0).item() == pytest.approx(whole)
    assert ours.top_k_intersection(values, region, count=1).item() == 0


def test_a_share_is_five_per_cent_unless_told_otherwise():
    draw = torch.Generator().manual_seed(0)
    values, region = torch.randn(1, 20, 10, generator=draw), torch.rand(1, 20, 10, generator=draw) < 0.1
    for score, _ in AT.values():
        assert score.func(values, region).item() == score.func(values, region, share=0.05).item()
        assert score.func(values, region).item() != score.func(values, region, share=0.5).item()
