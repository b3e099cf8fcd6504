"""An explanation as sound: the cells of an utterance that a mask keeps, those it removes, at levels that compare.

Waveforms are `(N,)`, masks `(F, T)` in [0, 1] on a `Grid`, 1 = keep. A mask multiplies the complex STFT, so what is heard
has the original phase, and kept and removed add up to the utterance. The STFT of the result is not the masked one: cells
overlap, and a cell kept alone rings over a whole window (`leakage` measures how much lies outside the mask).

`griffin_lim` throws the phase away and finds another, as Halpern et al. did in Odyssey 2020 (10.21437/Odyssey.2020-46):
Griffin and Lim, "Signal estimation from modified short-time Fourier transform", IEEE TASSP 32(2), 1984, with the momentum
of Perraudin et al., "A fast Griffin-Lim algorithm", WASPAA 2013.

Levels are root mean squares in dB of full scale (dBFS): a sine of amplitude 1 has -3.01. Nothing here clips: where a gain
would, the peak decides, and the result says so. Everything is computed in float64.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from xaibench.errors import XaibenchError
from xaibench.grid import Grid

PEAK = 10 ** (-1 / 20)  # -1 dBFS, of what is made louder: players that resample overshoot the samples a little
SILENT = -150.0  # dBFS; what is quieter is rounding, and no gain makes it a sound


@dataclass(frozen=True, eq=False)
class Levelled:
    """`samples` `(N,)` after `gain` dB; `limited` where the peak allowed no more, `silent` where there was no sound."""

    samples: np.ndarray
    gain: float
    limited: bool = False
    silent: bool = False


def masked(wave: np.ndarray, keep: np.ndarray, grid: Grid, *, fill: np.ndarray | None = None) -> np.ndarray:
    """An utterance with its complex STFT multiplied by a mask: ISTFT(keep * Z + (1 - keep) * Z_fill), in the original phase.

    wave, fill: `(N,)`, `fill` silence unless given (the bona fide twin takes the artefact away instead of the sound). keep:
    `(F, T)` = `grid.shape(N)`, in [0, 1]. Returns `(N,)` of the precision of `wave`, float64 for integers.

    Raises XaibenchError for other shapes, a mask outside [0, 1] and waveforms that are not finite.

    >>> grid, wave = Grid(n_fft=64, hop=16), np.sin(np.arange(200.0))
    >>> low = np.arange(33)[:, None] < np.full(13, 16)
    >>> bool(np.allclose(masked(wave, low, grid) + masked(wave, ~low, grid), wave))
    True
    """
    import torch

    wave, keep = _waveform(wave), np.asarray(keep, dtype=np.float64)
    if keep.shape != grid.shape(len(wave)):
        raise XaibenchError(
            f"a mask of shape {keep.shape} for {len(wave)} samples, expected (F, T) = {grid.shape(len(wave))}; is the "
            f"utterance cut as the countermeasure saw it?"
        )
    if not ((keep >= 0) & (keep <= 1)).all():
        raise XaibenchError(f"a mask from {keep.min()} to {keep.max()}, expected values in [0, 1]; see top.top_mask")
    under = np.zeros_like(wave) if fill is None else _waveform(fill)
    if under.shape != wave.shape:
        raise XaibenchError(f"the fill has {len(under)} samples, the utterance {len(wave)}; twins must be aligned and equal")
    double = torch.from_numpy(wave.astype(np.float64) - under)[None]
    heard = grid.istft(grid.stft(double) * torch.from_numpy(keep), len(wave))[0].numpy() + under
    return heard.astype(wave.dtype)


def kept(wave: np.ndarray, mask: np.ndarray, grid: Grid, *, fill: np.ndarray | None = None) -> np.ndarray:
    """What an explanation points at, alone. Arguments as `masked`."""
    return masked(wave, np.asarray(mask, dtype=np.float64), grid, fill=fill)


def removed(wave: np.ndarray, mask: np.ndarray, grid: Grid, *, fill: np.ndarray | None = None) -> np.ndarray:
    """The utterance without what an explanation points at. Arguments as `masked`."""
    return masked(wave, 1 - np.asarray(mask, dtype=np.float64), grid, fill=fill)


def griffin_lim(magnitude: np.ndarray, n_samples: int, grid: Grid, *, iterations: int = 64, seed: int = 0) -> np.ndarray:
    """A waveform `(n_samples,)` whose STFT has about this magnitude `(F, T)`; its phase is found, not given.

    torchaudio's, with momentum 0.99, from random phases: the same seed gives the same sound, and the global generator is
    left as it was. Raises XaibenchError for another shape, for magnitudes that are negative or not finite.

    >>> grid = Grid(n_fft=64, hop=16)
    >>> griffin_lim(np.zeros((33, 13)), 200, grid).tolist() == [0.0] * 200
    True
    """
    import torch
    from torchaudio.functional import griffinlim

    target = torch.from_numpy(np.array(magnitude, dtype=np.float64))
    if tuple(target.shape) != grid.shape(n_samples):
        raise XaibenchError(f"a magnitude of shape {tuple(target.shape)}, expected (F, T) = {grid.shape(n_samples)}")
    if not bool((target.isfinite() & (target >= 0)).all()):
        raise XaibenchError("a magnitude is finite and not negative; is this the log-spectrogram, or the complex STFT?")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        wave = griffinlim(
            target[None], grid.taper(target), grid.n_fft, grid.hop, grid.n_fft, power=1.0, n_iter=iterations, momentum=0.99,
            length=n_samples, rand_init=True,
        )  # fmt: skip
    return wave[0].numpy()


def leakage(wave: np.ndarray, mask: np.ndarray, grid: Grid) -> float:
    """The share of a waveform's energy on the grid that lies outside a mask `(F, T)`, in [0, 1]; 0 of silence.

    Of `kept(wave, mask)` it is what the overlap of cells smears over the mask's edge: near 0 for large regions, most of the
    energy for lone cells.
    """
    power = power_of(wave, grid)
    total = float(power.sum())
    return float(power[~np.asarray(mask, dtype=bool)].sum()) / total if total > 0 else 0.0


def power_of(wave: np.ndarray, grid: Grid) -> np.ndarray:
    """|STFT|^2 of a waveform `(N,)`. Shape: `(F, T)` float64."""
    import torch

    return grid.stft(torch.from_numpy(_waveform(wave).astype(np.float64))[None]).abs().square()[0].numpy()


def level(wave: np.ndarray) -> float:
    """The root mean square in dBFS; minus infinity for silence.

    >>> round(level(np.sin(np.arange(8000) * 0.1)), 1)
    -3.0
    """
    square = float(np.mean(np.square(_waveform(wave), dtype=np.float64)))
    return 10 * math.log10(square) if square > 0 else -math.inf


def to_level(wave: np.ndarray, target: float, *, peak: float = PEAK) -> Levelled:
    """A waveform brought to `target` dBFS, or as near as a peak of `peak` allows; silence stays silence.

    >>> loud = to_level(np.array([0.1, -0.1, 0.1]), -6.0)
    >>> round(loud.gain, 2), loud.limited, to_level(np.zeros(3), -6.0).silent
    (14.0, False, True)
    """
    wave = _waveform(wave).astype(np.float64)
    if not 0 < peak <= 1:
        raise XaibenchError(f"peak {peak}, expected more than 0 and at most 1")
    found = level(wave)
    if found < SILENT or target == -math.inf:
        return Levelled(np.zeros_like(wave), 0.0, silent=True)
    wanted = target - found
    most = 20 * math.log10(peak / float(np.abs(wave).max()))
    return Levelled(wave * 10 ** (min(wanted, most) / 20), min(wanted, most), limited=most < wanted)


def level_matched(wave: np.ndarray, like: np.ndarray, *, peak: float = PEAK) -> Levelled:
    """A waveform `(N,)` as loud as another, `like`; where that would exceed `peak`, softer, and `limited` says so."""
    return to_level(wave, level(like), peak=peak)


def file_part(name: str) -> str:
    """A name as a part of a file name, as it is where it is plain; else made plain, and distinct (`site.shell.slug`).

    >>> file_part("LA_E_1000147"), file_part("grad-cam++"), file_part("a/b").startswith("a-b-")
    ('LA_E_1000147', 'grad-cam++', True)
    """
    from xaibench.site.shell import slug

    return name if re.fullmatch(r"[A-Za-z0-9+_-]{1,80}", name) else slug(name)


def _waveform(samples: np.ndarray) -> np.ndarray:
    """Finite floats `(N,)`. Raises XaibenchError."""
    samples = np.asarray(samples)
    if samples.ndim != 1 or not samples.size:
        raise XaibenchError(f"a waveform is (N,), mono, with at least one sample; got shape {samples.shape}")
    if not np.issubdtype(samples.dtype, np.floating):
        samples = samples.astype(np.float64)
    if not np.isfinite(samples).all():
        raise XaibenchError(f"{np.count_nonzero(~np.isfinite(samples))} samples are NaN or infinite")
    return samples
