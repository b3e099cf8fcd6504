"""What every page and every JSON file of ours is written with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

_FORMULA = tuple("=+-@ \t\r\n")


def table_line(cells: Sequence[str]) -> str:
    """One line of a markdown table.

    >>> table_line(["a", "b|c"])
    '| a | b\\\\|c |'
    """
    return "| " + " | ".join(escape(c) for c in cells) + " |"


def escape(content: str) -> str:
    """Text that stays one cell of a markdown table.

    >>> escape("a|b\\nc")
    'a\\\\|b c'
    """
    return " ".join(content.replace("|", "\\|").replace("<", "&lt;").split())


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV, with every digit; an unknown number is empty.

    Text that a spreadsheet would take for a formula, as it begins with = + - @ or white space, gets an apostrophe before it,
    which spreadsheets do not show (OWASP, "CSV Injection"). Parquet and JSON hold such text as it is.

    >>> csv_text(pd.DataFrame({"name": ["=1+1", "lime"], "score": [-0.5, float("nan")]}))
    "name,score\\n'=1+1,-0.5\\nlime,\\n"
    """
    guarded = {
        c: [f"'{v}" if isinstance(v, str) and v[:1] in _FORMULA else v for v in table[c]]
        for c in table if not pd.api.types.is_numeric_dtype(table[c].dtype)
    }  # fmt: skip
    return table.assign(**guarded).to_csv(index=False, lineterminator="\n")


def plain(value: Any) -> Any:
    """A value JSON can hold, within mappings and sequences, too: unknown and infinite numbers are None.

    >>> plain({"a": float("nan"), "b": (1, float("inf"))})
    {'a': None, 'b': [1, None]}
    """
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
