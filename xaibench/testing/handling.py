"""The rules of what a countermeasure survives: calls, copies, devices, a round trip through a file, fifty calls."""

from __future__ import annotations

import copy
import tempfile
import time
from pathlib import Path
from typing import cast

import torch
from torch import nn

from xaibench.protocols import Countermeasure
from xaibench.testing.countermeasures import SAME, built, gap, heard, logits, same, tensors
from xaibench.testing.restoring import restored
from xaibench.testing.rules import Broken, NotApplicable, Seen, Subject, rule
from xaibench.testing.snapshots import alive, changed, of_module, of_shared
from xaibench.weights import load_weights, read_card, save_weights

#: No-grad calls that must not add tensors; a countermeasure whose calls take long gets as many as fit in `SECONDS`.
CALLS, FEWEST, SECONDS = 50, 8, 3.0


@rule(
    "countermeasure",
    "state-unchanged",
    "A call, even one that fails, changes nothing: weights, mode, hooks, draws, settings.",
)
def state_unchanged(subject: Subject) -> Seen:
    """Also the waveforms it was given, the generators of random numbers and the settings of the process."""
    cm, waveforms = copy.deepcopy(built(subject)), heard(subject, 2)
    given = waveforms.clone()
    before = of_module(_network(cm))
    for what, argument in (("a call", waveforms), ("a call that failed", torch.zeros(2, 3, 4))):
        with restored():
            around = of_shared()
            try:
                logits(cm, argument)
            except Exception as error:
                if argument is waveforms:
                    raise
                what = f"{what} ({type(error).__name__})"
            moved = [*changed(before, of_module(_network(cm))), *changed(around, of_shared())]
        if moved:
            raise Broken(f"{what} changed {' and '.join(moved)}; expected all as before. Keep nothing in forward")
    if not torch.equal(waveforms, given):
        most = float((waveforms - given).abs().max())
        raise Broken(
            f"a call changed the waveforms it was given by up to {most:.2g}; expected them untouched. Does an operation "
            "work in place?"
        )
    return Seen(0, f"{len(before) + len(around)} things are as before, after a call and after one that failed")


@rule("countermeasure", "device", "It works wherever it is moved: no tensor stays behind on another device.")
def device(subject: Subject) -> Seen:
    """On a GPU where there is one, else on torch's fake tensors of one: shapes and devices without numbers."""
    cm, waveforms = built(subject), heard(subject, 2)
    if torch.cuda.is_available():
        moved = copy.deepcopy(cm).to("cuda")
        found = gap(logits(cm, waveforms), logits(moved, waveforms.cuda()).cpu())
        if not found <= 1e-2:
            raise Broken(f"on the GPU its logits differ by {found:.2g} from those on the CPU; expected at most 0.01")
        return Seen(found, f"logits on GPU and CPU differ by {found:.2g}")
    return Seen(None, f"its logits come out on {_elsewhere(cm)} (torch's fake tensors: no GPU is here)")


@torch.no_grad()
def _elsewhere(cm: Countermeasure) -> torch.device:
    """Run the countermeasure on the fake tensors of a GPU that is not there: shapes and devices without numbers."""
    from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

    try:
        with FakeTensorMode(allow_non_fake_inputs=False):
            there = {name: torch.empty(t.shape, dtype=t.dtype, device="cuda") for name, t in tensors(cm)}
            waveforms = torch.zeros(2, cm.n_samples, device="cuda")
            found = torch.func.functional_call(_network(cm), there, (waveforms,)).device
    except DataDependentOutputException as error:
        raise NotApplicable(f"what it does depends on numbers ({error}); ask where there is a GPU") from error
    except Exception as error:
        text = str(error).replace("\n", " ")
        if "same device" in text:
            raise Broken(f"{text}: a tensor is made on the CPU in forward; expected device=waveform.device") from error
        if "convert all Tensors to FakeTensors" in text:
            raise Broken(
                "a tensor that is neither parameter nor buffer is used in forward, and stays behind when the "
                "countermeasure is moved; expected register_buffer"
            ) from error
        raise NotApplicable(f"it cannot be asked without a GPU ({type(error).__name__}: {text[:80]})") from error
    if found.type != "cuda":
        raise Broken(f"moved to a GPU it answers on {found.type}; expected the device of the waveforms. Is there a .cpu()?")
    return found


@rule("countermeasure", "copies", "A deep copy answers alike, shares no memory, and its layers are its own.")
def copies(subject: Subject) -> Seen:
    """Methods work on private deep copies (`View.private_model`), whose hooks must not reach the original."""
    cm, waveforms = built(subject), heard(subject, 2)
    twin = copy.deepcopy(cm)
    mine, theirs = ({t.untyped_storage().data_ptr() for _, t in tensors(m) if t.numel()} for m in (cm, twin))
    if mine & theirs:
        raise Broken(
            f"{len(mine & theirs)} tensors of a deep copy are the original's own memory; expected none. A __deepcopy__?"
        )
    known = {id(m) for m in twin.modules()}
    foreign = [
        n for n, m in {**twin.layers, "frontend": twin.frontend, "backend": twin.backend}.items() if id(m) not in known
    ]
    if foreign:
        raise Broken(
            f"{', '.join(foreign)} of a deep copy are not among its own modules; hooks would go to the original. Return "
            "them by attribute in a property, not from a list made once"
        )
    return same(logits(cm, waveforms), logits(twin, waveforms), SAME, "a deep copy and the original", "State outside it?")


@rule("countermeasure", "round-trip", "Weights written as safetensors and read into a fresh one give the same logits.")
def round_trip(subject: Subject) -> Seen:
    """What is neither parameter nor buffer is lost in a checkpoint."""
    cm, waveforms, path = built(subject), heard(subject, 2), subject.thing.shipped()
    card = read_card(path) if path is not None else {}
    fresh = subject.thing.untrained(seed=1, **dict(card.get("options", {}))).eval()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        save_weights(file, cm)
        load_weights(fresh, file)
    return same(
        logits(cm, waveforms), logits(fresh, waveforms), SAME, "before and after a round trip through safetensors",
        "A number that matters is no parameter and no buffer",
    )  # fmt: skip


@rule("countermeasure", "memory", "Fifty calls without a gradient leave no tensors behind.")
def memory(subject: Subject) -> Seen:
    """Tensors alive are counted, after a first call that may fill caches."""
    cm, one = copy.deepcopy(built(subject)), heard(subject, 1)
    logits(cm, one)
    before, start, calls = alive(), time.monotonic(), 0
    while calls < FEWEST or (calls < CALLS and time.monotonic() - start < SECONDS):
        logits(cm, one)
        calls += 1
    more = alive() - before
    if more >= calls // 2:
        raise Broken(f"{calls} calls left {more} tensors alive; expected none. Does forward append to a list or a dict?")
    return Seen(more, f"{more} more tensors alive after {calls} calls")


def _network(cm: Countermeasure) -> nn.Module:
    """The countermeasure as what it is."""
    return cast(nn.Module, cm)
