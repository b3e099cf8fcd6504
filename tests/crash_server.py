"""A process that imports xaibench once and forks a run for every line it is sent, so that hundreds can be killed in seconds.

    {"root": ..., "out": ..., "attributors": [...], "changes": {...}, "code": "now", "batch": 1, "die": null,
     "fault": {"at": k, "errno": 28, "on": false}, "limit": ["RLIMIT_FSIZE", 3000]}

`die` says where the forked run ends by SIGKILL: null nowhere, {"after": seconds}, or {"at": k, "half": true}: at its k-th
operation on a file of `out`, before it or, where it is a write, when half of it is done. `code` goes into every
fingerprint in place of the hash of the source, so that rows are stale when a test says so and not when a file is edited.
Answers {"signal": 9 or 0, "operations": how many were counted, "error": "", "computed": rows}. The parent itself never runs
anything, so a fork is safe: it has one thread. Also `train`, for a training in place of a run.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
import toybench
from _pytest.monkeypatch import MonkeyPatch
from toys import ConvCM

from xaibench import registry, training
from xaibench.harness import plan, run, workbench

torch.set_num_threads(1)


class Recipe(toybench.ToyRecipe):
    """Something to learn, with dropout and batch normalisation."""

    name = "conv"

    def untrained(self, *, seed: int) -> ConvCM:
        return ConvCM(seed=seed)


class Operations:
    """Counts what is done to files below a folder, and dies there; by audit events, and patches of what has none."""

    def __init__(self, out: str, at: int | None, half: bool, act) -> None:
        self.out, self.at, self.half, self.act, self.count = out, at, half, act, 0
        self.on = True
        sys.addaudithook(self.heard)
        write, fsync, whole, pwrite = os.write, os.fsync, Path.write_bytes, os.pwrite

        def halved(data: bytes, rest) -> None:
            if self.due(half=True):
                rest(data[: len(data) // 2])
                self.act()

        def patched_write(file, data):
            if self.on:
                halved(data, lambda some: write(file, some))
            return write(file, data)

        def patched_pwrite(file, data, offset):
            halved(data, lambda some: pwrite(file, some, offset))
            return pwrite(file, data, offset)

        def patched_whole(path, data):
            if str(path).startswith(self.out):
                halved(data, lambda some: whole(path, some))
            return whole(path, data)

        def patched_fsync(file):
            self.due()
            return fsync(file)

        os.write, os.fsync, Path.write_bytes, os.pwrite = patched_write, patched_fsync, patched_whole, patched_pwrite

    def due(self, *, half: bool = False) -> bool:
        """Count; whether half of it is to be done first. Does not come back where the time has come to die at once."""
        self.count += 1
        if self.count != self.at:
            return False
        if half and self.half:
            return True
        self.act()
        return False

    def heard(self, event: str, arguments: tuple) -> None:
        if not self.on:
            return
        if event == "open":
            path, _, flags = arguments
            mine = isinstance(path, str | os.PathLike) and str(path).startswith(self.out)
            if mine and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.due()
        elif event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate") and any(
            str(a).startswith(self.out) or ".xaibench-" in str(a) or a == -1 for a in arguments
        ):
            self.due()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def child(asked: dict, answer: int) -> None:
    """In the fork: run, and say what was done."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    said = {"signal": 0, "operations": 0, "error": "", "computed": 0}
    wish = asked.get("die") or {}
    code = asked.get("code", "now")
    for module in (plan, run, workbench):
        module.source_hash = lambda package: code
    root, out = Path(asked["root"]), Path(asked["out"])
    faults = asked.get("fault")
    operations = Operations(str(out), wish.get("at") or (faults or {}).get("at"), wish.get("half", False), die)
    if faults:

        def fail() -> None:
            raise OSError(faults["errno"], os.strerror(faults["errno"]))

        operations.act = fail
        if faults.get("on", False):  # from there on every operation fails, as on a full disk
            operations.due = lambda half=False: _from(operations, fail)
    try:
        if asked.get("train"):
            corpus = toybench.corpus.open(root)
            spec = training.TrainSpec(epochs=3, batch_pairs=1, speeds=(1.0,), average_best=asked["train"])
            training.train(Recipe(), [corpus], out, spec)
        else:
            toybench.install(MonkeyPatch(), *(a for a in asked["attributors"] if a.startswith("toy-")))
            changes = {k: tuple(v) if isinstance(v, list) else v for k, v in asked.get("changes", {}).items()}
            spec = toybench.spec(root, *asked["attributors"], **changes)
            narrow = partial(narrowed, asked.get("limit"))
            said["computed"] = run.run(spec, out, batch_size=asked.get("batch", 1), report=narrow).computed
    except BaseException as error:  # noqa: BLE001 - it is what is asked for
        said["error"] = f"{type(error).__name__}: {error}"
    operations.on = False
    said["operations"] = operations.count
    os.write(answer, json.dumps(said).encode())
    os._exit(0)


def narrowed(limit: list | None, progress) -> None:
    """From the first cell on the process may have only so much of something."""
    if limit and progress.phase == "cells":
        kind = getattr(resource, limit[0])
        resource.setrlimit(kind, (limit[1], resource.getrlimit(kind)[1]))


def _from(operations: Operations, fail) -> bool:
    operations.count += 1
    if operations.on and operations.count >= operations.at:
        fail()
    return False


def main() -> None:
    """Read lines, fork, answer. What torch and the registry look up once is looked up here, before the first fork."""
    registry._scan()
    torch.optim.Adam(ConvCM(seed=0).to("cpu").parameters()).zero_grad()
    for line in sys.stdin:
        asked = json.loads(line)
        hears, says = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(hears)
            child(asked, says)
        os.close(says)
        after = (asked.get("die") or {}).get("after")
        if after is not None:
            time.sleep(after)
            os.kill(pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
        _, status = os.waitpid(pid, 0)
        with os.fdopen(hears, "rb") as pipe:
            said = pipe.read()
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        found = json.loads(said) if said and not killed else {"signal": killed, "operations": 0, "error": "", "computed": 0}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
