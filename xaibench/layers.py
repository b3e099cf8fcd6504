"""Layers that attribution libraries understand.

Max-Feature-Map (Wu et al. 2018, arXiv 1511.02683, Eq. 1) is `max(a, b)` of two halves of the channels. Written as a bare
`torch.max` in `forward` no library sees it, and DeepLift and DeepSHAP are then wrong without a warning (completeness off
by about 90 %). So: one module instance a call, and a ReLU form `b + relu(a - b)`, equal to rounding, that the DeepLift
family swaps in for the duration of one explanation. LRP keeps the max form (winner takes all); on the ReLU form its
relevance explodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from xaibench.backward import Model, larger_half


class MaxFeatureMap(nn.Module):
    """Shape: `(B, 2C, ...)` -> `(B, C, ...)`, the element-wise maximum of the two halves of dimension 1.

    >>> import torch
    >>> MaxFeatureMap()(torch.tensor([[1.0, 5.0, 3.0, 2.0]])).tolist()
    [[3.0, 5.0]]
    """

    def forward(self, x: Tensor) -> Tensor:
        return larger_half(x)

    def deeplift_form(self) -> nn.Module:
        """The same function, with its only non-linearity an `nn.ReLU` that DeepLift has a rule for."""
        return ReLUMaxFeatureMap()


class ReLUMaxFeatureMap(nn.Module):
    """`b + relu(a - b)`: equals `MaxFeatureMap` up to rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        return b + self.relu(a - b)


@contextmanager
def deeplift_form(model: Model) -> Iterator[Model]:
    """Within the block, every sub-module that offers `deeplift_form()` is replaced by it; afterwards all is as before.

    >>> net = nn.Sequential(nn.Linear(3, 4), MaxFeatureMap())
    >>> with deeplift_form(net) as prepared:
    ...     type(prepared[1]).__name__
    'ReLUMaxFeatureMap'
    >>> type(net[1]).__name__
    'MaxFeatureMap'
    """
    swapped: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for parent in list(model.modules()):
            # not named_children(), which lists an instance used under two names only once
            for name, child in list(parent._modules.items()):
                form = getattr(child, "deeplift_form", None)
                if child is not None and form is not None:
                    swapped.append((parent, name, child))
                    setattr(parent, name, form().train(child.training))
        yield model
    finally:
        for parent, name, child in swapped:
            setattr(parent, name, child)
