"""The audit from end to end on the toy bench, and as a user types it."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import toybench
from toys import SHAPE, LinearCM

from xaibench import cli
from xaibench.audit import run as module
from xaibench.audit.constants import rescored
from xaibench.audit.run import audit
from xaibench.audit.runs import AuditSpec, default_methods, only, scores
from xaibench.errors import PluginError, RunError
from xaibench.harness.plan import ordered_pairs
from xaibench.harness.workbench import Workbench
from xaibench.leaderboard.table import read_rows

PARTS = ("use", "overview", "constants", "ceiling")
METHODS = ("toy-gradient", "toy-coarse", "toy-speechless")


@pytest.fixture(scope="module")
def done(root, tmp_path_factory):
    """One audit that several tests read: the folder, what it found, and its spec."""
    out = tmp_path_factory.mktemp("audit") / "audit"
    with pytest.MonkeyPatch.context() as patch:
        toybench.install(patch, *METHODS)
        found = audit(spec_of(root), out, parts=PARTS)
    return out, found, spec_of(root)


def spec_of(root: Path, *methods: str, **changes: object) -> AuditSpec:
    settings = {
        "data": "toy", "root": str(root), "limit": 4, "steps": 2, "checkpoint": str(root / "weights" / "toy.safetensors")
    }  # fmt: skip
    return AuditSpec("toy", methods or METHODS, **{**settings, **changes})


def files(folder: Path, *kinds: str) -> dict[str, object]:
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes())
        for kind in kinds for p in sorted(folder.rglob(f"*.{kind}"))
    }  # fmt: skip


def test_a_page_with_every_part_asked_for(done):
    out, found, _ = done
    assert [s.name for s in found.sections] == list(PARTS) and found.problems == ()
    assert [p.relative_to(out).as_posix() for p in found.paths] == [
        "audit.md", "audit.json", *(f"figures/{name}.png" for name in PARTS)
    ]  # fmt: skip
    text = found.paths[0].read_text()
    assert text.startswith("# Audit of toy on toy\n\n- Countermeasure: toy, native route, weights ")
    assert "- Data: toy, split eval: 4 vocoded utterances of 3 sources and 3 speakers\n" in text
    assert "nan" not in text and str(out) not in text
    content = json.loads(found.paths[1].read_text())
    assert [s["name"] for s in content["sections"]] == list(PARTS)


def test_its_numbers_are_those_of_the_run_folders(done):
    out, found, _ = done
    by_name = {s.name: s for s in found.sections}
    rows = pd.concat([read_rows([out / name]) for name in ("run", "run-eq1", "run-log-difference")])
    mine = rows[
        rows.status.eq("ok") & rows.truth.eq("eq1") & rows.attributor.eq("moved-truth") & rows.metric.eq("drop-twin")
    ]
    use = by_name["use"].table
    (line,) = use[use.truth.eq("eq1") & use.fill.eq("twin") & use.vocoder.eq("all")].to_dict("records")
    assert line["pairs"] == 4 and line["moved-truth"] == pytest.approx(mine.value.mean(), abs=1e-12)
    assert set(use.truth) == {"eq2", "eq1", "log-difference"}
    eq2 = rows[rows.status.eq("ok") & rows.truth.eq("eq2")]
    overview = by_name["overview"].table.set_index("cells chosen by")
    for name in ("toy-gradient", "toy-speechless", "extremal-twin", "oracle"):
        cells = eq2[eq2.attributor.eq(name) & eq2.metric.eq("rank-accuracy")]
        assert overview.at[name, "rank accuracy"] == pytest.approx(cells.value.mean(), abs=1e-12), name
    assert 0.8 < overview.at["oracle", "rank accuracy"] < 1  # the tap has 33 bins, the grid 257


def test_the_reference_of_the_constants_is_the_score_of_the_run(done, root, monkeypatch):
    toybench.install(monkeypatch, *METHODS)
    out, found, spec = done
    bench = Workbench(spec.run)
    wide = scores(read_rows([out / "run"]), "rank-accuracy")
    found = rescored(bench, out / "run", "toy", wide)
    first, *_ = found
    reference = found[first]
    assert list(reference.columns) == list(METHODS) and reference.shape == (4, 3)
    assert "the countermeasure's own STFT 64/32" in found
    for method in METHODS:
        for key in reference.index:
            ours, theirs = reference.at[key, method], wide.at[key, method]
            assert (np.isnan(ours) and np.isnan(theirs)) or ours == pytest.approx(theirs, abs=1e-9), (key, method)
    assert reference["toy-speechless"].isna().sum() == 2 - (4 - len(reference))  # nothing to say of speaker c
    without = rescored(bench, out / "run", "toy", wide.drop(columns="toy-coarse"))
    assert list(without[first].columns) == ["toy-gradient", "toy-speechless"], "what has no score in the run has none here"


def test_again_computes_nothing_and_gives_the_same_bytes(done, root, monkeypatch):
    toybench.install(monkeypatch, *METHODS)
    out, found, spec = done
    before = files(out, "parquet", "safetensors")
    pages = {name: content for name, (_, content) in files(out, "md", "json", "png").items()}
    again = audit(spec, out, parts=PARTS)
    assert files(out, "parquet", "safetensors") == before, "row files or maps were touched"
    assert {name: content for name, (_, content) in files(out, "md", "json", "png").items()} == pages
    assert [s.answer for s in again.sections] == [s.answer for s in found.sections]


def test_other_countermeasures_methods_and_utterances_in_the_folder_are_not_counted(done, tmp_path, monkeypatch):
    toybench.install(monkeypatch, *METHODS)
    out, _, spec = done
    rows = read_rows([out / "run"])
    pairs = ordered_pairs(Workbench(spec.run).corpus, "eval")
    narrow = replace(spec, methods=("toy-gradient",), limit=2)
    stray = pd.concat([rows, rows.assign(countermeasure="other"), rows.assign(route="grid")], ignore_index=True)
    with pytest.raises(ValueError, match="duplicate"):
        scores(stray, "rank-accuracy")
    mine = only(stray, narrow, route="native", pairs=pairs[:2])
    assert set(mine.countermeasure) == {"toy"} and set(mine.route) == {"native"}
    wide = scores(mine, "rank-accuracy")
    assert len(wide) == 2 and "toy-gradient" in wide and "toy-coarse" not in wide and "oracle" in wide
    shutil.copytree(out, tmp_path / "audit")
    _, overview = audit(narrow, tmp_path / "audit", parts=("use", "overview")).sections
    names = set(overview.table["cells chosen by"])
    assert "toy-gradient" in names and "toy-coarse" not in names
    assert ": 2 vocoded utterances of 2 sources" in (tmp_path / "audit" / "audit.md").read_text()


def test_one_method_and_a_limit_beyond_the_corpus(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch, "toy-gradient")
    parts = (*PARTS, "twinpath", "meta")
    found = audit(spec_of(root, "toy-gradient", limit=1000), tmp_path, parts=parts)
    assert [s.name for s in found.sections] == list(PARTS)
    assert found.problems == ("twinpath: nothing to show with these methods", "meta: nothing to show with these methods")
    text = (tmp_path / "audit.md").read_text()
    assert ": 6 vocoded utterances of 3 sources" in text
    assert "the only method with a value has" in text and "order of the methods is unknown" in text
    assert "goes to toy-gradient in the reference and under every other choice" in text


@pytest.mark.parametrize("weight", [0.0, -1e-6], ids=["constant", "nearly constant"])
def test_a_score_that_ignores_the_input_is_unknown_everywhere(root, tmp_path, monkeypatch, weight):
    class Constant(toybench.ToyRecipe):
        def untrained(self, *, seed):
            return LinearCM(torch.full(SHAPE, weight), bias=0.7)

    monkeypatch.setattr(toybench, "recipe", Constant())
    toybench.install(monkeypatch, *METHODS)
    weights = toybench.write_checkpoint(tmp_path / "w")
    found = audit(spec_of(root, limit=2, checkpoint=str(weights)), tmp_path / "audit", parts=PARTS)
    by_name = {s.name: s.answer for s in found.sections}
    assert by_name["use"][0] == "Truth eq2: whether toy uses the region is unknown: no pair has a score."
    assert not any("Warning" in s or "uses the region." in s for s in by_name["use"])
    assert not any(word in " ".join(by_name["overview"]) for word in ("nan", "strange"))
    assert not any(s.startswith("drop") and "stands at" in s for s in by_name["ceiling"])
    assert "nan" not in (tmp_path / "audit" / "audit.md").read_text()


def test_a_void_countermeasure_has_nothing_to_say_and_does_not_crash(root, tmp_path, monkeypatch):
    class Flipped(toybench.ToyRecipe):
        def untrained(self, *, seed):
            cm = super().untrained(seed=seed)
            cm.classes = ("bonafide", "spoof")
            return cm

    monkeypatch.setattr(toybench, "recipe", Flipped())
    toybench.install(monkeypatch, "toy-gradient")
    weights = toybench.write_checkpoint(tmp_path / "w", classes=("bonafide", "spoof"))
    found = audit(spec_of(root, "toy-gradient", limit=2, checkpoint=str(weights)), tmp_path / "audit", parts=PARTS)
    assert [s.name for s in found.sections] == ["use", "overview", "ceiling"]
    assert any("in the right order" in p for p in found.problems)
    assert "is unknown" in found.sections[0].answer[0]
    with pytest.raises(RunError, match="nothing to write: void"):
        audit(spec_of(root, "toy-gradient", limit=2, checkpoint=str(weights)), tmp_path / "audit", parts=("constants",))


@pytest.mark.parametrize(("parts", "message"), [
    (("use", "nonsense"), "unknown part of the audit: nonsense; there are use, overview"), ((), "none given")
])  # fmt: skip
def test_an_unknown_part_is_refused_before_any_work(root, tmp_path, monkeypatch, parts, message):
    toybench.install(monkeypatch, "toy-gradient")
    with pytest.raises(RunError, match=message):
        audit(spec_of(root, "toy-gradient"), tmp_path / "audit", parts=parts)
    assert not (tmp_path / "audit").exists()


def test_data_without_twins_is_refused_with_the_reason(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch, "toy-gradient")
    monkeypatch.setattr(module, "ordered_pairs", lambda *a: [replace(p, bonafide=None) for p in ordered_pairs(*a)])
    with pytest.raises(RunError, match="toy: some spoofed speech has no bona fide twin, which every question"):
        audit(spec_of(root, "toy-gradient"), tmp_path / "audit")
    assert not (tmp_path / "audit").exists()


def test_methods_that_are_not_there_are_named_and_the_usual_ones_are_those_that_are(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch, "toy-gradient")
    with pytest.raises(PluginError, match="lime"):
        audit(spec_of(root, "toy-gradient", "lime"), tmp_path, parts=("use",))
    with pytest.raises(RunError, match="at least one method"):
        audit(AuditSpec("toy", ()), tmp_path, parts=("use",))
    assert default_methods() == ()  # the plugins with methods are hidden by the toys


# ---- as a user types it ----------------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, capsys, root, tmp_path):
    toybench.install(monkeypatch, "toy-gradient", "toy-coarse")
    monkeypatch.chdir(tmp_path)
    there = [
        "audit", "--cm", "toy", "--data", "toy", "--root", str(root), "--device", "cpu", "--limit", "2", "--steps", "1",
        "--checkpoint", str(root / "weights" / "toy.safetensors"), "--xai", "toy-gradient,random", "--parts", "use,overview",
    ]  # fmt: skip

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["xaibench", *there, *words])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cm", "tooy"], "did you mean 'toy'"),
        (["--cm", "toy,lcnn"], "--cm 'toy,lcnn': `audit` takes one countermeasure at a time"),
        (["--cm", ""], "no countermeasures chosen"),
        (["--parts", "nonsense"], "unknown part of the audit: nonsense"),
        (["--parts", ","], "unknown part of the audit: none given"),
        (["--limit", "0"], "limit must be at least 1, got 0"),
        (["--xai", "random,oracle"], "at least one method"),
        (["--xai", "toy-gradiant"], "did you mean 'toy-gradient'"),
        (["--data", "minivok"], "did you mean 'minivoc'"),
        (["--batch-size", "many"], "--batch-size 'many'"),
        (["--split", "test"], "no pairs in its split 'test'"),
        (["--cm-set", "lcnn.a=1"], "--cm-set names lcnn; this command has toy"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_clear_line(command, tmp_path, words, message):
    code, out, err = command(*words)
    assert code == 2 and message in err and len(err.strip().splitlines()) == 1 and out == ""
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_the_answers_and_where_the_page_is(command, tmp_path):
    code, out, err = command()
    assert code == 0, err
    assert out.startswith("Does the countermeasure use the truth region?\n  ")
    assert out.endswith("results/audit-toy-toy/audit.md\n")
    assert (tmp_path / "results" / "audit-toy-toy" / "audit.md").is_file()
