"""PartialSpoof: bona fide utterances of ASVspoof 2019 LA in which short stretches were replaced by spoofed speech.

    database/protocols/PartialSpoof_LA_cm_protocols/PartialSpoof.LA.cm.{train,dev,eval}.trl.txt
    database/{train,dev,eval}/con_wav/*.wav
    database/{train,dev,eval}/con_data/{rttm_2cls_0sil_spoof,reco2dur}
    database/segment_labels/{train,dev,eval}_seglab_{0.01,0.02,0.04,0.08,0.16,0.32,0.64}.npy     (version 1.2)

A protocol line is `LA_0079 CON_T_0000029 - CON spoof` or `LA_0098 LA_T_9497115 - - bonafide`: speaker, utterance, -,
system, key. `CON_*` files are partially spoofed and have no bona fide twin in the set.

Segments come from the RTTM where there is one (exact times), else from the finest label file; `reco2dur`, where there is
one, must agree with them. What no segment covers is bona fide. `--root` is `database` or the folder that holds it.

Zhang et al., "The PartialSpoof database and countermeasures for the detection of short fake speech segments embedded in an
utterance", IEEE/ACM TASLP 31 (2023), doi 10.1109/TASLP.2022.3233236; Zenodo 5766198. Layout after its documentation and
the authors' code (github.com/nii-yamagishilab/PartialSpoof).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from xaibench.datasets.layout import MAIN, Entry, Layout, Problem, columns, lines, locate, path_problem, relative
from xaibench.datasets.seglab import label_cells, read_label_file
from xaibench.errors import ManifestError
from xaibench.manifest import check_overlaps
from xaibench.reading import number, shown

COLUMNS = ("speaker", "utterance", "unused", "system", "key")
SPLITS = ("train", "dev", "eval")
RESOLUTIONS = ("0.01", "0.02", "0.04", "0.08", "0.16", "0.32", "0.64")  # seconds, as in the file names
LABELS = ("bonafide", "spoof")

#: Seconds: `reco2dur` and RTTM are written with a few decimals each.
ROUNDING = 0.01

Segments = tuple[tuple[float, float, str], ...]


def scan(roots: Mapping[str, Path]) -> Iterator[Entry | Problem]:
    """Every trial of the three protocols, in their order.

    A `Problem` for a line that is none, an utterance listed twice, and for a partially spoofed utterance without labels,
    with unknown ones, or with labels of another length than `reco2dur` says (file, utterance and both lengths named).
    Raises ManifestError for a missing protocol or label file, and for a label file that is not one.
    """
    root = roots[MAIN]
    protocols = locate(
        root,
        ("protocols/PartialSpoof_LA_cm_protocols", "database/protocols/PartialSpoof_LA_cm_protocols"),
        what="countermeasure protocols",
    )
    base = protocols.parents[1]
    for split in SPLITS:
        protocol = locate(protocols, (f"PartialSpoof.LA.cm.{split}.trl.txt",), what=f"protocol of {split}")
        audio = relative(base / split / "con_wav", root)
        labels = _Labels(base, split)
        seen: dict[str, str] = {}
        for line in columns(protocol, COLUMNS):
            yield line if isinstance(line, Problem) else _entry(*line, split=split, folder=audio, labels=labels, seen=seen)


def _entry(
    where: str, line: Mapping[str, str], *, split: str, folder: str, labels: _Labels, seen: dict[str, str]
) -> Entry | Problem:
    utterance, system, key = line["utterance"], line["system"], line["key"]
    if key not in LABELS or (key == "bonafide") != (system == "-"):
        return Problem(where, f"system {shown(system)} with key {shown(key)}, expected '- bonafide' or 'CON spoof'")
    if problem := path_problem(where, utterance):
        return problem
    if utterance in seen:
        return Problem(where, f"{shown(utterance)} is already on {seen[utterance]}")
    seen[utterance] = where
    try:
        segments = labels.of(utterance) if key == "spoof" else ()
    except ManifestError as error:
        return Problem(where, str(error))
    if key == "spoof" and not any(label == "spoof" for _, _, label in segments):
        whose = f"{labels.path}: {shown(utterance)}"
        return Problem(where, f"{whose} is labelled bona fide throughout, and the protocol says spoof")
    return Entry(
        source=utterance,
        speaker=line["speaker"],
        split=split,
        attack="bonafide" if key == "bonafide" else system,
        path=f"{folder}/{utterance}.wav",
        segments=segments,
        where=where,
        labelled=(segments[-1][1], labels.resolution + ROUNDING) if segments and labels.resolution else None,
    )


class _Labels:
    """The segments of one split, from its RTTM or its finest label file, checked against `reco2dur` where there is one."""

    def __init__(self, base: Path, split: str) -> None:
        data = base / split / "con_data"
        self.durations = read_durations(data / "reco2dur") if (data / "reco2dur").is_file() else {}
        self.path = data / "rttm_2cls_0sil_spoof"
        self.resolution = 0.0  # seconds; 0: an RTTM
        self.known: Mapping[str, Any]
        if self.path.is_file():
            self.known = read_rttm(self.path)
            return
        names = {f"segment_labels/{split}_seglab_{name}.npy": float(name) for name in RESOLUTIONS}
        self.path = locate(base, names, what=f"{split}/con_data/rttm_2cls_0sil_spoof and no segment labels of {split}")
        self.resolution = names[relative(self.path, base)]
        self.known = read_label_file(self.path)

    def of(self, utterance: str) -> Segments:
        """Its segments. Raises ManifestError, naming file and utterance: none, or not those of this recording."""
        if utterance not in self.known:
            raise ManifestError(f"{self.path}: no labels of {shown(utterance)}, which the protocol calls spoofed")
        duration = self.durations.get(utterance)
        if self.resolution:
            cells = label_cells(self.known[utterance], path=self.path, utterance=utterance)
            if duration is not None:
                check_label_count(len(cells), duration, self.resolution, path=self.path, utterance=utterance)
            return cell_segments(cells, self.resolution, end=duration)
        segments = self.known[utterance]
        end = max(last for _, last, _ in segments)
        if duration is not None and end > duration + ROUNDING:
            raise ManifestError(f"{self.path}: {shown(utterance)} is labelled to {end} s, reco2dur gives it {duration} s")
        return segments


def check_label_count(count: int, duration: float, resolution: float, *, path: Path, utterance: str) -> None:
    """Raises ManifestError, naming file, utterance and both lengths, unless `count` labels cover `duration` seconds.

    One label more or less is rounding: the authors' tools both keep and drop a last, shorter stretch.
    """
    if abs(count - duration / resolution) > 1 + ROUNDING / resolution:
        raise ManifestError(
            f"{path}: {shown(utterance)} has {count} labels of {resolution} s, so {count * resolution:.2f} s, and the "
            f"recording is {duration:.2f} s long; do labels and audio belong to one version?"
        )


def cell_segments(cells: Sequence[str], resolution: float, *, end: float | None = None) -> Segments:
    """Runs of equal labels as segments, in seconds; the last one cut at `end`.

    >>> cell_segments(["1", "1", "0"], 0.5, end=1.25)
    ((0.0, 1.0, 'bonafide'), (1.0, 1.25, 'spoof'))
    """
    edges = [0, *(i for i in range(1, len(cells)) if cells[i] != cells[i - 1]), len(cells)]
    limit = math.inf if end is None else end
    return tuple(
        (round(a * resolution, 6), min(round(b * resolution, 6), limit), "bonafide" if cells[a] == "1" else "spoof")
        for a, b in pairwise(edges)
        if round(a * resolution, 6) < limit
    )


def read_durations(path: Path) -> dict[str, float]:
    """`reco2dur`, lines `UTTERANCE SECONDS`: utterance -> seconds. Raises ManifestError, naming file and line."""
    found: dict[str, float] = {}
    for where, line in lines(path):
        utterance, text = [*line.split(None, 1), "", ""][:2]
        if utterance in found:
            raise ManifestError(f"{where}: a second duration of {shown(utterance)}, expected one an utterance")
        found[utterance] = _seconds(text.strip(), f"{where}: duration")
        if found[utterance] <= 0:
            raise ManifestError(f"{where}: duration {shown(text)}, expected seconds above 0")
    return found


def read_rttm(path: Path) -> dict[str, Segments]:
    """An RTTM file: utterance -> segments by rising start.

    Line: `SPEAKER <utterance> 1 <start> <duration> <NA> <NA> <label> <NA> <NA>`, label spoof or bonafide. Raises
    ManifestError, naming file, line and value.
    """
    found: dict[str, list[tuple[float, float, str]]] = {}
    for where, line in lines(path):
        parts = line.split()
        if len(parts) != 10 or parts[0] != "SPEAKER":
            raise ManifestError(f"{where}: {shown(line)}, expected `SPEAKER UTT 1 START DURATION <NA> <NA> LABEL <NA> <NA>`")
        if parts[7] not in LABELS:
            raise ManifestError(f"{where}: label {shown(parts[7])}, expected spoof or bonafide")
        start, duration = _seconds(parts[3], f"{where}: start"), _seconds(parts[4], f"{where}: duration")
        end = round(start + duration, 5)  # as the authors' reader: sums of two decimals have rounding noise behind them
        if not 0 <= start < end < math.inf:
            raise ManifestError(f"{where}: start {parts[3]}, duration {parts[4]}, expected a stretch of time in seconds")
        found.setdefault(parts[1], []).append((start, end, parts[7]))
    for utterance, listed in found.items():
        check_overlaps(f"{path}: {shown(utterance)}", listed)
    return {utterance: tuple(sorted(listed)) for utterance, listed in found.items()}


def _seconds(text: str, where: str) -> float:
    try:
        value = number(text)
    except ValueError as error:
        raise ManifestError(f"{where} {shown(text)} is not a number of seconds") from error
    if not math.isfinite(value):
        raise ManifestError(f"{where} {shown(text)} is not finite")
    return value


layout = Layout(
    name="partialspoof",
    title="PartialSpoof: short spoofed segments within bona fide utterances of ASVspoof 2019 LA",
    scan=scan,
    sample_rate=16_000,
    valid_band=(0.0, 8_000.0),
    licence="see the record, Zenodo 5766198 (derived from ASVspoof 2019, ODC-By 1.0)",
    citation="Zhang et al., IEEE/ACM TASLP 31 (2023), pp. 813-825, doi 10.1109/TASLP.2022.3233236",
    source="https://zenodo.org/records/5766198",
    expected={"train": 25_380, "dev": 24_844, "eval": 71_237},
    paired=False,
)
