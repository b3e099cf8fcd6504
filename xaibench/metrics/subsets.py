"""Do the sums of an attribution over random subsets say by how much the score falls without them?

The subsets are unions of regions (`xaibench.metrics.regions`), the same for every attributor, so the countermeasure is
asked once an utterance and an attributor costs no forward pass. Maps are read as contributions: a subset's sum of
relevance stands for its share of the score, so a gradient that was not multiplied by the input is out of its unit.

The first functions are pure: sums and falls `(B, K)`, a column a subset. Scores `(B,)` float64, NaN where undefined.

References: Bhatt, Weller, Moura, "Evaluating and aggregating feature-based model explanations", IJCAI 2020, arXiv
2005.00631, for faithfulness correlation; Yeh et al., "On the (in)fidelity and sensitivity of explanations",
NeurIPS 2019, arXiv 1901.09392, definition 2.1, for infidelity, with the optimal scaling of their code and of
`captum.metrics.infidelity(normalize=True)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xaibench.errors import XaibenchError
from xaibench.metrics.readouts import fall

if TYPE_CHECKING:
    from xaibench.metrics.evidence import Evidence

#: Squares of larger numbers are infinite.
LARGEST = 1e100

#: A spread below this share of the largest value is rounding.
ROUNDING = 1e-12


def correlation(sums: Tensor, falls: Tensor) -> Tensor:
    """Pearson's correlation of two rows, in [-1, 1]. Shape: `(B, K)` twice -> `(B,)`. NaN where either row is constant.

    >>> sums, falls = torch.tensor([[1.0, 2.0, 3.0]] * 2), torch.tensor([[3.0, 2.0, 1.0], [5.0, 5.0, 5.0]])
    >>> correlation(sums, falls).tolist()
    [-1.0, nan]
    """
    a, b = _scaled(sums, falls)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    constant = (a.abs().amax(1) <= ROUNDING) | (b.abs().amax(1) <= ROUNDING)
    pearson = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    return torch.where(constant, torch.nan, pearson.clamp(-1, 1))


def scaled_infidelity(sums: Tensor, falls: Tensor) -> Tensor:
    """`mean of (beta * sum - fall)^2` with the best `beta = <sum * fall> / <sum^2>`. Shape: `(B, K)` twice -> `(B,)`.

    Invariant to the scale of a map and to its sign. NaN where every sum or every fall is zero: nothing to predict with, or
    nothing to predict.

    >>> scaled_infidelity(torch.tensor([[1.0, 2.0], [1.0, -1.0]]), torch.tensor([[2.0, 4.0], [1.0, 1.0]])).tolist()
    [0.0, 1.0]
    """
    a, b = _scaled(sums, falls)
    beta = (a * b).sum(1, keepdim=True) / a.square().sum(1, keepdim=True)
    error = (beta * a - b).square().mean(1) * falls.double().abs().amax(1).square()
    return torch.where(b.any(1), error, torch.nan)  # without any sum beta is 0 / 0 and the error NaN


def _scaled(sums: Tensor, falls: Tensor) -> tuple[Tensor, Tensor]:
    """Both rows in float64, their largest absolute value 1 (or 0)."""
    if sums.ndim != 2 or sums.shape != falls.shape or sums.shape[1] < 2:
        raise XaibenchError(f"expected sums and falls (B, K) with K >= 2, got {tuple(sums.shape)} and {tuple(falls.shape)}")
    a, b = sums.double(), falls.double()
    if any(bool((rows.abs() > LARGEST).any()) for rows in (a, b)):
        raise XaibenchError(f"sums or falls are larger than {LARGEST:g}, where squares are no numbers; is a score infinite?")
    tiny = torch.finfo(torch.float64).tiny
    return a / a.abs().amax(1, keepdim=True).clamp_min(tiny), b / b.abs().amax(1, keepdim=True).clamp_min(tiny)


def faithfulness_correlation(evidence: Evidence, *, fill: str, values: str = "log-odds") -> Tensor:
    """`correlation` between the relevance of a random subset and the fall of the score without it. Higher is better.

    50 subsets, each of 5 % of the regions (Bhatt et al. draw single features). Shape: `(B,)`; NaN, too, where the map's
    relevance lies in regions that no subset holds.
    """
    return correlation(*_answers(evidence, fill, values)) + evidence.undefined


def infidelity(evidence: Evidence, *, fill: str, values: str = "log-odds") -> Tensor:
    """`scaled_infidelity` on the same subsets, in squared log-odds or probability. Lower is better. Shape: `(B,)`.

    Quantus 0.6.0 has no scale, and keeps away the patches it took before, where Yeh et al. take one at a time; on axes that
    its patch does not divide it fails.
    """
    return scaled_infidelity(*_answers(evidence, fill, values)) + evidence.undefined


def _answers(evidence: Evidence, fill: str, values: str) -> tuple[Tensor, Tensor]:
    """Sums of relevance and falls of the score, `(B, SUBSETS)` each."""
    probe = evidence.probe
    sums = (probe.subsets.double() @ evidence.region_sums.unsqueeze(2))[..., 0]
    return sums, fall(probe.untouched[:, None], probe.without_subsets(fill), values)
