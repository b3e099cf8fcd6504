"""The record of passes: right numbers, believed only where nothing has changed, and written to by nobody."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from toys import ConvCM, view_of

from xaibench import registry
from xaibench.errors import XaibenchError
from xaibench.harness.guard import private_tensors
from xaibench.layers import MaxFeatureMap
from xaibench.metrics.again import opposite, redraw, shifted
from xaibench.passes import Count, Passes, count_passes
from xaibench.view import View

FAMILY = ("grad-cam", "grad-cam++", "hirescam", "xgrad-cam", "layer-cam", "eigen-cam", "eigen-grad-cam", "finer-cam")
READERS = ("saliency", "input-x-gradient", *FAMILY)


def recorded(count: int = 3, *, route: str = "native", together: bool = False, batch_size: int = 2) -> View:
    view = view_of(ConvCM(), count, route=route, batch_size=batch_size)
    return replace(view, passes=Passes.of(view, together=together))


def literal(view: View, name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-odds, gradient at the inputs, activation and gradient of a layer: one utterance at a time, with torch alone."""
    rows = []
    for one in view.each():
        seen, model = [], copy.deepcopy(view.model)
        model.get_submodule(name).register_forward_hook(lambda m, i, output, seen=seen: seen.append(output))
        x = one.inputs.clone().requires_grad_()
        score = model(x)[:, 0]
        rows.append((score.detach(), *torch.autograd.grad(score.sum(), (x, seen[0])), seen[0].detach()))
    score, at_inputs, at_layer, activation = (torch.cat(column) for column in zip(*rows, strict=True))
    return score, at_inputs, activation, at_layer


@pytest.mark.parametrize("route", ["native", "grid"])
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("layer", [0, -1])
def test_a_record_holds_what_torch_gives_one_by_one(route, together, layer):
    view = recorded(route=route, together=together)
    name = view.layers[layer]
    score, at_inputs, activation, at_layer = literal(view, name)
    seen = view.passes.layer(name, view.batch_size)
    close = {"rtol": 1e-4, "atol": 1e-6 * float(at_inputs.abs().max())}
    assert torch.allclose(seen.score, score, atol=1e-5)
    assert torch.allclose(seen.activation, activation, atol=1e-5)
    assert torch.allclose(seen.gradient, at_layer, rtol=1e-4, atol=1e-7)
    assert torch.allclose(view.passes.gradient(view.batch_size), at_inputs, **close)
    alone = view.passes.layer(name, view.batch_size, alone=True)
    assert torch.equal(alone.activation, activation) and torch.equal(alone.gradient, at_layer)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_the_methods_maps_are_those_they_make_themselves(together, batch_size):
    view = recorded(together=together, batch_size=batch_size)
    for name in READERS:
        method = registry.load("attributors", name)
        own = method(replace(view, passes=None)).values
        assert own.abs().max() > 0
        assert torch.allclose(method(private_tensors(view)).values, own, rtol=1e-6, atol=1e-6 * float(own.abs().max()))


@pytest.mark.parametrize("together", [False, True])
def test_passes_are_made_once_for_all_methods_and_counted(together):
    view = recorded(together=together)
    with count_passes(view.model) as apart:
        for name in READERS:
            registry.load("attributors", name)(replace(view, passes=None))
    with count_passes(view.model) as shared:
        for name in READERS:
            registry.load("attributors", name)(private_tensors(view))
    assert apart == Count(30, 27)  # ten methods, three utterances; eigen-cam goes forwards only
    passes = 2 if together else 3  # grad-cam++ and xgrad-cam go one by one; the gradient at the inputs apart or together
    assert shared == view.passes.made == Count(3 * passes, 3 * passes)
    assert view.passes.saved == Count(apart.forwards - shared.forwards, apart.backwards - shared.backwards)


def test_methods_that_ask_the_model_again_keep_their_own_passes():
    view = recorded()
    for name in ("score-cam", "ablation-cam", "shapley-cam", "fullgrad", "integrated-gradients", "guided-backprop"):
        method = registry.load("attributors", name)
        assert torch.equal(method(view).values, method(replace(view, passes=None)).values)
    assert view.passes.given == view.passes.made == Count()


def randomised(view: View) -> View:
    model = copy.deepcopy(view.model)
    redraw(model.backend, 1.0, 0)
    return replace(view, model=model)


CHANGES = {
    "selected": lambda v: v.select([2, 0]),
    "reordered": lambda v: v.select([1, 0, 2]),
    "opposite": opposite,
    "shifted": lambda v: shifted(v, 1.0),
    "randomised": randomised,
    "copied": lambda v: replace(v, model=v.private_model()),
    "one cell louder": lambda v: replace(v, inputs=v.inputs.index_put((torch.tensor(0),) * 4, v.inputs.max() + 1)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_record_does_not_hold_for_another_view(name):
    view = recorded()
    view.passes.gradient(2)
    other = CHANGES[name](view)
    assert other.passes is view.passes and not view.passes.holds(other.model, other.inputs)
    for method in (registry.load("attributors", n) for n in ("input-x-gradient", "grad-cam")):
        assert torch.equal(method(other).values, method(replace(other, passes=None)).values)


def _step(model: nn.Module) -> None:
    with torch.no_grad():
        next(model.parameters()).add_(0.5)


def _data(model: nn.Module) -> None:
    weight = next(model.parameters())
    weight.data = weight.data + 0.5


TOUCHES = {
    "weight": _step,
    "data": _data,
    "buffer": lambda model: next(model.buffers()).add_(1.0),
    "mode": lambda model: model.backend.train(),
    "module": lambda model: model.backend.__setitem__(1, nn.Identity()),
    "hook": lambda model: model.backend[0].register_forward_hook(lambda m, i, output: 2 * output),
}


@pytest.mark.parametrize("name", TOUCHES)
def test_a_touched_model_makes_the_record_void(name):
    view = recorded()
    view.passes.gradient(2)
    assert view.passes.holds(view.model, view.inputs)
    TOUCHES[name](view.model)
    assert not view.passes.holds(view.model, view.inputs)


def test_inputs_written_to_in_place_make_the_record_void():
    view = recorded()
    view.inputs[0, 0, 3, 5] += 1.0
    assert not view.passes.holds(view.model, view.inputs)
    assert not view.passes.holds(view.model, view.inputs.double())


def test_what_a_method_writes_no_other_sees():
    view = recorded()
    name = view.layers[-1]
    before = [view.passes.gradient(2), *vars(view.passes.layer(name, 2)).values()]
    view.passes.gradient(2).zero_()
    for tensor in vars(view.passes.layer(name, 2)).values():
        tensor.fill_(torch.nan)
    after = [view.passes.gradient(2), *vars(view.passes.layer(name, 2)).values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("together", [False, True])
def test_the_shared_model_is_left_alone(together):
    view = recorded(together=together)
    hooks = [len(m._forward_hooks) for m in view.model.modules()]
    with torch.no_grad():  # as eigen-cam asks
        view.passes.layer(view.layers[-1], 2)
    view.passes.gradient(2)
    assert [len(m._forward_hooks) for m in view.model.modules()] == hooks
    assert all(p.grad is None and p.requires_grad for p in view.model.backend.parameters())
    assert view.passes.holds(view.model, view.inputs)


def test_a_copy_shares_the_record_only_of_a_view_that_is_the_records():
    view = recorded()
    model = view.private_model()
    under = view.passes.under(view, model)
    assert under.holds(model, view.inputs) and not under.holds(view.model, view.inputs)
    assert torch.equal(under.gradient(2), view.passes.gradient(2)) and view.passes.made == Count(3, 3)
    other = opposite(view)
    assert other.passes.under(other, other.private_model()) is None


def test_a_layer_that_works_in_place_afterwards_is_recorded_before_it():
    view = view_of(ConvCM(), 2)
    view.model.backend[2] = nn.Sequential(nn.ReLU(inplace=True), view.model.backend[2])
    name = view.layers[0]
    for together in (False, True):
        view = replace(view, layers=(name,), passes=Passes.of(view, together=together))
        seen = view.passes.layer(name, 2)
        assert (seen.activation < 0).any()
        assert (seen.gradient[seen.activation < 0] == 0).all() and (seen.gradient != 0).any()


def test_a_layer_that_runs_twice_is_named():
    view, twice = view_of(ConvCM(), 2), MaxFeatureMap()
    end = nn.Linear(2 * view.shape[0] * view.shape[1], 1)
    view = replace(view, model=nn.Sequential(nn.Conv2d(1, 8, 1), twice, twice, nn.Flatten(), end).eval())
    with pytest.raises(XaibenchError, match="layer '1' ran 2 times"):
        Passes.of(view).layer("1", 2)


# Counting


def test_a_count_sees_copies_negations_and_passes_that_stop_at_a_layer():
    view = view_of(ConvCM(), 3)
    with count_passes(view.model) as count:
        view.score(view.inputs)
        view.private_model()(view.inputs)
        opposite(view).score(view.inputs)
        assert count == Count(9, 0)
        registry.load("attributors", "grad-cam")(view)
        assert count == Count(12, 3)
        registry.load("attributors", "saliency")(view)
        assert count == Count(15, 6)
    view.score(view.inputs)
    assert count == Count(15, 6)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in view.model.modules())


def test_counting_does_not_make_a_record_void():
    view = recorded()
    with count_passes(view.model):
        assert view.passes.holds(view.model, view.inputs)
    assert view.passes.holds(view.model, view.inputs)
