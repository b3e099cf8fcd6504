"""How a countermeasure's answer is read, and how much it fell.

"log-odds": spoof log-odds, natural logarithm: unbounded, never saturates. "probability": their sigmoid in [0, 1], what the
cited papers use: blind to a countermeasure that stays certain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xaibench.errors import XaibenchError

if TYPE_CHECKING:
    from xaibench.metrics.probe import Curve

READOUTS = ("log-odds", "probability")


def _known(name: str) -> None:
    if name not in READOUTS:
        raise XaibenchError(f"an answer is read out as {' or '.join(READOUTS)}, got {name!r}")


def readout(curve: Curve, name: str) -> Tensor:
    """The values of a curve, `(B, S)`, in log-odds or as a probability."""
    _known(name)
    return curve.log_odds if name == "log-odds" else curve.probability


def fall(before: Tensor, after: Tensor, values: str) -> Tensor:
    """`f(before) - f(after)` for log-odds of any shape, in log-odds or as a difference of probabilities.

    The probabilities are never subtracted, so that a countermeasure that is certain (1 - p below 1e-16) still answers.

    >>> fall(torch.tensor([2.0, 40.0]), torch.tensor([0.0, 38.0]), "log-odds").tolist()
    [2.0, 2.0]
    >>> [f"{p:.4g}" for p in fall(torch.tensor([2.0, 40.0]), torch.tensor([0.0, 38.0]), "probability").tolist()]
    ['0.3808', '2.714e-17']
    """
    _known(values)
    if values == "log-odds":
        return before - after
    high, low = torch.maximum(before, after), torch.minimum(before, after)
    return (before - after).sign() * high.sigmoid() * (-low).sigmoid() * -torch.expm1(low - high)
