"""Does an attribution order the cells as the vocoder changed them? Scores against the continuous truth D, without a cut.

Every function takes `(attribution (B, F, T) float, amount (B, F, T) float, valid (F, T) bool or None)`, where `amount` is
`Truth.values`: D of each cell, not negative. It returns `(B,)` float64. In place of either stands its `Ranking`, with the
valid cells in it, so that the truth of a batch is sorted once for all attributors. Largest first, signs included.

Ties. Cells of equal attribution stand in random order and the expected score is returned, in closed form, as in
`xaibench.metrics.localisation`; equal amounts need no order (nDCG) or share their mean rank (Spearman).

Undefined, NaN: a map that is zero on all valid cells, and amounts that are all equal (for nDCG: all zero).

References: Jaervelin, Kekaelaeinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20 (2002); McSherry,
Najork, "Computing information retrieval performance measures efficiently in the presence of tied scores", ECIR 2008,
section 2.6; Spearman, American Journal of Psychology 15 (1904).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from xaibench.errors import XaibenchError
from xaibench.metrics.ranking import Ranking, check_summable


def ndcg(attribution: Tensor | Ranking, amount: Tensor | Ranking, valid: Tensor | None = None) -> Tensor:
    """Normalised discounted cumulated gain over all valid cells. Shape: `(B,)` in [0, 1], higher is better.

        DCG(order) = sum over ranks j = 1 ... n of D of the cell at rank j / log2(j + 1)
        nDCG       = DCG(order of the attribution) / DCG(order of D)

    The gain is D itself. The discount is that of `sklearn.metrics.ndcg_score`, with which this agrees, ties included;
    Jaervelin and Kekaelaeinen divide by log2(j) from rank 2 on, so that their first two ranks count alike. Cells of a tie
    group gain the mean of the group (McSherry and Najork).

    A random map does not score 0 but the mean of D times the sum of the discounts over DCG(order of D).

    >>> amount = torch.tensor([[[3.0, 0.0, 1.0, 0.0]]])
    >>> round(ndcg(torch.tensor([[[1.0, 2.0, 0.0, -1.0]]]), amount).item(), 4)  # (3 / log2(3) + 1 / 2) / (3 + 1 / log2(3))
    0.659
    """
    ours, theirs = _both(attribution, amount, valid)
    if len(theirs.values) and bool((theirs.ordered[:, -1] < 0).any()):
        raise XaibenchError(f"the gain of a cell cannot be negative, got {theirs.values.min():g}; is it the truth's D?")
    check_summable(theirs.values)
    discount, summed = (part.to(ours.values.device) for part in _discounts(len(ours)))
    gain = theirs.values.gather(1, ours.order)
    gains = gain * discount
    # The mean gain of a tie group times its discounts is its gains times their mean discount.
    rows, at, first, last = ours.tied
    before, after = (summed.index_select(0, place - rows * len(ours)) for place in (first, last + 1))
    gains.view(-1).scatter_(0, at, gain.view(-1).index_select(0, at) * ((after - before) / (last - first + 1)))
    best = (theirs.ordered * discount).sum(1)
    return (gains.sum(1) / best).clamp_max(1) + ours.silent  # rounding may go beyond


def spearman(attribution: Tensor | Ranking, amount: Tensor | Ranking, valid: Tensor | None = None) -> Tensor:
    """Rank correlation of the attribution with D. Shape: `(B,)` in [-1, 1], higher is better, chance 0.

    Equal amounts share their mean rank, as is usual; equal cells of the attribution stand in random order, and the
    expectation of the correlation over these orders is

        covariance of the mid-ranks / (standard deviation of 1..n * standard deviation of the mid-ranks of the amounts)

    Without ties in the attribution the same as `scipy.stats.spearmanr`, which divides by the smaller standard deviation
    of the attribution's mid-ranks where there are some: a map of two values then looks better than its order is, and a
    constant one has no score. Ties in the amounts keep even the best map below 1.

    >>> spearman(torch.tensor([[[4.0, 3.0, 2.0, 1.0]]]), torch.tensor([[[9.0, 1.0, 4.0, 0.0]]])).item()
    0.8
    """
    ours, theirs = _both(attribution, amount, valid)
    n = len(ours)
    spread = (theirs.mid_ranks.square().mean(1) * (n**2 - 1) / 12).sqrt()
    return ((ours.mid_ranks * theirs.mid_ranks).mean(1) / spread).clamp(-1, 1) + ours.silent


@lru_cache(maxsize=4)  # runs ask for one or two lengths: 0.4 MB each
def _discounts(n: int) -> tuple[Tensor, Tensor]:
    """Discounts of ranks 1 ... n, and their sums over the first 0 ... n. Shape: `(n,)` and `(n + 1,)` float64.

    On the CPU: a cumulative sum of floats has no deterministic form on a GPU.
    """
    discount = 1 / torch.arange(2, n + 2, dtype=torch.float64, device="cpu").log2()
    return discount, torch.cat([discount.new_zeros(1), discount.cumsum(0)])


def _both(attribution: Tensor | Ranking, amount: Tensor | Ranking, valid: Tensor | None) -> tuple[Ranking, Ranking]:
    """The rankings of both. Raises XaibenchError for shapes that do not agree."""
    shapes = [tuple(x.shape) for x in (attribution, amount)]
    if shapes[0] != shapes[1] or len(shapes[0]) != 3:
        raise XaibenchError(
            f"expected attribution and truth of one shape (B, F, T), got {shapes[0]} and {shapes[1]}; project the "
            f"attribution to the grid first"
        )
    ours, theirs = (x if isinstance(x, Ranking) else Ranking(x, valid) for x in (attribution, amount))
    if len(ours) != len(theirs):
        raise XaibenchError(f"the rankings have {len(ours)} and {len(theirs)} valid cells; expected the same cells in both")
    return ours, theirs
