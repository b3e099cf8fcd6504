"""What a system refuses: a full disk, a read-only folder, few file handles, a clock that goes back, a folder that is taken.

Each is an error of ours that names the file, and loses nothing that was finished.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import toybench
from crashing import SEED, assert_same, files, rows, told

from xaibench import lock
from xaibench.errors import RunError
from xaibench.harness import run as harness
from xaibench.harness.run import run

REFUSALS = {"full disk": errno.ENOSPC, "read-only": errno.EROFS, "not allowed": errno.EACCES, "broken disk": errno.EIO}


@pytest.fixture(scope="module")
def expected(server, tmp_path_factory):
    """An uninterrupted run, and its operations on files."""
    out = tmp_path_factory.mktemp("expected")
    return out, server.run(out)["operations"]


def refused_at(server, expected, out: Path, at: int, number: int, *, on: bool) -> None:
    """One operation is refused, or every one from there `on`; then the same command again."""
    shutil.rmtree(out, ignore_errors=True)
    said = server.run(out, fault={"at": at, "errno": number, "on": on})
    before = {name: (out / name).read_bytes() for name in files(out) if name.startswith("rows/")} if out.exists() else {}
    if said["error"]:  # not where only scratch could not be removed
        assert said["error"].startswith("RunError: ") and str(out) in said["error"], said
        assert os.strerror(number) in said["error"], said
    assert not server.run(out)["error"]
    assert_same(out, expected[0])
    assert {name: (out / name).read_bytes() for name in before if ".xaibench-" not in name}.items() <= before.items()


@pytest.mark.parametrize("refusal", REFUSALS)
def test_what_the_system_refuses_is_an_error_of_ours_and_loses_nothing(server, expected, tmp_path, refusal):
    told(SEED)
    random_ = random.Random(f"{SEED}{refusal}")
    for at in random_.sample(range(1, expected[1] + 1), 2):
        refused_at(server, expected, tmp_path / "run", at, REFUSALS[refusal], on=random_.random() < 0.5)


@pytest.mark.heavy
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize("refusal", ["full disk", "read-only"])
def test_refused_at_every_operation_on_files(server, expected, tmp_path, refusal, on):
    for at in range(1, expected[1] + 1):
        refused_at(server, expected, tmp_path / "run", at, REFUSALS[refusal], on=on)


# ---- limits of a process -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "most"), [("RLIMIT_FSIZE", 3_000), ("RLIMIT_NOFILE", 4)])
def test_a_limit_of_the_process_is_an_error_of_ours_and_loses_nothing(server, expected, tmp_path, name, most):
    said = server.run(tmp_path, limit=[name, most])["error"]
    reason = "File too large" if name == "RLIMIT_FSIZE" else "Too many open files"
    assert said.split(": ")[0] in ("RunError", "PluginError", "CheckpointError"), "whoever meets the limit first"
    assert reason in said and (str(tmp_path) in said or str(server.root) in said)
    assert not server.run(tmp_path)["error"]
    assert_same(tmp_path, expected[0])


def test_a_run_holds_few_files_open(root, tmp_path, monkeypatch):
    """As many after forty chunks as after the first: there is nothing that a file-handle limit could meet."""
    toybench.install(monkeypatch, "toy-gradient")
    count = []

    def report(progress):
        if progress.phase == "cells":
            count.append(len(os.listdir("/proc/self/fd")))

    run(toybench.spec(root, "toy-gradient", "energy", "centre", keep_maps=True), tmp_path, batch_size=1, report=report)
    assert len(count) == 19 and len(set(count[1:])) == 1


# ---- the clock ---------------------------------------------------------------------------------------------------------


def test_a_clock_that_goes_back_changes_no_row(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch, "toy-gradient")
    spec = toybench.spec(root, "toy-gradient", "energy")
    run(spec, tmp_path / "expected", batch_size=2)
    now = [time.time() + 1e8]

    def back() -> float:
        now[0] -= 86_400
        return now[0]

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2030, 1, 1, tzinfo=UTC) - timedelta(days=(now[0] - back()) / 86_400 + len(days))

    days: list[int] = []
    for module in (harness, lock):
        monkeypatch.setattr(module, "datetime", Clock)
    monkeypatch.setattr(time, "time", back)
    for limit in (2, 4, None):
        days.append(0)
        some = toybench.spec(root, "toy-gradient", "energy", **({"limit": limit} if limit else {}))
        run(some, tmp_path / "out", batch_size=2)
        for path in (tmp_path / "out").rglob("*"):
            os.utime(path, (4e9, 4e9))  # in the future, year 2096
    pd.testing.assert_frame_equal(rows(tmp_path / "out"), rows(tmp_path / "expected"), check_exact=True)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["days"] == sorted(record["days"]) and len(record["days"]) == 3
    assert run(spec, tmp_path / "out", batch_size=2).computed == 0


# ---- two at once -------------------------------------------------------------------------------------------------------


def test_the_second_process_is_told_who_the_first_is(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    spec = toybench.spec(root, "energy", limit=1)
    holding = "import sys; from pathlib import Path; from xaibench import lock\n"
    holding += "with lock.held(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", holding, str(tmp_path)], stdin=-1, stdout=-1, text=True)
    assert holder.stdout.readline() == "held\n"
    who = rf"{tmp_path}: another process .*\(process {holder.pid} on .*, since 20.*UTC\); wait"
    with pytest.raises(RunError, match=who):
        run(spec, tmp_path)
    assert lock.holder(tmp_path)["pid"] == holder.pid
    holder.kill()
    holder.communicate()
    assert lock.holder(tmp_path) is None and lock.killed(tmp_path)["pid"] == holder.pid
    assert run(spec, tmp_path).computed == 2, "the lock of a killed process is nobody's"
    assert lock.killed(tmp_path) is None


def test_a_lock_that_is_a_folder_is_named(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    (tmp_path / ".lock").mkdir()
    with pytest.raises(RunError, match=r"\.lock is a folder, expected a file; remove it"):
        run(toybench.spec(root, "energy", limit=1), tmp_path)


def test_what_another_process_is_writing_is_not_swept_away(tmp_path):
    """A board is written into the folder of a run that begins."""
    from xaibench.files import sweep, whole

    with whole(tmp_path / "site" / "index.html") as scratch:
        scratch.write_text("half")
        with lock.held(tmp_path):
            assert sweep(tmp_path, deep=True) == []
        scratch.write_text("whole")
    assert (tmp_path / "site" / "index.html").read_text() == "whole"
    left = tmp_path / "site" / ".xaibench-0123.tmp"
    left.mkdir()
    (left / "index.html").write_text("half")
    assert sweep(tmp_path, deep=True) == [left] and not left.exists()
