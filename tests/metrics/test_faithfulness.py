"""Areas, read-outs and effects as pure functions of curves: golden values, RISE's own formula, and what is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from twins import faithfulness as twin

from xaibench.errors import XaibenchError
from xaibench.metrics import faithfulness as ours
from xaibench.metrics.evidence import Curve


def test_area_golden():
    fractions = torch.tensor([0.0, 0.1, 0.5, 1.0])
    values = torch.tensor([[4.0, 2.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    assert ours.area_under_curve(fractions, values).tolist() == pytest.approx([0.3 + 0.6 + 0.25, 1.0])


def test_area_is_normalised_by_the_range_of_the_fractions():
    fractions, values = torch.tensor([0.2, 0.4]), torch.tensor([[3.0, 5.0]])
    assert ours.area_under_curve(fractions, values).item() == pytest.approx(4.0)


@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=12))
def test_area_of_equal_steps_is_rises(heights):
    fractions = torch.linspace(0, 1, len(heights), dtype=torch.float64)
    result = ours.area_under_curve(fractions, torch.tensor([heights], dtype=torch.float64))
    assert result.item() == pytest.approx(twin.area(heights), abs=1e-9)


@pytest.mark.parametrize(
    ("fractions", "values", "message"),
    [
        ([0.0], [[1.0]], "S >= 2"),
        ([0.0, 1.0], [[1.0, 2.0, 3.0]], r"\(2,\) and \(1, 3\)"),
        ([0.0, 1.0], [1.0, 2.0], "values"),
        ([0.0, 0.5, 0.5], [[1.0, 2.0, 3.0]], "rise strictly"),
    ],
)
def test_area_refuses_what_is_no_curve(fractions, values, message):
    with pytest.raises(XaibenchError, match=message):
        ours.area_under_curve(torch.tensor(fractions), torch.tensor(values))


def test_area_of_an_empty_batch_is_empty():
    assert ours.area_under_curve(torch.tensor([0.0, 1.0]), torch.zeros(0, 2)).shape == (0,)


def test_readout():
    curve = Curve(torch.tensor([0.0, 1.0]), torch.tensor([[0.0, 2.0]]))
    assert ours.readout(curve, "log-odds").tolist() == [[0.0, 2.0]]
    assert ours.readout(curve, "probability").tolist() == [pytest.approx([0.5, 0.880797])]
    with pytest.raises(XaibenchError, match="logit"):
        ours.readout(curve, "logit")


def test_pixel_flipping_golden():
    # Probabilities .5 after each of three steps; the untouched input (log-odds 9) is left out: two trapezoids of width 1.
    curve = Curve(torch.tensor([0.0, 1 / 3, 2 / 3, 1.0]), torch.tensor([[9.0, 0.0, 0.0, 0.0]]))
    assert ours.pixel_flipping(curve).item() == 1.0


@pytest.mark.parametrize("fractions", [[0.0, 0.1, 1.0], [0.1, 0.2, 0.3], [0.0, 1.0]])
def test_pixel_flipping_wants_equal_steps_from_zero(fractions):
    with pytest.raises(XaibenchError, match="equal steps from 0"):
        ours.pixel_flipping(Curve(torch.tensor(fractions), torch.zeros(1, len(fractions))))


def test_top_share_effect_is_a_share_of_the_gap():
    fall, gap = torch.tensor([2.0, 2.0, -1.0, 1.0, 1.0]), torch.tensor([4.0, -4.0, 2.0, 0.9, 0.0])
    torch.testing.assert_close(
        ours.top_share_effect(fall, gap), torch.tensor([0.5, torch.nan, -0.5, torch.nan, torch.nan]), equal_nan=True
    )
