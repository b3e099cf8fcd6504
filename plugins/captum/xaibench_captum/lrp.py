"""Layer-wise relevance propagation.

Rules, set module by module on a private copy (captum's tables are not touched), after the advice of Montavon et al. 2019
(LNCS 11700, ch. 10) to use LRP-epsilon in the middle layers and LRP-0 above them:

- convolution: epsilon rule, `R_i = sum_j a_i (dz_j / da_i) R_j / (z_j + epsilon sign(z_j))`;
- linear, batch normalisation, pooling, flatten, leaky ReLU: the same with a vanishing epsilon (LRP-0);
- Max-Feature-Map, in its max form: LRP-0, so the larger half takes all the relevance. (On the ReLU form
  `b + relu(a - b)` the two paths carry large relevance of opposite sign, and it explodes.)
- ReLU, tanh, dropout: relevance passes unchanged (captum's own choice).

With LRP-0 everywhere the map is input x gradient, to rounding, for every network of maxima (Ancona et al., ICLR 2018, arXiv
1711.06104): it would be the same row twice. Hence an epsilon that is felt.

Biases and batch-normalisation shifts are not inputs, but take their share of the relevance, and epsilon absorbs some: the
map does not sum to the score. On a copy without biases, with a vanishing epsilon, it does.
"""

from __future__ import annotations

import torch
from captum.attr import LRP
from captum.attr._utils.lrp_rules import EpsilonRule
from torch import Tensor, nn

from xaibench.errors import Unsupported
from xaibench.protocols import attributor
from xaibench.view import View
from xaibench_captum.common import SPOOF, evidence, leaf

#: Where the output of a layer vanishes, LRP-0 divides by this instead of zero.
VANISHING = 1e-9

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
ZERO_RULE = (
    nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.Flatten, nn.Identity, nn.LeakyReLU,
    nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
)  # fmt: skip
PASSES = (nn.ReLU, nn.Tanh, nn.Dropout)


def set_rules(model: nn.Module, epsilon: float) -> None:
    """Give every leaf module its rule. Raises Unsupported, naming the module, where no rule is known to hold.

    A module that offers `deeplift_form()` is a Max-Feature-Map or behaves like one: piecewise linear, no bias.
    """
    for name, module in model.named_modules():
        if any(True for _ in module.children()) or type(module) in PASSES:
            continue
        if type(module) in CONVOLUTIONS:
            module.rule = EpsilonRule(epsilon)
        elif type(module) in ZERO_RULE or hasattr(module, "deeplift_form"):
            module.rule = EpsilonRule(VANISHING)
        else:
            raise Unsupported(
                f"lrp has no rule for {type(module).__name__} (module {name!r}); it has for "
                f"{', '.join(t.__name__ for t in CONVOLUTIONS + ZERO_RULE + PASSES)} and Max-Feature-Map"
            )


@attributor(name="lrp", paper="Bach et al., PLoS ONE 10(7) 2015, Eq. 58", needs=["gradients", "modules"])
def lrp(view: View, *, epsilon: float = 0.25) -> Tensor:
    """The relevance of each cell for the spoof log-odds, starting with the score itself. Shape: `(B, F, T)`.

    epsilon: added to each convolution's output with its sign, in the unit of the activations, whose deviation batch
    normalisation keeps near one. Small outputs then pass on little relevance. Raises Unsupported on the grid route, and
    for a countermeasure with a layer that has no rule.
    """
    view.require(frozenset({"gradients", "modules"}), "lrp")
    model = view.private_model()
    maps = []
    for part in view.inputs.split(view.batch_size):
        set_rules(model, epsilon)  # captum takes the rules off after each call
        maps.append(evidence(LRP(model).attribute(leaf(part), target=SPOOF)))
    return torch.cat(maps)
