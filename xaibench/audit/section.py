"""One part of the audit: a question, its answer in sentences that hold the numbers, the table behind them, and a figure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Section:
    """A part of `audit.md`.

    name:     one word; names the figure's file and the part in audit.json.
    title:    the heading.
    question: what is asked, and how it was asked, for a reader who does not know the code.
    answer:   sentences computed from the table.
    table:    one line a case; column names are its headings.
    draw:     makes the figure; None for a part without one.
    """

    name: str
    title: str
    question: str
    answer: tuple[str, ...]
    table: pd.DataFrame
    draw: Callable[[], Figure] | None = None


def per_cent(share: float) -> str:
    """A share in whole per cent, for a sentence; "unknown" where it is no number.

    >>> per_cent(0.142), per_cent(-0.004), per_cent(float("nan"))
    ('14 %', '0 %', 'unknown')
    """
    return f"{round(100 * share)} %" if math.isfinite(share) else "unknown"
