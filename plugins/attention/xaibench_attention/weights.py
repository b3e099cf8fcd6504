"""The attention weights of a view's transformer, layer by layer, with or without the gradient of the score.

Shapes: weights A and gradients ds/dA `(B, heads, n, n)`, rows are queries; s is the view's score, the spoof log-odds. Layers
come in the order in which they ran.

On the native route the layers may lie in front of the explained tensor (the tap of a countermeasure on encoder frames).
Then the recording goes through `View.lead` again and the graph runs on through the tap, whose value is the view's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xaibench.errors import Unsupported, XaibenchError
from xaibench.types import Axis
from xaibench.view import View

from .spelled import Spelled

SOFTMAX = (functional.softmax, torch.softmax, Tensor.softmax)


@dataclass(frozen=True, eq=False)
class Layer:
    """What one self-attention layer did: weights and, where asked for, the score's gradient `(B, heads, n, n)`."""

    name: str
    weights: Tensor
    gradient: Tensor | None = None

    @property
    def slope(self) -> Tensor:
        """The gradient, where it was asked for. Raises XaibenchError where it was not."""
        if self.gradient is None:
            raise XaibenchError(f"the layer {self.name} was looked at without gradients; expected attention(gradients=True)")
        return self.gradient


class Watch(Spelled):
    """Keeps what softmax gives while one of the named modules runs, if it is square: as many keys as queries."""

    def __init__(self, stages: nn.ModuleDict, names: tuple[str, ...]) -> None:
        super().__init__()
        self.seen: list[tuple[str, Tensor]] = []
        self._within: list[str] = []
        for name in names:
            module = stages.get_submodule(name)
            module.register_forward_pre_hook(lambda module, args, name=name: self._within.append(name))
            module.register_forward_hook(lambda module, args, output: self._within.pop() and None, always_call=True)

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if func in SOFTMAX and self._within and result.ndim >= 3 and result.shape[-1] == result.shape[-2]:
            if torch.is_grad_enabled() and not result.requires_grad:  # the graph may begin here
                result.requires_grad_()
            self.seen.append((self._within[-1], result))
        return result


def attention(view: View, *, gradients: bool) -> Iterator[list[Layer]]:
    """The layers of `view.batch_size` utterances at a time, in the view's order.

    Raises Unsupported where a layer's weights are not to be had, or are not those of the tokens on `view.attention_axes`.
    """
    stages = copy.deepcopy(view.whole()).requires_grad_(False)  # hooks belong on a copy
    watch = Watch(stages, view.attentions)
    for start in range(0, len(view), view.batch_size):
        part = slice(start, start + view.batch_size)
        watch.seen.clear()
        with torch.set_grad_enabled(gradients):
            with watch:
                score = _score(stages, view, part)
            _all_seen(view, watch)
            names, raw = zip(*watch.seen, strict=True)
            # A layer that the score does not depend on has no gradient: nothing of it is evidence.
            slopes = torch.autograd.grad(score.sum(), raw, materialize_grads=True) if gradients else (None,) * len(raw)
        shape = (len(view.inputs[part]), -1, *raw[0].shape[-2:])
        yield [
            Layer(name, weights.detach().view(shape), None if slope is None else slope.reshape(shape))
            for name, weights, slope in zip(names, raw, slopes, strict=True)
        ]


def token_axes(view: View) -> tuple[Axis, Axis]:
    """Frequency and time axis of the tokens. Raises Unsupported on a view without attention layers."""
    if view.attention_axes is None:
        raise Unsupported("this view names no attention layers: a method that reads them declares the need `attention`")
    return view.attention_axes


def _score(stages: nn.ModuleDict, view: View, part: slice) -> Tensor:
    inputs = view.inputs[part].detach()
    if "lead" in stages:
        if view.recordings is None:
            raise Unsupported("this view has attention layers in front of its tap, and no recordings to run them on")
        tap = stages["lead"](view.recordings[part].detach())
        inputs = inputs + (tap - tap.detach())  # the view's own value, with the way back to the recording
    return stages["model"](inputs)


def _all_seen(view: View, watch: Watch) -> None:
    axes = token_axes(view)
    tokens = len(axes[0]) * len(axes[1])
    silent = [name for name in view.attentions if name not in {name for name, _ in watch.seen}]
    if silent:
        raise Unsupported(
            f"the attention layer {silent[0]} showed no weights (n, n): its forward calls neither torch's softmax nor "
            "scaled_dot_product_attention nor multi_head_attention_forward on as many keys as queries"
        )
    for name, weights in watch.seen:
        if weights.shape[-1] != tokens:
            raise Unsupported(
                f"the attention layer {name} has {weights.shape[-1]} tokens and the countermeasure's attention_axes "
                f"{len(axes[0])} x {len(axes[1])} = {tokens} cells; is there a class token, or are these the tap's axes?"
            )
