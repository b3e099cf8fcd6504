"""What the adapters share: a private leaf tensor, gradients in bounded batches, captum's expected warnings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from captum.attr import Attribution as Method
from torch import Tensor

from xaibench.passes import Passes
from xaibench.view import View

M = TypeVar("M", bound=Method)

#: The score is `(B, 1)`: its only column is the spoof log-odds.
SPOOF = 0

#: captum says these on every call. They announce what the call is for.
EXPECTED_WARNINGS = (
    r"Setting forward, backward hooks and attributes on non-linear",
    r"Setting backward hooks on ReLU activations",
)


def leaf(tensor: Tensor) -> Tensor:
    """A copy that takes gradients, so that no flag of the view's own tensor changes."""
    return tensor.detach().clone().requires_grad_()


def in_batches(method: M, view: View, *, record: Passes | None = None) -> M:
    """Let `method` take its gradients `view.batch_size` inputs at a time, or read them from a record that holds for them.

    captum puts all steps or draws of all utterances into one backward pass. Its own batching options would cut the
    random draws too, and the draws would then depend on the batch size.
    """
    at_once = method.gradient_func

    def gradients(
        forward_fn: Callable[..., Tensor],
        inputs: tuple[Tensor, ...],
        target_ind: int | None = None,
        additional_forward_args: object = None,
    ) -> tuple[Tensor, ...]:
        if record is not None and target_ind == SPOOF and record.holds(forward_fn, inputs[0]):
            return (record.gradient(view.batch_size),)
        parts = [
            at_once(forward_fn, (part.detach().requires_grad_(),), target_ind, additional_forward_args)[0]
            for part in inputs[0].split(view.batch_size)
        ]
        return (torch.cat(parts),)

    method.gradient_func = gradients
    return method


def at_the_inputs(method: M, view: View) -> M:
    """As `in_batches`, for methods that take one gradient, at the view's own inputs: the view's record may have it."""
    return in_batches(method, view, record=view.passes)


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block captum's expected warnings are not shown; every other warning is.

    >>> with warnings.catch_warnings(record=True) as seen, quiet():
    ...     warnings.warn("Setting backward hooks on ReLU activations.", stacklevel=1)
    ...     warnings.warn("something else", stacklevel=1)
    >>> [str(w.message) for w in seen]
    ['something else']
    """
    with warnings.catch_warnings():
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        yield


def evidence(attribution: Tensor) -> Tensor:
    """Sum over channels: contributions of the parts of one cell add. Shape: `(B, C, F, T)` -> `(B, F, T)`."""
    return attribution.detach().sum(1)


def magnitude(gradient: Tensor) -> Tensor:
    """L2 norm over channels: on the grid it does not depend on the phase. Shape: `(B, C, F, T)` -> `(B, F, T)`."""
    return gradient.detach().norm(dim=1)
