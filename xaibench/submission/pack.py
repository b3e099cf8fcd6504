"""The one file of a submission: what may be in it, how it is written, and how it is read when nobody trusts it.

A zip without compression, so that it cannot grow when it is opened (the rows are compressed within their parquet file),
of at most five members:

manifest.json   the format's number, who wrote it, and of every other member its size and sha256
run.json        the facts of the run: spec, environment, weights, data, origins of plugins
rows.parquet    every row, in the order of its cells
board.json      the board of these rows, one object for each line and metric
claims.json     what the author published elsewhere, where the author says so

The same members give the same bytes: no time, no user, one order. Reading raises SubmissionError for anything else than
that: a file that is not one of these five, a path, a link, compression, bytes before or behind or between, sizes out of
bounds, a hash that does not fit, JSON that is too deep, names a key twice or holds NaN, text with control characters.
"""

from __future__ import annotations

import hashlib
import io
import json
import stat
import struct
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xaibench
from xaibench import reading
from xaibench.errors import SubmissionError

FORMAT = 1
MANIFEST, RUN, ROWS, BOARD, CLAIMS = "manifest.json", "run.json", "rows.parquet", "board.json", "claims.json"
#: Every name a pack can hold, and the most bytes of it. The demo run has 12 thousand rows: 0.2 MB of them, 0.3 MB of board.
MEMBERS = {MANIFEST: 1 << 16, RUN: 1 << 21, ROWS: 1 << 28, BOARD: 1 << 24, CLAIMS: 1 << 18}
REQUIRED = (MANIFEST, RUN, ROWS, BOARD)
DEEPEST = 24  # brackets within brackets of a JSON member

_END = struct.Struct("<4s4H2LH")  # the end record of a zip (APPNOTE 6.3.10, section 4.3.16), without a comment
#: Characters that move the cursor, colour a terminal, reverse text or are nothing: none is part of a name or a sentence.
_UNFIT = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


@dataclass(frozen=True)
class Members:
    """What a pack holds: JSON members as objects, the rows as bytes. `sha256` is that of the whole file."""

    sha256: str
    run: dict[str, Any]
    rows: bytes
    board: list[Any]
    claims: list[Any]


def unfit(text: str) -> bool:
    """Whether a text holds characters that no name or sentence of a pack has.

    >>> unfit("grad-cam++"), unfit("red\\x1b[31m"), unfit("a\\u202eb")
    (False, True, True)
    """
    return not (text.isascii() and text.isprintable()) and any(unicodedata.category(c) in _UNFIT for c in text)


def fit(text: str) -> str:
    """The text without such characters: line ends and tabs become spaces, the rest a replacement character.

    >>> fit("two\\nlines"), fit("\\x1b[31mred")
    ('two lines', '\\ufffd[31mred')
    """
    if not unfit(text):
        return text
    text = " ".join(text.split())
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _UNFIT else c for c in text)


def texts(value: Any) -> Iterator[str]:
    """Every text within a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)


def json_bytes(value: Any) -> bytes:
    """A JSON member. Raises ValueError for NaN, which JSON does not have."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def pack_bytes(members: Mapping[str, bytes]) -> bytes:
    """The file of these members (all but the manifest, which is made here). Raises SubmissionError where one is too large.

    >>> a, b = (pack_bytes({RUN: b"{}", ROWS: b"", BOARD: b"[]"}) for _ in range(2))
    >>> a == b
    True
    """
    for name, content in members.items():
        if len(content) > MEMBERS[name]:
            raise SubmissionError(
                f"{name} would have {len(content):,} bytes, more than the {MEMBERS[name]:,} of a pack; submit fewer "
                f"countermeasures or utterances at a time"
            )
    listed = {n: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in members.items()}
    manifest = {"format": FORMAT, "made_by": f"xaibench {xaibench.__version__}", "members": listed}
    whole = {MANIFEST: json_bytes(manifest), **{name: members[name] for name in MEMBERS if name in members}}
    return _zipped(whole)


def _zipped(whole: Mapping[str, bytes]) -> bytes:
    """The zip of all members, in the one form in which it is written."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in whole.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            file.writestr(entry, content)
    return buffer.getvalue()


def read_pack(path: Path) -> Members:
    """The members of a pack, checked as the module says. Raises SubmissionError naming what is wrong."""
    data = _whole(Path(path))
    members = _unzipped(data)
    _check_manifest(bounded_json(MANIFEST, members[MANIFEST]), members)
    run = bounded_json(RUN, members[RUN])
    board = bounded_json(BOARD, members[BOARD])
    claims = bounded_json(CLAIMS, members.get(CLAIMS, b"[]"))
    for name, value, kind in ((RUN, run, dict), (BOARD, board, list), (CLAIMS, claims, list)):
        if not isinstance(value, kind):
            raise SubmissionError(f"{name}: expected a JSON {kind.__name__}, got {type(value).__name__}")
    if _zipped({name: members[name] for name in MEMBERS if name in members}) != data:
        raise SubmissionError(
            "the zip is not byte for byte what `xaibench submit` writes of its members: it holds something between them, or "
            "in their comments, dates or order"
        )
    return Members(hashlib.sha256(data).hexdigest(), run, members[ROWS], board, claims)


def bounded_json(name: str, content: bytes) -> Any:
    """A JSON member as an object. Raises SubmissionError: no JSON, too deep, a key twice, NaN, control characters."""
    try:
        value = reading.parsed(content, deepest=DEEPEST, strict=True)
    except ValueError as error:  # also what is no UTF-8, and numbers of thousands of digits
        raise SubmissionError(f"{name}: not JSON as `xaibench submit` writes it ({shown(str(error), 80)})") from error
    for text in texts(value):
        if unfit(text):
            raise SubmissionError(f"{name}: a text holds control characters: {shown(text)}")
    return value


def shown(text: Any, most: int = 60) -> str:
    """Text of a stranger, in a message of ours: one line, quoted, no control characters, not too long.

    >>> shown("x\\x1b[2J" * 40, 12)
    "'x\\\\x1b[2Jx\\\\x1b[2Jx\\\\x1b...'"
    """
    text = str(text)
    quoted = text[:most] + ("..." if len(text) > most else "")
    return ascii(quoted)


def number(value: Any) -> float | None:
    """A number of a stranger's JSON; None for anything else, and for one so large that sums overflow.

    >>> number(3), number(True), number(10**400), number("3")
    (3.0, None, None, None)
    """
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and abs(value) < 1e300 else None


def _whole(path: Path) -> bytes:
    most, hint = sum(MEMBERS.values()) + (1 << 16), "expected what `xaibench submit RUN` writes"
    with reading.opened(path, SubmissionError, what="pack", hint=hint, most=most) as file:
        return file.read()


def _unzipped(data: bytes) -> dict[str, bytes]:
    """The members by name, the manifest among them."""
    _check_end(data)
    members: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            for entry in file.infolist():
                _check_entry(entry, members)
                members[entry.filename] = file.read(entry)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, struct.error, ValueError, EOFError, OSError) as error:
        raise SubmissionError(f"not a whole zip: {shown(str(error), 80)}; was it cut off on the way?") from error
    lacking = [name for name in REQUIRED if name not in members]
    if lacking:
        raise SubmissionError(f"the pack lacks {', '.join(lacking)}; expected what `xaibench submit` writes")
    return members


def _check_end(data: bytes) -> None:
    """Before anything is parsed: one end record, at the end, of a short directory that lies right before it."""
    if len(data) < _END.size or data[:4] != b"PK\x03\x04":
        raise SubmissionError("not a zip that begins with its first member; expected what `xaibench submit` writes")
    mark, disk, first, here, entries, size, start, comment = _END.unpack(data[-_END.size :])
    if mark != b"PK\x05\x06" or comment:
        raise SubmissionError("not a whole zip: its end is missing, or bytes follow it; was it cut off on the way?")
    if disk or first or here != entries or entries > len(MEMBERS):
        raise SubmissionError(f"the zip says it has {entries} members; a pack has at most {len(MEMBERS)}")
    if start + size + _END.size != len(data):
        raise SubmissionError("the zip's directory is not where it must be; expected what `xaibench submit` writes")


def _check_entry(entry: zipfile.ZipInfo, known: Mapping[str, bytes]) -> None:
    name = entry.orig_filename
    if name not in MEMBERS or entry.filename != name:
        raise SubmissionError(f"the pack holds a member {shown(name)}; expected only {', '.join(MEMBERS)}")
    if name in known:
        raise SubmissionError(f"the pack holds {name} twice")
    mode = entry.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG) or entry.flag_bits & ~0x800:
        raise SubmissionError(f"{name} is not a plain file of the pack (a link, a folder, or encrypted)")
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.extra:
        sizes = f"{entry.compress_size} -> {entry.file_size} bytes"
        raise SubmissionError(f"{name} is compressed ({sizes}); a pack stores its files as they are")
    if entry.file_size > MEMBERS[name]:
        raise SubmissionError(f"{name} has {entry.file_size:,} bytes, more than the {MEMBERS[name]:,} it may have")


def _check_manifest(manifest: Any, members: Mapping[str, bytes]) -> None:
    listed = manifest.get("members") if isinstance(manifest, dict) else None
    if not isinstance(listed, dict):
        raise SubmissionError(f"{MANIFEST}: lists no members; expected what `xaibench submit` writes")
    if manifest.get("format") != FORMAT:
        raise SubmissionError(
            f"{MANIFEST}: format {shown(manifest.get('format'))}, this version reads {FORMAT}; was the pack made by another "
            f"version of xaibench?"
        )
    if set(listed) != set(members) - {MANIFEST}:
        raise SubmissionError(f"{MANIFEST}: lists other members than the pack holds")
    for name, facts in listed.items():
        digest = hashlib.sha256(members[name]).hexdigest()
        if not isinstance(facts, dict) or facts.get("sha256") != digest:
            raise SubmissionError(f"{name}: not the file of the manifest (its sha256 is {digest[:12]}...); was it changed?")
