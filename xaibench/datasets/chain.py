"""The processing chain, the same for bona fide and vocoded versions, so that it cannot tell them apart.

`prepare` -> [vocoder] -> `finish`. Waveforms are `(N,)` at 16 kHz. All versions of an utterance get the same noise
samples (they cancel in differences of the complex spectrum), the same polarity and the same gain. minivoc was made by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import scipy.signal

SAMPLE_RATE = 16_000  # Hz
LEVEL = 10 ** (-30 / 20)  # RMS: -30 dBFS
NOISE = 10 ** (-72 / 20)  # RMS: -72 dBFS
PEAK = 0.7  # before the vocoder
TAPS = 255  # of the linear-phase low-pass
PASS_BAND = (90.0, 7000.0)  # Hz; outside there is only filtered residue and common noise
LOW_PASS = scipy.signal.firwin(TAPS, 7000, fs=SAMPLE_RATE)
HIGH_PASS = scipy.signal.butter(4, 90, "high", fs=SAMPLE_RATE, output="sos")  # run forth and back: zero phase
FADE_SECONDS = 0.010  # at each end
CEILING = 0.98


def seed_of(text: str) -> int:
    """The first 32 bits of sha256: a seed that does not depend on the machine."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def prepare(x: np.ndarray) -> np.ndarray:
    """Mean removed, peak 0.7. Raises ValueError for less than a second or for silence."""
    if len(x) < SAMPLE_RATE or np.sqrt((x**2).mean()) < 1e-4:
        raise ValueError(f"{len(x)} samples, RMS {np.sqrt((x**2).mean()):.2g}: expected at least a second of speech")
    x = x - x.mean()
    return x / np.abs(x).max() * PEAK


def filtered(y: np.ndarray) -> np.ndarray:
    """High-pass 90 Hz, low-pass 7 kHz, 10 ms edge fades, RMS -30 dBFS. `(N,)` -> `(N,)` float64."""
    y = scipy.signal.sosfiltfilt(HIGH_PASS, y.astype(np.float64))
    y = np.convolve(np.pad(y, TAPS // 2, mode="reflect"), LOW_PASS, "valid")
    y = y * scipy.signal.windows.tukey(len(y), min(1, 2 * FADE_SECONDS * SAMPLE_RATE / len(y)))
    return y * (LEVEL / np.sqrt((y**2).mean() + 1e-12))


def finish(versions: Mapping[str, np.ndarray], utterance: str) -> dict[str, np.ndarray]:
    """`{version: (N,) float}` -> `{version: (N,) int16}`. Noise and polarity are drawn from the utterance's name.

    Raises ValueError for a version that is not finite, or louder or softer than the bona fide one by more than 20 dB.
    """
    reference = versions["bonafide"]
    for name, y in versions.items():
        if not np.isfinite(y).all() or not 0.1 < y.std() / reference.std() < 10:
            raise ValueError(f"{name} of {utterance}: standard deviation {y.std():.3g}, bona fide {reference.std():.3g}")
    seed = seed_of(utterance)
    sign = 1 - 2 * (seed >> 7 & 1)
    noise = np.random.RandomState(seed).randn(len(reference)) * NOISE
    done = {name: filtered(sign * y) + noise for name, y in versions.items()}
    gain = min(1, CEILING / max(np.abs(y).max() for y in done.values()))
    return {name: np.round(y * gain * 32767).astype(np.int16) for name, y in done.items()}
