"""ASVspoof 2019, logical access: bona fide speech of VCTK and nineteen text-to-speech and voice conversion attacks.

Layout, as its README documents it (the archive LA.zip; `--root` is the folder `LA` or the one that holds it):

    LA/ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.{train.trn,dev.trl,eval.trl}.txt
    LA/ASVspoof2019_LA_{train,dev,eval}/flac/LA_{T,D,E}_1234567.flac

A protocol line is `LA_0079 LA_T_1138215 - - bonafide`: speaker, utterance, an unused column, attack (`-` or A01 ... A19) and
key. The archives hold further files that only speaker verification uses: the protocol decides. The set is not paired.

Reference: X. Wang et al., "ASVspoof 2019: a large-scale public database of synthesized, converted and replayed speech",
Computer Speech & Language 64, 2020; Table 1 names the attacks' kinds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from xaibench.datasets.layout import MAIN, Entry, Layout, Problem, columns, locate, relative
from xaibench.reading import shown

COLUMNS = ("speaker", "utterance", "unused", "attack", "key")
PROTOCOLS = {"train": "train.trn", "dev": "dev.trl", "eval": "eval.trl"}

#: Text-to-speech, voice conversion, or text-to-speech whose voice is converted (A13 to A15).
KINDS = {
    **dict.fromkeys(("A01", "A02", "A03", "A04", "A07", "A08", "A09", "A10", "A11", "A12", "A16"), "tts"),
    **dict.fromkeys(("A05", "A06", "A17", "A18", "A19"), "vc"),
    **dict.fromkeys(("A13", "A14", "A15"), "tts-vc"),
}


def home(root: Path) -> Path:
    """The folder `LA`, given it or the one that holds it. Raises ManifestError naming what was looked for."""
    return locate(
        root, ("ASVspoof2019_LA_cm_protocols", "LA/ASVspoof2019_LA_cm_protocols"), what="countermeasure protocols"
    ).parent


def scan(roots: Mapping[str, Path]) -> Iterator[Entry | Problem]:
    """Every trial of the three protocols, in their order."""
    root = roots[MAIN]
    folder = home(root)
    for split, ending in PROTOCOLS.items():
        protocol = locate(
            folder, (f"ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.{ending}.txt",), what=f"protocol of {split}"
        )
        audio = relative(folder / f"ASVspoof2019_LA_{split}" / "flac", root)
        for line in columns(protocol, COLUMNS):
            yield line if isinstance(line, Problem) else _entry(*line, split=split, folder=audio)


def _entry(where: str, line: Mapping[str, str], *, split: str, folder: str) -> Entry | Problem:
    attack, key = line["attack"], line["key"]
    if key not in ("bonafide", "spoof") or (key == "bonafide") != (attack == "-"):
        found = f"attack {shown(attack)} with key {shown(key)}"
        return Problem(where, f"{found}, expected '- bonafide' or 'A01 spoof' to 'A19 spoof'")
    return Entry(
        source=line["utterance"],
        speaker=line["speaker"],
        split=split,
        attack="bonafide" if attack == "-" else attack,
        path=f"{folder}/{line['utterance']}.flac",
        where=where,
    )


layout = Layout(
    name="asvspoof2019",
    title="ASVspoof 2019 logical access: bona fide speech, text-to-speech and voice conversion attacks A01 to A19",
    scan=scan,
    sample_rate=16_000,
    valid_band=(0.0, 8_000.0),
    licence="ODC-By 1.0",
    citation="X. Wang et al., Computer Speech & Language 64, 101114, 2020",
    source="https://doi.org/10.7488/ds/2555",
    expected={"train": 25_380, "dev": 24_844, "eval": 71_237},  # trials of the protocols
    paired=False,
    kinds=KINDS,
)
