"""Voice activity: when a recording holds speech, and that on the frames of a map.

Two detectors. `energy` is the rule of `xaibench.segments.speech_frames` (within 25 dB of the recording's loud frames, in
frames of 10 ms), whose pauses and bursts that are too short to be any are then smoothed away. `silero` is Silero VAD, a
small recurrent network (Silero Team, github.com/snakers4/silero-vad, MIT), as the Python package of that name carries it:
nothing is downloaded, and its own defaults are used (threshold 0.5, speech of 250 ms or more, pauses of 100 ms or more,
30 ms of padding).

Of a spoofed recording that has a bona fide twin take the twin: its speech lies at the same times, and no detector then
reacts to the vocoder. Samples are `(N,)` floats, times are seconds, a frame axis is its edges `(T + 1,)`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from xaibench import audio
from xaibench.errors import XaibenchError
from xaibench.segments import SPOOF, speech_frames, spoofed_share

DETECTORS = ("energy", "silero")

STEP = 0.01  # s between the frames of the energy rule: the benchmark's grid
PAUSE = 0.1  # s; a shorter silence within speech is speech. Silero's default, so that both mean the same by a pause
BURST = 0.05  # s; a shorter sound within silence is none: a click, not a syllable
SILERO_RATE = 16_000  # Hz that the network was trained at (and 8 kHz, which is not used here)

_ROUNDING = 1e-9

Stretch = tuple[float, float]


def voice_activity(samples: np.ndarray, edges: np.ndarray, *, sample_rate: int, detector: str = "energy") -> np.ndarray:
    """Which frames hold speech for more than half of their length. `(N,)`, edges `(T + 1,)` in seconds -> `(T,)` bool.

    Raises XaibenchError as `speech_stretches` does, and for edges that do not rise.

    >>> loud = np.random.default_rng(0).standard_normal(8000)
    >>> voice_activity(np.r_[np.zeros(8000), loud], np.array([0.0, 0.4, 0.6, 1.0]), sample_rate=16_000).tolist()
    [False, True, True]
    """
    edges = np.asarray(edges, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise XaibenchError(f"frame edges of shape {edges.shape}: expected (T + 1,), rising seconds")
    return on_frames(speech_stretches(samples, sample_rate=sample_rate, detector=detector), edges)


def speech_stretches(samples: np.ndarray, *, sample_rate: int, detector: str = "energy") -> tuple[Stretch, ...]:
    """Stretches of speech `(start, end)` in seconds, in order, none touching the next. Empty for silence.

    Raises XaibenchError for an unknown detector, samples that are not `(N,)` and finite, or `silero` where it is not
    installed (with the command that installs it).
    """
    samples = np.asarray(samples)
    if detector not in DETECTORS:
        raise XaibenchError(f"unknown voice activity detector {detector!r}; expected one of {', '.join(DETECTORS)}")
    if samples.ndim != 1 or len(samples) == 0 or not np.isfinite(samples).all():
        raise XaibenchError(f"samples of shape {samples.shape}: expected (N,), finite, at least one; is it stereo?")
    if sample_rate < 1:
        raise XaibenchError(f"a sample rate of {sample_rate} Hz: expected at least 1")
    return _by_energy(samples, sample_rate) if detector == "energy" else _by_silero(samples, sample_rate)


def smoothed(mask: np.ndarray, *, pause: int, burst: int) -> np.ndarray:
    """Runs of False shorter than `pause` frames between speech filled in, then runs of True shorter than `burst` removed.

    Silence at an end of the recording is no pause. `(T,)` bool -> `(T,)` bool.

    >>> smoothed(np.array([1, 0, 1, 0, 0, 0, 1], bool), pause=2, burst=2).astype(int).tolist()
    [1, 1, 1, 0, 0, 0, 0]
    """
    kept = np.array(mask, dtype=bool)
    for first, last in runs(~kept):
        if first > 0 and last < len(kept) and last - first < pause:
            kept[first:last] = True
    for first, last in runs(kept.copy()):
        if last - first < burst:
            kept[first:last] = False
    return kept


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Runs of True, as (first index, index after the last).

    >>> runs(np.array([True, True, False, True]))
    [(0, 2), (3, 4)]
    """
    steps = np.flatnonzero(np.diff(np.r_[False, np.asarray(mask, dtype=bool), False].astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(steps[::2], steps[1::2], strict=True)]


def on_frames(stretches: Sequence[Stretch], edges: np.ndarray) -> np.ndarray:
    """Which frames a set of stretches covers by more than half. Shape: edges `(T + 1,)` -> `(T,)` bool."""
    return spoofed_share([(start, end, SPOOF) for start, end in stretches], edges) > 0.5 + _ROUNDING


def _by_energy(samples: np.ndarray, rate: int) -> tuple[Stretch, ...]:
    hop = max(round(STEP * rate), 1)
    count = len(samples) // hop + 1
    speech = smoothed(
        speech_frames(samples, count, hop=hop, sample_rate=rate),
        pause=round(PAUSE * rate / hop), burst=round(BURST * rate / hop),
    )  # fmt: skip
    length = len(samples) / rate
    # A frame reaches half a hop to either side of its centre, the last one to the end of the recording.
    ends = [max((first - 0.5) * hop / rate, 0.0) for first in range(count)] + [length]
    found = ((ends[first], min(ends[last], length)) for first, last in runs(speech))
    return tuple((start, end) for start, end in found if start < end)


def _by_silero(samples: np.ndarray, rate: int) -> tuple[Stretch, ...]:
    network, timestamps = _silero()
    import torch

    wave = audio.resample(np.asarray(samples, dtype=np.float32), rate, SILERO_RATE)
    found = timestamps(torch.from_numpy(np.ascontiguousarray(wave)), network, sampling_rate=SILERO_RATE)
    length = len(samples) / rate
    return tuple((f["start"] / SILERO_RATE, min(f["end"] / SILERO_RATE, length)) for f in found)


@cache
def _silero() -> tuple[Any, Any]:
    """The packaged network, and the function that asks it."""
    import torch

    threads = torch.get_num_threads()
    try:
        from silero_vad import get_speech_timestamps, load_silero_vad
    except ImportError as error:
        raise XaibenchError(
            f"voice activity by silero needs the package silero-vad, which is not here ({error}): "
            f"pip install 'xaibench[speech]'; or use energy, which needs nothing"
        ) from error
    finally:
        torch.set_num_threads(threads)  # importing it sets one thread for the whole process
    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning):  # of torch.jit.load and of how the package finds its model
            warnings.simplefilter("ignore", kind)
        return load_silero_vad(), get_speech_timestamps
