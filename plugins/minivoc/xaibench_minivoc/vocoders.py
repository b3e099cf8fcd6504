"""Three signal-processing vocoders: analysis of a recording and its re-synthesis, aligned and of equal length.

Waveforms are `(N,)` floats in [-1, 1] at 16,000 Hz; the result is float32 `(N,)`. A vocoder is late by a fixed number of
samples (`LAG`), which is removed here, because the truth of a pair assumes aligned twins. The lags were measured once, by
correlating log-mel spectra of input and output at 16 kHz; another rate would need other lags and is refused.

The heavy libraries are imported when a vocoder is called, so that listing them costs nothing. `world` and `griffin_lim`
give the same samples for the same input and versions. `mlsa` does not: the noise generator of `pysptk.excite` keeps its
state from call to call, so unvoiced parts depend on what was synthesised before in the process.

References: Morise et al. 2016 (WORLD); Imai et al. 1983 (MLSA filter); Camacho 2007 (SWIPE); Griffin and Lim 1984;
Perraudin et al. 2013 (fast Griffin-Lim).
"""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np

from xaibench.errors import AudioError, PluginError
from xaibench.protocols import Vocoder

SAMPLE_RATE = 16_000  # Hz

#: Samples at 16 kHz by which the raw output is late.
LAG = {"world": 16, "mlsa": 72, "griffin-lim": 0}

#: Shortest input in samples: the longest analysis window (1024) must be filled by speech, not by padding.
SHORTEST = 1024


def align(samples: np.ndarray, n_samples: int, *, lag: int) -> np.ndarray:
    """Drop the first `lag` samples, then cut or pad the end with zeros: `(M,)` -> `(n_samples,)`.

    >>> align(np.array([9.0, 1.0, 2.0]), 4, lag=1).tolist()
    [1.0, 2.0, 0.0, 0.0]
    """
    late = samples[lag:][:n_samples]
    return np.pad(late, (0, n_samples - len(late)))


def _library(name: str, vocoder: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PluginError(
            f"vocoder {vocoder!r} needs the library {name}, which cannot be imported ({error}); "
            f"pip install xaibench-minivoc[rebuild]"
        ) from error


def _checked(waveform: np.ndarray, sample_rate: int, vocoder: str) -> np.ndarray:
    samples = np.asarray(waveform, dtype=np.float32)
    if samples.ndim != 1 or len(samples) < SHORTEST:
        raise AudioError(f"vocoder {vocoder!r}: got a waveform of shape {samples.shape}, expected (N,) with N >= {SHORTEST}")
    if sample_rate != SAMPLE_RATE:
        raise AudioError(f"vocoder {vocoder!r}: sampled at {sample_rate} Hz, expected {SAMPLE_RATE} Hz; resample it first")
    if not np.isfinite(samples).all():
        raise AudioError(f"vocoder {vocoder!r}: {np.count_nonzero(~np.isfinite(samples))} samples are NaN or infinite")
    return samples


def synthesise_world(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """WORLD: F0 by DIO and StoneMask, envelope by CheapTrick, aperiodicity by D4C. `(N,)` -> `(N,)` float32.

    Raises AudioError for a waveform that is not `(N,)`, finite and at 16 kHz; PluginError without pyworld.
    """
    x = _checked(waveform, sample_rate, "world").astype(np.float64)
    pyworld = _library("pyworld", "world")
    f0, times = pyworld.dio(x, SAMPLE_RATE)
    f0 = pyworld.stonemask(x, f0, times, SAMPLE_RATE)
    envelope = pyworld.cheaptrick(x, f0, times, SAMPLE_RATE)
    aperiodicity = pyworld.d4c(x, f0, times, SAMPLE_RATE)
    y = pyworld.synthesize(f0, envelope, aperiodicity, SAMPLE_RATE).astype(np.float32)
    return align(y, len(x), lag=LAG["world"])


def synthesise_mlsa(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Source and filter: SWIPE F0, 24 mel-cepstral coefficients, pulse or noise, MLSA filter. `(N,)` -> `(N,)` float32.

    Raises AudioError for a waveform that is not `(N,)`, finite and at 16 kHz; PluginError without pysptk.
    """
    x = _checked(waveform, sample_rate, "mlsa")
    pysptk = _library("pysptk", "mlsa")
    synthesis = _library("pysptk.synthesis", "mlsa")
    order, warping, hop, window = 24, 0.42, 80, 512  # 0.42 approximates the mel scale at 16 kHz; 5 ms; 32 ms
    # Noise at -72 dBFS (8 in 16-bit units) keeps the log spectrum of digital silence, hence the cepstrum, bounded.
    loud = (x * 32768).astype(np.float64) + 8 * np.random.RandomState(0).randn(len(x))
    f0 = pysptk.swipe(loud, fs=SAMPLE_RATE, hopsize=hop, min=60, max=400, otype="pitch")
    padded = np.pad(loud, (window // 2, window // 2 + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop] * pysptk.blackman(window)
    cepstrum = np.apply_along_axis(pysptk.mcep, 1, frames, order, warping, eps=1e-3, etype=1)
    n = min(len(f0), len(cepstrum))
    excitation = pysptk.excite(f0[:n].astype(np.float64), hop)
    # pd is the order of the Padé approximation of exp; 5, the larger of SPTK's two, keeps the filter stable.
    synthesiser = synthesis.Synthesizer(synthesis.MLSADF(order=order, alpha=warping, pd=5), hop)
    y = synthesiser.synthesis(excitation, np.ascontiguousarray(pysptk.mc2b(cepstrum[:n], warping))) / 32768
    return align(y.astype(np.float32), len(x), lag=LAG["mlsa"])


def synthesise_griffin_lim(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """80 mel bands, their pseudo-inverse, 32 fast Griffin-Lim iterations from a fixed phase. `(N,)` -> `(N,)` float32.

    Raises AudioError for a waveform that is not `(N,)`, finite and at 16 kHz; PluginError without librosa.
    """
    x = _checked(waveform, sample_rate, "griffin-lim")
    librosa = _library("librosa", "griffin-lim")
    window, hop = 1024, 256
    magnitude = np.abs(librosa.stft(x, n_fft=window, hop_length=hop))
    mel = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=window, n_mels=80, fmin=0, fmax=8000)
    smoothed = np.clip(np.linalg.pinv(mel) @ (mel @ magnitude), 1e-8, None)  # the pseudo-inverse can go below zero
    y = librosa.griffinlim(smoothed, n_iter=32, hop_length=hop, n_fft=window, momentum=0.99, random_state=0, length=len(x))
    return align(y.astype(np.float32), len(x), lag=LAG["griffin-lim"])


world = Vocoder(name="world", paper="Morise et al., IEICE Trans. E99-D(7), 2016", function=synthesise_world)
mlsa = Vocoder(name="mlsa", paper="Imai, Sumita and Furuichi, 1983 (SPTK)", function=synthesise_mlsa)
griffin_lim = Vocoder(
    name="griffin-lim",
    paper="Griffin and Lim, IEEE Trans. ASSP 32(2), 1984; fast version: Perraudin et al., WASPAA 2013",
    function=synthesise_griffin_lim,
)
