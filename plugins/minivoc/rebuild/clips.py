"""Source clips: decode to 16 kHz mono, cut, and join short clips of one voice into an utterance.

Waveforms are `(N,)`, 16 kHz. A row of a selection table says which clips (`src`, paths under the sources, joined by
";"), which part of each (`cut`, "start-end" in seconds) and the pauses between them (`gaps`, ms). The random numbers of a
join are seeded by the utterance's name, so a row always gives the same samples.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

SAMPLE_RATE = 16_000  # Hz
FADE = 192  # samples: 12 ms cross-fade between speech and room tone
LEVEL_WINDOW, LEVEL_HOP = 320, 80  # samples: 20 ms, 5 ms
ROOM_WINDOW, ROOM_STEP = 1280, 160  # samples: 80 ms, searched every 10 ms
DIGITAL_SILENCE = 2e-5  # RMS; quieter windows are no room tone


def seed_of(text: str) -> int:
    """The first 32 bits of sha256: a seed that does not depend on the machine."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def decode(path: Path, *, ffmpeg: str = "") -> np.ndarray:
    """Any source clip as float32 `(N,)`, by ffmpeg (`ffmpeg`, or the environment's FFMPEG, or the one on the path)."""
    program = ffmpeg or os.environ.get("FFMPEG", "ffmpeg")
    raw = ["-f", "g722"] if path.suffix == ".g722" else []  # headerless, so ffmpeg must be told
    command = [program, "-v", "error", *raw, "-i", str(path), "-ac", "1", "-ar", str(SAMPLE_RATE), "-f", "f32le", "-"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        raise ValueError(f"{path}: ffmpeg cannot decode it: {done.stderr.decode(errors='replace').strip()}")
    return np.frombuffer(done.stdout, np.float32).copy()


def active_level(x: np.ndarray) -> float:
    """Mean level in dB of the frames within 20 dB of the loudest."""
    if len(x) < LEVEL_WINDOW:
        return -120.0
    frames = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64) - x.mean(), LEVEL_WINDOW)[::LEVEL_HOP]
    level = 10 * np.log10((frames**2).mean(1) + 1e-12)
    return float(level[level > level.max() - 20].mean())


def room_tone(clips: Sequence[np.ndarray], n_samples: int, rng: np.random.RandomState) -> np.ndarray:
    """`(n_samples,)` of the voice's own room: its quietest 80 ms, overlap-added with random rotation and sign."""
    quietest: tuple[float, np.ndarray] | None = None
    for clip in clips:
        for start in range(0, max(1, len(clip) - ROOM_WINDOW), ROOM_STEP):
            piece = clip[start : start + ROOM_WINDOW]
            if len(piece) < ROOM_WINDOW:
                continue
            rms = float(np.sqrt((piece**2).mean()))
            if rms > DIGITAL_SILENCE and (quietest is None or rms < quietest[0]):
                quietest = (rms, piece)
    if quietest is None:
        return rng.randn(n_samples) * 1e-4
    piece = quietest[1] - quietest[1].mean()
    window = np.sin(np.pi * (np.arange(ROOM_WINDOW) + 0.5) / ROOM_WINDOW)
    half = ROOM_WINDOW // 2
    out = np.zeros(n_samples + 2 * ROOM_WINDOW)
    for start in range(0, n_samples + ROOM_WINDOW, half):
        rotated = np.roll(piece, rng.randint(ROOM_WINDOW))
        out[start : start + ROOM_WINDOW] += rotated * window * (1 - 2 * rng.randint(2))
    return out[half : half + n_samples]


def join(clips: Sequence[np.ndarray], gaps_ms: Sequence[float], *, seed: int) -> np.ndarray:
    """Clips of one voice in a row: levels equalised by at most 6 dB, room tone in the gaps, 12 ms cross-fades."""
    rng = np.random.RandomState(seed)
    amplitude = [10 ** (active_level(clip) / 20) for clip in clips]
    reference = float(np.median(amplitude))
    clips = [(clip - clip.mean()) * np.clip(reference / a, 0.5, 2.0) for clip, a in zip(clips, amplitude, strict=True)]
    gaps = [int(gap * SAMPLE_RATE / 1000) for gap in gaps_ms]
    total = sum(len(clip) for clip in clips) + sum(gaps)
    tone = room_tone(clips, total, rng)
    speech, tone_gain = np.zeros(total), np.ones(total)
    start = 0
    for i, clip in enumerate(clips):
        gain = np.ones(len(clip))
        if i:
            gain[:FADE] = np.sin(np.linspace(0, np.pi / 2, FADE))
        if i < len(clips) - 1:
            gain[-FADE:] = np.cos(np.linspace(0, np.pi / 2, FADE))
        speech[start : start + len(clip)] = clip * gain
        tone_gain[start : start + len(clip)] = np.sqrt(np.clip(1 - gain**2, 0, 1))  # equal power
        start += len(clip) + (gaps[i] if i < len(gaps) else 0)
    return (speech + tone * tone_gain).astype(np.float32)


def load(row: Mapping[str, str], sources: Path) -> np.ndarray:
    """One utterance of a selection table, float32 `(N,)`, before any processing."""
    clips = []
    for name, part in zip(row["src"].split(";"), row["cut"].split(";"), strict=True):
        start, end = (int(float(t) * SAMPLE_RATE) for t in part.split("-"))
        clips.append(decode(sources / name)[start:end])
    if len(clips) == 1:
        return clips[0]
    return join(clips, [float(gap) for gap in row["gaps"].split(";")], seed=seed_of("join" + row["utt_id"]))
