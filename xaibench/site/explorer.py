"""The explorer: one page that shows and plays every utterance whose maps were kept, beside what every method says of it.

SITE/explorer.html
SITE/explorer/index.js                 sections, utterances, methods, metrics, mean scores
SITE/explorer/<section>/<pair>.js      one pair: both recordings, the truth, every map in levels, scores and curves

No picture and no masked sound is stored: the page computes spectrograms and sounds itself, from the two recordings (16-bit
FLAC) and the levels (`xaibench.site.levels`). Only the pair that is looked at is loaded. The scripts of pairs are in UTF-16
with a byte-order mark, which browsers obey from a folder and from any server.
A *section* is one data set x truth x countermeasure x route, as on the board.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xaibench import audio, manifest, maps, registry
from xaibench.errors import RunError, XaibenchError, XaibenchWarning
from xaibench.files import write_bytes
from xaibench.leaderboard.table import SECTION, kind, metric_facts, read_rows, unknown_metrics
from xaibench.run_record import read_record
from xaibench.site import levels, shell
from xaibench.types import Pair

ASSETS = (
    "explorer.css", "explorer-codec.js", "explorer-stft.js", "explorer-sounds.js", "explorer-player.js",
    "explorer-colours.js", "explorer-panel.js", "explorer-pointing.js", "explorer-state.js", "explorer-details.js",
    "explorer-pairs.js", "explorer-gallery.js", "explorer-listening.js", "explorer.js",
)  # fmt: skip
NO_TWIN = "This utterance has no bona fide twin: there is no real half to see or to hear."
NO_AUDIO = "The recordings could not be read where this site was made, so there are no spectrograms and no sounds."
LEFT_OUT = "This site was made without recordings, so there are no spectrograms and no sounds."


@dataclass(frozen=True, eq=False)
class _Section:
    """What is shown together. pairs: pair -> method -> file. truths: pair -> file.

    records: pair -> run.json of the run its truth is from.
    """

    facts: Mapping[str, str]
    records: Mapping[str, Mapping[str, Any]]
    rows: pd.DataFrame
    pairs: Mapping[str, Mapping[str, Path]]
    truths: Mapping[str, Path]

    @property
    def slug(self) -> str:
        return shell.section_slug(self.facts)

    @property
    def methods(self) -> list[str]:
        return sorted({name for files in self.pairs.values() for name in files})


@dataclass
class _Recordings:
    """The data sets of the runs, each opened once; `record` is a run.json."""

    wanted: bool = True
    _known: dict[str, tuple[int, dict[str, Pair], str]] = field(default_factory=dict)

    def read(self, record: Mapping[str, Any], pair: str, n_samples: int) -> tuple[dict[str, bytes], int, str]:
        """FLAC files of the halves there are ("real", "fake"), their sample rate, and why one is missing."""
        if not self.wanted:
            return {}, 0, LEFT_OUT
        rate, pairs, why = self._open(record)
        if why or pair not in pairs:
            return {}, rate, why or NO_AUDIO
        try:
            heard = [audio.fit(half, n_samples) for half in audio.read_halves(pairs[pair], sample_rate=rate)]
        except XaibenchError as error:
            warnings.warn(f"{pair}: no sound in the explorer ({error})", XaibenchWarning, stacklevel=2)
            return {}, rate, NO_AUDIO
        names = ("real", "fake") if len(heard) == 2 else ("fake",)
        return (
            {n: audio.encoded(x, sample_rate=rate, effort=1.0) for n, x in zip(names, heard, strict=True)},
            rate,
            "" if len(heard) == 2 else NO_TWIN,
        )

    def _open(self, record: Mapping[str, Any]) -> tuple[int, dict[str, Pair], str]:
        spec = record.get("spec", {})
        key = json.dumps([spec.get("data"), spec.get("root"), spec.get("split")], sort_keys=True)
        if key not in self._known:
            try:
                corpus = registry.open_corpus(spec["data"], spec.get("root"))
                pairs = {pair.id: pair for pair in manifest.pairs(corpus, split=spec.get("split"))}
                self._known[key] = corpus.sample_rate, pairs, ""
            except (XaibenchError, KeyError) as error:
                # Its text may name folders of this machine: said here, not on a page.
                warnings.warn(f"the explorer has no sound: {error}", XaibenchWarning, stacklevel=2)
                self._known[key] = 0, {}, NO_AUDIO
        return self._known[key]


def write(
    runs: Sequence[Path],
    out: Path,
    *,
    rows: pd.DataFrame | None = None,
    utterances: int | None = None,
    sound: bool = True,
    nav: Sequence[tuple[str, str]] = (),
    footer: str = "",
) -> list[Path]:
    """Write the explorer of some runs into the site `out`. Returns what was written: nothing where no maps were kept.

    rows: their table, if it was read already (`leaderboard.table.read_rows`). utterances: how many pairs a section shows at
    most, the same ones in every section; all by default. sound: False leaves the recordings out, for data sets that may
    not be passed on. nav, footer: as `shell.render`.

    Raises RunError for a map that is damaged or of another shape than its truth, and as `read_rows`.
    """
    runs, out = [Path(run) for run in runs], Path(out)
    if not any((run / "maps").is_dir() for run in runs):
        return []
    rows = read_rows(runs, encoded=True) if rows is None else rows
    sections = [s for s in _sections(runs, rows) if s.pairs]
    if not sections:
        return []
    recordings, written, index = _Recordings(wanted=sound), [], []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for section in sections:
            chosen = _chosen(section.pairs, utterances)
            scores = dict(_by_pair(section.rows))
            for pair in chosen:
                content = _pair(section, pair, scores.get(pair), recordings, pool)
                identity = f"{section.slug}/{shell.slug(pair)}"
                text = shell.script("xaibench.deliver", identity, content)
                written.append(_write_wide(out / "explorer" / f"{identity}.js", text))
            index.append(_section_facts(section, chosen, nav))
    script = shell.script("xaibench.index", _index(sections, index, nav))
    page = shell.render("explorer.html.j2", title="Explorer", here="Explorer", nav=nav, footer=footer)
    pages = [shell.write(out / "explorer" / "index.js", script), shell.write(out / "explorer.html", page)]
    return [*pages, *written, *shell.copy_assets(out, ASSETS)]


def _sections(runs: Sequence[Path], rows: pd.DataFrame) -> Iterator[_Section]:
    """The sections of a table, with the maps that were kept in any of the runs."""
    rows = rows[~rows["metric"].isin(unknown_metrics(rows))]
    records = [read_record(run) for run in runs]
    kept = [_kept(run) for run in runs]
    for key, part in rows.groupby(list(SECTION), sort=True, observed=True):
        facts = dict(zip(SECTION, map(str, key), strict=True))
        pairs: dict[str, dict[str, Path]] = {}
        truths: dict[str, Path] = {}
        origins: dict[str, Mapping[str, Any]] = {}
        asked = {f"{u}/{v}" for u, v in part[["utterance", "vocoder"]].drop_duplicates().astype(str).to_numpy()}
        for run, known, found in zip(runs, records, kept, strict=True):
            for pair, files in found.get((facts["countermeasure"], facts["route"]), {}).items():
                truth = _truth(run, facts["truth"], pair, next(iter(files.values()))) if pair in asked else None
                if truth is not None:
                    pairs[pair] = {**files, **pairs.get(pair, {})}
                    truths.setdefault(pair, truth)
                    origins.setdefault(pair, known)
        yield _Section(facts, origins, part, dict(sorted(pairs.items())), truths)


def _kept(run: Path) -> dict[tuple[str, str], dict[str, dict[str, Path]]]:
    """Every map of a run: (countermeasure, route) -> pair -> method -> file."""
    found: dict[tuple[str, str], dict[str, dict[str, Path]]] = {}
    for one in maps.kept(run):
        found.setdefault((one.countermeasure, one.route), {}).setdefault(one.pair, {})[one.attributor] = one.path
    return found


def _truth(run: Path, truth: str, pair: str, example: Path) -> Path | None:
    """The truth of a pair of as many frames as a map of it, if it was kept."""
    paths = maps.truth_paths(run, truth, pair)
    if len(paths) > 1:
        frames = maps.read_map(example).values.shape[1]
        paths = [p for p in paths if p.parent.name == str(frames)]
    return paths[0] if paths else None


def _chosen(pairs: Mapping[str, Any], most: int | None) -> list[str]:
    """At most so many pairs, in their order. By hash: not the first ones, and the same ones whatever else there is."""
    if most is None or len(pairs) <= most:
        return list(pairs)
    return sorted(sorted(pairs, key=lambda pair: hashlib.sha256(pair.encode()).digest())[:most])


def _by_pair(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of every pair."""
    for (source, vocoder), part in rows.groupby(["utterance", "vocoder"], observed=True):
        yield f"{source}/{vocoder}", part


def _pair(
    section: _Section, pair: str, rows: pd.DataFrame | None, recordings: _Recordings, pool: ThreadPoolExecutor
) -> dict[str, Any]:
    """Everything about one pair, for its script."""
    truth = maps.read_truth(section.truths[pair])
    valid = truth.valid
    total, size = int(valid.sum()), int(truth.region[valid].sum())
    counts = [*(levels.count(share, total) for share in levels.SHARES), size]

    def one(name: str) -> tuple[dict[str, Any], Mapping[str, np.ndarray]]:
        stored = maps.read_map(section.pairs[pair][name])
        if stored.values.shape != valid.shape:
            raise RunError(
                f"{section.pairs[pair][name]}: {stored.values.shape} cells, its truth has {valid.shape}; remove the folder "
                f"maps and run again with --keep-maps"
            )
        return _map(stored.values, valid, counts), stored.curves

    names = list(section.pairs[pair])
    found = dict(zip(names, pool.map(one, names), strict=True))
    rate, n_fft, hop, window = maps.grid_of(truth.metadata)
    samples = _samples(section, pair, valid.shape[1], hop)
    halves, heard, note = recordings.read(section.records[pair], pair, samples)
    if heard and heard != rate:
        halves, note = {}, NO_AUDIO
    return {
        "grid": {"rate": rate, "n_fft": n_fft, "hop": hop, "window": window, "samples": samples},
        "shape": valid.shape,
        "counts": counts,
        "cells": total,
        "valid": levels.packed_mask(valid),
        "region": levels.packed_mask(truth.region),
        "truth": _map(truth.values, valid, counts),
        "maps": {name: content for name, (content, _) in found.items()},
        "sound": {name: levels.text(content) for name, content in halves.items()},
        "note": note,
        **_scores(rows),
        "curves": {name: {k: _short(c) for k, c in curves.items()} for name, (_, curves) in found.items() if curves},
    }


def _map(values: np.ndarray, valid: np.ndarray, counts: Sequence[int]) -> dict[str, Any]:
    """A map, for a script."""
    found = levels.levels(values, valid, counts)
    guessed, text = levels.packed(found.codes)
    return {
        "levels": text, "predicted": guessed, "means": _short(found.means), "stops": found.stops,
        "tied": [int(t) for t in found.tied], "limit": _short([found.limit])[0], "flat": found.flat,
    }  # fmt: skip


def _scores(rows: pd.DataFrame | None) -> dict[str, Any]:
    """metric -> method -> value of one pair, and method -> metric -> why there is none."""
    scores: dict[str, dict[str, float]] = {}
    gaps: dict[str, dict[str, str]] = {}
    for row in [] if rows is None else rows.to_dict("records"):
        if row["status"] == "ok":
            scores.setdefault(str(row["metric"]), {})[str(row["attributor"])] = _short([row["value"]])[0]
        else:
            note = row["note"] if isinstance(row["note"], str) else ""
            gaps.setdefault(str(row["attributor"]), {})[str(row["metric"])] = f"{row['status']}: {note or 'no reason given'}"
    return {"scores": scores, "gaps": gaps}


def _section_facts(section: _Section, chosen: Sequence[str], nav: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What the index says of a section."""
    facts, data = section.facts, next(iter(section.records.values())).get("dataset", {})
    ok = section.rows[section.rows["status"].eq("ok")]
    means: dict[str, dict[str, float]] = {}
    for (metric, method), value in ok.groupby(["metric", "attributor"], observed=True)["value"].mean().items():
        means.setdefault(str(metric), {})[str(method)] = _short([value])[0]
    speakers = section.rows[["utterance", "speaker"]].drop_duplicates("utterance").astype(str)
    speaker = dict(zip(speakers["utterance"], speakers["speaker"], strict=True))
    sources = [maps.split_pair(pair) for pair in chosen]
    return {
        "slug": section.slug,
        "name": f"{facts['countermeasure']} on {facts['dataset']}, {facts['route']} route, truth {facts['truth']}",
        **facts,
        "board": f"boards/{section.slug}.html" if ("Boards", "index.html") in map(tuple, nav) else "",
        "licence": str(data.get("licence", "")),
        "citation": str(data.get("citation", "")),
        "methods": section.methods,
        "metrics": [m for m in means],
        "means": means,
        "pairs": [
            {"id": pair, "slug": shell.slug(pair), "source": source, "vocoder": vocoder, "speaker": speaker.get(source, "")}
            for pair, (source, vocoder) in zip(chosen, sources, strict=True)
        ],
    }


def _index(
    sections: Sequence[_Section], facts: Sequence[Mapping[str, Any]], nav: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """What the page loads first."""
    methods = sorted({name for section in sections for name in section.methods})
    metrics = sorted({name for found in facts for name in found["metrics"]})
    pages = any(label == "Methods" for label, _ in nav)
    return {
        "shares": levels.SHARES,
        "sections": facts,
        "methods": {
            name: {"kind": kind(name), "page": f"methods/{shell.slug(name)}.html" if pages else ""} for name in methods
        },
        "metrics": {
            name: {"direction": m.direction, "chance": m.chance, "family": m.family, "misleads": m.misleads}
            for name, m in ((name, metric_facts(name)) for name in metrics)
        },
    }


def _samples(section: _Section, pair: str, frames: int, hop: int) -> int:
    """How many samples the countermeasure looked at: as its card says, or as many as fill the frames."""
    card = section.records[pair].get("countermeasures", {}).get(section.facts["countermeasure"], {}).get("card") or {}
    said = card.get("n_samples")
    return said if isinstance(said, int) and said // hop + 1 == frames else (frames - 1) * hop


def _short(numbers: Any) -> list[float]:
    """Four significant digits: more cannot be told apart on a screen."""
    return [float(f"{float(x):.4g}") for x in numbers]


def _write_wide(path: Path, text: str) -> Path:
    """Write a script in UTF-16 with a byte-order mark, whole or not at all. Raises RunError where it cannot be written."""
    return write_bytes(path, ("\ufeff" + text).encode("utf-16-le", "replace"))
