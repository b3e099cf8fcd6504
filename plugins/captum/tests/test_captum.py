"""Sixteen adapters of captum: the contract for all, exact answers where they are known, and the defects we correct."""

from __future__ import annotations

import random
import warnings
from dataclasses import replace
from importlib.metadata import entry_points

import numpy as np
import pytest
import torch
import toys
from captum.attr import DeepLift, DeepLiftShap, ShapleyValueSampling
from torch import Tensor, nn
from xaibench_captum import deeplift, gradients, lrp, perturbation
from xaibench_captum.common import evidence
from xaibench_captum.deeplift import CorrectedDeepLift

from xaibench.errors import Unsupported, XaibenchError
from xaibench.layers import MaxFeatureMap, deeplift_form
from xaibench.protocols import Attributor
from xaibench.types import Axis
from xaibench.view import View, patches

METHODS: dict[str, Attributor] = {
    point.name: point.load()
    for point in entry_points(group="xaibench.attributors")
    if point.module.startswith("xaibench_captum.")
}
RANDOM = [name for name, method in METHODS.items() if method.random]
DETERMINISTIC = [name for name, method in METHODS.items() if not method.random]
GRID = [name for name, method in METHODS.items() if "modules" not in method.needs]


@pytest.fixture(scope="module")
def cm() -> toys.ConvCM:
    """A toy whose batch normalisation has seen data, so that its statistics are not 0 and 1."""
    toy = toys.ConvCM(seed=3)
    with torch.no_grad():
        toy.train()
        for seed in range(5, 9):
            toy(toys.pairs(8, seed=seed)[0])
    return toy.eval()


def small_view(model: nn.Module, inputs: Tensor, baseline: Tensor, **facts: object) -> View:
    """A view of any model on any tensors `(B, C, F, T)`; the fill `mean` is `baseline`."""
    frequency, time = inputs.shape[-2:]
    return View(
        route="native", model=model.eval(), inputs=inputs,
        axes=(Axis("frequency", np.arange(frequency + 1)), Axis("time", np.arange(time + 1))),
        fills={"mean": baseline}, references=baseline, layers=(), ids=tuple("abcdef"[: len(inputs)]),
        offers=frozenset({"gradients", "modules", "references"}), **facts,
    )  # fmt: skip


def values(name: str, view: View, **options: object) -> Tensor:
    return METHODS[name].with_options(**options)(view).values


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max())


# The contract, for every method


def test_every_method_is_there_under_its_own_name():
    names = """
        saliency input-x-gradient integrated-gradients twin-ig smoothgrad vargrad gradient-shap guided-backprop deconvolution
        deeplift deeplift-shap lrp occlusion feature-ablation shapley-sampling kernel-shap lime
    """
    assert sorted(METHODS) == sorted(names.split())
    assert all(method.name == name for name, method in METHODS.items())
    assert set(RANDOM) == {"smoothgrad", "vargrad", "gradient-shap", "shapley-sampling", "kernel-shap", "lime"}


@pytest.mark.parametrize("name", METHODS)
def test_shape_finite_and_the_same_in_any_batch(name, cm):
    view = toys.view_of(cm, 3)
    together = values(name, view)
    assert together.shape == (3, *toys.SHAPE)
    assert together.isfinite().all() and not together.requires_grad
    assert (together.flatten(1).amax(1) > together.flatten(1).amin(1)).all()
    if not METHODS[name].signed:
        assert (together >= 0).all()
    for i, one in enumerate(view.each()):
        assert close(values(name, one)[0], together[i])
    assert close(values(name, replace(view, batch_size=1)), together)
    assert close(values(name, view.select([2, 0, 1])), together[[2, 0, 1]])


@pytest.mark.parametrize("name", GRID)
def test_works_on_the_grid_route(name, cm):
    view = toys.view_of(cm, 2, route="grid")
    together = values(name, view)
    assert together.shape == (2, *toys.SHAPE) and together.isfinite().all()
    assert close(values(name, view.select([1]))[0], together[1], 1e-4)


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(GRID)))
def test_rules_for_modules_refuse_the_grid_route(name, cm):
    view = toys.view_of(cm, 2, route="grid")
    with pytest.raises(Unsupported, match="grid route"):
        METHODS[name](view)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_methods_do_not_depend_on_the_seed(name, cm):
    assert torch.equal(values(name, toys.view_of(cm, 2, seed=1)), values(name, replace(toys.view_of(cm, 2), seed=9)))


@pytest.mark.parametrize("name", RANDOM)
def test_random_methods_follow_the_seed_and_nothing_else(name, cm):
    view = toys.view_of(cm, 2)
    first = values(name, view)
    torch.manual_seed(123)
    np.random.seed(123)
    assert torch.equal(values(name, view), first)
    assert not close(values(name, replace(view, seed=1)), first, 1e-3)


def state_of(view: View) -> dict[str, object]:
    """All that a method could leave behind on the model, the inputs and the random generators."""
    modules = dict(view.model.named_modules())
    return {
        "types": {n: type(m) for n, m in modules.items()},
        "training": {n: m.training for n, m in modules.items()},
        "hooks": {
            n: len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) + len(m._backward_pre_hooks)
            for n, m in modules.items()
        },
        "attributes": {n: sorted(vars(m)) for n, m in modules.items()},
        "requires_grad": [p.requires_grad for p in view.model.parameters()],
        "grad": [p.grad is None for p in view.model.parameters()] + [view.inputs.grad is None],
        "inputs": (view.inputs.requires_grad, view.inputs.tolist()),
        "weights": {n: t.tolist() for n, t in view.model.state_dict().items()},
        "random": (torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()),
        "grad_mode": torch.is_grad_enabled(),
    }


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_left_behind_printed_or_warned(name, cm, capfd):
    view = toys.view_of(cm, 2)
    before = state_of(view)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        METHODS[name](view)
    assert state_of(view) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if "baseline" in m.options])
def test_baselines_are_fills(name, cm):
    view = toys.view_of(cm, 1)
    assert not close(values(name, view, baseline="silence"), values(name, view), 1e-3)
    with pytest.raises(Unsupported, match="'black'"):
        values(name, view, baseline="black")


# Completeness: the map sums to f(x) - f(baseline)


def gap(view: View, map_: Tensor, start: Tensor) -> float:
    """The largest |sum - (f(x) - start)|, relative to the largest f(x) - start."""
    wanted = view.score(view.inputs) - start
    return float((map_.sum((1, 2)) - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("name", ["deeplift", "shapley-sampling", "kernel-shap"])
@pytest.mark.parametrize("baseline", ["mean", "silence", "twin"])
def test_declared_completeness(name, baseline, cm):
    view = toys.view_of(cm, 3)
    assert METHODS[name].complete
    assert gap(view, values(name, view, baseline=baseline), view.score(view.fill(baseline))) < 1e-4


@pytest.mark.parametrize("references", [1, 2, 20])
def test_deepshap_is_complete_against_the_mean_of_the_references(references, cm):
    view = toys.view_of(cm, 3)
    start = view.score(view.references[:references]).mean()
    assert gap(view, values("deeplift-shap", view, references=references), start) < 1e-4


def test_integrated_gradients_become_complete_with_many_steps(cm):
    view = toys.view_of(cm, 2)
    start = view.score(view.fill("silence"))
    coarse, fine = (gap(view, values("integrated-gradients", view, steps=n, baseline="silence"), start) for n in (2, 400))
    assert fine < 2e-3 < coarse


def without_biases(cm: nn.Module) -> nn.Module:
    for module in cm.modules():
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
    return cm


def test_lrp_conserves_relevance_without_biases_and_not_with():
    view = toys.view_of(without_biases(toys.ConvCM(seed=3)), 3)
    assert gap(view, values("lrp", view, epsilon=1e-9), torch.zeros(3)) < 1e-4
    view = toys.view_of(toys.ConvCM(seed=3), 3)
    assert gap(view, values("lrp", view, epsilon=1e-9), torch.zeros(3)) > 1e-2


def test_lrp_zero_is_input_x_gradient_and_the_default_epsilon_is_not(cm):
    view = toys.view_of(cm, 2)
    product = values("input-x-gradient", view)
    assert close(values("lrp", view, epsilon=1e-9), product, 1e-4)
    assert not close(values("lrp", view), product, 1e-1)


# A linear countermeasure: the exact attribution is known


def test_path_methods_are_exact_on_a_linear_countermeasure():
    linear = toys.LinearCM()
    view = toys.view_of(linear, 2)
    for baseline in ("mean", "silence", "twin"):
        exact = linear.exact(view, baseline)
        for name in ("integrated-gradients", "deeplift", "gradient-shap"):
            assert close(values(name, view, baseline=baseline), exact), name
    exact = linear.exact(view)  # the mean is zero on the tap
    assert close(values("input-x-gradient", view), exact)
    assert close(values("lrp", view), exact, 1e-4)
    references = linear.weight * (view.inputs - view.references.mean(0, keepdim=True))[:, 0]
    assert close(values("deeplift-shap", view), references)


def test_gradients_of_a_linear_countermeasure_are_its_weights():
    linear = toys.LinearCM()
    view = toys.view_of(linear, 2)
    for name in ("saliency", "smoothgrad"):
        assert close(values(name, view), linear.weight.abs().expand(2, -1, -1), 1e-4), name
    assert float(values("vargrad", view).max()) < 1e-9
    for name in ("guided-backprop", "deconvolution"):
        with pytest.raises(Unsupported, match="plain gradient"):
            METHODS[name](view)


@pytest.mark.parametrize("name", ["occlusion", "feature-ablation", "shapley-sampling", "kernel-shap"])
@pytest.mark.parametrize("size", [(4, 4), (2, 1), (3, 126)])
def test_patches_get_the_exact_sum_of_their_cells_on_a_linear_countermeasure(name, size):
    linear = toys.LinearCM()
    view = toys.view_of(linear, 2)
    height, width = (-(-cells // parts) for cells, parts in zip(toys.SHAPE, size, strict=True))
    options = {"bands": size[0], "spans": size[1]} | ({"samples": 500} if name == "kernel-shap" else {})
    numbers = patches(toys.SHAPE, height, width).flatten()
    exact = linear.exact(view, "silence").flatten(1)
    sums = torch.zeros(2, int(numbers.max()) + 1).index_add(1, numbers, exact)
    spread = (sums / numbers.bincount())[:, numbers].unflatten(1, toys.SHAPE)
    assert close(values(name, view, baseline="silence", **options), spread, 1e-3)


def test_lime_finds_the_patches_of_a_linear_countermeasure():
    linear = toys.LinearCM()
    view = toys.view_of(linear, 1)
    exact = values("feature-ablation", view, bands=3, spans=3)
    found = values("lime", view, bands=3, spans=3, samples=500)
    # 500 samples of weight about 0.5 to 0.9 against a ridge of 1: shrunk a little, by the same factor
    assert torch.corrcoef(torch.stack([exact.flatten(), found.flatten()]))[0, 1] > 0.999
    assert 0.9 < float(found.norm() / exact.norm()) < 1


def test_occlusion_is_ablation_of_the_same_patches(cm):
    view = toys.view_of(cm, 2)
    size = {"bands": 4, "spans": 4}  # 9 x 32 cells: divides neither 33 nor 126
    assert close(values("occlusion", view, **size), values("feature-ablation", view, **size))


def test_each_single_permutation_is_complete(cm):
    view = toys.view_of(cm, 1)
    start = view.score(view.fill("twin"))
    for seed in range(5):
        map_ = values("shapley-sampling", replace(view, seed=seed), permutations=1, baseline="twin")
        assert gap(view, map_, start) < 1e-4


def test_a_patch_value_is_spread_and_not_copied(cm):
    view = toys.view_of(cm, 1)
    numbers = patches(toys.SHAPE, 5, 26)  # 8 bands, 5 spans
    with torch.no_grad(), view.seeded():
        copied = ShapleyValueSampling(view.model).attribute(
            view.inputs, view.fill("mean"), target=0, feature_mask=numbers[None, None], n_samples=2
        )[0, 0]
    spread = values("shapley-sampling", view)[0]
    assert close(spread * numbers.flatten().bincount()[numbers], copied)


def test_patches_have_a_size(cm):
    with pytest.raises(XaibenchError, match="0 bands x 5 spans"):
        values("occlusion", toys.view_of(cm, 1), bands=0, spans=5)


# What captum gets wrong on these networks


def test_deeplift_on_the_max_form_is_wrong_so_the_swap_matters(cm):
    view = toys.view_of(cm, 3)
    start = view.score(view.fill("silence"))

    def explain(model: nn.Module) -> Tensor:
        method = CorrectedDeepLift(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return evidence(method.attribute(view.inputs.clone(), view.fill("silence"), target=0))

    assert gap(view, explain(view.private_model()), start) > 0.1
    with deeplift_form(view.private_model()) as model:
        assert gap(view, explain(model), start) < 1e-4


def test_guided_backprop_on_the_max_form_is_the_plain_gradient(cm):
    view = toys.view_of(cm, 2)
    signed = evidence(gradients.Saliency(view.model).attribute(gradients.leaf(view.inputs), target=0, abs=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        untouched = gradients.GuidedBackprop(view.private_model()).attribute(gradients.leaf(view.inputs), target=0)
    assert close(evidence(untouched), signed)
    assert not close(values("guided-backprop", view), signed, 1e-2)
    assert not close(values("deconvolution", view), signed, 1e-2)
    assert not close(values("deconvolution", view), values("guided-backprop", view), 1e-2)


def plain(kind: type[DeepLift], view: View, baseline: Tensor) -> Tensor:
    """captum's own class on the ReLU form, without our corrections."""
    with deeplift_form(view.private_model()) as model, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return evidence(kind(model).attribute(gradients.leaf(view.inputs), baseline, target=0))


def test_pooled_cells_that_agree_with_the_reference_keep_their_own_gradient():
    """captum issue 1276. The two rows of a column add to zero difference at the pool; the ReLU is off for utterance 0
    and on for utterance 1, so contributions are 0, 0 and +0.5, -0.5."""
    model = nn.Sequential(
        nn.Conv2d(1, 1, (2, 1)), nn.MaxPool2d((1, 2)), nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1, 1)
    )
    with torch.no_grad():
        model[0].weight.fill_(1.0), model[0].bias.zero_()
        model[2].weight.fill_(1.0), model[2].bias.zero_()
        model[5].weight.fill_(1.0), model[5].bias.zero_()
    baseline = torch.tensor([[[[-1.0, -3.0], [-1.0, -3.0]]], [[[1.0, 0.0], [1.0, 0.0]]]])
    inputs = baseline + torch.tensor([[0.5, 0.0], [-0.5, 0.0]])
    view = small_view(model, inputs, baseline)
    expected = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[0.5, 0.0], [-0.5, 0.0]]])
    assert torch.allclose(values("deeplift", view), expected)
    assert not torch.allclose(plain(DeepLift, view, baseline), expected)  # else the correction can go


def relu_then_pool() -> tuple[nn.Module, Tensor, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), MaxFeatureMap(),
            nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 2 * 4, 1),
        )  # fmt: skip
        return model, torch.randn(3, 1, 12, 20), torch.randn(3, 1, 12, 20)


def test_adjacent_modules_see_the_changed_gradient():
    """captum issue 1104: ReLU before max-pool and max-pool before ReLU, and a Max-Feature-Map right before a pool."""
    model, inputs, baseline = relu_then_pool()
    view = small_view(model, inputs, baseline)
    assert gap(view, values("deeplift", view), view.score(baseline)) < 1e-5
    assert gap(view, plain(DeepLift, view, baseline), view.score(baseline)) > 1e-2  # else the correction can go
    for i, one in enumerate(view.each()):
        assert close(values("deeplift", one)[0], values("deeplift", view)[i])


def test_deepshap_is_captums_where_captum_is_right(cm):
    view = toys.view_of(cm, 2)
    assert close(values("deeplift-shap", view), plain(DeepLiftShap, view, view.references))


def test_deepshap_needs_references(cm):
    view = replace(toys.view_of(cm, 1), references=torch.zeros(0, 1, *toys.SHAPE))
    with pytest.raises(Unsupported, match="references"):
        METHODS["deeplift-shap"](view)


def test_nothing_is_attributed_to_an_input_that_is_its_baseline(cm):
    view = toys.view_of(cm, 2)
    view = replace(view, inputs=view.fill("twin").clone())
    for name in ("deeplift", "integrated-gradients", "gradient-shap", "occlusion", "shapley-sampling"):
        assert float(values(name, view, baseline="twin").abs().max()) < 1e-8, name  # scores are rounded at about 1e-7


def test_lrp_names_the_layer_without_a_rule():
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2), nn.GELU(), nn.Linear(2, 1))
    with pytest.raises(Unsupported, match=r"GELU.*'2'"):
        METHODS["lrp"](small_view(model, torch.ones(1, 1, 2, 3), torch.zeros(1, 1, 2, 3)))


def test_modules_of_the_package_are_those_of_its_entry_points():
    offered = {id(method) for method in METHODS.values()}
    for module in (gradients, deeplift, lrp, perturbation):
        assert {id(v) for v in vars(module).values() if isinstance(v, Attributor)} <= offered


def test_twin_ig_sums_to_the_difference_of_the_halves_and_is_exact_on_a_linear_countermeasure():
    view = toys.view_of(toys.ConvCM(), 3)
    map_ = values("twin-ig", view, steps=200)
    wanted = view.score(view.inputs) - view.score(view.fill("twin"))
    torch.testing.assert_close(map_.sum((1, 2)), wanted, rtol=2e-2, atol=2e-2 * float(wanted.abs().max()))
    linear = toys.LinearCM()
    view = toys.view_of(linear, 3)
    torch.testing.assert_close(values("twin-ig", view, steps=2), linear.exact(view, "twin"), rtol=1e-4, atol=1e-6)
    assert METHODS["twin-ig"].complete and "twin" in METHODS["twin-ig"].needs
