"""The rules of an attributor's map: its form, what it may depend on, and whether it is what the attributor declares.

Asked on the kit's toys (`xaibench.testing.toys`), or on one countermeasure (`xaibench check NAME --cm lcnn`). Where a rule
compares two maps, its number is the largest difference as a share of the largest value, and the tolerances are those by
which the harness withdraws a method from a board (`xaibench.harness.preflight`). How an attributor behaves beside its map
(state, memory, output) is in `xaibench.testing.manners`, what it declares in `xaibench.testing.declared`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from xaibench.errors import Undefined, Unsupported, XaibenchError, first_line
from xaibench.harness import form
from xaibench.harness.preflight import (
    BATCH_TOLERANCE,
    gap_of,
)
from xaibench.protocols import Attributor
from xaibench.testing import toys
from xaibench.testing.restoring import restored
from xaibench.testing.rules import Broken, NotApplicable, Seen, Subject, rule
from xaibench.testing.stages import LINEAR, explain, map_of, stages, values_of
from xaibench.types import Attribution
from xaibench.view import View

#: Two runs of one computation on one machine: rounding in another order, nothing else.
SAME = 1e-4
#: A map of the linear toy so small beside that of another is rounding: it has no curvature to speak of.
ROUNDING = 1e-3
#: Padding that the countermeasure ignores may get so much of what a cell of speech gets: patches straddle the border.
PADDING = 0.5


def of(subject: Subject) -> Attributor:
    """The attributor in hand. Raises NotApplicable for an object of another kind."""
    if not isinstance(subject.thing, Attributor):
        raise NotApplicable("it is no Attributor: see the rule `loads`")
    return subject.thing


# ---- form ------------------------------------------------------------------------------------------------------------


@rule("attributor", "runs", "It gives a map on every toy that offers its needs, or says why it cannot.")
def runs(subject: Subject) -> Seen:
    """The first rule: the others look at what came back."""
    of(subject)
    here, lines, ran = stages(subject), [], 0
    for stage in here.all:
        made = here.asked(stage)
        if isinstance(made, Exception) and not here.unsupported(stage):
            raise Broken(
                f"on {stage.name} it raised {type(made).__name__}: {first_line(made)}; expected a map, or Unsupported "
                f"with the reason where it cannot serve a countermeasure"
            ) from made
        ran += isinstance(made, Attribution)
        lines += [] if isinstance(made, Attribution) else [f"not on {stage.name}"]
    if not ran:
        reason = first_line(here.asked(here.all[0]))
        raise Broken(
            f"it gives a map on 0 of {len(here.all)} countermeasures, so nothing is checked ({reason}); if it is made for "
            f"one countermeasure, check it there: `xaibench check {subject.name} --cm NAME`, or checks_of(..., cm=...)"
        )
    return Seen(ran, "; ".join([f"a map on {ran} of {len(here.all)}", *lines]))


@rule("attributor", "real", "Its map is a real tensor of floating point.")
def real(subject: Subject) -> Seen:
    """No array, no complex or whole numbers."""
    for stage, made in stages(subject).answered:
        values = _judged(lambda made=made: form.real(subject.name, made.values), "return torch.from_numpy(...) or .abs()")
        if not values.dtype.is_floating_point:
            raise Broken(
                f"on {stage.name} its map is {values.dtype}, expected floating point: ranks or counts? call .float()"
            )
    return Seen(None, str(values.dtype).removeprefix("torch."))


@rule("attributor", "shape", "Its map is (B, F, T), frequency first, with the cells of its axes.")
def shape(subject: Subject) -> Seen:
    """On all toys, whose axes differ in length; a bare tensor lies on the view's axes."""
    here = stages(subject)
    for stage, made in here.answered:
        values = _judged(lambda made=made: form.real(subject.name, made.values), "return a tensor")
        likely = "are frequency and time swapped, or channels not summed?"
        _judged(lambda values=values, made=made: form.fitting(subject.name, values, made, 3), f"on {stage.name}; {likely}")
    stage = here.answered[0][0]
    one = explain(here.attributor, stage.view((0,)))
    _judged(lambda: form.fitting(subject.name, one.values, one, 1), "of one utterance; squeeze() without a dimension?")
    return Seen(len(here.answered), f"{tuple(values.shape)} on the last of {len(here.answered)}")


@rule("attributor", "finite", "Its map has no NaN and no infinity.")
def finite(subject: Subject) -> Seen:
    """On all toys."""
    likely = "divided by a sum or a maximum that can be zero?"
    for stage, made in stages(subject).answered:
        values = _judged(lambda made=made: form.real(subject.name, made.values), "return a tensor")
        _judged(lambda values=values, stage=stage: form.finite(subject.name, values), f"on {stage.name}; {likely}")
    largest = float(values.abs().max())
    return Seen(largest, f"largest value {largest:.3g}")


@rule("attributor", "axes", "Its axes lie on the view's, and what it says to resolve does differ along that axis.")
def axes(subject: Subject) -> Seen:
    """Kind, extent, and `resolves`; controls may be the same in every row or frame."""
    attributor, said = of(subject), []
    for stage, made in stages(subject).answered:
        view = stage.view()
        for name, mine, theirs in zip(("frequency", "time"), (made.frequency, made.time), view.axes, strict=True):
            if mine.kind != name:
                raise Broken(f"on {stage.name} its {name} axis is of kind {mine.kind!r}: are the two swapped?")
            beyond = max(theirs.edges[0] - mine.edges[0], mine.edges[-1] - theirs.edges[-1])
            cell = np.diff(mine.edges).max()
            if beyond > cell * (1 + 1e-9):
                raise Broken(
                    f"on {stage.name} its {name} axis ends at {mine.edges[-1]:.4g}, the view's at {theirs.edges[-1]:.4g}: "
                    f"in cells instead of {'Hz' if name == 'frequency' else 'seconds'}, or of another recording?"
                )
        unknown = made.resolves - {"frequency", "time"}
        if unknown:
            raise Broken(f"on {stage.name} it resolves {sorted(unknown)}; an axis is 'frequency' or 'time'")
        values = values_of(made)
        for dim, name, axis in ((1, "frequency", made.frequency), (2, "time", made.time)):
            claims, varies = name in made.resolves and len(axis) > 1, bool((values.amax(dim) > values.amin(dim)).any())
            if claims and not varies and bool(values.any()) and not attributor.control:
                raise Broken(
                    f"on {stage.name} it says to resolve {name}, and its map is the same in all {len(axis)} cells of that "
                    f"axis: leave {name!r} out of `resolves`"
                )
            if not claims and varies and len(axis) > 1:
                raise Broken(f"on {stage.name} its map differs along {name}, which is not in `resolves`: add it")
        said.append("+".join(sorted(made.resolves)) or "nothing")
    return Seen(None, f"resolves {', '.join(dict.fromkeys(said))}")


def _judged(judge, likely: str):
    try:
        return judge()
    except XaibenchError as error:
        raise Broken(f"{error} ({likely})") from error


# ---- what it may depend on -------------------------------------------------------------------------------------------


@rule("attributor", "seeded", "The same seed gives the same map, whatever was drawn before.")
def seeded(subject: Subject) -> Seen:
    """The generators of torch, numpy and `random` stand elsewhere at the second run."""
    here = stages(subject)
    stage, first = here.main
    with restored(seed=987_654):
        second = map_of(here.attributor, stage.view())
    gap = gap_of(first, second) if first.shape == second.shape else float("inf")
    if not gap <= SAME:
        raise Broken(
            f"two runs with one seed differ by {gap:.1%} of the largest value, expected at most {SAME:.0e}: it draws from a "
            f"global generator; draw from view.generator(i), or run under view.seeded(i)"
        )
    return Seen(gap, f"two runs differ by {gap:.1e}")


@rule("attributor", "twice", "Asked twice on one view, it says the same twice.")
def twice(subject: Subject) -> Seen:
    """What it keeps between calls, or does to the view, must not show."""
    here = stages(subject)
    stage, _ = here.main
    view = stage.view()
    first, second = map_of(here.attributor, view), map_of(here.attributor, view)
    gap = gap_of(first, second) if first.shape == second.shape else float("inf")
    if not gap <= SAME:
        raise Broken(
            f"the second of two runs on one view differs by {gap:.1%} of the largest value, expected at most {SAME:.0e}: it "
            f"keeps something between calls, draws without the view's seed, or changes the view"
        )
    return Seen(gap, f"two runs differ by {gap:.1e}")


@rule("attributor", "random-declared", "Its map changes with the seed exactly if it declares `random`.")
def random_declared(subject: Subject) -> Seen:
    """`random` says which rows of a board depend on the seed."""
    here = stages(subject)
    stage, first = here.main
    gap = max(gap_of(first, map_of(here.attributor, stage.view(seed=seed))) for seed in (1, 2))
    if gap > SAME and not here.attributor.random:
        raise Broken(f"another seed changes its map by {gap:.1%} of the largest value: declare random=True")
    if gap == 0 and here.attributor.random:
        raise Broken(
            "it declares random=True, and another seed changes nothing: declare random=False, or use the view's seed"
        )
    return Seen(gap, f"another seed changes {gap:.1%}")


@rule("attributor", "batch-invariance", "An utterance has the same map alone, in a batch, in any order and any size of it.")
def batch_invariance(subject: Subject) -> Seen:
    """A batch of three, two inputs at a time; each alone; another order; one input at a time."""
    here = stages(subject)
    stage, batch = here.main
    worst, where = 0.0, ""
    orders: list[tuple[str, Sequence[int], int]] = [
        *((f"utterance {row} alone", (row,), 2) for row in range(3)),
        ("another order", (2, 0, 1), 2), ("two of them, in reverse", (2, 1), 2), ("one input at a time", (0, 1, 2), 1),
    ]  # fmt: skip
    for what, rows, size in orders:
        found = map_of(here.attributor, replace(stage.view().select(rows), batch_size=size))
        for map_, row in zip(found, rows, strict=False):
            gap = gap_of(batch[row], map_) if map_.shape == batch[row].shape else float("inf")
            worst, where = (gap, what) if gap > worst else (worst, where)
    if not worst <= BATCH_TOLERANCE:
        raise Broken(
            f"{where} differs from the batch by {worst:.1%} of the largest value, expected at most {BATCH_TOLERANCE:.0%}: "
            f"it normalises or draws over the batch, or has only the first utterance's target; work on each (view.each())"
        )
    return Seen(worst, f"differs by {worst:.1e} over {len(orders)} other batches")


@rule(
    "attributor", "padding-invariance",
    "Silence appended to an utterance, to which the countermeasure does not listen, gets less than half as much a cell as "
    "speech does; a method that judges every cell for itself, without draws, gives the speech the same map as before.",
)  # fmt: skip
def padding_invariance(subject: Subject) -> Seen:
    """On a linear countermeasure twice as long, whose weights are zero in the second half: no method that needs layers, or
    ignores the countermeasure, promises anything there. The map of the speech is compared only where neighbouring cells
    differ and nothing is drawn: a method of patches cuts a longer map into other patches, random masks of it are others.
    """
    attributor = of(subject)
    if attributor.control:
        raise NotApplicable("a control need not look at the countermeasure")
    short = LINEAR.view()
    try:
        before = map_of(attributor, short)
    except (Unsupported, Undefined) as reason:
        raise NotApplicable(f"asked of a linear countermeasure, which it cannot serve: {reason}") from reason
    if before.abs().max() <= ROUNDING * stages(subject).main[1].abs().max():
        raise NotApplicable("its map of a linear countermeasure is zero, but for rounding")
    after = map_of(attributor, _padded(short))
    frames = before.shape[2]
    if after.shape[1:] != (before.shape[1], 2 * frames):
        raise NotApplicable("its map is not on the view's axes")
    speech, padding = after[..., :frames], after[..., frames:]
    share = float(padding.abs().mean() / speech.abs().mean().clamp_min(1e-30))
    patchy = float((before[..., 1:] == before[..., :-1]).double().mean()) > 0.5
    if not share <= PADDING:
        raise Broken(
            f"silent padding that the countermeasure ignores gets {share:.1%} of what a cell of speech gets, expected at "
            f"most {PADDING:.0%}: does it follow the input more than the countermeasure, smear over all frames, or draw too "
            "few samples?"
        )
    if patchy or attributor.random:
        what = "patches are others in a longer map" if patchy else "a longer map has other draws"
        return Seen(share, f"padding gets {share:.1%} of speech; {what}, so the speech's is free")
    gap = gap_of(before, speech)
    if not gap <= BATCH_TOLERANCE:
        raise Broken(
            f"with silent padding the map of the speech changes by {gap:.1%} of the largest value, expected at most "
            f"{BATCH_TOLERANCE:.0%}: it normalises over all cells, padding included"
        )
    return Seen(gap, f"padding gets {share:.1e} of speech, whose map changes by {gap:.1e}")


def _padded(short: View) -> View:
    """The linear toy's view, twice as long: silent frames without weight follow."""
    frames = short.shape[1]
    long = toys.LinearToy(
        torch.cat([toys.LinearToy().weight, torch.zeros(toys.SHAPE)], 1), n_samples=(2 * frames - 1) * toys.GRID.hop
    )  # fmt: skip
    view = toys.view_of(long)
    silence = short.fills["silence"][..., :1]

    def pad(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, silence.expand(len(tensor), -1, -1, frames)], 3)

    fills = {**view.fills, "silence": silence, "mean": short.fills["mean"], "twin": pad(short.fills["twin"])}
    return replace(view, inputs=pad(short.inputs), fills=fills, references=pad(short.references))


@rule("attributor", "needs", "What it declares to need is enough: it runs on a view that offers nothing else.")
def needs(subject: Subject) -> Seen:
    """Everything else is taken away: references, twins, truth, prior, layers, own maps, and gradients."""
    here = stages(subject)
    attributor = here.attributor
    stage, full = here.main
    bare = _bare(stage.view(), attributor.needs)
    declared = ", ".join(sorted(attributor.needs)) or "nothing"
    try:
        found = map_of(attributor, bare)
    except Exception as error:
        raise Broken(
            f"it declares to need {declared}, and on a view with just that it raised {type(error).__name__}: "
            f"{first_line(error)}; declare what it reads in `needs`, so that a board can say `unsupported`"
        ) from error
    gap = gap_of(full, found)
    if not gap <= BATCH_TOLERANCE:
        raise Broken(
            f"it declares to need {declared}, and without the rest its map changes by {gap:.1%} of the largest value"
        )
    return Seen(gap, f"{declared} is enough")


class _Opaque(nn.Module):
    """A model without gradients."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model(x)


def _bare(view: View, needs: frozenset[str]) -> View:
    fills = {name: fill for name, fill in view.fills.items() if name != "twin" or "twin" in needs}
    model = view.model if needs & {"gradients", "layers", "attention"} else _Opaque(view.model).eval()
    if "attention" not in needs:
        view = replace(view, attentions=(), attention_axes=None, lead=None, recordings=None)
    return replace(
        view, model=model, fills=fills, offers=frozenset(needs),
        references=view.references if "references" in needs else view.references[:0],
        truth=view.truth if "truth" in needs else None, prior=view.prior if "prior" in needs else None,
        layers=view.layers if "layers" in needs else (), intrinsic=view.intrinsic if "intrinsic" in needs else {},
    )  # fmt: skip
