"""Ctrl-C ends a command, whatever holds it up; and what the progress says is so."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time

import pytest

from xaibench.cli.output import EVERY, progress_bar, time_left
from xaibench.cli.stopping import STATUS, STOPPED
from xaibench.harness.run import Progress

HEAD = "import hashlib, importlib, os, signal, sys, threading, time\ncli = importlib.import_module('xaibench.cli.app')\n"
TAIL = "cli.app = app\ncli.main()\n"
BODIES = {
    "well-behaved": "time.sleep(1e6)",
    "swallows": "while True:\n        try:\n            time.sleep(0.01)\n        except BaseException:\n            pass",
    "in-c": "hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2**31 - 1)",
    "slow-to-clean-up": "try:\n        time.sleep(1e6)\n    finally:\n        time.sleep(1e6)",
    "an-error-of-c": "try:\n        time.sleep(1e6)\n    except BaseException:\n        raise ValueError('box') from None",
    "threads-that-stay": "threading.Thread(target=time.sleep, args=(1e6,)).start(); time.sleep(1e6)",
}


def started(head: str, body: str) -> subprocess.Popen:
    """`xaibench`, whose only command is `body`, after it has said that it is ready."""

    def hears() -> None:  # also where the tests are a job in the background, which ignores Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    code = f"{HEAD}{head}def app(standalone_mode):\n    print('ready', flush=True)\n    {body}\n{TAIL}"
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hears)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("body", BODIES)
def test_ctrl_c_ends_it(body):
    process = started("", BODIES[body])
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == STATUS == 130
    assert told == f"{STOPPED}\n"


def test_a_second_ctrl_c_ends_it_at_once():
    body = """while True:
        try:
            print('armed', flush=True)
            time.sleep(1e6)
        except KeyboardInterrupt:
            pass"""
    process = started("from xaibench.cli import stopping\nstopping.GRACE = 1e6\n", body)
    for _ in range(2):
        assert process.stdout.readline() == "armed\n"
        process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == STATUS
    assert process.stderr.read() == f"{STOPPED}\n"


def test_an_interpreter_that_takes_long_to_end_is_not_waited_for():
    head = "class Slow:\n    def __del__(self, sleep=time.sleep):\n        sleep(1e6)\ncli.slow = Slow()\n"
    process = started(head, "time.sleep(1e6)")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == STATUS
    assert process.stderr.read() == f"{STOPPED}\n"


@pytest.mark.parametrize("fill", ["os.write(2, bytes(2**16))", "os.close(2)"], ids=["nobody reads", "closed"])
def test_a_stream_that_takes_nothing_does_not_hold_it(fill):
    process = started("", f"{fill}\n    {BODIES['swallows']}")
    time.sleep(0.5)  # its pipe is full
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == STATUS


def test_ctrl_c_that_is_ignored_stays_so():
    body = "os.kill(os.getpid(), signal.SIGINT)\n    print('done')"
    process = started("signal.signal(signal.SIGINT, signal.SIG_IGN)\n", body)
    assert (process.stdout.read(), process.stderr.read(), process.wait(timeout=120)) == ("done\n", "", 0)


def test_without_a_terminal_progress_is_a_line_a_minute(monkeypatch):
    paper, now = io.StringIO(), [0.0]
    monkeypatch.setattr(sys, "stderr", paper)
    with progress_bar(clock=lambda: now[0]) as step:
        step(Progress("verify", 0, 2))
        step(Progress("cells", 0, 100))
        for done in range(1, 101):
            now[0] += 6.0
            step(Progress("cells", done, 100, "lcnn grad-cam"))
    lines = paper.getvalue().splitlines()
    assert len(lines) == 600 / EVERY
    assert lines[0] == "cells lcnn grad-cam: 10 of 100, 10 %, about 9 min left"
    assert lines[-2:] == ["cells lcnn grad-cam: 90 of 100, 90 %, about 60 s left", "cells lcnn grad-cam: 100 of 100, 100 %"]


def test_the_time_left_is_that_of_all_so_far():
    """Fifty chunks of 1 s and 10 s by turns: what is promised half-way is right to a tenth."""
    costs = [1.0, 10.0] * 25
    promised = time_left(25, 50, sum(costs[:25]))
    assert promised == "about 2 min left" and abs(sum(costs[25:]) / 60 - 2) < 0.5
    assert time_left(0, 0, 5.0) == time_left(50, 50, 5.0) == ""
