"""Differentiable front ends: waveform `(B, N)` to a tensor with physical axes `(B, 1, F, T)`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from xaibench.grid import Grid
from xaibench.types import Axis

#: Added to the power before the logarithm. The window sums to 256, so a sine of amplitude a has power (128 a)^2; a
#: white noise floor of -72 dBFS gives about 1.2e-5, a hundred and twenty times this value.
POWER_FLOOR = 1e-7


def whole_band(sample_rate: int) -> Axis:
    """The frequency axis of a tap that resolves time alone: one cell from 0 Hz to Nyquist.

    >>> len(whole_band(16_000))
    1
    """
    return Axis("frequency", np.array([0.0, sample_rate / 2]))


class NormalisedLog(nn.Module):
    """`ln(power + floor)`, per band brought to zero mean and unit deviation over the training set.

    Shape: `(B, N)` -> `(B, 1, F, T)`. With the normalisation inside, 0 is the training mean of that band. A child gives
    `power(waveform (B, N)) -> (B, F, T)`.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, bins: int, *, floor: float = POWER_FLOOR) -> None:
        super().__init__()
        self.floor = floor
        self.register_buffer("mean", torch.zeros(bins, 1))
        self.register_buffer("deviation", torch.ones(bins, 1))

    def power(self, waveform: Tensor) -> Tensor:
        """Power per band and frame. Shape: `(B, N)` -> `(B, F, T)`."""
        raise NotImplementedError

    def log_power(self, waveform: Tensor) -> Tensor:
        """Before normalisation. Shape: `(B, N)` -> `(B, F, T)`, natural logarithm of power."""
        return torch.log(self.power(waveform) + self.floor)

    def forward(self, waveform: Tensor) -> Tensor:
        return ((self.log_power(waveform) - self.mean) / self.deviation).unsqueeze(1)

    @torch.no_grad()
    def fit(self, waveforms: Tensor) -> None:
        """Set the normalisation from training waveforms `(B, N)`."""
        flat = self.log_power(waveforms).transpose(0, 1).flatten(1)
        self.mean.copy_(flat.mean(1, keepdim=True))
        self.deviation.copy_(flat.std(1, keepdim=True).clamp_min(1e-3))


class LogPower(NormalisedLog):
    """`NormalisedLog` of the STFT's power on a grid.

    >>> LogPower(Grid())(torch.zeros(2, 32_000)).shape
    torch.Size([2, 1, 257, 201])
    """

    def __init__(self, grid: Grid, *, floor: float = POWER_FLOOR) -> None:
        super().__init__(grid.n_fft // 2 + 1, floor=floor)
        self.grid = grid

    def power(self, waveform: Tensor) -> Tensor:
        spectrum = self.grid.stft(waveform)
        return spectrum.real.square() + spectrum.imag.square()
