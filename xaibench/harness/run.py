"""The loop: find the missing cells of a run folder, compute them chunk by chunk, write each chunk once.

Running the same command again is how a run is resumed: only missing cells are computed. Adding a method, a metric or
utterances to a folder computes only what is new.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from xaibench import maps, registry
from xaibench.errors import RunError
from xaibench.harness.cell import Explained, Outcome, run_chunk
from xaibench.harness.device import tune_allocator
from xaibench.harness.engine import InProcess, completed
from xaibench.harness.environment import environment
from xaibench.harness.plan import Chunk, batches, fingerprint, ordered_pairs
from xaibench.harness.preflight import check, check_countermeasure
from xaibench.harness.results import Store, safe
from xaibench.harness.spec import RunSpec
from xaibench.harness.workbench import Workbench
from xaibench.manifest import verify
from xaibench.types import Pair


@dataclass(frozen=True)
class Progress:
    """One step of a run, for a progress bar. `cells` counts rows; `total` is of this invocation."""

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
        _identify(store, spec, bench)
        _verify([*chosen, *every[:EER_PAIRS]], report)
        stamp = _stamp(spec, bench, chosen, every[:EER_PAIRS], store.read_json("run.json"))
        store.write_json("run.json", stamp)
        broken = {name: facts["void"] for name, facts in stamp["countermeasures"].items() if facts["void"]}
        problems += [f"void: every method on {name}: {why}" for name, why in broken.items()]
        verdicts = Verdicts(store, bench, chosen, broken, problems)
        have = store.read_rows()
        chunks = list(missing_chunks(spec, bench, chosen, have, store, problems))
        total = sum(len(c.pairs) * len(c.metrics) for c in chunks)
        made = 0
        statuses: dict[str, int] = {}
        work = partial(_work, bench, spec, verdicts, store.path.name)
        report(Progress("cells", 0, total))
        for chunk, outcome in completed(executor or InProcess(), work, chunks):
            _keep(store, spec, chunk, outcome)
            made += len(outcome.rows)
            for row in outcome.rows:
                statuses[row.status] = statuses.get(row.status, 0) + 1
            report(Progress("cells", made, total, f"{chunk.countermeasure} {chunk.attributor}"))
        kept = len(have) if made == 0 else len(store.read_rows()) - made
    return Summary(store.path, made, kept, time.perf_counter() - started, statuses, tuple(dict.fromkeys(problems)))


def _identify(store: Store, spec: RunSpec, bench: Workbench) -> None:
    """Refuse to continue a folder that holds another run."""
    before = store.read_json("run.json")
    if before is None:
        if store.rows.exists():
            raise RunError(f"{store.path}: holds rows but no run.json; choose another --out")
        return
    now = {**spec.identity(), "dataset_hash": bench.corpus.hash}
    then = before.get("identity", {})
    differ = [f"{k}: {then.get(k)} there, {v} now" for k, v in _plain(now).items() if then.get(k) != v]
    if differ:
        raise RunError(f"{store.path}: holds another run ({'; '.join(differ)}); choose another --out")


def _plain(value: Any) -> Any:
    import json

    return json.loads(json.dumps(value, default=str))


def _verify(chosen: list[Pair], report: Report) -> None:
    files = list({u.path: u for p in chosen for u in (p.bonafide, p.spoof)}.values())
    report(Progress("verify", 0, len(files)))
    verify(files)
    report(Progress("verify", len(files), len(files)))


def _stamp(
    spec: RunSpec, bench: Workbench, chosen: list[Pair], judged: list[Pair], before: dict[str, Any] | None
) -> dict[str, Any]:
    """What run.json says. Countermeasures of earlier invocations in the same folder stay on record."""
    corpus = bench.corpus
    cms: dict[str, Any] = dict((before or {}).get("countermeasures", {}))
    for name in spec.countermeasures:
        loaded = bench.countermeasure(name)
        known = cms.get(name, {})
        if known.get("weights") == loaded.weights and known.get("eer_pairs") == len(judged):
            sentence, eer = known["void"], known["eer"]
        else:
            sentence, eer = check_countermeasure(bench, name, judged)
        cms[name] = {
            "card": loaded.card, "weights": loaded.weights, "checkpoint": loaded.checkpoint.name, "eer": eer,
            "eer_pairs": len(judged), "route": bench.route(name), "void": sentence,
        }  # fmt: skip
    origins = {}
    for group, names in (("countermeasures", spec.countermeasures), ("attributors", spec.attributors)):
        for name in names:
            plugin = registry.find(group, name)
            origins[f"{group}/{name}"] = f"{plugin.distribution} {plugin.version}"
    return {
        "identity": {**spec.identity(), "dataset_hash": corpus.hash},
        "spec": spec.record(),
        "environment": environment(bench.device),
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
        facts = fingerprint(self.bench.spec, self.first[0], self.bench.facts(countermeasure, route, attributor))
        known = self.store.read_json(name)
        if known is not None and known["fingerprint"] == facts:
            return known["void"]
        prepared = self.bench.prepare(countermeasure, route, self.first)
        verdict, explained = check(self.bench, prepared, attributor)
        if explained is not None and chunk.pairs == self.first:
            self.explained[(countermeasure, route, attributor)] = explained
        self.store.write_json(name, {"fingerprint": facts, **asdict(verdict)})
        return verdict.void

    def maps(self, chunk: Chunk) -> Explained | None:
        """Maps that the preflight made of exactly this chunk's utterances; handed out once."""
        if chunk.pairs != self.first:
            return None
        return self.explained.pop((chunk.countermeasure, chunk.route, chunk.attributor), None)


def _work(bench: Workbench, spec: RunSpec, verdicts: Verdicts, name: str, chunk: Chunk) -> Outcome:
    void = verdicts.void(chunk)
    return run_chunk(bench, chunk, name, void=void, explained=verdicts.maps(chunk))


def missing_chunks(
    spec: RunSpec, bench: Workbench, chosen: list[Pair], have: pd.DataFrame, store: Store, problems: list[str]
) -> Iterator[Chunk]:
    """Chunks for the cells that have no row yet, batch by batch, so that every method is on the board early.

    Rows whose fingerprint no longer holds (other code, weights, options or versions) are moved to `stale/` first.
    """
    columns = ["countermeasure", "route", "attributor", "truth", "utterance", "vocoder", "metric"]
    done = dict(zip(have[columns].itertuples(index=False, name=None), have.fingerprint, strict=True))
    files = dict(zip(have[columns].itertuples(index=False, name=None), have.file, strict=True))
    stale: set[str] = set()
    wanted: list[tuple[int, str, str, str, tuple[Pair, ...], dict[str, str]]] = []
    facts = {
        (cm, a): bench.facts(cm, bench.route(cm), a) for cm in spec.countermeasures for a in spec.attributors
    }  # fmt: skip
    for cm in spec.countermeasures:
        for number, batch in enumerate(batches(chosen, bench.batch_size)):
            for attributor in spec.attributors:
                prints = {p.id: fingerprint(spec, p, facts[cm, attributor]) for p in batch}
                wanted.append((number, cm, bench.route(cm), attributor, batch, prints))
                for pair in batch:
                    for metric in spec.metrics:
                        key = _key(spec, cm, bench.route(cm), attributor, pair, metric)
                        if key in done and done[key] != prints[pair.id]:
                            stale.add(files[key])
    if stale:
        store.retire(sorted(stale))
        problems.append(
            f"{len(stale)} row files were made by other code, weights, options or library versions; they are in "
            f"{store.path / 'stale'} and their cells are computed again"
        )
    lost = {key for key, file in files.items() if file in stale}
    for number, cm, route, attributor, batch, prints in wanted:
        gaps: dict[tuple[str, ...], list[Pair]] = {}
        for pair in batch:
            keys = ((m, _key(spec, cm, route, attributor, pair, m)) for m in spec.metrics)
            metrics = tuple(m for m, key in keys if key not in done or key in lost)
            if metrics:
                gaps.setdefault(metrics, []).append(pair)
        for metrics, group in gaps.items():
            yield Chunk(
                countermeasure=cm, route=route, attributor=attributor, batch=number, pairs=tuple(group), metrics=metrics,
                fingerprints=tuple(prints[p.id] for p in group),
            )  # fmt: skip


def _key(spec: RunSpec, cm: str, route: str, attributor: str, pair: Pair, metric: str) -> tuple[str, ...]:
    return (cm, route, attributor, spec.truth.name, pair.spoof.source, pair.spoof.vocoder, metric)


def _keep(store: Store, spec: RunSpec, chunk: Chunk, outcome: Outcome) -> None:
    """Maps first, then the rows: a row on disk means that everything of its cell is."""
    for pair, values in outcome.maps:
        path = maps.map_path(store.path, chunk.countermeasure, chunk.route, chunk.attributor, pair.id)
        maps.write_map(path, values.numpy(), metadata=_metadata(spec, chunk, pair))
    for pair, values, region, valid in outcome.truths:
        path = maps.truth_path(store.path, spec.truth.name, pair.id)
        if not path.exists():
            maps.write_truth(
                path, values.numpy(), region.numpy(), valid.numpy(), metadata=_metadata(spec, chunk, pair)
            )  # fmt: skip
    if outcome.error:
        place = f"errors/{safe(chunk.countermeasure)}-{chunk.route}-{safe(chunk.attributor)}-{chunk.name}.txt"
        store.write_text(place, outcome.error)
    store.write_rows(chunk, spec.truth.name, outcome.rows)


def _metadata(spec: RunSpec, chunk: Chunk, pair: Pair) -> dict[str, str]:
    return {
        "dataset": spec.data, "utterance": pair.spoof.source, "vocoder": pair.spoof.vocoder,
        "countermeasure": chunk.countermeasure, "attributor": chunk.attributor, "route": chunk.route,
        "truth": spec.truth.name,
        "grid": f"{spec.grid.sample_rate}/{spec.grid.n_fft}/{spec.grid.hop}/{spec.grid.window}",
    }  # fmt: skip
