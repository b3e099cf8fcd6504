"""Evidence about maps on the toys' views, and a countermeasure that keeps what it was asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from toys import BAND, GRID, N_SAMPLES, SHAPE, truth_of

from xaibench.metrics.evidence import Evidence, Probe
from xaibench.types import Attribution
from xaibench.view import View

COUNT = 3
FRACTIONS = (0.05, 0.2, 0.5, 0.9)
FILLS = ("silence", "mean", "twin")
ALL = torch.ones(SHAPE, dtype=torch.bool)
VALID = torch.from_numpy(GRID.band(*BAND))[:, None].expand(SHAPE).contiguous()

every_fill = pytest.mark.parametrize("fill", FILLS)


class Recorder(nn.Module):
    """Keeps every input that reaches a countermeasure."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.inputs = model, []

    def forward(self, inputs: Tensor) -> Tensor:
        self.inputs.append(inputs.clone())
        return self.model(inputs)

    @property
    def utterances(self) -> int:
        return sum(len(x) for x in self.inputs)


def noise(count: int = COUNT, seed: int = 0) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def evidence(view: View, values: Tensor, *, valid: Tensor = VALID, fractions: tuple = FRACTIONS, side: int = 9) -> Evidence:
    attribution = Attribution(values, GRID.frequency, GRID.time(N_SAMPLES))
    return Evidence(attribution, values, truth_of(len(view)), Probe(view, valid, fractions, side=side))


def recorded(view: View, **changes: object) -> tuple[Recorder, View]:
    """The view, and what its countermeasure will have been asked."""
    recorder = Recorder(view.model)
    return recorder, replace(view, model=recorder, **changes)
