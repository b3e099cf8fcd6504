"""The pictures of an explanation, as PNG: the recording, and one for each method on the same time axis.

A method's picture has three panels: the spectrogram in grey with the method's top cells over it and its first places
numbered, the map from blue (bona fide) to red (spoof), and the map's sum over frequency in time with the stretches of
speech.

Colours and axes are those of `xaibench.figures`. Nothing here opens a window or writes a date.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from xaibench.analysis.speech import runs
from xaibench.figures.panels import Place as Panel
from xaibench.figures.panels import labels, overlay, place_of, signed, spectrogram
from xaibench.figures.style import BLUE, GREY, PALE, VERMILLION, new_figure, quiet, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xaibench.analysis.explanation import Explanation

WIDTH, DPI = 10.0, 150  # inches, dots an inch
MOST = 6  # places with a number in the picture
POINTS = 4_000  # of the waveform; more cannot be seen


def recording_picture(found: Explanation) -> bytes:
    """Waveform and spectrogram. Returns a PNG."""
    with style(9.0):
        figure = new_figure(WIDTH, 3.4, layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.4))
        samples, rate = found.recording.samples, found.grid.sample_rate
        step = max(len(samples) // POINTS, 1)
        blocks = samples[: len(samples) // step * step].reshape(-1, step)
        seconds = (np.arange(len(blocks)) + 0.5) * step / rate
        top.fill_between(seconds, blocks.min(1), blocks.max(1), color=BLUE, linewidth=0.4)
        loud = max(float(np.abs(samples).max()), 1e-6)
        top.set(ylim=(-1.05 * loud, 1.05 * loud), ylabel="amplitude")
        quiet(top)
        image = spectrogram(bottom, np.sqrt(found.power), _panel(found))
        labels(bottom, bottom=True, left=True)
        figure.colorbar(image, ax=bottom, label="dB below the loudest", pad=0.01, aspect=14)
        return _png(figure)


def method_picture(found: Explanation, name: str, *, dpi: int = DPI) -> bytes:
    """The three panels of one method. Returns a PNG of `WIDTH` inches at `dpi` dots an inch."""
    one, place = found.maps[name], _panel(found)
    with style(9.0):
        figure = new_figure(WIDTH, 6.4, layout="constrained")
        cells, whole, curve = figure.subplots(3, 1, sharex=True, height_ratios=(2.4, 2.4, 1))
        spectrogram(cells, np.sqrt(found.power), place, grey=True)
        overlay(cells, one.places.mask, VERMILLION, place)
        _numbers(cells, one.places.found[:MOST])
        cells.set_title(f"{name}: the top {100 * found.share:g} % of the cells, over the spectrogram", loc="left")
        image = signed(whole, one.values, place)
        whole.set_title("the whole map", loc="left")
        bar = figure.colorbar(image, ax=whole, pad=0.01, aspect=14)
        bar.set_ticks([image.norm.vmin, 0, image.norm.vmax], labels=["bona fide", "0", "spoof"])
        _over_time(curve, found, name)
        for axes in (cells, whole):
            labels(axes, bottom=False, left=True)
        curve.set_xlabel("time (s)")
        curve.set_xlim(*place.seconds)
        return _png(figure, dpi)


def _over_time(axes: Any, found: Explanation, name: str) -> None:
    """The activation h, its thresholds, and where there is speech."""
    seen = found.maps[name].over_time
    centres = (seen.edges[1:] + seen.edges[:-1]) / 2
    axes.fill_between(centres, 0, seen.h, color=VERMILLION, alpha=0.85, linewidth=0, step="mid")
    for threshold in seen.segments:
        axes.axhline(threshold, color=GREY, linewidth=0.7, linestyle=":")
    for first, last in runs(seen.speech):
        axes.plot(seen.edges[[first, last]], [-0.12, -0.12], color=BLUE, linewidth=3.5, solid_capstyle="butt")
    axes.set(ylim=(-0.25, 1.05), ylabel="over time", yticks=[0, 0.5, 1])
    axes.set_title("evidence for spoof over time, scaled to 0 ... 1; the bar below is speech", loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _numbers(axes: Any, places: Any) -> None:
    """A box and a number for each place."""
    from matplotlib.patches import Rectangle

    for number, p in enumerate(places, start=1):
        box = Rectangle((p.start, p.low), p.end - p.start, p.high - p.low, fill=False, edgecolor="black", linewidth=0.9)
        axes.add_patch(box)
        axes.text(
            p.start, p.high, f"{number}", va="top", ha="left", fontsize=8, color="white", clip_on=True,
            bbox={"facecolor": "black", "edgecolor": PALE, "linewidth": 0.3, "pad": 1.4},
        )  # fmt: skip


def _panel(found: Explanation) -> Panel:
    grid = found.grid
    return place_of(len(found.recording.samples), (grid.sample_rate, grid.n_fft, grid.hop, grid.window))


def _png(figure: Figure, dpi: int = DPI) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi, metadata={"Software": None})
    return content.getvalue()
