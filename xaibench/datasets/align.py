"""How late a vocoded recording is against its bona fide twin, in samples.

Sign: `lag > 0` means that the spoof is late, `spoof[n + lag]` belongs to `bonafide[n]`.

Vocoders do not keep phases, so waveforms of twins need not correlate at the true lag, and where they do, the strongest peak
can lie a pitch period away. The estimate therefore has two steps. First the log-mel spectra, which every vocoder keeps, are
correlated at a hop of 2 ms, and the peak is refined by a parabola. Then, within 1.5 ms of it, the waveforms are: a
normalised correlation above `TRUSTED` (a delayed copy, a phase-true vocoder) gives the lag to the sample. Without it, an
estimate below a millisecond is reported as 0, for that is within the error of the first step.

Reference: the generalised cross-correlation of C. Knapp and G. Carter, "The generalized correlation method for estimation of
time delay", IEEE Trans. ASSP 24(4), 1976, on log-mel features instead of waveforms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy.fft

HOP_SECONDS = 0.002
WINDOW_SECONDS = 0.020
BANDS = 24  # mel bands from 100 Hz to 0.9 of half the sample rate
NEAR_SECONDS = 0.0015  # how far the waveform's peak may lie from that of the spectra: less than a pitch period
TRUSTED = 0.6  # normalised waveform correlation; phase-scrambled noise of a second stays far below
WITHIN_ERROR = 0.001  # s: largest error of the log-mel estimate seen on aligned vocoded twins
LONGEST_SECONDS = 3.0  # what is looked at: the loudest this long; more would not move the estimate
TWINS = 0.6  # log-mel correlation: vocoded twins measured 0.91 and more, recordings of other utterances 0.46 and less
FLOOR_DB = 50.0  # frames and bands more than this below the loudest count as silence


@dataclass(frozen=True)
class Lag:
    """samples: how late the spoof is; likeness: correlation of the log-mel spectra there, -1 to 1, NaN if undefined."""

    samples: int
    likeness: float


def lag(bonafide: np.ndarray, spoof: np.ndarray, sample_rate: int, *, most: float = 0.05) -> int:
    """Samples by which `spoof` `(M,)` is late against `bonafide` `(N,)`, within `most` seconds either way.

    0 for a pair too short to tell (less than two windows, 40 ms) or silent.

    >>> click = np.random.RandomState(0).randn(16_000) * np.hanning(16_000)
    >>> lag(click, np.concatenate([np.zeros(37), click]), 16_000)
    37
    """
    return measure(bonafide, spoof, sample_rate, most=most).samples


def measure(bonafide: np.ndarray, spoof: np.ndarray, sample_rate: int, *, most: float = 0.05) -> Lag:
    """`lag`, with the likeness of the two recordings at it. Below `TWINS` they are hardly the same utterance."""
    n = min(len(bonafide), len(spoof))
    window = round(WINDOW_SECONDS * sample_rate)
    if n < 2 * window:
        return Lag(0, float("nan"))
    start, end = _loudest(bonafide[:n], round(LONGEST_SECONDS * sample_rate))
    real, fake = (np.asarray(x[start:end], dtype=np.float64) for x in (bonafide, spoof))
    if not real.any() or not fake.any():
        return Lag(0, float("nan"))
    hop = max(1, round(HOP_SECONDS * sample_rate))
    a, b = _log_mel(real, sample_rate, window, hop), _log_mel(fake, sample_rate, window, hop)
    reach = min(round(most * sample_rate / hop), len(a) // 2)
    curve = np.array([_correlation(a, b, shift) for shift in range(-reach, reach + 1)])
    if not np.isfinite(curve).all():
        return Lag(0, float("nan"))
    best = int(np.argmax(curve))
    rough = (best - reach + _parabola(curve, best)) * hop
    near = round(NEAR_SECONDS * sample_rate)
    limit = round(most * sample_rate)
    around = range(max(-limit, round(rough) - near), min(limit, round(rough) + near) + 1)
    fine = np.array([_correlation(real, fake, shift) for shift in around])
    if len(fine) and fine.max() > TRUSTED:
        return Lag(around[int(np.argmax(fine))], float(curve[best]))
    samples = 0 if abs(rough) < WITHIN_ERROR * sample_rate else int(np.clip(round(rough), -limit, limit))
    return Lag(samples, float(curve[best]))


def overlap(bonafide: np.ndarray, spoof: np.ndarray, late: int) -> tuple[np.ndarray, np.ndarray]:
    """Both recordings where both are there, of equal length, the spoof's lag removed.

    >>> [x.tolist() for x in overlap(np.array([1, 2, 3]), np.array([0, 1, 2]), 1)]
    [[1, 2], [1, 2]]
    >>> [x.tolist() for x in overlap(np.array([1, 2, 3]), np.array([2, 3, 4, 5]), -1)]
    [[2, 3], [2, 3]]
    """
    n = overlap_length(len(bonafide), len(spoof), late)
    return bonafide[max(0, -late) :][:n], spoof[max(0, late) :][:n]


def overlap_length(n_bonafide: int, n_spoof: int, late: int) -> int:
    """Samples that `overlap` leaves: the tail of the longer one is cut."""
    return max(0, min(n_bonafide - max(0, -late), n_spoof - max(0, late)))


def _loudest(x: np.ndarray, length: int) -> tuple[int, int]:
    if len(x) <= length:
        return 0, len(x)
    energy = np.concatenate([[0.0], np.cumsum(np.square(x, dtype=np.float64))])
    start = int(np.argmax(energy[length:] - energy[:-length]))
    return start, start + length


def _correlation(a: np.ndarray, b: np.ndarray, shift: int) -> float:
    """Of `a[n]` and `b[n + shift]` where both are there, means removed over it."""
    n = len(a) - abs(shift)
    x = a[max(0, -shift) :][:n]
    y = b[max(0, shift) :][:n]
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    norm = float(np.sqrt(np.vdot(x, x) * np.vdot(y, y)))
    return float(np.vdot(x, y)) / norm if norm > 0 else float("nan")


def _parabola(curve: np.ndarray, best: int) -> float:
    """Place of the peak of the parabola through three points, relative to the middle one, in [-0.5, 0.5]."""
    if not 0 < best < len(curve) - 1:
        return 0.0
    left, middle, right = curve[best - 1 : best + 2]
    bend = left - 2 * middle + right
    return 0.0 if bend == 0 else float(np.clip(0.5 * (left - right) / bend, -0.5, 0.5))


def _log_mel(x: np.ndarray, sample_rate: int, window: int, hop: int) -> np.ndarray:
    """`(T, BANDS)` log energies, floored `FLOOR_DB` below the loudest cell."""
    frames = np.lib.stride_tricks.sliding_window_view(x.astype(np.float32), window)[::hop]
    spectrum = scipy.fft.rfft(frames * np.hanning(window).astype(np.float32), axis=1)  # unlike numpy's, in single precision
    mel = (spectrum.real**2 + spectrum.imag**2) @ _filters(sample_rate, window).astype(np.float32)
    return np.log(mel + mel.max() * 10 ** (-FLOOR_DB / 10) + 1e-20)


@cache
def _filters(sample_rate: int, window: int) -> np.ndarray:
    """`(F, BANDS)` triangles, evenly spaced on the mel scale (O'Shaughnessy 1987: 2595 log10(1 + f / 700))."""
    low, high = (2595 * np.log10(1 + f / 700) for f in (100.0, 0.45 * sample_rate))
    corners = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    f = np.fft.rfftfreq(window, 1 / sample_rate)[:, None]
    rising = (f - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - f) / (corners[2:] - corners[1:-1])
    return np.clip(np.minimum(rising, falling), 0, None)
