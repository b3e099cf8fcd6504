"""ASVspoof 2021, deepfake (DF) and logical access (LA): coded and transmitted speech, for evaluation only.

Layout, as the READMEs and the organisers' evaluation package document it (`--root` is the folder that all archives were
unpacked to; the four parts of DF may be merged or not, the keys lie in `keys/`, `DF-keys-full/keys/` or
`DF-keys-stage-1/keys/`):

    ASVspoof2021_DF_eval_part00/ASVspoof2021_DF_eval/flac/DF_E_2000011.flac     (or ASVspoof2021_DF_eval/flac/)
    keys/DF/CM/trial_metadata.txt

A line of the keys is, in DF, `LA_0023 DF_E_2000011 nocodec asvspoof A14 spoof notrim progress traditional_vocoder - - - -`:
speaker, trial, codec, source, attack, key, trimming, subset, vocoder. In LA the source is a transmission and nothing follows
the subset. Only the subset `eval`, on which results are published, is taken. The sets are not paired.

Reference: X. Liu et al., "ASVspoof 2021: towards spoofed and deepfake speech detection in the wild", IEEE/ACM Trans. ASLP
31, 2023 (arXiv 2210.02437).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from xaibench.datasets.asvspoof2019 import KINDS
from xaibench.datasets.layout import MAIN, Entry, Layout, Problem, columns, locate, path_problem, relative
from xaibench.errors import ManifestError
from xaibench.reading import shown

COLUMNS = ("speaker", "trial", "codec", "source", "attack", "key", "trimming", "subset")
SUBSETS = ("eval", "progress", "hidden")
PARTS = 4  # of the DF archive


def scan(roots: Mapping[str, Path], *, track: str) -> Iterator[Entry | Problem]:
    """Every trial of the subset `eval` of a track ("DF" or "LA"), in the order of the keys."""
    root = roots[MAIN]
    stage = f"{track}-keys-stage-1/keys"
    keys = locate(
        root,
        (
            f"keys/{track}/CM/trial_metadata.txt",
            f"{track}-keys-full/keys/{track}/CM/trial_metadata.txt",
            f"{track}-keys-full/keys/CM/trial_metadata.txt",
            f"{stage}/{track}/CM/trial_metadata.txt",
            f"{stage}/CM/trial_metadata.txt",
            "keys/CM/trial_metadata.txt",
            "trial_metadata.txt",
        ),
        what=f"keys of {track}",
    )
    folders = _audio_folders(root, track)
    for line in columns(keys, COLUMNS):
        if isinstance(line, Problem):
            yield line
            continue
        where, trial = line
        if trial["subset"] not in SUBSETS:
            yield Problem(
                where, f"subset {shown(trial['subset'])}, expected one of {', '.join(SUBSETS)}; are these the {track} keys?"
            )
        elif trial["key"] not in ("bonafide", "spoof"):
            yield Problem(where, f"key {shown(trial['key'])}, expected bonafide or spoof")
        elif trial["subset"] == "eval":
            yield path_problem(where, trial["trial"]) or _entry(where, trial, root=root, folders=folders)


def _audio_folders(root: Path, track: str) -> list[Path]:
    name = f"ASVspoof2021_{track}_eval"
    parts = [root / f"{name}_part{i:02}" / name / "flac" for i in range(PARTS)]
    flat = [root / f"{name}_part{i:02}" / "flac" for i in range(PARTS)]
    found = [folder for folder in (root / name / "flac", *parts, *flat, root / "flac") if folder.is_dir()]
    if not found:
        raise ManifestError(
            f"{root}: no audio of ASVspoof 2021 {track}; looked for {name}/flac, {name}_part00/{name}/flac and flac; is "
            f"--root the folder that the archives unpack to?"
        )
    return found


def _entry(where: str, trial: Mapping[str, str], *, root: Path, folders: list[Path]) -> Entry:
    name = f"{trial['trial']}.flac"
    folder = next((folder for folder in folders if os.path.exists(folder / name)), folders[0])
    return Entry(
        source=trial["trial"],
        speaker=trial["speaker"],
        split="eval",
        attack="bonafide" if trial["key"] == "bonafide" else trial["attack"],
        path=relative(folder / name, root),
        where=where,
    )


_COMMON: dict[str, Any] = {
    "sample_rate": 16_000,
    "valid_band": (0.0, 8_000.0),
    "licence": "ODC-By 1.0 (LICENSE in the archive)",
    "citation": "X. Liu et al., IEEE/ACM Trans. ASLP 31, 2507-2522, 2023",
    "paired": False,
    "kinds": {attack: kind for attack, kind in KINDS.items() if attack >= "A07"},
}

df = Layout(
    name="asvspoof2021-df",
    title="ASVspoof 2021 deepfake: speech through lossy codecs, subset eval",
    scan=partial(scan, track="DF"),
    source="https://doi.org/10.5281/zenodo.4835108",
    expected={"eval": 533_928},
    **_COMMON,
)
la = Layout(
    name="asvspoof2021-la",
    title="ASVspoof 2021 logical access: speech through telephone channels, subset eval",
    scan=partial(scan, track="LA"),
    source="https://doi.org/10.5281/zenodo.4837263",
    expected={"eval": 148_176},
    **_COMMON,
)
