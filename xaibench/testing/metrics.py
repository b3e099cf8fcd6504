"""The rules of metrics: what every table and every test statistic takes for granted, asked on the maps of a planted toy.

Two sorts of map are known to be right there. Of the truth: the truth itself, and its halves (added, missing). Of the
countermeasure, whatever stands where cells are removed: gradient times (input - fill), which is exact, because the toy is
linear. The best of those that a metric's needs speak of must not lose to noise; a map without information must not win.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from xaibench.metrics.catalog import FILLS
from xaibench.metrics.evidence import Evidence
from xaibench.protocols import Metric
from xaibench.testing import evidences
from xaibench.testing.evidences import (
    DRAWS,
    ROWS,
    Method,
    constant,
    evidence,
    exact,
    half_of,
    moved,
    oracle,
    reverse,
    silent,
)
from xaibench.testing.restoring import restored
from xaibench.testing.rules import Broken, NotApplicable, Seen, Subject, rule
from xaibench.testing.snapshots import changed as differing
from xaibench.testing.snapshots import of_shared
from xaibench.truth import HALVES
from xaibench.view import View

FAMILIES = ("localisation", "faithfulness", "stability", "complexity", "sanity", "axioms")
NEEDS = frozenset({"truth", "forward", "explain", "frequency", "time"})
#: Largest difference between two answers to one question, as a share of the larger one (or of 1, if that is more).
SAME, NEAR = 1e-9, 1e-3
#: Standard errors by which chance may be missed, and what a closed form may be off by besides, as a share of it.
ERRORS, ROUGHLY = 4.0, 0.02
#: Every sort of map that a metric is asked about.
MAPS: dict[str, Method] = {
    "the truth": oracle, "the truth moved": moved, "the truth reversed": reverse, "noise": evidences.chance(0),
    "a constant": constant, "zero": silent, **{f"gradient x (input - {fill})": exact(fill) for fill in FILLS},
}  # fmt: skip
#: Right maps: of the truth, and of the countermeasure.
TRUE = {"the truth": oracle, **{f"what was {which}": half_of(which) for which in HALVES}}
USED = {name: method for name, method in MAPS.items() if name.startswith("gradient")}


def asked(subject: Subject, method: Method, rows: Sequence[int] = ROWS) -> Tensor:
    """What the metric says of a method's maps, on evidence of its own. Shape: `(B,)` float64."""
    return subject.thing.function(evidence(method, rows)).detach().double()


def said(subject: Subject, name: str) -> Tensor:
    """What it says of one of `MAPS` or `TRUE`, asked once. Raises what it raises."""
    return subject.once(f"says {name}", lambda: asked(subject, {**TRUE, **MAPS}[name]))


def mean(scores: Tensor) -> float:
    """Over the utterances where it is defined; NaN where none is."""
    return float(scores.nanmean())


def noise(subject: Subject) -> Tensor:
    """What it says of uniform noise, asked once. Shape: `(DRAWS, B)`."""
    return subject.once("noise", lambda: torch.stack([asked(subject, evidences.chance(draw)) for draw in range(DRAWS)]))


def best(subject: Subject) -> tuple[str, float]:
    """The right map that it likes best, and its score. Raises NotApplicable where no map is right or wrong for it."""
    metric: Metric = subject.thing
    right = {**(TRUE if "truth" in metric.needs else {}), **(USED if "forward" in metric.needs else {})}
    if not right:
        raise NotApplicable("it needs neither the truth nor answers of the countermeasure: no map is right or wrong for it")
    if "truth" not in metric.needs and "forward" in metric.needs:
        right = {**right, "the truth": oracle}  # the toy hears the truth and little else
    scores = {name: mean(said(subject, name)) for name in right}
    known = {name: score for name, score in scores.items() if not math.isnan(score)}
    if not known:
        raise Broken(f"it is undefined (NaN) for every right map: {', '.join(right)}; expected a number for one of them")
    first = max if metric.direction == "higher" else min
    name = first(known, key=known.__getitem__)
    return name, known[name]


def gain(metric: Metric, score: float, than: float) -> float:
    """By how much a score is better than another; below 0 where it is worse.

    >>> gain(Metric("m", "axioms", len, "lower", (0, 1), "", "", ""), 0.25, 0.75)
    0.5
    """
    return score - than if metric.direction == "higher" else than - score


@rule(
    "metric", "described", "It says what it is: family, paper, equation, range, needs, and when a good value means nothing."
)
def described(subject: Subject) -> Seen:
    """Also that family and needs are known, and that chance lies in the range."""
    metric: Metric = subject.thing
    empty = [name for name in ("paper", "equation", "misleads") if not getattr(metric, name).strip()]
    if empty:
        raise Broken(
            f"{' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty; expected a source, a formula, and one "
            "sentence on when a good value means nothing"
        )
    if metric.family not in FAMILIES:
        raise Broken(f"its family is {metric.family!r}; expected one of {', '.join(FAMILIES)}")
    unknown = sorted(set(metric.needs) - NEEDS)
    if unknown:
        raise Broken(f"it needs {', '.join(unknown)}; expected some of {', '.join(sorted(NEEDS))}")
    low, high = metric.range
    if not low < high:
        raise Broken(f"its range is ({low}, {high}); expected a lower and a higher end")
    if metric.chance is not None and not low <= metric.chance <= high:
        raise Broken(f"its chance value {metric.chance} lies outside its range ({low:g}, {high:g})")
    return Seen(metric.chance, f"{metric.family}, {metric.direction} is better, {low:g} to {high:g}, chance {metric.chance}")


@rule("metric", "shape", "It gives one floating-point number an utterance, finite or NaN.")
def shape(subject: Subject) -> Seen:
    """Of every sort of map: `MAPS`."""
    defined = 0
    for name, method in MAPS.items():
        scores = subject.thing.function(evidence(method))
        if not isinstance(scores, Tensor) or tuple(scores.shape) != (len(ROWS),) or not scores.is_floating_point():
            what = f"{scores.dtype} {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
            raise Broken(
                f"for 3 maps ({name}) it gives {what}; expected floats ({len(ROWS)},), one an utterance. A mean too many?"
            )
        if bool(scores.isinf().any()):
            raise Broken(f"for {name} it gives {scores.tolist()}; expected finite numbers, or NaN where it is undefined")
        defined += int(scores.isfinite().any())
    if not defined:
        raise Broken(f"it is undefined (NaN) for all of {', '.join(MAPS)}; expected a number for some map")
    return Seen(defined, f"defined for {defined} of {len(MAPS)} sorts of map")


@rule("metric", "range", "Every value lies in the range that it declares.")
def limits(subject: Subject) -> Seen:
    """Over all sorts of map and `DRAWS` draws of noise."""
    low, high = subject.thing.range
    scores = torch.cat([*(said(subject, name) for name in MAPS), noise(subject).flatten()])
    known = scores[scores.isfinite()]
    if not len(known):
        raise NotApplicable("it is undefined for every map of the toy")
    slack = 1e-6 * max(1.0, float(known.abs().max()))
    least, most = float(known.min()), float(known.max())
    if least < low - slack or most > high + slack:
        raise Broken(
            f"it gave values from {least:.6g} to {most:.6g}; it declares {low:g} to {high:g}. Figures are cut there"
        )
    return Seen(most, f"{len(known)} values from {least:.4g} to {most:.4g}, declared {low:g} to {high:g}")


@rule("metric", "direction", "A right map is at least as good as noise, in the direction that it declares.")
def direction(subject: Subject) -> Seen:
    """Mean over the utterances, against `DRAWS` draws of noise, less two standard errors."""
    metric: Metric = subject.thing
    name, score = best(subject)
    draws = noise(subject)
    floor, error = mean(draws), _error(draws)
    if math.isnan(floor):
        raise Broken("it is undefined (NaN) for uniform noise; expected a number")
    if gain(metric, score, floor) < -2 * error:
        raise Broken(
            f"{name} scores {score:.4g} and noise {floor:.4g}; expected the right map to be no worse, where "
            f"{metric.direction} is better. Is the direction declared the wrong way round, or positive taken for bona "
            "fide?"
        )
    return Seen(gain(metric, score, floor), f"{name} scores {score:.4g}, noise {floor:.4g}; {metric.direction} is better")


@rule("metric", "identity", "No moved or reversed truth scores better than the truth itself.")
def identity(subject: Subject) -> Seen:
    """Moved in a circle by a quarter or more (`controls.moved_truth`), or turned upside down."""
    metric: Metric = subject.thing
    if "truth" not in metric.needs:
        raise NotApplicable("it does not need the truth")
    name, score = best(subject)
    others = {other: mean(said(subject, other)) for other in ("the truth moved", "the truth reversed")}
    wrong = {other: value for other, value in others.items() if gain(metric, score, value) < -NEAR}
    if wrong:
        other, value = wrong.popitem()
        raise Broken(
            f"{other} scores {value:.4g}, {name} {score:.4g}; expected the truth to be the best. Is a sign lost, or an "
            "axis swapped?"
        )
    return Seen(score, f"{name} scores {score:.4g}, {', '.join(f'{other} {value:.3g}' for other, value in others.items())}")


@rule("metric", "constant-map", "A map of equal cells is undefined or no better than noise: ties earn nothing.")
def constant_map(subject: Subject) -> Seen:
    """Every order of equal cells is as likely as another."""
    return _uninformed(subject, "a constant", "Are ties broken by the order in memory, or is everything kept?")


@rule("metric", "zero-map", "A map of zeros is undefined or no better than noise: silence earns nothing.")
def zero_map(subject: Subject) -> Seen:
    """A method that says nothing must not win."""
    return _uninformed(subject, "zero", "Is 0 / 0 taken for 0? Return NaN where a map says nothing")


def _uninformed(subject: Subject, what: str, cause: str) -> Seen:
    metric: Metric = subject.thing
    name, score = best(subject)
    found, draws = mean(said(subject, what)), noise(subject)
    floor, error = mean(draws), _error(draws)
    if math.isnan(found):
        return Seen(None, f"{what} is undefined")
    half = floor + (score - floor) / 2
    if gain(metric, found, floor) > 2 * error and gain(metric, found, half) >= 0:
        raise Broken(
            f"{what} scores {found:.4g}, noise {floor:.4g} and {name} {score:.4g}; expected NaN or less than half of what "
            f"the right map has over noise. {cause}"
        )
    return Seen(found, f"{what} scores {found:.4g}, noise {floor:.4g}, {name} {score:.4g}")


def _error(scores: Tensor) -> float:
    """The standard error of a mean over draws; draws of one utterance are independent, utterances may not be."""
    known = scores[scores.isfinite()]
    return float(known.std()) / len(known) ** 0.5 if len(known) > 1 else 0.0


@rule("metric", "chance", "Noise scores the chance value that it declares.")
def chance(subject: Subject) -> Seen:
    """The mean of `DRAWS` draws of three utterances, within four standard errors and 2 %."""
    metric: Metric = subject.thing
    if metric.chance is None:
        raise NotApplicable("it declares no chance value")
    draws = noise(subject)
    found, error = mean(draws), _error(draws)
    if not abs(found - metric.chance) <= ERRORS * error + ROUGHLY * abs(metric.chance) + 1e-6:
        raise Broken(
            f"{draws.numel()} maps of noise score {found:.4g} on average (standard error {error:.2g}); it declares "
            f"{metric.chance:.4g}. The truth's region is 5 % of the valid cells here; None, where chance is no constant"
        )
    return Seen(found, f"{draws.numel()} maps of noise score {found:.4g} on average, declared {metric.chance:.4g}")


@rule("metric", "batch-invariance", "An utterance has the same value alone and in a batch.")
def batch_invariance(subject: Subject) -> Seen:
    """Noise, whose draws are fixed by the utterance, and gradient times input."""
    worst = 0.0
    for name in ("noise", f"gradient x (input - {FILLS[-1]})"):
        alone = torch.cat([asked(subject, MAPS[name], [row]) for row in ROWS])
        worst = max(worst, _gap(said(subject, name), alone))
    if not worst <= NEAR:
        raise Broken(
            f"alone and in a batch its values differ by {worst:.2g} (relative); expected at most {NEAR:g}. Does it divide "
            "by a maximum over the batch?"
        )
    return Seen(worst, f"alone and in a batch its values differ by {worst:.2g}")


@rule("metric", "deterministic", "The same evidence has the same value every time.")
def deterministic(subject: Subject) -> Seen:
    """On evidence made anew, while torch's own draws go on."""
    worst = 0.0
    for name in ("noise", f"gradient x (input - {FILLS[0]})"):
        worst = max(worst, _gap(said(subject, name), asked(subject, MAPS[name])))  # torch's own draws have gone on
    if not worst <= SAME:
        raise Broken(
            f"asked twice its values differ by {worst:.2g} (relative); expected the same. Seed draws by the utterance: "
            "xaibench.view.derive_seed"
        )
    return Seen(worst, f"asked twice its values differ by {worst:.2g}")


@rule("metric", "unit-invariance", "Three times the map has the same value: attributions have no unit.")
def unit_invariance(subject: Subject) -> Seen:
    """Also the maps that it has made again are three times as large."""
    if subject.thing.family == "axioms":
        raise NotApplicable("it asks a promise about the map's own unit")
    worst = 0.0
    for name in ("noise", f"gradient x (input - {FILLS[-1]})"):

        def thrice(view: View, once: Method = MAPS[name]) -> Tensor:
            return 3 * once(view)

        worst = max(worst, _gap(said(subject, name), asked(subject, thrice)))
    if not worst <= NEAR:
        raise Broken(
            f"for three times the map its values differ by {worst:.2g} (relative); expected at most {NEAR:g}. Divide by "
            "the map's own size, or rank it; no two methods share a unit"
        )
    return Seen(worst, f"for three times the map its values differ by {worst:.2g}")


def _gap(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to values beyond 1; infinite where one is NaN and the other is not."""
    if not torch.equal(one.isnan(), other.isnan()):
        return math.inf
    size = torch.maximum(one.abs(), other.abs()).clamp_min(1.0)
    return float(((one - other).abs() / size).nan_to_num(0.0).max())


class _Closed(nn.Module):
    """Stands for a countermeasure that may not be asked."""

    def forward(self, inputs: Tensor) -> Tensor:
        raise Broken("it asks the countermeasure, and does not declare the need `forward`: a run would price it as free")


@rule("metric", "needs", "What it does not declare to need can be taken away: truth, countermeasure, method.")
def needs(subject: Subject) -> Seen:
    """Where the need is not declared: the truth is another one, the countermeasure and the method raise."""
    metric: Metric = subject.thing
    name = "noise" if "forward" not in metric.needs else f"gradient x (input - {FILLS[-1]})"
    full = evidence(MAPS[name])
    taken: list[str] = []
    if "truth" not in metric.needs:
        other = full.truth.region.flip(1, 2) & full.truth.valid
        full = replace(full, truth=replace(full.truth, values=full.truth.values.flip(1, 2), region=other))
        taken.append("truth")
    if "explain" not in metric.needs:
        full = replace(full, again=None)
        taken.append("explain")
        if "forward" not in metric.needs:  # a method that explains again has the countermeasure anyway
            full.probe.view = replace(full.probe.view, model=_Closed())
            taken.append("forward")
    found = _gap(said(subject, name), metric.function(full).detach().double())
    if not found <= SAME:
        raise Broken(
            f"with another truth its values differ by {found:.2g}, and it does not declare the need `truth`: it would be "
            "asked where there is none"
        )
    return Seen(len(taken), f"the same without {', '.join(taken)}" if taken else "it declares to need everything")


@rule("metric", "evidence-unchanged", "It writes into nothing that it is given, and leaves the process as it was.")
def evidence_unchanged(subject: Subject) -> Seen:
    """Maps, truth, inputs, fills, references, weights; generators and settings."""
    given = evidence(MAPS["noise"])
    before = {name: t.clone() for name, t in _tensors(given).items()}
    with restored():
        around = of_shared()
        subject.thing.function(given)
        moved = differing(around, of_shared())
    changed = [name for name, t in before.items() if not torch.equal(t, _tensors(given)[name])] + moved
    if changed:
        raise Broken(
            f"it changed {', '.join(changed)}; expected all as before: every later metric is asked on the same evidence"
        )
    return Seen(len(before), f"{len(before)} tensors and the settings of the process are as before")


def _tensors(given: Evidence) -> dict[str, Tensor]:
    view, truth = given.probe.view, given.truth
    found = {
        "the map": given.attribution.values, "the truth": truth.values, "the truth's region": truth.region,
        "the valid cells": truth.valid, "the inputs": view.inputs, "the references": view.references,
        **{f"the fill {name}": fill for name, fill in view.fills.items()},
        **{f"the weights of {name}": p for name, p in view.model.named_parameters()},
    }  # fmt: skip
    return {name: t.detach() for name, t in found.items()}
