"""One backward pass of relevance through a private copy of the model, with zennit's rules as hooks.

Conventions: relevance `(B, C, F, T)` is summed over channels to `(B, F, T)`; positive = evidence for spoof.

What happens to the parts of a Max-Feature-Map network:

- Max-Feature-Map and max-pooling have no rule: their gradient hands all relevance to the winner, as LRP wants. The
  ReLU form `b + relu(a - b)` is refused: zennit's rule for ReLU would give all relevance to `a`, whether it won or not.
- Batch normalisation, an element-wise affine map in eval mode, passes relevance on unchanged (zennit's `Pass`), which
  conserves it whatever the shift; `lrp` says where it does not. Merging it into the convolution below, the usual
  alternative, is impossible where it follows a Max-Feature-Map or a pooling: zennit's canonizer does nothing there,
  without a word.
- The rules share relevance with biases, where it is lost; so on a network with biases a map does not sum to the score.

A module that is none of these and has no rule would be differentiated, silently and wrongly: it is refused instead.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from zennit.attribution import Gradient
from zennit.core import Composite
from zennit.types import MaxPool

from xaibench.errors import Unsupported
from xaibench.layers import MaxFeatureMap, ReLUMaxFeatureMap
from xaibench.view import View

#: Modules whose gradient is already the rule: the winner takes all, or values only move.
GRADIENT_IS_THE_RULE = (
    MaxFeatureMap,
    MaxPool,
    nn.Flatten,
    nn.Unflatten,
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
)

#: Modules that zennit would take for what they are not: both hide an activation to which it passes relevance unchanged.
WRONG_RULE = (ReLUMaxFeatureMap, nn.MultiheadAttention)


def relevance(
    view: View,
    composite: Callable[[nn.Module, Tensor], Composite],
    output: Callable[[Tensor], Tensor],
    *,
    also: tuple[type[nn.Module], ...] = (),
) -> Tensor:
    """Propagate relevance from the score to the explained tensor. Shape: `(B, F, T)`.

    composite: (private model, inputs `(b, C, F, T)`) -> zennit composite.
    output:    spoof log-odds `(b, 1)` -> relevance at the output `(b, 1)`.
    also:      further modules whose gradient is the rule.

    Raises Unsupported for a module without a rule.
    """
    model = view.private_model()
    maps = []
    for part in view.inputs.split(view.batch_size):
        inputs = part.detach().clone()  # zennit sets requires_grad on it
        rules = composite(model, inputs)
        require_rules(model, rules, GRADIENT_IS_THE_RULE + also)
        # The rules change gradients, not values: the score of zennit's own forward pass is the score.
        _, values = Gradient(model, rules, attr_output=lambda score: output(score.detach()))(inputs)
        maps.append(values.detach().sum(dim=1))
    return torch.cat(maps)


def require_rules(model: nn.Module, composite: Composite, without: tuple[type[nn.Module], ...]) -> None:
    """Raise Unsupported, naming it, for a leaf module that the composite has no rule for and that is none of `without`."""
    state: dict = {}  # zennit's maps remember here that the first layer was seen
    for name, module in model.named_modules():
        rule = composite.module_map(state, name, module)
        leaf = next(module.children(), None) is None
        if isinstance(module, WRONG_RULE) or (leaf and rule is None and not isinstance(module, without)):
            raise Unsupported(
                f"relevance has no rule for {type(module).__name__} (at {name or 'the top'}) and would be wrong without a "
                "sign of it; Max-Feature-Map must be xaibench.layers.MaxFeatureMap, in its max form"
            )
