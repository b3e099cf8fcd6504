"""WaveFake, its English copy-synthesis: LJSpeech and its copies by several neural vocoders, paired.

Layout (`--root` is the folder that holds `generated_audio`; LJSpeech lies beside it, or in a folder given as "bonafide"):

    generated_audio/ljspeech_melgan/LJ001-0001_gen.wav        likewise ljspeech_melgan_large, ljspeech_waveglow, ...
    generated_audio/ljspeech_hifiGAN/LJ001-0001_generated.wav
    LJSpeech-1.1/wavs/LJ001-0001.wav

Every folder `ljspeech_*` is one vocoder. The folders `jsut_*` and `common_voices_*` are not taken: JSUT is sampled at
another rate than its copies, and the latter were made from text, without twins. There is one speaker, so utterances are
dealt to train, dev and eval by a hash of their name (80, 10, 10 of a hundred): speakers are not disjoint.

Reference: J. Frank and L. Schönherr, "WaveFake: a data set to facilitate audio deepfake detection", NeurIPS Datasets and
Benchmarks 2021 (arXiv 2111.02813).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from xaibench.datasets.layout import BONAFIDE, MAIN, Entry, Layout, Problem, audio_in, locate, relative, split_of
from xaibench.errors import ManifestError

PREFIX = "ljspeech_"
SUFFIXES = ("_gen.wav", "_generated.wav", ".wav")
UTTERANCE = re.compile(r"LJ\d{3}-\d{4}")
SPEAKER = "LJ"


def scan(roots: Mapping[str, Path]) -> Iterator[Entry | Problem]:
    """Each LJSpeech utterance followed by its vocoded versions, sorted by name."""
    root = roots[MAIN]
    generated = locate(root, ("generated_audio",), what="folder generated_audio")
    folders = sorted(path.name for path in generated.iterdir() if path.is_dir() and path.name.startswith(PREFIX))
    if not folders:
        raise ManifestError(f"{generated}: no folder {PREFIX}*, expected one for each vocoder (ljspeech_melgan, ...)")
    name = BONAFIDE if BONAFIDE in roots else MAIN
    real = locate(
        roots[name],
        ("LJSpeech-1.1/wavs", "wavs"),
        what="LJSpeech (--root bonafide=DIR names its folder, where it lies elsewhere)",
    )
    for file in audio_in(real, (".wav",)):
        source = Path(file).stem
        if UTTERANCE.fullmatch(source) is None:
            yield Problem(str(real / file), "not named as LJSpeech names utterances (LJ001-0001.wav)")
            continue
        split = split_of(source)
        yield Entry(source, SPEAKER, split, "bonafide", relative(real / file, roots[name]), root=name)
        for folder in folders:
            twin = next((source + s for s in SUFFIXES if os.path.exists(generated / folder / (source + s))), None)
            if twin is None:
                yield Problem(str(real / file), f"no twin in {folder}; looked for {source} with {', '.join(SUFFIXES)}")
            else:
                yield Entry(source, SPEAKER, split, folder.removeprefix(PREFIX), relative(generated / folder / twin, root))


layout = Layout(
    name="wavefake",
    title="WaveFake, English: LJSpeech through MelGAN, HiFi-GAN, Parallel WaveGAN, WaveGlow and others",
    scan=scan,
    sample_rate=22_050,
    valid_band=(0.0, 11_025.0),
    licence="CC-BY-SA-4.0; LJSpeech is in the public domain",
    citation="J. Frank and L. Schönherr, NeurIPS Datasets and Benchmarks, 2021",
    source="https://doi.org/10.5281/zenodo.5642694",
    optional_roots=(BONAFIDE,),
    kinds=dict.fromkeys(
        ("melgan", "melgan_large", "multi_band_melgan", "full_band_melgan", "hifiGAN", "parallel_wavegan", "waveglow"),
        "neural",
    ),
)
