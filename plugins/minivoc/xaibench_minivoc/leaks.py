"""Leak check: no single global cue of a recording may tell bona fide from vocoded speech.

A benchmark of explanations is only as good as its data: if the level or the noise floor gave the class away, a
countermeasure would learn that, and no map could be right. The cues are numbers of the whole waveform `(N,)`; the score
of a cue is the equal error rate in [0, 1] of the better sign: 0.5 means no information, 0 a perfect give-away.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from xaibench.audio import read
from xaibench.errors import XaibenchError
from xaibench.metrics.detection import equal_error_rate
from xaibench.types import Utterance

FRAME = 512  # samples (32 ms at 16 kHz), without overlap


def cues(samples: np.ndarray) -> dict[str, float]:
    """Thirteen global cues of one recording `(N,)` at 16 kHz; band and frame levels in dB.

    rms, peak, dc (mean), length (samples), hi_7_8k (level above 7.1 kHz), lo_0_60 (level of the bins at 0 and 31 Hz, so
    up to about 60 Hz), floor_p2 and floor_p10 (low percentiles of the frame levels), lead and trail (mean level of the
    first and last five frames), zeros (share of exact zeros), over_0_97 (share near full scale), skew.
    """
    x = np.asarray(samples, dtype=np.float64)
    frames = x[: len(x) // FRAME * FRAME].reshape(-1, FRAME) * np.hanning(FRAME)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    band = 10 * np.log10(power.mean(0) + 1e-10)
    level = 10 * np.log10(power.sum(1) + 1e-10)
    return {
        "rms": float(np.sqrt((x**2).mean())),
        "peak": float(np.abs(x).max()),
        "dc": float(x.mean()),
        "length": float(len(x)),
        "hi_7_8k": float(band[228:].mean()),
        "lo_0_60": float(band[:2].mean()),
        "floor_p2": float(np.percentile(level, 2)),
        "floor_p10": float(np.percentile(level, 10)),
        "lead": float(level[:5].mean()),
        "trail": float(level[-5:].mean()),
        "zeros": float((x == 0).mean()),
        "over_0_97": float((np.abs(x) > 0.97).mean()),
        "skew": float(((x - x.mean()) ** 3).mean() / x.std() ** 3),
    }


def best_sign_error_rate(bonafide: np.ndarray, spoof: np.ndarray) -> float:
    """Equal error rate of a cue, whichever sign separates better. Two arrays `(n,)`, `(m,)` of cue values.

    Among ties the ASVspoof error rate puts the first class first, which would give 1 for a cue that is the same in every
    file (the length, say). Here both orders are averaged: with the classes swapped, one minus the rate is that of the
    other order. So a constant cue comes out at 0.5, and nothing depends on chance.

    >>> best_sign_error_rate(np.arange(5.0), np.arange(5.0) + 9)
    0.0
    >>> best_sign_error_rate(np.ones(5), np.ones(7))
    0.5
    """
    rate = (equal_error_rate(bonafide, spoof) + 1 - equal_error_rate(spoof, bonafide)) / 2
    return min(rate, 1 - rate)


def leak_table(utterances: Iterable[Utterance], *, sample_rate: int) -> dict[str, dict[str, float]]:
    """`{cue: {vocoder: equal error rate}}` over the files given. Reads every file once.

    Raises AudioError for a file that cannot be read, XaibenchError if there is no bona fide file.
    """
    values: dict[str, list[dict[str, float]]] = {"bonafide": []}
    for utterance in utterances:
        values.setdefault(utterance.vocoder, []).append(cues(read(utterance.path, sample_rate=sample_rate)))
    if not values["bonafide"]:
        raise XaibenchError(
            "no bona fide file among the utterances: a leak check compares vocoded files with bona fide ones"
        )
    columns = {vocoder: {cue: np.array([v[cue] for v in rows]) for cue in rows[0]} for vocoder, rows in values.items()}
    bonafide = columns.pop("bonafide")
    return {
        cue: {vocoder: best_sign_error_rate(bonafide[cue], spoof[cue]) for vocoder, spoof in sorted(columns.items())}
        for cue in bonafide
    }
