"""Read and write recordings (soundfile), resample (soxr). Every error names the file.

xaibench reads mono files at the data set's own rate and never converts in silence: a truth mask lives near the noise
floor, and resampling, lossy formats or another bit depth move it.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
import soxr

from xaibench.errors import AudioError
from xaibench.types import Pair, Utterance


def read(path: Path, *, sample_rate: int) -> np.ndarray:
    """A mono recording as float32 `(N,)` in [-1, 1].

    Raises AudioError, naming the file, when it is missing, unreadable or truncated, empty, not mono, of another sample
    rate, or holds NaN or infinity.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise AudioError(f"{path}: no such file; is the data set's --root right?")
        if not path.is_file():
            raise AudioError(f"{path}: a directory or device, expected an audio file")
        if path.stat().st_size == 0:
            raise AudioError(f"{path}: an empty file (0 bytes), expected WAV or FLAC; did a download or a copy fail?")
        missing = missing_bytes(path)
    except OSError as error:  # a name that is too long, no permission
        raise AudioError(f"{path}: cannot be opened ({error.strerror})") from error
    if missing:
        raise AudioError(f"{path}: truncated, its header promises {missing} bytes more than there are")
    try:
        with soundfile.SoundFile(path) as file:
            promised = file.frames
            rate = file.samplerate
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError(f"{path}: not readable as audio ({error}); is it truncated, or not WAV or FLAC?") from error
    if len(samples) == 0:
        raise AudioError(f"{path}: empty, expected at least one sample")
    if len(samples) != promised:
        raise AudioError(f"{path}: truncated, the header promises {promised} samples and {len(samples)} are there")
    if samples.shape[1] != 1:
        raise AudioError(f"{path}: {samples.shape[1]} channels, expected 1; mix down or pick a channel first")
    if rate != sample_rate:
        raise AudioError(f"{path}: sampled at {rate} Hz, expected {sample_rate} Hz; resample it first (soxr, sox -r)")
    bad = np.flatnonzero(~np.isfinite(samples[:, 0]))
    if len(bad):
        raise AudioError(f"{path}: {len(bad)} samples are NaN or infinite, the first at index {bad[0]}")
    return samples[:, 0]


def read_aligned(utterance: Utterance, *, sample_rate: int) -> np.ndarray:
    """A recording of a data set on the clock of its bona fide twin, cut to what both have. `(N,)` float32.

    The first `lag` samples are dropped; a recording that is early (lag below 0) begins with as many zeros, which a caller
    drops from both twins (`lead`). As it is, where the manifest says neither lag nor `n_samples`. Raises AudioError as
    `read` does, and for a file shorter than its lag.
    """
    samples = read(utterance.path, sample_rate=sample_rate)
    if utterance.lag >= len(samples):
        raise AudioError(f"{utterance.path}: {len(samples)} samples, the manifest says that it is late by {utterance.lag}")
    if utterance.lag:
        samples = samples[utterance.lag :] if utterance.lag > 0 else np.pad(samples, (-utterance.lag, 0))
    return samples[: utterance.n_samples + lead(utterance) if utterance.n_samples else None]


def lead(utterance: Utterance) -> int:
    """Samples at the start of `read_aligned` that the recording does not have, because it is early."""
    return max(-utterance.lag, 0)


def read_halves(pair: Pair, *, sample_rate: int) -> tuple[np.ndarray, ...]:
    """The halves of a pair as a run hears them: bona fide first, on one clock, cut to what both have. `(N,)` float32 each.

    Of a pair without a bona fide twin the spoof alone. Raises AudioError as `read_aligned`, and for twins of different
    lengths: of short recordings, which are repeated (`fit`), the copies would not lie on each other.
    """
    late = lead(pair.spoof)
    halves = [read_aligned(u, sample_rate=sample_rate)[late:] for u in pair.halves]
    if pair.spoof.n_samples:  # the manifest says what the twins share
        halves = [half[: pair.spoof.n_samples] for half in halves]
    if len(halves[0]) != len(halves[-1]):
        raise AudioError(
            f"{pair.spoof.path}: {len(halves[1])} samples, its bona fide twin {pair.halves[0].path} has {len(halves[0])}; "
            f"twins must be aligned and of equal length (vocoders often pad the end: cut it)"
        )
    return tuple(halves)


def missing_bytes(path: Path) -> int:
    """How many bytes of a WAV file's sound are missing; 0 for any other file.

    libsndfile shortens a truncated WAV in silence, so the length in its header is compared here.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return 0
        while len(chunk := file.read(8)) == 8:
            length = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                return max(0, length - (size - file.tell()))
            file.seek(length + length % 2, 1)  # chunks begin on even bytes
    return 0


def write(path: Path, samples: np.ndarray, *, sample_rate: int) -> None:
    """Write `(N,)` floats as 16-bit FLAC or WAV, by the name's ending; the same samples in both.

    Raises AudioError, naming the file, if a sample is beyond 1 or NaN, for another ending or shape, and if the file
    cannot be written. A sample of k / 32768 is stored as k, so that what was read from 16 bit is written back exactly.
    """
    path, samples = Path(path), np.asarray(samples)
    if path.suffix.lower() not in (".flac", ".wav"):
        raise AudioError(f"{path}: the ending is {path.suffix!r}, expected .flac or .wav")
    if samples.ndim != 1:
        raise AudioError(f"{path}: samples of shape {samples.shape}, expected (N,), mono")
    peak = float(np.abs(samples).max(initial=0.0))
    if not peak <= 1.0:
        raise AudioError(f"{path}: peak {peak:.3f} would clip, expected at most 1.0; lower the level first")
    try:
        soundfile.write(path, _sixteen_bit(samples), sample_rate, subtype="PCM_16")
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"{path}: cannot be written ({error}); does its folder exist?") from error


def encoded(samples: np.ndarray, *, sample_rate: int, ending: str = "flac", effort: float = 0.6) -> bytes:
    """`(N,)` floats as a 16-bit FLAC or WAV file in memory, the samples as `write` stores them; beyond 1 they are cut.

    effort: of FLAC's compression, in [0, 1]; more is smaller and slower.

    >>> encoded(np.zeros(800), sample_rate=8_000)[:4], encoded(np.zeros(800), sample_rate=8_000, ending="wav")[:4]
    (b'fLaC', b'RIFF')
    """
    file = io.BytesIO()
    how = {"compression_level": effort} if ending == "flac" else {}
    soundfile.write(file, _sixteen_bit(np.asarray(samples)), sample_rate, format=ending.upper(), subtype="PCM_16", **how)
    return file.getvalue()


def _sixteen_bit(samples: np.ndarray) -> np.ndarray:
    """k for a sample of k / 32768. libsndfile rounds floats for FLAC but cuts them off for WAV, so they are rounded here."""
    return np.clip(np.rint(samples.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)


def resample(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    """`(N,)` at `rate` Hz to `target` Hz, soxr's very high quality."""
    return samples if rate == target else soxr.resample(samples, rate, target, quality="VHQ")


def fit(samples: np.ndarray, n_samples: int) -> np.ndarray:
    """Cut the end, or repeat from the start, to exactly `n_samples`. Applied alike to both halves of a pair.

    Raises AudioError for an empty recording.

    >>> fit(np.array([1.0, 2.0, 3.0]), 5).tolist()
    [1.0, 2.0, 3.0, 1.0, 2.0]
    """
    if len(samples) >= n_samples:
        return samples[:n_samples]
    if len(samples) == 0:
        raise AudioError(f"an empty recording cannot be repeated to {n_samples} samples")
    return np.tile(samples, -(-n_samples // len(samples)))[:n_samples]
