"""The loop: find the missing cells of a run folder, compute them chunk by chunk, write each chunk once.

Running the same command again is how a run is resumed: only missing cells are computed. Adding a method, a metric or
utterances to a folder computes only what is new.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

import xaibench
from xaibench import maps, registry
from xaibench.errors import AudioError, ManifestError, RunError, XaibenchError, told
from xaibench.harness import verdicts, warned
from xaibench.harness.cell import Outcome, failed
from xaibench.harness.described import described
from xaibench.harness.device import choose_device, default_batch_size, tune_allocator
from xaibench.harness.engine import Died, Engine, completed
from xaibench.harness.environment import environment
from xaibench.harness.guard import listening
from xaibench.harness.heard import heard, said
from xaibench.harness.missing import planned, retire_failed, retire_stale, retire_unjudged
from xaibench.harness.plan import Chunk, fingerprint, ordered_pairs, reference_pairs, source_hash
from xaibench.harness.preflight import check_countermeasure
from xaibench.harness.results import Store, plain, safe
from xaibench.harness.sizes import is_poisoned, lost_device, with_room
from xaibench.harness.spec import RunSpec
from xaibench.harness.tasks import Combination, Queue, Task, by_combination, combination
from xaibench.harness.workbench import PRIOR_PAIRS, Workbench
from xaibench.harness.worker import Apart, Done, ForeignWorker, Job, Remotely, compute, facts, first_batch
from xaibench.manifest import verify
from xaibench.run_record import checked
from xaibench.types import Pair


@dataclass(frozen=True)
class Progress:
    """One step of a run, for a progress bar. `cells` counts rows (maps, where only those are missing) of this invocation."""

    phase: str  # "verify" | "preflight" | "cells"
    done: int
    total: int
    message: str = ""


@dataclass(frozen=True)
class Summary:
    """What a run did. `computed` and `kept` count rows; `problems` are sentences worth the user's attention."""

    folder: Path
    computed: int
    kept: int
    seconds: float
    statuses: dict[str, int]
    problems: tuple[str, ...]


Report = Callable[[Progress], None]

#: Pairs of the split behind the EER that the board prints, whatever the preset or the limit.
EER_PAIRS = 240


def run(
    spec: RunSpec,
    out: Path,
    *,
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
    engine: Engine | None = None,
    retry_failed: bool = False,
    report: Report = lambda progress: None,
) -> Summary:
    """Compute every missing cell of `spec` in the folder `out`, and return what was done.

    `engine` says where chunks are computed (in this process by default). Workers of another process open data sets and
    countermeasures themselves, once, on the `device` of that name of theirs. A failed cell is a result like any other, and
    stays; `retry_failed` computes it again.

    Raises RunError, ManifestError, CheckpointError, PluginError before any work when the run cannot be right; what goes
    wrong inside a cell becomes that cell's status.
    """
    tune_allocator()
    started = time.perf_counter()
    engine = engine or Engine()
    workers = engine.introductions(str(device))
    elsewhere = engine.remote and not engine.apart  # on other machines, perhaps: `device` is for them to look up
    here = choose_device("auto") if elsewhere else choose_device(str(device)) if engine.apart else device
    load = registry.stand_in if engine.apart else registry.load
    bench = Workbench(spec, device=here, batch_size=batch_size, load=load)
    if workers and batch_size is None:
        bench.batch_size = default_batch_size(torch.device(workers[0]["device_type"]))
    where = {w["device_type"] for w in workers} or {bench.device.type}
    if spec.precision == "tf32" and where != {"cuda"}:
        raise RunError("--precision tf32 is for CUDA devices; elsewhere it would be fp32 under another name")
    every = ordered_pairs(bench.corpus, spec.split)
    chosen = every[: spec.pairs]
    problems: list[str] = []
    _loadable(bench, problems)
    spec = bench.spec
    with Store(out).locked() as store:
        before = store.read_json("run.json")
        _identify(store, spec, bench, before)
        training = [p for p in reference_pairs(bench.corpus, most=PRIOR_PAIRS) if p.bonafide is not None]
        bench.check_truth([*chosen, *training])
        _verify([*chosen, *every[:EER_PAIRS], *reference_pairs(bench.corpus, most=PRIOR_PAIRS)], report)
        stamp = _stamp(spec, bench, store, (chosen, every[:EER_PAIRS]), before, workers)
        broken = {name: facts["void"] for name, facts in stamp["countermeasures"].items() if facts["void"]}
        problems += [f"void: every method on {name}: {why}" for name, why in broken.items()]
        lengths = {name: bench.countermeasure(name).module.n_samples for name in spec.countermeasures}
        problems += filter(None, (said(name, chosen, n, bench.corpus.sample_rate) for name, n in lengths.items()))
        have = retire_stale(spec, bench, every, store, before or {}, stamp, problems)
        have = retire_unjudged(store, have, _judged_now(before or {}, stamp), problems)
        if retry_failed:
            have = retire_failed(store, have, problems)
        chunks, kept = planned(spec, bench, chosen, have, store, problems)
        del have
        if chunks or before is None:  # a run that finds nothing to do leaves the record of the one that did
            store.write_json("run.json", stamp)
        without_rows = sum(len(c.pairs) for c in chunks if not c.metrics)
        if without_rows:
            problems.append(f"{without_rows} maps are made again to be kept: their rows were finished without --keep-maps")
        verdicts = _known_verdicts(store, bench, chunks, broken)
        problems += [_void_sentence(what, void) for what, void in verdicts.items() if void and not broken.get(what[0])]
        ledger = _Ledger(store, bench, sum(_size(c) for c in chunks), problems, report)
        queue = Queue(by_combination(chunks), verdicts) if engine.apart else Queue(chunks, verdicts, workers=engine.workers)
        work = _work(engine, bench, store.path.name, str(device), batch_size)
        try:
            for task, done in completed(engine, work, queue, ForeignWorker):
                fatal = ""
                if isinstance(done, BaseException):
                    if not engine.apart:
                        fatal = f"it kills every worker that runs it: {type(done).__name__}"
                        problems.append(f"{task.chunks[0].attributor} on {task.chunks[0].countermeasure}: {fatal}")
                    done = Done(tuple(_died(chunk, bench, store.path.name, done) for chunk in task.chunks))
                ledger.enter(task, done)
                if task.judge:  # a fatal verdict is not kept, so a later run tries again
                    queue.judged(combination(task.chunks[0]), done.verdict.void if done.verdict else fatal)
        finally:
            if ledger.sizes:
                store.write_json("run.json", {**stamp, "sizes": {**stamp["sizes"], **ledger.sizes}})
        problems += [*engine.notes, *ledger.failures()]
    seconds = time.perf_counter() - started
    return Summary(store.path, ledger.made, kept, seconds, ledger.statuses, tuple(dict.fromkeys(problems)))


class _Ledger:
    """Writes what comes back, and counts it. Verdict, maps, rows: in this order, as rows say that the rest is there."""

    def __init__(self, store: Store, bench: Workbench, total: int, problems: list[str], report: Report) -> None:
        self.store, self.bench, self.total, self.problems, self.report = store, bench, total, problems, report
        self.made = self.steps = 0
        self.statuses: dict[str, int] = {}
        self.sizes: dict[str, Any] = {}
        self.failed: dict[tuple[str, str], tuple[str, set[str]]] = {}
        report(Progress("cells", 0, total))

    def enter(self, task: Task, done: Done) -> None:
        """All of a task."""
        if done.verdict is not None:
            what = combination(task.chunks[0])
            about = {"schema": verdicts.SCHEMA, **_verdict_facts(self.bench, what)}
            self.store.write_json(verdicts.file_of(*what), {**about, **asdict(done.verdict)})
            if done.verdict.void:
                self.problems.append(_void_sentence(what, done.verdict.void))
        for chunk, outcome in zip(task.chunks, done.outcomes, strict=True):
            _keep(self.store, self.bench.spec, chunk, outcome)
            self.sizes |= outcome.sizes
            self.made += len(outcome.rows)
            self.steps += _size(chunk)
            for row in outcome.rows:
                self.statuses[row.status] = self.statuses.get(row.status, 0) + 1
                if row.status == "failed":
                    metric = f"metric {row.metric}"  # a foreign one that is to blame is named in the note
                    who = metric if metric in row.note else row.attributor
                    _, of = self.failed.setdefault((who, row.countermeasure), (row.note, set()))
                    of.add(f"{row.utterance}/{row.vocoder}")
            self.report(Progress("cells", self.steps, self.total, f"{chunk.countermeasure} {chunk.attributor}"))

    def failures(self) -> list[str]:
        """A sentence for each method or metric that failed on a countermeasure: first reason, and on how many utterances."""
        return [
            f"failed: {method} on {cm}, on {len(of)} utterance{'' if len(of) == 1 else 's'}: {why}"
            for (method, cm), (why, of) in self.failed.items()
        ]


def _work(engine: Engine, bench: Workbench, run: str, device: str, inputs: int | None) -> Callable[[Task], Any]:
    """What the engine calls with each task."""
    if not engine.remote:
        return partial(compute, bench, run)
    job = Job(bench.spec, run, device, bench.batch_size, inputs, facts(bench))
    return Apart(bench, job) if engine.apart else Remotely(job)


def _size(chunk: Chunk) -> int:
    """Steps of the progress bar: its rows, or its maps where only those are missing."""
    return len(chunk.pairs) * max(len(chunk.metrics), 1)


def _identify(store: Store, spec: RunSpec, bench: Workbench, before: dict[str, Any] | None) -> None:
    """Refuse to continue a folder that holds another run."""
    if before is None:  # a new folder, or one whose damaged run.json was removed: the fingerprints protect its rows
        return
    checked(before, store.path / "run.json")
    if not isinstance(before.get("identity"), dict):
        raise RunError(f"{store.path / 'run.json'}: not the record of a run; remove it to have it made again")
    now = {**spec.identity(), "dataset_hash": bench.corpus.hash}
    then = {"precision": "fp32", **before["identity"]}  # of a folder from before there was a choice
    differ = [f"{k}: {then.get(k)} there, {v} now" for k, v in plain(now).items() if then.get(k) != v]
    if differ:
        raise RunError(f"{store.path}: holds another run ({'; '.join(differ)}); choose another --out")


def _verify(chosen: list[Pair], report: Report) -> None:
    files = list({u.path: u for p in chosen for u in p.halves}.values())
    for number, file in enumerate(files):
        report(Progress("verify", number, len(files)))
        verify([file])
    report(Progress("verify", len(files), len(files)))


def _stamp(
    spec: RunSpec,
    bench: Workbench,
    store: Store,
    some: tuple[list[Pair], list[Pair]],
    before: dict[str, Any] | None,
    workers: list[dict[str, Any]],
) -> dict[str, Any]:
    """What run.json says. What earlier invocations in the same folder left there stays on record.

    `spec` and `environment` are of the last invocation that computed something, `earlier` holds those before it; `workers`
    are the environments of the worker processes that were there at the start, each kind once; some may have been refused.
    `some` pairs are the run's, and those on which countermeasures are judged; their verdicts are written here.
    """
    corpus, before = bench.corpus, before or {}
    chosen, judged = some
    cms: dict[str, Any] = dict(before.get("countermeasures", {}))
    for name in spec.countermeasures:
        loaded = bench.countermeasure(name)
        known = cms.get(name, {})
        package = registry.find("countermeasures", name).package
        source = [source_hash(package), source_hash("xaibench")]
        basis = plain(
            {"weights": loaded.weights, "options": loaded.options, "source": source, "eer_pairs": len(judged)}
        )  # fmt: skip
        same = all(known.get(fact) == value for fact, value in basis.items())
        told_before = (store.path / verdicts.file_of(name)).exists()
        if same and told_before and not str(known.get("void", _RAISED)).startswith(_RAISED):
            sentence, eer = known["void"], known.get("eer")
        else:
            with listening(name) as spoken:
                sentence, eer, checks = _judged(bench, name, judged)
            found = {"void": sentence, "eer": eer, "checks": [asdict(c) for c in checks], "warnings": [w for _, w in spoken]}
            store.write_json(verdicts.file_of(name), {"schema": verdicts.SCHEMA, "countermeasure": name, **basis, **found})
        cms[name] = {
            **basis, "card": loaded.card, "checkpoint": loaded.checkpoint.name, "eer": eer, "route": bench.route(name),
            "hears": heard(chosen, loaded.module.n_samples, corpus.sample_rate),
            "void": sentence, "shipped": loaded.checkpoint == registry.load("countermeasures", name).shipped(),
        }  # fmt: skip
    others = [{k: v for k, v in w.items() if k != "worker"} for w in workers]
    others = [{**w, "count": others.count(w)} for i, w in enumerate(others) if w not in others[:i]]
    now = plain({"spec": spec.record(), "environment": environment(bench.device), "workers": others})
    earlier = [*before.get("earlier", []), *([{k: before.get(k, []) for k in now}] if before else [])]
    origins, plugins = dict(before.get("origins", {})), dict(before.get("plugins", {}))
    for group, names in (("countermeasures", spec.countermeasures), ("attributors", spec.attributors)):
        for name in names:
            plugin = registry.find(group, name)
            origins[f"{group}/{name}"] = f"{plugin.distribution} {plugin.version}"
            plugins[f"{group}/{name}"] = described(group, name, bench.load_plugin)
    return {
        "benchmark": xaibench.BENCHMARK_VERSION,
        "identity": {**spec.identity(), "dataset_hash": corpus.hash},
        **now,
        "earlier": [e for i, e in enumerate(earlier) if e != now and e not in earlier[:i]],
        "truths": {**before.get("truths", {}), spec.truth.name: asdict(spec.truth)},
        "countermeasures": cms,
        "dataset": {
            "name": corpus.name, "hash": corpus.hash, "licence": corpus.licence, "citation": corpus.citation,
            "sample_rate": corpus.sample_rate, "valid_band": corpus.valid_band, "held_out": corpus.held_out,
            "pairs": len(chosen), "utterances": len({p.spoof.source for p in chosen}),
            "speakers": len({p.spoof.speaker for p in chosen}),
            "vocoders": sorted({p.spoof.vocoder for p in chosen}),
        },
        "origins": origins,
        "plugins": plugins,
        "days": sorted({*before.get("days", ()), datetime.now(UTC).date().isoformat()}),  # in no fingerprint
        "sizes": before.get("sizes", {}),
    }  # fmt: skip


#: How the sentence begins of a countermeasure that could not be judged: it is tried again by the next invocation.
_RAISED = "it raised "


def _judged_now(before: dict[str, Any], stamp: dict[str, Any]) -> list[str]:
    """Countermeasures that raised when they were judged before, and now say something else."""
    then = before.get("countermeasures", {})
    voids = {
        name: (str(then.get(name, {}).get("void", "")), facts["void"]) for name, facts in stamp["countermeasures"].items()
    }
    return [name for name, (old, new) in voids.items() if old.startswith(_RAISED) and old != new]


def _judged(bench: Workbench, name: str, judged: list[Pair]) -> tuple[str, float | None, tuple[verdicts.Check, ...]]:
    """`check_countermeasure`, whose sentence says it when the countermeasure raises; with fewer inputs at a time, down to
    one, where memory runs out.
    """
    inputs = [bench.batch_size]

    def smaller() -> bool:
        inputs.append(inputs[-1] // 2)
        return inputs[-1] > 0

    try:
        return with_room(lambda: check_countermeasure(bench, name, judged, inputs=inputs[-1]), smaller, bench.device)
    except (AudioError, ManifestError, KeyboardInterrupt):
        raise  # of its files; of the user
    except BaseException as error:  # a SystemExit of a plugin's ends no run of others
        if is_poisoned(error):
            raise RunError(lost_device(error, bench.device, f"judging {name}")) from error
        why = f"{_RAISED}{told(error)}"
        return why, None, tuple(verdicts.Check(c, verdicts.UNCHECKED, note=why) for c in verdicts.COUNTERMEASURE)


def _loadable(bench: Workbench, problems: list[str]) -> None:
    """Leave out countermeasures that cannot be loaded, where others can. Raises the first one's error where none can."""
    names, good, first = bench.spec.countermeasures, [], None
    for name in names if len(names) > 1 else ():
        try:
            bench.countermeasure(name)
            good.append(name)
        except XaibenchError as error:
            first = first or error
            problems.append(f"countermeasure {name!r} is left out: {error}")
    if first is not None and not good:
        raise first
    if first is not None:
        bench.spec = replace(bench.spec, countermeasures=tuple(good))


def _known_verdicts(store: Store, bench: Workbench, chunks: list[Chunk], broken: dict[str, str]) -> dict[Combination, str]:
    """What needs no judging again: void for every method of a broken countermeasure, else as an earlier run found."""
    found: dict[Combination, str] = {}
    for chunk in {combination(c): c for c in chunks}.values():
        what = combination(chunk)
        if broken.get(chunk.countermeasure):
            found[what] = broken[chunk.countermeasure]
            continue
        known = store.read_json(verdicts.file_of(*what))
        facts = _verdict_facts(bench, what)
        whole = known is not None and not known.get("unchecked", True) and isinstance(known.get("void"), str)
        if known is not None and whole and all(known.get(k) == v for k, v in facts.items()):
            found[what] = known["void"]
    return found


def _verdict_facts(bench: Workbench, what: Combination) -> dict[str, Any]:
    """What a verdict depends on."""
    first = first_batch(bench)
    return {"fingerprint": fingerprint(bench.spec, first[0], bench.facts(*what)), "pairs": [p.id for p in first]}


def _void_sentence(what: Combination, void: str) -> str:
    return f"void: {what[2]} on {what[0]}: {void}"


def _died(chunk: Chunk, bench: Workbench, run: str, error: BaseException) -> Outcome:
    """Rows of a chunk that kills every worker it meets (out of memory, a crash in a library)."""
    if isinstance(error, Died):
        return replace(failed(bench, chunk, run, str(error)), error=f"{error}\n\n{error.said}")
    return failed(bench, chunk, run, f"its worker died, again and again: {type(error).__name__}: {error}")


def _keep(store: Store, spec: RunSpec, chunk: Chunk, outcome: Outcome) -> None:
    """Maps and warnings first, then the rows: a row on disk means that everything of its cell is."""
    prints = dict(zip((pair.id for pair in chunk.pairs), chunk.fingerprints, strict=True))
    for kept in outcome.maps:
        path = maps.map_path(store.path, chunk.countermeasure, chunk.route, chunk.attributor, kept.pair.id)
        facts = {**_metadata(spec, chunk, kept.pair), "resolves": ",".join(kept.resolves)}
        facts["fingerprint"] = prints[kept.pair.id]
        maps.write_map(path, kept.values, metadata=facts, curves=kept.curves)
    for pair, values, region, valid in outcome.truths:
        path = maps.truth_path(store.path, spec.truth.name, values.shape[1], pair.id)
        if not path.exists():
            facts = _metadata(spec, chunk, pair)
            for whose in ("countermeasure", "attributor", "route"):  # it is every method's; who came first is chance
                del facts[whose]
            maps.write_truth(path, values, region, valid, metadata=facts)
    if outcome.error:
        place = f"errors/{safe(chunk.countermeasure)}-{chunk.route}-{safe(chunk.attributor)}-{chunk.name}.txt"
        store.write_text(place, outcome.error)
    if outcome.rows:
        beside = warned.beside(str(store.rows_file(chunk, spec.truth.name).relative_to(store.path)))
        if outcome.said or (store.path / beside).exists():  # of the same cells, computed before
            cell = {k: v for k, v in _metadata(spec, chunk, chunk.pairs[0]).items() if k in warned.COLUMNS}
            store.write_json(beside, warned.document(outcome.said, **cell))
        store.write_rows(chunk, spec.truth.name, outcome.rows)


def _metadata(spec: RunSpec, chunk: Chunk, pair: Pair) -> dict[str, str]:
    return {
        "dataset": spec.data, "utterance": pair.spoof.source, "vocoder": pair.spoof.vocoder,
        "countermeasure": chunk.countermeasure, "attributor": chunk.attributor, "route": chunk.route,
        "truth": spec.truth.name,
        "grid": f"{spec.grid.sample_rate}/{spec.grid.n_fft}/{spec.grid.hop}/{spec.grid.window}",
    }  # fmt: skip
