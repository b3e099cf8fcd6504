"""Square regions of cells, and random subsets of them: what is filled together when one cell is too small to matter.

The grid of regions starts at the first cell of both axes; regions at the far edges and beside cells outside `valid` are
smaller, and a region without a valid cell does not exist. Shapes: maps `(B, F, T)`, one number a region `(B, R)`.

Reference: Samek et al., "Evaluating the visualization of what a deep neural network has learned", IEEE TNNLS 28 (2017),
arXiv 1509.06321, for non-overlapping regions of 9x9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xaibench.errors import XaibenchError
from xaibench.view import derive_seed, patches

#: Cells along both sides of a region.
SIDE = 9

#: Random subsets of an utterance's regions, and the share of the regions in each.
SUBSETS = 50
SUBSET_SHARE = 0.05


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of an axis pair: `number` `(F, T)` long is each cell's region, from 0, and `count` outside `valid`."""

    number: Tensor
    count: int

    def sums(self, values: Tensor) -> Tensor:
        """The sum of a map over every region's valid cells. Shape: `(B, F, T)` -> `(B, R)` float64."""
        sums = torch.zeros(len(values), self.count + 1, dtype=torch.float64, device=values.device)
        return sums.index_add_(1, self.number.flatten(), values.flatten(1).double())[:, :-1]

    def mask(self, chosen: Tensor) -> Tensor:
        """The valid cells of the chosen regions. Shape: `(B, K, R)` bool -> `(B, K, F, T)` bool."""
        outside = torch.zeros_like(chosen[..., :1])
        return torch.cat([chosen, outside], dim=-1)[..., self.number]


def regions(valid: Tensor, side: int = SIDE) -> Regions:
    """Cut the valid cells `(F, T)` bool into regions of `side` x `side`. Raises XaibenchError for a side below 1.

    >>> regions(torch.tensor([[True, True, True], [False, False, True]]), 2).number.tolist()
    [[0, 0, 1], [2, 2, 1]]
    """
    if side < 1:
        raise XaibenchError(f"the side of a region is 1 cell or more, got {side}")
    squares = patches((valid.shape[0], valid.shape[1]), side, side).to(valid.device)
    present, number = squares[valid].unique(return_inverse=True)
    numbers = torch.full_like(squares, len(present))
    numbers[valid] = number
    return Regions(numbers, len(present))


def subsets(ids: Sequence[str], sizes: Tensor) -> Tensor:
    """`SUBSETS` random subsets of the regions of full size for every utterance, each of `SUBSET_SHARE` of these.

    Of full size only, so that every subset has as many cells: otherwise a constant map would tell subsets apart by their
    size. Fixed by the utterance's id alone, so that every attributor is asked the same questions; without replacement; at
    least one region, rounded. Shape: sizes `(R,)`, cells of every region -> `(B, SUBSETS, R)` bool.
    """
    full = (sizes == sizes.max()).cpu().nonzero()[:, 0]
    size = max(1, round(SUBSET_SHARE * len(full)))
    chosen = torch.zeros(len(ids), SUBSETS, len(sizes), dtype=torch.bool)
    for row, name in zip(chosen, ids, strict=True):
        generator = torch.Generator().manual_seed(derive_seed(0, "subsets", name))
        for subset in row:
            subset[full[torch.randperm(len(full), generator=generator)[:size]]] = True
    return chosen
