"""The attributor `attnlrp`: relevance from the score to the explained tensor, or to the spectrogram in front of the model.

Conventions: R `(B, C, F, T)` is summed over channels to `(B, F, T)`; positive = evidence for spoof; the relevance at the top
is the score itself, the spoof log-odds.

Where relevance stops. On the native route at the tap. On the grid route the explained tensor is a complex STFT; but where
the model begins with a normalised log power spectrogram (`xaibench.frontends.LogPower`) it stops there, on that one's own
axes: 0 is then the training mean of the frequency, while through the logarithm and the STFT below it LRP would divide by
every faint cell. A model that hears the recording past this spectrogram is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xaibench.backward import _LargerHalf
from xaibench.errors import Unsupported
from xaibench.frontends import LogPower
from xaibench.protocols import attributor
from xaibench.types import Attribution, Axis
from xaibench.view import View

from .rules import Rules, _Identity, _Linear, _Scale

#: Autograd functions whose backward pass is a rule.
KNOWN = (_Identity, _Linear, _Scale, _LargerHalf)


@attributor(
    name="attnlrp",
    paper="Achtibat et al., ICML 2024, arXiv 2402.05602; gammas of Grinberg et al., Interspeech 2025, arXiv 2506.03425",
    needs=["gradients", "attention"],
)
def attnlrp(view: View, *, conv_gamma: float = 10.0, linear_gamma: float = 0.1, epsilon: float = 1e-6) -> Attribution:
    """Layer-wise relevance propagation with rules for attention: softmax by Taylor expansion, products by halves.

    `rules` has the table. gamma is 10 for convolutions and 0.1 for linear layers, as a reproduction of Grinberg et al. says
    that paper did (UNVERIFIED; there for Conv1d, here for all). 0 is the epsilon rule, and then a network without biases,
    softmax and sigmoids conserves the score.

    On the native route of a countermeasure with its tap behind the transformer, relevance passes the back end alone:
    `--route grid` explains through the transformer. Raises Unsupported for a function without a rule.
    """
    model = view.private_model().requires_grad_(False)
    for layer in model.modules():
        layer.__dict__.pop("_conv_forward", None)  # `xaibench.backward.quicken` hides convolutions from the rules
    cut = _Cut(model)
    maps = []
    for part in view.inputs.split(view.batch_size):
        inputs = part.detach().clone().requires_grad_()
        with torch.enable_grad():
            with Rules(epsilon=epsilon, conv_gamma=conv_gamma, linear_gamma=linear_gamma):
                score = model(inputs)[:, 0]
            _refuse_unknown(score)
            at = inputs if cut.tensor is None else cut.tensor
            gradient, past = torch.autograd.grad(score.sum(), (at, inputs), allow_unused=True)
        if at is not inputs and past is not None:
            raise Unsupported("the model hears the recording past its spectrogram, where relevance would be lost")
        maps.append((at * gradient).sum(1).detach())
    frequency, time = cut.axes or view.axes
    return Attribution(torch.cat(maps), frequency, time, view.resolves)


class _Cut:
    """Begins the graph anew at what a model's only `LogPower` gives; `axes` are then its own."""

    def __init__(self, model: nn.Module) -> None:
        self.tensor: Tensor | None = None
        self.axes: tuple[Axis, Axis] | None = None
        spectra = [module for module in model.modules() if isinstance(module, LogPower)]
        if len(spectra) == 1:
            spectra[0].register_forward_hook(self._begin)

    def _begin(self, module: LogPower, args: tuple[Tensor], output: Tensor) -> Tensor:
        self.axes = module.grid.frequency, module.grid.time(args[0].shape[-1])
        self.tensor = output.detach().requires_grad_()
        return self.tensor


def _refuse_unknown(score: Tensor) -> None:
    """Raise Unsupported for an autograd function of somebody's own: its backward pass is no rule, and no mode sees it."""
    ahead: list[Any] = [score.grad_fn]
    seen = set(ahead)
    while ahead:
        node = ahead.pop()
        function = getattr(type(node), "_forward_cls", None)  # torch's own functions have none
        if function is not None and function not in KNOWN:
            raise Unsupported(f"AttnLRP has no rule for the autograd function {function.__name__}")
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                ahead.append(following)
