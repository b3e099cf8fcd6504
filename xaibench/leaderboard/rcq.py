"""Relative contribution quantification of a run's kept maps: one line a countermeasure, route and attributor.

RCQ pools frames over a set, so it is no metric of a row; it is read from the maps that `--keep-maps` left. Each map
`(F, T)` on the run's grid becomes a heat map `(T,)`: the sum over the frequencies of the valid band, its positive part,
scaled to [0, 1] per utterance (`xaibench.metrics.rcq.heat`), so a map that is flat over time has none (NaN). Only partially
spoofed utterances count. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xaibench import audio, maps, registry, segments
from xaibench.errors import RunError
from xaibench.metrics.rcq import CATEGORIES, heat, rcq, read_vad, vad_frames
from xaibench.protocols import Corpus
from xaibench.run_record import read_spec
from xaibench.types import Utterance

COLUMNS = ("countermeasure", "route", "attributor", "utterances", *CATEGORIES)


def rcq_of_run(run: Path, *, vad: Path | None = None) -> pd.DataFrame:
    """`COLUMNS`, one row a countermeasure x route x attributor, RCQ in percent.

    vad: a folder of `UTTERANCE.vad` files; without it the categories are `xaibench.segments.categories`, whose speech
    labels are an energy rule on the bona fide original.

    Raises RunError: not a run folder, no kept maps, no partially spoofed utterance among them, or no bona fide original
    and no vad; ManifestError and AudioError for labels and recordings that cannot be read.
    """
    run = Path(run)
    spec = read_spec(run, needs=("data", "grid"))
    corpus = registry.open_corpus(spec["data"], spec.get("root"))
    spoofed = {(u.source, u.vocoder): u for u in corpus.utterances if _partial(u)}
    if not spoofed:
        raise RunError(f"{run}: {corpus.name} has no segment labels; RCQ needs partially spoofed speech, as minivoc-partial")
    bonafide = {u.source: u for u in corpus.utterances if u.bonafide}
    grid = spec["grid"]
    known: dict[tuple[str, str, int], dict[str, np.ndarray]] = {}
    rows = []
    methods: dict[tuple[str, str, str], list[maps.Kept]] = {}
    for one in maps.kept(run):
        methods.setdefault((one.countermeasure, one.route, one.attributor), []).append(one)
    for names, files in methods.items():
        heats, frames = [], []
        for one in files:
            source, vocoder = maps.split_pair(one.pair)
            utterance = spoofed.get((source, vocoder))
            if utterance is None:
                continue
            values = maps.read_map(one.path).values
            h = heat(values[_band(len(values), corpus, grid)].sum(0, dtype=np.float64))
            key = (source, vocoder, len(h))
            if key not in known:
                known[key] = _frames(utterance, bonafide.get(source), len(h), grid, vad, run)
            heats.append(h)
            frames.append(known[key])
        if heats:
            rows.append([*names, len(heats), *rcq(heats, frames).values()])
    if not rows:
        raise RunError(f"{run}: no map of a partially spoofed utterance was kept; run again with --keep-maps")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _partial(utterance: Utterance) -> bool:
    return any(label == segments.SPOOF for *_, label in utterance.segments)


def _band(bins: int, corpus: Corpus, grid: Mapping[str, Any]) -> np.ndarray:
    """The grid's bins within the corpus' valid band. Shape: `(bins,)` bool."""
    centres = np.arange(bins) * grid["sample_rate"] / grid["n_fft"]
    return (centres >= corpus.valid_band[0]) & (centres <= corpus.valid_band[1])


def _frames(
    utterance: Utterance, bonafide: Utterance | None, length: int, grid: Mapping[str, Any], vad: Path | None, run: Path
) -> dict[str, np.ndarray]:
    rate, hop = grid["sample_rate"], grid["hop"]
    if vad is not None:
        return vad_frames(read_vad(Path(vad) / f"{utterance.source}.vad"), length, frame_ms=1000 * hop / rate)
    if bonafide is None:
        raise RunError(
            f"{run}: {utterance.source!r} has no bona fide original, which tells speech from non-speech; pass a folder of "
            f".vad files"
        )
    heard = max((length - 1) * hop, 1)  # the last frame is centred there; what follows it is in no other frame
    speech = segments.speech_frames(
        audio.fit(audio.read(bonafide.path, sample_rate=rate), heard), length, hop=hop, sample_rate=rate
    )
    fitted = segments.utterance_segments(utterance, n_samples=heard, sample_rate=rate)
    return segments.categories(fitted, speech, hop=hop / rate)
