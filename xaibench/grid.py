"""The common STFT geometry: every score of the benchmark is taken on one `Grid`.

Frame `t` is centred on sample `t * hop` (centred, reflect-padded STFT), bin `k` on `k * sample_rate / n_fft` Hz. A cell
reaches half-way to its neighbours, so cells tile the plane from 0 Hz to Nyquist and from 0 s to half a hop after the
last frame.

Resynthesis is exact to rounding. With a hop of n_fft/2 and a window that falls to zero (hann, blackman) the last samples
are seen by the very edge of one frame only, and rounding grows there: up to 1e-2 of the peak in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xaibench.errors import XaibenchError
from xaibench.types import Axis


@dataclass(frozen=True)
class Grid:
    """STFT geometry. `window` is the name of a periodic torch window ("hann", "hamming", "blackman").

    >>> grid = Grid()
    >>> grid.shape(32_000)
    (257, 201)
    >>> x = torch.randn(1, 32_000)
    >>> bool(torch.allclose(grid.istft(grid.stft(x), 32_000), x, atol=1e-5))
    True
    """

    sample_rate: int = 16_000
    n_fft: int = 512
    hop: int = 160
    window: str = "hann"

    def __post_init__(self) -> None:
        if self.n_fft < 2 or self.n_fft % 2:
            raise XaibenchError(f"n_fft must be even and at least 2, got {self.n_fft}")
        if not 0 < self.hop <= self.n_fft // 2:
            raise XaibenchError(f"hop must lie in 1..n_fft/2 = {self.n_fft // 2} to allow resynthesis, got {self.hop}")
        if self.window not in ("hann", "hamming", "blackman"):
            raise XaibenchError(f"window must be hann, hamming or blackman, got {self.window!r}")

    def taper(self, like: Tensor) -> Tensor:
        """The window `(n_fft,)` on the device and in the (real) precision of `like`."""
        make = getattr(torch, f"{self.window}_window")
        return make(self.n_fft, periodic=True, dtype=like.dtype.to_real(), device=like.device)

    def shape(self, n_samples: int) -> tuple[int, int]:
        """`(F, T)` of a waveform of `n_samples`."""
        return self.n_fft // 2 + 1, n_samples // self.hop + 1

    def stft(self, waveform: Tensor) -> Tensor:
        """Complex STFT. Shape: `(B, N)` -> `(B, F, T)`. Raises XaibenchError below n_fft/2 + 1 samples."""
        if waveform.ndim != 2:
            raise XaibenchError(f"expected waveforms (B, N), got shape {tuple(waveform.shape)}")
        if waveform.shape[1] <= self.n_fft // 2:
            raise XaibenchError(
                f"{waveform.shape[1]} samples are too few for an STFT of n_fft = {self.n_fft}: at least "
                f"{self.n_fft // 2 + 1} are needed"
            )
        return torch.stft(
            waveform, self.n_fft, self.hop, window=self.taper(waveform), center=True, pad_mode="reflect",
            return_complex=True,
        )  # fmt: skip

    def istft(self, spectrum: Tensor, n_samples: int) -> Tensor:
        """Inverse of `stft`. Shape: `(B, F, T)` -> `(B, n_samples)`."""
        return torch.istft(spectrum, self.n_fft, self.hop, window=self.taper(spectrum), center=True, length=n_samples)

    @property
    def frequency(self) -> Axis:
        """The frequency axis: F cells in Hz."""
        step = self.sample_rate / self.n_fft
        edges = (np.arange(self.n_fft // 2 + 2) - 0.5) * step
        return Axis("frequency", np.clip(edges, 0, self.sample_rate / 2))

    def time(self, n_samples: int) -> Axis:
        """The time axis: T cells in seconds."""
        frames = self.shape(n_samples)[1]
        edges = (np.arange(frames + 1) - 0.5) * self.hop / self.sample_rate
        edges[0] = 0.0
        return Axis("time", edges)

    def band(self, low: float, high: float) -> np.ndarray:
        """Which bins have their centre within `[low, high]` Hz. Shape: `(F,)` bool."""
        centres = np.arange(self.n_fft // 2 + 1) * self.sample_rate / self.n_fft
        inside = (centres >= low) & (centres <= high)
        if not inside.any():
            raise XaibenchError(f"no bin of {self} lies between {low} and {high} Hz")
        return inside
