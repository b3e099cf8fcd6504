"""What a picture of a pair is made from: the recordings, their spectrograms, the run's facts and scores.

Waveforms `(N,)`; magnitudes `(F, T)` on the run's grid. A picture reads the run folder, and the data set it names for the
audio; neither is changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xaibench import audio, maps
from xaibench.errors import RunError, XaibenchError
from xaibench.leaderboard.table import read_rows
from xaibench.run_record import read_spec


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
    facts = read_spec(run)
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
    if known[name].bonafide is None:
        raise RunError(
            f"{where}: {name} has no bona fide twin to draw beside it; this picture compares the halves of a pair"
        )
    bonafide, spoof = audio.read_halves(known[name], sample_rate=corpus.sample_rate)
    return Recorded(name, bonafide, spoof, corpus.sample_rate, corpus.valid_band)


def magnitude(waveform: np.ndarray, sample_rate: int, truth: maps.StoredMap) -> np.ndarray:
    """|STFT| on the grid of a stored map, whose shape it must have. Shape: `(N,)` -> `(F, T)`.

    Raises XaibenchError for another rate, form or length.
    """
    rate, n_fft, hop, window = maps.grid_of(truth.metadata)
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


def score_text(score: float, *, tied: bool = False) -> str:
    """A rank accuracy above a picture.

    >>> score_text(0.06512), score_text(0.02, tied=True), score_text(math.nan)
    ('0.065', '0.020, tied', 'no score')
    """
    return ("no score" if math.isnan(score) else f"{score:.3f}") + (", tied" if tied else "")
