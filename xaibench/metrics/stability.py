"""Does a map stay the same when the recording changes in ways that hardly anyone hears?

The first functions are pure, of maps before and after: `(B, F, T)` each, with the mask of valid cells `(F, T)` or None; they
return `(B,)` float64. The others ask an `Evidence` for the maps of changed recordings (`xaibench.metrics.again`). Undefined,
NaN: a map that is zero on all valid cells before the change. One that is zero only afterwards has changed: a relative
change of 1, a correlation of 0.

References: Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS 2019, arXiv 1901.09392; Alvarez-Melis,
Jaakkola, "On the robustness of interpretability methods", 2018, arXiv 1806.08049; Spearman, American Journal of Psychology
15 (1904).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xaibench.errors import XaibenchError
from xaibench.metrics.again import ask
from xaibench.metrics.ranking import Ranking, check_summable

if TYPE_CHECKING:
    from xaibench.metrics.evidence import Evidence

#: The draws of masked noise that stand for the neighbourhood of a recording.
NOISES = ("noise:40:0", "noise:40:1", "noise:40:2")


def relative_change(before: Tensor, after: Tensor, valid: Tensor | None = None) -> Tensor:
    """`||after - before|| / ||before||`, Euclidean, over the valid cells. Shape: `(B,)`; 0 = the same map.

    >>> relative_change(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[3.0, 1.0]]])).item()
    0.6
    """
    old, new = _both(before, after, valid)
    size = old.values.double().norm(dim=1)
    moved = (new.values.double() - old.values.double()).norm(dim=1)
    return moved / size + old.silent


def local_slope(
    before: Tensor, after: Tensor, heard: tuple[Tensor, Tensor], valid: Tensor | None = None
) -> Tensor:  # fmt: skip
    """How far the map moves for how far the explained tensor moves (Alvarez-Melis, Jaakkola). Shape: `(B,)`.

    `||after - before|| / ||x' - x||` with each map divided by its own largest size among the valid cells, and both tensors
    of `heard` = (x, x'), `(B, C, F, T)`, by the root mean square of x. The paper and Quantus 0.6.0 divide neither: of maps
    that share their largest size theirs is this times max|A| / rms(x). NaN where the tensor did not move, or is zero.

    >>> x = torch.tensor([[[[1.0, 1.0]]]])
    >>> local_slope(torch.tensor([[[2.0, 1.0]]]), torch.tensor([[[1.0, 1.0]]]), (x, x + 0.5)).item()
    0.7071067811865475
    """
    old, new = _values(before, after, valid)
    x, other = (part.flatten(1).double() for part in heard)
    if x.shape != other.shape or len(x) != len(old):
        raise XaibenchError(f"expected two tensors of {len(old)} utterances, got {tuple(x.shape)} and {tuple(other.shape)}")
    moved = (other - x).norm(dim=1) / x.square().mean(1).sqrt()
    old = old / old.abs().amax(1, keepdim=True)
    new = new / new.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)  # zero stays zero
    distance = (new - old).norm(dim=1)
    return torch.where((moved > 0) & moved.isfinite(), distance / moved, torch.nan)  # infinite: of silence, whose rms is 0


def rank_correlation(before: Tensor, after: Tensor, valid: Tensor | None = None) -> Tensor:
    """Spearman's rank correlation of two maps over the valid cells. Shape: `(B,)` in [-1, 1]; 1 = the same order.

    Equal cells share the mean of their ranks, and the correlation is Pearson's of the ranks, so any map agrees with itself
    fully, however many ties it has. Where that is 0 / 0: of two constant maps 1 (they tie the same cells), of a constant map
    and another one 0 (the expectation over the orders of its cells).

    >>> rank_correlation(torch.tensor([[[1.0, 2.0, 4.0]]]), torch.tensor([[[1.0, 9.0, 8.0]]])).item()
    0.5
    """
    old, new = _both(before, after, valid)
    spread = (old.mid_ranks.square().sum(1) * new.mid_ranks.square().sum(1)).sqrt()
    constant = [(ranking.mid_ranks == 0).all(1) for ranking in (old, new)]
    alike = torch.where(spread > 0, (old.mid_ranks * new.mid_ranks).sum(1) / spread, (constant[0] & constant[1]).double())
    return alike.clamp(-1, 1) + old.silent


def max_sensitivity(evidence: Evidence) -> Tensor:
    """The largest `relative_change` under three draws of noise at 40 dB (Yeh et al.). Lower is better. Shape: `(B,)`.

    Yeh et al. take the largest change in a ball about the input and do not divide; the division makes methods comparable, as
    in Quantus. Three draws find a lower bound of that maximum.
    """
    before, valid = evidence.on_view, evidence.probe.valid
    return torch.stack([relative_change(before, ask(evidence, n).maps, valid) for n in NOISES]).amax(0)


def local_lipschitz(evidence: Evidence) -> Tensor:
    """The largest `local_slope` under the same three draws. Lower is better. Shape: `(B,)`."""
    before, valid, x = evidence.on_view, evidence.probe.valid, evidence.probe.view.inputs
    other = [ask(evidence, n) for n in NOISES]
    return torch.stack([local_slope(before, o.maps, (x, o.inputs), valid) for o in other]).amax(0)


def robustness(evidence: Evidence, *, change: str) -> Tensor:
    """`rank_correlation` of the maps before and after a change of the recording. Higher is better. Shape: `(B,)`."""
    return rank_correlation(evidence.on_view, ask(evidence, change).maps, evidence.probe.valid)


def _both(before: Tensor, after: Tensor, valid: Tensor | None) -> tuple[Ranking, Ranking]:
    """The valid cells of both maps. Raises XaibenchError for maps of two shapes, or beyond float32."""
    if before.shape != after.shape:
        raise XaibenchError(f"expected maps of one shape, got {tuple(before.shape)} and {tuple(after.shape)}")
    old, new = Ranking(before, valid), Ranking(after, valid)
    for ranking in (old, new):
        check_summable(ranking.values)
    return old, new


def _values(before: Tensor, after: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """The valid cells of both maps, flat. Shape: `(B, n)` float64 each."""
    old, new = _both(before, after, valid)
    return old.values.double(), new.values.double()
