"""From a chunk to its rows: explain, score, and keep every failure inside its own cells."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from xaibench.errors import RunError, Undefined, Unsupported, XaibenchError, first_line, told
from xaibench.harness.again import asker
from xaibench.harness.form import finite, fitting, real, scores
from xaibench.harness.guard import contained, guarded, listening, private_evidence
from xaibench.harness.plan import Chunk, cell_fingerprint
from xaibench.harness.sizes import is_out_of_memory, is_poisoned, lost_device, release, with_room
from xaibench.harness.warned import SCORING, Said
from xaibench.harness.workbench import Prepared, Workbench
from xaibench.metrics.catalog import METRICS
from xaibench.metrics.evidence import Evidence
from xaibench.metrics.undefined import UNKNOWN, why_undefined
from xaibench.precision import computed_in
from xaibench.project import density, project
from xaibench.protocols import Attributor, Metric
from xaibench.types import Attribution, Pair, Row, Truth


@dataclass(frozen=True, eq=False)
class Explained:
    """A method's maps of a batch, on the grid and on the view's own axes, and what they cost."""

    on_grid: Attribution
    on_view: Tensor
    seconds: float  # an utterance
    warnings: tuple[str, ...] = ()  # and what was printed, and put back: see `guard.Noise`

    def select(self, index: int) -> Explained:
        """The map of one utterance."""
        one = slice(index, index + 1)
        return replace(
            self, on_grid=replace(self.on_grid, values=self.on_grid.values[one]), on_view=self.on_view[one]
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Kept:
    """One utterance's map, for the disk: `values` `(F, T)` on the grid, what it resolves, and its curves `(S,)` by name."""

    pair: Pair
    values: Any  # a tensor; a numpy array on its way between processes
    resolves: tuple[str, ...]
    curves: Mapping[str, Any]


#: A pair's truth for the disk: `values`, `region` and `valid`, `(F, T)` each; tensors, or arrays as those of `Kept`.
KeptTruth = tuple[Pair, Any, Any, Any]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What comes back from a chunk: rows, maps when asked for, and a traceback when something failed.

    sizes: inputs at a time by then, as `Workbench.sizes` gives them: the chunk may have been computed in another process.
    said: what was warned and printed meanwhile, by whom.
    """

    rows: tuple[Row, ...]
    maps: tuple[Kept, ...] = ()
    truths: tuple[KeptTruth, ...] = ()
    error: str = ""
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    said: tuple[Said, ...] = ()


def explain(bench: Workbench, prepared: Prepared, method: str | Attributor) -> Explained:
    """Run a method, by name or itself, on a batch. Raises what it raises, and XaibenchError for a map of the wrong form."""
    attributor = bench.attributor(method) if isinstance(method, str) else method
    view = bench.view_for(prepared, attributor)
    view.require(attributor.needs, "it")  # the row names the method: one reason, one text
    started = time.perf_counter()
    with guarded(attributor.name, utterances=len(view)) as noise, computed_in("fp32", view.device.type):
        attribution = attributor(view)
    if view.device.type == "cuda":
        torch.cuda.synchronize(view.device)
    seconds = (time.perf_counter() - started) / len(view)
    # On this device, as it may have been made on the host; and a copy, as the method may write into its own the next time.
    values = real(attributor.name, attribution.values).to(view.device, torch.float32, copy=True)
    finite(attributor.name, fitting(attributor.name, values, attribution, len(view)))
    # A map cannot tell apart what its axes do not: an Attribution of the method's own making may forget to say so.
    blind = {a.kind for a in (attribution.frequency, attribution.time) if len(a) == 1}
    attribution = replace(attribution, values=values, resolves=attribution.resolves - blind)
    grid_axes = (bench.spec.grid.frequency, bench.spec.grid.time(_samples(bench, prepared)))
    bring = density if attributor.control else project
    on_view, on_grid = bring(attribution, *view.axes).values, bring(attribution, *grid_axes)
    for brought in (on_view, on_grid.values):
        if brought is not values and not brought.isfinite().all():
            raise XaibenchError(f"{attributor.name}: its map is too large, sums of its cells on other axes are infinite")
    return Explained(on_grid, on_view, seconds, noise.sentences)


def _samples(bench: Workbench, prepared: Prepared) -> int:
    """Samples behind the prepared truth's frames (the grid's time axis depends on nothing else)."""
    return (prepared.truth.values.shape[2] - 1) * bench.spec.grid.hop


def run_chunk(bench: Workbench, chunk: Chunk, run: str, *, void: str = "", explained: Explained | None = None) -> Outcome:
    """All rows of a chunk. Never raises for what a method, a metric or a file did wrong: that is a row's status.

    void: the sentence of a failed preflight; nothing is computed then.
    explained: maps made by the preflight of the same pairs, so that they are not made twice.

    When memory runs out, half as many inputs go through the model at a time, down to one; then one utterance at a time;
    only what is left then is `failed`. Raises RunError when the device itself is lost, as nothing can be computed then.
    """
    if void:
        return Outcome(tuple(_row(bench, chunk, run, i, m, status="void", note=void) for i, m in _cells(chunk)))
    try:
        return replace(_listened(bench, chunk, run, explained), sizes=bench.sizes)
    except Exception as error:
        if not is_poisoned(error):
            raise
        raise RunError(lost_device(error, bench.device, f"{chunk.attributor} on {chunk.countermeasure}")) from error


def _listened(bench: Workbench, chunk: Chunk, run: str, explained: Explained | None) -> Outcome:
    """`_computed`, with what was said over these utterances."""
    with listening(SCORING) as heard:
        heard.update(dict.fromkeys((chunk.attributor, text) for text in (explained.warnings if explained else ())))
        outcome = _computed(bench, chunk, run, explained)
    ids = tuple(p.id for p in chunk.pairs)
    return replace(outcome, said=(*(Said(by, text, ids) for by, text in heard), *outcome.said))


def _computed(bench: Workbench, chunk: Chunk, run: str, explained: Explained | None) -> Outcome:
    look = partial(bench.prepare, chunk.countermeasure, chunk.route, chunk.pairs)  # kept until memory runs out
    smaller = partial(bench.halve, chunk.countermeasure, chunk.route, chunk.attributor)
    made, starved = None, False
    try:
        truth = look().truth
        made = explained or with_room(lambda: explain(bench, look(), chunk.attributor), smaller, bench.device)
    except Unsupported as reason:
        return _all(bench, chunk, run, "unsupported", first_line(reason))
    except Undefined as reason:
        if len(chunk.pairs) == 1:
            return _all(bench, chunk, run, "undefined", first_line(reason))
    except Exception as error:  # whatever a plugin raises costs its own cells only
        if is_poisoned(error):
            raise
        bench.forget(chunk.countermeasure)  # the method may have stopped half-way through changing it
        starved = is_out_of_memory(error)
        if len(chunk.pairs) == 1:
            return replace(_all(bench, chunk, run, "failed", told(error)), error=traceback.format_exc())
    if made is None:
        # One utterance at a time, to find out whose fault it is. Not within the except block: the exception holds the
        # batch's tensors, and after running out of memory they must be gone first.
        if starved:
            release(bench.device)
        return _merge([_listened(bench, single, run, None) for single in singles(chunk)])
    judge = _Judge(bench, chunk, made)
    rows, errors = [], []
    said: list[Said] = []
    for name in chunk.metrics:
        status, note, values, starved = "ok", "", None, False
        try:
            metric = bench.metric(name)
            missing = _unresolved(metric, made.on_grid, truth)
        except XaibenchError as error:  # it cannot be loaded
            cells = range(len(chunk.pairs))
            rows += [_row(bench, chunk, run, i, name, status="failed", note=told(error)) for i in cells]
            continue
        if missing:
            status, note = "unsupported", f"{name} needs resolution in {missing}"
        else:
            try:
                values = judge(metric)
            except Unsupported as reason:
                status, note = "unsupported", first_line(reason)
            except Undefined as reason:  # of the map that it asked for again; in a batch, one utterance at a time says whose
                status, note = ("failed" if len(chunk.pairs) > 1 else "undefined"), first_line(reason)
            except Exception as error:  # as above
                if is_poisoned(error):
                    raise
                starved = is_out_of_memory(error)
                status, note = "failed", told(error)
                if name not in METRICS and f"metric {name}" not in note:
                    note = f"metric {name}: {note}"
                if len(chunk.pairs) == 1:
                    errors.append(traceback.format_exc())
        if starved:
            judge.forget()
            release(bench.device)
        if status == "failed" and len(chunk.pairs) > 1:
            for single, index in zip(singles(chunk, name), range(len(chunk.pairs)), strict=True):
                alone = _listened(bench, single, run, made.select(index))
                rows += alone.rows
                said += alone.said
                errors += [alone.error] if alone.error else []
            continue
        for index in range(len(chunk.pairs)):
            value = math.nan if values is None else values[index]
            undefined = status == "ok" and math.isnan(value)
            why = judge.why(metric, index) if undefined else note
            rows.append(
                _row(bench, chunk, run, index, name, value=value, status="undefined" if undefined else status, note=why,
                     seconds=made.seconds)
            )  # fmt: skip
    kept: tuple[Kept, ...] = ()
    truths: tuple[KeptTruth, ...] = ()
    if bench.spec.keep_maps:
        curves = judge.curves()
        resolves = tuple(sorted(made.on_grid.resolves))
        kept = tuple(
            Kept(pair, values, resolves, curve)
            for pair, values, curve in zip(chunk.pairs, made.on_grid.values.cpu(), curves, strict=True)
        )
        truths = tuple(
            (pair, truth.values[i].cpu(), truth.region[i].cpu(), truth.valid.cpu()) for i, pair in enumerate(chunk.pairs)
        )
    return Outcome(tuple(rows), kept, truths, "\n".join(errors), said=tuple(said))


class _Judge:
    """Gives a chunk's maps to one metric after the other. What the model answered is kept until memory runs out."""

    def __init__(self, bench: Workbench, chunk: Chunk, made: Explained) -> None:
        self.bench, self.chunk, self.made = bench, chunk, made
        self._evidence: Evidence | None = None

    def __call__(self, metric: Metric) -> list[float]:
        """The metric's scores, with fewer inputs at a time where memory runs out. Raises what the metric raises."""
        return with_room(lambda: self._scores(metric), self._smaller, self.bench.device)

    def why(self, metric: Metric, index: int) -> str:
        """Why the metric, whose scores were asked last, has none for this utterance."""
        return UNKNOWN if self._evidence is None else why_undefined(metric, self._evidence, index)

    def curves(self) -> list[dict[str, Tensor]]:
        """By utterance, the curves the metrics asked for, `(S,)` each, and their `fractions`.

        None of a map without an order, whose answers are NaN, and none when what was kept was dropped for want of memory.
        """
        asked = {} if self._evidence is None else self._evidence.asked()
        host = {name: (curve.fractions.cpu(), curve.log_odds.double().cpu()) for name, curve in asked.items()}
        found = []
        for i in range(len(self.chunk.pairs)):
            mine = {name: values[i] for name, (_, values) in host.items() if values[i].isfinite().all()}
            found.append({"fractions": next(iter(host.values()))[0], **mine} if mine else {})
        return found

    def forget(self) -> None:
        """Drop what was kept, and its memory."""
        self._evidence = None

    def _smaller(self) -> bool:
        self.forget()
        return self.bench.halve(self.chunk.countermeasure, self.chunk.route)

    def _scores(self, metric: Metric) -> list[float]:
        if self._evidence is None:
            bench, chunk, made = self.bench, self.chunk, self.made
            prepared = bench.prepare(chunk.countermeasure, chunk.route, chunk.pairs)
            self._evidence = Evidence(
                attribution=made.on_grid, on_view=made.on_view, truth=prepared.truth, probe=prepared.probe,
                again=asker(bench, chunk, prepared, explain),
            )  # fmt: skip
        if metric.name in METRICS:
            with contained(self.chunk.countermeasure, "a countermeasure returns logits or raises"):
                return scores(metric, metric.function(self._evidence), len(self.chunk.pairs))
        with guarded(f"metric {metric.name}", utterances=len(self.chunk.pairs)):
            return scores(metric, metric.function(private_evidence(self._evidence)), len(self.chunk.pairs))


def _unresolved(metric: Metric, attribution: Attribution, truth: Truth) -> str:
    """Which axes a metric needs and who does not tell them apart: "frequency, the map has none of its own", or ""."""
    wanted = {"frequency", "time"} & metric.needs
    parties = [("the map", attribution.resolves)] + ([("the truth", truth.resolves)] if "truth" in metric.needs else [])
    for who, resolves in parties:
        if wanted - resolves:
            return f"{' and '.join(sorted(wanted - resolves))}, {who} has none of its own"
    return ""


def _cells(chunk: Chunk) -> list[tuple[int, str]]:
    return [(i, m) for m in chunk.metrics for i in range(len(chunk.pairs))]


def _all(bench: Workbench, chunk: Chunk, run: str, status: str, note: str) -> Outcome:
    return Outcome(tuple(_row(bench, chunk, run, i, m, status=status, note=note) for i, m in _cells(chunk)))


def failed(bench: Workbench, chunk: Chunk, run: str, note: str) -> Outcome:
    """Rows of a chunk that nobody could compute."""
    return _all(bench, chunk, run, "failed", note)


def singles(chunk: Chunk, *metrics: str) -> list[Chunk]:
    """A chunk's utterances one by one, for all its metrics or for those named."""
    return [
        replace(chunk, pairs=(p,), fingerprints=(f,), metrics=metrics or chunk.metrics)
        for p, f in zip(chunk.pairs, chunk.fingerprints, strict=True)
    ]


def _merge(parts: Sequence[Outcome]) -> Outcome:
    return Outcome(
        tuple(row for p in parts for row in p.rows),
        tuple(m for p in parts for m in p.maps),
        tuple(t for p in parts for t in p.truths),
        "\n".join(p.error for p in parts if p.error),
        said=tuple(s for p in parts for s in p.said),
    )


def _row(
    bench: Workbench, chunk: Chunk, run: str, index: int, metric: str, *, value: float = math.nan, status: str,
    note: str = "", seconds: float = math.nan,
) -> Row:  # fmt: skip
    pair = chunk.pairs[index]
    return Row(
        run=run,
        dataset=bench.corpus.name,
        utterance=pair.spoof.source,
        speaker=pair.spoof.speaker,
        vocoder=pair.spoof.vocoder,
        countermeasure=chunk.countermeasure,
        attributor=chunk.attributor,
        route=chunk.route,
        truth=bench.spec.truth.name,
        metric=metric,
        value=value if status == "ok" else math.nan,
        status=status,
        seconds=seconds,
        note=note,
        fingerprint=cell_fingerprint(chunk.fingerprints[index], metric),
    )
