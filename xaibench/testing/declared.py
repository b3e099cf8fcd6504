"""The rules of what an attributor declares: class, sign, completeness, options.

Asked where `xaibench.testing.attributors` asks; `sign` knows the answer: a countermeasure that listens to one rectangle.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from xaibench.errors import Undefined, Unsupported, XaibenchError, told
from xaibench.harness.preflight import COMPLETENESS_TOLERANCE, TARGET_TOLERANCE, baseline_of, completeness_gap, gap_of
from xaibench.metrics.again import opposite
from xaibench.protocols import Attributor
from xaibench.testing import toys
from xaibench.testing.attributors import SAME, of
from xaibench.testing.rules import Broken, NotApplicable, Seen, Subject, rule
from xaibench.testing.stages import Stage, explain, map_of, stages, values_of
from xaibench.view import View

#: What is left where nothing differs from the baseline, as a share of the map's usual size.
NOTHING = 1e-3


@rule("attributor", "target-sensitivity", "Its map changes when bona fide is explained instead of spoof, if it says so.")
def target_sensitivity(subject: Subject) -> Seen:
    """`class_specific`; the negated log-odds are explained."""
    here = stages(subject)
    if here.attributor.control or not here.attributor.class_specific:
        raise NotApplicable("it declares class_specific=False" if not here.attributor.class_specific else "a control")
    most = 0.0
    for stage, made in here.answered:
        before = values_of(made)
        most = max(most, gap_of(before, map_of(here.attributor, opposite(stage.view()))) if before.any() else 0.0)
        if most >= TARGET_TOLERANCE:
            break
    if most < TARGET_TOLERANCE:
        raise Broken(
            f"the opposite score changes its map by {most:.1e} of the largest value: it does not depend on which class is "
            f"explained; take the view's score, not |score| or the loudest class, or declare class_specific=False"
        )
    return Seen(most, f"the opposite score changes {most:.1%}")


@rule("attributor", "sign", "Where the countermeasure hears spoof, and nowhere else, the map is positive and highest.")
def sign(subject: Subject) -> Seen:
    """A linear countermeasure listens to one rectangle, where the input is above every baseline and its weight speaks for
    spoof: a sensitivity, a gradient times input and a difference to a baseline all are positive there.
    """
    attributor = of(subject)
    if attributor.control or not attributor.class_specific:
        raise NotApplicable("a control" if attributor.control else "it declares class_specific=False")
    view, inside = _listens_here()
    try:
        found = map_of(attributor, view)
    except (Unsupported, Undefined) as reason:
        raise NotApplicable(f"asked of a linear countermeasure, which it cannot serve: {reason}") from reason
    if found.shape[1:] != inside.shape or not found.any():
        raise NotApplicable("its map of a linear countermeasure is zero, or not on the view's axes")
    size = float(found.abs().max())
    there, elsewhere = (float(found[:, cells].mean()) / size for cells in (inside, ~inside))
    if not (there > 0 and there > elsewhere):
        raise Broken(
            f"the mean of its map is {there:.2f} of its size where the countermeasure hears spoof and {elsewhere:.2f} "
            f"elsewhere: explain the score of view.model as it is, positive for spoof; are the classes swapped?"
        )
    return Seen(there, f"mean {there:.2f} of its size there, {elsewhere:.2f} elsewhere")


def _listens_here() -> tuple[View, Tensor]:
    """A view whose countermeasure listens to one rectangle, and that rectangle `(F, T)` bool."""
    inside = torch.zeros(toys.SHAPE, dtype=torch.bool)
    inside[10:20, 10:30] = True  # whole patches of methods that cut 33 x 51 cells in 8 x 10, roughly
    view = toys.view_of(toys.LinearToy(torch.where(inside, 0.05, 0.0), bias=0.1))
    for parameter in view.model.parameters():
        parameter.requires_grad_(False)
    low = torch.full_like(view.inputs, -1.0)
    fills = {"silence": low[:1], "mean": torch.zeros_like(view.fills["mean"]), "twin": low}
    inputs = 1 + 0.1 * view.inputs.clamp(-3, 3)
    return replace(view, inputs=inputs, fills=fills, references=low[:1].expand(len(view.references), -1, -1, -1)), inside


@rule("attributor", "signed", "Its map has values of both signs if it declares `signed`, else none below zero.")
def signed(subject: Subject) -> Seen:
    """Whether a board may read the sign."""
    here = stages(subject)
    maps = [values_of(made) for _, made in here.answered]
    lowest = min(float(m.min() / m.abs().max().clamp_min(1e-30)) for m in maps)
    if not here.attributor.signed and lowest < -SAME:
        raise Broken(f"it declares signed=False, and its lowest value is {lowest:.1%} of the largest: declare signed=True")
    if here.attributor.signed and lowest >= 0 and not here.attributor.control and any(m.any() for m in maps):
        raise Broken(
            "it declares signed=True, and no value on any toy is below zero: declare signed=False (magnitudes only), or "
            "keep the sign (no abs, no ReLU)"
        )
    return Seen(lowest, f"lowest value {lowest:.1%} of the largest")


@rule("attributor", "completeness", "Its map sums to score(input) - score(baseline), if it declares completeness.")
def completeness(subject: Subject) -> Seen:
    """Against the baseline of its options, the twin, or, for a method with references, the only one there is."""
    here = stages(subject)
    attributor = here.attributor
    if not attributor.complete:
        raise NotApplicable("it does not declare completeness")
    worst, where = 0.0, ""
    for stage, _ in here.answered:
        view, baseline = _against(attributor, stage)
        gap = completeness_gap(view, map_of(attributor, view).to(view.inputs), baseline)
        worst, where = (gap, stage.name) if gap > worst else (worst, where)
    if not worst <= COMPLETENESS_TOLERANCE:
        raise Broken(
            f"on {where} its sum misses the score difference by {worst:.1%} (median), expected at most "
            f"{COMPLETENESS_TOLERANCE:.0%}: too few steps, an operation without a rule (a bare torch.max), or a map scaled "
            f"afterwards"
        )
    return Seen(worst, f"the sum misses the score difference by {worst:.1e} (median)")


@rule("attributor", "no-op-input", "Where the input is the baseline itself, there is nothing to explain: the map is zero.")
def no_op_input(subject: Subject) -> Seen:
    """Of methods with a baseline: one that is complete, or has an option `baseline` or `fill`."""
    here = stages(subject)
    attributor = here.attributor
    if attributor.control or not (attributor.complete or {"baseline", "fill"} & set(attributor.options)):
        raise NotApplicable("it compares with no baseline")
    stage, usual = here.main
    view, baseline = _against(attributor, stage)
    found = map_of(attributor, replace(view, inputs=view.fill(baseline).clone()))
    left = float(found.abs().max() / usual.abs().max().clamp_min(1e-30))
    if not left <= NOTHING:
        raise Broken(
            f"for an input equal to its baseline the largest value is {left:.1%} of the usual one, expected at most "
            f"{NOTHING:.1%}: is the baseline used that it declares, and the map not scaled to a fixed size?"
        )
    return Seen(left, f"{left:.1e} of the usual size is left")


def _against(attributor: Attributor, stage: Stage) -> tuple[View, str]:
    """A view and the fill that the attributor's map is measured against. Raises NotApplicable where that is not known."""
    view, baseline = stage.view(), baseline_of(attributor)
    if baseline in view.fills:
        return view, baseline
    if "references" in attributor.needs:
        only = view.references[:1]
        return replace(view, references=only, fills={**view.fills, "the only reference": only}), "the only reference"
    raise NotApplicable("it names no baseline: give it an option `baseline` or `fill` with the name of a fill")


@rule(
    "attributor",
    "options",
    "It takes its options, given as their defaults, and others of the same type, or refuses clearly.",
)
def options(subject: Subject) -> Seen:
    """Every option: the default written out changes nothing; another value gives a map of the form, or XaibenchError."""
    here = stages(subject)
    attributor = here.attributor
    try:
        attributor.with_options(**{"no such option": 1})
    except XaibenchError:
        pass  # as it must
    else:
        raise Broken(
            "with_options took an option that it does not have; make it with the decorator xaibench.protocols.attributor"
        )
    if not attributor.options:
        raise NotApplicable("it has none, and refuses an unknown one")
    stage, usual = here.main
    gap = gap_of(usual, map_of(attributor.with_options(**attributor.options), stage.view()))
    if not gap <= SAME:
        raise Broken(f"its own defaults, given as options, change its map by {gap:.1%} of the largest value")
    tried = 0
    for name, value in attributor.options.items():
        for other in _others(value):
            view = stage.view((0,))
            try:
                made = explain(attributor.with_options(**{name: other}), view)
            except XaibenchError:
                continue  # refused, in words
            except Exception as error:
                raise Broken(
                    f"with {name}={other!r} (default {value!r}) it raised {told(error)}; "
                    f"raise XaibenchError with what is expected where a value cannot be"
                ) from error
            tried += 1
            if values_of(made).shape != (1, len(made.frequency), len(made.time)):
                raise Broken(f"with {name}={other!r} its map has shape {tuple(made.values.shape)}")
    return Seen(tried, f"{tried} other values of {len(attributor.options)} options")


def _others(value: object) -> list[object]:
    """Other values of the type of a default, near it."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [max(1, value // 2), value + 1]
    if isinstance(value, float):
        return [value / 2 + 0.01]
    return ["silence"] if value in ("mean", "twin") else []
