"""Linear frequency cepstral coefficients of the NII countermeasures, cut at their power spectrum.

Wang and Yamagishi, "A Comparative Study on Recent Neural Spoofing Countermeasures for Synthetic Speech Detection",
Interspeech 2021 (arXiv 2103.11326), after the baseline of ASVspoof; every constant is that of their code
(`sandbox/util_frontend.py`, `sandbox/util_dsp.py` of nii-yamagishilab/project-NN-Pytorch-scripts):

    y[n] = x[n] - 0.97 x[n-1], y[0] = x[0]
    P[k, t] = |sum_m w[m] y[160 t - 160 + m] exp(-2 pi i k m / 512)|^2      periodic Hamming window w of 320 samples
    b[j, t] = log10(sum_k H[k, j] P[k, t] + eps)                            20 triangles, corners equally spaced, 0-8 kHz
    c[q, t] = sqrt(2 / 20) sum_j b[j, t] cos(pi q (2 j + 1) / 40)           q = 1 ... 19
    c[0, t] = log10(sum_k P[k, t] / 512 + eps)                              the log energy takes the place of q = 0
    d[., t] = c[., t+1] - c[., t-1], and the same again of d                edge frames repeated

Frame t is centred on sample 160 t; outside the waveform there are zeros (not reflections). `eps` is float32's, 1.19e-7.

The cut, the *tap*, is P: the last tensor with physical axes. Cepstra have none, so they belong to the back end, and the log
energy is computed from P there, too: nothing bypasses the tap. P is not a logarithm: where a cell is faint its gradient is
huge (up to 1 / eps), so bare gradients point at silence; products of gradient and input do not.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from xaibench.errors import XaibenchError
from xaibench.types import Axis

SAMPLE_RATE = 16_000  # Hz
N_FFT, WINDOW, HOP = 512, 320, 160  # samples
PRE_EMPHASIS = 0.97
FILTERS = 20
EPSILON = float(np.finfo(np.float32).eps)  # added to powers before their logarithm
BINS = N_FFT // 2 + 1


class PowerSpectrum(nn.Module):
    """Power of the pre-emphasised STFT. Shape: `(B, N)` -> `(B, 1, 257, T)`, T = N // 160 + 1.

    `mean` `(257, 1)` is the training mean of that power (the fill `mean`), zero before `fit`.

    >>> PowerSpectrum()(torch.zeros(2, 32_000)).shape
    torch.Size([2, 1, 257, 201])
    """

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(BINS, 1))

    def forward(self, waveform: Tensor) -> Tensor:
        """Raises XaibenchError unless `waveform` is `(B, N)` with at least one sample."""
        if waveform.ndim != 2 or waveform.shape[1] < 1:
            raise XaibenchError(f"expected waveforms (B, N), got shape {tuple(waveform.shape)}")
        emphasised = torch.cat([waveform[:, :1], waveform[:, 1:] - PRE_EMPHASIS * waveform[:, :-1]], dim=1)
        taper = torch.hamming_window(WINDOW, periodic=True, dtype=waveform.dtype, device=waveform.device)
        spectrum = torch.stft(
            emphasised, N_FFT, HOP, WINDOW, window=taper, center=True, pad_mode="constant", return_complex=True
        )
        return (spectrum.real.square() + spectrum.imag.square()).unsqueeze(1)

    @torch.no_grad()
    def fit(self, waveforms: Tensor) -> None:
        """Set `mean` from training waveforms `(B, N)`."""
        self.mean.copy_(self(waveforms).mean(dim=(0, 1, 3))[:, None])


def axes(n_frames: int) -> tuple[Axis, Axis]:
    """Frequency and time axis of the tap. Cells reach half-way to their neighbours, as on the common grid.

    >>> [len(a) for a in axes(201)]
    [257, 201]
    """
    frequency = np.clip((np.arange(BINS + 1) - 0.5) * SAMPLE_RATE / N_FFT, 0, SAMPLE_RATE / 2)
    time = np.clip((np.arange(n_frames + 1) - 0.5) * HOP / SAMPLE_RATE, 0, None)
    return Axis("frequency", frequency), Axis("time", time)


def triangles() -> np.ndarray:
    """The filter bank H. Shape: `(20, 257)`, float64."""
    bins = np.arange(BINS) * SAMPLE_RATE / N_FFT
    corners = np.linspace(0, SAMPLE_RATE / 2, FILTERS + 2)
    low, centre, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    return np.clip(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0, None)


def cosines() -> np.ndarray:
    """The orthonormal DCT-II. Shape: `(20, 20)`, coefficient first, float64."""
    order, band = np.arange(FILTERS)[:, None], np.arange(FILTERS)[None, :]
    matrix = math.sqrt(2 / FILTERS) * np.cos(np.pi * order * (2 * band + 1) / (2 * FILTERS))
    matrix[0] /= math.sqrt(2)
    return matrix


class Transpose(nn.Module):
    """Swaps the last two dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(-1, -2)


class Constant(nn.Module):
    """A fixed matrix on the last dimension, `(..., I)` -> `(..., O)`: no weight, and no part of a checkpoint."""

    matrix: Tensor

    def __init__(self, matrix: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.tensor(matrix, dtype=torch.get_default_dtype()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.matrix)


class Log10(nn.Module):
    """`log10(max(x, 0) + eps)` of a power: methods that add noise to the tap can make it negative."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.log10(x.masked_fill(x < 0, 0.0) + EPSILON)


class Deltas(nn.Module):
    """Appends delta and delta-delta. Shape: `(B, 1, T, Q)` -> `(B, 1, T, 3 Q)`."""

    def forward(self, x: Tensor) -> Tensor:
        once = self.delta(x)
        return torch.cat([x, once, self.delta(once)], dim=3)

    @staticmethod
    def delta(x: Tensor) -> Tensor:
        """`x[t+1] - x[t-1]`, edge frames repeated. Shape: `(B, 1, T, Q)` -> same."""
        padded = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
        return padded[:, :, 2:] - padded[:, :, :-2]


class Cepstrum(nn.Sequential):
    """Power spectrum `(B, 1, 257, T)` -> `(B, 1, 60, T)`: 20 static, 20 delta, 20 delta-delta coefficients.

    Always in the precision of its input: the differences of logarithms would not survive bfloat16.

    >>> Cepstrum()(torch.ones(1, 1, 257, 10)).shape
    torch.Size([1, 1, 60, 10])
    """

    def __init__(self) -> None:
        # One more row for the energy; it goes through the same logarithm and becomes coefficient 0 by the second matrix.
        bands = np.vstack([triangles(), np.full((1, BINS), 1 / N_FFT)])
        mix = np.zeros((FILTERS, FILTERS + 1))
        mix[1:, :FILTERS] = cosines()[1:]
        mix[0, FILTERS] = 1.0
        super().__init__(Transpose(), Constant(bands), Log10(), Constant(mix), Deltas(), Transpose())

    def forward(self, power: Tensor) -> Tensor:
        with torch.autocast(power.device.type, enabled=False):
            return super().forward(power)
