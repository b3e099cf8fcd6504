"""What came of checking a pack: the questions asked, the cells computed again, and the answer in one sentence.

agree:          everything that was asked holds.
disagree:       something cannot be true of a run of this benchmark, or a cell has another value although code, weights, data
                and options are the same.
cannot verify:  plugins, weights or data are missing, or a cell has another value and was made by other code, so that nobody
                can say who is right.
"""

from __future__ import annotations

from dataclasses import dataclass

from xaibench.submission.sample import LEVEL, most_wrong

#: Exit codes.
AGREE, DISAGREE, CANNOT = 0, 1, 2


@dataclass(frozen=True)
class Question:
    """One question to the whole pack. `holds` is None where it cannot be told."""

    name: str
    holds: bool | None
    text: str


@dataclass(frozen=True)
class Cell:
    """One cell drawn: what the pack says and what came out here. `agrees` is None where it cannot be told, see `why`."""

    truth: str
    countermeasure: str
    route: str
    attributor: str
    metric: str
    utterance: str
    vocoder: str
    claimed_status: str
    claimed: float | None
    status: str
    value: float | None
    tolerance: float
    agrees: bool | None
    why: str = ""

    @property
    def difference(self) -> float | None:
        """Value here less value claimed."""
        return None if self.value is None or self.claimed is None else self.value - self.claimed


@dataclass(frozen=True)
class Claim:
    """What an author published beside the line of the pack's board that it is about, and how that line's cells did."""

    method: str
    countermeasure: str
    route: str
    truth: str
    metric: str
    published: float
    source: str
    packed: float | None
    low: float | None
    high: float | None
    drawn: int
    agreed: int


@dataclass(frozen=True)
class Verdict:
    """What came of a pack. `differences` are between its machine and this one; `options` are not the defaults of plugins."""

    pack: str
    seed: int
    total: int
    checks: tuple[Question, ...]
    cells: tuple[Cell, ...]
    differences: tuple[str, ...]
    options: tuple[str, ...]
    claims: tuple[Claim, ...]

    @property
    def code(self) -> int:
        """The exit code: `AGREE`, `DISAGREE` or `CANNOT`."""
        answers = [*(c.holds for c in self.checks), *(c.agrees for c in self.cells)]
        return DISAGREE if False in answers else CANNOT if None in answers or not self.cells else AGREE

    @property
    def exact(self) -> int:
        """How many of the cells drawn are the same bit for bit."""
        return sum(c.agrees is True and (c.difference or 0.0) == 0.0 for c in self.cells)

    @property
    def largest(self) -> float:
        """The largest difference among cells that have a value on both sides; 0 where there is none."""
        return max((abs(c.difference) for c in self.cells if c.difference is not None), default=0.0)

    @property
    def sentence(self) -> str:
        """The verdict in words, with what it leaves open."""
        drawn, known = len(self.cells), [c for c in self.cells if c.agrees is not None]
        wrong = sum(c.agrees is False for c in known)
        failed = [c.name for c in self.checks if c.holds is False]
        if self.code == DISAGREE:
            parts = [f"{wrong} of {len(known)} cells computed again differ"] if wrong else []
            parts += [f"what does not hold: {', '.join(failed)}"] if failed else []
            return f"DISAGREE: {'; '.join(parts)}."
        if self.code == CANNOT:
            open_ = [c.name for c in self.checks if c.holds is None]
            parts = [f"{drawn - len(known)} of {drawn} cells could not be judged here"] if drawn > len(known) else []
            parts += [f"not told: {', '.join(open_)}"] if open_ else []
            return f"CANNOT VERIFY: {'; '.join(parts) or 'no cell was drawn'}."
        if drawn == self.total:
            return f"AGREE: all {drawn} cells of the pack were computed again and agree ({self.exact} bit for bit)."
        return (
            f"AGREE: {drawn} of {drawn} cells computed again agree ({self.exact} bit for bit); with {LEVEL:.0%} confidence "
            f"fewer than {most_wrong(0, drawn, self.total):.1%} of the pack's {self.total:,} cells are wrong."
        )
