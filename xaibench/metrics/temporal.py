"""Does an attribution find *when* the speech is spoofed? Scores of its time marginal against the frames of a truth.

    marginal  a_t = sum of the attribution over the valid frequencies of frame t
    share     g_t = share of the frame's valid cells that lie in the truth's region
    region    the N = round(sum of g_t) frames of largest g_t

Among frames of one g_t those with the larger mean truth value come first, then the earlier ones. So a truth whose region
is 5 % of the cells has 5 % of the frames, and one of segments has exactly the spoofed frames. Any map can be scored: one
that resolves time and frequency by its marginal, one of frames alone by itself. Frames without a valid cell do not count.

Every score takes `(attribution (B, F, T) float, truth)`, or the `Frames` made of both, and returns `(B,)` float64. Positive
attribution speaks for spoof; evidence for bona fide cancels evidence for spoof within a frame. Ties as in
`xaibench.metrics.localisation`: frames of equal marginal stand in random order, and the expected score is returned in
closed form, so a map that is constant over time scores what chance does.

Undefined, NaN: a marginal that is zero on all frames, and a temporal region without a frame or with all of them (a wholly
spoofed utterance leaves nothing to find). A NaN or infinite cell of the attribution raises XaibenchError.

References: those of `localisation`; Zhang et al., "Range-based equal error rate for spoof localization", Interspeech 2023,
arXiv 2305.17739, for the error rate of segments; Spearman, American Journal of Psychology 15 (1904).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xaibench.errors import XaibenchError
from xaibench.metrics import graded, localisation
from xaibench.metrics.ranking import check_finite, check_summable, kept, tie_group
from xaibench.types import Truth


def time_marginal(attribution: Tensor, valid: Tensor) -> Tensor:
    """Sum over the valid frequencies of each frame, in float64. Shape: `(B, F, T)`, valid `(F, T)` bool -> `(B, T)`.

    >>> time_marginal(torch.tensor([[[1.0, 2.0], [4.0, 8.0]]]), torch.tensor([[True, True], [True, False]])).tolist()
    [[5.0, 2.0]]
    """
    rows = valid.any(1).nonzero()[:, 0]
    band = slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0)
    cells = attribution[:, band] if bool(valid[band].all()) else attribution[:, band] * valid[band]
    return cells.sum(1, dtype=torch.float64)  # sums of equal cells stay equal, so ties stay ties


def region_share(truth: Truth) -> Tensor:
    """g_t of the module's docstring. Shape: `(B, T)` float64; 0 for a frame without a valid cell."""
    cells = truth.valid.sum(0).clamp_min(1)
    return (truth.region & truth.valid).sum(1).double() / cells


def temporal_region(truth: Truth) -> Tensor:
    """The frames of a truth, as in the module's docstring. Shape: `(B, T)` bool.

    >>> region = torch.tensor([[[True, False, True], [True, False, False]]])
    >>> t = Truth(values=region.float(), region=region, valid=torch.ones(2, 3, dtype=torch.bool), name="eq2")
    >>> temporal_region(t).tolist()
    [[True, False, True]]
    """
    share = region_share(truth)
    level = time_marginal(truth.values, truth.valid) / truth.valid.sum(0).clamp_min(1)
    by_level = level.argsort(dim=1, descending=True, stable=True)
    order = by_level.gather(1, share.gather(1, by_level).argsort(dim=1, descending=True, stable=True))
    count = share.sum(1).round().long()
    chosen = torch.arange(share.shape[1], device=share.device) < count[:, None]
    return torch.zeros_like(chosen).scatter_(1, order, chosen)


@dataclass(frozen=True, eq=False)
class Frames:
    """What an attribution and a truth say of the frames that have a valid cell: a_t, S and g_t. Shape: `(B, n)` each."""

    marginal: Tensor
    region: Tensor
    share: Tensor


def frames(attribution: Tensor, truth: Truth) -> Frames:
    """The frames of maps and truth. Shape: attribution `(B, F, T)`. Raises XaibenchError for what `check` refuses."""
    check(attribution, truth)
    seen, region, share = kept(truth, "frames", lambda: of_truth(truth))
    return Frames(time_marginal(attribution, truth.valid).index_select(1, seen), region, share)


def given(truth: Truth | None) -> Truth:
    """The truth that a map is scored against. Raises XaibenchError without one."""
    if truth is None:
        raise XaibenchError("a map is scored against a truth, and none was given; only `Frames` bring theirs along")
    return truth


def of_truth(truth: Truth) -> tuple[Tensor, Tensor, Tensor]:
    """What no attribution changes: the frames with a valid cell, S and g_t. Shape: `(n,)` long, `(B, n)` twice."""
    seen = truth.valid.any(0).nonzero()[:, 0]
    return seen, temporal_region(truth).index_select(1, seen), region_share(truth).index_select(1, seen)


def check(attribution: Tensor, truth: Truth) -> None:
    """Raises XaibenchError unless the attribution `(B, F, T)` is finite and of the truth's shape, with a valid cell."""
    if attribution.ndim != 3 or attribution.shape != truth.region.shape or truth.valid.shape != attribution.shape[1:]:
        raise XaibenchError(
            f"expected an attribution of the truth's shape {tuple(truth.region.shape)}, got {tuple(attribution.shape)}, "
            f"and a valid mask {tuple(truth.region.shape[1:])}, got {tuple(truth.valid.shape)}; project the attribution to "
            f"the grid first"
        )
    if not attribution.is_floating_point() or truth.region.dtype != torch.bool or truth.valid.dtype != torch.bool:
        raise XaibenchError(
            f"expected a floating-point attribution, a bool region and a bool valid mask, got {attribution.dtype}, "
            f"{truth.region.dtype} and {truth.valid.dtype}"
        )
    if not bool(truth.valid.any()):
        raise XaibenchError("the truth has no valid cell: is its band outside the grid?")
    check_finite(attribution)
    check_summable(attribution)


def rank_accuracy(attribution: Tensor | Frames, truth: Truth | None = None) -> Tensor:
    """Share of the N spoofed frames among the N frames of largest marginal. Shape: `(B,)` in [0, 1], higher is better."""
    marginal, region, _ = _parts(attribution, truth)
    return localisation.relevance_rank_accuracy(marginal[:, None], region[:, None]) + _undecidable(region)


def roc_auc(attribution: Tensor | Frames, truth: Truth | None = None) -> Tensor:
    """Probability that a spoofed frame ranks above another one. Shape: `(B,)` in [0, 1], higher is better, chance 0.5."""
    marginal, region, _ = _parts(attribution, truth)
    return localisation.roc_auc(marginal[:, None], region[:, None]) + _undecidable(region)


def average_precision(attribution: Tensor | Frames, truth: Truth | None = None) -> Tensor:
    """Mean over the spoofed frames of the precision at their rank. Shape: `(B,)` in [0, 1], higher is better."""
    marginal, region, _ = _parts(attribution, truth)
    return localisation.average_precision(marginal[:, None], region[:, None]) + _undecidable(region)


def spearman(attribution: Tensor | Frames, truth: Truth | None = None) -> Tensor:
    """Rank correlation of the marginal with g_t. Shape: `(B,)` in [-1, 1], higher is better, chance 0.

    `xaibench.metrics.graded.spearman` of frames: equal g_t share their mean rank, equal marginals stand in random order.
    Without ties in the marginal the same as `scipy.stats.spearmanr`. Ties in g_t keep even the best map below 1.
    """
    marginal, region, share = _parts(attribution, truth)
    return graded.spearman(marginal[:, None], share[:, None]) + _undecidable(region)


def frame_eer(attribution: Tensor | Frames, truth: Truth | None = None) -> Tensor:
    """Equal error rate of the frames of one utterance: spoofed ones missed, others flagged. Shape: `(B,)`, lower is better.

    A threshold on the marginal; between two operating points, and within ties, the rates move along the line between
    them (the expectation over the orders of the ties), so both are equal somewhere. In [0, 1], chance 0.5. The
    error rate of `xaibench.metrics.detection` takes the nearest operating point instead: less than one frame away.
    """
    marginal, region, _ = _parts(attribution, truth)
    ordered, order = marginal.sort(dim=1, descending=True)
    hit = region.gather(1, order).long()
    found = hit.cumsum(1)
    first, last = tie_group(ordered)
    before = (found - hit).gather(1, first)
    position = torch.arange(marginal.shape[1], device=marginal.device)
    within = (position + 1 - first).double() / (last + 1 - first)
    hits = before + within * (found.gather(1, last) - before)
    size = region.sum(1, keepdim=True).double()
    miss = 1 - hits / size
    alarm = (position + 1 - hits) / (marginal.shape[1] - size)
    start = miss.new_zeros(len(miss), 1)
    miss, alarm = torch.cat([start + 1, miss], 1), torch.cat([start, alarm], 1)
    gap = miss - alarm  # falls strictly from 1 to -1
    after = (gap > 0).sum(1, keepdim=True).clamp_max(marginal.shape[1])
    (a0, g0), (a1, g1) = [(alarm.gather(1, i), gap.gather(1, i)) for i in (after - 1, after)]
    rate = (a0 + (a1 - a0) * g0 / (g0 - g1))[:, 0]
    return rate + torch.where(marginal.any(1), 0.0, torch.nan) + _undecidable(region)


def rcq(attribution: Tensor | Frames, truth: Truth | None = None) -> Tensor:
    """Relative contribution of the spoofed frames of one utterance, in per cent (Liu et al., Interspeech 2024).

        100 * (mean of h_t over S - mean of h_t) / mean of h_t,        h_t = max(a_t, 0)

    Shape: `(B,)` in [-100, inf), higher is better, chance 0: spoofed frames get what the average frame gets. NaN without
    evidence for spoof. The paper pools the frames of a whole set and tells five kinds of frames apart, which needs the
    kept maps: `xaibench rcq` (`xaibench.metrics.rcq`).
    """
    marginal, region, _ = _parts(attribution, truth)
    height = marginal.clamp_min(0)
    usual = height.mean(1)
    spoofed = (height * region).sum(1) / region.sum(1).clamp_min(1)
    defined = torch.where(usual > 0, 0.0, torch.nan)
    change = 100 * (spoofed - usual) / usual.where(usual > 0, 1.0)
    return change.clamp_min(-100) + defined + _undecidable(region)  # rounding may go beyond


def _parts(attribution: Tensor | Frames, truth: Truth | None) -> tuple[Tensor, Tensor, Tensor]:
    found = attribution if isinstance(attribution, Frames) else frames(attribution, given(truth))
    return found.marginal, found.region, found.share


def _undecidable(region: Tensor) -> Tensor:
    """NaN where no frame, or every frame, is spoofed; else 0. Shape: `(B, n)` bool -> `(B,)` float64."""
    return torch.where(region.any(1) & ~region.all(1), 0.0, torch.nan).double()
