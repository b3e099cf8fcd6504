"""What a metric may look at: an attribution, the truth, and the countermeasure's answers to masked inputs.

A `Probe` belongs to one `View` (one countermeasure, one batch) and keeps every answer that no attribution can change:
the score of the utterances themselves, of their bona fide twins, and of the utterances with every valid cell filled. An
`Evidence` belongs to one attribution of that batch and keeps the answers its cell order led to, so that two metrics that
ask the same question cost one forward pass.

**deletion** puts the fill in place of the top share of the valid cells; **insertion** keeps the top share and fills all
other valid cells. Cells outside `valid` are never touched, by either. The top share of n valid cells is their
`round(share * n)` largest; tied cells stand in a random order drawn once per utterance, the same for every attributor.
A map that is zero on all valid cells has no order: its curve is NaN.

Shapes: values `(B, F, T)` on the view's axes, answers `(B,)` float64, spoof log-odds (natural logarithm), higher = more
spoofed. Reference: Petsiuk, Das, Saenko, "RISE", BMVC 2018, arXiv 1806.07421.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from xaibench.errors import XaibenchError
from xaibench.types import Attribution, Truth
from xaibench.view import View, derive_seed

DIRECTIONS = ("deletion", "insertion")


@dataclass(frozen=True, eq=False)
class Curve:
    """Spoof log-odds `(B, S)` after each of S rising fractions `(S,)` of the valid cells, from 0 to 1."""

    fractions: Tensor
    log_odds: Tensor

    @property
    def probability(self) -> Tensor:
        """The probability of spoof `(B, S)`: for two classes the softmax that RISE and Quantus read."""
        return self.log_odds.sigmoid()


class Probe:
    """A view, the cells that may be filled and the shares to fill them by, with the answers no attribution changes.

    view:      the batch; `valid` and all maps are on its axes.
    valid:     `(F, T)` bool.
    fractions: the interior points of curves, rising in ]0, 1[; 0 and 1 are always added.

    Raises XaibenchError for a `valid` of another shape or without a cell, and for fractions that are not as said.
    """

    def __init__(self, view: View, valid: Tensor, fractions: Sequence[float]) -> None:
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
        self._filled: dict[str, Tensor] = {}

    @cached_property
    def untouched(self) -> Tensor:
        """Spoof log-odds of the vocoded utterances. Shape: `(B,)`."""
        return self.view.score(self.view.inputs).double()

    @cached_property
    def bonafide(self) -> Tensor:
        """Spoof log-odds of their bona fide twins. Shape: `(B,)`. Raises Unsupported on a view without twins."""
        return self.view.score(self.view.fill("twin")).double()

    @cached_property
    def gap(self) -> Tensor:
        """How much more spoofed the vocoded half of each pair looks. Shape: `(B,)`; negative where the CM errs."""
        return self.untouched - self.bonafide

    def filled(self, fill: str) -> Tensor:
        """Spoof log-odds with every valid cell filled. Shape: `(B,)`. Raises Unsupported for a fill the view lacks."""
        if fill not in self._filled:
            keep = (~self.valid).expand(len(self.view), 1, -1, -1)
            self._filled[fill] = self.view.score(self.view.filled(keep, fill)).double()
        return self._filled[fill]

    @cached_property
    def _shuffles(self) -> Tensor:
        """The random order `(B, cells)` that breaks ties, fixed by the utterance's id alone."""
        seeds = [derive_seed(0, "ties", name) for name in self.view.ids]
        orders = [torch.randperm(self.cells, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return torch.stack(orders).to(self.view.device)

    def ranks(self, values: Tensor) -> Tensor:
        """The rank of every valid cell, 0 = largest; the number of valid cells outside. Shape: `(B, F, T)` long.

        Raises XaibenchError for values of another shape, or a NaN or infinite one.
        """
        if tuple(values.shape) != (len(self.view), *self.view.shape):
            raise XaibenchError(
                f"expected values on the view's axes {(len(self.view), *self.view.shape)}, got {tuple(values.shape)}; "
                "the attribution on the grid is not always on the view's axes"
            )
        if not bool(torch.isfinite(values).all()):
            raise XaibenchError(f"the attribution has {int((~torch.isfinite(values)).sum())} NaN or infinite cells")
        cells = self.valid.flatten().nonzero()[:, 0]
        shuffled = values.flatten(1)[:, cells].gather(1, self._shuffles)
        order = self._shuffles.gather(1, shuffled.argsort(dim=1, descending=True, stable=True))
        ranks = torch.full_like(values.flatten(1), self.cells, dtype=torch.long)
        positions = torch.arange(self.cells, device=values.device).expand_as(order)
        return ranks.scatter_(1, cells[order], positions).view_as(values)

    def count(self, fraction: float) -> int:
        """The number of cells in a share of the valid ones; the same rounding as the truth's region."""
        return round(fraction * self.cells)

    def answers(self, ranks: Tensor, direction: str, fill: str, counts: Sequence[int]) -> dict[int, Tensor]:
        """Spoof log-odds `(B,)` for each number of top cells deleted or inserted.

        At most `view.batch_size` masked inputs exist at a time, or one an utterance where the batch is larger.
        """
        if direction not in DIRECTIONS:
            raise XaibenchError(f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}")
        whole, none = (0, self.cells) if direction == "deletion" else (self.cells, 0)
        known: dict[int, Tensor] = {}
        if whole in counts:
            known[whole] = self.untouched
        if none in counts:
            known[none] = self.filled(fill)
        missing = sorted(set(counts) - set(known))
        together = max(1, self.view.batch_size // len(self.view))
        for start in range(0, len(missing), together):
            part = missing[start : start + together]
            top = ranks.unsqueeze(1) < torch.tensor(part, device=ranks.device)[None, :, None, None]
            keep = ~top if direction == "deletion" else top | ~self.valid
            scores = self.view.score(self.view.filled(keep, fill)).double()
            known.update(zip(part, scores.view(len(self.view), len(part)).unbind(1), strict=True))
        return known

    def curve(self, values: Tensor, direction: str, fill: str) -> Curve:
        """Delete or insert along one order of cells. Shape: values `(B, F, T)` -> a curve of `(B, len(fractions))`."""
        counts = [self.count(f) for f in self.fractions]
        known = self.answers(self.ranks(values), direction, fill, counts)
        return Curve(torch.tensor(self.fractions, dtype=torch.float64), torch.stack([known[n] for n in counts], 1))


@dataclass(frozen=True, eq=False)
class Evidence:
    """One attribution of a batch, and all a metric may ask about it.

    attribution: on the grid, for comparison with the truth.
    on_view:     the same on the view's axes `(B, F, T)`, for masking the countermeasure's input.
    truth:       of the batch, on the grid.
    probe:       of the view.
    """

    attribution: Attribution
    on_view: Tensor
    truth: Truth
    probe: Probe
    _known: dict[tuple[str, str], dict[int, Tensor]] = field(default_factory=dict, repr=False)

    @cached_property
    def _ranks(self) -> Tensor:
        return self.probe.ranks(self.on_view)

    @cached_property
    def _undefined(self) -> Tensor:
        """0 for a map with an order, NaN for one that is zero on all valid cells. Shape: `(B,)`."""
        spoken = (self.on_view != 0) & self.probe.valid
        return torch.where(spoken.flatten(1).any(1), 0.0, torch.nan).double()

    def _answers(self, direction: str, fill: str, counts: Sequence[int]) -> list[Tensor]:
        known = self._known.setdefault((direction, fill), {})
        missing = [n for n in counts if n not in known]
        if missing:
            known.update(self.probe.answers(self._ranks, direction, fill, missing))
        return [known[n] + self._undefined for n in counts]

    def curve(self, direction: str, fill: str, fractions: Sequence[float] | None = None) -> Curve:
        """The deletion or insertion curve at the probe's fractions, or at others. Forward passes are never repeated."""
        points = self.probe.fractions if fractions is None else tuple(fractions)
        answers = self._answers(direction, fill, [self.probe.count(f) for f in points])
        return Curve(torch.tensor(points, dtype=torch.float64), torch.stack(answers, 1))

    def drop(self, fill: str, share: float = 0.05) -> Tensor:
        """By how much the spoof log-odds fall when the top `share` alone is filled. Shape: `(B,)`.

        One forward pass an utterance, shared with the deletion curve whichever is asked first.
        """
        return self.probe.untouched - self._answers("deletion", fill, [self.probe.count(share)])[0]
