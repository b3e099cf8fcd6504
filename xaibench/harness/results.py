"""The result store: a run folder that survives SIGKILL, a full disk and a second process.

RUN/run.json                                       the spec and the environment
RUN/rows/CM/ROUTE-TRUTH/ATTRIBUTOR/*.parquet       the long table, one file a chunk, written once, atomically
RUN/warnings/...                                   what was said over the rows of the same name, see harness.warned
RUN/preflight/*.json                               the verdict on every countermeasure x attributor
RUN/maps/...                                       with --keep-maps, see xaibench.maps
RUN/errors/*.txt                                   tracebacks of failed cells
RUN/stale/                                         rows and maps whose fingerprint no longer holds; kept, not read
RUN/damaged/                                       what `xaibench doctor --repair` moved out of the way; kept, not read
RUN/SHA256SUMS                                     what rows, verdicts and run.json were, see xaibench.checksums
RUN/.lock                                          who writes here now, see xaibench.lock
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from xaibench import checksums, lock, reading
from xaibench.errors import RunError, first_line
from xaibench.files import below, sync, whole
from xaibench.run_record import check_links
from xaibench.types import ROW_COLUMNS, Row

if TYPE_CHECKING:
    from xaibench.harness.plan import Chunk

TEXT = tuple(c for c in ROW_COLUMNS if c not in ("value", "seconds"))
SCHEMA = pa.schema([(c, pa.string() if c in TEXT else pa.float64()) for c in ROW_COLUMNS])
_AGAIN, _ANEW = "remove it and run again, its cells are computed again", "remove it to have it made again"
_SAFE = "rows finished before are safe, run again to continue"
#: The same rows as they are read: each text once, and its number in every row.
_ENCODED = pa.schema([(f.name, pa.dictionary(pa.int32(), pa.string()) if f.name in TEXT else f.type) for f in SCHEMA])
#: Bounds of a row file: a run writes a chunk in each, some thousand rows. What a file may become is bounded by its
#: size, too: ten million equal rows take a few kilobytes, and there can be many such files.
MOST_ROWS, MOST_BYTES = 5_000_000, 1 << 31
FREE_ROWS, FREE_BYTES, MOST_TIMES = 20_000, 1 << 24, 100
_READERS = 2  # threads: decoding releases the interpreter's lock, opening a file does not, so more gain nothing


class Store:
    """One run folder. Use as `with Store(path).locked():` while writing."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.rows = self.path / "rows"
        self._sums: dict[str, tuple[str, ...]] | None = None  # while it is held, when nobody else writes any

    @contextmanager
    def locked(self) -> Iterator[Store]:
        """Hold the folder. Raises RunError when another process holds it, when it cannot be written, or when a link in it
        leads elsewhere.
        """
        check_links(self.path, writing=True)
        with lock.held(self.path):
            checksums.settle(self.path)
            self._sums = checksums.known(self.path)
            try:
                yield self
            finally:
                self._sums = None
            checksums.settle(self.path)  # not where the block failed: the next run begins with it

    def _write(self, path: Path, content: bytes) -> None:
        """A file of the folder, with its checksum. When this returns, a power cut takes neither."""
        with whole(path, hint=_SAFE, flush=True) as scratch:
            scratch.write_bytes(content)
            value = checksums.digest(content)
            checksums.add(self.path, path.relative_to(self.path).as_posix(), value)
            if self._sums is not None:
                self._sums[str(path)] = (*self._sums.get(str(path), ()), value)
        try:
            sync(path.parent)
        except OSError as error:
            raise RunError(f"{path}: could not be written ({error.strerror}); {_SAFE}") from error

    def write_json(self, name: str, content: Any) -> None:
        """A JSON file of the folder, atomically."""
        self._write(self.path / name, (json.dumps(content, indent=2, default=str) + "\n").encode())

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Its content, or None where there is none. Raises RunError when it is damaged or no object."""
        return read_object(self.path / name, self._known())

    def write_text(self, name: str, text: str) -> None:
        """A text file of the folder, atomically."""
        self._write(self.path / name, text.encode("utf-8", "backslashreplace"))

    def write_rows(self, chunk: Chunk, truth: str, rows: Sequence[Row]) -> None:
        """All rows of a chunk, in one file."""
        fields = [dict(zip(ROW_COLUMNS, map(_storable, astuple(r)), strict=True)) for r in rows]
        table = pa.Table.from_pylist(fields, schema=SCHEMA)
        content = pa.BufferOutputStream()
        pq.write_table(table, content, write_page_checksum=True)  # they also tell damage where SHA256SUMS is lost
        self._write(self.rows_file(chunk, truth), content.getvalue().to_pybytes())

    def rows_file(self, chunk: Chunk, truth: str) -> Path:
        """Where the rows of a chunk are, once it is computed."""
        folder = self.rows / safe(chunk.countermeasure) / f"{chunk.route}-{truth}" / safe(chunk.attributor)
        return folder / f"{chunk.name}.parquet"

    def read_rows(self) -> pd.DataFrame:
        """Every row written so far, as `read_files` gives it. Raises RunError naming a damaged file."""
        return read_files(below(self.rows, ".parquet"), complete=False, sums=self._known())

    def _known(self) -> dict[str, tuple[str, ...]]:
        return checksums.known(self.path) if self._sums is None else self._sums

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


def read_files(files: Sequence[Path], *, complete: bool = True, sums: Mapping[str, Collection[str]] = {}) -> pd.DataFrame:
    """The rows of some files, in their order: `ROW_COLUMNS`, and `file`, the file each came from.

    Text columns are pandas categories in rising order, so that a million rows are a million small numbers a column.
    complete: whether a file must have every column; with False what it lacks is missing in each of its rows. sums: what
    they must be, see `checksums.known`.

    Raises RunError naming the first file that is damaged or lacks a column.
    """
    groups = [files[i : i + 64] for i in range(0, len(files), 64)]  # a task costs a tenth of what reading a small file does
    with ThreadPoolExecutor(_READERS) as pool:
        parts = [part for group in pool.map(lambda group: [read_file(f, sums) for f in group], groups) for part in group]
    partial = [i for i, part in enumerate(parts) if part.num_columns < len(ROW_COLUMNS)]
    if partial and complete:
        lacks = [c for c in ROW_COLUMNS if c not in parts[partial[0]].column_names]
        raise RunError(f"{files[partial[0]]}: not a row file, it lacks {', '.join(lacks)}; written by another version?")
    table = pa.concat_tables([_ENCODED.empty_table(), *parts], promote_options="default" if partial else "none")
    columns: dict[str, Any] = {}
    for name, column in zip(ROW_COLUMNS, table.unify_dictionaries().columns, strict=True):
        columns[name] = _categories(column) if name in TEXT else column.to_numpy()
    origin = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
    columns["file"] = pd.Categorical.from_codes(origin, categories=pd.Index([str(f) for f in files], dtype=object))
    return pd.DataFrame(columns, copy=False)


def read_file(file: Path, sums: Mapping[str, Collection[str]] = {}) -> pa.Table:
    """Those of `ROW_COLUMNS` that a file has, as `_ENCODED` has them. Raises RunError where it is damaged."""
    try:
        # The whole file at once: thousands of small ones are read in two thirds of the time that opening by name takes.
        content = reading.content(file, RunError, what="row file", hint=_AGAIN, most=MOST_BYTES)
        checksums.check(file, content, sums)
        source = pa.BufferReader(content)
        there = _checked_columns(file, source, len(content))
        alone = str(file) not in sums  # nothing but the file itself says whether it is as it was written
        texts = [c for c in there if c in TEXT]
        opened = pq.ParquetFile(source, read_dictionary=texts, pre_buffer=False, page_checksum_verification=alone)
        part = opened.read(columns=there, use_threads=False)
        if alone:  # text that is none, numbers of texts that are not there
            part.validate(full=True)
        if part.schema.equals(_ENCODED):
            return part.replace_schema_metadata()
        names = [c for c in ROW_COLUMNS if c in part.column_names]  # of another writer: other text types, other columns
        arrays = [part[c].cast(SCHEMA.field(c).type) for c in names]
        arrays = [a.dictionary_encode() if c in TEXT else a for c, a in zip(names, arrays, strict=True)]
        return pa.table(arrays, schema=pa.schema([_ENCODED.field(c) for c in names]))
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, RuntimeError, MemoryError) as error:
        raise RunError(f"{file}: damaged ({first_line(error)}); {_AGAIN}") from error


def _checked_columns(file: Path, source: pa.BufferReader, length: int) -> list[str]:
    """Those of `ROW_COLUMNS` that a file of so many bytes has. Raises RunError for what would be huge once it is decoded."""
    facts = pq.read_metadata(source)
    size = sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))
    most = min(MOST_BYTES, FREE_BYTES + MOST_TIMES * length)
    if not 0 <= facts.num_rows <= min(MOST_ROWS, FREE_ROWS + length) or not 0 <= size <= most:
        raise RunError(
            f"{file}: {facts.num_rows:,} rows, {size:,} bytes in a file of {length:,}: more than a row file has; "
            "is it another's?"
        )
    names = set(facts.schema.to_arrow_schema().names)
    return [c for c in ROW_COLUMNS if c in names]


def _categories(column: pa.ChunkedArray) -> pd.Categorical:
    """Dictionary-encoded text of one dictionary as categories in rising order; null is missing."""
    if column.num_chunks == 0:
        return pd.Categorical.from_codes([], categories=pd.Index([], dtype=str))
    array = column.combine_chunks()
    names = pd.Index(array.dictionary.to_pylist(), dtype=str)
    order = names.argsort()
    small = np.min_scalar_type(-len(names) - 1)  # the integers of the codes, so that none is copied
    place = np.full(len(names) + 1, -1, dtype=small)  # the last stands for null, which is -1 as an index
    place[order] = np.arange(len(names), dtype=small)
    indices = array.indices.fill_null(-1) if array.null_count else array.indices
    return pd.Categorical.from_codes(place[indices.to_numpy()], categories=names[order])


def keys(rows: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """One integer a row, equal where all these encoded columns are, and in their order. Shape: `(n,)` int64.

    >>> table = pd.DataFrame({"a": ["x", "y", "x"], "b": ["1", "0", "1"]}, dtype="category")
    >>> keys(table, ["a", "b"]).tolist()
    [5, 7, 5]
    """
    result, radix = np.zeros(len(rows), dtype=np.int64), 1
    for name in columns:
        column = rows[name].cat
        size = len(column.categories) + 1  # a missing text is -1
        if radix > 2**62 // size:  # too many combinations to number: number those there are
            result, found = pd.factorize(result, sort=True)
            radix = len(found)
        result = result * size + (column.codes.to_numpy(dtype=np.int64) + 1)
        radix *= size
    return result


def read_object(path: Path, sums: Mapping[str, Collection[str]] = {}) -> dict[str, Any] | None:
    """A JSON object, or None where there is no such file. Raises RunError where it is damaged or something else."""
    if not os.path.lexists(path):
        return None
    try:
        content = reading.content(path, RunError, what="file of JSON", hint=_ANEW, most=reading.LARGEST_JSON)
        checksums.check(path, content, sums)
        found = reading.parsed(content)
    except ValueError as error:
        raise RunError(f"{path}: damaged ({first_line(error)}); {_ANEW}") from error
    if not isinstance(found, dict):
        raise RunError(f"{path}: damaged (holds no object); {_ANEW}")
    return found


def _storable(value: Any) -> Any:
    """A field of a row; in a text, half a surrogate pair (of a name that is no UTF-8) is spelled out: no table holds it."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def plain(value: Any) -> Any:
    """A value as it comes back from a JSON file: tuples as lists, paths as text."""
    return json.loads(json.dumps(value, default=str))


def safe(name: str) -> str:
    """A name as a single path component."""
    return re.sub(r"[^A-Za-z0-9.+_-]", "_", name).lstrip(".") or "_"
