"""Where the processes of `--isolate` come from, and where they end with all that they started.

A `Nursery` is a process that has imported torch and the harness and nothing else: it forks a worker in milliseconds, where
a fresh interpreter takes seconds. It has one thread, has computed nothing and has not touched a GPU, so that forking it is
safe. Workers lead sessions of their own; the nursery reaps them and, as their "subreaper" (prctl(2)), also what they
started and left behind. It ends, with everything it forked, when the process that asked for it ends, however that happens.
`Fresh` is the same for systems without these means (macOS): a new interpreter a worker.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from xaibench.errors import RunError

_REQUEST = struct.Struct("<ci")  # what to do, with which process
_ANSWER = struct.Struct("<i")
_START, _RUNS, _END = b"s", b"r", b"e"
#: Seconds for a worker that has hung up to end by itself, so that its exit status is its own.
GRACE = 2.0
#: The answer of `end` for a process that had hung up and did not end; no exit status.
STUCK = 256

_FRESH = "import sys, json; sys.path[:] = json.loads(sys.argv[1])\nfrom xaibench.harness.{module} import {function}; "
_NURSERY = _FRESH.format(module="nursery", function="serve") + "serve(int(sys.argv[2]))"
_WORKER = _FRESH.format(module="isolated", function="work_off") + "work_off(int(sys.argv[2]), int(sys.argv[3]))"


class Nursery:
    """The other process. Its methods may be called by any thread; they raise RunError when it is gone."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = _popen(_NURSERY, theirs.fileno())
        self._socket, self._turn = ours, threading.Lock()

    def start(self, connection: int, paper: int) -> int:
        """A new worker with copies of these two file descriptors. Returns its process id."""
        return self._asked(_START, 0, [connection, paper])

    def runs(self, process: int) -> bool:
        """Whether a worker still runs."""
        return bool(self._asked(_RUNS, process))

    def end(self, process: int, *, hung_up: bool = False) -> int:
        """End a worker and what it started. Returns its exit status, negative for a signal, or STUCK.

        hung_up: it closed its end of the connection, so that it should be ending by itself.
        """
        return self._asked(_END, -process if hung_up else process)

    def close(self) -> None:
        """End the nursery and every worker."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for an answer
        self._socket.close()
        self._process.wait()

    def _asked(self, what: bytes, process: int, files: list[int] | None = None) -> int:
        with self._turn:
            try:
                socket.send_fds(self._socket, [_REQUEST.pack(what, process)], files or [])
                answer = self._socket.recv(_ANSWER.size)
            except OSError:
                answer = b""
        if not answer:
            raise RunError(
                "the process that starts the others has ended (out of memory?); finished rows are kept, the same command "
                "continues"
            )
        return _ANSWER.unpack(answer)[0]


class Fresh:
    """As `Nursery`, with an interpreter of its own for each worker."""

    def __init__(self) -> None:
        self._workers: dict[int, subprocess.Popen] = {}

    def start(self, connection: int, paper: int) -> int:
        """As `Nursery.start`."""
        worker = _popen(_WORKER, connection, paper)
        self._workers[worker.pid] = worker
        return worker.pid

    def runs(self, process: int) -> bool:
        """As `Nursery.runs`."""
        worker = self._workers.get(process)
        return worker is not None and worker.poll() is None

    def end(self, process: int, *, hung_up: bool = False) -> int:
        """As `Nursery.end`."""
        worker = self._workers.pop(process, None)
        if worker is None:  # closed meanwhile
            return 0
        stuck = hung_up and not _soon(lambda: worker.poll() is not None)
        _kill(process)
        status = worker.wait()
        return STUCK if stuck else status

    def close(self) -> None:
        """As `Nursery.close`."""
        for process in list(self._workers):
            self.end(process)


def here() -> Nursery | Fresh:
    """What this system has."""
    return Nursery() if sys.platform.startswith("linux") else Fresh()


def _popen(code: str, *files: int) -> subprocess.Popen:
    command = [sys.executable, "-c", code, json.dumps(sys.path), *map(str, files)]
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(command, pass_fds=files, stdin=nowhere, stdout=nowhere, start_new_session=True)


def _kill(process: int) -> None:
    """A worker and its group, whether it leads one already or not."""
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(process, signal.SIGKILL)


def _soon(ended: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + GRACE
    while not ended():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def serve(descriptor: int) -> None:
    """The nursery's life: answer requests until the other end of the socket is closed, then end every worker.

    In the forks it returns when the worker is done.
    """
    from xaibench.harness import isolated

    pr_set_child_subreaper = 36  # prctl.h
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)
    workers: set[int] = set()
    with socket.socket(fileno=descriptor) as control:
        while True:
            try:
                message, files, _, _ = socket.recv_fds(control, _REQUEST.size, 2)
            except ConnectionError:  # closed before it took the last answer
                break
            if not message:
                break
            what, process = _REQUEST.unpack(message)
            if what == _START:
                answer = os.fork()
                if answer == 0:
                    control.close()
                    isolated.work_off(*files)
                    return
                workers.add(answer)
                for file in files:
                    os.close(file)
            elif what == _RUNS:
                answer = int(not _over(process))
            else:
                answer = _ended(abs(process), hung_up=process < 0)
                workers.discard(abs(process))
                _sweep(workers)
            try:
                control.send(_ANSWER.pack(answer))
            except ConnectionError:  # the run was ended meanwhile
                break
    for process in workers:
        _ended(process, hung_up=False)
    _sweep(set())
    os.kill(os.getpid(), signal.SIGKILL)  # an interpreter with torch takes a second to take itself apart


def _over(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _ended(process: int, *, hung_up: bool) -> int:
    stuck = hung_up and not _soon(lambda: _over(process))
    _kill(process)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return STUCK if stuck else status


def _sweep(workers: set[int]) -> None:
    """End what ended workers left behind: children of ours that are no workers. Their children come to us in turn."""
    family = Path(f"/proc/self/task/{os.getpid()}/children")
    for _ in range(100):
        with suppress(OSError):  # a kernel without this file
            orphans = {int(p) for p in family.read_text(encoding="ascii").split()} - workers
            for orphan in orphans:
                _kill(orphan)
                os.waitpid(orphan, 0)
            if orphans:
                continue
        return
