"""What is wrong with the results of a run folder: its row files, its maps, and what they say of each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xaibench import maps
from xaibench.errors import RunError, XaibenchError
from xaibench.harness.doctor.finding import AGAIN, Finding, files_of, name_of, reason
from xaibench.harness.results import TEXT, keys, read_file, read_files, read_object, safe
from xaibench.metrics import catalog
from xaibench.types import ROW_COLUMNS, STATUSES

_MADE = "the same `xaibench run --keep-maps` makes it again"
CELL = ("countermeasure", "route", "truth", "attributor", "utterance", "vocoder", "metric")


def of_rows(run: Path, sums: dict[str, tuple[str, ...]]) -> tuple[pd.DataFrame, list[Finding]]:
    """The rows of all files that can be read and are what their place says, and findings about the others."""
    wrong: dict[Path, str] = {}
    files = files_of(run / "rows", ".parquet")
    for path in files:
        try:
            lacks = set(ROW_COLUMNS) - set(read_file(path, sums).column_names)
            wrong |= {path: f"not a row file, it lacks {', '.join(sorted(lacks))}"} if lacks else {}
        except RunError as error:
            wrong[path] = reason(error, path)
    readable = [path for path in files if path not in wrong]
    rows = read_files(readable, sums=sums)
    wrong |= {readable[number]: why for number, why in _wrong(rows, [p.relative_to(run / "rows") for p in readable]).items()}
    bad = rows["file"].isin([str(path) for path in wrong]).to_numpy()
    return rows[~bad].reset_index(drop=True), [Finding(name_of(run, path), why, AGAIN) for path, why in wrong.items()]


def _wrong(rows: pd.DataFrame, places: Sequence[Path]) -> dict[int, str]:
    """Why readable files are not what a run writes at their places: by the number of the file, the first reason."""
    of = rows["file"].cat.codes.to_numpy()
    ok, known = (rows["status"] == "ok").to_numpy(), rows["status"].isin(STATUSES).to_numpy()
    without = rows[[c for c in TEXT if c != "note"]].isna().any(axis=1).to_numpy()
    doubled = pd.Series(keys(rows, ["file", *CELL])).duplicated().to_numpy()
    whose = rows[["countermeasure", "route", "truth", "attributor"]].assign(of=of)[~without].drop_duplicates()
    misplaced = {
        number for cm, route, truth, attributor, number in whose.itertuples(index=False, name=None)
        if places[number].parent.parts != (safe(cm), f"{route}-{truth}", safe(attributor))
    }  # fmt: skip
    reasons = {
        "holds no row": set(range(len(places))) - set(of.tolist()),
        "a row lacks a name": set(of[without].tolist()),
        "a row has a status that no run writes": set(of[~known].tolist()),
        "a row has a value without being ok, or is ok without a finite one": set(
            of[ok != np.isfinite(rows["value"].to_numpy())].tolist()
        ),
        "rows of something else than its folder says": misplaced,
        "holds a row twice": set(of[doubled].tolist()),
    }
    found: dict[int, str] = {}
    for why, numbers in reasons.items():
        found = {**dict.fromkeys(sorted(numbers), why), **found}
    return found


def of_cells(run: Path, rows: pd.DataFrame, sums: dict[str, tuple[str, ...]]) -> Iterator[Finding]:
    """Cells in two files, and pairs whose rows do not agree on their fingerprint."""
    names = [name_of(run, Path(f)) for f in rows["file"].cat.categories]
    of = rows["file"].cat.codes.to_numpy()
    cell = keys(rows, CELL)
    doubled = pd.Series(cell).duplicated(keep=False).to_numpy()
    good = np.bincount(of, (rows["status"] == "ok").to_numpy(), len(names))
    order = sorted(set(of[doubled].tolist()), key=lambda i: (-good[i], str(run / names[i]) not in sums, names[i]))
    taken: set[int] = set()
    for number in order:  # the file with most results stays, and one that has none of its cells
        mine = cell[of == number].tolist()
        if taken.isdisjoint(mine):
            taken.update(mine)
        else:
            yield Finding(names[number], "has cells that another row file has, too", f"a cell must be there once; {AGAIN}")
    ours = rows["metric"].isin(list(catalog.METRICS)).to_numpy()  # those of plugins have fingerprints of their own
    codes = rows["fingerprint"].cat.codes.to_numpy()[ours]
    prints = pd.DataFrame({"pair": keys(rows[ours], CELL[:-1]), "print": codes, "of": of[ours]})
    many = prints.groupby("pair")["print"].nunique()
    for number in sorted(set(prints["of"][prints["pair"].isin(many.index[many > 1])])):
        yield Finding(
            names[number], "its rows and others of the same map have different fingerprints",
            f"they are of other code, weights or options, and which still hold only a run can tell; {AGAIN}",
        )  # fmt: skip


def of_maps(run: Path, rows: pd.DataFrame) -> Iterator[Finding]:
    """Damaged maps, maps without rows, those of other runs, and rows without maps."""
    good = set()
    prints = _prints_of(run, rows)
    for path in files_of(run / "maps", maps.SUFFIX):
        name = name_of(run, path)
        if wrong := _wrong_map(run, path, prints.get(name, set())):
            yield Finding(name, wrong, _MADE)
        else:
            good.add(name)
    every, ok = _maps_of(run, rows), _maps_of(run, rows[(rows["status"] == "ok").to_numpy()])
    for name in sorted(name for name in good if not name.startswith(f"maps/{maps.TRUTH}/") and name not in every):
        what = "a map without rows: a run was ended between the two, or they are damaged"
        yield Finding(name, what, "the same `xaibench run` makes both, if it asks for that method", cure="run")
    if not _kept(run):
        return
    truths = {(truth, file) for _, top, truth, *_, file in (name.split("/") for name in good) if top == maps.TRUTH}
    for name, (truth, file) in ok.items():
        if name not in good:
            yield Finding(name, "missing, and its rows are there", _MADE, cure="run")
        if (truth, file) not in truths:
            yield Finding(f"maps/{maps.TRUTH}/{truth}/{file}", "a truth that is missing", _MADE, cure="run")


def _maps_of(run: Path, rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """The files of the maps that rows speak of; and of the truth of each the folder and the file."""
    found = {}
    for cm, route, truth, attributor, *of in rows[list(CELL[:-1])].drop_duplicates().itertuples(index=False, name=None):
        with suppress(XaibenchError):  # an id that can name no file has no map
            path = maps.map_path(run, cm, route, attributor, "/".join(of))
            found[name_of(run, path)] = (maps.component(truth), path.name)
    return found


def _prints_of(run: Path, rows: pd.DataFrame) -> dict[str, set[str]]:
    """The file of a map -> the fingerprints of its rows, but for metrics of plugins, which have their own."""
    found: dict[str, set[str]] = {}
    cells = rows[rows["metric"].isin(list(catalog.METRICS))][[*CELL[:-1], "fingerprint"]].drop_duplicates()
    for cm, route, _, attributor, *of, fingerprint in cells.itertuples(index=False, name=None):
        with suppress(XaibenchError):  # an id that can name no file has no map
            found.setdefault(name_of(run, maps.map_path(run, cm, route, attributor, "/".join(of))), set()).add(fingerprint)
    return found


def _wrong_map(run: Path, path: Path, prints: Set[str]) -> str:
    """Why a file of maps/ is no map of its place, or of rows with other fingerprints than `prints`; "" where it is."""
    parts = path.relative_to(run).parts
    if len(parts) != 5:
        return "a map where no run puts one"
    top = parts[1]
    try:
        stored = maps.read_truth(path) if top == maps.TRUTH else maps.read_map(path)
        if not np.isfinite(stored.values).all():
            return "has cells that are not finite"
        if elsewhere := _not_here(run, path, stored.metadata, truth=top == maps.TRUTH):
            return elsewhere
        others = prints and stored.metadata.get("fingerprint", min(prints)) not in prints
        return "a map of other code, weights, options or seed than its rows" if others else ""
    except (XaibenchError, ValueError, KeyError, TypeError, OSError) as error:
        return reason(error, path)


def _not_here(run: Path, path: Path, metadata: Mapping[str, str], *, truth: bool) -> str:
    """Why a map is not of the place that it has; "" where it is, or does not say whose it is."""
    pair = f"{metadata.get('utterance')}/{metadata.get('vocoder')}"
    named = ("truth",) if truth else ("countermeasure", "route", "attributor")
    if not {"utterance", "vocoder", *named} <= metadata.keys():
        return ""
    cm, route, attributor = (metadata.get(key, "") for key in ("countermeasure", "route", "attributor"))
    frames = int(path.parent.name) if truth else 0
    right = (
        maps.truth_path(run, metadata["truth"], frames, pair) if truth else maps.map_path(run, cm, route, attributor, pair)
    )
    return "" if right == path else f"a map of something else: of {right.relative_to(run)}"


def _kept(run: Path) -> bool:
    """Whether the last command was to keep maps; what cannot be read says nothing."""
    try:
        record: Any = read_object(run / "run.json") or {}
        return bool(record.get("spec", {}).get("keep_maps"))
    except (RunError, AttributeError):
        return False
