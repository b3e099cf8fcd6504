"""What plugins say of themselves is asked once, and a plugin that cannot be asked is a sentence."""

import json

import pytest

from xaibench.probe import Silent
from xaibench.site import installed


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_a_method_of_ours_says_what_it_is():
    found = installed.describe("attributors/frequency-prior")
    assert found["paper"] == "control: mean training truth per frequency" and found["origin"].startswith("xaibench ")
    assert found["needs"] == ["prior"] and found["flags"] == [] and found["summary"].endswith(".")
    assert installed.describe("attributors/random")["flags"] == ["signed", "random"]
    assert "unknown attributor 'no-such'" in installed.describe("attributors/no-such")["problem"]
    json.dumps(found)


def test_the_answer_of_the_other_process_is_kept(monkeypatch, cache):
    asked = []

    def ask(group, names):
        asked.append((group, tuple(names)))
        return {
            f"{group}/{n}": {"problem": "broken"} if n == "oracle" else installed.describe(f"{group}/{n}") for n in names
        }

    monkeypatch.setattr(installed, "_ask", ask)
    for _ in range(2):
        found = installed.facts("attributors", ["random", "no-such", "oracle", "random"])
        assert list(found) == ["random", "no-such", "oracle"]
        assert found["random"].paper == "control: uniform noise" and not found["random"].problem
        assert found["no-such"].problem == "it is not installed where this page was made"
        assert found["oracle"].problem == "broken"
    assert installed.facts("attributors", ["centre"])["centre"].summary
    assert asked == [("attributors", ("random", "oracle")), ("attributors", ("centre",))]
    next((cache / "xaibench").glob("facts-*.json")).write_text("{")  # damaged: asked again
    assert installed.facts("attributors", ["random"])["random"].paper and len(asked) == 3


def test_what_a_run_recorded_is_not_asked(monkeypatch):
    monkeypatch.setattr(installed, "_ask", lambda group, names: pytest.fail(f"asked for {names}"))
    said = {"paper": "Me 2026", "summary": "x", "needs": [], "options": {}, "flags": []}
    records = [{"plugins": {"attributors/gone": said}, "origins": {"attributors/gone": "my-package 1.0"}}, {}]
    found = installed.facts("attributors", ["gone"], records)["gone"]
    assert (found.paper, found.origin, found.problem) == ("Me 2026", "my-package 1.0", "")
    both = installed.facts("attributors", ["gone", "no-such"], records)
    assert both["gone"].paper == "Me 2026" and both["no-such"].problem


def test_a_process_that_ends_is_a_sentence_and_is_asked_again(monkeypatch):
    monkeypatch.setattr(installed, "_ask", lambda group, names: {})
    for _ in range(2):
        assert installed.facts("attributors", ["random"])["random"].problem == "the process that tried to import it ended"


def test_a_plugin_that_ends_the_process_costs_its_own_answer_only(monkeypatch):
    asked = {"attributors/random": {"paper": "x"}, "attributors/oracle": Silent("its process ended with exit code 7")}
    monkeypatch.setattr(installed, "ask", lambda function, places, *, seconds: {p: asked[p] for p in places})
    found = installed.facts("attributors", ["random", "oracle"])
    assert found["random"].paper == "x" and found["oracle"].problem == "the process that tried to import it ended"


@pytest.mark.parametrize("said", [{"paper": "Me 2026"}, {"paper": None, "needs": None, "options": None, "flags": "x"}])
def test_a_record_of_another_version_or_by_hand_is_read_as_far_as_it_goes(said):
    found = installed.facts("attributors", ["gone"], [{"plugins": {"attributors/gone": said}}])["gone"]
    assert found.paper == (said["paper"] or "") and not found.problem and found.options == {}
