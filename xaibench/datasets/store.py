"""What an index run has found so far, in a SQLite file beside the manifest: crash safe, resumable, flat in memory.

One row a file. A later run takes over the facts of a file whose size and time of change are still the same. `run` counts the
index runs, so that the rows of this run can be told from those of earlier ones; rows that a finished run did not meet are
dropped.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from xaibench.errors import ManifestError

COMMIT_EVERY = 100  # files: what a killed run has to read again at most


@dataclass(frozen=True)
class Facts:
    """Of one file. `lag`, `likeness` and `twin` (the bona fide file's sha256) are of a vocoded file in a paired set."""

    root: str
    path: str
    size: int
    mtime: int  # ns
    sha256: str = ""  # empty: the file was left out
    rate: int = 0  # Hz
    frames: int = 0  # samples in the file
    source: str = ""
    attack: str = ""
    split: str = ""
    speaker: str = ""
    place: str = ""  # what named it
    lag: int = 0
    likeness: float | None = None
    twin: str = ""
    folder: str = ""


COLUMNS = tuple(f.name for f in fields(Facts))
_KINDS = tuple({"int": int, "str": str}.get(str(f.type), (float, int, type(None))) for f in fields(Facts))
_SCHEMA = {
    f"CREATE TABLE files ({', '.join(COLUMNS)}, run, PRIMARY KEY (root, path))",
    "CREATE INDEX ids ON files (source, attack, run)",
    "CREATE INDEX folders ON files (root, folder)",
}
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM files WHERE "


class Store:
    """The SQLite file. Opened for one index run; `close` it. Raises ManifestError if it is damaged or in use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if os.path.islink(path):
                raise sqlite3.DatabaseError("it is a link")
            self.db = sqlite3.connect(path, timeout=1.0)
            self.db.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost what was read last, never the file
            self.db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self.db.execute("BEGIN EXCLUSIVE")  # in that mode the lock stays: two runs would mix their rows
            for sql in sorted(_SCHEMA, reverse=True):  # the table before its indices
                create, kind, rest = sql.split(" ", 2)
                self.db.execute(f"{create} {kind} IF NOT EXISTS {rest}")
            # A trigger or a view of another's making would run with our statements.
            made = {sql for (sql,) in self.db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
            last = self.db.execute("SELECT max(run) FROM files").fetchone()[0] or 0
            if made != _SCHEMA or type(last) is not int:
                raise sqlite3.DatabaseError("it is no index of this version")
            self.run = 1 + last
            self.db.commit()
        except sqlite3.DatabaseError as error:
            raise ManifestError(
                f"{path}: cannot be used ({error}); is another index of this data set running? If not, delete it: only the "
                f"next run takes longer"
            ) from error
        self.pending = 0

    def earlier(self, root: str, path: str) -> Facts | None:
        """What is known of a file, from any run."""
        return self._one("root = ? AND path = ?", root, path)

    def now(self, root: str, path: str) -> Facts | None:
        """What this run has found of a file."""
        return self._one("root = ? AND path = ? AND run = ?", root, path, self.run)

    def named(self, source: str, attack: str) -> Facts | None:
        """The file that this run has found under these names."""
        return self._one("source = ? AND attack = ? AND run = ?", source, attack, self.run)

    def _one(self, where: str, *values: object) -> Facts | None:
        row = self.db.execute(_SELECT + where + " LIMIT 1", values).fetchone()
        if row is not None and not all(isinstance(value, kind) for value, kind in zip(row, _KINDS, strict=True)):
            raise ManifestError(f"{self.path}: damaged (facts of another form); delete it: only the next run takes longer")
        return None if row is None else Facts(*row)

    def put(self, facts: Facts) -> None:
        """Keep what this run has found of a file."""
        marks = ", ".join("?" * (len(COLUMNS) + 1))
        self.db.execute(f"INSERT OR REPLACE INTO files VALUES ({marks})", (*astuple(facts), self.run))
        self.pending += 1
        if self.pending >= COMMIT_EVERY:
            self.commit()

    def commit(self) -> None:
        self.db.commit()
        self.pending = 0

    def unnamed(self, root: str, folder: Path, endings: tuple[str, ...]) -> Iterator[str]:
        """Audio files below `folder` (the root) that lie beside files of this run and that no entry names, streamed."""
        for (name,) in self.db.execute(
            "SELECT DISTINCT folder FROM files WHERE root = ? AND run = ? ORDER BY folder", (root, self.run)
        ):
            if name.startswith(("..", "/")) or not (folder / name).is_dir():  # a path that left the root was refused
                continue
            with os.scandir(folder / name) as files:
                for file in files:
                    path = f"{name}/{file.name}" if name else file.name
                    path = os.fsencode(path).decode(errors="replace")
                    if path.lower().endswith(endings) and self.now(root, path) is None:
                        yield path

    def drop_earlier(self) -> None:
        """Forget the files that this run did not meet."""
        self.db.execute("DELETE FROM files WHERE run != ?", (self.run,))
        self.commit()

    def close(self) -> None:
        """Keep everything so far and let go of the file."""
        self.commit()
        self.db.close()
