"""The folder of a site: what a build may write over, and what is left of an earlier one.

A site is often written again to the same folder, from other runs. Pages of boards, methods and utterances that are gone must
not stay and be taken for results, and nothing of anybody else's may be touched. So each build notes what it wrote, in
`NOTE`; the next one removes what stands there and what it did not write itself, and nothing else. A build that was
interrupted leaves the former note, with what it had finished.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from xaibench import reading
from xaibench.errors import RunError
from xaibench.site import shell

NOTE = ".xaibench-site.json"
FOLDERS = ("assets", "boards", "methods", "countermeasures", "downloads", "explorer", "pictures")
#: GitHub Pages runs Jekyll over a folder without it, which takes long and leaves files out.
PLAIN = ".nojekyll"


def check(out: Path, runs: Sequence[Path]) -> None:
    """Raise RunError where a site would write over a page of somebody else's, among what a run keeps, or through a
    link out of its folder.
    """
    out = Path(out)
    for run in runs:
        for kept in ("rows", "maps", "preflight"):
            if out.resolve().is_relative_to((Path(run) / kept).resolve()):
                raise RunError(f"{out}: is within {kept}/ of {run}, which is read as results; choose another --out")
    for link in reading.links_out(out, FOLDERS, levels=1):
        raise RunError(f"{link}: is a link that leads out of {out}, where the site would be written; remove it")
    page = out / "index.html"
    if page.is_file() and "index.html" not in noted(out):
        with reading.opened(page, RunError, what="page") as file:
            if b'<meta name="generator" content="xaibench">' not in file.read(1 << 16):
                raise RunError(f"{page}: is no page of xaibench and would be written over; choose another --out")


def noted(out: Path) -> set[str]:
    """What earlier builds wrote to the folder, as addresses from its top; nothing without a note, or with a damaged one."""
    try:
        files = reading.json_object(Path(out) / NOTE, RunError, hint="it is a note of xaibench")["files"]
        return {name for name in files if isinstance(name, str)}
    except (RunError, TypeError, KeyError):
        return set()


def note(out: Path, files: Iterable[Path], *, keep: Iterable[str] = ()) -> set[str]:
    """Write the note: these files, and what is to be kept of the former one. Returns the addresses of the files."""
    out = Path(out)
    mine = {Path(file).relative_to(out).as_posix() for file in files}
    shell.write(out / NOTE, json.dumps({"files": sorted({*mine, *keep})}, indent=0, ensure_ascii=False) + "\n")
    return mine


def settle(out: Path, files: Iterable[Path]) -> list[Path]:
    """Remove what earlier builds wrote and this one did not, with folders that become empty, and note `files`.

    Returns what was removed. A file that cannot be removed stays in the note.
    """
    out = Path(out)
    before = noted(out)
    mine = note(out, files, keep=before)
    gone, stuck = [], set()
    for name in sorted(before - mine):
        path = _within(out, name)
        if path is None or not path.is_file():
            continue
        try:
            path.unlink()
        except OSError:
            stuck.add(name)
            continue
        gone.append(path)
        for parent in path.parents:
            if parent == out:
                break
            try:
                parent.rmdir()
            except OSError:
                break  # something else is in it
    note(out, files, keep=stuck)
    return gone


def _within(out: Path, name: str) -> Path | None:
    """The file of an address, where it is one within the folder: a note may be anybody's."""
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
        return None
    path = out.joinpath(*parts)
    return path if path.parent.resolve() == out.resolve().joinpath(*parts[:-1]) and not path.is_symlink() else None
