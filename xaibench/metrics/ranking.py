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
        check_finite(maps)
        self.shape = tuple(maps.shape)
        self._cells = slice(None) if valid is None else _where(valid, self.shape[1:])
        self.values = self._pick(maps)
        self._asked: dict[int, tuple[Tensor, dict[Any, Any]]] = {}

    def __len__(self) -> int:
        """The number of valid cells, n."""
        return self.values.shape[1]

    @cached_property
    def silent(self) -> Tensor:
        return torch.where(self.values.any(1), 0.0, torch.nan).double()

    @cached_property
    def order(self) -> Tensor:
        """Indices into `values`, the largest cell first. Shape: `(B, n)` long."""
        return largest_first(self.values.detach())

    @cached_property
    def ordered(self) -> Tensor:
        """The values, the largest first. Shape: `(B, n)`."""
        return self.values.gather(1, self.order)

    @cached_property
    def _rising(self) -> Tensor:
        """The negated values in the same order, to be searched."""
        return self.ordered.neg()

    @cached_property
    def tied(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of every cell that equals another one: its map, its place in the flattened order `(B * n,)`, and the first and the
        last place of its group.

        Shape: `(N,)` long each, group by group. Few cells of most maps: what a score makes of ties is put right at these
        places and nowhere else.
        """
        same = (self.ordered[:, 1:] == self.ordered[:, :-1]).int()
        follows, leads = (torch.nn.functional.pad(same, ends).flatten() for ends in ((1, 0), (0, 1)))
        at = (follows | leads).nonzero()[:, 0]
        start = (follows.index_select(0, at) == 0).nonzero()[:, 0]
        size = torch.diff(start, append=start.new_tensor([len(at)]))
        first = at.index_select(0, start)
        rows, last = first // max(len(self), 1), first + size - 1
        rows, first, last = (part.repeat_interleave(size, output_size=len(at)) for part in (rows, first, last))
        return rows, at, first, last

    @cached_property
    def mid_ranks(self) -> Tensor:
        """Rank of every valid cell about the mean rank, the larger the higher; equal cells share theirs. Shape: `(B, n)`."""
        rows, at, first, last = self.tied
        middle = (len(self) - 1) / 2
        ranks = (middle - torch.arange(len(self), device=first.device, dtype=torch.float64)).repeat(len(self.values), 1)
        ranks.view(-1).scatter_(0, at, middle + rows * len(self) - (first + last).double() / 2)
        return torch.empty_like(ranks).scatter_(1, self.order, ranks)

    def inside(self, region: Tensor) -> Tensor:
        """The valid cells of a region `(B, F, T)` bool, in row order. Shape: `(B, n)` bool."""
        if tuple(region.shape) != self.shape or region.dtype != torch.bool:
            raise XaibenchError(f"expected a bool region of shape {self.shape}, got {region.dtype} {tuple(region.shape)}")
        return self._once(region, "inside", lambda: self._pick(region))

    def size(self, region: Tensor) -> Tensor:
        """The number of valid cells of a region. Shape: `(B,)` long."""
        inside = self.inside(region)
        return self._once(region, "size", lambda: inside.sum(1))

    def found(self, region: Tensor) -> Tensor:
        """Cells of the region among the first 0, 1 ... n ranks. Shape: `(B, n + 1)` int32.

        Within a tie group in memory's order: read it at the edges of groups only.
        """
        inside = self.inside(region)

        def count() -> Tensor:
            counts = torch.zeros(len(inside), len(self) + 1, dtype=torch.int32, device=inside.device)
            torch.cumsum(inside.gather(1, self.order), 1, dtype=torch.int32, out=counts[:, 1:])
            return counts

        return self._once(region, "found", count)

    def around(self, region: Tensor) -> tuple[Tensor, Tensor]:
        """Cells of the region above the tie group at every rank, and down to its end. Shape: `(B, n)` int32 each."""
        found, (rows, at, first, last) = self.found(region), self.tied

        def put_right() -> tuple[Tensor, Tensor]:
            above, down = (part.clone(memory_format=torch.contiguous_format) for part in (found[:, :-1], found[:, 1:]))
            for counts, edge in ((above, first), (down, last + 1)):
                counts.view(-1).scatter_(0, at, found.view(-1).index_select(0, edge + rows))  # found has n + 1 columns
            return above, down

        return self._once(region, "around", put_right)

    def hits(self, region: Tensor, count: Tensor | int) -> Tensor:
        """Expected number of the region's cells among the `count` largest. Shape: count `(B,)` or one -> `(B,)` float64."""

        def expect() -> Tensor:
            before, tied, ties, drawn = self._cut(region, count)
            return (before + drawn * tied / ties)[:, 0]

        return self._once(region, count, expect) if isinstance(count, int) else expect()

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
        found = self.found(region)
        count = torch.as_tensor(count, device=found.device).expand(len(found))[:, None]
        value = self._rising.gather(1, (count - 1).clamp_min(0))
        start, end = (torch.searchsorted(self._rising, value, right=right) for right in (False, True))
        before = found.gather(1, start)
        tied = found.gather(1, end) - before
        return before.double(), tied.double(), (end - start).double(), (count - start).double()

    def _once(self, region: Tensor, what: str | int, make: Callable[[], Thing]) -> Thing:
        """An answer on a region, made when first asked for. The region is kept with it, so that its id stays its own."""
        _, known = self._asked.setdefault(id(region), (region, {}))
        if what not in known:
            known[what] = make()
        return known[what]

    def _pick(self, maps: Tensor) -> Tensor:
        flat = maps.flatten(1)
        return flat[:, self._cells] if isinstance(self._cells, slice) else flat.index_select(1, self._cells)


_KEPT: WeakKeyDictionary[object, dict[str, Any]] = WeakKeyDictionary()


def kept(owner: object, what: str, make: Callable[[], Thing]) -> Thing:
    """What `make` gives, made when first asked for and kept while `owner` (an evidence, a truth) lives.

    It must not hold the owner itself, or both live for ever.
    """
    known = _KEPT.setdefault(owner, {})
    if what not in known:
        known[what] = make()
    return known[what]


def check_finite(maps: Tensor) -> None:
    """Raise XaibenchError for maps with a NaN or infinite cell."""
    # A sum is finite only where all cells are, and costs a tenth of asking each; it may overflow where all are, too.
    if not bool(maps.sum().isfinite()) and not bool(torch.isfinite(maps).all()):
        bad = int((~torch.isfinite(maps)).sum())
        raise XaibenchError(f"the attribution has {bad} NaN or infinite cells of {maps.numel()}")


def check_summable(values: Tensor) -> None:
    """Raise XaibenchError for maps `(B, ...)` of a size that float32 does not have.

    A run keeps maps in float32, whose sums and squares are numbers in float64. Those of the largest float64 are infinite,
    and of the smallest nothing.
    """
    if values.dtype == torch.float64 and values.numel():
        largest, kind = values.abs().flatten(1).amax(1), torch.finfo(torch.float32)
        if bool(((largest > kind.max) | ((largest > 0) & (largest < kind.smallest_normal * kind.eps))).any()):
            raise XaibenchError(f"the largest cells of the maps are {largest.tolist()}, beyond float32; scale them first")


def largest_first(values: Tensor) -> Tensor:
    """Indices of the values of every row, the largest first, equal ones as they stand. Shape: `(B, n)` -> `(B, n)` long.

    float32 on the CPU is sorted as whole numbers that hold value and index, which numpy's vectorised sort does in a fifth of
    the time of its argsort, and a thirtieth of torch's. No NaN.

    >>> largest_first(torch.tensor([[0.0, 2.0, -1.0, -0.0, 2.0]])).tolist()
    [[1, 4, 0, 3, 2]]
    """
    if values.device.type != "cpu" or values.dtype != torch.float32:
        return values.argsort(dim=1, descending=True, stable=True)
    bits = (values + 0.0).numpy().view(np.int32)  # -0 becomes 0
    falling = ~(bits ^ ((bits >> 31) & 0x7FFFFFFF))  # below 0, larger sizes are smaller values
    packed = (falling.astype(np.int64) << 32) | np.arange(values.shape[1])
    packed.sort(axis=1)
    return torch.from_numpy(packed & 0xFFFFFFFF)


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


def _where(valid: Tensor, shape: tuple[int, ...]) -> Tensor | slice:
    """Where the valid cells of a flattened map are: a slice for a band of frequencies, which costs no copy, or `(n,)` long.
    Shape: valid `(F, T)` bool.
    """
    if tuple(valid.shape) != shape or valid.dtype != torch.bool or not bool(valid.any()):
        raise XaibenchError(
            f"valid must be bool of shape {shape} with at least one cell, got {valid.dtype} {tuple(valid.shape)} with "
            f"{int(valid.sum())}"
        )
    cells = valid.flatten().nonzero()[:, 0]
    first, last = int(cells[0]), int(cells[-1])
    return slice(first, last + 1) if last - first + 1 == len(cells) else cells
