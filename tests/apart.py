"""Work in a forked child, so that a crash, a hang or a full memory of native code is a failed test and not the end of all.

The child writes each input to a file before it is read (`Desk.put`), so the input that killed it is that file.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
import shutil
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from xaibench.errors import XaibenchError

SECONDS = 30  # of processor time for one input; the slowest takes a tenth of a second
ROOM = 3 << 30  # bytes of address space beyond what the process has; the largest recording that is allowed takes one
LONGEST_SENTENCE = 3_000  # characters of an error; it is read on a terminal


class Desk:
    """Where one child works: it counts the different inputs, and asks each reader."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inputs: set[int] = set()
        self.taken = 0
        self.faults: dict[str, str] = {}

    def put(self, name: str, content: bytes) -> Path:
        """Write an input to a file, count it if it is new, and give it its time."""
        path = self.folder / name
        path.write_bytes(content)
        self.inputs.add(hash((name, content)))
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # SIGPROF ends the process
        return path

    def ask(self, path: Path, read: Callable[[], Any], *, named: str | None = None) -> Any:
        """What a reader gives, or its sentence, which must name the file. Anything else that it raises fails the test."""
        try:
            found = read()
        except XaibenchError as error:
            sentence = str(error)
            assert (path.name if named is None else named) in sentence, f"the file is not named: {sentence}"
            assert len(sentence) < LONGEST_SENTENCE, f"{len(sentence)} characters: {sentence[:300]} ..."
            return sentence
        self.taken += 1
        return found

    @contextmanager
    def gathering(self, path: Path) -> Iterator[None]:
        """What goes wrong with this input is kept, with a copy of it, once for each place, and told when all are done."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - kept, and told at the end
            frames = [f for f in traceback.extract_tb(error.__traceback__) if "/xaibench/" in f.filename] or [None]
            place = f"{type(error).__name__} at {frames[-1] and (frames[-1].filename, frames[-1].lineno)}"
            if place not in self.faults:
                copy = self.folder / f"fault-{len(self.faults)}-{path.name}"
                shutil.copy(path, copy)
                self.faults[place] = f"{copy}\n{traceback.format_exc()[-3000:]}"


def apart(work: Callable[[Desk], None], folder: Path) -> tuple[int, int]:
    """Run `work` in a child. Returns how many different inputs it had, and how many readings gave a result.

    Fails, naming the file with the last input, where the child dies, hangs, or raises.
    """
    context = multiprocessing.get_context("fork")
    theirs, ours = context.Pipe()
    child = context.Process(target=_work, args=(work, folder, theirs, ours))
    child.start()
    ours.close()
    try:
        said = theirs.recv()
    except EOFError:
        said = None
    child.join()
    if isinstance(said, tuple):
        return said
    died = (
        f"killed by {signal.Signals(-child.exitcode).name}" if (child.exitcode or 0) < 0 else f"ended with {child.exitcode}"
    )
    crash = folder / "crash.txt"
    stack = crash.read_text() if crash.is_file() else ""
    kept = ", ".join(str(p) for p in sorted(folder.iterdir(), key=lambda p: -p.stat().st_mtime_ns)[:2])
    return pytest.fail(f"{said or died}\n{stack[:3000]}\nthe input is one of {kept}")


def _work(work: Callable[[Desk], None], folder: Path, theirs: Any, ours: Any) -> None:
    theirs.close()
    with (folder / "crash.txt").open("w") as crash:
        faulthandler.enable(crash)
        pages = int(Path("/proc/self/statm").read_text().split()[0]) if os.path.exists("/proc/self/statm") else 0
        if pages:
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM,) * 2)
        desk = Desk(folder)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                work(desk)
            ours.send("\n".join(desk.faults.values())[:20_000] if desk.faults else (len(desk.inputs), desk.taken))
        except Exception:  # noqa: BLE001 - the parent tells it
            ours.send(traceback.format_exc()[-6000:])
        signal.setitimer(signal.ITIMER_PROF, 0)
        os._exit(0)  # no clean-up of what belongs to the parent
