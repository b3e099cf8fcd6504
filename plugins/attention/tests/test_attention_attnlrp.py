"""attnlrp: a slow twin written from the paper's equations, conservation, zennit's gamma, what it refuses, and state."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from attentive import Attention, FrontCM, Head, all_at, by_content
from torch import Tensor, nn
from xaibench_attention.attnlrp import attnlrp
from xaibench_attention.rules import Rules
from xaibench_countermeasures import ssl_res1d, tca

from xaibench.backward import quicken
from xaibench.errors import Unsupported
from xaibench.grid import Grid
from xaibench.metrics.again import opposite
from xaibench.testing import checks_of
from xaibench.testing.toys import GRID, SHAPE, AttentionToy, ConvToy, view_of
from xaibench.view import SpoofLogOdds, View
from xaibench.weights import load_weights

EPSILON_RULE = attnlrp.with_options(conv_gamma=0.0, linear_gamma=0.0)


@checks_of("attributor", "attnlrp")
def test_contract(check) -> None:
    check()


def close(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> bool:
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max())


def view_on(model: nn.Module, inputs: Tensor) -> View:
    """A view of a model and tensors of one's own, to `SpoofLogOdds`."""
    stages = OrderedDict(backend=model, contrast=SpoofLogOdds(("spoof", "bonafide")).to(inputs))
    return replace(view_of(AttentionToy()), model=nn.Sequential(stages).eval(), inputs=inputs)


# ---- the slow twin ---------------------------------------------------------------------------------------------------


class Layer(nn.Module):
    """Pre-norm self-attention and a feed-forward part, on `(B, n, D)`."""

    def __init__(self, dimension: int, heads: int, *, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = (nn.LayerNorm(dimension, bias=bias) for _ in range(2))
        self.query, self.key, self.value, self.out = (nn.Linear(dimension, dimension, bias=bias) for _ in range(4))
        self.up, self.down = nn.Linear(dimension, 5, bias=bias), nn.Linear(5, dimension, bias=bias)
        self.gelu = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        seen = self.norm_1(x)
        query, key, value = (
            layer(seen).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        weights = (query @ key.transpose(2, 3) / math.sqrt(query.shape[3])).softmax(-1)
        x = x + self.out((weights @ value).transpose(1, 2).flatten(2))
        return x + self.down(self.gelu(self.up(self.norm_2(x))))


class TwoLayers(nn.Module):
    """Two such layers over the columns of a tap `(B, 1, D, n)`, their mean, and two logits."""

    def __init__(self, dimension: int = 4, heads: int = 2, *, bias: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(dimension, heads, bias=bias) for _ in range(2))
        self.classify = nn.Linear(dimension, 2, bias=bias)

    def forward(self, tap: Tensor) -> Tensor:
        x = tap[:, 0].transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return self.classify(x.mean(1))


class Twin:
    """AttnLRP of `TwoLayers` and the difference of its logits, one number at a time: R of every tensor, not a gradient.

    `lost` gathers the relevance that biases and softmax's constants took.
    """

    def __init__(self, model: TwoLayers, *, gamma: float = 0.0) -> None:
        self.model, self.gamma, self.lost = model, gamma, 0.0

    def __call__(self, frames: list[list[float]]) -> tuple[float, list[list[float]]]:
        """Score and R of frames `[n][D]`."""
        x, ways = frames, []
        for layer in self.model.layers:
            x, way = self.layer(layer, x)
            ways.append(way)
        n, size = len(x), len(x[0])
        mean = [sum(x[t][d] for t in range(n)) / n for d in range(size)]
        logits, back_classify = self.linear(self.model.classify, mean)
        score, back_score = self.sum_of([logits[0]], [-logits[1]])
        first, second = back_score([score[0]])
        below = back_classify([first[0], second[0]])
        above = [[self.share(x[t][d] / n, mean[d], below[d]) for d in range(size)] for t in range(n)]
        for way in reversed(ways):
            above = way(above)
        return score[0], above

    @staticmethod
    def share(part: float, whole: float, relevance: float) -> float:
        return part / whole * relevance

    def linear(self, layer: nn.Linear, x: list[float]):
        """Eq. 8, and generalised gamma: an output's terms of its own sign count 1 + gamma times."""
        weight, bias = layer.weight.tolist(), [0.0] * layer.out_features if layer.bias is None else layer.bias.tolist()
        z = [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]

        def favoured(term: float, output: float) -> float:
            return term * (1 + self.gamma) if term * output > 0 else term

        def back(above: list[float]) -> list[float]:
            below = [0.0] * len(x)
            for j, row in enumerate(weight):
                terms = [favoured(w * v, z[j]) for w, v in zip(row, x, strict=True)]
                of_bias = favoured(bias[j], z[j])
                whole = sum(terms) + of_bias
                below = [r + self.share(term, whole, above[j]) for r, term in zip(below, terms, strict=True)]
                self.lost += self.share(of_bias, whole, above[j])
            return below

        return z, back

    def sum_of(self, a: list[float], b: list[float]):
        whole = [p + q for p, q in zip(a, b, strict=True)]

        def back(above: list[float]):
            return tuple([self.share(p, w, r) for p, w, r in zip(part, whole, above, strict=True)] for part in (a, b))

        return whole, back

    def norm(self, layer: nn.LayerNorm, x: list[float]):
        """Minus the mean (linear, Eq. 8), then by a constant (Prop. 3.4), then scale and shift."""
        n = len(x)
        centred = [v - sum(x) / n for v in x]
        deviation = math.sqrt(sum(v * v for v in centred) / n + layer.eps)
        scaled = [v / deviation * w for v, w in zip(centred, layer.weight.tolist(), strict=True)]
        bias = [0.0] * n if layer.bias is None else layer.bias.tolist()
        y = [v + b for v, b in zip(scaled, bias, strict=True)]

        def back(above: list[float]) -> list[float]:
            kept = [self.share(s, v, r) for s, v, r in zip(scaled, y, above, strict=True)]
            self.lost += sum(above) - sum(kept)
            below = [0.0] * n
            for j in range(n):
                for i in range(n):
                    below[i] += self.share(x[i] * ((i == j) - 1 / n), centred[j], kept[j])
            return below

        return y, back

    def attend(self, query: list, key: list, value: list):
        """One head, `[n][d]` each: scores and answers are products (Prop. 3.3), softmax Prop. 3.1."""
        n, d = len(query), len(query[0])
        scores = [
            [sum(q * k for q, k in zip(query[i], key[j], strict=True)) / math.sqrt(d) for j in range(n)] for i in range(n)
        ]
        weights = []
        for row in scores:
            powers = [math.exp(s) for s in row]
            weights.append([p / sum(powers) for p in powers])
        answer = [[sum(weights[i][j] * value[j][p] for j in range(n)) for p in range(d)] for i in range(n)]

        def back(above: list):
            of_weights = [[0.0] * n for _ in range(n)]
            of_query, of_key, of_value = ([[0.0] * d for _ in range(n)] for _ in range(3))
            for i in range(n):
                for j in range(n):
                    for p in range(d):
                        half = weights[i][j] * value[j][p] / (2 * answer[i][p]) * above[i][p]
                        of_weights[i][j] += half
                        of_value[j][p] += half
            for i in range(n):
                total = sum(of_weights[i])
                of_scores = [scores[i][j] * (of_weights[i][j] - weights[i][j] * total) for j in range(n)]
                self.lost += total - sum(of_scores)
                for j in range(n):
                    for p in range(d):
                        half = query[i][p] * key[j][p] / math.sqrt(d) / (2 * scores[i][j]) * of_scores[j]
                        of_query[i][p] += half
                        of_key[j][p] += half
            return of_query, of_key, of_value

        return answer, back

    def layer(self, layer: Layer, x: list):
        n, size, heads = len(x), len(x[0]), layer.heads
        d = size // heads
        normed, back_norm = zip(*(self.norm(layer.norm_1, row) for row in x), strict=True)
        streams = [list(zip(*(self.linear(part, row) for row in normed), strict=True)) for part in
                   (layer.query, layer.key, layer.value)]  # fmt: skip
        headed = [[[row[h * d : (h + 1) * d] for row in values] for values, _ in streams] for h in range(heads)]
        answers, backs_attend = zip(*(self.attend(*parts) for parts in headed), strict=True)
        joined = [[v for h in range(heads) for v in answers[h][t]] for t in range(n)]
        out, back_out = zip(*(self.linear(layer.out, row) for row in joined), strict=True)
        middle, back_first = zip(*(self.sum_of(a, b) for a, b in zip(x, out, strict=True)), strict=True)
        again, back_norm_2 = zip(*(self.norm(layer.norm_2, row) for row in middle), strict=True)
        hidden, back_up = zip(*(self.linear(layer.up, row) for row in again), strict=True)
        active = [[0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in row] for row in hidden]
        down, back_down = zip(*(self.linear(layer.down, row) for row in active), strict=True)
        result, back_second = zip(*(self.sum_of(a, b) for a, b in zip(middle, down, strict=True)), strict=True)

        def back(above: list) -> list:
            of_middle = []
            for t in range(n):
                past, through = back_second[t](above[t])
                through = back_norm_2[t](back_up[t](back_down[t](through)))  # GELU passes R on (Eq. 9)
                of_middle.append([a + b for a, b in zip(past, through, strict=True)])
            split = [back_first[t](of_middle[t]) for t in range(n)]
            of_joined = [back_out[t](split[t][1]) for t in range(n)]
            of_streams = [[[0.0] * size for _ in range(n)] for _ in range(3)]
            for h in range(heads):
                found = backs_attend[h]([row[h * d : (h + 1) * d] for row in of_joined])
                for stream, part in zip(of_streams, found, strict=True):
                    for t in range(n):
                        stream[t][h * d : (h + 1) * d] = part[t]
            below = []
            for t in range(n):
                parts = [streams[s][1][t](of_streams[s][t]) for s in range(3)]
                through = back_norm[t]([sum(column) for column in zip(*parts, strict=True)])
                below.append([a + b for a, b in zip(split[t][0], through, strict=True)])
            return below

        return result, back


def two_layers(*, bias: bool) -> TwoLayers:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = TwoLayers(bias=bias).double()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                nn.init.normal_(parameter, mean=0.5)
    return model.eval()


TAP = torch.randn(2, 1, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("bias", [True, False], ids=["biases", "none"])
@pytest.mark.parametrize("gamma", [0.0, 0.3], ids=["epsilon", "gamma"])
def test_a_two_layer_transformer_agrees_with_the_slow_twin(bias: bool, gamma: float) -> None:
    model = two_layers(bias=bias)
    view = view_on(model, TAP)
    # The difference of the logits is a linear layer too, and the twin takes it by the epsilon rule: so does this.
    view.model.contrast.linear = Difference()
    values = attnlrp.with_options(linear_gamma=gamma, epsilon=1e-14)(view).values
    for row in range(len(TAP)):
        twin = Twin(model, gamma=gamma)
        score, relevance = twin(TAP[row, 0].T.tolist())
        assert score == pytest.approx(float(view.score(TAP)[row]), rel=1e-9)
        assert close(values[row].T, torch.tensor(relevance, dtype=torch.float64), 1e-6)
        assert float(values[row].sum()) + twin.lost == pytest.approx(score, rel=1e-6), "what is not lost is conserved"


class Difference(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return logits[:, :1] - logits[:, 1:]


# ---- conservation ----------------------------------------------------------------------------------------------------


class Dense(nn.Module):
    """Residual, normalised, gated, with every kind of rule but softmax's, and without biases."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.first, self.gate, self.value = (nn.Linear(6, 6, bias=False) for _ in range(3))
            self.conv = nn.Conv2d(1, 3, (1, 3), padding=(0, 1), bias=False)
            self.norm = nn.LayerNorm(6, bias=False)
            self.last = nn.Linear(6, 2, bias=False)

    def forward(self, tap: Tensor) -> Tensor:
        x = torch.relu(self.conv(tap)).mean(1).transpose(1, 2)
        x = x + nn.functional.gelu(self.first(self.norm(x)))
        x = x + torch.tanh(self.gate(x)) * self.value(x)
        x = nn.functional.normalize(x, dim=2) * x.std(1, keepdim=True)
        return self.last(x.mean(1))


@pytest.mark.parametrize("gammas", [(0.0, 0.0), (10.0, 0.1)], ids=["epsilon", "gamma"])
def test_without_biases_and_softmax_relevance_sums_to_the_score(gammas: tuple[float, float]) -> None:
    view = view_on(Dense().double(), torch.randn(3, 1, 6, 9, generator=torch.Generator().manual_seed(1)).double())
    method = attnlrp.with_options(conv_gamma=gammas[0], linear_gamma=gammas[1], epsilon=1e-12)
    assert torch.allclose(method(view).values.sum((1, 2)), view.score(view.inputs), rtol=1e-6)


class Looks(nn.Module):
    """One attention layer and a linear head, on frames."""

    def __init__(self, scores: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.attend, self.head = Attention(scores), Head()

    def forward(self, tap: Tensor) -> Tensor:
        return self.head(self.attend(tap[:, 0].transpose(1, 2)).mean(1).transpose(1, 2).unsqueeze(2))


def test_attention_to_one_frame_puts_all_relevance_there() -> None:
    tap = torch.randn(2, 1, SHAPE[0], 9, generator=torch.Generator().manual_seed(4))
    view = view_on(Looks(all_at(5)), tap)
    values = EPSILON_RULE(view).values
    head = view.model.backend.head.linear.weight
    assert torch.allclose(values[:, :, 5], tap[:, 0, :, 5] * (head[0] - head[1]), atol=1e-5)
    assert torch.allclose(values.sum((1, 2)), view.score(tap), rtol=1e-4)
    values[:, :, 5] = 0
    assert not values.any()


# ---- single rules ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.25, 10.0])
@pytest.mark.parametrize("layer", ["linear", "convolution"])
def test_a_linear_layer_agrees_with_zennit(layer: str, gamma: float) -> None:
    """zennit's rules hand down R; ours its quotient by x."""
    rules = pytest.importorskip("zennit.rules")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        module = nn.Linear(7, 4) if layer == "linear" else nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=1)
        x = torch.randn(2, 7) if layer == "linear" else torch.randn(2, 3, 6, 5)
    module.double().requires_grad_(False)
    x = x.double().requires_grad_()
    with Rules(epsilon=1e-6, conv_gamma=gamma, linear_gamma=gamma):
        z = module(x)
    above = torch.randn(z.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (g,) = torch.autograd.grad(z, x, above)
    hook = rules.Gamma(gamma) if gamma else rules.Epsilon()
    handle = hook.register(module)
    (expected,) = torch.autograd.grad(module(x), x, above * z.detach())
    handle.remove()
    assert close((g * x).detach(), expected, 1e-9)


def rule_of(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    with Rules():
        y = f(x)
    with torch.no_grad():
        assert torch.equal(y, f(x.clone())), "a rule changes no value"
    return torch.autograd.grad(y.sum(), x)[0]


def test_each_element_s_function_passes_on_what_it_gives_less_its_value_at_zero() -> None:
    x = torch.tensor([-2.0, -0.5, 0.0, 0.7, 3.0])
    assert torch.allclose(rule_of(torch.tanh, x) * x, torch.tanh(x))
    assert torch.allclose(rule_of(torch.sigmoid, x) * x, torch.sigmoid(x) - 0.5, atol=1e-6)
    assert torch.allclose(rule_of(nn.functional.gelu, x)[2], torch.tensor(0.5), atol=1e-3), "the slope at 0"
    assert torch.allclose(rule_of(lambda v: nn.functional.leaky_relu(v, 0.1, inplace=True), x)[1], torch.tensor(0.1))
    assert torch.allclose(rule_of(lambda v: (v + 5).log(), x) * (x + 5), (x + 5).log()), "no value at zero"


def test_products_share_and_sizes_are_constants() -> None:
    x = torch.tensor([3.0, 4.0])
    assert torch.equal(rule_of(lambda v: v * v, x), x), "half of each factor's gradient"
    assert torch.equal(rule_of(lambda v: v[:1] @ v[1:], x), torch.tensor([2.0, 1.5]))
    assert torch.allclose(rule_of(lambda v: v / v.norm(), x), torch.full((2,), 0.2))
    assert torch.allclose(rule_of(lambda v: nn.functional.normalize(v, dim=0), x), torch.full((2,), 0.2))
    assert torch.allclose(rule_of(lambda v: v * v.square().mean().rsqrt(), x), torch.full((2,), 12.5**-0.5))
    assert torch.allclose(rule_of(lambda v: nn.functional.glu(v, 0), x)[0], torch.sigmoid(torch.tensor(4.0)) / 2)


def test_group_normalisation_and_batch_normalisation_keep_their_values() -> None:
    x = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(8))
    for norm in (nn.GroupNorm(3, 6), nn.BatchNorm1d(6), nn.RMSNorm(5), nn.LayerNorm((6, 5))):
        norm = norm.eval().requires_grad_(False)
        for name, tensor in norm.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=torch.Generator().manual_seed(len(name))) + 0.5)
        at = x.clone().requires_grad_()
        with Rules():
            y = norm(at)
        assert torch.allclose(y, norm(x), atol=1e-5)
        (g,) = torch.autograd.grad(y.sum(), at)
        assert g.isfinite().all()


# ---- where relevance stops -------------------------------------------------------------------------------------------


def test_a_tap_of_log_power_has_the_same_map_on_both_routes() -> None:
    """On the grid relevance stops at the spectrogram, on its own axes."""
    cm = AttentionToy()
    native, grid = (attnlrp(view_of(cm, route=route)) for route in ("native", "grid"))
    assert grid.frequency == GRID.frequency and grid.time == GRID.time(1_600)
    assert grid.resolves == {"time", "frequency"} and native.values.shape == (3, *SHAPE)
    assert close(grid.values, native.values, 1e-3)


def test_relevance_passes_through_a_transformer_in_front_of_the_tap_on_the_grid_route_alone() -> None:
    cm = FrontCM(by_content)
    native, grid = (EPSILON_RULE(view_of(cm, route=route)) for route in ("native", "grid"))
    assert native.values.shape == (3, 1, SHAPE[1]) and native.resolves == {"time"}
    assert grid.values.shape == (3, *SHAPE) and grid.resolves == {"time", "frequency"}
    view = view_of(cm)
    assert torch.allclose(native.values.sum((1, 2)), view.score(view.inputs), rtol=1e-3)


class Past(nn.Module):
    def __init__(self, frontend: nn.Module) -> None:
        super().__init__()
        self.frontend = frontend

    def forward(self, waveform: Tensor) -> Tensor:
        return self.frontend(waveform) * (1 + waveform.square().mean())


def test_a_model_that_hears_past_its_spectrogram_is_refused() -> None:
    cm = AttentionToy()
    cm.frontend = Past(cm.frontend)
    with pytest.raises(Unsupported, match="past its spectrogram"):
        attnlrp(view_of(cm, route="grid"))


def test_a_quickened_convolution_keeps_its_rule() -> None:
    """`quicken`, which the harness applies, hides a convolution of one channel from torch's modes."""
    view = view_of(ConvToy())
    values = attnlrp(view).values
    quicken(view.model)
    assert close(attnlrp(view).values, values, 1e-5)
    assert not close(EPSILON_RULE(view).values, values, 0.1), "gamma makes a difference here"


# ---- what is refused -------------------------------------------------------------------------------------------------


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        return 2 * g


class Then(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.lstm = nn.LSTM(1, 2, batch_first=True)

    def forward(self, tap: Tensor) -> Tensor:
        return self.function(self, tap.mean((1, 2)))[:, :2]


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda self, x: torch.special.gammaln(x.abs() + 1), "'special_gammaln'"),
        (lambda self, x: self.lstm(x.unsqueeze(2))[0][:, -1], "'lstm'"),
        (lambda self, x: Double.apply(x), "autograd function Double"),
        (lambda self, x: (x + 0).tanh_(), "'tanh' in place"),
        (lambda self, x: nn.functional.linear(x, x), "weights depend on the recording"),
        (lambda self, x: x.abs() ** x, "'pow'"),
    ],
    ids=["unknown", "recurrent", "own autograd function", "in place", "weights", "power"],
)
def test_a_function_without_a_rule_is_refused_by_name(function: Callable, named: str) -> None:
    with pytest.raises(Unsupported, match=named):
        attnlrp(view_on(Then(function), torch.randn(2, 1, 3, 4)))


def test_a_countermeasure_without_a_transformer_is_refused_with_the_reason() -> None:
    with pytest.raises(Unsupported, match=r"attention \(self-attention layers that the countermeasure names\)"):
        view_of(ConvToy()).require(attnlrp.needs, "attnlrp")


# ---- state -----------------------------------------------------------------------------------------------------------


def test_explaining_bona_fide_turns_the_sign_of_the_epsilon_rule_and_changes_gamma_s() -> None:
    view = view_of(AttentionToy())
    assert close(EPSILON_RULE(opposite(view)).values, -EPSILON_RULE(view).values)
    change = attnlrp(opposite(view)).values - attnlrp(view).values
    assert float(change.abs().max()) > 0.1 * float(attnlrp(view).values.abs().max())


def test_a_batch_equals_its_utterances_in_any_order() -> None:
    view = view_of(AttentionToy())
    together = attnlrp(view).values
    apart = torch.cat([attnlrp(one).values for one in view.each()])
    assert close(together, apart) and close(attnlrp(view.select([2, 0, 1])).values, apart[[2, 0, 1]])


def test_everything_is_as_before_also_after_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of(AttentionToy(), route="grid")
    weights = {n: t.clone() for n, t in view.model.state_dict().items()}
    within = []

    def fail(self: nn.Module, logits: Tensor) -> Tensor:
        within.append(len(torch.overrides._get_current_function_mode_stack()))
        raise RuntimeError("out of memory")

    attnlrp(view)
    monkeypatch.setattr(SpoofLogOdds, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        attnlrp(view)
    assert within == [1] and not torch.overrides._get_current_function_mode_stack()
    assert torch.backends.mha.get_fastpath_enabled() and torch.is_grad_enabled()
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in view.model.modules()) == 0
    assert all(torch.equal(weights[n], t) for n, t in view.model.state_dict().items())
    assert all(p.grad is None for p in view.model.parameters()) and not view.inputs.requires_grad


@pytest.mark.parametrize("recipe", [tca.recipe, ssl_res1d.recipe], ids=lambda r: r.name)
@pytest.mark.parametrize(("route", "shape"), [("native", (1, 101)), ("grid", (257, 201))], ids=["native", "grid"])
def test_the_shipped_countermeasures_are_explained(recipe, route: str, shape: tuple[int, int]) -> None:
    """Every function in them has a rule: three classes, gates, cosines, statistics."""
    cm = recipe.untrained(seed=0)
    load_weights(cm, recipe.shipped())
    values = attnlrp(view_of(cm.eval(), rows=(0, 1), route=route, grid=Grid())).values
    assert values.shape == (2, *shape) and values.isfinite().all() and (values.flatten(1).std(1) > 0).all()
