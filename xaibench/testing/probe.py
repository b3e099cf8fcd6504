"""A process that has imported torch and xaibench and nothing else, and forks for every plugin whose import is judged.

    python -m xaibench.testing.probe        one line of JSON in, {"module": "my_package.mine", "path": [...]}; one line out

Its answer: seconds that the import took, those spent in the package's own modules, and what it changed. The fork is what
makes a fresh process cheap; where there is none (Windows), every question starts a process.

What is the plugin's own is what happens between its imports of other packages: what those take and change is told apart.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import importlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

from xaibench.probe import ended

#: Seconds in which the attributors of a module must have been asked on a second device.
SECOND_SECONDS = 60.0
_server: list[subprocess.Popen[str]] = []
#: As it was before any plugin was loaded here: what one set must not be there already when its import is judged.
_ENVIRONMENT = dict(os.environ)


def imported(module: str, attributors: Sequence[str] = ()) -> dict[str, Any]:
    """What importing a module does in a fresh process: `seconds`, `own`, `changed`, `by_libraries`, `printed`, `error`.

    attributors: names within the module that are asked on a second device afterwards; `second` has the answers.
    """
    question = json.dumps({"module": module, "path": [p for p in sys.path if p], "attributors": list(attributors)})
    if not hasattr(os, "fork"):
        return _answer(_start(), question)
    if not _server or _server[0].poll() is not None:
        _server[:] = [_start()]
        atexit.register(_stop)
    return _answer(_server[0], question)


def _start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "xaibench.testing.probe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env={**_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip


def _stop() -> None:
    for server in _server:
        asks, _ = _pipes(server)
        asks.close()
        server.wait(timeout=10)
    _server.clear()


def _answer(server: subprocess.Popen[str], question: str) -> dict[str, Any]:
    asks, says = _pipes(server)
    asks.write(question + "\n")
    asks.flush()
    line = says.readline()
    return json.loads(line) if line else {"error": "the import ended its process", "changed": []}


def _pipes(server: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    if server.stdin is None or server.stdout is None:
        raise RuntimeError("the process was started without pipes")
    return server.stdin, server.stdout


def judged(module: str, folder: Path) -> dict[str, Any]:
    """Import a module here and compare before and after. To be called in a process that ends afterwards.

    folder: an empty one, where it finds itself.
    """
    from xaibench.testing.snapshots import changed, of_shared

    package, inner = module.partition(".")[0], [0.0]
    os.chdir(folder)
    usual, printed, error = builtins.__import__, io.StringIO(), ""
    depth: list[str] = []
    mine: dict[str, str] = {}
    theirs: dict[str, str] = {}
    facts = [of_shared()]

    def settle(labels: dict[str, str]) -> None:
        depth.append("")  # what is imported to look is nobody's
        now = of_shared()
        labels |= {label: _difference(facts[0][label], now[label]) for label in changed(facts[0], now)}
        facts[0] = now
        depth.pop()

    def import_(name: str, globals_: Any = None, locals_: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        importer = str((globals_ or {}).get("__name__", ""))
        foreign = _of(importer, package) and not level and not _of(name, package) and not depth
        if not foreign:
            return usual(name, globals_, locals_, fromlist, level)
        started = time.perf_counter()
        settle(mine)
        depth.append(name)
        try:
            return usual(name, globals_, locals_, fromlist, level)
        finally:
            depth.pop()
            settle(theirs)
            inner[0] += time.perf_counter() - started

    builtins.__import__ = cast(Any, import_)  # its arguments are all positional, whatever their names
    started = time.perf_counter()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            importlib.import_module(module)
    except BaseException as raised:  # noqa: BLE001 - whatever it raises is the answer
        error = f"{type(raised).__name__}: {raised}"
    finally:
        builtins.__import__ = usual
    seconds = time.perf_counter() - started
    settle(mine)
    written = sorted(p.name for p in folder.iterdir())
    return {
        "seconds": seconds, "own": seconds - inner[0], "error": error, "printed": printed.getvalue()[:200],
        "changed": [f"{label} ({what})" if what else label for label, what in mine.items()]
        + [f"files in the working directory ({', '.join(written)})"] * bool(written),
        "by_libraries": sorted(theirs),
    }  # fmt: skip


def _of(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _difference(before: Any, after: Any) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        return ", ".join(sorted(str(k) for k in before.keys() | after.keys() if before.get(k) != after.get(k)))
    if isinstance(before, list) and isinstance(after, list) and all(isinstance(x, str) for x in before + after):
        return ", ".join(sorted(set(before) ^ set(after)))
    text = f"{before} -> {after}"
    return text if len(text) < 80 else ""


def main() -> None:
    """Serve questions from the standard input until it closes; each in a fork."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for line in sys.stdin:
        question = json.loads(line)
        answers.write(_forked(question) + "\n")
        answers.flush()
        if not hasattr(os, "fork"):
            break


def _forked(question: dict[str, Any]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        said = _said(question, Path(folder))
    found, *second = [json.loads(line) for line in said.splitlines()]
    return json.dumps({**found, "second": second[0] if second else {}})


def _said(question: dict[str, Any], folder: Path) -> str:
    """A line on the import, and one of `second`; without the latter where an attributor ended the process, or hangs."""

    def answers() -> Iterator[str]:
        sys.path[:] = list(dict.fromkeys([*question["path"]]))
        found = judged(question["module"], folder)
        yield json.dumps(found) + "\n"
        if question["attributors"] and not found["error"]:
            from xaibench.testing.devices import ask_there

            yield json.dumps(ask_there(sys.modules[question["module"]], question["attributors"])) + "\n"

    if not hasattr(os, "fork"):
        return "".join(answers())
    assert threading.active_count() == 1, "a fork of a process with threads is not a fresh one"
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            for line in answers():
                os.write(write, line.encode())
        finally:
            os.kill(os.getpid(), signal.SIGKILL)  # no exit handlers: all is said
    os.close(write)
    said = b""
    with os.fdopen(read, "rb", buffering=0) as pipe:
        while not said.endswith(b"\n") or select.select([pipe], [], [], SECOND_SECONDS)[0]:
            new = pipe.read(65_536)
            if not new:
                break
            said += new
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    error = f"the import ended its process ({ended(os.waitstatus_to_exitcode(status))})"
    return said[: said.rfind(b"\n") + 1].decode() or json.dumps({"error": error, "changed": []})


if __name__ == "__main__":
    import scipy.signal
    import scipy.stats  # noqa: F401

    import xaibench.metrics.again
    import xaibench.testing.devices
    import xaibench.testing.snapshots
    import xaibench.testing.toys  # noqa: F401 - what every fork shall have

    main()
