"""AASIST against a twin written from the authors' code with their names, and the contract every countermeasure keeps."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from math import prod, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from xaibench_countermeasures.aasist import SIZES, Aasist, GraphPool, ResidualBlock, recipe
from xaibench_countermeasures.raw_weights import load_aasist
from xaibench_countermeasures.sinc import sinc_filters

from xaibench.errors import CheckpointError, XaibenchError
from xaibench.harness.known import load_countermeasure
from xaibench.protocols import lacking
from xaibench.scoring import bonafide_log_odds
from xaibench.view import native_view
from xaibench.weights import load_weights, save_weights, weights_hash

N_SAMPLES = 12_000  # five temporal nodes
#: config/AASIST.conf and config/AASIST-L.conf of clovaai/aasist.
CONFIGURATIONS = {
    "full": {"filts": [70, [1, 32], [32, 32], [32, 64], [64, 64]], "gat_dims": [64, 32], "pool": [0.5, 0.7, 0.5, 0.5]},
    "l": {"filts": [70, [1, 32], [32, 32], [32, 24], [24, 24]], "gat_dims": [24, 32], "pool": [0.4, 0.5, 0.7, 0.5]},
}
TEMPERATURES = [2.0, 2.0, 100.0, 100.0]


def noise(count: int = 2, n_samples: int = N_SAMPLES, *, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(count, n_samples, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------ the names and shapes of a published checkpoint


def published_shapes(variant: str) -> dict[str, tuple[int, ...]]:
    """What `state_dict()` of the authors' `Model` holds, layer by layer as in models/AASIST.py."""
    configuration = CONFIGURATIONS[variant]
    filts, (first, second) = configuration["filts"], configuration["gat_dims"]
    last = filts[-1][-1]
    shapes: dict[str, tuple[int, ...]] = {
        "pos_S": (1, 23, last), "master1": (1, 1, first), "master2": (1, 1, first),
    }  # fmt: skip

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()

    def convolution(name: str, inputs: int, outputs: int, kernel: tuple[int, int]) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs, *kernel), (outputs,)

    norm("first_bn", 1)
    for i, (inputs, outputs) in enumerate([*filts[1:5], filts[4], filts[4]]):
        if i > 0:
            norm(f"encoder.{i}.0.bn1", inputs)
        convolution(f"encoder.{i}.0.conv1", inputs, outputs, (2, 3))
        norm(f"encoder.{i}.0.bn2", outputs)
        convolution(f"encoder.{i}.0.conv2", outputs, outputs, (2, 3))
        if inputs != outputs:
            convolution(f"encoder.{i}.0.conv_downsample", inputs, outputs, (1, 3))
    for name in ("GAT_layer_S", "GAT_layer_T"):
        linear(f"{name}.att_proj", last, first)
        shapes[f"{name}.att_weight"] = (first, 1)
        linear(f"{name}.proj_with_att", last, first)
        linear(f"{name}.proj_without_att", last, first)
        norm(f"{name}.bn", first)
    for number, inputs in ((11, first), (12, second), (21, first), (22, second)):
        name = f"HtrgGAT_layer_ST{number}"
        for part in ("proj_type1", "proj_type2"):
            linear(f"{name}.{part}", inputs, inputs)
        for part in ("att_proj", "att_projM", "proj_with_att", "proj_without_att", "proj_with_attM", "proj_without_attM"):
            linear(f"{name}.{part}", inputs, second)
        for part in ("11", "22", "12", "M"):
            shapes[f"{name}.att_weight{part}"] = (second, 1)
        norm(f"{name}.bn", second)
    for name, inputs in {"S": first, "T": first, "hS1": second, "hT1": second, "hS2": second, "hT2": second}.items():
        linear(f"pool_{name}.proj", inputs, 1)
    linear("out_layer", 5 * second, 2)
    return shapes


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors of these shapes, as after some training: at its initial 0 and 1 a wrong normalisation could pass."""
    draw = torch.Generator().manual_seed(1)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            state[name] = 0.5 + 1.5 * torch.rand(shape, generator=draw)
        else:
            fan = max(prod(shape[1:]), 1) if len(shape) > 1 else 10
            state[name] = torch.randn(shape, generator=draw) / sqrt(fan if shape[-1:] != (1,) else 1)
    return state


# ------------------------------------------------------------------------------------------------- the twin, in eval mode


def twin(state: dict[str, Tensor], x: Tensor, variant: str) -> Tensor:
    """Logits of one waveform `(N,)`, nodes and pairs of nodes one by one."""
    ratios = CONFIGURATIONS[variant]["pool"]

    def linear(name: str, v: Tensor) -> Tensor:
        return F.linear(v, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, v: Tensor, dim: int) -> Tensor:
        shape = [1] * v.ndim
        shape[dim] = -1
        mean, var, weight, bias = (
            state[f"{name}.{part}"].view(shape) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (v - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def convolution(name: str, v: Tensor, padding: tuple[int, int]) -> Tensor:
        return F.conv2d(v, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)

    def attention(rows: list[Tensor], score: Callable[[int, int], Tensor], temperature: float) -> Tensor:
        """(n, n): row i is a softmax over j of what pair (i, j) scores."""
        n = len(rows)
        board = torch.stack([torch.stack([score(i, j).squeeze() for j in range(n)]) for i in range(n)])
        return torch.softmax(board / temperature, dim=1)

    def graph(name: str, nodes: Tensor, temperature: float) -> Tensor:
        def score(i: int, j: int) -> Tensor:
            return torch.tanh(linear(f"{name}.att_proj", nodes[i] * nodes[j])) @ state[f"{name}.att_weight"]

        weights = attention(list(nodes), score, temperature)
        mixed = linear(f"{name}.proj_with_att", weights @ nodes) + linear(f"{name}.proj_without_att", nodes)
        return F.selu(norm(f"{name}.bn", mixed, 1))

    def heterogeneous(name: str, t: Tensor, s: Tensor, master: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        nodes = torch.cat([linear(f"{name}.proj_type1", t), linear(f"{name}.proj_type2", s)])

        def score(i: int, j: int) -> Tensor:
            kind = {2: "11", 1: "12", 0: "22"}[(i < len(t)) + (j < len(t))]
            return torch.tanh(linear(f"{name}.att_proj", nodes[i] * nodes[j])) @ state[f"{name}.att_weight{kind}"]

        weights = attention(list(nodes), score, TEMPERATURES[2])
        told = torch.tanh(linear(f"{name}.att_projM", nodes * master)) @ state[f"{name}.att_weightM"]
        told = (torch.softmax(told / TEMPERATURES[2], dim=0) * nodes).sum(0, keepdim=True)
        master = linear(f"{name}.proj_with_attM", told) + linear(f"{name}.proj_without_attM", master)
        mixed = linear(f"{name}.proj_with_att", weights @ nodes) + linear(f"{name}.proj_without_att", nodes)
        y = F.selu(norm(f"{name}.bn", mixed, 1))
        return y[: len(t)], y[len(t) :], master

    def pool(name: str, nodes: Tensor, ratio: float) -> Tensor:
        scores = torch.sigmoid(linear(f"{name}.proj", nodes))[:, 0]
        order = sorted(range(len(nodes)), key=lambda i: -float(scores[i]))[: max(int(len(nodes) * ratio), 1)]
        return torch.stack([nodes[i] * scores[i] for i in order])

    y = F.conv1d(x[None, None], sinc_filters(70, 128, 16_000)[:, None])[None]  # (1, 1, 70, T)
    y = F.selu(norm("first_bn", F.max_pool2d(y.abs(), 3), 1))
    for i in range(6):
        block = f"encoder.{i}.0"
        out = convolution(f"{block}.conv1", y, (1, 1))
        out = convolution(f"{block}.conv2", F.selu(norm(f"{block}.bn2", out, 1)), (0, 1))
        if f"{block}.conv_downsample.weight" in state:
            y = convolution(f"{block}.conv_downsample", y, (0, 1))
        y = F.max_pool2d(out + y, (1, 3))
    e = y[0].abs()  # (C, 23, T)
    s = graph("GAT_layer_S", e.max(2).values.T + state["pos_S"][0], TEMPERATURES[0])
    t = graph("GAT_layer_T", e.max(1).values.T, TEMPERATURES[1])
    s, t = pool("pool_S", s, ratios[0]), pool("pool_T", t, ratios[1])
    branches = []
    for k in (1, 2):
        t1, s1, m1 = heterogeneous(f"HtrgGAT_layer_ST{k}1", t, s, state[f"master{k}"][0])
        s1, t1 = pool(f"pool_hS{k}", s1, ratios[2]), pool(f"pool_hT{k}", t1, ratios[2])
        t2, s2, m2 = heterogeneous(f"HtrgGAT_layer_ST{k}2", t1, s1, m1)
        branches.append((t1 + t2, s1 + s2, m1 + m2))
    t, s, m = (torch.max(a, b) for a, b in zip(*branches, strict=True))
    readout = torch.cat([t.abs().max(0).values, t.mean(0), s.abs().max(0).values, s.mean(0), m[0]])
    return linear("out_layer", readout)


@pytest.fixture(scope="module", params=["full", "l"])
def published(request, tmp_path_factory) -> tuple[str, dict[str, Tensor], Path]:
    state = random_state(published_shapes(request.param))
    path = tmp_path_factory.mktemp("published") / "AASIST.pth"
    torch.save(state, path)
    return request.param, state, path


def test_a_published_checkpoint_gives_the_published_logits(published):
    variant, state, path = published
    cm = load_aasist(path, n_samples=N_SAMPLES)
    assert (cm.variant, cm.n_samples, cm.training) == (variant, N_SAMPLES, False)
    waves = noise() * torch.tensor([[1.0], [10.0]])
    with torch.no_grad():
        ours, theirs = cm(waves), torch.stack([twin(state, x, variant) for x in waves])
    assert float((theirs[0] - theirs[1]).abs().max()) > 0.1  # the input matters
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("variant", "parameters"), [("full", 297_866), ("l", 85_306)])
def test_the_published_number_of_parameters(variant, parameters):
    with torch.device("meta"):
        cm = Aasist(variant=variant)
    assert sum(p.numel() for p in cm.parameters()) == parameters
    published = published_shapes(variant)
    assert {n.removeprefix("backend."): tuple(t.shape) for n, t in cm.state_dict().items()} == published


def test_a_checkpoint_that_is_not_one_names_file_and_key(published, tmp_path):
    _, state, _ = published
    path = tmp_path / "other.pth"
    for change, words in (
        ({"first_bn.bias": None}, ["missing first_bn.bias"]),
        ({"extra": torch.zeros(1)}, ["unknown extra"]),
        ({"out_layer.bias": torch.zeros(3)}, ["out_layer.bias", "(3,)", "(2,)"]),
        ({"out_layer.bias": torch.full((2,), torch.nan)}, ["out_layer.bias", "NaN"]),
        ({"pos_S": torch.zeros(1, 23, 40)}, ["pos_S", "40"]),
        ({"pos_S": torch.zeros(23)}, ["pos_S", "(23,)", "3 dimensions"]),
        ({"pos_S": None}, ["pos_S is missing"]),
    ):
        torch.save({n: t for n, t in {**state, **change}.items() if t is not None}, path)
        with pytest.raises(CheckpointError) as caught:
            load_aasist(path)
        assert all(word in str(caught.value) for word in [str(path), *words])


class Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps(Harmful(), protocol=2), "holds more than tensors"),
        (b"", "damaged"),
        (b"hello", "damaged"),
        (None, "no such file; obtain it"),
    ],
)
def test_a_file_that_is_no_state_dict_is_refused(tmp_path, content, words):
    path = tmp_path / "AASIST.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_aasist(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [[torch.zeros(2)], {}, {"epoch": 3, "pos_S": torch.zeros(1, 23, 64)}])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="expected a state_dict"):
        load_aasist(tmp_path / "x.pth")


# ---------------------------------------------------------------------------------------------------------------- parts


def test_pooling_keeps_the_best_nodes_and_at_least_one():
    pool = GraphPool(0.5, 2).eval()
    with torch.no_grad():
        pool.proj.weight.copy_(torch.tensor([[1.0, 0.0]]))
        pool.proj.bias.zero_()
        kept = pool(torch.tensor([[[0.0, 1.0], [3.0, 1.0], [-1.0, 1.0], [2.0, 1.0], [1.0, 1.0]]]))
    assert kept[0, :, 1].tolist() == pytest.approx(torch.sigmoid(torch.tensor([3.0, 2.0])).tolist())
    assert GraphPool(0.1, 2)(torch.zeros(1, 3, 2)).shape == (1, 1, 2)


def test_a_block_computed_excerpt_by_excerpt_is_the_same(monkeypatch):
    block = ResidualBlock(2, 4, first=True).eval()
    x = torch.randn(3, 2, 5, 40, generator=torch.Generator().manual_seed(0))
    together = block(x)
    monkeypatch.setattr("xaibench_countermeasures.aasist.LARGE", 1)
    calls = []
    block.conv1.register_forward_hook(lambda *_: calls.append(1))
    assert torch.allclose(block(x), together, atol=1e-6) and len(calls) == 3
    block.train()(x)
    assert len(calls) == 4  # batch statistics need the batch


# ------------------------------------------------------------------------------------------------------------- contract


@pytest.fixture(scope="module")
def cm() -> Aasist:
    return recipe.untrained(seed=0, n_samples=N_SAMPLES).eval()


def test_it_keeps_the_contract(cm):
    assert not lacking(cm)
    assert (cm.sample_rate, cm.n_samples, cm.classes) == (16_000, N_SAMPLES, ("spoof", "bonafide"))
    assert (cm.resolves, cm.layers_resolve, cm.module_rules) == ({"time"}, {"time"}, False)
    assert callable(cm.modules)
    frequency, time = cm.axes
    assert (frequency.kind, time.kind, len(frequency), len(time)) == ("frequency", "time", 1, N_SAMPLES)
    assert frequency.edges.tolist() == [0, 8_000] and time.edges[[0, -1]].tolist() == [0, 0.75]
    assert recipe.name == "aasist" and "2110.01200" in recipe.paper
    assert recipe.options == {"variant": "l", "n_samples": 32_000, "filter_mask": 0}


def test_the_tap_is_a_true_cut_and_has_the_declared_axes(cm):
    with torch.no_grad():
        tap = cm.frontend(noise())
        assert tap.shape == (2, 1, *(len(a) for a in cm.axes)) and torch.equal(tap[:, 0, 0], noise())
        assert torch.equal(cm.backend(tap), cm(noise())) and cm(noise()).shape == (2, 2)
    assert torch.equal(cm.mean_tap.expand_as(tap), torch.zeros_like(tap))


@pytest.mark.parametrize("batch", [1, 4])
def test_it_learns_from_a_batch_of(batch):
    cm = recipe.untrained(seed=0, n_samples=N_SAMPLES).train()
    bonafide_log_odds(cm(noise(batch, 6_000)), cm.classes).sum().backward()
    idle = {n for n, p in cm.named_parameters() if p.grad is None}
    assert idle == {f"backend.encoder.{i}.0.bn1.{part}" for i in range(1, 6) for part in ("weight", "bias")}
    assert all(torch.isfinite(p.grad).all() for p in cm.parameters() if p.grad is not None)


def test_the_score_is_differentiable_down_to_the_waveform(cm):
    wave = noise(1).requires_grad_()
    bonafide_log_odds(cm(wave), cm.classes).sum().backward()
    assert torch.isfinite(wave.grad).all() and float(wave.grad.abs().max()) > 0
    silent = torch.zeros(1, N_SAMPLES, requires_grad=True)
    bonafide_log_odds(cm(silent), cm.classes).sum().backward()
    assert torch.isfinite(silent.grad).all()


@pytest.mark.parametrize("n_samples", [2_315, 16_000, 20_001])
def test_any_length_is_taken(cm, n_samples):
    with torch.no_grad():
        assert torch.isfinite(cm(noise(1, n_samples))).all()


def test_too_short_speech_is_refused_in_words(cm):
    with pytest.raises(XaibenchError, match=r"2,315 samples.* got 2,314"):
        cm(noise(1, 2_314))


def test_an_unknown_variant_is_refused_in_words():
    with pytest.raises(XaibenchError, match="full, l, got 'xl'"):
        Aasist(variant="xl")
    assert set(SIZES) == set(CONFIGURATIONS)


def test_layers_are_the_six_encoder_blocks_from_input_to_output(cm):
    ran: list[tuple[str, tuple[int, ...]]] = []
    hooks = [
        m.register_forward_hook(lambda _m, _i, out, name=name: ran.append((name, tuple(out.shape))))
        for name, m in cm.layers.items()
    ]
    with torch.no_grad():
        cm(noise(1))
    for hook in hooks:
        hook.remove()
    frames, expected = (N_SAMPLES - 128) // 3, []
    for number, channels in enumerate((32, 32, 24, 24, 24, 24), start=1):
        frames //= 3
        expected.append((f"block_{number}", (1, channels, 23, frames)))
    assert ran == expected


def test_a_view_of_it_resolves_time_and_offers_no_rules(cm):
    view = native_view(cm, noise(1), noise(1, seed=1), noise(1, seed=2), ["a/x"])
    assert view.shape == (1, N_SAMPLES) and view.resolves == {"time"} and len(view.layers) == 6
    assert "modules" not in view.offers and {"gradients", "layers"} <= view.offers
    assert np.isfinite(float(view.score(view.inputs)))
    copy.deepcopy(view.model)


def test_chance_enters_in_training_only(cm):
    with torch.no_grad():
        assert torch.equal(cm(noise()), cm(noise()))
    other = copy.deepcopy(cm).train()
    with torch.no_grad():
        assert not torch.equal(other(noise()), other(noise()))


def test_weights_survive_the_disk(cm, tmp_path):
    save_weights(tmp_path / "aasist.safetensors", cm)
    other = recipe.untrained(seed=9, n_samples=N_SAMPLES)
    load_weights(other, tmp_path / "aasist.safetensors")
    assert weights_hash(other) == weights_hash(cm)
    with torch.no_grad():
        assert torch.equal(other.eval()(noise()), cm(noise()))


def test_the_encoder_is_laid_out_for_the_cpu(cm):
    weights = [m.weight for m in cm.backend.encoder.modules() if isinstance(m, nn.Conv2d)]
    assert len(weights) == 14 and all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)


def test_convert_writes_what_a_run_can_load(published, tmp_path):
    _, _, path = published
    out = recipe.convert(path, tmp_path / "out" / "aasist.safetensors")
    module, card, _ = load_countermeasure("aasist", str(out), {"n_samples": N_SAMPLES})
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(noise()), load_aasist(path, n_samples=N_SAMPLES)(noise()))
    assert card["eer"] == {} and card["trained_on"]["data"] == f"unknown (imported from {path.name})"
