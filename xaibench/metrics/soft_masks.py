"""Does the countermeasure decide alike when it hears an attribution's soft mask, and otherwise when it hears the rest?

The mask is `M = max(map, 0) / its largest value` on the valid cells, in [0, 1], and 1 on all others, which are never
touched. *Masked in* is `M * x + (1 - M) * fill`; *masked out* is `(1 - M) * x + M * fill` on the valid cells. A map without
a positive valid cell names nothing to listen to: NaN.

p and o are the probabilities of one class, the one decided for on the untouched input (spoof from log-odds 0 on), for the
untouched and the masked-in input. So p is 0.5 or more, and where the countermeasure takes a spoof for bona fide a map of
evidence for spoof is judged by its effect on "bona fide". They are computed from log-odds of that class without ever
subtracting probabilities: 1 - p may be below 1e-16. Scores `(B,)` float64.

References: Paissan, Ravanelli, Subakan, "Listenable maps for audio classifiers" (L-MAC), ICML 2024, with SpeechBrain's
recipes/ESC50/interpret; Chattopadhay et al., "Grad-CAM++", WACV 2018, arXiv 1710.11063, for average drop and increase;
Zhang et al., "Opti-CAM", CVIU 248 (2024), arXiv 2301.07002, for average gain. L-MAC's constant 1e-10 in the denominators is
left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xaibench.metrics.readouts import fall

if TYPE_CHECKING:
    from xaibench.metrics.evidence import Evidence


def soft_mask(values: Tensor, valid: Tensor) -> Tensor:
    """M of a map, NaN on the valid cells of one without a positive valid cell. Shape: `(B, F, T)`, `(F, T)` bool -> same.

    >>> soft_mask(torch.tensor([[[4.0, -1.0, 2.0, 8.0]]]), torch.tensor([[True, True, True, False]])).tolist()
    [[[1.0, 0.0, 0.5, 1.0]]]
    """
    positive = values.clamp_min(0) * valid
    largest = positive.amax((1, 2), keepdim=True)
    return torch.where(valid, positive / largest, 1.0)


def relative_fall(before: Tensor, after: Tensor) -> Tensor:
    """By which share of itself a probability falls, 0 where it rises: `max(p - o, 0) / p`, from log-odds of any shape.

    The rise as a share of what is missing, `max(o - p, 0) / (1 - p)`, is the same of the negated log-odds.

    >>> relative_fall(torch.tensor([0.0, 0.0]), torch.tensor([-50.0, 3.0])).tolist()
    [1.0, 0.0]
    """
    # (p - o) / p = (1 - o) * (1 - exp(o's log-odds - p's)), without a subtraction of near equals.
    return (-after).sigmoid() * -torch.expm1(-(before - after).clamp_min(0))


def average_drop(evidence: Evidence, *, fill: str) -> Tensor:
    """`100 * max(p - o, 0) / p`, in per cent. Lower is better. Shape: `(B,)`."""
    return 100 * relative_fall(*_heard(evidence, "in", fill))


def average_increase(evidence: Evidence, *, fill: str) -> Tensor:
    """`100 * [o > p]`, in per cent: 0 or 100 for one utterance. Higher is better. Shape: `(B,)`."""
    before, after = _heard(evidence, "in", fill)
    return 100 * (after > before).double() + 0 * after


def average_gain(evidence: Evidence, *, fill: str) -> Tensor:
    """`100 * max(o - p, 0) / (1 - p)`, in per cent. Higher is better. Shape: `(B,)`."""
    before, after = _heard(evidence, "in", fill)
    return 100 * relative_fall(-before, -after)


def fidelity_in(evidence: Evidence, *, fill: str) -> Tensor:
    """`[the same decision on the masked-in input]`: Fid-In. Higher is better. Shape: `(B,)`."""
    spoof = evidence.probe.untouched >= 0
    return ((_masked(evidence, "in", fill) >= 0) == spoof).double() + 0 * _masked(evidence, "in", fill)


def faithfulness_on_spectra(evidence: Evidence, *, fill: str, values: str = "log-odds") -> Tensor:
    """`f(x) - f(masked out)` for the class decided for on x. Higher is better. Shape: `(B,)`."""
    return fall(*_heard(evidence, "out", fill), values)


def _masked(evidence: Evidence, part: str, fill: str) -> Tensor:
    """Spoof log-odds of the masked input; NaN where there is no mask. Shape: `(B,)`."""

    def ask() -> Tensor:
        valid = evidence.probe.valid
        evidence.probe.check(evidence.on_view)
        mask = soft_mask(evidence.on_view, valid)
        keep = (mask if part == "in" else torch.where(valid, 1 - mask, 1.0)).nan_to_num(nan=0.0)
        undefined = torch.where(mask.isnan().flatten(1).any(1), torch.nan, 0.0)
        return evidence.probe.ask(lambda _: keep.unsqueeze(1), 1, fill)[:, 0] + undefined

    return evidence.kept(f"soft mask {part}", fill, ask)


def _heard(evidence: Evidence, part: str, fill: str) -> tuple[Tensor, Tensor]:
    """Log-odds of the class decided for, on the untouched and on the masked input. Shape: `(B,)` each."""
    clean = evidence.probe.untouched
    sign = torch.where(clean >= 0, 1.0, -1.0).double()
    return sign * clean, sign * _masked(evidence, part, fill)
