"""What entries of faithfulness share: how they are asked, what stands in place of removed cells, how answers are read."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from xaibench.metrics.entries.sources import UNBOUNDED
from xaibench.protocols import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from xaibench.metrics.evidence import Evidence

#: Of scores in the countermeasure's log-odds, and of those as a probability: value, suffix of the name, symbol.
READOUTS = (("log-odds", "", "s"), ("probability", "-probability", "sigmoid(s)"))

FILL_MISLEADS = {
    "silence": "Zero energy is far from any speech, so the score also says how strange the input became: silencing even "
    "random cells can move it by more than the whole gap between a spoof and its twin. Read it beside `random`.",
    "mean": "The training mean has no fine structure: filled cells are smooth patches no speech has, which a countermeasure "
    "may read as a vocoder's trace.",
    "twin": "Cells are as bona fide as their recording, but a mixture of two recordings has seams; and where spoof and "
    "twin agree nothing is removed, so maps that miss the difference look harmless instead of wrong.",
}  # fmt: skip

READOUT_MISLEADS = {
    "log-odds": "In the countermeasure's own log-odds: compare attributors, not countermeasures.",
    "probability": "A sigmoid saturates: where the countermeasure stays certain every map scores alike.",
}


def _asked(module: str, name: str, evidence: Evidence, /, **options: str) -> Tensor:
    return getattr(import_module(f"xaibench.metrics.{module}"), name)(evidence, **options)


def used(
    name: str, function: str, fill: str, direction: str, limits: tuple[float, float], paper: str, equation: str,
    misleads: str, *, readout: str = "",
) -> Metric:  # fmt: skip
    """An entry of this family; `function` is `module.name`, asked for this fill and, if one is named, this read-out."""
    module, asked = function.split(".")
    options = {"fill": fill} | ({"values": readout} if readout else {})
    return Metric(
        name=name, family="faithfulness", function=partial(_asked, module, asked, **options),
        direction=direction, range=limits, paper=paper, equation=equation, misleads=misleads,
        needs=frozenset({"forward"}),
    )  # fmt: skip


def both(
    name: str, function: str, fill: str, direction: str, limits: tuple[float, float], paper: str, equation: str,
    misleads: str, *, in_log_odds: tuple[float, float] = UNBOUNDED,
) -> list[Metric]:  # fmt: skip
    """Two entries, as a probability within `limits` and in log-odds within `in_log_odds`; `{f}` in the equation stands for
    the read-out. A score with the same limits in both has no unit.
    """
    ranges = {"log-odds": in_log_odds, "probability": limits}
    words = READOUT_MISLEADS | ({"log-odds": ""} if in_log_odds == limits else {})
    return [
        used(
            f"{name}-{fill}{suffix}", function, fill, direction, ranges[values], paper, equation.format(f=symbol),
            f"{misleads} {FILL_MISLEADS[fill]} {words[values]}".strip(), readout=values,
        )
        for values, suffix, symbol in READOUTS
    ]  # fmt: skip
