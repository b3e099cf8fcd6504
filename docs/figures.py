"""Draw the pictures of the documentation from the embedded corpus: `python docs/figures.py [NAME...]`, minutes for all.

Pictures go to docs/images/. Each function below draws one and is named like its file; what it shows is computed by the same
calls as on the page beside it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from PIL import Image

import xaibench
from xaibench.figures import BLUE, GREEN, GREY, MAP, ORANGE, SPECTROGRAM, VERMILLION
from xaibench.figures.style import quiet, save_as, style

IMAGES = Path(__file__).parent / "images"
DPI = 110
PAIR = "cs_small_cs_000/hifigan"
METHODS = ("grad-cam", "input-x-gradient", "random")
UTTERANCES = 15
FACES = "twin-ig,input-x-gradient,integrated-gradients,grad-cam,occlusion"


@cache
def pair() -> Any:
    return xaibench.load_data("minivoc")[PAIR]


@cache
def magnitudes() -> dict[str, np.ndarray]:
    """Real and vocoded magnitude, `(F, T)`."""
    grid, halves = xaibench.Grid(), {"real": pair().bonafide, "vocoded": pair().spoof}
    return {name: grid.stft(torch.from_numpy(w.copy())[None])[0].abs().numpy() for name, w in halves.items()}


def decibels(magnitude: np.ndarray) -> np.ndarray:
    return 20 * np.log10(magnitude + 1e-5)


def homework_pair() -> Any:
    """A real recording, its vocoded twin, and their difference."""
    figure, axes = _row(3)
    real, fake = (decibels(m) for m in magnitudes().values())
    for axis, level, title in zip(axes, (real, fake), ("real", "vocoded (HiFi-GAN)"), strict=False):
        image = _draw(axis, level, title, cmap=SPECTROGRAM, vmin=-60, vmax=real.max())
    figure.colorbar(image, ax=axes[1], label="dB")
    change = _draw(axes[2], fake - real, "vocoded - real", cmap="PuOr_r", vmin=-20, vmax=20)
    figure.colorbar(change, ax=axes[2], label="dB")
    return figure


def homework_truth() -> Any:
    """The continuous truth D of Eq. 2, and its top 5 %."""
    truth = xaibench.truth_of(pair())
    figure, axes = _row(2, width=7.6)
    shown = np.ma.masked_where(~truth.valid, np.log10(truth.values + 1e-3))
    figure.colorbar(_draw(axes[0], shown, "D of Eq. 2", cmap=SPECTROGRAM), ax=axes[0], label="log10")
    _draw(
        axes[1], decibels(magnitudes()["vocoded"]), "vocoded speech, and the truth in red", cmap="gray_r", vmin=-90, vmax=30
    )
    _draw(axes[1], np.ma.masked_where(~truth.region, truth.region), None, cmap=ListedColormap([VERMILLION]))
    return figure


def homework_maps() -> Any:
    """Maps, and their top 5 % against the truth."""
    figure, axes = _row(3, rows=2, height=4.6)
    for column, name in enumerate(METHODS):
        found = xaibench.attribute("lcnn", name, pair())
        found.plot(axes[0][column], title=name)
        score = f"{found.score('rank-accuracy'):.3f}"
        found.plot(axes[1][column], share=0.05, title=f"its top 5 %: {score} of them in the truth")
        for axis in axes[:, column]:
            axis.label_outer()
    return figure


def homework_curves() -> Any:
    """Deletion with the twin's cells."""
    figure, (axis,) = _row(1, width=5.2, height=3.0)
    looks = {"grad-cam": (BLUE, "-"), "input-x-gradient": (VERMILLION, "-"), "random": (GREY, ":"), "oracle": (GREEN, "--")}
    for name, (colour, line) in looks.items():
        fractions, log_odds = xaibench.attribute("lcnn", name, pair()).curve("deletion", fill="twin")
        axis.plot(100 * fractions, log_odds, line, color=colour, label=name)
    axis.set(xlabel="cells replaced by the real twin's, %", ylabel="spoof log-odds", title="deletion: lower is better")
    axis.legend(frameon=False)
    quiet(axis)
    return figure


def concepts_grid() -> Any:
    """The same utterance explained at three taps, and what comes to the common grid."""
    figure, axes = _row(3, rows=2, height=4.6, share=False)
    cases = {"lcnn": "lcnn: a spectrogram", "resnet-cqt": "resnet-cqt: bins of constant Q", "tca": "tca: frames, time alone"}
    for column, (name, title) in enumerate(cases.items()):
        view = xaibench.view_of(name, pair())
        x = view.inputs.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(view.model(x).sum(), x)
        own = (x * gradient).sum(1)[0].detach().numpy()
        limit = float(np.percentile(np.abs(own), 99))
        frequency, time = view.axes
        edges = time.edges, np.arange(len(frequency) + 1)
        axes[0][column].pcolormesh(*edges, own, cmap=MAP, vmin=-limit, vmax=limit, rasterized=True)
        axes[0][column].set_title(f"{title}\n{len(frequency)} x {len(time)} cells of its own", loc="left")
        axes[0][column].set(ylabel="row" if column == 0 else None)
        found = xaibench.attribute(name, "input-x-gradient", pair())
        found.plot(axes[1][column], title=f"on the grid: {' x '.join(map(str, found.values.shape))}")
        axes[1][column].set(ylabel="frequency (kHz)" if column == 0 else None)
    return figure


def concepts_truth() -> Any:
    """Three definitions of the truth, on one pair."""
    figure, axes = _row(3)
    for axis, name in zip(axes, ("eq2", "eq1", "log-difference"), strict=True):
        truth = xaibench.truth_of(pair(), name)
        _draw(axis, decibels(magnitudes()["real"]), name, cmap="gray_r", vmin=-90, vmax=30)
        _draw(axis, np.ma.masked_where(~truth.region, truth.region), None, cmap=ListedColormap([VERMILLION]))
    return figure


def concepts_skill() -> Any:
    """Scores, and skill between floor and ceiling, of a small board."""
    figure, axes = _row(2, width=8.4, height=3.0, share=False)
    with tempfile.TemporaryDirectory() as folder:
        board = xaibench.run("lcnn", FACES, limit=UTTERANCES, out=folder).board.set_index("attributor")
    kinds = {"ceiling": GREEN, "method": BLUE, "sham": ORANGE, "floor": GREY}
    for axis, metric in zip(axes, ("rank-accuracy", "drop-twin"), strict=True):
        names = sorted(board.index, key=lambda n: board.loc[n, f"{metric}_skill"])
        for y, name in enumerate(names):
            colour = kinds[board.loc[name, "kind"]]
            axis.plot(100 * board.loc[name, f"{metric}_skill"], y, "o", color=colour, markersize=4)
            ends = board.loc[name, [f"{metric}_skill_low", f"{metric}_skill_high"]].astype(float)
            if np.isfinite(ends).all():
                axis.hlines(y, *(100 * ends), color=colour, linewidth=1.2)
        axis.set_yticks(range(len(names)), names)
        axis.axvline(0, color=GREY, linewidth=0.8)
        axis.axvline(100, color=GREEN, linewidth=0.8)
        axis.set(xlabel="skill, %", title=metric, xlim=(-25, 108))
        quiet(axis)
    return figure


def _row(columns: int, *, rows: int = 1, width: float = 9.0, height: float = 2.4, share: bool = True) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey="row" if share else False)
    return figure, axes if rows > 1 else axes[0]


def _draw(axis: Any, values: np.ndarray, title: str | None, **how: Any) -> Any:
    """A picture of values `(F, T)` in seconds and kHz."""
    grid = xaibench.Grid()
    edges = grid.time(len(pair().spoof)).edges, grid.frequency.edges / 1000
    image = axis.pcolormesh(*edges, values, rasterized=True, **how)
    if title is not None:
        axis.set_title(title, loc="left")
        axis.set(xlabel="time (s)", ylabel="frequency (kHz)")
        axis.label_outer()
    return image


DRAWN: tuple[Callable[[], Any], ...] = (
    homework_pair, homework_truth, homework_maps, homework_curves, concepts_grid, concepts_truth, concepts_skill,
)  # fmt: skip


def main(wanted: list[str]) -> None:
    """Draw the pictures `wanted`, or all."""
    for drawing in DRAWN:
        name = drawing.__name__.replace("_", "-")
        if wanted and name not in wanted:
            continue
        with style(8.0):
            path = save_as(drawing(), IMAGES / f"{name}.png", dpi=DPI)
        Image.open(path).convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=200).save(path, optimize=True)
        print(path, f"{path.stat().st_size / 1000:.0f} kB")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
