"""Methods that only look at scores: patches of the input are replaced by a fill and the spoof log-odds observed.

Features are rectangles: `bands` of them over frequency, `spans` over time, whatever the cells of the map. On 8 kHz and two
seconds:

    occlusion             8 x 10   1 kHz x 0.2 s     80 patches
    feature ablation     13 x 4    0.6 kHz x 0.5 s   52 patches: narrower bands, longer windows
    Shapley and LIME      8 x 5    1 kHz x 0.4 s     40 patches: fewer unknowns than scores

On a map that resolves time alone there are as many patches, all of them in time (25 ms for occlusion).

A patch has one value. captum copies it to each of its cells; here it is spread evenly, value / cells, so that the sum over
a map is the sum over patches and a patch cut by the border is not over-weighted. Positive: with the patch the score is
more spoof than without it.

One utterance at a time, `view.batch_size` perturbations a forward pass, without gradients, each under the utterance's seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from captum._utils.models.linear_model import SkLearnLinearRegression, SkLearnRidge
from captum.attr import FeatureAblation, KernelShap, Lime, Occlusion, ShapleyValueSampling
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from xaibench.errors import XaibenchError
from xaibench.protocols import attributor
from xaibench.view import View, patches
from xaibench_captum.common import SPOOF


def _patch(view: View, bands: int, spans: int) -> tuple[int, int]:
    """Patch size in cells, at least one cell each way."""
    if min(bands, spans) < 1 or bands * spans < 2:
        raise XaibenchError(f"a map is cut into at least two patches, got {bands} bands x {spans} spans")
    if view.shape[0] == 1:
        bands, spans = 1, bands * spans
    return -(-view.shape[0] // bands), -(-view.shape[1] // spans)


def _per_utterance(view: View, bands: int, spans: int, explain: Callable[[View, dict[str, Any]], Tensor]) -> Tensor:
    """`explain(one, arguments)`, in captum's arguments, for each utterance, with the patch values spread evenly.

    Shape: `(1, C, F, T)` each, equal in all channels -> `(B, F, T)`.
    """
    numbers = patches(view.shape, *_patch(view, bands, spans)).to(view.device)
    cells = numbers.flatten().bincount()[numbers]
    maps = []
    for one in view.each():
        arguments = {"inputs": one.inputs, "target": SPOOF, "perturbations_per_eval": one.batch_size}
        with torch.no_grad(), one.seeded():
            maps.append(explain(one, {**arguments, "feature_mask": numbers[None, None]})[0, 0] / cells)
    return torch.stack(maps)


@attributor(name="occlusion", paper="Zeiler and Fergus, ECCV 2014, arXiv 1311.2901, Sec. 4.1")
def occlusion(view: View, *, bands: int = 8, spans: int = 10, baseline: str = "mean") -> Tensor:
    """How far the score falls when a moving window is replaced.

    f(x) - f(x with a window replaced by the fill), for a window that moves by its own size. Shape: `(B, F, T)`.
    """

    def explain(one: View, arguments: dict[str, Any]) -> Tensor:
        del arguments["feature_mask"]
        window = (one.inputs.shape[1], *_patch(one, bands, spans))
        return Occlusion(one.model).attribute(
            **arguments, baselines=one.fill(baseline), sliding_window_shapes=window, strides=window
        )

    return _per_utterance(view, bands, spans, explain)


@attributor(name="feature-ablation", paper="Li et al. 2016, arXiv 1612.08220, Eq. 1")
def feature_ablation(view: View, *, bands: int = 13, spans: int = 4, baseline: str = "mean") -> Tensor:
    """How far the score falls when one patch is replaced.

    f(x) - f(x with one patch replaced by the fill). Shape: `(B, F, T)`.

    On patches of the size of occlusion's window this is the same map; the default looks at another scale.
    """

    def explain(one: View, arguments: dict[str, Any]) -> Tensor:
        return FeatureAblation(one.model).attribute(**arguments, baselines=one.fill(baseline))

    return _per_utterance(view, bands, spans, explain)


@attributor(
    name="shapley-sampling",
    paper="Castro et al., Computers and Operations Research 36(5) 2009; Strumbelj and Kononenko, JMLR 11 2010, Alg. 1",
    random=True, complete=True,
)  # fmt: skip
def shapley_sampling(view: View, *, permutations: int = 2, bands: int = 8, spans: int = 5, baseline: str = "mean") -> Tensor:
    """The mean change of the score as patches join the fill in random order: Shapley values, sampled.

    Every permutation by itself sums to f(x) - f(baseline), so the map is complete however few there are; the values are
    unbiased, with a variance that falls as 1 / permutations. Shape: `(B, F, T)`.
    """

    def explain(one: View, arguments: dict[str, Any]) -> Tensor:
        # captum walks over all cells of a feature mask in Python, once a permutation: a third of the time on LCNN, and as
        # many waits for the device. So it is shown the patches, kept or not, instead of the cells.
        numbers = arguments["feature_mask"][0, 0]
        kept = one.inputs.new_ones(1, int(numbers.max()) + 1)

        def score(kept: Tensor) -> Tensor:
            return one.model(one.filled(kept[:, numbers][None], baseline))

        values = ShapleyValueSampling(score).attribute(
            kept, target=SPOOF, n_samples=permutations, perturbations_per_eval=arguments["perturbations_per_eval"]
        )
        return values[:, numbers][None]

    return _per_utterance(view, bands, spans, explain)


class DoubleRegression(SkLearnLinearRegression):
    """captum's least squares in double precision.

    The weights span six orders of magnitude; in single precision, as captum solves it, that costs several per cent of the
    largest Shapley value at 378 patches (on a linear model, where the answer is known).
    """

    def fit(self, train_data: DataLoader, **options: object) -> dict[str, float]:
        double = TensorDataset(*(tensor.double() for tensor in cast(TensorDataset, train_data.dataset).tensors))
        return super().fit(DataLoader(double, batch_size=len(double)), **options)


@attributor(
    name="kernel-shap",
    paper="Lundberg and Lee, NeurIPS 2017, arXiv 1705.07874, Eq. 8 (Theorem 2)",
    random=True,
    complete=True,
)
def kernel_shap(view: View, *, samples: int = 80, bands: int = 8, spans: int = 5, baseline: str = "mean") -> Tensor:
    """Shapley values as the weighted least-squares fit to the scores of `samples` random sets of patches.

    The two sets "all" and "none" are always among them, with a weight of a million, so the map sums to f(x) - f(baseline) to
    about that precision. With fewer samples than patches the fit is the one of least norm. Shape: `(B, F, T)`.
    """

    def explain(one: View, arguments: dict[str, Any]) -> Tensor:
        method = KernelShap(one.model)
        method.interpretable_model = DoubleRegression()
        return method.attribute(**arguments, baselines=one.fill(baseline), n_samples=samples)

    return _per_utterance(view, bands, spans, explain)


def lime_kernel(original: Tensor, perturbed: Tensor, kept: Tensor, **_: object) -> Tensor:
    """LIME's weight of a sample with `kept` patches `(1, P)`: `sqrt(exp(-d^2 / 0.25^2))`, d the cosine distance to all.

    captum would take the distance between spectrograms, which depends on the fill; the reference implementation of LIME
    takes it between patch vectors, width 0.25, as here.

    >>> round(float(lime_kernel(None, None, torch.tensor([[1, 1, 1, 0]]))), 4)
    0.8662
    """
    distance = 1 - kept.float().mean(1).sqrt()
    return (-(distance.square()) / 0.25**2).exp().sqrt()


@attributor(name="lime", paper="Ribeiro et al., KDD 2016, arXiv 1602.04938, Eq. 1", random=True)
def lime(view: View, *, samples: int = 80, bands: int = 8, spans: int = 5, baseline: str = "mean") -> Tensor:
    """The weights of a ridge regression (alpha 1) from patches kept or replaced, each with probability 1/2, to the score.

    Ridge is the choice of LIME's own implementation; captum's default, a lasso of alpha 0.01, sets every patch of a
    countermeasure with small log-odds to zero. Shape: `(B, F, T)`.
    """

    def explain(one: View, arguments: dict[str, Any]) -> Tensor:
        method = Lime(one.model, interpretable_model=SkLearnRidge(alpha=1.0), similarity_func=lime_kernel)
        return method.attribute(**arguments, baselines=one.fill(baseline), n_samples=samples)

    return _per_utterance(view, bands, spans, explain)
