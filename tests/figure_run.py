"""A run folder of invented rows with maps, truths and curves, for tests of pictures; and what is written on a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fake_run
import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from xaibench import audio, maps
from xaibench.grid import Grid
from xaibench.protocols import Corpus
from xaibench.top import largest
from xaibench.types import Utterance

RATE, SAMPLES = 8_000, 2_400
GRID = Grid(sample_rate=RATE, n_fft=64, hop=32)
FRACTIONS = np.array([0.0, 0.1, 0.4, 0.8, 1.0])
SOURCES = 6
FACTS = {"grid": f"{RATE}/64/32/hann", "truth": "eq2"}
#: How fast the mean deletion curve of a method falls: the share of the gap left is (1 - fraction) ** speed.
SPEEDS = {"saliency": 1.0, "lime": 2.0, "grad-cam": 4.0, "random": 0.8, "inverse-energy": 1.5, "oracle": 3.0}


def write(folder: Path, *, speeds: dict[str, float] | None = None, curves: bool = True, sources: int = SOURCES) -> Path:
    """A run of `sources` utterances x two vocoders: untouched scores 4, 5, ... and twins' -6, -7, ..."""
    speeds = SPEEDS if speeds is None else speeds
    run = fake_run.write_run(folder, fake_run.rows({**dict.fromkeys(speeds, fake_run.SCORES["lime"]), **fake_run.SCORES}))
    shape = GRID.shape(SAMPLES)
    rng = np.random.default_rng(1)
    valid = np.zeros(shape, bool)
    valid[1:-2] = True
    for u in range(sources):
        for v, vocoder in enumerate(fake_run.VOCODERS):
            pair, values = f"u{u}/{vocoder}", rng.random(shape) * valid
            region, _ = largest(values, valid, round(0.05 * valid.sum()))
            path = maps.truth_path(run, "eq2", shape[1], pair)
            maps.write_truth(path, values, region, valid, metadata=FACTS)
            high, low = 4.0 + u + 0.1 * v, -6.0 - u
            for name, speed in speeds.items():
                left = (1 - FRACTIONS) ** speed
                kept = {"fractions": FRACTIONS, "deletion-twin": low + (high - low) * left}
                kept["insertion-twin"] = high - (high - low) * left
                path = maps.map_path(run, "lcnn", "native", name, pair)
                maps.write_map(path, rng.normal(size=shape), metadata=FACTS, curves=kept if curves else None)
    return run


def corpus(folder: Path) -> Corpus:
    """The recordings of u0 and its two vocoded twins, as a data set called toy."""
    rng, utterances = np.random.default_rng(0), []
    for vocoder in ("bonafide", *fake_run.VOCODERS):
        path = folder / f"{vocoder}.wav"
        audio.write(path, (0.1 * rng.normal(size=SAMPLES)).clip(-1, 1).astype(np.float32), sample_rate=RATE)
        utterances.append(Utterance("u0", "s1", "eval", vocoder, path, n_samples=SAMPLES))
    return Corpus(name="toy", utterances=tuple(utterances), sample_rate=RATE, valid_band=(100, 3_000))


def words(figure: Figure) -> Iterator[tuple[Text, Bbox]]:
    """Every text that is drawn, with its box in pixels: ticks beyond the ends of an axis are not drawn."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    texts = [*figure.texts, *(t for legend in figure.legends for t in legend.get_texts())]
    for axes in figure.axes:
        texts += [*axes.texts, *((t for t in axes.get_legend().get_texts()) if axes.get_legend() else ())]
        if not axes.axison:
            continue
        texts += [axes.title, axes._left_title, axes._right_title]
        for axis, ends in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            texts.append(axis.label)
            for tick in axis.get_major_ticks():
                if min(ends) - 1e-9 <= tick.get_loc() <= max(ends) + 1e-9:
                    texts += [t for t in (tick.label1, tick.label2) if t.get_visible()]
    for text in texts:
        if text.get_visible() and text.get_text().strip():
            yield text, text.get_window_extent(renderer)
