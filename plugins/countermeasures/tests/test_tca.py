"""TCA against a literal twin in numpy, its own explanation, and the contract every countermeasure keeps."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from xaibench_countermeasures.tca import (
    TCA,
    attentive_statistics,
    attribution,
    class_activation,
    frames_and_utterance,
    recipe,
    temporal_class_activation,
)

from xaibench.errors import PluginError, Unsupported, XaibenchError
from xaibench.grid import Grid
from xaibench.protocols import lacking
from xaibench.scoring import bonafide_log_odds
from xaibench.view import View, grid_view, native_view
from xaibench.weights import load_weights, save_weights, weights_hash

N_SAMPLES = 8_000  # 26 frames


def noise(count: int = 2, n_samples: int = N_SAMPLES, *, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(count, n_samples, generator=torch.Generator().manual_seed(seed))


def lived_in(cm: TCA) -> TCA:
    """Running statistics and biases as after some training: at their initial 0 and 1 a wrong formula could pass."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in cm.backend.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3, generator=draw)
                module.running_var.uniform_(0.5, 2, generator=draw)
        cm.backend.bias.normal_(0, 0.5, generator=draw)
    cm.frontend.fit(noise(4))
    return cm.eval()


@pytest.fixture(scope="module")
def cm() -> TCA:
    return lived_in(recipe.untrained(seed=0, n_samples=N_SAMPLES))


@pytest.fixture(scope="module")
def tap(cm: TCA) -> Tensor:
    with torch.no_grad():
        return cm.frontend(noise(3))


def view_of(cm: TCA, **facts: object) -> View:
    return native_view(cm, noise(3), noise(3, seed=1), noise(2, seed=2), ["a/x", "b/x", "c/x"], **facts)


# ------------------------------------------------------------------------------------------- the twin, in plain numpy


def array(parameter: Tensor) -> np.ndarray:
    return parameter.detach().double().numpy()


def softmax(values: np.ndarray) -> np.ndarray:
    raised = np.exp(values - values.max())
    return raised / raised.sum()


def dense(block: nn.Sequential, x: np.ndarray) -> np.ndarray:
    """Linear, batch normalisation with running statistics, LeakyReLU, for one frame `(inputs,)`."""
    linear, norm = block[0], block[1]
    y = array(linear.weight)[:, :, 0, 0] @ x + array(linear.bias)
    y = (y - array(norm.running_mean)) / np.sqrt(array(norm.running_var) + norm.eps) * array(norm.weight) + array(norm.bias)
    return np.where(y > 0, y, 0.01 * y)


def twin(cm: TCA, utterance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z, S' and z' of one utterance's encoder frames `(D, T)`, step by step with loops."""
    b = cm.backend
    frames = utterance.shape[1]
    x = np.array([dense(b.dense_2, dense(b.dense_1, utterance[:, t])) for t in range(frames)])
    features, classes = x.shape[1], len(cm.classes)

    energy = np.array([math.tanh(x[t] @ array(b.attention.weight)[0] + array(b.attention.bias)[0]) for t in range(frames)])
    alpha = softmax(energy)
    mean = sum(alpha[t] * x[t] for t in range(frames))
    deviation = np.sqrt(np.maximum(sum(alpha[t] * x[t] ** 2 for t in range(frames)) - mean**2, 1e-6))
    u = array(b.dense_3.weight) @ np.concatenate([mean, deviation]) + array(b.dense_3.bias)
    rows = [*x, u]

    vectors = np.zeros((features, classes))
    for k in range(classes):
        for t, row in enumerate(rows):
            if hasattr(b.weights, "query"):
                weight = np.tanh(row @ array(b.weights.query.weight)[k] + array(b.weights.query.bias)[k])
                weight = weight / frames if t < frames else weight
            else:
                weight = array(b.weights.weight)[t, k]
            vectors[:, k] += weight * row
        vectors[:, k] += array(b.bias)[k]

    z = np.array([array(b.project.weight)[0] @ vectors[:, k] + array(b.project.bias)[0] for k in range(classes)])
    mixed = np.array([array(b.mix.weight) @ vectors[c] + array(b.mix.bias) for c in range(features)])
    gate = np.stack([softmax(mixed[:, k]) for k in range(classes)], axis=1)
    activation = np.array([[z[k] * (row @ gate[:, k]) for k in range(classes)] for row in rows])
    d_1, d_2 = array(b.combine.weight)[0]
    logits = d_1 * activation[:-1].mean(0) + d_2 * activation[-1] + array(b.combine.bias)[0]
    return z, activation, logits


@pytest.mark.parametrize("options", [{}, {"frames": 26}, {"kinds": ["spoof"]}, {"kinds": ["a", "b", "c"]}])
def test_all_three_results_are_those_of_the_literal_twin(options):
    cm = lived_in(recipe.untrained(seed=3, n_samples=N_SAMPLES, **options))
    with torch.no_grad():
        tap = cm.frontend(noise(2))
        parts = cm.backend.parts(tap)
    for i in range(2):
        for found, expected in zip(parts, twin(cm, tap[i, :, 0].double().numpy()), strict=True):
            assert np.abs(expected).max() > 1e-3
            assert np.allclose(found[i].numpy(), expected, rtol=1e-3, atol=1e-5)


def test_attentive_statistics_are_a_weighted_mean_and_deviation():
    x = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [9.0, 4.0]]])
    found = attentive_statistics(x, torch.tensor([[0.5, 0.25, 0.25]]))
    mean = [0.5 + 0.75 + 2.25, 1.0]
    assert torch.allclose(found, torch.tensor([[*mean, (0.5 + 2.25 + 20.25 - 3.5**2) ** 0.5, (4 - 1) ** 0.5]]))


def test_the_deviation_of_a_constant_has_a_gradient():
    x = torch.ones(1, 4, 2, requires_grad=True)
    attentive_statistics(x, torch.full((1, 4), 0.25)).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_the_small_steps_by_hand():
    rows = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    weights = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, -1.0]])
    assert class_activation(rows, weights)[0].tolist() == [[6.0, 1.0], [8.0, 2.0]]
    gate = torch.tensor([[[0.5, 1.0], [0.5, 0.0]]])
    activation = temporal_class_activation(rows, gate, torch.tensor([[2.0, -1.0]]))
    assert activation[0].tolist() == [[3.0, -1.0], [7.0, -3.0], [11.0, -5.0]]
    assert frames_and_utterance(activation)[0].tolist() == [[5.0, -2.0], [11.0, -5.0]]


# ------------------------------------------------------------------------------------------------ lengths and training


@pytest.mark.parametrize("n_samples", [257, 640, 20_001])
def test_any_length_is_scored_alone_or_in_a_batch(cm, n_samples):
    with torch.no_grad():
        together = cm(noise(3, n_samples))
        alone = torch.cat([cm(wave[None]) for wave in noise(3, n_samples)])
    assert together.shape == (3, 3) and torch.isfinite(together).all()
    assert torch.allclose(together, alone, atol=1e-5)


def test_position_weights_fit_one_length_only():
    cm = lived_in(TCA(n_samples=N_SAMPLES, frames=26))
    with torch.no_grad():
        assert cm(noise()).shape == (2, 3)
        with pytest.raises(XaibenchError, match=r"weights for 26 frames, the utterance has 51.*frames=None"):
            cm(noise(1, 16_000))


def test_the_loss_is_three_to_seven_of_two_weighted_cross_entropies(cm, tap):
    labels, weight = torch.tensor([0, 2, 1]), torch.tensor([8.0, 1.0, 1.0])
    with torch.no_grad():
        found = float(cm.training_loss(tap, labels, weight))
        plain = float(cm.training_loss(tap, labels, None))
        same = float(cm.training_loss(tap, labels, weight / 10))
    expected, unweighted = 0.0, 0.0
    for share, column in ((0.3, 0), (0.7, 2)):
        losses = [-math.log(softmax(twin(cm, tap[i, :, 0].double().numpy())[column])[labels[i]]) for i in range(3)]
        expected += share * sum(float(weight[y]) * loss for y, loss in zip(labels, losses, strict=True)) / 10
        unweighted += share * sum(losses) / 3
    assert found == pytest.approx(expected, rel=1e-3) and plain == pytest.approx(unweighted, rel=1e-3)
    assert same == pytest.approx(found, rel=1e-5)  # 0.8, 0.1, 0.1 of the code are the paper's 8, 1, 1
    assert abs(expected - unweighted) > 5e-3  # the weights matter more than the tolerance above


def test_the_loss_falls_and_every_weight_learns():
    cm = recipe.untrained(seed=0, n_samples=N_SAMPLES).train()
    real = noise(4, 4_000)
    waves = torch.cat([real, nn.functional.conv1d(real[:, None], torch.full((1, 1, 3), 1 / 3), padding=1)[:, 0]])
    labels = torch.tensor([0] * 4 + [1] * 2 + [2] * 2)
    cm.frontend.fit(waves)
    optimiser = torch.optim.Adam(cm.parameters(), lr=1e-3)
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(10):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = cm.training_loss(cm.frontend(waves), labels, None)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in cm.parameters())


def test_one_utterance_can_be_trained_on():
    cm = TCA(n_samples=N_SAMPLES).train()
    cm.training_loss(cm.frontend(noise(1)), torch.tensor([1]), None).backward()


# ---------------------------------------------------------------------------------------------------- its explanation


def test_frames_and_utterance_together_make_up_the_difference_to_bona_fide(cm, tap):
    found = cm.intrinsic["tca"](tap)
    assert found.shape == (3, 1, 26)
    for i in range(3):
        _, activation, logits = twin(cm, tap[i, :, 0].double().numpy())
        k = 1 + int(np.argmax(logits[1:]))  # classes: bonafide first
        share = array(cm.backend.combine.weight)[0, 1] * (activation[-1, k] - activation[-1, 0])
        assert float(found[i].sum()) + share == pytest.approx(logits[k] - logits[0], rel=1e-3, abs=1e-5)
        d_1 = array(cm.backend.combine.weight)[0, 0]
        assert np.allclose(found[i, 0], d_1 * (activation[:-1, k] - activation[:-1, 0]) / 26, rtol=1e-3, atol=1e-6)


def test_the_class_alone_is_the_column_of_the_paper_oriented(cm, tap):
    found = cm.intrinsic["tca-class"](tap)
    for i in range(3):
        _, activation, logits = twin(cm, tap[i, :, 0].double().numpy())
        column = activation[:-1, 1 + int(np.argmax(logits[1:]))]
        assert np.allclose(found[i, 0], array(cm.backend.combine.weight)[0, 0] * column / 26, rtol=1e-3, atol=1e-6)


def test_a_frame_weight_below_zero_turns_the_map_round(cm, tap):
    """Whatever the sign of d_1, more map is more spoof: the sum over frames follows the score."""
    turned = copy.deepcopy(cm)
    with torch.no_grad():
        turned.backend.combine.weight.copy_(torch.tensor([[-0.7, 0.0]]))
    parts = turned.backend.parts(tap)
    likelier = parts.logits[:, 1:].max(1).values - parts.logits[:, 0]
    assert torch.allclose(turned.intrinsic["tca"](tap).sum((1, 2)), likelier, atol=1e-5)


def permuted(cm: TCA, order: list[int]) -> TCA:
    """The same network with its classes in another order: logits, z and the columns of S' follow."""
    other = copy.deepcopy(cm)
    b = other.backend
    with torch.no_grad():
        for tensor in (b.weights.query.weight, b.weights.query.bias, b.bias, b.mix.bias):
            tensor.copy_(tensor[order].clone())
        b.mix.weight.copy_(b.mix.weight[order][:, order].clone())
    return other


def test_the_likelier_kind_is_chosen_for_every_utterance_by_itself(cm, tap):
    found = cm.intrinsic["tca"](tap)
    assert torch.allclose(cm.intrinsic["tca"](tap[1:2]), found[1:2], atol=1e-6)
    swapped = permuted(cm, [0, 2, 1])
    assert torch.allclose(swapped.backend(tap), cm.backend(tap)[:, [0, 2, 1]], atol=1e-5)
    assert torch.allclose(swapped.intrinsic["tca"](tap), found, atol=1e-6)


def test_an_utterance_taken_for_bona_fide_shows_its_likelier_kind_of_spoofing(cm, tap):
    with torch.no_grad():
        order = cm.backend(tap[:1])[0].argsort(descending=True).tolist()
        sure = permuted(cm, order)  # now bona fide is likeliest, then class 1
        parts = sure.backend.parts(tap[:1])
    assert parts.logits[0].argsort(descending=True).tolist() == [0, 1, 2]
    frames = parts.activation[0, :-1]
    expected = sure.backend.combine.weight[0, 0] * (frames[:, 1] - frames[:, 0]) / 26
    assert expected.abs().max() > 1e-5 and torch.allclose(sure.intrinsic["tca"](tap[:1])[0, 0], expected, atol=1e-7)


def test_the_attributor_shows_the_map_on_the_axes_of_the_view(cm):
    view = view_of(cm, batch_size=2)
    assert "intrinsic" in view.offers and "modules" not in view.offers
    made = attribution(view)
    assert torch.allclose(made.values, cm.intrinsic["tca"](view.inputs), atol=1e-6)
    assert made.values.shape == (3, 1, 26) and made.resolves == {"time"} and not made.values.requires_grad
    alone = attribution.with_options(subtract_bonafide=False)(view)
    assert torch.allclose(alone.values, cm.intrinsic["tca-class"](view.inputs), atol=1e-6)
    assert not torch.allclose(alone.values, made.values, atol=1e-6)


def test_a_countermeasure_without_a_map_of_its_own_is_unsupported(cm):
    with pytest.raises(Unsupported, match=r"no map 'tca' of its own \(it has: none\)"):
        attribution(replace(view_of(cm), intrinsic={}))


def test_the_grid_route_does_not_offer_it(cm):
    view = grid_view(cm, noise(1), noise(1, seed=1), noise(1, seed=2), ["a/x"], grid=Grid())
    assert "intrinsic" not in view.offers
    with pytest.raises(Unsupported):
        attribution(view)


# -------------------------------------------------------------------------------------------------------- the contract


def test_it_keeps_the_contract(cm):
    assert not lacking(cm)
    assert (cm.sample_rate, cm.n_samples, cm.resolves, cm.module_rules) == (16_000, N_SAMPLES, {"time"}, False)
    assert cm.classes == ("bonafide", "signal-processing", "neural")
    frequency, time = cm.axes
    assert (len(frequency), len(time), frequency.edges[-1]) == (1, 26, 8_000)
    assert TCA().n_samples == 32_000
    assert recipe.name == attribution.name == "tca" and "2406.08825" in recipe.paper
    assert attribution.needs == {"intrinsic"} and not attribution.class_specific


def test_the_tap_is_a_true_cut(cm, tap):
    with torch.no_grad():
        assert tap.shape == (3, 128, *(len(a) for a in cm.axes))
        assert torch.equal(cm.backend(tap), cm(noise(3)))


def test_the_score_is_differentiable_down_to_the_waveform(cm):
    wave = noise(1).requires_grad_()
    bonafide_log_odds(cm(wave), cm.classes).sum().backward()
    assert torch.isfinite(wave.grad).all() and float(wave.grad.abs().max()) > 0


def test_layers_have_maps_over_time_and_lie_in_the_backend(cm):
    assert view_of(cm).layers == ("backend.dense_1", "backend.dense_2")
    seen: list[tuple[int, ...]] = []
    hooks = [m.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape))) for m in cm.layers.values()]
    with torch.no_grad():
        cm(noise(1))
    for hook in hooks:
        hook.remove()
    assert seen == [(1, 128, 1, 26)] * 2


def test_settling_sets_the_mean_of_the_learned_tap():
    cm = lived_in(TCA(n_samples=N_SAMPLES))
    assert not cm.mean_tap.any()
    cm.settle(noise(5))
    with torch.no_grad():
        assert torch.allclose(cm.mean_tap, cm.frontend(noise(5)).mean((0, 3), keepdim=True), atol=1e-5)
    assert view_of(cm).fill("mean").shape == (3, 128, 1, 26)


def test_kinds_are_the_classes():
    assert TCA(kinds=("tts", "vc")).classes == ("bonafide", "tts", "vc")
    assert recipe.untrained(seed=0, kinds=["spoof"], n_samples=N_SAMPLES).eval()(noise()).shape == (2, 2)
    with pytest.raises(XaibenchError, match=r"list of names, got the text 'tts'"):
        TCA(kinds="tts")
    with pytest.raises(PluginError, match="bonafide"):
        TCA(kinds=["bonafide", "tts"])


def test_on_wav2vec_features_the_dense_layers_have_the_widths_of_the_paper(tmp_path):
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=1024, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=2, num_conv_pos_embedding_groups=16,
    )  # fmt: skip
    Wav2Vec2Model(config).save_pretrained(tmp_path, safe_serialization=True)
    cm = TCA(ssl=str(tmp_path), n_samples=64_600, frames=201, kinds=["tts", "vc"]).eval()
    assert [m[0].out_channels for m in (cm.backend.dense_1, cm.backend.dense_2)] == [512, 128]
    assert cm.backend.weights.weight.shape == (202, 3) and len(cm.axes[1]) == 201


def test_same_seed_same_weights_without_disturbing_the_global_generator():
    before = torch.random.get_rng_state()
    one, same, other = (weights_hash(recipe.untrained(seed=s)) for s in (3, 3, 4))
    assert one == same != other
    assert torch.equal(torch.random.get_rng_state(), before)


def test_weights_survive_the_disk(cm, tmp_path):
    save_weights(tmp_path / "tca.safetensors", cm)
    other = recipe.untrained(seed=9, n_samples=N_SAMPLES)
    load_weights(other, tmp_path / "tca.safetensors")
    with torch.no_grad():
        assert torch.equal(other.eval()(noise()), cm(noise()))


def test_the_names_of_the_weights_are_fixed():
    """Checkpoints in the wild carry them."""
    with torch.device("meta"):
        names = set(TCA().state_dict())
    assert {"tap_mean", "frontend.spectrum.mean", "frontend.spectrum.deviation"} <= names
    assert {".".join(n.split(".")[:2]) for n in names} == {
        "tap_mean", "frontend.spectrum", "frontend.convolutions", "frontend.position", "frontend.layers", "frontend.norm",
        "backend.dense_1", "backend.dense_2", "backend.attention", "backend.dense_3", "backend.weights", "backend.bias",
        "backend.project", "backend.mix", "backend.combine",
    }  # fmt: skip
