"""The questions put to a whole pack, and what differs between its machine and this one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import pandas as pd

import xaibench
from xaibench import registry
from xaibench.errors import SubmissionError
from xaibench.harness.device import choose_device
from xaibench.harness.environment import environment
from xaibench.harness.plan import source_hash
from xaibench.leaderboard.table import unknown_metrics
from xaibench.submission.pack import BOARD, fit, number, shown
from xaibench.submission.remeasure import SECTION, Own, Section
from xaibench.submission.rows import LINE, board_lines, with_run_facts
from xaibench.submission.stated import Stated
from xaibench.submission.verdict import Question


def named_lines(board: Sequence[Any]) -> list[Mapping[str, Any]]:
    """A stranger's board as lines with names. Raises SubmissionError."""
    for line in board:
        if not isinstance(line, dict) or not all(isinstance(line.get(c), str) for c in LINE):
            raise SubmissionError(f"{BOARD}: a line without its names; not as `xaibench submit` writes it")
    return list(board)


def board_follows(board: Sequence[Any], said: Stated, rows: pd.DataFrame) -> Question:
    """Does the pack's board follow from the pack's rows?"""
    gone = set(unknown_metrics(rows))
    found = {tuple(line[c] for c in LINE): line for line in board_lines(with_run_facts(rows, said.record))}
    claimed = {tuple(line[c] for c in LINE): line for line in named_lines(board) if line["metric"] not in gone}
    if len(claimed) != sum(line["metric"] not in gone for line in board):
        return Question("board", False, "a line of its board is there twice")
    if set(found) != set(claimed):
        odd = sorted(set(found) ^ set(claimed))[0]
        side = "its board lacks" if odd in found else "its rows give no"
        return Question("board", False, f"{side} {' / '.join(odd)}")
    for numbers, within in ((("n", "mean"), 1e-9), (("low", "high", "skill", "skill_low", "skill_high"), 1e-6)):
        wrong = [(k, n) for k in found for n in numbers if not _same(found[k][n], claimed[k].get(n), within)]
        if wrong:
            key, end = wrong[0]
            text = (
                f"{len(wrong)} numbers of its board do not follow from its rows: {end} of {' / '.join(key[2:])} is "
                f"{shown(claimed[key].get(end))}, its rows give {found[key][end]}"
            )
            older = end not in ("n", "mean") and _versions(said) != _here()
            return Question("board", None if older else False, text + ("; intervals of another version" if older else ""))
    return Question("board", True, f"all {len(found):,} lines of its board follow from its rows")


def _same(ours: Any, theirs: Any, within: float) -> bool:
    if ours is None or theirs is None:
        return ours is None and theirs is None
    said = number(theirs)
    return said is not None and math.isclose(ours, said, rel_tol=within, abs_tol=within)


def _versions(said: Stated) -> tuple[Any, Any]:
    there = said.record["environment"]
    return there.get("xaibench"), there.get("packages", {}).get("numpy")


def _here() -> tuple[Any, Any]:
    return xaibench.__version__, version("numpy")


def plan_is_whole(said: Stated, section: Section, rows: pd.DataFrame) -> Question:
    """Are all planned cells there, on the utterances that the plan names?"""
    where = " / ".join(section.key)
    ids = {f"{u}/{v}" for u, v in rows[["utterance", "vocoder"]].drop_duplicates().itertuples(index=False)}
    if section.pairs and ids != set(section.pairs):
        odd = sorted(ids ^ set(section.pairs))[0]
        side = "not one that the plan names" if odd in ids else "missing"
        text = f"{where}: the utterance {shown(odd)} is {side}; a run takes the first {said.pairs} pairs"
        return Question("plan", False, text)
    planned = said.pairs * rows["metric"].nunique()
    short = {n: planned - c for n, c in rows["attributor"].value_counts().items() if 0 < c < planned}
    if len(ids) != said.pairs or short:
        name = next(iter(short), "it")
        text = f"{where}: cells are missing: {name} has {short.get(name, 0)} fewer than the {planned} planned"
        return Question("plan", False, text)
    if not section.pairs:
        return Question("plan", None, f"{where}: the data set is not here, so its utterances are not checked")
    text = f"{where}: all {len(rows):,} planned cells are there, on the first {said.pairs} pairs of the split"
    return Question("plan", True, text)


def all_is_installed(section: Section) -> list[Question]:
    """One open question for each thing that is missing here."""
    return [Question("installed", None, f"{section.key[1]}: {fit(why)}") for why in dict.fromkeys(section.blocked.values())]


def fingerprints_follow(rows: pd.DataFrame, prints: pd.Series) -> Question:
    """Do the fingerprints follow from what is stated and what is installed?"""
    prints = prints.reindex(rows.index)
    count = {kind: int(prints.eq(kind).sum()) for kind in ("follows", "other", "")}
    foreign = prints[~prints.isin(["follows", "other", ""])]
    if len(foreign):
        row = rows.loc[foreign.index[0]]
        whose = f"one of {row['attributor']} that of {foreign.iloc[0]}"
        text = f"{len(foreign)} rows carry the fingerprint of another cell: {whose}"
        return Question("fingerprints", False, text)
    known = rows.assign(follows=prints.eq("follows"))[prints.isin(["follows", "other"])]
    shares = known.groupby([*SECTION, "attributor", "metric"], observed=True)["follows"].mean()
    mixed = shares[(shares > 0) & (shares < 1)]
    if len(mixed):
        text = f"some rows of {mixed.index[0][3]} follow from what the pack states, and some do not"
        return Question("fingerprints", False, text)
    text = f"{count['follows']:,} of {len(rows):,} rows follow from what the pack states and what is installed here"
    if count["other"] == len(rows):
        return Question(
            "fingerprints", True, "no row is of the code, options and libraries here; values are compared all the same"
        )
    if count["other"]:
        names = sorted(known.loc[~known["follows"], "attributor"].unique())
        few = ", ".join(names[:5]) + (f" and {len(names) - 5} others" if len(names) > 5 else "")
        text += f"; {count['other']:,} were made by other code, options or libraries than those here ({few})"
    if count[""]:
        text += f"; {count['']:,} could not be asked"
    return Question("fingerprints", True, text)


def differences(said: Stated, own: Own) -> tuple[bool, list[str]]:
    """Whether device, threads and libraries are those of the pack; and what differs, one sentence each."""
    here = environment(choose_device(own.device))
    notes, same = [], True
    for there in (said.record, *said.record["earlier"]):
        for stamp in (there["environment"], *there.get("workers", [])):
            for name in ("xaibench", "python", "platform", "device", "threads", "git_commit"):
                if name in stamp and stamp[name] != here[name]:
                    notes.append(f"{name}: {shown(stamp[name])} in the pack, {here[name]} here")
                    same &= name in ("xaibench", "git_commit")  # their code is in the fingerprint
            packages = stamp.get("packages") if isinstance(stamp.get("packages"), dict) else {}
            for name in sorted({*packages, *here["packages"]}):
                if packages.get(name) != here["packages"].get(name):
                    mine = here["packages"].get(name, "not installed")
                    notes.append(f"{fit(name)}: {shown(packages.get(name, 'not installed'))} in the pack, {mine} here")
                    same = False
    for name, facts in said.record["countermeasures"].items():
        theirs = facts.get("source")
        if isinstance(theirs, list) and theirs and theirs[-1] != source_hash("xaibench"):
            notes.append(f"the code of xaibench itself is another one than that of the rows on {name}")
    notes += _origins(said)
    return same, list(dict.fromkeys(notes))


def _origins(said: Stated) -> list[str]:
    notes = []
    for key in said.record["origins"]:
        group, _, name = str(key).partition("/")
        distribution, release = said.origin(group, name)
        claims = registry.plugins(group).get(name, ()) if distribution else ()
        if len(claims) == 1 and (claims[0].distribution, claims[0].version) != (distribution, release):
            mine = claims[0]
            notes.append(f"{key} is of {distribution} {release} in the pack, of {mine.distribution} {mine.version} here")
    return notes


def options_set(said: Stated) -> list[str]:
    """Options that the run set, for who looks at the verdict: they reach the plugins here."""
    every = [("option", said.options), ("countermeasure option", said.cm_options)]
    return [f"{what} {n}.{k} = {shown(v)}" for what, mine in every for n, some in mine.items() for k, v in some.items()]
