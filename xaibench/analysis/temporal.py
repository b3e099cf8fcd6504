"""Pictures of activations: one utterance over time, and histograms of bona fide against spoofed frames. Writes PNG.

`temporal_map`: waveform, spectrogram, what is labelled and heard (truth, speech, guard), the class maps of a countermeasure
that has some, and for every method its activation h with the thresholds, the evidence for bona fide below the line, and
the segments above each threshold. `histogram_figure`: a panel a method.

Class colours. Each class over time has a colour of its own, after Figure 2 of Li & Zhang (Interspeech 2024, arXiv
2406.08825). Which colours and what layout they use is UNVERIFIED: we could read neither the figure nor its caption. Ours are
Okabe and Ito's and their like, told apart by the colour-blind and the same on every page: bona fide blue, spoofing
vermillion, further kinds of spoofing orange, purple, brown, pink. matplotlib is imported when a picture is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xaibench.analysis.activations import Activity, Rules, segments_above
from xaibench.analysis.speech import runs
from xaibench.analysis.statistics import Histogram
from xaibench.errors import XaibenchError
from xaibench.figures import panels
from xaibench.figures.pairs import stft_magnitude
from xaibench.figures.style import (
    BLUE,
    BROWN,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    PINK,
    PURPLE,
    VERMILLION,
    fitted,
    new_figure,
    save_as,
    style,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import LineStyleType

KINDS = (VERMILLION, ORANGE, PURPLE, BROWN, PINK)  # of spoofing, in the order of a countermeasure's classes
LEFT, RIGHT, WIDTH = 1.55, 0.15, 9.0  # inches: margins, and the whole
PANEL, BAR = 0.62, 0.09  # inches: of a method's curve, and of one row of segments
FILLS = 0.35  # opacity under a curve


@dataclass(frozen=True, eq=False)
class Sound:
    """The recording of a picture: samples `(N,)`, their rate, the grid (n_fft, hop, window), spoofed stretches in s."""

    samples: np.ndarray
    sample_rate: int
    grid: tuple[int, int, str] = (512, 160, "hann")
    spoofed: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, eq=False)
class ClassCurves:
    """A countermeasure's class maps: `(K, T)` in the order of `classes`, higher = more of that class; edges `(T + 1,)` s."""

    classes: tuple[str, ...]
    values: np.ndarray
    edges: np.ndarray


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """The colour of each class: blue for bona fide, the others of `KINDS` in their order.

    >>> list(class_colours(["bonafide", "tts", "vc"]).values()) == [BLUE, VERMILLION, ORANGE]
    True
    """
    kinds = [name for name in classes if name != "bonafide"]
    if len(kinds) > len(KINDS):
        raise XaibenchError(f"{len(kinds)} kinds of spoofing, colours are there for {len(KINDS)}")
    return {name: BLUE if name == "bonafide" else KINDS[kinds.index(name)] for name in classes}


def temporal_map(
    title: str, sound: Sound, activities: Mapping[str, Activity], out: Path, *, rules: Rules,
    classes: ClassCurves | None = None,
) -> Path:  # fmt: skip
    """One utterance over time, methods in the order given. Returns the file `out`, a PNG.

    Raises XaibenchError without a method, and RunError where the file cannot be written.
    """
    if not activities:
        raise XaibenchError(f"{title}: no method to draw")
    with style():
        return save_as(_map(title, sound, activities, rules, classes), Path(out))


def _map(title: str, sound: Sound, activities: Mapping[str, Activity], rules: Rules, classes: ClassCurves | None) -> Figure:
    bars = BAR * len(rules.thresholds) + 0.04
    heights = [("wave", 0.5), ("spectrogram", 1.15), ("labels", 3 * 0.13)]
    heights += [("classes", 0.95), ("winner", 0.13)] if classes is not None else []
    heights += [part for name in activities for part in ((name, PANEL), (f"{name} bars", bars))]
    gaps = {"wave": 0.05, "spectrogram": 0.05, "labels": 0.16, "classes": 0.03, "winner": 0.16}
    head, foot = 0.42, 0.78
    total = head + foot + sum(h + gaps.get(n, 0.1 if n.endswith(" bars") else 0.02) for n, h in heights)
    figure = new_figure(WIDTH, total)
    first = next(iter(activities.values()))
    end = float(first.edges[-1])
    y, rows = total - head, []
    for name, height in heights:
        y -= height
        axes = figure.add_axes((LEFT / WIDTH, y / total, (WIDTH - LEFT - RIGHT) / WIDTH, height / total))
        rows.append(axes)
        axes.set_xlim(0, end)
        axes.tick_params(labelbottom=False, bottom=False)
        y -= gaps.get(name, 0.1 if name.endswith(" bars") else 0.02)
    words, size = fitted(title, 10, WIDTH - 0.3)
    figure.text(0.15 / WIDTH, 1 - 0.12 / total, words, fontsize=size, weight="bold", va="top")
    _wave(rows[0], sound, end)
    _spectrogram(rows[1], sound, end)
    _labels(rows[2], first, sound, rules)
    at = 3
    if classes is not None:
        _classes(rows[3], rows[4], classes)
        at = 5
    for number, (name, activity) in enumerate(activities.items()):
        _activation(rows[at + 2 * number], name, activity, rules)
        _bars(rows[at + 2 * number + 1], activity, rules)
    rows[-1].tick_params(labelbottom=True, bottom=True)
    rows[-1].set_xlabel("time (s)")
    _legend(figure, total, classes, bool(sound.spoofed))
    return figure


def _beside(axes: Axes, text: str, colour: str = "black", at: float = 0.5) -> None:
    """A row's name in the left margin."""
    words, size = fitted(text, 7.5, LEFT - 0.45)
    axes.text(-0.3 / (WIDTH - LEFT - RIGHT), at, words, transform=axes.transAxes, ha="right", va="center", fontsize=size,
              color=colour)  # fmt: skip


def _wave(axes: Axes, sound: Sound, end: float) -> None:
    count = min(len(sound.samples), math.ceil(end * sound.sample_rate))
    times = np.arange(count) / sound.sample_rate
    peak = float(np.abs(sound.samples).max()) or 1.0
    axes.plot(times, sound.samples[:count], color=GREY, linewidth=0.3, rasterized=True)
    for start, stop in sound.spoofed:
        axes.axvspan(start, stop, color=VERMILLION, alpha=0.18, linewidth=0)
    axes.set_ylim(-1.05 * peak, 1.05 * peak)
    axes.set_yticks([])
    _beside(axes, "waveform")


def _spectrogram(axes: Axes, sound: Sound, end: float) -> None:
    n_fft, hop, window = sound.grid
    place = panels.place_of(round(end * sound.sample_rate), (sound.sample_rate, n_fft, hop, window), scale=1000.0)
    panels.spectrogram(axes, stft_magnitude(sound.samples, n_fft, hop, window), place)
    axes.set_yticks([0, sound.sample_rate / 4000, sound.sample_rate / 2000])
    _beside(axes, "spectrogram (kHz)")


def _labels(axes: Axes, activity: Activity, sound: Sound, rules: Rules) -> None:
    """Three rows: the truth (labels, where there are some, else frames), speech, and what the guard leaves out."""
    axes.set_ylim(0, 3)
    end = activity.edges[-1]
    if sound.spoofed:
        axes.broken_barh([(0, end)], (2.1, 0.8), color=BLUE, linewidth=0)
        axes.broken_barh([(a, min(b, end) - a) for a, b in sound.spoofed], (2.1, 0.8), color=VERMILLION, linewidth=0)
    elif activity.truth is not None:
        axes.broken_barh(_spans(activity.truth, activity.edges), (2.1, 0.8), color=VERMILLION, linewidth=0)
    axes.broken_barh(_spans(activity.speech, activity.edges), (1.1, 0.8), color=GREEN, linewidth=0)
    axes.broken_barh(_spans(activity.aside, activity.edges), (0.1, 0.8), color=PALE, linewidth=0)
    names = ("truth" if activity.truth is not None else "", f"speech ({rules.vad})", f"guard {1000 * rules.guard:.0f} ms")
    for row, name in zip((2.5, 1.5, 0.5), names, strict=True):
        _beside(axes, name, at=row / 3)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _spans(mask: np.ndarray, edges: np.ndarray) -> list[tuple[float, float]]:
    """Runs of a mask as (start, width) in seconds."""
    return [(float(edges[a]), float(edges[b] - edges[a])) for a, b in runs(mask)]


def _classes(axes: Axes, strip: Axes, classes: ClassCurves) -> None:
    """A curve a class, less the mean of all classes, which no softmax sees; below, the colour of the largest."""
    colours = class_colours(classes.classes)
    middle = (classes.edges[1:] + classes.edges[:-1]) / 2
    values = classes.values - classes.values.mean(0)
    for name, row in zip(classes.classes, values, strict=True):
        axes.plot(middle, row, color=colours[name], linewidth=1.1)
    axes.axhline(0, color=GREY, linewidth=0.5)
    limit = float(np.abs(values).max()) or 1.0
    axes.set_ylim(-1.1 * limit, 1.1 * limit)
    axes.set_yticks([0])
    _beside(axes, "class activation")
    winner = values.argmax(0)
    for index, name in enumerate(classes.classes):
        strip.broken_barh(_spans(winner == index, classes.edges), (0, 1), color=colours[name], linewidth=0)
    strip.set_ylim(0, 1)
    strip.set_yticks([])
    _beside(strip, "largest")


def _activation(axes: Axes, name: str, activity: Activity, rules: Rules) -> None:
    edges = activity.edges
    against = np.clip(-activity.curve, 0, None) / (np.abs(activity.curve).max() or 1.0)
    for start, width in _spans(activity.aside, edges):
        axes.axvspan(start, start + width, color=PALE, alpha=0.35, linewidth=0)
    for values, colour in ((activity.h, VERMILLION), (-against, BLUE)):
        axes.stairs(values, edges, fill=True, color=colour, alpha=FILLS, linewidth=0)
        axes.stairs(values, edges, color=colour, linewidth=0.8, baseline=None)
    for threshold in rules.thresholds:
        axes.axhline(threshold, color=GREY, linewidth=0.5, linestyle=(0, (4, 3)))
    axes.set_ylim(-1.03 if against.any() else -0.05, 1.05)
    axes.set_yticks([0, 1])
    axes.tick_params(axis="y", labelsize=6, pad=1)
    _beside(axes, name)


def _bars(axes: Axes, activity: Activity, rules: Rules) -> None:
    """A row of segments a threshold, the highest threshold on top."""
    order = sorted(rules.thresholds)
    for row, threshold in enumerate(order):
        found = segments_above(activity.h, threshold, activity.edges, gap=rules.gap, shortest=rules.shortest)
        axes.broken_barh([(s.start, s.end - s.start) for s in found], (row + 0.1, 0.8), color=VERMILLION,
                         alpha=0.45 + 0.55 * (row + 1) / len(order), linewidth=0)  # fmt: skip
        axes.text(1.003, (row + 0.5) / len(order), f"{threshold:g}", transform=axes.transAxes, fontsize=4.5, va="center")
    axes.set_ylim(0, len(order))
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)


def _legend(figure: Figure, total: float, classes: ClassCurves | None, partial: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Patch(color=VERMILLION, alpha=FILLS, label="activation: evidence for spoof, 0 to 1"),
        Patch(color=BLUE, alpha=FILLS, label="below 0: evidence for bona fide, share of the largest frame"),
        Line2D([], [], color=GREY, linewidth=0.6, linestyle=(0, (4, 3)), label="thresholds; bars: segments above them"),
        Patch(color=PALE, label="set aside"),
    ]
    if partial:
        handles.append(Patch(color=VERMILLION, label="labelled spoofed"))
    if classes is not None:
        colours = class_colours(classes.classes)
        handles += [Line2D([], [], color=colours[c], linewidth=1.4, label=f"class {c}") for c in classes.classes]
    figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0.04 / total), ncols=4, frameon=False,
                  fontsize=6, columnspacing=1.4, handlelength=1.6)  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """One panel of `histogram_figure`: its heading, what stands beside it, and the histogram."""

    name: str
    note: str
    histogram: Histogram


def histogram_figure(title: str, shown: Sequence[Panel], out: Path, *, rules: Rules, what: str = "frames") -> Path:
    """A panel a method: the share of each side's frames (or utterances) in a bin of h, on a logarithmic scale.

    Most frames of most maps lie near 0, so a linear scale would show one bar. The first side of a histogram is blue, the
    second vermillion, a third green and dashed. Returns the file `out`, a PNG. Raises as `temporal_map`.
    """
    if not shown:
        raise XaibenchError(f"{title}: no method to draw")
    with style():
        columns = min(4, len(shown))
        rows = -(-len(shown) // columns)
        width, height = 2.2 * columns + 0.75, 1.42 * rows + 1.2
        figure = new_figure(width, height)
        words, size = fitted(title, 10, width - 0.3)
        figure.text(0.15 / width, 1 - 0.12 / height, words, fontsize=size, weight="bold", va="top")
        least = min(_least(p.histogram) for p in shown)
        for index, panel in enumerate(shown):
            row, column = divmod(index, columns)
            x, y = 0.6 + 2.2 * column, height - 0.55 - 1.42 * (row + 1) + 0.35
            axes = figure.add_axes((x / width, y / height, 1.95 / width, 0.98 / height))
            last = index + columns >= len(shown)
            _histogram(axes, panel, rules, least, bottom=last, left=column == 0, what=what)
        _sides(figure, shown[0].histogram, width)
        return save_as(figure, Path(out))


def _least(histogram: Histogram) -> float:
    """The bottom of the scale: one frame of the larger side."""
    return 0.5 / max(max(histogram.count.values(), default=1), 1)


def _histogram(axes: Axes, panel: Panel, rules: Rules, least: float, *, bottom: bool, left: bool, what: str) -> None:
    for index, (shares, count) in enumerate(
        zip(panel.histogram.shares.values(), panel.histogram.count.values(), strict=True)
    ):
        if count:
            colour, line = _LOOKS[index]
            height = np.maximum(shares, least)
            axes.stairs(height, panel.histogram.edges, color=colour, linewidth=1.1, linestyle=line, baseline=None)
            if line == "-":
                axes.stairs(height, panel.histogram.edges, color=colour, alpha=0.15, fill=True, baseline=least, linewidth=0)
    for threshold in rules.thresholds:
        axes.axvline(threshold, color=GREY, linewidth=0.5, linestyle=(0, (4, 3)))
    axes.set_yscale("log")
    axes.set_ylim(least, 1.3)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], labels=["0", "0.5", "1"])
    axes.minorticks_off()
    decades = [10.0**k for k in range(math.ceil(math.log10(least)), 1)]
    axes.set_yticks(decades, labels=[f"{100 * d:g} %" for d in decades])
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelbottom=bottom, labelleft=left)
    note, _ = fitted(panel.note, 6.5, 0.95)
    name, size = fitted(panel.name, 7.5, 0.95)
    axes.set_title(name, loc="left", fontsize=size)
    axes.set_title(note, loc="right", fontsize=6.5)
    if bottom:
        axes.set_xlabel("activation h", labelpad=1)
    if left:
        axes.set_ylabel(f"share of {what}", labelpad=1)


_LOOKS: tuple[tuple[str, LineStyleType], ...] = ((BLUE, "-"), (VERMILLION, "-"), (GREEN, "--"))


def _sides(figure: Figure, histogram: Histogram, width: float) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, linestyle=line, linewidth=1.4, label=side)
        for side, (colour, line) in zip(histogram.shares, _LOOKS, strict=False)
    ]
    handles.append(Line2D([], [], color=GREY, linewidth=0.6, linestyle=(0, (4, 3)), label="thresholds"))
    figure.legend(handles=handles, loc="lower center", ncols=4 if width > 5 else 2, frameon=False, fontsize=7)
