"""Does an attribution find the cells the vocoder changed? Pure functions of an attribution and the truth's region.

Every function takes `(attribution (B, F, T) float, region (B, F, T) bool, valid (F, T) bool or None)` and returns
`(B,)` float64; positive attribution speaks for spoof, and the largest values come first, signs included. Only valid
cells count, of the attribution and of the region alike. In place of the attribution stands its `Ranking`, with the valid
cells in it, where several functions ask about the same maps: they are sorted once.

Ties. Cells of equal value are taken to stand in random order, and the *expected* score over all such orders is
returned, in closed form. A constant map therefore scores exactly what chance does, and cell order in memory never
matters. (Breaking ties by index, as `numpy.argsort` does, gives a constant map any score between 0 and 1.) Precision,
recall and Dice are linear in the intersection, which is hypergeometric; IoU is not, and sums over its distribution.

Undefined, NaN: a map that is zero on all valid cells (the method said nothing), and an empty region. An attribution
with a NaN or infinite cell raises XaibenchError.

Scores *at a share s* compare the region with the top `k = round(s * valid)` cells. At the region's own size all four are
one number in different clothes: precision = recall = Dice = rank accuracy = x, and IoU = x / (2 - x).

References: Arras, Osman, Samek, "CLEVR-XAI", Information Fusion 81 (2022), arXiv 2003.07258, for rank and mass
accuracy; Zhang et al., "Top-down neural attention by excitation backprop", IJCV 126 (2018), for the pointing game;
Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27 (2006); McSherry, Najork, "Computing
information retrieval performance measures efficiently in the presence of tied scores", ECIR 2008; Theiner,
Mueller-Budack, Ewerth, "Interpretable semantic photo geolocation", WACV 2022, arXiv 2104.14995, for the top-k
intersection and concept influence.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xaibench.errors import XaibenchError
from xaibench.metrics.ranking import Ranking, check_summable


def relevance_rank_accuracy(attribution: Tensor | Ranking, region: Tensor, valid: Tensor | None = None) -> Tensor:
    """Share of the region among the `|region|` largest cells (CLEVR-XAI). Shape: `(B,)` in [0, 1], higher is better.

    >>> region = torch.tensor([[[True, True, False, False]]])
    >>> relevance_rank_accuracy(torch.tensor([[[4.0, 1.0, 2.0, -3.0]]]), region).item()
    0.5
    """
    ranking = ranked(attribution, region, valid)
    size = ranking.size(region)
    return ranking.hits(region, size) / size + ranking.silent


def precision(attribution: Tensor | Ranking, region: Tensor, valid: Tensor | None = None, *, share: float = 0.05) -> Tensor:
    """Share of the region among the top `k = round(share * valid)` cells, `I / k` (van Rijsbergen 1979, chapter 7).

    Shape: `(B,)` in [0, 1], higher is better; at most `|region| / k`. Ties: the expected value. Raises XaibenchError when
    `share` is less than one cell.

    >>> region = torch.tensor([[[True, True, False, False]]])
    >>> precision(torch.tensor([[[4.0, 1.0, 2.0, -3.0]]]), region, share=0.25).item()
    1.0
    """
    hits, count, _ = _at(attribution, region, valid, share)
    return hits / count


def recall(attribution: Tensor | Ranking, region: Tensor, valid: Tensor | None = None, *, share: float = 0.05) -> Tensor:
    """Share of the region that lies among the top `k = round(share * valid)` cells, `I / |region|`.

    Shape: `(B,)` in [0, 1], higher is better; at most `k / |region|`. Ties: the expected value. Raises XaibenchError when
    `share` is less than one cell.

    >>> region = torch.tensor([[[True, True, False, False]]])
    >>> recall(torch.tensor([[[4.0, 1.0, 2.0, -3.0]]]), region, share=0.25).item()
    0.5
    """
    hits, _, size = _at(attribution, region, valid, share)
    return hits / size


def dice(attribution: Tensor | Ranking, region: Tensor, valid: Tensor | None = None, *, share: float = 0.05) -> Tensor:
    """Overlap of the region and the top `k = round(share * valid)` cells, `2 I / (k + |region|)` (Dice, Ecology 26, 1945).

    The harmonic mean of precision and recall. Shape: `(B,)` in [0, 1], higher is better. Ties: the expected value. Raises
    XaibenchError when `share` is less than one cell.

    >>> region = torch.tensor([[[True, True, False, False]]])
    >>> dice(torch.tensor([[[4.0, 1.0, 2.0, -3.0]]]), region, share=0.5).item()
    0.5
    """
    hits, count, size = _at(attribution, region, valid, share)
    return 2 * hits / (count + size)


def intersection_over_union(
    attribution: Tensor | Ranking, region: Tensor, valid: Tensor | None = None, *, share: float = 0.05
) -> Tensor:
    """Intersection over union of the region and the attribution's top `k = round(share * valid)` cells.

    Jaccard (New Phytologist 11, 1912): `I / (k + |region| - I)`. Ties at the cut-off: the expected value, over the
    hypergeometric distribution of I (how many of the region's tied cells are among those drawn from the tie).
    Shape: `(B,)` in [0, 1], higher is better. Raises XaibenchError when `share` is less than one cell.

    >>> region = torch.tensor([[[True, True, False, False]]])
    >>> intersection_over_union(torch.tensor([[[4.0, 1.0, 2.0, -3.0]]]), region, share=0.5).item()
    0.3333333333333333
    """
    ranking = ranked(attribution, region, valid)
    _, count, size = _at(ranking, region, None, share)
    hits, chance = ranking.drawn(region, count)
    return (chance * hits / (count + size[:, None] - hits)).sum(1) + ranking.silent + _unless(size > 0)


def top_k_intersection(
    attribution: Tensor | Ranking, region: Tensor, valid: Tensor | None = None, *, count: int = 1000
) -> Tensor:
    """Share of the region among the `count` largest cells, or among all where there are fewer (Theiner et al., 2022).

    As `TopKIntersection` of Quantus 0.6, whose K is 1000 too and which refuses maps of fewer cells. Shape: `(B,)` in
    [0, 1], higher is better.

    >>> region = torch.tensor([[[True, True, False, False]]])
    >>> top_k_intersection(torch.tensor([[[4.0, 1.0, 2.0, -3.0]]]), region, count=3).item()
    0.6666666666666666
    """
    ranking = ranked(attribution, region, valid)
    if count < 1:
        raise XaibenchError(f"the top {count} cells are none; expected at least 1")
    count = min(count, len(ranking))
    return ranking.hits(region, count) / count + ranking.silent + _unless(ranking.size(region) > 0)


def concept_influence(
    attribution: Tensor | Ranking, region: Tensor, valid: Tensor | None = None, *, share: float = 0.05
) -> Tensor:
    """How many times as often as by chance a cell of the top `share` lies in the region (Theiner et al., 2022).

        (I / k) * n / |region|          n valid cells, k = round(share * n)

    As `TopKIntersection(concept_influence=True)` of Quantus 0.6 with that k. Shape: `(B,)`, from 0 to `n / |region|`, chance
    1, higher is better. Raises XaibenchError when `share` is less than one cell.

    >>> region = torch.tensor([[[True, True, False, False]]])
    >>> concept_influence(torch.tensor([[[4.0, 1.0, 2.0, -3.0]]]), region, share=0.25).item()
    2.0
    """
    ranking = ranked(attribution, region, valid)
    hits, count, size = _at(ranking, region, None, share)
    return hits / count * len(ranking) / size


def relevance_mass_accuracy(attribution: Tensor | Ranking, region: Tensor, valid: Tensor | None = None) -> Tensor:
    """Share of the positive attribution that lies in the region (CLEVR-XAI). Shape: `(B,)` in [0, 1], higher is better.

    Negative cells (evidence for bona fide) count as zero; NaN without a positive cell.

    >>> region = torch.tensor([[[True, True, False, False]]])
    >>> relevance_mass_accuracy(torch.tensor([[[4.0, 1.0, 2.0, -3.0]]]), region).item()
    0.7142857142857143
    """
    ranking = ranked(attribution, region, valid)
    check_summable(ranking.values)
    inside, mass = ranking.inside(region), ranking.values.clamp_min(0)
    total = mass.sum(1, dtype=torch.float64)
    return (mass * inside).sum(1, dtype=torch.float64) / total + _unless((ranking.size(region) > 0) & (total > 0))


def roc_auc(attribution: Tensor | Ranking, region: Tensor, valid: Tensor | None = None) -> Tensor:
    """Probability that a cell of the region ranks above a cell outside it, ties counting one half (Fawcett 2006).

    Shape: `(B,)` in [0, 1], higher is better, chance 0.5. NaN also when the region holds every valid cell.

    >>> region = torch.tensor([[[True, True, False, False]]])
    >>> roc_auc(torch.tensor([[[4.0, 1.0, 2.0, -3.0]]]), region).item()
    0.75
    """
    ranking = ranked(attribution, region, valid)
    size, (above, down) = ranking.size(region), ranking.around(region)
    # Every cell is beaten by those of the region above it, and by half of those it ties with. The region's own cells are
    # among them: they beat each other in size^2 / 2 pairs, itself counted half. Whole numbers: exact.
    beaten = ((above + down).sum(1) - size**2).double() / 2
    return beaten / (size * (len(ranking) - size)) + ranking.silent


def average_precision(attribution: Tensor | Ranking, region: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean over the region's cells of the precision at their rank. Shape: `(B,)` in [0, 1], higher is better.

    Without ties the same as `sklearn.metrics.average_precision_score`. With ties the expectation over their orders: the
    cell at rank j of a group of n ties with r hits, after t cells with h hits, adds (McSherry and Najork)

        r / n * (h + 1 + (j - t - 1) * (r - 1) / (n - 1)) / j

    Chance is a little above `|region| / |valid|`.

    >>> region = torch.tensor([[[True, True, False, False]]])
    >>> average_precision(torch.tensor([[[4.0, 1.0, 2.0, -3.0]]]), region).item()
    0.8333333333333333
    """
    ranking = ranked(attribution, region, valid)
    before, down = ranking.around(region)
    rank = torch.arange(1, len(ranking) + 1, device=before.device, dtype=torch.float64)
    precisions = (down - before) * down / rank  # where nothing is tied
    row, at, first, last = ranking.tied
    h, d = (counts.view(-1).index_select(0, at) for counts in (before, down))
    hits, ties, j = (d - h).double(), (last - first + 1).double(), at - row * len(ranking) + 1
    precisions.view(-1).scatter_(0, at, hits / ties * (h + 1 + (at - first) * (hits - 1) / (ties - 1)) / j)
    return precisions.sum(1) / ranking.size(region) + ranking.silent


def pointing_game(attribution: Tensor | Ranking, region: Tensor, valid: Tensor | None = None) -> Tensor:
    """1 when the largest cell lies in the region, else 0; among equal maxima the share that does (Zhang et al. 2018).

    No tolerance margin. Shape: `(B,)` in [0, 1], higher is better.

    >>> region = torch.tensor([[[True, True, False, False]]])
    >>> pointing_game(torch.tensor([[[4.0, 1.0, 4.0, -3.0]]]), region).item()
    0.5
    """
    ranking = ranked(attribution, region, valid)
    return ranking.hits(region, 1) + ranking.silent + _unless(ranking.size(region) > 0)


def ranked(attribution: Tensor | Ranking, region: Tensor, valid: Tensor | None) -> Ranking:
    """The ranking of an attribution that is to be compared with a region; one that is given is handed on.

    Raises XaibenchError for shapes that do not agree.
    """
    if isinstance(attribution, Ranking):
        return attribution
    if attribution.ndim != 3 or attribution.shape != region.shape:
        raise XaibenchError(
            f"expected attribution and region of one shape (B, F, T), got {tuple(attribution.shape)} and "
            f"{tuple(region.shape)}; project the attribution to the grid first"
        )
    return Ranking(attribution, valid)


def _at(attribution: Tensor | Ranking, region: Tensor, valid: Tensor | None, share: float) -> tuple[Tensor, int, Tensor]:
    """Expected intersection of the region and the top share, and the sizes of both. NaN where undefined."""
    ranking = ranked(attribution, region, valid)
    cells = len(ranking)
    count = round(share * cells)
    if not 1 <= count <= cells:
        raise XaibenchError(f"a share of {share} of {cells} valid cells is {count} cells; expected 1 to {cells}")
    size = ranking.size(region)
    return ranking.hits(region, count) + ranking.silent + _unless(size > 0), count, size


def _unless(defined: Tensor) -> Tensor:
    """0 where defined, NaN elsewhere: added to a score. Shape: `(B,)` bool -> `(B,)` float64."""
    return torch.where(defined, 0.0, torch.nan).double()
