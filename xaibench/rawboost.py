"""RawBoost: random convolutive, impulsive and stationary noise added to training waveforms.

Tak et al., "RawBoost: A Raw Data Boosting and Augmentation Method applied to Automatic Speaker Verification Anti-Spoofing",
ICASSP 2022 (arXiv 2111.04433), after the authors' code (TakHemlata/RawBoost-antispoofing: RawBoost.py for the noises,
data_utils_rawboost.py for the combinations, main.py for the constants). Given the same random numbers the result is theirs.

| algorithm | what                                                                                    |
|-----------|-----------------------------------------------------------------------------------------|
| 0         | nothing                                                                                 |
| 1         | linear and non-linear convolutive noise (LnL)                                           |
| 2         | impulsive signal-dependent additive noise (ISD)                                         |
| 3         | stationary signal-independent additive noise (SSI)                                      |
| 4         | 1, 2 and 3 one after the other                                                          |
| 5, 6, 7   | 1 and 2; 1 and 3; 2 and 3, one after the other                                          |
| 8         | the sum of 1 and 2, each of the input                                                   |

Two decisions of theirs are kept as they are: LnL and ISD (and the sum of 8) are brought down to a peak of 1 where they
exceed it, SSI is not; and filtered signals come one sample early, because half of the filter's length plus one is cut off.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import next_fast_len

from xaibench.errors import XaibenchError

#: What the authors' main.py sets by default. (Their names in brackets.)
NOTCHES = 5  # band-stop filters in series (nBands)
CENTRE_HZ = (20.0, 8000.0)  # centre of a notch (minF, maxF); here no higher than Nyquist
WIDTH_HZ = (100.0, 1000.0)  # width of a notch (minBW, maxBW)
TAPS = (10, 100)  # length of a notch filter, the upper end excluded, made odd (minCoeff, maxCoeff)
ORDERS = 5  # LnL: powers 1 to 5 of the signal, each with a filter of its own (N_f)
LINEAR_GAIN_DB = (0.0, 0.0)  # gain of power 1, and of SSI's colour before it is scaled to the SNR (minG, maxG)
NONLINEAR_GAIN_DB = (-5.0, -20.0)  # gain of the powers 2 to 5: the above less minBiasLinNonLin and maxBiasLinNonLin
SHARE_PERCENT = 10.0  # ISD: at most this share of the samples is hit (P)
IMPULSE_GAIN = 2.0  # ISD: largest change of a sample, relative to it (g_sd)
SNR_DB = (10.0, 40.0)  # SSI (SNRmin, SNRmax)
ALGORITHMS = range(9)


def rawboost(samples: np.ndarray, sample_rate: int, algorithm: int, generator: np.random.Generator) -> np.ndarray:
    """One augmented copy of a waveform `(N,)`, of the same length, float64.

    algorithm: 0 to 8, see the table above; anything else raises XaibenchError, as do samples that are not finite.

    >>> rawboost(np.array([0.5, -0.5]), 16_000, 0, np.random.default_rng(0)).tolist()
    [0.5, -0.5]
    """
    x = np.asarray(samples, dtype=np.float64)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise XaibenchError(f"RawBoost takes a waveform (N,) of finite numbers, got shape {x.shape}")
    if algorithm not in ALGORITHMS:
        raise XaibenchError(f"RawBoost has the algorithms 1 to 8, and 0 for none; got {algorithm!r}")
    if algorithm == 8:
        return within_one(convolutive(x, sample_rate, generator) + impulsive(x, generator))
    if algorithm in (1, 4, 5, 6):
        x = convolutive(x, sample_rate, generator)
    if algorithm in (2, 4, 5, 7):
        x = impulsive(x, generator)
    if algorithm in (3, 4, 6, 7):
        x = stationary(x, sample_rate, generator)
    return x.copy() if x is samples else x


def within_one(x: np.ndarray) -> np.ndarray:
    """Divided by its peak where that exceeds 1."""
    peak = np.abs(x).max()
    return x / peak if peak > 1 else x


def _uniform(bounds: tuple[float, float], generator: np.random.Generator) -> float:
    """Between two bounds in either order (`Generator.uniform` refuses a falling pair)."""
    first, second = bounds
    return first + (second - first) * generator.random()


def band_stop(taps: int, low: float, high: float, sample_rate: int) -> np.ndarray:
    """A linear-phase FIR filter without the band from `low` to `high` Hz, Hamming window, gain 1 at 0 Hz; `taps` is odd.

    Equals `scipy.signal.firwin(taps, [low, high], window="hamming", fs=sample_rate)`, ten times as fast.
    """
    n = np.arange(taps) - (taps - 1) / 2
    left, right = 2 * low / sample_rate, 2 * high / sample_rate
    ideal = left * np.sinc(left * n) + np.sinc(n) - right * np.sinc(right * n)
    windowed = ideal * np.hamming(taps)
    return windowed / windowed.sum()


def notches(sample_rate: int, gain_db: tuple[float, float], generator: np.random.Generator) -> np.ndarray:
    """`NOTCHES` random band-stop filters in series, their largest gain drawn from `gain_db`. Odd length, at most 491."""
    nyquist = sample_rate / 2
    filters = np.ones(1)
    for _ in range(NOTCHES):
        centre = _uniform((CENTRE_HZ[0], min(CENTRE_HZ[1], nyquist)), generator)
        width = _uniform(WIDTH_HZ, generator)
        taps = int(_uniform(TAPS, generator)) | 1
        low, high = centre - width / 2, centre + width / 2
        low, high = (low if low > 0 else 1e-3), (high if high < nyquist else nyquist - 1e-3)
        filters = np.convolve(band_stop(taps, low, high, sample_rate), filters)
    gain = _uniform(gain_db, generator)
    response = np.abs(np.fft.rfft(filters, 1024))[:512]  # the 512 frequencies of scipy.signal.freqz
    return 10 ** (gain / 20) * filters / response.max()


def _filtered(signals: np.ndarray, filters: list[np.ndarray]) -> np.ndarray:
    """The sum of signals `(K, N)`, each through its filter of odd length, advanced by half of that length plus one."""
    n = signals.shape[1]
    size = next_fast_len(n + max(map(len, filters)), real=True)
    total = np.zeros(size // 2 + 1, dtype=np.complex128)
    for signal, coefficients in zip(signals, filters, strict=True):
        # the advance is a circular shift of the filter; what wraps around lies behind the cut
        shifted = np.zeros(size)
        shifted[: len(coefficients)] = coefficients
        total += np.fft.rfft(signal, size) * np.fft.rfft(np.roll(shifted, -(len(coefficients) + 1) // 2))
    return np.fft.irfft(total, size)[:n]


def convolutive(x: np.ndarray, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    """LnL: the powers 1 to `ORDERS` of the signal, each through random notches, summed; mean removed."""
    gains = [LINEAR_GAIN_DB] + [NONLINEAR_GAIN_DB] * (ORDERS - 1)
    filters = [notches(sample_rate, gain, generator) for gain in gains]
    powers = np.cumprod(np.broadcast_to(x, (ORDERS, len(x))), axis=0)
    y = _filtered(powers, filters)
    return within_one(y - y.mean())


def impulsive(x: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """ISD: random samples, at most `SHARE_PERCENT` of them, are changed in proportion to themselves."""
    share = _uniform((0.0, SHARE_PERCENT), generator)
    hit = generator.permutation(len(x))[: int(len(x) * (share / 100))]
    factor = (2 * generator.random(len(hit)) - 1) * (2 * generator.random(len(hit)) - 1)
    y = x.copy()
    y[hit] += IMPULSE_GAIN * x[hit] * factor
    return within_one(y)


def stationary(x: np.ndarray, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    """SSI: white noise through random notches at a random SNR over the whole signal."""
    white = generator.standard_normal(len(x))
    coloured = _filtered(white[None], [notches(sample_rate, LINEAR_GAIN_DB, generator)])
    snr = _uniform(SNR_DB, generator)
    return x + coloured / np.linalg.norm(coloured) * np.linalg.norm(x) / 10 ** (0.05 * snr)
