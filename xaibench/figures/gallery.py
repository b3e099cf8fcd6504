"""`xaibench show`: one pair and what every method says about it, on one page for the screen (PNG)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xaibench import audio, maps
from xaibench.figures import style
from xaibench.figures.pairs import magnitude, rank_accuracies, recorded, score_text
from xaibench.figures.panels import Place, labels, overlay, place_of, signed, spectrogram
from xaibench.figures.style import BLUE, MAP, VERMILLION
from xaibench.leaderboard.table import kind
from xaibench.run_record import read_spec
from xaibench.top import largest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 13.0  # inches between the margins of `show`


def show(run: Path, pair: str, bonafide: np.ndarray, spoof: np.ndarray, sample_rate: int, *, out: Path) -> list[Path]:
    """One pair and what every method says about it: one PNG for each countermeasure and route whose maps were kept.

    First row: bona fide, vocoded, the truth's region over the vocoded, the truth. Below, best first: each method's map and
    its top 5 % (hits and misses) with its rank accuracy on this utterance.

    run: a run folder with maps. pair: `source/vocoder`; `maps.kept_pairs(run, source)` lists them. bonafide, spoof: the
    waveforms `(N,)`, cut or repeated here as each countermeasure saw them. out: a folder. Returns the files.

    Raises RunError when the pair's maps or truth were not kept, XaibenchError when waveforms and maps disagree in rate.
    """
    run, out = Path(run), Path(out)
    maps.kept_pairs(run, pair)
    kept = maps.kept_maps(run, pair)
    name_of_truth = read_spec(run)["truth"]["name"]
    scores = rank_accuracies(run, pair, name_of_truth)
    paths = []
    for (countermeasure, route), files in kept.items():
        stored = {name: maps.read_map(path).values for name, path in files.items()}
        frames = next(iter(stored.values())).shape[1]
        truth = maps.read_truth(maps.truth_path(run, name_of_truth, frames, pair))
        grid = maps.grid_of(truth.metadata)
        length = (frames - 1) * grid[2]
        halves = [audio.fit(np.asarray(w), length) for w in (bonafide, spoof)]
        magnitudes = [magnitude(w, sample_rate, truth) for w in halves]
        mine = {name: scores.get((countermeasure, route, name), math.nan) for name in stored}
        title = f"{pair}   {countermeasure}, {route} route, truth {name_of_truth}"
        with style.style():
            figure = _gallery(magnitudes, truth, stored, mine, place_of(length, grid), title)
            name = "__".join(maps.component(part) for part in (*maps.split_pair(pair), countermeasure, route))
            paths.append(style.save_as(figure, out / f"{name}.png"))
    return paths


def show_run(run: Path, utterance: str, out: Path) -> list[Path]:
    """`show` for an utterance (every vocoder whose maps were kept) or one pair, with the audio of the run's data set.

    utterance: `source` or `source/vocoder`. Raises RunError for a run without its maps, ManifestError, PluginError or
    AudioError where the data set cannot be opened as it was.
    """
    return [
        path
        for each in recorded(Path(run), utterance)
        for path in show(run, each.pair, each.bonafide, each.spoof, each.sample_rate, out=out)
    ]


def _gallery(
    magnitudes: Sequence[np.ndarray], truth: maps.StoredTruth, stored: Mapping[str, np.ndarray],
    scores: Mapping[str, float], place: Place, title: str,
) -> Figure:  # fmt: skip
    """The figure of `show`, laid out in inches."""
    columns = 2 if len(stored) <= 4 else 3 if len(stored) <= 12 else 4
    order = _places(stored, scores, columns)
    rows = -(-len(order) // columns)
    gap, inner, head = 0.3, 0.06, 0.26  # between blocks, within a block, for a title
    block = (WIDTH - (columns - 1) * gap) / columns
    panel = (block - inner) / 2
    height = max(truth.values.shape[0] / style.DPI, 0.5 * panel)  # a pixel a bin or more: thin regions must not vanish
    top_height, left, bottom = 1.9, 0.75, 0.5
    legend_height, title_height, step = 0.95, 0.62, height + head
    total = bottom + rows * step + legend_height + top_height + title_height
    figure = style.new_figure(WIDTH + left + 0.2, total)

    def at(x: float, y: float, width: float, tall: float) -> Axes:
        return figure.add_axes((x / (WIDTH + left + 0.2), y / total, width / (WIDTH + left + 0.2), tall / total))

    figure.text(left / (WIDTH + left + 0.2), 1 - 0.16 / total, title, fontsize=11, va="top", weight="bold")
    y = total - title_height - top_height
    wide = (WIDTH - 3 * gap) / 4
    first = [at(left + i * (wide + gap), y, wide, top_height) for i in range(4)]
    image = spectrogram(first[0], magnitudes[0], place)
    spectrogram(first[1], magnitudes[1], place)
    spectrogram(first[2], magnitudes[1], place, grey=True)
    overlay(first[2], truth.region, VERMILLION, place)
    signed(first[3], truth.values, place)
    headings = ("bona fide", "vocoded", "vocoded, with the truth's region", "the truth")
    for i, (axes, heading) in enumerate(zip(first, headings, strict=True)):
        axes.set_title(heading, loc="left")
        labels(axes, bottom=True, left=i == 0)
    bar = figure.colorbar(image, cax=at(left, y - 0.78, 1.6, 0.1), orientation="horizontal", ticks=[-80, -40, 0])
    bar.ax.set_title("dB below the loudest cell", pad=2)
    _legend(figure, at(left + 2.2, y - 0.78, 1.6, 0.1), left + 3.9, y - 0.73, total)
    for i, name in enumerate(order):
        if name is None:
            continue
        row, column = divmod(i, columns)
        y = bottom + (rows - 1 - row) * step
        x = left + column * (block + gap)
        pair = at(x, y, panel, height), at(x + panel + inner, y, panel, height)
        signed(pair[0], stored[name], place)
        region, tied = largest(stored[name], truth.valid, int(truth.region.sum()))
        spectrogram(pair[1], magnitudes[1], place, grey=True)
        overlay(pair[1], region & ~truth.region, BLUE, place)
        overlay(pair[1], region & truth.region, VERMILLION, place)
        what = "" if kind(name) == "method" else f" ({kind(name)})"
        pair[0].set_title(f"{name}{what}", loc="left")
        pair[1].set_title(score_text(scores[name], tied=tied), loc="right")
        last = i + columns >= len(order) or order[i + columns] is None
        labels(pair[0], bottom=last, left=column == 0, prune="upper")
        labels(pair[1], bottom=last, left=False)
    return figure


def _places(stored: Mapping[str, np.ndarray], scores: Mapping[str, float], columns: int) -> list[str | None]:
    """Methods, best first, then the controls from a row of their own; None is an empty place."""
    order = sorted(stored, key=lambda n: (math.isnan(scores[n]), -scores[n], n))
    methods = [name for name in order if kind(name) == "method"]
    gap = [None] * (-len(methods) % columns)
    return [*methods, *gap, *(name for name in order if kind(name) != "method")]


def _legend(figure: Figure, cax: Axes, x: float, y: float, total: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Patch

    bar = figure.colorbar(ScalarMappable(Normalize(-1, 1), MAP), cax=cax, orientation="horizontal", ticks=[-1, 0, 1])
    bar.ax.set_xticklabels(["bona fide", "0", "spoof"])
    bar.ax.set_title("a map's evidence for", pad=2)
    handles = [Patch(color=VERMILLION, label="in the truth's region"), Patch(color=BLUE, label="outside it")]
    width = figure.get_size_inches()[0]
    figure.legend(
        handles=handles, loc="center left", bbox_to_anchor=((x + 0.4) / width, y / total), ncols=2, frameon=False,
        title="a method's top 5 %, over the vocoded; number: rank accuracy on this utterance (time-only maps: of frames)",
        alignment="left",
    )  # fmt: skip
