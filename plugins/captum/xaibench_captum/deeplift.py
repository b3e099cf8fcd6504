"""DeepLIFT (rescale rule) and DeepSHAP.

Both run on a private copy with every Max-Feature-Map in its ReLU form: captum has rules for modules it knows, treats
everything else as linear, and is then wrong without a warning. Two more defects of captum 0.9 are corrected here:

- where input and reference agree, its max-pool rule takes the *first sample's* gradient for the whole batch (captum
  issue 1276), so a map depended on its neighbours in the batch;
- of two known modules in a row, the first sees the gradient before the second has changed it (captum issue 1104), so a
  ReLU directly before a max-pool broke completeness.

With these the maps sum to f(x) - f(baseline) up to rounding, and batching changes nothing.
"""

from __future__ import annotations

import torch
from captum.attr import DeepLift
from torch import Tensor, nn

from xaibench.errors import Unsupported
from xaibench.layers import deeplift_form
from xaibench.protocols import attributor
from xaibench.view import View
from xaibench_captum.common import SPOOF, evidence, leaf, quiet

NEEDS = ("gradients", "modules")


class CorrectedDeepLift(DeepLift):
    """captum's DeepLift without the defects of issues 1104 and 1276."""

    def _register_hooks(self, module: nn.Module, attribute_to_layer_input: bool = True) -> None:
        if self._can_register_hook(module):
            # captum hooks the tensor between two modules twice, the first module's hook first. On a copy of its own the
            # second module's hook runs earlier, as the chain rule wants.
            self.forward_handles.append(module.register_forward_pre_hook(lambda _, inputs: inputs[0].clone()))
        super()._register_hooks(module, attribute_to_layer_input)

    def _backward_hook(self, module: nn.Module, grad_input: Tensor, grad_output: Tensor) -> Tensor:
        pooled = module.input if isinstance(module, nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d) else None
        multipliers = super()._backward_hook(module, grad_input, grad_output)
        if not isinstance(pooled, Tensor):
            return multipliers
        inputs, references = pooled.chunk(2)
        agree = torch.cat(2 * [(inputs - references).abs() < self.eps])
        return torch.where(agree, grad_input, multipliers)


def _contributions(view: View, inputs: Tensor, baselines: Tensor) -> Tensor:
    """The contributions of pairs of input and baseline. Shape: two `(M, C, F, T)` -> `(M, F, T)`."""
    view.require(frozenset(NEEDS), "DeepLIFT")
    pairs = max(1, view.batch_size // 2)  # input and reference go through the model together
    with deeplift_form(view.private_model()) as model, quiet():
        method = CorrectedDeepLift(model)
        parts = zip(inputs.split(pairs), baselines.split(pairs), strict=True)
        return torch.cat([evidence(method.attribute(leaf(x), b, target=SPOOF)) for x, b in parts])


@attributor(
    name="deeplift", paper="Shrikumar et al., ICML 2017, arXiv 1704.02685, Eq. 6 (rescale rule)", needs=NEEDS, complete=True
)
def deeplift(view: View, *, baseline: str = "mean") -> Tensor:
    """Contributions against the fill `baseline`; they sum to f(x) - f(baseline). Shape: `(B, F, T)`.

    Raises Unsupported on a view that does not offer modules (the grid route).
    """
    return _contributions(view, view.inputs, view.fill(baseline))


@attributor(
    name="deeplift-shap", paper="Lundberg and Lee, NeurIPS 2017, arXiv 1705.07874, Sec. 4.2 (Deep SHAP)",
    needs=[*NEEDS, "references"], complete=True,
)  # fmt: skip
def deeplift_shap(view: View, *, references: int = 10) -> Tensor:
    """The mean of DeepLIFT against the first `references` bona fide references (all, if there are fewer).

    The maps sum to f(x) minus the mean f of these references. The references are the same for every utterance and
    nothing is drawn. One reference costs two to three gradients; published comparisons on speech use 20. Pairs go
    through DeepLift in bounded batches; captum's DeepLiftShap takes the mean over the same pairs, but in one pass.
    Shape: `(B, F, T)`. Raises Unsupported without references or on the grid route.
    """
    chosen = view.references[:references]
    if len(chosen) == 0:
        raise Unsupported(f"deeplift-shap needs bona fide references: asked for {references}, of {len(view.references)}")
    inputs = view.inputs.repeat_interleave(len(chosen), dim=0)
    maps = _contributions(view, inputs, chosen.repeat(len(view), 1, 1, 1))
    return maps.unflatten(0, (len(view), len(chosen))).mean(1)
