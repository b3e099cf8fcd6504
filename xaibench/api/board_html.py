"""A board as one piece of HTML for a notebook: no script, styles of its own only, readable on light and dark paper.

The colours of text are the notebook's own. Every word from a run is escaped by the template. Notebooks that strip styles
(GitHub's view) still show the table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from xaibench.leaderboard.render import BLOCKS, LEGEND, number, percent, title, whole_percent
from xaibench.leaderboard.table import SECTION, metric_facts, metrics_of
from xaibench.leaderboard.verdict import verdict
from xaibench.site.shell import render

FAMILIES = ("localisation", "faithfulness")
SHOWN = 4  # metrics beside the skilled ones


def html(board: pd.DataFrame, *, folder: str = "", notes: Sequence[str] = ()) -> str:
    """The board of a run: a table a section, its verdict, its notes.

    Every metric has its mean; one of each family also its skill, as a bar from the best floor (0 %) to the ceiling (100 %)
    with the 95 % interval as text.
    """
    sections = [_section(part) for _, part in board.groupby(list(SECTION), sort=True)]
    return render(
        "notebook_run.html.j2", title=folder, sections=sections, verdict=verdict(board), notes=list(notes), legend=LEGEND
    )


def _section(part: pd.DataFrame) -> dict[str, Any]:
    """What the template shows of a section."""
    metrics = metrics_of(part)
    methods = part[part["kind"].eq("method")]
    skilled = [m for m in metrics if methods[f"{m}_skill"].notna().any()]
    families = [next((m for m in skilled if metric_facts(m).family == f), None) for f in FAMILIES]
    bars = [m for m in families if m]
    columns = [
        {"name": m, "arrow": "↑" if metric_facts(m).direction == "higher" else "↓", "skill": m in bars}
        for m in [*bars, *(m for m in metrics if m not in bars)][: len(bars) + SHOWN]
    ]
    blocks = [(heading, part[part["kind"].eq(kind)].to_dict("records")) for kind, heading in BLOCKS.items()]
    return {
        "title": title(part),
        "columns": columns,
        "blocks": [(heading, [_row(row, columns) for row in rows]) for heading, rows in blocks if rows],
    }


def _row(row: dict[str, Any], columns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    cells = []
    for column in columns:
        name = column["name"]
        cell: dict[str, Any] = {"value": number(row[name])}
        if column["skill"]:
            skill, low, high = (row[f"{name}_skill{end}"] for end in ("", "_low", "_high"))
            known = row["kind"] == "method" and math.isfinite(low)
            cell["skill"] = percent(skill)
            cell["interval"] = f"{percent(low)} to {percent(high)}" if known else ""
            cell["width"] = round(100 * min(max(skill, 0.0), 1.0)) if math.isfinite(skill) else 0
        cells.append(cell)
    ok = whole_percent(row["coverage"])
    return {"name": row["attributor"], "kind": row["kind"], "cells": cells, "ok": ok, "gaps": row["gaps"]}
