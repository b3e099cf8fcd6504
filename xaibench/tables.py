r"""Tables as CSV, for people and for programs: the one way in which xaibench writes them.

A spreadsheet takes a cell that begins with = + - @ for a formula, and may send or fetch what it says (OWASP, "CSV
Injection"). Names of utterances, files, vocoders and methods, and the notes of errors, are a stranger's. So such a cell gets
an apostrophe before it, which spreadsheets do not show: also where the sign stands behind white space, in its full width
form, or behind a semicolon, tab or line end, at which a spreadsheet of another language begins a new cell. Numbers stay.

`unguarded` takes it away again, exactly: what xaibench reads back (manifests) says what was written. Parquet and JSON hold
text as it is.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import pandas as pd

_SIGNS = "=+@\uff1d\uff0b\uff20\uff0d\u2212-"
_HERE = rf"(?:[^\S;\t\r\n]*[{_SIGNS}])"
_BARE = re.compile(rf"(?:^|(?<=[;\t\r\n]))(?='*{_HERE})|^(?='*\s)")
_GUARDED = re.compile(rf"(?:^|(?<=[;\t\r\n]))'(?='*{_HERE})|^'(?='*\s)")
_NUMBER = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def guarded(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula. What is no text stays.

    >>> guarded("=1+1"), guarded("lime"), guarded("-0.5"), guarded(-0.5), guarded("a;\\t@x")
    ("'=1+1", 'lime', '-0.5', -0.5, "a;\\t'@x")
    """
    if not isinstance(cell, str) or _NUMBER.fullmatch(cell):
        return cell
    return _BARE.sub("'", cell)


def unguarded(text: str) -> str:
    """The text of a guarded cell.

    >>> unguarded("'=1+1"), unguarded("'quoted'"), unguarded(guarded("'=1+1"))
    ('=1+1', "'quoted'", "'=1+1")
    """
    return _GUARDED.sub("", text) if "'" in text else text


def _cell(cell: Any) -> Any:
    """A cell, guarded, with line ends that a writer puts between quotation marks: it does not for a lone CR."""
    return guarded(cell.replace("\r\n", "\n").replace("\r", "\n")) if isinstance(cell, str) else cell


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV, with every digit; an unknown number is empty. Text is `guarded`, headings too; its lines end in LF.

    >>> import pandas as pd
    >>> csv_text(pd.DataFrame({"name": ["=1+1", "lime"], "score": [-0.5, float("nan")]}))
    "name,score\\n'=1+1,-0.5\\nlime,\\n"
    """
    from pandas.api.types import is_numeric_dtype

    texts = {c: list(map(_cell, table[c])) for c in table if not is_numeric_dtype(table[c].dtype)}
    return table.assign(**texts).rename(columns=_cell).to_csv(index=False, lineterminator="\n")


def csv_writer(file: TextIO) -> Callable[[Iterable[Any]], Any]:
    """A function that writes a row of cells to a file, `guarded`: for tables that are too long to hold.

    >>> import io
    >>> text = io.StringIO()
    >>> _ = csv_writer(text)(["@SUM(A1)", 2])
    >>> text.getvalue()
    "'@SUM(A1),2\\n"
    """
    write = csv.writer(file, lineterminator="\n").writerow
    return lambda row: write([_cell(cell) for cell in row])
