"""Questions to code that may never answer: asked one after the other in a process of its own, with a time limit each.

A question that ends the process, or takes too long, is told apart from the others by where the answers stop; the rest are
asked again in a new process. So one bad plugin costs one answer, and the process that asks imports nothing.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

_LOOK = 0.02  # seconds between two looks at the answers
_MARK = "XAIBENCH_ASKED_BY"  # variable by which what a process started is known


def ask(function: str, questions: Sequence[str], *, seconds: float, lost: int | None = None) -> dict[str, Any]:
    """`function(question)` for each, by question; the function is named as `package.module:name` and answers in JSON.

    seconds: how long one may take. One without an answer, as it raised or worse, has the reason as `Silent`.
    lost: after so many without an answer the rest is not asked, and not among the answers; None for all.

    What ends its process is asked once more, in a process where nothing was asked before: the one before may be to blame.
    """
    found: dict[str, Any] = {}
    left = list(questions)
    while left and (lost is None or sum(isinstance(said, Silent) for said in found.values()) < lost):
        answers, reason, late = _process(function, left, seconds)
        found |= dict(zip(left, answers, strict=False))
        left = left[len(answers) :]
        if left and (late or not answers):
            found[left.pop(0)] = Silent(reason)
    return found


class Silent(str):
    """Why there is no answer: "its process ended with exit code 7"."""


def _process(function: str, questions: list[str], seconds: float) -> tuple[list[Any], str, bool]:
    """Answers in the order of the questions, as many as came; why no more did, and whether it was for want of time."""
    code = f"import sys, json; sys.path[:], *asked = json.load(sys.stdin)\nfrom {__name__} import answer; answer(*asked)"
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    with tempfile.TemporaryFile() as written, tempfile.TemporaryFile() as asked:  # a command line has no room for thousands
        asked.write(json.dumps([sys.path, function, *questions]).encode())
        asked.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=asked, stdout=written, stderr=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, _MARK: mark},
        )  # fmt: skip
        late = _late(process, written, seconds)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # and whatever it started
        status = process.wait()
        _end_all(mark)
        written.seek(0)
        lines = [line for line in written.read().splitlines(keepends=True) if line.endswith(b"\n")]  # one may be cut off
    answers: list[Any] = []
    for line in lines[1:]:
        try:
            answers.append(json.loads(line))
        except ValueError:  # somebody wrote into our file, or changed what writes there
            return answers, "its answer cannot be read", False
    if not lines:
        return answers, "could not be asked: a process of its own did not start", late
    return answers, f"it took longer than {seconds:g} s" if late else ended(status), late


def _end_all(mark: str) -> None:
    """End what a process of ours started in a session of its own: it has inherited the mark. Linux only."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is somebody else's
            if f"{_MARK}={mark}\0".encode() in environment.read_bytes():
                os.kill(int(environment.parent.name), signal.SIGKILL)


def _late(process: subprocess.Popen, written: IO[bytes], seconds: float) -> bool:
    """Wait for the end; whether it had to be given up, as no answer came for so long."""
    size, since = 0, time.monotonic()
    while process.poll() is None:
        now = os.fstat(written.fileno()).st_size
        if now != size:
            size, since = now, time.monotonic()
        if time.monotonic() - since > seconds:
            return True
        time.sleep(_LOOK)
    return False


def ended(code: int) -> str:
    """How a process ended, from its exit status as `subprocess` gives it.

    >>> ended(7), ended(-11)
    ('its process ended with exit code 7', 'its process was killed by signal 11 (SIGSEGV)')
    """
    if code >= 0:
        return f"its process ended with exit code {code}"
    with suppress(ValueError):
        name = signal.Signals(-code).name
        why = ", perhaps as memory ran out" if -code == signal.SIGKILL else ""
        return f"its process was killed by signal {-code} ({name}{why})"
    return f"its process was killed by signal {-code}"


def answer(function: str, *questions: str) -> None:
    """The other side: ask `function` each question, a line of JSON an answer. What is printed meanwhile goes nowhere.

    A first empty line says that the process has begun.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # of this process: nobody reads it
    module, _, name = function.partition(":")
    asked = getattr(importlib.import_module(module), name)
    answers.write("\n")
    answers.flush()
    for question in questions:
        answers.write(json.dumps(asked(question)) + "\n")
        answers.flush()
    os.kill(os.getpid(), signal.SIGKILL)  # all is said; a thread that an import left behind would keep the process
