"""`xaibench activations`: tables, page and pictures of a partial run, bona fide twins explained, and what goes wrong."""

import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import toybench

sys.path.insert(0, str(Path(__file__).parent / "analysis"))
from activation_toys import EVIL, partial_run

from xaibench import maps
from xaibench.analysis import rerun
from xaibench.analysis.activation_page import Wanted, analyse
from xaibench.analysis.activation_run import ActivationRun
from xaibench.analysis.activations import Rules
from xaibench.errors import RunError, XaibenchError
from xaibench.harness.run import run as run_harness


@pytest.fixture(scope="module")
def partial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("partial") / "run"
    return folder, partial_run(folder)


class Page(HTMLParser):
    """Elements, the text of cells, and images of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images, self.handlers, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.handlers += [name for name in attrs if name.startswith("on")]
        if tag == "img":
            self.images.append(attrs)
        self.links += [attrs[k] for k in ("src", "href") if k in attrs]


def test_a_partial_run_from_the_command_line(partial, command, tmp_path):
    folder, chosen = partial
    out = tmp_path / "out"
    code, text, err = command("activations", folder, "--out", out, "--figures", 1, "--threshold", "0.3,0.5")
    assert code == 0, err
    table = pd.read_csv(out / "statistics.csv")
    assert len(table) == 2 * 3 * len(chosen) and set(table["attributor"]) == {"right", "wrong", EVIL}
    right, wrong = (table[table["attributor"].eq(n)] for n in ("right", "wrong"))
    assert right["delta"].eq(1).all() and right["precision"].min() > 0.99 and right["recall"].min() > 0.99
    assert wrong["flat"].eq(1).all() and wrong["segments"].eq(0).all() and wrong["recall"].eq(0).all()
    assert right["segments"].tolist()[::2] == [len(p.spoof.segments) for p in sorted(chosen, key=lambda p: p.id)]
    assert (table["truth_share"] < 0.6).all() and (table["aside"] > 20).all()
    segments = pd.read_csv(out / "segments.csv")
    one = segments[segments["attributor"].eq("right") & segments["threshold"].eq(0.5)]
    known = {(p.spoof.source, p.spoof.vocoder): p.spoof.segments for p in chosen}
    for line in one.itertuples():
        assert any(
            abs(line.start - a) < 0.011 and abs(line.end - b) < 0.011 for a, b, _ in known[line.utterance, line.vocoder]
        )
    assert "right" in text and "activations.html" in text and "wrong: 3 of 3 maps" in err


def test_the_page_escapes_names_and_loads_nothing_from_elsewhere(partial, tmp_path):
    made = analyse(partial[0], tmp_path, wanted=Wanted(figures=1))
    text = (tmp_path / "activations.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "<img src=x" not in text and "&lt;img src=x onerror=alert(1)&gt;" in text and not page.handlers
    assert [i["src"] for i in page.images] and all((tmp_path / i["src"]).is_file() and i["alt"] for i in page.images)
    assert not any(link.startswith(("http:", "https:", "//")) for link in page.links)
    markdown = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "&lt;img" in markdown and "<img" not in markdown
    assert all(path.is_file() for path in made.files)
    again = analyse(partial[0], tmp_path / "again", wanted=Wanted(figures=1))
    for first, second in zip(made.files, again.files, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_some_utterances_and_methods(partial, tmp_path):
    folder, chosen = partial
    source = chosen[0].spoof.source
    made = analyse(folder, tmp_path, wanted=Wanted(utterances=(source,), xai=("right",), figures=0))
    table = pd.read_csv(tmp_path / "statistics.csv")
    assert set(table["utterance"]) == {source} and set(table["attributor"]) == {"right"}
    assert not [p for p in made.files if p.name.startswith("temporal__")]


def test_the_splices_and_the_band_are_those_of_the_data_set(partial):
    folder, chosen = partial
    opened = ActivationRun(folder, Rules(guard_at=("splices",)))
    pair = chosen[0]
    heard = opened.heard(pair.id, 201)
    assert heard.splices == tuple(t for a, b, _ in pair.spoof.segments for t in (a, b))
    (one,) = opened.mapped([pair.id], xai=["right"])
    middle = (heard.edges[1:] + heard.edges[:-1]) / 2
    near = np.min(np.abs(middle[:, None] - np.array(heard.splices)), axis=1) <= 0.1
    assert one.activity.aside.tolist() == near.tolist()
    assert one.activity.curve.max() == 2.0 * np.count_nonzero((opened.centres >= 90) & (opened.centres <= 7000))


@pytest.fixture
def toy_run(monkeypatch, tmp_path):
    """A run of the toy countermeasure on vocoded twins, maps kept."""
    toybench.install(monkeypatch, "toy-gradient", "toy-zero")
    toybench.write_corpus(tmp_path / "data")
    toybench.write_checkpoint(tmp_path / "data" / "weights")
    spec = toybench.spec(tmp_path / "data", "toy-gradient", "oracle", "toy-zero", keep_maps=True, limit=4)
    run_harness(spec, tmp_path / "run")
    return tmp_path / "run", spec


def test_bona_fide_twins_are_explained_with_the_settings_of_the_run(toy_run, tmp_path):
    folder, _ = toy_run
    out = tmp_path / "out"
    made = analyse(folder, out, rules=Rules(guard=0), wanted=Wanted(bonafide=True, figures=1))
    table = pd.read_csv(out / "statistics.csv")
    halves = table.groupby(["attributor", "half"])["utterance"].nunique().unstack().to_dict("index")
    assert halves["toy-gradient"]["bonafide"] == halves["toy-gradient"]["spoof"] == 3
    assert np.isnan(halves["oracle"]["bonafide"]) and any("oracle" in n and "made of the truth" in n for n in made.notes)
    real = table[table["half"].eq("bonafide")]
    assert real["vocoder"].eq("bonafide").all() and real["f1"].isna().all()
    oracle = table[table["attributor"].eq("oracle")]
    assert (oracle["delta"] > 0).all()  # the truth's frames are those of the run's truth
    assert list(out.glob("pictures/means__*.png"))


def test_a_rerun_gives_the_map_that_the_run_kept(toy_run):
    folder, spec = toy_run
    assert rerun.spec_of_run(folder) == spec
    opened = ActivationRun(folder, Rules())
    pair = opened.chosen()[0]
    frames = maps.read_map(opened.files["toy", "native", "toy-gradient", pair]).values.shape[1]
    bench = rerun.bench_of_run(folder, "toy", "native")
    wave = opened.heard(pair, frames).spoof
    (made,) = rerun.explained(bench, [(pair, wave)], ["toy-gradient"], failures := {})
    kept = maps.read_map(opened.files["toy", "native", "toy-gradient", pair]).values
    assert not failures and made[:2] == (pair, "toy-gradient") and np.allclose(made[2], kept, rtol=1e-4, atol=1e-6)
    assert rerun.class_maps(bench, wave) is None


def test_class_maps_are_asked_of_a_countermeasure_that_has_some(toy_run, monkeypatch):
    bench = rerun.bench_of_run(toy_run[0], "toy", "native")
    module = bench.countermeasure("toy").module
    wave = np.zeros(module.n_samples, np.float32)
    frames = len(module.axes[1])
    monkeypatch.setattr(type(module), "class_maps", lambda self, tap: torch.ones(1, 2, frames), raising=False)
    found = rerun.class_maps(bench, wave)
    assert found.values.shape == (2, frames) and found.classes == tuple(module.classes)
    monkeypatch.setattr(type(module), "class_maps", lambda self, tap: torch.ones(1, frames, 2))
    with pytest.raises(XaibenchError, match="expected \\(B, K, T\\)"):
        rerun.class_maps(bench, wave)


def test_tca_class_maps_sum_to_its_own_map():
    from xaibench.harness.known import load_countermeasure

    module = load_countermeasure("tca", None, {})[0].eval()
    wave = 0.1 * torch.randn(2, module.n_samples, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tap = module.frontend(wave)
        values, own = module.class_maps(tap), module.temporal_activation(tap)[:, 0]
        kind = module.backend(tap)[:, 1:].argmax(1) + 1
    assert values.shape == (2, 3, len(module.axes[1])) and module.classes[0] == "bonafide"
    spoof = values[torch.arange(2), kind]
    assert torch.allclose(spoof - values[:, 0], own, atol=1e-6) and own.abs().max() > 1e-4


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--threshold", "half"], "0.3,0.5,0.7"),
        (["--threshold", "1.5"], "each in"),
        (["--vad", "webrtc"], "energy, silero"),
        (["--guard-at", "edges"], "ends, speech, splices"),
        (["--xai", "grad-cam"], "no map of 'grad-cam' was kept; there are"),
        (["--utt", "nobody"], "no map of 'nobody'"),
    ],
)
def test_mistakes_are_one_line(partial, command, tmp_path, words, says):
    code, _, err = command("activations", partial[0], "--out", tmp_path / "o", *words)
    assert code == 2 and says in err and len(err.strip().splitlines()) == 1


def test_folders_that_are_no_runs(command, tmp_path):
    code, _, err = command("activations", tmp_path / "none", "--out", tmp_path / "o")
    assert code == 2 and "not a run folder" in err
    empty = tmp_path / "empty"
    empty.mkdir()
    grid = {"sample_rate": 16_000, "n_fft": 512, "hop": 160, "window": "hann"}
    spec = {"data": "minivoc-partial", "truth": {"name": "segments"}}
    (empty / "run.json").write_text(json.dumps({"spec": spec}))
    with pytest.raises(RunError, match=r"damaged .*grid"):
        ActivationRun(empty, Rules())
    (empty / "run.json").write_text(json.dumps({"spec": {**spec, "grid": grid}}))
    with pytest.raises(RunError, match="no maps were kept"):
        ActivationRun(empty, Rules())
    with pytest.raises(RunError, match="record of a run of this version"):
        rerun.spec_of_run(empty)


def test_a_map_of_another_grid_is_refused(tmp_path):
    folder = tmp_path / "run"
    (pair,) = partial_run(folder, pairs=1)
    path = maps.map_path(folder, "lcnn", "native", "odd", pair.id)
    maps.write_map(path, np.ones((129, 201)), metadata={})
    opened = ActivationRun(folder, Rules())
    with pytest.raises(RunError, match="129 frequencies, the grid has 257"):
        list(opened.mapped([pair.id], xai=["odd"]))
