"""Differentiable front ends: waveform `(B, N)` to a tensor with physical axes `(B, 1, F, T)`."""

from __future__ import annotations

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
    return Axis("frequency", [0.0, sample_rate / 2])


class LogPower(nn.Module):
    """`ln(|STFT|^2 + floor)`, per frequency brought to zero mean and unit deviation over the training set.

    Shape: `(B, N)` -> `(B, 1, F, T)`. With the normalisation inside, 0 is the training mean of that frequency.

    >>> LogPower(Grid())(torch.zeros(2, 32_000)).shape
    torch.Size([2, 1, 257, 201])
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, grid: Grid, *, floor: float = POWER_FLOOR) -> None:
        super().__init__()
        self.grid = grid
        self.floor = floor
        bins = grid.n_fft // 2 + 1
        self.register_buffer("mean", torch.zeros(bins, 1))
        self.register_buffer("deviation", torch.ones(bins, 1))

    def log_power(self, waveform: Tensor) -> Tensor:
        """Before normalisation. Shape: `(B, N)` -> `(B, F, T)`, natural logarithm of power."""
        spectrum = self.grid.stft(waveform)
        return torch.log(spectrum.real.square() + spectrum.imag.square() + self.floor)

    def forward(self, waveform: Tensor) -> Tensor:
        return ((self.log_power(waveform) - self.mean) / self.deviation).unsqueeze(1)

    @torch.no_grad()
    def fit(self, waveforms: Tensor) -> None:
        """Set the normalisation from training waveforms `(B, N)`."""
        flat = self.log_power(waveforms).transpose(0, 1).flatten(1)
        self.mean.copy_(flat.mean(1, keepdim=True))
        self.deviation.copy_(flat.std(1, keepdim=True).clamp_min(1e-3))
