"""What one folder goes through: faults of a batch, methods that wreck the countermeasure, later wishes, changed code."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import soundfile
import torch
import toybench
from pandas.testing import assert_frame_equal

from xaibench import maps, registry
from xaibench.errors import ManifestError, RunError
from xaibench.harness import missing, plan
from xaibench.harness import run as harness
from xaibench.harness.cell import run_chunk
from xaibench.harness.plan import Chunk
from xaibench.harness.run import run
from xaibench.harness.workbench import Workbench
from xaibench.leaderboard.table import read_rows
from xaibench.metrics import catalog
from xaibench.view import SpoofLogOdds

KEYS = ["countermeasure", "route", "truth", "attributor", "utterance", "vocoder", "metric"]


def rows(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "rows").sort_values(KEYS).reset_index(drop=True)


def scores(folder: Path, *attributors: str) -> pd.DataFrame:
    table = rows(folder).drop(columns=["seconds", "run"])
    return table[table.attributor.isin(attributors)].reset_index(drop=True) if attributors else table


# ---- faults of a method or a metric ------------------------------------------------------------------------------------


def test_a_method_may_speak_on_axes_of_its_own(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch, "toy-coarse")
    summary = run(toybench.spec(root, "toy-coarse", "energy"), tmp_path)
    assert summary.statuses == {"ok": 24} and not summary.problems


@pytest.mark.parametrize(("name", "status"), [("toy-wrecks", "void"), ("toy-wrecks-late", "failed")])
def test_a_method_that_wrecks_the_countermeasure_does_not_touch_the_others(root, tmp_path, monkeypatch, name, status):
    toybench.install(monkeypatch, "toy-gradient", name)
    run(toybench.spec(root, "toy-gradient"), tmp_path / "alone", batch_size=2)
    run(toybench.spec(root, name, "toy-gradient"), tmp_path / "both", batch_size=2)
    assert_frame_equal(scores(tmp_path / "alone"), scores(tmp_path / "both", "toy-gradient"))
    table = scores(tmp_path / "both", name)
    assert set(table[table.utterance == "e-1"].status) == {status}


def test_out_of_memory_in_a_batch_is_tried_again_one_by_one_with_its_memory_free(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch, "toy-greedy")
    toybench.GREED.clear()
    summary = run(toybench.spec(root, "toy-greedy"), tmp_path, batch_size=3)
    assert toybench.GREED and summary.statuses == {"ok": 12}, rows(tmp_path).note.unique()


# ---- memory and a lost device ------------------------------------------------------------------------------------------

CURVES = ("rank-accuracy", "drop-twin", "deletion-twin", "insertion-twin")
ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported"


def forwards(monkeypatch, fault) -> list[int]:
    """Call `fault(count, inputs)` before every forward pass of a view's model; returns the counter."""
    real, count = SpoofLogOdds.forward, [0]

    def forward(self, logits):
        count[0] += 1
        fault(count[0], len(logits))
        return real(self, logits)

    monkeypatch.setattr(SpoofLogOdds, "forward", forward)
    return count


def chunk_of(bench, attributor: str, most: int) -> Chunk:
    """The first `most` pairs and all metrics of a run."""
    pairs = plan.ordered_pairs(bench.corpus, "eval")[:most]
    facts = bench.facts("toy", "native", attributor)
    prints = tuple(plan.fingerprint(bench.spec, p, facts) for p in pairs)
    return Chunk("toy", "native", attributor, 0, tuple(pairs), bench.spec.metrics, prints)


def values_of(outcome) -> list[tuple]:
    return sorted((r.utterance, r.vocoder, r.metric, r.status, r.value) for r in outcome.rows)


def alike(one, other) -> bool:
    """The same rows, their values within 1e-5."""
    pairs = list(zip(values_of(one), values_of(other), strict=True))
    return all(a[:-1] == b[:-1] for a, b in pairs) and [a[-1] for a, _ in pairs] == pytest.approx(
        [b[-1] for _, b in pairs], rel=1e-5, abs=1e-6
    )


def test_out_of_memory_at_any_forward_pass_changes_no_row(root, monkeypatch):
    toybench.install(monkeypatch, "toy-gradient")
    spec = toybench.spec(root, "toy-gradient", metrics=CURVES)

    def outcome(fault):
        bench = Workbench(spec, batch_size=3)
        with monkeypatch.context() as patch:
            count = forwards(patch, fault)
            return run_chunk(bench, chunk_of(bench, "toy-gradient", 3), "run"), count[0]

    whole, passes = outcome(lambda count, inputs: None)
    assert {r.status for r in whole.rows} == {"ok"} and len(whole.rows) == 12 and passes > 10
    halved = set()
    for nth in range(1, passes + 1, 2):

        def fault(count, inputs, nth=nth):
            if count == nth:
                raise torch.OutOfMemoryError("CUDA out of memory")

        found, more = outcome(fault)
        assert alike(found, whole) and more > nth and not found.error, f"forward pass {nth}"
        halved |= {(key, size["inputs"]) for key, size in found.sizes.items()}
    assert halved == {("toy/native", 3), ("toy/native", 1), ("toy/native/toy-gradient", 1)}, "in a method and in metrics"


@pytest.mark.parametrize(("room", "tried"), [(2, {4, 2}), (1, {4, 2, 1})])
def test_a_card_with_little_room_scores_everything(root, tmp_path, monkeypatch, room, tried):
    toybench.install(monkeypatch, "toy-gradient")
    spec = toybench.spec(root, "toy-gradient", "energy", metrics=CURVES)
    run(spec, tmp_path / "whole", batch_size=4)
    seen = set()

    def fault(count, inputs):
        seen.add(inputs)
        if inputs > room:
            raise torch.OutOfMemoryError("CUDA out of memory")

    forwards(monkeypatch, fault)
    summary = run(spec, tmp_path / "run", batch_size=4)
    assert summary.statuses == {"ok": 48} and tried <= seen
    assert_frame_equal(scores(tmp_path / "run"), scores(tmp_path / "whole"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("where", ["toy-hungry", "drop-twin"])
def test_an_utterance_that_never_fits_costs_its_own_rows(root, tmp_path, monkeypatch, where):
    toybench.install(monkeypatch, "toy-hungry")
    metric = catalog.METRICS["drop-twin"]

    def hungry(evidence):
        if any(name.startswith("d-") for name in evidence.probe.view.ids):
            raise MemoryError("std::bad_alloc")
        return metric.function(evidence)

    if where == "drop-twin":
        monkeypatch.setitem(catalog.METRICS, where, replace(metric, function=hungry))
    run(toybench.spec(root, "toy-hungry" if where == "toy-hungry" else "centre", "energy"), tmp_path, batch_size=3)
    table = rows(tmp_path)
    hit = ((table.attributor == where) | (table.metric == where)) & (table.utterance == "d-1")
    assert len(table) == 24 and hit.sum() == 4 and set(table[hit].status) == {"failed"}
    assert table[hit].note.str.contains("allocate memory" if where == "toy-hungry" else "bad_alloc").all()
    assert set(table[~hit].status) == {"ok"}


@pytest.mark.parametrize("attributor", ["toy-gradient", "energy"])  # in the method, and in its metrics
def test_a_lost_device_stops_the_run_keeps_what_is_done_and_is_not_tried_again(root, tmp_path, monkeypatch, attributor):
    toybench.install(monkeypatch, "toy-gradient")
    spec = toybench.spec(root, attributor, metrics=CURVES)
    with monkeypatch.context() as patch:
        count = forwards(patch, lambda count, inputs: None)
        run(spec, tmp_path / "whole", batch_size=2)
    passes, lost = count[0], []

    def fault(count, inputs):
        if count > passes * 2 // 3:
            lost.append(count)
            raise torch.AcceleratorError(ILLEGAL)

    with monkeypatch.context() as patch:
        forwards(patch, fault)
        with pytest.raises(RunError, match=rf"{attributor} on toy: .* was lost .* illegal memory access .* same command"):
            run(spec, tmp_path / "run", batch_size=2)
    assert len(lost) == 1
    kept = len(rows(tmp_path / "run"))
    assert 0 < kept < 24 and set(rows(tmp_path / "run").status) == {"ok"}
    again = run(spec, tmp_path / "run", batch_size=2)
    assert (again.kept, again.computed) == (kept, 24 - kept)
    assert_frame_equal(scores(tmp_path / "run"), scores(tmp_path / "whole"), rtol=1e-5)


# ---- whose fault it is -------------------------------------------------------------------------------------------------


def test_undefined_is_the_utterance_s_own_not_its_batch_s(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch, "toy-speechless")
    run(toybench.spec(root, "toy-speechless"), tmp_path, batch_size=6)
    table = rows(tmp_path)
    assert set(table[table.utterance == "c-1"].status) == {"undefined"}
    assert set(table[table.utterance != "c-1"].status) == {"ok"}


def test_a_metric_that_fails_on_one_utterance_costs_one_row(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    real = catalog.METRICS["rank-accuracy"]

    def fussy(evidence):
        if "d-1/comb" in evidence.probe.view.ids:
            raise ValueError("not this one")
        return real.function(evidence)

    run(toybench.spec(root, "energy"), tmp_path / "whole", batch_size=6)
    monkeypatch.setitem(catalog.METRICS, "rank-accuracy", replace(real, function=fussy))
    run(toybench.spec(root, "energy"), tmp_path / "run", batch_size=6)
    table, whole = rows(tmp_path / "run"), rows(tmp_path / "whole")
    failed = table.status == "failed"
    assert table[failed][["utterance", "vocoder", "metric"]].to_numpy().tolist() == [["d-1", "comb", "rank-accuracy"]]
    assert table[~failed].value.tolist() == pytest.approx(whole[~failed].value.tolist(), rel=1e-5)
    (trace,) = (tmp_path / "run" / "errors").iterdir()
    assert "ValueError: not this one" in trace.read_text()


def test_a_pair_of_unequal_length_in_the_first_batch_costs_its_own_cells(root, tmp_path, monkeypatch):
    import shutil

    toybench.install(monkeypatch)
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    file = copy / "eval" / "c-1_comb.flac"
    soundfile.write(file, soundfile.read(file)[0][:-7], 16000, subtype="PCM_16")
    table = list(csv.reader((copy / "toy.csv").open()))
    for row in table:
        if row[4] == "eval/c-1_comb.flac":
            row[6] = hashlib.sha256(file.read_bytes()).hexdigest()  # and still says 4000 samples
    with (copy / "toy.csv").open("w", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows(table)
    run(toybench.spec(copy, "energy"), tmp_path / "run", batch_size=6)
    result = rows(tmp_path / "run")
    wrong = (result.utterance == "c-1") & (result.vocoder == "comb")
    assert set(result[wrong].status) == {"failed"} and result[wrong].note.str.contains("the manifest says 4000").all()
    assert set(result[~wrong].status) == {"ok"}
    verdict = json.loads((tmp_path / "run" / "preflight" / "toy-native-energy.json").read_text())
    assert verdict["unchecked"] == "", "one bad file must not switch the checks off"


def test_a_missing_reference_recording_stops_the_run_before_it_starts(root, tmp_path, monkeypatch):
    import shutil

    toybench.install(monkeypatch)
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    (copy / "train" / "a-1_bonafide.flac").unlink()
    with pytest.raises(ManifestError, match=r"a-1_bonafide\.flac: missing"):
        run(toybench.spec(copy, "energy"), tmp_path / "run")


def test_a_verdict_on_one_utterance_does_not_stand_for_batches(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch, "toy-mixes")
    run(toybench.spec(root, "toy-mixes", limit=1), tmp_path, batch_size=4)
    assert set(rows(tmp_path).status) == {"ok"}
    run(toybench.spec(root, "toy-mixes", limit=4), tmp_path, batch_size=4)
    assert rows(tmp_path).status.value_counts().to_dict() == {"void": 6, "ok": 2}


@pytest.mark.parametrize("ending", [".parquet", ".safetensors", "run.json"])
def test_ctrl_c_in_the_middle_of_a_write_leaves_no_half_file_and_loses_nothing(root, tmp_path, monkeypatch, ending):
    toybench.install(monkeypatch)
    spec = toybench.spec(root, "energy", "centre", limit=2, keep_maps=True)
    run(spec, tmp_path / "whole")
    real, count = os.replace, []

    def interrupted(source, target):
        if str(target).endswith(ending):
            count.append(target)
            if len(count) == (1 if ending == "run.json" else 2):
                raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(spec, tmp_path / "run")
    monkeypatch.setattr(os, "replace", real)
    assert not list((tmp_path / "run").rglob("*.tmp")) and not (tmp_path / "run" / ".scratch").exists()
    run(spec, tmp_path / "run")
    assert_frame_equal(scores(tmp_path / "whole"), scores(tmp_path / "run"))
    files = [sorted(p.relative_to(f) for p in f.rglob("*.*") if p.is_file()) for f in (tmp_path / "whole", tmp_path / "run")]
    assert files[0] == files[1]


# ---- later wishes ------------------------------------------------------------------------------------------------------


def test_maps_wished_for_later_are_made_and_the_rows_left_as_they_are(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch, "toy-nan")
    spec = toybench.spec(root, "energy", "random", "toy-nan", limit=4)
    run(spec, tmp_path / "first", batch_size=4)
    run(replace(spec, keep_maps=True), tmp_path / "reference", batch_size=4)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "first" / "rows").rglob("*.parquet")}
    steps = []
    summary = run(replace(spec, keep_maps=True), tmp_path / "first", batch_size=4, report=steps.append)
    assert (summary.computed, summary.kept) == (0, 24) and "8 maps" in " ".join(summary.problems)
    assert steps[-1].done == steps[-1].total == 8
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "first" / "rows").rglob("*.parquet")} == before
    made, expected = ({p.relative_to(f): p for p in (f / "maps").rglob("*.safetensors")} for f in
                      (tmp_path / "first", tmp_path / "reference"))  # fmt: skip
    assert made.keys() == expected.keys() and len(made) == 12
    assert all((maps.read_map(made[k]).values == maps.read_map(expected[k]).values).all() for k in made)
    again = run(replace(spec, keep_maps=True), tmp_path / "first", batch_size=4)
    assert again.computed == 0 and not again.problems


def test_maps_and_truths_of_retired_rows_are_retired_with_them(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    spec = toybench.spec(root, "energy", limit=1, keep_maps=True)
    run(spec, tmp_path)
    (kept,) = (tmp_path / "maps" / "truth" / "eq2").rglob("*.safetensors")
    small = maps.read_truth(kept).region.sum()
    run(replace(spec, truth=replace(spec.truth, share=0.1)), tmp_path)
    assert maps.read_truth(kept).region.sum() > 1.9 * small, "the truth of the old share is still drawn"
    assert len(list((tmp_path / "stale" / "maps").rglob("*.safetensors"))) == 2


def test_a_second_run_leaves_the_record_of_the_one_that_computed(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    spec = toybench.spec(root, "energy", limit=2)
    stamp = dict(harness.environment(torch.device("cpu")))
    monkeypatch.setattr(harness, "environment", lambda device: {**stamp, "git_dirty": True})
    run(spec, tmp_path)
    first = (tmp_path / "run.json").read_bytes()
    monkeypatch.setattr(harness, "environment", lambda device: {**stamp, "git_dirty": False})
    run(replace(spec, limit=1), tmp_path)
    assert (tmp_path / "run.json").read_bytes() == first
    run(replace(spec, attributors=("energy", "centre")), tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["environment"]["git_dirty"] is False and record["earlier"][0]["environment"]["git_dirty"] is True
    assert read_rows([tmp_path]).dirty.all(), "some of these rows came from uncommitted code"


# ---- changed code, constants, weights ----------------------------------------------------------------------------------


def test_changed_code_retires_every_row_of_a_method_not_only_those_asked_for_again(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    spec = toybench.spec(root, "energy", metrics=("rank-accuracy", "roc-auc"))
    run(spec, tmp_path, batch_size=2)
    real = plan.source_hash
    monkeypatch.setattr(plan, "source_hash", lambda package: "edited" + real(package))
    summary = run(replace(spec, metrics=("roc-auc",), limit=2), tmp_path, batch_size=2)
    assert summary.kept == 0 and "stale" in summary.problems[0]
    assert len(rows(tmp_path)) == 2, "rows of the old code are averaged with the new"


def test_changed_constants_of_a_truth_retire_other_methods_too(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    spec = toybench.spec(root, "energy", "centre", limit=2)
    run(spec, tmp_path)
    run(replace(spec, truth=replace(spec.truth, name="eq1")), tmp_path)
    changed = replace(spec, attributors=("centre",), truth=replace(spec.truth, share=0.1))
    run(changed, tmp_path)
    table = rows(tmp_path)
    assert set(zip(table.attributor, table.truth, strict=True)) == {
        ("centre", "eq2"), ("energy", "eq1"), ("centre", "eq1"),
    }  # fmt: skip


def test_a_countermeasure_is_judged_again_when_its_source_changes(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    verdict = ["are the classes in the right order?"]
    monkeypatch.setattr(harness, "check_countermeasure", lambda *_, **__: (verdict[0], 0.9, ()))
    spec = toybench.spec(root, "energy", limit=1)
    assert run(spec, tmp_path).statuses == {"void": 2}
    verdict[0] = ""
    edited = lambda package: "edited" + package  # noqa: E731
    monkeypatch.setattr(plan, "source_hash", edited)
    monkeypatch.setattr(harness, "source_hash", edited)
    monkeypatch.setattr("xaibench.harness.workbench.source_hash", edited)
    assert run(spec, tmp_path).statuses == {"ok": 2}


METRIC = """
from xaibench.protocols import Metric
fixed = Metric(
    "fixed", "localisation", lambda evidence: evidence.on_view.sum(dim=(1, 2)) * 0 + {value}, "higher", (0.0, 99.0), "none",
    "none", "always",
)
"""


def test_a_metric_plugin_that_changed_is_computed_again_and_ours_are_not(root, tmp_path, monkeypatch):
    from importlib.metadata import EntryPoint

    toybench.install(monkeypatch)
    known = registry._scan()
    entry = EntryPoint("fixed", "stranger_metric:fixed", "xaibench.metrics")
    plugin = registry.Plugin("metrics", "fixed", "a-stranger", "1.0", entry)
    monkeypatch.setattr(registry, "_scan", lambda: (*known, plugin))
    monkeypatch.syspath_prepend(tmp_path)
    spec = toybench.spec(root, "energy", metrics=("rank-accuracy",), limit=2)
    run(spec, tmp_path / "run")
    spec = replace(spec, metrics=("rank-accuracy", "fixed"))
    for value in (1, 22):  # of different length: a source as long and as new would be taken from Python's cache
        (tmp_path / "stranger_metric.py").write_text(METRIC.format(value=value))
        plan.source_hash.cache_clear()
        monkeypatch.delitem(__import__("sys").modules, "stranger_metric", raising=False)
        assert run(spec, tmp_path / "run").computed == 2
        table = rows(tmp_path / "run")
        assert set(table[table.metric == "fixed"].value) == {value}
        assert len(table) == 4
    monkeypatch.setattr(registry, "_scan", lambda: known)  # uninstalled: its rows stay, nothing breaks
    assert run(replace(spec, metrics=("rank-accuracy",)), tmp_path / "run").computed == 0


def test_no_metrics_is_refused(root):
    with pytest.raises(RunError, match="no metrics"):
        toybench.spec(root, "energy", metrics=())


def test_two_countermeasures_share_a_folder_and_resume(root, tmp_path, monkeypatch):
    from importlib.metadata import EntryPoint

    class Second(toybench.ToyRecipe):
        name = "second"

        def shipped(self) -> Path:
            return tmp_path / "w" / "second.safetensors"

    class First(toybench.ToyRecipe):
        def shipped(self) -> Path:
            return root / "weights" / "toy.safetensors"

    monkeypatch.setattr(toybench, "recipe", First())
    monkeypatch.setattr(toybench, "second", Second(), raising=False)
    toybench.install(monkeypatch, "toy-gradient")
    known = registry._scan()
    entry = EntryPoint("second", "toybench:second", "xaibench.countermeasures")
    monkeypatch.setattr(
        registry, "_scan", lambda: (*known, registry.Plugin("countermeasures", "second", "toy-package", "1.0", entry))
    )
    (tmp_path / "w").mkdir()
    weights = root / "weights" / "toy.safetensors"
    (tmp_path / "w" / "second.safetensors").write_bytes(weights.read_bytes())
    card = json.loads(weights.with_suffix(".json").read_text())
    (tmp_path / "w" / "second.json").write_text(json.dumps({**card, "name": "second"}))
    both = toybench.spec(root, "toy-gradient", countermeasures=("toy", "second"), checkpoints={}, limit=3)
    run(replace(both, countermeasures=("second",)), tmp_path / "run", batch_size=2)
    assert run(both, tmp_path / "run", batch_size=2).computed == 6
    table = rows(tmp_path / "run")
    one, two = (table[table.countermeasure == n].value.tolist() for n in ("toy", "second"))
    assert one == two and len(one) == 6
    assert set(json.loads((tmp_path / "run" / "run.json").read_text())["countermeasures"]) == {"toy", "second"}


def test_a_corpus_without_training_data_has_no_prior_and_still_scores(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    real = toybench.corpus.open
    only = lambda folder: replace(  # noqa: E731
        real(folder), utterances=tuple(u for u in real(folder).utterances if u.split == "eval")
    )
    monkeypatch.setattr(toybench, "corpus", replace(toybench.corpus, open=only))
    for route in ("native", "grid"):
        spec = toybench.spec(root, "energy", "frequency-prior", metrics=("rank-accuracy", "drop-mean"), route=route, limit=2)
        run(spec, tmp_path)
    table = rows(tmp_path)
    assert set(table[table.attributor == "frequency-prior"].status) == {"unsupported"}
    mine = table[table.attributor == "energy"].set_index(["route", "metric"]).status
    assert set(mine.loc[("native", "rank-accuracy")]) == set(mine.loc[("grid", "rank-accuracy")]) == {"ok"}
    assert set(mine.loc[("grid", "drop-mean")]) == {"unsupported"}


def test_missing_decides_no_numbers_and_so_is_not_part_of_a_fingerprint(monkeypatch):
    package = Path(missing.__file__)
    plan.source_hash.cache_clear()
    before = plan.source_hash("xaibench")
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: b"edited" if self == package else real(self))
    plan.source_hash.cache_clear()
    after = plan.source_hash("xaibench")
    plan.source_hash.cache_clear()
    assert before == after


def test_failed_cells_stay_until_they_are_asked_for_again(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch, "toy-gradient", "toy-crash")
    asked = toybench.spec(root, "toy-gradient", "toy-crash", limit=3)
    run(asked, tmp_path, batch_size=3)
    assert run(asked, tmp_path, batch_size=3).computed == 0
    monkeypatch.setattr(toybench, "crash", replace(toybench.zero, name="toy-crash"))
    again = run(asked, tmp_path, batch_size=3, retry_failed=True)
    assert (again.computed, again.kept) == (6, 6) and "failed" not in again.statuses  # one file had a failed cell
    assert "computed again" in again.problems[0] and len(list((tmp_path / "stale").rglob("*.parquet"))) == 1
    assert run(asked, tmp_path, batch_size=3, retry_failed=True).computed == 0
