"""Run folders to one table of rows: which runs may share it, and that every cell is in it once.

Two forms of the same table. *Encoded*, the text columns are pandas categories in rising order: what `board` computes with,
and the only form in which a million rows are read in a second or two. Otherwise they are text, as in the files.
No torch is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xaibench import checksums
from xaibench.errors import RunError
from xaibench.files import below
from xaibench.harness.results import TEXT, keys, read_files
from xaibench.run_record import read_record
from xaibench.types import STATUSES

SECTION = ("dataset", "truth", "countermeasure", "route")
CELL = (*SECTION, "attributor", "utterance", "vocoder", "metric")
#: What `read_rows` adds to `ROW_COLUMNS`, from run.json: the countermeasure's equal error rate on these utterances (a
#: share), how many pairs the run planned, whether it came from uncommitted code, and the precision of its scores.
RUN_COLUMNS = ("eer", "pairs", "dirty", "precision")


def read_rows(runs: Sequence[Path], *, encoded: bool = False) -> pd.DataFrame:
    """Every row of some run folders, with `RUN_COLUMNS`; each cell once. encoded: text as categories, see above.

    Runs are merged only when they agree on what is benchmarked: data set (name, hash, number of utterances and pairs),
    truth, grid, preset (it fixes the steps of deletion curves), precision and the weights of every countermeasure they
    share. A cell that two files hold is taken once when its fingerprints agree (an ok one before a failed one).

    Raises RunError: no folder given, not a run folder, damaged or empty, runs that differ, or a cell with two
    fingerprints.
    """
    if not runs:
        raise RunError("no run folder given; `xaibench run --out FOLDER` makes one")
    records = {Path(run): read_record(run) for run in runs}
    _check_identities(records)
    files = {run: below(run / "rows", ".parquet") for run in records}
    for run, found in files.items():
        if not found:
            raise RunError(f"{run}: no rows yet; has the run finished its first chunk?")
    sums = {path: digests for run in files for path, digests in checksums.known(run).items()}
    rows = read_files([file for found in files.values() for file in found], sums=sums)
    _check_values(rows)
    origin = np.repeat(np.arange(len(files)), [len(found) for found in files.values()])
    rows = _with_run_columns(rows, origin[rows["file"].cat.codes], list(records.values()))
    rows = _unique_cells(rows.drop(columns="file"))
    return rows if encoded else rows.assign(**{c: rows[c].astype(rows[c].cat.categories.dtype) for c in TEXT})


def encode(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows, encoded: text columns as categories in rising order. What is encoded already is not copied."""
    new = {}
    for name in TEXT:
        column = rows[name]
        if not isinstance(column.dtype, pd.CategoricalDtype):
            new[name] = column.astype("category")
        elif not column.cat.categories.is_monotonic_increasing:
            new[name] = column.cat.reorder_categories(column.cat.categories.sort_values())
    return rows.assign(**new) if new else rows


def _identity(record: Mapping[str, Any]) -> dict[str, Any]:
    spec = record.get("spec", {})
    facts = {f"dataset.{k}": v for k, v in record.get("dataset", {}).items()}
    facts |= {name: spec.get(name) for name in ("truth", "grid", "preset")}
    facts["precision"] = spec.get("precision", "fp32")  # of runs from before there was a choice
    facts["the version of the benchmark"] = record.get("benchmark", 1)  # of runs from before it was said
    return facts


def _check_identities(records: Mapping[Path, Mapping[str, Any]]) -> None:
    """Refuse runs that benchmark different things, naming the first fact that differs."""
    first, *others = records
    expected = _identity(records[first])
    weights: dict[str, tuple[Path, str]] = {}
    for run in others:
        found = _identity(records[run])
        for fact in [*expected, *(f for f in found if f not in expected)]:
            if found.get(fact) != expected.get(fact):
                raise RunError(
                    f"{first} and {run} cannot share a table: {fact} is {expected.get(fact)!r} and {found.get(fact)!r}; "
                    "make two boards, or run both with the same --data, --limit, --preset, --precision and --truth"
                )
    for run, record in records.items():
        for name, facts in record.get("countermeasures", {}).items():
            other, digest = weights.setdefault(name, (run, facts.get("weights")))
            if digest != facts.get("weights"):
                raise RunError(
                    f"{other} and {run} cannot share a table: countermeasure {name!r} has weights {digest} and "
                    f"{facts.get('weights')}; make two boards"
                )


def _check_values(rows: pd.DataFrame) -> None:
    """Refuse a row that has a value without being ok, or is ok without one, naming the first file."""
    names = rows["status"].cat.categories
    known = np.append(names.isin(STATUSES), False)  # the last is that of a missing status
    ok = np.append(names == "ok", False)
    codes = rows["status"].cat.codes.to_numpy()
    wrong = ~known[codes] | (ok[codes] == np.isnan(rows["value"].to_numpy()))
    if wrong.any():
        file = rows["file"].iloc[int(np.argmax(wrong))]
        raise RunError(f"{file}: a row must have a value if and only if it is ok, and a status of {', '.join(STATUSES)}")


def _with_run_columns(rows: pd.DataFrame, run: np.ndarray, records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """`run` `(n,)`: the place of every row's run in `records`."""
    names = rows["countermeasure"].cat.categories
    eers = np.full((len(records), len(names) + 1), np.nan)  # the last column is that of a missing countermeasure
    for line, record in zip(eers, records, strict=True):
        facts = record.get("countermeasures", {})
        line[:-1] = [np.nan if (eer := facts.get(name, {}).get("eer")) is None else eer for name in names]
    stamps = [[record, *record.get("earlier", [])] for record in records]
    dirty = [any(stamp.get("environment", {}).get("git_dirty") for stamp in some) for some in stamps]
    pairs = [float(record.get("dataset", {}).get("pairs") or 0) for record in records]
    shared = records[0].get("spec", {}).get("precision", "fp32")  # `_check_identities` has seen to it
    return rows.assign(
        eer=eers[run, rows["countermeasure"].cat.codes], pairs=np.array(pairs)[run], dirty=np.array(dirty, dtype=bool)[run],
        precision=pd.Categorical.from_codes(np.zeros(len(rows), np.int8), [shared]),
    )  # fmt: skip


def _unique_cells(rows: pd.DataFrame) -> pd.DataFrame:
    key = keys(rows, CELL)
    if not pd.Series(key).duplicated().any():
        return rows
    prints = pd.DataFrame({"cell": key, "print": rows["fingerprint"].cat.codes.to_numpy()}).drop_duplicates()
    prints = prints[prints["print"] >= 0].groupby("cell").size()  # in the order of the cells' names
    if (prints > 1).any():
        first = rows.iloc[int(np.argmax(key == prints.index[prints > 1][0]))]
        raise RunError(
            f"the cell {' / '.join(first[list(CELL)])} is there {int(prints[prints > 1].iloc[0])} times with different "
            f"fingerprints (other code, options or precision), and {int((prints > 1).sum())} cells in all; give only one of "
            "these runs"
        )
    late = rows["status"].ne("ok").to_numpy()
    order = np.argsort(late, kind="stable")
    kept = np.sort(order[~pd.Series(key[order]).duplicated().to_numpy()])
    return rows.iloc[kept].reset_index(drop=True)
