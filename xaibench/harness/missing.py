"""What a run folder still lacks, and what in it no longer holds: rows on disk against the cells that are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xaibench import maps, registry
from xaibench.harness.plan import Chunk, batches, cell_fingerprint, fingerprints
from xaibench.harness.results import Store, keys, plain
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
    routes = {cm: bench.route(cm) for cm in spec.countermeasures}
    of_pair: dict[tuple[str, str], Callable[[Pair], str]] = {}
    prints: dict[tuple[str, str, str], str] = {}

    def holds(row: Any) -> bool:
        if row.truth in replaced or (row.countermeasure, "weights") in replaced:
            return False
        cm, attributor, pair = row.countermeasure, row.attributor, f"{row.utterance}/{row.vocoder}"
        mine = cm in spec.countermeasures and attributor in spec.attributors and row.truth == spec.truth.name
        if not mine or row.route != routes[cm] or pair not in known or row.metric not in metrics:
            return True
        if (cm, attributor, pair) not in prints:
            if (cm, attributor) not in of_pair:
                of_pair[cm, attributor] = fingerprints(spec, bench.facts(cm, row.route, attributor))
            prints[cm, attributor, pair] = of_pair[cm, attributor](known[pair])
        return row.fingerprint == cell_fingerprint(prints[cm, attributor, pair], row.metric)

    alike, ones = _alike(have)
    wrong = np.array([not holds(row) for row in have.iloc[ones].itertuples()], dtype=bool)
    stale = sorted(have.file[wrong[alike]].unique())
    if not stale:
        return have
    gone = have.file.isin(stale)
    pair, kept_maps = ["utterance", "vocoder"], set()
    for cm, route, attributor, *of in _distinct(have[gone], ["countermeasure", "route", "attributor", *pair]):
        kept_maps.add(maps.map_path(store.path, cm, route, attributor, "/".join(of)))
    for truth, *of in _distinct(have[gone], ["truth", *pair]):
        kept_maps.update(maps.truth_paths(store.path, truth, "/".join(of)))
    store.retire([*sorted(str(p) for p in kept_maps if p.exists()), *stale])
    problems.append(
        f"{len(stale)} row files were made by other code, weights, options or library versions; they are in "
        f"{store.path / 'stale'}, and the cells of this run are computed again"
    )
    return have[~gone]


def retire_failed(store: Store, have: pd.DataFrame, problems: list[str]) -> pd.DataFrame:
    """Move every row file with a failed cell to `stale/`, so that its cells are missing; returns the rows that are left."""
    files = sorted(have.file[have.status == "failed"].unique())
    if files:
        store.retire(files)
        problems.append(f"{len(files)} row files with failed cells are in {store.path / 'stale'}; they are computed again")
    return have[~have.file.isin(files)]


def retire_unjudged(store: Store, have: pd.DataFrame, names: Sequence[str], problems: list[str]) -> pd.DataFrame:
    """Move the void rows of countermeasures whose judgement had failed, and which are judged now, to `stale/`."""
    files = sorted(have.file[(have.status == "void") & have.countermeasure.isin(names)].unique())
    if files:
        store.retire(files)
        problems.append(f"{' and '.join(names)} could not be judged before; {len(files)} row files are computed again")
    return have[~have.file.isin(files)]


def planned(
    spec: RunSpec, bench: Workbench, chosen: list[Pair], have: pd.DataFrame, store: Store, problems: list[str]
) -> tuple[list[Chunk], int]:
    """What is to be computed, and how many rows are kept.

    A file at the place of a chunk that is still to be computed holds rows of other cells: somebody renamed it. It goes to
    `stale/`, else the chunk's rows would be written over them.
    """
    chunks = list(missing_chunks(spec, bench, chosen, have, store.path))
    files = set(have.file.unique())
    misnamed = sorted(files & {str(store.rows_file(chunk, spec.truth.name)) for chunk in chunks if chunk.metrics})
    if not misnamed:
        return chunks, len(have)
    store.retire(misnamed)
    problems.append(f"{len(misnamed)} row files hold other cells than their names say; they are computed again")
    return planned(spec, bench, chosen, have[~have.file.isin(misnamed)], store, problems)


def missing_chunks(spec: RunSpec, bench: Workbench, chosen: list[Pair], have: pd.DataFrame, folder: Path) -> Iterator[Chunk]:
    """Chunks for the cells that have no row yet, batch by batch, so that every method is on the board early.

    Where maps are to be kept and a finished cell has none, a chunk without metrics makes them.
    """
    of_pair = {
        (cm, a): fingerprints(spec, bench.facts(cm, bench.route(cm), a))
        for cm in spec.countermeasures for a in spec.attributors
    }  # fmt: skip
    alike: dict[tuple[str, ...], tuple[str, ...]] = {}
    for cm in spec.countermeasures:
        route = bench.route(cm)
        frames = spec.grid.shape(bench.countermeasure(cm).module.n_samples)[1]
        done = _done(spec, chosen, have, cm, route)
        stop = 0
        for number, batch in enumerate(batches(chosen, bench.batch_size)):
            start, stop = stop, stop + len(batch)
            for attributor, states in zip(spec.attributors, done[:, start:stop], strict=True):
                if states.all() and not spec.keep_maps:
                    continue
                gaps: dict[tuple[str, ...], list[Pair]] = {}
                for pair, state in zip(batch, states, strict=True):
                    metrics = tuple(m for m, s in zip(spec.metrics, state.tolist(), strict=True) if not s)
                    metrics = alike.setdefault(metrics, metrics)  # one object for millions of chunks
                    explained = (state == _OK).any()
                    unkept = (
                        spec.keep_maps and explained and not _has_maps(folder, spec, cm, route, frames, attributor, pair)
                    )
                    if metrics or unkept:
                        gaps.setdefault(metrics, []).append(pair)
                for metrics, group in gaps.items():
                    yield Chunk(
                        countermeasure=cm, route=route, attributor=attributor, batch=number, pairs=tuple(group),
                        metrics=metrics, fingerprints=tuple(map(of_pair[cm, attributor], group)),
                    )  # fmt: skip


def _alike(have: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Rows that hold or do not hold together: the number of each row's group `(n,)`, and one row of every group.

    The metrics of the catalogue share the fingerprint of their pair, so forty rows of a pair are one question.
    """
    names = have.metric.cat.categories
    ours = np.flatnonzero(names.isin(catalog.METRICS.keys()))
    kinds = np.append(np.arange(len(names)), -1)  # the last is that of a missing name
    kinds[ours] = ours[:1]
    metric = pd.Categorical.from_codes(kinds[have.metric.cat.codes], dtype=have.metric.dtype)
    cell = ["countermeasure", "route", "attributor", "truth", "utterance", "vocoder", "fingerprint", "metric"]
    group, _ = pd.factorize(keys(have.assign(metric=metric), cell))
    return group, np.flatnonzero(~pd.Series(group).duplicated().to_numpy())


def _distinct(rows: pd.DataFrame, columns: list[str]) -> Iterator[tuple[str, ...]]:
    """The different texts of some columns together, in order of appearance."""
    kept = ~pd.Series(keys(rows, columns)).duplicated().to_numpy()
    return rows.loc[kept, columns].itertuples(index=False, name=None)


_OK = 2  # in what `_done` returns


def _done(spec: RunSpec, chosen: list[Pair], have: pd.DataFrame, cm: str, route: str) -> np.ndarray:
    """Which cells of a countermeasure have a row: 0 none, 1 one, `_OK` one that is ok. `(attributors, pairs, metrics)` int8.

    Of a cell with several rows the last counts.
    """
    done = np.zeros((len(spec.attributors), len(chosen), len(spec.metrics)), dtype=np.int8)
    here = (have.countermeasure == cm) & (have.route == route) & (have.truth == spec.truth.name)
    rows = have[here.to_numpy()]
    pair, _ = pd.factorize(keys(rows, ["utterance", "vocoder"]))
    place: dict[tuple[str, ...], int] = {(p.spoof.source, p.spoof.vocoder): i for i, p in enumerate(chosen)}
    pairs = np.array([place.get(names, -1) for names in _distinct(rows, ["utterance", "vocoder"])], dtype=np.intp)
    at = (_places(rows.attributor, spec.attributors), pairs[pair], _places(rows.metric, spec.metrics))
    wanted = np.logical_and.reduce([axis >= 0 for axis in at])
    done[tuple(axis[wanted] for axis in at)] = np.where(rows.status == "ok", _OK, 1)[wanted]
    return done


def _places(column: pd.Series, names: tuple[str, ...]) -> np.ndarray:
    """Where every row's text stands among `names`, -1 for not. `(n,)`."""
    place = {name: i for i, name in enumerate(names)}
    return np.array([*(place.get(name, -1) for name in column.cat.categories), -1])[column.cat.codes]  # last: missing


def _has_maps(folder: Path, spec: RunSpec, cm: str, route: str, frames: int, attributor: str, pair: Pair) -> bool:
    truth = maps.truth_path(folder, spec.truth.name, frames, pair.id)
    return truth.exists() and maps.map_path(folder, cm, route, attributor, pair.id).exists()


def _weights(stamp: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(cm, "weights"): facts.get("weights") for cm, facts in stamp.get("countermeasures", {}).items()}
