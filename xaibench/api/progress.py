"""How far a run is, in a notebook: one bar that moves and goes when the run is done. Elsewhere nothing is shown.

The bar is plain HTML, updated in place, so no widgets need to be installed.
"""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xaibench.harness.run import Progress

EVERY = 0.2  # seconds between two pictures of the bar


@contextmanager
def shown(report: Callable[[Progress], None] | None = None) -> Iterator[Callable[[Progress], None]]:
    """What to call with every step: `report` where there is one, else a bar in a notebook, else nothing happens."""
    if report is not None:
        yield report
        return
    display = _display()
    if display is None:
        yield lambda progress: None
        return
    handle, last = display(_html("beginning", 0, 0), display_id=True), time.monotonic()

    def step(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last > EVERY:
            handle.update(_html(f"{progress.phase} {progress.message}".strip(), progress.done, progress.total))
            last = time.monotonic()

    try:
        yield step
    finally:
        handle.update(_Html(""))


class _Html:
    """HTML for IPython's display; `IPython.display.HTML` without the import."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_html_(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return ""


def _html(what: str, done: int, total: int) -> _Html:
    """The bar; without a total, one that only says that something happens.

    >>> _html("cells <b>", 1, 4)._repr_html_()
    '<progress value="1" max="4" aria-label="progress"></progress> 1 of 4, cells &lt;b&gt;'
    """
    how = f' value="{done}" max="{total}"' if total else ""
    text = f"{done} of {total}, {what}" if total else what
    return _Html(f'<progress{how} aria-label="progress"></progress> {html.escape(text)}')


def _display() -> Any | None:
    """IPython's `display` where a notebook listens, else None."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython
    from IPython.display import display

    shell = get_ipython()
    return display if shell is not None and hasattr(shell, "kernel") else None
