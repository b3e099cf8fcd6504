"""The mathematics of FastSHAP: Shapley's weights, coalitions drawn by them, efficiency, the loss.

d patches of the plane are players; a coalition S `(..., d)` of ones and zeros says which are kept, and v(S) is the spoof
log-odds with a fill in place of the others. The Shapley values are the minimum over phi (Charnes et al. 1988; Lundberg and
Lee, NeurIPS 2017, Theorem 2) of

    E_S (v(S) - v(none) - S . phi)^2   with   p(S) ~ (d - 1) / (C(d, |S|) |S| (d - |S|)),   0 < |S| < d,

under the constraint (efficiency) that phi sums to v(all) - v(none). FastSHAP (Jethani et al., ICLR 2022, arXiv 2107.07436,
Sec. 3) lets a network answer phi(x) and takes the expectation over inputs, too; efficiency is given by adding an equal share
of the gap to each patch ("additive efficient normalisation", Ruiz et al. 1998), in training as in use.
"""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor

from xaibench.errors import XaibenchError


def kernel(players: int) -> Tensor:
    """The probability of each coalition size 1 ... d - 1 under p(S): ~ 1 / (s (d - s)). Shape: `(d - 1,)` float64.

    All coalitions of one size are equally likely, and there are C(d, s) of them, which cancels.

    >>> [round(p, 4) for p in kernel(4).tolist()]
    [0.3636, 0.2727, 0.3636]
    """
    if players < 2:
        raise XaibenchError(f"Shapley values share among at least two patches, got {players}")
    size = torch.arange(1, players, dtype=torch.float64)
    weight = 1 / (size * (players - size))
    return weight / weight.sum()


def coalitions(players: int, count: int, draw: torch.Generator) -> Tensor:
    """Coalitions from p(S) in pairs: each second one is the complement of the one before. Shape: `(count, d)` of 0 and 1.

    Pairs take a good part of the variance (Covert and Lee, AISTATS 2021, arXiv 2012.01536, Sec. 4.2). Raises XaibenchError
    unless `count` is even and positive.

    >>> coalitions(5, 2, torch.Generator().manual_seed(0)).sum(0).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    if count < 2 or count % 2:
        raise XaibenchError(f"coalitions are drawn in pairs, so their number is even and at least 2, got {count}")
    half = count // 2
    size = 1 + torch.multinomial(kernel(players), half, replacement=True, generator=draw)
    rank = torch.rand(half, players, generator=draw).argsort(dim=1).argsort(dim=1)
    kept = (rank < size[:, None]).float()
    return torch.stack([kept, 1 - kept], dim=1).flatten(0, 1)


def efficient(values: Tensor, gap: Tensor) -> Tensor:
    """The values, shifted alike to sum to the gap. Shape: `(B, d)` and `(B,)`, v(all) - v(none) -> `(B, d)`.

    >>> efficient(torch.tensor([[1.0, 2.0]]), torch.tensor([5.0])).tolist()
    [[2.0, 3.0]]
    """
    return values + ((gap - values.sum(dim=1)) / values.shape[1])[:, None]


def loss(values: Tensor, kept: Tensor, worth: Tensor) -> Tensor:
    """The mean of (v(S) - v(none) - S . phi)^2. Shape: `(B, d)`, `(B, K, d)`, v(S) - v(none) `(B, K)` -> scalar."""
    return (worth - torch.einsum("bkd,bd->bk", kept, values)).square().mean()


def solved(kept: Tensor, worth: Tensor, gap: Tensor) -> Tensor:
    """The efficient minimum of `loss` for one input, by least squares: KernelSHAP (Lundberg and Lee 2017), unbiased pairs.

    Shape: `(K, d)`, `(K,)`, scalar -> `(d,)` float64. The last patch takes what the others leave, which makes the constraint
    part of the equations. With fewer coalitions than patches the solution of least norm.
    """
    kept, worth, gap = kept.double(), worth.double(), gap.double()
    rest = kept[:, :-1] - kept[:, -1:]
    first = torch.linalg.lstsq(rest, (worth - kept[:, -1] * gap)[:, None], driver="gelsd").solution[:, 0]
    return torch.cat([first, (gap - first.sum())[None]])


def enumerated(worth: dict[tuple[int, ...], float], players: int) -> Tensor:
    """Shapley's own formula over all coalitions (Shapley 1953, Eq. 12). Shape: `(d,)` float64; for toys, 2^d values.

    worth: sorted tuple of kept players -> v. Each player's gain is weighted by |S|! (d - |S| - 1)! / d!.

    >>> enumerated({(): 0.0, (0,): 1.0, (1,): 2.0, (0, 1): 5.0}, 2).tolist()
    [2.0, 3.0]
    """
    values = torch.zeros(players, dtype=torch.float64)
    for kept, value in worth.items():
        for player in set(range(players)) - set(kept):
            gain = worth[tuple(sorted((*kept, player)))] - value
            values[player] += gain / (players * comb(players - 1, len(kept)))
    return values
