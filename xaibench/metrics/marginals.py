"""Does an attribution find *at which frequencies* the vocoder changed the speech? The scores of frames, of frequencies.

    marginal  a_f = sum of the attribution over the valid frames of frequency f
    share     g_f = share of the frequency's valid cells that lie in the truth's region
    region    the N = round(sum of g_f) frequencies of largest g_f

`xaibench.metrics.temporal` on maps and truths turned by a quarter: conventions, ties and what is undefined are the same,
read frequency for frame. A frequency outside the valid band has no valid cell and does not count. Every score takes
`(attribution (B, F, T) float, truth)`, or what `frequencies` makes of both, and returns `(B,)` float64. The truth must tell
frequencies apart.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from xaibench.metrics import temporal
from xaibench.metrics.ranking import kept
from xaibench.metrics.temporal import Frames
from xaibench.types import Truth


def rank_accuracy(attribution: Tensor | Frames, truth: Truth | None = None) -> Tensor:
    """Share of the N frequencies of the truth among the N of largest marginal. Shape: `(B,)` in [0, 1], higher is better."""
    return temporal.rank_accuracy(frequencies(attribution, truth))


def roc_auc(attribution: Tensor | Frames, truth: Truth | None = None) -> Tensor:
    """Probability that a frequency of the truth ranks above another. Shape: `(B,)` in [0, 1], higher is better."""
    return temporal.roc_auc(frequencies(attribution, truth))


def average_precision(attribution: Tensor | Frames, truth: Truth | None = None) -> Tensor:
    """Mean over the truth's frequencies of the precision at their rank. Shape: `(B,)` in [0, 1], higher is better."""
    return temporal.average_precision(frequencies(attribution, truth))


def spearman(attribution: Tensor | Frames, truth: Truth | None = None) -> Tensor:
    """Rank correlation of the marginal with g_f. Shape: `(B,)` in [-1, 1], higher is better, chance 0."""
    return temporal.spearman(frequencies(attribution, truth))


def frequencies(attribution: Tensor | Frames, truth: Truth | None = None) -> Frames:
    """a_f, the region and g_f of the frequencies that have a valid cell; those that are given are handed on."""
    if isinstance(attribution, Frames):
        return attribution
    truth = temporal.given(truth)
    temporal.check(attribution, truth)
    seen, region, share = kept(truth, "frequencies", lambda: temporal.of_truth(_turned(truth)))
    return Frames(temporal.time_marginal(attribution.mT, truth.valid.mT).index_select(1, seen), region, share)


def turned(attribution: Tensor, truth: Truth) -> tuple[Tensor, Truth]:
    """Time in the place of frequency and frequency in that of time. Shape: `(B, F, T)` -> `(B, T, F)`, of all parts.

    Raises XaibenchError for what the scores of frames do not take.

    >>> import torch
    >>> region = torch.tensor([[[True, False, True], [False, False, False]]])
    >>> t = Truth(values=region.float(), region=region, valid=torch.ones(2, 3, dtype=torch.bool), name="eq2")
    >>> attribution, t = turned(region.float(), t)
    >>> attribution.shape, temporal.temporal_region(t).tolist()
    (torch.Size([1, 3, 2]), [[True, False]])
    """
    temporal.check(attribution, truth)
    return attribution.mT, _turned(truth)


def _turned(truth: Truth) -> Truth:
    added = None if truth.added is None else truth.added.mT
    return replace(truth, values=truth.values.mT, region=truth.region.mT, valid=truth.valid.mT, added=added)
