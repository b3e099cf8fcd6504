"""Manifests: what a data set is (`NAME.toml`) and which files it has (`NAME.csv`), checked before anything is scored.

The table has one row a file: `utt_id` (shared by a bona fide utterance and its twins), `speaker`, `split` (train, dev,
eval), `vocoder` ("bonafide" or a vocoder's or attack's name), `path` (relative to the root), `n_samples`, `sha256`. It may
have `root` (which of several roots, default "main"), `lag` (samples by which a vocoded file is late against its twin) and
`segments` ("0 0.52 bonafide;0.52 1.3 spoof", in seconds). Further columns are kept for readers and ignored here.

`read_manifest` holds a whole corpus; `stream` (with `read_facts` for all but the rows) gives one row at a time with the same
checks, and its memory does not grow with the table: what must be remembered goes to a temporary file.
"""

from __future__ import annotations

import csv
import hashlib
import math
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xaibench import reading
from xaibench.errors import ManifestError
from xaibench.protocols import Corpus
from xaibench.reading import RATES, shown
from xaibench.tables import unguarded
from xaibench.types import Pair, Utterance

COLUMNS = ("utt_id", "speaker", "split", "vocoder", "path", "n_samples", "sha256")
FURTHER_COLUMNS = ("root", "lag", "segments")  # may be missing, or empty in a row
SPLITS = ("train", "dev", "eval")
MAIN = "main"  # the root of rows that name none

#: The keys of a manifest and the type of each; the first four are required. A misspelt `table_sha256` would switch its
#: check off without a word, so an unknown key is an error.
KEYS: dict[str, type] = {
    "name": str,
    "table": str,
    "sample_rate": int,
    "valid_band": list,
    "table_sha256": str,
    "title": str,
    "files": int,
    "utterances": int,
    "splits": dict,
    "held_out": list,
    "licence": str,
    "citation": str,
    "source": str,
    "paired": bool,  # every vocoded file has its bona fide twin; default true
    "kinds": dict,  # vocoder or attack -> what sort of spoofing it is
    "roots": list,  # names of the folders its paths are relative to; default ["main"]
    "checked": str,  # "real files" or "documentation": what its reader was checked against
}
REQUIRED = tuple(KEYS)[:4]
#: What lists and dictionaries of it hold.
INNER: dict[str, type] = {"splits": int, "held_out": str, "kinds": str, "roots": str}
LONGEST_TABLE = 255  # characters of a file's name; no system we know takes more
LARGEST_MANIFEST = 1 << 20  # bytes; the table is a file of its own
LONGEST_NAME = 120  # bytes of an utterance's or a vocoder's name; files are named after both, and have 255
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # ends lines, moves cursors, is no character
OVERLAP = 0.02  # s; annotations are rounded

Roots = Path | str | Mapping[str, Path | str]


def bundled(name: str) -> Path:
    """The `.toml` of a manifest that ships with xaibench. Raises ManifestError, naming those there are."""
    here = Path(__file__).parent
    folders = [here / "data_manifests", here.parent / "data_manifests"]  # in a wheel; in a checkout
    for folder in folders:
        if (folder / f"{name}.toml").exists():
            return folder / f"{name}.toml"
    known = sorted(p.stem for folder in folders if folder.is_dir() for p in folder.glob("*.toml"))
    raise ManifestError(f"no bundled manifest {name!r}; bundled: {', '.join(known)}")


def read_manifest(path: Path, root: Roots) -> Corpus:
    """Read and check a manifest; `root` is the folder its paths are relative to, or `{name: folder}` where it has several.

    Raises ManifestError, naming file, line and value: an unknown or missing key, a value of the wrong type, a band beyond
    half the sample rate, a missing column or an empty field, a name that is a path, a table whose hash differs or that is
    not UTF-8, a count that differs, a path that leaves its root, a duplicated file and, unless `paired = false`, a vocoded
    file without its bona fide half or with another split or speaker than it.
    """
    path, facts, table, digest, roots = _opened(Path(path), root)
    utterances = tuple(_rows(table, roots, _Seen()))
    splits = dict(Counter(u.split for u in utterances if u.bonafide))
    _check_counts(path, facts, len(utterances), splits)
    if facts.get("paired", True):
        _check_twins(table, utterances)
    return _corpus(facts, digest, utterances)


def read_facts(path: Path, root: Roots) -> Corpus:
    """The corpus of a manifest without its utterances, for `stream`: the table is hashed, its rows are not looked at.

    Raises ManifestError for a wrong manifest, a table of another hash, or a root that is not there.
    """
    _, facts, _, digest, _ = _opened(Path(path), root)
    return _corpus(facts, digest, ())


def remembered_roots(path: Path, root: Roots | None = None) -> dict[str, Path]:
    """The roots of a manifest: those given, and for the others where `xaibench data index` found the files.

    A manifest without `NAME.roots.json` beside it lies in its own main root. Raises ManifestError for a damaged one.
    """
    path = Path(path)
    given = {n: Path(r) for n, r in root.items()} if isinstance(root, Mapping) else {MAIN: Path(root)} if root else {}
    remembered = path.with_name(f"{path.stem}.roots.json")
    known = _known_roots(remembered) if os.path.isfile(remembered) else {}
    roots = {MAIN: path.parent, **{n: Path(r) for n, r in known.items()}, **given}
    return {n: r.parent if os.path.isfile(r) else r for n, r in roots.items()}


def _known_roots(path: Path) -> dict[str, str]:
    hint = "delete it and give --root, or index again"
    known = reading.json_object(path, ManifestError, hint=hint)
    if not all(isinstance(folder, str) for folder in known.values()):
        raise ManifestError(f"{path}: expected an object from root to folder; {hint}")
    return known


def _corpus(facts: Mapping[str, Any], digest: str, utterances: tuple[Utterance, ...]) -> Corpus:
    return Corpus(
        name=facts["name"],
        utterances=utterances,
        sample_rate=int(facts["sample_rate"]),
        valid_band=(float(facts["valid_band"][0]), float(facts["valid_band"][1])),
        held_out=tuple(facts.get("held_out", ())),
        licence=facts.get("licence", ""),
        citation=facts.get("citation", ""),
        hash=digest,
        kinds=dict(facts.get("kinds", {})),
    )


def stream(path: Path, root: Roots) -> Iterator[Utterance]:
    """The rows of a manifest one at a time, in its order; every check of `read_manifest` is made before the first.

    The table is read twice: once to check it, duplicates and twins through a temporary file, and once to give its rows.
    Raises what `read_manifest` raises.
    """
    path, facts, table, _, roots = _opened(Path(path), root)
    seen = _SeenOnDisk()
    try:
        files, splits = 0, Counter[str]()
        for u in _rows(table, roots, seen):
            seen.remember(u)
            files += 1
            splits[u.split] += u.bonafide
        _check_counts(path, facts, files, {split: n for split, n in splits.items() if n})
        if facts.get("paired", True):
            seen.check_twins(table)
    finally:
        seen.close()
    yield from _rows(table, roots, None)


def _opened(path: Path, root: Roots) -> tuple[Path, dict[str, Any], Path, str, dict[str, Path]]:
    """The manifest's facts, checked; its table and the table's hash, compared; its roots, resolved."""
    facts = reading.toml_table(path, ManifestError, what="manifest", most=LARGEST_MANIFEST)
    _check_facts(path, facts)
    table = path.parent / facts["table"]
    digest = sha256_of(table, hint=f"{path.name} names it as its table")
    if facts.get("table_sha256", digest) != digest:
        raise ManifestError(
            f"{table}: sha256 {digest}, but {path.name} says {facts['table_sha256']}; was the table edited without its "
            f"manifest, or changed on the way (line ends)?"
        )
    return path, facts, table, digest, _roots(path, facts, root)


def _roots(path: Path, facts: Mapping[str, Any], root: Roots) -> dict[str, Path]:
    given = {name: Path(folder) for name, folder in root.items()} if isinstance(root, Mapping) else {MAIN: Path(root)}
    known, whose = facts.get("roots", [MAIN]), shown(facts["name"])
    for name in given:
        if name not in (MAIN, *known):
            listed = shown(", ".join(known))
            raise ManifestError(f"{path}: the data set {whose} has no root {shown(name)}; its roots: {listed}")
    for name in known:
        if name not in given:
            raise ManifestError(
                f"{path}: the data set {whose} has files in a further folder, its root {shown(name)}, which is not given; "
                f"given: {', '.join(given) or 'none'}"
            )
    for folder in given.values():
        if not os.path.isdir(folder):  # unlike Path.is_dir, False for a name that is too long
            raise ManifestError(f"{folder}: no such folder; the data set {whose} needs its root (--root)")
    return {name: folder.resolve() for name, folder in given.items()}


def sha256_of(path: Path, *, hint: str = "is the name right?") -> str:
    """The hash of a file's bytes, read in pieces. Raises ManifestError if it cannot be read."""
    with reading.opened(path, ManifestError, hint=hint) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_facts(path: Path, facts: Mapping[str, Any]) -> None:
    for key in REQUIRED:
        if key not in facts:
            raise ManifestError(f"{path}: the key {key!r} is missing")
    for key, value in facts.items():
        if key not in KEYS:
            raise ManifestError(f"{path}: unknown key {shown(key)}; known: {', '.join(KEYS)}")
        if not isinstance(value, KEYS[key]) or (isinstance(value, bool) and KEYS[key] is not bool):
            raise ManifestError(f"{path}: {key} = {shown(value)}, expected {KEYS[key].__name__}")
        inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        if key in INNER and not all(type(one) is INNER[key] for one in inner):
            raise ManifestError(f"{path}: {key} = {shown(value)}, expected {INNER[key].__name__} for each of its values")
        if not all(-(2**53) <= one <= 2**53 for one in (value, *inner) if isinstance(one, int)):
            raise ManifestError(f"{path}: {key} = {shown(value)}, expected numbers of at most 2^53")
    table = facts["table"]
    if table != Path(table).name or table in ("", "..") or "\0" in table or len(table) > LONGEST_TABLE:
        raise ManifestError(f"{path}: table = {shown(table)}, expected the bare name of a file beside the manifest")
    if facts["sample_rate"] not in RATES:
        raise ManifestError(f"{path}: sample_rate = {facts['sample_rate']}, expected {RATES[0]} to {RATES[-1]:,} Hz")
    band = facts["valid_band"]
    if len(band) != 2 or not all(type(edge) in (int, float) for edge in band) or not 0 <= band[0] < band[1]:
        raise ManifestError(f"{path}: valid_band = {shown(band)}, expected two rising frequencies in Hz")
    if band[1] > facts["sample_rate"] / 2:
        raise ManifestError(
            f"{path}: valid_band = {band!r} reaches beyond half the sample rate of {facts['sample_rate']} Hz; is one of the "
            f"two wrong?"
        )


def _check_counts(path: Path, facts: Mapping[str, Any], files: int, splits: dict[str, int]) -> None:
    found = {"files": files, "utterances": sum(splits.values()), "splits": splits}
    for key, value in found.items():
        if facts.get(key, value) != value:
            raise ManifestError(f"{path}: {key} = {facts[key]}, but its table holds {value}")


def _check_twins(table: Path, utterances: tuple[Utterance, ...]) -> None:
    bonafide = {u.source: (u.split, u.speaker) for u in utterances if u.bonafide}
    for u in utterances:
        _check_twin(table, u.source, u.vocoder, (u.split, u.speaker), bonafide.get(u.source))


def _check_twin(table: Path, source: str, vocoder: str, own: tuple[str, str], half: tuple[str, str] | None) -> None:
    """`own` and `half` are split and speaker of a file and of its bona fide twin."""
    if half is None:
        raise ManifestError(f"{table}: {vocoder} of {source!r} has no bona fide twin")
    if own != half:
        raise ManifestError(
            f"{table}: {vocoder} of {source!r} is {own[0]} of speaker {shown(own[1])}, its bona fide twin "
            f"{half[0]} of {shown(half[1])}; twins share both"
        )


class _Seen:
    """Which rows and files a table has had, and on which line; in memory."""

    def __init__(self) -> None:
        self.keys: dict[tuple[str, str], int] = {}
        self.paths: dict[Path, int] = {}

    def row(self, key: tuple[str, str], line: int) -> int:
        """The line that has `key` already, or `line` itself."""
        return self.keys.setdefault(key, line)

    def file(self, path: Path, line: int) -> int:
        return self.paths.setdefault(path, line)


class _SeenOnDisk:
    """The same in a temporary file, with what `check_twins` needs."""

    def __init__(self) -> None:
        self.store = sqlite3.connect("")  # a private database, on disk beyond its cache of 2 MB, deleted when closed
        self.store.execute("PRAGMA journal_mode = OFF")
        self.store.execute("CREATE TABLE keys (source, vocoder, line, PRIMARY KEY (source, vocoder)) WITHOUT ROWID")
        self.store.execute("CREATE TABLE paths (path PRIMARY KEY, line) WITHOUT ROWID")
        self.store.execute("CREATE TABLE rows (source, vocoder, split, speaker)")
        self.store.execute("CREATE TABLE bonafide (source PRIMARY KEY, split, speaker) WITHOUT ROWID")

    def row(self, key: tuple[str, str], line: int) -> int:
        done = self.store.execute("INSERT OR IGNORE INTO keys VALUES (?, ?, ?)", (*key, line))
        return line if done.rowcount else self.store.execute(
            "SELECT line FROM keys WHERE source = ? AND vocoder = ?", key
        ).fetchone()[0]  # fmt: skip

    def file(self, path: Path, line: int) -> int:
        done = self.store.execute("INSERT OR IGNORE INTO paths VALUES (?, ?)", (os.fsencode(path), line))
        return line if done.rowcount else self.store.execute(
            "SELECT line FROM paths WHERE path = ?", (os.fsencode(path),)
        ).fetchone()[0]  # fmt: skip

    def remember(self, u: Utterance) -> None:
        if u.bonafide:
            self.store.execute("INSERT INTO bonafide VALUES (?, ?, ?)", (u.source, u.split, u.speaker))
        else:
            self.store.execute("INSERT INTO rows VALUES (?, ?, ?, ?)", (u.source, u.vocoder, u.split, u.speaker))

    def check_twins(self, table: Path) -> None:
        wrong = self.store.execute(
            "SELECT r.source, r.vocoder, r.split, r.speaker, b.split, b.speaker FROM rows r LEFT JOIN bonafide b "
            "ON r.source = b.source WHERE b.source IS NULL OR r.split != b.split OR r.speaker != b.speaker "
            "ORDER BY r.rowid LIMIT 1"
        )
        for source, vocoder, split, speaker, *half in wrong:
            _check_twin(table, source, vocoder, (split, speaker), None if half[0] is None else (half[0], half[1]))

    def close(self) -> None:
        self.store.close()


def _rows(table: Path, roots: Mapping[str, Path], seen: _Seen | _SeenOnDisk | None) -> Iterator[Utterance]:
    """Every row, checked; `seen` None leaves out the check for duplicates."""
    try:
        yield from _parsed(table, roots, seen)
    except csv.Error as error:
        raise ManifestError(
            f"{table}: not a table of comma-separated values ({error}); is a quotation mark open?"
        ) from error


def _parsed(table: Path, roots: Mapping[str, Path], seen: _Seen | _SeenOnDisk | None) -> Iterator[Utterance]:
    reader = csv.DictReader(f"{line}\n" for _, line in reading.lines(table, ManifestError))
    header = reader.fieldnames or ()
    missing = [c for c in COLUMNS if c not in header]
    if missing:
        raise ManifestError(f"{table}: the columns {', '.join(missing)} are missing; expected {', '.join(COLUMNS)}")
    twice = [c for c in (*COLUMNS, *FURTHER_COLUMNS) if list(header).count(c) > 1]
    if twice:
        raise ManifestError(f"{table}: several columns are named {', '.join(twice)}; which one counts?")
    places = {name: reading.Root(folder) for name, folder in roots.items()}
    for cells in reader:
        line = reader.line_num
        where = f"{table}:{line}"
        row = {name: unguarded(cell) if isinstance(cell, str) else cell for name, cell in cells.items()}
        if None in row.values() or None in row:
            raise ManifestError(
                f"{where}: expected {len(header)} fields, as in the header; is a quotation mark open, or a comma not in any?"
            )
        check_names(where, row)
        if row["split"] not in SPLITS:
            raise ManifestError(f"{where}: split {shown(row['split'])}, expected one of {', '.join(SPLITS)}")
        try:
            n_samples = reading.whole(row["n_samples"])
        except ValueError as error:
            raise ManifestError(f"{where}: n_samples {shown(row['n_samples'])}, expected a whole number") from error
        name = row.get("root") or MAIN
        if name not in roots:
            raise ManifestError(f"{where}: root {shown(name)} is not given; given: {', '.join(roots)}")
        try:
            path = places[name](row["path"])
        except ValueError as error:
            raise ManifestError(f"{where}: path {error}") from error
        if seen is not None:
            key = (row["utt_id"], row["vocoder"])
            if (first := seen.row(key, line)) != line:
                raise ManifestError(f"{where}: {key[1]} of {key[0]!r} is already on line {first}")
            if (first := seen.file(path, line)) != line:
                raise ManifestError(f"{where}: the file {shown(row['path'], 300)} is already on line {first}")
        yield Utterance(
            source=row["utt_id"],
            speaker=row["speaker"],
            split=row["split"],
            vocoder=row["vocoder"],
            path=path,
            sha256=row["sha256"],
            n_samples=n_samples,
            lag=_lag(where, row.get("lag") or "0"),
            segments=parse_segments(where, row.get("segments") or ""),
        )


def check_names(where: str, row: Mapping[str, str]) -> None:
    """Raise ManifestError unless `utt_id`, `vocoder` and `path` are there and can name files; `where` begins the message."""
    empty = [c for c in ("utt_id", "vocoder", "path") if not row[c]]
    if empty:
        raise ManifestError(f"{where}: {', '.join(empty)} is empty")
    for column in ("utt_id", "vocoder"):
        name = shown(row[column])
        if any(c in row[column] for c in "/\\\0") or row[column] in (".", ".."):
            raise ManifestError(f"{where}: {column} {name} holds a path separator; it names files, rename it")
        if len(row[column].encode()) > LONGEST_NAME:
            raise ManifestError(f"{where}: {column} {name} is longer than {LONGEST_NAME} bytes; it names files, shorten it")
    if "__" in row["vocoder"]:
        raise ManifestError(f"{where}: vocoder {row['vocoder']!r} holds '__', which separates names in files; rename it")
    for column in ("utt_id", "vocoder", "path"):
        if CONTROL.search(row[column]):
            raise ManifestError(f"{where}: {column} {shown(row[column])} holds a control character (a line end?); rename it")


def _lag(where: str, text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise ManifestError(f"{where}: lag {shown(text)}, expected a whole number of samples")
    return int(text)


def parse_segments(where: str, text: str) -> tuple[tuple[float, float, str], ...]:
    """`"0 0.52 bonafide;0.52 1.3 spoof"` as `(start s, end s, label)`. Raises ManifestError beginning with `where`.

    >>> parse_segments("a.csv:2", "0 0.5 bonafide;0.5 1 spoof")
    ((0.0, 0.5, 'bonafide'), (0.5, 1.0, 'spoof'))
    """
    found: list[tuple[float, float, str]] = []
    for part in text.split(";") if text else ():
        fields = part.split()
        try:
            start, end, label = reading.number(fields[0]), reading.number(fields[1]), fields[2]
        except (ValueError, IndexError) as error:
            raise ManifestError(f"{where}: segment {shown(part)}, expected 'START END bonafide|spoof' in seconds") from error
        if label not in ("bonafide", "spoof") or len(fields) != 3 or not 0 <= start < end < math.inf:
            raise ManifestError(f"{where}: segment {shown(part)}, expected 'START END bonafide|spoof' in seconds, rising")
        found.append((start, end, label))
    check_overlaps(where, found)
    return tuple(found)


def check_overlaps(where: str, segments: Iterable[tuple[float, float, str]]) -> None:
    """Raise ManifestError, beginning with `where`, where the same 20 ms are called bona fide and spoofed.

    >>> check_overlaps("a.csv:2", [(0.0, 1.0, "bonafide"), (0.5, 2.0, "spoof")])
    Traceback (most recent call last):
    xaibench.errors.ManifestError: a.csv:2: 0.5 to 1.0 s is bonafide and spoof; segments of two labels must not overlap
    """
    last = {"bonafide": 0.0, "spoof": 0.0}  # where the segments of a label have ended so far
    for start, end, label in sorted(segments):
        other = "spoof" if label == "bonafide" else "bonafide"
        until = min(end, last[other])
        if until - start > OVERLAP:
            raise ManifestError(
                f"{where}: {start} to {until} s is {other} and {label}; segments of two labels must not overlap"
            )
        last[label] = max(last[label], end)


def format_segments(segments: Iterable[tuple[float, float, str]]) -> str:
    """The inverse of `parse_segments`: numbers in their shortest exact form."""
    return ";".join(f"{float(start)!r} {float(end)!r} {label}" for start, end, label in segments)


def pairs(corpus: Corpus, *, split: str | None = None, vocoders: Iterable[str] | None = None) -> list[Pair]:
    """Every (bona fide, vocoded) pair, in manifest order; partially spoofed files without a twin stand alone."""
    wanted = None if vocoders is None else set(vocoders)
    bonafide = {u.source: u for u in corpus.utterances if u.bonafide}
    return [
        Pair(bonafide.get(u.source), u)
        for u in corpus.utterances
        if not u.bonafide
        and (u.source in bonafide or u.segments)
        and (split is None or u.split == split)
        and (wanted is None or u.vocoder in wanted)
    ]


def verify(utterances: Iterable[Utterance]) -> int:
    """Compare every file with its sha256. Returns how many were checked; raises ManifestError at the first mismatch."""
    count = 0
    for utterance in utterances:
        if os.path.isdir(utterance.path):
            raise ManifestError(f"{utterance.path}: a directory, the manifest lists it as an audio file")
        if not os.path.isfile(utterance.path):  # unlike Path.is_file, False for a name that is too long
            raise ManifestError(f"{utterance.path}: missing, or no file; the manifest lists it; is the root right?")
        if not utterance.sha256:
            raise ManifestError(f"{utterance.path}: the manifest has no sha256 for it, so it cannot be verified")
        digest = sha256_of(utterance.path)
        if digest != utterance.sha256:
            raise ManifestError(
                f"{utterance.path}: sha256 {digest}, the manifest says {utterance.sha256}; the file was changed or "
                f"re-encoded, and truth masks do not survive that"
            )
        count += 1
    return count
