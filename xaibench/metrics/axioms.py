"""Does an attribution keep the promises of its kind?

completeness       it sums to the difference between the scores of the input and of a baseline.
input invariance   it does not change when nothing does: a constant is added to the input and taken away by the first layer.

All functions take an `Evidence` and return `(B,)` float64. Undefined, NaN: a map that is zero everywhere.

References: Sundararajan, Taly, Yan, "Axiomatic attribution for deep networks", ICML 2017, arXiv 1703.01365; Kindermans et
al., "The (un)reliability of saliency methods", 2017, arXiv 1711.00867.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xaibench.errors import XaibenchError
from xaibench.metrics.again import ask
from xaibench.metrics.ranking import check_summable
from xaibench.metrics.stability import relative_change

if TYPE_CHECKING:
    from xaibench.metrics.evidence import Evidence

#: Log-odds: a gap is no measure where the scores it is relative to hardly differ.
SMALLEST_DIFFERENCE = 1.0

#: Of the shift of `input_invariance`: one standard deviation of the explained tensor over the references.
SHIFT = "shift:1.0"


def completeness_gap(maps: Tensor, difference: Tensor) -> Tensor:
    """`|sum of the map - difference| / |difference|` (Sundararajan et al.). Shape: maps `(B, F, T)` -> `(B,)`.

    0 = complete, 1 = a sum of zero. All cells count, valid or not: completeness is a promise about all of them. NaN where
    |difference| is below `SMALLEST_DIFFERENCE` log-odds, and for a map that is zero everywhere. Quantus 0.6.0 only says
    whether sum and difference are the same float, by default of maps divided by their largest size.

    >>> completeness_gap(torch.tensor([[[3.0, -1.0]]]), torch.tensor([4.0])).item()
    0.5
    """
    if maps.ndim != 3 or difference.shape != maps.shape[:1] or not bool(torch.isfinite(maps).all()):
        raise XaibenchError(
            f"expected finite maps (B, F, T) and differences (B,), got {tuple(maps.shape)} with "
            f"{int((~torch.isfinite(maps)).sum())} NaN or infinite cells and {tuple(difference.shape)}"
        )
    check_summable(maps)
    wanted = difference.double()
    gap = (maps.double().sum((1, 2)) - wanted).abs() / wanted.abs()
    defined = (wanted.abs() >= SMALLEST_DIFFERENCE) & maps.flatten(1).any(1)
    return torch.where(defined, gap, torch.nan)


def completeness(evidence: Evidence, *, fill: str) -> Tensor:
    """`completeness_gap` to the input with every cell filled, whether valid or not. Lower is better. Shape: `(B,)`."""
    return completeness_gap(evidence.on_view, evidence.probe.untouched - evidence.probe.nothing_but(fill))


def input_invariance(evidence: Evidence) -> Tensor:
    """`relative_change` of the map when the same function is asked of a shifted input (Kindermans et al.). Shape: `(B,)`.

    Lower is better, 0 = invariant. Baselines and references are shifted with the input. The paper shows pictures; Quantus
    answers yes or no, with a tolerance of 1e-4 on the values themselves. Quantus 0.6.0 leaves the first cell unshifted, and
    where the first layer pads its shifted model is another function: its no may be its own fault.
    """
    return relative_change(evidence.on_view, ask(evidence, SHIFT).maps, evidence.probe.valid)
