"""The shap attributors on a toy with Max-Feature-Map: shape, completeness, determinism, and a model left as it was."""

from __future__ import annotations

import random
from dataclasses import replace
from importlib.metadata import entry_points

import numpy as np
import pytest
import shap
import torch
from torch import nn
from toys import SHAPE, ConvCM, LinearCM, view_of
from xaibench_shap.deep import background_of, deep_explainer
from xaibench_shap.gradient import gradient_explainer
from xaibench_shap.partition import partition_explainer

from xaibench.errors import Unsupported, XaibenchError
from xaibench.layers import deeplift_form
from xaibench.protocols import Attributor
from xaibench.view import View

METHODS = {
    "deep-explainer": deep_explainer.with_options(background=2),
    "gradient-explainer": gradient_explainer.with_options(nsamples=5),
    "partition-explainer": partition_explainer.with_options(max_evals=30),
}
BOTH_ROUTES = ("gradient-explainer", "partition-explainer")


def toy() -> ConvCM:
    """Batch normalisation with a scale and a shift, and logits some units wide."""
    cm = ConvCM()
    with torch.no_grad():
        norm, last = cm.backend[3], cm.backend[-1]
        norm.running_mean.copy_(torch.tensor([0.3, -0.2, 0.1, 0.5]))
        norm.running_var.copy_(torch.tensor([0.5, 2.0, 1.0, 0.7]))
        norm.bias.copy_(torch.tensor([0.4, -0.6, 0.2, -0.1]))
        last.weight.mul_(20)
    return cm


def view(count: int = 3, *, route: str = "native", references: int = 5, **facts: object) -> View:
    made = view_of(toy(), count, route=route, **facts)
    spread = view_of(toy(), references, route=route, seed=50).references
    more = view_of(toy(), references, route=route, seed=60).inputs
    return replace(made, references=torch.cat([spread, more])[:references])


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Attributor:
    return METHODS[request.param]


def baseline(name: str, seen: View) -> torch.Tensor:
    """The score that a complete method counts from. Shape: broadcastable to `(B,)`."""
    if name == "deep-explainer":
        return seen.score(background_of(seen, METHODS[name].options["background"])).mean()
    return seen.score(seen.fill("mean"))


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return float((a - b).abs().max()) <= 1e-5 * float(b.abs().max())


def test_the_entry_points_lead_to_the_methods() -> None:
    found = {e.name: e for e in entry_points(group="xaibench.attributors")}
    for name, expected in METHODS.items():
        assert found[name].load().function is expected.function
        assert found[name].load().name == name


@pytest.mark.parametrize(
    ("name", "route"), [(n, "native") for n in METHODS] + [(n, "grid") for n in BOTH_ROUTES], ids=lambda x: x
)
def test_a_finite_map_that_is_not_constant(name: str, route: str) -> None:
    values = METHODS[name](view(2, route=route)).values
    assert values.shape == (2, *SHAPE) and SHAPE[0] != SHAPE[1]
    assert values.isfinite().all() and (values.flatten(1).std(1) > 0).all()
    assert values.dtype == torch.float32


def test_the_grid_route_is_refused_by_what_is_declared() -> None:
    seen = view(1, route="grid")
    with pytest.raises(Unsupported, match="modules"):
        seen.require(deep_explainer.needs, "deep-explainer")
    for name in BOTH_ROUTES:
        seen.require(METHODS[name].needs, name)


def test_a_batch_equals_its_utterances_in_any_order(method: Attributor) -> None:
    seen = view(3)
    together = method(seen).values
    apart = torch.cat([method(one).values for one in seen.each()])
    assert close(together, apart)
    assert close(method(seen.select([2, 0, 1])).values, apart[[2, 0, 1]])
    assert close(method(replace(seen, batch_size=1)).values, together)


def test_the_same_seed_gives_the_same_map_and_another_seed_another_where_declared(method: Attributor) -> None:
    seen = view(2)
    first, second = method(seen).values, method(seen).values
    assert torch.equal(first, second)
    others = [method(replace(seen, seed=seed)).values for seed in (1, 2, 3)]
    assert any(not torch.equal(first, other) for other in others) == method.random


def test_the_model_the_generators_and_the_terminal_are_left_as_they_were(
    method: Attributor, capfd: pytest.CaptureFixture
) -> None:
    seen = view(2)
    parameter = next(seen.model.parameters())
    parameter.grad = torch.full_like(parameter, 7.0)
    weights = {name: tensor.clone() for name, tensor in seen.model.state_dict().items()}
    kinds = [type(module) for module in seen.model.modules()]
    wants = [p.requires_grad for p in seen.model.parameters()]
    inputs, references = seen.inputs.clone(), seen.references.clone()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    method(seen)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])
    assert all(torch.equal(weights[name], tensor) for name, tensor in seen.model.state_dict().items())
    assert [type(module) for module in seen.model.modules()] == kinds
    assert [p.requires_grad for p in seen.model.parameters()] == wants
    assert torch.equal(parameter.grad, torch.full_like(parameter, 7.0))
    for module in seen.model.modules():
        assert not module.training
        assert not module._forward_hooks and not module._forward_pre_hooks and not module._backward_hooks
        assert not hasattr(module, "x") and not hasattr(module, "y")
    assert torch.equal(seen.inputs, inputs) and not seen.inputs.requires_grad
    assert torch.equal(seen.references, references) and not seen.references.requires_grad


@pytest.mark.parametrize(
    ("name", "route"),
    [("deep-explainer", "native"), ("partition-explainer", "native"), ("partition-explainer", "grid")],
)
def test_what_is_declared_complete_sums_to_the_difference_of_scores(name: str, route: str) -> None:
    seen = view(3, route=route)
    assert METHODS[name].complete and not gradient_explainer.complete
    difference = seen.score(seen.inputs) - baseline(name, seen)
    assert difference.abs().min() > 0.1, "the toy must have something to explain"
    assert torch.allclose(METHODS[name](seen).values.sum((1, 2)), difference, rtol=1e-4, atol=1e-4)


def test_partition_counts_from_the_fill_of_each_utterance() -> None:
    seen = view(2)
    difference = seen.score(seen.inputs) - seen.score(seen.fill("twin"))
    values = partition_explainer.with_options(max_evals=20, fill="twin")(seen).values
    assert torch.allclose(values.sum((1, 2)), difference, atol=1e-4)


def test_on_a_linear_model_deep_and_gradient_find_weight_times_difference() -> None:
    cm = LinearCM()
    seen = view_of(cm, 2)
    exact = cm.weight * (seen.inputs - seen.references.mean(0))[:, 0]
    assert torch.allclose(deep_explainer(seen).values, exact, atol=1e-5)
    one_reference = replace(seen, references=seen.references[:1])
    exact = cm.weight * (seen.inputs - seen.references[:1])[:, 0]
    assert torch.allclose(gradient_explainer(one_reference).values, exact, atol=1e-5)


def test_on_a_linear_model_partition_finds_the_sum_over_each_half() -> None:
    """The first split of 33 bins x 126 frames is between frames 62 and 63; on a linear model Owen values are sums."""
    cm = LinearCM()
    seen = view_of(cm, 2)
    exact = cm.exact(seen)
    for max_evals in (4, 60):
        values = partition_explainer.with_options(max_evals=max_evals)(seen).values
        for half in (slice(0, 63), slice(63, None)):
            assert torch.allclose(values[..., half].sum((1, 2)), exact[..., half].sum((1, 2)), atol=1e-4)


def test_partition_breaks_ties_the_same_way_for_every_seed() -> None:
    """The two halves matter equally, to the last bit, and six evaluations suffice to look into one of them."""
    weight = torch.zeros(SHAPE)
    weight[:, 0:31] = weight[:, 63:94] = 1.0
    seen = view_of(LinearCM(weight, bias=0.0), 1)
    seen = replace(seen, inputs=torch.ones_like(seen.inputs))
    method = partition_explainer.with_options(max_evals=6)
    maps = [method(replace(seen, seed=seed)).values for seed in range(8)]
    assert maps[0].unique().numel() > 1
    assert all(torch.equal(maps[0], other) for other in maps)


def test_positive_means_spoof(method: Attributor) -> None:
    """Only one block of cells matters, and more of it is more spoof: the block must be positive and hold nearly all."""
    block = (..., slice(0, 17), slice(0, 32))  # a rectangle of shap's tree, three splits down
    weight = torch.zeros(SHAPE)
    weight[block] = 1.0
    seen = view_of(LinearCM(weight), 1)
    inputs = torch.zeros_like(seen.inputs)
    inputs[block] = 2.0
    if method.name == "partition-explainer":
        method = method.with_options(max_evals=60)
    values = method(replace(seen, inputs=inputs, references=torch.zeros_like(seen.references))).values
    inside = values[block].sum()
    assert inside > 0 and float(inside / values.abs().sum()) > 0.99


def test_more_draws_bring_the_gradient_explainer_nearer_to_completeness() -> None:
    seen = view(1)
    difference = float(seen.score(seen.inputs) - seen.score(seen.references).mean())
    gaps = {}
    for nsamples in (4, 200):
        method = gradient_explainer.with_options(nsamples=nsamples)
        sums = [float(method(replace(seen, seed=seed)).values.sum()) for seed in range(4)]
        gaps[nsamples] = sum(abs(s - difference) for s in sums) / 4
    assert gaps[200] < gaps[4] / 2


def test_on_the_plain_max_form_shap_is_wrong_and_on_the_relu_form_right() -> None:
    """The reason for the swap: shap warns, yet returns values whose sum misses the difference of scores."""
    seen = view(1)
    background = background_of(seen, 2)
    difference = float(seen.score(seen.inputs) - seen.score(background).mean())
    with pytest.warns(UserWarning, match="unrecognized nn.Module: MaxFeatureMap"):
        plain = shap.DeepExplainer(seen.private_model(), background).shap_values(seen.inputs, check_additivity=False)
    assert abs(plain.sum() - difference) > 0.05 * abs(difference)
    with deeplift_form(seen.private_model()) as model:
        swapped = shap.DeepExplainer(model, background).shap_values(seen.inputs)
    assert abs(swapped.sum() - difference) < 1e-4 * abs(difference)


class Softsign(nn.Module):
    """A leaf that shap has no rule for."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / (1 + x.abs())


class HiddenMaximum(nn.Module):
    """A maximum that no library sees: shap looks at the child only, and does not even warn."""

    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.child(x).chunk(2, dim=1)
        return torch.maximum(a, b)


def with_layer(index: int, module: nn.Module, *, scale: float = 1.0) -> View:
    cm = toy()
    cm.backend[index] = module
    with torch.no_grad():
        cm.backend[-1].weight.mul_(scale)
    return view_of(cm.eval(), 1)


def test_a_module_without_a_rule_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match=r"no DeepLIFT rule for Softsign \(at backend\.8\)"):
        deep_explainer(with_layer(8, Softsign()))


@pytest.mark.parametrize("scale", [1.0, 1e-4], ids=["caught by shap", "too small for shap's fixed tolerance"])
def test_values_that_do_not_add_up_are_an_error(scale: float) -> None:
    with pytest.raises(XaibenchError, match="sum"):
        deep_explainer(with_layer(1, HiddenMaximum(), scale=scale))


def test_the_background_is_a_subset_fixed_by_the_seed() -> None:
    seen = view(1, references=5)
    chosen = background_of(seen, 3)
    assert chosen.shape[0] == 3 and torch.equal(chosen, background_of(seen, 3))
    assert all(any(torch.equal(c, r) for r in seen.references) for c in chosen)
    assert torch.equal(background_of(seen, 9), seen.references)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deep-explainer", {"background": 0}),
        ("gradient-explainer", {"nsamples": 0}),
        ("partition-explainer", {"max_evals": 3}),
        ("partition-explainer", {"fill": "black"}),
    ],
)
def test_useless_options_are_errors(name: str, options: dict) -> None:
    with pytest.raises(XaibenchError, match=str(next(iter(options.values())))):
        METHODS[name].with_options(**options)(view(1))
