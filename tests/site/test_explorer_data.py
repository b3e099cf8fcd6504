"""What the explorer's scripts hold: exactly the top cells, exactly the recordings, little else, and nothing that acts."""

import io
import json
import zlib

import explorer_run
import numpy as np
import pytest
import soundfile
import torch
from explorer_run import EVIL, GRID, METHODS, PAIRS, RATE
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import colormaps

from xaibench import maps, registry
from xaibench.errors import ManifestError, RunError, XaibenchError
from xaibench.protocols import Dataset
from xaibench.site import explorer, levels, shell
from xaibench.top import top_mask
from xaibench.truth import top_share

SECTION = "toy--eq2--lcnn--native"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explorer")
    return folder, explorer_run.make(folder)


@pytest.fixture
def run(made, monkeypatch):
    monkeypatch.setattr(registry, "load", lambda group, name: explorer_run.dataset(made[0]))
    return made[1]


def delivered(path):
    """The arguments that a script calls its function with."""
    text = path.read_text(encoding="utf-16" if path.name != "index.js" else "utf-8")
    name, _, rest = text.partition("(")
    assert name in ("xaibench.deliver", "xaibench.index") and rest.endswith(");\n")
    return json.loads(f"[{rest[:-3]}]")


def pair_of(site, pair=PAIRS[0], section=SECTION):
    return delivered(site / "explorer" / section / f"{shell.slug(pair)}.js")[1]


def unpacked(stored, shape):
    """The levels of a map, by the same steps as the page."""
    flat = np.frombuffer(inflated(stored["levels"]), np.uint8)
    codes = flat.reshape(shape).astype(int)
    if stored["predicted"]:
        out = np.zeros((shape[0] + 1, shape[1] + 1), int)
        for f, t in np.ndindex(*shape):
            left, below, diagonal = out[f + 1, t], out[f, t + 1], out[f, t]
            guess = sorted((left, below, left + below - diagonal))[1]
            out[f + 1, t + 1] = (codes[f, t] + guess) % 256
        codes = out[1:, 1:]
    return codes


def inflated(text):
    return zlib.decompress(levels.content(text), wbits=-15)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["noise", "ties", "flat", "zero", "heavy", "negative"]))
def test_a_cut_is_exactly_the_top_share(seed, what):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(4, 40)), int(rng.integers(5, 40)))
    valid = np.zeros(shape, bool)
    valid[1:-1] = True
    noise = rng.normal(size=shape).astype(np.float32)
    values = {
        "noise": noise, "ties": np.round(noise), "flat": np.full_like(noise, 0.5), "zero": np.zeros_like(noise),
        "heavy": noise**9, "negative": -np.abs(noise),
    }[what]  # fmt: skip
    shares = [s for s in levels.SHARES if levels.count(s, valid.sum())]
    found = levels.levels(values, valid, [levels.count(s, int(valid.sum())) for s in shares])
    for place, share in enumerate(shares):
        wanted = top_share(torch.from_numpy(values)[None], torch.from_numpy(valid), share)[0].numpy()
        assert np.array_equal(found.top(place, valid), wanted)
        edge = np.sort(values[valid])[::-1][wanted.sum() - 1]
        assert found.tied[place] == ((values[valid] == edge).sum() > (values[wanted] == edge).sum())


def test_levels_say_the_value_to_within_a_colour():
    values = np.random.default_rng(0).normal(size=(30, 41))
    valid = np.ones(values.shape, bool)
    valid[:4] = False
    found = levels.levels(values, valid, [10, 100])
    read = np.clip(found.means[found.codes], -found.limit, found.limit)  # beyond it there is one colour
    inner = np.abs(values) < found.limit
    assert np.abs(read - values)[inner].max() <= 2 * found.limit / levels.BINS
    assert (np.diff(found.means) <= 0).all()


@pytest.mark.parametrize("bad", [np.full((3, 4), np.nan), np.zeros((4, 3)), np.zeros(4)])
def test_levels_refuse_what_is_no_map(bad):
    with pytest.raises(XaibenchError):
        levels.levels(bad, np.ones((3, 4), bool), [1])


@given(st.binary(max_size=200))
def test_text_gives_the_bytes_back(content):
    text = levels.text(content)
    assert levels.content(text) == content
    assert all(levels.FIRST <= ord(c) < levels.FIRST + 2**15 for c in text)


def test_the_script_of_a_pair_holds_every_map_and_the_truth(run, tmp_path):
    explorer.write([run], tmp_path)
    for pair in PAIRS:
        content = pair_of(tmp_path, pair)
        truth = maps.read_truth(maps.truth_paths(run, "eq2", pair)[0])
        shape = tuple(content["shape"])
        for name in ("region", "valid"):
            bits = np.unpackbits(np.frombuffer(inflated(content[name]), np.uint8))[: truth.values.size]
            assert np.array_equal(bits.reshape(shape).astype(bool), getattr(truth, name))
        assert set(content["maps"]) == set(METHODS)
        for name in METHODS:
            values = maps.read_map(maps.map_path(run, "lcnn", "native", name, pair)).values
            codes, stops = unpacked(content["maps"][name], shape), content["maps"][name]["stops"]
            for share, stop in zip(levels.SHARES, stops, strict=False):
                wanted = top_share(torch.from_numpy(values)[None], torch.from_numpy(truth.valid), share)[0].numpy()
                assert np.array_equal((codes < stop) & truth.valid, wanted), (name, share)
            assert ((codes < stops[-1]) & truth.valid).sum() == truth.region.sum()  # as many as the truth


def test_sound_is_the_recording_bit_by_bit(run, made, tmp_path):
    explorer.write([run], tmp_path)
    content = pair_of(tmp_path, "u1/world")
    for half, name in (("real", "bonafide"), ("fake", "world")):
        found, rate = soundfile.read(io.BytesIO(levels.content(content["sound"][half])), dtype="int16")
        wanted, _ = soundfile.read(made[0] / "audio" / f"u1_{name}.wav", dtype="int16")
        assert rate == RATE and np.array_equal(found, wanted)
    assert content["grid"] == {"rate": RATE, "n_fft": GRID.n_fft, "hop": GRID.hop, "window": "hann", "samples": 4_000}


def test_scores_gaps_and_curves_of_the_utterance(run, tmp_path):
    explorer.write([run], tmp_path)
    content = pair_of(tmp_path)
    assert "grad-cam" not in content["scores"]["rank-accuracy"]
    assert content["gaps"]["grad-cam"]["rank-accuracy"] == "failed: out of <b>memory</b>"
    assert content["curves"]["oracle"]["fractions"] == list(explorer_run.FRACTIONS)
    (index,) = delivered(tmp_path / "explorer" / "index.js")
    (section,) = index["sections"]
    assert [p["id"] for p in section["pairs"]] == list(PAIRS) and section["licence"] == "CC0 <i>"
    assert section["pairs"][0]["speaker"] == "s0" and section["pairs"][0]["vocoder"] == "griffinlim"
    assert index["methods"]["oracle"]["kind"] == "ceiling" and index["methods"][EVIL]["kind"] == "method"
    assert index["metrics"]["deletion-twin"]["direction"] == "lower"
    assert section["means"]["rank-accuracy"]["oracle"] == pytest.approx(0.3, abs=0.02)


def test_nothing_from_a_run_is_markup(run, tmp_path):
    for path in explorer.write([run], tmp_path):
        if path.parent.name != "assets":
            text = path.read_text(encoding="utf-16" if path.parent.name == SECTION else "utf-8")
            assert "<img" not in text and "<b>" not in text and "<i>" not in text


def test_a_data_set_that_is_gone_leaves_no_sound_and_no_folder_names(run, tmp_path, monkeypatch):
    def gone(name, root=None):
        raise ManifestError("/home/somebody/secret: no such folder")

    monkeypatch.setattr(registry, "open_corpus", gone)
    with pytest.warns(UserWarning, match="no sound"):
        explorer.write([run], tmp_path)
    content = pair_of(tmp_path)
    assert content["sound"] == {} and content["note"] == explorer.NO_AUDIO
    assert "secret" not in json.dumps(content)


def test_without_a_twin_only_the_fake_is_heard(made, run, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "load", lambda group, name: explorer_run.dataset(made[0], twins=False))
    explorer.write([run], tmp_path)
    content = pair_of(tmp_path)
    assert list(content["sound"]) == ["fake"] and content["note"] == explorer.NO_TWIN


def test_recordings_can_be_left_out(run, tmp_path):
    explorer.write([run], tmp_path, sound=False)
    assert pair_of(tmp_path)["sound"] == {} and pair_of(tmp_path)["note"] == explorer.LEFT_OUT


def test_every_route_is_a_section_with_the_same_few_utterances(tmp_path, monkeypatch):
    run = explorer_run.make(tmp_path, routes=("grid", "native"), samples=1_500)
    monkeypatch.setattr(registry, "load", lambda group, name: explorer_run.dataset(tmp_path))
    explorer.write([run], tmp_path / "site", utterances=2, nav=[("Boards", "index.html"), ("Methods", "methods/index.html")])
    (index,) = delivered(tmp_path / "site" / "explorer" / "index.js")
    routes = {s["route"]: [p["id"] for p in s["pairs"]] for s in index["sections"]}
    assert set(routes) == {"grid", "native"} and routes["grid"] == routes["native"] and len(routes["grid"]) == 2
    assert index["sections"][0]["board"] == f"boards/{index['sections'][0]['slug']}.html"
    assert index["methods"]["oracle"]["page"] == "methods/oracle.html"
    assert len(list((tmp_path / "site" / "explorer").rglob("*.js"))) == 5


def test_a_run_without_maps_has_no_explorer(tmp_path):
    assert explorer.write([tmp_path], tmp_path / "site") == [] and not (tmp_path / "site").exists()


def test_a_map_of_another_shape_is_named(tmp_path, monkeypatch):
    run = explorer_run.make(tmp_path, samples=1_500)
    path = maps.map_path(run, "lcnn", "native", "saliency", PAIRS[1])
    maps.write_map(path, np.ones((3, 4)), metadata={})
    with pytest.raises(RunError, match=r"u1__world.*\(3, 4\)"):
        explorer.write([run], tmp_path / "site", sound=False)


def test_a_map_that_is_the_same_everywhere_has_no_top_as_when_it_is_listened_to(run, tmp_path):
    valid = np.ones((3, 5), bool)
    valid[2] = False
    flat = np.full((3, 5), 0.25)
    flat[2] = 7.0  # outside the valid band
    assert levels.levels(flat, valid, [2]).flat and not top_mask(flat, 0.2, valid).any()
    assert not levels.levels(np.arange(15.0).reshape(3, 5), valid, [2]).flat
    explorer.write([run], tmp_path)
    assert {name: m["flat"] for name, m in pair_of(tmp_path)["maps"].items()} == dict.fromkeys(METHODS, False)


def test_a_pair_of_another_run_is_heard_from_the_data_of_that_run(tmp_path, monkeypatch):
    """Two runs of one board, whose data lie in two folders: the second has a pair that the first lacks."""
    runs = []
    for name in ("a", "b"):
        run = explorer_run.make(tmp_path / name, samples=1_500)
        record = json.loads((run / "run.json").read_text())
        record["spec"]["root"] = name
        (run / "run.json").write_text(json.dumps(record))
        runs.append(run)
    for path in (runs[0] / "maps").rglob("u2__world*"):
        path.unlink()
    opened = []

    def load(group, name):
        return Dataset(
            "toy", "a toy", lambda root: opened.append(str(root)) or explorer_run.dataset(tmp_path / "b").open(root)
        )

    monkeypatch.setattr(registry, "load", load)
    explorer.write(runs, tmp_path / "site")
    assert sorted(opened) == ["a", "b"] and set(pair_of(tmp_path / "site", "u2/world")["sound"]) == {"real", "fake"}


def test_a_map_of_pure_noise_keeps_the_site_small():
    """The budget of a map and its share of the sound: 300 MB for 200 utterances x 40 methods is 37.5 kB."""
    values = np.random.default_rng(0).normal(size=(257, 201)).astype(np.float32)
    content = explorer._map(values, np.ones(values.shape, bool), [levels.count(s, values.size) for s in levels.SHARES])
    assert 2 * len(shell.json_text(content)) < 37_500


def test_colours_are_those_of_the_figures():
    script = (shell.ASSETS / "explorer-colours.js").read_text(encoding="utf-8")
    text = script.replace('" +\n    "', "")
    for name in ("viridis", "RdBu_r"):
        colours = np.rint(colormaps[name](np.arange(256))[:, :3] * 255).astype(int)
        assert "".join(f"{r:02x}{g:02x}{b:02x}" for r, g, b in colours) in text


def test_every_script_of_the_page_is_copied(run, tmp_path):
    explorer.write([run], tmp_path)
    page = (tmp_path / "explorer.html").read_text(encoding="utf-8")
    for name in (*explorer.ASSETS, *shell.COMMON):
        assert f"assets/{name}" in page and (tmp_path / "assets" / name).is_file()
    assert page.count("<script src=") == sum(n.endswith(".js") for n in (*explorer.ASSETS, *shell.COMMON)) + 1
