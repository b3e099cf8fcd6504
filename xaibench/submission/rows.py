"""The rows of a pack: one parquet table in one order, and the same table read back when nobody trusts it.

The columns are those of every run (`xaibench.types.ROW_COLUMNS`); `run`, which names a folder, is empty. No torch is
imported here.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from xaibench.errors import SubmissionError
from xaibench.harness.results import SCHEMA, TEXT, keys
from xaibench.leaderboard.reading import CELL, encode
from xaibench.leaderboard.table import board, unknown_metrics
from xaibench.leaderboard.writing import plain
from xaibench.submission.pack import ROWS, shown, unfit
from xaibench.types import ROUTES, ROW_COLUMNS, STATUSES

#: Bounds of a pack's table.
MOST_ROWS, MOST_GROUPS, MOST_BYTES = 5_000_000, 4_096, 1 << 31
LONGEST, LONGEST_NOTE = 200, 2_000  # characters of a name, and of a reason
LARGEST = 1e12  # of a value's size: sums of larger ones overflow
#: Names that plugins give. Those of utterances, speakers and vocoders are the data set's.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+@_-]*\Z")
NAMED = ("dataset", "countermeasure", "attributor", "truth", "metric")

_ENCODED = pa.schema([(f.name, pa.dictionary(pa.int32(), pa.string()) if f.name in TEXT else f.type) for f in SCHEMA])
_NUMBERS = ("mean", "low", "high", "skill", "skill_low", "skill_high")
#: What names a line of a pack's board.
LINE = ("dataset", "truth", "countermeasure", "route", "attributor", "metric")


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Encoded rows in the order of their cells, whatever files they came from."""
    return rows.iloc[np.argsort(keys(rows, CELL), kind="stable")].reset_index(drop=True)


def table_bytes(rows: pd.DataFrame) -> bytes:
    """The parquet file of rows in order; the same rows give the same bytes with the same pyarrow.

    Raises SubmissionError for more rows than a pack may have.
    """
    if len(rows) > MOST_ROWS:
        raise SubmissionError(
            f"{len(rows):,} rows are more than the {MOST_ROWS:,} of a pack; submit some countermeasures less"
        )
    columns = [pa.array(rows[c].to_numpy(dtype=object if c in TEXT else float), SCHEMA.field(c).type) for c in ROW_COLUMNS]
    buffer = io.BytesIO()
    table = pa.Table.from_arrays(columns, schema=SCHEMA)
    pq.write_table(table, buffer, compression="zstd", use_dictionary=list(TEXT), write_statistics=False)
    return buffer.getvalue()


def read_table(content: bytes) -> pd.DataFrame:
    """The rows, encoded, with every bound and form checked. Raises SubmissionError.

    Only dictionaries are made of text, and the size is read before the table is: a short file cannot become a large one.
    """
    try:
        facts = pq.read_metadata(pa.BufferReader(content))
        size = sum(facts.row_group(i).total_byte_size for i in range(min(facts.num_row_groups, MOST_GROUPS)))
        if facts.num_rows > MOST_ROWS or facts.num_row_groups > MOST_GROUPS or not 0 <= size <= MOST_BYTES:
            raise SubmissionError(f"{ROWS}: {facts.num_rows:,} rows, {size:,} bytes: more than a pack may have")
        if facts.num_rows == 0:
            raise SubmissionError(f"{ROWS}: no rows")
        fits = tuple(facts.schema.names) == ROW_COLUMNS
        file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=TEXT if fits else ())
        if not fits or file.schema_arrow.remove_metadata() != _ENCODED:
            raise SubmissionError(f"{ROWS}: other columns or types than {', '.join(ROW_COLUMNS)}")
        parts = []
        for batch in file.iter_batches(batch_size=1 << 16, use_threads=False):
            parts.append(batch)
            if sum(map(len, parts)) > facts.num_rows:
                raise SubmissionError(f"{ROWS}: more rows than it says")
            if sum(part.nbytes for part in parts) > MOST_BYTES:
                raise SubmissionError(f"{ROWS}: more bytes than it says, and than a pack may have ({MOST_BYTES:,})")
        table = pa.Table.from_batches(parts, schema=_ENCODED).unify_dictionaries()
        if any(column.null_count for column in table.columns):
            raise SubmissionError(f"{ROWS}: a row lacks a value")
        rows = encode(table.to_pandas())
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
        raise SubmissionError(f"{ROWS}: not a whole parquet file ({shown(str(error), 80)})") from error
    _check(rows)
    return rows


def _check(rows: pd.DataFrame) -> None:
    """Names, statuses and values of a stranger's table. Raises SubmissionError."""
    for column in TEXT:
        most = LONGEST_NOTE if column == "note" else LONGEST
        for text in rows[column].cat.categories:
            if unfit(text) or len(text) > most or (column in NAMED and not NAME.match(text)):
                raise SubmissionError(f"{ROWS}: {column} {shown(text)} is no such name (control characters, or too long?)")
    for column, known in (("status", STATUSES), ("route", ROUTES)):
        stray = sorted(set(rows[column].cat.categories) - set(known))
        if stray:
            raise SubmissionError(f"{ROWS}: {column} {shown(stray[0])} is none of {', '.join(known)}")
    value = rows["value"].to_numpy()
    has = ~np.isnan(value)
    if (rows["status"].eq("ok").to_numpy() != has).any() or not (np.abs(value[has]) < LARGEST).all():
        raise SubmissionError(f"{ROWS}: a row must have a finite value, below {LARGEST:g}, if and only if it is ok")
    cell = keys(rows, CELL)
    if pd.Series(cell).duplicated().any():
        raise SubmissionError(f"{ROWS}: a cell is there twice")
    if (np.diff(cell) < 0).any():
        raise SubmissionError(f"{ROWS}: the rows are not in the order of their cells")


def with_run_facts(rows: pd.DataFrame, record: Mapping[str, Any]) -> pd.DataFrame:
    """A pack's rows with what a board wants to know of their run, from its checked record."""
    eer = {name: facts.get("eer") for name, facts in record["countermeasures"].items()}
    eers = np.array([np.nan if eer.get(n) is None else eer[n] for n in rows["countermeasure"].cat.categories], dtype=float)
    return rows.assign(
        eer=eers[rows["countermeasure"].cat.codes], pairs=float(record["dataset"]["pairs"]), dirty=False,
        precision=record["identity"]["precision"],
    )  # fmt: skip


def board_lines(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The board of rows as `read_rows` gives them, one object for each line and metric: `LINE`, `n` cells with a value, and
    mean and skill with their intervals, None where unknown. Metrics that this version does not know are left out.
    """
    metrics = sorted(set(rows["metric"].unique()) - set(unknown_metrics(rows)))
    if not metrics:
        return []
    lines = []
    for line in board(rows, metrics=metrics).to_dict("records"):
        for metric in metrics:
            count = line[f"{metric}_n"]
            if np.isfinite(count):  # else of another section
                ends = {end: line[metric + ("" if end == "mean" else f"_{end}")] for end in _NUMBERS}
                lines.append(
                    {**{c: str(line[c]) for c in LINE[:-1]}, "metric": metric, "n": int(count), **plain(ends)}
                )  # fmt: skip
    return sorted(lines, key=lambda line: [line[c] for c in LINE])
