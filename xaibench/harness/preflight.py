"""Checks of a countermeasure, and of each method on it, before anything is scored.

A pair of countermeasure and method that fails gets `void` rows with the sentence that says why: a wrong number without a
warning is worse than none. None of the checks is hypothetical: each of these faults was seen in a library or a model that
runs without complaint. What each asks is in `xaibench.harness.verdicts`, and so is how a verdict is kept and read.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from xaibench import audio
from xaibench.errors import Undefined, Unsupported, first_line, told
from xaibench.harness import verdicts
from xaibench.harness.cell import Explained, explain
from xaibench.harness.guard import guarded
from xaibench.harness.plan import interleave
from xaibench.harness.sizes import is_out_of_memory, is_poisoned
from xaibench.harness.verdicts import COUNTERMEASURE, FAILED, METHOD, NOT_APPLICABLE, PASSED, UNCHECKED, Check
from xaibench.harness.workbench import Prepared, Workbench
from xaibench.metrics.again import opposite
from xaibench.metrics.detection import equal_error_rate
from xaibench.project import project
from xaibench.protocols import Attributor, Countermeasure
from xaibench.scoring import score_recordings
from xaibench.types import Pair
from xaibench.view import View
from xaibench.weights import weights_hash

#: Largest tolerated difference between an utterance explained alone and in a batch, as a share of the largest value.
BATCH_TOLERANCE = 1e-2
#: Largest tolerated difference of a map asked for twice, likewise: rounding. On a CPU it is 0, on CUDA sums by atomics
#: (scatter_add, index_add, the backward pass of some poolings) have no fixed order.
REPEAT_TOLERANCE = 1e-5
#: Largest tolerated completeness gap of a method that declares completeness, as a share of the score difference.
COMPLETENESS_TOLERANCE = 0.05
#: Least change of a map when the other class is explained, as a share of its largest value.
TARGET_TOLERANCE = 1e-6
#: How different (relative) frontend + backend may be from the whole countermeasure.
CUT_TOLERANCE = 1e-4
#: How different a countermeasure's scores may be, alone and in a batch or asked twice, as a share of their spread.
SCORE_TOLERANCE = 1e-3
#: Utterances of which a countermeasure is asked again for these two checks.
AGAIN = 4

#: What libraries say where their numbers are not what the method's paper says (shap's DeepExplainer on layers it has no rule
#: for: github.com/shap/shap/issues/3415; torch's old backward hooks on a module of several operations).
WRONG_NUMBERS = ("unrecognized nn.Module", "This hook will be missing some grad_input")


@dataclass(frozen=True)
class Verdict:
    """`void` is empty when all is well; `measured` holds the numbers behind the checks, and `checks` all of them.

    `warnings` are what the method and its libraries said: warnings, prints, what was put back (`guard.Noise`). `unchecked`
    says why a method that raised was not judged; `changed`, that it left the countermeasure changed.
    """

    void: str = ""
    measured: dict[str, float] | None = None
    warnings: tuple[str, ...] = ()
    unchecked: str = ""
    changed: bool = False
    checks: tuple[Check, ...] = ()


def unjudged(why: str) -> Verdict:
    """Of a method that could not be judged."""
    return Verdict(unchecked=why, checks=tuple(Check(name, UNCHECKED, note=why) for name in METHOD))


class _Sheet:
    """Answers as they come in; `checks` gives them in the order of the questions, unasked ones as `unchecked`."""

    def __init__(self, questions: Sequence[str]) -> None:
        self._questions = tuple(questions)
        self._found: dict[str, Check] = {}

    def ask(self, name: str, good: bool, note: str = "", *, voids: bool = True) -> None:
        """A question that has no number. note: the sentence where it is not well."""
        self._found[name] = Check(name, PASSED if good else FAILED, note="" if good else note, voids=voids)

    def measure(self, name: str, value: float, tolerance: float, note: str, *, least: bool = False) -> None:
        """A number that must be at most, or at `least`, so large. NaN is not well."""
        good = value >= tolerance if least else value <= tolerance
        self._found[name] = Check(name, PASSED if good else FAILED, value, tolerance, "" if good else note)

    def without(self, name: str, why: str) -> None:
        """A question that has no meaning here."""
        self._found[name] = Check(name, NOT_APPLICABLE, note=why)

    def checks(self, why: str = "", *, rest: str = UNCHECKED) -> tuple[Check, ...]:
        """All of them. why: what kept the others from being asked; rest: their outcome."""
        return tuple(self._found.get(name, Check(name, rest, note=why)) for name in self._questions)


@contextmanager
def other_generators() -> Iterator[None]:
    """Within the block every generator of the process is in another state: what is seeded does not notice."""
    states, numpys, pythons = _states(), np.random.get_state(), random.getstate()
    torch.manual_seed(int(torch.initial_seed()) % 2**31 + 20_260_101)
    np.random.seed(20_260_101)
    random.seed(20_260_101)
    try:
        yield
    finally:
        _set_states(states)
        np.random.set_state(numpys)
        random.setstate(pythons)


def _states() -> list[Tensor]:
    """Of torch's own generators: the CPU's, then each card's, where cards are in use."""
    return [torch.random.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else ())]


def _set_states(states: list[Tensor]) -> None:
    torch.random.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])


def check_countermeasure(
    bench: Workbench, name: str, chosen: Sequence[Pair], *, inputs: int | None = None
) -> tuple[str, float | None, tuple[Check, ...]]:
    """Class order, tap and manners of a countermeasure. Returns the sentence (empty = well), its EER, pooled over the pairs,
    and all checks. The EER is None for scores that are not finite. inputs: at a time; by default as utterances a chunk.
    """
    inputs = inputs or bench.batch_size
    cm = bench.countermeasure(name).module
    files = list({u.path: u for p in chosen for u in p.halves}.values())
    if not any(u.bonafide for u in files):  # partially spoofed speech without twins: bona fide speech of the same split
        split = chosen[0].spoof.split
        others = interleave([u for u in bench.corpus.utterances if u.bonafide and u.split == split])
        files += others[: len(files)]
    recordings = [audio.read(u.path, sample_rate=bench.corpus.sample_rate) for u in files]
    sheet, eer, before = _Sheet(tuple(COUNTERMEASURE)), None, weights_hash(cm)
    training = sorted({type(m).__name__ for m in cm.modules() if m.training})
    sheet.ask("evaluation", not training, f"it is in train mode ({', '.join(training[:4])}): dropout and BatchNorm go on")
    scores = score_recordings(cm, recordings, device=bench.device, batch_size=inputs)
    wrong = int(np.count_nonzero(~np.isfinite(scores)))
    sheet.ask("answers", not wrong, f"it gives NaN or infinity as the score of {wrong} utterances")
    alike = not wrong and len(scores) > 1 and float(np.ptp(scores)) == 0
    if not wrong:
        sheet.ask(
            "decides", not alike,
            f"it gives every one of {len(scores)} utterances the same score, {scores[0]:.3g}: nothing is decided",
        )  # fmt: skip
    if not wrong and not alike:
        eer = equal_error_rate(
            [s for s, u in zip(scores, files, strict=True) if u.bonafide],
            [s for s, u in zip(scores, files, strict=True) if not u.bonafide],
        )
        margin = 0.5 / sum(u.bonafide for u in files) ** 0.5  # one standard deviation of guessing
        sheet.measure(
            "classes", eer, 0.5 + margin,
            f"its EER on these utterances is {eer:.0%}, worse than guessing: are the classes {list(cm.classes)} in the "
            f"right order?",
        )  # fmt: skip
        if eer <= 0.5 + margin:
            _scores_again(cm, recordings, scores, sheet, bench.device, inputs)
            some = np.stack([audio.fit(r, cm.n_samples) for r in recordings[: min(2, inputs)]])
            fake = torch.from_numpy(some).to(bench.device)
            gap = cut_gap(cm, fake)
            sentence = f"its tap is not a true cut: backend(frontend(x)) differs from the whole by {gap:.1e} (relative)"
            sheet.measure("cut", gap, CUT_TOLERANCE, sentence)
            twice = reused(cast(nn.Module, cm), fake[:1])
            sentence = f"{', '.join(twice[:4])} called more than once in a pass; methods that hook modules need copies"
            sheet.ask("reuse", not twice, sentence, voids=False)
    sheet.ask("weights", weights_hash(cm) == before, "scoring changes its weights or buffers")
    checks = sheet.checks("its scores say nothing")
    return verdicts.void(checks), eer, checks


def _scores_again(
    cm: Countermeasure, recordings: list[np.ndarray], scores: np.ndarray, sheet: _Sheet, device: torch.device, inputs: int
) -> None:
    """The first and the last recordings once more: in the same batch, and one window at a time."""
    some = sorted({*range(min(AGAIN, len(recordings))), len(recordings) - 1})
    heard, spread = [recordings[i] for i in some], float(np.std(scores))
    once = score_recordings(cm, heard, device=device, batch_size=inputs)
    with other_generators():
        again = score_recordings(cm, heard, device=device, batch_size=inputs)
    alone = score_recordings(cm, heard, device=device, batch_size=1)
    gap = float(np.abs(again - once).max()) / spread
    sentence = f"asked twice its scores differ by {gap:.1%} of their spread: is dropout on, or does it draw random numbers?"
    sheet.measure("repeat", gap, SCORE_TOLERANCE, sentence)
    gap = float(np.maximum(np.abs(alone - once), np.abs(alone - scores[some])).max()) / spread
    sentence = f"its scores alone and in a batch differ by {gap:.1%} of their spread: it mixes utterances"
    sheet.measure("batch", gap, SCORE_TOLERANCE, sentence)


@torch.no_grad()
def reused(cm: nn.Module, waveforms: Tensor) -> list[str]:
    """Names of leaf modules without parameters that one pass calls more than once: a ReLU or a pooling that is shared."""
    calls: dict[str, int] = {}

    def count(name: str) -> None:
        calls[name] = calls.get(name, 0) + 1

    plain = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)  # these do nothing
    leaves = [(n, m) for n, m in cm.named_modules() if n and not isinstance(m, plain)]
    leaves = [(n, m) for n, m in leaves if not any(True for _ in (*m.children(), *m.parameters()))]
    hooks = [m.register_forward_hook(lambda *_, n=n: count(n)) for n, m in leaves]
    try:
        cm(waveforms)
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name, times in calls.items() if times > 1]


@torch.no_grad()
def cut_gap(cm: Countermeasure, waveforms: Tensor) -> float:
    """How far `backend(frontend(x))` is from the whole, as a share of the largest logit. Waveforms `(B, N)`."""
    whole = cm(waveforms)
    return float((whole - cm.backend(cm.frontend(waveforms))).abs().max() / whole.abs().max().clamp_min(1e-12))


def check(bench: Workbench, prepared: Prepared, attributor_name: str) -> tuple[Verdict, Explained | None]:
    """Run a method on a batch and judge it. Also returns the maps, so that the run need not make them again.

    Its last utterance is explained alone, twice, and for the other class: a library that has the first one's gradient or
    target for the whole batch (captum 1276, pytorch-grad-cam 322) is right about the first.

    A countermeasure that the method changed is not usable afterwards: call `bench.forget` for a verdict with `changed`.
    """
    attributor = bench.attributor(attributor_name)
    sheet = _Sheet(tuple(METHOD))
    before = state_of(prepared.view.model)
    generators = _states()
    unchecked, rest, change, batch = "", UNCHECKED, None, None
    one = _last(prepared)
    try:
        batch = explain(bench, prepared, attributor_name)
        alone = explain(bench, one, attributor_name).on_view
        with other_generators():
            again = explain(bench, one, attributor_name).on_view
        if attributor.class_specific and not attributor.control and bool(alone.any()):
            change = _target_gap(bench, one, attributor, alone)
    except (Unsupported, Undefined) as reason:
        unchecked = first_line(reason)
        rest = NOT_APPLICABLE if isinstance(reason, Unsupported) else UNCHECKED
    except Exception as error:  # the cells will say `failed`, with the traceback
        if is_out_of_memory(error) or is_poisoned(error):
            raise
        unchecked = told(error)
        sheet.ask("map", False, unchecked, voids=False)  # its cells say so themselves
    after = state_of(prepared.view.model)
    for name, sentence, old, new in zip(_STATE, _STATE.values(), before, after, strict=True):
        sheet.ask(name, old == new, sentence)
    changed = after != before
    if any(not torch.equal(a, b) for a, b in zip(_states(), generators, strict=False)):
        _set_states(generators)
        sheet.ask("seed", False, "it consumed random numbers outside its own seed")
    elif not unchecked:
        sheet.ask("seed", True)
    if unchecked or batch is None:
        checks = sheet.checks(unchecked, rest=rest)
        return Verdict(verdicts.void(checks), unchecked=unchecked, changed=changed, checks=checks), None
    sheet.ask("map", True)
    gap = gap_of(alone, again)
    sentence = f"two maps of one utterance under one seed differ by {gap:.1%} of the largest value: it is random, not seeded"
    sheet.measure("repeat", gap, REPEAT_TOLERANCE, sentence)
    if len(prepared.view) > 1:
        gap = gap_of(batch.on_view[-1:], alone)
        sheet.measure(
            "batch", gap, BATCH_TOLERANCE,
            f"an utterance explained alone and in a batch differ by {gap:.1%} of the largest value: the method mixes "
            f"utterances, or is random and not seeded",
        )  # fmt: skip
    else:
        sheet.without("batch", "the batch is one utterance")
    if change is not None:
        sentence = "its map does not depend on which class is explained, though it says so"
        sheet.measure("target", change, TARGET_TOLERANCE, sentence, least=True)
    else:
        declared = attributor.class_specific and not attributor.control
        sheet.without("target", "the map is zero everywhere" if declared else "it says that the class does not matter")
    _completeness(prepared.view, batch.on_view, attributor, sheet)
    said = next((w for w in batch.warnings if any(words in w for words in WRONG_NUMBERS)), "")
    sheet.ask("warnings", not said, f"a library warned that its numbers are wrong: {said}")
    _distinct(batch.on_view, attributor, sheet)
    checks = sheet.checks()
    verdict = Verdict(verdicts.void(checks), verdicts.measured(checks), batch.warnings, changed=changed, checks=checks)
    return verdict, batch


#: What `state_of` looks at, and what is said where it is not as before.
_STATE = {
    "weights": "it changed the countermeasure's weights or buffers",
    "modes": "it left the countermeasure in another mode (train or eval)",
    "hooks": "it left hooks on the countermeasure",
    "gradients": "it left gradients on the countermeasure, or changed which parameters ask for them",
}


def _completeness(view: View, maps: Tensor, attributor: Attributor, sheet: _Sheet) -> None:
    baseline = baseline_of(attributor)
    if not attributor.complete:
        sheet.without("completeness", "it does not declare it")
    elif baseline not in view.fills:
        sheet.without("completeness", f"the view has no fill for its baseline {baseline!r}")
    else:
        gap = completeness_gap(view, maps, baseline)
        sentence = f"it declares completeness, but its sum misses the score difference by {gap:.0%} (median)"
        sheet.measure("completeness", gap, COMPLETENESS_TOLERANCE, sentence)


def _distinct(maps: Tensor, attributor: Attributor, sheet: _Sheet) -> None:
    """Zero maps, and maps that are equal although the utterances are not. Such cells are `undefined`, or simply wrong."""
    if attributor.control:
        sheet.without("distinct", "a control may give every utterance the same map")
        return
    flat = maps.flatten(1)
    zero = int((~flat.any(dim=1)).sum())
    same = len(flat) - len(torch.unique(flat, dim=0))
    words = f"{zero} of {len(flat)} maps are zero everywhere" if zero else f"{same} of {len(flat)} maps equal another's"
    sheet.ask("distinct", not zero and not same, words, voids=False)


def baseline_of(attributor: Attributor) -> str:
    """The fill a map is complete against: the option `baseline` or `fill`, or the twin a method needs; "" if none."""
    chosen = attributor.options.get("baseline", attributor.options.get("fill"))
    return str(chosen) if chosen is not None else "twin" if "twin" in attributor.needs else ""


def _last(prepared: Prepared) -> Prepared:
    last = prepared.view.select([len(prepared.view) - 1])
    return replace(prepared, view=last)  # its truth keeps the batch: only its axes are read


def gap_of(a: Tensor, b: Tensor) -> float:
    """The largest difference of two maps of one shape, as a share of the first one's largest value."""
    return float((a - b).abs().max() / a.abs().max().clamp_min(1e-30))


def _target_gap(bench: Workbench, one: Prepared, attributor: Attributor, alone: Tensor) -> float:
    """How much the map changes when the other class is explained."""
    view = bench.view_for(one, attributor)
    with guarded(attributor.name):
        other = attributor(opposite(view))
    return gap_of(alone, project(other, *view.axes).values.detach())


def completeness_gap(view: View, maps: Tensor, baseline: str) -> float:
    """How far the sum of maps `(B, F, T)` misses score(input) - score(baseline), as a share of it: the median."""
    view = replace(view, precision="fp32")  # as the map is
    wanted = view.score(view.inputs) - view.score(view.fill(baseline))
    gap = (maps.sum(dim=(1, 2)) - wanted).abs() / wanted.abs().clamp_min(1e-6)
    return float(gap.median())


def state_of(model: nn.Module) -> tuple[object, ...]:
    """What a method may not change of a countermeasure: weights, buffers, modes, hooks, gradients."""
    modules = list(model.modules())
    return (
        weights_hash(model),
        tuple(m.training for m in modules),
        tuple(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in modules),
        tuple((p.requires_grad, p.grad is None) for p in model.parameters()),
    )
