"""Which weights a run uses: named files, a folder of one's own, what ships; and countermeasures rebuilt by their cards."""

from __future__ import annotations

import importlib
import json
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import toybench
from toys import N_SAMPLES, SHAPE, LinearCM

from xaibench import registry
from xaibench.cli.words import checkpoints_of, cm_options, roots_of
from xaibench.errors import CheckpointError, RunError, XaibenchError
from xaibench.harness.known import known_countermeasures, load_countermeasure
from xaibench.harness.plan import fingerprint, ordered_pairs
from xaibench.harness.run import run
from xaibench.harness.workbench import Workbench
from xaibench.recipe import Recipe
from xaibench.weights import save_weights


class Biased(LinearCM):
    """The toy countermeasure with two options: `shift` leaves the weights as they are, `size` does not."""

    def __init__(self, *, shift: float = 0.0, size: int = 1) -> None:
        weight = torch.zeros(SHAPE)
        weight[16:] = -0.02
        super().__init__(weight, bias=0.0)
        self.shift = shift
        self.register_buffer("padding", torch.zeros(size))


sized = Recipe(name="sized", paper="none", build=Biased, obtain="ask its authors for sized.safetensors")
bare = Recipe(name="bare", paper="none", build=Biased)
minimal = SimpleNamespace(  # a recipe of another make, with no more than the contract asks for
    name="minimal", paper="none", options={}, training={}, obtain="", untrained=lambda *, seed: Biased(),
    shipped=lambda: None,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _offered(monkeypatch):
    """Of countermeasures only the toys: `toy`, and `sized`, `bare`, `minimal`, none of which ships weights."""
    toybench.install(monkeypatch)
    monkeypatch.delenv("XAIBENCH_WEIGHTS", raising=False)
    others = tuple(p for p in registry._scan() if p.group != "countermeasures" or p.name == "toy")
    mine = tuple(
        registry.Plugin(group, name, "toy-package", "1.0", EntryPoint(name, f"test_checkpoints:{name}", f"xaibench.{group}"))
        for group, name in [("countermeasures", n) for n in ("sized", "bare", "minimal")]
    )
    monkeypatch.setattr(registry, "_scan", lambda: others + mine)


def write(folder: Path, name: str = "sized", *, card: dict | None = None, **options: object) -> Path:
    """A checkpoint of `Biased(**options)` with its card."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    save_weights(path, Biased(**options))
    facts = {"name": name, "classes": ["spoof", "bonafide"], "n_samples": N_SAMPLES, "options": options}
    path.with_suffix(".json").write_text(json.dumps({**facts, **(card or {})}))
    return path


def spec(root: Path, **changes: object):
    return toybench.spec(root, "energy", metrics=("rank-accuracy",), limit=2, **changes)


def rows(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "rows")


# ---- where weights are looked for --------------------------------------------------------------------------------------


def test_a_named_file_comes_before_one_s_own_folder_and_that_before_what_ships(tmp_path, monkeypatch):
    named, own, shipped = (write(tmp_path / place) for place in ("named", "own", "package"))
    monkeypatch.setattr(importlib.import_module("test_checkpoints"), "sized", Recipe(
        name="sized", paper="none", build=Biased, folder=shipped.parent
    ))  # fmt: skip
    assert load_countermeasure("sized", None, {})[2] == shipped
    monkeypatch.setenv("XAIBENCH_WEIGHTS", str(own.parent))
    assert load_countermeasure("sized", None, {})[2] == own
    assert load_countermeasure("sized", str(named), {})[2] == named
    own.unlink()
    assert load_countermeasure("sized", None, {})[2] == shipped, "a folder that lacks it is no obstacle"


def test_no_weights_is_an_error_that_says_how_to_get_them(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"'sized' are here: ask its authors .*--checkpoint sized=FILE.*XAIBENCH_WEIGHTS"
    ):
        load_countermeasure("sized", None, {})
    with pytest.raises(CheckpointError, match="'bare' are here: make them with `xaibench train --cm bare`"):
        load_countermeasure("bare", None, {})
    with pytest.raises(CheckpointError, match=r"none\.safetensors: no such checkpoint"):
        load_countermeasure("sized", str(tmp_path / "none.safetensors"), {})


def test_all_leaves_out_what_has_no_weights_and_says_how_to_get_them(root, tmp_path):
    toy = str(root / "weights" / "toy.safetensors")
    names, notes = known_countermeasures(["all"], {"toy": toy})
    assert names == ("toy",)
    said = {note.split("'")[1]: note for note in notes}
    assert said.keys() == {"sized", "bare", "minimal"}
    assert "ask its authors for sized.safetensors" in said["sized"]
    assert "xaibench train --cm bare" in said["bare"], "a recipe that says nothing"
    names, notes = known_countermeasures(["all"], {"toy": toy, "bare": str(write(tmp_path / "w", "bare"))})
    assert names == ("bare", "toy") and len(notes) == 2
    names, notes = known_countermeasures(["all", "bare"], {"toy": toy})
    assert names == ("bare", "toy"), "asked for by name: its absence is an error when the run begins"
    assert known_countermeasures(["sized"], {}) == (("sized",), ())


def test_all_leaves_out_what_was_made_to_test_methods_unless_it_is_named(tmp_path, monkeypatch):
    here = importlib.import_module("test_checkpoints")
    monkeypatch.setenv("XAIBENCH_WEIGHTS", str(write(tmp_path).parent))
    write(tmp_path, "bare")
    monkeypatch.setattr(here, "bare", Recipe(name="bare", paper="none", build=Biased, optional=True))
    assert known_countermeasures(["all"], {})[0] == ("sized",)
    assert known_countermeasures(["all", "bare"], {})[0] == ("sized", "bare")
    assert known_countermeasures(["bare"], {})[0] == ("bare",)


def test_all_of_nothing_is_an_error_not_an_empty_run():
    with pytest.raises(XaibenchError, match="no countermeasure has weights"):
        known_countermeasures(["all"], {})


def test_all_takes_weights_from_one_s_own_folder(root, tmp_path, monkeypatch):
    monkeypatch.setenv("XAIBENCH_WEIGHTS", str(write(tmp_path / "own").parent))
    names, notes = known_countermeasures(["all"], {})
    assert names == ("sized",) and len(notes) == 3


def test_every_countermeasure_of_a_run_may_have_a_file_of_its_own(root, tmp_path):
    files = {"toy": str(root / "weights" / "toy.safetensors"), "sized": str(write(tmp_path / "w", size=3))}
    run(spec(root, countermeasures=("toy", "sized"), checkpoints=files), tmp_path / "run")
    assert set(rows(tmp_path / "run").countermeasure) == {"toy", "sized"}
    stamp = json.loads((tmp_path / "run" / "run.json").read_text())["countermeasures"]
    assert stamp["sized"]["checkpoint"] == "sized.safetensors" and stamp["sized"]["card"]["options"] == {"size": 3}
    with pytest.raises(RunError, match="a checkpoint given for sized; this run has toy"):
        spec(root, checkpoints=files)
    with pytest.raises(RunError, match="options given for lcnn; this run has toy"):
        spec(root, cm_options={"lcnn": {"width": 3}})


# ---- the command line --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "cms", "found"),
    [
        (["w.safetensors"], ["lcnn"], {"lcnn": "w.safetensors"}),
        (["/a/b=c/w.safetensors"], ["lcnn"], {"lcnn": "/a/b=c/w.safetensors"}),
        (["lcnn=w.safetensors", "tca=/x/y=z.st"], ["lcnn", "tca"], {"lcnn": "w.safetensors", "tca": "/x/y=z.st"}),
        (["tca=w.safetensors"], ["all"], {"tca": "w.safetensors"}),
        ([], ["lcnn", "tca"], {}),
    ],
)  # fmt: skip
def test_checkpoints_on_the_command_line(words, cms, found):
    assert checkpoints_of(words, cms) == found


@pytest.mark.parametrize("cms", [["lcnn", "tca"], ["all"]])
def test_a_file_without_a_name_needs_a_single_countermeasure(cms):
    with pytest.raises(XaibenchError, match=r"'w\.safetensors': with several countermeasures expected NAME=FILE"):
        checkpoints_of(["w.safetensors"], cms)


def test_options_of_countermeasures_on_the_command_line(tmp_path):
    assert cm_options(["sized"], ["sized.size=3", "sized.note=some text"], None) == {
        "sized": {"size": 3, "note": "some text"}
    }
    for wrong in ("size=3", "sized.size"):
        with pytest.raises(XaibenchError, match=r"--cm-set .*: expected CM.OPTION=VALUE, as in tca.kinds"):
            cm_options(["sized"], [wrong], None)
    with pytest.raises(XaibenchError, match=r"none of toy, sized takes a wav2vec 2\.0 encoder"):
        cm_options(["toy", "sized"], [], tmp_path)


@pytest.mark.parametrize(
    ("folders", "data", "found"),
    [
        ([], "minivoc", None),
        (["/d/a"], "minivoc", "/d/a"),
        (["/d/a=b"], "minivoc", "/d/a=b"),
        (["main=/d", "bonafide=/e"], "vocv4", {"main": "/d", "bonafide": "/e"}),
        (["/d", "bonafide=/e"], "vocv4", {"main": "/d", "bonafide": "/e"}),
        (["vocv4=/d"], "some/where/vocv4.toml", "/d"),
    ],
)
def test_roots_on_the_command_line(folders, data, found):
    assert roots_of(folders, data) == found


# ---- the card rebuilds the countermeasure ------------------------------------------------------------------------------


def test_the_card_s_options_rebuild_it_and_those_of_the_command_line_stand_on_top(tmp_path):
    path = write(tmp_path, size=3, shift=0.5)
    module, card, _ = load_countermeasure("sized", str(path), {})
    assert module.padding.shape == (3,) and module.shift == 0.5 and card["options"] == {"size": 3, "shift": 0.5}
    module, card, _ = load_countermeasure("sized", str(path), {"shift": 2.0})
    assert module.shift == 2.0 and module.padding.shape == (3,)
    with pytest.raises(CheckpointError, match=r"sized\.safetensors: weights of another architecture: padding is \(3,\)"):
        load_countermeasure("sized", str(path), {"size": 2})
    with pytest.raises(XaibenchError, match="'sized' has no option depth; its options: shift, size"):
        load_countermeasure("sized", str(path), {"depth": 2})


def test_an_option_of_a_card_that_this_version_does_not_have_names_the_file(tmp_path):
    path = write(tmp_path, card={"options": {"depth": 3}})
    with pytest.raises(XaibenchError, match=r"sized\.safetensors.*'sized' has no option depth"):
        load_countermeasure("sized", str(path), {})


def test_a_card_of_another_countermeasure_or_of_other_classes_is_refused(tmp_path):
    for facts in ({"name": "toy"}, {"classes": ["bonafide", "spoof"]}, {"classes": ["tts", "vc", "bonafide"]}):
        path = write(tmp_path, card=facts)
        with pytest.raises(CheckpointError, match=r"its card describes .*, expected 'sized' with \['spoof', 'bonafide'\]"):
            load_countermeasure("sized", str(path), {})
    path.with_suffix(".json").unlink()
    with pytest.raises(CheckpointError, match="the card of the checkpoint is missing"):
        load_countermeasure("sized", str(path), {})


# ---- what a cell's numbers depend on -----------------------------------------------------------------------------------


def prints(root: Path, weights: Path, **options: object) -> str:
    mine = spec(root, countermeasures=("sized",), checkpoints={"sized": str(weights)}, cm_options={"sized": options})
    bench = Workbench(mine)
    return fingerprint(mine, ordered_pairs(bench.corpus, "eval")[0], bench.facts("sized", "native", "energy"))


def test_fingerprints_change_with_weights_and_with_options_of_the_card_or_the_command_line(root, tmp_path):
    plain = write(tmp_path / "plain")
    first = prints(root, plain)
    assert prints(root, write(tmp_path / "again")) == first, "where the file lies does not matter"
    assert prints(root, write(tmp_path / "shift", shift=0.5)) != first
    assert prints(root, plain, shift=0.5) != first
    assert prints(root, plain, shift=0.5) == prints(root, write(tmp_path / "shift", shift=0.5)), "whoever says it"
    assert prints(root, write(tmp_path / "size", size=2)) != first


def test_rows_of_other_options_of_the_countermeasure_are_computed_again(root, tmp_path, monkeypatch):
    made = []
    weights = str(write(tmp_path / "w"))
    monkeypatch.setattr("xaibench.harness.run.check_countermeasure", lambda *a, **k: made.append(1) or ("", 0.1, ()))
    for shift in (0.0, 0.5):
        mine = spec(root, countermeasures=("sized",), checkpoints={"sized": weights}, cm_options={"sized": {"shift": shift}})
        summary = run(mine, tmp_path / "run")
        assert summary.computed == len(rows(tmp_path / "run")) == 2
    assert "stale" in " ".join(summary.problems)
    assert len(made) == 2, "another option is another error rate"
