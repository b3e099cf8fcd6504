"""The rules of what an attributor does beside its map: what it leaves changed, keeps, prints, and on which device it works.

Everything is compared before and after: the countermeasure (weights, buffers, modules, modes, hooks, gradients), the
generators of torch, numpy and `random`, the settings of the process, and the view's own tensors, bit by bit. The same again
after the countermeasure raised in the middle of the method's work: half-way through its passes, forwards and backwards.
"""

from __future__ import annotations

import contextlib
import gc
import io
import tracemalloc
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from xaibench import registry
from xaibench.errors import PluginError, XaibenchError
from xaibench.protocols import Attributor
from xaibench.testing.devices import on_another, on_device
from xaibench.testing.generic import import_of
from xaibench.testing.restoring import restored
from xaibench.testing.rules import Broken, NotApplicable, Seen, Subject, rule
from xaibench.testing.snapshots import alive, changed, of_generators, of_model, of_process, of_view
from xaibench.testing.stages import LINEAR, Stage, explain, stages
from xaibench.view import View

CALLS, WARM_UP = 50, 5
#: The calls of those that tracemalloc watches.
TRACED = 20
#: Bytes that may stay behind a call; a map of the toys has 6,732.
GROWTH = 4_096


def _around(view: View, call: Callable[[], object]) -> dict[str, list[str]]:
    """What a call changed, by group. Settings and generators are put back."""
    groups = {
        "model": lambda: of_model(view.model),
        "rng": of_generators,
        "settings": of_process,
        "view": lambda: of_view(view),
    }
    with restored():  # from a state that no method sets, so that one that sets it is seen
        before = {group: look() for group, look in groups.items()}
        call()
        after = {group: look() for group, look in groups.items()}
    return {group: changed(before[group], after[group]) for group in groups}


def _unguarded(attributor: Attributor, view: View) -> None:
    """The method on the view itself: nothing is put back, so that everything can be seen."""
    view.require(attributor.needs, "it")
    attributor(view)


def _after_a_call(subject: Subject) -> dict[str, list[str]]:
    def look() -> dict[str, list[str]]:
        here = stages(subject)
        stage, _ = here.main
        view = stage.view()
        return _around(view, lambda: _unguarded(here.attributor, view))

    return subject.once("changed", look)


def _held(found: list[str], what: str, cure: str) -> Seen:
    if found:
        raise Broken(f"after it ran, {' and '.join(found)} of {what} differed from before: {cure}")
    return Seen(0, "nothing changed")


@rule(
    "attributor", "model-unchanged", "The countermeasure's weights, buffers, modes, hooks and gradients stay as they were."
)
def model_unchanged(subject: Subject) -> Seen:
    """Of the shared `view.model`."""
    cure = "it worked on the shared model; work on view.private_model(), and remove hooks in a `finally`"
    return _held(_after_a_call(subject)["model"], "the shared model", cure)


@rule("attributor", "rng-unchanged", "It draws nothing from the generators that everybody shares.")
def rng_unchanged(subject: Subject) -> Seen:
    """torch, numpy, random."""
    cure = "it drew from, or seeded, a global generator; draw from view.generator(i), or run under view.seeded(i)"
    return _held(_after_a_call(subject)["rng"], "the process", cure)


@rule("attributor", "settings-unchanged", "Settings that the whole process shares stay as they were.")
def settings_unchanged(subject: Subject) -> Seen:
    """Default dtype, gradient mode, threads, warnings filters, working directory, environment ..."""
    cure = "it set one for everybody; set it in a `with` block (torch.no_grad(), warnings.catch_warnings())"
    return _held(_after_a_call(subject)["settings"], "the process", cure)


@rule("attributor", "view-unchanged", "The view's tensors stay as they were, bit by bit.")
def view_unchanged(subject: Subject) -> Seen:
    """Inputs, fills, references, truth, prior, energy; also their requires_grad and .grad."""
    cure = "it wrote into what every method reads (mul_, requires_grad_, backward()); take a clone first"
    return _held(_after_a_call(subject)["view"], "the view", cure)


class Injected(Exception):
    """Raised by the kit within a countermeasure."""


@rule("attributor", "unchanged-after-exception", "All of that holds, too, when the countermeasure raises in the middle.")
def unchanged_after_exception(subject: Subject) -> Seen:
    """Half-way through its passes, in a module in the middle of the model: forwards, then backwards."""
    here = stages(subject)
    stage, _ = here.main
    total = _calls(here.attributor, stage)
    if not total:
        raise NotApplicable("it never asks the countermeasure")
    for where in ("forward", "backward"):
        view = stage.view()
        raised: list[str] = []
        _plant(view, where, at=total // 2 + 1, raised=raised)
        ended: list[Exception] = []

        def call(view: View = view, ended: list[Exception] = ended) -> None:
            try:
                _unguarded(here.attributor, view)
            except Exception as error:  # noqa: BLE001 - ours, or whatever the method or its library made of it
                ended.append(error)

        found = [f"{', '.join(labels)} ({group})" for group, labels in _around(view, call).items() if labels]
        if found:
            raise Broken(
                f"after an exception in the {where} pass, these differed from before: {'; '.join(found)}; put things back "
                f"in a `finally`, or work on view.private_model()"
            )
        if raised and not ended:
            raise Broken(
                f"the countermeasure raised in its {where} pass, and it returned a map all the same: do not catch that"
            )
    return Seen(total, f"an exception in the middle of {total} passes changed nothing")


def _planted(model: nn.Module) -> nn.Module:
    """A module in the middle of a model, with parameters: libraries replace others."""
    leaves = [m for m in model.modules() if not any(True for _ in m.children())]
    chosen = [m for m in leaves if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Linear)][:-1] or leaves
    return chosen[len(chosen) // 2]


def _calls(attributor: Attributor, stage: Stage) -> int:
    """How often a module in the middle is called in one run; copies of the model count too."""
    view = stage.view()
    calls: list[None] = []

    def count(*_: object) -> None:
        calls.append(None)

    _planted(view.model).register_forward_hook(count)
    with contextlib.suppress(XaibenchError):
        explain(attributor, view)
    return len(calls)


def _plant(view: View, where: str, *, at: int, raised: list[str]) -> None:
    calls: list[None] = []

    def fail(*_: object) -> None:
        raised.append(where)
        raise Injected("the kit raised within the countermeasure")

    def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
        calls.append(None)
        if len(calls) == at and where == "forward":
            fail()
        if len(calls) >= at and where == "backward" and output.requires_grad:
            output.register_hook(fail)

    _planted(view.model).register_forward_hook(hook)


@rule("attributor", "quiet", "It prints nothing.")
def quiet(subject: Subject) -> Seen:
    """Neither to the standard output nor to the standard error; warnings are counted, not judged."""
    here = stages(subject)
    stage, _ = here.main
    out, view = io.StringIO(), stage.view()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            explain(here.attributor, view)
    printed = out.getvalue()
    if printed:
        line = printed.strip().splitlines()[0] if printed.strip() else repr(printed)
        raise Broken(
            f"it printed {len(printed)} characters ({line[:60]!r}): remove the print, or the library's progress bar"
        )
    return Seen(len(told), f"prints nothing, {len(told)} warnings")


@rule("attributor", "memory", f"{CALLS} calls leave nothing behind in memory.")
def memory(subject: Subject) -> Seen:
    """Live tensors, counted through the garbage collector, over all calls after a few; bytes of Python and numpy by
    tracemalloc, which is slow, over the last ones. One utterance, few steps.
    """
    here = stages(subject)
    answered = [stage for stage, _ in here.answered]
    stage = LINEAR if LINEAR in answered else answered[0]  # the fastest
    view, method = stage.view((0,)), _cheap(here.attributor, stage)
    gc.freeze()  # what was there before is neither visited nor counted
    tracing = tracemalloc.is_tracing()
    try:
        _call(method, view, WARM_UP)
        first = alive()
        _call(method, view, CALLS - TRACED)
        if not tracing:
            tracemalloc.start()
        _call(method, view, WARM_UP)  # what is kept for one call is replaced by the next
        alive()
        before = tracemalloc.get_traced_memory()[0]
        _call(method, view, TRACED - WARM_UP)
        tensors = (alive() - first) / CALLS
        growth = (tracemalloc.get_traced_memory()[0] - before) / (TRACED - WARM_UP)
    finally:
        if not tracing:
            tracemalloc.stop()
        gc.unfreeze()
    if tensors >= 0.5 or growth > GROWTH:
        raise Broken(
            f"every one of {CALLS} calls left {tensors:.2g} tensors and {growth / 1024:.2g} KiB of other objects behind, "
            f"expected none: does it append to a list, cache by view, keep a graph, or leave hooks behind?"
        )
    return Seen(growth, f"{tensors:.2g} tensors and {max(growth, 0):.0f} bytes a call stay")


def _call(method: Attributor, view: View, times: int) -> None:
    for _ in range(times):
        explain(method, view)


def _cheap(attributor: Attributor, stage: Stage) -> Attributor:
    """The same method with few steps, where it takes them."""
    whole = {n: v for n, v in attributor.options.items() if isinstance(v, int) and not isinstance(v, bool)}
    for most in (2, 4):
        cheap = attributor.with_options(**{n: min(v, most) for n, v in whole.items()})
        try:
            explain(cheap, stage.view((0,)))
        except Exception:  # noqa: BLE001 - too few for it
            continue
        return cheap
    return attributor


@rule("attributor", "device", "Its map is on the view's device; on a second device it works, and finds the same map.")
def device(subject: Subject) -> Seen:
    """The second device is a GPU where there is one, else one that computes on the CPU and refuses, as a GPU does, what was
    made on the wrong device (`xaibench.testing.second_device`), in the process in which the import was judged.
    """
    here = stages(subject)
    stage, made = here.answered[0]
    view = stage.view()
    on_device(made.values, view)
    if torch.cuda.is_available():
        gap, where = on_another(here.attributor, stage, "cuda"), "cuda"
    else:
        found = _second_device(subject)
        if found["broken"]:
            raise Broken(found["broken"])
        gap, where = found["number"], found["text"]
    return Seen(gap, f"on {view.device}; on {where}{'' if gap is None else f' it differs by {gap:.1e}'}")


def _second_device(subject: Subject) -> Mapping[str, Any]:
    """What became of it on the second device: `number`, `text`, and `broken`, the sentence where it breaks the rule."""
    nobody: dict[str, Any] = {"number": None, "broken": "", "text": "a second device it was not asked: no GPU is here, and "}
    if not subject.named or subject.cm is not None:
        why = "it was given as an object" if not subject.named else "the countermeasure is no toy"
        return {**nobody, "text": nobody["text"] + why}
    try:
        plugin = registry.find("attributors", subject.name)
    except PluginError as error:
        return {**nobody, "text": nobody["text"] + str(error)}
    found = import_of(plugin).get("second", {}).get(plugin.entry.attr)
    return found or {**nobody, "text": nobody["text"] + "its import failed in a fresh process"}
