"""Places: connected top cells, in seconds and hertz."""

import numpy as np
import pytest

from xaibench.analysis.places import covered, places, top_cells
from xaibench.errors import XaibenchError
from xaibench.types import Axis

F, T = 20, 30
AXES = Axis("frequency", 100.0 * np.arange(F + 1)), Axis("time", 0.01 * np.arange(T + 1))


def blocks(*boxes):
    """A map of rectangles: (rows, columns, value)."""
    values = np.zeros((F, T))
    for rows, columns, value in boxes:
        values[rows, columns] = value
    return values


def test_two_blocks_are_two_places_most_evidence_first():
    values = blocks((slice(2, 5), slice(3, 7), 1.0), (slice(12, 16), slice(20, 25), 4.0))
    found = places(values, AXES, share=32 / (F * T)).found
    assert [(p.cells, p.filled) for p in found] == [(20, 1.0), (12, 1.0)]
    assert np.allclose([found[0].start, found[0].end, found[0].low, found[0].high], [0.20, 0.25, 1200, 1600])
    assert np.allclose([found[1].start, found[1].end, found[1].low, found[1].high], [0.03, 0.07, 200, 500])
    assert np.allclose([p.share for p in found], [80 / 92, 12 / 92]) and np.isclose(covered(found, 1), 80 / 92)


@pytest.mark.parametrize("gap", [0, 1, 2, 3])
@pytest.mark.parametrize("apart", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_gap_is_bridged_up_to_its_width(gap, apart, axis):
    values = np.zeros((F, T))
    place = [5, 5]
    values[tuple(place)] = 1.0
    place[axis] += apart + 1
    values[tuple(place)] = 1.0
    assert len(places(values, AXES, share=2 / (F * T), gap=gap)) == (1 if apart <= gap else 2)


def test_gaps_are_bridged_at_the_edges_too_and_their_cells_are_not_counted():
    values = np.zeros((F, T))
    values[0, 0] = values[0, 2] = values[-1, -1] = values[-1, -3] = 1.0
    found = places(values, AXES, share=4 / (F * T)).found
    assert [p.cells for p in found] == [2, 2] and [p.share for p in found] == [0.5, 0.5]
    assert np.isclose(found[0].filled, 2 / 3) and np.isclose(found[0].end, 0.03)


def test_only_positive_cells_count():
    values = blocks((slice(2, 4), slice(3, 7), 2.0), (slice(8, 12), slice(8, 12), -9.0))
    found = places(values, AXES, share=0.5)
    assert [p.cells for p in found] == [8] and found.found[0].share == 1.0 and found.mask.sum() == 8


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_a_map_of_one_value_has_no_places(value):
    assert len(places(np.full((F, T), value), AXES)) == 0 and not top_cells(np.full((F, T), value), 0.05).any()


def test_the_level_is_the_mean_power_below_the_loudest_cell():
    power = np.full((F, T), 1e-4)
    power[0, 0], power[2, 3] = 1.0, 1e-2
    values = blocks((slice(2, 3), slice(3, 5), 1.0))
    (one,) = places(values, AXES, share=2 / (F * T), power=power)
    assert np.isclose(one.level, 10 * np.log10((1e-2 + 1e-4) / 2))
    with pytest.raises(XaibenchError, match="the power has shape"):
        places(values, AXES, power=power[:-1])


def test_maps_that_do_not_fit_or_are_not_finite_are_refused():
    with pytest.raises(XaibenchError, match="does not fit its axes"):
        places(np.zeros((T, F)), AXES)
    with pytest.raises(XaibenchError, match="NaN"):
        places(np.full((F, T), np.nan), AXES)


def test_a_map_of_times_alone_has_whole_frames():
    """Equal numbers in a frame: a cut within one would be the row order's."""
    values = np.tile(np.arange(T, dtype=float), (F, 1)) - 10
    found = places(values, AXES, share=0.1, resolves=frozenset({"time"})).found
    assert len(found) == 1 and (found[0].low, found[0].high, found[0].cells) == (0.0, 100.0 * F, 3 * F)
    assert np.isclose(found[0].start, 0.27) and np.isclose(found[0].end, 0.30)
    bands = places(values.T[:F, :1] * np.ones((1, T)), AXES, share=0.1, resolves=frozenset({"frequency"})).found
    assert [(p.cells, p.start) for p in bands] == [(2 * T, 0.0)] and np.isclose(bands[0].low, 1800)
    assert not top_cells(-np.ones((F, T)), 0.1, frozenset({"time"})).any()
    assert not top_cells(np.ones((F, T)), 0.1, frozenset()).any()
