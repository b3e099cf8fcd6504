"""Questions to code that may never answer: one that goes wrong loses its own answer, and nothing is left behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from xaibench.probe import Silent, ask

BAD = """
import json, os, subprocess, sys, time
from pathlib import Path

def asked(question):
    return globals()[question]()

def fine(): return {"pid": os.getpid()}
def quits(): os._exit(7)
def breeds():
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    Path("child").write_text(str(child.pid))
    return {}
def mumbles():
    for file in range(3, 256):
        try: os.write(file, b"noise\\n")
        except OSError: pass
def breaks():
    sys.modules[__name__].victim = lambda: os._exit(3)
    return {}
def victim(): return "well"
def sleeps(): time.sleep(1e6)
"""


@pytest.fixture
def bad(tmp_path, monkeypatch):
    (tmp_path / "bad_answers.py").write_text(BAD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return lambda *questions, **options: ask("bad_answers:asked", questions, **{"seconds": 60, **options})


def test_one_that_ends_its_process_loses_its_own_answer(bad):
    found = bad("fine", "quits", "victim")
    assert found["quits"] == "its process ended with exit code 7" and isinstance(found["quits"], Silent)
    assert found["victim"] == "well" and found["fine"]["pid"] != os.getpid()


def test_what_one_did_to_the_process_is_not_held_against_the_next(bad):
    assert bad("breaks", "victim") == {"breaks": {}, "victim": "well"}


def test_an_answer_that_is_no_answer_is_said_so(bad):
    found = bad("mumbles", "victim")
    assert found["victim"] == "well" and found["mumbles"] == "its answer cannot be read"


def test_one_that_takes_too_long_is_given_up(bad):
    assert bad("sleeps", seconds=3) == {"sleeps": "it took longer than 3 s"}


def test_more_questions_than_a_command_line_holds(bad):
    found = bad(*(f"{'x' * 200_000}{i}" for i in range(2)), lost=1)
    assert list(found.values()) == ["its process ended with exit code 1"]  # there is no such function


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="Linux only")
def test_what_it_started_ends_with_it(bad, tmp_path):
    assert bad("breeds") == {"breeds": {}}
    child = Path("/proc") / (tmp_path / "child").read_text()
    deadline = time.monotonic() + 20
    while child.exists() and (child / "stat").read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.exists() or (child / "stat").read_text().split()[2] == "Z"  # where nobody reaps orphans
