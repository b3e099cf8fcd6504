"""Settings of a training, on toys: classes by kind, crops, early stop, averaged epochs, half precision, hooks, options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import toybench
from safetensors.torch import load_file
from torch import Tensor, nn
from toys import GRID, N_SAMPLES, ConvCM

from xaibench import augment, figures, training
from xaibench.errors import CheckpointError, RunError
from xaibench.excerpts import Excerpts
from xaibench.frontends import LogPower
from xaibench.metrics.detection import equal_error_rate
from xaibench.protocols import Corpus
from xaibench.recipe import Recipe
from xaibench.training import TrainSpec, error_rates, evaluate, train
from xaibench.types import Utterance

SPEC = TrainSpec(epochs=2, batch_pairs=1, speeds=(1.0,))


class SmallCM(nn.Module):
    """A tap of the toys' log power, or of a learned 1-D convolution (`learned`), pooled to any number of classes."""

    sample_rate = GRID.sample_rate
    n_samples = N_SAMPLES

    def __init__(
        self, *, classes: tuple[str, ...] = ("spoof", "bonafide"), learned: bool = False, note: str = "", start: str = ""
    ) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.frontend = Learned() if learned else Fixed(GRID)
        self.backend = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(16, len(self.classes)),
        )  # fmt: skip

    def forward(self, waveform: Tensor) -> Tensor:
        return self.backend(self.frontend(waveform))

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        return {}


class Fixed(LogPower):
    """Log power, and a record of what it was asked: shapes, gradients, precision."""

    seen: list[tuple[tuple[int, ...], bool, torch.dtype]] = []  # noqa: RUF012 - shared on purpose, emptied by a fixture

    def forward(self, waveform: Tensor) -> Tensor:
        product = torch.ones(2, 2) @ torch.ones(2, 2)  # autocast would make it bfloat16
        Fixed.seen.append((tuple(waveform.shape), torch.is_grad_enabled(), product.dtype))
        return super().forward(waveform)


class Learned(nn.Module):
    """Energy of eight learned filters: `(B, N)` -> `(B, 1, 8, T)`."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv1d(1, 8, 32, stride=32)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.filters(waveform[:, None]).square().add(1e-4).log()[:, None]


@pytest.fixture(autouse=True)
def _nothing_seen():
    Fixed.seen.clear()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    folder = tmp_path_factory.mktemp("toy")
    toybench.write_corpus(folder)
    return toybench.corpus.open(folder)


def recipe_of(build=SmallCM, **facts: object) -> Recipe:
    return Recipe(name="small", paper="none", build=build, **facts)


def card_of(folder: Path) -> dict:
    return json.loads((folder / "small.json").read_text())


def weights_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "small.safetensors")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(t, other[n]) for n, t in one.items())


class Killed(BaseException):
    """What a signal looks like from inside."""


# ---- classes -----------------------------------------------------------------------------------------------------------

KINDS = {"comb": "tts", "smooth": "vc"}
THREE = {"classes": ["tts", "bonafide", "vc"]}


def test_vocoders_are_labelled_by_their_kind_where_the_countermeasure_tells_kinds_apart(corpus, tmp_path, monkeypatch):
    labels = []
    real = nn.functional.cross_entropy
    monkeypatch.setattr(
        training.nn.functional,
        "cross_entropy",
        lambda z, y, **o: labels.append((y.tolist(), o["weight"])) or real(z, y, **o),
    )
    drawn = []
    kept = Excerpts.batch

    def batch(self, *words):
        drawn.append(kept(self, *words))
        return drawn[-1]

    monkeypatch.setattr(Excerpts, "batch", batch)
    kinds = replace(corpus, kinds=KINDS)
    train(recipe_of(), [kinds], tmp_path, replace(SPEC, epochs=4, class_weights=(1.0, 8.0, 2.0)), options=THREE)
    steps = drawn[1:]  # the first was for the front end's normalisation
    assert len(labels) == len(steps) == 8
    index = {"bonafide": 1, "comb": 0, "smooth": 2}
    assert [y for y, _ in labels] == [[1, *(index[v] for v in b.vocoders)] for b in steps]
    assert {v for b in steps for v in b.vocoders} == {"comb", "smooth"}
    assert all(w.tolist() == [1.0, 8.0, 2.0] for _, w in labels)
    card = card_of(tmp_path)
    assert card["classes"] == THREE["classes"] and card["options"] == THREE
    assert card["eer"]["eval"]["toy"].keys() == {*toybench.VOCODERS, "pooled", "pooled-seen"}


def test_a_vocoder_of_no_known_kind_is_refused_by_name(corpus, tmp_path):
    for kinds, message in (
        ({"comb": "tts"}, r"the kind of \{'smooth': 'not said'\} is none of them"),
        ({**KINDS, "smooth": "replay"}, r"tts, bonafide, vc apart, but the kind of \{'smooth': 'replay'\}"),
    ):
        with pytest.raises(RunError, match=message):
            train(recipe_of(), [replace(corpus, kinds=kinds)], tmp_path, SPEC, options=THREE)
    # one that is held out is not trained on, so its kind does not matter; and two classes need no kinds
    held = replace(corpus, kinds={"comb": "tts"}, held_out=("smooth",))
    train(recipe_of(), [held], tmp_path / "held", replace(SPEC, epochs=1), options=THREE)
    train(recipe_of(), [corpus], tmp_path / "two", replace(SPEC, epochs=1))


def test_as_many_class_weights_as_classes(corpus, tmp_path):
    with pytest.raises(RunError, match=r"class_weights \(1.0, 2.0, 3.0\): expected one for each of spoof, bonafide"):
        train(recipe_of(), [corpus], tmp_path, replace(SPEC, class_weights=(1.0, 2.0, 3.0)))
    with pytest.raises(RunError, match="class_weights must be positive"):
        TrainSpec(class_weights=(1.0, 0.0))


# ---- settings ----------------------------------------------------------------------------------------------------------


def test_a_recipe_s_settings_come_before_the_defaults_and_after_what_is_asked_for():
    mine = recipe_of(training={"epochs": 7, "crop_seconds": 1.0})
    spec = TrainSpec.suited(mine, seed=3, epochs=None, learning_rate=0.5, half=False)
    assert spec == TrainSpec(seed=3, epochs=7, crop_seconds=1.0, learning_rate=0.5)
    assert TrainSpec.suited(mine, epochs=2).epochs == 2
    with pytest.raises(RunError, match="small asks for the training settings epoch, lr; there are seed, epochs"):
        TrainSpec.suited(recipe_of(training={"epoch": 7, "lr": 1.0}))
    with pytest.raises(RunError, match="the training settings warmup"):
        TrainSpec.suited(recipe_of(), warmup=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"judge_every": 0, "average_best": 0}, "judge_every 0 and average_best 0: must be at least 1"),
        ({"crop_seconds": 0.0}, "crop_seconds must be positive, got 0.0"),
        ({"crop_seconds": float("nan")}, "crop_seconds must be positive"),
        ({"rawboost": 9}, "rawboost 9: expected one of its algorithms 1 to 8, or 0"),
        ({"patience": -1}, "patience must be at least 1, or 0 to train to the end, got -1"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_when_made(settings, message):
    with pytest.raises(RunError, match=message):
        TrainSpec(**settings)


def test_excerpts_have_the_length_of_the_crop_and_the_rest_that_of_the_countermeasure(corpus, tmp_path):
    train(recipe_of(), [corpus], tmp_path, replace(SPEC, epochs=1, crop_seconds=0.125))
    training_passes = [shape for shape, _, _ in Fixed.seen if shape[0] == 2]  # one pair a step
    assert training_passes and set(training_passes) == {(2, 2_000)}
    assert {shape[1] for shape, _, _ in Fixed.seen} == {2_000, N_SAMPLES}, "scores look at the whole"
    card = card_of(tmp_path)
    assert card["n_samples"] == N_SAMPLES and card["spec"]["crop_seconds"] == 0.125


def test_a_crop_that_the_countermeasure_does_not_take_is_refused_before_the_first_epoch(corpus, tmp_path):
    class Rigid(SmallCM):
        def __init__(self) -> None:
            super().__init__()
            self.backend = nn.Sequential(nn.Flatten(), nn.Linear(33 * 126, 2))

    refused = {"report": lambda line: pytest.fail("an epoch was spent")}
    with pytest.raises(
        RunError, match=r"does not take excerpts of 0.125 s \(2000 samples; it looks at 4000\).*crop-seconds"
    ):
        train(recipe_of(Rigid), [corpus], tmp_path, replace(SPEC, crop_seconds=0.125), **refused)
    with pytest.raises(RunError, match="too few for an STFT"):
        train(recipe_of(), [corpus], tmp_path, replace(SPEC, crop_seconds=0.001), **refused)


# ---- which epochs are kept ---------------------------------------------------------------------------------------------


def judged_as(monkeypatch, *rates: float) -> None:
    """Let the dev EER of the epochs that are judged be these."""
    left = list(rates)
    real = training.error_rates
    monkeypatch.setattr(
        training, "error_rates", lambda table, hidden: {"pooled": left.pop(0)} if left else real(table, hidden)
    )  # fmt: skip


def epochs_of(folder: Path) -> list[int]:
    return pd.read_csv(folder / "history.csv").epoch.tolist()


@pytest.mark.parametrize(
    ("rates", "patience", "last", "best"),
    [
        ((0.3, 0.2, 0.4, 0.3, 0.1), 2, 3, 1),
        ((0.3, 0.2, 0.4, 0.1, 0.2), 2, 4, 3),
        ((0.0, 0.0, 0.0, 0.0, 0.0), 2, 2, 2),  # an equal epoch is no better one
        ((0.1, 0.2, 0.3, 0.4, 0.5), 0, 4, 0),
    ],
)
def test_patience_counts_judged_epochs_without_a_better_one(corpus, tmp_path, monkeypatch, rates, patience, last, best):
    judged_as(monkeypatch, *rates[: last + 1])
    train(recipe_of(), [corpus], tmp_path, replace(SPEC, epochs=5, patience=patience))
    assert epochs_of(tmp_path) == list(range(last + 1))
    assert card_of(tmp_path)["epoch"] == best
    assert [p.name for p in tmp_path.glob("epoch-*")] == [f"epoch-{best}.safetensors"]
    train(recipe_of(), [corpus], tmp_path, replace(SPEC, epochs=5, patience=patience))
    assert epochs_of(tmp_path) == list(range(last + 1)), "a training that stopped stays stopped"


def test_an_epoch_that_is_not_judged_has_no_dev_eer_and_the_last_one_is_judged(corpus, tmp_path, monkeypatch):
    judged = []
    real = training.evaluate
    monkeypatch.setattr(training, "evaluate", lambda *a, **k: judged.append(a[2]) or real(*a, **k))
    lines = []
    train(recipe_of(), [corpus], tmp_path, replace(SPEC, epochs=5, judge_every=3), report=lines.append)
    assert [line["dev_eer"] is None for line in lines] == [True, True, False, True, False]
    assert judged == ["dev", "dev", "dev", "eval"], "two epochs and the card"
    table = pd.read_csv(tmp_path / "history.csv")
    assert table.dev_eer.isna().tolist() == [True, True, False, True, False]
    assert card_of(tmp_path)["epoch"] in (2, 4)


def test_curves_are_drawn_before_an_epoch_is_judged(corpus, tmp_path):
    def draw(line):
        figures.training_curves(tmp_path / "history.csv", tmp_path / "curves.png")

    train(recipe_of(), [corpus], tmp_path, replace(SPEC, judge_every=2), report=draw)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_final_weights_are_the_mean_of_the_best_epochs(corpus, tmp_path, monkeypatch):
    judged_as(monkeypatch, 0.1, 0.4, 0.2, 0.3)
    train(recipe_of(), [corpus], tmp_path, replace(SPEC, epochs=4, average_best=3, average=0.5))
    card = card_of(tmp_path)
    assert card["averaged_epochs"] == [0, 2, 3] and card["epoch"] == 0
    parts = [load_file(tmp_path / f"epoch-{e}.safetensors") for e in (0, 2, 3)]
    assert sorted(p.name for p in tmp_path.glob("epoch-*")) == [f"epoch-{e}.safetensors" for e in (0, 2, 3)]
    found = weights_of(tmp_path)
    for name, tensor in found.items():
        if tensor.is_floating_point():
            mean = sum(p[name].double() for p in parts) / 3
            assert torch.equal(tensor, mean.float()), name
        else:
            assert torch.equal(tensor, parts[0][name]), f"{name}: a count of batches is that of the best epoch"
    assert not same(found, parts[0]) and not torch.equal(parts[0]["backend.0.weight"], parts[1]["backend.0.weight"])


def test_a_resumed_training_averages_the_same_epochs_to_the_same_weights(corpus, tmp_path):
    spec = replace(SPEC, epochs=4, average_best=2, average=0.5, rawboost=5, half=True)
    for name, stops in (("whole", ()), ("parts", (1, 3))):
        for stop in stops:

            def killed(line, stop=stop):
                if line["epoch"] == stop:
                    raise Killed

            with pytest.raises(Killed):
                train(recipe_of(), [corpus], tmp_path / name, spec, report=killed)
        torch.manual_seed(99)
        train(recipe_of(), [corpus], tmp_path / name, spec)
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts"))
    cards = [{k: v for k, v in card_of(tmp_path / name).items() if k != "made_with"} for name in ("whole", "parts")]
    assert cards[0] == cards[1] and len(cards[0]["averaged_epochs"]) == 2


def test_every_seed_is_a_training_of_its_own_on_the_same_audio(corpus, tmp_path):
    excerpts = Excerpts([corpus], SPEC.speeds, {})
    found = []
    for seed in (0, 1):
        train(recipe_of(), [corpus], tmp_path / str(seed), replace(SPEC, epochs=1, seed=seed), excerpts=excerpts)
        found.append(weights_of(tmp_path / str(seed)))
    assert not torch.equal(found[0]["backend.0.weight"], found[1]["backend.0.weight"])
    train(recipe_of(), [corpus], tmp_path / "fresh", replace(SPEC, epochs=1, seed=1))
    assert same(found[1], weights_of(tmp_path / "fresh")), "audio that was read before changes nothing"


# ---- half precision ----------------------------------------------------------------------------------------------------


def test_half_precision_halves_the_file_and_the_card_is_of_the_rounded_weights(corpus, tmp_path):
    class Wide(SmallCM):
        def __init__(self) -> None:
            super().__init__()
            self.backend.append(nn.Linear(2, 2, bias=False))
            self.ballast = nn.Parameter(torch.full((20_000,), 0.1))

    for half in (False, True):
        train(recipe_of(Wide), [corpus], tmp_path / str(half), replace(SPEC, epochs=1, half=half))
    whole, rounded = (weights_of(tmp_path / str(half)) for half in (False, True))
    size = [(tmp_path / str(half) / "small.safetensors").stat().st_size for half in (False, True)]
    assert size[1] == pytest.approx(size[0] / 2, rel=0.1)
    assert {t.dtype for t in rounded.values() if t.is_floating_point()} == {torch.float16}
    assert same({n: t.half() if t.is_floating_point() else t for n, t in whole.items()}, rounded)
    model = Wide()
    model.load_state_dict({n: t.float() for n, t in rounded.items()})
    table = evaluate(model, [corpus], "eval")
    saved = pd.read_csv(tmp_path / "True" / "scores.csv")
    assert np.allclose(saved[saved.split.eq("eval")].score, table.score, rtol=1e-6, atol=1e-6)
    assert not np.allclose(saved.score, pd.read_csv(tmp_path / "False" / "scores.csv").score, rtol=1e-6, atol=1e-6)
    rates = error_rates(table, [])
    assert card_of(tmp_path / "True")["eer"]["eval"]["toy"] == rates
    bonafide = table.vocoder.eq("bonafide")
    assert rates["pooled"] == equal_error_rate(table.score[bonafide], table.score[~bonafide])


def test_a_weight_beyond_half_precision_is_refused_by_name(corpus, tmp_path):
    class Large(SmallCM):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.tensor(70_000.0))

    with pytest.raises(CheckpointError, match=r"scale holds 7e\+04, beyond half precision; keep it whole"):
        train(recipe_of(Large), [corpus], tmp_path, replace(SPEC, epochs=1, half=True))


# ---- front ends and hooks ----------------------------------------------------------------------------------------------


def test_a_learned_front_end_learns_and_a_fixed_one_keeps_its_precision(corpus, tmp_path):
    spec = replace(SPEC, epochs=1, average=0.0)
    train(recipe_of(), [corpus], tmp_path / "learned", spec, options={"learned": True})
    start = recipe_of().untrained(seed=0, learned=True).state_dict()["frontend.filters.weight"]
    assert not torch.equal(weights_of(tmp_path / "learned")["frontend.filters.weight"], start)
    train(recipe_of(), [corpus], tmp_path / "fixed", spec)
    assert Fixed.seen and not any(gradients for _, gradients, _ in Fixed.seen)
    assert {kind for _, _, kind in Fixed.seen} == {torch.float32}, "a fixed front end is not in bfloat16"


@pytest.mark.parametrize("bfloat16", [True, False])
def test_autocast_reaches_what_is_learned_and_only_when_wanted(corpus, tmp_path, bfloat16):
    kinds = []

    class Watched(SmallCM):
        def __init__(self, *, learned: bool = False) -> None:
            super().__init__(learned=learned)
            self.backend[0].register_forward_hook(lambda module, _i, out: kinds.append((module.training, out.dtype)))
            if learned:
                self.frontend.filters.register_forward_hook(lambda m, _i, out: kinds.append((m.training, out.dtype)))

    wanted = torch.bfloat16 if bfloat16 else torch.float32
    for learned in (False, True):
        out = tmp_path / str(learned)
        train(recipe_of(Watched), [corpus], out, replace(SPEC, epochs=1, bfloat16=bfloat16), options={"learned": learned})
    assert {kind for training_now, kind in kinds if training_now} == {wanted}
    assert {kind for training_now, kind in kinds if not training_now} == {torch.float32}, "scores are float32"


def test_fit_training_loss_and_settle_are_called_in_their_places(corpus, tmp_path):
    calls = []

    class Front(Fixed):
        def fit(self, waveforms: Tensor) -> None:
            calls.append(("fit", tuple(waveforms.shape), torch.is_grad_enabled()))
            super().fit(waveforms)

    class Hooked(SmallCM):
        def __init__(self) -> None:
            super().__init__()
            self.frontend = Front(GRID)
            self.register_buffer("settled", torch.zeros(1))

        def training_loss(self, tap: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
            calls.append(("loss", tuple(tap.shape), labels.tolist(), weight.tolist()))
            return nn.functional.cross_entropy(self.backend(tap).float(), labels)

        def settle(self, waveforms: Tensor) -> None:
            calls.append(("settle", tuple(waveforms.shape), self.training))
            self.settled.fill_(float(self.backend[0].weight.sum()))

    spec = replace(SPEC, epochs=1, class_weights=(1.0, 2.0), crop_seconds=0.125, average=0.5)
    train(recipe_of(Hooked), [corpus], tmp_path, spec)
    names = [c[0] for c in calls]
    assert names == ["fit", "loss", "loss", "settle"]
    assert calls[0][1] == (256, 2_000), "both halves of 128 pairs, at the length trained on"
    assert calls[1] == ("loss", (2, 1, *GRID.shape(2_000)), [1, 0], [1.0, 2.0])
    assert calls[-1] == ("settle", (128, N_SAMPLES), False), "at the length it looks at, in eval()"
    found = weights_of(tmp_path)
    assert float(found["settled"]) == pytest.approx(float(found["backend.0.weight"].sum())), "of the final weights"
    fitted = found["frontend.deviation"]
    assert not torch.equal(fitted, torch.ones_like(fitted))


# ---- the card's options ------------------------------------------------------------------------------------------------


def test_the_card_records_options_without_folders_of_this_machine_or_where_training_started(corpus, tmp_path):
    folder = tmp_path / "models" / "xlsr"
    folder.mkdir(parents=True)
    options = {"note": str(folder), "start": str(folder / "imagenet.pth"), "classes": ["spoof", "bonafide"]}
    mine = recipe_of(initial=("start",))
    train(mine, [corpus], tmp_path / "out", replace(SPEC, epochs=1), options=options)
    assert card_of(tmp_path / "out")["options"] == {"note": "xlsr", "classes": ["spoof", "bonafide"]}
    assert str(tmp_path) not in (tmp_path / "out" / "small.json").read_text()
    train(mine, [corpus], tmp_path / "text", replace(SPEC, epochs=1), options={"note": "attention/mean"})
    assert card_of(tmp_path / "text")["options"] == {"note": "attention/mean"}, "not a path"
    with pytest.raises(RunError, match="holds a training with another options"):
        train(mine, [corpus], tmp_path / "text", replace(SPEC, epochs=1), options={"note": "other"})


# ---- what is drawn -----------------------------------------------------------------------------------------------------


def test_rawboost_depends_on_its_seed_alone_and_changes_what_is_heard():
    waves = 0.1 * torch.randn(3, 800, generator=torch.Generator().manual_seed(0))
    one, two, other = (augment.rawboosted(waves, 4, 16_000, np.random.default_rng(s)) for s in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other) and not torch.equal(one, waves)
    assert one.shape == waves.shape and one.dtype == waves.dtype and bool(one.isfinite().all())
    assert augment.rawboosted(waves, 0, 16_000, np.random.default_rng(0)) is waves
    assert not torch.equal(one[0] - waves[0], one[1] - waves[1]), "each sample has noise of its own"


def test_a_training_with_rawboost_is_deterministic_and_another_one(corpus, tmp_path):
    for name, algorithm in (("a", 5), ("b", 5), ("none", 0)):
        train(recipe_of(), [corpus], tmp_path / name, replace(SPEC, epochs=1, rawboost=algorithm))
    assert same(weights_of(tmp_path / "a"), weights_of(tmp_path / "b"))
    assert not same(weights_of(tmp_path / "a"), weights_of(tmp_path / "none"))


def lagged(folder: Path, lags: Mapping[str, int], length: int = 3_000) -> Corpus:
    """A ramp, and twins of it that are late or early by some samples; sample n of every one holds instant n."""
    ramp = np.arange(length) / 32768
    utterances = []
    for name, lag in {"bonafide": 0, **lags}.items():
        samples = np.r_[np.zeros(lag), ramp] if lag > 0 else ramp[-lag:]
        path = folder / f"{name}.wav"
        soundfile.write(path, samples, 16_000, subtype="PCM_16")
        shared = length + min(lag, 0)
        utterances.append(Utterance("a", "s", "train", name, path, n_samples=shared, lag=lag))
    return Corpus("lagged", tuple(utterances), 16_000, (0.0, 8_000.0))


@pytest.mark.parametrize("lags", [{"late": 70}, {"early": -90}, {"late": 70, "early": -90, "exact": 0}], ids=str)
def test_both_halves_of_an_excerpt_are_the_same_instants_whatever_the_lag(tmp_path, lags):
    excerpts = Excerpts([lagged(tmp_path, lags)], (1.0,), {})
    draw = np.random.default_rng(0)
    for length in (500, 2_900):
        batch = excerpts.batch(["a"] * 40, length, draw)
        real, fake = np.split(np.round(batch.waveforms * 32767).astype(int), 2)
        assert np.array_equal(real, fake)
        assert real.min() >= max(0, *(-lag for lag in lags.values())), "what an early twin does not have is not heard"
        assert set(batch.vocoders) == set(lags)
        assert len(np.unique(real[:, 0])) > 5, "the excerpts did not move"


def test_the_last_instant_of_an_excerpt_is_one_that_both_halves_have(tmp_path):
    """A late recording that stops early: what is beyond its end is cut from both halves, not repeated in one."""
    corpus = lagged(tmp_path, {"late": 70})
    samples, _ = soundfile.read(tmp_path / "late.wav")
    soundfile.write(tmp_path / "late.wav", samples[:2_070], 16_000, subtype="PCM_16")
    late = replace(corpus.utterances[1], n_samples=2_000)
    excerpts = Excerpts([replace(corpus, utterances=(corpus.utterances[0], late))], (1.0,), {})
    real, fake = np.split(excerpts.batch(["a"], 2_500, np.random.default_rng(0)).waveforms, 2)
    assert np.array_equal(real, fake) and real.max() < 2_001 / 32768
    assert np.array_equal(real[0, 2_000:], real[0, :500]), "repeated alike"


def test_the_seeds_of_the_command_line_and_class_weights_by_name():
    from xaibench.cli import detectors
    from xaibench.errors import XaibenchError

    assert detectors._seeds("0,1, 2") == [0, 1, 2]
    for text in ("", "a", "1,,2", "-1", "1.5"):
        with pytest.raises(XaibenchError, match="expected a whole number, or several"):
            detectors._seeds(text)
    three = recipe_of()
    assert detectors._class_weights(three, {"classes": ["tts", "bonafide", "vc"]}, "bonafide=8") == (1.0, 8.0, 1.0)
    assert detectors._class_weights(three, {}, "") is None
    with pytest.raises(XaibenchError, match="unknown class 'bonafied'; did you mean 'bonafide'"):
        detectors._class_weights(three, {}, "bonafied=8")
    for text in ("bonafide", "bonafide=0", "bonafide=x", "bonafide=inf"):
        with pytest.raises(XaibenchError, match="expected NAME=WEIGHT with a positive number"):
            detectors._class_weights(three, {}, text)


def test_a_recipe_of_another_make_needs_no_more_than_the_contract(corpus, tmp_path):
    """`Recipe` is one way to offer a countermeasure; `initial` is its own."""
    other = SimpleNamespace(
        name="small", paper="none", options={}, training={}, obtain="", untrained=lambda *, seed: ConvCM(seed=seed)
    )  # fmt: skip
    train(other, [corpus], tmp_path, replace(SPEC, epochs=1))
    assert card_of(tmp_path)["options"] == {}


# ---- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """`xaibench train ...` in this process, on the toys; returns (exit code, stdout, stderr)."""
    import sys
    from importlib.metadata import EntryPoint

    from xaibench import cli, registry

    toybench.install(monkeypatch)
    known = registry._scan()
    small = EntryPoint("small", "test_training_options:small", "xaibench.countermeasures")
    mine = registry.Plugin("countermeasures", "small", "toy-package", "1.0", small)
    monkeypatch.setattr(registry, "_scan", lambda: (*known, mine))

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["xaibench", "train", "--device", "cpu", *words])
        code = 0
        try:
            cli.main()
        except SystemExit as done:
            code = int(done.code or 0)
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


small = recipe_of(training={"epochs": 1, "batch_pairs": 1, "speeds": (1.0,)})


def test_the_command_trains_one_seed_after_another_with_the_recipe_s_settings(command, tmp_path):
    toybench.write_corpus(tmp_path / "toy")
    words = ["--cm", "small", "--data", "toy", "--root", f"toy={tmp_path / 'toy'}", "--out", str(tmp_path / "out")]
    code, out, err = command(
        *words, "--seed", "0,1", "--class-weights", "bonafide=2", "--cm-set", "small.note=hello", "--half"
    )
    assert code == 0, err
    cards = [card_of(tmp_path / "out" / f"train-small-seed{seed}") for seed in (0, 1)]
    assert [c["spec"]["seed"] for c in cards] == [0, 1] and {c["spec"]["epochs"] for c in cards} == {1}
    assert cards[0]["spec"]["class_weights"] == [1.0, 2.0] and cards[0]["spec"]["half"] is True
    assert cards[0]["options"] == {"note": "hello"}
    assert "seed 1  epoch   1/1" in out and "dev EER" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cm", "all"], "takes one countermeasure at a time"),
        (["--cm", "small,toy"], "takes one countermeasure at a time"),
        (["--cm", "small", "--cm-set", "smal.note=x"], "--cm-set names smal; this command has small"),
        (["--cm", "small", "--root", "tpy=/nowhere"], "NAME one of toy"),
        (["--cm", "small", "--seed", "one"], "--seed 'one'"),
    ],
)
def test_what_the_command_cannot_do_is_said_and_nothing_is_ignored(command, tmp_path, words, message):
    toybench.write_corpus(tmp_path / "toy")
    root = [] if "--root" in words else ["--root", f"toy={tmp_path / 'toy'}"]
    code, _, err = command("--data", "toy", *root, "--out", str(tmp_path / "out"), *words)
    assert code == 2 and message in err, err


def test_a_data_set_of_two_folders_can_be_trained_on(command, tmp_path):
    """vocv4 and its like: the bona fide speech lies in a folder of its own."""
    main, other = tmp_path / "main", tmp_path / "other"
    manifest = toybench.write_corpus(main)
    table = pd.read_csv(main / "toy.csv")
    table["root"] = ["further" if v == "bonafide" else "" for v in table.vocoder]
    for name in table.path[table.root.eq("further")]:
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (main / name).rename(other / name)
    table.to_csv(main / "toy.csv", index=False)
    manifest.write_text(manifest.read_text() + 'roots = ["main", "further"]\n')
    words = ["--cm", "small", "--data", str(manifest), "--out", str(tmp_path / "out")]
    code, _, err = command(*words, "--root", f"toy={main}", "--root", f"toy/further={other}")
    assert code == 0, err
    assert card_of(tmp_path / "out")["trained_on"]["utterances"] == 2
