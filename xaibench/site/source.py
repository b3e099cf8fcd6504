"""What every page of the site is made from, read once: rows, board, records, and the frame of the pages.

The board is read as `xaibench leaderboard` prints it (`leaderboard.table.board`); the pages show every metric beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xaibench.files import below
from xaibench.leaderboard import table
from xaibench.run_record import read_record
from xaibench.site import content
from xaibench.site.stamp import fingerprint

EXPLORER = ("Explorer", "explorer.html")  # its place in the navigation, where maps were kept


@dataclass(frozen=True)
class Source:
    """What every page is made from. rows: as `read_rows(encoded=True)`; usual, full: the board with the metrics the terminal
    shows, and with all; boards: the same as records; records: the run.json of every run; nav, footer: for `shell.render`.
    """

    runs: tuple[Path, ...]
    rows: pd.DataFrame
    usual: pd.DataFrame
    full: pd.DataFrame
    boards: tuple[content.Board, ...]
    records: tuple[Mapping[str, Any], ...]
    cluster: str
    nav: tuple[tuple[str, str], ...]
    footer: str


def read(runs: Sequence[Path], *, cluster: str = "utterance", explorer: bool = True) -> Source:
    """Everything the pages show, from the run folders. Raises as `build`."""
    runs = tuple(dict.fromkeys(Path(run) for run in runs))
    rows = table.read_rows(runs, encoded=True)
    gone = table.unknown_metrics(rows)
    known = rows[~rows["metric"].isin(gone)] if gone else rows
    usual = table.board(rows, cluster=cluster)
    computed = known.loc[known["status"].eq("ok"), "metric"].unique() if known["status"].eq("ok").any() else ()
    every = sorted({*map(str, computed), *table.metrics_of(usual)})
    full = table.board(known, metrics=every, cluster=cluster)
    records = tuple(read_record(run) for run in runs)
    prints = {key: fingerprint(part["fingerprint"].dropna().astype(str).unique())
              for key, part in known.groupby(list(table.SECTION), sort=True, observed=True)}  # fmt: skip
    boards = content.boards(usual, full, prints, records, dates=[_day(run, r) for run, r in zip(runs, records, strict=True)])
    nav = [("Boards", "index.html"), ("Methods", "methods/index.html"), ("Countermeasures", "countermeasures/index.html")]
    if explorer and any((run / "maps").is_dir() for run in runs):
        nav.append(EXPLORER)
    nav.append(("Downloads", "downloads/index.html"))
    benchmark = records[0].get("benchmark", 1)  # that of all: others would have been refused
    footer = (
        f"Made by xaibench {_version()} from {len(runs)} run folder{'' if len(runs) == 1 else 's'}; "
        f"version {benchmark} of the benchmark."
    )
    return Source(runs, known, usual, full, boards, records, cluster, tuple(nav), footer)


def section(source: Source, board: content.Board) -> pd.DataFrame:
    """The rows of a board."""
    keep = np.ones(len(source.rows), dtype=bool)
    for column in table.SECTION:
        keep &= source.rows[column].eq(getattr(board, column)).to_numpy()
    return source.rows[keep]


def _day(run: Path, record: Mapping[str, Any]) -> str:
    """The day a run was made, as it says itself or, of older ones, as its newest rows do. YYYY-MM-DD."""
    if record.get("days"):
        return str(record["days"][-1])
    newest = max((p.stat().st_mtime for p in below(run / "rows", ".parquet")), default=0.0)
    return datetime.fromtimestamp(newest, UTC).date().isoformat() if newest else ""


def _version() -> str:
    import xaibench

    return xaibench.__version__
