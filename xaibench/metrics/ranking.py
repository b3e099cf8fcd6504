"""The cells of a batch of maps from the largest to the smallest, sorted once and asked by every metric that ranks.

A `Ranking` belongs to one batch of maps `(B, F, T)` and its valid cells `(F, T)`; positive values speak for spoof, and
the largest come first, signs included. Cells of equal value, a *tie group*, are taken to stand in random order: what a
ranking says of a region are expected values over these orders, in closed form, so memory order never matters.

`kept` keeps the ranking of an evidence, or of a truth, for as long as that lives: all metrics of one attribution cost one
sort then, and all attributions of a batch share the one of the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from xaibench.errors import XaibenchError

Thing = TypeVar("Thing")


class Ranking:
    """Maps `(B, F, T)` float, valid `(F, T)` bool or None for all cells.

    shape:  of the maps.
    values: `(B, n)`, the valid cells in row order.
    silent: `(B,)` float64, NaN for maps that are zero on all valid cells, else 0: added to a score.

    Raises XaibenchError for another shape or type, for no valid cell, and for a NaN or infinite cell, valid or not.

    >>> ranking = Ranking(torch.tensor([[[4.0, 1.0, 4.0, -3.0]]]))
    >>> ranking.hits(torch.tensor([[[True, True, False, False]]]), 1).tolist()
    [0.5]
    """

    def __init__(self, maps: Tensor, valid: Tensor | None = None) -> None:
        if maps.ndim != 3 or not maps.is_floating_point():
            raise XaibenchError(f"expected a floating-point attribution (B, F, T), got {maps.dtype} {tuple(maps.shape)}")
        if not bool(torch.isfinite(maps).all()):
            bad = int((~torch.isfinite(maps)).sum())
            raise XaibenchError(f"the attribution has {bad} NaN or infinite cells of {maps.numel()}")
        self.shape = tuple(maps.shape)
        self._cells = None if valid is None else _where(valid, self.shape[1:])
        self.values = self._pick(maps)
        self._asked: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def __len__(self) -> int:
        """The number of valid cells, n."""
        return self.values.shape[1]

    @cached_property
    def silent(self) -> Tensor:
        return torch.where(self.values.any(1), 0.0, torch.nan).double()

    @cached_property
    def order(self) -> Tensor:
        """Indices into `values`, the largest cell first. Shape: `(B, n)` long."""
        if self.values.device.type == "cpu" and self.values.dtype in (torch.float32, torch.float64):
            # numpy's vectorised sort: six times as fast as torch's where there is AVX-512
            return torch.from_numpy(np.argsort(-self.values.detach().numpy(), axis=1))
        return self.values.argsort(dim=1, descending=True)

    @cached_property
    def ties(self) -> tuple[Tensor, Tensor]:
        """First and last rank, from 0, of the tie group at every rank. Shape: `(B, n)` long each."""
        return tie_group(self.values.gather(1, self.order))

    @cached_property
    def mid_ranks(self) -> Tensor:
        """Rank of every valid cell about the mean rank, the larger the higher; equal cells share theirs. Shape: `(B, n)`."""
        first, last = self.ties
        ranks = (first + last).double().mul_(-0.5).add_((len(self) - 1) / 2)
        return torch.empty_like(ranks).scatter_(1, self.order, ranks)

    def inside(self, region: Tensor) -> Tensor:
        """The valid cells of a region `(B, F, T)` bool, in row order. Shape: `(B, n)` bool."""
        if tuple(region.shape) != self.shape or region.dtype != torch.bool:
            raise XaibenchError(f"expected a bool region of shape {self.shape}, got {region.dtype} {tuple(region.shape)}")
        if id(region) not in self._asked:  # the region is kept, so that its id stays its own
            self._asked[id(region)] = region, self._pick(region), None
        return self._asked[id(region)][1]

    def found(self, region: Tensor) -> Tensor:
        """Cells of the region among the first 0, 1 ... n ranks. Shape: `(B, n + 1)` int32.

        Within a tie group in memory's order: read it at the edges of groups only.
        """
        inside = self.inside(region)
        if self._asked[id(region)][2] is None:
            counts = torch.zeros(len(inside), len(self) + 1, dtype=torch.int32, device=inside.device)
            torch.cumsum(inside.gather(1, self.order), 1, dtype=torch.int32, out=counts[:, 1:])
            self._asked[id(region)] = region, inside, counts
        return self._asked[id(region)][2]

    def hits(self, region: Tensor, count: Tensor | int) -> Tensor:
        """Expected number of the region's cells among the `count` largest. Shape: count `(B,)` or one -> `(B,)` float64."""
        before, tied, ties, drawn = self._cut(region, count)
        return (before + drawn * tied / ties)[:, 0]

    def drawn(self, region: Tensor, count: Tensor | int) -> tuple[Tensor, Tensor]:
        """Possible numbers of the region's cells among the `count` largest, and their probabilities. Shape: `(B, K)` each.

        Of the tie group at the cut-off as many cells as there is room for are drawn at random, so the region's among them
        are hypergeometric; K is one more than the most there can be in any map of the batch, 1 where nothing is tied.
        """
        before, tied, ties, drawn = self._cut(region, count)
        most = int(torch.minimum(tied, drawn).max()) if len(tied) else 0
        more = torch.arange(most + 1, device=tied.device, dtype=torch.float64)
        others = ties - tied
        possible = (more <= tied) & (more <= drawn) & (drawn - more <= others)
        more = torch.where(possible, more, (drawn - others).clamp_min(0))
        ways = _log_choose(tied, more) + _log_choose(others, drawn - more) - _log_choose(ties, drawn)
        chance = ways.exp() * possible
        return before + more, chance / chance.sum(1, keepdim=True)

    def _cut(self, region: Tensor, count: Tensor | int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """At the cut-off: the region's cells above its tie group and in it, the group's size, and how many of it there is
        room for. Shape: `(B, 1)` float64 each.
        """
        found, (first, last) = self.found(region), self.ties
        count = torch.as_tensor(count, device=found.device).expand(len(found))[:, None]
        cut = (count - 1).clamp_min(0)
        start, end = first.gather(1, cut), last.gather(1, cut) + 1
        before = found.gather(1, start)
        tied = found.gather(1, end) - before
        return before.double(), tied.double(), (end - start).double(), (count - start).double()

    def _pick(self, maps: Tensor) -> Tensor:
        flat = maps.flatten(1)
        return flat if self._cells is None else flat.index_select(1, self._cells)


_KEPT: WeakKeyDictionary[object, dict[str, Any]] = WeakKeyDictionary()


def kept(owner: object, what: str, make: Callable[[], Thing]) -> Thing:
    """What `make` gives, made when first asked for and kept while `owner` (an evidence, a truth) lives.

    It must not hold the owner itself, or both live for ever.
    """
    known = _KEPT.setdefault(owner, {})
    if what not in known:
        known[what] = make()
    return known[what]


def tie_group(ordered: Tensor) -> tuple[Tensor, Tensor]:
    """First and last position of the run of equal values that each cell of a sorted map is in. Shape: `(B, n)` long each.

    >>> [positions.tolist() for positions in tie_group(torch.tensor([[5, 3, 3, 1]]))]
    [[[0, 1, 1, 3]], [[0, 2, 2, 3]]]
    """
    edge = torch.ones_like(ordered, dtype=torch.bool)
    edge[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    start = edge.flatten().nonzero()[:, 0]
    size = torch.diff(start, append=start.new_tensor([ordered.numel()]))
    rows = torch.arange(len(ordered), device=ordered.device)[:, None] * ordered.shape[1]
    first = start.repeat_interleave(size, output_size=ordered.numel()).view(ordered.shape) - rows
    return first, first + (size - 1).repeat_interleave(size, output_size=ordered.numel()).view(ordered.shape)


def _log_choose(n: Tensor, k: Tensor) -> Tensor:
    """The logarithm of n over k."""
    return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)


def _where(valid: Tensor, shape: tuple[int, int]) -> Tensor:
    """Indices of the valid cells of a flattened map. Shape: `(F, T)` bool -> `(n,)` long."""
    if tuple(valid.shape) != shape or valid.dtype != torch.bool or not bool(valid.any()):
        raise XaibenchError(
            f"valid must be bool of shape {shape} with at least one cell, got {valid.dtype} {tuple(valid.shape)} with "
            f"{int(valid.sum())}"
        )
    return valid.flatten().nonzero()[:, 0]
