"""Faithfulness correlation and infidelity: golden values, twins, exact attributions, and what they cost."""

from dataclasses import replace

import pytest
import torch
from asking import COUNT, VALID, every_fill, evidence, noise, recorded
from hypothesis import given
from hypothesis import strategies as st
from toys import SHAPE, ConvCM, LinearCM, view_of
from twins import faithfulness as twin

from xaibench.errors import XaibenchError
from xaibench.metrics import subsets as ours
from xaibench.metrics.regions import SUBSETS

rows = st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=3, max_size=12)


@pytest.fixture(scope="module")
def linear():
    return LinearCM()


@pytest.fixture(scope="module")
def view(linear):
    return view_of(linear, COUNT)


# --- the pure functions -------------------------------------------------------------------------------------------


def test_golden():
    # Deviations (-1, 0, 1) and (-1, 1, 0): 1 / 2. Best factor (2 + 6 + 6) / 14 = 1: errors 1, 1, 1 and 0 squared.
    sums, falls = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.0, 3.0, 2.0]])
    assert ours.correlation(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 3.0, 2.0]])).item() == pytest.approx(0.5)
    assert ours.scaled_infidelity(sums, falls).item() == pytest.approx(1.0)


@given(rows)
def test_correlation_is_its_twin(pairs):
    a, b = (list(x) for x in zip(*pairs, strict=True))
    if max(a) - min(a) > 1e-3 and max(b) - min(b) > 1e-3:
        score = ours.correlation(torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64))
        assert score.item() == pytest.approx(twin.pearson(a, b), abs=1e-9)


@given(rows)
def test_infidelity_is_its_twin(pairs):
    a, b = (list(x) for x in zip(*pairs, strict=True))
    if max(map(abs, a)) > 0.1 and max(map(abs, b)) > 0.1:
        score = ours.scaled_infidelity(torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64))
        assert score.item() == pytest.approx(twin.infidelity(a, b), abs=1e-6)


@given(rows, st.floats(0.01, 100))
def test_the_scale_of_a_map_changes_neither(pairs, factor):
    a, b = (torch.tensor([x], dtype=torch.float64) for x in zip(*pairs, strict=True))
    for score in (ours.correlation, ours.scaled_infidelity):
        torch.testing.assert_close(score(factor * a, b), score(a, b), equal_nan=True, rtol=1e-6, atol=1e-6)


def test_a_reversed_map_is_anticorrelated_and_has_the_same_infidelity():
    a, b = torch.randn(2, 4, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(ours.correlation(-a, b), -ours.correlation(a, b))
    torch.testing.assert_close(ours.scaled_infidelity(-a, b), ours.scaled_infidelity(a, b))


def test_constant_rows_have_no_correlation_and_rows_of_zeros_no_infidelity():
    ramp, zero = torch.arange(4.0).double(), torch.zeros(4).double()
    flat = 0.1 + 1e-16 * ramp.square()  # constant up to rounding
    assert len(set(flat.tolist())) > 1
    a, b = torch.stack([flat, ramp, ramp, zero]), torch.stack([ramp, flat, ramp, ramp])
    assert ours.correlation(a, b).isnan().tolist() == [True, True, False, True]
    a, b = torch.stack([flat, ramp, zero, ramp]), torch.stack([ramp, flat, ramp, zero])
    assert ours.scaled_infidelity(a, b).isnan().tolist() == [False, False, True, True]


@pytest.mark.parametrize(("a", "b"), [((2, 3), (2, 4)), ((3,), (3,)), ((2, 1), (2, 1))])
def test_other_shapes_are_refused(a, b):
    for score in (ours.correlation, ours.scaled_infidelity):
        with pytest.raises(XaibenchError, match="K >= 2"):
            score(torch.ones(a), torch.ones(b))


def test_an_empty_batch_is_empty():
    assert ours.correlation(torch.zeros(0, 5), torch.zeros(0, 5)).shape == (0,)


# --- on a countermeasure ------------------------------------------------------------------------------------------


@every_fill
def test_both_are_their_twin(fill):
    view = view_of(ConvCM(), 1)
    values = noise(1)
    given_ = evidence(view, values)
    regions = twin.regions(VALID.numpy(), 9)

    def score(x):
        return view.score(torch.from_numpy(x)[None]).item()

    spoof, other = view.inputs[0].numpy(), view.fill(fill)[0].numpy()
    sums, falls = [], []
    for subset in given_.probe.subsets[0].tolist():
        cells = [cell for cells, chosen in zip(regions, subset, strict=True) if chosen for cell in cells]
        sums.append(twin.relevance(values[0].numpy(), cells))
        falls.append(score(spoof) - score(twin.without(spoof, other, cells)))
    assert ours.faithfulness_correlation(given_, fill=fill).item() == pytest.approx(twin.pearson(sums, falls), abs=1e-4)
    # The countermeasure answers in float32: 1e-6 in a fall.
    assert ours.infidelity(given_, fill=fill).item() == pytest.approx(twin.infidelity(sums, falls), abs=1e-5)


@every_fill
def test_the_exact_attribution_of_a_linear_countermeasure_is_perfect_at_both(linear, view, fill):
    given_ = evidence(view, linear.exact(view, fill))
    ones, zeros = torch.ones(COUNT, dtype=torch.float64), torch.zeros(COUNT, dtype=torch.float64)
    torch.testing.assert_close(ours.faithfulness_correlation(given_, fill=fill), ones, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.infidelity(given_, fill=fill), zeros, rtol=0, atol=1e-9)
    reversed_ = evidence(view, -linear.exact(view, fill))
    torch.testing.assert_close(ours.faithfulness_correlation(reversed_, fill=fill), -ones, rtol=0, atol=1e-6)


def test_a_certain_countermeasure_still_answers_in_probability():
    certain = view_of(LinearCM(bias=60.0), COUNT)  # 1 - p is 1e-26
    score = ours.faithfulness_correlation(evidence(certain, LinearCM().exact(certain)), fill="mean", values="probability")
    assert (score > 0.5).all()


def test_a_map_of_zeros_and_one_that_no_subset_touches_are_undefined(view):
    given_ = evidence(view, noise())
    missed = [int((~row.any(0)).nonzero()[0]) for row in given_.probe.subsets]  # 0.95^50: one region in 13
    values = torch.stack([torch.zeros(SHAPE), (given_.probe.regions.number == missed[1]).float(), (~VALID).float()])
    values = torch.cat([values[:2], noise(1)])
    for score in (ours.faithfulness_correlation, ours.infidelity):
        assert score(evidence(view, values), fill="mean").isnan().tolist() == [True, True, False]


def test_a_countermeasure_that_nothing_moves_leaves_both_undefined():
    view = view_of(LinearCM(torch.zeros(SHAPE)), COUNT)
    for score in (ours.faithfulness_correlation, ours.infidelity):
        assert score(evidence(view, noise()), fill="mean").isnan().all()


def test_every_attributor_is_asked_the_same_and_only_the_first_pays(view):
    recorder, watched = recorded(view)
    first = evidence(watched, noise())
    ours.faithfulness_correlation(first, fill="mean")
    assert recorder.utterances == COUNT * (1 + SUBSETS)
    second = replace(first, on_view=noise(seed=1), _known={}, _kept={})
    for values in ("log-odds", "probability"):
        ours.faithfulness_correlation(second, fill="mean", values=values)
    ours.infidelity(second, fill="mean")
    assert recorder.utterances == COUNT * (1 + SUBSETS)
    ours.infidelity(second, fill="twin")
    assert recorder.utterances == COUNT * (1 + 2 * SUBSETS)


def test_memory_is_bounded(view):
    recorder, watched = recorded(view, batch_size=7)
    ours.infidelity(evidence(watched, noise()), fill="mean")
    assert max(len(x) for x in recorder.inputs) <= 7


def test_a_batch_has_the_scores_of_its_utterances_alone(view):
    together = ours.faithfulness_correlation(evidence(view, noise()), fill="twin")
    for i, single in enumerate(view.each()):
        alone = ours.faithfulness_correlation(evidence(single, noise()[i : i + 1]), fill="twin")
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-4)


def test_a_map_of_another_shape_or_with_a_nan_is_refused(view):
    values = noise()
    values[0, 0, 0] = torch.nan
    with pytest.raises(XaibenchError, match="1 NaN or infinite"):
        ours.infidelity(evidence(view, values), fill="mean")
    with pytest.raises(XaibenchError, match="view's axes"):
        ours.infidelity(evidence(view, noise()[:, :5]), fill="mean")


@pytest.mark.parametrize("scale", [1e-170, 1e90])
def test_sums_and_falls_of_any_size_are_numbers(scale):
    sums, falls = torch.tensor([[1.0, 2.0, 4.0]]).double(), torch.tensor([[2.0, 4.0, 7.0]]).double()
    assert ours.correlation(sums * scale, falls * scale).item() == pytest.approx(ours.correlation(sums, falls).item())
    assert ours.correlation(sums, falls).item() == pytest.approx(69 / 4788**0.5)
    infidelity = ours.scaled_infidelity(sums, falls).item()  # the best factor is 38 / 21
    assert infidelity == pytest.approx((4**2 + 8**2 + 5**2) / 21**2 / 3)
    assert ours.scaled_infidelity(sums * scale, falls).item() == pytest.approx(infidelity)


def test_a_row_is_constant_to_rounding_only():
    rising = torch.tensor([[1.0, 2.0, 3.0]]).double()
    nearly = 1 + 1e-9 * rising
    assert ours.correlation(rising, nearly).item() == pytest.approx(1)
    assert ours.correlation(rising, 1 + 1e-13 * rising).isnan() and ours.correlation(1 + 1e-13 * rising, rising).isnan()
    assert ours.correlation(rising[:, :2], rising[:, 1:]).item() == 1


def test_the_largest_numbers_that_can_be_squared_are_taken():
    rows = torch.tensor([[1.0, -1.0, 0.5]]).double()
    assert ours.correlation(rows * ours.LARGEST, rows).item() == pytest.approx(1)
    assert ours.scaled_infidelity(rows, rows * ours.LARGEST).isfinite() and ours.LARGEST == 1e100
    assert ours.ROUNDING == 1e-12 and SUBSETS == 50
