"""Does a map depend on what the countermeasure learned, and on the class that it explains?

A map that stays when the countermeasure's parameters are drawn anew was never about the countermeasure; one that is the same
for spoof and for bona fide does not say what speaks for which. All functions ask an `Evidence` for maps under a change
(`xaibench.metrics.again`), compare them over the valid cells of the view's axes and return `(B,)` float64. Undefined, NaN:
a map that is zero on all valid cells; a method that then says nothing of the changed countermeasure agrees with it by 0.

References: Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018, arXiv 1810.03292; Hedstroem, Weber,
Lapuschkin, Hoehne, "Sanity checks revisited", 2023, arXiv 2401.06465; Sixt, Granz, Landgraf, "When explanations lie",
ICML 2020, arXiv 1912.09818.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xaibench.metrics.again import ask
from xaibench.metrics.ranking import Ranking
from xaibench.metrics.stability import NOISES, rank_correlation

if TYPE_CHECKING:
    from xaibench.metrics.evidence import Evidence

#: Shares of the modules whose parameters are drawn anew, from the output down. The paper randomises module by module.
CASCADE = (0.25, 0.5, 0.75, 1.0)

#: Bins of the histogram of a map (Hedstroem et al.; the default of Quantus).
BINS = 100


def mprt(evidence: Evidence) -> Tensor:
    """Model parameter randomisation test (Adebayo et al.): mean over `CASCADE` of |rank correlation| with the map. `(B,)`.

    In [0, 1], lower is better. The size of the correlation of the signed maps: a map turned over shows the same picture.
    Adebayo et al. plot the correlation of the maps, and of their sizes, after each module. The average of Quantus 0.6.0 is
    of the signed correlations and holds the 1 of the countermeasure before any module, which the paper's curve starts at.
    """
    before, valid = evidence.on_view, evidence.probe.valid
    alike = [rank_correlation(before, ask(evidence, f"randomised:{s}").maps, valid).abs() for s in CASCADE]
    return torch.stack(alike).mean(0)


def smooth_mprt(evidence: Evidence) -> Tensor:
    """The same with noise averaged away, of all modules randomised at once (Hedstroem et al.). Shape: `(B,)` in [0, 1].

    |rank correlation| of the mean map of noisy inputs before and after. Lower is better. Three inputs with noise at 40 dB,
    where Quantus takes 50 of larger noise, after the paper: what remains is noisier than the paper's. The last of the 50
    has no noise in Quantus 0.6.0; all of ours have.
    """
    valid = evidence.probe.valid
    before = _mean([ask(evidence, noise).maps for noise in NOISES])
    after = _mean([ask(evidence, f"randomised:1.0+{noise}").maps for noise in NOISES])
    return rank_correlation(before, after, valid).abs() + Ranking(evidence.on_view, valid).silent


def efficient_mprt(evidence: Evidence) -> Tensor:
    """Relative rise of a map's complexity when all modules are randomised (Hedstroem et al.). Shape: `(B,)`.

    `(H' - H) / H`, H the `histogram_entropy` (Quantus 0.6.0: of |a| with `abs=True`, else of a). At least -1, higher is
    better: the map of a countermeasure that knows nothing should be noise. NaN where H is 0: a map of one size.
    """
    valid = evidence.probe.valid
    before = histogram_entropy(evidence.on_view, valid)
    rise = histogram_entropy(ask(evidence, "randomised:1.0").maps, valid) - before
    return torch.where(before > 0, rise / before, torch.nan) + Ranking(evidence.on_view, valid).silent


def random_logit(evidence: Evidence) -> Tensor:
    """|rank correlation| of the sizes of the map and of the map of the bona fide logit alone (Sixt et al.). Shape: `(B,)`.

    In [0, 1], lower is better. The paper compares the logits of two classes, scaled, by SSIM; the rank correlation needs no
    scale and no neighbourhood, which a map of frames does not have in frequency. Quantus 0.6.0 takes the SSIM of the maps
    as one row of cells, whose neighbourhoods are not the paper's.
    """
    other = ask(evidence, "bonafide-logit").maps
    return rank_correlation(evidence.on_view.abs(), other.abs(), evidence.probe.valid).abs()


def class_sensitivity(evidence: Evidence) -> Tensor:
    """Rank correlation of the map for spoof and the map for bona fide (the negated log-odds). Shape: `(B,)` in [-1, 1].

    Lower is better: -1 = what speaks for spoof speaks against bona fide, cell by cell; 1 = the class does not matter.
    """
    return rank_correlation(evidence.on_view, ask(evidence, "opposite").maps, evidence.probe.valid)


def _mean(maps: Sequence[Tensor]) -> Tensor:
    """The mean of several maps of one shape, also where their sum is beyond their type."""
    stacked = torch.stack(list(maps))
    mean = stacked.mean(0)
    return torch.where(mean.isfinite(), mean, stacked.double().mean(0).to(mean.dtype))


def histogram_entropy(maps: Tensor, valid: Tensor | None = None) -> Tensor:
    """Entropy in nats of the histogram of |a|: `BINS` equal bins from the smallest to the largest. Shape: `(B,)`.

    Between 0 (all in one bin, as a map of one size) and ln `BINS`. As `discrete_entropy` of Quantus 0.6.0.

    >>> histogram_entropy(torch.tensor([[[0.0, -4.0, 4.0, 0.01]]])).item()
    0.6931471805599453
    """
    sizes = Ranking(maps, valid).values.double().abs()
    low, high = sizes.amin(1, keepdim=True), sizes.amax(1, keepdim=True)
    width = torch.where(high > low, high - low, 1)
    number = ((sizes - low) / width * BINS).long().clamp_max(BINS - 1)
    share = torch.zeros(len(sizes), BINS, dtype=torch.float64, device=sizes.device)
    share = share.scatter_add_(1, number, torch.ones_like(sizes)) / sizes.shape[1]
    return -torch.special.xlogy(share, share).sum(1)
