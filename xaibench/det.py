"""The DET figure: miss against false-alarm rate on probit axes, a curve for the pooled attacks and one an attack.

On probit axes two Gaussian score distributions of equal width give a straight line (Martin et al., Eurospeech 1997, "The
DET curve in assessment of detection task performance"). Curves are drawn as the staircases they are: with few utterances
the steps are what the data can say. The dot of a curve is its equal error rate, on the dashed diagonal.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri

from xaibench.figures import style
from xaibench.figures.style import BLUE, GREEN, GREY, ORANGE, VERMILLION
from xaibench.metrics.detection import detection_error_tradeoff, equal_error_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TICKS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.995, 0.999)
LOW, HIGH, WHOLE = 0.0005, 0.7, 0.9995  # ends of the axes; WHOLE where a curve's equal error rate is beyond 0.5
LOOKS = [(colour, dash) for dash in ("-", (0, (4, 1.5))) for colour in (VERMILLION, BLUE, GREEN, ORANGE)]
PALE = "#C8C8C8"
DPI = 150


def draw(bonafide: np.ndarray, attacks: Mapping[str, np.ndarray], out: Path, *, title: str = "") -> Path:
    """Write the DET curves of the scores of bona fide speech `(N,)` and of each attack, in the format of the
    file's ending.

    Up to eight attacks have a colour and a dash; of more, the eight with the highest equal error rates, the others grey.
    The same scores give the same file. Raises XaibenchError for a class without scores or scores that are not finite,
    RunError where the file cannot be written.
    """
    rates = {name: equal_error_rate(bonafide, scores) for name, scores in attacks.items()}
    worst = sorted(rates, key=lambda name: (-rates[name], name))
    pooled = np.concatenate([np.asarray(s, dtype=float) for s in attacks.values()]) if attacks else np.empty(0)
    rate = equal_error_rate(bonafide, pooled)
    high = WHOLE if max(rate, *rates.values()) > 0.5 else HIGH
    with style.style():
        figure = style.new_figure(5.2, 3.6)
        axes = figure.subplots()
        axes.plot(ndtri([LOW, high]), ndtri([LOW, high]), color=GREY, linewidth=0.6, linestyle="--", zorder=1)
        if len(attacks) > 1:
            _curve(axes, bonafide, pooled, color="black", linewidth=1.8, zorder=4)
            _mark(axes, rate, high, "black", f"pooled: {rate:.1%}", "-")
        for name, (colour, dash) in zip(worst, LOOKS, strict=False):
            _curve(axes, bonafide, attacks[name], color=colour, linestyle=dash, linewidth=1.1, zorder=3)
            _mark(axes, rates[name], high, colour, f"{name}: {rates[name]:.1%}", dash)
        for name in worst[len(LOOKS) :]:
            _curve(axes, bonafide, attacks[name], color=PALE, linewidth=0.7, zorder=2)
        if len(worst) > len(LOOKS):
            axes.plot([], [], color=PALE, linewidth=0.7, label=f"{len(worst) - len(LOOKS)} more, lower")
        _axes(axes, high)
        axes.set_title(title, loc="left", fontsize=8)
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(1.02, 1.0),
            frameon=False,
            fontsize=7,
            title="equal error rate",
            alignment="left",
            handlelength=3,
        )
        figure.tight_layout()
        return style.save_as(figure, Path(out), dpi=DPI)


def staircase(bonafide: np.ndarray, spoof: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False-alarm and miss rate at the corners of the DET curve; the points along a straight stretch are left out.

    >>> false_alarm, miss = staircase(np.array([2.0, 3.0]), np.array([0.0, 1.0]))
    >>> false_alarm.tolist(), miss.tolist()
    ([1.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    """
    miss, false_alarm, _ = detection_error_tradeoff(bonafide, spoof)
    turns = (np.diff(miss) > 0)[1:] != (np.diff(miss) > 0)[:-1]
    corners = np.concatenate([[True], turns, [True]])
    return false_alarm[corners], miss[corners]


def _curve(axes: Axes, bonafide: np.ndarray, spoof: np.ndarray, **look: Any) -> None:
    false_alarm, miss = (
        ndtri(np.clip(r, LOW / 10, 1 - LOW / 10)) for r in staircase(bonafide, spoof)
    )  # 0 and 1 are infinite
    axes.plot(false_alarm, miss, **look)


def _mark(axes: Axes, rate: float, high: float, colour: str, label: str, dash: object) -> None:
    at = ndtri(np.clip(rate, LOW, high))
    axes.plot(
        [at], [at], marker="o", markersize=3.5, color=colour, linestyle=dash, linewidth=1.1, label=label, zorder=5,
        clip_on=False,
    )  # fmt: skip


def _axes(axes: Axes, high: float) -> None:
    ticks = [t for t in TICKS if LOW <= t <= high]
    names = [f"{100 * t:g}" for t in ticks]
    axes.set(xlim=ndtri([LOW, high]), ylim=ndtri([LOW, high]), aspect="equal")
    axes.set_xticks(ndtri(ticks), names, fontsize=6.5)
    axes.set_yticks(ndtri(ticks), names, fontsize=6.5)
    axes.set_xlabel("false-alarm rate: spoofs accepted (%)")
    axes.set_ylabel("miss rate: bona fide rejected (%)")
    axes.grid(True, color="#E4E4E4", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
