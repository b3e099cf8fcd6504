"""AttnLRP as a changed gradient: every function of torch on the way to the score gets the derivative that its rule asks for.

LRP hands relevance R from the score down to the inputs. Write R = x g at every tensor x: then a rule for R is a rule for g,
and where the rule is epsilon's (epsilon to 0), g is the plain gradient. So the rules of a whole model are one backward pass
(Arras et al. 2025). Functions and their rules, numbers of Achtibat et al. 2024:

    linear, convolution   epsilon (Eq. 8), or generalised gamma, which favours the terms that have the output's sign
    sum of tensors        each its share (epsilon): the gradient
    product of two        half to each, and within it each cell its share (uniform, Eq. 7; Prop. 3.3): half the gradient
    softmax, logsumexp    Taylor expansion at x, whose constant is a bias (Eq. 4-5; Prop. 3.1): the gradient
    f of each element     all of it to x (identity, Eq. 9): g f(x) / x
    normalisation         x / size(x): all of it to x (identity; Prop. 3.4): size(x) is a constant
    maximum, pooling      the winner takes all, a mean shares: the gradient

Where f(0) is not 0, as of a sigmoid, f(x) / x has a pole; there f(0) counts as a bias, g (f(x) - f(0)) / x. This is ours,
and so is logsumexp, in the log-odds of three and more classes. Relevance is conserved but for what biases, f(0), the
constants of softmax and epsilon take.

A function of torch that is none of these is refused by its name, and so is an autograd function of somebody's own.

Why no library does this. zennit's rules are hooks of modules that take the gradient for R: products, softmax and residual
sums inside a forward are no modules, and such a sum would count R twice. lxt, the authors' own, replaces methods of the
model's classes, one model family at a time, for the whole process; and lxt 2.1 requires bitsandbytes, accelerate and
open_clip_torch. The tests hold these rules against a slow twin written from the equations, and linear layers against zennit.

References: Achtibat et al., ICML 2024, arXiv 2402.05602 (equation numbers as in the authors' code); Arras et al., 2025,
arXiv 2502.15886; Montavon et al., "Layer-wise relevance propagation: an overview", 2019, for gamma, in zennit's form for
values of either sign.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from xaibench.errors import Unsupported

from .spelled import Spelled

#: The plain gradient is the rule: values move, add up, are scaled by constants, or the winner takes all.
GRADIENT = frozenset({
    "view", "view_as", "reshape", "reshape_as", "transpose", "permute", "t", "swapaxes", "swapdims", "movedim",
    "moveaxis", "unsqueeze", "squeeze", "flatten", "unflatten", "unbind", "split", "chunk", "tensor_split", "cat",
    "concat", "stack", "clone", "contiguous", "expand", "expand_as", "broadcast_to", "repeat", "repeat_interleave",
    "tile", "narrow", "select", "index_select", "gather", "getitem", "take_along_dim", "roll", "flip", "pad",
    "unfold", "fold", "diagonal", "masked_select", "to", "float", "double", "half", "bfloat16", "type", "type_as",
    "cpu", "cuda", "real", "imag", "complex", "view_as_real", "view_as_complex", "conj", "requires_grad_", "add",
    "sub", "subtract", "rsub", "radd", "iadd", "isub", "neg", "negative", "sum", "mean", "cumsum", "masked_fill",
    "where", "setitem", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout",
    "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "interpolate", "upsample", "max",
    "amax", "min", "amin", "maximum", "minimum", "max_pool1d", "max_pool2d", "adaptive_max_pool1d",
    "adaptive_max_pool2d", "abs", "softmax", "log_softmax", "logsumexp", "std", "norm", "vector_norm",
    "linalg_vector_norm", "stft", "istft", "fft_fft", "fft_ifft", "fft_rfft", "fft_irfft", "get",
})  # fmt: skip

#: f of each element, the first argument: the identity rule.
ELEMENTWISE = frozenset({
    "relu", "relu6", "gelu", "silu", "mish", "elu", "selu", "celu", "leaky_relu", "prelu", "softplus", "tanh",
    "sigmoid", "hardtanh", "hardswish", "hardsigmoid", "logsigmoid", "softsign", "tanhshrink", "threshold", "exp",
    "expm1", "log", "log1p", "log2", "log10", "sqrt", "square", "pow", "rpow", "atanh", "erf", "clamp", "clamp_min",
    "clamp_max", "clip", "sin", "cos",
})  # fmt: skip
PRODUCTS = frozenset({"mul", "multiply", "rmul", "imul", "matmul", "bmm", "rmatmul", "mm", "mv", "dot", "outer"})
QUOTIENTS = frozenset({"div", "divide", "truediv", "true_divide", "itruediv"})
#: Only ever the size that something is divided by.
SIZES = frozenset({"rsqrt", "reciprocal", "rdiv", "rtruediv"})
CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"})


class Rules(Spelled):
    """The rules above, for whatever runs in the block. `R = x * torch.autograd.grad(score, x)` is the relevance then.

    epsilon:      added to the size of what a linear layer gives, where relevance is divided by it.
    conv_gamma:   gamma of convolutions, 0 for the epsilon rule.
    linear_gamma: gamma of linear layers.
    """

    def __init__(self, *, epsilon: float = 1e-6, conv_gamma: float = 0.0, linear_gamma: float = 0.0) -> None:
        super().__init__()
        self.epsilon, self.conv_gamma, self.linear_gamma = epsilon, conv_gamma, linear_gamma

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        inputs = [t for t in _tensors((args, tuple(kwargs.values()))) if t.requires_grad]
        if not inputs or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if not args:
            args = (kwargs.pop("input"),)
        name = _name(func)
        changes = name not in GRADIENT and not (name in PRODUCTS | QUOTIENTS and len(inputs) == 1)
        if changes and getattr(func, "__name__", "").endswith(f"{name}_"):
            raise Unsupported(f"AttnLRP has no rule for {name!r} in place; as a function of its own it has one")
        if name in _SPELLED:
            with self:
                return _SPELLED[name](*args, **kwargs)
        if name == "linear":
            return self._linear(functional.linear, self.linear_gamma, *args, **kwargs)
        if name in CONVOLUTIONS:
            return self._linear(func, self.conv_gamma, *args, **kwargs)
        if name in PRODUCTS:
            first, second, *rest = args
            if len(inputs) > 1:
                first, second = _Scale.apply(first, 0.5), _Scale.apply(second, 0.5)
            return func(first, second, *rest, **kwargs)
        if name in QUOTIENTS:
            above, below, *rest = args
            return func(above, below.detach() if isinstance(below, Tensor) else below, *rest, **kwargs)
        if name in SIZES:
            return func(*args, **kwargs).detach()
        if name in ELEMENTWISE and len(inputs) == 1:
            return _Identity.apply(args[0], lambda x: func(x, *args[1:], **{**kwargs, **_in_place(kwargs)}))
        if name == "var":
            return _Scale.apply(func(*args, **kwargs), 0.5)  # of second degree: its gradient counts twice
        result = func(*args, **kwargs)
        if name not in GRADIENT and any(t.requires_grad for t in _tensors(result)):
            raise Unsupported(f"AttnLRP has no rule for {name!r} ({func}), and would be wrong without a sign of it")
        return result

    def _linear(self, func: Callable[..., Tensor], gamma: float, x: Tensor, weight: Tensor, bias: Tensor | None = None,
                *geometry: Any, **more: Any) -> Tensor:  # fmt: skip
        if weight.requires_grad or not x.requires_grad:
            raise Unsupported("AttnLRP has no rule for a linear layer whose weights depend on the recording")
        return _Linear.apply(x, weight, bias, partial(_apply, func, geometry, more), gamma, self.epsilon)


def _apply(
    func: Callable[..., Tensor], geometry: tuple, more: dict, x: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    return func(x, weight, bias, *geometry, **more)


class _Scale(torch.autograd.Function):
    """The identity, with the gradient times a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return ctx.factor * g, None


class _Identity(torch.autograd.Function):
    """f of each element, with (f(x) - f(0)) / x for its derivative."""

    SMALL = 1e-4  # nearer to 0 than this the quotient is taken here

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        at = torch.where(x.abs() < _Identity.SMALL, torch.where(x < 0, -_Identity.SMALL, _Identity.SMALL), x)
        zero = f(torch.zeros_like(x))
        ctx.save_for_backward((f(at) - torch.where(zero.isfinite(), zero, 0.0)) / at)
        return f(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return g * ctx.saved_tensors[0], None


class _Linear(torch.autograd.Function):
    """A layer that is linear in x, with the gradient of the epsilon or the generalised gamma rule.

    gamma, for an output z > 0: R_i = sum_j x_i (w_ij + gamma [x_i w_ij > 0] w_ij) / (the sum of these over i, and bias) R_j;
    for z < 0 with [x_i w_ij < 0]. Its gradient is R_i / x_i, whatever x_i.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: Callable, gamma: float, epsilon: float
    ) -> Tensor:
        z = layer(x, weight, bias)
        ctx.save_for_backward(x, weight, bias, z)
        ctx.layer, ctx.gamma, ctx.epsilon = layer, gamma, epsilon
        return z

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, z = ctx.saved_tensors
        layer, gamma, epsilon = ctx.layer, ctx.gamma, ctx.epsilon

        def back(w: Tensor, above: Tensor) -> Tensor:
            with torch.enable_grad():
                at = x.detach().requires_grad_()
                return torch.autograd.grad(layer(at, w, None), at, above)[0]

        relevance = g * z
        if gamma == 0:
            return back(weight, relevance / _away(z, epsilon)), None, None, None, None, None
        rising, falling = (weight + gamma * part for part in (weight.clamp_min(0), weight.clamp_max(0)))
        up, down = (None, None) if bias is None else (bias + gamma * bias.clamp_min(0), bias + gamma * bias.clamp_max(0))
        positive, negative = x.clamp_min(0), x.clamp_max(0)
        share_up = layer(positive, rising, up) + layer(negative, falling, None)
        share_down = layer(positive, falling, down) + layer(negative, rising, None)
        above = torch.where(z > 0, relevance / _away(share_up, epsilon), 0.0)
        below = torch.where(z < 0, relevance / _away(share_down, epsilon), 0.0)
        of_positive = back(rising, above) + back(falling, below)
        of_negative = back(falling, above) + back(rising, below)
        return torch.where(x > 0, of_positive, of_negative), None, None, None, None, None


def _away(z: Tensor, epsilon: float) -> Tensor:
    return z + torch.where(z < 0, -epsilon, epsilon)


# ---- functions written out, so that their parts have rules ----------------------------------------------------------------


def _layer_norm(
    x: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    return _affine(_normalised(x, tuple(range(-len(normalized_shape), 0)), eps), weight, bias)


def _rms_norm(x: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    size = (x.detach().square().mean(dims, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps)).sqrt()
    return _affine(x / size, weight, None)


def _group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    grouped = x.unflatten(1, (num_groups, -1))
    result = _normalised(grouped, tuple(range(2, grouped.ndim)), eps).flatten(1, 2)
    along = (-1, *[1] * (x.ndim - 2))
    return _affine(result, *(None if p is None else p.view(along) for p in (weight, bias)))


def _batch_norm(
    x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    if training or running_mean is None or running_var is None:
        raise Unsupported("AttnLRP has no rule for batch normalisation by the batch's own statistics")
    along = (-1, *[1] * (x.ndim - 2))
    return _affine(
        (x - running_mean.view(along)) / (running_var.view(along) + eps).sqrt(),
        *(None if p is None else p.view(along) for p in (weight, bias)),
    )


def _normalize(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None) -> Tensor:
    return x / x.detach().norm(p, dim, keepdim=True).clamp_min(eps)


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    value, gate = x.chunk(2, dim)
    return value * torch.sigmoid(gate)


def _normalised(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(dims, keepdim=True)
    return centred / (centred.detach().square().mean(dims, keepdim=True) + eps).sqrt()


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


_SPELLED: dict[str, Callable[..., Tensor]] = {
    "layer_norm": _layer_norm, "rms_norm": _rms_norm, "group_norm": _group_norm, "batch_norm": _batch_norm,
    "normalize": _normalize, "glu": _glu,
}  # fmt: skip


def _name(func: Callable[..., Any]) -> str:
    """`__matmul__` and `matmul` alike: `matmul`.

    >>> _name(torch.Tensor.__matmul__), _name(functional.gelu), _name(torch.Tensor.T.__get__)
    ('matmul', 'gelu', 'get')
    """
    return getattr(func, "__name__", str(func)).strip("_")


def _in_place(kwargs: dict[str, Any]) -> dict[str, bool]:
    return {"inplace": False} if "inplace" in kwargs else {}


def _tensors(things: Any) -> Iterator[Tensor]:
    if isinstance(things, Tensor):
        yield things
    elif isinstance(things, tuple | list):
        for thing in things:
            yield from _tensors(thing)
