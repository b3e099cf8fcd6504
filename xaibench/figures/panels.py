"""Panels of time and frequency: a spectrogram, a map, a region over a spectrogram, and their axes.

Arrays `(F, T)`, frequency first. A `Place` says where the cells lie in seconds and Hz: a cell of the centred STFT stands
half a hop and half a bin to either side of its centre, and the axes end where the recording does.

Spectrograms are in dB below their loudest cell (viridis), or in grey under an overlay. A map is drawn from blue (evidence
for bona fide) over white to red (evidence for spoof), symmetric about zero and cut at the 99th percentile of its
magnitude, since one outlier would blank the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xaibench.figures.style import MAP, SPECTROGRAM

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLOOR_DB = -80.0  # dB below the loudest cell; quieter cells are drawn alike
TINY = 1e-10


@dataclass(frozen=True)
class Place:
    """Cells of a grid on the axes. step: seconds and Hz a cell. seconds, hertz: the ends of the axes.

    scale: Hz a unit of the axis, 1 or 1000.
    """

    step: tuple[float, float]
    seconds: tuple[float, float]
    hertz: tuple[float, float]
    scale: float = 1.0

    def how(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """What `imshow` must know about an array `(F, T)`."""
        (dt, df), (f, t) = self.step, shape[:2]
        extent = (-0.5 * dt, (t - 0.5) * dt, -0.5 * df / self.scale, (f - 0.5) * df / self.scale)
        return {"origin": "lower", "aspect": "auto", "extent": extent, "interpolation": "nearest", "rasterized": True}

    def finish(self, axes: Axes) -> None:
        axes.set_xlim(*self.seconds)
        axes.set_ylim(self.hertz[0] / self.scale, self.hertz[1] / self.scale)


def place_of(n_samples: int, grid: tuple[int, int, int, str], *, scale: float = 1.0) -> Place:
    """The place of a recording's cells; grid: sample rate in Hz, n_fft and hop in samples, window."""
    rate, n_fft, hop, _ = grid
    return Place((hop / rate, rate / n_fft), (0.0, n_samples / rate), (0.0, rate / 2), scale)


def decibels(magnitude: np.ndarray, loudest: float | None = None) -> np.ndarray:
    """Levels in dB below the loudest cell, or below another magnitude."""
    reference = max(float(magnitude.max()) if loudest is None else loudest, TINY)
    return 20 * np.log10(np.maximum(magnitude, TINY) / reference)


def spectrogram(axes: Axes, magnitude: np.ndarray, place: Place, *, grey: bool = False, loudest: float | None = None) -> Any:
    """Draw |STFT| in dB; grey as the backdrop of an overlay. Returns the image, for a colour bar."""
    low, high = (-65.0, 25.0) if grey else (FLOOR_DB, 0.0)  # under an overlay the speech is only a faint backdrop
    cmap = "gray_r" if grey else SPECTROGRAM
    return _image(axes, decibels(magnitude, loudest), place, cmap, (low, high))


def signed(axes: Axes, values: np.ndarray, place: Place) -> Any:
    """Draw a map: blue for bona fide, red for spoof."""
    magnitude = np.abs(values)
    limit = float(np.percentile(magnitude, 99)) or float(magnitude.max()) or 1.0
    return _image(axes, values, place, MAP, (-limit, limit))


def difference(axes: Axes, values: np.ndarray, place: Place, cmap: str, limit: float) -> Any:
    """Draw a difference in dB, cut at plus and minus `limit`."""
    return _image(axes, values, place, cmap, (-limit, limit))


def overlay(axes: Axes, region: np.ndarray, colour: str, place: Place) -> None:
    """Paint the cells of a region `(F, T)` bool over what is drawn."""
    from matplotlib.colors import to_rgba

    image = np.zeros((*region.shape, 4))
    image[region] = to_rgba(colour)
    axes.imshow(image, **place.how(region.shape))
    place.finish(axes)


def labels(axes: Axes, *, bottom: bool, left: bool, unit: str = "Hz", prune: str | None = None) -> None:
    """Time in seconds and frequency, written on the outer panels only; every panel has the ticks.

    `prune` drops an end that collides.
    """
    axes.locator_params(axis="x", nbins=4, prune=prune)
    axes.locator_params(axis="y", nbins=4)
    axes.tick_params(labelbottom=bottom, labelleft=left)
    if bottom:
        axes.set_xlabel("time (s)", labelpad=1)
    if left:
        axes.set_ylabel(f"frequency ({unit})", labelpad=2)


def _image(axes: Axes, values: np.ndarray, place: Place, cmap: str, ends: tuple[float, float]) -> Any:
    image = axes.imshow(values, cmap=cmap, vmin=ends[0], vmax=ends[1], **place.how(values.shape))
    place.finish(axes)
    return image
