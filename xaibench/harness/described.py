"""What a plugin says of itself, as a run's record keeps it: pages can then be made where the plugin is not installed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from xaibench import registry
from xaibench.errors import PluginError

_FLAGS = ("signed", "random", "complete", "class_specific", "optional")


def described(group: str, name: str, load: Callable[[str, str], Any] = registry.load) -> dict[str, Any]:
    """One plugin's facts as JSON holds them; imports it, as `load` does. `{"problem": ...}` where it cannot be loaded.

    paper: its citation; summary: a sentence or a few; needs: of `xaibench.protocols.NEEDS`; options: name -> default, as
    text; flags: those of `protocols.Attributor` that hold.

    >>> described("attributors", "random")["flags"]
    ['signed', 'random']
    """
    try:
        thing = load(group, name)
    except PluginError as error:
        return {"problem": str(error)}
    text = inspect.getdoc(getattr(thing, "function", None) or getattr(thing, "build", None)) or ""
    return {
        "paper": str(getattr(thing, "paper", "")),
        "summary": summary(text),
        "needs": sorted(map(str, getattr(thing, "needs", ()))),
        "options": {str(k): _worded(v) for k, v in dict(getattr(thing, "options", {})).items()},
        "flags": [flag for flag in _FLAGS if getattr(thing, flag, False)],
    }


def summary(text: str) -> str:
    """The first paragraph of a docstring, without the shapes, which are for who writes code.

    >>> summary("Contributions to the score.\\nShape: `(B, F, T)`.\\n\\nNotes.")
    'Contributions to the score.'
    """
    return re.sub(r" ?\bShape: `[^`]*`(?: -> `[^`]*`)?[.,]?", "", " ".join(text.split("\n\n")[0].split())).strip()


def _worded(value: object) -> str:
    """An option's value as `--set` takes it: text without quotes, None as none.

    >>> _worded("twin"), _worded(None), _worded((3, 11))
    ('twin', 'none', '(3, 11)')
    """
    return "none" if value is None else value if isinstance(value, str) else repr(value)
