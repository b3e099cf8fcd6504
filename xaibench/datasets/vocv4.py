"""voc.v4: four vocoders' copies of the bona fide training speech of ASVspoof 2019 LA, paired.

Layout (`--root` is the folder `voc.v4`, or one that holds it, such as `project09-voc.v4`; the bona fide speech is not in the
archive, so the ASVspoof 2019 LA folder is the further root "bonafide"):

    voc.v4/wav/hn-sinc-nsf-hifi_LA_T_1703395.wav
    voc.v4/protocol.txt               `LA_0079 hifigan_LA_T_1703395 - hifigan spoof`: voice, trial, -, attack, key
    voc.v4/scp/train.lst, dev.lst     names of trials, one a line

Names of vocoders hold hyphens, so a trial is taken apart by the pattern of the ASVspoof utterance in it and nothing else. An
utterance named in dev.lst is dev, every other train. Bona fide lines of the protocol are not needed.

Reference: X. Wang and J. Yamagishi, "Spoofed training data for speech spoofing countermeasure can be efficiently created
using neural vocoders", ICASSP 2023 (arXiv 2210.10570).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from xaibench.datasets import asvspoof2019
from xaibench.datasets.layout import (
    BONAFIDE,
    MAIN,
    Entry,
    Layout,
    Problem,
    columns,
    lines,
    locate,
    path_problem,
    relative,
    sorted_on_disk,
)
from xaibench.reading import shown

COLUMNS = ("voice", "trial", "unused", "attack", "key")
UTTERANCE = re.compile(r"LA_[TDE]_\d{7}")
FOLDERS = {"T": "train", "D": "dev", "E": "eval"}  # of ASVspoof, by the letter in the utterance's name


def scan(roots: Mapping[str, Path]) -> Iterator[Entry | Problem]:
    """Each bona fide utterance followed by its vocoded versions, sorted by name."""
    root = roots[MAIN]
    protocol = locate(
        root,
        ("protocol.txt", "voc.v4/protocol.txt", "project09-voc.v4/voc.v4/protocol.txt"),
        what="protocol.txt of voc.v4",
    )
    home = protocol.parent
    speech = relative(asvspoof2019.home(roots[BONAFIDE]), roots[BONAFIDE])

    def trials() -> Iterator[tuple[str, ...]]:
        for line in columns(protocol, COLUMNS):
            if isinstance(line, Problem):
                yield ("", line.where, line.message, "", "")
                continue
            where, trial = line
            found = UTTERANCE.search(trial["trial"])
            if found is None:
                yield ("", where, f"trial {shown(trial['trial'])} holds no ASVspoof utterance (LA_T_1234567)", "", "")
            elif problem := path_problem(where, trial["trial"]):
                yield ("", where, problem.message, "", "")
            elif trial["key"] == "spoof":
                yield (found[0], trial["trial"], trial["attack"], trial["voice"], where)

    dev = _named_in(home / "scp" / "dev.lst")
    last = ""
    try:
        for utterance, trial, attack, voice, where in sorted_on_disk(trials()):
            if not utterance:
                yield Problem(trial, attack)
                continue
            is_dev = dev.execute("SELECT 1 FROM names WHERE name = ?", (utterance,)).fetchone()
            split = "dev" if is_dev else "train"
            if utterance != last:
                folder = f"ASVspoof2019_LA_{FOLDERS[utterance[3]]}/flac"
                path = f"{folder}/{utterance}.flac" if speech == "." else f"{speech}/{folder}/{utterance}.flac"
                yield Entry(utterance, voice, split, "bonafide", path, root=BONAFIDE, where=where)
                last = utterance
            wav = relative(home / "wav" / f"{trial}.wav", root)
            yield Entry(utterance, voice, split, attack, wav, where=where)
    finally:
        dev.close()


def _named_in(path: Path) -> sqlite3.Connection:
    """The ASVspoof utterances that a list of trials names, in a temporary file on disk."""
    store = sqlite3.connect("")
    store.execute("CREATE TABLE names (name PRIMARY KEY) WITHOUT ROWID")
    found = (UTTERANCE.search(line) for _, line in lines(path)) if path.exists() else ()
    store.executemany("INSERT OR IGNORE INTO names VALUES (?)", ((match[0],) for match in found if match))
    return store


layout = Layout(
    name="vocv4",
    title="voc.v4: ASVspoof 2019 LA training speech through HiFi-GAN, two neural source-filter vocoders and WaveGlow",
    scan=scan,
    sample_rate=16_000,
    valid_band=(0.0, 8_000.0),
    licence="as stated with the archive; the bona fide speech is ASVspoof 2019's, ODC-By 1.0",
    citation="X. Wang and J. Yamagishi, ICASSP 2023",
    source="https://doi.org/10.5281/zenodo.7314976",
    further_roots=(BONAFIDE,),
    kinds=dict.fromkeys(("hifigan", "hn-sinc-nsf", "hn-sinc-nsf-hifi", "waveglow"), "neural"),
)
