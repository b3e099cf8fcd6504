"""A map's top cells: the one rule of which they are. What metrics rank is `xaibench.metrics.ranking`, of the truth's region
`xaibench.truth.top_share`, the same rule for torch.

The largest valid cells come first, among equals the first in row order: a bare `>= quantile` would take every tied cell.
Maps `(F, T)`, positive = evidence for spoof. numpy only.
"""

from __future__ import annotations

import numpy as np

from xaibench.errors import XaibenchError
from xaibench.numbers import real_numbers


def largest(values: np.ndarray, valid: np.ndarray, count: int) -> tuple[np.ndarray, bool]:
    """The `count` largest valid cells of a map `(F, T)`, as bool, and whether a tie decided which.

    >>> mask, tied = largest(np.array([[1.0, 3.0], [3.0, 0.0]]), np.ones((2, 2), bool), 1)
    >>> mask.tolist(), tied
    ([[False, True], [False, False]], True)
    """
    flat = np.where(valid, values, -np.inf).ravel()
    order = np.argsort(-flat, kind="stable")
    mask = np.zeros(flat.size, dtype=bool)
    mask[order[:count]] = True
    tied = 0 < count < flat.size and flat[order[count - 1]] == flat[order[count]]
    return mask.reshape(values.shape), bool(tied)


def share_count(share: float, valid: np.ndarray) -> int:
    """How many cells a share of the valid ones is. Raises XaibenchError for a share outside (0, 1], or of less than a cell.

    >>> share_count(0.25, np.ones((3, 4), bool))
    3
    """
    if not 0 < share <= 1:
        raise XaibenchError(f"share {share}, expected more than 0 and at most 1, as 0.05 for 5 %")
    count, total = round(share * int(np.count_nonzero(valid))), int(np.count_nonzero(valid))
    if count < 1:
        raise XaibenchError(f"a share of {share} of {total} valid cells is less than one cell; ask for more")
    return count


def top_mask(values: np.ndarray, share: float, valid: np.ndarray | None = None) -> np.ndarray:
    """The largest `share` of the valid cells of a map `(F, T)`, as bool.

    A map whose valid cells are all equal says nothing, and its mask is empty. Raises XaibenchError as `share_count`, and for
    a map that is not a finite `(F, T)`.

    >>> top_mask(np.array([[1.0, 3.0, 2.0], [0.0, 3.0, 0.0]]), 0.5).tolist()
    [[False, True, True], [False, True, False]]
    """
    values = real_numbers(values, "cells")
    valid = np.ones(values.shape, bool) if valid is None else np.asarray(valid, dtype=bool)
    if values.ndim != 2 or valid.shape != values.shape:
        raise XaibenchError(f"expected a map and its valid cells (F, T), got {values.shape} and {valid.shape}")
    count, inside = share_count(share, valid), values[valid]
    if not np.isfinite(inside).all():
        raise XaibenchError(f"{np.count_nonzero(~np.isfinite(inside))} cells of the map are NaN or infinite")
    return largest(values, valid, count)[0] if inside.min() < inside.max() else np.zeros(values.shape, dtype=bool)
