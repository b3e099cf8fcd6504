"""What is wrong with a run folder, and what can be put right without running anybody's code: `xaibench doctor RUN`.

A *finding* names a file, says what is wrong with it, what follows, and who cures it:

    repair   `xaibench doctor RUN --repair`: what is damaged is moved to RUN/damaged/ (nothing is deleted but empty scratch),
             checksums are written anew. `xaibench run` then computes the cells again that have lost their rows.
    run      the same `xaibench run` as before; until then the folder is unfinished, not ill
    hand     only you: the sentence says how
    nothing  it harms nothing and is left alone

A folder is healthy when nothing is left for `repair` or `hand`. Only files are read: no plugin is imported, and no torch.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from xaibench import checksums, lock
from xaibench.errors import RunError
from xaibench.files import sweep
from xaibench.harness.doctor import folder, results
from xaibench.harness.doctor.finding import CURES as CURES
from xaibench.harness.doctor.finding import Finding as Finding
from xaibench.harness.doctor.finding import name_of
from xaibench.run_record import check_links


def examine(run: Path) -> list[Finding]:
    """Everything that is found, in the order of the file names. Raises RunError for a folder that is no run."""
    run = _run_folder(run)
    sums, torn = _sums(run)
    found = [*folder.of_links(run), *folder.of_lock(run)]
    found += [*folder.of_scratch(run), *folder.of_checksums(run, sums, torn), *folder.of_strangers(run)]
    known = {str(run / name): digests for name, digests in sums.items()}
    found += folder.of_record(run, known)
    found += folder.of_verdicts(run, known)
    table, bad = results.of_rows(run, known)
    found += bad
    found += results.of_cells(run, table, known)
    found += results.of_maps(run, table)
    first: dict[tuple[str, str], Finding] = {}
    for finding in found:  # a file is moved once, for the first reason
        first.setdefault((finding.file, finding.action if finding.cure == "repair" else finding.what), finding)
    return sorted(first.values(), key=lambda f: f.file)


def repair(run: Path) -> list[Finding]:
    """Cure what can be cured, until nothing curable is left; all that was found, with `repaired` where that is so.

    Raises RunError for a folder that is no run, that another process holds, that cannot be written, or with a link in it
    that leads elsewhere.
    """
    run = _run_folder(run)
    check_links(run, writing=True)
    place = run / lock.NAME
    done: list[Finding] = []
    if place.is_dir() and not place.is_symlink():  # nobody can hold it
        _put_away(run, lock.NAME)
        done.append(Finding(lock.NAME, "a folder, expected a file", "nobody could write to the run", repaired=True))
    done += [replace(f, repaired=True) for f in folder.of_scratch(run)]
    with lock.held(run):
        for path in folder.old_scratch(run):
            _remove(path)
        sweep(run, deep=True)
        left, before = _to_cure(run), None
        while left and left != before:  # what is moved may bring to light what it covered
            for finding in left:
                if finding.action == "move":
                    _put_away(run, finding.file)
            _adopt(run)
            done += [replace(f, repaired=True) for f in left]
            left, before = _to_cure(run), left
        done = [f for f in done if replace(f, repaired=False) not in left]
        done += [f for f in examine(run) if f.file != lock.NAME]
    return sorted(dict.fromkeys(done), key=lambda f: f.file)


def _to_cure(run: Path) -> list[Finding]:
    return [f for f in examine(run) if f.cure == "repair" and f.file != lock.NAME]


def _run_folder(run: Path) -> Path:
    run = Path(run)
    if not run.is_dir():
        raise RunError(f"{run}: no such folder; expected the --out of `xaibench run`")
    if not any((run / name).exists() for name in ("run.json", "rows", "preflight", checksums.NAME)):
        raise RunError(f"{run}: not a run folder: neither run.json nor rows/ is in it; expected the --out of `xaibench run`")
    return run


def _remove(path: Path) -> None:
    try:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    except OSError as error:
        raise RunError(f"{path}: could not be removed ({error.strerror})") from error


def _put_away(run: Path, name: str) -> None:
    """Move to damaged/, beside what was moved there before."""
    target = run / "damaged" / name
    for number in range(2, 10**6):
        if not os.path.lexists(target):
            break
        target = run / "damaged" / f"{name}.{number}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(run / name, target)
    except OSError as error:
        raise RunError(f"{run / name}: could not be moved to {target} ({error.strerror}); is the disk full?") from error


def _sums(run: Path) -> tuple[checksums.Sums, list[str]]:
    try:
        return checksums.read(run)
    except RunError:  # a folder, say; `_checksums` names it
        return {}, []


def _adopt(run: Path) -> None:
    """One right line for every file that is there."""
    checksums.settle(run)
    sums, _ = checksums.read(run)
    lines = {name: values[-1] for name, values in sums.items()}
    ours = {name_of(run, path): path for path in folder.with_checksums(run)}
    wanted = {name: lines.get(name) or checksums.digest(path.read_bytes()) for name, path in ours.items()}
    if wanted != lines:
        checksums.write(run, wanted)
