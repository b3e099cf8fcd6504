"""Class activation maps: the contract for each of the twelve, twins written from the papers, and each correction.

The toy is a small untrained Max-Feature-Map network on a 33 x 51 tap, with a seed that gives log-odds of either sign.
"""

from __future__ import annotations

import copy
import gc
import warnings
import weakref
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn import functional
from xaibench_gradcam import methods
from xaibench_gradcam.corrected import MAX_POSITIONS

from xaibench.errors import Unsupported, XaibenchError
from xaibench.frontends import LogPower
from xaibench.grid import Grid
from xaibench.layers import MaxFeatureMap
from xaibench.protocols import Attributor
from xaibench.types import Axis
from xaibench.view import View, grid_view, native_view

GRID = Grid(n_fft=64, hop=32)
N_SAMPLES = 1_600
SHAPE = GRID.shape(N_SAMPLES)  # (33, 51)

NAMES = {
    "grad-cam": methods.grad_cam,
    "grad-cam++": methods.grad_cam_plus_plus,
    "hirescam": methods.hirescam,
    "xgrad-cam": methods.xgrad_cam,
    "layer-cam": methods.layer_cam,
    "eigen-cam": methods.eigen_cam,
    "eigen-grad-cam": methods.eigen_grad_cam,
    "score-cam": methods.score_cam,
    "ablation-cam": methods.ablation_cam,
    "fullgrad": methods.fullgrad,
    "finer-cam": methods.finer_cam,
    "shapley-cam": methods.shapley_cam,
}
every = pytest.mark.parametrize("method", NAMES.values(), ids=NAMES.keys())


class Toy(nn.Module):
    """33 x 51 tap; the last named layer has 6 channels of 16 x 25 and activations of either sign."""

    sample_rate, n_samples, classes = GRID.sample_rate, N_SAMPLES, ("spoof", "bonafide")
    axes = GRID.frequency, GRID.time(N_SAMPLES)
    mean_tap = torch.zeros(1, 1, SHAPE[0], 1)

    def __init__(self, *, seed: int = 17, tail: nn.Module | None = None) -> None:
        super().__init__()
        self.frontend = LogPower(GRID)
        self.frontend.fit(waveforms(4, seed=9))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.backend = nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1), MaxFeatureMap(), nn.MaxPool2d(2), nn.BatchNorm2d(4),
                nn.Conv2d(4, 12, 3, padding=1), MaxFeatureMap(), tail or nn.MaxPool2d(2),
                nn.Flatten(), nn.Dropout(0.5), nn.LazyLinear(2),
            )  # fmt: skip
            self.backend(torch.randn(4, 1, *SHAPE))  # makes the lazy layer, moves the running statistics
        self.eval().requires_grad_(True)

    @property
    def layers(self) -> dict[str, nn.Module]:
        return {"mfm_1": self.backend[1], "mfm_2": self.backend[5]}


def waveforms(count: int, *, seed: int) -> Tensor:
    """Noise `(count, N_SAMPLES)`, each utterance with a tone of its own."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(N_SAMPLES) / GRID.sample_rate
    tones = torch.stack([torch.sin(2 * torch.pi * (700 + 900 * i) * time) for i in range(count)])
    return 0.05 * torch.randn(count, N_SAMPLES, generator=generator) + 0.1 * tones


def toy_view(count: int = 3, *, route: str = "native", cm: Toy | None = None, batch_size: int = 8) -> View:
    ids = [f"{i}/toy" for i in range(count)]
    waves = waveforms(count, seed=1), waveforms(count, seed=2), waveforms(2, seed=3), ids
    if route == "grid":
        return grid_view(cm or Toy(), *waves, grid=GRID, batch_size=batch_size)
    return native_view(cm or Toy(), *waves, batch_size=batch_size)


def plain_view(model: nn.Module, inputs: Tensor, layers: tuple[str, ...]) -> View:
    """A view of any model `(B, C, F, T) -> (B, 1)`."""
    return View(
        route="native", model=model.eval(), inputs=inputs,
        axes=(Axis("frequency", np.arange(inputs.shape[2] + 1.0)), Axis("time", np.arange(inputs.shape[3] + 1.0))),
        fills={}, references=inputs[:1], layers=layers, ids=tuple(str(i) for i in range(len(inputs))),
        offers=frozenset({"gradients", "layers"}),
    )  # fmt: skip


class Negated(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return -self.model(x)


def negated(view: View) -> View:
    return replace(view, model=Negated(view.model), layers=tuple(f"model.{name}" for name in view.layers))


# ---- the contract, for every method ---------------------------------------------------------------------------------------


def test_every_method_is_an_entry_point_of_its_name() -> None:
    found = {e.name: e for e in entry_points(group="xaibench.attributors") if e.value.startswith("xaibench_gradcam.")}
    assert set(found) == set(NAMES)
    for name, method in NAMES.items():
        assert found[name].load() is method
        assert isinstance(method, Attributor) and method.name == name and method.paper


@every
@pytest.mark.parametrize("route", ["native", "grid"])
def test_a_map_has_the_shape_of_the_input_and_lies_between_0_and_1(method: Attributor, route: str) -> None:
    view = toy_view(route=route)
    attribution = method(view)
    assert attribution.values.shape == (3, *SHAPE) and attribution.values.dtype == view.inputs.dtype
    assert (attribution.frequency, attribution.time) == view.axes
    assert attribution.values.isfinite().all()
    assert attribution.values.min() >= 0 and attribution.values.max() <= 1
    assert (attribution.values.amax((1, 2)) > 0.99).all(), "a row without a map of its own"


@every
def test_a_batch_is_its_utterances_one_by_one(method: Attributor) -> None:
    view = toy_view(5, batch_size=3)
    alone = torch.cat([method(one).values for one in view.each()])
    torch.testing.assert_close(method(view).values, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method(replace(view, batch_size=1)).values, alone, rtol=1e-4, atol=1e-5)
    assert (alone[0] - alone[1]).abs().max() > 0.1, "all utterances alike: the comparison would be empty"


@every
def test_the_same_call_gives_the_same_map(method: Attributor) -> None:
    view = toy_view()
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert torch.equal(method(view).values, method(view).values)
    assert torch.equal(torch.get_rng_state(), before[0]) and (np.random.get_state()[1] == before[1]).all()


def state(view: View) -> list[object]:
    facts: list[object] = [view.inputs.requires_grad, view.inputs.grad, view.inputs._version]
    for module in view.model.modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
        facts += [id(module), type(module), module.training, *map(len, hooks)]
    for parameter in view.model.parameters():
        facts += [parameter.requires_grad, parameter.grad, parameter._version]
    return facts


@every
@pytest.mark.parametrize("frozen", [False, True])
def test_the_shared_model_is_left_as_it_was(method: Attributor, frozen: bool) -> None:
    view = toy_view()
    view.model.requires_grad_(not frozen)
    weights = {name: tensor.clone() for name, tensor in view.model.state_dict().items()}
    inputs, before = view.inputs.clone(), state(view)
    method(view)
    assert state(view) == before
    assert torch.equal(view.inputs, inputs)
    for name, tensor in view.model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


@every
def test_frozen_weights_and_no_grad_do_not_change_a_map(method: Attributor) -> None:
    view = toy_view()
    expected = method(view).values
    view.model.requires_grad_(False)
    with torch.no_grad():
        torch.testing.assert_close(method(view).values, expected)


@every
def test_nothing_is_printed_and_nothing_is_warned(method: Attributor, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method(toy_view())
    assert capfd.readouterr() == ("", "")


@every
def test_twenty_calls_leave_no_model_and_no_hook_behind(method: Attributor, monkeypatch: pytest.MonkeyPatch) -> None:
    for library_class in (pytorch_grad_cam.base_cam.BaseCAM, pytorch_grad_cam.FinerCAM):
        monkeypatch.delattr(library_class, "__del__")  # it releases hooks when it gets round to it; we must have before
    copies = []

    def private_model(view: View) -> nn.Module:
        model = copy.deepcopy(view.model)
        copies.append(weakref.ref(model))
        return model

    monkeypatch.setattr(View, "private_model", private_model)
    view = toy_view(1)
    gc.disable()  # on an accelerator memory would wait for the collector, so reference counts must do
    try:
        for _ in range(20):
            method(view)
        assert len(copies) == 20 and all(model() is None for model in copies)
    finally:
        gc.enable()
    assert not any(m._forward_hooks or m._backward_hooks for m in view.model.modules())


@every
def test_a_view_without_layers_is_unsupported(method: Attributor) -> None:
    view = toy_view()
    bare = replace(view, layers=(), offers=view.offers - {"layers"})
    with pytest.raises(Unsupported, match="layers"):
        bare.require(method.needs, method.name)


@every
def test_only_methods_that_say_so_are_blind_to_the_sign_of_the_score(method: Attributor) -> None:
    view = toy_view()
    change = (method(view).values - method(negated(view)).values).abs().amax((1, 2))
    if method.class_specific:
        assert (change > 0.05).all()
    else:
        torch.testing.assert_close(change, torch.zeros(3), atol=1e-6, rtol=0)
    assert method.signed is False


@every
def test_layer_is_checked_and_last_means_nearest_to_the_output(method: Attributor) -> None:
    view = toy_view(1)
    if method is methods.fullgrad:
        assert "layer" not in method.options  # it takes all layers with a bias
        return
    assert torch.equal(method(view).values, method.with_options(layer="backend.5")(view).values)
    assert not torch.equal(method(view).values, method.with_options(layer="backend.1")(view).values)
    for wrong in ("backend.4", "mfm_2", ""):
        with pytest.raises(XaibenchError, match=r"backend\.1, backend\.5"):
            method.with_options(layer=wrong)(view)
    with pytest.raises(XaibenchError, match="names no layers"):
        method(replace(view, layers=()))


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise IndexError("from within the model")


@every
def test_an_error_passes_through_in_full(method: Attributor, capfd: pytest.CaptureFixture[str]) -> None:
    view = toy_view(1)
    broken = nn.Sequential(view.model, Broken())
    view = replace(view, model=broken, layers=tuple(f"0.{name}" for name in view.layers))
    before = state(view)
    with pytest.raises(IndexError, match="from within the model"):
        method(view)
    assert state(view) == before
    assert capfd.readouterr() == ("", "")


# ---- twins: literal, one utterance, one layer ----------------------------------------------------------------------------


def cut(view: View) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Activation of the toy's last layer `(1, C, F', T')`, and the rest of the network up to the score `()`."""
    backend, contrast = view.model.backend, view.model.contrast
    activation = backend[:6](view.inputs).detach()
    return activation, lambda a: contrast(backend[6:](a))[0, 0]


def gradient(view: View) -> tuple[Tensor, Tensor]:
    activation, rest = cut(view)
    activation = activation.requires_grad_()
    return activation.detach()[0], torch.autograd.grad(rest(activation), activation)[0][0]


def drawn(coarse: Tensor) -> Tensor:
    """ReLU, [0, 1], bilinear to the input's size, [0, 1]. Shape: `(F', T')` -> `(F, T)`."""
    coarse = coarse.relu()
    coarse = (coarse - coarse.min()) / (coarse.max() - coarse.min())
    fine = functional.interpolate(coarse[None, None], size=SHAPE, mode="bilinear", align_corners=False)[0, 0]
    return (fine - fine.min()) / (fine.max() - fine.min())


def twin_grad_cam(view: View) -> Tensor:
    """Selvaraju et al., Eq. 1: weights are gradients averaged over positions; Eq. 2: ReLU of the weighted sum."""
    a, g = gradient(view)
    channels, rows, columns = a.shape
    coarse = torch.zeros(rows, columns)
    for k in range(channels):
        weight = sum(g[k, i, j] for i in range(rows) for j in range(columns)) / (rows * columns)
        coarse += weight * a[k]
    return drawn(coarse)


def twin_hirescam(view: View) -> Tensor:
    a, g = gradient(view)
    return drawn(sum(g[k] * a[k] for k in range(len(a))))


def twin_layer_cam(view: View) -> Tensor:
    a, g = gradient(view)
    return drawn(sum(g[k].clamp(min=0) * a[k] for k in range(len(a))))


def twin_xgrad_cam(view: View) -> Tensor:
    a, g = gradient(view)
    return drawn(sum((a[k] / a[k].sum() * g[k]).sum() * a[k] for k in range(len(a))))


def twin_eigen(channels: Tensor) -> Tensor:
    points = channels.flatten(1).T.double()
    points = points - points.mean(0)
    direction = torch.linalg.eigh(points.T @ points).eigenvectors[:, -1]
    projection = points @ direction
    if (projection * points.sum(1)).sum() < 0:
        projection = -projection
    return drawn(projection.reshape(channels.shape[1:]).float())


def twin_eigen_cam(view: View) -> Tensor:
    return twin_eigen(gradient(view)[0])


def twin_eigen_grad_cam(view: View) -> Tensor:
    a, g = gradient(view)
    return twin_eigen(g * a)


def twin_score_cam(view: View) -> Tensor:
    a = cut(view)[0][0]
    scores = []
    for channel in a:
        mask = functional.interpolate(channel[None, None], size=SHAPE, mode="bilinear", align_corners=True)
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        scores.append(view.model(view.inputs * mask)[0, 0].detach() - view.model(0 * view.inputs)[0, 0].detach())
    weights = torch.stack(scores).softmax(0)
    return drawn(sum(w * channel for w, channel in zip(weights, a, strict=True)))


def twin_ablation_cam(view: View) -> Tensor:
    a, rest = cut(view)
    score, coarse = rest(a).detach(), torch.zeros(a.shape[2:])
    for k in range(a.shape[1]):
        without = a.clone()
        without[0, k] = 0
        coarse += (score - rest(without).detach()) / score.abs() * a[0, k]
    return drawn(coarse)


TWINS = {
    "grad-cam": twin_grad_cam,
    "finer-cam": twin_grad_cam,
    "hirescam": twin_hirescam,
    "layer-cam": twin_layer_cam,
    "xgrad-cam": twin_xgrad_cam,
    "eigen-cam": twin_eigen_cam,
    "eigen-grad-cam": twin_eigen_grad_cam,
    "score-cam": twin_score_cam,
    "ablation-cam": twin_ablation_cam,
}


@pytest.mark.parametrize("name", TWINS)
def test_a_map_equals_its_literal_twin(name: str) -> None:
    view = toy_view(3)
    scores = view.score(view.inputs)
    assert scores.min() < 0 < scores.max(), "the toy should score on both sides of zero"
    expected = torch.stack([TWINS[name](one) for one in view.each()])
    tolerance = 1e-4 if "eigen" in name or name == "xgrad-cam" else 1e-5
    torch.testing.assert_close(NAMES[name](view).values, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("tail", [nn.MaxPool2d(2), nn.Tanh()], ids=["piecewise-linear", "smooth"])
def test_shapley_cam_is_grad_cam_unless_what_follows_is_smooth(tail: nn.Module) -> None:
    view = toy_view(2, cm=Toy(tail=tail))
    maps = []
    for one in view.each():
        a, rest = cut(one)
        product = torch.autograd.functional.hvp(lambda x, rest=rest: rest(x), a, a)[1][0]
        weights = (gradient(one)[1] - product / 2).mean((1, 2))
        maps.append(drawn((weights[:, None, None] * a[0]).sum(0)))
    torch.testing.assert_close(methods.shapley_cam(view).values, torch.stack(maps), atol=1e-4, rtol=0)
    same = torch.allclose(methods.shapley_cam(view).values, methods.grad_cam(view).values, atol=1e-5)
    assert same == isinstance(tail, nn.MaxPool2d)


def test_shapley_cam_bears_a_layer_with_nothing_but_a_linear_layer_after_it() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Flatten(), nn.Linear(3 * 6 * 9, 1)).requires_grad_(False)
    view = plain_view(model, torch.rand(2, 1, 6, 9), ("0",))  # a constant gradient, and a view of the linear layer's
    torch.testing.assert_close(methods.shapley_cam(view).values, methods.grad_cam(view).values)


def test_fullgrad_is_the_sum_over_inputs_and_biases() -> None:
    def up(maps: Tensor) -> Tensor:
        """|.|, each channel to [0, 1], bilinear, summed over channels. Shape: `(C, F', T')` -> `(F, T)`."""
        maps = maps.abs() - maps.abs().amin((1, 2), keepdim=True)
        maps = maps / (maps.amax((1, 2), keepdim=True) + 1e-7)
        return functional.interpolate(maps[None], size=SHAPE, mode="bilinear", align_corners=False)[0].sum(0)

    view = toy_view(1)
    backend, norm = view.model.backend, view.model.backend[3]
    x = view.inputs.clone().requires_grad_()
    first = backend[0](x)
    normed = norm(backend[1:3](first))
    second = backend[4](normed)
    score = view.model.contrast(backend[5:](second)).sum()
    by_input, by_first, by_norm, by_second = torch.autograd.grad(score, [x, first, normed, second])
    shift = norm.bias - norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt()
    expected = up((x * by_input)[0].detach())
    for bias, by_layer in ((backend[0].bias, by_first), (shift, by_norm), (backend[4].bias, by_second)):
        expected = expected + up((bias[:, None, None] * by_layer[0]).detach())
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    torch.testing.assert_close(methods.fullgrad(view).values[0], expected, atol=1e-5, rtol=0)


STOCK = {
    "grad-cam": "GradCAM",
    "grad-cam++": "GradCAMPlusPlus",
    "hirescam": "HiResCAM",
    "xgrad-cam": "XGradCAM",
    "layer-cam": "LayerCAM",
    "score-cam": "ScoreCAM",
    "shapley-cam": "ShapleyCAM",
    "fullgrad": "FullGrad",
}


@pytest.mark.parametrize("name", STOCK)
def test_where_nothing_is_corrected_the_map_is_the_library_s_own(name: str) -> None:
    view = toy_view(1)
    model = view.private_model()
    layers = [] if name == "fullgrad" else [model.backend[5]]
    cam = getattr(pytorch_grad_cam, STOCK[name])(model, layers)
    expected = cam(view.inputs.clone(), [ClassifierOutputTarget(0)])
    torch.testing.assert_close(NAMES[name](view).values, torch.from_numpy(expected), atol=1e-5, rtol=0)


# ---- orientation ---------------------------------------------------------------------------------------------------------


def blob_view() -> View:
    """24 x 60, two equal blobs: rows 4-7, columns 44-47 speak for spoof; rows 16-19, columns 8-11 against it."""
    rectify = nn.Conv2d(1, 2, 3, padding=1, bias=False)
    readout = nn.Linear(12 * 30, 1, bias=False)
    with torch.no_grad():
        rectify.weight.zero_()
        rectify.weight[0] = 1 / 9  # the second channel stays 0, so that the maximum of both is a ReLU
        readout.weight.zero_()
        readout.weight.view(12, 30)[:, 15:] = 1.0
        readout.weight.view(12, 30)[:, :15] = -0.5
    model = nn.Sequential(rectify, MaxFeatureMap(), nn.AvgPool2d(2), nn.Flatten(), readout)
    inputs = torch.zeros(1, 1, 24, 60)
    inputs[..., 4:8, 44:48] = 1.0
    inputs[..., 16:20, 8:12] = 1.0
    return plain_view(model, inputs, ("1",))


@pytest.mark.parametrize("name", ["grad-cam", "hirescam", "layer-cam", "ablation-cam"])
def test_a_planted_blob_is_found_where_it_is(name: str) -> None:
    values = NAMES[name](blob_view()).values[0]
    inside = torch.zeros(24, 60, dtype=torch.bool)
    inside[3:9, 43:49] = True
    row, column = divmod(int(values.argmax()), 60)
    assert inside[row, column]
    if name in ("hirescam", "layer-cam"):  # the others weigh channels, not positions: they show both blobs
        assert values[~inside].max() == 0
    else:
        assert values[17, 9] > 0.9


# ---- the corrections -----------------------------------------------------------------------------------------------------


def test_ablation_cam_does_not_turn_around_when_the_score_is_negative() -> None:
    view = toy_view(1)
    shifted = nn.Sequential(view.model, nn.Linear(1, 1))
    with torch.no_grad():
        shifted[1].weight.fill_(1.0)
        shifted[1].bias.fill_(-100.0)
    below = replace(view, model=shifted, layers=tuple(f"0.{name}" for name in view.layers))
    assert below.score(below.inputs).item() < -90
    # A constant offset changes every weight by the same positive factor, hence no map; float32 near 100 costs digits.
    torch.testing.assert_close(methods.ablation_cam(below).values, methods.ablation_cam(view).values, atol=2e-3, rtol=0)


@pytest.mark.parametrize("score", [-30.0, 0.0, 15.0, 20.0, 30.0])
def test_finer_cam_holds_at_any_log_odds(score: float) -> None:
    view = toy_view(1)
    offset = nn.Sequential(view.model, nn.Linear(1, 1))
    with torch.no_grad():
        offset[1].weight.fill_(1.0)
        offset[1].bias.fill_(score - view.score(view.inputs).item())
    moved = replace(view, model=offset, layers=tuple(f"0.{name}" for name in view.layers))
    torch.testing.assert_close(methods.finer_cam(moved).values, methods.grad_cam(view).values, atol=1e-5, rtol=0)


def test_operations_in_place_after_the_layer_do_not_reach_the_recorded_activation() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 1, 12, 20, generator=generator)
    weights = [torch.randn(4, 1, 3, 3, generator=generator), torch.randn(1, 4 * 12 * 20, generator=generator)]

    def view(inplace: bool) -> View:
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.ReLU(inplace), nn.Flatten(), nn.Linear(4 * 12 * 20, 1)
        )
        with torch.no_grad():
            model[0].weight.copy_(weights[0])
            model[3].weight.copy_(weights[1])
            model[3].bias.zero_()
        return plain_view(model, inputs, ("0",))

    for method in NAMES.values():
        torch.testing.assert_close(method(view(True)).values, method(view(False)).values, msg=method.name)


@pytest.mark.parametrize("method", [methods.eigen_cam, methods.eigen_grad_cam])
def test_a_layer_too_large_for_the_library_s_svd_is_unsupported(method: Attributor) -> None:
    side = int(MAX_POSITIONS**0.5) + 1
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1))
    with pytest.raises(Unsupported, match=rf"{side} x {side} positions"):
        method(plain_view(model, torch.rand(1, 1, side, side), ("0",)))


def test_fullgrad_refuses_layers_that_run_in_another_order_than_they_are_registered() -> None:
    class Swapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second, self.first = nn.Conv2d(2, 2, 1), nn.Conv2d(1, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x)).sum((1, 2, 3), keepdim=False)[:, None]

    with pytest.raises(Unsupported, match="in the order"):
        methods.fullgrad(plain_view(Swapped(), torch.rand(1, 1, 6, 9), ("second",)))


def test_a_layer_of_one_position_has_no_map() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1))
    assert methods.grad_cam(plain_view(model, torch.rand(1, 1, 6, 9), ("1",))).values.abs().max() == 0


class Taller(nn.Module):
    """A one-row input whose layer has five rows, as a sinc front end makes them; `roll` moves them about."""

    def __init__(self, roll: int) -> None:
        super().__init__()
        self.roll = roll
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.convolution = nn.Conv2d(1, 4, (1, 3), padding=(2, 1))
            self.head = nn.Linear(4 * 5 * 40, 1)
        with torch.no_grad():
            self.rows = nn.Parameter(torch.linspace(-1, 1, 5)[:, None])
        self.layer = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        rolled = self.layer((self.convolution(x) + self.rows).relu().roll(self.roll, dims=2))
        return self.head(rolled.roll(-self.roll, dims=2).flatten(1))


@pytest.mark.parametrize("name", ["grad-cam", "grad-cam++", "hirescam", "layer-cam", "score-cam", "ablation-cam"])
def test_a_map_of_one_row_sees_every_row_of_its_layer(name):
    x = torch.randn(2, 1, 1, 40, generator=torch.Generator().manual_seed(5))
    maps = [NAMES[name](plain_view(Taller(roll), x, ("layer",))).values for roll in (0, 2)]
    assert maps[0].shape == (2, 1, 40) and bool(maps[0].any())
    torch.testing.assert_close(maps[0], maps[1], atol=1e-5, rtol=1e-4)


def test_grad_cam_of_one_row_is_the_mean_over_the_rows_of_its_layer():
    model, x = Taller(0).eval(), torch.randn(2, 1, 1, 40, generator=torch.Generator().manual_seed(5))
    kept: list[Tensor] = []
    model.layer.register_forward_hook(lambda _m, _i, out: kept.append(out))
    (gradient,) = torch.autograd.grad(model(x).sum(), kept)
    cam = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1).relu().mean(1, keepdim=True)
    cam = cam - cam.amin((1, 2), keepdim=True)
    expected = (cam / (1e-7 + cam.amax((1, 2), keepdim=True))).detach()
    found = methods.grad_cam(plain_view(Taller(0), x, ("layer",))).values
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)  # the library adds 1e-7 to a maximum of 1e-4
