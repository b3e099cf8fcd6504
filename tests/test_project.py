"""Projection keeps mass, invents no resolution, and never swaps frequency and time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xaibench.errors import XaibenchError
from xaibench.grid import Grid
from xaibench.project import average, density, overlap, project
from xaibench.types import Attribution, Axis


@st.composite
def axes(draw, kind: str, *, span: float = 10.0):
    """Random cells that fill exactly [0, span]."""
    steps = draw(st.lists(st.floats(0.05, 1.0), min_size=1, max_size=8))
    edges = np.concatenate([[0.0], np.cumsum(steps)])
    return Axis(kind, edges * span / edges[-1])


def attribution(frequency: Axis, time: Axis, batch: int = 2, **facts) -> Attribution:
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(batch, len(frequency), len(time), generator=draw, dtype=torch.float64)
    return Attribution(values, frequency, time, **facts)


@given(f1=axes("frequency"), t1=axes("time"), f2=axes("frequency"), t2=axes("time"))
@settings(max_examples=60, deadline=None)
def test_mass_is_kept(f1, t1, f2, t2):
    source = attribution(f1, t1)
    made = project(source, f2, t2)
    assert made.values.shape == (2, len(f2), len(t2))
    assert (made.frequency, made.time) == (f2, t2)
    assert torch.allclose(made.values.sum((1, 2)), source.values.sum((1, 2)), atol=1e-12)


@given(axis=axes("time"))
@settings(max_examples=30, deadline=None)
def test_an_axis_on_itself_is_the_identity(axis):
    assert np.allclose(overlap(axis, axis), np.eye(len(axis)), atol=1e-12)


@given(source=axes("time"), target=axes("time", span=6.0))
@settings(max_examples=40, deadline=None)
def test_rows_sum_to_one_or_to_zero_outside(source, target):
    sums = overlap(source, target).sum(1)
    inside = source.edges[:-1] < target.edges[-1]
    assert np.allclose(sums, inside.astype(float))


def test_equal_axes_return_the_very_same_map():
    made = attribution(Grid().frequency, Grid().time(800))
    assert project(made, Grid().frequency, Grid().time(800)) is made


def test_a_coarse_cell_becomes_a_flat_plateau():
    source = Attribution(torch.tensor([[[6.0, 0.0]]]), Axis("frequency", [0, 4]), Axis("time", [0, 3, 6]))
    made = project(source, Axis("frequency", [0, 2, 4]), Axis("time", range(7)))
    assert made.values.tolist() == [[[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]] * 2]


def test_fine_cells_add_up():
    source = attribution(Axis("frequency", range(5)), Axis("time", range(7)))
    made = project(source, Axis("frequency", [0, 2, 4]), Axis("time", [0, 3, 6]))
    wanted = source.values.view(2, 2, 2, 2, 3).sum((2, 4))
    assert torch.allclose(made.values, wanted)


def test_by_hand():
    """One row of frequency 0-2 Hz on cells 0-1 and 1-3; times 0-1 and 1-3 s on cells 0-2 and 2-4 s.

    Frequency: 1/2 in each. Time: the first wholly in the first cell, the second half and half.
    """
    source = Attribution(torch.tensor([[[8.0, 4.0]]]), Axis("frequency", [0, 2]), Axis("time", [0, 1, 3]))
    made = project(source, Axis("frequency", [0, 1, 3]), Axis("time", [0, 2, 4]))
    assert made.values.tolist() == [[[5.0, 1.0], [5.0, 1.0]]]


def test_partly_outside_keeps_its_mass_and_wholly_outside_loses_it():
    source = Attribution(torch.tensor([[[1.0, 2.0, 4.0]]]), Axis("frequency", [0, 1]), Axis("time", [-2, -1, 1, 3]))
    made = project(source, Axis("frequency", [0, 1]), Axis("time", [0, 1, 2]))
    # the cell (-1, 1) meets only the first target cell; (1, 3) only the second; (-2, -1) none
    assert made.values[0, 0].tolist() == [2.0, 4.0]


def test_frequency_and_time_are_not_swapped():
    f, t = Axis("frequency", range(4)), Axis("time", range(6))
    values = torch.zeros(1, 3, 5)
    values[0, 2, 1] = 1.0
    made = project(Attribution(values, f, t), Axis("frequency", [0, 1, 2, 2.5, 3]), Axis("time", [0, 1, 2, 5]))
    assert made.values.shape == (1, 4, 3)
    assert made.values.nonzero().tolist() == [[0, 2, 1], [0, 3, 1]]


def test_what_the_method_resolves_stays_declared():
    source = attribution(Axis("frequency", [0, 8]), Axis("time", range(4)), resolves=frozenset({"time"}))
    assert project(source, Axis("frequency", range(9)), Axis("time", range(4))).resolves == {"time"}


def test_single_precision_stays_single():
    source = Attribution(torch.ones(1, 1, 2), Axis("frequency", [0, 1]), Axis("time", [0, 1, 2]))
    assert project(source, Axis("frequency", [0, 1]), Axis("time", [0, 2])).values.dtype == torch.float32


def test_the_wrong_kind_of_axis_is_an_error():
    with pytest.raises(XaibenchError, match="cannot project a time axis on a frequency axis"):
        overlap(Axis("time", [0, 1]), Axis("frequency", [0, 1]))
    source = attribution(Axis("frequency", range(4)), Axis("time", range(6)))
    with pytest.raises(XaibenchError, match="cannot project a frequency axis on a time axis"):
        project(source, source.time, source.frequency)


def test_values_that_do_not_fit_their_axes_are_an_error_even_when_the_axes_agree():
    f, t = Axis("frequency", range(4)), Axis("time", range(6))
    swapped = Attribution(torch.zeros(1, 5, 3), f, t)
    with pytest.raises(XaibenchError, match=r"\(1, 5, 3\) does not fit its axes of 3 frequencies and 5 times"):
        project(swapped, f, t)


def test_average_is_a_mean_of_densities_and_leaves_constants_alone():
    source = Axis("frequency", range(5)), Axis("time", range(7))
    target = Axis("frequency", [0, 2, 4]), Axis("time", [0, 3, 6])
    values = torch.arange(24.0).view(1, 4, 6)
    made = average(values, source, target)
    assert torch.allclose(made, values.view(1, 2, 2, 2, 3).mean((2, 4)))
    assert torch.allclose(average(torch.full((1, 2, 2), 7.0), target, source), torch.full((1, 4, 6), 7.0))
    assert average(values, source, source) is values


def test_the_same_density_on_other_axes_is_still_an_attribution_of_the_same_method():
    source = attribution(Axis("frequency", range(5)), Axis("time", range(7)), resolves=frozenset({"time"}))
    frequency, time = Axis("frequency", [0, 2, 4]), Axis("time", [0, 3, 6])
    made = density(source, frequency, time)
    assert (made.frequency, made.time, made.resolves) == (frequency, time, {"time"})
    assert torch.equal(made.values, average(source.values, (source.frequency, source.time), (frequency, time)))
    moved = project(source, frequency, time)
    assert (moved.frequency, moved.time) == (frequency, time)


def test_axes_of_which_one_agrees_are_projected_all_the_same():
    source = attribution(Axis("frequency", range(5)), Axis("time", range(7)))
    wide = project(source, source.frequency, Axis("time", [0, 3, 6]))
    torch.testing.assert_close(wide.values, source.values.view(2, 4, 2, 3).sum(3))
    high = project(source, Axis("frequency", [0, 2, 4]), source.time)
    torch.testing.assert_close(high.values, source.values.view(2, 2, 2, 6).sum(2))
    mean = average(source.values, (source.frequency, source.time), (Axis("frequency", [0, 2, 4]), source.time))
    torch.testing.assert_close(mean, source.values.view(2, 2, 2, 6).mean(2))
    low = average(torch.ones(1, 2, 2), (Axis("frequency", [0, 1, 2]), Axis("time", [0, 1, 2])),
                  (Axis("frequency", [0, 1, 2, 3]), Axis("time", [0, 1, 2, 4])))  # fmt: skip
    assert low.tolist() == [[[1, 1, 0], [1, 1, 0], [0, 0, 0]]]
