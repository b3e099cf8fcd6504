"""Checks of a countermeasure, and of each method on it, before anything is scored.

A pair of countermeasure and method that fails gets `void` rows with the sentence that says why: a wrong number without a
warning is worse than none. None of the checks is hypothetical: each of these faults was seen in a library or a model that
runs without complaint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from xaibench import audio
from xaibench.errors import Undefined, Unsupported, first_line, told
from xaibench.harness.cell import Explained, explain
from xaibench.harness.guard import guarded
from xaibench.harness.plan import interleave
from xaibench.harness.sizes import is_out_of_memory, is_poisoned
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
#: Largest tolerated completeness gap of a method that declares completeness, as a share of the score difference.
COMPLETENESS_TOLERANCE = 0.05
#: Least change of a map when the other class is explained, as a share of its largest value.
TARGET_TOLERANCE = 1e-6
#: How different (relative) frontend + backend may be from the whole countermeasure.
CUT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Verdict:
    """`void` is empty when all is well; `measured` holds the numbers behind the checks.

    `warnings` are what the method and its libraries said: warnings, prints, what was put back (`guard.Noise`). `unchecked`
    says why a method that raised was not judged; `changed`, that it left the countermeasure changed.
    """

    void: str = ""
    measured: dict[str, float] | None = None
    warnings: tuple[str, ...] = ()
    unchecked: str = ""
    changed: bool = False


def check_countermeasure(bench: Workbench, name: str, chosen: Sequence[Pair]) -> tuple[str, float | None]:
    """Class order and tap of a countermeasure. Returns the sentence (empty = well) and its EER, pooled over the pairs.

    The EER is None for scores that are not finite.
    """
    cm = bench.countermeasure(name).module
    files = list({u.path: u for p in chosen for u in p.halves}.values())
    if not any(u.bonafide for u in files):  # partially spoofed speech without twins: bona fide speech of the same split
        split = chosen[0].spoof.split
        others = interleave([u for u in bench.corpus.utterances if u.bonafide and u.split == split])
        files += others[: len(files)]
    recordings = [audio.read(u.path, sample_rate=bench.corpus.sample_rate) for u in files]
    scores = score_recordings(cm, recordings, device=bench.device, batch_size=bench.batch_size)
    if not np.isfinite(scores).all():
        return f"it gives NaN or infinity as the score of {np.count_nonzero(~np.isfinite(scores))} utterances", None
    if len(scores) > 1 and float(np.ptp(scores)) == 0:
        return f"it gives every one of {len(scores)} utterances the same score, {scores[0]:.3g}: nothing is decided", None
    eer = equal_error_rate(
        [s for s, u in zip(scores, files, strict=True) if u.bonafide],
        [s for s, u in zip(scores, files, strict=True) if not u.bonafide],
    )
    margin = 0.5 / sum(u.bonafide for u in files) ** 0.5  # one standard deviation of guessing
    if eer > 0.5 + margin:
        return (
            f"its EER on these utterances is {eer:.0%}, worse than guessing: are the classes {list(cm.classes)} in the "
            f"right order?"
        ), eer
    fake = torch.from_numpy(np.stack([audio.fit(r, cm.n_samples) for r in recordings[:2]])).to(bench.device)
    gap = cut_gap(cm, fake)
    if not gap <= CUT_TOLERANCE:
        return f"its tap is not a true cut: backend(frontend(x)) differs from the whole by {gap:.1e} (relative)", eer
    return "", eer


@torch.no_grad()
def cut_gap(cm: Countermeasure, waveforms: Tensor) -> float:
    """How far `backend(frontend(x))` is from the whole, as a share of the largest logit. Waveforms `(B, N)`."""
    whole = cm(waveforms)
    return float((whole - cm.backend(cm.frontend(waveforms))).abs().max() / whole.abs().max().clamp_min(1e-12))


def check(bench: Workbench, prepared: Prepared, attributor_name: str) -> tuple[Verdict, Explained | None]:
    """Run a method on a batch and judge it. Also returns the maps, so that the run need not make them again.

    A countermeasure that the method changed is not usable afterwards: call `bench.forget` for a verdict with `changed`.
    """
    attributor = bench.attributor(attributor_name)
    before = state_of(prepared.view.model)
    generator = torch.random.get_rng_state()
    unchecked, change, batch = "", None, None
    try:
        batch = explain(bench, prepared, attributor_name)
        alone = explain(bench, _first(prepared), attributor_name).on_view
        if attributor.class_specific and not attributor.control and bool(alone.any()):
            change = _target_gap(bench, prepared, attributor, alone)
    except (Unsupported, Undefined) as reason:
        unchecked = first_line(reason)
    except Exception as error:  # the cells will say `failed`, with the traceback
        if is_out_of_memory(error) or is_poisoned(error):
            raise
        unchecked = told(error)
    changed = state_of(prepared.view.model) != before
    problems = ["it changed the countermeasure's weights, mode, gradients or hooks"] if changed else []
    if unchecked or batch is None:
        return Verdict("; ".join(problems), unchecked=unchecked, changed=changed), None
    measured: dict[str, float] = {}
    if not torch.equal(torch.random.get_rng_state(), generator):
        problems.append("it consumed random numbers outside its own seed")
        torch.random.set_rng_state(generator)
    measured["batch_gap"] = gap = gap_of(batch.on_view[:1], alone)
    if not gap <= BATCH_TOLERANCE:
        problems.append(
            f"an utterance explained alone and in a batch differ by {gap:.1%} of the largest value: the method mixes "
            f"utterances, or is random and not seeded"
        )
    if change is not None:
        measured["target_gap"] = change
        if change < TARGET_TOLERANCE:
            problems.append("its map does not depend on which class is explained, though it says so")
    baseline = baseline_of(attributor)
    if attributor.complete and baseline in prepared.view.fills:
        measured["completeness_gap"] = gap = completeness_gap(prepared.view, batch.on_view, baseline)
        if not gap <= COMPLETENESS_TOLERANCE:
            problems.append(f"it declares completeness, but its sum misses the score difference by {gap:.0%} (median)")
    return Verdict("; ".join(problems), measured, batch.warnings, changed=changed), batch


def baseline_of(attributor: Attributor) -> str:
    """The fill a map is complete against: the option `baseline` or `fill`, or the twin a method needs; "" if none."""
    chosen = attributor.options.get("baseline", attributor.options.get("fill"))
    return str(chosen) if chosen is not None else "twin" if "twin" in attributor.needs else ""


def _first(prepared: Prepared) -> Prepared:
    return replace(prepared, view=prepared.view.select([0]))  # its truth keeps the batch: only its axes are read


def gap_of(a: Tensor, b: Tensor) -> float:
    """The largest difference of two maps of one shape, as a share of the first one's largest value."""
    return float((a - b).abs().max() / a.abs().max().clamp_min(1e-30))


def _target_gap(bench: Workbench, prepared: Prepared, attributor: Attributor, alone: Tensor) -> float:
    """How much the map changes when the other class is explained."""
    view = bench.view_for(_first(prepared), attributor)
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
