"""Regions of cells and random subsets of them: against their twin, and what an utterance's id fixes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import BAND, GRID, SHAPE
from twins import faithfulness as twin

from xaibench.errors import XaibenchError
from xaibench.metrics.regions import SUBSETS, regions, subsets

VALID = torch.from_numpy(GRID.band(*BAND))[:, None].expand(SHAPE).contiguous()
ALL = torch.ones(SHAPE, dtype=torch.bool)


def holes(seed=0):
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed)) < 0.05


@pytest.mark.parametrize("side", [1, 4, 9, 200])
@pytest.mark.parametrize("valid", [ALL, VALID, holes()], ids=["all", "band", "holes"])
def test_regions_are_their_twin(valid, side):
    ours, expected = regions(valid, side), twin.regions(valid.numpy(), side)
    assert ours.count == len(expected)
    for number, cells in enumerate(expected):
        assert sorted(map(tuple, (ours.number == number).nonzero().tolist())) == sorted(cells)
    assert (ours.number[~valid] == ours.count).all()


def test_sums_are_their_twin_and_leave_out_what_is_not_valid():
    values = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    ours = regions(VALID).sums(values)
    assert ours.dtype == torch.float64
    for row, expected in zip(ours, values.numpy(), strict=True):
        sums = [twin.relevance(expected, cells) for cells in twin.regions(VALID.numpy(), 9)]
        assert row.tolist() == pytest.approx(sums, abs=1e-9)
    assert torch.equal(regions(VALID).sums(torch.where(VALID, values, 9.0)), ours)


def test_sums_golden():
    # Regions of 2 x 2 in 2 x 3 cells, the last column alone; one cell is not valid.
    valid = torch.tensor([[True, True, True], [True, False, True]])
    assert regions(valid, 2).sums(torch.tensor([[[1.0, 2.0, 3.0], [4.0, 50.0, -1.0]]])).tolist() == [[7.0, 2.0]]


def test_a_mask_holds_the_valid_cells_of_the_chosen_regions_only():
    ours = regions(VALID)
    chosen = torch.zeros(2, 3, ours.count, dtype=torch.bool)
    chosen[1, 2, [0, 5]] = True
    mask = ours.mask(chosen)
    assert mask.shape == (2, 3, *SHAPE) and not mask[0].any() and not mask[1, :2].any()
    assert torch.equal(mask[1, 2], ((ours.number == 0) | (ours.number == 5)) & VALID)
    assert torch.equal(ours.mask(torch.ones(1, 1, ours.count, dtype=torch.bool))[0, 0], VALID)


@pytest.mark.parametrize("side", [0, -1])
def test_a_side_below_one_is_refused(side):
    with pytest.raises(XaibenchError, match=f"1 cell or more, got {side}"):
        regions(ALL, side)


@given(st.integers(1, 60))
def test_subsets_are_of_one_size_without_replacement(count):
    chosen = subsets(["a", "b"], torch.full((count,), 81.0))
    assert chosen.shape == (2, SUBSETS, count) and chosen.dtype == torch.bool
    assert (chosen.sum(-1) == max(1, round(0.05 * count))).all()


def test_subsets_follow_the_utterance_and_nothing_else():
    sizes = torch.full((40,), 81.0)
    together, alone = subsets(["a", "b"], sizes), subsets(["b"], sizes)
    assert torch.equal(together[1:], alone) and not torch.equal(together[0], together[1])


def test_every_region_is_drawn_equally_often():
    often = subsets([str(i) for i in range(100)], torch.full((60,), 81.0)).double().mean((0, 1))
    assert np.abs(often.numpy() - 0.05).max() < 5 * (0.05 * 0.95 / 5000) ** 0.5


def test_smaller_regions_at_the_edges_are_never_drawn_so_that_all_subsets_have_as_many_cells():
    valid = torch.ones(20, 31, dtype=torch.bool)
    cut = regions(valid)
    sizes = cut.sums(valid[None].float())[0]
    assert sizes.min() < sizes.max() == 81
    chosen = subsets(["a"], sizes)
    assert not chosen[..., sizes < 81].any()
    cells = cut.mask(chosen).sum((-1, -2))
    assert len(cells.unique()) == 1
