"""Files that are written whole or not at all: beside their place first, then renamed, so that no reader sees half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xaibench.errors import RunError


@contextmanager
def whole(path: Path, *, hint: str = "choose another --out") -> Iterator[Path]:
    """Where to write what is to be `path`: it takes its place when the block ends, and is removed where the block fails.

    The folder is made. Raises RunError, with the reason and `hint`, where the system refuses.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "deep" / "a.txt"
    >>> with whole(place) as scratch:
    ...     _ = scratch.write_text("a")
    >>> place.read_text(), [p.name for p in place.parent.iterdir()]
    ('a', ['a.txt'])
    """
    path = Path(path)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        os.replace(scratch, path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error}); {hint}") from error
    finally:
        with suppress(OSError):  # it is gone, or could never be there: nothing is left to remove
            scratch.unlink()


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file whole or not at all; returns its path. Raises RunError as `whole`."""
    with whole(path) as scratch:
        scratch.write_bytes(content)
    return Path(path)


def write_text(path: Path, text: str) -> Path:
    """As `write_bytes`, in UTF-8, lines as they end; half a surrogate pair, which is no character, becomes `?`."""
    return write_bytes(path, text.encode("utf-8", "replace"))
