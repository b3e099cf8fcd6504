"""What the commands print: notes, progress, boards, summaries."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaibench.errors import XaibenchWarning

if TYPE_CHECKING:
    from xaibench.harness.run import Progress, Summary

WIDTH = 112  # columns of a table in a file or a pipe: that of `leaderboard.render`, which `list` need not import


def console() -> Any:
    """Where tables go: in a file or a pipe they keep their full width."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    return console


def note(message: str) -> None:
    """One line to the standard error, for what the user should know and need not act on."""
    print(f"note: {message}", file=sys.stderr)


@contextmanager
def notes_of_warnings() -> Iterator[None]:
    """Each of our own warnings within the block as one `note`, once; other libraries' as Python shows them."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", XaibenchWarning)
        yield
    for message in dict.fromkeys(str(w.message) for w in told if issubclass(w.category, XaibenchWarning)):
        note(message)
    for w in told:
        if not issubclass(w.category, XaibenchWarning):
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)


class progress_bar:
    """A rich progress bar fed by the harness' reports."""

    def __enter__(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        console = Console(file=sys.stderr, stderr=True)  # the stream of now: a method's prints are caught meanwhile
        self.bar = Progress(
            TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("ETA"), TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self.bar.start()
        self.tasks: dict[str, Any] = {}
        return self.step

    def step(self, progress: Progress) -> None:
        if progress.phase not in self.tasks:
            self.tasks[progress.phase] = self.bar.add_task(progress.phase, total=progress.total)
        text = f"{progress.phase} {progress.message}".strip()[:44]
        self.bar.update(self.tasks[progress.phase], completed=progress.done, total=progress.total, description=text)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()


def print_summary(summary: Summary) -> None:
    """What a run did, and its problems."""
    counts = ", ".join(f"{n} {status}" for status, n in sorted(summary.statuses.items()))
    done = f"{summary.computed} rows computed ({counts})" if summary.computed else "nothing to do"
    print(f"{summary.folder}: {done}, {summary.kept} kept, {summary.seconds:.0f} s")
    for problem in summary.problems:
        print(f"  note: {problem}")


def print_board(runs: list[Path], metrics: list[str] | None, *, cluster: str = "utterance", quiet: bool = False) -> Any:
    """Print the board of some run folders, unless quiet, and return it."""
    if "numpy" not in sys.modules:  # it asks once. A board's products are small: a second thread waits more than it works
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from xaibench.leaderboard import render, table

    rows = table.read_rows(runs, encoded=True)
    gone = table.unknown_metrics(rows)
    if gone:
        note(f"rows of metrics that this version does not have are left out: {', '.join(gone)}; run again to have them made")
    board = table.board(rows, metrics=metrics, cluster=cluster)
    if not quiet:
        screen = console()
        screen.print(render.terminal(board, narrow=screen.width < WIDTH))
    return board
