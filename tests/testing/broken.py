"""Attributors that each break one rule of the kit, and are well-behaved otherwise: what `test_attributor_rules` asks."""

from __future__ import annotations

import os
import random
import sys
import warnings

import numpy as np
import torch
from torch import Tensor

from xaibench.errors import XaibenchError
from xaibench.protocols import Attributor, attributor
from xaibench.types import Attribution, Axis
from xaibench.view import View

BROKEN: dict[str, tuple[Attributor, str]] = {}


def gradient(view: View) -> Tensor:
    """Gradient times difference to the mean."""
    x = view.inputs.clone().requires_grad_()
    (grad,) = torch.autograd.grad(view.model(x).sum(), x)
    return ((view.inputs - view.fill("mean")) * grad).sum(1)


def breaks(rule: str, message: str, **facts):
    """Register an attributor made from a function of a view under the rule it breaks, with what the kit must say."""
    settings = {"needs": ["gradients"], "paper": "none: made to break a rule", **facts}

    def register(function):
        BROKEN[f"{rule}: {function.__name__}"] = (attributor(name="broken", **settings)(function), message)
        return function

    return register


# ---- form


@breaks("runs", r"on the conv toy it raised ZeroDivisionError: .* by zero; expected a map, or Unsupported")
def raises(view):
    """Raises."""
    return view.inputs / (1 // 0)


@breaks("runs", r"map on 0 of \d countermeasures, so nothing is checked .*--cm NAME", needs=["layers", "modules", "prior"])
def for_one_countermeasure(view):
    """Looks for a layer that no toy has."""
    view.require(frozenset({"no such need"}), "it")


@breaks("runs", r"it called sys\.exit\(3\); a method returns a map or raises")
def exits(view):
    """Ends the process."""
    sys.exit(3)


@breaks("real", r"returned ndarray, expected a real tensor .*torch\.from_numpy")
def array(view):
    """A numpy array."""
    return gradient(view).numpy()


@breaks("real", r"returned complex values \(torch\.complex64\)")
def complex_numbers(view):
    """Complex."""
    return torch.complex(gradient(view), gradient(view))


@breaks("real", r"its map is torch\.int64, expected floating point")
def whole_numbers(view):
    """Counts."""
    return gradient(view).mul(1000).long()


@breaks("shape", r"returned shape \(3, 51, 33\), expected \(B, F, T\) = \(3, 33, 51\).*swapped")
def transposed(view):
    """Time first."""
    return gradient(view).transpose(1, 2)


@breaks("shape", r"returned shape \(33, 51\), expected \(B, F, T\) = \(1, 33, 51\).*squeeze")
def squeezed(view):
    """One utterance loses its dimension."""
    return gradient(view).squeeze(0)


@breaks("finite", r"returned NaN or infinity for \d+ cells .*divided by")
def not_a_number(view):
    """Zero over zero."""
    return gradient(view) / torch.zeros(len(view), *view.shape)


@breaks("axes", r"its frequency axis is of kind 'time': are the two swapped")
def swapped_axes(view):
    """Time as frequency."""
    return Attribution(gradient(view).transpose(1, 2), view.axes[1], view.axes[0])


@breaks("axes", r"its time axis ends at 51, the view's at .* in cells instead of seconds")
def cells_for_seconds(view):
    """Numbers of cells for edges."""
    return Attribution(gradient(view), view.axes[0], Axis("time", np.arange(view.shape[1] + 1)))


@breaks("axes", r"it says to resolve frequency, and its map is the same in all 33 cells")
def flat(view):
    """A map of time alone, spread over frequency, that does not say so."""
    return gradient(view).mean(1, keepdim=True).expand(-1, *view.shape).contiguous()


@breaks("axes", r"its map differs along frequency, which is not in `resolves`")
def modest(view):
    """Says that it resolves time alone, and does not."""
    return Attribution(gradient(view), *view.axes, resolves=frozenset({"time"}))


# ---- what it depends on


@breaks("seeded", r"two runs with one seed differ by \d+\.\d% .*view\.generator\(i\)", random=True)
def unseeded(view):
    """Draws from everybody's generator."""
    return gradient(view) * torch.rand(len(view), *view.shape)


CALLS: list[int] = []


@breaks("twice", r"the second of two runs on one view differs by .*keeps something between calls")
def drifts(view):
    """A moving average, as it were."""
    CALLS.append(1)
    return gradient(view) * (1 + 0.1 * len(CALLS))


@breaks("random-declared", r"another seed changes its map by .*declare random=True")
def secretly_random(view):
    """Draws as it should and does not say so."""
    return torch.stack([torch.rand(view.shape, generator=view.generator(i)) for i in range(len(view))])


@breaks("random-declared", r"another seed changes nothing: declare random=False", random=True)
def falsely_random(view):
    """Says that it draws."""
    return gradient(view)


@breaks("batch-invariance", r"utterance \d alone differs from the batch by .*normalises or draws over the batch")
def shared_scale(view):
    """The batch's maximum, not the utterance's."""
    values = gradient(view)
    return values / values.abs().max()


@breaks("batch-invariance", r"differs from the batch by .*first utterance's target")
def first_target(view):
    """One target for the whole batch: the others' maps are zero."""
    x = view.inputs.clone().requires_grad_()
    (grad,) = torch.autograd.grad(view.model(x)[0].sum(), x)
    return (x * grad).sum(1).detach()


@breaks("batch-invariance", r"one input at a time differs from the batch by")
def counts_inputs(view):
    """Its steps are as many as the inputs that go through the model together."""
    return gradient(view) + view.batch_size * view.inputs[:, 0]


@breaks("padding-invariance", r"silent padding that the countermeasure ignores gets \d+\.\d% of what a cell of speech gets")
def loudness(view):
    """Where the input is far from the mean, silence included."""
    return view.inputs[:, 0] * torch.sign(view.score(view.inputs))[:, None, None]


@breaks("padding-invariance", r"with silent padding the map of the speech changes by \d+\.\d%.*normalises over all cells")
def mean_of_all(view):
    """Divided by the mean size of a cell: padding makes speech look twice as important."""
    values = gradient(view)
    return values / values.abs().mean((1, 2), keepdim=True)


@breaks("needs", r"it declares to need gradients, and on a view with just that it raised .*declare what it reads in `needs`")
def needs_references(view):
    """Reads references and does not say so."""
    return gradient(view) + 0 * view.references[0].mean()


@breaks("needs", r"it declares to need nothing, and .* raised RuntimeError", needs=[])
def needs_gradients(view):
    """Takes gradients and does not say so."""
    return gradient(view)


@breaks("needs", r"it declares to need gradients, and without the rest its map changes by \d+\.\d% of the largest value")
def uses_references(view):
    """Another map where there are references, without a word."""
    return gradient(view) * (1 + len(view.references))


# ---- what it declares


@breaks("target-sensitivity", r"the opposite score changes its map by 0\.0e\+00 .*declare class_specific=False")
def deaf(view):
    """The gradient's size: blind to the sign."""
    return gradient(view).abs() - 0.01


@breaks("sign", r"the mean of its map is -\d\.\d\d of its size where the countermeasure hears spoof.*classes swapped")
def upside_down(view):
    """Positive for bona fide."""
    return -gradient(view)


@breaks("sign", r"the mean of its map is 0\.\d\d of its size where the countermeasure hears spoof and [01]\.\d\d elsewhere")
def anywhere_else(view):
    """Positive everywhere, and most where the countermeasure does not listen."""
    return gradient(view).abs().max() * 2 - gradient(view)


@breaks("signed", r"it declares signed=False, and its lowest value is -\d+\.\d% of the largest", signed=False)
def says_magnitudes(view):
    """Has a sign."""
    return gradient(view)


@breaks("signed", r"it declares signed=True, and no value on any toy is below zero")
def says_signed(view):
    """Has none."""
    return gradient(view).relu()


@breaks("completeness", r"its sum misses the score difference by \d+\.\d% \(median\), expected at most 5%", complete=True)
def incomplete(view, *, baseline="mean"):
    """Half of it."""
    return gradient(view) / 2


@breaks("no-op-input", r"for an input equal to its baseline the largest value is \d+\.\d% of the usual one")
def other_baseline(view, *, baseline="mean"):
    """Measures against another baseline than it says."""
    x = view.inputs.clone().requires_grad_()
    (grad,) = torch.autograd.grad(view.model(x).sum(), x)
    return ((view.inputs - view.fill("silence")) * grad).sum(1)


@breaks("options", r"with steps=21 \(default 20\) it raised IndexError: list index out of range; raise XaibenchError")
def brittle(view, *, steps=20):
    """Works with up to twenty steps."""
    return gradient(view) + 0 * [*range(20)][steps - 1]


# ---- manners


@breaks("model-unchanged", r"weights or buffers of the shared model differed .*private_model")
def trains(view):
    """Nudges a weight."""
    values = gradient(view)
    next(view.model.parameters()).data.mul_(1.01)
    return values


@breaks("model-unchanged", r"mode \(train or eval\) of the shared model")
def train_mode(view):
    """Leaves dropout on."""
    values = gradient(view)
    view.model.train()
    return values


@breaks("model-unchanged", r"number of hooks of the shared model")
def leaves_hooks(view):
    """Leaves a hook."""
    view.model.register_forward_hook(lambda *_: None)
    return gradient(view)


@breaks("model-unchanged", r"requires_grad or \.grad of the shared model")
def leaves_gradients(view):
    """Leaves parameters differentiable."""
    for parameter in view.model.parameters():
        parameter.requires_grad_(True)
    return gradient(view)


@breaks("model-unchanged", r"attributes of modules of the shared model")
def patches_forward(view):
    """Replaces a module's forward."""
    view.model.forward = type(view.model).forward.__get__(view.model)
    return gradient(view)


@breaks("rng-unchanged", r"torch's generator of the process differed .*view\.generator\(i\)")
def draws(view):
    """Draws, for nothing."""
    torch.rand(1)
    return gradient(view)


@breaks("rng-unchanged", r"numpy's generator and the generator of `random` of the process")
def seeds_others(view):
    """Seeds the others."""
    np.random.seed(0)
    random.seed(0)
    return gradient(view)


@breaks("settings-unchanged", r"torch's default dtype of the process differed from before: it set one for everybody")
def double(view):
    """Double precision, for all."""
    values = gradient(view)
    torch.set_default_dtype(torch.float64)
    return values


@breaks("settings-unchanged", r"environment variables of the process differed from before")
def announces(view):
    """A variable of the environment, for all."""
    os.environ["XAIBENCH_BROKEN"] = str(int(os.environ.get("XAIBENCH_BROKEN", "0")) + 1)
    return gradient(view)


@breaks("settings-unchanged", r"warnings filters of the process")
def hushes(view):
    """No more warnings, for all."""
    warnings.simplefilter("ignore", FutureWarning)
    return gradient(view)


@breaks("view-unchanged", r"inputs of the view differed from before: it wrote into what every method reads")
def in_place(view):
    """Scales the view's own tensor."""
    values = gradient(view)
    view.inputs.mul_(0.5)
    return values


@breaks("view-unchanged", r"inputs of the view differed")
def requires_gradient(view):
    """Turns the view's own tensor into a leaf."""
    view.inputs.requires_grad_()
    return gradient(view)


@breaks(
    "unchanged-after-exception",
    r"after an exception in the forward pass, these differed .*number of hooks \(model\)",
)
def no_finally(view):
    """Takes its hook away unless something is raised."""
    view.model.eval()
    handle = view.model.register_forward_hook(lambda *_: None)
    values = gradient(view)
    handle.remove()
    return values


@breaks("unchanged-after-exception", r"the countermeasure raised in its forward pass, and it returned a map all the same")
def swallows(view):
    """Zero where anything fails."""
    try:
        return gradient(view)
    except Exception:  # noqa: BLE001
        return torch.zeros(len(view), *view.shape)


@breaks("quiet", r"it printed \d+ characters \('explaining 3 utterances'\): remove the print")
def chatty(view):
    """Prints."""
    print(f"explaining {len(view)} utterances")  # noqa: T201
    return gradient(view)


KEPT: list[Tensor] = []


@breaks("memory", r"every one of 50 calls left 1 tensors and .* behind, expected none: does it append to a list")
def hoards(view):
    """Keeps every map."""
    values = gradient(view)
    KEPT.append(values)
    return values


HEAP: list[np.ndarray] = []


@breaks("memory", r"every one of 50 calls left 0 tensors and [67](\.\d)? KiB of other objects behind")
def hoards_arrays(view):
    """Keeps every map, as an array."""
    values = gradient(view)
    HEAP.append(values.numpy().copy())
    return values


@breaks("device", r"its map is on meta, the view's tensors on cpu: return it by \.to\(view\.device\)")
def elsewhere(view):
    """A map on another device."""
    return gradient(view).to("meta")


@attributor(name="well-behaved", paper="Shrikumar et al. 2016, arXiv 1605.01713", needs=["gradients"])
def well_behaved(view: View, *, baseline: str = "mean", scale: float = 1.0) -> Tensor:
    """Gradient times the difference to a baseline."""
    if scale <= 0:
        raise XaibenchError(f"scale is positive, got {scale}")
    x = view.inputs.clone().requires_grad_()
    (grad,) = torch.autograd.grad(view.model(x).sum(), x)
    return scale * ((view.inputs - view.fill(baseline)) * grad).sum(1)
