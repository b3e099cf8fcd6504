"""LibriSeVoc: LibriTTS utterances and their copies by six neural vocoders, paired.

Layout (`--root` is the folder that holds the seven, or one named `LibriSeVoc` in it):

    gt/27_123349_000006_000000.wav                          reader, chapter, segment
    diffwave/27_123349_000006_000000_gen.wav                likewise melgan, parallel_wave_gan, wavegrad, wavenet, wavernn

The suffix `_gen` could not be confirmed in the authors' own words, so names with it and without it are taken. Readers are
dealt to train, dev and eval by a hash of their number (80, 10, 10 of a hundred), for the authors' split is not in the
archive.

Reference: C. Sun, S. Jia, S. Hou and S. Lyu, "AI-synthesized voice detection using neural vocoder artifacts", CVPR workshops
2023.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from xaibench.datasets.layout import MAIN, Entry, Layout, Problem, audio_in, locate, relative, split_of
from xaibench.errors import ManifestError

VOCODERS = ("diffwave", "melgan", "parallel_wave_gan", "wavegrad", "wavenet", "wavernn")
SUFFIXES = ("_gen.wav", ".wav")
UTTERANCE = re.compile(r"(\d+)_\d+_\d+_\d+")


def scan(roots: Mapping[str, Path]) -> Iterator[Entry | Problem]:
    """Each bona fide utterance followed by its six vocoded versions, sorted by name."""
    root = roots[MAIN]
    home = locate(root, ("gt", "LibriSeVoc/gt"), what="folder gt of LibriSeVoc").parent
    missing = [name for name in VOCODERS if not (home / name).is_dir()]
    if missing:
        raise ManifestError(f"{home}: the folders {', '.join(missing)} are missing; expected gt, {', '.join(VOCODERS)}")
    for name in audio_in(home / "gt", (".wav",)):
        found = UTTERANCE.match(name)
        if found is None:
            yield Problem(str(home / "gt" / name), "not named as LibriTTS names utterances (27_123349_000006_000000.wav)")
            continue
        source, reader = found[0], found[1]
        split = split_of(reader)
        yield Entry(source, reader, split, "bonafide", relative(home / "gt" / name, root))
        for vocoder in VOCODERS:
            names = [f"{source}{suffix}" for suffix in SUFFIXES]
            twin = next((n for n in names if os.path.exists(home / vocoder / n)), None)
            if twin is None:
                yield Problem(
                    str(home / "gt" / name), f"no twin by {vocoder}; looked for {vocoder}/{f' and {vocoder}/'.join(names)}"
                )
            else:
                yield Entry(source, reader, split, vocoder, relative(home / vocoder / twin, root))


layout = Layout(
    name="librisevoc",
    title="LibriSeVoc: LibriTTS through DiffWave, MelGAN, Parallel WaveGAN, WaveGrad, WaveNet and WaveRNN",
    scan=scan,
    sample_rate=0,
    valid_band=(0.0, 12_000.0),
    licence="as stated by its authors; LibriTTS is CC-BY-4.0",
    citation="C. Sun et al., CVPR workshops, 2023",
    source="https://github.com/csun22/Synthetic-Voice-Detection-Vocoder-Artifacts",
    expected={"all": 13_201 + 79_206},
    kinds=dict.fromkeys(VOCODERS, "neural"),
)
