"""Files that are written whole or not at all: in a folder of their own beside their place, then renamed to it.

No reader sees half of a file, and a process that is killed (SIGKILL, a power cut) leaves at most such a folder,
`.xaibench-NUMBER.tmp`. Its writer holds a lock on it, which the system lets go when the writer ends, however it ends. So
whoever gets that lock knows that nobody writes there any more, and `sweep` removes the folder; a number of a process
would not tell, as containers give the same numbers again. It is a folder and not a file because some libraries write
beside, too, and would leave their own scratch.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xaibench.errors import RunError

_FORM = (".xaibench-", ".tmp")
_swept: set[Path] = set()  # folders this process has looked through: once, before it first writes there


@contextmanager
def whole(path: Path, *, hint: str = "choose another --out", flush: bool = False) -> Iterator[Path]:
    """Where to write what is to be `path`: it takes its place when the block ends, and is removed where the block fails.

    The folder is made. flush: the content is on the disk before it takes its place, so that a power cut leaves the former
    file or the new one. Raises RunError, with the reason and `hint`, where the system refuses.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "deep" / "a.txt"
    >>> with whole(place) as scratch:
    ...     _ = scratch.write_text("a")
    >>> place.read_text(), [p.name for p in place.parent.iterdir()]
    ('a', ['a.txt'])
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _swept:
            sweep(path.parent)
            _swept.add(path.parent)
        with _folder(path.parent) as folder:
            yield folder / path.name
            if flush:
                sync(folder / path.name)
            os.replace(folder / path.name, path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error}); {hint}") from error


def write_bytes(path: Path, content: bytes, *, flush: bool = False) -> Path:
    """Write a file whole or not at all; returns its path. Raises RunError as `whole`."""
    with whole(path, flush=flush) as scratch:
        scratch.write_bytes(content)
    return Path(path)


def write_text(path: Path, text: str, *, flush: bool = False) -> Path:
    """As `write_bytes`, in UTF-8, lines as they end; half a surrogate pair, which is no character, becomes `?`."""
    return write_bytes(path, text.encode("utf-8", "replace"), flush=flush)


def sync(path: Path) -> None:
    """Wait until a file's content is on the disk, or the names in a folder are."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def is_scratch(name: str) -> bool:
    """Whether a name is that of a scratch folder of `whole`."""
    return name.startswith(_FORM[0]) and name.endswith(_FORM[1])


def below(folder: Path, suffix: str) -> list[Path]:
    """What ends so in a folder and in those below, sorted; nothing of scratch, which is being written or half-written."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_scratch(name)]
        found += [Path(place, name) for name in [*folders, *names] if name.endswith(suffix)]
    return sorted(found)


def abandoned(folder: Path, *, deep: bool = False) -> Iterator[Path]:
    """Scratch folders in a folder, or with `deep` in all that it holds, whose writers have ended."""
    for place, folders, _ in os.walk(folder):
        for name in filter(is_scratch, folders):
            with suppress(OSError), _locked(Path(place, name), wait=False):  # held by its writer, or gone meanwhile
                yield Path(place, name)
        folders[:] = [] if not deep else [name for name in folders if not is_scratch(name)]


def sweep(folder: Path, *, deep: bool = False) -> list[Path]:
    """Remove what `abandoned` finds, while nobody else can take it up; returns it. What cannot be removed stays."""
    gone = []
    for place in abandoned(folder, deep=deep):
        shutil.rmtree(place, ignore_errors=True)
        gone.append(place)
    return gone


@contextmanager
def _folder(parent: Path) -> Iterator[Path]:
    """A new folder, held and removed."""
    while True:
        folder = parent / secrets.token_hex(8).join(_FORM)
        folder.mkdir()
        with _locked(folder, wait=True) as held:
            if not held:  # another process swept it before it was held
                continue
            try:
                yield folder
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            shutil.rmtree(folder)
            return


@contextmanager
def _locked(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of a folder; gives whether the folder is still there.

    Raises OSError for no such folder and, unless `wait`, for one that another process holds. On a file system without locks
    nothing is held, and nothing of others is found abandoned.
    """
    try:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        if not wait:
            raise
        yield False
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if not wait:
                raise
        yield folder.is_dir()
    finally:
        os.close(file)


def in_order(tensors: bytes) -> bytes:
    """The same safetensors file with the keys of its header in order: the library writes metadata in the order of a hash map
    that is seeded anew for every file, so that equal content would give other bytes each time.

    >>> in_order(b"\\x10" + bytes(7) + b'{"b":1, "a":2}  data')[8:]
    b'{"a":2,"b":1}   data'
    """
    start = 8 + int.from_bytes(tensors[:8], "little")
    header = json.dumps(json.loads(tensors[8:start]), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)  # the data begins where 8-byte numbers may
    return len(header).to_bytes(8, "little") + header + tensors[start:]
