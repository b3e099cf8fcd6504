"""Manifests: what a data set is (`NAME.toml`) and which files it has (`NAME.csv`), checked before anything is scored.

The table has one row a file: `utt_id` (shared by a bona fide utterance and its twins), `speaker`, `split` (train, dev,
eval), `vocoder` ("bonafide" or a vocoder's name), `path` (relative to the root), `n_samples`, `sha256`. Further columns
are kept for readers and ignored here.
"""

from __future__ import annotations

import csv
import hashlib
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from xaibench.errors import ManifestError
from xaibench.protocols import Corpus
from xaibench.types import Pair, Utterance

COLUMNS = ("utt_id", "speaker", "split", "vocoder", "path", "n_samples", "sha256")
SPLITS = ("train", "dev", "eval")


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

    Raises ManifestError, naming file, line and value: unknown or missing keys and columns, a table whose hash differs,
    a count that differs, a path that leaves the root, a duplicated file, a vocoded file without its bona fide half.
    """
    path, root = Path(path), Path(root)
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest")
    try:
        facts = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: not TOML ({error})") from error
    for key in ("name", "table", "sample_rate", "valid_band"):
        if key not in facts:
            raise ManifestError(f"{path}: the key {key!r} is missing")
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
    utterances = tuple(_rows(table, content.decode("utf-8"), root.resolve()))
    if facts.get("files", len(utterances)) != len(utterances):
        raise ManifestError(f"{table}: {len(utterances)} files, but {path.name} promises {facts['files']}")
    sources = {u.source for u in utterances if u.bonafide}
    orphan = next((u for u in utterances if u.source not in sources), None)
    if orphan is not None:
        raise ManifestError(f"{table}: {orphan.vocoder} of {orphan.source!r} has no bona fide twin")
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


def _rows(table: Path, content: str, root: Path) -> Iterator[Utterance]:
    reader = csv.DictReader(content.splitlines())
    missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
    if missing:
        raise ManifestError(f"{table}: the columns {', '.join(missing)} are missing; expected {', '.join(COLUMNS)}")
    seen: dict[tuple[str, str], int] = {}
    for line, row in enumerate(reader, start=2):
        where = f"{table}:{line}"
        if None in row.values() or None in row:
            raise ManifestError(f"{where}: expected {len(reader.fieldnames or ())} fields, as in the header")
        if row["split"] not in SPLITS:
            raise ManifestError(f"{where}: split {row['split']!r}, expected one of {', '.join(SPLITS)}")
        if not row["n_samples"].isdigit():
            raise ManifestError(f"{where}: n_samples {row['n_samples']!r}, expected a whole number")
        path = (root / row["path"]).resolve()
        if not path.is_relative_to(root):
            raise ManifestError(f"{where}: path {row['path']!r} leaves the root {root}")
        key = (row["utt_id"], row["vocoder"])
        if key in seen:
            raise ManifestError(f"{where}: {key[1]} of {key[0]!r} is already on line {seen[key]}")
        seen[key] = line
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
        if not utterance.path.is_file():
            raise ManifestError(f"{utterance.path}: missing, the manifest lists it; is the root right?")
        digest = hashlib.sha256(utterance.path.read_bytes()).hexdigest()
        if digest != utterance.sha256:
            raise ManifestError(
                f"{utterance.path}: sha256 {digest}, the manifest says {utterance.sha256}; the file was changed or "
                f"re-encoded, and truth masks do not survive that"
            )
        count += 1
    return count
