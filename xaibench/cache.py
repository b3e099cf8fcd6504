"""Answers kept between commands: small JSON files in the user's cache folder (XDG_CACHE_HOME, else `~/.cache`).

To lose one costs the next call its time and nothing else, so what cannot be read or written is no error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from xaibench import reading
from xaibench.errors import RunError
from xaibench.files import write_text


def place(name: str) -> Path:
    """Where the answer of that name lies, if there is one."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "xaibench" / f"{name}.json"


def kept(name: str) -> dict[str, Any]:
    """The answer of that name; empty where there is none, or a damaged one."""
    try:
        return reading.json_object(place(name), RunError, hint="it is made again")
    except RunError:
        return {}


def keep(name: str, answer: Mapping[str, Any]) -> None:
    """Write an answer whole, or, into a home that cannot be written to, not at all."""
    with suppress(RunError):
        write_text(place(name), json.dumps(answer))
