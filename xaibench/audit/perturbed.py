"""Scores under perturbation, for the meta-evaluation of metrics: made with the workbench, judged in `xaibench.audit.meta`.

Two tests, each with a minor and a disruptive strength and K draws of each:

    input   of the recording: noise 40 dB below every STFT cell, which nobody hears (`noise:40:k` of
            `xaibench.metrics.again`), and white noise as strong as the speech (`white:0:k`)
    model   of the countermeasure: every parameter times 1 + 0.001 n, n standard normal, as MetaQuantus has it; and every
            module's parameters drawn anew (`xaibench.metrics.again.redraw`)

Both the map and what the metric asks of the countermeasure (deletion, drop) are of what was perturbed. The truth, the bona
fide twin and the valid cells stay the pair's own, so a metric of localisation, which asks nothing, still sees other maps.
Methods keep their random draws, so that a change of score is due to the perturbation alone.

Deviations from metaquantus 0.0.5 that are made here:

- Its input test explains the unperturbed input and only scores on the perturbed one; the paper perturbs the explanation's
  input too, and so does this.
- Its disruptive model has parameters times 1 + 2 n (0.5 n for ImageNet). Redrawing has the same aim, forgets the sign and
  the order of the weights altogether, and is what the benchmark's own `mprt` does. Statistics of batch normalisation stay.
- Its noise is uniform on pixels (0.001 and 5.0); a recording's has a level relative to the speech.
- Metrics that themselves explain again (stability, sanity, input invariance) are refused: they would need maps under a
  change of a perturbed input or model, which the harness does not make.

Reference: Hedstroem et al., TMLR 2023, arXiv 2302.07265.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from xaibench.audit.meta import Scores, consistency
from xaibench.errors import Undefined, Unsupported, XaibenchError
from xaibench.harness.again import changed_view
from xaibench.harness.cell import explain
from xaibench.harness.plan import Chunk, batches
from xaibench.harness.workbench import Prepared, Workbench
from xaibench.metrics.again import redraw
from xaibench.metrics.catalog import QUICK
from xaibench.metrics.evidence import Evidence, Probe
from xaibench.protocols import Metric
from xaibench.types import Pair
from xaibench.view import View, derive_seed

#: One of each family of methods.
METHODS = ("saliency", "input-x-gradient", "integrated-gradients", "grad-cam", "lrp")
#: The quick preset, and of the other families that need no second explanation the cheap ones.
METRICS = tuple(dict.fromkeys((*QUICK, "aopc-morf-twin", "aopc-lerf-twin", "sparseness", "entropy", "effective-area")))
#: The map of which it is certain that it knows nothing: the floor of every metric.
FLOOR = "random"
#: Deviation of the factors of a minor perturbation of the model: the paper's.
FACTOR = 0.001
TESTS = ("input", "model")


def meta_evaluate(
    bench: Workbench, countermeasure: str, pairs: Sequence[Pair], *, methods: Sequence[str] = METHODS,
    metrics: Sequence[str] = METRICS, draws: int = 3,
) -> pd.DataFrame:  # fmt: skip
    """How far every metric can be trusted on one countermeasure: one row a metric and test.

    Columns: metric, family, test (input | model); IAC_NR, IAC_AR, IEC_NR, IEC_AR and their mean MC, all in [0, 1], higher
    is better (`xaibench.audit.meta`); IEC_floor, the IEC_AR that a random map in place of the method's would have; moved,
    the size of the minor changes in deviations of the scores; kept, the share of decisions that the minor perturbation left
    as they were; flipped, that the disruptive one turned; methods and pairs, how many had scores before. What a method or
    metric raised costs its own scores; the reasons are in `table.attrs["problems"]`.

    Raises XaibenchError without pairs, draws or two methods, and Unsupported for a metric that explains again.
    """
    if draws < 1 or len(set(methods)) < 2 or not pairs:
        raise XaibenchError(
            f"meta-evaluation needs pairs, two methods to rank and one draw: got {len(pairs)} pairs, methods "
            f"{', '.join(methods) or 'none'} and {draws} draws"
        )
    known = {name: bench.metric(name) for name in metrics}
    again = [name for name, metric in known.items() if "explain" in metric.needs]
    if again:
        raise Unsupported(f"{', '.join(again)} explain again by themselves, and cannot be asked under a perturbation")
    trouble: dict[str, int] = {}
    parts = [
        _scores(bench, countermeasure, part, methods, known, draws, trouble) for part in batches(pairs, bench.batch_size)
    ]
    rows = []
    for test in TESTS:
        for name, metric in known.items():
            scores = Scores.join([part[test, name] for part in parts])
            found = consistency(scores, higher=metric.direction == "higher")
            rows.append({"metric": name, "family": metric.family, "test": test, **found.record()})
    table = pd.DataFrame(rows)
    table.attrs["problems"] = tuple(f"{what} ({count} times)" for what, count in sorted(trouble.items()))
    return table


def _scores(
    bench: Workbench, countermeasure: str, part: Sequence[Pair], methods: Sequence[str], metrics: Mapping[str, Metric],
    draws: int, trouble: dict[str, int],
) -> dict[tuple[str, str], Scores]:  # fmt: skip
    """(test, metric) -> the scores of one batch of pairs."""
    route = bench.route(countermeasure)
    prepared = bench.prepare(countermeasure, route, part)
    before = _scored(bench, prepared, methods, metrics, trouble)
    floor = _scored(bench, prepared, (FLOOR,), metrics, trouble)
    decided = _spoof(prepared)
    result = {}
    for test in TESTS:
        made: dict[str, list[np.ndarray]] = {"minor": [], "disruptive": []}
        same: dict[str, list[np.ndarray]] = {"minor": [], "disruptive": []}
        for strength, other in _perturbed(bench, countermeasure, prepared, part, test, draws):
            made[strength].append(_scored(bench, other, methods, metrics, trouble))
            same[strength].append(_spoof(other) == decided)
        for i, name in enumerate(metrics):
            minor, disruptive = (np.stack(made[strength])[:, i] for strength in made)
            kept, flipped = np.stack(same["minor"]), ~np.stack(same["disruptive"])
            result[test, name] = Scores(before[i], floor[i, 0], minor, disruptive, kept, flipped)
    return result


def _perturbed(
    bench: Workbench, countermeasure: str, prepared: Prepared, part: Sequence[Pair], test: str, draws: int
) -> Iterator[tuple[str, Prepared]]:
    """The batch under every draw of a test: (`minor` | `disruptive`, what is looked at). One at a time is in memory."""
    chunk = Chunk(countermeasure, prepared.view.route, FLOOR, 0, tuple(part), (), ())
    for strength in ("minor", "disruptive"):
        for k in range(draws):
            if test == "input":
                view = changed_view(bench, chunk, prepared, f"{'noise:40' if strength == 'minor' else 'white:0'}:{k}")
            else:
                seed = derive_seed(bench.spec.seed, countermeasure, "meta", k)
                change = scaled if strength == "minor" else redrawn
                view = other_model(bench, countermeasure, prepared.view, partial(change, seed=seed))
            yield strength, replace(prepared, view=view, probe=Probe(view, prepared.probe.valid, bench.spec.fractions))


def _scored(
    bench: Workbench, prepared: Prepared, methods: Sequence[str], metrics: Mapping[str, Metric], trouble: dict[str, int]
) -> np.ndarray:
    """Every metric of every method's map of a batch, NaN where there is none; `trouble` counts what was raised.

    Shape: `(M, L, B)` float64.
    """

    def note(who: str, error: Exception) -> None:
        if not isinstance(error, Unsupported | Undefined):  # these two are answers
            what = f"{who}: {type(error).__name__}: {error}".splitlines()[0]
            trouble[what] = trouble.get(what, 0) + 1

    result = np.full((len(metrics), len(methods), len(prepared.view)), np.nan)
    for column, method in enumerate(methods):
        own = replace(prepared.view, model=prepared.view.private_model())
        try:
            made = explain(bench, replace(prepared, view=own), method)
        except Exception as error:  # noqa: BLE001 - what a method does on a spoiled countermeasure costs its own scores only
            note(method, error)
            continue
        evidence = Evidence(made.on_grid, made.on_view, prepared.truth, prepared.probe)
        for row, metric in enumerate(metrics.values()):
            if {"frequency", "time"} & metric.needs <= made.on_grid.resolves & prepared.truth.resolves:
                try:
                    result[row, column] = metric.function(evidence).double().cpu().numpy()
                except Exception as error:  # noqa: BLE001 - as above
                    note(f"{metric.name} of {method}", error)
    return result


def _spoof(prepared: Prepared) -> np.ndarray:
    """Which utterances the countermeasure calls spoofed: log-odds above 0. Shape: `(B,)` bool."""
    return (prepared.probe.untouched > 0).cpu().numpy()


def other_model(bench: Workbench, countermeasure: str, view: View, change: Callable[[nn.Module], object]) -> View:
    """The view of a copy of the countermeasure whose front end and back end `change` has changed in place.

    What the view adds around them (the way from the grid, the contrast of the logits) is the view's own.
    """
    twin = copy.deepcopy(bench.countermeasure(countermeasure).module)
    stages = OrderedDict((n, getattr(twin, n)) for n, _ in view.model.named_children() if n in ("frontend", "backend"))
    change(nn.Sequential(stages))
    model = nn.Sequential(OrderedDict([(n, stages.get(n, stage)) for n, stage in view.model.named_children()])).eval()
    own = dict(getattr(twin, "intrinsic", {}))
    return replace(view, model=model, intrinsic={n: own[n] for n in view.intrinsic})


@torch.no_grad()
def scaled(model: nn.Module, seed: int) -> None:
    """Multiply every parameter by 1 + 0.001 n, n standard normal, in place. The draw depends on its name and the seed."""
    for name, parameter in model.named_parameters():
        draw = torch.Generator().manual_seed(derive_seed(seed, "scaled", name))
        noise: Tensor = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
        parameter.mul_((1 + FACTOR * noise).to(parameter))


def redrawn(model: nn.Module, seed: int) -> None:
    """Draw the parameters of every module anew, in place (`xaibench.metrics.again.redraw`)."""
    redraw(model, 1.0, seed)
