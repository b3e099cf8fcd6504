"""What a run folder still lacks, and what in it no longer holds: rows on disk against the cells that are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from xaibench import maps, registry
from xaibench.harness.plan import Chunk, batches, cell_fingerprint, fingerprint
from xaibench.harness.results import Store, plain
from xaibench.harness.spec import RunSpec
from xaibench.harness.workbench import Workbench
from xaibench.metrics import catalog
from xaibench.types import Pair


def retire_stale(
    spec: RunSpec, bench: Workbench, every: list[Pair], store: Store, before: dict[str, Any], stamp: dict[str, Any],
    problems: list[str],
) -> pd.DataFrame:  # fmt: skip
    """Move what no longer holds to `stale/`, with its maps; returns the rows that hold.

    `before` and `stamp` are run.json as it is ({} for none) and as it will be; `problems` gets a sentence.

    Of the methods in `spec` that is every row of another fingerprint, whatever its metric and utterance; of others, whose
    options are not known here, the rows of a countermeasure with other weights or of a truth with other constants.
    """
    have = store.read_rows()
    known = {p.id: p for p in every}
    now, then = ({**_weights(s), **s.get("truths", {})} for s in (plain(stamp), before))
    replaced = {name for name, fact in now.items() if then.get(name, fact) != fact}
    metrics = {*catalog.METRICS, *registry.plugins("metrics")}
    facts: dict[tuple[str, str], dict[str, Any]] = {}
    prints: dict[tuple[str, str, str], str] = {}

    def holds(row: Any) -> bool:
        if row.truth in replaced or (row.countermeasure, "weights") in replaced:
            return False
        cm, attributor, pair = row.countermeasure, row.attributor, f"{row.utterance}/{row.vocoder}"
        mine = cm in spec.countermeasures and attributor in spec.attributors and row.truth == spec.truth.name
        if not mine or row.route != bench.route(cm) or pair not in known or row.metric not in metrics:
            return True
        if (cm, attributor, pair) not in prints:
            if (cm, attributor) not in facts:
                facts[cm, attributor] = bench.facts(cm, row.route, attributor)
            prints[cm, attributor, pair] = fingerprint(spec, known[pair], facts[cm, attributor])
        return row.fingerprint == cell_fingerprint(prints[cm, attributor, pair], row.metric)

    stale = {row.file for row in have.itertuples() if not holds(row)}
    if not stale:
        return have
    gone = have.file.isin(stale)
    kept_maps = set()
    for row in have[gone].itertuples():
        pair = f"{row.utterance}/{row.vocoder}"
        kept_maps.add(maps.map_path(store.path, row.countermeasure, row.route, row.attributor, pair))
        kept_maps.update(maps.truth_paths(store.path, row.truth, pair))
    store.retire([*sorted(str(p) for p in kept_maps if p.exists()), *sorted(stale)])
    problems.append(
        f"{len(stale)} row files were made by other code, weights, options or library versions; they are in "
        f"{store.path / 'stale'}, and the cells of this run are computed again"
    )
    return have[~gone]


def missing_chunks(spec: RunSpec, bench: Workbench, chosen: list[Pair], have: pd.DataFrame, folder: Path) -> Iterator[Chunk]:
    """Chunks for the cells that have no row yet, batch by batch, so that every method is on the board early.

    Where maps are to be kept and a finished cell has none, a chunk without metrics makes them.
    """
    columns = ["countermeasure", "route", "attributor", "truth", "utterance", "vocoder", "metric"]
    done = dict(zip(have[columns].itertuples(index=False, name=None), have.status, strict=True))
    facts = {
        (cm, a): bench.facts(cm, bench.route(cm), a) for cm in spec.countermeasures for a in spec.attributors
    }  # fmt: skip
    for cm in spec.countermeasures:
        route = bench.route(cm)
        frames = spec.grid.shape(bench.countermeasure(cm).module.n_samples)[1]
        for number, batch in enumerate(batches(chosen, bench.batch_size)):
            for attributor in spec.attributors:
                gaps: dict[tuple[str, ...], list[Pair]] = {}
                for pair in batch:
                    cell = (cm, route, attributor, spec.truth.name, pair.spoof.source, pair.spoof.vocoder)
                    metrics = tuple(m for m in spec.metrics if (*cell, m) not in done)
                    explained = any(done.get((*cell, m)) == "ok" for m in spec.metrics)
                    unkept = (
                        spec.keep_maps and explained and not _has_maps(folder, spec, cm, route, frames, attributor, pair)
                    )
                    if metrics or unkept:
                        gaps.setdefault(metrics, []).append(pair)
                for metrics, group in gaps.items():
                    yield Chunk(
                        countermeasure=cm, route=route, attributor=attributor, batch=number, pairs=tuple(group),
                        metrics=metrics, fingerprints=tuple(fingerprint(spec, p, facts[cm, attributor]) for p in group),
                    )  # fmt: skip


def _has_maps(folder: Path, spec: RunSpec, cm: str, route: str, frames: int, attributor: str, pair: Pair) -> bool:
    truth = maps.truth_path(folder, spec.truth.name, frames, pair.id)
    return truth.exists() and maps.map_path(folder, cm, route, attributor, pair.id).exists()


def _weights(stamp: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(cm, "weights"): facts.get("weights") for cm, facts in stamp.get("countermeasures", {}).items()}
