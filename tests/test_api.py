"""What Python users and notebooks call: the same numbers as a run, representations that escape, errors that help."""

from __future__ import annotations

import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import fake_run
import numpy as np
import pytest
import torch
import toybench

import xaibench
from xaibench.api import parts, progress
from xaibench.api.facts import Facts
from xaibench.api.map import Map
from xaibench.api.runs import Pictures
from xaibench.errors import PluginError, RunError, Undefined, Unsupported, XaibenchError
from xaibench.harness.request import request, with_encoder
from xaibench.harness.run import Progress
from xaibench.leaderboard import render
from xaibench.types import Axis

HOSTILE = "<img src=x onerror=alert(1)>"


class Tags(HTMLParser):
    """The elements of a piece of HTML, their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.open += [tag] if tag not in ("img", "br", "source") else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "elements must nest"

    def handle_data(self, data):
        self.text += data if self.open[-1:] != ["style"] else ""


@pytest.fixture
def toy(root, monkeypatch):
    """The toy countermeasure and the pairs of the toy data set."""
    parts._bench.cache_clear()
    toybench.install(monkeypatch, "toy-gradient", "toy-zero", "toy-unsupported", "toy-coarse")
    yield (
        xaibench.countermeasure("toy", checkpoint=str(root / "weights" / "toy.safetensors"), device="cpu"),
        xaibench.load_data("toy", root=str(root)),
    )
    parts._bench.cache_clear()


@pytest.fixture
def folder(tmp_path) -> Path:
    return fake_run.write_run(tmp_path / "run", fake_run.rows(fake_run.SCORES))


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- names


def test_importing_xaibench_imports_nothing_that_computes():
    loaded = set(python("import sys, xaibench; dir(xaibench); print(*sys.modules)").split())
    assert "xaibench" in loaded and not loaded & {"torch", "numpy", "pandas", "matplotlib", "jinja2", "xaibench.api"}


def test_reading_a_run_and_showing_it_imports_no_torch(folder):
    code = f"import sys, xaibench; xaibench.open_run({str(folder)!r})._repr_html_(); print(*sys.modules)"
    loaded = set(python(code).split())
    assert "pandas" in loaded and not loaded & {"torch", "matplotlib", "plotly"}


@pytest.mark.parametrize("name", [n for n in xaibench.__all__ if n != "__version__"])
def test_every_public_name_is_there_documented_and_listed(name):
    found = getattr(xaibench, name)
    assert found.__doc__ and name in dir(xaibench)
    assert getattr(found, "__name__", name) == name


def test_a_name_that_is_not_there_is_an_attribute_error_and_submodules_still_import():
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        xaibench.runn  # noqa: B018
    assert python("from xaibench import errors, maps; print(maps.SUFFIX)").strip() == ".safetensors"


def test_public_names_fit_on_a_screen():
    assert len(xaibench.__all__) <= 20


# ---- runs


def test_a_run_is_its_folder(folder):
    run = xaibench.open_run(folder)
    assert len(run.rows) == len(fake_run.rows(fake_run.SCORES)) and run.record["dataset"]["name"] == "toy"
    assert set(run.board["attributor"]) == set(fake_run.SCORES)
    assert any("rank-accuracy" in sentence for sentence in run.verdict)
    assert run._repr_markdown_() == render.markdown(run.board)


def test_the_html_has_every_attributor_once_its_skill_and_the_verdict(folder):
    run = xaibench.open_run(folder)
    tags = Tags(run._repr_html_())
    html = run._repr_html_()
    assert all(html.count(f'<th scope="row">{name}</th>') == 1 for name in fake_run.SCORES)
    rows = {row["attributor"]: row for row in run.board.to_dict("records")}
    assert f"{rows['grad-cam']['rank-accuracy_skill']:.0%}".rstrip("%") in tags.text
    assert all(sentence in tags.text for sentence in run.verdict)
    order = [tags.text.index(heading) for heading in ("ceilings", "methods", "floors")]
    assert order == sorted(order)
    assert not tags.open and not tags.names & {"script", "link", "iframe"}


def test_bars_stay_within_their_box(tmp_path):
    scores = {**fake_run.SCORES, "far": {"rank-accuracy": 7.0, "drop-twin": -3.0}}
    run = xaibench.open_run(fake_run.write_run(tmp_path / "run", fake_run.rows(scores)))
    widths = [float(w.split("%")[0]) for w in run._repr_html_().split('<i style="width:')[1:]]
    assert len(widths) == 2 * len(scores) and min(widths) == 0 and max(widths) == 100


def test_hostile_names_stay_text(tmp_path):
    scores = {**fake_run.SCORES, HOSTILE: {"rank-accuracy": 0.3, "drop-twin": 0.5}}
    table = fake_run.rows(scores).assign(dataset=HOSTILE)
    table = fake_run.fail(table, table.attributor.eq("lime") & table.utterance.eq("u1"), note=f'" {HOSTILE}')
    safe = table.assign(attributor=table.attributor.replace(HOSTILE, "evil"))  # the folder's name; the rows keep theirs
    run_folder = fake_run.write_run(tmp_path / "run", safe, fake_run.run_record(dataset=HOSTILE))
    table[table.attributor.eq(HOSTILE)].to_parquet(next((run_folder / "rows").rglob("evil/*.parquet")), index=False)
    run = xaibench.Run(run_folder, notes=(f"void: {HOSTILE}",))
    tags = Tags(run._repr_html_())
    assert tags.text.count(HOSTILE) >= 3 and "img" not in tags.names and "onerror" not in tags.attributes
    assert "<img" not in run._repr_markdown_()
    facts = Tags(Facts(HOSTILE, {HOSTILE: HOSTILE}, {HOSTILE: np.zeros(16)}).html())
    assert facts.text.count(HOSTILE) == 4 and facts.names.isdisjoint({"img"}) and "audio" in facts.names
    assert "img" not in Tags(progress._html(HOSTILE, 1, 2)._repr_html_()).names


@pytest.mark.parametrize("columns", [60, 200])
def test_the_terminals_board_fits_the_terminal(folder, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = repr(xaibench.open_run(folder)).splitlines()
    assert any("grad-cam" in line for line in lines) and max(map(len, lines[1:])) <= columns


def test_a_folder_without_a_run_says_so(tmp_path):
    with pytest.raises(RunError, match=r"no run\.json"):
        xaibench.open_run(tmp_path)


def test_run_does_what_the_command_does_and_continues(root, toy, tmp_path):
    seen: list[Progress] = []
    how = {
        "data": "toy", "root": str(root), "metrics": "rank-accuracy,drop-twin", "limit": 2, "device": "cpu",
        "checkpoints": {"toy": str(root / "weights" / "toy.safetensors")}, "out": tmp_path / "run", "keep_maps": True,
    }  # fmt: skip
    run = xaibench.run("toy", ["toy-gradient"], **how, report=seen.append)
    assert {"toy-gradient", "random", "oracle"} <= set(run.board["attributor"])  # controls are always there
    assert seen[-1].phase == "cells" and seen[-1].done == seen[-1].total
    again: list[Progress] = []
    xaibench.run("toy", "toy-gradient", **how, report=again.append)
    assert again[-1].total == 0

    cm, data = toy
    for pair in (data[0], data[1]):
        made, kept = xaibench.attribute(cm, "toy-gradient", pair), run.map("toy-gradient", pair.id)
        np.testing.assert_allclose(made.values, kept.values, rtol=1e-4, atol=1e-6)
        assert made.values.shape == kept.values.shape and (made.region == kept.region).all()
        mine = run.rows[run.rows.attributor.eq("toy-gradient") & run.rows.utterance.eq(pair.pair.spoof.source)]
        for metric in ("rank-accuracy", "drop-twin"):
            assert made.score(metric) == pytest.approx(mine[mine.metric.eq(metric)].value.item(), rel=1e-4)


def test_maps_of_a_run_are_found_or_the_error_names_those_there_are(root, toy, tmp_path):
    run = xaibench.run(
        "toy", "toy-gradient", data="toy", root=str(root), metrics=["rank-accuracy"], limit=1, out=tmp_path / "run",
        checkpoints={"toy": str(root / "weights" / "toy.safetensors")}, keep_maps=True,
    )  # fmt: skip
    name = toy[1][0].id
    assert run.map("oracle", name).top().sum() == run.map("oracle", name).region.sum()
    with pytest.raises(RunError, match=r"no map of 'toy-gradeint' .*there are .*toy-gradient"):
        run.map("toy-gradeint", name)
    with pytest.raises(RunError, match=r"no maps of .* fit; there are countermeasure 'toy', route 'native'"):
        run.map("oracle", name, route="grid")
    with pytest.raises(XaibenchError, match=r"has no score 'rank-accuracy'.*run\.rows"):
        run.map("oracle", name).score("rank-accuracy")
    shutil.rmtree(tmp_path / "run" / "maps")
    with pytest.raises(RunError, match="no maps were kept"):
        run.map("oracle", name)


def test_pictures_are_shown_and_saved(tmp_path):
    pictures = Pictures((b"a", b"b"), what=f'of "{HOSTILE}')
    assert Tags(pictures._repr_html_()).attributes == {"style", "alt", "src"}
    assert pictures._repr_html_().count("data:image/png;base64,") == 2 and "2 pictures" in repr(pictures)
    assert [p.read_bytes() for p in pictures.save(tmp_path / "out")] == [b"a", b"b"]


# ---- what a run is asked for


def test_a_request_looks_up_names_and_names_its_folder():
    asked = request(["lcnn"], ["grad-cam"], ["rank-accuracy"], settings={"preset": "full", "seed": 3})
    assert asked.folder == Path("results/lcnn-minivoc-full") and asked.spec.seed == 3
    assert asked.spec.attributors[0] == "grad-cam" and {"random", "oracle"} <= set(asked.spec.attributors)
    assert request(["lcnn"], ["grad-cam"], out="here").folder == Path("here")
    with pytest.raises(PluginError, match="did you mean 'grad-cam'"):
        request(["lcnn"], ["grad-camm"])
    with pytest.raises(RunError, match="limit must be at least 1, got 0"):
        xaibench.run(limit=0)


def test_an_encoder_goes_to_those_that_take_one_and_leaves_the_given_options_alone():
    given = {"tca": {"kinds": ["tts"]}}
    assert with_encoder(given, ("lcnn", "tca"), "W2V") == {"tca": {"kinds": ["tts"], "ssl": "W2V"}}
    assert given == {"tca": {"kinds": ["tts"]}}
    with pytest.raises(XaibenchError, match="none of lcnn takes"):
        with_encoder({}, ("lcnn",), "W2V")


# ---- the steps


def test_pairs_are_aligned_and_found_by_name(toy):
    _, data = toy
    assert len(data) == 6 and len(list(data)) == 6 and len(data.utterances) == 9
    pair = data[0]
    assert pair.bonafide.shape == pair.spoof.shape and pair.bonafide.dtype == np.float32
    assert np.abs(pair.bonafide - pair.spoof).max() > 0.01
    assert data[pair.id].pair == pair.pair
    assert repr(data).startswith("toy\n") and "0.25 s" in repr(pair)
    assert Tags(pair._repr_html_()).names >= {"audio", "table"}
    with pytest.raises(XaibenchError, match=rf"did you mean {pair.id}"):
        data[pair.id[:-1]]
    with pytest.raises(PluginError, match="unknown dataset"):
        xaibench.load_data("nothing-like-it")


def test_a_countermeasure_scores_one_recording_or_many(toy):
    cm, data = toy
    pair = data[0]
    both = cm.score([pair.bonafide, pair.spoof])
    assert both.shape == (2,) and both[0] > both[1]  # higher = more bona fide
    assert cm.score(pair.spoof).item() == pytest.approx(both[1])
    assert cm.score(np.stack([pair.bonafide, pair.spoof])).tolist() == pytest.approx(both.tolist())
    assert "classes" in repr(cm) and "parameters" in Tags(cm._repr_html_()).text


def test_the_truth_of_a_pair_is_that_of_its_maps(toy):
    cm, data = toy
    truth, made = xaibench.truth_of(data[0]), xaibench.attribute(cm, "oracle", data[0], route="grid")
    assert truth.values.shape == made.values.shape and (truth.region == made.region).all()
    assert (truth.top() == truth.region).all() and made.score("rank-accuracy") == 1.0
    assert 0.5 < xaibench.attribute(cm, "oracle", data[0]).score("rank-accuracy") < 1  # the toy's own axes are coarser
    other = xaibench.truth_of(data[0], "log-difference")
    assert (other.region != truth.region).any() and other.region.sum() == truth.region.sum()


def test_a_method_of_ones_own_is_explained_and_scored_as_any_other(toy):
    cm, data = toy

    @xaibench.attributor(name="mine", paper="none", needs=["gradients"])
    def mine(view, *, power=1.0):
        x = view.inputs.clone().requires_grad_()
        return (torch.autograd.grad(view.model(x).sum(), x)[0] * x).sum(1).detach() * power

    made, theirs = xaibench.attribute(cm, mine, data[0]), xaibench.attribute(cm, "toy-gradient", data[0])
    np.testing.assert_allclose(made.values, theirs.values, rtol=1e-5, atol=1e-7)
    assert made.score("drop-twin") == pytest.approx(theirs.score("drop-twin")) and made.name == "mine"
    doubled = xaibench.attribute(cm, mine, data[0], options={"power": 2.0})
    np.testing.assert_allclose(doubled.values, 2 * made.values, rtol=1e-6)
    view = xaibench.view_of(cm, data[0])
    np.testing.assert_allclose(mine(view).values, theirs.behind.made.on_view, rtol=1e-5, atol=1e-7)


def test_a_deletion_curve_goes_from_the_fake_to_the_twin(toy):
    cm, data = toy
    made = xaibench.attribute(cm, "toy-gradient", data[0])
    fractions, log_odds = made.curve("deletion", fill="twin")
    assert fractions[0] == 0 and fractions[-1] == 1 and len(fractions) == len(log_odds) > 3
    assert log_odds[0] == pytest.approx(-cm.score(data[0].spoof).item(), rel=1e-4)
    up = made.curve("insertion", fill="twin", fractions=(0.0, 0.5, 1.0))[1]
    assert up[-1] == pytest.approx(log_odds[0]) and up[0] == pytest.approx(log_odds[-1])


def test_what_has_no_answer_says_why(toy):
    cm, data = toy
    with pytest.raises(Unsupported, match="LSTM"):
        xaibench.attribute(cm, "toy-unsupported", data[0])
    with pytest.raises(Undefined, match=r"rank-accuracy of toy-zero .*zero everywhere"):
        xaibench.attribute(cm, "toy-zero", data[0]).score("rank-accuracy")
    with pytest.raises(PluginError, match="did you mean 'toy-gradient'"):
        xaibench.attribute(cm, "toy-gradeint", data[0])
    with pytest.raises(PluginError, match="did you mean 'rank-accuracy'"):
        xaibench.attribute(cm, "oracle", data[0]).score("rank-acuracy")
    with pytest.raises(XaibenchError, match="no attribution method"):
        xaibench.attribute(cm, lambda view: view.inputs, data[0])
    with pytest.raises(XaibenchError, match="'all' is no attribution method: give one name"):
        xaibench.attribute(cm, "all", data[0])
    with pytest.raises(RunError, match="unknown route 'nativ'"):
        xaibench.attribute(cm, "oracle", data[0], route="nativ")


def test_weights_that_are_trained_on_have_maps_of_their_own(toy, tmp_path):
    from safetensors.torch import load_file, save_file

    cm, data = toy
    place = tmp_path / "mine.safetensors"
    maps = []
    for factor in (1.0, 3.0):
        save_file({k: factor * v for k, v in load_file(cm.checkpoint).items()}, place)
        shutil.copy(Path(cm.checkpoint).with_suffix(".json"), place.with_suffix(".json"))
        trained = xaibench.countermeasure("toy", checkpoint=str(place), device="cpu")
        maps.append(xaibench.attribute(trained, "toy-gradient", data[0]).values)
    parts._bench.cache_clear()
    assert not np.allclose(*maps) and (xaibench.attribute(trained, "toy-gradient", data[0]).values == maps[1]).all()


def test_a_coarse_map_comes_to_the_grid(toy):
    cm, data = toy
    coarse = xaibench.attribute(cm, "toy-coarse", data[0])
    assert coarse.values.shape == xaibench.truth_of(data[0]).values.shape
    assert len(coarse.frequency) == coarse.values.shape[0] and len(coarse.time) == coarse.values.shape[1]


def test_a_map_draws_itself_and_its_top_cells():
    axes = Axis("frequency", np.linspace(0, 8_000, 8)), Axis("time", np.linspace(0, 1, 6))
    values = np.arange(35.0).reshape(7, 5)
    valid = np.ones((7, 5), bool)
    valid[-1] = False
    region = np.zeros((7, 5), bool)
    region[5, 4] = True
    map_ = Map("a $method", "u/v", values, *axes, valid=valid, region=region)
    assert map_.top(0.1).sum() == 3 and not map_.top(0.1)[-1].any() and map_.top(0.1)[5, 4]
    assert map_._repr_png_().startswith(b"\x89PNG")
    figure = map_.plot(share=0.1)
    (mesh,) = figure.axes[0].collections
    drawn = mesh.get_array().reshape(7, 5)
    assert drawn[5, 4] == 2 and (drawn == 1).sum() == 2 and (drawn == 0).sum() == 32
    with pytest.raises(XaibenchError, match=r"less than one cell"):
        map_.top(0.001)


# ---- progress


class Display:
    """As IPython's `display`: what is shown, and what it becomes."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def __call__(self, thing, *, display_id):
        assert display_id
        self.update(thing)
        return self

    def update(self, thing):
        self.shown.append(thing._repr_html_())


@pytest.mark.parametrize("fails", [False, True])
def test_a_notebook_shows_a_bar_which_goes_in_the_end(monkeypatch, fails):
    screen = Display()
    monkeypatch.setattr(progress, "_display", lambda: screen)
    monkeypatch.setattr(progress, "EVERY", -1.0)
    try:
        with progress.shown() as step:
            step(Progress("cells", 1, 4, "lcnn grad-cam"))
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert 'value="1" max="4"' in screen.shown[1] and "cells lcnn grad-cam" in screen.shown[1]
    assert screen.shown[-1] == "" and len(screen.shown) == 3


def test_elsewhere_nothing_is_shown_and_a_report_is_called(capsys):
    with progress.shown() as step:
        step(Progress("cells", 1, 4))
    seen: list[Progress] = []
    with progress.shown(seen.append) as step:
        step(Progress("cells", 2, 4))
    assert seen == [Progress("cells", 2, 4)] and capsys.readouterr().out == ""
