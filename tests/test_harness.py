"""The harness on the toys: every status, resume, kill, failure boundary, preflight, plan."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import toybench
from pandas.testing import assert_frame_equal

from xaibench.errors import AudioError, CheckpointError, ManifestError, PluginError, RunError
from xaibench.harness.known import known_metrics, known_names
from xaibench.harness.plan import batches, ordered_pairs, reference_pairs
from xaibench.harness.preflight import check_countermeasure
from xaibench.harness.results import Store
from xaibench.harness.run import run
from xaibench.harness.workbench import Workbench

KEYS = ["countermeasure", "route", "truth", "attributor", "utterance", "vocoder", "metric"]


def rows(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "rows").sort_values(KEYS).reset_index(drop=True)


def scores(folder: Path) -> pd.DataFrame:
    return rows(folder).drop(columns=["seconds", "run"])


def test_one_run_gives_every_planned_row_and_the_oracle_and_constant_are_exact(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch, "toy-gradient")
    spec = toybench.spec(root, "toy-gradient", "oracle", "constant")
    summary = run(spec, tmp_path / "run")
    table = rows(tmp_path / "run")
    assert summary.computed == len(table) == 6 * 3 * 2
    assert summary.statuses == {"ok": 36} and not summary.problems
    ranks = table[table.metric == "rank-accuracy"].groupby("attributor").value
    assert ranks.get_group("oracle").eq(1).all()
    assert ranks.get_group("constant").sub(0.05).abs().max() < 2e-3  # a whole number of cells stands for 5 %
    assert set(table.vocoder) == set(toybench.VOCODERS) and set(table.route) == {"native"}


def test_a_second_run_does_nothing_and_a_new_method_or_metric_only_what_is_new(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch, "toy-gradient")
    first = toybench.spec(root, "energy", limit=4)
    run(first, tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "rows").rglob("*.parquet")}
    again = run(first, tmp_path / "run")
    assert again.computed == 0 and again.kept == 8
    more = replace(first, attributors=("energy", "toy-gradient"), metrics=("rank-accuracy", "drop-twin", "roc-auc"), limit=6)
    grown = run(more, tmp_path / "run")
    assert grown.computed == 6 * 2 * 3 - 8
    assert {p: p.stat().st_mtime_ns for p in before} == before, "finished files were touched"
    assert not rows(tmp_path / "run").duplicated(KEYS).any()


def test_scores_do_not_depend_on_batch_size_or_on_being_interrupted(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch, "toy-gradient")
    spec = toybench.spec(root, "toy-gradient", "random", metrics=("rank-accuracy", "roc-auc", "deletion-twin"))
    run(spec, tmp_path / "whole", batch_size=4)
    run(spec, tmp_path / "small", batch_size=1)
    run(replace(spec, limit=3), tmp_path / "parts", batch_size=4)
    run(replace(spec, limit=6), tmp_path / "parts", batch_size=4)
    whole = scores(tmp_path / "whole")
    for other in ("small", "parts"):
        assert_frame_equal(whole, scores(tmp_path / other), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"preset": "full"}, {"grid": toybench.GRID.__class__(n_fft=128, hop=32)}])
def test_a_folder_of_another_run_is_refused(root, tmp_path, monkeypatch, changes):
    toybench.install(monkeypatch)
    spec = toybench.spec(root, "energy", limit=1)
    run(spec, tmp_path)
    with pytest.raises(RunError, match="holds another run"):
        run(replace(spec, **changes), tmp_path)


def test_another_truth_or_route_is_added_beside(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    spec = toybench.spec(root, "energy", limit=2)
    for changes in ({}, {"route": "grid"}, {"truth": replace(spec.truth, name="eq1")}):
        run(replace(spec, **changes), tmp_path)
    table = rows(tmp_path)
    assert set(zip(table.route, table.truth, strict=True)) == {("native", "eq2"), ("grid", "eq2"), ("native", "eq1")}
    assert len(table) == 3 * 4


def test_rows_of_other_options_are_retired_not_mixed(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    spec = toybench.spec(root, "energy", "centre", limit=2)
    run(spec, tmp_path)
    changed = replace(spec, truth=replace(spec.truth, share=0.1))
    summary = run(changed, tmp_path)
    assert summary.computed == 8 and "stale" in " ".join(summary.problems)
    assert len(rows(tmp_path)) == 8 and len(list((tmp_path / "stale").rglob("*.parquet"))) == 2


STATUSES = {
    "toy-unsupported": ("unsupported", "needs an LSTM"),
    "toy-nan": ("failed", "returned NaN or infinity"),
    "toy-zero": ("undefined", "zero everywhere"),
    "toy-unseeded": ("void", "random numbers outside"),
    "toy-mixes": ("void", "alone and in a batch differ"),
    "toy-hooks": ("void", "hooks"),
    "toy-deaf": ("void", "does not depend on which class"),
}


@pytest.mark.parametrize("name", STATUSES)
def test_what_a_method_does_wrong_becomes_the_status_of_its_own_cells(root, tmp_path, monkeypatch, name):
    status, note = STATUSES[name]
    toybench.install(monkeypatch, name)
    run(toybench.spec(root, name, "energy"), tmp_path)
    table = rows(tmp_path)
    mine, other = table[table.attributor == name], table[table.attributor == "energy"]
    assert set(mine.status) == {status} and mine.value.isna().all()
    assert mine.note.str.contains(note).all(), mine.note.unique()
    assert set(other.status) == {"ok"}


def test_a_crash_costs_only_the_utterances_it_happens_on_and_leaves_a_traceback(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch, "toy-crash")
    run(toybench.spec(root, "toy-crash"), tmp_path, batch_size=6)
    table = rows(tmp_path)
    assert set(table[table.utterance == "c-1"].status) == {"failed"}
    assert table[table.status == "failed"].note.str.contains("division by speaker c").all()
    (trace,) = (tmp_path / "errors").iterdir()
    assert "ZeroDivisionError: division by speaker c" in trace.read_text()


def test_flipped_classes_make_every_row_void(root, tmp_path, monkeypatch):
    class Flipped(toybench.ToyRecipe):
        def untrained(self, *, seed):
            cm = super().untrained(seed=seed)
            cm.classes = ("bonafide", "spoof")
            return cm

    monkeypatch.setattr(toybench, "recipe", Flipped())
    toybench.install(monkeypatch)
    toybench.write_checkpoint(tmp_path / "w", classes=("bonafide", "spoof"))
    spec = toybench.spec(root, "energy", checkpoints={"toy": str(tmp_path / "w" / "toy.safetensors")})
    summary = run(spec, tmp_path / "run")
    assert set(summary.statuses) == {"void"} and "in the right order" in summary.problems[0]


def test_a_truth_is_the_same_file_whichever_method_came_first(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch, "toy-gradient")
    kept = []
    for name in ("energy", "toy-gradient"):
        run(toybench.spec(root, name, keep_maps=True, limit=1), tmp_path / name)
        kept.append({p.name: p.read_bytes() for p in (tmp_path / name / "maps" / "truth").rglob("*.safetensors")})
        assert all(name.encode() not in content for content in kept[-1].values())
    assert kept[0] == kept[1] and len(kept[0]) == 1


def test_maps_are_kept_and_recompute_the_score(root, tmp_path, monkeypatch):
    from xaibench import maps
    from xaibench.metrics.localisation import relevance_rank_accuracy

    toybench.install(monkeypatch)
    run(toybench.spec(root, "energy", keep_maps=True, limit=2), tmp_path)
    table = rows(tmp_path)
    for row in table[table.metric == "rank-accuracy"].itertuples():
        pair = f"{row.utterance}/{row.vocoder}"
        stored = maps.read_map(maps.map_path(tmp_path, "toy", "native", "energy", pair))
        truth = maps.read_truth(maps.truth_path(tmp_path, "eq2", toybench.SHAPE[1], pair))
        score = relevance_rank_accuracy(
            torch.from_numpy(stored.values)[None], torch.from_numpy(truth.region)[None].bool(),
            torch.from_numpy(truth.valid).bool(),
        )  # fmt: skip
        assert float(score) == pytest.approx(row.value, abs=1e-9)
        assert stored.metadata["utterance"] == row.utterance


@pytest.mark.parametrize("batch_size", [1, 4])
def test_kept_curves_have_the_areas_of_the_rows(root, tmp_path, monkeypatch, batch_size):
    from xaibench import maps
    from xaibench.metrics.faithfulness import area_under_curve

    toybench.install(monkeypatch, "toy-gradient")
    metrics = ("deletion-twin", "insertion-twin", "rank-accuracy")
    run(toybench.spec(root, "toy-gradient", "constant", keep_maps=True, metrics=metrics), tmp_path, batch_size=batch_size)
    table = rows(tmp_path)
    seen = table[table.metric.isin(metrics[:2]) & table.status.eq("ok")]
    assert len(seen) > 20
    for row in seen.itertuples():
        stored = maps.read_map(maps.map_path(tmp_path, "toy", "native", row.attributor, f"{row.utterance}/{row.vocoder}"))
        fractions, values = (torch.from_numpy(stored.curves[name]) for name in ("fractions", row.metric))
        assert float(area_under_curve(fractions, values[None])) == pytest.approx(row.value, rel=1e-9)
        assert fractions[0] == 0 and fractions[-1] == 1 and stored.metadata["resolves"] == "frequency,time"
        ends = stored.curves["deletion-twin"], stored.curves["insertion-twin"]  # untouched and filled, from either side
        assert ends[0][0] == pytest.approx(ends[1][-1]) and ends[0][-1] == pytest.approx(ends[1][0])


def test_curves_stay_when_a_run_is_continued_for_another_metric(root, tmp_path, monkeypatch):
    from xaibench import maps

    toybench.install(monkeypatch)
    path = maps.map_path(tmp_path, "toy", "native", "energy", "c_0/comb")
    for metrics in (("deletion-twin",), ("deletion-twin", "rank-accuracy"), ("deletion-twin", "insertion-twin")):
        run(toybench.spec(root, "energy", keep_maps=True, metrics=metrics), tmp_path)
        path = next((tmp_path / "maps" / "toy" / "native" / "energy").iterdir())
        expected = {"fractions", *(m for m in metrics if "tion-" in m)}
        assert set(maps.read_map(path).curves) == expected


KILLED = """
import sys, toybench
from pathlib import Path
from _pytest.monkeypatch import MonkeyPatch
from xaibench.harness import run as module
toybench.install(MonkeyPatch(), "toy-gradient")
root, out = Path(sys.argv[1]), Path(sys.argv[2])
spec = toybench.spec(root, "toy-gradient", "random", "energy", metrics=("rank-accuracy", "deletion-twin", "insertion-twin"))
module.run(spec, out, batch_size=1, report=lambda p: print(p.done if p.phase == 'cells' else 0, flush=True))
"""


def test_a_killed_run_continues_to_the_same_rows(root, tmp_path):
    here = Path(__file__).parent
    command = [sys.executable, "-c", KILLED, str(root)]
    environment = {**os.environ, "PYTHONPATH": str(here)}
    subprocess.run([*command, str(tmp_path / "whole")], env=environment, check=True, capture_output=True)
    victim = subprocess.Popen([*command, str(tmp_path / "killed")], env=environment, stdout=subprocess.PIPE, text=True)
    for line in victim.stdout:  # the run reports rows done; kill it with some, but not all
        if 9 <= int(line) < 54:
            os.kill(victim.pid, signal.SIGKILL)
            break
    assert victim.wait() == -signal.SIGKILL
    survived = len(rows(tmp_path / "killed"))
    assert 0 < survived < 54
    subprocess.run([*command, str(tmp_path / "killed")], env=environment, check=True, capture_output=True)
    assert_frame_equal(scores(tmp_path / "whole"), scores(tmp_path / "killed"), check_exact=True)
    assert not (tmp_path / "killed" / ".scratch").exists()


def test_a_second_process_in_the_same_folder_is_refused_by_name(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    with Store(tmp_path).locked(), pytest.raises(RunError, match="another process"):
        run(toybench.spec(root, "energy", limit=1), tmp_path)


def test_a_full_disk_is_an_error_of_ours_and_loses_nothing(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    spec = toybench.spec(root, "energy", "centre", limit=2)
    real, calls = os.replace, []

    def full(source, target):
        if str(target).endswith(".parquet"):
            calls.append(target)
            if len(calls) == 2:
                raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match="No space left on device"):
        run(spec, tmp_path)
    assert len(rows(tmp_path)) == 4
    monkeypatch.setattr(os, "replace", real)
    assert run(spec, tmp_path).computed == 4


def test_a_damaged_row_file_is_named(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    spec = toybench.spec(root, "energy", limit=1)
    run(spec, tmp_path)
    (file,) = (tmp_path / "rows").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RunError, match=file.name):
        run(spec, tmp_path)


def test_run_json_says_what_a_stranger_needs(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    run(toybench.spec(root, "energy", limit=2), tmp_path)
    stamp = json.loads((tmp_path / "run.json").read_text())
    assert stamp["countermeasures"]["toy"]["eer"] == 0.0
    assert stamp["dataset"]["pairs"] == 2 and stamp["dataset"]["name"] == "toy"
    assert (
        stamp["spec"]["truth"]["name"] == "eq2"
        and stamp["environment"]["packages"]["torch"] == torch.__version__.split("+")[0]
    )
    assert stamp["origins"]["attributors/energy"].startswith("xaibench ")


# ---- bad input -------------------------------------------------------------------------------------------------------


def corrupted(root: Path, tmp_path: Path) -> Path:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    return copy


def test_a_file_that_changed_stops_the_run_before_it_starts(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    copy = corrupted(root, tmp_path)
    file = copy / "eval" / "c-1_comb.flac"
    file.write_bytes((copy / "eval" / "d-1_comb.flac").read_bytes())
    with pytest.raises(ManifestError, match=r"c-1_comb\.flac: sha256"):
        run(toybench.spec(copy, "energy"), tmp_path / "run")
    file.unlink()
    with pytest.raises(ManifestError, match=r"c-1_comb\.flac: missing"):
        run(toybench.spec(copy, "energy"), tmp_path / "run")


def test_twins_of_different_lengths_are_named(root, tmp_path, monkeypatch):
    import soundfile

    toybench.install(monkeypatch)
    copy = corrupted(root, tmp_path)
    file = copy / "eval" / "c-1_comb.flac"
    samples, rate = soundfile.read(file)
    soundfile.write(file, samples[:-7], rate)
    bench = Workbench(toybench.spec(copy, "energy"))
    wrong = next(p for p in ordered_pairs(bench.corpus, "eval") if p.id == "c-1/comb")
    with pytest.raises(AudioError, match=r"c-1_comb.flac: 3993 samples, the manifest says 4000"):
        bench.waveforms([wrong], 4000)


def test_no_weights_no_score(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    with pytest.raises(CheckpointError, match="no trained weights of"):
        run(toybench.spec(root, "energy", checkpoints={}), tmp_path)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        run(toybench.spec(root, "energy", checkpoints={"toy": str(tmp_path / "none.safetensors")}), tmp_path / "b")


def test_a_card_of_another_countermeasure_is_refused(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    path = toybench.write_checkpoint(tmp_path / "w")
    path.with_suffix(".json").write_text('{"name": "other", "classes": ["spoof", "bonafide"]}')
    with pytest.raises(CheckpointError, match="its card describes 'other'"):
        run(toybench.spec(root, "energy", checkpoints={"toy": str(path)}), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"preset": "fast"}, "unknown preset"), ({"route": "sideways"}, "unknown route"), ({"limit": 0}, "at least 1"),
     ({"options": {"centre": {"width": 1}}}, "does not include")],
)  # fmt: skip
def test_a_wrong_spec_is_refused_when_made(root, changes, message):
    with pytest.raises(RunError, match=message):
        toybench.spec(root, "energy", **changes)


def test_unknown_names_get_suggestions(monkeypatch):
    toybench.install(monkeypatch, "toy-gradient")
    with pytest.raises(PluginError, match="did you mean 'inverse-energy'"):
        known_names("attributors", ["inverse_energy"])
    with pytest.raises(PluginError, match="did you mean 'rank-accuracy'"):
        known_metrics(["rank-acuracy"], "quick")
    assert "toy-gradient" in known_names("attributors", ["all"])[0]


def test_an_unwritable_folder_is_refused(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot write here"):
        run(toybench.spec(root, "energy", limit=1), tmp_path / "file" / "run")


# ---- plan ------------------------------------------------------------------------------------------------------------


def test_every_prefix_of_the_plan_is_balanced(root, monkeypatch):
    toybench.install(monkeypatch)
    ordered = ordered_pairs(Workbench(toybench.spec(root, "energy")).corpus, "eval")
    assert len(ordered) == len({p.id for p in ordered}) == 6
    assert {p.spoof.speaker for p in ordered[:3]} == {"c", "d", "e"}
    assert {p.spoof.vocoder for p in ordered[:2]} == set(toybench.VOCODERS)
    with pytest.raises(RunError, match="no pairs in its split 'test'"):
        ordered_pairs(Workbench(toybench.spec(root, "energy")).corpus, "test")


def test_references_come_from_training_and_never_from_a_held_out_vocoder(root, monkeypatch):
    toybench.install(monkeypatch)
    corpus = Workbench(toybench.spec(root, "energy")).corpus
    chosen = reference_pairs(replace(corpus, held_out=("comb",)), most=10)
    assert {p.spoof.split for p in chosen} == {"train"} and {p.spoof.vocoder for p in chosen} == {"smooth"}


def test_batches_keep_their_borders_whatever_is_done():
    assert batches([1, 2, 3, 4, 5], 2) == [(1, 2), (3, 4), (5,)]


def test_methods_do_not_see_the_truth_unless_they_say_so(root, monkeypatch):
    toybench.install(monkeypatch, "toy-gradient")
    bench = Workbench(toybench.spec(root, "oracle", "toy-gradient"))
    prepared = bench.prepare("toy", "native", ordered_pairs(bench.corpus, "eval")[:2])
    assert bench.view_for(prepared, bench.attributor("oracle")).truth is not None
    assert bench.view_for(prepared, bench.attributor("toy-gradient")).truth is None


def test_progress_tells_the_truth(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    steps = []
    started = time.perf_counter()
    summary = run(toybench.spec(root, "energy"), tmp_path, batch_size=2, report=steps.append)
    done = [s.done for s in steps if s.phase == "cells"]
    assert done == sorted(done) and done[-1] == steps[-1].total == summary.computed
    assert 0 < summary.seconds <= time.perf_counter() - started


@pytest.mark.parametrize("aside", [0.5, float("nan")])
def test_a_tap_that_is_no_true_cut_makes_a_countermeasure_void(root, monkeypatch, aside):
    toybench.install(monkeypatch)
    bench = Workbench(toybench.spec(root, "energy"))
    cm, chosen = bench.countermeasure("toy").module, ordered_pairs(bench.corpus, "eval")
    assert check_countermeasure(bench, "toy", chosen)[0] == ""
    cm.forward = lambda x: cm.backend.forward(cm.frontend(x))  # past what follows, which a call of the back end meets
    cm.backend.register_forward_hook(lambda module, given, logits: logits + aside)
    sentence, _, _ = check_countermeasure(bench, "toy", chosen)
    assert "its tap is not a true cut: backend(frontend(x)) differs from the whole by" in sentence
