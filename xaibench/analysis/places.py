"""The places a map points at, in seconds and hertz: its top cells, gathered into regions.

The largest `share` of the cells of a map (5 %, as everywhere in the benchmark), of these the positive ones: only they speak
for spoof. Cells that lie apart by at most `GAP` unselected cells, in time and frequency, belong to one place: a map of fine
resolution is full of pin-holes. (A gap of 2 is too much: the top 5 % of gradient maps of LCNN then hang together over the
whole utterance.) Places are sorted by how much of all positive attribution their own cells hold; the cells in
the gaps are not counted.

Maps are `(F, T)`, positive = evidence for spoof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from scipy import ndimage

from xaibench.errors import XaibenchError
from xaibench.top import top_mask
from xaibench.types import Axis

GAP = 1  # cells
BOTH = frozenset({"frequency", "time"})


@dataclass(frozen=True)
class Place:
    """One region: from `start` to `end` s, from `low` to `high` Hz (the box around its cells).

    share: of all positive attribution of the map, in [0, 1]. cells: how many. filled: the share of the box that they fill; a
    scattered place has little. level: their mean power, in dB below the loudest cell of the recording; NaN where no
    spectrogram was given.
    """

    start: float
    end: float
    low: float
    high: float
    share: float
    cells: int
    filled: float = 1.0
    level: float = float("nan")

    def sentence(self) -> str:
        """
        >>> Place(0.42, 0.81, 1450.0, 2560.0, 0.314, 800).sentence()
        '0.420 to 0.810 s, 1450 to 2560 Hz: 31 % of the evidence for spoof'
        """
        return (
            f"{self.start:.3f} to {self.end:.3f} s, {self.low:.0f} to {self.high:.0f} Hz: {self.share:.0%} of the evidence "
            f"for spoof"
        ).replace("%", " %")

    def facts(self) -> dict[str, float]:
        """As a row of a table."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Places:
    """The places of a map, most evidence first, and the cells `(F, T)` bool that they are made of."""

    found: tuple[Place, ...]
    mask: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self):
        return iter(self.found)


def top_cells(values: np.ndarray, share: float, resolves: frozenset[str] = BOTH) -> np.ndarray:
    """The largest `share` of the cells that are positive: what is drawn, listed and listened to. Shape: `(F, T)` bool.

    resolves: the axes that the map tells apart. Of a map in time alone whole frames are taken, of one in frequency alone
    whole bins, by their sums: a cut through a frame would be the row order's, not the map's.

    >>> top_cells(np.array([[1.0, -2.0, 0.0, 3.0]]), 0.75).tolist()
    [[True, False, False, True]]
    """
    values = np.asarray(values, dtype=np.float64)
    for axis, name in enumerate(("frequency", "time")):
        if name not in resolves:
            values = np.broadcast_to(values.sum(axis=axis, keepdims=True), values.shape)
    if resolves == BOTH:
        return top_mask(values, share) & (values > 0)
    line = values[:1] if "time" in resolves else values[:, :1]
    return np.broadcast_to(top_mask(line, share) & (line > 0), values.shape).copy()


def places(
    values: np.ndarray, axes: tuple[Axis, Axis], *, share: float = 0.05, gap: int = GAP, power: np.ndarray | None = None,
    resolves: frozenset[str] = BOTH,
) -> Places:  # fmt: skip
    """The places of a map `(F, T)` on its axes (frequency, time). A map without positive cells, or of one value, has none.

    power: |STFT|^2 of the recording `(F, T)`, for the level of each place. gap: unselected cells that a place may bridge.
    resolves: see `top_cells`.
    Raises XaibenchError for a map that does not fit its axes, or is not finite.

    >>> frequency, time = Axis("frequency", [0.0, 100, 200, 300]), Axis("time", [0.0, 0.1, 0.2, 0.3, 0.4])
    >>> one = places(np.array([[0, 0, 0, 0], [0, 3, 0, 0], [0, 1, 0, 0.]]), (frequency, time), share=0.2, gap=0).found[0]
    >>> one.start, one.end, one.low, one.high, one.share, one.cells
    (0.1, 0.2, 100.0, 300.0, 1.0, 2)
    """
    values = np.asarray(values, dtype=np.float64)
    frequency, time = axes
    if values.shape != (len(frequency), len(time)):
        raise XaibenchError(f"a map of shape {values.shape} does not fit its axes, expected {(len(frequency), len(time))}")
    mask = top_cells(values, share, resolves)
    positive = float(values[values > 0].sum())
    # Dilated by a box of gap + 1 cells, two cells touch if and only if at most `gap` cells lie between them.
    grown = ndimage.binary_dilation(mask, np.ones((gap + 1, gap + 1), bool))
    labels, count = ndimage.label(grown, np.ones((3, 3)))
    labels = np.where(mask, labels, 0)
    level = None if power is None else _level(power, values.shape)
    found = [
        _place(rows, values, level, frequency, time, positive)
        for number, box in enumerate(ndimage.find_objects(labels, count), start=1)
        if box is not None
        for rows in (_cells(labels, number, box),)
    ]
    return Places(tuple(sorted(found, key=lambda p: (-p.share, p.start, p.low))), mask)


def _cells(labels: np.ndarray, number: int, box: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.nonzero(labels[box] == number)
    return rows + box[0].start, columns + box[1].start


def _place(
    cells: tuple[np.ndarray, np.ndarray], values: np.ndarray, level: np.ndarray | None, frequency: Axis, time: Axis,
    positive: float,
) -> Place:  # fmt: skip
    rows, columns = cells
    return Place(
        start=float(time.edges[columns.min()]),
        end=float(time.edges[columns.max() + 1]),
        low=float(frequency.edges[rows.min()]),
        high=float(frequency.edges[rows.max() + 1]),
        share=float(values[cells].sum() / positive),
        cells=len(rows),
        filled=len(rows) / float(np.ptp(rows) + 1) / float(np.ptp(columns) + 1),
        level=float("nan") if level is None else float(10 * np.log10(np.mean(level[cells]))),
    )


def _level(power: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Power relative to its largest cell, never 0."""
    power = np.asarray(power, dtype=np.float64)
    if power.shape != shape:
        raise XaibenchError(f"the power has shape {power.shape}, the map {shape}")
    return np.maximum(power / max(float(power.max()), 1e-30), 1e-12)


def covered(places: Sequence[Place], number: int) -> float:
    """The share of all positive attribution that the first `number` places hold."""
    return float(sum(p.share for p in list(places)[:number]))
