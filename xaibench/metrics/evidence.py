"""What a metric may look at: an attribution, the truth, and the countermeasure's answers to masked inputs.

An `Evidence` belongs to one attribution of a batch and keeps the answers its cells led to, so that two metrics that ask
the same question cost one forward pass. What no attribution can change its `Probe` keeps, for all of them.

A map that is zero on all valid cells has no order: its answers are NaN. Shapes as in `xaibench.metrics.probe`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xaibench.metrics.probe import Curve as Curve
from xaibench.metrics.probe import Order
from xaibench.metrics.probe import Probe as Probe
from xaibench.types import Attribution, Truth

if TYPE_CHECKING:
    from xaibench.metrics.again import Again


@dataclass(frozen=True, eq=False)
class Evidence:
    """One attribution of a batch, and all a metric may ask about it.

    attribution: on the grid, for comparison with the truth.
    on_view:     the same on the view's axes `(B, F, T)`, for masking the countermeasure's input.
    truth:       of the batch, on the grid.
    probe:       of the view.
    again:       a change (`xaibench.metrics.again`) -> the same method's maps under it; None where only the map is known.
    """

    attribution: Attribution
    on_view: Tensor
    truth: Truth
    probe: Probe
    again: Callable[[str], Again] | None = None
    _known: dict[tuple[str, str], dict[int, Tensor]] = field(default_factory=dict, repr=False)
    _kept: dict[tuple[str, str], Tensor] = field(default_factory=dict, repr=False)

    @cached_property
    def _order(self) -> Order:
        return self.probe.order(self.on_view)

    @cached_property
    def undefined(self) -> Tensor:
        """0 for a map with an order, NaN for one that is zero on all valid cells. Shape: `(B,)`."""
        spoken = (self.on_view != 0) & self.probe.valid
        return torch.where(spoken.flatten(1).any(1), 0.0, torch.nan).double()

    def kept(self, what: str, fill: str, ask: Callable[[], Tensor]) -> Tensor:
        """The answer kept under these two names; asked for the first time if need be."""
        if (what, fill) not in self._kept:
            self._kept[what, fill] = ask()
        return self._kept[what, fill]

    @cached_property
    def region_sums(self) -> Tensor:
        """The sum of the map over the valid cells of every region. Shape: `(B, R)` float64. Raises as `Probe.check`."""
        self.probe.check(self.on_view)
        return self.probe.regions.sums(self.on_view)

    def _answers(self, direction: str, fill: str, counts: Sequence[int]) -> list[Tensor]:
        known = self._known.setdefault((direction, fill), {})
        missing = [n for n in counts if n not in known]
        if missing:
            known.update(self.probe.answers(self._order, direction, fill, missing))
        return [known[n] + self.undefined for n in counts]

    def curve(self, direction: str, fill: str, fractions: Sequence[float] | None = None) -> Curve:
        """The deletion or insertion curve at the probe's fractions, or at others. Forward passes are never repeated."""
        points = self.probe.fractions if fractions is None else tuple(fractions)
        answers = self._answers(direction, fill, [self.probe.count(f) for f in points])
        return Curve(torch.tensor(points, dtype=torch.float64), torch.stack(answers, 1))

    def asked(self) -> dict[str, Curve]:
        """The curves that some metric asked for, at all of the probe's fractions: "deletion-twin" and the like."""
        counts = [self.probe.count(f) for f in self.probe.fractions]
        names = [key for key, known in self._known.items() if set(counts) <= set(known)]
        return {f"{direction}-{fill}": self.curve(direction, fill) for direction, fill in names}

    def drop(self, fill: str, share: float = 0.05) -> Tensor:
        """By how much the spoof log-odds fall when the top `share` alone is filled. Shape: `(B,)`.

        One forward pass an utterance, shared with the deletion curve whichever is asked first.
        """
        return self.probe.untouched - self._answers("deletion", fill, [self.probe.count(share)])[0]

    def region_curve(self, fill: str, fractions: Sequence[float]) -> Curve:
        """Spoof log-odds with the regions of the largest sums filled: whole regions, but their valid cells only.

        fractions: shares of the regions, the first one 0; every other is one region at least. Shares that round to one
        number of regions are one question.
        """
        count = self.probe.regions.count
        counts = [max(1, round(share * count)) if share else 0 for share in fractions]
        numbers = sorted(set(counts) - {0})
        asked = torch.tensor(numbers, device=self.on_view.device)

        def ask() -> Tensor:
            ranks = self.probe.region_ranks(self.region_sums).unsqueeze(1)
            return self.probe.ask(lambda part: ~self.probe.regions.mask(ranks < asked[part, None]), len(asked), fill)

        answers = self.kept(f"regions {numbers}", fill, ask)
        every = torch.cat([self.probe.untouched[:, None], answers], dim=1)
        at = torch.searchsorted(asked, torch.tensor(counts, device=asked.device), right=True)
        return Curve(torch.tensor(tuple(fractions), dtype=torch.float64), every[:, at] + self.undefined[:, None])
