"""The homework's picture: bona fide, vocoded, their difference, the truth's mask, and what methods make of it.

Every panel has the same axes, seconds and kHz. Both spectrograms are in dB below the loudest cell of the two, so that one
colour bar serves both. The difference is that of their levels, 20 log10 G|vocoded| / G|bona fide|, where G is the smoothing
of Eq. 2, without which a vocoder's phases hide everything else; it is cut at `LIMIT`, and cells quieter than
`panels.FLOOR_DB` in both halves are drawn as 0. The mask is the truth's region (Eq. 2 of arXiv 2506.03425 unless another was
asked for), drawn over the vocoded speech, and so are the equally many cells that a method ranks highest: in the region, and
outside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np

from xaibench import audio, maps, registry
from xaibench.errors import XaibenchError
from xaibench.figures import style
from xaibench.figures.pairs import (
    Recorded,
    magnitude,
    rank_accuracies,
    recorded,
    recorded_in,
    score_text,
)
from xaibench.figures.panels import FLOOR_DB, Place, decibels, difference, labels, overlay, place_of, signed, spectrogram
from xaibench.figures.style import BLUE, DIFFERENCE, MAP, POINTS, VERMILLION, Look, Picture
from xaibench.run_record import read_spec
from xaibench.top import largest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LIMIT = 12.0  # dB: where differences of level are cut
KERNEL, VARIANCE = (11, 3), (5.0, 3.0)  # of the smoothing, frequency and time, in cells and cells squared, as `TruthSpec`
HIT = "in the truth's region"
NAMES = {"eq2": "Eq. 2", "eq1": "Eq. 1", "log-difference": "|log difference|", "segments": "labels"}


@dataclass(frozen=True, eq=False)
class Said:
    """What a method says of a pair: its map `(F, T)` and its rank accuracy there, NaN where it has none."""

    values: np.ndarray
    score: float = math.nan


@dataclass(frozen=True, eq=False)
class Compared:
    """A pair on the grid: magnitudes `(F, T)` of both halves, the truth, and methods by name.

    where: how it was explained, for the file's name and the caption; empty without a run.
    """

    pair: str
    bonafide: np.ndarray
    spoof: np.ndarray
    truth: maps.StoredTruth
    place: Place
    said: Mapping[str, Said]
    where: tuple[str, ...] = ()


def compare_run(
    run: Path, utterance: str, out: Path, *, xai: Sequence[str] = (), seconds: tuple[float, float] | None = None,
    look: Look | None = None,
) -> list[Picture]:  # fmt: skip
    """A picture for each pair of `utterance`, countermeasure and route of a run with maps; `xai` names the methods shown.

    utterance: `source` or `source/vocoder`. seconds: only this stretch of the recording.

    Raises RunError for a run without maps of it, XaibenchError for methods that have none, with the nearest, or a stretch
    outside the recording.
    """
    run, name_of_truth = Path(run), read_spec(run)["truth"]["name"]
    pictures = []
    for each in recorded(run, utterance):
        scores = rank_accuracies(run, each.pair, name_of_truth) if xai else {}
        for (cm, route), files in maps.kept_maps(run, each.pair).items():
            for name in xai:
                if name not in files:
                    raise XaibenchError(registry.unknown(f"method with a map of {each.pair}", name, sorted(files)))
            said = {
                n: Said(maps.read_map(files[n]).values, scores.get((cm, route, n), math.nan)) for n in dict.fromkeys(xai)
            }
            frames = maps.read_map(next(iter(files.values()))).values.shape[1]
            truth = maps.read_truth(maps.truth_path(run, name_of_truth, frames, each.pair))
            grid = maps.grid_of(truth.metadata)
            length = (frames - 1) * grid[2]
            real, fake = (magnitude(audio.fit(w, length), each.sample_rate, truth) for w in (each.bonafide, each.spoof))
            place = _cut(place_of(length, grid, scale=1000.0), seconds, each.pair)
            content = Compared(each.pair, real, fake, truth, place, said, (cm, route))
            pictures.append(_drawn(content, name_of_truth, Path(out), look or Look()))
    return pictures


def compare_data(
    data: str, utterance: str, out: Path, *, root: Any = None, truth: str = "eq2",
    seconds: tuple[float, float] | None = None, look: Look | None = None,
) -> list[Picture]:  # fmt: skip
    """The same of a data set's pairs, without a run: whole recordings on the usual grid, and no methods.

    Raises XaibenchError for an utterance that the data set does not have or a stretch outside of it.
    """
    return [
        _drawn(_of(each, truth, seconds), truth, Path(out), look or Look())
        for each in recorded_in(data, utterance, root=root)
    ]


def _of(each: Recorded, truth: str, seconds: tuple[float, float] | None) -> Compared:
    """A pair with the truth computed here."""
    import torch

    from xaibench.grid import Grid
    from xaibench.truth import TruthSpec
    from xaibench.truth import truth as truth_of

    grid = Grid(sample_rate=each.sample_rate)
    real, fake = (torch.from_numpy(np.asarray(w, dtype=np.float64))[None] for w in (each.bonafide, each.spoof))
    found = truth_of(fake, real, grid=grid, band=each.band, spec=TruthSpec(truth))
    facts = {"grid": f"{grid.sample_rate}/{grid.n_fft}/{grid.hop}/{grid.window}"}
    stored = maps.StoredTruth(
        found.values[0].numpy(), facts, region=found.region[0].numpy(), valid=found.valid.numpy()
    )  # fmt: skip
    before, after = (grid.stft(w)[0].abs().numpy() for w in (real, fake))
    place = _cut(place_of(len(each.spoof), maps.grid_of(facts), scale=1000.0), seconds, each.pair)
    return Compared(each.pair, before, after, stored, place, {})


def _cut(place: Place, seconds: tuple[float, float] | None, pair: str) -> Place:
    if seconds is None:
        return place
    if not place.seconds[0] <= seconds[0] < seconds[1] <= place.seconds[1] + 1e-9:
        raise XaibenchError(f"{pair} lasts {place.seconds[1]:.2f} s; {seconds[0]:g} to {seconds[1]:g} s is not within it")
    return Place(place.step, seconds, place.hertz, place.scale)


def _drawn(content: Compared, truth: str, out: Path, look: Look) -> Picture:
    with style.style(look.font_size):
        figure = _figure(content, truth, look)
        parts = [*maps.split_pair(content.pair), *content.where, *([] if content.where else [truth])]
        paths = style.save(figure, out / "__".join(["comparison", *map(maps.component, parts)]), look)
    share = content.truth.region.sum() / content.truth.valid.sum()
    source, vocoder = maps.split_pair(content.pair)
    where = f" explained for {content.where[0]}, {content.where[1]} route," if content.said else ""
    caption = (
        f"Utterance {source} and its version by {vocoder}:{where} levels in dB below the loudest cell of the two; the "
        f"difference of their levels, smoothed as in Eq. 2; the truth "
        f"({NAMES.get(truth, truth)}): its top {share:.0%} of the cells."
    )
    if content.said:
        caption += f" Below: maps, and the top {share:.0%} of each; the number is the rank accuracy on this utterance."
    return Picture(paths, caption)


def _figure(content: Compared, truth: str, look: Look) -> Figure:
    """Laid out in inches: rows of panels, and under them the colour bars and the key."""
    columns = 4 if look.width >= 5 else 2
    size, em = look.font_size, look.font_size / POINTS
    left, right, gap = 3.6 * em, 1.2 * em, 0.9 * em
    panel = (look.width - left - right - gap * (columns - 1)) / columns
    tall = 0.74 * panel
    head, foot = 1.75 * em, 3.0 * em
    panels = 4 + 2 * len(content.said)
    rows = -(-panels // columns)
    keys = 4 if content.said else 2
    strips = -(-keys // columns)
    strip = 5.2 * em
    height = rows * (head + tall) + foot + strips * strip
    figure = style.new_figure(look.width, height)

    def at(x: float, y: float, wide: float, high: float) -> Axes:
        return figure.add_axes((x / look.width, y / height, wide / look.width, high / height))

    axes = []
    for i in range(panels):
        row, column = divmod(i, columns)
        axes.append(at(left + column * (panel + gap), height - (row + 1) * (head + tall), panel, tall))
        last = i + columns >= panels
        labels(axes[i], bottom=last, left=column == 0, unit="kHz", prune=None if column == columns - 1 else "upper")
        axes[i].yaxis.label.set_fontsize(style.fitted("frequency (kHz)", size, tall)[1])
    images = _first(axes, content, truth, size, panel)
    for i, (name, said) in enumerate(content.said.items()):
        here, top = axes[4 + 2 * i : 6 + 2 * i]
        signed(here, said.values, content.place)
        region, tied = largest(said.values, content.truth.valid, int(content.truth.region.sum()))
        spectrogram(top, content.spoof, content.place, grey=True)
        overlay(top, region & ~content.truth.region, BLUE, content.place)
        overlay(top, region & content.truth.region, VERMILLION, content.place)
        _heading(here, 4 + 2 * i, name, size, panel)
        score = "" if math.isnan(said.score) else f": {score_text(said.score)}"
        _heading(top, 5 + 2 * i, f"its top {_share(content)}{score}{', tied' if tied else ''}", size, panel)
    for i in range(keys):
        row, column = divmod(i, columns)
        x, y = left + column * (panel + gap), strips * strip - (row + 1) * strip + 3.4 * em
        _strip(figure, i, images, at, (x, y, panel, 0.9 * em), size)
    return figure


def _first(axes: Sequence[Axes], content: Compared, truth: str, size: float, panel: float) -> tuple[Any, Any]:
    """The four panels of the pair. Returns the images of a spectrogram and of the difference."""
    loudest = max(float(content.bonafide.max()), float(content.spoof.max()))
    level = spectrogram(axes[0], content.bonafide, content.place, loudest=loudest)
    spectrogram(axes[1], content.spoof, content.place, loudest=loudest)
    real, fake = (np.maximum(decibels(_smooth(m), loudest), FLOOR_DB) for m in (content.bonafide, content.spoof))
    change = difference(axes[2], fake - real, content.place, DIFFERENCE, LIMIT)
    spectrogram(axes[3], content.spoof, content.place, grey=True)
    overlay(axes[3], content.truth.region, VERMILLION, content.place)
    vocoder = maps.split_pair(content.pair)[1]
    mask = f"truth ({NAMES.get(truth, truth)}), top {_share(content)}"
    words = ("bona fide", vocoder, f"{vocoder} − bona fide", mask)
    for i, word in enumerate(words):
        _heading(axes[i], i, word, size, panel)
    return level, change


def _smooth(magnitude: np.ndarray) -> np.ndarray:
    """G of Eq. 2, as `xaibench.truth.smooth`. Shape: `(F, T)` -> `(F, T)`."""
    from scipy.ndimage import gaussian_filter1d

    for axis, (size, variance) in enumerate(zip(KERNEL, VARIANCE, strict=True)):
        magnitude = gaussian_filter1d(magnitude, math.sqrt(variance), axis=axis, mode="reflect", radius=size // 2)
    return magnitude


def _share(content: Compared) -> str:
    return f"{100 * content.truth.region.sum() / content.truth.valid.sum():.2g} %"


def _heading(axes: Axes, i: int, text: str, size: float, room: float) -> None:
    """`(a) text` over a panel, no longer than it."""
    letter = ascii_lowercase[i] if i < 26 else f"{ascii_lowercase[i // 26 - 1]}{ascii_lowercase[i % 26]}"
    text, points = style.fitted(f"({letter}) {text}", size, room - 0.8 * size / POINTS)
    axes.set_title(text, loc="left", fontsize=points)


def _strip(
    figure: Figure, i: int, images: tuple[Any, Any], at: Any, box: tuple[float, float, float, float], size: float
) -> None:
    """A colour bar with its unit, or the key of the overlays, under a column of panels."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Patch

    x, y, wide, high = box
    if i == 3:
        axes = at(x, y - high, wide, 3 * high)
        axes.set_axis_off()
        handles = [Patch(color=VERMILLION, label=HIT), Patch(color=BLUE, label="outside it")]
        axes.legend(
            handles=handles, loc="center left", frameon=False, borderaxespad=0, borderpad=0, handlelength=1.0,
            handletextpad=0.5, labelspacing=0.3, fontsize=style.fitted(HIT, size - 1, wide - 2 * high)[1],
        )  # fmt: skip
        return
    inset = 0.06 * wide  # so that the words at its ends stay under the panel
    bar = at(x + inset, y, wide - 2 * inset, high)
    image, ticks, label = (
        (images[0], [-80, -40, 0], "level (dB below the loudest)"),
        (images[1], [-LIMIT, 0, LIMIT], "smoothed difference (dB)"),
        (ScalarMappable(Normalize(-1, 1), MAP), [-1, 0, 1], "evidence of a map"),
    )[i]
    drawn = figure.colorbar(image, cax=bar, orientation="horizontal", ticks=ticks)
    drawn.outline.set_linewidth(0.6)
    bar.set_xlabel(label, labelpad=1, fontsize=style.fitted(label, size, wide)[1])
    if i == 2:
        ends = style.text_width("bona fide", size) + style.text_width("spoof", size)
        bar.set_xticklabels(["bona fide", "0" if 1.4 * ends < wide else "", "spoof"])
        for text, side in zip(bar.get_xticklabels(), ("left", "center", "right"), strict=True):
            text.set_ha(side)
