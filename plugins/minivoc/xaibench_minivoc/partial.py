"""minivoc-partial: the utterances of minivoc with one or two vocoded segments each, and exact labels of when.

For every pair of minivoc the vocoded twin takes the place of the bona fide original during one or two segments of 0.25 to
0.6 s, most of each in speech. Twins are aligned to the sample and of one level, so nothing is moved or scaled:

    y = (1 - w) * bona fide + w * vocoded

w rises and falls over 10 ms, a raised cosine centred on the splice. A segment is where w > 0.5, to the sample; outside
the fades y is the bona fide recording, inside the vocoded one, bit for bit. Number, length and place of the segments are
drawn from the pair's id, so each of the five vocoders has its own.

The 760 files (49 MB, 16-bit WAV, which has the same bytes everywhere) are made on first use, in a few seconds, in the user's
cache (`$XDG_CACHE_HOME/xaibench/minivoc-partial`, or the folder given as root) and hashed. Every file is written
whole or not at all and is the same whoever writes it, so processes that start together do no harm.

Splices leave traces that no vocoder made: a countermeasure may learn to hear them. Read the transition category of
`xaibench.metrics.rcq` beside any score of localisation. The audio keeps the licences of minivoc (SOURCES.md).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from xaibench import audio
from xaibench.errors import ManifestError
from xaibench.manifest import pairs
from xaibench.protocols import Corpus, Dataset
from xaibench.segments import SPOOF, speech_frames
from xaibench.types import Pair, Utterance
from xaibench_minivoc.datasets import minivoc
from xaibench_minivoc.made import made_once, wav

NAME = "minivoc-partial"

#: Of the recipe below: another one makes other files, in another folder.
VERSION = 1

SAMPLE_RATE = 16_000  # Hz
SHORTEST, LONGEST = 0.25, 0.6  # s, of a segment
FADE = 160  # samples (10 ms) from all bona fide to all vocoded
MARGIN = 1_600  # samples (0.1 s) at both ends that stay bona fide
APART = 4_800  # samples (0.3 s) between two segments, at least
HOP = 160  # samples between the places a segment is tried at
SPEECH = 0.6  # share of a segment that is speech, at least


def weight(n_samples: int, spans: list[tuple[int, int]]) -> np.ndarray:
    """The share of the vocoded twin in each sample. `(n_samples,)` in [0, 1]; above 0.5 exactly within the spans.

    spans: first and one past the last sample of each segment.

    >>> w = weight(1000, [(300, 700)])
    >>> np.flatnonzero(w > 0.5)[[0, -1]].tolist(), w[219], w[380]
    ([300, 699], np.float64(0.0), np.float64(1.0))
    """
    half = FADE // 2
    rise = 0.5 * (1 + np.sin(np.pi * (np.arange(-half, half) + 0.5) / FADE))
    w = np.zeros(n_samples)
    for first, last in spans:
        w[first - half : last + half] = 1.0
        w[first - half : first + half] = rise
        w[last - half : last + half] = rise[::-1]
    return w


def draw_spans(name: str, bonafide: np.ndarray) -> list[tuple[int, int]]:
    """First and one past the last sample of the segments of the pair `name`, by rising start.

    One or two, each alike likely. A segment may begin at every 10 ms at which at least 60 % of it is speech
    (`xaibench.segments.speech_frames` of the bona fide recording). Where there is no such place, the first takes one
    with the most speech and the second is left out. Same name and recording, same segments. Raises ManifestError for a
    recording too short to hold one.
    """
    seed = hashlib.sha256(f"{NAME} {VERSION} {name}".encode()).digest()
    draw = random.Random(int.from_bytes(seed[:8])).random  # this stream is the same in every version of Python
    speech = speech_frames(bonafide, len(bonafide) // HOP + 1, hop=HOP, sample_rate=SAMPLE_RATE)
    spans: list[tuple[int, int]] = []
    for number in range(1 + (draw() < 0.5)):
        length = round((SHORTEST + (LONGEST - SHORTEST) * draw()) * SAMPLE_RATE)
        within, place = int(draw() * HOP), draw()  # off the grid's frames, so that no frame is half spoofed
        starts = np.arange(MARGIN, len(bonafide) - MARGIN - length - HOP, HOP)
        for first, last in spans:
            starts = starts[(starts + length + HOP + APART <= first) | (starts >= last + APART)]
        if not len(starts):
            if number == 0:
                raise ManifestError(
                    f"{name}: {len(bonafide)} samples, expected at least {length + 2 * MARGIN + 2 * HOP} to hold a segment"
                )
            break
        share = np.array([speech[s // HOP : (s + length) // HOP].mean() for s in starts])
        if number and share.max() < SPEECH:
            break
        enough = starts[share >= min(SPEECH, share.max())]
        first = int(enough[int(place * len(enough))]) + within
        spans.append((first, first + length))
    return sorted(spans)


def splice(bonafide: np.ndarray, vocoded: np.ndarray, spans: list[tuple[int, int]]) -> np.ndarray:
    """The vocoded recording within the spans, the bona fide one outside. `(N,)` twice -> `(N,)` float64."""
    w = weight(len(bonafide), spans)
    return (1 - w) * bonafide + w * vocoded


def cache_folder() -> Path:
    """Where the files are made unless a root is given: the user's cache, one folder a version of recipe and minivoc."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "xaibench" / NAME


def build(source: Corpus, folder: Path) -> Corpus:
    """`source` (minivoc, or pairs like it) with partially vocoded recordings, made in `folder` where they are missing.

    Files that are there, of the right length, are not made again; `xaibench data verify` compares their hashes. Raises
    ManifestError when the folder cannot be written, AudioError for a recording that cannot be read.
    """
    key = hashlib.sha256(f"{VERSION} {source.hash} {[u.sha256 for u in source.utterances]}".encode()).hexdigest()[:16]
    folder = Path(folder) / key
    wanted = pairs(source)
    twins = {p.id: p for p in wanted}
    places = {key: (_path(folder, p.spoof), p.spoof.n_samples) for key, p in twins.items()}
    facts = made_once(folder, NAME, places, lambda key: _make(twins[key], source.sample_rate))
    spoofed = {p.id: _utterance(p.spoof, _path(folder, p.spoof), facts[p.id], source.sample_rate) for p in wanted}
    utterances = tuple(u if u.bonafide else spoofed[f"{u.source}/{u.vocoder}"] for u in source.utterances)
    table = json.dumps([source.hash, facts], sort_keys=True)
    return replace(source, name=NAME, utterances=utterances, hash=hashlib.sha256(table.encode()).hexdigest())


def _utterance(vocoded: Utterance, path: Path, facts: Mapping[str, Any], sample_rate: int) -> Utterance:
    segments = tuple((first / sample_rate, last / sample_rate, SPOOF) for first, last in facts["spans"])
    return replace(vocoded, path=path, sha256=facts["sha256"], segments=segments)


def _path(folder: Path, vocoded: Utterance) -> Path:
    return folder / vocoded.split / vocoded.vocoder / f"{vocoded.source}.wav"


def _make(pair: Pair, sample_rate: int) -> tuple[bytes, dict[str, Any]]:
    if pair.spoof.lag or sample_rate != SAMPLE_RATE:
        raise ManifestError(
            f"{pair.id}: lag {pair.spoof.lag} at {sample_rate} Hz, expected twins aligned to the sample at {SAMPLE_RATE} Hz"
        )
    bonafide, vocoded = (audio.read(u.path, sample_rate=sample_rate) for u in pair.halves)
    spans = draw_spans(pair.id, bonafide)
    return wav(splice(bonafide, vocoded, spans), sample_rate=sample_rate), {"spans": spans}


def _open(root: Path | None) -> Corpus:
    return build(minivoc.open(None), cache_folder() if root is None else root)


minivoc_partial = Dataset(
    name=NAME,
    summary="minivoc with one or two vocoded segments an utterance, labelled to the sample; made on first use (49 MB)",
    open=_open,
)
