"""Read and write recordings (soundfile), resample (soxr). Every error names the file.

xaibench reads mono files at the data set's own rate and never converts in silence: a truth mask lives near the noise
floor, and resampling, lossy formats or another bit depth move it.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import soundfile
import soxr

from xaibench import reading
from xaibench.errors import AudioError
from xaibench.types import Pair, Utterance

LARGEST = 1 << 28  # samples of a recording, all channels together: 1 GiB, four and a half hours at 16 kHz
LOUDEST = 8.0  # of floats in a file; full scale is 1, and 8 is 18 dB beyond it
UNSCALED = "are these integers in a file of floats? Divide them by their full scale (32768 of 16 bit)"
STREAM = 1 << 62  # frames; libsndfile gives 2^63 - 1 where a header leaves the length open
MOST_CHUNKS = 10_000  # that stand before the sound; a header can be made of nothing else

#: How the files begin that libsndfile is asked to read: WAV and its kin, AIFF, AU, CAF, Wave64, FLAC, Ogg, SPHERE, MP3.
CONTAINERS = (
    b"RIFF", b"RIFX", b"RF64", b"FORM", b".snd", b"caff", b"riff\x2e\x91\xcf\x11", b"fLaC", b"OggS", b"NIST_1A", b"ID3",
    *(bytes((0xFF, second)) for second in range(0xE0, 0x100) if second & 6),  # layers I to III; without one it is AAC
)  # fmt: skip


class NotSound(AudioError):
    """Bytes that libsndfile does not take for a sound it can read; the message is the reason, without the file."""


@contextmanager
def decoder(file: BinaryIO) -> Iterator[soundfile.SoundFile]:
    """libsndfile on an open file whose bytes may be anything. Raises NotSound.

    It gets the open file, not its name, which it would take for more than a name: "-" is the standard input, `.raw` and
    `.vox` are sounds whatever they hold. It is asked only for the formats of `CONTAINERS`, and an array is made only for
    so many samples as a recording can have: a header of a few bytes can promise 2^36.
    """
    if not marked(file):
        raise NotSound("its first bytes are those of no format that is read here")
    place = os.lseek(file.fileno(), 0, os.SEEK_CUR)  # where Python's buffer believes the system to be
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    try:
        with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
            if sound.samplerate not in reading.RATES:
                least, most = reading.RATES[0], reading.RATES[-1]
                raise NotSound(f"{sound.samplerate} samples a second, expected {least} to {most:,}")
            if not 0 <= sound.frames < STREAM:
                raise NotSound("it does not say how many samples it has, as a stream does not; write it again")
            yield sound
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise NotSound(str(error).rpartition(": ")[2].rstrip(".")) from error
    finally:
        os.lseek(file.fileno(), place, os.SEEK_SET)


def marked(file: BinaryIO) -> bool:
    """Whether an open file begins as one of `CONTAINERS`."""
    file.seek(0)
    return file.read(16).startswith(CONTAINERS)


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """A file that should be a recording of a data set, open. Raises AudioError as `reading.opened`, and for 0 bytes."""
    with reading.opened(path, AudioError, what="audio file", hint="is the data set's --root right?") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise AudioError(f"{path}: an empty file (0 bytes), expected WAV or FLAC; did a download or a copy fail?")
        try:
            yield file
        except NotSound as error:
            raise AudioError(f"{path}: not readable as audio ({error}); is it truncated, or not WAV or FLAC?") from error


def read(path: Path, *, sample_rate: int) -> np.ndarray:
    """A mono recording as float32 `(N,)` in [-1, 1]; of floats in a file, a little beyond.

    Raises AudioError, naming the file, when it is missing, unreadable, truncated or damaged, empty, too long, not mono, of
    another sample rate, holds NaN or infinity, or floats that cannot have full scale at 1.
    """
    return read_channels(path, sample_rate=sample_rate, channels=1)[0][:, 0]


def read_channels(path: Path, *, sample_rate: int | None = None, channels: int | None = None) -> tuple[np.ndarray, int]:
    """A recording as float32 `(N, channels)` and its sample rate; of any rate or number where none is given.

    Raises AudioError as `read`.
    """
    path = Path(path)
    with opened(path) as file:
        if cut := cut_off(file):
            raise AudioError(f"{path}: truncated, {cut}")
        with decoder(file) as sound:
            promised, rate = sound.frames, sound.samplerate
            if channels not in (None, sound.channels):
                raise AudioError(f"{path}: {sound.channels} channels, expected {channels}; mix down or pick a channel first")
            if sample_rate not in (None, rate):
                raise AudioError(
                    f"{path}: sampled at {rate} Hz, expected {sample_rate} Hz; resample it first (soxr, sox -r)"
                )
            if promised * sound.channels > LARGEST:
                raise AudioError(
                    f"{path}: its header promises {promised * sound.channels:,} samples, expected at most {LARGEST:,}; is "
                    f"it damaged? If not, cut the recording into parts"
                )
            samples = sound.read(promised, dtype="float32", always_2d=True)
        if len(samples) == 0:
            raise AudioError(f"{path}: empty, expected at least one sample")
        if len(samples) != promised:
            raise AudioError(f"{path}: truncated, the header promises {promised} samples and {len(samples)} are there")
        if altered(file, samples):
            raise AudioError(f"{path}: damaged, its samples do not have the checksum (MD5) in its header; get it again")
    bad = np.flatnonzero(~np.isfinite(samples).all(axis=1))
    if len(bad):
        raise AudioError(f"{path}: {len(bad)} samples are NaN or infinite, the first at index {bad[0]}")
    if (peak := float(max(samples.max(), -samples.min()))) > LOUDEST:
        raise AudioError(f"{path}: peak {peak:.3g}, expected at most 1; {UNSCALED}")
    return samples, rate


def rate_of(path: Path) -> int:
    """Samples a second of a recording, from its header. Raises AudioError as `read`."""
    with opened(Path(path)) as file, decoder(file) as sound:
        return sound.samplerate


def read_aligned(utterance: Utterance, *, sample_rate: int) -> np.ndarray:
    """A recording of a data set on the clock of its bona fide twin, cut to what both have. `(N,)` float32.

    The first `lag` samples are dropped; a recording that is early (lag below 0) begins with as many zeros, which a caller
    drops from both twins (`lead`). As it is, where the manifest says neither lag nor `n_samples`. Raises AudioError as
    `read` does, and for a file shorter than the manifest says.
    """
    samples = read(utterance.path, sample_rate=sample_rate)
    if utterance.lag >= len(samples):
        raise AudioError(f"{utterance.path}: {len(samples)} samples, the manifest says that it is late by {utterance.lag}")
    there = len(samples) - max(utterance.lag, 0)
    if there < utterance.n_samples:
        raise AudioError(
            f"{utterance.path}: {there} samples{' after its lag' * (utterance.lag > 0)}, the manifest says "
            f"{utterance.n_samples}; was the file changed since the data set was indexed?"
        )
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


def cut_off(file: BinaryIO) -> str:
    """How an open file shows that its end is missing; "" where it does not, or has no way to.

    libsndfile shortens WAV, AIFF and their like in silence, so the length in the header is compared here.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    head = file.read(16)
    if head[:4] == b"OggS":
        return "" if _ogg_ends(file, size) else "its last page is not marked as the last"
    if head[:4] == b".snd":  # where the sound begins, and its bytes; all ones: not known
        begins, length = (int.from_bytes(head[i : i + 4], "big") for i in (4, 8))
        found = size - begins if length != 0xFFFFFFFF else length
        return _missing(length, found)
    if (kind := head[:4]) not in _CHUNKED:
        return ""
    order, at, name, wide, sound = _CHUNKED[kind]
    whole = 0  # RF64 writes lengths beyond 4 GB in a chunk of their own
    for _ in range(MOST_CHUNKS):
        file.seek(min(at, size))
        head = file.read(name + wide + 16)
        if len(head) < name + wide:
            return ""
        length = int.from_bytes(head[name : name + wide], order) - (name + wide if name == 16 else 0)
        at += name + wide
        if length < 0:
            return ""
        if head.startswith(b"ds64"):
            whole = int.from_bytes(head[16:24], "little")
        if head.startswith(sound):
            if kind in (b"RF64", b"caff") and length == (1 << 8 * wide) - 1:  # see ds64; to the end of the file
                length = whole
            return _missing(length, size - at)
        at += length + -length % (8 if name == 16 else 2 if wide == 4 else 1)  # where chunks begin
    return ""


#: How formats made of chunks begin -> byte order, where the first chunk is, bytes of a chunk's name and of its length, and
#: the name of the one that holds the sound.
_CHUNKED: dict[bytes, tuple[Literal["little", "big"], int, int, int, bytes]] = {
    b"RIFF": ("little", 12, 4, 4, b"data"),
    b"RIFX": ("big", 12, 4, 4, b"data"),
    b"RF64": ("little", 12, 4, 4, b"data"),
    b"FORM": ("big", 12, 4, 4, b"SSND"),  # AIFF and AIFF-C
    b"riff": ("little", 40, 16, 8, b"data"),  # Wave64, whose lengths count name and length
    b"caff": ("big", 8, 4, 8, b"data"),
}


def _missing(promised: int, found: int) -> str:
    return f"its header promises {promised - found:,} bytes more than there are" if promised > found else ""


def _ogg_ends(file: BinaryIO, size: int) -> bool:
    """Whether the last page of an Ogg file is whole and says that it is the last. Pages: RFC 3533."""
    file.seek(max(0, size - 2 * 65_307))  # the longest page
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    return len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]]) and bool(page[5] & 4)


def altered(file: BinaryIO, samples: np.ndarray) -> bool:
    """Whether all samples `(N,)` or `(N, channels)` of an open FLAC file differ from the MD5 in its header (RFC 9639, 8.2).

    libFLAC checks each frame, and not that frames are missing, or another file's. False for files without an MD5.
    """
    file.seek(0)
    head = file.read(42)
    if head[:4] != b"fLaC" or head[4] & 127 or len(head) < 42 or not any(head[26:42]):
        return False
    bits = ((head[20] & 1) << 4 | head[21] >> 4) + 1
    if bits not in (8, 16, 24):
        return False
    digest = hashlib.md5(usedforsecurity=False)
    for start in range(0, len(samples), 1 << 20):  # in blocks: it may be hours
        whole = np.rint(samples[start : start + (1 << 20)] * np.float64(2 ** (bits - 1))).astype("<i4")
        digest.update(whole.reshape(-1, 1).view(np.uint8)[:, : bits // 8].tobytes())
    return digest.digest() != head[26:42]


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
