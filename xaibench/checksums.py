"""RUN/SHA256SUMS: what every row file, verdict, warning, traceback and run.json was when it was written, so that rot and
edits are errors that name the file, never numbers. `cd RUN && sha256sum -c SHA256SUMS` reads it, too.

One line a file, `DIGEST  NAME`, names from the top of the run. A line is appended and flushed to the disk *before* its file
takes its place: a process that is killed between the two leaves a line too many and never a file whose line is wrong. So
of a name with several lines each counts, until `settle`, at the beginning and the end of every run, leaves the one that is
right. A file without a line (of an earlier version, put there by hand) is read as it is. Maps have no lines here: there can
be a million, and each holds a digest of its own (`xaibench.maps`).

This tells rot, truncation and well-meant edits. It is no signature: who edits a file can edit its line.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from xaibench import reading
from xaibench.errors import RunError
from xaibench.files import write_text

NAME = "SHA256SUMS"
LARGEST = 1 << 28  # bytes; a run with 100,000 row files has a tenth of it
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_LINE = re.compile(r"([0-9a-f]{64})  ([^\0]+)")

#: Names from the top of a run -> the digests of their lines, in their order.
Sums = dict[str, tuple[str, ...]]


def digest(content: bytes) -> str:
    """SHA-256, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def parse(text: str) -> tuple[Sums, list[str]]:
    """The lines of a SHA256SUMS, and those that are none: torn, or damaged.

    >>> parse("0" * 64 + "  run.json\\n012")
    ({'run.json': ('0000000000000000000000000000000000000000000000000000000000000000',)}, ['012'])
    """
    sums: Sums = {}
    torn = []
    for line in text.split("\n"):
        if found := _LINE.fullmatch(line):
            value, name = found.groups()
            sums[name] = (*sums.get(name, ()), value)
        elif line:
            torn.append(line)
    return sums, torn


def read(run: Path) -> tuple[Sums, list[str]]:
    """`parse` of a run's file; nothing where there is none. Raises RunError where it cannot be read."""
    path = Path(run) / NAME
    if not os.path.lexists(path):
        return {}, []
    try:
        with reading.opened(path, RunError, what="list of checksums", most=LARGEST) as file:
            return parse(file.read().decode("utf-8", "replace"))
    except RunError as error:
        raise RunError(f"{error}; `xaibench doctor {run}` says more") from error


def known(run: Path) -> dict[str, tuple[str, ...]]:
    """The digests that a file may have, by its path as text (`str(run / NAME)`). Raises RunError as `read`."""
    top = f"{Path(run)}{os.sep}" if str(run) != "." else ""
    return {top + name: digests for name, digests in read(run)[0].items()}


def check(path: Path, content: bytes, sums: Mapping[str, Collection[str]]) -> None:
    """Raise RunError where a file has lines and its content is that of none."""
    digests = sums.get(str(path))
    if digests and digest(content) not in digests:
        raise RunError(
            f"{path}: not as it was written (its SHA-256 is not the one in {NAME}): edited, or damaged by the disk; "
            f"`xaibench doctor RUN --repair` moves it to RUN/damaged, and `xaibench run` makes it again"
        )


def add(run: Path, name: str, value: str) -> None:
    """Append the line of a file that is about to take its place, and wait until it is on the disk. Raises OSError."""
    file = os.open(Path(run) / NAME, _APPEND, 0o666)
    try:
        line = f"{value}  {name}\n".encode()
        while line:
            line = line[os.write(file, line) :]
        os.fsync(file)
    finally:
        os.close(file)


def settle(run: Path) -> None:
    """Leave one line for every file that is there: the one that is right, or its last where none is.

    A file that has other names (hard links) becomes one of its own.

    To be called while the run is held, and before the first `add`: a torn line would otherwise begin the next one.
    Raises RunError where it cannot be written.
    """
    sums, torn = read(run)
    root = reading.Root(run)
    there = {name: values for name, values in sums.items() if _is_there(root, name)}
    if not torn and len(there) == len(sums) and all(len(values) == 1 for values in sums.values()) and _alone(run):
        return
    write(run, {name: _right(Path(run) / name, values) for name, values in there.items()})


def _is_there(root: reading.Root, name: str) -> bool:
    """Whether a line's name is that of a file in the run; a name that no file can have, or that leads out of it, is not."""
    try:
        return root(name).is_file()
    except (OSError, ValueError):
        return False


def _alone(run: Path) -> bool:
    """Whether the file, where it is there, is nobody else's: no link, and with no other name that `add` would append to."""
    path = Path(run) / NAME
    return not os.path.lexists(path) or (not path.is_symlink() and path.stat().st_nlink == 1)


def write(run: Path, sums: Mapping[str, str]) -> None:
    """All lines anew. Raises RunError where that cannot be."""
    write_text(Path(run) / NAME, "".join(f"{value}  {name}\n" for name, value in sorted(sums.items())), flush=True)


def _right(path: Path, values: tuple[str, ...]) -> str:
    """Of several digests that of the file; the last where none is, or where it cannot be read."""
    if len(set(values)) == 1:
        return values[0]
    try:
        now = digest(path.read_bytes())
    except OSError:
        return values[-1]
    return now if now in values else values[-1]
