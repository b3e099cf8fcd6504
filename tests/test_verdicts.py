"""Preflight's verdicts as results: each fault is named by the check that is there for it, kept, read, and shown."""

from __future__ import annotations

import json
import random
import re
import warnings
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
import toybench
from torch import nn

from xaibench import open_run
from xaibench.errors import RunError, Undefined
from xaibench.harness import preflight, verdicts
from xaibench.harness.plan import ordered_pairs
from xaibench.harness.preflight import check, check_countermeasure
from xaibench.harness.run import run
from xaibench.harness.verdicts import COUNTERMEASURE, METHOD, Check, read_checks
from xaibench.harness.workbench import Workbench
from xaibench.protocols import Attributor, attributor


def exact(view):
    """input x gradient: of a linear countermeasure it sums to score(input) - score(0)."""
    return toybench.gradient.function(view)


def train_mode(view):
    view.model.train()
    return exact(view)


def weights(view):
    for p in view.model.parameters():
        p.data += 1.0
    return exact(view)


def leaves_gradients(view):
    for p in view.model.parameters():
        p.requires_grad_(True)
    return exact(view)


def first_target(view):
    """One target for a batch: only the first utterance gets a map (pytorch-grad-cam 322)."""
    maps = exact(view)
    maps[1:] = 0
    return maps


def first_gradient(view):
    """The first one's gradient for the whole batch (captum 1276)."""
    maps = exact(view)
    return (maps / view.inputs[:, 0])[:1] * view.inputs[:, 0] * torch.linspace(1, 1.5, len(view))[:, None, None]


def numpy_draws(view):
    """Unseeded, and small enough for the check of batches; the guard puts numpy's generator back each time."""
    return exact(view) * torch.from_numpy(1 + 1e-3 * np.random.rand(*view.shape)).float()


def python_draws(view):
    return exact(view) * (1 + 1e-3 * random.random())


def forked(view):
    """Draws from torch's generator and puts it back, so that nobody sees it but the map."""
    with torch.random.fork_rng():
        return exact(view) * (1 + 1e-3 * torch.rand(1))


def same_for_all(view):
    return exact(view)[:1].expand(len(view), -1, -1) * 1.0


def old_hooks(view):
    warnings.warn("Using a non-full backward hook ... This hook will be missing some grad_input", stacklevel=1)
    return exact(view)


FAULTS = {
    train_mode: {"modes"},
    weights: {"weights", "repeat", "batch"},  # each call adds to them
    leaves_gradients: {"gradients"},
    first_target: {"batch", "distinct"},
    first_gradient: {"batch"},
    numpy_draws: {"repeat"},
    python_draws: {"repeat"},
    forked: {"repeat"},
    same_for_all: {"batch", "distinct"},
    old_hooks: {"warnings"},
}


def judged(root, monkeypatch, function):
    """The checks of a method on four utterances, by name."""
    made = function
    if not isinstance(function, Attributor):
        made = attributor(name="toy-deaf", paper="none", needs=["gradients"])(function)
    monkeypatch.setitem(toybench.METHODS, "toy-deaf", made)
    monkeypatch.setattr(toybench, made.function.__name__, made, raising=False)
    toybench.install(monkeypatch, "toy-deaf")
    bench = Workbench(toybench.spec(root, "toy-deaf"), batch_size=4)
    prepared = bench.prepare("toy", "native", ordered_pairs(bench.corpus, "eval")[:4])
    verdict, _ = check(bench, prepared, "toy-deaf")
    assert [c.name for c in verdict.checks] == list(METHOD)
    return verdict, {c.name: c for c in verdict.checks}


@pytest.mark.parametrize("function", FAULTS)
def test_a_fault_fails_the_check_that_is_there_for_it(root, monkeypatch, function):
    verdict, checks = judged(root, monkeypatch, function)
    failed = {name for name, c in checks.items() if c.outcome == "failed"}
    assert failed == FAULTS[function]
    assert verdict.void == "; ".join(checks[n].note for n in METHOD if n in failed and checks[n].voids)
    assert all(checks[n].note for n in failed)


@pytest.mark.parametrize(("share", "outcome"), [(1.0, "passed"), (0.5, "failed")])
def test_a_map_that_says_it_is_complete_must_be(root, monkeypatch, share, outcome):
    @attributor(name="toy-deaf", paper="none", needs=["gradients"], complete=True)
    def complete(view, *, baseline="mean"):
        """Exact on a linear countermeasure."""
        x = view.inputs.clone().requires_grad_()
        (grad,) = torch.autograd.grad(view.model(x).sum(), x)
        return share * ((x - view.fill(baseline)) * grad).sum(1).detach()

    verdict, checks = judged(root, monkeypatch, complete)
    assert checks["completeness"].outcome == outcome and bool(verdict.void) is (outcome == "failed")
    assert checks["completeness"].measured == pytest.approx(1 - share, abs=1e-3)


def test_a_good_method_passes_what_applies(root, monkeypatch):
    verdict, checks = judged(root, monkeypatch, exact)
    assert verdict.void == "" and {c.outcome for c in checks.values()} == {"passed", "not applicable"}
    assert checks["repeat"].measured == 0 and checks["batch"].measured <= 1e-6 and checks["target"].measured == 2
    assert "does not declare" in checks["completeness"].note
    assert verdict.measured == {"repeat_gap": 0.0, "batch_gap": checks["batch"].measured, "target_gap": 2.0}


@pytest.mark.parametrize(("error", "outcome"), [(ZeroDivisionError("no"), "unchecked"), (Undefined("nothing"), "unchecked")])
def test_a_method_that_raises_is_not_judged(root, monkeypatch, error, outcome):
    def fails(view):
        raise error

    verdict, checks = judged(root, monkeypatch, fails)
    assert verdict.void == "" and str(error) in verdict.unchecked
    assert {checks[n].outcome for n in ("repeat", "batch", "target", "seed")} == {outcome}
    assert checks["weights"].outcome == "passed"


def test_the_generators_are_as_before(root, monkeypatch):
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    judged(root, monkeypatch, exact)
    assert torch.equal(states[0], torch.random.get_rng_state()) and random.getstate() == states[2]
    assert (np.random.get_state()[1] == states[1]).all()


# ---- countermeasures --------------------------------------------------------------------------------------------------


class Dropped(nn.Module):
    """Dropout that nobody can switch off."""

    def forward(self, x):
        return nn.functional.dropout(x, 0.2, training=True)


class Mixes(nn.Module):
    def forward(self, x):
        return x - 0.5 * x.mean(0)


class Learns(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.seen += len(x)
        return x


def countermeasure(root, monkeypatch, change):
    toybench.install(monkeypatch)
    bench = Workbench(toybench.spec(root, "energy"), batch_size=4)
    change(bench.countermeasure("toy").module)
    sentence, _, checks = check_countermeasure(bench, "toy", ordered_pairs(bench.corpus, "eval"))
    assert [c.name for c in checks] == list(COUNTERMEASURE) and sentence == verdicts.void(checks)
    return {c.name: c for c in checks}


def behind(module):
    """Puts a module behind the back end."""

    def change(cm):
        cm.backend = nn.Sequential(cm.backend, module).eval()

    return change


def dropped(cm):
    cm.backend = nn.Sequential(Dropped(), cm.backend).eval()


def twice(cm):
    shared = nn.ReLU()
    cm.backend = nn.Sequential(shared, shared, cm.backend).eval()


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda cm: None, set()),
        (dropped, {"repeat", "batch", "cut"}),
        (behind(Mixes()), {"batch"}),
        (behind(Learns()), {"weights"}),
        (lambda cm: cm.backend.train(), {"evaluation"}),
        (twice, {"reuse"}),
    ],
)
def test_a_countermeasure_s_fault_fails_its_check(root, monkeypatch, change, failed):
    checks = countermeasure(root, monkeypatch, change)
    assert {n for n, c in checks.items() if c.outcome == "failed"} == failed
    assert not checks["reuse"].voids and all(checks[n].note for n in failed)


def test_scores_that_say_nothing_leave_the_rest_unchecked(root, monkeypatch):
    class Silent(nn.Module):
        def forward(self, x):
            return x * float("nan")

    checks = countermeasure(root, monkeypatch, behind(Silent()))
    assert checks["answers"].outcome == "failed" and checks["cut"].outcome == checks["decides"].outcome == "unchecked"


# ---- kept, read and shown ---------------------------------------------------------------------------------------------


@pytest.fixture
def folder(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch, "toy-gradient", "toy-hooks", "toy-nan", "toy-zero", "toy-unsupported")
    run(toybench.spec(root, "toy-gradient", "toy-hooks", "toy-nan", "toy-zero", "toy-unsupported", "energy"), tmp_path)
    return tmp_path


def test_every_verdict_is_a_table(folder):
    table = open_run(folder).checks
    assert list(table.columns) == list(verdicts.COLUMNS) and len(table) == len(COUNTERMEASURE) + 6 * len(METHOD)
    assert set(table.outcome) <= set(verdicts.OUTCOMES) and table.voids.dtype == bool
    hooks = table[(table.attributor == "toy-hooks") & (table.outcome == "failed")]
    assert hooks.check.tolist() == ["hooks"] and hooks.note.tolist() == ["it left hooks on the countermeasure"]
    assert set(table[table.attributor == "toy-unsupported"].outcome) == {"passed", "not applicable"}
    assert table[table.attributor == ""].check.tolist() == list(COUNTERMEASURE)


def test_the_board_says_how_many_passed_and_who_is_void(folder, command):
    code, out, _ = command("leaderboard", folder)
    said = " ".join(out.split())
    assert code == 0
    for words in (
        "- Benchmark version ", "- Preflight: 4 of 7 passed every check that applies.", "- Void: toy-hooks on toy (hooks).",
        "- Failed a check that voids nothing: toy-nan on toy (map), toy-zero on toy (distinct).",
        "toy-hooks: void 12 (every metric): it left hooks on the countermeasure",
    ):  # fmt: skip
        assert words in said, said


def test_the_site_has_them(folder, tmp_path_factory):
    from xaibench.site.build import build

    out = tmp_path_factory.mktemp("site")
    build([folder], out)
    method = unescape((out / "methods" / "toy-hooks.html").read_text(encoding="utf-8"))
    assert METHOD["hooks"] in method and "failed: it left hooks on the countermeasure" in method
    assert "Preflight: 10 checks passed, 1 failed, 1 not asked" in method
    page = unescape((out / "countermeasures" / "toy.html").read_text(encoding="utf-8"))
    assert all(question in page for question in COUNTERMEASURE.values())


def test_a_file_from_before_there_were_checks_still_says_its_outcome(folder):
    file = folder / verdicts.file_of("toy", "native", "toy-hooks")
    known = json.loads(file.read_text())
    file.write_text(json.dumps({k: known[k] for k in ("fingerprint", "pairs", "void", "measured", "warnings", "unchecked")}))
    table = read_checks([folder])
    old = table[table.attributor == "toy-hooks"]
    assert old[["check", "outcome", "note"]].values.tolist() == [["preflight", "failed", known["void"]]]


GOOD = vars(Check("a", "passed"))


@pytest.mark.parametrize("checks", [3, [{}], [{"name": "a"}], [{**GOOD, "outcome": "maybe"}], [{**GOOD, "measured": "x"}]])
def test_a_damaged_file_is_named(folder, checks, command):
    file = folder / verdicts.file_of("toy", "native", "energy")
    file.write_text(json.dumps({"checks": checks}))
    with pytest.raises(RunError, match=f"{file.name}: damaged"):
        read_checks([folder])
    code, out, _ = command("leaderboard", folder)
    assert code == 0 and file.name in out.replace("\n", "")


def test_known_verdicts_are_not_asked_again(folder, root, monkeypatch):
    before = {p.name: p.stat().st_mtime_ns for p in (folder / "preflight").iterdir()}
    spec = toybench.spec(root, "toy-gradient", "energy", metrics=("rank-accuracy", "drop-twin", "roc-auc"))
    assert run(spec, folder).computed == 12
    assert {p.name: p.stat().st_mtime_ns for p in (folder / "preflight").iterdir()} == before


def test_the_page_lists_every_check():
    page = (Path(__file__).parents[1] / "docs" / "preflight.md").read_text(encoding="utf-8")
    method, cm = page.split("## A countermeasure")
    for part, questions in ((method, METHOD), (cm, COUNTERMEASURE)):
        assert re.findall(r"^\| `([a-z]+)` \|", part, flags=re.MULTILINE) == list(questions)
    limits = {"| 1e-5 |": preflight.REPEAT_TOLERANCE, "| 1 % |": preflight.BATCH_TOLERANCE, "| 5 % |":
              preflight.COMPLETENESS_TOLERANCE, "at least 1e-6": preflight.TARGET_TOLERANCE}  # fmt: skip
    assert list(limits.values()) == [1e-5, 0.01, 0.05, 1e-6] and all(words in method for words in limits)
    assert (preflight.SCORE_TOLERANCE, preflight.CUT_TOLERANCE) == (1e-3, 1e-4)
    assert cm.count("| 0.1 % of their spread |") == 2 and "| 1e-4 of the largest logit |" in cm
