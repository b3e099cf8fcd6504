"""What methods, metrics and libraries say over a cell is in that cell's record: once, bounded, before its rows."""

from __future__ import annotations

import json
import shutil
import warnings
from collections import OrderedDict
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
import toybench

from xaibench import open_run, registry
from xaibench.errors import RunError
from xaibench.harness import guard, warned
from xaibench.harness.guard import guarded, lasting, listening
from xaibench.harness.results import Store
from xaibench.harness.run import run
from xaibench.harness.warned import Said, merged, read_warnings, said_over
from xaibench.protocols import Metric, attributor
from xaibench.weights import save_weights


def quiet(view):
    return view.inputs[:, 0].clone()


def late(view):
    """Warns of one speaker only, whom the preflight's batch of one does not hold."""
    if any(name.startswith("e-") for name in view.ids):
        warnings.warn("no rule for speaker e", RuntimeWarning, stacklevel=1)
    return quiet(view)


def loud(view):
    for i in range(30_000):
        warnings.warn(f"number {i}", stacklevel=1)
    print("x" * 9000)  # noqa: T201
    return quiet(view)


def raising(view):
    warnings.warn("about to fail", stacklevel=1)
    raise KeyError("lost")


def of(monkeypatch, *functions):
    """Offer these as methods of the toy benchmark, by their functions' names."""
    names = []
    for function in functions:
        name = f"toy-{function.__name__}".replace("_", "-")
        method = attributor(name=name, paper="none", class_specific=False)(function)
        monkeypatch.setitem(toybench.METHODS, name, method)
        monkeypatch.setattr(toybench, function.__name__, method, raising=False)
        names.append(name)
    toybench.install(monkeypatch, *names)
    return names


def table(folder):
    return {(r.attributor, r.by, r.said): r.utterances for r in read_warnings([folder]).itertuples()}


def test_what_is_warned_after_the_preflight_is_in_the_record_of_its_cells(root, tmp_path, monkeypatch):
    (name,) = of(monkeypatch, late)
    run(toybench.spec(root, name, "energy"), tmp_path / "run", batch_size=1)
    verdict = json.loads((tmp_path / "run/preflight/toy-native-toy-late.json").read_text())
    assert verdict["warnings"] == [], "the preflight did not hear it"
    assert table(tmp_path / "run") == {(name, name, "RuntimeWarning: no rule for speaker e"): 2}
    rows = {p.relative_to(tmp_path / "run/rows").with_suffix("") for p in (tmp_path / "run/rows").rglob("*.parquet")}
    files = {p.relative_to(tmp_path / "run/warnings").with_suffix("") for p in (tmp_path / "run/warnings").rglob("*.json")}
    assert len(files) == 2 and files < rows, "a row file and its warnings have one name"
    assert said_over(tmp_path / "run", "e-1") == ["toy-late on toy: RuntimeWarning: no rule for speaker e"]
    assert said_over(tmp_path / "run", "e-1/comb") and not said_over(tmp_path / "run", "c-1")


def test_a_flood_is_bounded_and_counted(root, tmp_path, monkeypatch):
    (name,) = of(monkeypatch, loud)
    run(toybench.spec(root, name, limit=2), tmp_path)
    said = [text for _, _, text in table(tmp_path)]
    assert len(said) == guard.MOST_WARNINGS + 2 and "and at least 9980 more warnings" in said
    (printed,) = [text for text in said if text.startswith("printed: ")]
    assert printed.endswith("... (9001 characters)") and len(printed) < 600
    (file,) = (tmp_path / "warnings").rglob("*.json")
    assert file.stat().st_size < 20_000


def test_what_is_said_before_an_error_stays(root, tmp_path, monkeypatch):
    (name,) = of(monkeypatch, raising)
    run(toybench.spec(root, name, limit=2), tmp_path, batch_size=2)
    assert table(tmp_path) == {(name, name, "UserWarning: about to fail"): 2}


def test_a_metric_and_a_countermeasure_are_named_apart(root, tmp_path, monkeypatch):
    def shouts(evidence):
        warnings.warn("by the metric", stacklevel=1)
        return evidence.on_view.sum(dim=(1, 2)) * 0

    toybench.install(monkeypatch, "toy-gradient")
    known = registry._scan()
    toybench.shouting = Metric("shouting", "localisation", shouts, "higher", (0.0, 9.0), "none", "none", "always")
    plugin = registry.Plugin(
        "metrics", "shouting", "x", "1", EntryPoint("shouting", "toybench:shouting", "xaibench.metrics")
    )
    monkeypatch.setattr(registry, "_scan", lambda: (*known, plugin))

    class Speaks(torch.nn.Module):
        def forward(self, logits):
            warnings.warn("by the countermeasure", FutureWarning, stacklevel=1)
            return logits

    class Recipe(toybench.ToyRecipe):
        def untrained(self, *, seed):
            cm = super().untrained(seed=seed)
            cm.backend = torch.nn.Sequential(OrderedDict(whole=cm.backend, speaks=Speaks()))
            return cm

    monkeypatch.setattr(toybench, "recipe", Recipe())
    weights = tmp_path / "weights" / "toy.safetensors"
    save_weights(weights, Recipe().untrained(seed=0))
    shutil.copy((root / "weights" / "toy.json"), weights.with_suffix(".json"))
    spec = toybench.spec(root, "toy-gradient", metrics=("shouting", "drop-twin"), checkpoints={"toy": str(weights)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing leaves the run
        run(spec, tmp_path / "run")
    found = read_warnings([tmp_path / "run"])
    assert {(r.by, r.said) for r in found.itertuples()} >= {
        ("metric shouting", "UserWarning: by the metric"), (warned.SCORING, "FutureWarning: by the countermeasure"),
    }  # fmt: skip
    verdict = json.loads((tmp_path / "run/preflight/toy.json").read_text())
    assert verdict["warnings"] == ["FutureWarning: by the countermeasure"]


def test_a_chunk_taken_apart_says_over_which_utterance(root, tmp_path, monkeypatch):
    def partly(view):
        if any(name.startswith("c-") for name in view.ids):
            warnings.warn(f"speaker c, {len(view)} at once", stacklevel=1)
            raise KeyError("lost")
        return quiet(view)

    (name,) = of(monkeypatch, partly)
    run(toybench.spec(root, name), tmp_path, batch_size=6)
    assert table(tmp_path) == {
        (name, name, "UserWarning: speaker c, 6 at once"): 6, (name, name, "UserWarning: speaker c, 1 at once"): 2,
    }  # fmt: skip


def test_they_are_written_before_the_rows_and_read_with_them_only(root, tmp_path, monkeypatch):
    (name,) = of(monkeypatch, late)
    spec = toybench.spec(root, name)
    run(spec, tmp_path / "whole" / "run")
    write = Store.write_rows

    def dies(store, *_):
        raise MemoryError("the power is off")

    monkeypatch.setattr(Store, "write_rows", dies)
    with pytest.raises(MemoryError):
        run(spec, tmp_path / "run")
    assert list((tmp_path / "run" / "warnings").rglob("*.json")) and read_warnings([tmp_path / "run"]).empty
    monkeypatch.setattr(Store, "write_rows", write)
    run(spec, tmp_path / "run")
    assert table(tmp_path / "run") == table(tmp_path / "whole" / "run") != {}


def test_cells_computed_again_without_a_word_have_none(root, tmp_path, monkeypatch):
    talks = [True]

    def fickle(view):
        if talks:
            warnings.warn("once", stacklevel=1)
        if talks:
            raise KeyError("lost")
        return quiet(view)

    (name,) = of(monkeypatch, fickle)
    spec = toybench.spec(root, name, limit=2)
    run(spec, tmp_path)
    assert table(tmp_path)
    talks.clear()
    run(spec, tmp_path, retry_failed=True)
    assert table(tmp_path) == {}


def test_a_damaged_file_is_named_and_the_board_is_printed_all_the_same(root, tmp_path, monkeypatch, command):
    (name,) = of(monkeypatch, late)
    run(toybench.spec(root, name, "energy"), tmp_path)
    code, out, _ = command("leaderboard", tmp_path)
    assert code == 0 and "1 method warned: toy-late (6 utterances)." in " ".join(out.split())
    assert open_run(tmp_path).warnings.attributor.tolist() == [name]
    (file, *_) = sorted((tmp_path / "warnings").rglob("*.json"))
    for content in ("{", '{"schema": 1}', '{"schema": 2}', '{"schema": 1, "warnings": 3}', "[]"):
        file.write_text(content)
        shutil.rmtree(tmp_path / "none", ignore_errors=True)
        with pytest.raises(RunError, match=file.name):
            read_warnings([tmp_path])
        code, out, _ = command("leaderboard", tmp_path)
        assert code == 0 and file.name in out.replace("\n", "")


def test_torch_s_warnings_of_once_a_process_come_each_time():
    def heard():
        with listening("scoring") as ear, guarded("method"):
            torch.ones(2, 3, 4).T  # noqa: B018 - deprecated for three dimensions, and said once
        return [said for by, said in ear if by == "method"]

    assert len(heard()) == 1 and heard() == heard()
    assert not torch.is_warn_always_enabled()


def test_nested_blocks_each_have_their_own():
    with listening("outer") as outer:
        warnings.warn("a", stacklevel=1)
        with listening("inner") as inner, guarded("method"):
            warnings.warn("b", stacklevel=1)
        warnings.warn("a", stacklevel=1)
    assert list(inner) == [("method", "UserWarning: b")] and list(outer) == [("outer", "UserWarning: a")]


def test_what_passes_is_left_out():
    assert lasting("at 0x7f00deadbeef, 3.5 of 0x") == "at 0x..., 3.5 of 0x"
    paper = guard._Paper()
    for share in np.linspace(0, 100, 57):
        paper.write(f"\r{share:.0f}% [00:0{share % 7:.0f}<00:01, {share:.2f}it/s]")
    paper.write("\nWindows\r\nline ends\r\n\x1b[31mred")
    assert paper.read_off() == ("100% [...]\nWindows\nline ends\n [31mred", len("100% [...]\nWindows\nline ends\n [31mred"))


def test_merged_is_bounded():
    said = merged(Said("a", f"number {i}", (f"{i}/x",)) for i in range(100))
    assert len(said) == warned.MOST and said[-1].said == f"and {100 - warned.MOST + 1} more sentences"
    assert len(said[-1].utterances) == 100 - warned.MOST + 1


def test_what_libraries_set_when_they_are_first_imported_is_nobody_s_word(monkeypatch):
    import os

    for name, noted in (("KMP_INIT_AT_FORK", False), ("SOMEBODY_S", True)):
        monkeypatch.delenv(name, raising=False)
        with guarded("method") as noise:
            os.environ[name] = "FALSE"
        assert bool(noise.sentences) is noted and name not in os.environ
