"""What every page and every JSON file of ours is written with."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_BAR = re.compile(r"\\*\|")  # behind a backslash of the text, one of ours would be taken for its other half
_LINK = re.compile(r"\](?=\s*[(\[:])")


def table_line(cells: Sequence[str]) -> str:
    """One line of a markdown table.

    >>> table_line(["a", "b|c"])
    '| a | b\\\\|c |'
    """
    return "| " + " | ".join(escape(c) for c in cells) + " |"


def escape(content: str) -> str:
    """Text that stays one cell of a markdown table, and becomes no element, link or image.

    >>> escape("a|b\\nc"), escape("![x](//e.org)")
    ('a\\\\|b c', '![x&#93;(//e.org)')
    """
    text = _BAR.sub(lambda bar: "\\|" if bar[0] == "|" else bar[0][:-1] + "&#124;", content.replace("<", "&lt;"))
    return " ".join(_LINK.sub("&#93;", text).split())


def plain(value: Any) -> Any:
    """A value JSON can hold, within mappings and sequences, too: unknown and infinite numbers are None.

    >>> plain({"a": float("nan"), "b": (1, float("inf"))})
    {'a': None, 'b': [1, None]}
    """
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
