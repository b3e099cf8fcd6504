"""Killed by SIGKILL anywhere and started again, a run is the uninterrupted one: rows, maps, files, and nothing left behind.

At random moments of its whole life, and before and in the middle of every single operation on a file (`crash_server`).
"""

from __future__ import annotations

import itertools
import random
import shutil
import time

import pandas as pd
import pytest
import torch
from crashing import ATTRIBUTORS, SEED, assert_same, files, rows, told
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def expected(server, tmp_path_factory):
    """An uninterrupted run; how long it took, and its operations on files."""
    out = tmp_path_factory.mktemp("expected")
    server.run(out)
    shutil.rmtree(out)
    began = time.perf_counter()
    said = server.run(out)
    seconds = time.perf_counter() - began
    assert not said["error"] and said["computed"] == 16 and set(rows(out).status) == {"ok", "failed", "void"}
    return out, seconds, said["operations"]


def killed_anywhere(server, expected, folder, kills: int, seed: int) -> None:
    """`kills` times: killed at random moments, once to three times in a row, then left to finish."""
    whole, seconds, _ = expected
    random_ = random.Random(seed)
    told(seed)
    done = 0
    for number in itertools.count():
        out = folder / str(number)
        for _ in range(random_.randint(1, 3)):
            done += server.run(out, die={"after": random_.uniform(0, 1.1 * seconds)})["signal"] == 9
        assert not server.run(out)["error"]
        assert_same(out, whole)
        shutil.rmtree(out)
        if done >= kills:
            return


def test_killed_at_random_moments(server, expected, tmp_path):
    killed_anywhere(server, expected, tmp_path, 10, SEED)


@pytest.mark.heavy
@pytest.mark.timeout(7200)
def test_killed_at_two_hundred_random_moments(server, expected, tmp_path):
    killed_anywhere(server, expected, tmp_path, 200, SEED + 1)


def killed_at(server, expected, out, at: int, half: bool) -> None:
    """Killed at one operation, continued, and compared."""
    shutil.rmtree(out, ignore_errors=True)
    assert server.run(out, die={"at": at, "half": half})["signal"] == 9, at
    before = files(out) if out.exists() else []
    finished = [name for name in before if name.startswith("rows/") and "/.xaibench-" not in name]
    untouched = {name: (out / name).read_bytes() for name in finished}
    assert not server.run(out)["error"], at
    assert_same(out, expected[0])
    assert {name: (out / name).read_bytes() for name in finished} == untouched, "what was finished is not computed again"


def test_killed_at_some_operations_on_files(server, expected, tmp_path):
    told(SEED)
    random_ = random.Random(SEED)
    for at in random_.sample(range(1, expected[2] + 1), 8):
        killed_at(server, expected, tmp_path / "run", at, random_.random() < 0.5)


@pytest.mark.heavy
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("half", [False, True])
def test_killed_at_every_operation_on_files(server, expected, tmp_path, half):
    for at in range(1, expected[2] + 1):
        killed_at(server, expected, tmp_path / "run", at, half)


def killed_while_going_on(server, expected, tmp_path, choose) -> None:
    """A folder whose rows are all of other code, half of whose methods are new: killed while the stale ones are moved."""
    begun = tmp_path / "begun"
    server.run(begun, code="before", attributors=ATTRIBUTORS[:2])
    copy = shutil.copytree(begun, tmp_path / "copy")
    operations = server.run(copy)["operations"]
    pd.testing.assert_frame_equal(rows(copy), rows(expected[0]), check_exact=True)
    for at in choose(range(1, operations + 1)):
        out = shutil.copytree(begun, tmp_path / str(at))
        assert server.run(out, die={"at": at, "half": at % 2 == 0})["signal"] == 9
        assert not server.run(out)["error"]
        assert_same(out, copy)
        assert {p.name for p in (out / "stale").rglob("*.*")} == {p.name for p in (copy / "stale").rglob("*.*")}
        shutil.rmtree(out)


def test_killed_while_stale_rows_are_moved(server, expected, tmp_path):
    killed_while_going_on(server, expected, tmp_path, lambda every: random.Random(SEED).sample(every[:60], 4))


@pytest.mark.heavy
@pytest.mark.timeout(7200)
def test_killed_anywhere_in_a_run_that_goes_on(server, expected, tmp_path):
    killed_while_going_on(server, expected, tmp_path, lambda every: every)


# ---- training ----------------------------------------------------------------------------------------------------------


def same_training(one, other) -> None:
    weights, others = load_file(one / "conv.safetensors"), load_file(other / "conv.safetensors")
    assert weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)
    assert files(one) == files(other)
    for name in ("history.csv", "scores.csv"):
        tables = [pd.read_csv(folder / name).drop(columns="seconds", errors="ignore") for folder in (one, other)]
        pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert (one / "conv.json").read_bytes() == (other / "conv.json").read_bytes()


def killed_training(server, tmp_path, best: int, choose) -> None:
    """Three epochs of which `best` are averaged, killed at operations on files, which are all of checkpoints and cards."""
    operations = server.run(tmp_path / "whole", train=best)["operations"]
    for at in choose(range(1, operations + 1)):
        out = tmp_path / "killed"
        assert server.run(out, train=best, die={"at": at, "half": at % 2 == 0})["signal"] == 9
        assert not server.run(out, train=best)["error"], at
        same_training(out, tmp_path / "whole")
        shutil.rmtree(out)


@pytest.mark.parametrize("best", [1, 2])
def test_a_training_killed_at_some_operations_ends_with_the_same_weights(server, tmp_path, best):
    told(SEED)
    killed_training(server, tmp_path, best, lambda every: random.Random(SEED).sample(every, 3))


@pytest.mark.heavy
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("best", [1, 2])
def test_a_training_killed_at_every_operation_ends_with_the_same_weights(server, tmp_path, best):
    killed_training(server, tmp_path, best, lambda every: every)
