"""Recordings that are made on first use: 16-bit WAV files in a folder, with an index of what is known of each.

A folder whose index and files are all there, of the right length, is taken as it is; `xaibench data verify` compares the
hashes. Every file is written whole or not at all, so processes that start together do no harm.
"""

from __future__ import annotations

import hashlib
import io
import json
import wave
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xaibench import reading
from xaibench.errors import ManifestError, RunError, first_line
from xaibench.files import whole

WAV_HEADER = 44  # bytes
INDEX = "index.json"


def made_once(
    folder: Path, name: str, wanted: Mapping[str, tuple[Path, int]], make: Callable[[str], tuple[bytes, dict[str, Any]]]
) -> dict[str, Any]:
    """What is known of every recording, after making them where one is missing: id -> facts, with its `sha256`.

    name: the data set's, for the message. wanted: id -> path and samples. make: id -> the file's content and its facts.
    Raises ManifestError when the folder cannot be written, and what `make` raises.
    """
    try:
        known = _known(folder, wanted)
        if known is not None:
            return known
        facts = {}
        for key, (path, _) in wanted.items():
            content, said = make(key)
            _replace(path, content)
            facts[key] = {"sha256": hashlib.sha256(content).hexdigest(), **said}
        _replace(folder / INDEX, json.dumps(facts, indent=0, sort_keys=True).encode())
    except RunError as error:
        why = getattr(error.__cause__, "strerror", None) or first_line(error)
        raise ManifestError(
            f"{folder}: cannot write {name} here ({why}); pass --root {name}=FOLDER or set XDG_CACHE_HOME"
        ) from error
    return facts


def wav(samples: np.ndarray, *, sample_rate: int) -> bytes:
    """A mono 16-bit WAV file of floats `(N,)` in [-1, 1], rounded as by `xaibench.audio.write`.

    By the standard library: libsndfile waits for the disk at every file, which takes minutes over 760 of them.
    """
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes())
    return stream.getvalue()


def _known(folder: Path, wanted: Mapping[str, tuple[Path, int]]) -> dict[str, Any] | None:
    """The index, if it and all the files are there; None otherwise."""
    try:
        facts = reading.json_object(folder / INDEX, ManifestError, hint="it is made again")
    except ManifestError:
        return None  # not made yet, or damaged: made again
    for key, (path, n_samples) in wanted.items():
        if key not in facts or not path.is_file() or path.stat().st_size != WAV_HEADER + 2 * n_samples:
            return None
    return facts


def _replace(path: Path, content: bytes) -> None:
    with whole(path) as scratch:
        scratch.write_bytes(content)
