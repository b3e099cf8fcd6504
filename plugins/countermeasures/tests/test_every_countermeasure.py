"""What the harness relies on, for every countermeasure of the package: the tap, its axes, both routes, batches and seeds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from xaibench import registry
from xaibench.grid import Grid
from xaibench.protocols import Countermeasure, lacking
from xaibench.scoring import bonafide_log_odds
from xaibench.view import View, grid_view, native_view
from xaibench.weights import weights_hash

NAMES = sorted(
    name for name, (plugin, *_) in registry.plugins("countermeasures").items()
    if plugin.distribution == "xaibench-countermeasures"
)  # fmt: skip
LARGE = {"lcnn-stc", "resnet50"}


def parameters(*names: str) -> list:
    return [pytest.param(n, marks=pytest.mark.heavy) if n in LARGE else n for n in names]


@pytest.fixture(scope="module", params=parameters(*NAMES))
def cm(request) -> Countermeasure:
    return registry.load("countermeasures", request.param).untrained(seed=0).eval()


def noise(count: int, n_samples: int) -> Tensor:
    return 0.1 * torch.randn(count, n_samples, generator=torch.Generator().manual_seed(0))


def view(cm: Countermeasure, route: str) -> View:
    spoof, bonafide, references = (noise(2, cm.n_samples) * level for level in (1.0, 0.5, 0.7))
    if route == "native":
        return native_view(cm, spoof, bonafide, references, ["a/x", "b/x"], batch_size=2)
    return grid_view(cm, spoof, bonafide, references, ["a/x", "b/x"], grid=Grid(), batch_size=2)


def test_eleven_are_offered():
    assert len(NAMES) == 11


def test_it_keeps_the_contract_and_its_tap_is_a_true_cut(cm):
    assert not lacking(cm) and cm.sample_rate == 16_000
    x = noise(2, cm.n_samples)
    with torch.no_grad():
        tap, logits = cm.frontend(x), cm(x)
        assert torch.allclose(cm.backend(tap), logits, atol=1e-6)
        assert logits.shape == (2, len(cm.classes)) and bool(logits.isfinite().all())
        alone = torch.cat([cm(one[None]) for one in x])
    assert torch.allclose(alone, logits, atol=1e-4)
    assert tuple(tap.shape[2:]) == tuple(len(axis) for axis in cm.axes)
    assert torch.broadcast_shapes(cm.mean_tap.shape, tap.shape) == tap.shape
    time_only = getattr(cm, "resolves", frozenset({"frequency", "time"})) == {"time"}
    assert time_only == (tap.shape[2] == 1)
    assert abs(cm.axes[1].edges[-1] - cm.n_samples / cm.sample_rate) < 0.05


@pytest.mark.parametrize("route", ["native", "grid"])
def test_both_routes_explain_a_finite_score_with_gradients_and_layers(cm, route):
    seen = view(cm, route)
    assert {"gradients", "layers", "references", "twin"} <= seen.offers
    x = seen.inputs.clone().requires_grad_()
    score = seen.model(x)
    (gradient,) = torch.autograd.grad(score.sum(), x)
    assert score.shape == (2, 1) and bool(gradient.isfinite().all()) and bool(gradient.abs().amax((1, 2, 3)).gt(0).all())
    expected = -bonafide_log_odds(cm(noise(2, cm.n_samples)), cm.classes)
    assert torch.allclose(score[:, 0], expected, atol=1e-2, rtol=1e-2)
    assert bool(torch.isfinite(seen.score(seen.fill("silence"))).all())


def test_layers_have_two_dimensions_and_run_in_the_declared_order(cm):
    ran: list[tuple[str, int]] = []
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: ran.append((name, out.ndim)))
        for name, module in cm.layers.items()
    ]
    with torch.no_grad():
        cm(noise(1, cm.n_samples))
    for hook in hooks:
        hook.remove()
    assert cm.layers and ran == [(name, 4) for name in cm.layers]


@pytest.mark.parametrize("name", parameters(*NAMES))
def test_same_seed_same_weights_without_disturbing_the_generator(name):
    recipe = registry.load("countermeasures", name)
    before = torch.random.get_rng_state()
    one, same, other = (weights_hash(recipe.untrained(seed=s)) for s in (3, 3, 4))
    assert one == same != other and torch.equal(torch.random.get_rng_state(), before)
    assert recipe.shipped() is not None or recipe.obtain, "without weights, and it does not say how to get them"
