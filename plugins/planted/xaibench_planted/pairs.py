"""The data set `planted`: the bona fide recordings of minivoc, and for each a twin with a planted notch.

The bona fide files are minivoc's own, where they lie; no copy is made. The twins (152 files of 16-bit WAV, 10 MB) are made
on first use, in seconds, in the user's cache (`$XDG_CACHE_HOME/xaibench/planted`, or the folder given as root) and hashed.
A twin is `xaibench_planted.notch.notch` of the recording as read, rounded to 16 bit: no filter, level or noise is applied,
so the halves of a pair are equal but for the rectangle and for that rounding (-101 dBFS, during the stretch only).

Splits and speakers are minivoc's. The stretch is also each twin's segment, so `--truth segments` works.
The audio keeps the licences of minivoc (SOURCES.md there).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from xaibench_minivoc.datasets import minivoc
from xaibench_minivoc.made import made_once, wav

from xaibench import audio
from xaibench.protocols import Corpus, Dataset
from xaibench.segments import SPOOF
from xaibench.types import Utterance
from xaibench_planted.notch import DEPTH, planted_notch, planted_rectangle

NAME = "planted"

#: Of the recipe: another one makes other files, in another folder.
VERSION = 1


def cache_folder() -> Path:
    """Where the twins are made unless a root is given."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "xaibench" / NAME


def build(source: Corpus, folder: Path) -> Corpus:
    """The bona fide recordings of `source` with notched twins, made in `folder` where they are missing.

    Files that are there, of the right length, are not made again; `xaibench data verify` compares their hashes. Raises
    ManifestError when the folder cannot be written, AudioError for a recording that cannot be read.
    """
    real = [u for u in source.utterances if u.bonafide]
    key = hashlib.sha256(f"{VERSION} {DEPTH} {source.hash} {[u.sha256 for u in real]}".encode()).hexdigest()[:16]
    folder = Path(folder) / key
    by_source = {u.source: u for u in real}
    places = {name: (_path(folder, u), u.n_samples) for name, u in by_source.items()}
    facts = made_once(folder, NAME, places, lambda name: _make(by_source[name], source.sample_rate))
    table = json.dumps([source.hash, facts], sort_keys=True)
    return replace(
        source,
        name=NAME,
        utterances=tuple(half for u in real for half in (u, _twin(u, _path(folder, u), facts[u.source]))),
        held_out=(),
        kinds={planted_notch.name: "planted"},
        hash=hashlib.sha256(table.encode()).hexdigest(),
    )


def _twin(real: Utterance, path: Path, facts: Mapping[str, Any]) -> Utterance:
    start, end, *_ = facts["rectangle"]
    segments = ((start, end, SPOOF),)
    return replace(real, vocoder=planted_notch.name, path=path, sha256=facts["sha256"], segments=segments)


def _path(folder: Path, real: Utterance) -> Path:
    return folder / real.split / planted_notch.name / f"{real.source}.wav"


def _make(real: Utterance, sample_rate: int) -> tuple[bytes, dict[str, Any]]:
    samples = audio.read(real.path, sample_rate=sample_rate)
    content = wav(np.asarray(planted_notch.function(samples, sample_rate), dtype=np.float64), sample_rate=sample_rate)
    return content, {"rectangle": planted_rectangle(samples, sample_rate)}


def _open(root: Path | None) -> Corpus:
    return build(minivoc.open(None), cache_folder() if root is None else root)


planted = Dataset(
    name=NAME,
    summary="minivoc's bona fide speech and twins with a notch in a known place; made on first use (10 MB)",
    open=_open,
)
