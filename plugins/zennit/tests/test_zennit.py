"""The zennit attributors on a toy with Max-Feature-Map: conservation, a slow twin, and a model left as it was."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import SHAPE, ConvCM, LinearCM, view_of
from xaibench_zennit.excitation import excitation_backprop
from xaibench_zennit.lrp import alpha2_beta1, epsilon_gamma_box, epsilon_plus
from zennit.attribution import Gradient
from zennit.composites import EpsilonPlus

from xaibench.errors import Unsupported
from xaibench.layers import MaxFeatureMap, ReLUMaxFeatureMap
from xaibench.protocols import Attributor
from xaibench.view import SpoofLogOdds, View

LRP = {"epsilon-plus": epsilon_plus, "epsilon-gamma-box": epsilon_gamma_box, "alpha2-beta1": alpha2_beta1}
METHODS = {**LRP, "excitation-backprop": excitation_backprop}


def toy(*, biases: bool = True) -> ConvCM:
    """Batch normalisation with a scale and a shift, and logits some units wide; `biases` are those of the layers."""
    cm = ConvCM()
    with torch.no_grad():
        norm, last = cm.backend[3], cm.backend[-1]
        norm.running_mean.copy_(torch.tensor([0.3, -0.2, 0.1, 0.5]))
        norm.running_var.copy_(torch.tensor([0.5, 2.0, 1.0, 0.7]))
        norm.bias.copy_(torch.tensor([0.4, -0.6, 0.2, -0.1]))
        last.weight.mul_(20)
        if not biases:
            for module in cm.backend:
                if isinstance(module, nn.Conv2d | nn.Linear):
                    module.bias.zero_()
    return cm


def negated(view: View) -> View:
    """The same view of a countermeasure whose two logits have changed places: it explains bona fide."""
    model = view.private_model()
    with torch.no_grad():
        model.contrast.linear.weight.neg_()
    return replace(view, model=model)


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Attributor:
    return METHODS[request.param]


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max())


def test_the_entry_points_lead_to_the_methods() -> None:
    found = {e.name: e for e in entry_points(group="xaibench.attributors")}
    for name, expected in METHODS.items():
        assert found[name].load() is expected or found[name].load().function.__name__ == expected.function.__name__
        assert found[name].load().name == name


def test_a_finite_map_that_is_not_constant(method: Attributor) -> None:
    values = method(view_of(toy(), 3)).values
    assert values.shape == (3, *SHAPE) and SHAPE[0] != SHAPE[1]
    assert values.isfinite().all() and (values.flatten(1).std(1) > 0).all()
    assert not values.requires_grad


def test_the_grid_route_is_refused_by_what_is_declared(method: Attributor) -> None:
    with pytest.raises(Unsupported, match="modules"):
        view_of(toy(), 1, route="grid").require(method.needs, method.name)


def test_a_batch_equals_its_utterances_in_any_order(method: Attributor) -> None:
    seen = view_of(toy(), 3)
    together = method(seen).values
    apart = torch.cat([method(one).values for one in seen.each()])
    assert close(together, apart)
    assert close(method(seen.select([2, 0, 1])).values, apart[[2, 0, 1]])
    assert close(method(replace(seen, batch_size=2)).values, together)


def test_no_randomness(method: Attributor) -> None:
    seen = view_of(toy(), 2)
    assert not method.random
    assert torch.equal(method(seen).values, method(seen).values)
    assert torch.equal(method(seen).values, method(replace(seen, seed=5)).values)


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


def test_the_model_the_generators_and_the_terminal_are_left_as_they_were(
    method: Attributor, capfd: pytest.CaptureFixture
) -> None:
    seen = view_of(toy(), 2)
    parameter = next(seen.model.parameters())
    parameter.grad = torch.full_like(parameter, 7.0)
    weights = {name: tensor.clone() for name, tensor in seen.model.state_dict().items()}
    wants = [p.requires_grad for p in seen.model.parameters()]
    inputs = seen.inputs.clone()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    method(seen)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])
    assert all(torch.equal(weights[name], tensor) for name, tensor in seen.model.state_dict().items())
    assert [p.requires_grad for p in seen.model.parameters()] == wants
    assert torch.equal(parameter.grad, torch.full_like(parameter, 7.0))
    assert hooks(seen.model) == 0 and not any(module.training for module in seen.model.modules())
    assert torch.equal(seen.inputs, inputs) and not seen.inputs.requires_grad


def test_hooks_and_weights_are_put_back_after_an_exception(method: Attributor, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the private copy too: here it is handed out and its last layer fails while the hooks are on."""
    seen = view_of(toy(), 1)
    private = seen.private_model()
    weights = {name: tensor.clone() for name, tensor in private.state_dict().items()}
    hooked = []

    def fail(self: nn.Module, logits: Tensor) -> Tensor:
        hooked.append(hooks(private))
        raise RuntimeError("out of memory")

    monkeypatch.setattr(View, "private_model", lambda self: private)
    monkeypatch.setattr(private.contrast, "forward", fail.__get__(private.contrast))
    with pytest.raises(RuntimeError, match="out of memory"):
        method(seen)
    assert hooked[0] > 0 and hooks(private) == 0
    assert all(torch.equal(weights[name], tensor) for name, tensor in private.state_dict().items())


def well_mixed() -> ConvCM:
    """No biases, no average of values of either sign, and enough inputs to each unit that both signs pull at it."""
    cm = toy(biases=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cm.backend[0] = nn.Conv2d(1, 8, 7, bias=False)
        cm.backend[4] = nn.Conv2d(4, 8, 3, bias=False)
    cm.backend[6] = nn.AdaptiveMaxPool2d(4)
    return cm.eval()


@pytest.mark.parametrize("name", LRP)
def test_without_biases_relevance_sums_to_the_score(name: str) -> None:
    """Batch normalisation keeps its shift here: it passes relevance on, so the shift takes none.

    alpha2-beta1 conserves at units that both signs pull at, and there only.
    """
    seen = view_of(well_mixed(), 3)
    score = seen.score(seen.inputs)
    values = LRP[name](seen).values
    assert ((values.sum((1, 2)) - score).abs() <= 1e-4 * values.abs().sum((1, 2))).all()
    assert torch.allclose(values.sum((1, 2)), score, rtol=1e-3)


@pytest.mark.parametrize("name", LRP)
def test_with_biases_it_does_not_and_none_declares_it(name: str) -> None:
    cm = toy()
    with torch.no_grad():
        cm.backend[-1].bias.copy_(torch.tensor([5.0, -5.0]))
    seen = view_of(cm, 2)
    gap = (LRP[name](seen).values.sum((1, 2)) - seen.score(seen.inputs)).abs()
    assert (gap > 1.0).all() and not LRP[name].complete


def test_excitation_hands_out_one_to_each_logit_and_returns_their_difference() -> None:
    """Without biases, each logit alone gets a map that is nowhere negative and sums to one."""
    seen = view_of(well_mixed(), 2)
    alone = []
    for logit in (0, 1):
        model = seen.private_model()
        with torch.no_grad():
            model.contrast.linear.weight.zero_()[0, logit] = 1.0
        alone.append(excitation_backprop(replace(seen, model=model)).values)
        assert (alone[-1] >= -1e-7).all()
        assert torch.allclose(alone[-1].sum((1, 2)), torch.ones(2), atol=1e-4)
    values = excitation_backprop(seen).values
    assert close(values, alone[0] - alone[1], 1e-4)
    assert float(values.sum().abs()) < 1e-4 * float(values.abs().sum())


def test_explaining_bona_fide_turns_the_sign(method: Attributor) -> None:
    """The map depends on the class: for two classes it is the negative, also where the rule keeps positive weights only."""
    seen = view_of(toy(), 2)
    values = method(seen).values
    assert values.abs().max() > 0 and close(method(negated(seen)).values, -values, 1e-4)


def test_positive_means_spoof(method: Attributor) -> None:
    """Two blocks of energy, one that raises the spoof logit and one that raises bona fide, at a score of either sign."""
    spoof, bonafide = (..., slice(4, 12), slice(0, 40)), (..., slice(20, 28), slice(60, 100))
    weight = torch.zeros(SHAPE)
    weight[spoof], weight[bonafide] = 1.0, -1.0
    dense = LinearCM(weight, bias=0.0).backend[1]
    convolution = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(convolution.weight)
    stages = OrderedDict(conv=convolution, flatten=nn.Flatten(), dense=dense, contrast=SpoofLogOdds(("spoof", "bonafide")))
    seen = view_of(toy(), 2)
    inputs = torch.zeros_like(seen.inputs)
    inputs[0][spoof], inputs[0][bonafide] = 4.0, 1.0
    inputs[1][spoof], inputs[1][bonafide] = 1.0, 4.0
    seen = replace(seen, model=nn.Sequential(stages).eval(), inputs=inputs)
    assert seen.score(inputs).sign().tolist() == [1, -1]
    values = method(seen).values
    assert (values[spoof] > 0).all() and (values[bonafide] < 0).all()
    assert float(values[spoof].sum() - values[bonafide].sum()) > 0.99 * float(values.abs().sum())


def slow_epsilon(layers: list[nn.Linear], x: list[float], signs: list[float], epsilon: float) -> list[float]:
    """Epsilon LRP of dense, Max-Feature-Map, dense, contrast, one multiplication at a time (Bach et al. 2015).

    R_i = sum_j a_i w_ji / (z_j + epsilon sign(z_j)) R_j, with the bias in z_j; the greater of two halves takes all.
    """

    def forward(weight: list, bias: list, a: list[float]) -> list[float]:
        return [sum(w * v for w, v in zip(row, a, strict=True)) + b for row, b in zip(weight, bias, strict=True)]

    def back(weight: list, z: list[float], a: list[float], above: list[float]) -> list[float]:
        below = [0.0] * len(a)
        for j, row in enumerate(weight):
            share = above[j] / (z[j] + (epsilon if z[j] >= 0 else -epsilon))
            for i, w in enumerate(row):
                below[i] += a[i] * w * share
        return below

    (w1, b1), (w2, b2) = ((layer.weight.double().tolist(), layer.bias.double().tolist()) for layer in layers)
    z1 = forward(w1, b1, x)
    half = len(z1) // 2
    a1 = [max(z1[i], z1[i + half]) for i in range(half)]
    z2 = forward(w2, b2, a1)
    z3 = forward([signs], [0.0], z2)
    r2 = back([signs], z3, z2, z3)
    r1 = back(w2, z2, a1, r2)
    won = [r1[i] if z1[i] > z1[i + half] else 0.0 for i in range(half)]
    lost = [r1[i] if z1[i] <= z1[i + half] else 0.0 for i in range(half)]
    return back(w1, z1, x, won + lost)


@pytest.mark.parametrize("method", [epsilon_plus, alpha2_beta1], ids=lambda m: m.name)
def test_on_dense_layers_epsilon_agrees_with_a_slow_twin(method: Attributor) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        first, last = nn.Linear(12, 8), nn.Linear(4, 2)
        inputs = torch.randn(2, 1, 3, 4)
    contrast = SpoofLogOdds(("bonafide", "spoof"))
    stages = OrderedDict(flatten=nn.Flatten(), first=first, mfm=MaxFeatureMap(), last=last, contrast=contrast)
    seen = replace(view_of(toy(), 2), model=nn.Sequential(stages).eval(), inputs=inputs)
    values = method.with_options(epsilon=0.05)(seen).values
    for i in range(2):
        slow = slow_epsilon([first, last], inputs[i].flatten().double().tolist(), [-1.0, 1.0], 0.05)
        assert close(values[i].double().flatten(), torch.tensor(slow, dtype=torch.float64))


def test_batch_normalisation_between_dense_layers_equals_merging_it_into_the_layer_above() -> None:
    """And keeps relevance bounded where the unit below is near zero, as the first one is made to be here.

    zennit's own composite, which passes relevance on unchanged, does not: that is why it is not taken as it is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        first, norm, last = nn.Linear(12, 8), nn.BatchNorm1d(4).eval(), nn.Linear(4, 2)
        inputs = torch.randn(1, 1, 3, 4)
    merged = nn.Linear(4, 2)
    with torch.no_grad():
        for parameter in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            parameter.copy_(torch.tensor([0.5, 1.5, 0.8, 1.1]))
        first.bias[[0, 4]] -= first(inputs.flatten(1))[0, [0, 4]] - torch.tensor([1e-4, -1.0])
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        merged.weight.copy_(last.weight * scale)
        merged.bias.copy_(last.bias + last.weight @ (norm.bias - scale * norm.running_mean))
    mfm, contrast = MaxFeatureMap(), SpoofLogOdds(("spoof", "bonafide"))
    apart = nn.Sequential(nn.Flatten(), first, mfm, norm, last, contrast)
    together = nn.Sequential(nn.Flatten(), first, mfm, merged, contrast)
    seen = replace(view_of(toy(), 1), inputs=inputs)
    assert torch.allclose(apart(inputs), together(inputs), atol=1e-6)
    method = epsilon_plus.with_options(epsilon=1e-9)
    values = method(replace(seen, model=apart.eval())).values
    assert close(values, method(replace(seen, model=together.eval())).values, 1e-3)
    plain = Gradient(apart, EpsilonPlus(epsilon=1e-9), attr_output=apart(inputs).detach())(inputs.clone())[1]
    assert float(plain.abs().sum()) > 100 * float(values.abs().sum())


class Softsign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / (1 + x.abs())


@pytest.mark.parametrize(
    ("index", "module", "named"),
    [
        (8, Softsign, r"Softsign \(at backend\.8\)"),
        (3, lambda: nn.GroupNorm(2, 4), r"GroupNorm \(at backend\.3\)"),
    ],
    ids=["leaf", "normalisation"],
)
def test_a_module_without_a_rule_is_refused_by_name(
    method: Attributor, index: int, module: Callable[[], nn.Module], named: str
) -> None:
    cm = toy()
    cm.backend[index] = module()
    with pytest.raises(Unsupported, match=named):
        method(view_of(cm, 1))


def test_the_relu_form_of_max_feature_map_gives_relevance_to_the_loser_and_is_refused(method: Attributor) -> None:
    """On b + relu(a - b) zennit's rule for ReLU hands all relevance to a, whether it won or not: here b = 3 wins."""
    x = torch.tensor([[1.0, 3.0]])
    for mfm, share in ((MaxFeatureMap(), [0.0, 1.0]), (ReLUMaxFeatureMap(), [1.0, 0.0])):
        model = nn.Sequential(nn.Identity(), mfm)
        _, given = Gradient(model, EpsilonPlus(), attr_output=torch.ones(1, 1))(x.clone())
        assert given.tolist() == [share]
    cm = toy()
    cm.backend[5] = ReLUMaxFeatureMap()
    with pytest.raises(Unsupported, match=r"ReLUMaxFeatureMap \(at backend\.5\)"):
        method(view_of(cm, 1))


def test_the_box_needs_a_convolution_first() -> None:
    with pytest.raises(Unsupported, match="first layer, got Linear"):
        epsilon_gamma_box(view_of(LinearCM(), 1))


def test_three_classes_are_refused_by_lrp_and_explained_by_excitation() -> None:
    """The log-odds against two rivals is a logsumexp: LRP has no rule for it, excitation only needs its gradient."""
    cm = toy()
    cm.classes = ("tts", "bonafide", "vc")
    cm.backend[-1] = nn.Linear(64, 3)
    seen = view_of(cm, 1)
    for lrp in LRP.values():
        with pytest.raises(Unsupported, match="SpoofLogOdds"):
            lrp(seen)
    assert excitation_backprop(seen).values.abs().max() > 0
