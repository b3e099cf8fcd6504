"""Any recording of a user's: every format, rate and number of channels, brought to what a countermeasure hears.

`xaibench.audio` refuses what a benchmark must not convert in silence. Here conversion is the point, and is written down:
`read_any` mixes channels down (or takes one), resamples by soxr, and says so in the `Recording` it returns.

Who reads what: libsndfile reads WAV, FLAC, Ogg, MP3, AIFF and more. m4a, AAC, MP4, WebM and others are read by PyAV
(`pip install 'xaibench[media]'`), or by an `ffmpeg` on the PATH. Both get one local file and the formats named in `_MEDIA`,
so that a playlist dressed up as a sound opens nothing else; PyAV is left no protocol to open anything by.

Samples are `(N,)` float32 with full scale at 1; times are seconds of the file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

import numpy as np

from xaibench import audio, reading
from xaibench.errors import AudioError, first_line

SHORTEST = 0.1  # s; below it there is hardly a frame to explain
LONGEST = 600.0  # s at a time; an hour has 360,000 frames, and an hour of attribution is rarely what was meant
QUIET = -40.0  # dBFS of the loudest sample, below which the recording says that it is quiet
OFFSET = 0.003  # of the root mean square: a constant (DC) beyond it is told. 0.01 turns LCNN from -5 to 0 (measured)
CLIPPED = 3  # samples in a row at the largest value, and
CLIPPED_SHARE = 1e-4  # of all samples in such rows, say that the recording was cut off
SUFFIXES = "wav, flac, ogg, mp3 and aiff"

#: Containers that ffmpeg may open: sounds and films, no playlists, no lists of other files.
_MEDIA = "mov,mp4,m4a,3gp,3g2,mj2,aac,matroska,webm,asf,avi,caf,flac,mp3,ogg,wav,amr,ac3,eac3,mpegts,flv,aiff"
_LOSSY = (
    "mp3", "mpeg", "vorbis", "opus", "aac", "m4a", "mp4", "webm", "wma", "amr", "ogg", "adpcm", "ulaw", "u-law", "a-law",
    "gsm",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Recording:
    """What was read, and what was done to it.

    samples: `(N,)` float32, mono, at `sample_rate`. name: of the file, what cannot be printed escaped. original_rate,
    channels, encoding, file_seconds: of the file, NaN seconds where it does not say. start: where in the file the samples
    begin, s. heard: which channel. notes: sentences on what may matter. sha256: of the file, so that an explanation can be
    held against it.
    """

    samples: np.ndarray = field(repr=False)
    sample_rate: int
    name: str
    original_rate: int
    channels: int
    encoding: str
    file_seconds: float
    start: float = 0.0
    heard: str = "the only channel"
    notes: tuple[str, ...] = ()
    sha256: str = ""

    @property
    def seconds(self) -> float:
        """Length of `samples`."""
        return len(self.samples) / self.sample_rate

    def facts(self) -> dict[str, object]:
        """All but the samples."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "seconds": self.seconds,
            "start": self.start,
            "sample_rate": self.sample_rate,
            "original_rate": self.original_rate,
            "channels": self.channels,
            "heard": self.heard,
            "encoding": self.encoding,
            "file_seconds": self.file_seconds,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Excerpt:
    """Which part of a file: one channel, counted from 0, or all mixed down; from `start` to `end` seconds."""

    channel: int | None = None
    start: float = 0.0
    end: float | None = None
    longest: float = LONGEST

    def __post_init__(self) -> None:
        if not 0 <= self.start < float("inf") or (self.end is not None and not self.start < self.end < float("inf")):
            raise AudioError(f"from {self.start} s to {self.end} s: expected a start of at least 0 and an end after it")
        if not 0 < self.longest < float("inf"):
            raise AudioError(f"{self.longest} s at the longest, expected seconds above 0")
        if self.channel is not None and self.channel < 0:
            raise AudioError(f"channel {self.channel}; the first one is 0")


@dataclass(frozen=True, eq=False)
class _Decoded:
    """What a decoder gave: samples `(N, channels)` from the excerpt's start on, at the file's own rate."""

    samples: np.ndarray
    rate: int
    encoding: str
    seconds: float
    truncated: bool = False
    altered: bool = False  # its checksum is another one's
    after: str = ""  # what libsndfile said, where another decoder read a format that it knows


def read_any(path: Path, *, sample_rate: int, excerpt: Excerpt | None = None) -> Recording:
    """Any recording as mono float32 at `sample_rate` Hz.

    Raises AudioError, naming the file, what was expected and how to get it: no such file, empty, not a sound, a format that
    nothing here can read, a part longer than `excerpt.longest` or shorter than 0.1 s, NaN, digital silence, no such channel.
    A truncated file is read as far as it goes, and the recording says so.
    """
    path, excerpt = Path(path), excerpt or Excerpt()
    with _opened(path) as file:
        found = _decode(path, file, excerpt)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    rate, channels = found.rate, found.samples.shape[1]
    mono, heard = _mono(path, found.samples, excerpt.channel)
    if len(mono) < SHORTEST * rate:
        raise AudioError(
            f"{path}: {len(mono) / rate:.3f} s of sound from {excerpt.start:g} s on, expected at least {SHORTEST} s"
        )
    peak = float(max(mono.max(), -mono.min()))
    if peak > audio.LOUDEST:
        raise AudioError(f"{path}: the loudest sample is {peak:.3g}, full scale is 1; {audio.UNSCALED}")
    if peak == 0:
        hint = "; its channels may cancel: pick one (--channel 0)" if channels > 1 and found.samples.any() else ""
        raise AudioError(f"{path}: digital silence, every sample is 0; there is nothing to explain{hint}")
    samples = np.ascontiguousarray(audio.resample(mono, rate, sample_rate), dtype=np.float32)
    notes = tuple(_notes(found, mono, sample_rate))
    return Recording(
        samples=samples, sample_rate=sample_rate, name=reading.printable(path.name), original_rate=rate, channels=channels,
        encoding=found.encoding, file_seconds=found.seconds, start=float(excerpt.start), heard=heard, notes=notes,
        sha256=sha256,
    )  # fmt: skip


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    """The file, open. Raises AudioError for what cannot be any recording."""
    hint = "is the name right, and the folder?"
    with reading.opened(path, AudioError, what="recording", hint=hint) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise AudioError(f"{path}: an empty file (0 bytes), expected a recording; did a download or a copy fail?")
        yield file


def _mono(path: Path, samples: np.ndarray, channel: int | None) -> tuple[np.ndarray, str]:
    """One channel `(N,)` of `(N, channels)`, and which. Raises AudioError for NaN and for a channel that is not there."""
    count = samples.shape[1]
    if channel is not None and channel >= count:
        raise AudioError(
            f"{path}: has {count} channel{'s' * (count > 1)}, there is no channel {channel}; the first one is 0"
        )
    bad = ~np.isfinite(samples).all(axis=1)
    if bad.any():
        raise AudioError(
            f"{path}: {bad.sum()} sample{'s are' if bad.sum() > 1 else ' is'} NaN or infinite, the first at index "
            f"{bad.argmax()}; export it again"
        )
    if count == 1:
        return samples[:, 0], "the only channel"
    if channel is not None:
        return samples[:, channel], f"channel {channel} of {count}"
    return samples.mean(axis=1, dtype=np.float32), f"the mean of {count} channels"


def clipped(samples: np.ndarray) -> float:
    """The share of samples `(N,)` in rows of `CLIPPED` or more at the largest value, within one step of 16 bit, in [0, 1].

    >>> clipped(np.array([0.5, 1.0, 1.0, 1.0, -1.0, 0.2, 0.1, 0.0]))
    0.375
    """
    top = np.abs(samples).max(initial=0.0)
    found = 0
    for sign in (1, -1):
        at = np.r_[False, sign * samples >= top - 2**-15, False]
        edges = np.flatnonzero(np.diff(at.astype(np.int8)))
        rows = edges[1::2] - edges[::2]
        found += int(rows[rows >= CLIPPED].sum())
    return found / max(len(samples), 1) if top > 2**-10 else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.1 else f"{100 * share:.2g}"


def _notes(found: _Decoded, mono: np.ndarray, sample_rate: int) -> Iterator[str]:
    peak = float(np.abs(mono).max())
    if found.truncated:
        yield "The file ends before its header says; what is there was used."
    if found.altered:
        yield "The file is damaged: its samples do not have the checksum (MD5) that its header gives. Get it again."
    if found.after:
        yield f"libsndfile could not read the file ({found.after}), another decoder could; if it is damaged, this has gaps."
    if any(word in found.encoding.lower() for word in _LOSSY):
        yield (
            f"{found.encoding} is a lossy format: it throws away faint detail, which is where vocoders leave their traces, "
            f"and adds traces of its own."
        )
    if found.rate < sample_rate:
        yield f"Sampled at {found.rate} Hz: above {found.rate / 2:g} Hz the recording holds nothing."
    if peak > 1:
        yield f"The loudest sample is {peak:.2f}, beyond full scale (1.0); the level was left as it is."
    elif 20 * np.log10(peak) < QUIET:
        yield (
            f"Very quiet: the loudest sample is at {20 * np.log10(peak):.0f} dB of full scale. Countermeasures are trained "
            f"on louder speech; the level was left as it is."
        )
    if mono.max() == mono.min():
        yield f"Every sample is {mono[0]:.3g}: a constant (DC) and no sound, of which every explanation is arbitrary."
        return
    cut = max(clipped(channel) for channel in found.samples.T)
    if cut > CLIPPED_SHARE:
        yield f"Clipped: {_percent(cut)} % of the samples are cut off at the largest value, which moves the score."
    means = np.array([part.mean(dtype=np.float64) for part in np.array_split(mono, 10)])
    constant = float(means.mean())
    share = abs(constant) / float(np.sqrt(np.mean(np.square(mono, dtype=np.float64))))
    if share > OFFSET and abs(constant) > 4 * means.std(ddof=1) / np.sqrt(10):  # else the waves that a short sound cuts
        yield (
            f"A constant offset (DC) of {constant:+.2g}, {_percent(share)} % of the level. Cheap sound cards add one; 1 % "
            f"can turn a decision. Take it out (a high-pass at 20 Hz) and compare."
        )


def _decode(path: Path, file: BinaryIO, excerpt: Excerpt) -> _Decoded:
    """By libsndfile, else PyAV, else ffmpeg. Raises AudioError with what each of them said."""
    said, known = [], ""
    for name, read in (("libsndfile", _by_libsndfile), ("PyAV", _by_pyav), ("ffmpeg", _by_ffmpeg)):
        try:
            return replace(read(path, file, excerpt), after=known)
        except _NotHere:
            continue
        except _Refused as error:
            said.append(f"{name}: {error}")
            known = known or (str(error) if audio.marked(file) else "")
    more = " and ".join(part.partition(":")[0] for part in said[1:])
    if more:
        raise AudioError(f"{path}: not readable as a recording ({'; '.join(said)}); is it damaged, or no sound at all?")
    raise AudioError(
        f"{path}: not readable as a recording ({'; '.join(said)}). Without further help xaibench reads {SUFFIXES}. For m4a, "
        f"aac, mp4, webm and others: pip install 'xaibench[media]', or put ffmpeg on the PATH"
    )


class _NotHere(Exception):
    """This decoder is not installed."""


class _Refused(Exception):
    """This decoder cannot read the file, and says why."""


def _room(path: Path, excerpt: Excerpt, seconds: float) -> None:
    """Raise AudioError where the part asked for begins after the end of the file, or is too long to be explained."""
    if seconds <= 0:
        raise AudioError(f"{path}: empty, it holds not one sample, expected a recording")
    if seconds <= excerpt.start:
        raise AudioError(
            f"{path}: lasts {seconds:g} s, there is nothing from {excerpt.start:g} s on; choose an earlier --start"
        )
    wanted = min(seconds, excerpt.end or seconds) - excerpt.start
    if wanted > excerpt.longest + 1e-6:
        hint = "; or is its header damaged, that it says so?" if wanted > 86_400 else ""
        raise AudioError(
            f"{path}: {wanted:,.0f} s to explain, at most {excerpt.longest:g} s at a time; choose a part with --start and "
            f"--end, in seconds, or allow more with --longest {np.ceil(wanted):.0f}{hint}"
        )


def _by_libsndfile(path: Path, file: BinaryIO, excerpt: Excerpt) -> _Decoded:
    try:
        cut = audio.cut_off(file)
        with audio.decoder(file) as sound:
            rate, frames = sound.samplerate, sound.frames
            _room(path, excerpt, frames / rate)
            first = round(excerpt.start * rate)
            last = frames if excerpt.end is None else min(round(excerpt.end * rate), frames)
            _affordable(path, last - first, sound.channels)
            if first:
                sound.seek(first)
            samples = sound.read(last - first, dtype="float32", always_2d=True)
            encoding = f"{sound.format_info}, {sound.subtype_info}"
    except audio.NotSound as error:
        raise _Refused(str(error)) from error
    altered = len(samples) == frames and audio.altered(file, samples)
    return _Decoded(samples, rate, encoding, frames / rate, bool(cut) or len(samples) < last - first, altered)


def _affordable(path: Path, n_samples: int, channels: int) -> None:
    """Raise AudioError where the samples of a part would fill the memory."""
    if n_samples * channels > audio.LARGEST:
        raise AudioError(
            f"{path}: {n_samples:,} samples of {channels} channels to explain, at most {audio.LARGEST:,} in all; choose a "
            f"part with --start and --end, or is its header damaged?"
        )


def _by_pyav(path: Path, file: BinaryIO, excerpt: Excerpt) -> _Decoded:
    try:
        import av
    except ImportError as error:
        raise _NotHere from error
    file.seek(0)
    try:
        with av.open(_Still(file), "r", options={"format_whitelist": _MEDIA, "protocol_whitelist": "none"}) as container:
            if not container.streams.audio:
                raise _Refused("it has no audio track")
            stream = container.streams.audio[0]
            rate, codec = getattr(stream, "rate", None) or 0, stream.codec_context.codec.long_name
            if rate not in reading.RATES:
                raise _Refused(f"{rate} samples a second")
            length = container.duration / av.time_base if container.duration else float("nan")
            if length > excerpt.start:  # of a bare AAC stream it is an estimate: what begins after it is looked for
                _room(path, excerpt, length)
            samples, truncated = _frames(path, container, stream, excerpt)
            encoding = f"{codec} in {path.suffix.lstrip('.').lower() or container.format.name}"
    except (AudioError, _Refused):
        raise
    except Exception as error:  # whatever a decoder of others says of bytes of others is about the file
        raise _Refused(first_line(getattr(error, "strerror", None) or error)) from error
    if not len(samples):
        if length <= excerpt.start:
            _room(path, excerpt, length)
        raise _Refused("its audio track is empty")
    _room(path, excerpt, excerpt.start + len(samples) / rate)
    return _Decoded(samples, rate, encoding, length, truncated)


class _Still:
    """A file for PyAV, which prints the traceback of a seek that fails; FFmpeg understands a negative place."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.tell, self._file = file.read, file.tell, file

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(place, whence)
        except (OSError, ValueError, OverflowError):
            return -1


def _frames(path: Path, container, stream, excerpt: Excerpt) -> tuple[np.ndarray, bool]:
    """Decoded samples `(N, channels)` of the excerpt, and whether decoding broke off. Stops once there are too many."""
    import av

    rate = stream.rate
    first, longest = round(excerpt.start * rate), round(excerpt.longest * rate) + rate
    last = min(round(excerpt.end * rate) if excerpt.end is not None else first + longest, first + longest)
    # Channels side by side in one plane: of planes, PyAV 18 finds more than there are from 8 channels on, and reads there.
    resampler = av.AudioResampler(format="flt")
    blocks, at, broken = [], 0, False
    try:
        for frame in container.decode(stream):
            for part in resampler.resample(frame):
                block = part.to_ndarray().reshape(-1, part.layout.nb_channels)
                blocks.append(block[max(first - at, 0) : max(last - at, 0)])
                at += len(block)
                _affordable(path, min(at, last) - first, block.shape[1])
            if at >= last:
                break
    except av.FFmpegError:
        if not any(len(b) for b in blocks):
            raise
        broken = True
    samples = np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32)
    return np.ascontiguousarray(samples, dtype=np.float32), broken


def _by_ffmpeg(path: Path, file: BinaryIO, excerpt: Excerpt) -> _Decoded:
    """Through a pipe, as AU, whose header may leave the length open. One second over the longest shows what is too long."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise _NotHere
    last = excerpt.start + excerpt.longest + 1
    last = last if excerpt.end is None else min(excerpt.end, last)
    command = [
        program, "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe", "-format_whitelist", _MEDIA,
        "-i", f"file:{os.path.abspath(path)}", "-map", "0:a:0", "-to", f"{last:.6f}",
        "-c:a", "pcm_f32be", "-fs", str(4 * audio.LARGEST + (1 << 16)), "-f", "au", "pipe:1",
    ]  # fmt: skip
    with tempfile.TemporaryFile() as sound, tempfile.TemporaryFile() as words:
        try:
            subprocess.run(command, stdout=sound, stderr=words, check=False, timeout=60 + excerpt.longest)
        except subprocess.TimeoutExpired as error:
            raise _Refused("it took longer than the part of the recording lasts") from error
        words.seek(max(0, words.seek(0, os.SEEK_END) - (1 << 16)))  # of a damaged file it can say megabytes
        lines = words.read().decode(errors="replace").strip().splitlines()
        if sound.seek(0, os.SEEK_END) <= 32:
            raise _Refused(first_line(lines[-1]) if lines else "no sound came out")
        found = _by_libsndfile(path, sound, excerpt)
    kind = path.suffix.lstrip(".").lower() or "unknown"
    return _Decoded(found.samples, found.rate, f"{kind}, read by ffmpeg", float("nan"), bool(lines))
