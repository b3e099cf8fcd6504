"""The attributors. `adapter` says what is common to all maps: sign, scale, geometry, state.

`A` is the layer's activation `(C, F', T')`, `s` the spoof log-odds, `g = ds/dA`, `k` a channel, `i` a position. Each
method is followed by what a single-column output means to it, read in the source of grad-cam 1.5.7. Except for Score-CAM and
Ablation-CAM, which look at scores alone, a method sees `s` only through `g`, so one column is as good as many.

Option `layer`: "last" (of `view.layers`) or one of its dotted names; another name raises XaibenchError.
"""

from __future__ import annotations

from functools import partial

from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, ShapleyCAM, XGradCAM
from torch import Tensor, nn

from xaibench.protocols import attributor
from xaibench.view import View
from xaibench_gradcam.adapter import layer_map, model_map
from xaibench_gradcam.corrected import (
    FirstRow,
    OrderedFullGrad,
    OrientedEigenCAM,
    OrientedEigenGradCAM,
    QuietScoreCAM,
    SignedAblationCAM,
    TwoClassFinerCAM,
)


@attributor(
    name="grad-cam",
    paper="Selvaraju et al., ICCV 2017, arXiv 1610.02391, Eq. 1-2",
    needs=["gradients", "layers"],
    signed=False,
)
def grad_cam(view: View, *, layer: str = "last") -> Tensor:
    """Channels of a layer, weighed by the mean gradient of the score in each.

    `relu(sum_k w_k A_k)` with `w_k = mean_i g_ki`.
    """
    return layer_map(view, GradCAM, layer=layer)


@attributor(
    name="grad-cam++",
    paper="Chattopadhyay et al., WACV 2018, arXiv 1710.11063, Eq. 19",
    needs=["gradients", "layers"],
    signed=False,
)
def grad_cam_plus_plus(view: View, *, layer: str = "last") -> Tensor:
    """Grad-CAM with the rising gradients alone, each place weighed by its share in its channel.

    `w_k = sum_i a_ki relu(g_ki)`, `a_ki = g_ki^2 / (2 g_ki^2 + g_ki^3 sum_j A_kj)`.

    The closed form takes the class score to be `exp(s)` and A to be non-negative. On signed activations (Max-Feature-Map)
    the denominator has zeros, near which one position outweighs all others, and `a` turns negative beyond them; the
    library's 1e-6 prevents neither. Such maps follow a few channels more than the evidence. Rounding is amplified in the
    same way, so utterances are explained one at a time.
    """
    return layer_map(view, GradCAMPlusPlus, layer=layer, one_at_a_time=True)


@attributor(
    name="hirescam",
    paper="Draelos and Carin, 2020, arXiv 2011.08891",
    needs=["gradients", "layers"],
    signed=False,
)
def hirescam(view: View, *, layer: str = "last") -> Tensor:
    """Activation times gradient, cell by cell, summed over the channels of a layer.

    `sum_k g_k A_k`, position by position. The paper keeps negative values; the library applies a ReLU.
    """
    return layer_map(view, HiResCAM, layer=layer)


@attributor(
    name="xgrad-cam",
    paper="Fu et al., BMVC 2020, arXiv 2008.02312",
    needs=["gradients", "layers"],
    signed=False,
)
def xgrad_cam(view: View, *, layer: str = "last") -> Tensor:
    """Grad-CAM with channels weighed by gradient times activation, relative to the activation.

    `w_k = sum_i g_ki A_ki / sum_j A_kj`.

    On signed activations the denominator can be near zero: that channel then decides the map alone. Rounding is amplified
    in the same way, so utterances are explained one at a time.
    """
    return layer_map(view, XGradCAM, layer=layer, one_at_a_time=True)


@attributor(
    name="layer-cam",
    paper="Jiang et al., IEEE TIP 2021, doi 10.1109/TIP.2021.3089943",
    needs=["gradients", "layers"],
    signed=False,
)
def layer_cam(view: View, *, layer: str = "last") -> Tensor:
    """Activation times rising gradient, cell by cell, summed over the channels of a layer.

    `relu(sum_k relu(g_k) A_k)`, position by position.
    """
    return layer_map(view, LayerCAM, layer=layer)


@attributor(
    name="eigen-cam",
    paper="Muhammad and Yeasin, IJCNN 2020, arXiv 2008.00299",
    needs=["layers"],
    signed=False,
    class_specific=False,
)
def eigen_cam(view: View, *, layer: str = "last") -> Tensor:
    """What the channels' activations have in common, whatever the score.

    First principal component of the activations over positions (centred by the library), where positive.

    It never looks at the score. The sign of the component is fixed here (`corrected.oriented`). Raises Unsupported for
    layers with more than 16,384 positions, whose square matrix would not fit.
    """
    return layer_map(view, OrientedEigenCAM, layer=layer, gradients=False)


@attributor(
    name="eigen-grad-cam",
    paper="Gildenblat, pytorch-grad-cam: Eigen-CAM (arXiv 2008.00299) of gradient x activation",
    needs=["gradients", "layers"],
    signed=False,
)
def eigen_grad_cam(view: View, *, layer: str = "last") -> Tensor:
    """What the channels' activation times gradient have in common.

    First principal component of `g A` over positions, where positive.

    The library's own map is the same for `s` and `-s`, because an SVD has no sign; here the sign is that of `sum_k g_k A_k`
    (`corrected.oriented`). Raises Unsupported for layers with more than 16,384 positions.
    """
    return layer_map(view, OrientedEigenGradCAM, layer=layer)


@attributor(
    name="score-cam",
    paper="Wang et al., CVPR Workshops 2020, arXiv 1910.01279, Algorithm 1",
    needs=["layers"],
    signed=False,
)
def score_cam(view: View, *, layer: str = "last") -> Tensor:
    """Channels of a layer, weighed by the score of the input seen through each.

    `relu(sum_k w_k A_k)`, `w = softmax_k s(input * up(A_k))`, `up` resizing and bringing a channel to [0, 1].

    One column is meaningful: the softmax runs over channels, not over classes, on the raw log-odds; so the score of a
    baseline input, which the paper subtracts, cancels. Masking multiplies the explained tensor by a value in [0, 1]: on the
    native route of LCNN (normalised log power) towards the training mean of that frequency, on the grid towards silence.
    One forward pass a channel, `view.batch_size` at a time, utterance after utterance as in the library.
    """
    build = partial(QuietScoreCAM, batch_size=view.batch_size)
    return layer_map(view, build, layer=layer, gradients=False, asks=True, one_at_a_time=True)


@attributor(
    name="ablation-cam",
    paper="Desai and Ramaswamy, WACV 2020, Ablation-CAM",
    needs=["layers"],
    signed=False,
)
def ablation_cam(view: View, *, layer: str = "last") -> Tensor:
    """Channels of a layer, weighed by how much the score falls without each.

    `relu(sum_k w_k A_k)`, `w_k = (s - s_k) / |s|`, `s_k` the score with channel k set to zero.

    Two corrections to the library, see `corrected`: channels are set to zero (the library's substitute for signed
    activations is -1e7 and depends on the batch size), and the denominator is |s| (with s, the map of an utterance taken
    for bona fide shows evidence for bona fide). One forward pass a channel, `view.batch_size` at a time, utterance after
    utterance as in the library.
    """

    def build(model: nn.Module, target_layers: list[nn.Module]) -> SignedAblationCAM:
        return SignedAblationCAM(FirstRow(model), target_layers, batch_size=view.batch_size)

    return layer_map(view, build, layer=layer, gradients=False, asks=True, one_at_a_time=True)


@attributor(
    name="fullgrad",
    paper="Srinivas and Fleuret, NeurIPS 2019, arXiv 1905.00780",
    needs=["gradients", "layers"],
    signed=False,
    class_specific=False,
)
def fullgrad(view: View) -> Tensor:
    """Gradients of the input and of every layer's bias, added up on the input's cells.

    `up(|x ds/dx|) + sum_l sum_c up(|b_lc ds/dz_lc|)` over all Conv2d and BatchNorm2d, hence no option `layer`.

    z is a layer's output, b its bias (for batch normalisation with the running mean's share). Magnitudes only: `s` and `-s`
    have the same map, so with one log-odds it cannot tell evidence for spoof from evidence for bona fide. `up` brings every
    channel to [0, 1] by itself, which follows the equation; the authors' code scales a layer as a whole. So a faint channel
    counts as much as a loud one, and completeness is lost. Raises Unsupported if layers do not run in the order of their
    registration, because the library would then pair biases and gradients wrongly.
    """
    return model_map(view, OrderedFullGrad)


@attributor(
    name="finer-cam",
    paper="Zhang et al., CVPR 2025, arXiv 2501.11309",
    needs=["gradients", "layers"],
    signed=False,
)
def finer_cam(view: View, *, layer: str = "last") -> Tensor:
    """Grad-CAM of the difference between a class and those like it: here spoof and bona fide, the logits `(s/2, -s/2)`.

    With two classes there is one comparison, and the difference is `s` for comparison strength 1 and a positive multiple
    of it for any other, so **this map equals grad-cam**: every map here explains a difference already. It is listed so
    that the identity can be seen, not as independent evidence. `corrected.difference` says why the library's own target is
    not used.
    """
    return layer_map(view, TwoClassFinerCAM, layer=layer)


@attributor(
    name="shapley-cam",
    paper="Cai, 2025, arXiv 2501.06261",
    needs=["gradients", "layers"],
    signed=False,
)
def shapley_cam(view: View, *, layer: str = "last") -> Tensor:
    """Grad-CAM whose weights have a second-order term, after the Shapley value of a channel.

    Grad-CAM with `w_k = mean_i (g - H A / 2)_ki`, H the Hessian of `s` with respect to A.

    On a network that is piecewise linear after the layer (LCNN: Max-Feature-Map, max-pooling, linear) H is zero and **this
    map equals grad-cam**. The paper's target, logit plus log-probability, would not change that: its Hessian is a multiple
    of `g g^T`, which rescales all weights alike. Only smooth layers (GELU, softmax attention, sigmoid) after the layer do.
    """
    return layer_map(view, ShapleyCAM, layer=layer, second_order=True)
