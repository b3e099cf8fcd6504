"""The same method's map again: what each change does to a recording or a countermeasure, and through the whole harness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import toybench
from toys import GRID, N_SAMPLES, ConvCM, pairs, view_of

from xaibench.errors import Unsupported, XaibenchError
from xaibench.harness import again as harness
from xaibench.harness.again import asker, changed_view
from xaibench.harness.cell import explain
from xaibench.harness.plan import Chunk, ordered_pairs
from xaibench.harness.run import run
from xaibench.harness.workbench import Workbench
from xaibench.metrics.again import bonafide_logit, opposite, parse, perturb, redraw, shifted
from xaibench.protocols import attributor
from xaibench.weights import weights_hash

IDS = ["a/comb", "b/comb", "c/comb"]


def changed(waveforms, text, ids=IDS):
    (change,) = parse(text)
    return perturb(waveforms, change, ids, grid=GRID)


def snr(before, after):
    return 20 * (before.norm(dim=1) / (after - before).norm(dim=1)).log10()


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["blur", "noise", "noise:40", "noise:x:0", "codec:mp3", "codec", "randomised:0", "randomised:1.5", "opposite:1",
             "", "noise:40:0+", "randomised:1.0+what"],
)  # fmt: skip
def test_unknown_changes_are_named(text):
    with pytest.raises(XaibenchError, match=r"change|share of modules"):
        parse(text)


def test_changes_of_the_recording_come_first():
    assert [c.text for c in parse("opposite+noise:40:0")] == ["noise:40:0", "opposite"]


# ---- recordings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["noise:40:0", "white:20:3"])
def test_noise_has_exactly_the_ratio_that_it_says(text):
    speech, _ = pairs()
    speech = speech * torch.tensor([[1.0], [0.01], [3.0]])
    found = snr(speech, changed(speech, text))
    torch.testing.assert_close(found, torch.full((3,), parse(text)[0].values[0]), rtol=0, atol=1e-3)


def test_masked_noise_follows_the_speech_and_white_noise_does_not():
    tone = torch.sin(torch.arange(N_SAMPLES) * 2 * torch.pi * 2000 / 16_000)[None]
    tone[:, N_SAMPLES // 2 :] = 0
    for text, quiet in (("noise:40:0", True), ("white:40:0", False)):
        added = GRID.stft(changed(tone, text, ["x"]) - tone)[0].abs().square()
        beside, after = added[2:5, :50].sum() / added[6:11, :50].sum(), added[:, 70:].sum() / added.sum()
        assert (beside < 0.01 and after < 0.01) == quiet, (text, beside, after)


def test_draws_depend_on_the_utterance_and_the_number_alone():
    speech, _ = pairs()
    whole = changed(speech, "noise:40:0")
    assert torch.equal(changed(speech[[2, 0]], "noise:40:0", [IDS[2], IDS[0]]), whole[[2, 0]])
    assert not torch.equal(whole, changed(speech, "noise:40:1"))
    same = speech[:1].expand(2, -1)
    one, two = changed(same, "white:20:0", IDS[:2])
    assert not torch.equal(one, two)


@pytest.mark.parametrize(("text", "least"), [("codec:mu-law", 30), ("codec:vorbis", 5)])
@pytest.mark.parametrize("length", [N_SAMPLES, 20_001])
def test_codecs_change_little_and_add_no_delay(text, least, length):
    draw = torch.Generator().manual_seed(0)
    spectrum = torch.fft.rfft(torch.randn(2, length, generator=draw)) / torch.arange(1, length // 2 + 2) ** 0.7
    speech = torch.fft.irfft(spectrum, length)
    speech = 0.3 * speech / speech.abs().amax(1, keepdim=True)
    coded = changed(speech, text, IDS[:2])
    assert (
        coded.shape == speech.shape and not torch.equal(coded, speech) and torch.equal(coded, changed(speech, text, IDS[:2]))
    )
    ratio = snr(speech, coded)
    assert (ratio > least).all() and (ratio < 45).all()
    for before, after in zip(speech.numpy(), coded.numpy(), strict=True):
        spectra = np.fft.rfft(after, 2 * length) * np.fft.rfft(before, 2 * length).conj()
        assert np.fft.irfft(spectra).argmax() == 0


def test_a_silent_or_clipped_recording_stays_finite():
    extreme = torch.stack([torch.zeros(N_SAMPLES), 4 * torch.ones(N_SAMPLES)])
    for text in ("noise:40:0", "white:20:0", "codec:mu-law", "codec:vorbis"):
        assert changed(extreme, text, IDS[:2]).isfinite().all()
    assert torch.equal(changed(extreme, "noise:40:0", IDS[:2])[0], extreme[0])


# ---- countermeasures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["native", "grid"])
def test_a_shifted_view_is_the_same_function_under_the_same_names(route):
    view = view_of(ConvCM(), route=route)
    other = shifted(view, 2.0)
    moved = (other.inputs - view.inputs).flatten()
    torch.testing.assert_close(moved, (2 * view.references.double().std()).float().expand_as(moved), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other.score(other.inputs), view.score(view.inputs), rtol=0, atol=1e-3)
    for fill in view.fills:
        torch.testing.assert_close(other.score(other.fill(fill)), view.score(view.fill(fill)), rtol=0, atol=1e-3)
    assert other.layers == view.layers and len(other.layers) == 2
    for name in view.layers:
        assert other.model.get_submodule(name) is view.model.get_submodule(name)


def test_the_shift_does_not_depend_on_the_batch_and_needs_references():
    view = view_of(ConvCM())
    alone, batch = shifted(view.select([1]), 1.0), shifted(view, 1.0)
    assert torch.equal(alone.inputs[0], batch.inputs[1])
    with pytest.raises(Unsupported, match="no training utterances"):
        shifted(replace(view, references=view.references[:0]), 1.0)


@pytest.mark.parametrize("route", ["native", "grid"])
def test_the_other_logit_and_the_opposite(route):
    cm = ConvCM()
    view = view_of(cm, route=route)
    spoof, _ = pairs()
    logits = cm(spoof).detach()
    torch.testing.assert_close(bonafide_logit(view, cm.classes).score(view.inputs), logits[:, 1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(opposite(view).score(view.inputs), logits[:, 1] - logits[:, 0], rtol=1e-3, atol=1e-4)
    assert bonafide_logit(view, cm.classes).layers == opposite(view).layers == view.layers


def test_redrawing_goes_down_from_the_output_and_keeps_mean_and_deviation():
    names = ["9", "4", "3", "0"]  # linear, convolution, batch normalisation, convolution
    before = ConvCM().backend
    for share, count in ((0.01, 1), (0.25, 1), (0.5, 2), (0.75, 3), (1.0, 4)):
        model = ConvCM().backend
        assert redraw(model, share, 0) == names[:count]
        for name, parameter in model.named_parameters():
            was = before.get_parameter(name)
            constant = bool((was == was.flatten()[0]).all())  # batch normalisation as it was made
            same = name.split(".")[0] not in names[:count] or constant
            assert torch.equal(parameter, was) == same, (share, name)
            if parameter.numel() > 100 and not same:
                assert parameter.std().item() == pytest.approx(was.std().item(), rel=0.2)
    half, whole = ConvCM().backend, ConvCM().backend
    redraw(half, 0.5, 0), redraw(whole, 1.0, 0)
    assert torch.equal(half[9].weight, whole[9].weight), "a cascade redraws a module once"
    redraw(half, 0.5, 1)
    assert not torch.equal(half[9].weight, whole[9].weight)
    with pytest.raises(Unsupported, match="none can be randomised"):
        redraw(torch.nn.Sequential(torch.nn.ReLU()), 1.0, 0)


# ---- the harness -----------------------------------------------------------------------------------------------------


def gradient(view):
    """The gradient alone: on a linear countermeasure the same for every recording."""
    x = view.inputs.clone().requires_grad_()
    return torch.autograd.grad(view.model(x).sum(), x)[0].sum(1)


def table(root, folder, *, methods, metrics, **changes) -> Mapping[tuple[str, str], pd.DataFrame]:
    run(toybench.spec(root, *methods, metrics=metrics, **changes), folder, batch_size=3)
    rows = pd.read_parquet(folder / "rows")
    return {key: rows for key, rows in rows.groupby(["attributor", "metric"])}


EXPLAIN = ("max-sensitivity", "local-lipschitz", "robustness-vorbis", "robustness-mu-law", "robustness-noise", "mprt",
           "smooth-mprt", "efficient-mprt", "random-logit", "class-sensitivity", "input-invariance")  # fmt: skip


@pytest.fixture
def methods(monkeypatch):
    """`toy-gradient` is input x gradient; `toy-deaf` becomes the gradient."""
    pure = attributor(name="toy-deaf", paper="none", needs=["gradients"])(gradient)
    monkeypatch.setattr(toybench, "deaf", pure)
    toybench.install(monkeypatch, "toy-gradient", "toy-deaf")
    return "toy-gradient", "toy-deaf", "constant", "random"


@pytest.mark.parametrize("route", ["native", "grid"])
def test_what_is_known_of_a_linear_countermeasure_comes_out_of_a_run(root, tmp_path, methods, route):
    found = table(root, tmp_path, methods=methods, metrics=EXPLAIN, route=route)
    means = {key: rows.value.mean() for key, rows in found.items()}
    for key, rows in found.items():
        assert set(rows.status) == {"undefined" if key == ("constant", "efficient-mprt") else "ok"}, (key, rows.note)
        assert len(rows) == 6
    for control in ("constant", "random"):  # stable, and blind to everything
        for metric in EXPLAIN:
            if metric in ("max-sensitivity", "local-lipschitz", "input-invariance"):
                assert means[control, metric] == 0
            elif metric != "efficient-mprt":
                assert means[control, metric] == pytest.approx(1)
    times = "toy-gradient"  # the input is a factor of it
    assert means[times, "max-sensitivity"] > 0 and means[times, "local-lipschitz"] > 0
    assert 0.3 < means[times, "robustness-vorbis"] < 1 and means[times, "class-sensitivity"] == pytest.approx(-1)
    if route == "native":
        pure = "toy-deaf"
        assert means[times, "max-sensitivity"] < 0.1
        assert means[pure, "max-sensitivity"] == means[pure, "local-lipschitz"] == means[pure, "input-invariance"] == 0
        for kind in ("vorbis", "mu-law", "noise"):
            assert means[pure, f"robustness-{kind}"] == pytest.approx(1)
        assert means[times, "input-invariance"] > 0.5
        assert means[pure, "class-sensitivity"] == pytest.approx(-1)
        for method in (pure, times):  # of a linear countermeasure the logits are mirror images
            assert means[method, "random-logit"] == pytest.approx(1)
            assert means[method, "mprt"] < 0.6
        assert means[pure, "mprt"] < 0.05 and means[pure, "efficient-mprt"] > 1


def test_batches_do_not_change_what_comes_out(root, tmp_path, methods):
    metrics = ("max-sensitivity", "mprt", "input-invariance", "robustness-vorbis")
    whole = table(root, tmp_path / "a", methods=methods[:1], metrics=metrics)
    run(toybench.spec(root, *methods[:1], metrics=metrics), tmp_path / "b", batch_size=1)
    single = pd.read_parquet(tmp_path / "b" / "rows")
    keys = ["metric", "utterance", "vocoder"]
    both = pd.concat(whole.values()).merge(single, on=keys)
    assert len(both) == 24 and np.allclose(both.value_x, both.value_y, rtol=1e-4, atol=1e-6)


def looking(root, method="toy-gradient", *, route="native", count=2):
    bench = Workbench(toybench.spec(root, method), batch_size=4)
    chosen = tuple(ordered_pairs(bench.corpus, "eval")[:count])
    chunk = Chunk("toy", route, method, 0, chosen, (), ("",) * count)
    return bench, chunk, bench.prepare("toy", route, chosen)


EVERY = (
    "noise:40:0",
    "codec:mu-law",
    "randomised:1.0",
    "randomised:0.5+noise:40:1",
    "bonafide-logit",
    "opposite",
    "shift:1.0",
)


@pytest.mark.parametrize("route", ["native", "grid"])
def test_neither_the_model_nor_the_batch_is_touched_even_by_a_method_that_wrecks_its_view(root, monkeypatch, route):
    def wreck(view):
        toybench.wreck(view)
        view.inputs.mul_(0)
        return torch.ones(len(view), *view.shape)

    toybench.install(monkeypatch, "toy-gradient", "toy-deaf")
    monkeypatch.setattr(toybench, "deaf", attributor(name="toy-deaf", paper="none")(wreck))
    bench, chunk, prepared = looking(root, "toy-deaf", route=route)
    method = replace(chunk, attributor="toy-gradient")
    before = weights_hash(bench.countermeasure("toy").module), prepared.view.inputs.clone()
    expected = {c: asker(bench, method, prepared, explain)(c).maps for c in EVERY}
    for change in EVERY:
        asker(bench, chunk, prepared, explain)(change)
    assert weights_hash(bench.countermeasure("toy").module) == before[0]
    assert torch.equal(prepared.view.inputs, before[1])
    for change, maps in expected.items():
        assert torch.equal(asker(bench, method, prepared, explain)(change).maps, maps), change


def test_a_question_is_explained_once_and_recordings_are_shared_and_bounded(root, monkeypatch):
    calls = []
    toybench.install(monkeypatch, "toy-gradient")
    heard = []
    real = harness.perturb
    monkeypatch.setattr(harness, "perturb", lambda *a, **k: heard.append(a[1].text) or real(*a, **k))
    bench, chunk, prepared = looking(root)
    first = asker(bench, chunk, prepared, lambda b, p, name: calls.append(name) or explained(b, p))
    for change in ("noise:40:0", "noise:40:0", "randomised:1.0+noise:40:0"):
        first(change)
    asker(bench, chunk, prepared, lambda b, p, name: explained(b, p))("noise:40:0")
    assert len(calls) == 2 and heard == ["noise:40:0"]
    for k in range(10):
        changed_view(bench, chunk, prepared, f"noise:30:{k}")
        changed_view(bench, chunk, prepared, f"randomised:{(k + 1) / 10}")
    kinds = [key[0] for key in bench._kept]
    assert kinds.count("again") == harness.RECORDINGS_KEPT and kinds.count("randomised") == harness.COPIES_KEPT
    bench.forget("toy")
    assert not {"again", "randomised", "batch", "cm"} & {key[0] for key in bench._kept}


def explained(bench, prepared):
    """What `explain` returns, as far as `asker` looks."""
    return type("Made", (), {"on_view": prepared.view.inputs[:, 0]})


def test_a_changed_recording_has_the_batchs_own_twin_truth_and_references(root, monkeypatch):
    toybench.install(monkeypatch, "toy-gradient")
    for route in ("native", "grid"):
        bench, chunk, prepared = looking(root, route=route)
        view = changed_view(bench, chunk, prepared, "white:20:0")
        assert view.references is prepared.view.references and view.fills["twin"] is prepared.view.fills["twin"]
        assert view.truth is prepared.view.truth and view.ids == prepared.view.ids and view.model is prepared.view.model
        assert not torch.allclose(view.inputs, prepared.view.inputs) and not torch.allclose(
            view.energy, prepared.view.energy
        )
    with pytest.raises(XaibenchError, match="changed once"):
        changed_view(bench, chunk, prepared, "white:20:0+codec:mu-law")


def test_a_method_that_fails_on_a_changed_countermeasure_costs_that_metric_only(root, tmp_path, monkeypatch):
    def picky(view):
        if view.model[0].__class__.__name__ == "Conv2d":  # the layer that takes the shift away
            raise ZeroDivisionError("shifted")
        if "sign" in dict(view.model.named_children()):
            raise Unsupported("no opposite here")
        return gradient(view)

    monkeypatch.setattr(toybench, "deaf", attributor(name="toy-deaf", paper="none", class_specific=False)(picky))
    toybench.install(monkeypatch, "toy-deaf")
    metrics = ("input-invariance", "class-sensitivity", "random-logit")
    found = table(root, tmp_path, methods=("toy-deaf",), metrics=metrics)
    statuses = {metric: set(found["toy-deaf", metric].status) for metric in metrics}
    assert statuses == {"input-invariance": {"failed"}, "class-sensitivity": {"unsupported"}, "random-logit": {"ok"}}
    assert found["toy-deaf", "input-invariance"].note.str.contains("shifted").all()
    assert any("ZeroDivisionError: shifted" in f.read_text() for f in (tmp_path / "errors").iterdir())


def test_the_random_draws_of_a_method_are_the_same_before_and_after(root, monkeypatch):
    toybench.install(monkeypatch, "toy-gradient")
    bench, chunk, prepared = looking(root, "random")
    before = explain(bench, prepared, "random").on_view
    for change in EVERY:
        assert torch.equal(asker(bench, chunk, prepared, explain)(change).maps, before)


def test_maps_of_a_countermeasures_own_making_come_from_the_changed_copy(root, monkeypatch):
    from test_time_only import TimeCM

    toybench.install(monkeypatch, "toy-gradient")

    class Speaking(TimeCM):
        @property
        def intrinsic(self):
            return {"own": self.says}

        def says(self, tap):
            return self.backend[0](tap)[:, 0].detach()

    monkeypatch.setattr(toybench.ToyRecipe, "untrained", lambda self, *, seed: Speaking())
    monkeypatch.setattr("xaibench.harness.known.load_weights", lambda module, path: None)
    own = attributor(name="toy-gradient", paper="none", needs=["intrinsic"], class_specific=False)(
        lambda view: view.intrinsic["own"](view.inputs)
    )
    monkeypatch.setattr(toybench, "gradient", own)
    bench, chunk, prepared = looking(root)
    ask = asker(bench, chunk, prepared, explain)
    before = explain(bench, prepared, "toy-gradient").on_view
    assert before.shape == (2, 1, 126)
    assert not torch.allclose(ask("randomised:1.0").maps, before)
    assert ask("noise:40:0").maps.shape == before.shape and ask("noise:40:0").inputs.shape == prepared.view.inputs.shape
    for change in ("shift:1.0", "opposite", "bonafide-logit"):
        torch.testing.assert_close(ask(change).maps, before, rtol=0, atol=1e-4)
