"""Small data sets on disk, to the letter of the layouts that their authors document, with noise for speech.

`Tree` makes recordings that differ from file to file and knows what it wrote. One function a data set returns the roots.
Names hold hyphens, underscores, spaces and letters beyond ASCII wherever the data sets' own may.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000  # Hz
SHORT = 640  # samples, for files whose sound does not matter
PAIRED = 8_000  # samples, enough to tell a lag


def noise(name: str, n: int) -> np.ndarray:
    """`(n,)` of noise that swells and fades, drawn from the name."""
    draw = np.random.RandomState(zlib.crc32(name.encode()))
    envelope = np.interp(np.arange(n), np.linspace(0, n, 12), draw.rand(12))
    return 0.3 * envelope * np.clip(draw.randn(n) / 3, -1, 1)


def late(x: np.ndarray, lag: int, tail: int = 0) -> np.ndarray:
    """`x` delayed by `lag` samples (earlier if negative), with `tail` zeros after it."""
    moved = np.concatenate([np.zeros(lag), x]) if lag >= 0 else x[-lag:]
    return np.concatenate([moved, np.zeros(tail)])


def sound(path: Path, x: np.ndarray, rate: int = RATE) -> Path:
    """Write a recording by the name's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {"format": "MP3"} if path.suffix == ".mp3" else {"subtype": "PCM_16"}
    soundfile.write(path, x, rate, **kind)
    return path


def text(path: Path, *rows: str) -> Path:
    """Write a protocol, one row a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    return path


def asvspoof2019(root: Path, *, each: int = 4) -> dict[str, Path]:
    """`each` trials a split, half of them bona fide, and one flac a split that no protocol names."""
    home = root / "LA"
    attacks = {"train": "A01", "dev": "A06", "eval": "A19"}
    for split, ending in {"train": "train.trn", "dev": "dev.trl", "eval": "eval.trl"}.items():
        letter = split[0].upper()
        rows = []
        for i in range(each):
            name = f"LA_{letter}_{1_000_000 + 37 * i}"
            attack = "-" if i % 2 == 0 else attacks[split]
            rows.append(f"LA_{i % 3:04} {name} - {attack} {'bonafide' if attack == '-' else 'spoof'}")
            sound(home / f"ASVspoof2019_LA_{split}/flac/{name}.flac", noise(name, SHORT + i))
        text(home / f"ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.{ending}.txt", *rows)
        sound(home / f"ASVspoof2019_LA_{split}/flac/LA_{letter}_9999999.flac", noise(letter, SHORT))
    return {"main": root}


def asvspoof2021(root: Path, *, track: str = "DF") -> dict[str, Path]:
    """Two trials of the subset eval in two parts of the archive, one of progress and one of hidden."""
    name = f"ASVspoof2021_{track}_eval"
    after = " neural_vocoder_nonautoregressive Task1 team20 FF E" if track == "DF" else ""
    rows = [
        f"LA_0023 {track}_E_2000011 nocodec asvspoof A14 spoof notrim progress{after}",
        f"TEF2 {track}_E_2000013 low_m4a vcc2020 Task1-team20 spoof notrim eval{after}",
        f"LA_0043 {track}_E_2000053 mp3m4a asvspoof - bonafide notrim eval{after}",
        f"LA_0043 {track}_E_2000054 mp3m4a asvspoof bonafide bonafide trim hidden{after}",
    ]
    text(root / f"keys/{track}/CM/trial_metadata.txt", *rows)
    for i, row in enumerate(rows):
        trial = row.split()[1]
        folder = f"{name}_part{i // 2:02}/{name}/flac" if track == "DF" else f"{name}/flac"
        sound(root / folder / f"{trial}.flac", noise(trial, SHORT))
    return {"main": root}


def in_the_wild(root: Path) -> dict[str, Path]:
    """Four files; a speaker with a comma in quotation marks and one beyond ASCII."""
    home = root / "release_in_the_wild"
    text(
        home / "meta.csv",
        "file,speaker,label",
        "0.wav,Alec Guinness,spoof",
        "1.wav,Émile Zola,bona-fide",
        '2.wav,"King, Martin Luther",bona-fide',
        "3.wav,X,spoof",
    )
    for i in range(4):
        sound(home / f"{i}.wav", noise(f"{i}", SHORT))
    return {"main": root}


def common_voice(root: Path) -> dict[str, Path]:
    """Three MP3 clips at 32 kHz; sentences with a single quotation mark and with letters beyond ASCII."""
    said = [("aa", 'dit "oui'), ("bb", "Ça va"), ("aa", "x")]
    rows = [f"{client}\tcommon_voice_fr_{i}.mp3\t{words}\t2\t0" for i, (client, words) in enumerate(said)]
    text(root / "validated.tsv", "client_id\tpath\tsentence\tup_votes\tdown_votes", *rows)
    for i in range(3):
        sound(root / f"clips/common_voice_fr_{i}.mp3", noise(f"{i}", 16_000), 32_000)
    return {"main": root}


#: How late each vocoder of voc.v4 is here, in samples, and how many zeros it appends.
VOC = {"hifigan": (0, 0), "hn-sinc-nsf": (40, 160), "hn-sinc-nsf-hifi": (-25, 0), "waveglow": (0, 200)}


def vocv4(root: Path) -> dict[str, Path]:
    """Two utterances through four vocoders; the second is in dev.lst. The protocol is not in order of utterances."""
    home = root / "project09-voc.v4" / "voc.v4"
    bonafide = asvspoof2019(root / "asvspoof")
    names = ["LA_T_1703395", "LA_T_1000001"]
    rows = []
    for vocoder, (lag, tail) in VOC.items():
        for i, name in enumerate(names):
            x = noise(name, PAIRED)
            sound(bonafide["main"] / f"LA/ASVspoof2019_LA_train/flac/{name}.flac", x)
            sound(home / f"wav/{vocoder}_{name}.wav", late(x, lag, tail))
            rows.append(f"LA_00{79 + i} {vocoder}_{name} - {vocoder} spoof")
    text(home / "protocol.txt", *rows)
    text(home / "scp/train.lst", *(f"{v}_{names[0]}" for v in VOC))
    text(home / "scp/dev.lst", *(f"{v}_{names[1]}" for v in VOC))
    return {"main": root / "project09-voc.v4", "bonafide": bonafide["main"]}


def librisevoc(root: Path) -> dict[str, Path]:
    """Two utterances at 24 kHz; three vocoders name their files with `_gen`, three without."""
    for name in ("27_123349_000006_000000", "1034_121119_000010_000004"):
        x = noise(name, PAIRED)
        sound(root / f"gt/{name}.wav", x, 24_000)
        for i, vocoder in enumerate(("diffwave", "melgan", "parallel_wave_gan", "wavegrad", "wavenet", "wavernn")):
            sound(root / vocoder / f"{name}{'_gen' if i % 2 == 0 else ''}.wav", x[: PAIRED - i], 24_000)
    return {"main": root}


def wavefake(root: Path) -> dict[str, Path]:
    """Two utterances of LJSpeech through three vocoders, and folders that are not taken."""
    folders = {"ljspeech_melgan": "_gen", "ljspeech_hifiGAN": "_generated", "ljspeech_multi_band_melgan": "_gen"}
    for name in ("LJ001-0001", "LJ050-0278"):
        x = noise(name, PAIRED)
        sound(root / f"LJSpeech-1.1/wavs/{name}.wav", x, 22_050)
        for folder, suffix in folders.items():
            sound(root / f"generated_audio/{folder}/{name}{suffix}.wav", x, 22_050)
    sound(root / "generated_audio/jsut_multi_band_melgan/BASIC5000_0001_gen.wav", noise("j", SHORT), 24_000)
    return {"main": root}


def folder(root: Path, *, names: tuple[str, ...] = ("a-b_c", "été", "two words")) -> dict[str, Path]:
    """A plain folder of pairs: one vocoder as WAV, one as FLAC and 12 samples late."""
    for name in names:
        x = noise(name, PAIRED)
        sound(root / f"bonafide/{name}.wav", x)
        sound(root / f"griffin-lim/{name}.wav", x)
        sound(root / f"my_coder/{name}.flac", late(x, 12))
    return {"main": root}


#: Of each data set: the tree, and how many files its manifest must hold per split.
TREES = {
    "asvspoof2019": (asvspoof2019, {"train": 4, "dev": 4, "eval": 4}),
    "asvspoof2021-df": (asvspoof2021, {"eval": 2}),
    "asvspoof2021-la": (lambda root: asvspoof2021(root, track="LA"), {"eval": 2}),
    "common-voice": (common_voice, None),
    "folder": (folder, {"eval": 9}),
    "in-the-wild": (in_the_wild, {"eval": 4}),
    "librisevoc": (librisevoc, None),
    "vocv4": (vocv4, {"train": 5, "dev": 5}),
    "wavefake": (wavefake, None),
}
