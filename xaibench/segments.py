"""Segment labels of partially spoofed speech: when a recording is spoofed, and the truth and categories made of it.

A segment is `(start, end, label)`: seconds from the start of the recording, label "bonafide" or "spoof". What no segment
covers is bona fide. `Utterance.segments` holds them; an utterance without any is bona fide or spoofed as a whole.

The truth `segments` knows time only (`resolves = {"time"}`): every valid frequency of a frame holds the frame's share of
spoofed speech, and the region is the frames that are more than half spoofed. Metrics that need frequency do not apply.

The five categories of frames are those of Liu et al., "How do neural spoofing countermeasures detect partially spoofed
audio?", Interspeech 2024, arXiv 2406.02483 (see `xaibench.metrics.rcq`); their speech labels came from a voice activity
detector, ours, where no `.vad` file is given, from `speech_frames`. numpy only; torch is imported for the truth alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xaibench.errors import ManifestError, XaibenchError
from xaibench.types import Truth, Utterance

if TYPE_CHECKING:
    import torch

    from xaibench.grid import Grid

Segment = tuple[float, float, str]

LABELS = ("bonafide", "spoof")
SPOOF = "spoof"

#: dB: a frame this far below the loud frames of its recording is no speech. On the bona fide speech of minivoc, whose noise
#: floor lies 40 to 50 dB below, 12 % of the frames are non-speech by this rule.
SPEECH_RANGE = 25.0

#: Seconds of the window of the energy rule: the grid's 512 samples at 16 kHz.
SPEECH_WINDOW = 0.032

#: Seconds on each side of a splice that count as the transition: two frames of the grid.
TRANSITION = 0.02

#: Of an utterance, once it is repeated to the length that a countermeasure hears.
MOST_SEGMENTS = 100_000

#: A frame that is half spoofed to within rounding is not in the region.
_ROUNDING = 1e-9


def fit_segments(segments: Sequence[Segment], duration: float, n_samples: int, *, sample_rate: int) -> tuple[Segment, ...]:
    """The segments of a recording after `xaibench.audio.fit`: cut at `n_samples`, or repeated with the recording.

    duration: of the recording, in seconds. Segments are cut where they go beyond it (annotation is rounded).

    Raises XaibenchError for a segment that is not `0 <= start < end` with a known label, or a duration of zero.

    >>> fit_segments([(0.25, 0.5, "spoof")], 1.0, 22_000, sample_rate=16_000)
    ((0.25, 0.5, 'spoof'), (1.25, 1.375, 'spoof'))
    """
    check_segments(segments)
    if not duration > 0:
        raise XaibenchError(f"a recording of {duration} s cannot be repeated; expected a duration above 0")
    limit = n_samples / sample_rate
    inside = [(start, end, label) for start, end, label in segments if start < duration]
    turns = max(1, math.ceil(limit / duration))
    if turns * len(inside) > MOST_SEGMENTS:
        raise XaibenchError(
            f"{len(inside)} segments within {duration:g} s, repeated {turns} times: more than {MOST_SEGMENTS:,}; are they "
            f"in seconds?"
        )
    fitted = []
    for turn in range(turns):
        offset = turn * duration
        for start, end, label in inside:
            first, last = offset + start, min(offset + min(end, duration), limit)
            if first < last:
                fitted.append((first, last, label))
    return tuple(fitted)


def check_segments(segments: Sequence[Segment]) -> None:
    """Raises XaibenchError, naming the segment, unless each is `0 <= start < end`, finite, of a known label."""
    for segment in segments:
        start, end, label = segment
        if not (0 <= start < end < math.inf):
            raise XaibenchError(f"segment {segment!r}: expected 0 <= start < end in seconds (is it start and duration?)")
        if label not in LABELS:
            raise XaibenchError(f"segment {segment!r}: label {label!r}, expected one of {', '.join(LABELS)}")


def utterance_segments(utterance: Utterance, *, n_samples: int, sample_rate: int) -> tuple[Segment, ...]:
    """Segments of an utterance as the harness hears it, cut or repeated to `n_samples`.

    An utterance without segments is one: bona fide or spoof from start to end. Raises ManifestError when the utterance has
    segments and no length (`n_samples` of its table row).
    """
    if not utterance.segments:
        return ((0.0, n_samples / sample_rate, "bonafide" if utterance.bonafide else SPOOF),)
    if utterance.n_samples < 1:
        raise ManifestError(
            f"{utterance.path}: has segments but n_samples = {utterance.n_samples}; the length decides where they repeat, "
            f"expected the number of samples in the table"
        )
    return fit_segments(utterance.segments, utterance.n_samples / sample_rate, n_samples, sample_rate=sample_rate)


def spoofed_share(segments: Sequence[Segment], edges: np.ndarray) -> np.ndarray:
    """Share of each cell between `edges` `(T + 1,)` (seconds) that is spoofed. Shape: `(T,)` in [0, 1].

    Overlapping segments count once.

    >>> spoofed_share([(0.5, 1.25, "spoof")], np.array([0.0, 1.0, 2.0])).tolist()
    [0.5, 0.25]
    """
    share = np.zeros(len(edges) - 1)
    for start, end in _merged(segments):
        share += np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0, None)
    return np.clip(share / np.diff(edges), 0, 1)


def segment_truth(
    segments: Sequence[Sequence[Segment]], *, grid: Grid, n_samples: int, band: tuple[float, float], sample_rate: int,
    device: torch.device | str = "cpu",
) -> Truth:  # fmt: skip
    """The truth of a batch of segment lists, fitted to `n_samples` (`utterance_segments`), on the grid.

    values `(B, F, T)`: share of the frame that is spoofed, 0 outside the band; region: more than half. The last frame
    ends with the recording. Raises XaibenchError for a sample rate that is not the grid's and for malformed segments.
    """
    import torch

    if sample_rate != grid.sample_rate:
        raise XaibenchError(f"the recordings are sampled at {sample_rate} Hz, the grid at {grid.sample_rate} Hz")
    edges = grid.time(n_samples).edges.copy()
    edges[-1] = n_samples / sample_rate
    for listed in segments:
        check_segments(listed)
    share = np.stack([spoofed_share(listed, edges) for listed in segments]) if segments else np.zeros((0, len(edges) - 1))
    inside = torch.from_numpy(np.asarray(grid.band(*band))).to(device)
    frames = torch.from_numpy(share).to(device, torch.float32)[:, None, :]
    spoofed = torch.from_numpy(share > 0.5 + _ROUNDING).to(device)[:, None, :]
    return Truth(
        values=frames * inside[:, None],
        region=spoofed & inside[:, None],
        valid=inside[:, None].expand(-1, share.shape[1]).contiguous(),
        name="segments",
        resolves=frozenset({"time"}),
    )


def speech_frames(samples: np.ndarray, n_frames: int, *, hop: int, sample_rate: int) -> np.ndarray:
    """Which frames of a *bona fide* recording hold speech, by energy. `(N,)` -> `(n_frames,)` bool.

    Frame t is centred on sample `t * hop` and 32 ms long; it is speech when its mean square is within 25 dB of the 95th
    percentile over the recording's frames. Of a partially spoofed recording take the bona fide original, so that the rule
    cannot see the vocoder. Digital silence has no speech. Raises XaibenchError for an empty recording.

    >>> speech_frames(np.r_[np.zeros(1600), np.ones(1600)], 21, hop=160, sample_rate=16_000).nonzero()[0].min()
    np.int64(9)
    """
    if len(samples) == 0 or n_frames < 1:
        raise XaibenchError(f"{len(samples)} samples and {n_frames} frames: expected at least one of each")
    window = round(SPEECH_WINDOW * sample_rate)
    needed = (n_frames - 1) * hop + window
    padded = np.pad(np.asarray(samples, dtype=np.float64) ** 2, (window // 2, needed))[:needed]
    energy = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop].mean(1)
    return (energy > 0) & (energy >= np.percentile(energy, 95) * 10 ** (-SPEECH_RANGE / 10))


def categories(segments: Sequence[Segment], speech: np.ndarray, *, hop: float) -> dict[str, np.ndarray]:
    """Frames of each category, as indices: BS, SS, TR, BN, SN. Each frame is in exactly one.

    speech: `(T,)` bool; hop: seconds between frame centres. TR: the centre is within 20 ms of a splice, the start or end
    of spoofed speech within the recording; the others are spoofed when more than half of the frame is.
    """
    times = np.arange(len(speech)) * hop
    edges = np.r_[0.0, times[:-1] + hop / 2, times[-1]] if len(speech) > 1 else np.array([0.0, hop])
    spoofed = spoofed_share(segments, edges) > 0.5 + _ROUNDING
    splices = [t for span in _merged(segments) for t in span if _ROUNDING < t < times[-1] - _ROUNDING]
    near = np.zeros(len(speech), dtype=bool)
    for splice in splices:
        near |= np.abs(times - splice) <= TRANSITION + _ROUNDING
    speech = np.asarray(speech, dtype=bool)
    found = {
        "BS": ~near & speech & ~spoofed, "SS": ~near & speech & spoofed, "TR": near,
        "BN": ~near & ~speech & ~spoofed, "SN": ~near & ~speech & spoofed,
    }  # fmt: skip
    return {name: np.flatnonzero(mask) for name, mask in found.items()}


def _merged(segments: Sequence[Segment]) -> list[tuple[float, float]]:
    """Spoofed intervals, those that touch or overlap joined into one."""
    joined: list[tuple[float, float]] = []
    for start, end, _ in sorted(s for s in segments if s[2] == SPOOF):
        if joined and start <= joined[-1][1] + _ROUNDING:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined
