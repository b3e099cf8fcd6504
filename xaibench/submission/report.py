"""A verdict on paper: text for a terminal, JSON for programs, markdown for the page of a method.

Everything a pack says is a stranger's text. Reading a pack refuses control characters, so a terminal shows what is there;
in markdown it stands between backticks, where neither HTML nor links nor mentions mean anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from xaibench.errors import SubmissionError
from xaibench.files import write_text
from xaibench.leaderboard.writing import plain
from xaibench.submission.pack import fit
from xaibench.submission.verdict import Cell, Claim, Verdict

ANSWERS = {True: "yes", False: "NO", None: "not told"}


def as_text(verdict: Verdict) -> str:
    """For a terminal: the answer last, so that it stands above the prompt."""
    lines = [f"pack {verdict.pack[:12]}, {verdict.total:,} cells; drawn with --seed {verdict.seed}", ""]
    lines += [f"{c.name:<13}{ANSWERS[c.holds]:<9}{c.text}" for c in verdict.checks]
    lines += ["", f"{'agrees':<9}{'claimed':>12}{'here':>12}{'difference':>12}{'tolerance':>11}  cell"]
    for cell in verdict.cells:
        lines.append(
            f"{ANSWERS[cell.agrees]:<9}{_value(cell, claimed=True):>12}{_value(cell):>12}{_number(cell.difference):>12}"
            f"{_number(cell.tolerance):>11}  {' / '.join(_place(cell))}" + (f": {cell.why}" if cell.why else "")
        )
    for heading, some in (("what differs between there and here", verdict.differences), ("options set", verdict.options)):
        lines += ["", f"{heading}:", *(f"- {s}" for s in some)] if some else []
    if verdict.claims:
        lines += ["", "published, packed, computed again:"]
        lines += ["- " + ", ".join(" ".join(pair) for pair in zip(_HEADER, _claim(c), strict=True)) for c in verdict.claims]
    lines += ["", f"largest difference {verdict.largest:.2g}", verdict.sentence]
    return "".join(fit(line) + "\n" for line in lines)


def as_json(verdict: Verdict) -> str:
    """Everything, all digits."""
    summary = {"verdict": verdict.sentence, "code": verdict.code, "exact": verdict.exact, "largest": verdict.largest}
    facts = asdict(verdict)
    for cell, line in zip(verdict.cells, facts["cells"], strict=True):
        line["difference"] = cell.difference
    return json.dumps(plain({**summary, **facts}), indent=1, allow_nan=False) + "\n"


def as_markdown(verdict: Verdict) -> str:
    """The section of a method's page: the answer, published beside re-measured numbers, the cells, what differs."""
    parts = [f"## Pack {verdict.pack[:12]}", f"**{_words(verdict.sentence)}**"]
    if verdict.claims:
        parts.append(_table([_HEADER, *(_claim(c) for c in verdict.claims)]))
    rows = [(ANSWERS[c.holds], c.name, c.text) for c in verdict.checks]
    parts.append(_table([("holds", "question", "what was seen"), *rows]))
    cells = [
        (ANSWERS[c.agrees], *_place(c), _value(c, claimed=True), _value(c), _number(c.difference), _number(c.tolerance))
        for c in verdict.cells
    ]  # fmt: skip
    header = ("agrees", "truth", "countermeasure", "route", "method", "metric", "utterance", "claimed", "here", "difference",
              "tolerance")  # fmt: skip
    parts.append(_table([header, *cells]))
    reasons = list(dict.fromkeys(c.why for c in verdict.cells if c.why))
    for some in (reasons, verdict.differences, verdict.options):
        parts += ["\n".join(f"- {_words(s)}" for s in some)] if some else []
    parts.append(f"Drawn with seed {verdict.seed}; the largest difference is {verdict.largest:.2g}.")
    return "\n\n".join(parts) + "\n"


FORMATS: dict[str, Callable[[Verdict], str]] = {".txt": as_text, ".json": as_json, ".md": as_markdown}


def write(verdict: Verdict, path: Path) -> Path:
    """A report in the format of its ending. Raises SubmissionError for another ending."""
    path = Path(path)
    if path.suffix not in FORMATS:
        raise SubmissionError(f"--out {path}: its ending must be one of {', '.join(FORMATS)}")
    return write_text(path, FORMATS[path.suffix](verdict))


_HEADER = ("method", "countermeasure", "metric", "published", "in the pack (95 %)", "cells computed again", "source")


def _claim(claim: Claim) -> tuple[str, ...]:
    """One line of the table of published and re-measured numbers."""
    interval = "" if claim.low is None or claim.high is None else f" ({claim.low:.3g} to {claim.high:.3g})"
    packed = "-" if claim.packed is None else f"{claim.packed:.4g}{interval}"
    again = f"{claim.agreed} of {claim.drawn} agree" if claim.drawn else "none drawn"
    where = f"{claim.countermeasure} ({claim.route}, {claim.truth})"
    return claim.method, where, claim.metric, f"{claim.published:.4g}", packed, again, claim.source


def _place(cell: Cell) -> tuple[str, ...]:
    return (
        cell.truth, cell.countermeasure, cell.route, cell.attributor, cell.metric, f"{cell.utterance}/{cell.vocoder}",
    )  # fmt: skip


def _value(cell: Cell, *, claimed: bool = False) -> str:
    """A cell's value, or its status where it has none."""
    value, status = (cell.claimed, cell.claimed_status) if claimed else (cell.value, cell.status)
    return _number(value) if value is not None else status or "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _table(rows: list[tuple[str, ...]]) -> str:
    """A markdown table; every cell of its body is text and nothing else."""
    header, *body = rows
    lines = [header, ("---",) * len(header), *(tuple(_words(cell) for cell in row) for row in body)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _words(text: str) -> str:
    """Text that markdown shows as it is: plain words stay, anything else stands between backticks.

    >>> _words("grad-cam"), _words("a|b"), _words("<img src=x>`"), _words("[x](javascript:y)")
    ('grad-cam', '`a\\\\|b`', "`&lt;img src=x&gt;'`", '`[x](javascript:y)`')
    """
    text = fit(text)
    if text in ("", "-") or (
        re.fullmatch(r"[\w .,:;%/+=()'-]*", text) and not re.search(r"__|//|www\.|^[-+=#. ](?!\d)|\s$", text)
    ):
        return text or "-"
    inner = text.replace("`", "'").replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;").strip()
    return f"`{inner}`" if inner else "-"
