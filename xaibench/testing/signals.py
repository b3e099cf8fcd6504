"""Signals for the kit, made from a seed: noise, and something that a vocoder takes for a voice. Floats in [-1, 1]."""

from __future__ import annotations

import numpy as np
import scipy.signal
import torch
from torch import Tensor


def noise(count: int, n_samples: int, *, seed: int = 0, level: float = 0.1) -> Tensor:
    """White noise of a standard deviation of `level`. Shape: `(count, n_samples)`; row i is the same whatever the count.

    >>> torch.equal(noise(3, 5)[:1], noise(1, 5))
    True
    """
    rows = [torch.randn(n_samples, generator=torch.Generator().manual_seed(1_000 * seed + row)) for row in range(count)]
    return level * torch.stack(rows)


def voice(n_samples: int, sample_rate: int, *, seed: int = 0) -> np.ndarray:
    """Half-second syllables of a gliding vowel and a hiss, between short pauses. Shape: `(n_samples,)` float32, peak 0.5.

    Pulses at 90 to 140 Hz through three formants (Fant 1960: 500, 1,500 and 2,500 Hz of a neutral vowel, moved by a fifth
    from syllable to syllable), then noise above 2 kHz.

    >>> x = voice(16_000, 16_000)
    >>> x.dtype, float(abs(x).max())
    (dtype('float32'), 0.5)
    """
    draw = np.random.default_rng(seed)
    syllable = sample_rate // 2
    count = -(-n_samples // syllable)
    parts = []
    for _ in range(count):
        begin, end = draw.uniform(90, 140, 2)
        pitch = np.linspace(begin, end, syllable)
        phase = np.cumsum(pitch / sample_rate)
        vowel = np.diff(np.floor(phase), prepend=0.0)
        for formant, width in ((500, 80), (1_500, 100), (2_500, 140)):
            centre = min(formant * draw.uniform(0.8, 1.2), 0.45 * sample_rate)
            radius = np.exp(-np.pi * width / sample_rate)
            poles = [1, -2 * radius * np.cos(2 * np.pi * centre / sample_rate), radius**2]
            vowel = scipy.signal.lfilter([1 - radius], poles, vowel)
        t = np.arange(syllable) / syllable
        voiced = np.clip(np.minimum(t, 0.65 - t) / 0.05, 0, 1) * vowel / np.abs(vowel).max()
        hiss = np.diff(draw.standard_normal(syllable + 1)) * np.clip(np.minimum(t - 0.62, 0.9 - t) / 0.05, 0, 1)
        parts.append(voiced + 0.08 * hiss)
    x = np.concatenate(parts)[:n_samples] + 1e-4 * draw.standard_normal(n_samples)
    return (0.5 * x / np.abs(x).max()).astype(np.float32)
