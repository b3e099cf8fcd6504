"""Files that others wrote, opened as what they may be: anything. One place for it, used by every reader of xaibench.

What is opened is a regular file (a pipe would wait for ever, a device never end) of a bounded size; a text comes line by
line, each of a bounded length, in UTF-8. Whatever else is there becomes an error of ours that names the file. A name that
such a file holds becomes a path within a folder of ours, or an error (`Root`).
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Any

from xaibench.errors import XaibenchError, first_line

LARGEST = 1 << 40  # bytes of any file: a data set's table has less
LARGEST_JSON = 1 << 26  # bytes of a file that is read whole; the largest of ours, a run's record, has a few MB
LONGEST_LINE = 1 << 20  # bytes of a line; a table's row with an hour of segment labels has a tenth of it
RATES = range(100, 1_000_001)  # samples a second of a recording; another number is damage
LONGEST_NUMBER = 64  # characters; the longest double has 24
DEEPEST = 100  # brackets within brackets of a JSON file; ours have nine
MOST_DOTS = 1_000  # in a line of a TOML file
_TOO_DEEP = "brackets are nested deeper than {} levels"
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")  # C:\x, \\server\share


@contextmanager
def opened(
    path: Path, error: type[XaibenchError], *, what: str = "file", hint: str = "is the name right?", most: int = LARGEST
) -> Iterator[BufferedReader]:
    """A regular file, open for reading. Raises `error`, naming the file: missing, a directory, a pipe or device, no
    permission, more than `most` bytes, a name that no file can have; and where the system fails while it is read.

    >>> with opened(Path("/"), XaibenchError, what="table"):
    ...     pass
    Traceback (most recent call last):
    xaibench.errors.XaibenchError: /: a directory, expected a table
    """
    path = Path(path)
    a = f"{'an' if what[:1] in 'aeiou' else 'a'} {what}"
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError) as missing:
        raise error(f"{path}: no such file; {hint}") from missing
    except ValueError as wrong:  # a zero byte, half a surrogate pair
        raise error(f"{os.fspath(path)!a}: no file can have this name; {hint}") from wrong
    except IsADirectoryError as wrong:
        raise error(f"{path}: a directory, expected {a}") from wrong
    except OSError as wrong:  # a name that is too long, no permission, links that go round, a socket
        raise error(f"{path}: cannot be opened ({wrong.strerror})") from wrong
    try:
        facts = os.fstat(handle)
        if stat.S_ISDIR(facts.st_mode):
            raise error(f"{path}: a directory, expected {a}")
        if not stat.S_ISREG(facts.st_mode):
            raise error(f"{path}: a pipe or a device, whose end nobody knows, expected {a}")
        if facts.st_size > most:
            raise error(f"{path}: {facts.st_size:,} bytes, expected {a} of at most {most:,}; is it another kind of file?")
    except XaibenchError:
        os.close(handle)
        raise
    with os.fdopen(handle, "rb") as file:
        try:
            yield file
        except OSError as wrong:
            raise error(f"{path}: cannot be read ({wrong.strerror or wrong})") from wrong


def lines(path: Path, error: type[XaibenchError], *, what: str = "table") -> Iterator[tuple[int, str]]:
    """`(number, line)` of a text in UTF-8, counted from 1, one at a time, without its end; LF or CR LF, BOM or not.

    Raises `error` as `opened`, and, naming file and line: another encoding, a zero byte, a carriage return within a line
    and a line of more than `LONGEST_LINE` bytes.
    """
    with opened(path, error, what=what) as file:
        number = 0
        while raw := file.readline(LONGEST_LINE + 1):
            number += 1
            where = f"{path}:{number}"
            if raw.startswith((b"\xff\xfe", b"\xfe\xff")) and number == 1:
                raise error(f"{where}: UTF-16, expected UTF-8; save the {what} as UTF-8")
            if len(raw) > LONGEST_LINE:
                raise error(f"{where}: more than {LONGEST_LINE:,} bytes in a line; is this a {what}, with line ends?")
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as wrong:
                why = f"{wrong.reason} at byte {wrong.start}"
                raise error(f"{where}: not UTF-8 ({why}); save the {what} as UTF-8") from wrong
            line = line.removesuffix("\n").removesuffix("\r")
            if "\0" in line:
                raise error(f"{where}: a zero byte, expected text; is this a {what}?")
            if "\r" in line:
                raise error(f"{where}: a carriage return within the line; save the {what} with line ends of LF or CR LF")
            yield number, line


def json_object(path: Path, error: type[XaibenchError], *, hint: str, most: int = LARGEST_JSON) -> dict[str, Any]:
    """The object that a JSON file holds. Raises `error`, naming the file, as `opened`, and for anything else than that."""
    with opened(path, error, what="file of JSON", hint=hint, most=most) as file:
        content = file.read()
    try:
        value = parsed(content)
    except ValueError as wrong:
        raise error(f"{path}: damaged ({first_line(wrong)}); {hint}") from wrong
    if not isinstance(value, dict):
        raise error(f"{path}: expected an object, got {type(value).__name__}; {hint}")
    return value


def content(path: Path, error: type[XaibenchError], *, what: str, hint: str, most: int) -> bytes:
    """All bytes of a file that a run left. Raises `error` as `opened`, in the words of a damaged file, with `hint`."""
    try:
        with opened(path, error, what=what, most=most) as file:
            return file.read()
    except error as wrong:
        raise error(f"{path}: damaged ({str(wrong).removeprefix(f'{path}: ')}); {hint}") from wrong


def toml_table(path: Path, error: type[XaibenchError], *, what: str, most: int) -> dict[str, Any]:
    """The table that a TOML file in UTF-8 holds, BOM or not. Raises `error`, naming the file, as `opened`, and for anything
    else; also for tables within tables deeper than `DEEPEST`, which no printing of them survives."""
    with opened(path, error, what=what, most=most) as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
        if any(line.count(".") > MOST_DOTS for line in text.split("\n")):  # a key of many parts takes hours to read
            raise ValueError(f"a line of more than {MOST_DOTS:,} dots")
        return _shallow(tomllib.loads(text))
    except (ValueError, RecursionError) as wrong:  # not UTF-8, not TOML, a number of 5,000 digits, brackets without end
        raise error(f"{path}: not TOML in UTF-8 ({first_line(wrong)})") from wrong


def parsed(content: bytes, *, deepest: int = DEEPEST, strict: bool = False) -> Any:
    """What bytes of JSON hold. Raises ValueError: not UTF-8, not JSON, a number of thousands of digits, brackets deeper than
    `deepest`, which would end whoever walks through them. strict: also NaN, infinities, and a key twice.

    >>> parsed(b"[" * 101 + b"]" * 101)
    Traceback (most recent call last):
    ValueError: brackets are nested deeper than 100 levels
    """
    try:
        value = json.loads(content.decode("utf-8"), **(_STRICT if strict else {}))
    except RecursionError as error:
        raise ValueError(_TOO_DEEP.format(deepest)) from error
    return _shallow(value, deepest)


def _no_constant(name: str) -> Any:
    raise ValueError(f"it holds {name}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it names a key twice")
    return found


#: How `json.loads` is asked for JSON as its standard has it.
_STRICT: dict[str, Any] = {"parse_constant": _no_constant, "object_pairs_hook": _once}


def _shallow(value: Any, deepest: int = DEEPEST) -> Any:
    """The same. Raises ValueError where it is nested deeper than `deepest`."""
    level, depth = [value], 0
    while level := [v for v in level if isinstance(v, dict | list)]:
        if (depth := depth + 1) > deepest:
            raise ValueError(_TOO_DEEP.format(deepest))
        level = [inner for v in level for inner in (v.values() if isinstance(v, dict) else v)]
    return value


class Root:
    """A folder, and the paths that names from files mean within it.

    No name leads out of it: no absolute path, no drive of Windows, no `..` (also one that is `..` to a file system which
    normalises names), no link to elsewhere, nothing that no file can be called. `~` is a letter like any other. Folders are
    looked up once for all their files.

    >>> Root(Path("/usr"))("bin/../lib").name
    'lib'
    >>> Root(Path("/usr"))("../etc/passwd")
    Traceback (most recent call last):
    ValueError: '../etc/passwd' leaves the root /usr
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).resolve()
        self._resolved = lru_cache(maxsize=64)(lambda parent: parent.resolve())

    def __call__(self, name: str) -> Path:
        """The place of a name, all links followed; it need not be there. Raises ValueError, saying what is wrong."""
        if not name or "\0" in name:
            raise ValueError(f"{shown(name)} names no file")
        whole = self.folder / name
        try:
            if whole.name == ".." or os.path.islink(whole):
                found = whole.resolve()
            else:
                found = self._resolved(whole.parent) / whole.name
        except (OSError, RuntimeError, ValueError) as error:  # too long, links that go round, half a surrogate pair
            raise ValueError(f"{shown(name, 300)} names no file ({first_line(error)})") from error
        if not found.is_relative_to(self.folder) or _DRIVE.match(name) or _climbs(name):
            raise ValueError(f"{shown(name, 300)} leaves the root {self.folder}")
        return found


def links_out(folder: Path, tops: Iterable[str], *, levels: int = 64) -> Iterator[Path]:
    """Links that lead out of a folder, or round in circles, among what it holds by these names and `levels` below them.

    Whoever reads through one reads what nobody named; whoever writes through one writes there.

    >>> list(links_out(Path("/usr"), ["no such name"]))
    []
    """
    home = Path(folder).resolve()
    places = [(Path(folder, name), levels) for name in tops]
    while places:
        path, left = places.pop()
        if path.is_symlink():
            try:
                if not path.resolve().is_relative_to(home):
                    yield path
            except (OSError, RuntimeError):
                yield path
        elif left:
            with suppress(OSError), os.scandir(path) as entries:  # a file, or a folder that its reader names
                places += [
                    (Path(entry.path), left - 1)
                    for entry in entries if entry.is_symlink() or entry.is_dir(follow_symlinks=False)
                ]  # fmt: skip


def _climbs(name: str) -> bool:
    """Whether a name that stays in its folder here would leave it elsewhere: by `..` between backslashes, or by signs that
    normalise to dots (U+2025 is two of them)."""
    parts = re.split(r"[/\\]", name)
    odd = [part for part in parts if part != ".." and unicodedata.normalize("NFKC", part) == ".."]
    return bool(odd) or ("\\" in name and ".." in parts)


def number(text: str) -> float:
    """A decimal number, NaN and infinity among them. Raises ValueError for what only Python takes for one.

    >>> number("-3.2e1")
    -32.0
    >>> number("1_000")
    Traceback (most recent call last):
    ValueError: '1_000' is no number
    """
    if len(text) > LONGEST_NUMBER or not text.isascii() or "_" in text:
        raise ValueError(f"{shown(text)} is no number")
    return float(text)


def whole(text: str) -> int:
    """A whole number that is not negative, of at most 15 digits (a double holds it). Raises ValueError for another text.

    >>> whole("16000")
    16000
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise ValueError(f"{shown(text)} is no whole number")
    return int(text)


def shown(text: object, most: int = 80) -> str:
    """A text as an error shows it: in quotation marks, what cannot be printed escaped, and cut.

    >>> shown("a" * 9, 5)
    "'aaaaa' ..."
    """
    text = str(text)
    return repr(text) if len(text) <= most else f"{text[:most]!r} ..."


def printable(text: str) -> str:
    r"""A text, a file's name say, for a terminal: what would move a cursor, colour it or turn the direction of writing is
    escaped, but for line ends and tabs.

    >>> printable("a\x1b[31m.wav: no such file")
    'a\\x1b[31m.wav: no such file'
    """
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)
