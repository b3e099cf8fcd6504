"""Every picture of the benchmark, and the one place for colours and axes. Writes PNG; opens no window.

Spectrograms are in dB below their loudest cell (viridis), or in grey under an overlay. A map is drawn from blue (evidence
for bona fide) over white to red (evidence for spoof), symmetric about zero and cut at the 99th percentile of its
magnitude, since one outlier would blank the rest. Overlays are Okabe and Ito's colours, told apart by the colour-blind.
Axes are in Hz and seconds. matplotlib is imported when a figure is made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from xaibench import audio, maps
from xaibench.errors import RunError, XaibenchError
from xaibench.leaderboard.table import SECTION, kind, metric_facts, metrics_of, read_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, VERMILLION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8A8A8A"
SPECTROGRAM, MAP = "viridis", "RdBu_r"
FLOOR_DB = -80.0  # dB below the loudest cell; quieter cells are drawn alike
WIDTH = 13.0  # inches between the margins of `show`
DPI = 180
_STYLE = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 8, "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "xtick.major.size": 2.5, "ytick.major.size": 2.5, "figure.facecolor": "white", "savefig.facecolor": "white",
}  # fmt: skip


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
    name_of_truth = _spec(run)["truth"]["name"]
    scores = _rank_accuracies(run, pair, name_of_truth)
    paths = []
    for (countermeasure, route), files in kept.items():
        stored = {name: maps.read_map(path).values for name, path in files.items()}
        frames = next(iter(stored.values())).shape[1]
        truth = maps.read_map(maps.truth_path(run, name_of_truth, frames, pair))
        length = (frames - 1) * _grid(truth.metadata)[2]
        halves = [audio.fit(np.asarray(w), length) for w in (bonafide, spoof)]
        magnitudes = [_magnitude(w, sample_rate, truth) for w in halves]
        mine = {name: scores.get((countermeasure, route, name), math.nan) for name in stored}
        extent = (0.0, length / sample_rate, 0.0, sample_rate / 2)
        title = f"{pair}   {countermeasure}, {route} route, truth {name_of_truth}"
        with _style():
            figure = _gallery(magnitudes, truth, stored, mine, extent, title)
            name = "__".join(maps.component(part) for part in (*maps.split_pair(pair), countermeasure, route))
            paths.append(_save(figure, out / f"{name}.png"))
    return paths


def show_run(run: Path, utterance: str, out: Path) -> list[Path]:
    """`show` for an utterance (every vocoder whose maps were kept) or one pair, with the audio of the run's data set.

    utterance: `source` or `source/vocoder`. Raises RunError for a run without its maps, ManifestError, PluginError or
    AudioError where the data set cannot be opened as it was.
    """
    from xaibench import manifest, registry

    pairs = maps.kept_pairs(run, utterance)
    spec = _spec(Path(run))
    corpus = registry.open_corpus(spec["data"], spec.get("root"))
    known = {pair.id: pair for pair in manifest.pairs(corpus, split=spec.get("split"))}
    paths = []
    for name in pairs:
        if name not in known:
            raise RunError(f"{run}: maps of {name}, which {spec['data']} does not hold; another version of the data set?")
        both = known[name].halves
        if len(both) != 2:
            raise RunError(f"{run}: {name} has no bona fide twin to draw beside it; `show` compares the halves of a pair")
        late = audio.lead(both[1])  # as the run cut them
        bonafide, spoof = (audio.read_aligned(u, sample_rate=corpus.sample_rate)[late:] for u in both)
        paths += show(run, name, bonafide, spoof, corpus.sample_rate, out=out)
    return paths


def training_curves(history: Path, out: Path) -> Path:
    """Loss and development EER by epoch, the best epoch marked. `history`: csv with epoch, loss, dev_eer, rate, seconds.

    Raises XaibenchError for a missing or empty table or one without these columns.
    """
    path = Path(history)
    if not path.is_file():
        raise XaibenchError(f"{path}: no such table; `xaibench train` writes history.csv")
    table = pd.read_csv(path)
    missing = [c for c in ("epoch", "loss", "dev_eer") if c not in table.columns]
    if missing or table.empty:
        raise XaibenchError(f"{path}: {'lacks ' + ', '.join(missing) if missing else 'has no epochs'}; is it a history.csv?")
    with _style():
        figure, (left, right) = _figure_with_axes(7.2, 2.6, columns=2)
        for axes, column, label, colour, scale in (
            (left, "loss", "training loss", BLUE, 1), (right, "dev_eer", "development EER (%)", VERMILLION, 100)
        ):  # fmt: skip
            axes.plot(table["epoch"], table[column] * scale, color=colour, linewidth=1.3, marker="o", markersize=2.5)
            axes.set(xlabel="epoch", ylabel=label)
            axes.set_ylim(bottom=0)
            axes.margins(x=0.03)
            axes.xaxis.get_major_locator().set_params(integer=True)
            _quiet(axes)
        if table["dev_eer"].notna().any():
            best = table.loc[table["dev_eer"].idxmin()]
            right.axvline(best["epoch"], color=GREY, linewidth=0.8, linestyle=":")
            right.set_title(f"best: {best['dev_eer']:.1%} at epoch {best['epoch']:.0f}", loc="right")
        figure.tight_layout(w_pad=2.5)
        return _save(figure, Path(out))


def board_bars(board: pd.DataFrame, out: Path) -> list[Path]:
    """A board as bars with their intervals, alignment left and faithfulness right: one PNG a section, in the folder `out`.

    Methods are sorted by the left metric; floors (shaded) and ceiling stand apart; the dashed line is the best floor, the
    dotted one chance. A bar far beyond all others (the oracle) is cut, with its value written on it.
    """
    metrics = metrics_of(board)
    axes_of = {f: next((m for m in metrics if metric_facts(m).family == f), None) for f in ("localisation", "faithfulness")}
    chosen = [(f, m) for f, m in axes_of.items() if m] or [(metric_facts(metrics[0]).family, metrics[0])]
    paths = []
    for key, part in board.groupby(list(SECTION), sort=True):
        facts = dict(zip(SECTION, key, strict=True))
        with _style():
            figure = _bars(part, chosen)
            name = "__".join(maps.component(str(facts[k])) for k in ("dataset", "truth", "countermeasure", "route"))
            paths.append(_save(figure, Path(out) / f"board__{name}.png"))
    return paths


def top_share(values: np.ndarray, valid: np.ndarray, count: int) -> tuple[np.ndarray, bool]:
    """The `count` largest valid cells, among equals the first in row order, and whether a tie decided.

    >>> region, tied = top_share(np.array([[1.0, 3.0], [3.0, 0.0]]), np.ones((2, 2), bool), 1)
    >>> region.tolist(), tied
    ([[False, True], [False, False]], True)
    """
    flat = np.where(valid, values, -np.inf).ravel()
    order = np.argsort(-flat, kind="stable")
    region = np.zeros(flat.size, dtype=bool)
    region[order[:count]] = True
    tied = count < flat.size and flat[order[count - 1]] == flat[order[count]]
    return region.reshape(values.shape), bool(tied)


def _gallery(
    magnitudes: Sequence[np.ndarray], truth: maps.StoredMap, stored: Mapping[str, np.ndarray],
    scores: Mapping[str, float], extent: tuple[float, ...], title: str,
) -> Figure:  # fmt: skip
    """The figure of `show`, laid out in inches."""
    columns = 2 if len(stored) <= 4 else 3 if len(stored) <= 12 else 4
    order = _places(stored, scores, columns)
    rows = -(-len(order) // columns)
    gap, inner, head = 0.3, 0.06, 0.26  # between blocks, within a block, for a title
    block = (WIDTH - (columns - 1) * gap) / columns
    panel = (block - inner) / 2
    height = max(truth.values.shape[0] / DPI, 0.5 * panel)  # a pixel a bin or more: thin regions must not vanish
    top_height, left, bottom = 1.9, 0.75, 0.5
    legend_height, title_height, step = 0.95, 0.62, height + head
    total = bottom + rows * step + legend_height + top_height + title_height
    figure = _figure(WIDTH + left + 0.2, total)

    def place(x: float, y: float, width: float, tall: float) -> Axes:
        return figure.add_axes((x / (WIDTH + left + 0.2), y / total, width / (WIDTH + left + 0.2), tall / total))

    figure.text(left / (WIDTH + left + 0.2), 1 - 0.16 / total, title, fontsize=11, va="top", weight="bold")
    y = total - title_height - top_height
    wide = (WIDTH - 3 * gap) / 4
    first = [place(left + i * (wide + gap), y, wide, top_height) for i in range(4)]
    image = _spectrogram(first[0], magnitudes[0], extent, "bona fide")
    _spectrogram(first[1], magnitudes[1], extent, "vocoded")
    _spectrogram(first[2], magnitudes[1], extent, "vocoded, with the truth's region", grey=True)
    _overlay(first[2], truth.region, VERMILLION, extent)
    _map(first[3], truth.values, extent, "the truth")
    for i, axes in enumerate(first):
        _labels(axes, bottom=True, left=i == 0)
    bar = figure.colorbar(image, cax=place(left, y - 0.78, 1.6, 0.1), orientation="horizontal", ticks=[-80, -40, 0])
    bar.ax.set_title("dB below the loudest cell", pad=2)
    _legend(figure, place(left + 2.2, y - 0.78, 1.6, 0.1), left + 3.9, y - 0.73, total)
    for i, name in enumerate(order):
        if name is None:
            continue
        row, column = divmod(i, columns)
        y = bottom + (rows - 1 - row) * step
        x = left + column * (block + gap)
        pair = place(x, y, panel, height), place(x + panel + inner, y, panel, height)
        _map(pair[0], stored[name], extent, "")
        region, tied = top_share(stored[name], truth.valid, int(truth.region.sum()))
        _spectrogram(pair[1], magnitudes[1], extent, "", grey=True)
        _overlay(pair[1], region & ~truth.region, BLUE, extent)
        _overlay(pair[1], region & truth.region, VERMILLION, extent)
        what = "" if kind(name) == "method" else f" ({kind(name)})"
        score = "no score" if math.isnan(scores[name]) else f"{scores[name]:.3f}"
        pair[0].set_title(f"{name}{what}", loc="left", pad=3)
        pair[1].set_title(f"{score}{', tied' if tied else ''}", loc="right", pad=3)
        last = i + columns >= len(order) or order[i + columns] is None
        _labels(pair[0], bottom=last, left=column == 0, prune="upper")
        _labels(pair[1], bottom=last, left=False)
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


def _spectrogram(axes: Axes, magnitude: np.ndarray, extent: tuple[float, ...], title: str, *, grey: bool = False) -> Any:
    level = 20 * np.log10(np.maximum(magnitude, 1e-10) / max(float(magnitude.max()), 1e-10))
    cmap = "gray_r" if grey else SPECTROGRAM
    axes.set_title(title, loc="left", pad=3)
    low, high = (-65.0, 25.0) if grey else (FLOOR_DB, 0.0)  # under an overlay the speech is only a faint backdrop
    return axes.imshow(level, cmap=cmap, vmin=low, vmax=high, **_how(extent))


def _map(axes: Axes, values: np.ndarray, extent: tuple[float, ...], title: str) -> Any:
    magnitude = np.abs(values)
    limit = float(np.percentile(magnitude, 99)) or float(magnitude.max()) or 1.0
    axes.set_title(title, loc="left", pad=3)
    return axes.imshow(values, cmap=MAP, vmin=-limit, vmax=limit, **_how(extent))


def _overlay(axes: Axes, region: np.ndarray, colour: str, extent: tuple[float, ...]) -> None:
    from matplotlib.colors import to_rgba

    image = np.zeros((*region.shape, 4))
    image[region] = to_rgba(colour)
    axes.imshow(image, **_how(extent))


def _how(extent: tuple[float, ...]) -> dict[str, Any]:
    return {"origin": "lower", "aspect": "auto", "extent": extent, "interpolation": "nearest", "rasterized": True}


def _labels(axes: Axes, *, bottom: bool, left: bool, prune: str | None = None) -> None:
    """Hz and seconds, written on the outer panels only; every panel has the ticks. `prune` drops an end that collides."""
    axes.locator_params(axis="x", nbins=4, prune=prune)
    axes.locator_params(axis="y", nbins=4)
    axes.tick_params(labelbottom=bottom, labelleft=left)
    if bottom:
        axes.set_xlabel("time (s)", labelpad=1)
    if left:
        axes.set_ylabel("frequency (Hz)", labelpad=2)


def _bars(part: pd.DataFrame, chosen: Sequence[tuple[str, str]]) -> Figure:
    """The figure of `board_bars` for one section."""
    lead = chosen[0][1]
    sign = -1.0 if metric_facts(lead).direction == "higher" else 1.0
    ranks = part["kind"].map({"ceiling": 0, "method": 1, "sham": 2, "floor": 3})
    part = part.assign(_k=ranks, _v=sign * part[lead]).sort_values(["_k", "_v"], na_position="last", kind="stable")
    y = -(np.arange(len(part)) + 0.6 * part["_k"].to_numpy())
    colours = part["kind"].map({"ceiling": GREEN, "method": BLUE, "sham": ORANGE, "floor": GREY}).tolist()
    figure, panels = _figure_with_axes(4.2 + 2.6 * len(chosen), 1.3 + 0.17 * len(part), columns=len(chosen))
    row = part.iloc[0]
    for axes, (family, metric) in zip(panels, chosen, strict=True):
        facts = metric_facts(metric)
        low, high = _limits(part, metric)
        means = part[metric].to_numpy()
        axes.barh(y, np.clip(means, low, high), color=colours, height=0.74, alpha=0.85)
        for place, mean, a, b in zip(y, means, part[f"{metric}_low"], part[f"{metric}_high"], strict=True):
            if math.isnan(mean):
                axes.text(max(low, 0), place, " no value", va="center", fontsize=6.5, color=GREY)
            elif not low <= mean <= high:
                end, side = (high, "right") if mean > high else (low, "left")
                axes.text(end, place, f" {mean:.2f} ", va="center", ha=side, fontsize=6.5, color="white", weight="bold")
            elif not math.isnan(a):
                axes.plot([max(a, low), min(b, high)], [place, place], color="black", linewidth=0.8)
        floors = part.loc[part["kind"].eq("floor"), metric].dropna()
        if not floors.empty:
            best = floors.max() if facts.direction == "higher" else floors.min()
            axes.axvline(best, color="black", linewidth=0.8, linestyle="--", label="best floor")
        if facts.chance is not None:
            axes.axvline(facts.chance, color=VERMILLION, linewidth=0.9, linestyle=":", label="chance")
        shaded = y[part["kind"].eq("floor").to_numpy()]
        if len(shaded):
            axes.axhspan(shaded.min() - 0.6, shaded.max() + 0.6, color="#EFEFEF", zorder=0)
        what = {"localisation": "alignment", "faithfulness": "faithfulness"}.get(family, family)
        axes.set_title(f"{what}: {metric}, {facts.direction} is better", loc="left")
        axes.set(xlim=(low, high), ylim=(y.min() - 0.8, y.max() + 0.8), xlabel=f"{metric}, mean and 95 % interval")
        axes.set_yticks(y, part["attributor"] if axes is panels[0] else [])
        axes.tick_params(axis="y", length=0)
        _quiet(axes)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, loc="lower right", fontsize=7)
    eer = "EER unknown" if math.isnan(row["eer"]) else f"EER {row['eer']:.1%}"
    figure.suptitle(
        f"{row['countermeasure']} ({eer}), {row['route']} route, truth {row['truth']}: {row['utterances']} utterances x "
        f"{row['vocoders']} vocoders", x=0.01, ha="left", fontsize=9, weight="bold",
    )  # fmt: skip
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.1 / figure.get_size_inches()[1]))
    return figure


def _limits(part: pd.DataFrame, metric: str) -> tuple[float, float]:
    """Axis limits that show the methods and floors; a ceiling may fall outside."""
    inner = part[~part["kind"].eq("ceiling")]
    ends = pd.concat([inner[metric], inner[f"{metric}_low"], inner[f"{metric}_high"]]).dropna()
    if ends.empty:
        return 0.0, 1.0
    low, high = min(0.0, float(ends.min())), max(0.0, float(ends.max()))
    room = 0.06 * (high - low or 1.0)
    return (low - room if low < 0 else 0.0), (high + room if high > 0 else 0.0)


def _magnitude(waveform: np.ndarray, sample_rate: int, truth: maps.StoredMap) -> np.ndarray:
    """|STFT| on the run's grid. Shape: `(N,)` -> `(F, T)`; centred, reflect-padded, as `xaibench.grid`."""
    from scipy.signal import get_window

    rate, n_fft, hop, window = _grid(truth.metadata)
    if rate != sample_rate:
        raise XaibenchError(f"waveforms at {sample_rate} Hz, maps at {rate} Hz: give the data set's own recordings")
    waveform = np.asarray(waveform, dtype=np.float64)
    if waveform.ndim != 1 or len(waveform) <= n_fft // 2:
        raise XaibenchError(f"expected a waveform (N,) of more than {n_fft // 2} samples, got shape {waveform.shape}")
    padded = np.pad(waveform, n_fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    magnitude = np.abs(np.fft.rfft(frames * get_window(window, n_fft, fftbins=True), axis=1)).T
    if magnitude.shape != truth.values.shape:
        raise XaibenchError(
            f"the waveform gives {magnitude.shape} cells, the maps have {truth.values.shape}; give it as the run cut it "
            f"({(truth.values.shape[1] - 1) * hop} samples)"
        )
    return magnitude


def _grid(metadata: Mapping[str, str]) -> tuple[int, int, int, str]:
    rate, n_fft, hop, window = metadata.get("grid", "16000/512/160/hann").split("/")
    return int(rate), int(n_fft), int(hop), window


def _spec(run: Path) -> Mapping[str, Any]:
    """The run's spec, which names its data and its truth."""
    try:
        spec = json.loads((run / "run.json").read_text(encoding="utf-8"))["spec"]
        return {**spec, "data": spec["data"], "truth": {**spec["truth"], "name": spec["truth"]["name"]}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{run}: not a run folder, or its run.json names no data or truth ({error!r})") from error


def _rank_accuracies(run: Path, pair: str, truth: str) -> dict[tuple[str, str, str], float]:
    """(countermeasure, route, attributor) -> rank accuracy of one pair: of frames where the map resolves time alone."""
    rows = read_rows([run])
    source, vocoder = maps.split_pair(pair)
    for column, value in {"utterance": source, "vocoder": vocoder, "truth": truth, "status": "ok"}.items():
        rows = rows[rows[column].eq(value)]
    found: dict[tuple[str, str, str], float] = {}
    for metric in ("rank-accuracy-time", "rank-accuracy"):  # the latter goes before the former
        for r in rows[rows["metric"].eq(metric)].to_dict("records"):
            found[r["countermeasure"], r["route"], r["attributor"]] = r["value"]
    return found


def _style() -> Any:
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _figure_with_axes(width: float, height: float, *, columns: int) -> tuple[Figure, list[Axes]]:
    figure = _figure(width, height)
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _quiet(axes: Axes) -> None:
    """No box, a light grid along the values."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, axis="both" if not axes.patches else "x", color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)


def _save(figure: Figure, path: Path) -> Path:
    """Write a PNG without a date or version in it: same numbers, same file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
    except OSError as error:
        raise RunError(f"{path}: cannot write the figure here ({error.strerror}); choose another --out") from error
    return path
