"""What is wrong with a run folder as a folder: its lock, scratch, checksums, strangers, and files that are no results."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from xaibench import checksums, lock, reading
from xaibench.errors import RunError
from xaibench.files import is_scratch
from xaibench.harness.doctor.finding import AGAIN, LISTED, SUFFIXES, Finding, files_of, name_of, reason
from xaibench.harness.results import read_object
from xaibench.run_record import checked

#: What a run writes at the top of its folder. Anything else there is a board, a site, a note: somebody's, and left alone.
OURS = (*SUFFIXES, "run.json", "stale", "damaged", checksums.NAME, lock.NAME)
_LESS = "without what earlier commands left there: environments, dates, countermeasures that are not asked for"


def of_lock(run: Path) -> Iterator[Finding]:
    """A process that holds the folder, one that ended without letting go, a lock that is none."""
    path = run / lock.NAME
    holder = lock.holder(run)
    if holder is not None:
        yield Finding(
            lock.NAME, f"a process is running in this folder{lock.said(holder)}",
            "files come and go meanwhile; ask again when it has ended, or end it", cure="hand",
        )  # fmt: skip
    elif path.is_dir():
        yield Finding(lock.NAME, "a folder, expected a file", "nobody can write to the run")
    elif (ended := lock.killed(run)) is not None:
        yield Finding(
            lock.NAME, f"the last process here was killed or stopped half-way{lock.said(ended)}",
            "what it had finished is kept", cure="run",
        )  # fmt: skip


def of_scratch(run: Path) -> Iterator[Finding]:
    """What killed processes left half-written; nothing while one is writing."""
    if lock.holder(run) is not None:
        return
    places = [Path(place, name) for place, folders, _ in os.walk(run) for name in folders if is_scratch(name)]
    for path in sorted({*places, *old_scratch(run)}):
        yield Finding(name_of(run, path), "half-written, by a process that has ended", "nobody reads it", action="sweep")


def old_scratch(run: Path) -> list[Path]:
    """What versions before `xaibench.files` had scratch folders left behind: RUN/.scratch and `.NAME.PID.tmp`."""
    files = [p for top in ("maps", "rows") for p in (run / top).rglob(".*.tmp") if p.is_file() and not p.is_symlink()]
    return [*([run / ".scratch"] if os.path.lexists(run / ".scratch") else []), *files]


def of_checksums(run: Path, sums: checksums.Sums, torn: list[str]) -> Iterator[Finding]:
    """Lines that are torn, void, or of files that are gone; files without a line. `sums`, `torn`: see `checksums.read`."""
    path = run / checksums.NAME
    if path.exists() and not path.is_file():
        yield Finding(checksums.NAME, "a folder, expected a file", "nothing can be held against its checksum")
        return
    if torn:
        yield Finding(
            checksums.NAME, f"{len(torn)} line{'s are' if len(torn) > 1 else ' is'} torn or damaged",
            "the files meant have no checksum", action="settle",
        )  # fmt: skip
    for name, values in sorted(sums.items()):
        top, *rest = name.split("/")
        if name != "run.json" and (top not in LISTED or not rest or ".." in rest):
            yield Finding(checksums.NAME, f"has a line of {name!r}, which no run writes", "it is void", action="settle")
        elif not os.path.lexists(run / name):
            lost = "its cells are missing and " if name.startswith("rows/") else "it is "
            lost += "are computed again by the same `xaibench run`" if name.startswith("rows/") else "gone"
            yield Finding(name, f"has a line in {checksums.NAME} and is not there: removed, or never quite written", lost,
                          action="settle")  # fmt: skip
        elif len(set(values)) > 1:
            yield Finding(name, f"has {len(values)} lines in {checksums.NAME}", "the right one counts", action="settle")
    bare = [name_of(run, p) for p in with_checksums(run) if name_of(run, p) not in sums]
    if bare:
        many = f", nor have {len(bare) - 1} other files" if len(bare) > 1 else ""
        yield Finding(
            bare[0], f"no line in {checksums.NAME}{many}",
            "whether it is as it was written cannot be told, only whether it can be read; a repair notes it as it is now",
            action="settle",
        )  # fmt: skip


def with_checksums(run: Path) -> Iterator[Path]:
    """Files that have a checksum."""
    for path in [run / "run.json", *(p for top in LISTED for p in files_of(run / top))]:
        if path.is_file() and (path.name == "run.json" or path.suffix == SUFFIXES[path.relative_to(run).parts[0]]):
            yield path


def of_links(run: Path) -> Iterator[Finding]:
    """Links that lead out of the folder: nothing is read or written through them."""
    for path in sorted(reading.links_out(run, OURS)):
        yield Finding(
            name_of(run, path), "a link that leads out of the run folder",
            "no command reads or writes through it; put what it leads to in its place", cure="hand",
        )  # fmt: skip


def of_strangers(run: Path) -> Iterator[Finding]:
    """Files that no run writes, among those that are read as results; and, in one line, beside them."""
    beside = sorted(p.name for p in run.iterdir() if p.name not in OURS and not is_scratch(p.name) and p.name != ".scratch")
    if beside:
        yield Finding(beside[0], f"{'and ' + ', '.join(beside[1:]) + ' ' if beside[1:] else ''}not of the run",
                      "left alone", cure="nothing")  # fmt: skip
    for top, suffix in SUFFIXES.items():
        if os.path.lexists(run / top) and not (run / top).is_dir():
            yield Finding(top, "a file, expected a folder", "nothing can be written there")
        for path in files_of(run / top):
            if path.suffix != suffix and not (path.name.startswith(".") and path.suffix == ".tmp"):
                yield Finding(name_of(run, path), "a stranger: no run writes such a file", "left alone", cure="nothing")


def of_record(run: Path, sums: dict[str, tuple[str, ...]]) -> Iterator[Finding]:
    """run.json: missing, damaged, edited, or no record of a run."""
    path = run / "run.json"
    if not os.path.lexists(path):
        yield Finding(
            "run.json", "missing", f"no board can be made of these rows; the same `xaibench run` writes it again, {_LESS}",
            cure="run",
        )  # fmt: skip
        return
    try:
        record = checked(read_object(path, sums), path)
        if not all(isinstance(record.get(name), dict) for name in ("identity", "spec")):
            raise RunError(f"{path}: not the record of a run")
    except RunError as error:
        yield Finding(
            "run.json", reason(error, path),
            f"no board can be made; after the repair the same `xaibench run` writes it again, {_LESS}",
        )  # fmt: skip


def of_verdicts(run: Path, sums: dict[str, tuple[str, ...]]) -> Iterator[Finding]:
    """Verdicts, warnings and tracebacks."""
    for path in files_of(run / "preflight", ".json"):
        try:
            verdict = read_object(path, sums) or {}
            if not isinstance(verdict.get("void"), str):
                raise RunError(f"{path}: damaged (no verdict)")
        except RunError as error:
            yield Finding(
                name_of(run, path), reason(error, path),
                "the verdict is lost until a run has cells of it to compute; its rows say what came of it",
            )  # fmt: skip
    for path in files_of(run / "warnings", ".json"):
        try:
            if not isinstance((read_object(path, sums) or {}).get("warnings"), list):
                raise RunError(f"{path}: damaged (no warnings)")
        except RunError as error:
            lost = "what was said over the rows of that name is lost; the rows stay"
            yield Finding(name_of(run, path), reason(error, path), lost)
    for path in files_of(run / "errors", ".txt"):
        try:
            content = reading.content(path, RunError, what="text", hint=AGAIN, most=reading.LARGEST_JSON)
            checksums.check(path, content, sums)
        except RunError as error:
            lost = "the traceback of failed cells is lost; their rows keep its last line"
            yield Finding(name_of(run, path), reason(error, path), lost)
