"""What a picture of a pair is made from: the recordings, their spectrograms, the run's facts and scores.

Waveforms `(N,)`; magnitudes `(F, T)` on the run's grid. A picture reads the run folder, and the data set it names for the
audio; neither is changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xaibench import audio, maps
from xaibench.errors import RunError, XaibenchError
from xaibench.leaderboard.table import read_rows


@dataclass(frozen=True, eq=False)
class Recorded:
    """A pair's id `source/vocoder` and its halves `(N,)`, aligned; `band`: the data set's valid band in Hz."""

    pair: str
    bonafide: np.ndarray
    spoof: np.ndarray
    sample_rate: int
    band: tuple[float, float]


def recorded(run: Path, utterance: str) -> Iterator[Recorded]:
    """The audio of every pair of `utterance` (`source` or `source/vocoder`) of which a run kept maps.

    Raises RunError for a run without them or pairs without a bona fide half, ManifestError, PluginError or AudioError where
    the data set cannot be opened as it was.
    """
    pairs = maps.kept_pairs(run, utterance)
    facts = spec_of(run)
    known = _pairs(facts["data"], facts.get("root"), facts.get("split"))
    for name in pairs:
        if name not in known[0]:
            raise RunError(f"{run}: maps of {name}, which {facts['data']} does not hold; another version of the data set?")
        yield _read(name, *known, where=str(run))


def recorded_in(data: str, utterance: str, *, root: Any = None) -> list[Recorded]:
    """The audio of a data set's pairs: one for `source/vocoder`, one a vocoder for a bare `source`. All splits.

    Raises XaibenchError for an utterance that the data set does not have, naming some or the nearest; and as `recorded`.
    """
    from xaibench import registry

    known = _pairs(data, root, None)
    chosen = [name for name in known[0] if name == utterance or name.rpartition("/")[0] == utterance]
    if not chosen:
        sources = sorted({name.rpartition("/")[0] for name in known[0]})
        names = sorted(known[0]) if "/" in utterance else sources
        raise XaibenchError(registry.unknown(f"utterance of {data}", utterance, names))
    return [_read(name, *known, where=data) for name in sorted(chosen)]


def _pairs(data: str, root: Any, split: str | None) -> tuple[dict[str, Any], Any]:
    from xaibench import manifest, registry

    corpus = registry.open_corpus(data, root)
    return {pair.id: pair for pair in manifest.pairs(corpus, split=split)}, corpus


def _read(name: str, known: Mapping[str, Any], corpus: Any, where: str) -> Recorded:
    both = known[name].halves
    if len(both) != 2:
        raise RunError(
            f"{where}: {name} has no bona fide twin to draw beside it; this picture compares the halves of a pair"
        )
    late = audio.lead(both[1])  # as the run cut them
    bonafide, spoof = (audio.read_aligned(u, sample_rate=corpus.sample_rate)[late:] for u in both)
    length = min(len(bonafide), len(spoof))
    return Recorded(name, bonafide[:length], spoof[:length], corpus.sample_rate, corpus.valid_band)


def magnitude(waveform: np.ndarray, sample_rate: int, truth: maps.StoredMap) -> np.ndarray:
    """|STFT| on the grid of a stored map, whose shape it must have. Shape: `(N,)` -> `(F, T)`.

    Raises XaibenchError for another rate, form or length.
    """
    rate, n_fft, hop, window = grid_of(truth.metadata)
    if rate != sample_rate:
        raise XaibenchError(f"waveforms at {sample_rate} Hz, maps at {rate} Hz: give the data set's own recordings")
    found = stft_magnitude(waveform, n_fft, hop, window)
    if found.shape != truth.values.shape:
        raise XaibenchError(
            f"the waveform gives {found.shape} cells, the maps have {truth.values.shape}; give it as the run cut it "
            f"({(truth.values.shape[1] - 1) * hop} samples)"
        )
    return found


def stft_magnitude(waveform: np.ndarray, n_fft: int, hop: int, window: str) -> np.ndarray:
    """|STFT|, centred, reflect-padded, as `xaibench.grid`. Shape: `(N,)` -> `(F, T)`. Raises XaibenchError."""
    from scipy.signal import get_window

    waveform = np.asarray(waveform, dtype=np.float64)
    if waveform.ndim != 1 or len(waveform) <= n_fft // 2:
        raise XaibenchError(f"expected a waveform (N,) of more than {n_fft // 2} samples, got shape {waveform.shape}")
    padded = np.pad(waveform, n_fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    return np.abs(np.fft.rfft(frames * get_window(window, n_fft, fftbins=True), axis=1)).T


def grid_of(metadata: Mapping[str, str]) -> tuple[int, int, int, str]:
    """Sample rate in Hz, n_fft and hop in samples, window, of a stored map."""
    rate, n_fft, hop, window = metadata.get("grid", "16000/512/160/hann").split("/")
    return int(rate), int(n_fft), int(hop), window


def spec_of(run: Path) -> Mapping[str, Any]:
    """The run's spec, which names its data and its truth. Raises RunError."""
    try:
        spec = json.loads((Path(run) / "run.json").read_text(encoding="utf-8"))["spec"]
        return {**spec, "data": spec["data"], "truth": {**spec["truth"], "name": spec["truth"]["name"]}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{run}: not a run folder, or its run.json names no data or truth ({error!r})") from error


def rank_accuracies(run: Path, pair: str, truth: str) -> dict[tuple[str, str, str], float]:
    """(countermeasure, route, attributor) -> rank accuracy of one pair: of frames where the map resolves time alone."""
    rows = read_rows([run])
    source, vocoder = maps.split_pair(pair)
    for column, value in {"utterance": source, "vocoder": vocoder, "truth": truth, "status": "ok"}.items():
        rows = rows[rows[column].eq(value)]
    found: dict[tuple[str, str, str], float] = {}
    for metric in ("rank-accuracy-time", "rank-accuracy"):  # the latter goes before the former
        for r in rows[rows["metric"].eq(metric)].to_dict("records"):
            found[r["countermeasure"], r["route"], r["attributor"]] = r["value"]
    return found


def top_share(values: np.ndarray, valid: np.ndarray, count: int) -> tuple[np.ndarray, bool]:
    """The `count` largest valid cells, among equals the first in row order, and whether a tie decided.

    >>> region, tied = top_share(np.array([[1.0, 3.0], [3.0, 0.0]]), np.ones((2, 2), bool), 1)
    >>> region.tolist(), tied
    ([[False, True], [False, False]], True)
    """
    flat = np.where(valid, values, -np.inf).ravel()
    order = np.argsort(-flat, kind="stable")
    region = np.zeros(flat.size, dtype=bool)
    region[order[:count]] = True
    tied = 0 < count < flat.size and flat[order[count - 1]] == flat[order[count]]
    return region.reshape(values.shape), bool(tied)


def score_text(score: float, *, tied: bool = False) -> str:
    """A rank accuracy above a picture.

    >>> score_text(0.06512), score_text(0.02, tied=True), score_text(math.nan)
    ('0.065', '0.020, tied', 'no score')
    """
    return ("no score" if math.isnan(score) else f"{score:.3f}") + (", tied" if tied else "")
