"""Activations of a run's kept maps: every method's curve of every utterance, with truth, voice activity and guard.

Reads a run folder made with --keep-maps and the data set it names; changes neither. The truth on frames is that of the run:
of `segments` the frames that are more than half spoofed, of any other truth its temporal region (`metrics.temporal`), which
for the top 5 % of the cells is 5 % of the frames. Voice activity is that of the bona fide twin where there is one.
No torch is imported, unless the truth is a difference of spectrograms or the detector is silero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xaibench import audio, manifest, maps, registry, segments
from xaibench.analysis.activations import Activity, Rules, frame_edges, marginal, observe, segments_above
from xaibench.analysis.speech import on_frames, voice_activity
from xaibench.analysis.statistics import statistics
from xaibench.errors import RunError
from xaibench.run_record import read_spec
from xaibench.types import Pair

SPOOFED, BONAFIDE = "spoof", "bonafide"
SEGMENTS = "segments"  # `xaibench.truth.SEGMENTS`, whose module would bring torch along


@dataclass(frozen=True, eq=False)
class Heard:
    """One pair as a countermeasure heard it: waveforms `(N,)`, and what is known of their frames.

    bonafide: None without a twin. edges `(T + 1,)` s; speech, truth `(T,)` bool; splices: s. spoofed: stretches in seconds
    of which the labels say so; empty where the truth is no list of segments.
    """

    pair: Pair
    spoof: np.ndarray
    bonafide: np.ndarray | None
    edges: np.ndarray
    speech: np.ndarray
    truth: np.ndarray
    splices: tuple[float, ...]
    spoofed: tuple[tuple[float, float], ...]


@dataclass(frozen=True, eq=False)
class Mapped:
    """A method's activity on one half ("spoof" or "bonafide") of one pair, id `source/vocoder`."""

    countermeasure: str
    route: str
    attributor: str
    pair: str
    half: str
    activity: Activity


class ActivationRun:
    """A run folder, opened. `rules` say how its maps become activations.

    Raises RunError for a folder without run.json, or without kept maps; what opening the data set raises.
    """

    def __init__(self, run: Path, rules: Rules) -> None:
        self.path, self.rules = Path(run), rules
        self.spec: Mapping[str, Any] = read_spec(self.path, needs=("data", "truth", "grid"))
        grid = self.spec["grid"]
        self.step = grid["hop"] / grid["sample_rate"]
        self.centres = np.arange(grid["n_fft"] // 2 + 1) * grid["sample_rate"] / grid["n_fft"]
        self.corpus = registry.open_corpus(self.spec["data"], self.spec.get("root"))
        self.pairs: dict[str, Pair] = {p.id: p for p in manifest.pairs(self.corpus, split=self.spec.get("split"))}
        self.files = {(m.countermeasure, m.route, m.attributor, m.pair): m.path for m in maps.kept(self.path)}
        if not self.files:
            raise RunError(f"{self.path}: no maps were kept; run again with --keep-maps")
        self._heard: dict[tuple[str, int], Heard] = {}

    @property
    def truth(self) -> str:
        """The name of the run's truth."""
        return self.spec["truth"]["name"]

    @property
    def methods(self) -> list[tuple[str, str, str]]:
        """(countermeasure, route, attributor) of which maps were kept, sorted."""
        return sorted({key[:3] for key in self.files})

    def chosen(self, utterances: Sequence[str] = ()) -> list[str]:
        """Ids of the pairs with kept maps: all, or those of some `source`s or `source/vocoder`s. Raises RunError."""
        if not utterances:
            return sorted({key[3] for key in self.files})
        return sorted({pair for name in utterances for pair in maps.kept_pairs(self.path, name)})

    def heard(self, pair: str, frames: int) -> Heard:
        """The pair behind maps of so many frames. Raises RunError for one that the data set does not hold."""
        key = (pair, frames)
        if key not in self._heard:
            if pair not in self.pairs:
                raise RunError(
                    f"{self.path}: maps of {pair}, which {self.corpus.name} does not hold; another version of the data set?"
                )
            self._heard[key] = self._listen(self.pairs[pair], frames)
        return self._heard[key]

    def mapped(self, pairs: Iterable[str], *, xai: Sequence[str] = ()) -> Iterator[Mapped]:
        """The kept maps of these pairs, of all methods or some."""
        wanted = set(pairs)
        for (cm, route, attributor, pair), path in self.files.items():
            if pair in wanted and (not xai or attributor in xai):
                yield self.observed((cm, route, attributor), pair, maps.read_map(path).values)

    def observed(self, method: tuple[str, str, str], pair: str, values: np.ndarray, half: str = SPOOFED) -> Mapped:
        """A map `(F, T)` on the run's grid as an activity; a bona fide half has no truth and no splices.

        Raises RunError for a map that is not on the run's grid.
        """
        if len(values) != len(self.centres):
            raise RunError(f"{self.path}: a map of {len(values)} frequencies, the grid has {len(self.centres)}")
        heard = self.heard(pair, values.shape[1])
        low, high = self.corpus.valid_band
        curve = marginal(values, (self.centres >= low) & (self.centres <= high))
        truth, splices = (heard.truth, heard.splices) if half == SPOOFED else (None, ())
        activity = observe(curve, heard.edges, heard.speech, rules=self.rules, truth=truth, splices=splices)
        return Mapped(*method, pair, half, activity)

    def _listen(self, pair: Pair, frames: int) -> Heard:
        rate = self.corpus.sample_rate
        edges = frame_edges(frames, self.step)
        length = round(edges[-1] * rate)
        halves = [audio.fit(half, length) for half in audio.read_halves(pair, sample_rate=rate)]
        speech = voice_activity(halves[0], edges, sample_rate=rate, detector=self.rules.vad)
        spoofed: tuple[tuple[float, float], ...] = ()
        splices: tuple[float, ...] = ()
        if self.truth == SEGMENTS:
            listed = segments.utterance_segments(pair.spoof, n_samples=length, sample_rate=rate)
            spoofed = _union((a, b) for a, b, label in listed if label == segments.SPOOF)
            truth = on_frames(spoofed, edges)
            splices = tuple(t for span in spoofed for t in span if 1e-9 < t < edges[-1] - 1e-9)
        else:
            truth = _difference_frames(maps.read_truth(maps.truth_path(self.path, self.truth, frames, pair.id)))
        return Heard(pair, halves[-1], halves[0] if len(halves) == 2 else None, edges, speech, truth, splices, spoofed)


def table(run: ActivationRun, mapped: Iterable[Mapped]) -> pd.DataFrame:
    """statistics.csv: the rows of `statistics` with what they are about. A bona fide half has no vocoder."""
    lines = []
    for one in mapped:
        spoof = run.pairs[one.pair].spoof
        about = {
            "countermeasure": one.countermeasure, "route": one.route, "attributor": one.attributor,
            "utterance": spoof.source, "vocoder": spoof.vocoder if one.half == SPOOFED else "bonafide",
            "speaker": spoof.speaker, "half": one.half, "truth": run.truth, "vad": run.rules.vad, "scale": run.rules.scale,
            "guard": run.rules.guard,
        }  # fmt: skip
        lines += [{**about, **row} for row in statistics(one.activity, run.rules)]
    return pd.DataFrame(lines)


def segment_table(run: ActivationRun, mapped: Iterable[Mapped]) -> pd.DataFrame:
    """segments.csv: one row a detected segment, in seconds of the excerpt that the countermeasure heard."""
    rules, lines = run.rules, []
    for one in mapped:
        source, vocoder = maps.split_pair(one.pair)
        about = (one.countermeasure, one.route, one.attributor, source, vocoder if one.half == SPOOFED else "bonafide")
        for threshold in rules.thresholds:
            found = segments_above(
                one.activity.h, threshold, one.activity.edges, gap=rules.gap, shortest=rules.shortest
            )  # fmt: skip
            lines += [(*about, threshold, s.start, s.end, s.mean, s.peak) for s in found]
    columns = ["countermeasure", "route", "attributor", "utterance", "vocoder", "threshold", "start", "end", "mean", "peak"]
    return pd.DataFrame(lines, columns=columns)


def _union(stretches: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Stretches in order, those that touch or overlap joined."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted(stretches):
        if joined and start <= joined[-1][1] + 1e-9:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return tuple(joined)


def _difference_frames(stored: maps.StoredTruth) -> np.ndarray:
    """The temporal region of a truth `(F, T)`, as `xaibench.metrics.temporal` takes it. Shape: `(T,)` bool."""
    import torch

    from xaibench.metrics.temporal import temporal_region
    from xaibench.types import Truth

    values, region = (torch.from_numpy(np.array(a))[None] for a in (stored.values, stored.region))
    valid = torch.from_numpy(np.array(stored.valid))
    return temporal_region(Truth(values=values, region=region, valid=valid, name="stored"))[0].numpy()
