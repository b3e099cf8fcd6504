"""What the commands print: notes, progress, boards, summaries."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaibench.errors import XaibenchError, XaibenchWarning
from xaibench.reading import printable

if TYPE_CHECKING:
    from xaibench.harness.run import Progress, Summary

WIDTH = 112  # columns of a table in a file or a pipe: that of `leaderboard.render`, which `list` need not import


def console(*, markup: bool = False) -> Any:
    """Where tables go: in a file or a pipe they keep their full width. Strings are text, unless a caller has markup."""
    from xaibench.screen import Screen

    console = Screen(markup=markup)
    if not console.is_terminal:
        console.width = WIDTH
    return console


def say(text: object = "", *, end: str = "\n", flush: bool = False) -> None:
    """Print a line to the standard output, with nothing in it that a terminal obeys: names are anybody's."""
    print(printable(str(text)), end=end, flush=flush)


def note(message: str) -> None:
    """One line to the standard error, for what the user should know and need not act on."""
    print(f"note: {printable(message)}", file=sys.stderr)


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


#: Seconds between two lines of progress where there is no terminal to draw a bar on.
EVERY = 60.0


class progress_bar:
    """Shows the harness' reports: a bar on a terminal, elsewhere (a log file, a batch job) a line every EVERY seconds.

    The time left is that of the whole phase so far, at its own speed: chunks differ a hundredfold in cost, so the speed of
    the last few says nothing.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.began: dict[str, float] = {}

    def __enter__(self) -> Callable[[Progress], None]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.console = Console(file=sys.stderr, stderr=True)  # the stream of now: a method's prints are caught meanwhile
        self.bar = Progress(
            TextColumn("{task.description:<44}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"), console=self.console, transient=True,
            disable=not self.console.is_terminal, get_time=self.clock,
        )  # fmt: skip
        self.bar.start()
        self.tasks: dict[str, Any] = {}
        self.last = self.clock()
        return self.step

    def step(self, progress: Progress) -> None:
        now = self.clock()
        if progress.phase not in self.tasks:
            self.tasks[progress.phase] = self.bar.add_task(progress.phase, total=progress.total, left="")
            self.began[progress.phase] = now
        left = time_left(progress.done, progress.total, now - self.began[progress.phase])
        text = f"{progress.phase} {progress.message}".strip()[:44]
        self.bar.update(
            self.tasks[progress.phase], completed=progress.done, total=progress.total, description=text, left=left
        )
        if not self.console.is_terminal and now - self.last >= EVERY:
            self.last = now
            share = f"{100 * progress.done / progress.total:.0f} %" if progress.total else ""
            parts = [f"{progress.done:,} of {progress.total:,}", share, left]
            print(printable(f"{text}: {', '.join(filter(None, parts))}"), file=self.console.file, flush=True)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()


def time_left(done: int, total: int, seconds: float) -> str:
    """How long the rest takes at the speed so far, in words; "" while nothing is known.

    >>> time_left(100, 400, 60.0), time_left(1, 10_000, 3.0), time_left(0, 400, 60.0)
    ('about 3 min left', 'about 8 h 20 min left', '')
    """
    if not done or done >= total:
        return ""
    rest = seconds * (total - done) / done
    if rest < 90:
        return f"about {rest:.0f} s left"
    minutes = round(rest / 60)
    return f"about {minutes} min left" if minutes < 120 else f"about {minutes // 60} h {minutes % 60} min left"


def print_summary(summary: Summary) -> None:
    """What a run did, and its problems."""
    counts = ", ".join(f"{n} {status}" for status, n in sorted(summary.statuses.items()))
    done = f"{summary.computed} rows computed ({counts})" if summary.computed else "nothing to do"
    say(f"{summary.folder}: {done}, {summary.kept} kept, {summary.seconds:.0f} s")
    for problem in summary.problems:
        say(f"  note: {problem}")


def said_beside(runs: list[Path]) -> list[str]:
    """Version of the benchmark, what preflight found in some runs, and who warned, in sentences; a damaged file is one."""
    from xaibench.harness import verdicts, warned
    from xaibench.run_record import read_record

    def warnings(runs: list[Path]) -> list[str]:
        return [said] if (said := warned.sentence(warned.read_warnings(runs))) else []

    lines = [f"Benchmark version {read_record(runs[0]).get('benchmark', 1)}."]  # that of all, or they share no board
    for read in (lambda runs: verdicts.sentences(verdicts.read_checks(runs)), warnings):
        try:
            lines += read(runs)
        except XaibenchError as error:
            lines.append(str(error))
    return lines


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
        for line in said_beside(runs):
            screen.print(f"- {line}")
    return board
