"""A countermeasure that can be asked about masked inputs, and the answers that no attribution changes.

A `Probe` belongs to one `View` (one countermeasure, one batch) and keeps every such answer: the score of the utterances
themselves, of their bona fide twins, of the utterances with every valid cell filled, and with random subsets of regions
filled. Whatever is asked twice costs one forward pass.

**deletion** puts the fill in place of the top share of the valid cells; **insertion** keeps the top share and fills all
other valid cells. Cells outside `valid` are never touched, by either. The top share of n valid cells is their
`round(share * n)` largest; tied cells stand in a random order drawn once per utterance, the same for every attributor.

Shapes: values `(B, F, T)` on the view's axes, answers `(B,)` float64, spoof log-odds (natural logarithm), higher = more
spoofed. Reference: Petsiuk, Das, Saenko, "RISE", BMVC 2018, arXiv 1806.07421.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from xaibench.errors import XaibenchError
from xaibench.metrics.ranking import largest_first
from xaibench.metrics.regions import SIDE, SUBSETS, Regions, regions, subsets
from xaibench.view import View, derive_seed

DIRECTIONS = ("deletion", "insertion")


@dataclass(frozen=True, eq=False)
class Curve:
    """Spoof log-odds `(B, S)` after each of S rising fractions `(S,)` of the valid cells, or of their regions."""

    fractions: Tensor
    log_odds: Tensor

    @property
    def probability(self) -> Tensor:
        """The probability of spoof `(B, S)`: for two classes the softmax that RISE and Quantus read."""
        return self.log_odds.sigmoid()


@dataclass(frozen=True, eq=False)
class Order:
    """Ranks of cells `(B, F, T)` long, 0 = first, and a name by which equal orders are recognised: 64 bits an utterance."""

    ranks: Tensor
    name: tuple[int, ...]


class Probe:
    """A view, the cells that may be filled and the shares to fill them by, with the answers no attribution changes.

    view:      the batch; `valid` and all maps are on its axes.
    valid:     `(F, T)` bool.
    fractions: the interior points of curves, rising in ]0, 1[; 0 and 1 are always added.
    side:      cells along both sides of a region.

    Raises XaibenchError for a `valid` of another shape or without a cell, for fractions that are not as said, and, when
    asked, for a countermeasure whose answer is NaN or infinite.
    """

    def __init__(self, view: View, valid: Tensor, fractions: Sequence[float], *, side: int = SIDE) -> None:
        if valid.dtype != torch.bool or tuple(valid.shape) != view.shape or not bool(valid.any()):
            raise XaibenchError(
                f"valid must be bool, of the view's shape {view.shape} and hold at least one cell; got {valid.dtype} "
                f"{tuple(valid.shape)} with {int(valid.sum())} (is it on the grid's axes instead of the view's?)"
            )
        points = [0.0, *fractions, 1.0]
        if not all(low < high for low, high in pairwise(points)):
            raise XaibenchError(f"fractions must rise strictly between 0 and 1, got {tuple(fractions)}")
        self.view = view
        self.valid = valid.to(view.device)
        self.fractions = tuple(points)
        self.cells = int(valid.sum())
        self.regions: Regions = regions(self.valid, side)
        self._kept: dict[tuple[str, str], Tensor] = {}
        self._orders: dict[tuple[str, str, tuple[int, ...]], dict[int, Tensor]] = {}

    def _scored(self, inputs: Tensor, what: str) -> Tensor:
        """Spoof log-odds `(M,)` float64. Raises XaibenchError where one is no number: a score made of it would be one."""
        scores = self.view.score(inputs).double()
        if not bool(scores.isfinite().all()):
            bad = int((~scores.isfinite()).sum())
            raise XaibenchError(f"the countermeasure gives NaN or infinity as the score of {bad} of {len(scores)} {what}")
        return scores

    @cached_property
    def untouched(self) -> Tensor:
        """Spoof log-odds of the vocoded utterances. Shape: `(B,)`."""
        return self._scored(self.view.inputs, "the utterances themselves")

    @cached_property
    def bonafide(self) -> Tensor:
        """Spoof log-odds of their bona fide twins. Shape: `(B,)`. Raises Unsupported on a view without twins."""
        return self.nothing_but("twin")

    @cached_property
    def gap(self) -> Tensor:
        """How much more spoofed the vocoded half of each pair looks. Shape: `(B,)`; negative where the CM errs."""
        return self.untouched - self.bonafide

    def nothing_but(self, fill: str) -> Tensor:
        """Spoof log-odds of the fill alone, in every cell, valid or not. Shape: `(B,)`. Raises Unsupported as `filled`."""
        if ("alone", fill) not in self._kept:
            self._kept["alone", fill] = self._scored(self.view.fill(fill), f"the fill {fill!r} alone")
        return self._kept["alone", fill]

    def filled(self, fill: str) -> Tensor:
        """Spoof log-odds with every valid cell filled. Shape: `(B,)`. Raises Unsupported for a fill the view lacks."""
        if ("filled", fill) not in self._kept:
            self._kept["filled", fill] = self.ask(lambda _: (~self.valid).expand(len(self.view), 1, -1, -1), 1, fill)[:, 0]
        return self._kept["filled", fill]

    @cached_property
    def subsets(self) -> Tensor:
        """The random subsets of regions, the same for every attributor. Shape: `(B, SUBSETS, R)` bool."""
        sizes = self.regions.sums(self.valid[None].float())[0]
        return subsets(self.view.ids, sizes).to(self.view.device)

    def without_subsets(self, fill: str) -> Tensor:
        """Spoof log-odds with one random subset of regions filled at a time. Shape: `(B, SUBSETS)`."""
        if ("subsets", fill) not in self._kept:
            answers = self.ask(lambda part: ~self.regions.mask(self.subsets[:, part]), SUBSETS, fill)
            self._kept["subsets", fill] = answers
        return self._kept["subsets", fill]

    @cached_property
    def _shuffles(self) -> Tensor:
        """The random order `(B, cells)` that breaks ties, fixed by the utterance's id alone."""
        return self._shuffled("ties", self.cells)

    def _shuffled(self, purpose: str, count: int) -> Tensor:
        seeds = [derive_seed(0, purpose, name) for name in self.view.ids]
        orders = [torch.randperm(count, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return torch.stack(orders).to(self.view.device)

    def check(self, values: Tensor) -> None:
        """Raise XaibenchError for values that are not `(B, F, T)` on the view's axes, or hold a NaN or infinite one."""
        if tuple(values.shape) != (len(self.view), *self.view.shape):
            raise XaibenchError(
                f"expected values on the view's axes {(len(self.view), *self.view.shape)}, got {tuple(values.shape)}; "
                "the attribution on the grid is not always on the view's axes"
            )
        if not bool(torch.isfinite(values).all()):
            raise XaibenchError(f"the attribution has {int((~torch.isfinite(values)).sum())} NaN or infinite cells")

    def ranks(self, values: Tensor) -> Tensor:
        """The rank of every valid cell, 0 = largest; the number of valid cells outside. Shape: `(B, F, T)` long.

        Raises XaibenchError as `check`.
        """
        self.check(values)
        cells = self.valid.flatten().nonzero()[:, 0]
        ranks = torch.full_like(values.flatten(1), self.cells, dtype=torch.long)
        ranks[:, cells] = _ranks(values.flatten(1)[:, cells], self._shuffles)
        return ranks.view_as(values)

    def region_ranks(self, sums: Tensor) -> Tensor:
        """The rank of every region by its sum, 0 = largest; ties as among cells. Shape: `(B, R)` -> `(B, R)` long."""
        return _ranks(sums, self._shuffled("region ties", self.regions.count))

    def count(self, fraction: float) -> int:
        """The number of cells in a share of the valid ones; the same rounding as the truth's region."""
        return round(fraction * self.cells)

    def ask(self, keep: Callable[[slice], Tensor], number: int, fill: str) -> Tensor:
        """Spoof log-odds of `number` mixtures an utterance; `keep` makes the masks `(B, n, F, T)` of a part of them.

        At most `view.batch_size` masked inputs exist at a time, or one an utterance where the batch is larger.
        Shape: `(B, number)`.
        """
        together = max(1, self.view.batch_size // len(self.view))
        parts = [slice(start, min(start + together, number)) for start in range(0, number, together)]
        what = f"utterances filled with {fill!r}"
        scores = [self._scored(self.view.filled(keep(part), fill), what) for part in parts]
        return torch.cat([score.view(len(self.view), -1) for score in scores], dim=1)

    @cached_property
    def _multipliers(self) -> Tensor:
        draw = torch.Generator().manual_seed(derive_seed(0, "orders"))
        return torch.randint(-(2**62), 2**62, self.valid.shape, generator=draw).to(self.view.device)

    def order(self, values: Tensor) -> Order:
        """The order of the cells by these values `(B, F, T)`. Raises XaibenchError as `check`."""
        ranks = self.ranks(values)
        return Order(ranks, tuple((ranks * self._multipliers).sum(dim=(1, 2)).tolist()))  # int64 wraps, which is wanted

    def answers(self, order: Order, direction: str, fill: str, counts: Sequence[int]) -> dict[int, Tensor]:
        """Spoof log-odds `(B,)` for each number of top cells deleted or inserted.

        Kept by order: two methods that order the cells alike (Grad-CAM and Finer-CAM on two classes) share every answer.
        """
        if direction not in DIRECTIONS:
            raise XaibenchError(f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}")
        whole, none = (0, self.cells) if direction == "deletion" else (self.cells, 0)
        known = self._orders.setdefault((direction, fill, order.name), {})
        if whole in counts:
            known[whole] = self.untouched
        if none in counts:
            known[none] = self.filled(fill)
        missing = sorted(set(counts) - set(known))
        ranks = order.ranks
        tops = torch.tensor(missing, device=ranks.device)  # one copy, however many parts

        def keep(part: slice) -> Tensor:
            top = ranks.unsqueeze(1) < tops[None, part, None, None]
            return ~top if direction == "deletion" else top | ~self.valid

        if missing:
            known.update(zip(missing, self.ask(keep, len(missing), fill).unbind(1), strict=True))
        return known

    def curve(self, values: Tensor, direction: str, fill: str) -> Curve:
        """Delete or insert along one order of cells. Shape: values `(B, F, T)` -> a curve of `(B, len(fractions))`."""
        counts = [self.count(f) for f in self.fractions]
        known = self.answers(self.order(values), direction, fill, counts)
        return Curve(torch.tensor(self.fractions, dtype=torch.float64), torch.stack([known[n] for n in counts], 1))


def _ranks(values: Tensor, shuffles: Tensor) -> Tensor:
    """The rank of every value in its row, 0 = largest; equal ones in the order of `shuffles`. Shape: `(B, N)` long."""
    shuffled = values.gather(1, shuffles)
    order = shuffles.gather(1, largest_first(shuffled))
    positions = torch.arange(values.shape[1], device=values.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, positions)
