"""Manifests: what a data set is (`NAME.toml`) and which files it has (`NAME.csv`), checked before anything is scored.

The table has one row a file: `utt_id` (shared by a bona fide utterance and its twins), `speaker`, `split` (train, dev,
eval), `vocoder` ("bonafide" or a vocoder's name), `path` (relative to the root), `n_samples`, `sha256`. Further columns
are kept for readers and ignored here.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xaibench.errors import ManifestError
from xaibench.protocols import Corpus
from xaibench.types import Pair, Utterance

COLUMNS = ("utt_id", "speaker", "split", "vocoder", "path", "n_samples", "sha256")
SPLITS = ("train", "dev", "eval")

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
}
REQUIRED = tuple(KEYS)[:4]


def bundled(name: str) -> Path:
    """The `.toml` of a manifest that ships with xaibench. Raises ManifestError, naming those there are."""
    here = Path(__file__).parent
    folders = [here / "data_manifests", here.parent / "data_manifests"]  # in a wheel; in a checkout
    for folder in folders:
        if (folder / f"{name}.toml").exists():
            return folder / f"{name}.toml"
    known = sorted(p.stem for folder in folders if folder.is_dir() for p in folder.glob("*.toml"))
    raise ManifestError(f"no bundled manifest {name!r}; bundled: {', '.join(known)}")


def read_manifest(path: Path, root: Path) -> Corpus:
    """Read and check a manifest; `root` is the folder its paths are relative to.

    Raises ManifestError, naming file, line and value: an unknown or missing key, a value of the wrong type, a band beyond
    half the sample rate, a missing column or an empty field, a name that is a path, a table whose hash differs or that is
    not UTF-8, a count that differs, a path that leaves the root, a duplicated file, a vocoded file without its bona fide
    half or with another split or speaker than it.
    """
    path, root = Path(path), Path(root)
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
    content = table.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if facts.get("table_sha256", digest) != digest:
        raise ManifestError(
            f"{table}: sha256 {digest}, but {path.name} says {facts['table_sha256']}; was the table edited without its "
            f"manifest, or changed on the way (line ends)?"
        )
    if not root.is_dir():
        raise ManifestError(f"{root}: no such folder; the data set {facts['name']!r} needs its root (--root)")
    try:
        utterances = tuple(_rows(table, content.decode("utf-8"), root.resolve()))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ManifestError(f"{table}:{line}: not UTF-8 ({error}); save the table as UTF-8") from error
    except csv.Error as error:
        raise ManifestError(f"{table}: not a table of comma-separated values ({error})") from error
    _check_counts(path, facts, utterances)
    _check_twins(table, utterances)
    return Corpus(
        name=facts["name"],
        utterances=utterances,
        sample_rate=int(facts["sample_rate"]),
        valid_band=(float(facts["valid_band"][0]), float(facts["valid_band"][1])),
        held_out=tuple(facts.get("held_out", ())),
        licence=facts.get("licence", ""),
        citation=facts.get("citation", ""),
        hash=digest,
    )


def _check_facts(path: Path, facts: Mapping[str, Any]) -> None:
    for key in REQUIRED:
        if key not in facts:
            raise ManifestError(f"{path}: the key {key!r} is missing")
    for key, value in facts.items():
        if key not in KEYS:
            raise ManifestError(f"{path}: unknown key {key!r}; known: {', '.join(KEYS)}")
        if not isinstance(value, KEYS[key]) or isinstance(value, bool):
            raise ManifestError(f"{path}: {key} = {value!r}, expected {KEYS[key].__name__}")
    band = facts["valid_band"]
    if len(band) != 2 or not all(type(edge) in (int, float) for edge in band) or not 0 <= band[0] < band[1]:
        raise ManifestError(f"{path}: valid_band = {band!r}, expected two rising frequencies in Hz")
    if band[1] > facts["sample_rate"] / 2:
        raise ManifestError(
            f"{path}: valid_band = {band!r} reaches beyond half the sample rate of {facts['sample_rate']} Hz; is one of the "
            f"two wrong?"
        )


def _check_counts(path: Path, facts: Mapping[str, Any], utterances: tuple[Utterance, ...]) -> None:
    splits = dict(Counter(u.split for u in utterances if u.bonafide))
    found = {"files": len(utterances), "utterances": sum(splits.values()), "splits": splits}
    for key, value in found.items():
        if facts.get(key, value) != value:
            raise ManifestError(f"{path}: {key} = {facts[key]}, but its table holds {value}")


def _check_twins(table: Path, utterances: tuple[Utterance, ...]) -> None:
    bonafide = {u.source: u for u in utterances if u.bonafide}
    for u in utterances:
        half = bonafide.get(u.source)
        if half is None:
            raise ManifestError(f"{table}: {u.vocoder} of {u.source!r} has no bona fide twin")
        if (u.split, u.speaker) != (half.split, half.speaker):
            raise ManifestError(
                f"{table}: {u.vocoder} of {u.source!r} is {u.split} of speaker {u.speaker!r}, its bona fide twin "
                f"{half.split} of {half.speaker!r}; twins share both"
            )


def _rows(table: Path, content: str, root: Path) -> Iterator[Utterance]:
    reader = csv.DictReader(io.StringIO(content, newline=""))
    missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
    if missing:
        raise ManifestError(f"{table}: the columns {', '.join(missing)} are missing; expected {', '.join(COLUMNS)}")
    seen: dict[tuple[str, str], int] = {}
    paths: dict[Path, int] = {}
    for row in reader:
        line = reader.line_num
        where = f"{table}:{line}"
        if None in row.values() or None in row:
            raise ManifestError(f"{where}: expected {len(reader.fieldnames or ())} fields, as in the header")
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
        if row["split"] not in SPLITS:
            raise ManifestError(f"{where}: split {row['split']!r}, expected one of {', '.join(SPLITS)}")
        if not (row["n_samples"].isascii() and row["n_samples"].isdigit()):
            raise ManifestError(f"{where}: n_samples {row['n_samples']!r}, expected a whole number")
        path = (root / row["path"]).resolve()
        if not path.is_relative_to(root):
            raise ManifestError(f"{where}: path {row['path']!r} leaves the root {root}")
        key = (row["utt_id"], row["vocoder"])
        if key in seen:
            raise ManifestError(f"{where}: {key[1]} of {key[0]!r} is already on line {seen[key]}")
        if path in paths:
            raise ManifestError(f"{where}: the file {row['path']!r} is already on line {paths[path]}")
        seen[key] = paths[path] = line
        yield Utterance(
            source=row["utt_id"],
            speaker=row["speaker"],
            split=row["split"],
            vocoder=row["vocoder"],
            path=path,
            sha256=row["sha256"],
            n_samples=int(row["n_samples"]),
        )


def pairs(corpus: Corpus, *, split: str | None = None, vocoders: Iterable[str] | None = None) -> list[Pair]:
    """Every (bona fide, vocoded) pair, in manifest order."""
    wanted = None if vocoders is None else set(vocoders)
    bonafide = {u.source: u for u in corpus.utterances if u.bonafide}
    return [
        Pair(bonafide[u.source], u)
        for u in corpus.utterances
        if not u.bonafide and (split is None or u.split == split) and (wanted is None or u.vocoder in wanted)
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
        digest = hashlib.sha256(utterance.path.read_bytes()).hexdigest()
        if digest != utterance.sha256:
            raise ManifestError(
                f"{utterance.path}: sha256 {digest}, the manifest says {utterance.sha256}; the file was changed or "
                f"re-encoded, and truth masks do not survive that"
            )
        count += 1
    return count
