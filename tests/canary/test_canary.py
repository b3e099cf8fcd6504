"""The canary board: numbers that may move with the version of the benchmark only (see make.py)."""

from __future__ import annotations

import json

import pytest
from canary import make

from xaibench import BENCHMARK_VERSION


@pytest.fixture(scope="module")
def board():
    return json.loads(make.FILE.read_text(encoding="utf-8"))


def test_the_numbers_are_what_they_were(board):
    differ = make.moved(board["quick"], make.numbers(make.QUICK))
    assert not differ, make.sentence(differ)


@pytest.mark.heavy
def test_the_numbers_of_every_method_are_what_they_were(board):
    differ = make.moved(board["all"], make.numbers(make.everything()))
    assert not differ, make.sentence(differ)


def test_the_file_is_of_this_version_and_its_numbers_are_that_version_s(board):
    assert make.problems(board, BENCHMARK_VERSION) == []


def test_it_looks_at_what_it_should(board):
    names = set(board["quick"])
    assert {"lcnn/eer", "cnn/eer"} <= names and sum(n.startswith("truth/") for n in names) == 6
    for where in ("lcnn/native", "cnn/grid"):
        assert {f"{where}/{method}/{metric}" for method in make.REFERENCES for metric in make.METRICS} <= names
    assert sum(n.endswith("preflight batch") for n in names) > 20 and "lcnn/native/deeplift/preflight completeness" in names
    assert len(board["all"]) > 2 * len(board["quick"])
    assert board["quick"]["lcnn/native/oracle/rank-accuracy"] == 1.0
    assert board["quick"]["lcnn/native/constant/rank-accuracy"] == pytest.approx(0.05, abs=1e-3)


# ---- the rule ---------------------------------------------------------------------------------------------------------

QUICK, ALL = {"a/eer": 0.25, "a/b/roc-auc": 0.5, "a/c/roc-auc": None}, {"a/d/roc-auc": 12.0}
FIRST = make.made(None, QUICK, ALL, 1)


def test_a_moved_number_is_named_with_how_much_and_what_to_do():
    now = {"a/eer": 0.2525, "a/b/roc-auc": None, "e": 1.0}
    said = make.sentence(make.moved(QUICK, now))
    assert said.startswith("4 numbers of the canary board moved: ")
    words = ("a/eer was 0.25, is 0.2525 (by +0.0025)", "a/b/roc-auc was 0.5, is None", "e is there now and was not")
    for word in (*words, "a/c/roc-auc is gone, it was None", "Either a defect, or bump BENCHMARK_VERSION", "`make canary`"):
        assert word in said


@pytest.mark.parametrize(
    ("value", "seen"), [(0.25 + 0.9e-3, False), (0.25 - 1.1e-3, True), (float("nan"), True), (float("inf"), True)]
)
def test_a_number_may_move_by_the_tolerance_only(value, seen):
    assert bool(make.moved({"a": 0.25}, {"a": value})) is seen
    assert bool(make.moved({"a": 100.0}, {"a": 100.09})) is False and make.moved({"a": 100.0}, {"a": 100.2})


def test_numbers_without_a_version_are_refused():
    assert make.problems(FIRST, 1) == []
    changed = {**FIRST, "quick": {**QUICK, "a/eer": 0.2501}}
    assert "changed without a new version" in make.problems(changed, 1)[0]
    with pytest.raises(ValueError, match=r"1 numbers of the canary board moved: a/eer was 0.25, is 0.3"):
        make.made(FIRST, {**QUICK, "a/eer": 0.3}, ALL, 1)
    with pytest.raises(ValueError, match="nothing moved since version 1"):
        make.made(FIRST, QUICK, ALL, 1)


def test_a_version_without_numbers_is_refused():
    assert "is of version 1, the benchmark is version 2: run `make canary`" in make.problems(FIRST, 2)[0]
    with pytest.raises(ValueError, match="no number moved since version 1"):
        make.made(FIRST, QUICK, ALL, 2)
    with pytest.raises(ValueError, match="the next is not 3"):
        make.made(FIRST, {**QUICK, "a/eer": 0.3}, ALL, 3)


def test_a_new_version_keeps_the_digests_of_the_old_ones():
    second = make.made(FIRST, {**QUICK, "a/eer": 0.3}, ALL, 2)
    assert make.problems(second, 2) == [] and second["versions"]["1"] == FIRST["versions"]["1"]
    assert "expected every one from 1" in make.problems({**second, "versions": {"2": second["versions"]["2"]}}, 2)[0]
    same = {**second, "versions": {"1": second["versions"]["2"], "2": second["versions"]["2"]}}
    assert "have the same numbers" in make.problems(same, 2)[0]


def test_the_version_is_on_every_run_and_boards_of_two_do_not_mix(root, tmp_path, monkeypatch):
    import toybench

    from xaibench.errors import RunError
    from xaibench.harness.run import run
    from xaibench.leaderboard.reading import read_rows

    toybench.install(monkeypatch)
    for name, version in (("one", 1), ("other", 2)):
        monkeypatch.setattr("xaibench.BENCHMARK_VERSION", version)
        run(toybench.spec(root, "energy", limit=1), tmp_path / name)
        assert json.loads((tmp_path / name / "run.json").read_text())["benchmark"] == version
    with pytest.raises(RunError, match="the version of the benchmark is 1 and 2"):
        read_rows([tmp_path / "one", tmp_path / "other"])
