"""The recordings that come with a new data set: buzzes that change their vowel, and a vocoder's idea of them.

    x(t) = sum over h of  a_h(t) sin(phi_h(t)),       a_h from two resonances that move, f0 from 100 to 220 Hz

The twin `buzz` has the same pitch and resonances, without what vocoders lose: jitter of the pitch, breath, and the phases.
Six of one second in three splits with a speaker each, 16 kHz. No recording of anybody: nothing to license.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import numpy as np

SAMPLE_RATE = 16_000  # Hz
SECONDS = 1.0
SPEAKERS = {"train": ("ann", 210.0), "dev": ("bob", 110.0), "eval": ("eve", 170.0)}  # name, pitch in Hz
RESONANCES = ((300.0, 800.0), (2_300.0, 1_100.0))  # Hz at the start and at the end: from "ee" to "ah"
WIDTH = 130.0  # Hz, of a resonance


@cache
def recordings() -> Mapping[str, bytes]:
    """`SPLIT/VOCODER/SPEAKER-UTTERANCE.flac` -> content. The same at every call."""
    import soundfile

    found = {}
    for split, (speaker, pitch) in SPEAKERS.items():
        for number in (1, 2):
            for vocoder in ("bonafide", "buzz"):
                stream = io.BytesIO()
                samples = voice(pitch * (1 + 0.1 * number), number, vocoded=vocoder == "buzz")
                soundfile.write(stream, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
                found[f"{split}/{vocoder}/{speaker}-{number}.flac"] = stream.getvalue()
    return MappingProxyType(found)


def voice(pitch: float, seed: int, *, vocoded: bool) -> np.ndarray:
    """One buzz of `pitch` Hz. Shape: `(N,)` float64 in [-1, 1].

    >>> voice(120.0, 1, vocoded=False).shape
    (16000,)
    """
    draw = np.random.default_rng(seed)
    t = np.arange(round(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    wander = np.interp(t, np.linspace(0, SECONDS, 50), draw.standard_normal(50))
    phases = draw.uniform(0, np.pi, 60)
    breath = draw.standard_normal(len(t))
    near, far = (np.interp(t, (0, SECONDS), ends) for ends in RESONANCES)
    f0 = pitch * (1 + 0.1 * np.sin(2 * np.pi * t / SECONDS)) * (1 if vocoded else 1 + 0.01 * wander)
    turn = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE
    wave = np.zeros_like(t)
    for number in range(1, int(0.45 * SAMPLE_RATE / pitch / 1.2)):
        loud = sum(1 / (1 + ((number * f0 - resonance) / WIDTH) ** 2) for resonance in (near, far))
        wave += (loud + 0.02) / number**0.5 * np.sin(number * turn + (0 if vocoded else phases[number % 60]))
    syllables = 0.1 + 0.9 * np.sin(3 * np.pi * t / SECONDS) ** 2
    wave = syllables * wave + (0 if vocoded else 0.02 * breath)
    return 0.3 * wave / np.abs(wave).max()
