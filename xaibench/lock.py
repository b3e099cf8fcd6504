"""A folder that one process at a time writes to: `FOLDER/.lock`, held with flock, so that it is free when its holder ends,
however it ends. While it is held the file says who holds it; a file that nobody holds and that still says so is that of a
process which was killed, and what it left half-written is removed by the next one.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xaibench.errors import RunError
from xaibench.files import sweep
from xaibench.reading import parsed

NAME = ".lock"
_PLAIN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # no link is followed, no pipe waited for


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made where it is not there; what a killed holder left half-written in it is removed.

    Raises RunError when another process holds it (naming it), or when it cannot be written or locked.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp())
    >>> with held(place):
    ...     holder(place)["pid"] == os.getpid()
    True
    >>> holder(place)
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | _PLAIN, 0o666)
    except OSError as error:
        raise RunError(f"{folder}: cannot write here ({_why(folder, error)}); choose another --out") from error
    try:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:  # who is written there would be written elsewhere, too
            raise RunError(f"{folder / NAME}: a pipe, a device or a file with other names (hard links); remove it")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{folder}: another process is running in this folder{said(_read(file))}; wait for it") from error
        except OSError as error:
            raise RunError(f"{folder}: this file system cannot lock files ({error.strerror}); use another") from error
        try:
            if os.fstat(file).st_size:
                sweep(folder, deep=True)
            me = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"}
            os.ftruncate(file, 0)
            os.pwrite(file, (json.dumps(me) + "\n").encode(), 0)
            os.fsync(file)
        except OSError as error:
            raise RunError(f"{folder}: cannot write here ({error.strerror}); choose another --out") from error
        yield
        os.ftruncate(file, 0)  # not where the block failed: what that left is looked through
    finally:
        os.close(file)


def holder(folder: Path) -> dict[str, Any] | None:
    """What the process that holds a folder says of itself; {} where one holds it without a word, None where none does."""
    try:
        file = os.open(Path(folder) / NAME, os.O_RDONLY | _PLAIN)
    except OSError:  # never held, or not a file
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(file)
    except OSError:  # it cannot be locked here, so nobody has
        return None
    finally:
        os.close(file)
    return None


def killed(folder: Path) -> dict[str, Any] | None:
    """What the last holder said of itself where it ended without letting go; None where it did, or still holds it."""
    path = Path(folder) / NAME
    if holder(folder) is not None or not path.is_file() or not path.stat().st_size:
        return None
    try:
        file = os.open(path, os.O_RDONLY | _PLAIN)
    except OSError:  # a link, or gone meanwhile
        return None
    try:
        return _read(file)
    finally:
        os.close(file)


def said(holder: dict[str, Any]) -> str:
    """A holder in words, to stand behind its name; "" where it says nothing.

    >>> said({"pid": 7, "host": "node3", "since": "2026-01-31 12:00:00 UTC"})
    ' (process 7 on node3, since 2026-01-31 12:00:00 UTC)'
    """
    if not {"pid", "host", "since"} <= holder.keys():
        return ""
    return f" (process {holder['pid']} on {holder['host']}, since {holder['since']})"


def _read(file: int) -> dict[str, Any]:
    try:
        found = parsed(os.pread(file, 4096, 0))
    except (OSError, ValueError):  # empty, or of an earlier version
        return {}
    return found if isinstance(found, dict) else {}


def _why(folder: Path, error: OSError) -> str:
    if isinstance(error, IsADirectoryError):
        return f"{folder / NAME} is a folder, expected a file; remove it"
    if error.errno == errno.ELOOP:
        return f"{folder / NAME} is a link, expected a file; remove it"
    return error.strerror or str(error)
