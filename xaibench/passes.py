"""One forward and backward pass of a countermeasure, for all methods that read the same of it; and a count of passes.

Saliency and input x gradient read the gradient of the spoof log-odds s with respect to the inputs x; the Grad-CAM family
reads a layer's activation A and the gradient ds/dA. These are properties of the model and the batch, not of the method. A
record (`Passes`) makes them once, when first asked, and goes with the view.

A stale gradient would be wrong without a sign of it, so a record is believed only if `holds` says so: the very same model
with its weights, buffers, modules, modes and hooks untouched, and inputs that are bit-equal to those of the record. A
selection of utterances, a negated, shifted or randomised model and a copy of a model all fail that, and the method then
makes its own passes. Readers get copies: what one method writes, no other sees. (Writing through `.data`, and a replaced
`forward`, go unseen here; the hash of the weights in the preflight finds the first.)

Shapes: inputs and their gradient `(B, C, F, T)`, activation and gradient of a layer `(B, C', F', T')`, log-odds `(B,)`.
Sign: the score explained is the view's, higher = more spoofed. Everything is computed in the precision of the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from xaibench.errors import XaibenchError

if TYPE_CHECKING:
    from xaibench.view import View

#: Methods that read the gradient at the inputs. Only a hint which passes to make together; it never decides a number.
READ_INPUTS = frozenset({"saliency", "input-x-gradient"})
#: The mark on hooks that count passes and change none.
_COUNTS = "counts_passes"


@dataclass
class Count:
    """Utterances that went through a model forwards, and backwards; a backward pass that stops at a layer counts as one."""

    forwards: int = 0
    backwards: int = 0


@dataclass(frozen=True, eq=False)
class Recorded:
    """What one pass saw: log-odds `(B,)`, and gradient and activation of what was looked at (the inputs are their own)."""

    score: Tensor
    gradient: Tensor
    activation: Tensor

    def copy(self) -> Recorded:
        """The same in tensors of its own."""
        return Recorded(self.score.clone(), self.gradient.clone(), self.activation.clone())


@dataclass(frozen=True, eq=False)
class Passes:
    """The passes of one model at one batch of inputs, each made when first asked for. Make one with `Passes.of`.

    model, inputs: what the record is of; `inputs` is a copy, so that writing into the view's own cannot go unseen.
    together:      a layer recorded by the pass that goes back to the inputs: where methods of both kinds follow. Without
                   it a layer has a pass of its own, which stops at the layer and costs little more than a forward pass.
    made, given:   passes made, and passes that methods would have made without the record.
    """

    model: nn.Module
    inputs: Tensor
    together: str = ""
    made: Count = field(default_factory=Count)
    given: Count = field(default_factory=Count)
    _state: tuple[Any, ...] = field(default=(), repr=False)
    _known: dict[tuple[str, bool], Recorded] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, view: View, *, together: bool = False) -> Passes:
        """An empty record of a view. `together` expects readers of the inputs' gradient and of the last layer, both."""
        layer = view.layers[-1] if together and view.layers else ""
        return cls(view.model, view.inputs.detach().clone(), layer, _state=_state(view.model))

    def under(self, view: View, model: nn.Module) -> Passes | None:
        """The same record for a deep copy of the view's model, which the caller has just made: what one knows, both know.

        None where the record is not of that view.
        """
        if not self.holds(view.model, view.inputs):
            return None
        return Passes(model, self.inputs, self.together, self.made, self.given, _state(model), self._known)

    def holds(self, model: object, inputs: Tensor) -> bool:
        """Whether the record is of this model, unchanged since, and of these inputs `(B, C, F, T)`."""
        mine = self.inputs
        same = inputs.shape == mine.shape and inputs.dtype == mine.dtype and inputs.device == mine.device
        return same and model is self.model and torch.equal(inputs, mine) and _unchanged(self._state, _state(self.model))

    def gradient(self, at_once: int) -> Tensor:
        """ds/dx of every utterance, made `at_once` utterances at a time if it is not there yet. Shape: `(B, C, F, T)`."""
        self._give(backwards=True)
        return self._ask("", at_once, alone=False).gradient.clone()

    def layer(self, name: str, at_once: int, *, alone: bool = False, gradients: bool = True) -> Recorded:
        """Log-odds, activation and ds/dA of a layer of the model. Raises XaibenchError unless it runs once a pass.

        alone: made one utterance at a time, for formulas that amplify the rounding differences between batch sizes.
        gradients: False where the reader needs the activation alone; it decides what is counted as given.
        """
        self._give(backwards=gradients)
        return self._ask(name, at_once, alone=alone).copy()

    @property
    def saved(self) -> Count:
        """Passes that methods did not have to make."""
        return Count(self.given.forwards - self.made.forwards, self.given.backwards - self.made.backwards)

    def _give(self, *, backwards: bool) -> None:
        self.given.forwards += len(self.inputs)
        self.given.backwards += len(self.inputs) * backwards

    def _ask(self, name: str, at_once: int, *, alone: bool) -> Recorded:
        single = alone or at_once == 1
        found = self._known.get((name, single)) or (None if alone else self._known.get((name, True)))
        if found is None:
            both = bool(self.together) and name in ("", self.together) and (at_once == 1 or not alone)
            made = self._make(self.together if both else name, 1 if single else at_once, whole=both or not name)
            self._known.update({(layer, single): recorded for layer, recorded in made.items()})
            found = made[name]
        return found

    def _make(self, name: str, size: int, *, whole: bool) -> dict[str, Recorded]:
        """Passes of all utterances: `{layer: Recorded}`, the inputs under the empty name."""
        seen: list[Tensor] = []

        def watch(module: nn.Module, args: object, output: Tensor) -> Tensor:
            seen.append(output if whole else output.detach().requires_grad_())  # the graph may begin here
            return seen[-1].clone()  # what follows may work in place

        model = self.model
        if name:  # on a copy: a hook on the shared model would be seen by whoever uses it at the same time
            model = copy.deepcopy(model).requires_grad_(False)
            model.get_submodule(name).register_forward_hook(watch)
        parts: list[list[Tensor]] = []
        with torch.enable_grad():
            for part in self.inputs.split(size):
                seen.clear()
                x = part.clone().requires_grad_(whole)
                score = model(x)[:, 0]
                if name and len(seen) != 1:
                    raise XaibenchError(f"layer {name!r} ran {len(seen)} times in one pass, expected once")
                wanted = [x] * whole + seen
                found = torch.autograd.grad(score.sum(), wanted)
                parts.append([score.detach(), *found, *(t.detach() for t in seen)])
        self.made.forwards += len(self.inputs)
        self.made.backwards += len(self.inputs)
        score, *rest = (torch.cat(column) for column in zip(*parts, strict=True))
        recorded = {"": Recorded(score, rest.pop(0), self.inputs)} if whole else {}
        return recorded | ({name: Recorded(score, *rest)} if name else {})


def _state(model: nn.Module) -> tuple[Any, ...]:
    """What tells a touched model from an untouched one without reading its weights: objects, then plain facts of them."""
    modules = list(model.modules())
    tensors = [*model.parameters(), *model.buffers()]
    # The objects themselves, not their ids: an id is given again once its object is gone.
    objects = [*modules, *tensors, *(h for m in modules for h in _hooks(m))]
    versions = [(-1 if t.is_inference() else t._version, t.data_ptr()) for t in tensors]
    return objects, (versions, [m.training for m in modules])


def _hooks(module: nn.Module) -> Iterator[Callable[..., Any]]:
    for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks):
        yield from (h for h in hooks.values() if not hasattr(h, _COUNTS))


def _unchanged(before: tuple[Any, ...], now: tuple[Any, ...]) -> bool:
    (then, facts), (objects, others) = before, now
    return len(then) == len(objects) and all(a is b for a, b in zip(then, objects, strict=True)) and facts == others


@contextmanager
def count_passes(model: nn.Module) -> Iterator[Count]:
    """Counts, within the block, utterances through `model`, its deep copies made there, and models built from its stages.

    Forwards are counted where they enter its first stage, backwards where they leave its last one (of nested `nn.Sequential`
    the first of the first and the last of the last). A second derivative is not counted.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(6, 1))
    >>> with count_passes(model) as count:
    ...     model(torch.zeros(4, 1, 2, 3)).sum().backward()
    ...     _ = copy.deepcopy(model)(torch.zeros(3, 1, 2, 3))
    >>> count
    Count(forwards=7, backwards=4)
    """
    count = Count()

    # Plain functions: a deep copy of a model shares them, and with them the count; it would copy a bound method's object.
    def entering(module: nn.Module, args: tuple[Any, ...]) -> None:
        count.forwards += len(args[0])

    def backwards(gradient: Tensor) -> None:
        count.backwards += len(gradient)

    def leaving(module: nn.Module, args: object, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(backwards)

    for hook in (entering, leaving):
        setattr(hook, _COUNTS, True)
    handles = [
        _end(model, 0).register_forward_pre_hook(entering),
        _end(model, -1).register_forward_hook(leaving),
    ]  # fmt: skip
    try:
        yield count
    finally:
        for handle in handles:
            handle.remove()


def _end(model: nn.Module, which: int) -> nn.Module:
    while isinstance(model, nn.Sequential) and len(model):
        model = model[which]
    return model
