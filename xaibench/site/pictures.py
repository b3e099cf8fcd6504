"""The example on the first page: one utterance, real and fake, what the vocoder changed, and a good and a bad map of it.

Pictures are PNG, frequency upwards. Spectrograms are in dB below the loudest cell; overlays are Okabe and Ito's colours over
grey speech: vermillion the truth's cells, green those a method found, blue those it named in vain.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xaibench import audio, maps
from xaibench.errors import RunError
from xaibench.files import write_bytes
from xaibench.leaderboard.render import number
from xaibench.leaderboard.table import metric_facts
from xaibench.run_record import read_spec
from xaibench.site.bands import kept_map, truths
from xaibench.site.source import section
from xaibench.top import largest

if TYPE_CHECKING:
    from xaibench.site.content import Board
    from xaibench.site.source import Source

FLOOR_DB = -80.0
TRUTH, HIT, MISS = (213, 94, 0), (0, 158, 115), (86, 180, 233)


@dataclass(frozen=True)
class Panel:
    """A picture: its file from the site's top, what stands below it, and what it shows for who does not see it."""

    file: str
    title: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Example:
    """One utterance. seconds: its length; top: Hz at the upper edge; width, height: of the pictures, pixels."""

    pair: str
    countermeasure: str
    seconds: float
    top: float
    width: int
    height: int
    panels: tuple[Panel, ...]


def write(source: Source, out: Path) -> Example | None:
    """Draw the example to `out/pictures`; None where no run kept maps.

    The good map is of the best method by the first board's alignment metric, on the utterance where it does best; the bad
    one of the method that does worst there. Raises XaibenchError where the data set cannot be opened as it was.
    """
    for board in source.boards:
        for run in source.runs:
            found = _chosen(source, board, run)
            if found is not None:
                return _draw(board, run, out, found)
    return None


@dataclass(frozen=True)
class _Choice:
    """The pair, a good and a bad method with their scores on it, and the metric."""

    pair: str
    good: str
    bad: str
    best: float
    worst: float
    metric: str


def _chosen(source: Source, board: Board, run: Path) -> _Choice | None:
    metric = next((h.metric for h in board.headlines if metric_facts(h.metric).family == "localisation"), None)
    if metric is None or metric_facts(metric).direction != "higher" or len(board.methods) < 2:
        return None
    rows = section(source, board)
    rows = rows[rows["metric"].eq(metric) & rows["status"].eq("ok")]
    place = next(i for i, c in enumerate(board.columns) if c.metric == metric)
    known = {line.name: value for line in board.methods if (value := line.readings[place].value) is not None}
    if len(known) < 2:
        return None
    good = max(known, key=lambda name: known[name])
    scores = rows[rows["attributor"].isin(list(known))].astype({"attributor": str})
    wide = scores.pivot(index=["utterance", "vocoder"], columns="attributor", values="value")
    ordered = wide.sort_values(good, ascending=False, kind="stable").dropna(subset=[good])
    for (utterance, vocoder), values in ordered.iterrows():
        pair, others = f"{utterance}/{vocoder}", values.drop(good).dropna()
        if others.empty:
            continue
        bad = str(others.idxmin())
        kept = all(kept_map(run, board.countermeasure, board.route, n, pair) for n in (good, bad))
        if kept and truths(run, board.truth, pair):
            return _Choice(pair, good, bad, float(values[good]), float(values[bad]), metric)
    return None


def _draw(board: Board, run: Path, out: Path, found: _Choice) -> Example:
    pair, good, bad = found.pair, found.good, found.bad
    stored = {n: maps.read_map(maps.map_path(run, board.countermeasure, board.route, n, pair)).values for n in (good, bad)}
    truth = maps.read_truth(maps.truth_path(run, board.truth, stored[good].shape[1], pair))
    rate, n_fft, hop, window = maps.grid_of(truth.metadata)
    length = (truth.values.shape[1] - 1) * hop
    real, fake = (_level(audio.fit(w, length), n_fft, hop, window) for w in _halves(run, pair))
    count = int(truth.region.sum())
    pictures = {
        "real": _colours(real), "fake": _colours(fake), "truth": _over(fake, [(truth.region, TRUTH)]),
    }  # fmt: skip
    for name, values in (("good", stored[good]), ("bad", stored[bad])):
        top = largest(values, truth.valid, count)[0]
        pictures[name] = _over(fake, [(top & ~truth.region, MISS), (top & truth.region, HIT)])
    source_name, vocoder = maps.split_pair(pair)
    texts = {
        "real": ("Real", "A recording of a person.", "Spectrogram of the real recording."),
        "fake": ("Fake", f"The same sentence, re-made by {vocoder}.", f"Spectrogram of what {vocoder} made of it."),
        "truth": (
            "The truth", f"In orange: the {count / truth.valid.sum():.0%} of cells that differ most.",
            "The cells that differ most between the two, over the fake's spectrogram.",
        ),
        "good": (
            f"A good map: {good}", f"Its top cells. Green: found, blue: in vain. {_said(found.metric, found.best)}",
            f"Top cells of {good} over the fake's spectrogram: hits and misses.",
        ),
        "bad": (
            f"A bad map: {bad}", f"Its top cells. Green: found, blue: in vain. {_said(found.metric, found.worst)}",
            f"Top cells of {bad} over the fake's spectrogram: hits and misses.",
        ),
    }  # fmt: skip
    panels = tuple(
        Panel(_save(out, f"pictures/example-{name}.png", picture), *texts[name]) for name, picture in pictures.items()
    )
    bins, frames = real.shape
    return Example(f"{source_name}, {vocoder}", board.countermeasure, length / rate, rate / 2, frames, bins, panels)


def _said(metric: str, score: float) -> str:
    """
    >>> _said("rank-accuracy", 0.183), _said("roc-auc", 0.5)
    ("It finds 18 % of the truth's cells.", 'Its roc-auc is .500.')
    """
    if metric == "rank-accuracy":
        return f"It finds {100 * score:.0f} % of the truth's cells."
    return f"Its {metric} is {number(score)}."


def _halves(run: Path, pair: str) -> list[np.ndarray]:
    """The waveforms `(N,)` of a pair, bona fide first, as the run cut them."""
    from xaibench import manifest, registry

    spec = read_spec(run)
    corpus = registry.open_corpus(spec["data"], spec.get("root"))
    known = {p.id: p for p in manifest.pairs(corpus, split=spec.get("split"))}
    if pair not in known or len(known[pair].halves) != 2:
        raise RunError(f"{spec['data']} does not hold both halves of {pair}; another version of the data set?")
    return list(audio.read_halves(known[pair], sample_rate=corpus.sample_rate))


def _level(waveform: np.ndarray, n_fft: int, hop: int, window: str) -> np.ndarray:
    """dB below the loudest cell `(F, T)`; centred and reflect-padded, as `xaibench.grid`."""
    from scipy.signal import get_window

    padded = np.pad(np.asarray(waveform, dtype=np.float64), n_fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    magnitude = np.abs(np.fft.rfft(frames * get_window(window, n_fft, fftbins=True), axis=1)).T
    return 20 * np.log10(np.maximum(magnitude, 1e-10) / max(float(magnitude.max()), 1e-10))


def _colours(level: np.ndarray) -> np.ndarray:
    """RGB `(F, T, 3)` uint8, viridis."""
    from matplotlib import colormaps

    share = np.clip(1 - level / FLOOR_DB, 0, 1)
    return (255 * colormaps["viridis"](share)[..., :3]).round().astype(np.uint8)


def _over(level: np.ndarray, regions: list[tuple[np.ndarray, tuple[int, int, int]]]) -> np.ndarray:
    """RGB `(F, T, 3)` uint8: coloured regions over faint grey speech."""
    share = np.clip((level + 65.0) / 90.0, 0, 1)  # the speech is a backdrop only
    picture = np.repeat((255 * (1 - share)).round().astype(np.uint8)[..., None], 3, axis=2)
    for region, colour in regions:
        picture[region] = colour
    return picture


def _save(out: Path, name: str, picture: np.ndarray) -> str:
    """Write RGB `(F, T, 3)` with the highest frequency on top, atomically. Returns the name."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture[::-1])).quantize(128).save(buffer, "PNG", optimize=True)
    write_bytes(Path(out) / name, buffer.getvalue())
    return name
