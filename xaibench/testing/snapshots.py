"""What a plugin's code may not change, before and after: `Facts` are labels with something to compare.

before = of_process()
...
changed(before, of_process())      the labels of what differs, in the words of a message
"""

from __future__ import annotations

import gc
import random
import threading
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xaibench.harness import guard
from xaibench.harness.preflight import state_of
from xaibench.view import View

Facts = Mapping[str, object]


def of_model(model: nn.Module) -> Facts:
    """What must not change of a countermeasure."""
    weights, modes, hooks, gradients = state_of(model)
    modules = list(model.named_modules(remove_duplicate=False))
    buffers = [b.detach().clone() for m in model.modules() for b in m._buffers.values() if b is not None]  # unsaved ones too
    return {
        "weights or buffers": (weights, buffers), "mode (train or eval)": modes, "number of hooks": hooks,
        "requires_grad or .grad": gradients, "modules": [(name, id(module), type(module)) for name, module in modules],
        "attributes of modules": [sorted(vars(module)) for _, module in modules],
    }  # fmt: skip


def of_module(model: nn.Module) -> Facts:
    """The same of a countermeasure that is no view's: tensors, too, that are attributes and no buffers."""
    plain = [t.detach().clone() for m in model.modules() for t in vars(m).values() if isinstance(t, Tensor)]
    return {**of_model(model), "tensors that are no buffers": plain}


def of_generators() -> Facts:
    """The states of the global generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "torch's generator": [torch.random.get_rng_state(), *cuda], "numpy's generator": np.random.get_state(legacy=False),
        "the generator of `random`": random.getstate(),
    }  # fmt: skip


def of_process() -> Facts:
    """Settings that everybody in the process shares."""
    return {
        **{f"torch's {name}": value for name, value in guard.settings().items()},
        **guard.surroundings(),
        "warnings filters": list(warnings.filters), "running threads": sorted(t.name for t in threading.enumerate()),
    }  # fmt: skip


def of_shared() -> Facts:
    """The generators of random numbers and the settings that everybody in the process shares."""
    return {**of_generators(), **of_process()}


def of_view(view: View) -> Facts:
    """The view's own tensors."""
    tensors = {"inputs": view.inputs, "references": view.references, "prior": view.prior, "energy": view.energy}
    tensors |= {"recordings": view.recordings, **{f"fill {name!r}": fill for name, fill in view.fills.items()}}
    if view.truth is not None:
        tensors |= {f"truth's {n}": getattr(view.truth, n) for n in ("values", "region", "valid")}
    there = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    return {name: (t.detach().clone(), t.requires_grad, t.grad is None) for name, t in there.items()}


def alive() -> int:
    """How many tensors there are."""
    gc.collect()
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


def changed(before: Facts, after: Facts) -> list[str]:
    """The labels of what differs."""
    return [label for label, value in before.items() if not _equal(value, after[label])]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor | np.ndarray):
        return a.shape == b.shape and bool((a == b).all())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(v, b[k]) for k, v in a.items())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b
