"""What the two raw-waveform countermeasures share: the tap, which is the waveform itself, and the fixed sinc filters.

The tap is `(B, 1, 1, N)`: one channel, one frequency cell, N samples. Frequency is not an axis of it; a map over it is
over time alone.

The filters are those of the authors of both networks (SincConv of the ASVspoof 2021 baseline, CONV of AASIST): band-pass
filters between edges equally spaced on the mel scale from 0 Hz to Nyquist, an ideal band-pass of `length` taps (forced
odd) times a Hamming window. Unlike SincNet (Ravanelli and Bengio, SLT 2018, arXiv 1808.00158) they are not learned, so
they are computed, not stored.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from xaibench.frontends import whole_band
from xaibench.types import Axis

#: Settings of training that leave the waveform nearly as it is. EER on dev, seen vocoders: with masks and a response of 3 dB
#: RawNet2 stood at 22 % after 24 epochs and AASIST-L at 53 % after 4; with these, at 14 % after 8 and at 45 % after 4.
GENTLE = {"equaliser_db": 1.0, "frequency_mask": 0, "time_mask": 0}

#: From how many taps the filters are applied by FFT. On one core and 16 excerpts of one second, direct convolution and FFT
#: take 0.11 and 0.12 s for 70 filters of 129 taps, 0.115 and 0.011 s for 20 filters of 1025.
FFT_FROM_TAPS = 512


class Waveform(nn.Module):
    """The front end of a network that reads samples: it only adds axes. Shape: `(B, N)` -> `(B, 1, 1, N)`."""

    def forward(self, waveform: Tensor) -> Tensor:
        return waveform[:, None, None, :]


class WaveformCountermeasure(nn.Module):
    """The waveform, then `backend`. Shape: `(B, N)` -> `(B, 2)`, classes spoof, bonafide."""

    sample_rate = 16_000  # Hz
    classes = ("spoof", "bonafide")
    resolves = frozenset({"time"})

    def __init__(self, n_samples: int, backend: nn.Module) -> None:
        super().__init__()
        self.n_samples = n_samples
        self.frontend = Waveform()
        self.backend = backend

    def forward(self, waveform: Tensor) -> Tensor:
        return self.backend(self.frontend(waveform))

    @property
    def axes(self) -> tuple[Axis, Axis]:
        return whole_band(self.sample_rate), Axis("time", np.arange(self.n_samples + 1) / self.sample_rate)

    @property
    def mean_tap(self) -> Tensor:
        return torch.zeros(1, 1, 1, 1, device=next(self.backend.parameters()).device)


def mel_edges(count: int, sample_rate: int) -> np.ndarray:
    """`count + 1` frequencies in Hz from 0 to Nyquist, equally spaced on the mel scale `2595 log10(1 + f / 700)`.

    >>> mel_edges(2, 16_000).round().tolist()
    [0.0, 1768.0, 8000.0]
    """
    mel = np.linspace(0.0, 2595 * np.log10(1 + sample_rate / 2 / 700), count + 1)
    return 700 * (10 ** (mel / 2595) - 1)


def sinc_filters(count: int, length: int, sample_rate: int) -> Tensor:
    """Windowed band-pass filters. Shape: `(count, length)`, `length + 1` taps if `length` is even; float32.

    >>> sinc_filters(70, 128, 16_000).shape
    torch.Size([70, 129])
    """
    length += 1 - length % 2
    n = np.arange(length) - (length - 1) / 2
    # the ideal low-pass with its edge at f: h(n) = 2 f / fs sinc(2 f n / fs)
    edges = 2 * mel_edges(count, sample_rate)[:, None] / sample_rate
    low_pass = edges * np.sinc(edges * n)
    return torch.from_numpy(np.diff(low_pass, axis=0) * np.hamming(length)).float()


class Sinc(nn.Module):
    """The fixed filter bank, without padding. Shape: `(B, 1, 1, N)` -> `(B, 1, filters, N - taps + 1)`.

    filter_mask: in training up to this many neighbouring filters less one are silenced, others in every batch
        (`Freq_aug` of the authors of AASIST, who use 20 and leave it off in their configurations).

    Always in float32, whatever the autocast. Long filters are applied by FFT, equal up to rounding.
    """

    filters: Tensor

    def __init__(self, count: int, length: int, *, sample_rate: int = 16_000, filter_mask: int = 0) -> None:
        super().__init__()
        self.filter_mask = filter_mask
        # Three dimensions, so that a change of memory format leaves it alone; not in the checkpoint: it is derived.
        self.register_buffer("filters", sinc_filters(count, length, sample_rate)[:, None], persistent=False)

    def drawn_filters(self) -> Tensor:
        """The filters, in training with a random run of them silenced. Shape: `(filters, 1, taps)`."""
        if not self.training or self.filter_mask < 2:
            return self.filters
        width = int(torch.randint(self.filter_mask, ()))
        start = int(torch.randint(len(self.filters) - width + 1, ()))
        index = torch.arange(len(self.filters), device=self.filters.device)
        silenced = (index >= start) & (index < start + width)
        return self.filters.masked_fill(silenced[:, None, None], 0.0)

    def forward(self, tap: Tensor) -> Tensor:
        with torch.autocast(tap.device.type, enabled=False):
            filters, x = self.drawn_filters(), tap[:, 0].float()
            taps = filters.shape[-1]
            if taps < FFT_FROM_TAPS:
                return nn.functional.conv1d(x, filters).unsqueeze(1)
            size = fast_length(x.shape[-1])
            # A circular convolution of N points is wrong in its first `taps - 1` samples only, which padding would have
            # made; torch's convolution is a correlation, hence the conjugate, which moves the wrong ones to the end.
            spectrum = torch.fft.rfft(x, size) * torch.fft.rfft(filters[:, 0], size).conj()
            return torch.fft.irfft(spectrum, size)[..., : x.shape[-1] - taps + 1].unsqueeze(1)


def fast_length(n: int) -> int:
    """The smallest length of an FFT from `n` on with no prime factor above 5.

    >>> fast_length(31_877)
    32000
    """
    best = 1 << (n - 1).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            two = three
            while two < n:
                two *= 2
            best = min(best, two)
            three *= 3
        five *= 5
    return best
