"""Library classes with the corrections that a single signed score, or signed activations, call for.

The library was written for classifiers with many non-negative logits and layers behind a ReLU. A countermeasure's spoof
log-odds is one number of either sign, and Max-Feature-Map activations are of either sign. Each class below inherits the
library's and changes only what its docstring says; the tests compare each with a literal twin written from the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType, SimpleNamespace

import numpy as np
import torch
from pytorch_grad_cam import AblationCAM, AblationLayer, EigenCAM, EigenGradCAM, FinerCAM, FullGrad, ScoreCAM
from torch import Tensor, nn

from xaibench.errors import Unsupported

Target = Callable[[Tensor], Tensor]

#: The library's SVD builds a square matrix over layer positions, in float32: 1 GiB at this many.
MAX_POSITIONS = 2**14

#: Smallest denominator of Ablation-CAM's relative drop, in log-odds.
MIN_SCORE = 1e-6

_NO_BAR = SimpleNamespace(tqdm=lambda iterable: iterable)


def _without_bar(function: Callable) -> Callable:
    """The same code with a `tqdm` that draws nothing, leaving the library's module and stderr alone."""
    return FunctionType(
        function.__code__, {**function.__globals__, "tqdm": _NO_BAR}, function.__name__, function.__defaults__
    )


class QuietScoreCAM(ScoreCAM):
    """ScoreCAM without progress bars, scoring `batch_size` masks at a time.

    For an input of one row the masks are the means of a channel's rows; the library's resize would keep the first.
    """

    _weights = _without_bar(ScoreCAM.get_cam_weights)

    def __init__(self, model: nn.Module, target_layers: list[nn.Module], *, batch_size: int) -> None:
        super().__init__(model, target_layers)
        self.batch_size = batch_size  # looked up by the library's code; it has no argument for it

    def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads) -> np.ndarray:
        if input_tensor.shape[2] == 1:
            activations = activations.mean(2, keepdims=True)
        return self._weights(input_tensor, target_layer, targets, activations, grads)


class ZeroAblation(AblationLayer):
    """Sets the ablated channel to zero, as the paper does.

    The library does so only if the smallest activation is exactly 0. Otherwise it writes `minimum - 1e7`, and, as it takes
    the minimum again for every channel of a batch, lower and lower values: the weights then say how the network
    extrapolates, and change with the batch size.
    """

    def __call__(self, x: Tensor) -> Tensor:
        rows = torch.arange(len(self.activations))
        self.activations[rows, torch.as_tensor(self.indices[: len(rows)], dtype=torch.long)] = 0
        return self.activations


class ShiftedTarget:
    """A target plus a constant."""

    def __init__(self, target: Target, shift: float) -> None:
        self.target, self.shift = target, shift

    def __call__(self, output: Tensor) -> Tensor:
        return self.target(output) + self.shift


class FirstRow(nn.Module):
    """The model at the first row only: the library repeats one utterance, and `ZeroAblation` makes a channel of each row."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x[:1])


class SignedAblationCAM(AblationCAM):
    """AblationCAM that keeps its meaning when the score is negative, without progress bars.

    Paper and library weigh a channel by the relative drop `(s - s_k) / s`, which turns its sign where s < 0: the map of an
    utterance taken for bona fide would show the evidence for bona fide. Here every target is shifted by a constant of
    its utterance so that the denominator is |s| (for s > 0 the shift is zero and the formula the paper's).
    """

    get_cam_weights = _without_bar(AblationCAM.get_cam_weights)

    def __init__(self, model: nn.Module, target_layers: list[nn.Module], *, batch_size: int) -> None:
        # A fresh layer: the library's default argument is one object shared by all instances.
        super().__init__(model, target_layers, ablation_layer=ZeroAblation(), batch_size=batch_size)

    def forward(self, input_tensor: Tensor, targets: Sequence[Target], eigen_smooth: bool = False) -> np.ndarray:
        scores = [target(output).item() for target, output in zip(targets, self.model(input_tensor), strict=True)]
        shifted = [
            ShiftedTarget(target, max(abs(score), MIN_SCORE) - score) for target, score in zip(targets, scores, strict=True)
        ]
        return super().forward(input_tensor, shifted, eigen_smooth)


def oriented(projection: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """Give a first principal component the sign in which it agrees with the sum over channels.

    An SVD leaves the sign to the LAPACK at hand; the ReLU that follows would then keep one half of the map or the other by
    chance. Shapes: projection `(B, F', T')`, channels `(B, C, F', T')`.
    """
    total = channels.sum(1)
    agreement = (projection * (total - total.mean((1, 2), keepdims=True))).sum((1, 2), keepdims=True)
    return np.where(agreement < 0, -projection, projection)


def _check_positions(activations: np.ndarray) -> None:
    positions = activations.shape[2] * activations.shape[3]
    if positions > MAX_POSITIONS:
        raise Unsupported(
            f"the layer has {activations.shape[2]} x {activations.shape[3]} positions and the library's SVD would need "
            f"{positions**2 * 4 / 2**30:.0f} GiB; choose a layer with at most {MAX_POSITIONS} positions, nearer the output"
        )


class OrientedEigenCAM(EigenCAM):
    """EigenCAM with the sign fixed by `oriented`: high where the activations, together, are high."""

    def get_cam_image(self, input_tensor, target_layer, targets, activations, grads, eigen_smooth) -> np.ndarray:
        _check_positions(activations)
        projection = super().get_cam_image(input_tensor, target_layer, targets, activations, grads, eigen_smooth)
        return oriented(projection, activations)


class OrientedEigenGradCAM(EigenGradCAM):
    """EigenGradCAM with the sign fixed by `oriented`: high where gradient x activation, together, speaks for spoof.

    Without it the map is the same for the score and for its negative.
    """

    def get_cam_image(self, input_tensor, target_layer, targets, activations, grads, eigen_smooth) -> np.ndarray:
        _check_positions(activations)
        projection = super().get_cam_image(input_tensor, target_layer, targets, activations, grads, eigen_smooth)
        return oriented(projection, grads * activations)


class TwoColumns(nn.Module):
    """Log-odds s `(B, 1)` -> two logits `(s/2, -s/2)`, spoof and bona fide, whose log-odds is s."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        score = self.model(x)
        return torch.cat([score, -score], dim=1) / 2


def difference(output: Tensor) -> Tensor:
    """`y_spoof - y_bonafide`: FinerWeightedTarget with one class to compare with, without its rounding guard.

    The library weighs each comparison by its softmax probability p and divides by p + 1e-9. With a single comparison
    p cancels, but for the guard: from log-odds of about 17 on p falls towards it, the derivative of p / (p + 1e-9) takes
    over, and the map of a confidently spoofed utterance is turned upside down.
    """
    return output[..., 0] - output[..., 1]


class TwoClassFinerCAM(FinerCAM):
    """FinerCAM comparing spoof with bona fide on `TwoColumns`; by default it would explain the predicted class."""

    def __init__(self, model: nn.Module, target_layers: list[nn.Module]) -> None:
        super().__init__(TwoColumns(model), target_layers)

    def forward(self, input_tensor: Tensor, targets: Sequence[Target]) -> np.ndarray:
        return super().forward(input_tensor, targets=[difference for _ in targets])


class OrderedFullGrad(FullGrad):
    """FullGrad that checks that it pairs each bias with the gradient of its own layer.

    The library takes biases in the order in which layers are registered and gradients in the order in which they run.
    Raises Unsupported where the two differ or a layer runs twice or not at all.
    """

    def __init__(self, model: nn.Module, target_layers: list[nn.Module]) -> None:
        super().__init__(model, target_layers)
        ran: list[int] = []
        for layer in self.target_layers:
            layer.register_forward_hook(lambda module, inputs, output: ran.append(id(module)))
        self.ran = ran

    def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth) -> np.ndarray:
        in_order = self.ran == [id(layer) for layer in self.target_layers]
        self.ran.clear()
        if not in_order:
            raise Unsupported("FullGrad needs layers that run once each, in the order in which the model registers them")
        return super().compute_cam_per_layer(input_tensor, targets, eigen_smooth)
