"""How docstrings become Markdown: examples (`>>> ...`) become code, and tables of names become lists of definitions.

The house writes docstrings for readers of the code; without this a browser would run their columns into one paragraph.
griffe calls `on_object` for everything it reads (mkdocs.yml, `extensions`).
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension

ITEM = re.compile(r"^(\w[\w.,* /-]*?)(?::\s+|\s{2,})(\S.*)$")


class Docstrings(Extension):
    """See the module."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """A docstring as Markdown.

    >>> markdown("name:   what it is\\n        and more\\nvalues: `(B, F, T)`")
    '`name`\\n:   what it is and more\\n\\n`values`\\n:   `(B, F, T)`'
    >>> markdown(">>> 1 + 1\\n2")
    '```pycon\\n>>> 1 + 1\\n2\\n```'
    """
    return "\n\n".join(_paragraph(part) for part in re.split(r"\n\s*\n", text))


def _paragraph(part: str) -> str:
    if part.lstrip().startswith(">>>"):
        return f"```pycon\n{part}\n```"
    lines = part.split("\n")
    found: list[tuple[str, str]] = []
    for line in lines:
        item = ITEM.match(line)
        if item:
            found.append((item[1], item[2]))
        elif line.startswith("  ") and found:
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
        else:
            return part
    if len(found) < 2:
        return part
    return "\n\n".join(f"`{name}`\n:   {what}" for name, what in found)
