"""Scores against the continuous truth: identity, empty, invalid, golden; twins, ties, scikit-learn and scipy."""

from math import log2

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score
from twins import graded as twin
from twins.localisation import orders

from xaibench.errors import XaibenchError
from xaibench.metrics import graded as ours
from xaibench.metrics.ranking import Ranking

SCORES = {"ndcg": ours.ndcg, "spearman": ours.spearman}
TWINS = {"ndcg": twin.ndcg, "spearman": twin.spearman}
every_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)


@st.composite
def cases(draw, *, values=st.integers(-3, 3), batch=1):  # noqa: B008
    """Maps, amounts `(batch, F, T)` and a valid mask; the amounts of valid cells are not all equal."""
    f, t = draw(st.integers(1, 3)), draw(st.integers(3, 5))
    many = {"min_size": batch * f * t, "max_size": batch * f * t}
    maps = torch.tensor(draw(st.lists(values, **many)), dtype=torch.float64).view(batch, f, t)
    amount = torch.tensor(draw(st.lists(st.integers(0, 5), **many)), dtype=torch.float64).view(batch, f, t)
    valid = torch.tensor(draw(st.lists(st.booleans(), min_size=f * t, max_size=f * t))).view(f, t)
    valid.flatten()[:3] = True
    amount.view(batch, -1)[:, 0], amount.view(batch, -1)[:, 1] = 7, 2
    return maps, amount, valid


distinct = st.integers(-(10**6), 10**6)

# 2 x 4 cells, the last column not valid. Falling: 8 (D 4), 3 and 3 (D 0 and 2), 1 (D 0), 0 (D 1), -2 (D 0)
ATTRIBUTION = torch.tensor([[[8.0, 3.0, 0.0, 50.0], [1.0, 3.0, -2.0, 60.0]]])
AMOUNT = torch.tensor([[[4.0, 0.0, 1.0, 9.0], [0.0, 2.0, 0.0, 9.0]]])
VALID = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0]], dtype=torch.bool)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (ours.ndcg, (4 + 1 / log2(3) + 1 / log2(4) + 1 / log2(6)) / (4 + 2 / log2(3) + 1 / log2(4))),
        # places 2.5 {1.5 0.5} -0.5 -1.5 -2.5 of cells whose D have mid-ranks 6 2 5 2 4 2, so 2.5 -1.5 1.5 -1.5 .5 -1.5
        (ours.spearman, (6.25 - 1.5 + 1.5 + 0.75 - 0.75 + 3.75) / (17.5 * 15.5) ** 0.5),
    ],
)
def test_golden(score, expected):
    result = score(ATTRIBUTION, AMOUNT, VALID)
    assert result.dtype == torch.float64 and result.shape == (1,)
    assert result.item() == pytest.approx(expected, abs=1e-12)


@every_score
@given(case=cases(values=distinct))
@settings(max_examples=40)
def test_the_truth_itself_is_perfect_and_no_map_is_better(score, case):
    values, amount, valid = case
    assume(values[0][valid].any())
    distinct_amount = amount + torch.arange(amount.numel()).view_as(amount) / 1000
    assert score(distinct_amount, distinct_amount, valid).item() == pytest.approx(1.0, abs=1e-12)
    best = score(amount, amount, valid).item()
    assert score(values, amount, valid).item() <= best + 1e-12 <= 1 + 2e-12
    if score is ours.ndcg:
        assert best == pytest.approx(1.0, abs=1e-12)  # cells of equal gain may change places


def test_the_truth_turned_over_is_the_worst():
    amount = torch.arange(12.0).view(1, 3, 4)
    assert ours.spearman(-amount, amount).item() == pytest.approx(-1.0, abs=1e-12)
    assert ours.ndcg(-amount, amount).item() == pytest.approx(
        twin.ndcg([(c // 4, c % 4) for c in range(12)], amount[0].numpy())
    )


@every_score
def test_amounts_without_order_are_undefined_and_empty_batches_stay_empty(score):
    values = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    amount = torch.zeros(2, 3, 4)
    amount[1, 0, 1] = 1.0
    result = score(values, amount)
    assert result[0].isnan() and result[1].isfinite()
    assert score(values[:0], amount[:0]).shape == (0,)


@every_score
def test_a_map_that_says_nothing_where_it_counts_is_undefined(score):
    values = torch.zeros(2, 2, 4)
    values[:, :, 3] = 3.0  # not valid
    values[1, 0, 0] = -1.0
    assert score(values, AMOUNT.expand(2, -1, -1), VALID).isnan().tolist() == [True, False]


@every_score
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attribution": torch.ones(1, 4, 3)}, r"one shape .*\(1, 4, 3\)"),
        ({"attribution": torch.ones(3, 4)}, "one shape"),
        ({"attribution": torch.ones(1, 3, 4, dtype=torch.long)}, "floating-point"),
        ({"attribution": torch.full((1, 3, 4), torch.nan)}, "12 NaN or infinite cells of 12"),
        ({"amount": torch.full((1, 3, 4), torch.inf)}, "12 NaN or infinite cells"),
        ({"amount": torch.ones(1, 3, 4, dtype=torch.bool)}, "floating-point"),
        ({"valid": torch.ones(4, 3, dtype=torch.bool)}, "valid must be bool"),
        ({"valid": torch.zeros(3, 4, dtype=torch.bool)}, "at least one cell"),
        ({"attribution": Ranking(torch.ones(1, 3, 4), torch.eye(3, 4, dtype=torch.bool))}, "3 and 12 valid cells"),
    ],
)
def test_invalid_arguments_are_named(score, change, message):
    good = {"attribution": torch.ones(1, 3, 4), "amount": torch.rand(1, 3, 4), "valid": torch.ones(3, 4, dtype=torch.bool)}
    with pytest.raises(XaibenchError, match=message):
        score(**{**good, **change})


def test_a_negative_gain_is_refused():
    with pytest.raises(XaibenchError, match=r"cannot be negative, got -1; is it the truth's D"):
        ours.ndcg(ATTRIBUTION, AMOUNT - 1, VALID)


@pytest.mark.parametrize("name", SCORES)
@given(case=cases(values=distinct))
@settings(max_examples=60)
def test_without_ties_every_score_is_its_twin(name, case):
    values, amount, valid = case
    numbers = values[0].numpy()
    assume(len(np.unique(numbers)) == numbers.size)
    order = next(orders(numbers, valid.numpy()))
    assert SCORES[name](*case).item() == pytest.approx(TWINS[name](order, amount[0].numpy()), abs=1e-12)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("numbers", [[[1, 1, 1], [1, 1, 1]], [[2, 2, 1], [1, 2, 1]], [[3, 2, 2], [2, 2, 0]]])
@pytest.mark.parametrize("gains", [[[4, 0, 1], [2, 0, 0]], [[0, 5, 5], [1, 0, 5]]])
def test_a_tied_map_scores_the_mean_over_all_orders_of_its_ties(name, numbers, gains):
    values, amount = np.array(numbers, float), np.array(gains, float)
    listed = list(orders(values, np.ones_like(values, bool)))
    mean = np.mean([TWINS[name](order, amount) for order in listed])
    result = SCORES[name](torch.tensor(values)[None], torch.tensor(amount)[None]).item()
    assert len(listed) > 1 and result == pytest.approx(mean, abs=1e-12)


@given(cases(batch=2))
@settings(max_examples=60)
def test_ndcg_is_scikit_learns_ties_included(case):
    values, amount, valid = case
    assume(values[:, valid].any(1).all())
    expected = [ndcg_score([a], [v]) for a, v in zip(amount[:, valid].numpy(), values[:, valid].numpy(), strict=True)]
    assert ours.ndcg(*case).tolist() == pytest.approx(expected, abs=1e-12)


@given(cases())
@settings(max_examples=60)
def test_spearman_is_scipys_but_for_the_spread_of_a_tied_map(case):
    values, amount, valid = case
    a = values[0][valid].numpy()
    assume(len(np.unique(a)) > 1)
    narrower = np.std(twin.ranks(a.tolist())) / np.std(np.arange(len(a)))  # 1 without ties
    expected = spearmanr(a, amount[0][valid].numpy()).statistic * narrower
    assert ours.spearman(*case).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("value", [7.0, 1e-30, -2.0])
def test_a_constant_map_is_chance(value):
    values = torch.full((1, 2, 4), value)
    assert ours.spearman(values, AMOUNT, VALID).item() == 0
    draws = torch.rand(4000, 2, 4, generator=torch.Generator().manual_seed(0))
    scores = ours.ndcg(draws, AMOUNT.expand_as(draws), VALID)
    assert abs(ours.ndcg(values, AMOUNT, VALID).item() - scores.mean()) < 4 * scores.std() / 4000**0.5
    rho = ours.spearman(draws, AMOUNT.expand_as(draws), VALID)
    assert abs(rho.mean()) < 4 * rho.std() / 4000**0.5


@every_score
@given(case=cases())
@settings(max_examples=30)
def test_a_monotone_transform_of_the_map_changes_nothing(score, case):
    values, amount, valid = case
    assume(values[0][valid].any())
    assert score(values, amount, valid).item() == score((values / 4).exp() + 1, amount, valid).item()


def test_the_scale_of_the_truth_changes_nothing_its_shape_moves_ndcg_alone():
    values = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(3))
    amount = torch.rand(1, 5, 8, generator=torch.Generator().manual_seed(4)).double()
    for score in SCORES.values():
        assert score(values, 2 * amount).item() == pytest.approx(score(values, amount).item(), abs=1e-12)
    assert ours.spearman(values, amount**3).item() == ours.spearman(values, amount).item()
    assert abs(ours.ndcg(values, amount**3).item() - ours.ndcg(values, amount).item()) > 0.01


@every_score
@given(case=cases(batch=3))
@settings(max_examples=30)
def test_a_batch_scores_as_its_maps_do_alone_and_as_rankings(score, case):
    values, amount, valid = case
    alone = torch.cat([score(values[i : i + 1], amount[i : i + 1], valid) for i in range(3)])
    together = score(values, amount, valid)
    torch.testing.assert_close(together, alone, equal_nan=True, rtol=0, atol=1e-12)
    rankings = score(Ranking(values, valid), Ranking(amount, valid))
    torch.testing.assert_close(together, rankings, equal_nan=True, rtol=0, atol=0)


@every_score
@given(case=cases())
@settings(max_examples=30)
def test_cells_that_are_not_valid_change_nothing(score, case):
    values, amount, valid = case
    other = torch.where(valid, values, 99.0), torch.where(valid, amount, 42.0)
    torch.testing.assert_close(score(values, amount, valid), score(*other, valid), equal_nan=True, rtol=0, atol=0)


def test_one_negative_gain_in_one_map_is_refused_and_signs_of_zero_are_not():
    amount = torch.tensor([[[3.0, 1.0, 2.0]], [[3.0, -0.5, 2.0]]])
    with pytest.raises(XaibenchError, match=r"cannot be negative, got -0\.5"):
        ours.ndcg(torch.ones(2, 1, 3), amount)
    assert ours.ndcg(torch.ones(2, 1, 3), amount.clamp_min(-0.0)).isfinite().all()
