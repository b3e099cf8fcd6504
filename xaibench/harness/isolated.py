"""The process side of `--isolate`: one countermeasure and method, task after task, until the run hangs up or ends it.

The run is told when a task begins, whose code runs (`guard.watched`), and what came of it. Messages begin with a letter:

    r                    everything is open; from here on the method's time counts
    a[name, utterances]  whose code begins, in JSON; ["", 0] when none runs
    d<answer>            the task's `Done` (`xaibench.harness.answers`)
    x<answer>            an error that is no method's

What is sent to the run opens with `HEAD`, so that what a method writes into files that are not its own is told apart.
"""

from __future__ import annotations

import faulthandler
import json
import os
import pickle
import struct
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from xaibench.errors import RunError, XaibenchError
from xaibench.harness.answers import MOST, written
from xaibench.harness.guard import watched
from xaibench.harness.tasks import Task
from xaibench.harness.worker import Remotely  # what every task needs, imported before the fork

READY, RUNS, DONE, ERROR = b"r", b"a", b"d", b"x"
#: Before each message: a mark, and how many bytes follow.
HEAD, MARK = struct.Struct("!8sQ"), b"xaibench"


def work_off(connection: int, paper: int) -> None:
    """Do what comes through the connection. paper: where the process' own output goes, both file descriptors."""
    with suppress(PermissionError):
        os.setsid()  # it leads a session already where it was not forked
    for standard in (1, 2):
        os.dup2(paper, standard)
    os.close(paper)
    faulthandler.enable()  # a crash in C says where
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")  # when memory ends, this process goes first
    run = Connection(connection)
    os.register_at_fork(after_in_child=run.close)  # what a method forks has nothing to say
    work: Any = None  # the first message brings a `Remotely`
    with suppress(EOFError, OSError), watched(lambda name, count: _say(run, RUNS + json.dumps([name, count]).encode())):
        while True:
            threads, new, task = pickle.loads(run.recv_bytes())
            work = new or work
            torch.set_num_threads(threads)
            _say(run, _answered(run, work, task))


def _say(run: Connection, message: bytes) -> None:
    left = memoryview(HEAD.pack(MARK, len(message)) + message)
    while left:
        left = left[os.write(run.fileno(), left) :]


def first(came: bytearray) -> bytes | None:
    """The first message of what came, taken away from it; None where it is not whole yet. Raises ValueError for noise, and
    for a message longer than any is."""
    if not MARK.startswith(came[: len(MARK)]):
        raise ValueError("what came is not from work_off")
    end = HEAD.size + HEAD.unpack_from(came)[1] if len(came) >= HEAD.size else None
    if end is not None and end > MOST:
        raise ValueError(f"a message of {end:,} bytes")
    if end is None or len(came) < end:
        return None
    message = bytes(came[HEAD.size : end])
    del came[:end]
    return message


def _answered(run: Connection, work: Remotely, task: Task) -> bytes:
    try:
        work.ready(task)
        _say(run, READY)
        return DONE + written(work(task))
    except XaibenchError as error:
        return ERROR + written(error)
    except Exception:  # noqa: BLE001 - a fault of ours: the run says it
        return ERROR + written(RunError(f"a process of --isolate failed:\n{traceback.format_exc()}"))
