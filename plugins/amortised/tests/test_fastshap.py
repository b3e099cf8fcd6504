"""fast-shap end to end: a network learns a toy's patches, answers only for that toy, and says so for every other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import N_SAMPLES, SHAPE, ConvCM, LinearCM, view_of
from xaibench_amortised import checkpoint, shapley, training
from xaibench_amortised.fastshap import fast_shap
from xaibench_amortised.measuring import compared
from xaibench_amortised.network import PatchNetwork
from xaibench_amortised.training import Lessons, Spec

from xaibench import audio
from xaibench.errors import CheckpointError, RunError, Unsupported
from xaibench.frontends import LogPower
from xaibench.metrics.again import opposite, shifted
from xaibench.protocols import Corpus
from xaibench.types import Utterance
from xaibench.view import View, patches

SPEC = Spec(bands=3, spans=4, excerpts=24, dev_excerpts=8, masks=4, epochs=2, batch=8)


def make_corpus(folder: Path) -> Corpus:
    """Six utterances, bona fide and vocoded, four for training; one vocoder is held out."""
    folder.mkdir()
    made = []
    for number in range(6):
        for vocoder in ("bonafide", "hum", "secret"):
            path = folder / f"{number}-{vocoder}.flac"
            noise = np.random.default_rng([number, len(vocoder)]).normal(size=N_SAMPLES + 500) * 0.05
            audio.write(path, noise.astype(np.float32), sample_rate=16_000)
            split = ("train", "dev", "eval")[max(number - 3, 0)]
            made.append(Utterance(f"s{number}", "someone", split, vocoder, path))
    return Corpus("noise", tuple(made), 16_000, (0.0, 8_000.0), held_out=("secret",), hash="of noise")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[LinearCM, Path, Corpus]:
    cm, folder = LinearCM(), tmp_path_factory.mktemp("trained")
    corpus = make_corpus(folder / "audio")
    return cm, training.train("toy", cm, [corpus], folder / "toy.safetensors", SPEC), corpus


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What ships, and what a user has, does not take part."""
    monkeypatch.setattr(checkpoint, "OWN", tmp_path / "nothing")
    monkeypatch.delenv(checkpoint.FOLDER, raising=False)


def sums(values: Tensor, view: View) -> Tensor:
    """The sum of a map over each patch. Shape: `(B, F, T)` -> `(B, d)`."""
    numbers = patches(view.shape, *SPEC.patch(view.shape)).flatten()
    return torch.zeros(len(values), int(numbers.max()) + 1).index_add_(1, numbers, values.flatten(1))


def test_the_map_is_complete_constant_on_patches_and_the_same_alone_and_in_a_batch(trained):
    cm, path, _ = trained
    seen = view_of(cm)
    method = fast_shap.with_options(weights=str(path))
    values = method(seen).values
    assert values.shape == (3, *SHAPE) and values.isfinite().all()
    gap = seen.score(seen.inputs) - seen.score(seen.fill("mean"))
    assert torch.allclose(values.sum((1, 2)), gap, atol=1e-4)
    numbers = patches(SHAPE, *SPEC.patch(SHAPE))
    for number in range(int(numbers.max()) + 1):
        part = values[0][numbers == number]
        assert float(part.max() - part.min()) < 1e-7
    alone = torch.cat([method(one).values for one in seen.each()])
    assert torch.allclose(alone, values, atol=1e-6)
    assert torch.equal(method(seen).values, values)


def test_the_opposite_question_has_the_opposite_answer(trained):
    cm, path, _ = trained
    seen, method = view_of(cm), fast_shap.with_options(weights=str(path))
    assert torch.allclose(method(opposite(seen)).values, -method(seen).values, atol=1e-6)


def test_the_folder_of_the_environment_is_searched(trained, monkeypatch):
    cm, path, _ = trained
    with pytest.raises(Unsupported, match="xaibench_amortised train"):
        fast_shap(view_of(cm))
    monkeypatch.setenv(checkpoint.FOLDER, str(path.parent))
    assert torch.equal(fast_shap(view_of(cm)).values, fast_shap.with_options(weights=str(path))(view_of(cm)).values)


def test_it_is_refused_with_the_reason_for_anything_else(trained):
    cm, path, _ = trained
    method = fast_shap.with_options(weights=str(path))
    other = LinearCM(seed=1)
    louder = LinearCM()
    louder.frontend.mean.add_(1.0)
    cases = [
        (view_of(other), "other weights"),
        (view_of(ConvCM()), "other weights"),
        (view_of(cm, route="grid"), "native route"),
        (view_of(louder), "another front end"),
        (shifted(view_of(cm), 1.0), "other weights"),
    ]
    for seen, why in cases:
        with pytest.raises(Unsupported, match=why):
            method(seen)
    with pytest.raises(Unsupported, match="fill 'mean'"):
        method.with_options(fill="silence")(view_of(cm))


def test_a_card_without_its_shapes_is_named(trained, tmp_path):
    _, path, _ = trained
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(path.read_bytes())
    card = json.loads(path.with_suffix(".json").read_text())
    del card["patch"]
    copy.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match=r"copy\.safetensors.*patch"):
        checkpoint.load(copy)


def test_the_card_says_what_it_was_learned_from(trained):
    cm, path, corpus = trained
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["countermeasure"] == "toy" and card["data"] == {"noise": corpus.hash}
    assert card["weights"] == checkpoint.weights_hash(cm) and card["model"] == checkpoint.weights_hash(view_of(cm).model)
    assert "no truth" in card["learned_from"] and len(card["history"]) == SPEC.epochs


def test_training_again_reads_the_answers_and_gives_the_same_weights(trained, monkeypatch, tmp_path):
    cm, path, corpus = trained
    answers = path.with_suffix(".answers")
    monkeypatch.setattr(View, "score", lambda *_: pytest.fail("asked again"))
    again = training.train("toy", cm, [corpus], path, SPEC)
    assert again.read_bytes() == path.read_bytes() and answers.is_dir()
    with pytest.raises(RunError, match="other questions"):
        training.train("toy", cm, [corpus], path, replace(SPEC, fill="silence"))
    with pytest.raises(RunError, match=r"\.safetensors"):
        training.train("toy", cm, [corpus], tmp_path / "weights.pt", SPEC)


def test_a_stopped_asking_continues_with_the_same_answers(trained, tmp_path):
    cm, _, corpus = trained
    whole = training.answers(cm, [corpus], SPEC, "train", tmp_path / "whole.safetensors", str)
    training.answers(cm, [corpus], replace(SPEC, excerpts=11), "train", tmp_path / "part.safetensors", str)
    assert torch.equal(training.answers(cm, [corpus], SPEC, "train", tmp_path / "part.safetensors", str), whole)


def test_no_held_out_vocoder_no_twin_and_no_truth_is_ever_seen(trained):
    cm, _, corpus = trained
    for _, view in training.views(cm, [corpus], SPEC, "train"):
        assert not any("secret" in name for name in view.ids)
        assert "twin" not in view.fills and view.truth is None and view.prior is None
    kinds = {name.split("/")[1].split("@")[0] for name, _ in training.excerpts([corpus], "train", 8, N_SAMPLES, 0)}
    assert kinds == {"bonafide", "hum"}
    assert any("secret" in name for name, _ in training.excerpts([corpus], "eval", 8, N_SAMPLES, 0))


def test_the_answers_are_the_scores_under_the_drawn_coalitions(trained, tmp_path):
    cm, _, corpus = trained
    scores = training.answers(cm, [corpus], replace(SPEC, excerpts=3), "train", tmp_path / "x.safetensors", str)
    _, view = next(training.views(cm, [corpus], replace(SPEC, excerpts=3), "train"))
    numbers = patches(view.shape, *SPEC.patch(view.shape))
    exact = cm.exact(view)  # linear: each patch adds its own sum
    for row in range(3):
        kept = training.drawn(SPEC, "train", row, int(numbers.max()) + 1)
        added = kept @ sums(exact, view)[row]
        assert torch.allclose(scores[row, :-2] - scores[row, -1], added, atol=1e-3)
        assert float(scores[row, -2] - scores[row, -1]) == pytest.approx(float(exact[row].sum()), abs=1e-3)


def test_a_network_learns_the_shapley_values_of_a_linear_game():
    """v(S) is the sum over kept patches of their mean feature: the Shapley values are these means."""
    draw = torch.Generator().manual_seed(0)
    shape, spec = (12, 20), Spec(bands=2, spans=3, epochs=25, batch=32, learning_rate=5e-3)
    numbers = patches(shape, *spec.patch(shape))
    players = int(numbers.max()) + 1

    def lessons(count: int) -> tuple[Lessons, Tensor]:
        means = torch.randn(count, players, generator=draw)
        features = means[:, numbers][:, None] + 0.1 * torch.randn(count, 1, *shape, generator=draw)
        exact = torch.stack([features[:, 0][:, numbers == n].mean(1) for n in range(players)], 1)
        kept = torch.stack([shapley.coalitions(players, 4, draw) for _ in range(count)])
        return Lessons(features.half(), kept, torch.einsum("bkd,bd->bk", kept, exact), exact.sum(1)), exact

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PatchNetwork(shape, spec.patch(shape), width=8)
        training.fit(network, lessons(256)[0], lessons(32)[0], spec, lambda line: None)
    fresh, exact = lessons(32)
    with torch.no_grad():
        found = shapley.efficient(network.of_features(fresh.features.float()), fresh.gap)
    table = compared({"reference": exact.numpy(), "network": found.numpy()})
    assert table.loc["network", "r2"] > 0.8 > 0.4 > abs(table.loc["network", "rank, shuffled"])
    assert table.loc["network", "r2"] > table.loc["mean map", "r2"]


@pytest.mark.parametrize(("shape", "channels"), [((257, 201), 1), ((1, 404), 64), ((33, 126), 2)])
def test_the_network_takes_every_kind_of_tap(shape, channels):
    spec = Spec()
    network = PatchNetwork(shape, spec.patch(shape), channels=channels).eval()
    values = network(1e4 * torch.randn(2, channels, *shape, generator=torch.Generator().manual_seed(0)))
    assert values.shape == (2, int(network.numbers.max()) + 1) and values.isfinite().all()


def test_the_front_ends_normalisation_is_part_of_what_has_to_fit():
    cm = LinearCM()
    assert isinstance(cm.frontend, LogPower) and isinstance(cm.backend, nn.Sequential)
    same = checkpoint.weights_hash(view_of(cm).model)
    cm.frontend.mean.add_(1.0)
    assert checkpoint.weights_hash(view_of(cm).model) == same  # which is why the answer to silence is compared, too
