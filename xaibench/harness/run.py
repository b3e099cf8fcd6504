"""The loop: find the missing cells of a run folder, compute them chunk by chunk, write each chunk once.

Running the same command again is how a run is resumed: only missing cells are computed. Adding a method, a metric or
utterances to a folder computes only what is new.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from xaibench import maps, registry
from xaibench.errors import AudioError, RunError
from xaibench.harness.cell import Explained, Outcome, run_chunk
from xaibench.harness.device import tune_allocator
from xaibench.harness.engine import InProcess, completed
from xaibench.harness.environment import environment
from xaibench.harness.missing import missing_chunks, retire_stale
from xaibench.harness.plan import Chunk, batches, fingerprint, ordered_pairs, reference_pairs, source_hash
from xaibench.harness.preflight import Verdict, check, check_countermeasure
from xaibench.harness.results import Store, plain, safe
from xaibench.harness.spec import RunSpec
from xaibench.harness.workbench import PRIOR_PAIRS, Prepared, Workbench
from xaibench.manifest import verify
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
    executor: Executor | None = None,
    report: Report = lambda progress: None,
) -> Summary:
    """Compute every missing cell of `spec` in the folder `out`, and return what was done.

    `executor` runs the chunks (in this process by default); it must share this process' memory, as threads do.
    Raises RunError, ManifestError, CheckpointError, PluginError before any work when the run cannot be right; what goes
    wrong inside a cell becomes that cell's status.
    """
    tune_allocator()
    started = time.perf_counter()
    bench = Workbench(spec, device=device, batch_size=batch_size)
    every = ordered_pairs(bench.corpus, spec.split)
    chosen = every[: spec.pairs]
    problems: list[str] = []
    with Store(out).locked() as store:
        before = store.read_json("run.json")
        _identify(store, spec, bench, before)
        training = [p for p in reference_pairs(bench.corpus, most=PRIOR_PAIRS) if p.bonafide is not None]
        bench.check_truth([*chosen, *training])
        _verify([*chosen, *every[:EER_PAIRS], *reference_pairs(bench.corpus, most=PRIOR_PAIRS)], report)
        stamp = _stamp(spec, bench, chosen, every[:EER_PAIRS], before)
        broken = {name: facts["void"] for name, facts in stamp["countermeasures"].items() if facts["void"]}
        problems += [f"void: every method on {name}: {why}" for name, why in broken.items()]
        verdicts = Verdicts(store, bench, chosen, broken, problems)
        have = retire_stale(spec, bench, every, store, before or {}, stamp, problems)
        chunks = list(missing_chunks(spec, bench, chosen, have, store.path))
        if chunks or before is None:  # a run that finds nothing to do leaves the record of the one that did
            store.write_json("run.json", stamp)
        without_rows = sum(len(c.pairs) for c in chunks if not c.metrics)
        if without_rows:
            problems.append(f"{without_rows} maps are made again to be kept: their rows were finished without --keep-maps")
        total = sum(_size(c) for c in chunks)
        made = steps = 0
        statuses: dict[str, int] = {}
        work = partial(_work, bench, spec, verdicts, store.path.name)
        report(Progress("cells", 0, total))
        for chunk, outcome in completed(executor or InProcess(), work, chunks):
            _keep(store, spec, chunk, outcome)
            made += len(outcome.rows)
            steps += _size(chunk)
            for row in outcome.rows:
                statuses[row.status] = statuses.get(row.status, 0) + 1
            report(Progress("cells", steps, total, f"{chunk.countermeasure} {chunk.attributor}"))
    return Summary(store.path, made, len(have), time.perf_counter() - started, statuses, tuple(dict.fromkeys(problems)))


def _size(chunk: Chunk) -> int:
    """Steps of the progress bar: its rows, or its maps where only those are missing."""
    return len(chunk.pairs) * max(len(chunk.metrics), 1)


def _identify(store: Store, spec: RunSpec, bench: Workbench, before: dict[str, Any] | None) -> None:
    """Refuse to continue a folder that holds another run."""
    if before is None:  # a new folder, or one whose damaged run.json was removed: the fingerprints protect its rows
        return
    if not isinstance(before, dict) or not isinstance(before.get("identity"), dict):
        raise RunError(f"{store.path / 'run.json'}: not the record of a run; remove it to have it made again")
    now = {**spec.identity(), "dataset_hash": bench.corpus.hash}
    then = before["identity"]
    differ = [f"{k}: {then.get(k)} there, {v} now" for k, v in plain(now).items() if then.get(k) != v]
    if differ:
        raise RunError(f"{store.path}: holds another run ({'; '.join(differ)}); choose another --out")


def _verify(chosen: list[Pair], report: Report) -> None:
    files = list({u.path: u for p in chosen for u in p.halves}.values())
    report(Progress("verify", 0, len(files)))
    verify(files)
    report(Progress("verify", len(files), len(files)))


def _stamp(
    spec: RunSpec, bench: Workbench, chosen: list[Pair], judged: list[Pair], before: dict[str, Any] | None
) -> dict[str, Any]:
    """What run.json says. What earlier invocations in the same folder left there stays on record.

    `spec` and `environment` are of the last invocation that computed something, `earlier` holds those before it.
    """
    corpus, before = bench.corpus, before or {}
    cms: dict[str, Any] = dict(before.get("countermeasures", {}))
    for name in spec.countermeasures:
        loaded = bench.countermeasure(name)
        known = cms.get(name, {})
        package = registry.find("countermeasures", name).entry.module.partition(".")[0]
        source = [source_hash(package), source_hash("xaibench")]
        facts = plain(
            {"weights": loaded.weights, "options": loaded.options, "source": source, "eer_pairs": len(judged)}
        )  # fmt: skip
        if all(known.get(fact) == value for fact, value in facts.items()):
            sentence, eer = known["void"], known["eer"]
        else:
            sentence, eer = check_countermeasure(bench, name, judged)
        cms[name] = {
            **facts, "card": loaded.card, "checkpoint": loaded.checkpoint.name, "eer": eer, "route": bench.route(name),
            "void": sentence,
        }  # fmt: skip
    now = plain({"spec": spec.record(), "environment": environment(bench.device)})
    earlier = [*before.get("earlier", []), *([{k: before[k] for k in now}] if before else [])]
    origins = dict(before.get("origins", {}))
    for group, names in (("countermeasures", spec.countermeasures), ("attributors", spec.attributors)):
        for name in names:
            plugin = registry.find(group, name)
            origins[f"{group}/{name}"] = f"{plugin.distribution} {plugin.version}"
    return {
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
    }  # fmt: skip


class Verdicts:
    """The preflight verdicts of a run: read from the folder, or made once from the first batch and written there."""

    def __init__(
        self, store: Store, bench: Workbench, chosen: list[Pair], broken: dict[str, str], problems: list[str]
    ) -> None:
        self.store, self.bench, self.broken, self.problems = store, bench, broken, problems
        self.first = batches(chosen, bench.batch_size)[0]
        self.explained: dict[tuple[str, str, str], Explained] = {}
        self.cache: dict[tuple[str, str, str], str] = {}

    def void(self, chunk: Chunk) -> str:
        """The sentence that makes this combination void, or ""."""
        broken = self.broken.get(chunk.countermeasure, "")
        if broken:
            return broken
        key = (chunk.countermeasure, chunk.route, chunk.attributor)
        if key not in self.cache:
            self.cache[key] = self._verdict(*key, chunk)
            if self.cache[key]:
                self.problems.append(f"void: {chunk.attributor} on {chunk.countermeasure}: {self.cache[key]}")
        return self.cache[key]

    def _verdict(self, countermeasure: str, route: str, attributor: str, chunk: Chunk) -> str:
        name = f"preflight/{safe(countermeasure)}-{route}-{safe(attributor)}.json"
        facts = {
            "fingerprint": fingerprint(self.bench.spec, self.first[0], self.bench.facts(countermeasure, route, attributor)),
            "pairs": [p.id for p in self.first],  # a method that mixes utterances is caught by a batch, not by one
        }
        known = self.store.read_json(name)
        if known is not None and not known["unchecked"] and all(known.get(k) == v for k, v in facts.items()):
            return known["void"]
        explained = None
        try:
            prepared, pairs = self._prepare(countermeasure, route)
        except Exception as error:  # noqa: BLE001 - the cells will say `failed`, with the traceback
            verdict = Verdict(unchecked=f"{type(error).__name__}: {error}")
        else:
            verdict, explained = check(self.bench, prepared, attributor)
            if explained is not None and chunk.pairs == pairs:
                self.explained[(countermeasure, route, attributor)] = explained
        if verdict.changed:
            self.bench.forget(countermeasure)
        self.store.write_json(name, {**facts, **asdict(verdict)})
        return verdict.void

    def _prepare(self, countermeasure: str, route: str) -> tuple[Prepared, tuple[Pair, ...]]:
        """The first batch, without the pairs whose files are wrong: these cost their own cells only."""
        try:
            return self.bench.prepare(countermeasure, route, self.first), self.first
        except AudioError:
            n_samples = self.bench.countermeasure(countermeasure).module.n_samples
            pairs = tuple(p for p in self.first if self.bench.readable(p, n_samples))
            return self.bench.prepare(countermeasure, route, pairs), pairs

    def maps(self, chunk: Chunk) -> Explained | None:
        """Maps that the preflight made of exactly this chunk's utterances; handed out once."""
        if chunk.pairs != self.first:
            return None
        return self.explained.pop((chunk.countermeasure, chunk.route, chunk.attributor), None)


def _work(bench: Workbench, spec: RunSpec, verdicts: Verdicts, name: str, chunk: Chunk) -> Outcome:
    void = verdicts.void(chunk)
    return run_chunk(bench, chunk, name, void=void, explained=verdicts.maps(chunk))


def _keep(store: Store, spec: RunSpec, chunk: Chunk, outcome: Outcome) -> None:
    """Maps first, then the rows: a row on disk means that everything of its cell is."""
    for pair, values in outcome.maps:
        path = maps.map_path(store.path, chunk.countermeasure, chunk.route, chunk.attributor, pair.id)
        maps.write_map(path, values.numpy(), metadata=_metadata(spec, chunk, pair))
    for pair, values, region, valid in outcome.truths:
        path = maps.truth_path(store.path, spec.truth.name, values.shape[1], pair.id)
        if not path.exists():
            maps.write_truth(
                path, values.numpy(), region.numpy(), valid.numpy(), metadata=_metadata(spec, chunk, pair)
            )  # fmt: skip
    if outcome.error:
        place = f"errors/{safe(chunk.countermeasure)}-{chunk.route}-{safe(chunk.attributor)}-{chunk.name}.txt"
        store.write_text(place, outcome.error)
    if outcome.rows:
        store.write_rows(chunk, spec.truth.name, outcome.rows)


def _metadata(spec: RunSpec, chunk: Chunk, pair: Pair) -> dict[str, str]:
    return {
        "dataset": spec.data, "utterance": pair.spoof.source, "vocoder": pair.spoof.vocoder,
        "countermeasure": chunk.countermeasure, "attributor": chunk.attributor, "route": chunk.route,
        "truth": spec.truth.name,
        "grid": f"{spec.grid.sample_rate}/{spec.grid.n_fft}/{spec.grid.hop}/{spec.grid.window}",
    }  # fmt: skip
