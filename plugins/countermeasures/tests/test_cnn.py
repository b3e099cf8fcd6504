"""The plain CNN; and the contract that it, ResNet-CQT and ResNet50 keep alike."""

import pytest
import torch
from torch import Tensor, nn
from xaibench_countermeasures import cnn, resnet50, resnet_cqt

from xaibench.protocols import lacking
from xaibench.scoring import bonafide_log_odds
from xaibench.weights import load_weights, save_weights, weights_hash

#: Short, so that ResNet50 is quick, too. None of the three fixes its length.
N_SAMPLES = 5_000
RECIPES = {r.name: r for r in (cnn.recipe, resnet_cqt.recipe, resnet50.recipe)}


def noise(count: int = 2) -> Tensor:
    return 0.1 * torch.randn(count, N_SAMPLES, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=RECIPES)
def recipe(request):
    return RECIPES[request.param]


@pytest.fixture(scope="module")
def cm(recipe) -> nn.Module:
    """With one batch's statistics as the running ones: with a fresh network's, deep residual sums grow without bound."""
    cm = recipe.untrained(seed=0, n_samples=N_SAMPLES)
    cm.frontend.fit(noise(4))
    for module in cm.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        cm(noise(4))
    return cm.eval()


def ran(cm: nn.Module, modules: dict[str, nn.Module]) -> list[tuple[str, int]]:
    """Name and number of output dimensions of each call, in the order of the calls."""
    calls: list[tuple[str, int]] = []
    hooks = [
        m.register_forward_hook(lambda _m, _i, out, name=name: calls.append((name, out.ndim))) for name, m in modules.items()
    ]
    with torch.no_grad():
        cm(noise(1))
    for hook in hooks:
        hook.remove()
    return calls


def test_it_keeps_the_contract(cm, recipe):
    assert not lacking(cm)
    assert (cm.sample_rate, cm.n_samples, cm.classes) == (16_000, N_SAMPLES, ("spoof", "bonafide"))
    frequency, time = cm.axes
    assert (frequency.kind, time.kind) == ("frequency", "time") and 0 <= frequency.edges[0] < frequency.edges[-1] <= 8_000
    assert f"xaibench train --cm {recipe.name}" in recipe.obtain and recipe.paper


def test_two_seconds_is_what_it_looks_at_unless_told_otherwise(recipe):
    with torch.device("meta"):
        assert recipe.build().n_samples == 32_000


def test_the_tap_is_a_true_cut_and_has_the_declared_axes(cm):
    with torch.no_grad():
        tap = cm.frontend(noise())
        assert tap.shape == (2, 1, *(len(a) for a in cm.axes))
        assert torch.equal(cm.backend(tap), cm(noise()))
        assert cm(noise()).shape == (2, 2)
        assert torch.broadcast_shapes(cm.mean_tap.shape, tap.shape) == tap.shape


def test_the_mean_tap_is_the_training_mean(cm):
    with torch.no_grad():
        mean = cm.frontend(noise(4)).mean(dim=(0, 3), keepdim=True)
    assert torch.allclose(mean, cm.mean_tap.expand_as(mean), atol=1e-3)


def test_the_score_is_differentiable_down_to_the_waveform(cm):
    wave = noise(1).requires_grad_()
    bonafide_log_odds(cm(wave), cm.classes).sum().backward()
    assert torch.isfinite(wave.grad).all() and float(wave.grad.abs().max()) > 0


def test_layers_run_from_input_to_output_with_four_dimensions(cm):
    assert len(cm.layers) >= 4
    assert ran(cm, dict(cm.layers)) == [(name, 4) for name in cm.layers]


def test_every_activation_and_pooling_is_an_instance_of_its_own_and_not_in_place(cm):
    kinds = (nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.BatchNorm2d)
    watched = {name: m for name, m in cm.named_modules(remove_duplicate=False) if isinstance(m, kinds)}
    assert len({id(m) for m in watched.values()}) == len(watched)
    assert sorted(name for name, _ in ran(cm, watched)) == sorted(watched)  # each called once
    assert not any(m.inplace for m in watched.values() if isinstance(m, nn.ReLU))


def test_an_utterance_scores_the_same_alone_and_in_a_batch(cm):
    with torch.no_grad():
        together = cm(noise())
        alone = torch.cat([cm(w[None]) for w in noise()])
        assert torch.allclose(together, alone, atol=1e-4)
        assert torch.equal(cm(noise()), together)  # no dropout in eval()


def test_it_trains_on_excerpts_of_another_length(cm, recipe):
    model = recipe.untrained(seed=0, n_samples=N_SAMPLES)
    loss = nn.functional.cross_entropy(model(noise(4)[:, :4_400]), torch.tensor([0, 1, 0, 1]))
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_same_seed_same_weights_without_disturbing_the_global_generator(recipe):
    before = torch.random.get_rng_state()
    one, same, other = (weights_hash(recipe.untrained(seed=s, n_samples=N_SAMPLES)) for s in (3, 3, 4))
    assert one == same != other
    assert torch.equal(torch.random.get_rng_state(), before)


def test_weights_survive_the_disk(cm, recipe, tmp_path):
    save_weights(tmp_path / "w.safetensors", cm)
    other = recipe.untrained(seed=9, n_samples=N_SAMPLES)
    load_weights(other, tmp_path / "w.safetensors")
    assert weights_hash(other) == weights_hash(cm)


def test_the_cnn_has_the_parameters_it_says():
    """No paper fixes the network: this pins ours, which checkpoints carry."""
    with torch.device("meta"):
        model = cnn.CNN()
    convolutions = [9 * a * b for a, b in ((1, 8), (8, 16), (16, 48), (48, 96), (96, 128))]
    norms = 2 * (8 + 16 + 48 + 96 + 128)
    assert sum(p.numel() for p in model.parameters()) == sum(convolutions) + norms + (128 * 2 + 2) == 161_050


def test_the_cnn_halves_its_maps_four_times():
    cm = cnn.recipe.untrained(seed=0).eval()
    shapes = []
    for layer in cm.layers.values():
        layer.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape[1:])))
    with torch.no_grad():
        cm(torch.zeros(1, 32_000))
    assert list(cm.layers) == [f"relu_{n}" for n in (1, 2, 3, 4, 5)]
    assert shapes == [(8, 257, 201), (16, 128, 100), (48, 64, 50), (96, 32, 25), (128, 16, 12)]


def test_a_linear_head_on_averages_makes_the_last_layer_s_grad_cam_the_class_activation_map():
    """d logit / d activation is the class weight over the number of cells, everywhere: what Zhou et al. weigh maps with."""
    cm = cnn.recipe.untrained(seed=0, n_samples=N_SAMPLES).eval()
    kept = []
    cm.layers["relu_5"].register_forward_hook(lambda _m, _i, out: kept.append(out))
    logits = cm(noise(1))
    (gradient,) = torch.autograd.grad(logits[0, 0], kept[0])
    cells = gradient[0, 0].numel()
    expected = cm.backend.fc.weight[0].detach()[None, :, None, None].expand_as(gradient) / cells
    assert torch.allclose(gradient, expected, atol=1e-7)
