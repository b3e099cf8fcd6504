"""A terminal that shows text of strangers as text: names, notes and warnings of run folders, packs and data sets.

`rich` reads "[red]" and ":bomb:" in a plain string as its own markup, and hands control characters through: a method could
colour the board, move the cursor, set the window's title or end the table with an error. Here markup is only what a caller
turns into a `rich.text.Text`, and whatever a terminal would obey is written out (`reading.printable`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from xaibench.reading import printable


class Screen(Console):
    """A `rich` console for text of strangers.

    file: instead of the standard output. width: in columns. plain: no colours and no notebook, wherever it is written to.
    markup: strings are rich's markup, for callers who escape what they put into them.

    >>> import io
    >>> screen = Screen(file=io.StringIO(), width=40, plain=True)
    >>> screen.print("[red]a[/red] :bomb: \x1b[31m")
    >>> screen.file.getvalue()
    '[red]a[/red] :bomb: \\\\x1b[31m\\n'
    """

    def __init__(
        self, *, file: IO[str] | None = None, width: int | None = None, plain: bool = False, markup: bool = False
    ) -> None:
        off = None if not plain else False
        super().__init__(
            file=file, width=width, markup=markup, emoji=False, highlight=False,
            color_system=None if plain else "auto", force_terminal=off, force_jupyter=off,
            legacy_windows=off,
        )  # fmt: skip

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does it, with every sign that a terminal would obey written out; rich's own stay."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)
