"""Does the countermeasure use the cells the attribution names?"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from xaibench.metrics.entries.sources import FILLS, RISE, UNBOUNDED, UNIT
from xaibench.protocols import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from xaibench.metrics.evidence import Evidence


def _faithfulness(name: str, evidence: Evidence, **options: str) -> Tensor:
    return getattr(import_module("xaibench.metrics.faithfulness"), name)(evidence, **options)


def _used(
    name: str, function: str, fill: str, direction: str, limits: tuple[float, float], paper: str, equation: str,
    misleads: str, **options: str,
) -> Metric:  # fmt: skip
    return Metric(
        name=name, family="faithfulness", function=partial(_faithfulness, function, fill=fill, **options),
        direction=direction, range=limits, paper=paper, equation=equation, misleads=misleads,
        needs=frozenset({"forward"}),
    )  # fmt: skip


_FILL_MISLEADS = {
    "silence": "Zero energy is far from any speech, so the score also says how strange the input became: silencing even "
    "random cells can move it by more than the whole gap between a spoof and its twin. Read it beside `random`.",
    "mean": "The training mean has no fine structure: filled cells are smooth patches no speech has, which a countermeasure "
    "may read as a vocoder's trace.",
    "twin": "Cells are as bona fide as their recording, but a mixture of two recordings has seams; and where spoof and "
    "twin agree nothing is removed, so maps that miss the difference look harmless instead of wrong.",
}  # fmt: skip

_READOUT_MISLEADS = {
    "log-odds": "In the countermeasure's own log-odds: compare attributors, not countermeasures.",
    "probability": "A sigmoid saturates: where the countermeasure stays certain every map scores alike.",
}


def _curves(fill: str) -> list[Metric]:
    metrics = []
    for values, suffix, limits in (("log-odds", "", UNBOUNDED), ("probability", "-probability", UNIT)):
        symbol = "s" if values == "log-odds" else "sigmoid(s)"
        misleads = f"{_FILL_MISLEADS[fill]} {_READOUT_MISLEADS[values]}"
        metrics += [
            _used(
                f"deletion-{fill}{suffix}", "deletion", fill, "lower", limits, RISE,
                f"integral of {symbol}(x without its top share p of cells) dp, p from 0 to 1; trapezoids",
                misleads, values=values,
            ),
            _used(
                f"insertion-{fill}{suffix}", "insertion", fill, "higher", limits, RISE,
                f"integral of {symbol}(x with its top share p of cells only) dp, p from 0 to 1; trapezoids",
                misleads, values=values,
            ),
        ]  # fmt: skip
    drop = _used(
        f"drop-{fill}", "drop", fill, "higher", UNBOUNDED, "this benchmark",
        "(s(x) - s(x without its top 5 % of cells)) / (s(spoof) - s(bona fide twin))",
        f"{_FILL_MISLEADS[fill]} A share of the gap: pairs that the countermeasure hardly tells apart weigh most, and "
        "those below 1 log-odds are left out.",
    )  # fmt: skip
    return [*metrics, drop]


_PIXEL_FLIPPING = _used(
    "pixel-flipping", "flipping", "silence", "lower", (0.0, 9.0), "Bach et al., PLoS ONE 10 (2015); as Quantus 0.6.0",
    "trapezoids of width 1 over sigmoid(s(x without its top k * 10 % of cells)), k = 1 .. 10",
    f"{_FILL_MISLEADS['silence']} {_READOUT_MISLEADS['probability']} Steps of 10 % cannot see what the top 5 % do.",
)  # fmt: skip

#: Every metric of this family.
FAITHFULNESS = (*(metric for fill in FILLS for metric in _curves(fill)), _PIXEL_FLIPPING)
