"""Excitation backprop, in its contrastive form: what excites the spoof logit, less what excites its rivals.

Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016, arXiv 1608.00507. A unit hands its winning
probability to the inputs that excite it, in proportion (the z+ rule, here for inputs of either sign).

The explained score is a difference of logits, and the rule must not see that layer: it would keep only the terms that raise
the difference, one logit of the two, or none, and then the map is all zero. So the difference is differentiated: spoof
starts with +1, bona fide with -1, and one pass gives the difference of their two maps, the paper's contrastive attention
with the rival class as the dual unit. On a network without biases each of the two sums to one, so the map sums to zero.
The start does not depend on the size or sign of the score. zennit's composite has no rule for batch normalisation and
would multiply by its gradient; here it passes on what it gets, as in the LRP composites.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from zennit.composites import ExcitationBackprop, MixedComposite, NameMapComposite
from zennit.core import Hook
from zennit.rules import Pass
from zennit.types import Activation, BatchNorm

from xaibench.protocols import attributor
from xaibench.view import SpoofLogOdds, View

from .relevance import relevance


@attributor(
    name="excitation-backprop",
    paper="contrastive excitation backprop: Zhang et al., ECCV 2016, arXiv 1608.00507; zennit ExcitationBackprop",
    needs=["gradients", "modules"],
)
def excitation_backprop(view: View) -> Tensor:
    """Winning probability of each cell for spoof, less that for bona fide.

    Raises Unsupported for a module without a rule.
    """
    return relevance(view, _composite, torch.ones_like, also=(SpoofLogOdds,))


def _composite(model: nn.Module, inputs: Tensor) -> MixedComposite:
    contrasts = [name for name, module in model.named_modules() if isinstance(module, SpoofLogOdds)]
    differences = tuple(f"{name}.linear" for name in contrasts)
    untouched = NameMapComposite([(differences, Hook())])  # zennit's base hook changes no gradient
    return MixedComposite([untouched, ExcitationBackprop(layer_map=[(Activation, Pass()), (BatchNorm, Pass())])])
