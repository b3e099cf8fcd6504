"""Each first-party method called as its library's own documentation shows, one utterance at a time.

What a user of the four libraries writes who has never seen xaibench:

captum    `method.attribute(x, target=...)` with its defaults: all steps in one pass (`internal_batch_size=None`), one
          perturbation a pass (`perturbations_per_eval=1`). https://captum.ai/api
grad-cam  `with GradCAM(model=..., target_layers=[...]) as cam: cam(input_tensor=x, targets=[...])`. The package's README
shap      `DeepExplainer(model, background).shap_values(x)`, `GradientExplainer` alike, `PartitionExplainer(f, masker)(x)`.
          https://shap.readthedocs.io/en/latest/api.html
zennit    `with Gradient(model=..., composite=...) as attributor: attributor(x, ...)`. Its how-to "Using Attributors"

The countermeasure is as it loads: contiguous memory, gradients wanted for its weights, memory allocated as glibc does. What
is made once for many utterances in those examples (the model, the two shap explainers) is made once here and not timed.

Only speed may differ, so steps, draws, patches, baselines and seeds are ours, and so is what a library cannot do right on a
Max-Feature-Map network by itself (`FIXES`). These fixes cost the library's side nothing but a line of set-up.

Run it in a process of its own: `xaibench.harness.device.tune_allocator` cannot be undone.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import captum.attr
import numpy as np
import pytorch_grad_cam
import shap
import torch
from captum._utils.models.linear_model import SkLearnRidge
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from xaibench_captum.deeplift import CorrectedDeepLift
from xaibench_captum.lrp import set_rules
from xaibench_captum.perturbation import DoubleRegression, lime_kernel
from xaibench_gradcam import corrected
from xaibench_shap.deep import background_of
from xaibench_shap.partition import MASKS
from xaibench_zennit import excitation, lrp
from zennit.attribution import Gradient
from zennit.composites import EpsilonAlpha2Beta1, EpsilonGammaBox, EpsilonPlus

from xaibench.harness.known import load_countermeasure
from xaibench.harness.plan import ordered_pairs
from xaibench.harness.spec import RunSpec
from xaibench.harness.workbench import Workbench
from xaibench.layers import deeplift_form
from xaibench.view import SpoofLogOdds, View, derive_seed, patches

SPOOF = 0

#: What a library's own call gets wrong here, and what both sides therefore use.
FIXES = {
    "deeplift": "Max-Feature-Map in its ReLU form: captum differentiates what it has no rule for",
    "deeplift-shap": "the same, and captum issues 1104 and 1276 (max-pool rule within a batch)",
    "deep-explainer": "Max-Feature-Map in its ReLU form",
    "guided-backprop": "Max-Feature-Map in its ReLU form: without an nn.ReLU it is the plain gradient",
    "deconvolution": "the same",
    "lrp": "a rule for Max-Feature-Map, Flatten and BatchNorm1d: captum raises TypeError without",
    "kernel-shap": "least squares in double precision",
    "ablation-cam": "channels set to zero, not to -1e7; |s| as denominator",
    "eigen-cam": "the sign of the component fixed",
    "eigen-grad-cam": "the sign of the component fixed",
    "finer-cam": "two columns, compared without the library's rounding guard",
    "alpha2-beta1": "the epsilon rule for BatchNorm1d",
    "epsilon-plus": "the epsilon rule for BatchNorm1d",
    "epsilon-gamma-box": "the epsilon rule for BatchNorm1d",
    "excitation-backprop": "started above the difference of logits; relevance passes activations and normalisation",
}


@dataclass
class Stock:
    """The countermeasure as it loads, and what the libraries' examples make once. `views`: one utterance each."""

    views: list[View]
    kept: ExitStack = field(default_factory=ExitStack)  # never closed: the ReLU form stays

    @property
    def model(self) -> nn.Module:
        """Explained tensor `(1, C, F, T)` -> spoof log-odds `(1, 1)`."""
        return self.views[0].model

    @cached_property
    def relu_form(self) -> nn.Module:
        """A copy of the model, its Max-Feature-Maps written with nn.ReLU."""
        return self.kept.enter_context(deeplift_form(self.views[0].private_model()))

    @cached_property
    def private(self) -> nn.Module:
        """A copy for libraries that set attributes on modules."""
        return self.views[0].private_model()

    @cached_property
    def deep(self) -> shap.DeepExplainer:
        """Made once, as in shap's examples."""
        return shap.DeepExplainer(self.relu_form, background_of(seeded_as(self.views[0], "deep-explainer"), 3))

    @cached_property
    def gradient(self) -> shap.GradientExplainer:
        """Made once, as in shap's examples."""
        return shap.GradientExplainer(self.private, self.views[0].references)

    def prepare(self) -> None:
        """Make what is made once."""
        _ = self.relu_form, self.private, self.deep, self.gradient


def seeded_as(view: View, name: str) -> View:
    """The view with the seed that the harness gives the method `name`."""
    return replace(view, seed=derive_seed(view.seed, name))


def _x(view: View) -> Tensor:
    return view.inputs.clone().requires_grad_()


# ---- captum --------------------------------------------------------------------------------------------------------------


def _gradient(stock: Stock, view: View, method: type) -> Tensor:
    return method(view.model).attribute(_x(view), target=SPOOF).sum(1)


def _through_relus(stock: Stock, view: View, method: type) -> Tensor:
    return method(stock.relu_form).attribute(_x(view), target=SPOOF).sum(1)


def _integrated(stock: Stock, view: View, fill: str) -> Tensor:
    method = captum.attr.IntegratedGradients(view.model)
    return method.attribute(_x(view), view.fill(fill), target=SPOOF, n_steps=20).sum(1)


def _noisy(stock: Stock, view: View, kind: str) -> Tensor:
    method = captum.attr.NoiseTunnel(captum.attr.Saliency(view.model))
    noise = 0.15 * float(view.inputs.max() - view.inputs.min())
    with view.seeded():
        found = method.attribute(_x(view), nt_type=kind, nt_samples=10, stdevs=noise, target=SPOOF, abs=False)
    return (found.abs() if kind == "smoothgrad" else found.clamp_min(0)).sum(1)


def _gradient_shap(stock: Stock, view: View) -> Tensor:
    with view.seeded():
        method = captum.attr.GradientShap(view.model)
        return method.attribute(_x(view), view.fill("mean"), n_samples=20, stdevs=0.0, target=SPOOF).sum(1)


def _deeplift(stock: Stock, view: View) -> Tensor:
    return captum.attr.DeepLift(stock.relu_form).attribute(_x(view), view.fill("mean"), target=SPOOF).sum(1)


class CorrectedDeepLiftShap(CorrectedDeepLift, captum.attr.DeepLiftShap):
    """captum's DeepLiftShap on the corrected DeepLift."""


def _deeplift_shap(stock: Stock, view: View) -> Tensor:
    return CorrectedDeepLiftShap(stock.relu_form).attribute(_x(view), view.references[:10], target=SPOOF).sum(1)


def _lrp(stock: Stock, view: View) -> Tensor:
    set_rules(stock.private, 0.25)
    return captum.attr.LRP(stock.private).attribute(_x(view), target=SPOOF).sum(1)


def _spread(view: View, bands: int, spans: int, attribute: Callable[..., Tensor], **options: Any) -> Tensor:
    """Patch values, each divided by its cells as in `xaibench_captum.perturbation`: only the unit of the map."""
    size = -(-view.shape[0] // bands), -(-view.shape[1] // spans)
    numbers = patches(view.shape, *size).to(view.device)
    if attribute.__self__.__class__ is captum.attr.Occlusion:
        options |= {"sliding_window_shapes": (1, *size), "strides": (1, *size)}
    else:
        options |= {"feature_mask": numbers[None, None]}
    with view.seeded():
        found = attribute(view.inputs, target=SPOOF, baselines=view.fill("mean"), **options)
    return found[:, 0] / numbers.flatten().bincount()[numbers]


def _occlusion(stock: Stock, view: View) -> Tensor:
    return _spread(view, 8, 10, captum.attr.Occlusion(view.model).attribute)


def _feature_ablation(stock: Stock, view: View) -> Tensor:
    return _spread(view, 13, 4, captum.attr.FeatureAblation(view.model).attribute)


def _shapley_sampling(stock: Stock, view: View) -> Tensor:
    return _spread(view, 8, 5, captum.attr.ShapleyValueSampling(view.model).attribute, n_samples=2)


def _kernel_shap(stock: Stock, view: View) -> Tensor:
    method = captum.attr.KernelShap(view.model)
    method.interpretable_model = DoubleRegression()
    return _spread(view, 8, 5, method.attribute, n_samples=80)


def _lime(stock: Stock, view: View) -> Tensor:
    method = captum.attr.Lime(view.model, interpretable_model=SkLearnRidge(alpha=1.0), similarity_func=lime_kernel)
    return _spread(view, 8, 5, method.attribute, n_samples=80)


# ---- grad-cam ------------------------------------------------------------------------------------------------------------


def _cam(stock: Stock, view: View, build: Callable[..., Any], *, layers: bool = True) -> Tensor:
    target_layers = [stock.private.get_submodule(view.layers[-1])] if layers else []
    with build(model=stock.private, target_layers=target_layers) as cam:
        return torch.from_numpy(cam(input_tensor=view.inputs.clone(), targets=[ClassifierOutputTarget(SPOOF)]))


# ---- shap ----------------------------------------------------------------------------------------------------------------


def _deep_explainer(stock: Stock, view: View) -> Tensor:
    return torch.from_numpy(np.asarray(stock.deep.shap_values(view.inputs))).reshape(view.inputs.shape).sum(1)


def _gradient_explainer(stock: Stock, view: View) -> Tensor:
    with view.seeded():
        seed = derive_seed(view.seed, view.ids[0], "gradient-explainer") % 2**32
        found = stock.gradient.shap_values(view.inputs, nsamples=20, rseed=seed)
    return torch.from_numpy(np.asarray(found)).reshape(view.inputs.shape).sum(1)


def _partition(stock: Stock, view: View) -> Tensor:
    def f(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return view.model(torch.from_numpy(images).movedim(-1, 1).to(view.inputs))[:, 0].cpu().numpy()

    masker = shap.maskers.Image(view.fill("mean")[0].movedim(0, -1).cpu().numpy())
    explainer = shap.PartitionExplainer(f, masker)
    with view.seeded():
        np.random.seed(0)
        found = explainer(view.inputs.movedim(1, -1).cpu().numpy(), max_evals=120, batch_size=MASKS, silent=True)
    return torch.from_numpy(found.values).reshape(1, *view.shape)


# ---- zennit --------------------------------------------------------------------------------------------------------------


def _zennit(stock: Stock, view: View, composite: Callable[[Stock, View], Any], output: Callable[[Tensor], Tensor]) -> Tensor:
    with Gradient(model=stock.private, composite=composite(stock, view)) as attributor:
        _, relevance = attributor(_x(view), output)
    return relevance.sum(1)


def _epsilon_gamma_box(stock: Stock, view: View) -> EpsilonGammaBox:
    low, high = float(view.inputs.min()), float(view.inputs.max())
    low, high = (torch.full((1, 1, 1, 1), end, device=view.device) for end in (low, high))
    return EpsilonGammaBox(low=low, high=high, gamma=0.25, layer_map=lrp.DENSE_NORM)


#: name -> (what a user makes once, a view of one utterance) -> map `(1, F, T)`.
CALLS: dict[str, Callable[[Stock, View], Tensor]] = {
    "saliency": partial(_gradient, method=captum.attr.Saliency),
    "input-x-gradient": partial(_gradient, method=captum.attr.InputXGradient),
    "integrated-gradients": partial(_integrated, fill="mean"),
    "twin-ig": partial(_integrated, fill="twin"),
    "smoothgrad": partial(_noisy, kind="smoothgrad"),
    "vargrad": partial(_noisy, kind="vargrad"),
    "gradient-shap": _gradient_shap,
    "guided-backprop": partial(_through_relus, method=captum.attr.GuidedBackprop),
    "deconvolution": partial(_through_relus, method=captum.attr.Deconvolution),
    "deeplift": _deeplift,
    "deeplift-shap": _deeplift_shap,
    "lrp": _lrp,
    "occlusion": _occlusion,
    "feature-ablation": _feature_ablation,
    "shapley-sampling": _shapley_sampling,
    "kernel-shap": _kernel_shap,
    "lime": _lime,
    "grad-cam": partial(_cam, build=pytorch_grad_cam.GradCAM),
    "grad-cam++": partial(_cam, build=pytorch_grad_cam.GradCAMPlusPlus),
    "hirescam": partial(_cam, build=pytorch_grad_cam.HiResCAM),
    "xgrad-cam": partial(_cam, build=pytorch_grad_cam.XGradCAM),
    "layer-cam": partial(_cam, build=pytorch_grad_cam.LayerCAM),
    "eigen-cam": partial(_cam, build=corrected.OrientedEigenCAM),
    "eigen-grad-cam": partial(_cam, build=corrected.OrientedEigenGradCAM),
    "score-cam": partial(_cam, build=pytorch_grad_cam.ScoreCAM),
    "ablation-cam": partial(_cam, build=partial(corrected.SignedAblationCAM, batch_size=32)),  # the library's default
    "fullgrad": partial(_cam, build=pytorch_grad_cam.FullGrad, layers=False),
    "finer-cam": partial(_cam, build=corrected.TwoClassFinerCAM),
    "shapley-cam": partial(_cam, build=pytorch_grad_cam.ShapleyCAM),
    "deep-explainer": _deep_explainer,
    "gradient-explainer": _gradient_explainer,
    "partition-explainer": _partition,
    "epsilon-plus": partial(
        _zennit, composite=lambda stock, view: EpsilonPlus(layer_map=lrp.DENSE_NORM), output=lambda score: score
    ),
    "alpha2-beta1": partial(
        _zennit, composite=lambda stock, view: EpsilonAlpha2Beta1(layer_map=lrp.DENSE_NORM), output=lambda score: score
    ),
    "epsilon-gamma-box": partial(_zennit, composite=_epsilon_gamma_box, output=lambda score: score),
    "excitation-backprop": partial(
        _zennit, composite=lambda stock, view: excitation._composite(stock.private, view.inputs), output=torch.ones_like
    ),
}


def open_stock(count: int) -> Stock:
    """LCNN as it loads, before the first `count` vocoded utterances of minivoc."""
    spec = RunSpec(countermeasures=("lcnn",), attributors=("energy",), metrics=("rank-accuracy",))
    bench = Workbench(spec, batch_size=count)
    view = bench.prepare("lcnn", "native", ordered_pairs(bench.corpus, "eval")[:count]).view
    module, _, _ = load_countermeasure("lcnn", None, {})
    model = nn.Sequential()
    model.add_module("backend", module.backend)
    model.add_module("contrast", SpoofLogOdds(module.classes))
    return Stock([replace(one, model=model.eval(), passes=None) for one in view.each()])


def clock() -> float:
    """Seconds of processor time, all threads together: other jobs on the machine hardly change it."""
    return time.process_time()


#: Of this process: "timed" as the countermeasure loads, and "alike" in the memory format of the harness.
_STOCK: dict[str, Stock] = {}


def start(count: int) -> None:
    """Make this process ready for `seconds` and `maps` of the first `count` utterances."""
    for name, form in (("timed", torch.contiguous_format), ("alike", torch.channels_last)):
        _STOCK[name] = open_stock(count)
        _STOCK[name].model.to(memory_format=form)
        _STOCK[name].prepare()


def _call(which: str, name: str, count: int | None = None) -> Iterator[tuple[float, np.ndarray]]:
    stock = _STOCK[which]
    for view in stock.views[:count]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            view, started = seeded_as(view, name), clock()
            found = CALLS[name](stock, view)
            yield clock() - started, found.detach().float().cpu().numpy()


def seconds(name: str) -> tuple[float, np.ndarray]:
    """The documented call of `name`: seconds an utterance, the least of all utterances, and the maps `(B, F, T)`."""
    times, found = zip(*_call("timed", name), strict=True)
    return min(times), np.concatenate(found)


def maps(name: str, count: int = 2) -> np.ndarray:
    """The same call in the harness' memory format, for the first `count` utterances. Shape: `(count, F, T)`."""
    return np.concatenate([found for _, found in _call("alike", name, count)])
