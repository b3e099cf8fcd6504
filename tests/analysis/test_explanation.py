"""Explanations: what is planted is found, the decision is that of `evaluate`, a method that fails costs its own map only."""

import json

import numpy as np
import pytest
import soundfile
import torch
import toybench
from toys import GRID, N_SAMPLES

from xaibench import audio, registry
from xaibench.analysis.explanation import bench_for, explain, explain_on, threshold_of, training_sentence
from xaibench.analysis.page import write_folder
from xaibench.analysis.recording import Settings
from xaibench.errors import XaibenchError
from xaibench.harness.known import ALIASES, known_names, load_countermeasure
from xaibench.protocols import attributor
from xaibench.recordings import Excerpt
from xaibench.scoring import score_recordings

RATE = GRID.sample_rate


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The toy countermeasure and a recording of noise of 1 s, four times what it looks at."""
    toybench.install(monkeypatch, "toy-gradient", "toy-unsupported", "toy-nan", "toy-zero", "toy-wrecks", "toy-deaf")
    checkpoint = toybench.write_checkpoint(tmp_path / "weights")
    noise = 0.1 * np.random.default_rng(0).standard_normal(4 * N_SAMPLES)
    path = tmp_path / "noise.wav"
    soundfile.write(path, noise, RATE, subtype="PCM_16")

    def made(xai="toy-gradient", *, share=0.05, path=path, **settings):
        settings = {"checkpoint": str(checkpoint), **settings}
        return explain(path, cm="toy", xai=xai, share=share, device="cpu", settings=Settings(**settings))

    made.path, made.checkpoint = path, checkpoint
    return made


def test_the_score_is_that_of_evaluate(toy):
    found = toy()
    module, *_ = load_countermeasure("toy", str(toy.checkpoint), {})
    samples = audio.read(toy.path, sample_rate=RATE)
    assert np.isclose(found.decision.score, score_recordings(module, [samples])[0])
    assert len(found.windows) == 7 and found.windows[0].start == 0 and found.windows[-1].end == 1.0
    assert np.isclose(found.decision.score, np.mean([w.score for w in found.windows]))
    assert found.worst.score == min(w.score for w in found.windows)


def test_a_recording_of_one_window_has_the_map_of_the_run(toy, tmp_path):
    """Exact: input x gradient of a linear countermeasure, on the common grid."""
    soundfile.write(tmp_path / "one.wav", audio.read(toy.path, sample_rate=RATE)[:N_SAMPLES], RATE, subtype="PCM_16")
    found = toy(path=tmp_path / "one.wav")
    module, *_ = load_countermeasure("toy", str(toy.checkpoint), {})
    wave = torch.from_numpy(audio.read(tmp_path / "one.wav", sample_rate=RATE))[None]
    exact = (module.weight * module.frontend(wave)[0, 0]).numpy()
    values = found.maps["toy-gradient"].values
    assert values.shape == found.grid.shape(N_SAMPLES) and np.isclose(values.sum(), exact.sum(), rtol=1e-4)


def test_two_recordings_of_one_name_have_maps_of_their_own(toy, tmp_path):
    """On one bench, as the command has it; and the name of a recording changes nothing."""
    other = tmp_path / "elsewhere" / toy.path.name
    other.parent.mkdir()
    soundfile.write(other, 0.1 * np.random.default_rng(1).standard_normal(4 * N_SAMPLES), RATE, subtype="PCM_16")
    renamed = tmp_path / "renamed.wav"
    renamed.write_bytes(other.read_bytes())
    settings = Settings(checkpoint=str(toy.checkpoint), sounds=False)
    bench = bench_for("toy", "toy-gradient,random", device="cpu", settings=settings)
    found = [explain_on(bench, path, settings=settings).maps for path in (toy.path, other, renamed)]
    alone = toy("toy-gradient,random", path=other, sounds=False).maps
    for name in ("toy-gradient", "random"):
        assert np.array_equal(found[1][name].values, alone[name].values), name
        assert np.array_equal(found[2][name].values, alone[name].values), name
        assert not np.allclose(found[0][name].values, alone[name].values), name


def test_a_map_lies_on_the_whole_recordings_grid(toy):
    found = toy()
    one = found.maps["toy-gradient"]
    assert one.values.shape == found.grid.shape(4 * N_SAMPLES) == one.places.mask.shape == found.power.shape
    assert one.places.mask.sum() <= round(0.05 * one.values.size)
    ends = [p.end for p in one.places]
    assert max(ends) <= found.recording.seconds
    assert set(one.over_time.segments) == {0.3, 0.5, 0.7}


def test_methods_that_fail_are_named_and_others_go_on(toy):
    found = toy("toy-wrecks,toy-unsupported,toy-nan,toy-gradient,oracle,extremal-twin,toy-zero")
    assert set(found.maps) == {"toy-gradient", "toy-zero"} and found.maps["toy-zero"].empty
    assert "LSTM" in found.failures["toy-unsupported"] and "KeyError" in found.failures["toy-wrecks"]
    assert "NaN" in found.failures["toy-nan"] and "truth" in found.failures["oracle"]
    assert "twin" in found.failures["extremal-twin"] and "recording of your own" in found.failures["extremal-twin"]
    alone = toy()
    assert np.array_equal(found.maps["toy-gradient"].values, alone.maps["toy-gradient"].values)


def test_where_no_method_is_left_the_reasons_are_the_error(toy):
    with pytest.raises(XaibenchError, match=r"no method has a map of it\. toy-unsupported: this method needs an LSTM"):
        toy("toy-unsupported")


def test_a_method_that_changes_the_weights_is_found_out(toy, monkeypatch):
    @attributor(name="toy-deaf", paper="none", class_specific=False)
    def sly(view):
        for parameter in view.model.parameters():
            parameter.data[..., ::2] = 0
        return view.inputs[:, 0].clone()

    monkeypatch.setattr(toybench, "deaf", sly)
    found = toy("toy-deaf,toy-gradient")
    assert "changed the weights" in found.failures["toy-deaf"]
    assert np.array_equal(found.maps["toy-gradient"].values, toy().maps["toy-gradient"].values)


def test_kept_and_removed_add_up_and_are_scored(toy):
    found = toy()
    samples, one = found.recording.samples, found.maps["toy-gradient"]
    assert np.allclose(found.kept("toy-gradient") + found.removed("toy-gradient"), samples, atol=1e-6)
    module, *_ = load_countermeasure("toy", str(toy.checkpoint), {})
    assert np.isclose(one.heard.removed, score_recordings(module, [found.removed("toy-gradient")])[0])
    # The toy says spoof where the upper bins are weak: without the cells that say so most, it is another score.
    assert one.heard.kept != one.random.kept and np.isfinite(one.random.removed)
    assert np.isnan(toy(sounds=False).maps["toy-gradient"].random.kept)


def test_random_cells_are_as_many_and_of_the_kind_of_the_maps(monkeypatch):
    """Whole frames beside whole frames: lone cells sound like nothing else, whatever the score."""
    from types import SimpleNamespace

    from xaibench.analysis import explanation

    seen = []
    monkeypatch.setattr(explanation, "_scored", lambda bench, samples, mask: seen.append(mask) or explanation.Heard(1, 2))
    bench = SimpleNamespace(spec=SimpleNamespace(seed=0))
    mask = np.zeros((9, 40), bool)
    mask[:, [3, 7, 8]] = True
    assert explanation._random(bench, None, mask, frozenset({"time"})).kept == 1
    for drawn in seen:
        assert drawn.shape == mask.shape and drawn.all(0).sum() == 3 and drawn.sum() == mask.sum()
    assert not np.array_equal(seen[0], seen[1])
    seen.clear()
    explanation._random(bench, None, mask, frozenset({"frequency", "time"}))
    assert all(drawn.sum() == mask.sum() and not drawn.all(0).any() for drawn in seen)


def test_thresholds():
    assert threshold_of({"threshold": 0.4})[0] == 0.4 and "card" in threshold_of({"threshold": 0.4})[1]
    assert threshold_of({"threshold": 0.4}, -1.0) == (-1.0, "given by the user")
    assert threshold_of({"threshold": "high"})[0] == 0.0
    with pytest.raises(XaibenchError, match="finite"):
        threshold_of({}, float("nan"))


def test_the_decision_is_at_the_threshold(toy):
    score = toy().decision.score
    assert toy(threshold=score + 1).decision.word == "spoof" and toy(threshold=score - 1).decision.word == "bona fide"
    assert toy(threshold=score).decision.spoof  # as `metrics.detection`: bona fide if and only if above


def test_a_spoofed_window_is_not_lost_in_the_mean(toy):
    from xaibench.analysis.page import caveats

    scores = sorted(w.score for w in toy(sounds=False).windows)
    assert scores[1] < np.mean(scores)
    between = toy(sounds=False, threshold=(scores[0] + scores[1]) / 2)
    assert not between.decision.spoof and any("1 of 7 windows are on the side of spoof" in c for c in caveats(between))
    below = toy(sounds=False, threshold=scores[0] - 1)
    assert not any("on the side of spoof" in c for c in caveats(below))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_that_cannot_be_is_refused(toy, share):
    with pytest.raises(XaibenchError, match="share"):
        toy(share=share)


def test_json_is_strict_and_says_everything(toy):
    found = toy("toy-gradient,oracle", sounds=False)
    facts = json.loads(found.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert facts["decision"]["word"] == found.decision.word and len(facts["windows"]) == 7
    method = facts["attributors"]["toy-gradient"]
    assert method["kept_score"] is None and method["regions"][0].keys() >= {"start", "end", "low", "high", "share", "level"}
    assert len(method["regions"]) == min(10, method["regions_in_all"]) and "oracle" in facts["failures"]
    assert facts["recording"]["name"] == "noise.wav"  # and no folder of this machine


def test_what_comes_from_elsewhere_is_escaped(toy, tmp_path, monkeypatch):
    evil = "<img src=x onerror=alert(1)>"

    @attributor(name="toy-deaf", paper=evil)
    def loud(view):
        raise ValueError(evil)

    monkeypatch.setattr(toybench, "deaf", loud)
    path = tmp_path / "a<script>alert(2)<script>.wav"
    path.write_bytes(toy.path.read_bytes())
    found = toy("toy-deaf,toy-gradient", path=path)
    page = write_folder(found, tmp_path / "out").read_text(encoding="utf-8")
    for text in (page, found._repr_html_()):
        assert evil not in text and "<script>alert(2)" not in text and "&lt;img src=x" in text and "&lt;script&gt;" in text


def test_a_folder_holds_all_of_it(toy, tmp_path):
    from safetensors.numpy import load_file

    found = toy("toy-gradient,toy-zero")
    page = write_folder(found, tmp_path / "out")
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {
        "explanation.html", "explanation.json", "regions.csv", "maps.safetensors", "recording.png", "recording.wav",
        "toy-gradient.png", "toy-zero.png", "toy-gradient_kept.wav", "toy-gradient_removed.wav",
    }  # fmt: skip
    text = page.read_text(encoding="utf-8")
    assert text.count("data:audio/flac;base64") == 3 and text.count("data:image/png;base64") == 3
    assert "finds nothing that speaks for spoof" in text and "The score over time" in text
    stored = load_file(tmp_path / "out" / "maps.safetensors")["maps/toy-gradient"]
    assert np.array_equal(stored, found.maps["toy-gradient"].values)
    for name in ("recording", "toy-gradient_kept", "toy-gradient_removed"):
        samples, rate = soundfile.read(tmp_path / "out" / f"{name}.wav")
        assert rate == RATE and len(samples) == 4 * N_SAMPLES and 0 < np.abs(samples).max() <= 1
    rows = (tmp_path / "out" / "regions.csv").read_text().splitlines()
    assert len(rows) == 1 + min(10, len(found.maps["toy-gradient"].places))
    assert set(json.loads((tmp_path / "out" / "explanation.json").read_text(encoding="utf-8"))["files"]) == names
    quiet = write_folder(found, tmp_path / "quiet", listen=False).read_text(encoding="utf-8")
    assert "<audio" not in quiet and not list((tmp_path / "quiet").glob("*.wav"))


def test_an_earlier_explanation_does_not_lie_beside_a_later_one(toy, tmp_path):
    out = tmp_path / "out"
    write_folder(toy("toy-gradient,toy-zero"), out)
    (out / "my notes.txt").write_text("mine")
    facts = json.loads((out / "explanation.json").read_text(encoding="utf-8"))
    facts["files"].append("../kept.txt")  # a list that somebody changed takes nothing from other folders
    (tmp_path / "kept.txt").write_text("mine")
    (out / "explanation.json").write_text(json.dumps(facts), encoding="utf-8")
    write_folder(toy("toy-zero", sounds=False), out, listen=False)
    assert {p.name for p in out.iterdir()} == {
        "explanation.html", "explanation.json", "regions.csv", "maps.safetensors", "recording.png", "toy-zero.png",
        "my notes.txt",
    }  # fmt: skip
    assert (tmp_path / "kept.txt").exists()


def test_on_a_screen_it_is_a_few_lines_and_can_be_saved(toy, tmp_path):
    found = toy("toy-gradient,toy-zero,oracle")
    lines = repr(found).splitlines()
    assert lines[0] == found.sentence() and "toy-gradient" in lines and "  nothing speaks for spoof" in lines
    assert f"  {found.maps['toy-gradient'].places.found[0].sentence()}" in lines
    assert any(line.startswith("oracle has no map: ") for line in lines) and len(repr(found)) < 1_500
    assert "array(" not in repr(found.maps["toy-gradient"]) + repr(found.recording)
    assert found.save(tmp_path / "out") == tmp_path / "out" / "explanation.html"
    assert (tmp_path / "out" / "recording.wav").exists()


def test_what_it_was_trained_on_is_a_sentence():
    data = {"a": {}, "b": {}, "c": {}}
    assert training_sentence("x", {"trained_on": {"data": data}}).startswith("x was trained on a, b and c: ")
    assert training_sentence("x", {"trained_on": {"data": ["a"]}}).startswith("x was trained on a: ")


def test_what_people_call_a_method():
    assert known_names("attributors", ["ig", "GradCAM", "grad-cam"])[0] == ("integrated-gradients", "grad-cam")
    assert set(ALIASES.values()) <= set(registry.plugins("attributors"))
    assert not set(ALIASES) & set(registry.plugins("attributors"))
    with pytest.raises(XaibenchError, match="unknown attributor 'shap'; did you mean"):
        known_names("attributors", ["shap"])


# With the real thing ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Three recordings of minivoc one after the other, the middle one with a notch in a known place: s and Hz."""
    notch = pytest.importorskip("xaibench_planted.notch")
    corpus = registry.open_corpus("minivoc")
    real = [u for u in corpus.utterances if u.bonafide and u.split == "eval"][:3]
    waves = [audio.read(u.path, sample_rate=RATE) for u in real]
    start, end, low, high = notch.planted_rectangle(waves[1], RATE)
    waves[1] = notch.notch(waves[1], RATE)
    path = tmp_path_factory.mktemp("planted") / "three.wav"
    soundfile.write(path, np.concatenate(waves), RATE, subtype="PCM_16")
    offset = len(waves[0]) / RATE
    return path, (offset + start, offset + end, low, high)


def test_the_planted_place_is_the_first_region(planted):
    """Six seconds, of which a countermeasure hears a notch in 0.7 s and 1,100 Hz: found, and found worst."""
    path, (start, end, low, high) = planted
    found = explain(path, cm="planted-cnn", xai="xgrad-cam,grad-cam,random", device="cpu", settings=Settings(sounds=False))
    assert found.worst.score < found.decision.threshold
    assert found.worst.start < end and start < found.worst.end
    for name, least in (("xgrad-cam", 0.5), ("grad-cam", 0.5), ("random", -1.0)):
        first = found.maps[name].places.found[0]
        across = min(first.end, end) - max(first.start, start)
        along = min(first.high, high) - max(first.low, low)
        shared = max(across, 0) * max(along, 0)
        union = (first.end - first.start) * (first.high - first.low) + (end - start) * (high - low) - shared
        if least < 0:
            assert shared / union < 0.2, f"a control finds it, too: {first}"
        else:
            assert shared / union > least, f"{name}: {first} against {start, end, low, high}"


def test_a_part_of_it_alone(planted):
    path, (start, end, *_) = planted
    part = Settings(sounds=False, excerpt=Excerpt(start=start - 0.2, end=end + 0.2))
    found = explain(path, cm="planted-cnn", xai="grad-cam", device="cpu", settings=part)
    first = found.maps["grad-cam"].places.found[0]
    assert found.repeats == 2 and len(found.windows) == 1
    assert np.isclose(found.recording.seconds, end - start + 0.4, atol=1e-3)
    assert first.start < 0.2 + (end - start) and first.end > 0.2


def test_a_method_that_has_nothing_to_say_of_any_window_has_no_map(toy, monkeypatch):
    from xaibench.analysis import recording
    from xaibench.errors import Undefined

    before, asked = recording.cell.explain, []

    def explain_(bench, prepared, method):
        asked.append(method)
        if method == "toy-zero" or (method == "toy-deaf" and len(asked) % 2):
            raise Undefined(f"{method} says nothing")
        return before(bench, prepared, method)

    monkeypatch.setattr(recording.cell, "explain", explain_)
    found = toy("toy-gradient,toy-zero", sounds=False)
    assert set(found.maps) == {"toy-gradient"} and found.failures == {"toy-zero": "toy-zero says nothing"}
