"""Recordings in every format that is read here, and WAV files put together by hand, with what must come out of them."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field

import numpy as np
import soundfile

RATE = 16_000
#: Format and subtype of libsndfile, in the order of how common they are.
FORMATS = (
    ("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "PCM_24"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"),
    ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "DOUBLE"), ("WAV", "PCM_32"), ("WAV", "ULAW"),
    ("WAV", "ALAW"), ("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"), ("WAV", "GSM610"), ("WAV", "G721_32"),
    ("WAV", "NMS_ADPCM_24"),
    ("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AU", "PCM_16"), ("AU", "G723_24"), ("CAF", "PCM_16"),
    ("CAF", "ALAC_16"), ("NIST", "PCM_16"), ("FLAC", "PCM_S8"), ("OGG", "OPUS"), ("AIFF", "IMA_ADPCM"), ("AIFF", "FLOAT"),
)  # fmt: skip


def noise(n: int, seed: int = 0, channels: int = 1) -> np.ndarray:
    """`(n, channels)` that swells and fades, on the 8-bit grid, so that every format can hold it."""
    draw = np.random.RandomState(seed)
    swell = np.interp(np.arange(n), np.linspace(0, max(n, 2), 7), draw.rand(7))[:, None]
    return np.round(np.clip(draw.randn(n, channels) / 6, -0.9, 0.9) * swell * 128) / 128


def whole(kind: str, subtype: str, *, n: int = 2_000, channels: int = 1, rate: int = RATE) -> bytes:
    """A good file. Raises soundfile's error where libsndfile was built without the format."""
    file = io.BytesIO()
    rate = 48_000 if subtype == "OPUS" else rate
    soundfile.write(file, noise(n, channels=channels), rate, format=kind, subtype=subtype)
    return file.getvalue()


def all_formats(**how: int) -> dict[str, bytes]:
    """Name of the file -> its bytes, of every format that libsndfile can write here."""
    found = {}
    for kind, subtype in FORMATS:
        try:
            found[f"{subtype.lower()}.{kind.lower()}"] = whole(kind, subtype, **how)
        except (soundfile.SoundFileError, RuntimeError, ValueError):
            continue
    return found


def media(layout: str = "mono", channels: int = 1) -> dict[str, bytes]:
    """AAC as such and in containers of films, as PyAV writes them; none where it is not installed."""
    try:
        import av
    except ImportError:
        return {}
    found = {}
    sound = noise(6_000, channels=channels).astype(np.float32).reshape(1, -1)
    for name, kind in (("a.m4a", "mp4"), ("a.aac", "adts"), ("a.mka", "matroska"), ("a.flv", "flv")):
        file = io.BytesIO()
        try:
            with av.open(file, "w", format=kind) as container:
                stream = container.add_stream("aac", rate=RATE, layout=layout)
                frame = av.AudioFrame.from_ndarray(sound, format="flt", layout=layout)
                frame.sample_rate = RATE
                for packet in (*stream.encode(frame), *stream.encode(None)):
                    container.mux(packet)
        except (av.FFmpegError, ValueError):
            continue
        found[name] = file.getvalue()
    return found


@dataclass(frozen=True)
class Wav:
    """A WAV file field by field. `lies` replace what a header says: "data", "riff", "fmt" (sizes), "align", "bytes", "bits",
    "channels", "rate". `before` are chunks in front of the sound, `after` bytes behind it.
    """

    tag: int = 1
    bits: int = 16
    channels: int = 1
    rate: int = RATE
    sound: bytes = bytes(200)
    extensible: bool = False
    big: bool = False
    before: tuple[tuple[bytes, bytes], ...] = ()
    after: bytes = b""
    lies: dict[str, int] = field(default_factory=dict)

    def encoded(self) -> bytes:
        """The file."""
        e, lies, width = ">" if self.big else "<", self.lies, self.bits // 8

        def cut(value: int, size: int) -> int:
            return value & ((1 << 8 * size) - 1)

        channels, rate, bits = lies.get("channels", self.channels), lies.get("rate", self.rate), lies.get("bits", self.bits)
        align = lies.get("align", width * self.channels)
        flow = lies.get("bytes", self.rate * width * self.channels)
        tag = 0xFFFE if self.extensible else self.tag
        fmt = struct.pack(f"{e}HHIIHH", tag, cut(channels, 2), cut(rate, 4), cut(flow, 4), cut(align, 2), cut(bits, 2))
        if self.extensible:
            guid = struct.pack(f"{e}IHH", self.tag, 0, 16) + bytes.fromhex("800000aa00389b71")
            fmt += struct.pack(f"{e}HHI", 22, cut(bits, 2), 0) + guid
        elif self.tag != 1:
            fmt += b"\0\0"
        body = b"WAVE"
        for name, content in (*self.before[:1], (b"fmt ", fmt), *self.before[1:], (b"data", self.sound)):
            size = lies.get(name.decode("latin-1").strip(), len(content)) if name in (b"fmt ", b"data") else len(content)
            body += name + struct.pack(f"{e}I", cut(size, 4)) + content + b"\0" * (len(content) % 2)
        body += self.after
        return (b"RIFX" if self.big else b"RIFF") + struct.pack(f"{e}I", cut(lies.get("riff", len(body)), 4)) + body

    def samples(self) -> np.ndarray | None:
        """What must come out, `(N, channels)` float64; None of A-law and mu-law, which have tables."""
        e, width = ">" if self.big else "<", self.bits // 8
        raw = self.sound[: len(self.sound) // (width * self.channels) * width * self.channels]
        if self.tag == 3:
            flat = np.frombuffer(raw, f"{e}f{width}").astype(np.float64)
        elif self.tag != 1:
            return None
        elif width == 1:
            flat = (np.frombuffer(raw, "u1").astype(np.float64) - 128) / 128
        elif width == 3:
            parts = np.frombuffer(raw, "u1").reshape(-1, 3).astype(np.int64)
            parts = parts[:, ::-1] if self.big else parts
            value = parts @ np.array([1, 1 << 8, 1 << 16])
            flat = (value - (value >= 1 << 23) * (1 << 24)) / (1 << 23)
        else:
            flat = np.frombuffer(raw, f"{e}i{width}").astype(np.float64) / (1 << (self.bits - 1))
        return flat.reshape(-1, self.channels)
