"""Does the countermeasure use the cells an attribution names? Scores of deletion, insertion and region curves.

The first functions are pure, on curves: fractions `(S,)` of the valid cells, values `(B, S)`. The others ask an
`Evidence` for a curve and score it, `(B,)` float64; NaN where the map is zero on all valid cells. Random subsets are in
`xaibench.metrics.subsets`, soft masks in `xaibench.metrics.soft_masks`.

How answers are read, in log-odds or as a probability, is in `xaibench.metrics.readouts`; a *fall* is f(untouched) -
f(masked): positive where the input became less spoofed.

References: Petsiuk, Das, Saenko, "RISE", BMVC 2018, arXiv 1806.07421, for deletion and insertion; Bach et al., "On
pixel-wise explanations", PLoS ONE 10 (2015), for pixel flipping; Hedstroem et al., "Quantus", JMLR 24 (2023), version
0.6.0, whose `PixelFlipping` it follows; Samek et al., IEEE TNNLS 28 (2017), arXiv 1509.06321, for AOPC, ABPC and region
perturbation; DeYoung et al., "ERASER", ACL 2020, arXiv 1911.03429, for comprehensiveness and sufficiency; Arya et al.,
"One explanation does not fit all" (AIX360), 2019, arXiv 1909.03012, after Luss et al., arXiv 1905.12698, for monotonicity.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xaibench.errors import XaibenchError
from xaibench.metrics.readouts import fall, readout

if TYPE_CHECKING:
    from xaibench.metrics.evidence import Evidence
    from xaibench.metrics.probe import Curve

#: Log-odds: below this difference between the halves of a pair, a share of the difference says nothing. A factor of e in
#: the odds, against gaps of 5 to 25 where a trained countermeasure tells the halves apart.
SMALLEST_GAP = 1.0

#: Ten equal steps: pixel flipping weighs every step alike, so its steps must be.
EQUAL_STEPS = tuple(step / 10 for step in range(11))

#: Region perturbation: ten steps of 1 % of the regions.
REGION_STEPS = tuple(step / 100 for step in range(11))

#: The shares at which ERASER removes or keeps the top of a map.
BINS = (0.01, 0.05, 0.1, 0.2, 0.5)


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
    area = torch.trapezoid(values.double(), at, dim=1) / (at[-1] - at[0])
    if bool(area.isinf().any()) or bool(values.isinf().any()):
        raise XaibenchError("the curve has infinite values, or such that their sum is; did the countermeasure overflow?")
    return area


def pixel_flipping(curve: Curve, values: str = "probability") -> Tensor:
    """Area under the answers after each step, the untouched input left out, in units of steps (Quantus 0.6.0).

    Quantus' `PixelFlipping(return_auc_per_sample=True)`, which reads probabilities: trapezoids of width 1, so a curve of n
    steps reaches at most n - 1. `curve` has its point at 0 first and equal steps. Shape: `(B,)`, lower is better. Raises
    XaibenchError for other curves.
    """
    steps = curve.fractions.diff()
    if len(steps) < 2 or curve.fractions[0] != 0 or not torch.allclose(steps, steps[0].expand_as(steps), atol=1e-3):
        raise XaibenchError(f"pixel flipping takes two or more equal steps from 0, got {curve.fractions.tolist()}")
    return torch.trapezoid(readout(curve, values)[:, 1:], dim=1)


def mean_fall(curve: Curve, values: str) -> Tensor:
    """AOPC: the fall from the first point of a curve to each of its points, itself included, on average. Shape: `(B,)`.

    `1 / (L + 1) * sum over k = 0 .. L of f(x_0) - f(x_k)` (Samek et al.); x_0 is the untouched input.

    >>> from xaibench.metrics.probe import Curve
    >>> mean_fall(Curve(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[3.0, 1.0, -1.0]])), "log-odds").tolist()
    [2.0]
    """
    return fall(curve.log_odds[:, :1], curve.log_odds, values).mean(1)


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


def flipping(evidence: Evidence, *, fill: str, values: str = "log-odds") -> Tensor:
    """`pixel_flipping` over ten equal steps; lower is better, in [0, 9] as a probability. Shape: `(B,)`."""
    return pixel_flipping(evidence.curve("deletion", fill, EQUAL_STEPS), values)


def aopc_morf(evidence: Evidence, *, fill: str, values: str = "log-odds") -> Tensor:
    """`mean_fall` when the most relevant cells go first, in ten equal steps. Higher is better. Shape: `(B,)`."""
    return mean_fall(evidence.curve("deletion", fill, EQUAL_STEPS), values)


def aopc_lerf(evidence: Evidence, *, fill: str, values: str = "log-odds") -> Tensor:
    """`mean_fall` when the least relevant cells go first, in ten equal steps. Lower is better. Shape: `(B,)`.

    What is left without the least relevant share p is the top share 1 - p: the insertion curve from its end. Tied cells
    go in the reverse of the order in which `aopc_morf` takes them: as random, and no cell goes early in both.
    """
    curve = evidence.curve("insertion", fill, EQUAL_STEPS)
    return mean_fall(replace(curve, log_odds=curve.log_odds.flip(1)), values)


def abpc(evidence: Evidence, *, fill: str, values: str = "log-odds") -> Tensor:
    """Area between the two curves, `aopc_morf - aopc_lerf` (Samek et al., appendix). Higher is better. Shape: `(B,)`."""
    return aopc_morf(evidence, fill=fill, values=values) - aopc_lerf(evidence, fill=fill, values=values)


def region_perturbation(evidence: Evidence, *, fill: str, values: str = "log-odds") -> Tensor:
    """`mean_fall` when regions of 9x9 cells are filled, those of the largest sum of relevance first. Shape: `(B,)`.

    Ten steps of 1 % of the regions; Samek et al. fill one region a step, 100 in all. Higher is better. Quantus 0.6.0 pads
    the input on both sides to centre its regions, ours start at the first cell: the same where 9 divides both axes. It
    returns the falls f(x_0) - f(x_k) from k = 1 on, one region a step, and leaves the averaging to its caller.
    """
    return mean_fall(evidence.region_curve(fill, REGION_STEPS), values)


def comprehensiveness(evidence: Evidence, *, fill: str, values: str = "log-odds") -> Tensor:
    """The fall without the top 1, 5, 10, 20 and 50 % of cells, on average (ERASER). Higher is better. Shape: `(B,)`.

    The mean of the five bins, as ERASER's own scorer; the paper prints a sixth term, of no cell, which no map changes.
    """
    return _mean_of_bins(evidence, "deletion", fill, values)


def sufficiency(evidence: Evidence, *, fill: str, values: str = "log-odds") -> Tensor:
    """The fall with the top 1, 5, 10, 20 and 50 % of cells only, on average (ERASER). Lower is better. Shape: `(B,)`."""
    return _mean_of_bins(evidence, "insertion", fill, values)


def _mean_of_bins(evidence: Evidence, direction: str, fill: str, values: str) -> Tensor:
    return fall(evidence.probe.untouched[:, None], evidence.curve(direction, fill, BINS).log_odds, values).mean(1)


def monotonicity(evidence: Evidence, *, fill: str) -> Tensor:
    """The share of ten equal steps at which adding cells, least relevant first, does not lower the score. Shape: `(B,)`.

    The deletion curve read backwards. Arya et al. (AIX360's `monotonicity_metric`) ask whether all steps rise, one cell
    each and without the first, from nothing: a share of 1 for them, else 0. Higher is better; every read-out is alike.
    Quantus 0.6.0's `Monotonicity` fills with the baseline what is the baseline already, so it is true for every map.
    """
    curve = evidence.curve("deletion", fill, EQUAL_STEPS)
    return (curve.log_odds.diff(dim=1) <= 0).double().mean(1) + evidence.undefined
