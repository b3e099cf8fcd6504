"""A differentiable constant-Q front end: waveform `(B, N)` -> log power on a geometric frequency axis `(B, 1, F, T)`.

The centres are `f_k = f_min 2^(k / b)`, b bins an octave (Brown, JASA 89(1), 1991). Each band is cut out of one Fourier
transform of the whole excerpt, as in the non-stationary Gabor form of the transform (Velasco et al., DAFx 2011; Schoerkhuber
et al., AES 2014), by a Hann window over frequency:

    H_k(f) = 1/2 + 1/2 cos(pi (f - f_k) / W_k)   for |f - f_k| < W_k = 2 f_k / Q,   Q = 1 / (2^(1/b) - 1)

as wide as the main lobe of Brown's Hann window of Q cycles, and zero outside: no band hears what is far away. In time it
spans +-1 / W_k (0.18 s at 62.5 Hz, 1.6 ms at 7 kHz, for b = 16). The inverse transform of so narrow a slice is the complex
envelope, a few samples a frame. A frame is its *mean* power over one hop around the frame's centre (trapezoid rule), not one
sample of it: above 1 kHz the kernels are shorter than the hop, and samples would leave gaps in time that no band sees.

Unit: a steady sine of amplitude a at a centre has power a^2 in that bin. Edges are mirrored by `lead` frames, in which the
kernels of the lowest bands end; frame t is centred on sample t * hop, as in `xaibench.grid`. What lies above the last bin
(7.18 kHz as built) the front end does not hear.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from xaibench.errors import XaibenchError
from xaibench.frontends import NormalisedLog
from xaibench.types import Axis

#: Added to the power before the logarithm: a sine of -120 dBFS. White noise of -72 dBFS gives 6e-11 in the lowest band.
POWER_FLOOR = 1e-12


@dataclass(frozen=True)
class ConstantQ:
    """The geometry. Raises XaibenchError for bands that reach beyond the Nyquist frequency, or sizes without meaning.

    >>> cq = ConstantQ()
    >>> cq.shape(32_000), round(float(cq.centres[-1]))
    ((110, 201), 7025)
    """

    sample_rate: int = 16_000
    hop: int = 160
    f_min: float = 62.5
    bins_per_octave: int = 16
    bins: int = 110

    def __post_init__(self) -> None:
        if self.hop < 1 or self.hop % 2 or self.bins < 1 or self.bins_per_octave < 4 or not self.f_min > 0:
            raise XaibenchError(f"a constant-Q axis needs an even hop, f_min > 0, bins_per_octave >= 4 and bins, got {self}")
        top = float(self.centres[-1] + self.half_widths[-1])
        if top > self.sample_rate / 2:
            raise XaibenchError(f"the last band of {self} reaches {top:.0f} Hz, beyond Nyquist; use fewer bins")

    @property
    def centres(self) -> np.ndarray:
        """Centre of each band in Hz. Shape: `(F,)`."""
        return self.f_min * 2.0 ** (np.arange(self.bins) / self.bins_per_octave)

    @property
    def half_widths(self) -> np.ndarray:
        """W_k in Hz: from its centre to where a band ends. Shape: `(F,)`."""
        return 2 * self.centres * (2.0 ** (1 / self.bins_per_octave) - 1)

    @property
    def lead(self) -> int:
        """Frames mirrored at either end: as far as the main lobe of the lowest band reaches."""
        return int(np.ceil(self.sample_rate / self.half_widths[0] / self.hop)) + 1

    @property
    def axis(self) -> Axis:
        """The frequency axis: edges at the geometric means of neighbouring centres."""
        half = 2.0 ** (0.5 / self.bins_per_octave)
        return Axis("frequency", np.append(self.centres / half, self.centres[-1] * half))

    def shape(self, n_samples: int) -> tuple[int, int]:
        """`(F, T)` of a waveform of `n_samples`."""
        return self.bins, n_samples // self.hop + 1

    def time(self, n_samples: int) -> Axis:
        """The time axis: T cells in seconds, those of `xaibench.grid.Grid` with the same hop."""
        edges = (np.arange(self.shape(n_samples)[1] + 1) - 0.5) * self.hop / self.sample_rate
        edges[0] = 0.0
        return Axis("time", edges)

    def frames(self, n_samples: int) -> int:
        """Frames of the mirrored excerpt; the Fourier transform is this many hops long.

        Up to a number without prime factors above 5: two seconds would take 241, a prime, and twice the time.
        """
        count = self.shape(n_samples)[1] + 2 * self.lead
        while 60**12 % count:
            count += 1
        return count

    def power(self, waveform: Tensor) -> Tensor:
        """Mean power in every cell. Shape: `(B, N)` -> `(B, F, T)`. Raises XaibenchError for too short a waveform."""
        if waveform.ndim != 2:
            raise XaibenchError(f"expected waveforms (B, N), got shape {tuple(waveform.shape)}")
        n_samples, pad = waveform.shape[1], self.lead * self.hop
        longest = self.frames(n_samples) * self.hop
        after = longest - pad - n_samples
        if n_samples <= max(pad, after):
            raise XaibenchError(
                f"{n_samples} samples are too few for {self}: its longest kernel needs more than {max(pad, after)}"
            )
        mirrored = nn.functional.pad(waveform[:, None], (pad, after), mode="reflect")[:, 0]
        spectrum = torch.fft.rfft(mirrored)
        parts = []
        for rate, at, window in _bands(self, n_samples, waveform.dtype, waveform.device):
            envelope = torch.fft.ifft(spectrum[:, at] * window)
            power = envelope.real.square() + envelope.imag.square()
            frames = self.shape(n_samples)[1]
            first = self.lead * rate - rate // 2  # half a hop before the first frame's centre
            if rate == 1:
                parts.append(power[..., first : first + frames])
                continue
            power = power[..., first : first + frames * rate + 1]
            parts.append(((power[..., :-1] + power[..., 1:]) / 2).unflatten(-1, (frames, rate)).mean(-1))
        return torch.cat(parts, dim=1)


@lru_cache(maxsize=16)
def _bands(
    cq: ConstantQ, n_samples: int, dtype: torch.dtype, device: torch.device
) -> tuple[tuple[int, Tensor, Tensor], ...]:
    """Per group of bands with one rate: envelope samples a frame, Fourier bins `(K, P)` and their weights `(K, P)`.

    The rate is the least power of two at which the slice, 2 W_k wide, fits the P = rate * frames samples of its inverse
    transform. The envelope is taken down by a whole number of Fourier bins near f_k, which power does not notice.
    """
    length = cq.frames(n_samples) * cq.hop
    step = cq.sample_rate / length
    rates = 2 ** np.ceil(np.log2(np.maximum(2 * cq.half_widths * cq.hop / cq.sample_rate, 1))).astype(int)
    groups = []
    for rate in np.unique(rates):
        chosen = rates == rate
        centres, widths = cq.centres[chosen, None], cq.half_widths[chosen, None]
        size = int(rate) * cq.frames(n_samples)
        at = np.rint(centres / step).astype(int) + np.arange(size) - size // 2
        distance = (at * step - centres) / widths
        window = np.where(np.abs(distance) < 1, 0.5 + 0.5 * np.cos(np.pi * distance), 0.0)
        # 2 / length: rfft of a sine of amplitude a peaks at a * length / 2; size: ifft divides by it
        window *= 2 * size / length
        with torch.inference_mode(False):  # kept for later calls, which may need gradients through them
            groups.append(
                (
                    int(rate),
                    torch.from_numpy(at.clip(0, length // 2)).to(device),  # out of range only where the weight is 0
                    torch.from_numpy(window).to(device=device, dtype=dtype),
                )
            )
    return tuple(groups)


class LogCQT(NormalisedLog):
    """`NormalisedLog` of the constant-Q power. Shape: `(B, N)` -> `(B, 1, F, T)`.

    >>> LogCQT(ConstantQ())(torch.zeros(2, 32_000)).shape
    torch.Size([2, 1, 110, 201])
    """

    def __init__(self, geometry: ConstantQ, *, floor: float = POWER_FLOOR) -> None:
        super().__init__(geometry.bins, floor=floor)
        self.geometry = geometry

    @property
    def axis(self) -> Axis:
        """The frequency axis of the tap."""
        return self.geometry.axis

    def power(self, waveform: Tensor) -> Tensor:
        return self.geometry.power(waveform)
