"""A folder of one's own pairs: what `xaibench data make-pairs` writes, or any recordings in the same order.

Either folders, one a version, with files of the same name (WAV or FLAC; the ending may differ between versions):

    ROOT/bonafide/UTTERANCE.wav
    ROOT/VOCODER/UTTERANCE.flac

with a level of train, dev and eval above them (ROOT/train/bonafide/...) or without, when all is `eval`. The speaker is
unknown and so one for all. Or a table ROOT/pairs.csv (`--root` may also be the table itself), which goes before the
folders:

    bonafide,spoof,speaker,vocoder,split        the last three may be missing; paths are relative to the table,
                                               or in full below its folder

An utterance is named by the path of its bona fide file without the ending, "/" written as "-". Rows of one bona fide file
share speaker and split; a missing vocoder is the name of the spoofed file's folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from xaibench.datasets.layout import MAIN, Entry, Layout, Problem, audio_in, cells, lines, relative, sorted_on_disk
from xaibench.errors import ManifestError
from xaibench.manifest import SPLITS
from xaibench.reading import shown

REAL = "bonafide"
ENDINGS = (".flac", ".wav")
TWIN_ENDINGS = (*ENDINGS, ".FLAC", ".WAV")
TABLE = "pairs.csv"
COLUMNS = ("bonafide", "spoof")
UNKNOWN = "unknown"


def scan(roots: Mapping[str, Path]) -> Iterator[Entry | Problem]:
    """Each bona fide utterance followed by its vocoded versions, sorted by name."""
    root = roots[MAIN]
    if root.is_file() or (root / TABLE).is_file():
        return _from_table(root if root.is_file() else root / TABLE)
    return _from_folders(root)


def _from_folders(root: Path) -> Iterator[Entry | Problem]:
    homes = {"eval": root} if (root / REAL).is_dir() else {s: root / s for s in SPLITS if (root / s / REAL).is_dir()}
    if not homes:
        raise ManifestError(
            f"{root}: no bona fide recordings; expected {REAL}/ and a folder for each vocoder, or train/{REAL}/, "
            f"dev/{REAL}/, eval/{REAL}/, or a table {TABLE}"
        )
    for split, home in homes.items():
        vocoders = sorted(p.name for p in home.iterdir() if p.is_dir() and p.name != REAL and not p.name.startswith("."))
        for name in audio_in(home / REAL, ENDINGS):
            source = name.rpartition(".")[0]
            yield Entry(source, UNKNOWN, split, REAL, relative(home / REAL / name, root))
            for vocoder in vocoders:
                twin = next((source + e for e in TWIN_ENDINGS if os.path.exists(home / vocoder / (source + e))), None)
                if twin is not None:
                    yield Entry(source, UNKNOWN, split, vocoder, relative(home / vocoder / twin, root))


def _from_table(table: Path) -> Iterator[Entry | Problem]:
    def rows() -> Iterator[tuple[str, ...]]:
        header: list[str] | None = None
        for where, line in lines(table):
            values = cells(where, line)
            if header is None:
                header = values if isinstance(values, list) else []
                missing = [c for c in COLUMNS if header.count(c) != 1]
                if missing:
                    raise ManifestError(
                        f"{where}: the columns {', '.join(missing)} are missing, or there twice; expected bonafide,spoof"
                    )
                continue
            if isinstance(values, Problem):
                yield ("", where, values.message, "", "", "")
                continue
            row = dict(zip(header, values, strict=False))
            if len(values) != len(header) or not all(PurePosixPath(row[column]).name for column in COLUMNS):
                expected = f"expected {shown(','.join(header))}, with bonafide and spoof"
                yield ("", where, f"{expected}, got {shown(line)}", "", "", "")
                continue
            vocoder = row.get("vocoder") or PurePosixPath(row["spoof"]).parent.name
            real, spoof = (_below(row[column], table.parent) for column in COLUMNS)
            yield (real, vocoder, spoof, row.get("speaker") or UNKNOWN, row.get("split") or "eval", where)

    last = ""
    for real, vocoder, spoof, speaker, split, where in sorted_on_disk(rows()):
        if not real:
            yield Problem(vocoder, spoof)
            continue
        source = str(PurePosixPath(real).with_suffix("")).replace("/", "-")
        if real != last:
            yield Entry(source, speaker, split, REAL, real, where=where)
            last = real
        yield Entry(source, speaker, split, vocoder, spoof, where=where)


def _below(path: str, folder: Path) -> str:
    """A path of the table, relative to its folder also where it was written in full."""
    whole = Path(path)
    return relative(whole, folder) if whole.is_absolute() and whole.is_relative_to(folder) else path


layout = Layout(
    name="folder",
    title="Pairs in a folder",
    scan=scan,
    sample_rate=0,
    valid_band=(0.0, 24_000.0),
    licence="that of the recordings",
    citation="",
    source="",
    checked="",
)
