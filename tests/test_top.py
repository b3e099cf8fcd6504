"""The top cells of a map by hand: which, how many, and whether a tie decided."""

import numpy as np
import pytest

from xaibench.top import largest, share_count, top_mask

MAP = np.array([[3.0, -1.0, 7.0, 7.0], [7.0, 0.0, -5.0, 2.0]])
VALID = np.array([[True, True, True, False], [True, True, True, True]])  # falling: 7 7 3 2 0 -1 -5


@pytest.mark.parametrize(
    ("count", "cells", "tied"),
    [
        (0, [], False),
        (1, [2], True),  # the first of two sevens, in row order
        (2, [2, 4], False),
        (3, [0, 2, 4], False),
        (5, [0, 2, 4, 5, 7], False),
        (7, [0, 1, 2, 4, 5, 6, 7], False),
    ],
)
def test_largest(count, cells, tied):
    mask, decided = largest(MAP, VALID, count)
    assert mask.dtype == bool and mask.shape == (2, 4) and type(decided) is bool
    assert (np.flatnonzero(mask).tolist(), decided) == (cells, tied)


def test_a_whole_map_leaves_no_tie_to_decide():
    assert largest(np.ones((2, 3)), np.ones((2, 3), bool), 6)[1] is False
    assert largest(np.ones((2, 3)), np.ones((2, 3), bool), 5)[1] is True
    assert largest(np.ones((2, 3)), np.ones((2, 3), bool), 0)[1] is False


def test_among_many_equals_the_first_in_row_order_come_first():
    values = np.tile([1.0, 2.0], 300).reshape(20, 30)
    mask, tied = largest(values, np.ones((20, 30), bool), 400)
    wanted = np.flatnonzero(values.ravel() == 2).tolist() + np.flatnonzero(values.ravel() == 1)[:100].tolist()
    assert tied and np.flatnonzero(mask).tolist() == sorted(wanted)


def test_a_share_is_rounded_as_that_of_the_truth():
    valid = np.arange(30).reshape(5, 6) < 20
    assert [share_count(s, valid) for s in (0.05, 0.12, 0.125, 0.13, 0.5, 1)] == [1, 2, 2, 3, 10, 20]
    assert type(share_count(1, valid)) is int


def test_top_mask_takes_lists_and_whole_numbers_and_says_nothing_of_a_flat_map():
    assert top_mask([[1, 3], [2, 0]], 0.5).tolist() == [[False, True], [True, False]]
    assert top_mask([[1, 3], [2, 0]], 0.4, [[1, 0], [1, 1]]).tolist() == [[False, False], [True, False]]
    flat = top_mask(np.array([[4.0, 4.0], [9.0, np.nan]]), 0.5, np.array([[True, True], [False, False]]))
    assert flat.dtype == bool and not flat.any() and flat.shape == (2, 2)
    assert top_mask(MAP, 2 / 7, VALID).tolist() == largest(MAP, VALID, 2)[0].tolist()
