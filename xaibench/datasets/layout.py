"""What a data set's file says: where its files lie, what they are, and how many there must be.

A `Layout` reads nothing but names and protocol files; the index engine (`xaibench.datasets.index`) reads the audio, aligns
twins, hashes, counts and writes the manifest. Layouts stream: what must be sorted or joined goes through SQLite on disk
(`sorted_on_disk`), so that memory does not grow with the number of files.
"""

from __future__ import annotations

import csv
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from xaibench import reading
from xaibench.errors import ManifestError
from xaibench.reading import shown

MAIN = "main"  # name of the root that every data set has
BONAFIDE = "bonafide"  # name of the further root for bona fide speech that lives in another data set
AUDIO_ENDINGS = (".wav", ".flac", ".mp3")


@dataclass(frozen=True)
class Entry:
    """One file of a data set, before its audio is read.

    source:   shared by a bona fide utterance and its twins.
    attack:   "bonafide", or the name of the vocoder or attack (A01 ... A19).
    path:     relative to `root`, with forward slashes.
    root:     the folder it lies in, where a data set needs several (voc.v4 takes its bona fide speech from ASVspoof).
    segments: `(start, end, label)` in seconds, label "bonafide" or "spoof", for partially spoofed speech.
    where:    "protocol.txt:12", what names the file; empty where only the folder does.
    labelled: seconds that its labels cover and by how many the recording may differ; None where they need not cover it.
    """

    source: str
    speaker: str
    split: str
    attack: str
    path: str
    root: str = MAIN
    segments: tuple[tuple[float, float, str], ...] = ()
    where: str = ""
    labelled: tuple[float, float] | None = None


@dataclass(frozen=True)
class Problem:
    """One file or line that cannot become an entry; the engine stops at it or counts it, as the user chose.

    where: what names it ("protocol.txt:12", a path); message: what is wrong and what was expected.
    """

    where: str
    message: str


@dataclass(frozen=True)
class Layout:
    """A data set of the field.

    scan:     `scan(roots)` streams its entries, and a `Problem` for every line that is none; `roots` maps "main" (and the
              names of `further_roots`) to folders. In a paired set a bona fide entry comes before its twins, and best just
              before them (it is then read once). Raises ManifestError where all is lost: no protocol, no such folder.
    sample_rate: Hz; 0 where the authors publish none: that of the first file, which all others must then share.
    valid_band: Hz; its top is cut to half the sample rate.
    expected: published counts of files per split, `{"train": 25_380, ...}`, or `{"all": n}`; empty where none are published.
    further_roots, optional_roots: names of further folders that it needs, and that it can take.
    paired:   every spoofed file has its bona fide twin in the set.
    kinds:    what sort of spoofing an attack is ("tts", "vc", "signal-processing", "neural"), for multi-class training.
    checked:  "real files" or "documentation": what the layout was checked against; "" for a layout of xaibench's own.
    """

    name: str
    title: str
    scan: Callable[[Mapping[str, Path]], Iterator[Entry | Problem]]
    sample_rate: int
    valid_band: tuple[float, float]
    licence: str
    citation: str
    source: str  # where to get it (a DOI or the project's address)
    expected: Mapping[str, int] = field(default_factory=dict)
    further_roots: tuple[str, ...] = ()
    optional_roots: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    paired: bool = True
    kinds: Mapping[str, str] = field(default_factory=dict)
    checked: str = "documentation"


def locate(root: Path, candidates: Iterable[str], *, what: str) -> Path:
    """The first of `candidates` (paths relative to `root`; "" is `root` itself) that exists.

    Raises ManifestError naming the root, what was looked for, and every candidate.
    """
    tried = list(candidates)
    for candidate in tried:
        if (root / candidate).exists():
            return root / candidate
    listed = ", ".join(c or "." for c in tried)
    raise ManifestError(f"{root}: no {what}; looked for {listed}; is --root the folder that the archive unpacks to?")


def relative(path: Path, root: Path) -> str:
    """`path` below `root`, with forward slashes: what an `Entry` holds."""
    return path.relative_to(root).as_posix()


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """`(where, line)` of a text file in UTF-8, one at a time, without line ends; blank lines are left out.

    Raises ManifestError, naming file and line, as `reading.lines`.
    """
    for number, line in reading.lines(path, ManifestError, what="protocol"):
        if line.strip():
            yield f"{path}:{number}", line


def cells(where: str, line: str) -> list[str] | Problem:
    """The cells of a line of comma-separated values; a Problem for a line that is none, a quotation mark left open, say.

    >>> cells("meta.csv:2", '0.wav,"Guinness, Alec",spoof')
    ['0.wav', 'Guinness, Alec', 'spoof']
    """
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        return Problem(where, f"{shown(line)}: no comma-separated values ({error})")


def path_problem(where: str, name: str) -> Problem | None:
    """A Problem where a protocol gives a path instead of a file's name."""
    if "/" in name or "\\" in name:
        return Problem(where, f"{shown(name)} is a path, expected the name of a file")
    return None


def columns(path: Path, names: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]] | Problem]:
    """`(where, {name: value})` of every line of a protocol whose columns are divided by white space.

    A line with fewer columns than `names` is a `Problem`; further columns are left out.
    """
    for where, line in lines(path):
        values = line.split()
        if len(values) < len(names):
            yield Problem(where, f"{len(values)} columns, expected {len(names)} ({' '.join(names)}): {shown(line)}")
        else:
            yield where, dict(zip(names, values, strict=False))


def sorted_on_disk(rows: Iterable[tuple]) -> Iterator[tuple]:
    """Rows of strings, or of bytes, in order of code points, duplicates kept, sorted in a temporary file: memory stays flat.

    >>> list(sorted_on_disk([("b", "2"), ("a", "1")]))
    [('a', '1'), ('b', '2')]
    """
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return
    names = [f"c{i}" for i in range(len(first))]
    marks = ",".join("?" * len(first))
    store = sqlite3.connect("")  # a private database in a temporary file, deleted when closed
    try:
        store.execute("PRAGMA journal_mode = OFF")
        key = ",".join([*names, "n"])  # n keeps duplicates apart
        store.execute(f"CREATE TABLE r ({key}, PRIMARY KEY ({key})) WITHOUT ROWID")
        store.execute(f"INSERT INTO r VALUES ({marks}, 0)", first)
        store.executemany(f"INSERT INTO r VALUES ({marks}, ?)", ((*row, i) for i, row in enumerate(rows, start=1)))
        yield from store.execute(f"SELECT {','.join(names)} FROM r ORDER BY {','.join(names)}, n")
    finally:
        store.close()


def audio_in(folder: Path, endings: tuple[str, ...] = AUDIO_ENDINGS) -> Iterator[str]:
    """Names of the audio files directly in `folder`, sorted, streamed. Raises ManifestError for no such folder."""

    def names() -> Iterator[tuple[bytes]]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.lower().endswith(endings) and not entry.name.startswith("."):
                    yield (os.fsencode(entry.name),)  # bytes: a name need not be UTF-8

    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder; is --root the folder that the archive unpacks to?")
    for (name,) in sorted_on_disk(names()):
        yield os.fsdecode(name)


def split_of(key: str) -> str:
    """train, dev or eval (80, 10, 10 of a hundred) by a hash of `key`, for sets whose authors publish no split.

    The key is the speaker where there are several, so that no speaker is in two splits.

    >>> split_of("LJ001-0001") == split_of("LJ001-0001")
    True
    """
    share = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 100
    return "train" if share < 80 else "dev" if share < 90 else "eval"
