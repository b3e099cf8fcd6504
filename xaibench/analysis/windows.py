"""Long recordings in windows, and the maps of the windows joined to one map of the whole.

A countermeasure looks at `n_samples`. A longer recording is cut as `xaibench.scoring.windows` cuts it: windows that overlap
(half, unless told otherwise), the last one flush with the end. A shorter one is repeated, as `xaibench.audio.fit` does.

Joining. At a moment that several windows saw, the map is the mean of what they said, weighted by a taper sin^2 that is small
near a window's ends, where the countermeasure has seen only one side:

    joined(f, t) = sum_w h(t - s_w) A_w(f, t - s_w) / sum_w h(t - s_w)

so the weights sum to 1 at every moment, and a moment counts the same however many windows saw it (a sum would count the
middle of a recording twice and its ends once). A repeated recording is the same thing with windows that begin before 0: the
copies of a moment are averaged. A window's cells need not fall on the recording's: they are split by their overlap in time,
as in `xaibench.project`.

Shapes: maps `(W, F, T')` on the time axis of a window, joined `(F, T)` on that of the recording. Times in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xaibench import audio
from xaibench.errors import XaibenchError
from xaibench.types import Axis


@dataclass(frozen=True, eq=False)
class Windows:
    """waves: `(W, n_samples)`. starts: the first sample of each. length: samples of the recording."""

    waves: np.ndarray
    starts: tuple[int, ...]
    length: int

    @property
    def repeats(self) -> int:
        """How often a window holds the recording, whole or in part; 1 unless it is shorter than a window."""
        return max(-(-self.waves.shape[1] // self.length), 1)

    def placements(self, sample_rate: int) -> list[tuple[int, float]]:
        """Where windows lie on the recording: (index, seconds). A repeated one lies there once a copy, from before 0."""
        if self.repeats == 1:
            return [(index, start / sample_rate) for index, start in enumerate(self.starts)]
        return [(0, -copy * self.length / sample_rate) for copy in range(self.repeats)]

    def seconds(self, sample_rate: int) -> list[tuple[float, float]]:
        """Start and end of each window within the recording."""
        n = self.waves.shape[1]
        return [(s / sample_rate, min(s + n, self.length) / sample_rate) for s in self.starts]


def cut(samples: np.ndarray, n_samples: int, *, overlap: float = 0.5) -> Windows:
    """A recording `(N,)` as windows of `n_samples`; `overlap` is the share that neighbours have in common.

    With half an overlap these are the windows of `xaibench.scoring.windows`, so the mean of their scores is the score that
    `xaibench evaluate` gives. Raises XaibenchError for an overlap outside [0, 0.95], AudioError for an empty recording.

    >>> cut(np.arange(7.0), 4).starts, cut(np.arange(3.0), 4).waves.tolist()
    ((0, 2, 3), [[0.0, 1.0, 2.0, 0.0]])
    """
    if not 0 <= overlap <= 0.95:
        raise XaibenchError(f"overlap {overlap}, expected a share from 0 to 0.95, as 0.5 for half")
    if len(samples) <= n_samples:
        return Windows(audio.fit(samples, n_samples)[None], (0,), len(samples))
    last = len(samples) - n_samples
    step = max(int(n_samples * (1 - overlap)), 1)
    starts = tuple(sorted({*range(0, last, step), last}))
    return Windows(np.stack([samples[s : s + n_samples] for s in starts]), starts, len(samples))


def taper(axis: Axis) -> np.ndarray:
    """The weight of each cell of a window, sin^2 over its length, above 0 everywhere. Shape: `(T',)`.

    >>> taper(Axis("time", [0.0, 1.0, 2.0])).round(3).tolist()
    [0.5, 0.5]
    """
    first, last = axis.edges[0], axis.edges[-1]
    return np.sin(np.pi * (axis.centres - first) / (last - first)) ** 2


def join(maps: np.ndarray, placements: Sequence[tuple[int, float]], time: Axis, target: Axis) -> np.ndarray:
    """The windows' maps `(W, F, T')` as one map `(F, T)`; the formula is the module's. 0 where no window reached.

    placements: (index of a window, where its axis `time` begins on `target`, s), as `Windows.placements` gives them.
    Raises XaibenchError for maps that do not fit their axis.

    >>> axis = Axis("time", [0.0, 1.0, 2.0])
    >>> join(np.ones((2, 1, 2)), [(0, 0.0), (1, 1.0)], axis, Axis("time", [0.0, 1.0, 2.0, 3.0])).tolist()
    [[1.0, 1.0, 1.0]]
    """
    maps = np.asarray(maps, dtype=np.float64)
    if maps.ndim != 3 or maps.shape[2] != len(time):
        raise XaibenchError(f"expected maps (W, F, T') with {len(time)} frames, got {maps.shape}")
    total, weight = np.zeros((maps.shape[1], len(target))), np.zeros(len(target))
    own, tapered = np.diff(time.edges), taper(time)
    for index, offset in placements:
        edges = time.edges + offset
        first = max(int(np.searchsorted(target.edges, edges[0], side="right")) - 1, 0)
        last = min(int(np.searchsorted(target.edges, edges[-1], side="left")), len(target))
        if first >= last:
            continue
        cells = target.edges[first : last + 1]
        shared = np.minimum(edges[1:, None], cells[None, 1:]) - np.maximum(edges[:-1, None], cells[None, :-1])
        shared[shared < 1e-9 * own.min()] = 0  # cells that only touch, but for rounding
        # A cell's value is a mass: it is split over the cells that it reaches, and what covers half a cell weighs half.
        total[:, first:last] += (maps[index] * tapered) @ (shared / own[:, None])
        weight[first:last] += tapered @ (shared / np.diff(cells))
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
