"""The order of a map's cells: against a literal sort, and what ties and valid cells make of it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from xaibench.errors import XaibenchError
from xaibench.metrics.ranking import Ranking, check_finite, check_summable, largest_first

LARGEST = float(np.finfo(np.float32).max)
finite = st.floats(-LARGEST, LARGEST, width=32, allow_subnormal=True)
few = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, LARGEST, -LARGEST])


@given(arrays(np.float32, st.tuples(st.integers(0, 3), st.integers(1, 9)), elements=finite | few))
@settings(max_examples=100)
def test_the_order_is_that_of_a_stable_sort(values):
    expected = [sorted(range(len(row)), key=lambda i, row=row: -float(row[i])) for row in values]
    for dtype in (torch.float32, torch.float64):
        assert largest_first(torch.from_numpy(values).to(dtype)).tolist() == expected


def test_the_order_of_many_cells_and_of_a_view():
    values = torch.randn(2, 3, 7000, generator=torch.Generator().manual_seed(0)).round(decimals=2)[:, 1, 500:]
    expected = values.argsort(dim=1, descending=True, stable=True)
    assert not values.is_contiguous() and torch.equal(largest_first(values), expected)


@given(arrays(np.float32, st.tuples(st.integers(1, 3), st.just(1), st.integers(2, 9)), elements=st.integers(-2, 2)))
@settings(max_examples=60)
def test_tied_cells_and_their_groups(values):
    found = Ranking(torch.from_numpy(values)).tied
    expected = []
    for row, cells in enumerate(values[:, 0]):
        ordered = sorted(cells, reverse=True)
        for rank, value in enumerate(ordered):
            if ordered.count(value) > 1:
                first = ordered.index(value)
                places = row * len(ordered) + np.array([rank, first, first + ordered.count(value) - 1])
                expected.append((row, *places.tolist()))
    assert list(zip(*(part.tolist() for part in found), strict=True)) == expected


def test_around_a_rank_counts_to_the_edges_of_its_tie_group():
    ranking = Ranking(torch.tensor([[[5.0, 3.0, 3.0, 3.0, 1.0]]]))
    region = torch.tensor([[[True, False, True, True, False]]])
    above, down = ranking.around(region)
    assert above.tolist() == [[0, 1, 1, 1, 3]] and down.tolist() == [[1, 3, 3, 3, 3]]


@pytest.mark.parametrize("rows", [[1, 2], [0, 2]], ids=["band", "apart"])
def test_a_band_of_frequencies_and_scattered_cells_are_picked_alike(rows):
    values = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    valid = torch.zeros(4, 6, dtype=torch.bool)
    valid[rows] = True
    ranking = Ranking(values, valid)
    assert torch.equal(ranking.values, values[:, valid])
    assert torch.equal(ranking.inside(values > 0), (values > 0)[:, valid])
    assert ranking.size(values > 0).tolist() == (values > 0)[:, valid].sum(1).tolist()


def test_finite_cells_pass_though_their_sum_overflows():
    check_finite(torch.full((1, 2, 3), LARGEST))
    for bad in (torch.nan, torch.inf, -torch.inf):
        maps = torch.zeros(1, 2, 3)
        maps[0, 1, 1] = bad
        with pytest.raises(XaibenchError, match="has 1 NaN or infinite cells of 6"):
            check_finite(maps)
    with pytest.raises(XaibenchError, match="2 NaN or infinite cells"):
        check_finite(torch.tensor([[[torch.inf, -torch.inf, 1.0]]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_among_many_equal_cells_the_order_of_memory_stands(dtype):
    values = torch.tensor([[1.0, 2.0] * 600, [-0.0, 0.0] * 600, [3.0, -3.0] * 600], dtype=dtype)
    order = largest_first(values)
    falling = torch.arange(1200).view(600, 2)
    assert order[0].tolist() == [*falling[:, 1].tolist(), *falling[:, 0].tolist()]
    assert order[1].tolist() == list(range(1200))
    assert order[2].tolist() == [*falling[:, 0].tolist(), *falling[:, 1].tolist()]
    assert order.dtype == torch.int64


def test_a_silent_map_of_doubles_is_no_map_beyond_float32():
    maps = torch.zeros(2, 1, 3, dtype=torch.float64)
    maps[1, 0, 1] = 1e-44
    check_summable(maps)
    assert Ranking(maps).silent.isnan().tolist() == [True, False]
    for size in (1e-46, 4e38):
        with pytest.raises(XaibenchError, match="beyond float32"):
            check_summable(maps + torch.tensor([0, 0, size], dtype=torch.float64) * torch.tensor([1.0, 0.0])[:, None, None])
