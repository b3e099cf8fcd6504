"""One map of one utterance, as a notebook holds it: values on the grid, its top cells, its scores, its picture.

`values` `(F, T)`, frequency first, positive = evidence for spoof. Of a truth they are the difference of the twins, never
negative, and `region` is the mask. Maps read from a run's folder have no countermeasure behind them: their scores are in
the run's rows. No torch is imported here.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from xaibench.errors import XaibenchError
from xaibench.top import largest, share_count
from xaibench.types import Axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Behind(Protocol):
    """What a map was made with, and what can be asked of it: `xaibench.api.parts` makes one."""

    def score(self, metric: str) -> float:
        """A metric of the catalogue."""

    def curve(self, direction: str, fill: str, fractions: Sequence[float] | None) -> tuple[np.ndarray, np.ndarray]:
        """Spoof log-odds `(S,)` along the order of the map's cells."""


@dataclass(frozen=True, eq=False)
class Map:
    """A map on the grid.

    name:   who made it ("grad-cam", "truth eq2").
    pair:   the utterance, `source/vocoder`.
    values: `(F, T)`, positive = evidence for spoof.
    frequency, time: the axes, with edges in Hz and in seconds.
    valid:  `(F, T)` bool, the cells that count.
    region: `(F, T)` bool, where the truth of this utterance lies; None where it is not known.
    seconds: what making it cost.

    >>> cells = Axis("frequency", [0, 1, 2, 3, 4, 5]), Axis("time", [0, 1, 2, 3, 4])
    >>> m = Map("demo", "u/v", np.arange(20.0).reshape(5, 4), *cells, valid=np.ones((5, 4), bool))
    >>> m.top(0.1)[4].tolist()
    [False, False, True, True]
    >>> m
    Map demo of u/v: 5 x 4 cells, 0 Hz to 5 Hz, 4.00 s
    """

    name: str
    pair: str
    values: np.ndarray
    frequency: Axis
    time: Axis
    valid: np.ndarray
    region: np.ndarray | None = None
    seconds: float = float("nan")
    behind: Behind | None = field(default=None, repr=False)

    def top(self, share: float = 0.05) -> np.ndarray:
        """The `share` of the valid cells with the largest values, among equals the first in row order. Shape: `(F, T)`."""
        return largest(self.values, self.valid, share_count(share, self.valid))[0]

    def score(self, metric: str = "rank-accuracy") -> float:
        """A metric of this map (`xaibench list metrics` names them), as a run computes it.

        Raises Unsupported or Undefined where it has no value, with the reason, and XaibenchError for a map without a
        countermeasure behind it.
        """
        return self._behind(f"score {metric!r}").score(metric)

    def curve(
        self, direction: str = "deletion", *, fill: str = "twin", fractions: Sequence[float] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Spoof log-odds when the top cells are deleted ("deletion"), or when they alone are kept ("insertion").

        fill: what stands in place of deleted cells, "twin" (the real recording's), "mean" or "silence". fractions: rising
        shares of the valid cells in [0, 1]; default: those of the preset `quick`. Returns fractions and log-odds, `(S,)`.
        """
        return self._behind("curve").curve(direction, fill, fractions)

    def _behind(self, what: str) -> Behind:
        if self.behind is None:
            raise XaibenchError(
                f"{self.name} of {self.pair} has no {what}: it is values only; take the scores of a run from `run.rows`, or "
                f"make the map with xaibench.attribute"
            )
        return self.behind

    def plot(self, axes: Axes | None = None, *, share: float | None = None, title: str | None = None) -> Figure:
        """Draw it on matplotlib axes (default: a figure of its own): blue for bona fide, red for spoof, white for nothing.

        share: draw the top cells instead, those within the truth's region (red) and those outside it (blue).
        """
        from matplotlib.figure import Figure

        from xaibench.figures import BLUE, MAP, VERMILLION

        if axes is None:
            axes = Figure(figsize=(5.2, 2.4), layout="constrained").subplots()
        size = np.abs(self.values[self.valid])
        limit = float(np.percentile(size, 99)) or float(size.max()) or 1.0  # one outlier would blank the rest
        values = self.values
        how: dict[str, Any] = {"cmap": MAP, "vmin": -limit, "vmax": limit}
        if share is not None:
            from matplotlib.colors import ListedColormap

            top = self.top(share)
            inside = np.zeros(top.shape, bool) if self.region is None else self.region
            values = top * np.where(inside, 2, 1)
            how = {"cmap": ListedColormap(["white", BLUE, VERMILLION]), "vmin": 0, "vmax": 2}
        axes.pcolormesh(self.time.edges, self.frequency.edges / 1_000, values, rasterized=True, **how)
        axes.set(xlabel="time (s)", ylabel="frequency (kHz)")
        axes.set_title(self.name if title is None else title, loc="left", fontsize="medium")
        figure = axes.figure
        return figure if isinstance(figure, Figure) else figure.figure  # of a part of a figure the whole

    def __repr__(self) -> str:
        cells = " x ".join(map(str, self.values.shape))
        reach = f"0 Hz to {self.frequency.edges[-1]:g} Hz, {self.time.edges[-1]:.2f} s"
        return f"Map {self.name} of {self.pair}: {cells} cells, {reach}"

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.plot(title=f"{self.name} of {self.pair}").savefig(buffer, format="png", dpi=90, metadata={"Software": None})
        return buffer.getvalue()
