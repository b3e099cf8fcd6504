"""Ctrl-C ends every command within two seconds, whatever it is doing.

The first one raises KeyboardInterrupt, so that workers are ended and half-written files removed. That may fail: code of a
method or of a library can catch the exception, one that arrives inside a destructor or a callback is lost, and Python hears
of it only when a long call into C returns. So a thread, which the signal wakes by itself, counts GRACE seconds and then ends
the process as a SIGKILL would. That loses nothing: every file is written whole or not at all, and the same command
continues. A second Ctrl-C does so at once.

A command that has ended by itself does not wait for Python either: an interpreter with torch takes seconds to take itself
apart on a busy machine, and no thread of Python's counts meanwhile.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: Seconds in which a command may end by itself.
GRACE = 1.5
#: Exit status of a command that Ctrl-C ended, as shells have it: 128 and the number of the signal.
STATUS = 128 + signal.SIGINT
STOPPED = "stopped; what was finished is kept, and of a run or an evaluation the same command continues"
#: A progress bar hides it, and may not come to show it again.
SHOW_CURSOR = "\x1b[?25h"
#: Set by whoever has printed STOPPED.
told = threading.Event()
#: Set when a SIGINT has come; how many seconds to wait for the thread to say so.
heard, HEARING = threading.Event(), 0.5


@contextmanager
def heeding_interrupts() -> Iterator[None]:
    """Within the block Ctrl-C is as described above, and after it, where it came within.

    Nothing is changed where Ctrl-C is ignored (`nohup`, a job in the background), and outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    hears, says = os.pipe()
    os.set_blocking(says, False)  # as `set_wakeup_fd` asks for
    before = signal.set_wakeup_fd(says, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(hears,), name="xaibench-interrupts", daemon=True)
    watch.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(says)  # which ends the watch, unless it counts


def leave() -> None:
    """End the process at once where a SIGINT brought it here. Returns where none did."""
    if not heard.wait(HEARING):
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(STATUS)


def _watch(hears: int) -> None:
    """Wait for the first SIGINT, then for a second one or for the end of the grace."""
    signals = b""
    while signal.SIGINT not in signals:
        signals = os.read(hears, 1)
        if not signals:
            os.close(hears)
            return
    heard.set()
    end = time.monotonic() + GRACE
    while select.select([hears], [], [], left := max(0.0, end - time.monotonic()))[0]:
        new = os.read(hears, 1)
        if not new:  # the block is left: nobody writes any more
            time.sleep(left)
        if not new or signal.SIGINT in new:
            break
    if not told.is_set():
        with suppress(OSError, ValueError):  # closed
            if select.select([], [2], [], 0)[1]:  # else a pipe that nobody empties, a terminal that is held: it would wait
                os.write(2, f"{SHOW_CURSOR if os.isatty(2) else ''}{STOPPED}\n".encode())  # whatever holds Python's streams
    os._exit(STATUS)
