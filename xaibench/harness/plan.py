"""Which cells a run has: the order of the utterances, the chunks of work, and the fingerprint of a cell."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import xaibench
from xaibench import registry
from xaibench.errors import RunError
from xaibench.harness.spec import RunSpec
from xaibench.manifest import pairs
from xaibench.metrics import catalog
from xaibench.protocols import Corpus
from xaibench.types import Pair, Utterance


@dataclass(frozen=True)
class Chunk:
    """The unit of work: one countermeasure, one route, one attributor, one batch of utterances, the missing metrics."""

    countermeasure: str
    route: str
    attributor: str
    batch: int
    pairs: tuple[Pair, ...]
    metrics: tuple[str, ...]
    fingerprints: tuple[str, ...]  # one a pair

    @property
    def name(self) -> str:
        """A file name, the same whenever the same cells are computed."""
        cells = json.dumps([self.fingerprints, self.metrics])
        return f"{self.batch:05d}-{hashlib.sha256(cells.encode()).hexdigest()[:12]}"


def _by_turns(groups: Iterable[Sequence[Any]]) -> list[Any]:
    """The first of each group, then the second of each, ..."""
    return [item for turn in zip_longest(*groups) for item in turn if item is not None]


def interleave(utterances: Sequence[Utterance]) -> list[Utterance]:
    """Speakers by turns, each in manifest order, so that any prefix holds as many speakers as it can."""
    speakers: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        speakers.setdefault(utterance.speaker, []).append(utterance)
    return _by_turns(speakers.values())


def ordered_pairs(corpus: Corpus, split: str) -> list[Pair]:
    """Every pair of a split, ordered so that a prefix of any length is balanced: it takes each source utterance once
    before any twice, speakers by turns, vocoders by turns. A longer prefix only adds to a shorter one.

    Raises RunError for a split without pairs.
    """
    twins: dict[str, dict[str, Pair]] = {}
    for pair in pairs(corpus, split=split):
        twins.setdefault(pair.spoof.source, {})[pair.spoof.vocoder] = pair
    if not twins:
        paired = sorted({p.spoof.split for p in pairs(corpus)})
        if paired:
            raise RunError(
                f"{corpus.name} has no pairs in its split {split!r}; it has some in {', '.join(paired)} (--split)"
            )
        raise RunError(
            f"{corpus.name} has neither bona fide twins nor segments, so there is no truth to score against (splits: "
            f"{_splits(corpus)}); `xaibench evaluate` scores countermeasures on it"
        )
    sources = interleave([next(iter(t.values())).spoof for t in twins.values()])
    vocoders = sorted({v for t in twins.values() for v in t})
    ordered = []
    for turn in range(len(vocoders)):
        for place, source in enumerate(sources):
            vocoder = vocoders[(place + turn) % len(vocoders)]
            if vocoder in twins[source.source]:
                ordered.append(twins[source.source][vocoder])
    return ordered


def _splits(corpus: Corpus) -> str:
    return ", ".join(sorted({u.split for u in corpus.utterances})) or "none"


def reference_pairs(corpus: Corpus, *, most: int) -> list[Pair]:
    """Pairs of the training split (dev where there is none), never of a held-out vocoder: references and the prior."""
    for split in ("train", "dev"):
        if any(u.split == split and not u.bonafide for u in corpus.utterances):
            chosen = [p for p in ordered_pairs(corpus, split) if p.spoof.vocoder not in corpus.held_out]
            return chosen[:most]
    return []


def batches(chosen: Sequence[Pair], size: int) -> list[tuple[Pair, ...]]:
    """Consecutive groups of `size`. Depends on the whole list, never on what is already done."""
    return [tuple(chosen[i : i + size]) for i in range(0, len(chosen), size)]


@cache
def source_hash(package: str) -> str:
    """sha256 over the Python files that decide numbers: a package's, without its pictures, tables and command line."""
    import importlib.util

    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        origin = Path(spec.origin) if spec and spec.origin else None
        return hashlib.sha256(origin.read_bytes()).hexdigest() if origin and origin.is_file() else "unknown"
    silent = {
        "cli", "site", "analysis", "api", "listen.py", "listening.py", "request.py", "mean_audio.py", "recordings.py",
        "figures", "stats.py", "maps.py", "leaderboard", "training.py", "engine.py", "results.py", "run.py",
        "missing.py", "excerpts.py", "augment.py", "rawboost.py", "evaluation.py", "detection_table.py", "scorefile.py",
        "det.py", "datasets", "recipe.py", "audit", "comparisons.py", "agreement.py", "diagrams.py",
        "tasks.py", "cluster.py", "isolate.py", "isolated.py", "answers.py", "nursery.py", "probe.py", "worker.py",
        "sizes.py", "prefetch.py", "described.py", "files.py", "run_record.py", "submission", "testing",
        "scaffold", "installed.py", "reading.py", "warned.py", "heard.py",
        "verdicts.py", "lock.py", "checksums.py", "doctor", "tables.py", "screen.py", "states.py",
    }  # fmt: skip
    digest = hashlib.sha256()
    root = Path(next(iter(spec.submodule_search_locations)))
    for file in sorted(root.rglob("*.py")):
        relative = file.relative_to(root)
        # metrics/probe.py decides numbers, whatever probe.py beside the command line does.
        if package != xaibench.__name__ or relative.parts[0] == "metrics" or not silent & set(relative.parts):
            digest.update(str(relative).encode() + file.read_bytes())
    return digest.hexdigest()


def fingerprint(spec: RunSpec, pair: Pair, facts: Mapping[str, Any]) -> str:
    """What a cell's numbers depend on, as 16 hexadecimal digits. No timestamps.

    `facts` holds the countermeasure's (weights, source, preprocessing) and the attributor's (options, source, versions).
    """
    return fingerprints(spec, facts)(pair)


def fingerprints(spec: RunSpec, facts: Mapping[str, Any]) -> Callable[[Pair], str]:
    """`fingerprint` of many pairs: all that they share is written out once."""
    here = "\0pair"  # no option has this in it
    content = {
        "pair": here,
        "truth": asdict(spec.truth),
        "grid": asdict(spec.grid),
        "fractions": spec.fractions,
        "seed": spec.seed,
        "precision": spec.precision,
        "code": source_hash("xaibench"),
        **facts,
    }
    head, tail = json.dumps(content, sort_keys=True, default=str).split(json.dumps(here))
    begun = hashlib.sha256(head.encode())

    def of(pair: Pair) -> str:
        digest = begun.copy()
        own = [*(u.sha256 for u in pair.halves), *pair.spoof.segments]
        digest.update((json.dumps(own, sort_keys=True, default=str) + tail).encode())
        return digest.hexdigest()[:16]

    return of


def cell_fingerprint(pair: str, metric: str) -> str:
    """The fingerprint of a cell, from its pair's: the same for our metrics, and that with the source of a plugin's."""
    if metric in catalog.METRICS:
        return pair
    source = source_hash(registry.find("metrics", metric).package)
    return hashlib.sha256(f"{pair}{source}".encode()).hexdigest()[:16]
