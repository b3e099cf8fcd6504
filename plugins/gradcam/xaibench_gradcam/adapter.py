"""Running one class of pytorch-grad-cam on a view.

Conventions. Input `(B, C, F, T)`, rows are frequency and columns time; map `(B, F, T)` in [0, 1], 0 where the class finds no
evidence for spoof. The explained quantity is the view's model output, the spoof log-odds `(B, 1)`: one target a row, because
the library pairs targets and rows with `zip`, and a single target for a batch gives all-zero maps for the other rows.

What the library does to a map, whatever the method: ReLU, minus its minimum, divided by its maximum (+ 1e-7), resized to the
input by `cv2.resize` (bilinear, half-pixel centres) and divided by its maximum again. So values cannot be compared between
utterances; a map that is constant over its layer, or whose layer has a single position, becomes all-zero; and where
everything speaks against spoof, ReLU leaves an all-zero map. All maps are `signed=False`.

Geometry. The resize stretches the layer's extent over the whole input. Layers after pooling with a remainder therefore sit
off by up to the remainder (LCNN: one cell in 257 x 201). On the grid route the layers live on the countermeasure's own tap
axes: the map is right only as far as the tap's axes cover the same seconds and hertz, linearly, as the grid. Where they do
not (a constant-Q tap, say), prefer the native route, which projects by axes.

Passes. A class that reads one layer's activation A and gradient g and nothing else runs on the view's record of them, where
that holds: the library is given `Replay`, a model that is linear around the recorded A with the recorded g.

State. Everything else happens on `view.private_model()`. Its parameters are frozen (except for second-order methods), hooks
are released in a `finally`; the library's own `with` block is not used, because it prints and swallows IndexError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from xaibench.errors import XaibenchError
from xaibench.passes import Recorded
from xaibench.view import View

#: From the private model and the target layers to an object of the library.
Builder = Callable[[nn.Module, list[nn.Module]], Any]


def layer_name(view: View, layer: str) -> str:
    """The dotted name of a layer of `view.model`; "last" is the one nearest to the output.

    Raises XaibenchError, naming the layers there are, for any other name.
    """
    if not view.layers:
        raise XaibenchError(f"layer {layer!r}: this view names no layers, and class activation maps need one")
    if layer == "last":
        return view.layers[-1]
    if layer not in view.layers:
        raise XaibenchError(f"no layer {layer!r} on this view; 'last' or one of: {', '.join(view.layers)}")
    return layer


def layer_map(
    view: View,
    build: Builder,
    *,
    layer: str,
    gradients: bool = True,
    asks: bool = False,
    second_order: bool = False,
    one_at_a_time: bool = False,
) -> Tensor:
    """A map from one layer. Returns `(B, F, T)` in [0, 1] on the view's axes.

    gradients:     False runs under `no_grad`, for methods that only need forward passes.
    asks:          the method asks the model again (masked inputs, ablated channels): no record has its answers.
    second_order:  leave parameters differentiable: before a linear layer the gradient has a graph only through its weights.
                   Otherwise the graph starts at the layer, so that the backward pass stops there: the same gradient, sooner,
                   and there is one even if all parameters are frozen.
    one_at_a_time: for methods whose formula amplifies the rounding differences between batch sizes, or that batch inside.

    Raises XaibenchError for an unknown layer; whatever the library raises passes through.
    """
    name, size = layer_name(view, layer), 1 if one_at_a_time else view.batch_size
    record = None if asks or second_order or "gradients" not in view.offers else view.passes
    if record is not None and record.holds(view.model, view.inputs):
        seen = record.layer(name, view.batch_size, alone=one_at_a_time, gradients=gradients)
        model: nn.Module = (replay := Replay(seen))
        target: nn.Module = replay.layer
    else:
        model = view.private_model()
        target = model.get_submodule(name)
        model.requires_grad_(second_order)
        if gradients and not second_order:
            target.register_forward_hook(_begin_graph)
    cam = build(model, [target])
    if view.shape[0] == 1:
        _mean_over_height(getattr(cam, "base_cam", cam))
    # After the library's hooks: what comes next may work in place (ReLU(inplace=True)), and the library keeps a view.
    target.register_forward_hook(_protect)
    return _run(cam, view, gradients=gradients, size=size)


class Replay(nn.Module):
    """A countermeasure as a record knows it, `(B, C, F, T) -> (B, 1)`: s + g (A' - A), with A' what leaves `layer`.

    At A' = A, where it always is, value, activation and gradient are the recorded ones, to the bit. Utterances come in the
    order of the record; of each input only its length is read.
    """

    def __init__(self, seen: Recorded) -> None:
        super().__init__()
        self.seen, self.at = seen, 0
        self.layer = nn.Identity()
        self.nothing = nn.Parameter(seen.score.new_empty(0), requires_grad=False)  # the library asks it for the device

    def forward(self, x: Tensor) -> Tensor:
        rows = slice(self.at, self.at + len(x))
        self.at += len(x)
        activation = self.layer(self.seen.activation[rows].requires_grad_(torch.is_grad_enabled()))
        change = (activation - activation.detach()) * self.seen.gradient[rows]
        return self.seen.score[rows, None] + change.flatten(1).sum(1, keepdim=True)


def _mean_over_height(cam: Any) -> None:
    """For a map of one row: the mean of a layer's rows, after the ReLU. The library's resize would keep the middle one."""
    image = cam.get_cam_image
    cam.get_cam_image = lambda *args, **options: np.maximum(image(*args, **options), 0).mean(1, keepdims=True)


def model_map(view: View, build: Builder) -> Tensor:
    """A map of a class that chooses its layers itself. Returns `(B, F, T)` in [0, 1] on the view's axes."""
    model = view.private_model().requires_grad_(False)
    return _run(build(model, []), view, gradients=True, size=view.batch_size)


def _run(cam: Any, view: View, *, gradients: bool, size: int) -> Tensor:
    maps = []
    try:
        with torch.set_grad_enabled(gradients):
            for part in view.inputs.detach().split(size):
                maps.append(cam(part.clone(), targets=one_target_a_row(len(part))))
    finally:
        recorder = getattr(cam, "base_cam", cam).activations_and_grads
        recorder.activations, recorder.gradients = [], []  # release() detaches them in place and fails on views
        recorder.release()
    result = torch.from_numpy(np.concatenate(maps)).to(view.inputs)
    if result.shape != (len(view), *view.shape):
        raise XaibenchError(f"expected maps of shape {(len(view), *view.shape)}, the library gave {tuple(result.shape)}")
    return result


def one_target_a_row(rows: int) -> Sequence[Callable[[Tensor], Tensor]]:
    """The only output, the spoof log-odds, once for every utterance."""
    return [ClassifierOutputTarget(0) for _ in range(rows)]


def _begin_graph(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return output.detach().requires_grad_()


def _protect(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return output.clone()
