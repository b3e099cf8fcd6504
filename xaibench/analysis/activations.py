"""Activations: a map as one curve over time in [0, 1], its segments above thresholds, and what it dwells on.

The analysis stage of the WeDefense tutorial "Explainable AI (XAI) for Partially Spoofed Audio Detection with Grad-CAM"
(github.com/zlin0/wedefense, docs/source/tutorials/Explainable-AI-XAI.ipynb, fc599c5), for the map of any method:

    a_t  sum of the map over the frequencies of frame t;  positive = evidence for spoof
    h_t  = (r_t - min r) / (max r - min r),   r = max(a, 0),   over one utterance; 0 everywhere for a flat r
    segments: runs of frames with h > theta, theta = 0.3, 0.5, 0.7

From the tutorial: h, `>`, the three thresholds, mean, maximum and standard deviation, the histograms of bona fide and
spoof, and "ignore first/last 100 ms". It names a file statistics.csv but not its columns; the program it belongs to
(XAI_Score_analysis.py) computes RCQ only (`xaibench.metrics.rcq`). Ours, therefore: the columns (`xaibench.analysis.
statistics`), and that the guard of 100 ms is also set around the edges of speech and around splices.
Two departures: the tutorial's loop loses a segment that is still open at the last frame, and its scaling adds 1e-7 to the
denominator, which would shrink the maps of methods whose numbers are small.

h is 1 somewhere in *every* utterance, bona fide or not. Levels of h do not compare between utterances; `raw_mean` does.

Frames: `h` `(T,)`, edges `(T + 1,)` in seconds, masks `(T,)` bool. numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from xaibench.analysis.speech import DETECTORS, runs, voice_activity
from xaibench.errors import XaibenchError
from xaibench.types import Axis

SCALES = ("relu", "minmax", "peak")
EDGES = ("ends", "speech", "splices")

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Rules:
    """How activations are made and judged.

    thresholds: on h. guard: seconds on each side of an edge that are set aside; guard_at: of which edges, of `EDGES`: the
    recording's ends (the tutorial's), edges of speech, splices. scale: of `SCALES`, see `activation`. vad: of
    `speech.DETECTORS`. gap, shortest: of `segments_above`, in seconds.

    >>> Rules().thresholds, Rules().guard
    ((0.3, 0.5, 0.7), 0.1)
    """

    thresholds: tuple[float, ...] = (0.3, 0.5, 0.7)
    guard: float = 0.1
    guard_at: tuple[str, ...] = EDGES
    scale: str = "relu"
    vad: str = "energy"
    gap: float = 0.0
    shortest: float = 0.0

    def __post_init__(self) -> None:
        if not self.thresholds or not all(0 <= t < 1 for t in self.thresholds):
            raise XaibenchError(
                f"thresholds {self.thresholds}: expected at least one, each in [0, 1); activations are in [0, 1]"
            )
        if len(set(self.thresholds)) != len(self.thresholds):
            raise XaibenchError(f"thresholds {self.thresholds}: one is there twice")
        for name in ("guard", "gap", "shortest"):
            if not 0 <= getattr(self, name) < math.inf:
                raise XaibenchError(f"{name} = {getattr(self, name)}: expected seconds, 0 or more")
        strange = [e for e in self.guard_at if e not in EDGES]
        if strange:
            raise XaibenchError(f"guard at {strange[0]!r}: expected some of {', '.join(EDGES)}")
        if self.scale not in SCALES:
            raise XaibenchError(f"unknown scale {self.scale!r}; expected one of {', '.join(SCALES)}")
        if self.vad not in DETECTORS:
            raise XaibenchError(f"unknown voice activity detector {self.vad!r}; expected one of {', '.join(DETECTORS)}")


@dataclass(frozen=True)
class Detected:
    """A run of activation above a threshold: seconds, and mean and peak of h over its frames (a bridged gap's included)."""

    start: float
    end: float
    mean: float
    peak: float


@dataclass(frozen=True, eq=False)
class Activity:
    """One map over time.

    curve: a `(T,)`, signed. h: `(T,)` in [0, 1]. edges: `(T + 1,)` s. speech, aside: `(T,)` bool; aside = within the guard.
    truth: `(T,)` bool, the frames the truth points at (spoofed ones, where segments are known); None where there is none.
    """

    curve: np.ndarray
    h: np.ndarray
    edges: np.ndarray
    speech: np.ndarray
    aside: np.ndarray
    truth: np.ndarray | None = None

    @property
    def counted(self) -> np.ndarray:
        """The frames that statistics look at. Shape: `(T,)` bool."""
        return ~self.aside


@dataclass(frozen=True, eq=False)
class RecordingActivity(Activity):
    """An `Activity` of a user's recording, with its segments: threshold -> what lies above, in time order."""

    segments: Mapping[float, tuple[Detected, ...]] = field(default_factory=dict)


def frame_edges(count: int, step: float) -> np.ndarray:
    """Edges of the benchmark's frames, centred on multiples of `step` s; the outer ones end where the recording does.

    >>> frame_edges(3, 0.01).round(4).tolist()
    [0.0, 0.005, 0.015, 0.02]
    """
    if count < 2 or not step > 0:
        raise XaibenchError(f"{count} frames every {step} s: expected two or more, and a step above 0")
    return np.clip((np.arange(count + 1) - 0.5) * step, 0.0, (count - 1) * step)


def marginal(values: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
    """a: the sum over frequencies, all or those `inside` `(F,)` bool. Shape: `(F, T)` -> `(T,)` float64.

    Raises XaibenchError for a map that is not `(F, T)` and finite.
    """
    values = np.asarray(values)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise XaibenchError(f"a map of shape {values.shape}: expected (F, T), frequency first, finite")
    return (values if inside is None else values[inside]).sum(0, dtype=np.float64)


def activation(curve: np.ndarray, scale: str = "relu") -> np.ndarray:
    """h of a curve over time. Shape: `(T,)` -> `(T,)` in [0, 1].

    "relu":   positive part, then min-max: the tutorial's, and what its Grad-CAM does. A curve without positive part is 0.
    "minmax": min-max of the signed curve: a frame that speaks for bona fide lies below one that says nothing.
    "peak":   positive part over its maximum: 0 stays where there is no evidence, however much evidence all frames share.

    A constant is 0 everywhere (with "peak" a positive constant is 1: all frames say as much).

    >>> activation(np.array([-1.0, 1.0, 3.0])).round(3).tolist()
    [0.0, 0.333, 1.0]
    >>> activation(np.array([-1.0, 1.0, 3.0]), "minmax").tolist()
    [0.0, 0.5, 1.0]
    """
    a = np.asarray(curve, dtype=np.float64)
    if a.ndim != 1 or not len(a) or not np.isfinite(a).all():
        raise XaibenchError(f"a curve of shape {a.shape}: expected (T,), finite; sum a map over frequency first")
    if scale not in SCALES:
        raise XaibenchError(f"unknown scale {scale!r}; expected one of {', '.join(SCALES)}")
    height = a if scale == "minmax" else np.clip(a, 0, None)
    low = 0.0 if scale == "peak" else height.min()
    span = height.max() - low
    if not span > 1e-12 * np.abs(a).max():  # nothing but rounding
        return np.zeros_like(a)
    return (height - low) / span


def segments_above(
    h: np.ndarray, threshold: float, edges: np.ndarray, *, gap: float = 0.0, shortest: float = 0.0
) -> tuple[Detected, ...]:
    """Runs of frames with `h > threshold`, in time order. Shape: h `(T,)`, edges `(T + 1,)` s.

    gap: runs that lie at most so many seconds apart become one (0 joins nothing, as in the tutorial). shortest: what is
    then shorter, in seconds, is dropped.

    >>> h = np.array([0.9, 0.0, 0.0, 0.8, 0.6])
    >>> segments_above(h, 0.5, np.arange(6.0))
    (Detected(start=0.0, end=1.0, mean=0.9, peak=0.9), Detected(start=3.0, end=5.0, mean=0.7, peak=0.8))
    >>> [(s.start, s.end) for s in segments_above(h, 0.5, np.arange(6.0), gap=2.0)]
    [(0.0, 5.0)]
    """
    h, edges = np.asarray(h, dtype=np.float64), np.asarray(edges, dtype=np.float64)
    if h.ndim != 1 or edges.shape != (len(h) + 1,):
        raise XaibenchError(f"an activation of shape {h.shape} and edges of shape {edges.shape}: expected (T,) and (T + 1,)")
    joined: list[tuple[int, int]] = []
    for first, last in runs(h > threshold):
        if joined and gap > 0 and edges[first] - edges[joined[-1][1]] <= gap + _ROUNDING:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return tuple(
        Detected(float(edges[a]), float(edges[b]), float(h[a:b].mean()), float(h[a:b].max()))
        for a, b in joined
        if edges[b] - edges[a] >= shortest - _ROUNDING
    )


def changes(mask: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The times within the recording at which a mask `(T,)` changes, in seconds.

    >>> changes(np.array([True, True, False]), np.array([0.0, 0.1, 0.2, 0.3])).tolist()
    [0.2]
    """
    return np.asarray(edges, dtype=np.float64)[1:-1][np.diff(np.asarray(mask, dtype=bool))]


def guarded(edges: np.ndarray, times: Sequence[float] | np.ndarray, seconds: float) -> np.ndarray:
    """Which frames have their middle within `seconds` of one of the `times`. `(T + 1,)` -> `(T,)` bool.

    >>> guarded(np.array([0.0, 0.1, 0.2, 0.3, 0.4]), [0.2], 0.06).tolist()
    [False, True, True, False]
    """
    edges, times = np.asarray(edges, dtype=np.float64), np.asarray(times, dtype=np.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    if not seconds > 0 or not len(times):
        return np.zeros(len(middle), dtype=bool)
    return (np.abs(middle[:, None] - times[None]) <= seconds + _ROUNDING).any(1)


def observe(
    curve: np.ndarray, edges: np.ndarray, speech: np.ndarray, *, rules: Rules, truth: np.ndarray | None = None,
    splices: Sequence[float] = (),
) -> Activity:  # fmt: skip
    """A curve with everything that statistics need. splices: times at which bona fide and spoofed speech meet.

    Raises XaibenchError for masks and edges that do not fit the curve.
    """
    curve, edges = np.asarray(curve, dtype=np.float64), np.asarray(edges, dtype=np.float64)
    speech = np.asarray(speech, dtype=bool)
    for name, size, expected in (("edges", edges.shape, len(curve) + 1), ("speech", speech.shape, len(curve))):
        if size != (expected,):
            raise XaibenchError(f"{name} of shape {size}: a curve of {len(curve)} frames needs {expected}")
    if truth is not None and np.shape(truth) != curve.shape:
        raise XaibenchError(f"a truth of shape {np.shape(truth)}: a curve of {len(curve)} frames needs as many")
    at = {"ends": edges[[0, -1]], "speech": changes(speech, edges), "splices": np.asarray(splices, dtype=np.float64)}
    times = np.concatenate([at[name] for name in rules.guard_at]) if rules.guard_at else np.zeros(0)
    return Activity(
        curve=curve,
        h=activation(curve, rules.scale),
        edges=edges,
        speech=speech,
        aside=guarded(edges, times, rules.guard),
        truth=None if truth is None else np.asarray(truth, dtype=bool),
    )


def of_recording(
    values: np.ndarray, frequency: Axis, time: Axis, samples: np.ndarray, sample_rate: int, *, rules: Rules | None = None,
    band: tuple[float, float] | None = None,
) -> RecordingActivity:  # fmt: skip
    """The temporal curve, voice activity and segments of one map `(F, T)` of a user's recording `(N,)`.

    band: Hz outside which cells are left out of the sum. There is no truth, so the guard is at the recording's ends and at
    the edges of speech. Raises XaibenchError for a map that does not fit its axes, or a band without a frequency.

    >>> axes = Axis("frequency", [0.0, 4000, 8000]), Axis("time", [0.0, 0.5, 1.0])
    >>> found = of_recording(np.array([[0, 2.0], [0, 1.0]]), *axes, np.ones(16_000), 16_000)
    >>> found.h.tolist(), found.segments[0.5][0].start
    ([0.0, 1.0], 0.5)
    """
    rules = rules or Rules()
    if np.shape(values) != (len(frequency), len(time)):
        raise XaibenchError(f"a map of shape {np.shape(values)} does not fit axes of {len(frequency)} x {len(time)} cells")
    inside = None
    if band is not None and len(frequency) > 1:  # a map without frequency is whole in every band
        inside = (frequency.centres >= band[0]) & (frequency.centres <= band[1])
        if not inside.any():
            raise XaibenchError(f"no frequency of the map lies between {band[0]} and {band[1]} Hz")
    speech = voice_activity(samples, time.edges, sample_rate=sample_rate, detector=rules.vad)
    seen = observe(marginal(values, inside), time.edges, speech, rules=rules)
    found = {t: segments_above(seen.h, t, seen.edges, gap=rules.gap, shortest=rules.shortest) for t in rules.thresholds}
    return RecordingActivity(seen.curve, seen.h, seen.edges, seen.speech, seen.aside, None, found)
