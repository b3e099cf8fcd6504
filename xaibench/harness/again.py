"""How a metric gets the same method's map again: the same batch under a change, explained by the same method.

The recordings under a change, as the countermeasure sees them, and its randomised copies are kept by the workbench, so
that all methods of a batch share them. Every method gets its own copy of the model, changed or not: what it does to it
reaches nobody else.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

from torch import Tensor, nn

from xaibench.errors import XaibenchError
from xaibench.harness.plan import Chunk
from xaibench.harness.workbench import Prepared, Workbench
from xaibench.metrics.again import Again, Change, bonafide_logit, opposite, parse, perturb, redraw, shifted
from xaibench.passes import Passes
from xaibench.view import View, derive_seed

if TYPE_CHECKING:
    from xaibench.harness.cell import Explained

#: Batches of changed recordings that are kept: those that all metrics of ours together ask of one batch.
RECORDINGS_KEPT = 6
#: Randomised copies that are kept, of a countermeasure with fewer parameters than this; of a larger one a single copy.
COPIES_KEPT, MANY_PARAMETERS = 4, 20_000_000


def asker(
    bench: Workbench, chunk: Chunk, prepared: Prepared, explain: Callable[[Workbench, Prepared, str], Explained]
) -> Callable[[str], Again]:
    """A function from a change to the maps of the chunk's method under it. What was asked once is not explained twice.

    It raises what the method raises: Unsupported, Undefined, or anything else.
    """
    known: dict[str, Again] = {}

    def again(change: str) -> Again:
        if change not in known:
            view = changed_view(bench, chunk, prepared, change)
            model = view.private_model()
            own = replace(view, model=model, passes=view.passes and view.passes.under(view, model))
            made = explain(bench, replace(prepared, view=own), chunk.attributor)
            known[change] = Again(made.on_view, view.inputs)
        return known[change]

    return again


def changed_view(bench: Workbench, chunk: Chunk, prepared: Prepared, text: str) -> View:
    """The view of a prepared batch under a change. Its model may be shared, so methods get a copy."""
    return reduce(lambda view, change: _apply(bench, chunk, prepared, view, change), parse(text), prepared.view)


def _apply(bench: Workbench, chunk: Chunk, prepared: Prepared, view: View, change: Change) -> View:
    name = chunk.countermeasure
    if change.of_recording:
        if view is not prepared.view:
            raise XaibenchError(f"a recording is changed once; {change.text!r} would be the second change")
        key = ("again", name, chunk.route, view.ids, change.text)
        return bench.once(key, lambda: _heard(bench, chunk, prepared, change), most=RECORDINGS_KEPT)
    if change.name == "randomised":
        few = sum(p.numel() for p in view.model.parameters()) < MANY_PARAMETERS
        stages, own = bench.once(
            ("randomised", name, chunk.route, change.text), lambda: _randomised(bench, name, view.model, change),
            most=COPIES_KEPT if few else 1,
        )  # fmt: skip
        model = nn.Sequential(OrderedDict([(n, stages.get(n, stage)) for n, stage in view.model.named_children()]))
        return replace(view, model=model.eval(), intrinsic={n: own[n] for n in view.intrinsic})
    if change.name == "bonafide-logit":
        return bonafide_logit(view, bench.countermeasure(name).module.classes)
    return opposite(view) if change.name == "opposite" else shifted(view, change.values[0])


def _heard(bench: Workbench, chunk: Chunk, prepared: Prepared, change: Change) -> View:
    """The view of the recordings under a change; bona fide twins, references and truth are the batch's own."""
    before = prepared.view
    real, fake = bench.waveforms(chunk.pairs, bench.countermeasure(chunk.countermeasure).module.n_samples)
    other = perturb(fake, change, before.ids, grid=bench.spec.grid)
    view = bench.look(
        chunk.countermeasure, chunk.route, before.ids, (real, other), truth=before.truth, prior=before.prior
    )  # fmt: skip
    # Only the fill `mean` of the grid route depends on the recording, whose phases it has.
    fills = {n: view.fills[n] if n == "mean" else fill for n, fill in before.fills.items()}
    view = replace(view, model=before.model, fills=fills, references=before.references)
    return replace(view, passes=Passes.of(view, together=bool(before.passes and before.passes.together)))


def _randomised(
    bench: Workbench, countermeasure: str, model: nn.Module, change: Change
) -> tuple[Mapping[str, nn.Module], Mapping[str, Callable[[Tensor], Tensor]]]:
    """Front end and back end of a copy with redrawn parameters, those of them that `model` holds; and its own maps."""
    twin = copy.deepcopy(bench.countermeasure(countermeasure).module)
    names = [n for n, _ in model.named_children() if n in ("frontend", "backend")]
    stages = OrderedDict((n, getattr(twin, n)) for n in names)
    redraw(nn.Sequential(stages), change.values[0], derive_seed(bench.spec.seed, countermeasure))
    return stages, dict(getattr(twin, "intrinsic", {}))
