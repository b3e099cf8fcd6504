"""The planted artefact: during one stretch of time, one band of a recording is lowered 25 times a second.

    y = x - (1 - g) w(t) p(t) b(t),     g = 10^(-DEPTH / 20),     p(t) = (1 - cos(2 pi t / PULSE)) / 2

b is x within the band (linear-phase band-pass, its delay removed); w is 1 during the stretch and rises and falls over 10 ms
(raised cosine) within it; p counts from the stretch's start. So y is aligned with x and of its length; outside the stretch
it is x itself, sample for sample, and during it every frequency passes but those of the band and the skirts of the filter
(about 50 Hz).

Why it pulses: a notch that stays for the whole stretch is only seen against what surrounds it, so a network may listen to
its edges alone, and no cell within it says anything by itself. A fluctuation of 40 ms, which speech hardly has, can be
heard at every place of the rectangle and of nothing else. And the rectangle is only 4 dB softer on average: where a
steady notch of 20 dB falls into a pause it is the quietest place of the recording, which the control `inverse-energy`
finds (rank accuracy 0.37 against 0.10 here, chance 0.05).

The rectangle is 1,100 Hz by 35 % of the recording: 5.5 % of the cells between 90 and 7,000 Hz, a little more than the 5 %
that the benchmark takes for truth. Where it lies is drawn from a hash of the samples, uniformly: band and time are
independent of each other, of the speaker and of the name, so that no prior can know them.

Waveforms are `(N,)` floats in [-1, 1].
"""

from __future__ import annotations

import hashlib

import numpy as np
import scipy.signal

from xaibench.errors import AudioError
from xaibench.protocols import Vocoder

DEPTH = 20.0  # dB by which the band is lowered at the bottom of a pulse
PULSE = 0.040  # s from one pulse to the next: four frames of the benchmark's grid
WIDTH = 1_100.0  # Hz
SHARE = 0.35  # of the recording's length
LOWEST, HIGHEST = 500.0, 6_500.0  # Hz, between which the band lies
FADE_SECONDS = 0.010  # at both ends of the stretch, within it
TAPS = 1_023  # of the band-pass: 64 ms at 16 kHz


def _checked(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    x = np.asarray(waveform, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2 * TAPS:
        raise AudioError(f"planted-notch: got a waveform of shape {x.shape}, expected (N,) with N >= {2 * TAPS}")
    if sample_rate <= 2 * HIGHEST:
        raise AudioError(f"planted-notch: sampled at {sample_rate} Hz, expected more than {2 * HIGHEST:.0f} Hz; resample it")
    if not np.isfinite(x).all():
        raise AudioError(f"planted-notch: {np.count_nonzero(~np.isfinite(x))} samples are NaN or infinite")
    return x


def planted_rectangle(waveform: np.ndarray, sample_rate: int) -> tuple[float, float, float, float]:
    """Where `notch` lowers this recording: start and end in s, low and high edge in Hz.

    Drawn from sha256 of the samples rounded to 16 bit, so a recording and its 16-bit file have one rectangle. Raises
    AudioError as `notch` does.

    >>> start, end, low, high = planted_rectangle(np.sin(np.arange(32_000.0)), 16_000)
    >>> round(end - start, 9), round(high - low, 9), 0 <= start < end <= 2, 500 <= low < high <= 6_500
    (0.7, 1100.0, True, True)
    """
    x = _checked(waveform, sample_rate)
    digest = hashlib.sha256(np.rint(x * 32768).astype("<i4").tobytes()).digest()
    across, along = (int.from_bytes(part) / 2**64 for part in (digest[:8], digest[8:16]))
    seconds = len(x) / sample_rate
    start = along * (1 - SHARE) * seconds
    low = LOWEST + across * (HIGHEST - WIDTH - LOWEST)
    return start, start + SHARE * seconds, low, low + WIDTH


def notch(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """The recording with a pulsed notch in its rectangle. `(N,)` -> `(N,)` float64; same input, same output.

    Raises AudioError for a waveform that is not `(N,)`, finite and twice as long as the filter, or sampled below 13 kHz.
    """
    x = _checked(waveform, sample_rate)
    start, end, low, high = planted_rectangle(x, sample_rate)
    band_pass = scipy.signal.firwin(TAPS, [low, high], fs=sample_rate, pass_zero=False)
    band = scipy.signal.fftconvolve(np.pad(x, TAPS // 2, mode="reflect"), band_pass, mode="valid")
    first, last = round(start * sample_rate), round(end * sample_rate)
    fades = scipy.signal.windows.tukey(last - first, 2 * FADE_SECONDS * sample_rate / (last - first))
    pulses = 0.5 * (1 - np.cos(2 * np.pi * np.arange(last - first) / (PULSE * sample_rate)))
    y = x.copy()
    y[first:last] -= (1 - 10 ** (-DEPTH / 20)) * fades * pulses * band[first:last]
    return y


planted_notch = Vocoder(name="planted-notch", paper="none: a planted artefact whose place is known", function=notch)
