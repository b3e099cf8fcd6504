"""What countermeasures on the benchmark's log-power spectrogram share: everything but the network behind it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xaibench.frontends import LogPower
from xaibench.grid import Grid
from xaibench.types import Axis


class SpectrogramCountermeasure(nn.Module):
    """Log power on `grid`, then `backend`. Shape: `(B, N)` -> `(B, 2)`, classes spoof, bonafide."""

    sample_rate = 16_000  # Hz
    classes = ("spoof", "bonafide")

    def __init__(self, grid: Grid, n_samples: int, backend: nn.Module) -> None:
        super().__init__()
        self.grid, self.n_samples = grid, n_samples
        self.frontend = LogPower(grid)
        self.backend = backend

    def forward(self, waveform: Tensor) -> Tensor:
        return self.backend(self.frontend(waveform))

    @property
    def axes(self) -> tuple[Axis, Axis]:
        return self.grid.frequency, self.grid.time(self.n_samples)

    @property
    def mean_tap(self) -> Tensor:
        return torch.zeros_like(self.frontend.mean)[None, None]
