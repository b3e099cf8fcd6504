"""Partition SHAP: Owen values of a tree of time-frequency rectangles. Both routes; forward passes only.

Shapes: `(B, C, F, T)` in, `(B, F, T)` out; unit: spoof log-odds. The plane is halved along its longer side again and again;
evaluations go first to the rectangles whose removal changes the score most, and what a rectangle gets is shared equally
by its cells. The map sums to score(input) - score(fill).

The picture shap masks is a map of ones and zeros, and the masks go through `View.filled`: what stands where a mask is zero
is then the benchmark's fill, of each utterance its own, and the real and imaginary part of a grid cell leave together.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import shap
import torch
from torch import Tensor

from xaibench.errors import XaibenchError
from xaibench.protocols import attributor
from xaibench.view import View

#: Masks that shap asks for at a time. It decides which rectangles are split next, so it is part of the method and must
#: not follow `view.batch_size`.
MASKS = 8


@attributor(
    name="partition-explainer",
    paper="Owen values: Owen 1977; Lundberg and Lee, NeurIPS 2017, arXiv 1705.07874; shap.PartitionExplainer",
    complete=True,
)
def partition_explainer(view: View, *, max_evals: int = 120, fill: str = "mean") -> Tensor:
    """Owen values of the spoof log-odds, about `max_evals` forward passes an utterance.

    A rectangle is judged with its neighbours present and absent, so 4^d evaluations reach 2^d rectangles: with 120 the map
    is coarse, a few dozen rectangles. Raises XaibenchError below 4 evaluations, Unsupported for an unknown fill.
    """
    if max_evals < 4:
        raise XaibenchError(f"partition-explainer needs at least 4 evaluations to split the plane once, got {max_evals}")
    masker = masker_of(view.shape)
    return torch.stack([_owen(one, masker, max_evals, fill) for one in view.each()])


@lru_cache(maxsize=4)
def masker_of(shape: tuple[int, int]) -> shap.maskers.Image:
    """A masker of pictures of ones and zeros. Kept: making its tree takes as long as 20 forward passes."""
    return shap.maskers.Image(np.zeros((*shape, 1), dtype=np.float32))


def _owen(one: View, masker: shap.maskers.Image, max_evals: int, fill: str) -> Tensor:
    """One utterance. Shape: `(F, T)`."""

    def score(keep: np.ndarray) -> np.ndarray:
        masks = torch.from_numpy(keep[..., 0]).to(one.inputs)
        return one.score(one.filled(masks[None], fill)).cpu().numpy().astype(np.float64)

    # A fresh explainer for each utterance: shap keeps the score of the empty mask of the first one it meets.
    explainer = shap.explainers.Partition(score, masker)
    with one.seeded():
        np.random.seed(0)  # breaks ties in the queue of rectangles; a constant, so the run's seed changes nothing
        result = explainer(np.ones((1, *one.shape, 1), dtype=np.float32), max_evals=max_evals, batch_size=MASKS, silent=True)
    return torch.from_numpy(result.values.reshape(one.shape)).to(one.inputs)
