"""A pack held against what is installed here: its board, its plan, its fingerprints, and a random sample computed again.

Tolerance. A cell computed again is not always the same bit for bit: one utterance is explained alone here and in a batch
there, and float32 sums depend on how many numbers are added at a time and by how many threads. Measured on the demo run
(LCNN, 47 methods, 17 metrics, 1,598 cells; an utterance alone instead of in a batch of four, one input at a time instead of
16, two threads instead of one): 38 to 58 % of the values are the same bit for bit, the largest difference is 1.3e-6, and
9e-7 as a share of 1 + |value|. So a value may differ by `CLOSE` of that where the fingerprint follows and device, threads
and libraries are the same, ten times what was seen, and by `NEAR` elsewhere: boards show three digits. Of a run in tf32 or
bf16 it is `ROUNDED`, that of the tests of these precisions.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from xaibench.errors import SubmissionError, XaibenchError
from xaibench.harness.run import Progress, Report
from xaibench.submission.checks import (
    all_is_installed,
    board_follows,
    differences,
    fingerprints_follow,
    named_lines,
    options_set,
    plan_is_whole,
)
from xaibench.submission.claims import checked_claims, lines_of
from xaibench.submission.pack import CLAIMS, fit, number, read_pack
from xaibench.submission.remeasure import SECTION, Own, Section, compute_again, fingerprints, open_section
from xaibench.submission.rows import read_table
from xaibench.submission.sample import draw
from xaibench.submission.stated import stated
from xaibench.submission.verdict import Cell, Claim, Verdict

CELLS = 20
CLOSE, NEAR, ROUNDED = 1e-5, 1e-3, 2e-2


def verify_pack(
    path: Path, *, cells: int = CELLS, seed: int | None = None, own: Own | None = None,
    report: Report = lambda progress: None,
) -> Verdict:  # fmt: skip
    """Check a pack and compute `cells` of its cells again. Writes nothing and runs nothing of the pack.

    seed: with the pack's own hash it decides which cells; None draws one now, which an author cannot have known.
    own:  the verifier's data, weights and device.

    Raises SubmissionError for what is not a pack; what its numbers are is in the verdict.
    """
    if cells < 1:
        raise SubmissionError(f"--cells {cells}: at least one cell must be computed again")
    own = own or Own()
    seed = secrets.randbelow(2**31) if seed is None else seed
    members = read_pack(path)
    rows = read_table(members.rows)
    said = stated(members.run, rows)
    checks = [board_follows(members.board, said, rows)]
    claims = checked_claims(members.claims, named_lines(members.board), CLAIMS)
    places = draw(rows, cells, pack=members.sha256, seed=seed)
    wanted, checked, prints = rows.iloc[places], [], []
    same_machine, differ = differences(said, own)
    loose = NEAR if said.identity["precision"] == "fp32" else ROUNDED
    within = (CLOSE if same_machine and loose == NEAR else loose, loose)
    for key, part in rows.groupby(list(SECTION), observed=True, sort=True):
        section = open_section(said, key, part, own)
        checks += [plan_is_whole(said, section, part), *all_is_installed(section)]
        prints.append(fingerprints(section, part))
        mine = wanted[wanted.index.isin(part.index)]
        for some in _again(section, mine, prints[-1], within):
            checked += some
            report(Progress("cells", len(checked), len(wanted), f"{key[1]} {some[0].attributor}"))
        if section.bench is not None:
            section.bench.close()
    checks.append(fingerprints_follow(rows, pd.concat(prints)))
    checked.sort(key=lambda c: [getattr(c, name) for name in (*SECTION, "attributor", "metric", "utterance", "vocoder")])
    return Verdict(
        members.sha256, seed, len(rows), tuple(checks), tuple(checked), tuple(differ), tuple(options_set(said)),
        tuple(_claims(claims, members.board, checked)),
    )  # fmt: skip


def _again(section: Section, wanted: pd.DataFrame, prints: pd.Series, within: tuple[float, float]) -> Iterator[list[Cell]]:
    """The cells of one section, computed here, those of one map together.

    within: the tolerance of a row whose fingerprint follows, and of any other.
    """
    judged: dict[str, str] = {}
    for (attributor, utterance, vocoder), part in wanted.groupby(["attributor", "utterance", "vocoder"], observed=True):
        pair, found, problem = section.pairs.get(f"{utterance}/{vocoder}"), {}, "the plan has no such utterance"
        able = [m for m in part["metric"] if not section.why_not(attributor, m)]
        if pair is not None and able:
            try:
                found = {row.metric: row for row in compute_again(section, attributor, pair, tuple(able), judged)}
            except XaibenchError as error:
                problem = str(error)
        done = []
        for place, row in zip(part.index, part.itertuples(index=False), strict=True):
            if row.metric in found:
                follows = prints[place] == "follows"
                done.append(_compared(row, found[row.metric], within[not follows], follows))
            else:
                done.append(_open(row, section.why_not(attributor, row.metric) or problem))
        yield done


def _named(row: Any) -> dict[str, Any]:
    names = (*SECTION, "attributor", "metric", "utterance", "vocoder")
    return {**{n: str(getattr(row, n)) for n in names}, "claimed_status": str(row.status), "claimed": _number(row.value)}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _open(row: Any, why: str) -> Cell:
    return Cell(**_named(row), status="", value=None, tolerance=0.0, agrees=None, why=fit(why))


def _compared(row: Any, here: Any, within: float, follows: bool) -> Cell:
    """A cell of the pack against the row computed here. Where the code is another one, a difference is nobody's fault."""
    tolerance, value = 0.0, _number(here.value)
    if value is not None and not math.isnan(row.value):
        tolerance = within + within * abs(row.value)
        agrees, why = abs(value - row.value) <= tolerance, ""
    else:
        agrees, why = here.status == row.status, fit(here.note)
    if not agrees and not follows:
        agrees, why = None, "another value, and made by other code, options or libraries; install those of the pack"
    return Cell(**_named(row), status=here.status, value=value, tolerance=tolerance, agrees=agrees, why=why)


def _claims(claims: Sequence[Mapping[str, Any]], board: Sequence[Mapping[str, Any]], cells: Sequence[Cell]) -> list[Claim]:
    """Published, packed and computed again, side by side."""
    found = []
    for claim in claims:
        for line in lines_of(claim, board):
            mine = [c for c in cells if all(getattr(c, n) == line[n] for n in (*SECTION, "attributor", "metric"))]
            judged = [c for c in mine if c.agrees is not None]
            found.append(
                Claim(
                    line["attributor"], line["countermeasure"], line["route"], line["truth"], line["metric"], claim["value"],
                    claim["source"], _stated(line, "mean"), _stated(line, "low"), _stated(line, "high"), len(judged),
                    sum(c.agrees is True for c in judged),
                )
            )  # fmt: skip
    return found


def _stated(line: Mapping[str, Any], end: str) -> float | None:
    """A number of a stranger's board; None for what is none."""
    return number(line.get(end))
