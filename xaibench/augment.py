"""What training does to its excerpts, so that a countermeasure learns the vocoder and not the recording.

Level, noise, a smooth frequency response, time and frequency masks (SpecAugment, Park et al., Interspeech 2019, arXiv
1904.08779), and RawBoost (Tak et al., ICASSP 2022). The response and the masks work on the log spectrum where that is the
tap, and on the complex STFT of the waveform otherwise: a raw-waveform model sees the same changes as a spectrogram model.
Every function draws from the generator it is given.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from xaibench.grid import Grid

GRID = Grid()
#: Sizes of masks are given for this many bins and frames (257 x 201: two seconds on the common grid) and scale with the tap.
BINS, FRAMES = GRID.shape(2 * GRID.sample_rate)
#: Knots of the random frequency response between 0 Hz and Nyquist.
KNOTS = 8


def level_and_noise(x: Tensor, *, gain_db: float, noise_db: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Level uniform in +- `gain_db` and, for half of the samples, white noise at `noise_db` re full scale. `(B, N)`."""
    gain = (torch.rand(len(x), 1, generator=generator) * 2 - 1) * gain_db
    low, high = noise_db
    level = torch.rand(len(x), 1, generator=generator) * (high - low) + low
    on = (torch.rand(len(x), 1, generator=generator) < 0.5).float()
    noise = torch.randn(x.shape, generator=generator)
    return x * 10 ** (gain / 20) + on * noise * 10 ** (level / 20)


def _response(batch: int, bins: int, decibels: float, generator: torch.Generator) -> Tensor:
    """A smooth random curve in natural logarithm of power. Shape: `(B, bins)`."""
    knots = torch.randn(batch, 1, KNOTS, generator=generator) * decibels * math.log(10) / 10
    return nn.functional.interpolate(knots, size=bins, mode="linear", align_corners=True)[:, 0]


def _masks(batch: int, size: int, longest: float, generator: torch.Generator) -> Tensor:
    """Two random stretches of up to `longest` cells each. Shape: `(B, size)` bool, True where hidden."""
    hidden = torch.zeros(batch, size, dtype=torch.bool)
    position = torch.arange(size)
    for _ in range(2):
        width = torch.rand(batch, 1, generator=generator) * longest
        start = torch.rand(batch, 1, generator=generator) * (size - width)
        hidden |= (position >= start) & (position < start + width)
    return hidden


def log_spectrum(
    z: Tensor, deviation: Tensor, *, equaliser_db: float, frequency_mask: int, time_mask: int, generator: torch.Generator
) -> Tensor:
    """Response and masks on a normalised log-power tap, whose training mean is 0. Shape: `(B, 1, F, T)` -> same.

    deviation `(F, 1)`: what one unit of the tap is in natural logarithm of power, per frequency.
    """
    batch, _, bins, frames = z.shape
    z = z + (_response(batch, bins, equaliser_db, generator)[:, :, None] / deviation)[:, None]
    z = z.masked_fill(_masks(batch, bins, frequency_mask * bins / BINS, generator)[:, None, :, None], 0.0)
    return z.masked_fill(_masks(batch, frames, time_mask * frames / FRAMES, generator)[:, None, None, :], 0.0)


def spectrum(x: Tensor, *, equaliser_db: float, frequency_mask: int, time_mask: int, generator: torch.Generator) -> Tensor:
    """Response and masks on the STFT of waveforms; hidden cells are silent. Shape: `(B, N)` -> same."""
    z = GRID.stft(x)
    batch, bins, frames = z.shape
    gain = (_response(batch, bins, equaliser_db, generator) / 2).exp()
    gain = gain.masked_fill(_masks(batch, bins, frequency_mask, generator), 0.0)
    kept = (~_masks(batch, frames, time_mask * frames / FRAMES, generator)).float()
    return GRID.istft(z * gain[:, :, None] * kept[:, None, :], x.shape[1])


def rawboosted(x: Tensor, algorithm: int, sample_rate: int, draw: np.random.Generator) -> Tensor:
    """RawBoost on every sample of a batch; `algorithm` as in `xaibench.rawboost`, 0 is none. Shape: `(B, N)` -> same."""
    if algorithm == 0:
        return x
    from xaibench.rawboost import rawboost

    changed = [rawboost(row, sample_rate, algorithm, draw) for row in x.double().numpy()]
    return torch.from_numpy(np.stack(changed)).to(x.dtype)
