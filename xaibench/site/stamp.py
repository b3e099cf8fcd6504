"""Where a board's numbers come from: versions, weights, data, one fingerprint; and what to take on trust only.

A board is *dirty* where uncommitted code made rows of it, *unverified* where something rests on the word of whoever ran it.
Facts are read from run.json, which may be anybody's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Distributions of this repository. A run of anything else is marked.
FIRST_PARTY = frozenset(
    f"xaibench{end}" for end in ("", "-captum", "-countermeasures", "-gradcam", "-minivoc", "-planted", "-shap", "-zennit")
)
DIRTY = "made from code with uncommitted changes, so no commit can make these numbers again."
UNVERIFIED = (
    "the run records weights that no package ships, a countermeasure without a card of its training, code of no known "
    "commit, or packages that are not of this repository, so its numbers rest on the word of whoever ran it."
)


@dataclass(frozen=True)
class Stamp:
    """Where the numbers come from. facts: (what, value) for people; fingerprint: of every row's, sha256, 12 digits."""

    facts: tuple[tuple[str, str], ...]
    fingerprint: str
    date: str
    dirty: bool
    reasons: tuple[str, ...]

    @property
    def unverified(self) -> bool:
        """Whether there is a reason to take the numbers on trust only."""
        return bool(self.reasons)


def fingerprint(prints: Sequence[str]) -> str:
    """One mark for many rows' fingerprints, whatever their order; the same rows computed the same way have the same mark.

    >>> fingerprint(["b", "a", "a"]) == fingerprint(["a", "b"]), len(fingerprint(["a"]))
    (True, 12)
    """
    return hashlib.sha256("\n".join(sorted(set(prints))).encode()).hexdigest()[:12]


def stamp(
    records: Sequence[tuple[Mapping[str, Any], str]], mark: str, countermeasure: str, dirty: bool
) -> Stamp:  # fmt: skip
    """The stamp of a board. records: the run.json of its runs, with the day of each. mark: its `fingerprint`."""
    facts: dict[str, list[str]] = {}

    def add(what: str, value: object) -> None:
        if value not in (None, "") and str(value) not in facts.setdefault(what, []):
            facts[what].append(str(value))

    for record, day in records:
        here, cm = record.get("environment", {}), record.get("countermeasures", {}).get(countermeasure, {})
        add("Date of the run", day)
        add("xaibench", here.get("xaibench"))
        add("Commit", (here.get("git_commit") or "unknown")[:12])
        add("Python", here.get("python"))
        add("Device", here.get("device"))
        add("Packages", ", ".join(f"{k} {v}" for k, v in here.get("packages", {}).items()))
        add("Preset", record.get("spec", {}).get("preset"))
        add("Seed", record.get("spec", {}).get("seed"))
        add("Data set", " ".join(x for x in (record.get("dataset", {}).get("name"), _short(record, "dataset")) if x))
        add("Weights", (cm.get("weights") or "")[:12])
    reasons = dict.fromkeys(reason for record, _ in records for reason in _reasons(record, countermeasure))
    days = sorted(day for _, day in records if day)
    return Stamp(
        facts=tuple((k, "; ".join(v)) for k, v in facts.items() if v), fingerprint=mark,
        date=days[-1] if days else "", dirty=dirty, reasons=tuple(reasons),
    )  # fmt: skip


def _short(record: Mapping[str, Any], what: str) -> str:
    digest = record.get(what, {}).get("hash") or ""
    return f"({digest[:12]})" if digest else ""


def _reasons(record: Mapping[str, Any], countermeasure: str) -> list[str]:
    """Why a run's numbers rest on its author's word."""
    cm = record.get("countermeasures", {}).get(countermeasure, {})
    given = record.get("spec", {}).get("checkpoints") or {}
    found = []
    if countermeasure in given or not cm.get("shipped", True):  # older records do not say whether they are shipped
        found.append(f"weights of {countermeasure} that its package does not ship")
    if not (cm.get("card") or {}).get("trained_on"):
        found.append(f"{countermeasure} has no card that says how it was trained")
    if not record.get("environment", {}).get("git_commit"):
        found.append("code of no known commit")
    origins = {str(v).rpartition(" ")[0] or str(v) for v in record.get("origins", {}).values()}
    foreign = sorted(origins - FIRST_PARTY)
    if foreign:
        found.append(f"packages from elsewhere: {', '.join(foreign)}")
    return found
