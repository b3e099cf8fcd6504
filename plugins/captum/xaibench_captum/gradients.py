"""Methods made of the gradient of the spoof log-odds f with respect to the explained tensor x `(B, C, F, T)`.

Signed maps are summed over channels, magnitudes are the L2 norm over channels (one channel on the native route, real and
imaginary part on the grid). A map multiplied by the input, or by its difference to a baseline, is evidence: positive
speaks for spoof. A bare gradient is sensitivity: its sign says which way the score moves when the cell grows.

Random methods run one utterance at a time under its own seed and draw all their samples at once, so neither the order
nor the batch size changes a map.
"""

from __future__ import annotations

import torch
from captum.attr import (
    Deconvolution,
    GradientShap,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    NoiseTunnel,
    Saliency,
)
from torch import Tensor, nn

from xaibench.errors import Unsupported
from xaibench.layers import deeplift_form
from xaibench.protocols import attributor
from xaibench.view import View
from xaibench_captum.common import SPOOF, at_the_inputs, evidence, in_batches, leaf, magnitude, quiet


@attributor(
    name="saliency", paper="Simonyan et al., ICLR workshop 2014, arXiv 1312.6034, Sec. 3.1", needs=["gradients"],
    signed=False,
    class_specific=False,
)  # fmt: skip
def saliency(view: View) -> Tensor:
    """How much the score moves with each cell: the size of its gradient.

    |df/dx|. The paper takes the largest channel; here the L2 norm, the same for one channel. Shape: `(B, F, T)`.
    """
    method = at_the_inputs(Saliency(view.model), view)
    return magnitude(method.attribute(leaf(view.inputs), target=SPOOF, abs=False))


@attributor(name="input-x-gradient", paper="Shrikumar et al. 2016, arXiv 1605.01713", needs=["gradients"])
def input_x_gradient(view: View) -> Tensor:
    """The input times its gradient: each cell's part in a linear reading of the score.

    x * df/dx. On LCNN's normalised log power x = 0 is the training mean of that frequency. Shape: `(B, F, T)`.
    """
    method = at_the_inputs(InputXGradient(view.model), view)
    return evidence(method.attribute(leaf(view.inputs), target=SPOOF))


@attributor(
    name="integrated-gradients", paper="Sundararajan et al., ICML 2017, arXiv 1703.01365, Eq. 1", needs=["gradients"],
)  # fmt: skip
def integrated_gradients(view: View, *, steps: int = 20, baseline: str = "mean") -> Tensor:
    """The gradient, averaged on the way from a fill to the input, times the change of each cell.

    (x - b) times the gradient averaged on the line from the fill b to x, by Gauss-Legendre quadrature of `steps`.

    Complete in the limit of many steps only (the paper uses 20 to 300), so it does not declare completeness: a network of
    maxima has a gradient with jumps, and the error falls about as 1 / steps. Shape: `(B, F, T)`.
    """
    method = in_batches(IntegratedGradients(view.model), view)
    return evidence(method.attribute(leaf(view.inputs), view.fill(baseline), target=SPOOF, n_steps=steps))


@attributor(
    name="twin-ig", paper="Sundararajan et al., ICML 2017, arXiv 1703.01365, Eq. 1, along the path to the bona fide twin",
    needs=["gradients", "twin"], complete=True,
)  # fmt: skip
def twin_ig(view: View, *, steps: int = 20) -> Tensor:
    """Integrated gradients on the line from the bona fide twin to the vocoded speech: sums to s(spoof) - s(bona fide).

    The baseline is no arbitrary absence but the same speech without the vocoder, and both ends are recordings. It looks at
    the twin, which a forensic analyst does not have: a method for paired data. Gauss-Legendre quadrature of `steps`;
    declares completeness, which every run checks (LCNN: within 1 % at 20 steps, 2 % at 8). Shape: `(B, F, T)`.
    """
    method = in_batches(IntegratedGradients(view.model), view)
    return evidence(method.attribute(leaf(view.inputs), view.fill("twin"), target=SPOOF, n_steps=steps))


def _noisy_gradients(view: View, kind: str, samples: int, noise: float) -> Tensor:
    """captum's noise tunnel around the signed gradient. Shape: `(B, C, F, T)`."""
    maps = []
    for one in view.each():
        method = NoiseTunnel(in_batches(Saliency(one.model), one))
        deviation = noise * float(one.inputs.max() - one.inputs.min())
        with one.seeded():
            maps.append(
                method.attribute(one.inputs, nt_type=kind, nt_samples=samples, stdevs=deviation, target=SPOOF, abs=False)
            )
    return torch.cat(maps)


@attributor(
    name="smoothgrad", paper="Smilkov et al. 2017, arXiv 1706.03825, Sec. 3", needs=["gradients"], signed=False,
    class_specific=False,
    random=True,
)  # fmt: skip
def smoothgrad(view: View, *, samples: int = 10, noise: float = 0.15) -> Tensor:
    """The magnitude of the mean gradient at `samples` copies with Gaussian noise of `noise` x (max - min) of the input.

    The paper finds 10 to 20 % of the range best and saturation beyond 50 samples. Shape: `(B, F, T)`.
    """
    return magnitude(_noisy_gradients(view, "smoothgrad", samples, noise))


@attributor(
    name="vargrad", paper="Adebayo et al., ICLR workshop 2018, arXiv 1810.03307", needs=["gradients"], signed=False,
    class_specific=False,
    random=True,
)  # fmt: skip
def vargrad(view: View, *, samples: int = 10, noise: float = 0.15) -> Tensor:
    """The variance of the gradient at noisy copies, summed over channels; options as SmoothGrad. Shape: `(B, F, T)`.

    captum takes E[g^2] - E[g]^2, which rounding can bring a little below zero: cut at zero.
    """
    return evidence(_noisy_gradients(view, "vargrad", samples, noise).clamp_min(0))


@attributor(
    name="gradient-shap",
    paper="Lundberg and Lee, NeurIPS 2017, arXiv 1705.07874; Erion et al. 2021, arXiv 1906.10670, Eq. 1",
    needs=["gradients"], random=True,
)  # fmt: skip
def gradient_shap(view: View, *, samples: int = 20, noise: float = 0.0, baseline: str = "mean") -> Tensor:
    """Gradient times change, at random points between noisy copies of the input and a fill.

    (x + n - b) times the gradient at a uniformly random point between the fill b and x + n, mean of `samples` draws.

    noise: deviation of the Gaussian n in the unit of the explained tensor; 20 draws without noise from one baseline are
    the setting in use for speech deepfakes. Complete in expectation only. Shape: `(B, F, T)`.
    """
    maps = []
    for one in view.each():
        method = in_batches(GradientShap(one.model), one)
        with one.seeded():
            map_ = method.attribute(
                leaf(one.inputs), one.fill(baseline), n_samples=samples, stdevs=float(noise), target=SPOOF
            )
        maps.append(map_)
    return evidence(torch.cat(maps))


def _through_relus(view: View, kind: type[GuidedBackprop] | type[Deconvolution]) -> Tensor:
    """Back-propagate with changed ReLUs, on a copy whose Max-Feature-Maps are `b + relu(a - b)`.

    Raises Unsupported for a model without any ReLU: the map would be the plain gradient under another name.
    """
    with deeplift_form(view.private_model()) as model, quiet():
        if not any(isinstance(module, nn.ReLU) for module in model.modules()):
            raise Unsupported(
                f"{kind.__name__} changes the gradient of nn.ReLU modules, and this countermeasure has none (nor a layer "
                "with a ReLU form, such as xaibench.layers.MaxFeatureMap): the map would be the plain gradient"
            )
        method = in_batches(kind(model), view)
        return evidence(method.attribute(leaf(view.inputs), target=SPOOF))


@attributor(
    name="guided-backprop", paper="Springenberg et al., ICLR workshop 2015, arXiv 1412.6806, Sec. 3.4", needs=["gradients"]
)
def guided_backprop(view: View) -> Tensor:
    """The gradient, with what comes back through a ReLU cut at zero.

    A Max-Feature-Map has no ReLU of its own; in its ReLU form `b + relu(a - b)` only the difference path is guided.
    Shape: `(B, F, T)`.
    """
    return _through_relus(view, GuidedBackprop)


@attributor(name="deconvolution", paper="Zeiler and Fergus, ECCV 2014, arXiv 1311.2901, Sec. 2.1", needs=["gradients"])
def deconvolution(view: View) -> Tensor:
    """The gradient, with a ReLU applied to what comes back instead of the forward pass' mask.

    As guided backpropagation, on the ReLU form of Max-Feature-Maps. Shape: `(B, F, T)`.
    """
    return _through_relus(view, Deconvolution)
