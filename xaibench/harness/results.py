"""The result store: a run folder that survives SIGKILL, a full disk and a second process.

RUN/run.json                                       the spec and the environment
RUN/rows/CM/ROUTE-TRUTH/ATTRIBUTOR/*.parquet       the long table, one file a chunk, written once, atomically
RUN/preflight/*.json                               the verdict on every countermeasure x attributor
RUN/maps/...                                       with --keep-maps, see xaibench.maps
RUN/errors/*.txt                                   tracebacks of failed cells
RUN/stale/                                         rows and maps whose fingerprint no longer holds; kept, not read
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from xaibench.errors import RunError
from xaibench.harness.plan import Chunk
from xaibench.types import ROW_COLUMNS, Row

SCHEMA = pa.schema(
    [(c, pa.float64() if c in ("value", "seconds") else pa.string()) for c in ROW_COLUMNS]
)  # fmt: skip


class Store:
    """One run folder. Use as `with Store(path).locked():` while writing."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.rows = self.path / "rows"
        self._scratch = self.path / ".scratch"

    @contextmanager
    def locked(self) -> Iterator[Store]:
        """Hold the folder. Raises RunError when another process holds it, or when it cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("w")
        except OSError as error:
            raise RunError(f"{self.path}: cannot write here ({error.strerror}); choose another --out") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(f"{self.path}: another process is running in this folder; wait for it") from error
            except OSError as error:
                raise RunError(f"{self.path}: this file system cannot lock files ({error.strerror}); use another") from error
            shutil.rmtree(self._scratch, ignore_errors=True)  # what a killed process left half-written
            self._scratch.mkdir()
            try:
                yield self
            finally:
                shutil.rmtree(self._scratch, ignore_errors=True)

    def _write(self, path: Path, write: Any) -> None:
        """Write beside and rename, so that a file is either whole or absent."""
        scratch = self._scratch / path.name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(scratch)
            with scratch.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(scratch, path)
        except OSError as error:
            raise RunError(
                f"{path}: could not be written ({error.strerror}); rows finished before are safe, run again to continue"
            ) from error

    def write_json(self, name: str, content: Any) -> None:
        """A JSON file of the folder, atomically."""
        text = json.dumps(content, indent=2, default=str) + "\n"
        self._write(self.path / name, lambda scratch: scratch.write_text(text, encoding="utf-8"))

    def read_json(self, name: str) -> Any | None:
        """Its content, or None where there is none. Raises RunError when damaged."""
        path = self.path / name
        if not path.exists():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RunError(f"{path}: damaged ({error}); remove it to have it made again") from error

    def write_text(self, name: str, text: str) -> None:
        """A text file of the folder, atomically."""
        self._write(self.path / name, lambda scratch: scratch.write_text(text, encoding="utf-8"))

    def write_rows(self, chunk: Chunk, truth: str, rows: Sequence[Row]) -> None:
        """All rows of a chunk, in one file."""
        table = pa.Table.from_pylist([dict(zip(ROW_COLUMNS, astuple(r), strict=True)) for r in rows], schema=SCHEMA)
        folder = self.rows / safe(chunk.countermeasure) / f"{chunk.route}-{truth}" / safe(chunk.attributor)
        self._write(folder / f"{chunk.name}.parquet", lambda scratch: pq.write_table(table, scratch))

    def read_rows(self) -> pd.DataFrame:
        """Every row written so far, with the file each came from. Raises RunError naming a damaged file."""
        parts = []
        for file in sorted(self.rows.rglob("*.parquet")):
            try:
                parts.append(pq.read_table(file, schema=SCHEMA, partitioning=None).to_pandas().assign(file=str(file)))
            except (pa.ArrowException, OSError) as error:
                raise RunError(f"{file}: damaged ({error}); remove it, its cells are computed again") from error
        if not parts:
            return pd.DataFrame(columns=[*ROW_COLUMNS, "file"])
        return pd.concat(parts, ignore_index=True)

    def retire(self, files: Sequence[str]) -> None:
        """Move files that no longer hold to `stale/`: kept for the record, out of every table and picture."""
        for name in files:
            source = Path(name)
            target = self.path / "stale" / source.relative_to(self.path)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(source, target)
            except OSError as error:
                raise RunError(f"{source}: could not be moved to {target} ({error.strerror}); run again") from error


def plain(value: Any) -> Any:
    """A value as it comes back from a JSON file: tuples as lists, paths as text."""
    return json.loads(json.dumps(value, default=str))


def safe(name: str) -> str:
    """A name as a single path component."""
    return re.sub(r"[^A-Za-z0-9.+_-]", "_", name).lstrip(".") or "_"
