"""attention-rollout and gatr: known answers, slow twins, routes, and a countermeasure left as it was."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import entry_points

import pytest
import torch
from attentive import FrontCM, all_at, by_content
from torch import Tensor, nn
from xaibench_attention.maps import attention_rollout, gatr, relevancies, rollout
from xaibench_attention.weights import Layer, attention
from xaibench_countermeasures import ssl_res1d, tca

from xaibench.errors import PluginError, Unsupported
from xaibench.grid import Grid
from xaibench.metrics.again import opposite, shifted
from xaibench.protocols import Attributor
from xaibench.testing import checks_of
from xaibench.testing.toys import GRID, SHAPE, AttentionToy, ConvToy, view_of
from xaibench.types import Axis
from xaibench.weights import load_weights

METHODS = {"attention-rollout": attention_rollout, "gatr": gatr}
FRAMES = SHAPE[1]  # 51
TOYS = {"in front of the tap": lambda: FrontCM(by_content), "behind it": AttentionToy}


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Attributor:
    return METHODS[request.param]


@checks_of("attributor", "attention-rollout")
def test_contract_of_attention_rollout(check) -> None:
    check()


@checks_of("attributor", "gatr")
def test_contract_of_gatr(check) -> None:
    check()


def test_the_entry_points_lead_to_the_methods() -> None:
    found = {e.name: e.load() for e in entry_points(group="xaibench.attributors") if e.name in METHODS}
    assert found == METHODS


# ---- known answers -------------------------------------------------------------------------------------------------


def test_rollout_of_a_layer_that_looks_at_one_frame() -> None:
    """Half of every row is the residual connection: 0.5 / n everywhere, and 0.5 more at the frame."""
    values = attention_rollout(view_of(FrontCM(all_at(7)))).values
    expected = torch.full((3, 1, FRAMES), 0.5 / FRAMES)
    expected[..., 7] += 0.5
    assert torch.allclose(values, expected, atol=1e-6)


@pytest.mark.parametrize("identity", [False, True])
@pytest.mark.parametrize("frame", [7, 30])
def test_gatr_of_a_layer_that_looks_at_one_frame(frame: int, identity: bool) -> None:
    """Attention A is 1 at frame k, and s = mean_t A_tj v_j for v_j the head's answer to frame j; so ds/dA_tj = v_j / n.

    Every query has the same gradient, so rows are averaged evenly: (v_k)+ / n at k; with the identity 1 / n more everywhere.
    """
    cm = FrontCM(all_at(frame))
    view = view_of(cm, rows=range(6))
    head = cm.backend.linear.weight
    frames = cm.frontend.spectrum(view.recordings)[:, 0]  # (B, 33, 51)
    answer = frames[:, :, frame] @ (head[0] - head[1])
    assert 0 < int((answer > 0).sum()) < 6, "utterances of either sign"
    expected = torch.full((6, 1, FRAMES), identity / FRAMES)
    expected[:, 0, frame] += answer.clamp_min(0) / FRAMES
    assert torch.allclose(gatr.with_options(identity=identity)(view).values, expected, rtol=1e-4, atol=1e-6)


# ---- slow twins ----------------------------------------------------------------------------------------------------


def slow_rollout(layers: list[list], n: int, fuse) -> list[list[float]]:
    """Abnar and Zuidema 2020, Eq. 1, one number at a time. `layers[l][h][i][j]`."""
    result = [[float(i == j) for j in range(n)] for i in range(n)]
    for heads in layers:
        mixed = []
        for i in range(n):
            row = [0.5 * fuse([h[i][j] for h in heads]) + 0.5 * (i == j) for j in range(n)]
            mixed.append([v / sum(row) for v in row])
        result = [[sum(mixed[i][k] * result[k][j] for k in range(n)) for j in range(n)] for i in range(n)]
    return result


@pytest.mark.parametrize(
    ("heads", "fuse"), [("mean", lambda v: sum(v) / len(v)), ("max", max), ("min", min)], ids=["mean", "max", "min"]
)
def test_rollout_agrees_with_a_slow_twin(heads: str, fuse) -> None:
    view = view_of(AttentionToy(), rows=(0,))
    (layers,) = attention(view, gradients=False)
    slow = torch.tensor(slow_rollout([layer.weights[0].double().tolist() for layer in layers], FRAMES, fuse))
    values = attention_rollout.with_options(heads=heads)(view).values[0, 0]
    assert len(layers) == 2 and layers[0].weights.shape == (1, 2, FRAMES, FRAMES)
    assert torch.allclose(values, slow.mean(0), atol=1e-6)
    assert values.std() > 1e-4, "not even"


def slow_relevancies(layers: list[tuple[list, list]], n: int) -> list[list[float]]:
    """Chefer et al. 2021, Eq. 5-6, one number at a time. A layer is its weights and gradients `[h][i][j]`."""
    relevancy = [[float(i == j) for j in range(n)] for i in range(n)]
    for weights, gradients in layers:
        heads = len(weights)
        gathered = [
            [sum(max(0.0, gradients[h][i][j] * weights[h][i][j]) for h in range(heads)) / heads for j in range(n)]
            for i in range(n)
        ]
        added = [[sum(gathered[i][k] * relevancy[k][j] for k in range(n)) for j in range(n)] for i in range(n)]
        relevancy = [[relevancy[i][j] + added[i][j] for j in range(n)] for i in range(n)]
    return relevancy


@pytest.mark.parametrize("identity", [False, True])
@pytest.mark.parametrize("queries", ["gradient", "uniform"])
def test_gatr_agrees_with_a_slow_twin(queries: str, identity: bool) -> None:
    view = view_of(AttentionToy(), rows=(1,))
    (layers,) = attention(view, gradients=True)
    numbers = [(layer.weights[0].double().tolist(), layer.gradient[0].double().tolist()) for layer in layers]
    rows = slow_relevancies(numbers, FRAMES)
    share = [1.0] * FRAMES
    if queries == "gradient":
        share = [sum(max(0.0, g) for h in numbers[-1][1] for g in h[i]) for i in range(FRAMES)]
    for i in range(FRAMES):
        rows[i][i] -= not identity
    slow = [sum(share[i] * rows[i][j] for i in range(FRAMES)) / sum(share) for j in range(FRAMES)]
    values = gatr.with_options(queries=queries, identity=identity)(view).values[0, 0]
    assert torch.allclose(values, torch.tensor(slow), rtol=1e-4, atol=1e-7)


def test_the_gradient_of_attention_is_the_score_s_slope() -> None:
    """By finite differences: the toy adds a nudge to its weights, behind the softmax that is watched."""
    cm = FrontCM(by_content).double()
    view = view_of(cm, rows=(0,))
    view.whole().double()
    view = replace(view, inputs=view.inputs.double(), recordings=view.recordings.double())
    (layers,) = attention(view, gradients=True)
    for head, query, key in [(0, 3, 9), (1, 20, 0), (1, 50, 50)]:
        scores = []
        for size in (1e-4, -1e-4):
            nudge = torch.zeros_like(layers[0].weights)
            nudge[0, head, query, key] = size
            cm.frontend.attend.nudge = nudge
            scores.append(view.model(cm.frontend(view.recordings)).item())
        slope = (scores[0] - scores[1]) / 2e-4
        assert slope == pytest.approx(float(layers[0].gradient[0, head, query, key]), rel=1e-4, abs=1e-9)


def test_one_layer_s_map_is_in_units_of_the_score() -> None:
    """Not so with the identity, whose size is 1 whatever the score's."""
    view = view_of(FrontCM(by_content))
    scaled = replace(view, model=view.private_model())
    with torch.no_grad():
        scaled.model.contrast.linear.weight.mul_(50)
    assert torch.allclose(50 * gatr(view).values, gatr(scaled).values, rtol=1e-4)
    with_identity = gatr.with_options(identity=True)
    assert not torch.allclose(50 * with_identity(view).values, with_identity(scaled).values, rtol=0.1)


def test_a_layer_that_the_score_does_not_hear_adds_nothing() -> None:
    even = torch.full((2, 1, 5, 5), 0.2)
    deaf = [Layer("a", even, torch.zeros(2, 1, 5, 5))]
    assert torch.equal(relevancies(deaf), torch.eye(5).expand(2, 5, 5))
    assert torch.allclose(rollout([even[:, 0]]).sum(2), torch.ones(2, 5))


# ---- axes and routes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("toy", TOYS)
def test_a_map_is_of_time_alone_on_the_tokens_own_axes(method: Attributor, toy: str) -> None:
    result = method(view_of(TOYS[toy]()))
    assert result.values.shape == (3, 1, FRAMES) and result.resolves == {"time"}
    assert result.time == GRID.time(1_600) and result.frequency.edges.tolist() == [0.0, 8_000.0]
    assert result.values.isfinite().all() and (result.values >= 0).all() and not result.values.requires_grad
    assert (result.values.flatten(1).std(1) > 0).all()


@pytest.mark.parametrize("toy", TOYS)
def test_both_routes_give_the_same_map(method: Attributor, toy: str) -> None:
    cm = TOYS[toy]()
    native, grid = (method(view_of(cm, route=route)).values for route in ("native", "grid"))
    assert torch.allclose(native, grid, rtol=1e-3, atol=1e-6)


def test_tokens_of_time_and_frequency_resolve_both(method: Attributor) -> None:
    """51 tokens as 3 bands of 17 times: time runs fastest."""
    cm = AttentionToy()
    cm.attention_axes = Axis("frequency", [0, 1_000, 3_000, 8_000]), Axis("time", torch.linspace(0, 0.1, 18).numpy())
    result, flat = method(view_of(cm)), method(view_of(AttentionToy())).values
    assert result.resolves == {"time", "frequency"} and result.values.shape == (3, 3, 17)
    assert torch.equal(result.values[:, 1, 2], flat[:, 0, 17 + 2])


def test_what_is_explained_is_the_view_not_the_recording_alone() -> None:
    """A shifted tensor, and a negated score: the way from the recording leads to the view's own values."""
    view = view_of(FrontCM(by_content))
    assert torch.allclose(gatr(shifted(view, 3.0)).values, gatr(view).values, rtol=1e-3)
    other = gatr(opposite(view)).values
    assert float((other - gatr(view).values).abs().max()) > 0.01 * float(other.max()), "evidence for bona fide differs"
    assert torch.equal(attention_rollout(opposite(view)).values, attention_rollout(view).values)
    assert gatr.class_specific and not attention_rollout.class_specific


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_a_countermeasure_without_a_transformer_is_refused_with_the_reason(method: Attributor) -> None:
    with pytest.raises(Unsupported, match=r"attention \(self-attention layers that the countermeasure names\)"):
        view_of(ConvToy()).require(method.needs, method.name)


def test_tokens_that_do_not_fit_their_axes(method: Attributor) -> None:
    cm = AttentionToy()
    cm.attention_axes = Axis("frequency", [0, 8_000]), Axis("time", torch.linspace(0, 0.1, 51).numpy())
    with pytest.raises(Unsupported, match=r"51 tokens .* 1 x 50 = 50 cells; is there a class token"):
        method(view_of(cm))


class Named(AttentionToy):
    attentions = property(lambda self: {"embed": self.backend.embed})


def test_a_layer_that_shows_no_weights(method: Attributor) -> None:
    with pytest.raises(Unsupported, match=r"layer model\.backend\.embed showed no weights"):
        method(view_of(Named()))


def test_an_unknown_option_names_those_there_are() -> None:
    with pytest.raises(PluginError, match="mean, max, min, got 'median'"):
        attention_rollout.with_options(heads="median")(view_of(AttentionToy()))
    with pytest.raises(PluginError, match="gradient, uniform, got 'median'"):
        gatr.with_options(queries="median")(view_of(AttentionToy()))


# ---- state ---------------------------------------------------------------------------------------------------------


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


def modes() -> int:
    return len(torch.overrides._get_current_function_mode_stack())


@pytest.mark.parametrize("toy", TOYS)
def test_a_batch_equals_its_utterances_in_any_order(method: Attributor, toy: str) -> None:
    view = view_of(TOYS[toy]())
    together = method(view).values
    apart = torch.cat([method(one).values for one in view.each()])
    assert torch.allclose(together, apart, rtol=1e-3, atol=1e-7)
    assert torch.allclose(method(view.select([2, 0, 1])).values, apart[[2, 0, 1]], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("toy", TOYS)
def test_everything_is_as_before_also_after_an_exception(
    method: Attributor, toy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = view_of(TOYS[toy]())
    weights = {n: t.clone() for n, t in view.whole().state_dict().items()}
    wants = [p.requires_grad for p in view.whole().parameters()]
    inputs, within = view.inputs.clone(), []

    def fail(self: nn.Module, logits: Tensor) -> Tensor:
        within.append(modes())
        raise RuntimeError("out of memory")

    fast = torch.backends.mha.get_fastpath_enabled()
    method(view)
    monkeypatch.setattr(type(view.model.contrast), "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        method(view)
    assert within == [1] and modes() == 0, "the mode was on, and is off"
    assert torch.backends.mha.get_fastpath_enabled() == fast and torch.is_grad_enabled()
    assert hooks(view.whole()) == 0 and not any(m.training for m in view.model.modules())
    assert all(torch.equal(weights[n], t) for n, t in view.whole().state_dict().items())
    assert [p.requires_grad for p in view.whole().parameters()] == wants
    assert all(p.grad is None for p in view.whole().parameters())
    assert torch.equal(view.inputs, inputs) and not view.inputs.requires_grad


# ---- real countermeasures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [tca.recipe, ssl_res1d.recipe], ids=lambda r: r.name)
@pytest.mark.parametrize("route", ["native", "grid"])
def test_the_shipped_countermeasures_are_explained_on_20_ms_frames(method: Attributor, recipe, route: str) -> None:
    cm = recipe.untrained(seed=0)
    load_weights(cm, recipe.shipped())
    view = view_of(cm.eval(), rows=(0, 1), route=route, grid=Grid())
    result = method(view)
    assert result.values.shape == (2, 1, 101) and result.time == cm.axes[1]
    assert result.values.isfinite().all() and (result.values.flatten(1).std(1) > 0).all()
