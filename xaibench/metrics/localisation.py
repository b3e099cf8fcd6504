"""Does an attribution find the cells the vocoder changed? Pure functions of an attribution and the truth's region.

Every function takes `(attribution (B, F, T) float, region (B, F, T) bool, valid (F, T) bool or None)` and returns
`(B,)` float64; positive attribution speaks for spoof, and the largest values come first, signs included. Only valid
cells count, of the attribution and of the region alike.

Ties. Cells of equal value are taken to stand in random order, and the *expected* score over all such orders is
returned, in closed form. A constant map therefore scores exactly what chance does, and cell order in memory never
matters. (Breaking ties by index, as `numpy.argsort` does, gives a constant map any score between 0 and 1.)

Undefined, NaN: a map that is zero on all valid cells (the method said nothing), and an empty region. An attribution
with a NaN or infinite cell raises XaibenchError.

References: Arras, Osman, Samek, "CLEVR-XAI", Information Fusion 81 (2022), arXiv 2003.07258, for rank and mass
accuracy; Zhang et al., "Top-down neural attention by excitation backprop", IJCV 126 (2018), for the pointing game;
Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27 (2006); McSherry, Najork, "Computing
information retrieval performance measures efficiently in the presence of tied scores", ECIR 2008.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xaibench.errors import XaibenchError


def relevance_rank_accuracy(attribution: Tensor, region: Tensor, valid: Tensor | None = None) -> Tensor:
    """Share of the region among the `|region|` largest cells (CLEVR-XAI). Shape: `(B,)` in [0, 1], higher is better.

    >>> region = torch.tensor([[[True, True, False, False]]])
    >>> relevance_rank_accuracy(torch.tensor([[[4.0, 1.0, 2.0, -3.0]]]), region).item()
    0.5
    """
    values, inside = _valid_cells(attribution, region, valid)
    size = inside.sum(1)
    return _expected_hits(values, inside, size) / size + _silent(values)


def intersection_over_union(
    attribution: Tensor, region: Tensor, valid: Tensor | None = None, *, share: float = 0.05
) -> Tensor:
    """Intersection over union of the region and the attribution's `round(share * valid)` largest cells.

    Jaccard (New Phytologist 11, 1912). With ties at the cut-off, of the expected intersection I: `I / (k + |region| - I)`.
    Shape: `(B,)` in [0, 1], higher is better. Raises XaibenchError when `share` is less than one cell.

    >>> region = torch.tensor([[[True, True, False, False]]])
    >>> intersection_over_union(torch.tensor([[[4.0, 1.0, 2.0, -3.0]]]), region, share=0.5).item()
    0.3333333333333333
    """
    values, inside = _valid_cells(attribution, region, valid)
    cells = values.shape[1]
    count = round(share * cells)
    if not 1 <= count <= cells:
        raise XaibenchError(f"a share of {share} of {cells} valid cells is {count} cells; expected 1 to {cells}")
    size = inside.sum(1)
    hits = _expected_hits(values, inside, torch.full_like(size, count))
    return hits / (count + size - hits) + _silent(values) + _unless(size > 0)


def relevance_mass_accuracy(attribution: Tensor, region: Tensor, valid: Tensor | None = None) -> Tensor:
    """Share of the positive attribution that lies in the region (CLEVR-XAI). Shape: `(B,)` in [0, 1], higher is better.

    Negative cells (evidence for bona fide) count as zero; NaN without a positive cell.

    >>> region = torch.tensor([[[True, True, False, False]]])
    >>> relevance_mass_accuracy(torch.tensor([[[4.0, 1.0, 2.0, -3.0]]]), region).item()
    0.7142857142857143
    """
    values, inside = _valid_cells(attribution, region, valid)
    mass = values.clamp_min(0)
    total = mass.sum(1, dtype=torch.float64)
    return (mass * inside).sum(1, dtype=torch.float64) / total + _unless(inside.any(1) & (total > 0))


def roc_auc(attribution: Tensor, region: Tensor, valid: Tensor | None = None) -> Tensor:
    """Probability that a cell of the region ranks above a cell outside it, ties counting one half (Fawcett 2006).

    Shape: `(B,)` in [0, 1], higher is better, chance 0.5. NaN also when the region holds every valid cell.

    >>> region = torch.tensor([[[True, True, False, False]]])
    >>> roc_auc(torch.tensor([[[4.0, 1.0, 2.0, -3.0]]]), region).item()
    0.75
    """
    values, inside = _valid_cells(attribution, region, valid)
    ordered, order = values.sort(dim=1)
    hit = inside.gather(1, order)
    first, last = tie_group(ordered)
    rank_sum = ((first + last).mul_(hit).sum(1).double() + 2 * hit.sum(1)) / 2  # mid-ranks, counted from 1
    size = inside.sum(1).double()
    others = values.shape[1] - size
    return (rank_sum - size * (size + 1) / 2) / (size * others) + _silent(values)


def average_precision(attribution: Tensor, region: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean over the region's cells of the precision at their rank. Shape: `(B,)` in [0, 1], higher is better.

    Without ties the same as `sklearn.metrics.average_precision_score`. With ties the expectation over their orders: the
    cell at rank j of a group of n ties with r hits, after t cells with h hits, adds (McSherry and Najork)

        r / n * (h + 1 + (j - t - 1) * (r - 1) / (n - 1)) / j

    Chance is a little above `|region| / |valid|`.

    >>> region = torch.tensor([[[True, True, False, False]]])
    >>> average_precision(torch.tensor([[[4.0, 1.0, 2.0, -3.0]]]), region).item()
    0.8333333333333333
    """
    values, inside = _valid_cells(attribution, region, valid)
    ordered, order = values.sort(dim=1, descending=True)
    hit = inside.gather(1, order)
    found = hit.cumsum(1)
    rank = torch.arange(1, values.shape[1] + 1, device=values.device, dtype=torch.float64)
    first, last = tie_group(ordered)
    before = (found - hit.long()).gather(1, first)
    hits = (found.gather(1, last) - before).double()
    ties = (last - first + 1).double()
    others = (rank - 1 - first) * (hits - 1) / (ties - 1).clamp_min(1)
    precision = hits / ties * (before + 1 + others) / rank
    return precision.sum(1) / inside.sum(1) + _silent(values)


def pointing_game(attribution: Tensor, region: Tensor, valid: Tensor | None = None) -> Tensor:
    """1 when the largest cell lies in the region, else 0; among equal maxima the share that does (Zhang et al. 2018).

    No tolerance margin. Shape: `(B,)` in [0, 1], higher is better.

    >>> region = torch.tensor([[[True, True, False, False]]])
    >>> pointing_game(torch.tensor([[[4.0, 1.0, 4.0, -3.0]]]), region).item()
    0.5
    """
    values, inside = _valid_cells(attribution, region, valid)
    top = values == values.amax(1, keepdim=True)
    return (top & inside).sum(1).double() / top.sum(1) + _silent(values) + _unless(inside.any(1))


def _valid_cells(attribution: Tensor, region: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """The valid cells of attribution and region, flat. Shape: `(B, n)` each."""
    if attribution.ndim != 3 or attribution.shape != region.shape:
        raise XaibenchError(
            f"expected attribution and region of one shape (B, F, T), got {tuple(attribution.shape)} and "
            f"{tuple(region.shape)}; project the attribution to the grid first"
        )
    if not attribution.is_floating_point() or region.dtype != torch.bool:
        raise XaibenchError(
            f"expected a floating-point attribution and a bool region, got {attribution.dtype} and {region.dtype}"
        )
    if not bool(torch.isfinite(attribution).all()):
        bad = int((~torch.isfinite(attribution)).sum())
        raise XaibenchError(f"the attribution has {bad} NaN or infinite cells of {attribution.numel()}")
    if valid is None:
        return attribution.flatten(1), region.flatten(1)
    if valid.shape != attribution.shape[1:] or valid.dtype != torch.bool or not bool(valid.any()):
        raise XaibenchError(
            f"valid must be bool of shape {tuple(attribution.shape[1:])} with at least one cell, got {valid.dtype} "
            f"{tuple(valid.shape)} with {int(valid.sum())}"
        )
    cells = valid.flatten().nonzero()[:, 0]
    return attribution.flatten(1).index_select(1, cells), region.flatten(1).index_select(1, cells)


def _expected_hits(values: Tensor, inside: Tensor, count: Tensor) -> Tensor:
    """Expected number of `inside` cells among each map's `count` largest ones. Shape: count `(B,)` -> `(B,)` float64."""
    largest = values.topk(max([1, *count.tolist()]), dim=1).values
    cutoff = largest.gather(1, (count - 1).clamp_min(0)[:, None])
    above, tied = values > cutoff, values == cutoff
    places = (count - above.sum(1)).double()
    return (above & inside).sum(1) + places * (tied & inside).sum(1) / tied.sum(1)


def tie_group(ordered: Tensor) -> tuple[Tensor, Tensor]:
    """First and last position of the run of equal values that each cell of a sorted map is in. Shape: `(B, n)` long each."""
    position = torch.arange(ordered.shape[1], device=ordered.device).expand(ordered.shape)
    change = ordered[:, 1:] != ordered[:, :-1]
    edge = change.new_ones(len(ordered), 1)
    first = torch.where(torch.cat([edge, change], 1), position, 0).cummax(1).values
    last = torch.where(torch.cat([change, edge], 1), position, ordered.shape[1]).flip(1).cummin(1).values.flip(1)
    return first, last


def _unless(defined: Tensor) -> Tensor:
    """0 where defined, NaN elsewhere: added to a score. Shape: `(B,)` bool -> `(B,)` float64."""
    return torch.where(defined, 0.0, torch.nan).double()


def _silent(values: Tensor) -> Tensor:
    """NaN for maps that are zero everywhere, else 0. Shape: `(B, n)` -> `(B,)`."""
    return _unless(values.any(1))
