"""Relative contribution quantification (RCQ): on which kind of frame does a heat map dwell?

    RCQ(c) = 100 * (mean of h over the frames of category c - mean over the frames of all categories) / that mean   [%]

Frames are pooled over a whole set of partially spoofed utterances, so RCQ has no value for one utterance. 0 means that
category c gets as much as the average frame. A heat map h is `(T,)`, not negative; positive attribution speaks for spoof.

Categories and their labels in a `.vad` file, one line `start end label` a stretch, in seconds:

    BS  bona fide speech       1             TR  transition, around a splice   100
    SS  spoofed speech         2 to 20       BN  bona fide non-speech          101
                                             SN  spoofed non-speech            102 to 120

The time t of a stretch's edge falls in frame `clip(floor((1000 t - 10) / 20), 0, T - 2)`: frames of 20 ms, with allowance
for the window. Speech and transitions lose the two frames at their edges, non-speech keeps both, so a frame may be
counted twice or not at all. Of a heat map longer than the labels the *last* frames are kept.

Liu et al., "How do neural spoofing countermeasures detect partially spoofed audio?", Interspeech 2024, arXiv 2406.02483, as
in its author's code (github.com/zlin0/wedefense, XAI_Score_analysis.py, commit 36c1af9). One departure: a category without
a frame is NaN here, -100 % there. numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from xaibench import reading
from xaibench.errors import ManifestError, XaibenchError
from xaibench.numbers import check_squarable, real_numbers

CATEGORIES = {
    "BS": "bona fide speech", "SS": "spoofed speech", "TR": "transition", "BN": "bona fide non-speech",
    "SN": "spoofed non-speech",
}  # fmt: skip

Stretch = tuple[float, float, int]


def category(label: int) -> str:
    """The category of a label of a `.vad` file. Raises XaibenchError for any other number.

    >>> category(1), category(7), category(100), category(101), category(115)
    ('BS', 'SS', 'TR', 'BN', 'SN')
    """
    if label in (1, 100, 101):
        return {1: "BS", 100: "TR", 101: "BN"}[label]
    if 2 <= label <= 20:
        return "SS"
    if 102 <= label <= 120:
        return "SN"
    raise XaibenchError(f"unknown label {label}; expected 1, 2 to 20, 100, 101 or 102 to 120")


def read_vad(path: Path) -> tuple[Stretch, ...]:
    """The stretches `(start s, end s, label)` of a `.vad` file, in its order.

    Raises ManifestError, naming file and line: missing, empty, not `start end label`, times that do not rise, an unknown
    label.
    """
    found: list[Stretch] = []
    for number, line in reading.lines(path, ManifestError, what="file of labels"):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            start, end, label = line.split()
            stretch = (reading.number(start), reading.number(end), reading.whole(label))
            category(stretch[2])
        except ValueError as error:
            said = reading.shown(line)
            raise ManifestError(f"{where}: {said}, expected `start end label`, as in `0.00 0.45 1`") from error
        except XaibenchError as error:
            raise ManifestError(f"{where}: {error}") from error
        if not (0 <= stretch[0] <= stretch[1] < math.inf) or (found and stretch[1] < found[-1][1]):
            raise ManifestError(f"{where}: {reading.shown(line)}, expected times in seconds that rise from line to line")
        found.append(stretch)
    if not found:
        raise ManifestError(f"{path}: empty, expected lines `start end label`")
    return tuple(found)


def vad_frames(stretches: Sequence[Stretch], length: int, *, frame_ms: float = 20.0) -> dict[str, np.ndarray]:
    """Indices, with repetition, of a heat map of `length` frames that each category counts, by the author's mapping.

    frame_ms: milliseconds between frames; the author's 20, from which half is taken for the window.

    Raises XaibenchError for a heat map of fewer than two frames, or no stretches.

    >>> {k: v.tolist() for k, v in vad_frames([(0, 0.1, 1), (0.1, 0.2, 101)], 10).items() if len(v)}
    {'BS': [1, 2, 3], 'BN': [4, 5, 6, 7, 8]}
    """
    if length < 2 or not stretches:
        raise XaibenchError(f"a heat map of {length} frames, {len(stretches)} stretches: expected two frames and one label")
    labelled = math.ceil(stretches[-1][1] * 1000 / frame_ms)
    dropped = max(length - labelled, 0)

    def frame(time: float) -> int:
        return min(max(int((time * 1000 - frame_ms / 2) // frame_ms), 0), length - 2)

    found: dict[str, list[int]] = {name: [] for name in CATEGORIES}
    for start, end, label in stretches:
        name = category(label)
        trim = 0 if name in ("BN", "SN") else 1
        found[name] += range(frame(start) + trim, frame(end) + 1 - trim)
    return {name: np.array(frames, dtype=np.int64) + dropped for name, frames in found.items()}


def rcq(heatmaps: Sequence[np.ndarray], frames: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """RCQ of every category in percent, pooled over a set.

    heatmaps: one `(T,)` an utterance. frames: for each the indices that every category counts (`vad_frames`, or
    `xaibench.segments.categories`). NaN for a category without a frame, and for all where the mean is zero.

    Raises XaibenchError for a heat map that is not `(T,)`, finite and free of negative values, for indices outside it, and
    unless there are as many heat maps as labels and at least one labelled frame.

    >>> h = np.array([0.0, 1.0, 2.0, 1.0])
    >>> {k: round(v, 9) for k, v in rcq([h], [{"BS": [0, 1], "SS": [2, 3]}]).items() if v == v}
    {'BS': -50.0, 'SS': 50.0}
    """
    if len(heatmaps) != len(frames):
        raise XaibenchError(f"{len(heatmaps)} heat maps and {len(frames)} sets of labels; expected as many")
    total, count = dict.fromkeys(CATEGORIES, 0.0), dict.fromkeys(CATEGORIES, 0)
    for number, (values, of) in enumerate(zip(heatmaps, frames, strict=True)):
        h = real_numbers(values, f"heat map {number}")
        if h.ndim != 1 or not np.isfinite(h).all() or (h < 0).any():
            raise XaibenchError(
                f"heat map {number}: shape {h.shape}, expected (T,), finite and not negative (a mean of mixed signs has no "
                f"share); take the positive part first"
            )
        check_squarable(h, f"heat map {number}")
        for name, indices in of.items():
            if name not in CATEGORIES:
                raise XaibenchError(f"heat map {number}: category {name!r}, expected {', '.join(CATEGORIES)}")
            chosen = np.asarray(indices, dtype=np.int64)
            if len(chosen) and not 0 <= chosen.min() <= chosen.max() < len(h):
                raise XaibenchError(f"heat map {number}: {name} counts frames {chosen.min()} to {chosen.max()} of {len(h)}")
            total[name] += float(h[chosen].sum())
            count[name] += len(chosen)
    counted = sum(count.values())
    if not counted:
        raise XaibenchError(f"{len(heatmaps)} heat maps and no labelled frame; is any utterance partially spoofed?")
    mean = sum(total.values()) / counted
    return {
        name: max(-100.0, 100 * (total[name] / count[name] - mean) / mean) if count[name] and mean else math.nan
        for name in CATEGORIES
    }


def heat(marginal: np.ndarray) -> np.ndarray:
    """A time marginal as a heat map, as the author's Grad-CAM: positive part, then `(h - min) / (max + 1e-7)`. `(T,)`.

    Each utterance so weighs alike in the pool, whatever the scale of its map.

    >>> heat(np.array([-1.0, 1.0, 2.0])).round(3).tolist()
    [0.0, 0.5, 1.0]
    """
    marginal = real_numbers(marginal, "a time marginal")
    if marginal.ndim != 1 or not marginal.size or not np.isfinite(marginal).all():
        raise XaibenchError(f"a time marginal of shape {marginal.shape}, expected (T,), finite, of one frame or more")
    positive = np.clip(marginal, 0, None)
    shifted = positive - positive.min()
    return shifted / (1e-7 + shifted.max())
