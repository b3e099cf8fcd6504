"""Does the countermeasure use the cells an attribution names? Scores of deletion and insertion curves.

The first functions are pure, on curves: fractions `(S,)` of the valid cells, values `(B, S)`. The others ask an
`Evidence` for a curve and score it, `(B,)` float64; NaN where the map is zero on all valid cells.

Read-outs: "log-odds" (spoof log-odds, natural logarithm: unbounded, never saturates) and "probability" (their sigmoid in
[0, 1], what the cited papers use: blind to a countermeasure that stays certain).

References: Petsiuk, Das, Saenko, "RISE", BMVC 2018, arXiv 1806.07421, for deletion and insertion; Bach et al., "On
pixel-wise explanations", PLoS ONE 10 (2015), for pixel flipping; Hedstroem et al., "Quantus", JMLR 24 (2023), version
0.6.0, whose `PixelFlipping` the last one follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xaibench.errors import XaibenchError

if TYPE_CHECKING:
    from xaibench.metrics.evidence import Curve, Evidence

READOUTS = ("log-odds", "probability")

#: Log-odds: below this difference between the halves of a pair, a share of the difference says nothing. A factor of e in
#: the odds, against gaps of 5 to 25 where a trained countermeasure tells the halves apart.
SMALLEST_GAP = 1.0

#: Ten equal steps: pixel flipping weighs every step alike, so its steps must be.
EQUAL_STEPS = tuple(step / 10 for step in range(11))


def area_under_curve(fractions: Tensor, values: Tensor) -> Tensor:
    """Trapezoidal area over steps of any width, divided by the range of the fractions: the mean height of the curve.

    Shape: fractions `(S,)`, values `(B, S)` -> `(B,)`. Raises XaibenchError unless there are two points or more, of one
    number in both, and the fractions rise strictly.

    >>> area_under_curve(torch.tensor([0.0, 0.25, 1.0]), torch.tensor([[1.0, 0.0, 0.0]])).tolist()
    [0.125]
    """
    if fractions.ndim != 1 or values.ndim != 2 or values.shape[1] != len(fractions) or len(fractions) < 2:
        raise XaibenchError(
            f"expected fractions (S,) and values (B, S) with S >= 2, got {tuple(fractions.shape)} and {tuple(values.shape)}"
        )
    if not bool((fractions.diff() > 0).all()):
        raise XaibenchError(f"the fractions of a curve must rise strictly, got {fractions.tolist()}")
    at = fractions.to(values.device, torch.float64)
    return torch.trapezoid(values.double(), at, dim=1) / (at[-1] - at[0])


def readout(curve: Curve, name: str) -> Tensor:
    """The values of a curve, `(B, S)`, in log-odds or as a probability."""
    if name not in READOUTS:
        raise XaibenchError(f"a curve is read out as {' or '.join(READOUTS)}, got {name!r}")
    return curve.log_odds if name == "log-odds" else curve.probability


def pixel_flipping(curve: Curve) -> Tensor:
    """Area under the probability after each step, the untouched input left out, in units of steps (Quantus 0.6.0).

    Quantus' `PixelFlipping(return_auc_per_sample=True)`: trapezoids of width 1, so a curve of n steps reaches at most
    n - 1. `curve` has its point at 0 first and equal steps. Shape: `(B,)`, lower is better. Raises XaibenchError for
    other curves.
    """
    steps = curve.fractions.diff()
    if len(steps) < 2 or curve.fractions[0] != 0 or not torch.allclose(steps, steps[0].expand_as(steps), atol=1e-3):
        raise XaibenchError(f"pixel flipping takes two or more equal steps from 0, got {curve.fractions.tolist()}")
    return torch.trapezoid(curve.probability[:, 1:], dim=1)


def top_share_effect(fall: Tensor, gap: Tensor) -> Tensor:
    """The fall of the spoof log-odds when the top cells alone are filled, as a share of the gap. Shape: `(B,)` each.

    `(s(x) - s(x without its top cells)) / (s(spoof) - s(bona fide))`: 1 = those cells carry the whole difference between
    the halves of the pair. NaN where the gap is below `SMALLEST_GAP`: a countermeasure that hardly tells the pair apart, or
    has it the wrong way round, gives the ratio no meaning.

    >>> top_share_effect(torch.tensor([2.0, 2.0]), torch.tensor([4.0, -4.0])).tolist()
    [0.5, nan]
    """
    return torch.where(gap < SMALLEST_GAP, torch.nan, fall / gap)


def deletion(evidence: Evidence, *, fill: str, values: str = "log-odds") -> Tensor:
    """Mean height of the deletion curve (RISE). Lower is better: the evidence for spoof went first. Shape: `(B,)`."""
    curve = evidence.curve("deletion", fill)
    return area_under_curve(curve.fractions, readout(curve, values))


def insertion(evidence: Evidence, *, fill: str, values: str = "log-odds") -> Tensor:
    """Mean height of the insertion curve (RISE). Higher is better: the evidence for spoof came first. Shape: `(B,)`."""
    curve = evidence.curve("insertion", fill)
    return area_under_curve(curve.fractions, readout(curve, values))


def drop(evidence: Evidence, *, fill: str) -> Tensor:
    """`top_share_effect` of the top 5 % of an attribution. Higher is better. Shape: `(B,)`."""
    return top_share_effect(evidence.drop(fill), evidence.probe.gap)


def flipping(evidence: Evidence, *, fill: str) -> Tensor:
    """`pixel_flipping` over ten equal steps; in [0, 9], lower is better. Shape: `(B,)`."""
    return pixel_flipping(evidence.curve("deletion", fill, EQUAL_STEPS))
