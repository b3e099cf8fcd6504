"""Over how many cells does an attribution spread?

Every function takes `(attribution (B, F, T) float, valid (F, T) bool or None)` and returns `(B,)` float64. Only the size
of valid cells counts, not their sign, place or order, and none depends on the scale of the map. Undefined, NaN: a map that
is zero on all valid cells. An attribution with a NaN or infinite cell raises XaibenchError.

References: Chalasani et al., "Concise explanations of neural networks using adversarial training", ICML 2020, and Hurley,
Rickard, "Comparing measures of sparsity", IEEE Transactions on Information Theory 55 (2009), for the Gini index; Bhatt,
Weller, Moura, "Evaluating and aggregating feature-based model explanations", IJCAI 2020, for entropy; Simpson,
"Measurement of diversity", Nature 163 (1949), for the effective number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xaibench.metrics.ranking import Ranking, check_summable


def gini(attribution: Tensor, valid: Tensor | None = None) -> Tensor:
    """Gini index of the sizes (Chalasani et al.): 0 = all equal, 1 - 1/n = one of n cells has all. Shape: `(B,)`.

    `1 - 2 sum_k |a|_(k) / |a|_1 * (n - k + 1/2) / n`, |a|_(k) rising. Equal sizes need no order: any gives the same. Quantus
    0.6.0 (`Sparseness`) adds 1e-7 to every cell, which flattens maps of small values; we do not.

    >>> gini(torch.tensor([[[1.0, -1.0, 2.0, 0.0]]])).item()
    0.375
    """
    sizes = _sizes(attribution, valid).sort(dim=1).values
    n = sizes.shape[1]
    weight = 2 * torch.arange(1, n + 1, device=sizes.device) - n - 1
    return ((weight * sizes).sum(1) / (n * sizes.sum(1))).clamp(0, 1)  # rounding may go beyond


def entropy(attribution: Tensor, valid: Tensor | None = None) -> Tensor:
    """Entropy of |a| / sum |a| in nats (Bhatt et al.): 0 = one cell, ln n = all equal. Lower is better. Shape: `(B,)`.

    Quantus 0.6.0 (`Complexity`) adds 1e-12 to every share before the logarithm; we do not.

    >>> entropy(torch.tensor([[[1.0, -1.0, 0.0, 0.0]]])).item()
    0.6931471805599453
    """
    sizes = _sizes(attribution, valid)
    share = sizes / sizes.sum(1, keepdim=True)
    return -torch.special.xlogy(share, share).sum(1)


def effective_area(attribution: Tensor, valid: Tensor | None = None) -> Tensor:
    """The share of cells that would hold as much, if all of them held alike: `(sum |a|)^2 / (n sum a^2)`. Shape: `(B,)`.

    The inverse of Simpson's index of the shares of |a|, or participation ratio, over n. In ]0, 1]: 1/n = one cell, 1 = all
    equal. Lower is better.

    >>> effective_area(torch.tensor([[[1.0, -1.0, 0.0, 0.0]]])).item()
    0.5
    """
    sizes = _sizes(attribution, valid)
    sizes = sizes / sizes.amax(1, keepdim=True)  # squares of small values would vanish
    return (sizes.sum(1).square() / (sizes.shape[1] * sizes.square().sum(1))).clamp_max(1)  # rounding may go beyond


def _sizes(attribution: Tensor, valid: Tensor | None) -> Tensor:
    """|a| of the valid cells. Shape: `(B, n)` float64."""
    values = Ranking(attribution, valid).values
    check_summable(values)
    return values.double().abs()
