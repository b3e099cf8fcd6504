"""Layer-wise relevance propagation by zennit's composites: one rule for convolutions, epsilon for dense layers.

The relevance at the output is the score itself, the spoof log-odds: on a network without biases a map sums to the score,
negative for an utterance taken for bona fide, and positive cells are evidence for spoof. The last layer, the difference of
two logits, is dense, so it follows the epsilon rule and both logits have their say.

Batch normalisation between dense layers (`nn.BatchNorm1d`) follows the epsilon rule too, which equals merging it into the
dense layer above. zennit's own composites let relevance pass unchanged there; it is then no longer proportional to the
activation that the epsilon rule below divides by, and where that is near zero relevance explodes: on an untrained LCNN, to
2,000 times the score. Between convolutions, whose rules divide by sums of one sign, it passes unchanged as in zennit.

References: Bach et al., PLOS ONE 2015 (epsilon and alpha-beta rules); Montavon et al., Pattern Recognition 2017,
arXiv 1512.02479 (z+ and the box rule z^B); Montavon et al., "Layer-wise relevance propagation: an overview", 2019 (gamma);
Kohlbrenner et al., IJCNN 2020, arXiv 1910.09840 (composites).
"""

from __future__ import annotations

from torch import Tensor, nn
from zennit.composites import EpsilonAlpha2Beta1, EpsilonGammaBox, EpsilonPlus
from zennit.rules import Epsilon
from zennit.types import Convolution, Linear

from xaibench.errors import Unsupported
from xaibench.protocols import attributor
from xaibench.view import View

from .relevance import relevance

#: Put before zennit's own layer maps. The number only keeps a division defined.
DENSE_NORM = [(nn.BatchNorm1d, Epsilon(epsilon=1e-6))]


def _itself(score: Tensor) -> Tensor:
    return score


@attributor(
    name="epsilon-plus",
    paper="LRP: Bach et al., PLOS ONE 2015; Kohlbrenner et al., IJCNN 2020, arXiv 1910.09840; zennit EpsilonPlus",
    needs=["gradients", "modules"],
)
def epsilon_plus(view: View, *, epsilon: float = 1e-6) -> Tensor:
    """LRP with the z+ rule (alpha 1, beta 0) for convolutions and the epsilon rule for dense layers.

    Raises Unsupported for a module without a rule.
    """
    return relevance(view, lambda model, inputs: EpsilonPlus(epsilon=epsilon, layer_map=DENSE_NORM), _itself)


@attributor(
    name="epsilon-gamma-box",
    paper="LRP: Montavon et al., Pattern Recognition 2017, arXiv 1512.02479, and 2019; zennit EpsilonGammaBox",
    needs=["gradients", "modules"],
)
def epsilon_gamma_box(view: View, *, gamma: float = 0.25, epsilon: float = 1e-6) -> Tensor:
    """LRP with the box rule for the first convolution, gamma for the others, epsilon for dense layers.

    The box is the least and the greatest value of the utterance's own tensor, so a batch changes nothing. Raises Unsupported
    for a module without a rule, and where the first layer is not a convolution (another one would get the box).
    """

    def composite(model: nn.Module, inputs: Tensor) -> EpsilonGammaBox:
        first = next((module for module in model.modules() if isinstance(module, Linear)), None)
        if not isinstance(first, Convolution):
            raise Unsupported(f"epsilon-gamma-box needs a convolution as the first layer, got {type(first).__name__}")
        low, high = inputs.amin(dim=(1, 2, 3), keepdim=True), inputs.amax(dim=(1, 2, 3), keepdim=True)
        return EpsilonGammaBox(low=low, high=high, gamma=gamma, epsilon=epsilon, layer_map=DENSE_NORM)

    return relevance(view, composite, _itself)


@attributor(
    name="alpha2-beta1",
    paper="LRP: Bach et al., PLOS ONE 2015; zennit EpsilonAlpha2Beta1",
    needs=["gradients", "modules"],
)
def alpha2_beta1(view: View, *, epsilon: float = 1e-6) -> Tensor:
    """LRP with the alpha-beta rule (2, 1) for convolutions and the epsilon rule for dense layers.

    Raises Unsupported for a module without a rule.
    """
    return relevance(view, lambda model, inputs: EpsilonAlpha2Beta1(epsilon=epsilon, layer_map=DENSE_NORM), _itself)
