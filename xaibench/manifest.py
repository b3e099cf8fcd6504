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
import json
import math
import os
import sqlite3
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from xaibench.errors import ManifestError
from xaibench.protocols import Corpus
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
    known = _known_roots(remembered) if remembered.is_file() else {}
    roots = {MAIN: path.parent, **{n: Path(r) for n, r in known.items()}, **given}
    return {n: r.parent if r.is_file() else r for n, r in roots.items()}


def _known_roots(path: Path) -> dict[str, str]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise ManifestError(f"{path}: cannot be read ({error}); delete it and give --root, or index again") from error
    if not isinstance(known, dict) or not all(isinstance(folder, str) for folder in known.values()):
        raise ManifestError(f"{path}: expected an object from root to folder; delete it and give --root, or index again")
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
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest")
    try:
        facts = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: not TOML ({error})") from error
    _check_facts(path, facts)
    table = path.parent / facts["table"]
    if not table.is_file():
        raise ManifestError(f"{path}: its table {table} does not exist")
    digest = sha256_of(table)
    if facts.get("table_sha256", digest) != digest:
        raise ManifestError(
            f"{table}: sha256 {digest}, but {path.name} says {facts['table_sha256']}; was the table edited without its "
            f"manifest, or changed on the way (line ends)?"
        )
    return path, facts, table, digest, _roots(facts, root)


def _roots(facts: Mapping[str, Any], root: Roots) -> dict[str, Path]:
    given = {name: Path(folder) for name, folder in root.items()} if isinstance(root, Mapping) else {MAIN: Path(root)}
    known = facts.get("roots", [MAIN])
    for name in given:
        if name not in (MAIN, *known):
            raise ManifestError(f"the data set {facts['name']!r} has no root {name!r}; its roots: {', '.join(known)}")
    for name in known:
        if name not in given:
            raise ManifestError(
                f"the data set {facts['name']!r} has files in a further folder, its root {name!r}, which is not given; "
                f"given: {', '.join(given) or 'none'}"
            )
    for folder in given.values():
        if not folder.is_dir():
            raise ManifestError(f"{folder}: no such folder; the data set {facts['name']!r} needs its root (--root)")
    return {name: folder.resolve() for name, folder in given.items()}


def sha256_of(path: Path) -> str:
    """The hash of a file's bytes, read in pieces. Raises ManifestError if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror})") from error


def _check_facts(path: Path, facts: Mapping[str, Any]) -> None:
    for key in REQUIRED:
        if key not in facts:
            raise ManifestError(f"{path}: the key {key!r} is missing")
    for key, value in facts.items():
        if key not in KEYS:
            raise ManifestError(f"{path}: unknown key {key!r}; known: {', '.join(KEYS)}")
        if not isinstance(value, KEYS[key]) or (isinstance(value, bool) and KEYS[key] is not bool):
            raise ManifestError(f"{path}: {key} = {value!r}, expected {KEYS[key].__name__}")
    band = facts["valid_band"]
    if len(band) != 2 or not all(type(edge) in (int, float) for edge in band) or not 0 <= band[0] < band[1]:
        raise ManifestError(f"{path}: valid_band = {band!r}, expected two rising frequencies in Hz")
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
            f"{table}: {vocoder} of {source!r} is {own[0]} of speaker {own[1]!r}, its bona fide twin "
            f"{half[0]} of {half[1]!r}; twins share both"
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


def _lines(table: Path) -> Iterator[str]:
    with table.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            try:
                yield raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ManifestError(f"{table}:{line}: not UTF-8 ({error}); save the table as UTF-8") from error


def _rows(table: Path, roots: Mapping[str, Path], seen: _Seen | _SeenOnDisk | None) -> Iterator[Utterance]:
    """Every row, checked; `seen` None leaves out the check for duplicates."""
    try:
        yield from _parsed(table, roots, seen)
    except csv.Error as error:
        raise ManifestError(f"{table}: not a table of comma-separated values ({error})") from error


def _parsed(table: Path, roots: Mapping[str, Path], seen: _Seen | _SeenOnDisk | None) -> Iterator[Utterance]:
    reader = csv.DictReader(_lines(table))
    missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
    if missing:
        raise ManifestError(f"{table}: the columns {', '.join(missing)} are missing; expected {', '.join(COLUMNS)}")
    resolve = _resolver()
    for row in reader:
        line = reader.line_num
        where = f"{table}:{line}"
        if None in row.values() or None in row:
            raise ManifestError(f"{where}: expected {len(reader.fieldnames or ())} fields, as in the header")
        check_names(where, row)
        if row["split"] not in SPLITS:
            raise ManifestError(f"{where}: split {row['split']!r}, expected one of {', '.join(SPLITS)}")
        if not (row["n_samples"].isascii() and row["n_samples"].isdigit()):
            raise ManifestError(f"{where}: n_samples {row['n_samples']!r}, expected a whole number")
        name = row.get("root") or MAIN
        if name not in roots:
            raise ManifestError(f"{where}: root {name!r} is not given; given: {', '.join(roots)}")
        path = resolve(roots[name], row["path"])
        if not path.is_relative_to(roots[name]):
            raise ManifestError(f"{where}: path {row['path']!r} leaves the root {roots[name]}")
        if seen is not None:
            key = (row["utt_id"], row["vocoder"])
            if (first := seen.row(key, line)) != line:
                raise ManifestError(f"{where}: {key[1]} of {key[0]!r} is already on line {first}")
            if (first := seen.file(path, line)) != line:
                raise ManifestError(f"{where}: the file {row['path']!r} is already on line {first}")
        yield Utterance(
            source=row["utt_id"],
            speaker=row["speaker"],
            split=row["split"],
            vocoder=row["vocoder"],
            path=path,
            sha256=row["sha256"],
            n_samples=int(row["n_samples"]),
            lag=_lag(where, row.get("lag") or "0"),
            segments=parse_segments(where, row.get("segments") or ""),
        )


def check_names(where: str, row: Mapping[str, str]) -> None:
    """Raise ManifestError unless `utt_id`, `vocoder` and `path` are there and can name files; `where` begins the message."""
    empty = [c for c in ("utt_id", "vocoder", "path") if not row[c]]
    if empty:
        raise ManifestError(f"{where}: {', '.join(empty)} is empty")
    for column in ("utt_id", "vocoder"):
        if any(c in row[column] for c in "/\\\0") or row[column] in (".", ".."):
            raise ManifestError(f"{where}: {column} {row[column]!r} holds a path separator; it names files, rename it")
    if "__" in row["vocoder"]:
        raise ManifestError(f"{where}: vocoder {row['vocoder']!r} holds '__', which separates names in files; rename it")
    if "\0" in row["path"]:
        raise ManifestError(f"{where}: path {row['path']!r} holds a zero byte; is this a text file?")


def _resolver() -> Callable[[Path, str], Path]:
    """`(root / path).resolve()`, with the folders remembered: a table names many files in few folders."""
    folder = lru_cache(maxsize=64)(lambda parent: parent.resolve())

    def resolve(root: Path, path: str) -> Path:
        whole = root / path
        if whole.name == ".." or os.path.islink(whole):
            return whole.resolve()
        return folder(whole.parent) / whole.name

    return resolve


def _lag(where: str, text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise ManifestError(f"{where}: lag {text!r}, expected a whole number of samples")
    return int(text)


def parse_segments(where: str, text: str) -> tuple[tuple[float, float, str], ...]:
    """`"0 0.52 bonafide;0.52 1.3 spoof"` as `(start s, end s, label)`. Raises ManifestError beginning with `where`.

    >>> parse_segments("a.csv:2", "0 0.5 bonafide;0.5 1 spoof")
    ((0.0, 0.5, 'bonafide'), (0.5, 1.0, 'spoof'))
    """
    found = []
    for part in text.split(";") if text else ():
        fields = part.split()
        try:
            start, end, label = float(fields[0]), float(fields[1]), fields[2]
        except (ValueError, IndexError) as error:
            raise ManifestError(f"{where}: segment {part!r}, expected 'START END bonafide|spoof' in seconds") from error
        if label not in ("bonafide", "spoof") or len(fields) != 3 or not 0 <= start < end < math.inf:
            raise ManifestError(f"{where}: segment {part!r}, expected 'START END bonafide|spoof' in seconds, rising")
        found.append((start, end, label))
    return tuple(found)


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
            raise ManifestError(f"{utterance.path}: missing, the manifest lists it; is the root right?")
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
