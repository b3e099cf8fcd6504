"""What a run folder lacks and what no longer holds, once more: one row after the other, one dictionary of every cell."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from xaibench.harness.plan import batches


def stale_files(have: pd.DataFrame, spec, route: str, known: set[str], metrics: set[str], expected: Callable) -> set[str]:
    """`expected(countermeasure, attributor, pair, metric)` is the fingerprint that a row must have."""
    stale = set()
    for row in have.itertuples():
        cm, attributor, pair = row.countermeasure, row.attributor, f"{row.utterance}/{row.vocoder}"
        mine = cm in spec.countermeasures and attributor in spec.attributors and row.truth == spec.truth.name
        if not mine or row.route != route or pair not in known or row.metric not in metrics:
            continue
        if row.fingerprint != expected(cm, attributor, pair, row.metric):
            stale.add(row.file)
    return stale


def gaps(have: pd.DataFrame, spec, route: str, chosen: list, size: int, kept: set) -> list[tuple]:
    """(countermeasure, attributor, batch, metrics, pairs); `kept`: the (countermeasure, attributor, pair) that have maps."""
    columns = ["countermeasure", "route", "attributor", "truth", "utterance", "vocoder", "metric"]
    done = dict(zip(have[columns].itertuples(index=False, name=None), have.status, strict=True))
    found = []
    for cm in spec.countermeasures:
        for number, batch in enumerate(batches(chosen, size)):
            for attributor in spec.attributors:
                gaps: dict[tuple[str, ...], list[str]] = {}
                for pair in batch:
                    cell = (cm, route, attributor, spec.truth.name, pair.spoof.source, pair.spoof.vocoder)
                    metrics = tuple(m for m in spec.metrics if (*cell, m) not in done)
                    explained = any(done.get((*cell, m)) == "ok" for m in spec.metrics)
                    if metrics or (spec.keep_maps and explained and (cm, attributor, pair.id) not in kept):
                        gaps.setdefault(metrics, []).append(pair.id)
                found += [(cm, attributor, number, metrics, tuple(group)) for metrics, group in gaps.items()]
    return found
