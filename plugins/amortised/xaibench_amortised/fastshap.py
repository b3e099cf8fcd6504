"""FastSHAP: Shapley values of time-frequency patches in one forward pass of a network that learned them beforehand.

Shapes: `(B, C, F, T)` in, `(B, F, T)` out; unit: spoof log-odds, positive = evidence for spoof. Two passes of the
countermeasure are left at the time of asking, input and fill: the map sums to their difference.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xaibench.protocols import attributor
from xaibench.view import View
from xaibench_amortised.checkpoint import network_for
from xaibench_amortised.shapley import efficient


@attributor(
    name="fast-shap",
    paper="Jethani et al., ICLR 2022, arXiv 2107.07436, Sec. 3",
    complete=True,
)
def fast_shap(view: View, *, fill: str = "mean", weights: str = "") -> Tensor:
    """Shapley values of patches, answered by a network that was trained on this countermeasure's scores.

    fill: what stands where a patch is missing, as in the training. weights: the trained network; default that of the folder
    XAIBENCH_EXPLAINERS, or one that ships. A patch's value is spread evenly over its cells. Raises Unsupported for a
    countermeasure, route or fill that no network has learned, also where only its weights differ.
    """
    network, factor = network_for(view, fill, weights)
    gap = view.score(view.inputs) - view.score(view.fill(fill))
    with torch.no_grad():
        values = efficient(factor * network(view.inputs), gap)
    numbers = network.numbers.to(view.device)
    cells = numbers.flatten().bincount()
    return (values / cells)[:, numbers]
