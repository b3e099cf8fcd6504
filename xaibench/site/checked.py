"""Preflight's checks and what was warned, as the pages of methods and countermeasures show them.

A table of every check: what was asked, how it went, the number and what it may be. Damaged files are said, not raised: a
page is made from what there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from xaibench.errors import RunError
from xaibench.harness import verdicts, warned
from xaibench.harness.verdicts import COUNTERMEASURE, METHOD, Check

DAMAGED = "its preflight file is damaged; run again with the same --out to have it made again"


@dataclass(frozen=True)
class Answer:
    """A line of the table. asked: the question; words, limit: the number and its tolerance, "" where there is none."""

    name: str
    asked: str
    outcome: str
    words: str
    limit: str
    note: str


@dataclass(frozen=True)
class Noise:
    """What was said over cells of a method: by whom, over how many utterances, and one of them."""

    by: str
    said: str
    utterances: int
    example: str


def answers(checks: Sequence[Check], *, of_method: bool) -> tuple[Answer, ...]:
    """The lines of some checks; none of a file from before there were checks.

    >>> answers([Check("batch", "passed", 2e-7, 0.01)], of_method=True)[0].words
    '2.0e-07'
    """
    asked = METHOD if of_method else COUNTERMEASURE
    return tuple(
        Answer(c.name, asked[c.name], c.outcome, _words(c.measured), _words(c.tolerance), c.note)
        for c in checks if c.name in asked
    )  # fmt: skip


def _words(value: float | None) -> str:
    return "" if value is None else "0" if value == 0 else f"{value:.2g}" if 1e-2 <= abs(value) < 1e3 else f"{value:.1e}"


def of_countermeasure(runs: Sequence[Path], name: str) -> tuple[Answer, ...]:
    """The checks of a countermeasure in the last run that has them."""
    found: tuple[Check, ...] = ()
    for run in runs:
        try:
            found = verdicts.read(Path(run) / verdicts.file_of(name)) or found
        except RunError:
            found = (Check("answers", verdicts.UNCHECKED, note=DAMAGED),)
    return answers(found, of_method=False)


def noises(runs: Sequence[Path]) -> pd.DataFrame:
    """`warned.read_warnings` of the runs whose files are whole."""
    tables = []
    for run in runs:
        try:
            tables.append(warned.read_warnings([run]))
        except RunError as error:
            line = ("", "", "", "", warned.SCORING, str(error), 0, "")
            tables.append(pd.DataFrame([line], columns=list(warned.COLUMNS)))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(warned.COLUMNS))


def of_method(table: pd.DataFrame, countermeasure: str, route: str, truth: str, name: str) -> tuple[Noise, ...]:
    """What was said over a method's cells on a board, of what `noises` gives."""
    wanted = {"countermeasure": countermeasure, "route": route, "truth": truth, "attributor": name}
    part = table[pd.concat([table[c].eq(v) for c, v in wanted.items()], axis=1).all(axis=1)]
    found = part[["by", "said", "utterances", "example"]].itertuples(index=False, name=None)
    return tuple(Noise(str(by), str(said), int(count), str(one)) for by, said, count, one in found)
