"""Training on the toys: resumed is the same as uninterrupted, what is drawn, what is refused before an epoch is spent."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
import toybench
from safetensors.torch import load_file
from toys import N_SAMPLES, ConvCM

from xaibench import augment, training
from xaibench.errors import RunError, XaibenchError
from xaibench.excerpts import Excerpts
from xaibench.protocols import Corpus
from xaibench.training import TrainSpec, error_rates, evaluate, train

SPEC = TrainSpec(epochs=2, batch_pairs=1, speeds=(1.0,))


class Recipe:
    """A network with everything a resume can lose: dropout, batch normalisation, Max-Feature-Map."""

    name = "conv"
    paper = "none"
    options: ClassVar[dict] = {}
    training: ClassVar[dict] = {}
    obtain = ""

    def untrained(self, *, seed: int) -> ConvCM:
        return ConvCM(seed=seed)


class Killed(BaseException):
    """What a signal looks like from inside."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    folder = tmp_path_factory.mktemp("toy")
    toybench.write_corpus(folder)
    return toybench.corpus.open(folder)


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """An uninterrupted training of two epochs."""
    out = tmp_path_factory.mktemp("whole")
    train(Recipe(), [corpus], out, SPEC)
    return out


def assert_same(one, other):
    weights, others = load_file(one / "conv.safetensors"), load_file(other / "conv.safetensors")
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    states = [torch.load(folder / "last.pt", weights_only=True) for folder in (one, other)]
    for part in ("model", "average"):
        assert all(torch.equal(v, states[1][part][k]) for k, v in states[0][part].items()), part
    tables = [pd.read_csv(folder / "history.csv").drop(columns="seconds") for folder in (one, other)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    pd.testing.assert_frame_equal(*[pd.read_csv(f / "scores.csv") for f in (one, other)], check_exact=True)


def test_a_resumed_training_is_the_uninterrupted_one_bit_by_bit(corpus, whole, tmp_path):
    def stop(line):
        raise Killed

    with pytest.raises(Killed):
        train(Recipe(), [corpus], tmp_path, SPEC, report=stop)
    assert len(pd.read_csv(tmp_path / "history.csv")) == 1
    torch.manual_seed(99)  # another process has another state
    train(Recipe(), [corpus], tmp_path, SPEC)
    assert_same(whole, tmp_path)


@pytest.mark.parametrize("victim", [".safetensors", "last.pt"])
def test_a_training_killed_while_writing_continues_to_the_same_weights(corpus, whole, tmp_path, monkeypatch, victim):
    real, count = os.replace, []

    def interrupted(source, target):
        if str(target).endswith(victim):
            count.append(target)
        if len(count) == 2:
            raise Killed
        real(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    # no epoch is worse than the one before, so each writes both files and the last is kept
    monkeypatch.setattr(training, "error_rates", lambda *_: {"pooled": 0.25})
    with pytest.raises(Killed):
        train(Recipe(), [corpus], tmp_path, SPEC)
    monkeypatch.setattr(os, "replace", real)
    train(Recipe(), [corpus], tmp_path, SPEC)
    weights, others = load_file(tmp_path / "conv.safetensors"), torch.load(whole / "last.pt", weights_only=True)["average"]
    assert all(torch.equal(v, others[f"module.{k}"]) for k, v in weights.items()), "the last epoch's average was due"


def test_another_seed_is_another_training(corpus, whole, tmp_path):
    train(Recipe(), [corpus], tmp_path, replace(SPEC, seed=1))
    one, other = (torch.load(f / "last.pt", weights_only=True)["model"] for f in (whole, tmp_path))
    assert any(not torch.equal(one[k], other[k]) for k in one)


def test_a_folder_of_another_spec_or_data_is_refused(corpus, whole):
    with pytest.raises(RunError, match="another spec"):
        train(Recipe(), [corpus], whole, replace(SPEC, learning_rate=1e-4))
    with pytest.raises(RunError, match="another data"):
        train(Recipe(), [replace(corpus, hash="other")], whole, SPEC)


def same_or_refused(out, identity) -> bool:
    """Whether a checkpoint is refused by name, or is read as what was written."""
    try:
        history = training._resume(out / "last.pt", identity, {})
    except RunError as error:
        return "last.pt: damaged" in str(error)
    return len(history) == 2


def test_a_damaged_checkpoint_and_a_full_disk_are_named(corpus, whole, tmp_path, monkeypatch):
    (tmp_path / "last.pt").write_bytes((whole / "last.pt").read_bytes()[:1000])
    with pytest.raises(RunError, match=r"last\.pt: damaged"):
        train(Recipe(), [corpus], tmp_path, SPEC)

    content = (whole / "last.pt").read_bytes()
    identity = torch.load(whole / "last.pt", weights_only=True)["identity"]
    for at in range(100, len(content) - 500, len(content) // 40):  # torch itself reads most of these without a word
        rotten = bytearray(content)
        rotten[at] ^= 1
        (tmp_path / "last.pt").write_bytes(rotten)
        assert same_or_refused(tmp_path, identity), at

    def full(*_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match="No space left on device"):
        train(Recipe(), [corpus], tmp_path / "full", SPEC)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot write here"):
        train(Recipe(), [corpus], tmp_path / "file" / "out", SPEC)


def test_the_card_says_what_it_was_trained_on_and_how_well_it_does(corpus, whole):
    card = json.loads((whole / "conv.json").read_text())
    assert card["classes"] == ["spoof", "bonafide"] and card["n_samples"] == N_SAMPLES
    facts = card["trained_on"]
    assert (facts["utterances"], facts["speakers"], facts["vocoders"]) == (2, 2, sorted(toybench.VOCODERS))
    assert card["eer"].keys() == {"dev", "eval"}
    dev = pd.read_csv(whole / "scores.csv").query("split == 'dev'")
    real = dev.vocoder == "bonafide"
    miss, false_alarm = (dev.score[real] < card["threshold"]).mean(), (dev.score[~real] >= card["threshold"]).mean()
    assert abs(miss - false_alarm) <= 1 / min(real.sum(), (~real).sum())  # equal but for one utterance
    assert card["eer"]["eval"]["toy"].keys() == {*toybench.VOCODERS, "pooled", "pooled-seen"}
    assert card["spec"]["epochs"] == 2 and card["epoch"] in (0, 1)


# ---- what is drawn -----------------------------------------------------------------------------------------------------


def test_a_held_out_vocoder_is_never_drawn_whichever_data_set_holds_it_out(corpus):
    other = Corpus("other", (), corpus.sample_rate, corpus.valid_band, held_out=("comb",))
    for corpora in ([replace(corpus, held_out=("comb",))], [corpus, other]):
        excerpts = Excerpts(corpora, (1.0,), {})
        assert {v for variants in excerpts.audio.values() for v in variants[0]} == {"bonafide", "smooth"}


def test_the_epoch_is_chosen_without_held_out_vocoders(corpus):
    held = replace(corpus, held_out=("comb",))
    model = ConvCM()
    assert set(evaluate(model, [held], "dev", unseen=False).vocoder) == {"bonafide", "smooth"}
    assert set(evaluate(model, [held], "dev").vocoder) == {"bonafide", *toybench.VOCODERS}


def test_vocoders_are_drawn_by_weight(corpus):
    excerpts = Excerpts([corpus], (1.0,), {"comb": 3.0})
    draw = np.random.default_rng(0)
    source = excerpts.sources[0]
    comb = excerpts.audio[source][0]["comb"].astype(np.float32) / 32767
    drawn = [np.array_equal(excerpts.batch([source], N_SAMPLES, draw).waveforms[1], comb) for _ in range(400)]
    assert np.mean(drawn) == pytest.approx(0.75, abs=0.06)


def test_both_halves_are_the_same_excerpt_at_the_same_speed(corpus):
    excerpts = Excerpts([corpus], (0.9, 1.1), {})
    for variants in excerpts.audio.values():  # sample n of every file now holds n, plus the speed's number
        for speed, variant in enumerate(variants):
            for name in variant:
                variant[name] = (np.arange(len(variant[name])) + 8000 * speed).astype(np.int16)
    real, fake = np.split(excerpts.batch(excerpts.sources * 8, 1000, np.random.default_rng(1)).waveforms, 2)
    assert np.array_equal(real, fake)
    assert len(np.unique(real[:, 0])) > 8, "the excerpts did not move"


def test_augmentation_depends_on_its_generator_alone_and_keeps_the_shape():
    x, z, deviation = torch.randn(4, 800), torch.randn(4, 1, 33, 126), torch.ones(33, 1)
    masks = {"equaliser_db": 3.0, "frequency_mask": 25, "time_mask": 25}
    for change, like in (
        (lambda g: augment.level_and_noise(x, gain_db=3.0, noise_db=(-80, -62), generator=g), x),
        (lambda g: augment.spectrum(x, **masks, generator=g), x),
        (lambda g: augment.log_spectrum(z, deviation, **masks, generator=g), z),
    ):
        one, two, three = (change(torch.Generator().manual_seed(s)) for s in (0, 0, 1))
        assert torch.equal(one, two) and not torch.equal(one, three)
        assert one.shape == like.shape and bool(one.isfinite().all())


def test_without_response_and_masks_the_spectrum_is_left_as_it_is():
    x = torch.randn(2, 4_000)
    none = {"equaliser_db": 0.0, "frequency_mask": 0, "time_mask": 0, "generator": torch.Generator().manual_seed(0)}
    assert torch.allclose(augment.spectrum(x, **none), x, atol=1e-5)
    z = torch.randn(2, 1, 33, 126)
    assert torch.equal(augment.log_spectrum(z, torch.ones(33, 1), **none), z)


# ---- what is refused ---------------------------------------------------------------------------------------------------


def without(corpus: Corpus, unwanted) -> Corpus:
    return replace(corpus, utterances=tuple(u for u in corpus.utterances if not unwanted(u)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: without(c, lambda u: u.split == "train"), "no training pairs"),
        (lambda c: without(c, lambda u: u.split == "train" and not u.bonafide), "no training pairs"),
        (lambda c: replace(c, held_out=toybench.VOCODERS), "no dev split with bona fide and vocoded"),
        (lambda c: without(c, lambda u: u.split == "dev"), "no dev split"),
        (lambda c: without(c, lambda u: u.split == "eval" and not u.bonafide), "only bona fide utterances"),
        (lambda c: without(c, lambda u: u.split == "dev" and u.bonafide), "toy: only vocoded utterances in its split dev"),
        (lambda c: replace(c, sample_rate=8000), "toy is sampled at 8000 Hz"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_trained_on_is_refused_before_the_first_epoch(corpus, tmp_path, change, message):
    with pytest.raises(RunError, match=message):
        train(Recipe(), [change(corpus)], tmp_path, SPEC, report=lambda line: pytest.fail("an epoch was spent"))


def test_a_batch_larger_than_the_data_a_misspelt_vocoder_and_a_repeated_utterance_are_refused(corpus, tmp_path):
    with pytest.raises(RunError, match="2 training utterances do not fill a batch; lower --batch-pairs 3"):
        train(Recipe(), [corpus], tmp_path, replace(SPEC, batch_pairs=3))
    with pytest.raises(RunError, match="weights are set for cmob; the vocoders to train on are comb, smooth"):
        train(Recipe(), [corpus], tmp_path, replace(SPEC, vocoder_weights=(("cmob", 2.0),)))
    with pytest.raises(RunError, match="'a-1', too"):
        train(Recipe(), [corpus, replace(corpus, name="copy")], tmp_path, SPEC)
    with pytest.raises(RunError, match="epochs 0: must be at least 1"):
        TrainSpec(epochs=0)


def test_a_diverged_loss_is_named_and_the_epoch_before_is_kept(corpus, tmp_path, monkeypatch):
    real = augment.level_and_noise
    monkeypatch.setattr(augment, "level_and_noise", lambda x, **options: real(x, **options) * calm[0])
    calm = [1.0]

    def burst(line):
        calm[0] = float("nan")

    with pytest.raises(RunError, match="the loss is nan at epoch 1, step 0; lower --learning-rate"):
        train(Recipe(), [corpus], tmp_path, SPEC, report=burst)
    assert len(pd.read_csv(tmp_path / "history.csv")) == 1 and (tmp_path / "last.pt").exists()


def test_error_rates_by_hand():
    table = pd.DataFrame(
        [("bonafide", 1.0), ("bonafide", 3.0), ("seen", 0.0), ("seen", 2.0), ("unseen", -1.0), ("unseen", -2.0)],
        columns=["vocoder", "score"],
    )
    rates = error_rates(table, ["unseen"])
    assert rates == {"seen": 0.5, "unseen": 0.0, "pooled": 0.125, "pooled-seen": 0.5}
    with pytest.raises(XaibenchError, match="no bona fide scores"):
        error_rates(table[table.vocoder != "bonafide"], [])
