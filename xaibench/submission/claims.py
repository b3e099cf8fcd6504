"""What an author published elsewhere: numbers that stand beside the re-measured ones (as RobustBench does;
Croce et al. 2021).

    [[claim]]
    method = "grad-cam"
    countermeasure = "lcnn"
    metric = "rank-accuracy"
    value = 0.31
    source = "Table 2 of arXiv:2401.00001"
    route = "native"   # only where the run has both routes
    truth = "eq2"      # only where the run has several truths
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xaibench import reading
from xaibench.errors import SubmissionError
from xaibench.submission.pack import number, shown

NEEDED = {"method": str, "countermeasure": str, "metric": str, "value": float, "source": str}
OPTIONAL = {"route": str, "truth": str}
MOST, LONGEST = 1_000, 400  # claims of a pack, characters of a source
_PLACES = {"method": "attributor"} | {name: name for name in ("countermeasure", "metric", "route", "truth")}


def read_claims(path: Path, board: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The claims of a TOML file about lines of a board. Raises SubmissionError naming the entry that cannot be."""
    found = reading.toml_table(path, SubmissionError, what="file of claims", most=1 << 18)
    if set(found) != {"claim"}:
        raise SubmissionError(f"{path}: expected [[claim]] tables and nothing else, got {', '.join(found) or 'nothing'}")
    return checked_claims(found["claim"], board, str(path))


def checked_claims(claims: Any, board: Sequence[Mapping[str, Any]], where: str) -> list[dict[str, Any]]:
    """The same claims, each of the right form and about one line of the board at least. Raises SubmissionError."""
    if not isinstance(claims, list) or len(claims) > MOST:
        raise SubmissionError(f"{where}: expected a list of at most {MOST} claims")
    for place, claim in enumerate(claims, 1):
        who = f"{where}: claim {place}"
        if not isinstance(claim, dict):
            raise SubmissionError(f"{who}: expected a table")
        wrong = [k for k in claim if k not in NEEDED and k not in OPTIONAL] + [k for k in NEEDED if k not in claim]
        if wrong:
            raise SubmissionError(f"{who}: {shown(wrong[0])} is missing or unknown; expected {', '.join(NEEDED)}")
        if number(claim["value"]) is None:
            raise SubmissionError(f"{who}: value {shown(claim['value'])} is not a finite number")
        for key in claim.keys() - {"value"}:
            if not isinstance(claim[key], str) or not claim[key].strip() or len(claim[key]) > LONGEST:
                raise SubmissionError(f"{who}: {key} must be a text of 1 to {LONGEST} characters, got {shown(claim[key])}")
        for key, column in _PLACES.items():
            known = sorted({str(line[column]) for line in board})
            if key in claim and claim[key] not in known:
                close = difflib.get_close_matches(claim[key], known, n=1) or known[:5]
                raise SubmissionError(f"{who}: the run has no {key} {shown(claim[key])}; did you mean {' or '.join(close)}?")
        if not lines_of(claim, board):
            raise SubmissionError(f"{who}: the run has no such combination of method, countermeasure, metric, route, truth")
    return [{**claim, "value": float(claim["value"])} for claim in claims]


def lines_of(claim: Mapping[str, Any], board: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The board's lines that a claim is about: one, or one a section where it does not say which."""
    wanted = {column: claim[key] for key, column in _PLACES.items() if key in claim}
    return [line for line in board if all(line[column] == value for column, value in wanted.items())]
