"""Files as nobody should write them: whole ones with bytes turned, cut, repeated, spliced, and texts with other tokens.

Every draw is of the generator that is handed over, so one seed is one sequence of inputs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

#: Whole numbers at which readers go wrong, as bytes of 1 to 8.
EDGES = (
    0,
    1,
    2,
    7,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 36,
    (1 << 63) - 1,
    (1 << 64) - 1,
)

#: What stands where a number, a name, a path or a label should.
TOKENS = (
    "", " ", "nan", "-nan", "inf", "-inf", "1e999", "-1e-999", "0x10", "1_000", "-0", "+1", "٣", "½", "1,5", "1.5.2", "--1",
    "9" * 30, "9" * 5000, "1e5", "0", "1", "-1", "0.5", "1.0000000001", "bonafide", "spoof", "Spoof", "-", "A07", "train",
    "../x", "/etc/passwd", "..", ".", "/", "a/../../b", "\\", "C:\\x", "~", "$(id)", "=1+1", "a\tb", '"', '""', "'", ",",
    "\x00", "\x1b[2J", "\x85", "\u2028", "\ufeff", "\u202e", "é", "e\u0301", "🗣", "\U000e0001", "x" * 300, "x" * 70_000,
    ";", "main", "[[[[[[[[", "{}", "true", "None", "#", "=", "\r", "\n", "\r\n", "\n\n",
)  # fmt: skip
ENCODINGS = ("utf-16", "utf-16-le", "latin-1", "utf-8-sig", "utf-32", "cp1252", "utf-7")


def garbled(draw: random.Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A whole file with one to four of its bytes, stretches or numbers changed, early ones (headers) more often."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        size = len(changed)
        at = draw.randrange(min(size, draw.choice((16, 64, 256, size or 1))) or 1)
        kind = draw.randrange(10)
        if kind <= 1 and size:
            changed[at % size] ^= 1 << draw.randrange(8)
        elif kind == 2 and size:
            changed[at % size] = draw.randrange(256)
        elif kind <= 4:
            width = draw.choice((1, 2, 3, 4, 8))
            value = draw.choice(EDGES) & ((1 << 8 * width) - 1)
            changed[at : at + width] = value.to_bytes(width, draw.choice(("little", "big")))
        elif kind == 5:
            del changed[draw.randrange(size + 1) :]
        elif kind == 6:
            del changed[at : at + draw.choice((1, 2, 3, 4, 8, 100))]
        elif kind == 7:
            changed[at:at] = bytes(draw.randrange(256) for _ in range(draw.choice((1, 2, 4, 8, 30))))
        elif kind == 8:
            start = draw.randrange(size + 1)
            changed[at:at] = changed[start : start + draw.choice((4, 8, 24, 100, 1000))]
        else:
            other = draw.choice(others) if others else b"\0" * 64
            start = draw.randrange(len(other) + 1)
            changed[at:] = other[start:]
    return bytes(changed)


def retold(draw: random.Random, text: str, tokens: Sequence[str] = ()) -> bytes:
    """A text with one to three of its tokens or lines changed; now and then in another encoding, or with bytes turned."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        lines = text.splitlines(keepends=True) or [""]
        i = draw.randrange(len(lines))
        kind = draw.randrange(9)
        if kind <= 3:
            lines[i] = _other_token(draw, lines[i], (*TOKENS, *tokens, *text.split()[:50]))
        elif kind == 4:
            lines.insert(draw.randrange(len(lines) + 1), lines[i])
        elif kind == 5:
            del lines[i]
        elif kind == 6:
            j = draw.randrange(len(lines))
            lines[i], lines[j] = lines[j], lines[i]
        elif kind == 7:
            at = draw.randrange(len(lines[i]) + 1)
            lines[i] = lines[i][:at] + draw.choice((*TOKENS, *tokens)) + lines[i][at:]
        else:
            a, b = draw.choice(
                ((",", ";"), (",", "\t"), (" ", ","), ("\n", "\r"), ("\n", "\r\n"), ("\n", ""), ('"', ""), (" ", "  "))
            )
            lines[i] = lines[i].replace(a, b)
        text = "".join(lines)
    raw = text.encode("utf-8", "replace")
    if draw.random() < 0.05:
        raw = text.encode(draw.choice(ENCODINGS), "replace")
    return garbled(draw, raw) if draw.random() < 0.15 else raw


def _other_token(draw: random.Random, line: str, tokens: Sequence[str]) -> str:
    """A line in which one token, between white space, commas, quotation marks or semicolons, is another."""
    starts = [0, *(i + 1 for i, c in enumerate(line) if c in ' \t,;="[]')]
    start = draw.choice(starts)
    end = next((i for i in range(start, len(line)) if line[i] in ' \t,;="[]\r\n'), len(line))
    return line[:start] + draw.choice(tokens) + line[end:]
