"""What a call of a plugin that is no attributor may not change: the countermeasure and what everybody shares."""

from __future__ import annotations

from torch import Tensor, nn

from xaibench.testing.snapshots import Facts, of_generators, of_model, of_process


def of_module(model: nn.Module) -> Facts:
    """What a call may not change of a countermeasure, in the words of a message."""
    plain = [t.detach().clone() for m in model.modules() for t in vars(m).values() if isinstance(t, Tensor)]
    return {**of_model(model), "tensors that are no buffers": plain}


def surroundings() -> Facts:
    """The generators of random numbers and the settings that everybody in the process shares."""
    return {**of_generators(), **of_process()}
