"""RawNet2 against a twin written from the ASVspoof 2021 baseline with its names, and the contract of a countermeasure."""

from __future__ import annotations

import copy
from math import prod, sqrt
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from xaibench_countermeasures.raw_weights import load_rawnet2
from xaibench_countermeasures.rawnet2 import FilterScaling, LastState, RawNet2, recipe
from xaibench_countermeasures.sinc import sinc_filters

from xaibench.errors import CheckpointError, XaibenchError
from xaibench.harness.known import load_countermeasure
from xaibench.protocols import lacking
from xaibench.scoring import bonafide_log_odds
from xaibench.view import native_view
from xaibench.weights import load_weights, save_weights, weights_hash

N_SAMPLES = 12_000
#: model_config_RawNet.yaml of the baseline.
BASELINE = {"filters": (20, 128), "gru_nodes": 1024, "gru_layers": 3, "fc_nodes": 1024}
SMALL = {"filters": (5, 6), "gru_nodes": 7, "gru_layers": 2, "fc_nodes": 8}


def noise(count: int = 2, n_samples: int = N_SAMPLES, *, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(count, n_samples, generator=torch.Generator().manual_seed(seed))


def published_shapes(filters: tuple[int, int], gru_nodes: int, gru_layers: int, fc_nodes: int) -> dict[str, tuple[int, ...]]:
    """What `state_dict()` of the baseline's `RawNet` holds, layer by layer as in model.py."""
    narrow, wide = filters
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()

    def convolution(name: str, inputs: int, outputs: int, kernel: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs, kernel), (outputs,)

    norm("first_bn", narrow)
    sizes = [(narrow, narrow), (narrow, narrow), (narrow, wide), (wide, wide), (wide, wide), (wide, wide)]
    for i, (inputs, outputs) in enumerate(sizes):
        if i > 0:
            norm(f"block{i}.0.bn1", inputs)
        convolution(f"block{i}.0.conv1", inputs, outputs, 3)
        norm(f"block{i}.0.bn2", outputs)
        convolution(f"block{i}.0.conv2", outputs, outputs, 3)
        if inputs != outputs:
            convolution(f"block{i}.0.conv_downsample", inputs, outputs, 1)
        linear(f"fc_attention{i}.0", outputs, outputs)
    norm("bn_before_gru", wide)
    for layer in range(gru_layers):
        shapes[f"gru.weight_ih_l{layer}"] = (3 * gru_nodes, gru_nodes if layer else wide)
        shapes[f"gru.weight_hh_l{layer}"] = (3 * gru_nodes, gru_nodes)
        shapes[f"gru.bias_ih_l{layer}"] = shapes[f"gru.bias_hh_l{layer}"] = (3 * gru_nodes,)
    linear("fc1_gru", gru_nodes, fc_nodes)
    linear("fc2_gru", fc_nodes, 2)
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
            state[name] = torch.randn(shape, generator=draw) / sqrt(prod(shape[1:]) if len(shape) > 1 else 10)
    return state


def twin(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """What the baseline gives one waveform `(N,)`: two log-probabilities. Its recurrent layers step by step."""

    def norm(name: str, v: Tensor) -> Tensor:  # (C, T)
        mean, var, weight, bias = (
            state[f"{name}.{part}"][:, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (v - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def linear(name: str, v: Tensor) -> Tensor:
        return F.linear(v, state[f"{name}.weight"], state[f"{name}.bias"])

    def convolution(name: str, v: Tensor, padding: int) -> Tensor:
        return F.conv1d(v[None], state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)[0]

    filters = sinc_filters(len(state["first_bn.weight"]), 1024, 16_000)
    y = F.conv1d(x[None, None], filters[:, None])[0]
    y = F.selu(norm("first_bn", F.max_pool1d(y.abs()[None], 3)[0]))
    for i in range(6):
        block = f"block{i}.0"
        out = F.leaky_relu(norm(f"{block}.bn2", convolution(f"{block}.conv1", y, 1)), 0.3)
        out = convolution(f"{block}.conv2", out, 1)
        if f"{block}.conv_downsample.weight" in state:
            y = convolution(f"{block}.conv_downsample", y, 0)
        y = F.max_pool1d((out + y)[None], 3)[0]
        s = torch.sigmoid(linear(f"fc_attention{i}.0", y.mean(1)))[:, None]
        y = y * s + s
    steps = list(F.selu(norm("bn_before_gru", y)).T)
    for layer in range(sum(name.startswith("gru.weight_hh") for name in state)):
        w_in, w_h, b_in, b_h = (state[f"gru.{part}_l{layer}"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        h, outputs = torch.zeros(w_h.shape[1]), []
        for step in steps:
            reset_in, update_in, new_in = (w_in @ step + b_in).chunk(3)
            reset_h, update_h, new_h = (w_h @ h + b_h).chunk(3)
            reset, update = torch.sigmoid(reset_in + reset_h), torch.sigmoid(update_in + update_h)
            h = (1 - update) * torch.tanh(new_in + reset * new_h) + update * h
            outputs.append(h)
        steps = outputs
    return torch.log_softmax(linear("fc2_gru", linear("fc1_gru", steps[-1])), dim=0)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[dict[str, Tensor], Path]:
    state = random_state(published_shapes(**SMALL))
    path = tmp_path_factory.mktemp("published") / "rawnet2.pth"
    torch.save(state, path)
    return state, path


def test_a_published_checkpoint_gives_the_published_log_probabilities(published):
    state, path = published
    cm = load_rawnet2(path, n_samples=N_SAMPLES)
    assert not cm.training and cm.n_samples == N_SAMPLES
    waves = noise() * torch.tensor([[1.0], [100.0]])
    with torch.no_grad():
        ours, theirs = torch.log_softmax(cm(waves), dim=1), torch.stack([twin(state, x) for x in waves])
    assert float((theirs[0] - theirs[1]).abs().max()) > 0.05  # the input matters
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_number_of_parameters_of_the_baseline_and_of_the_small_one():
    stored = ("running_mean", "running_var", "num_batches_tracked")
    expected = sum(prod(s) for n, s in published_shapes(**BASELINE).items() if not n.endswith(stored))
    with torch.device("meta"):
        baseline, small = RawNet2(**BASELINE), RawNet2()
    assert sum(p.numel() for p in baseline.parameters()) == expected == 17_621_410
    assert sum(p.numel() for p in small.parameters()) == 545_314


def test_a_checkpoint_that_is_not_one_names_file_and_key(published, tmp_path):
    state, _ = published
    path = tmp_path / "other.pth"
    for change, words in (
        ({"first_bn.bias": None}, ["missing first_bn.bias"]),
        ({"Sinc_conv.low_hz_": torch.zeros(5)}, ["unknown Sinc_conv.low_hz_"]),  # a RawNet2 with learned filters
        ({"block4.0.conv1.weight": torch.zeros(6, 5, 3)}, ["block4.conv1.weight", "(6, 5, 1, 3)", "(6, 6, 1, 3)"]),
        ({"gru.weight_hh_l0": torch.zeros(3)}, ["gru.weight_hh_l0", "2 dimensions"]),
        ({"fc1_gru.weight": None}, ["fc1_gru.weight is missing"]),
        ({"fc2_gru.bias": torch.full((2,), torch.inf)}, ["fc2.bias", "infinity"]),
    ):
        torch.save({n: t for n, t in {**state, **change}.items() if t is not None}, path)
        with pytest.raises(CheckpointError) as caught:
            load_rawnet2(path)
        assert all(word in str(caught.value) for word in [str(path), *words])


# ---------------------------------------------------------------------------------------------------------------- parts


def test_scaling_multiplies_and_adds_one_number_a_filter():
    scaling, x = FilterScaling(3), torch.randn(2, 3, 1, 10, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y, expected = scaling(x), scaling.linear(x.mean((2, 3)))
    s = (y - y.mean(3, keepdim=True))[..., :1] / (x - x.mean(3, keepdim=True))[..., :1]
    assert torch.allclose(y, x * s + s, atol=1e-5) and float(s.min()) > 0 and float(s.max()) < 1
    assert torch.allclose(torch.logit(s[:, :, 0, 0]), expected, atol=1e-3)


def test_the_recurrent_layer_gives_its_last_state_as_one_tensor():
    last, x = LastState(3, 4, 2).eval(), torch.randn(2, 3, 1, 9, generator=torch.Generator().manual_seed(0))
    _, states = last.gru(x[:, :, 0].transpose(1, 2))
    assert torch.equal(last(x), states[-1]) and last(x).shape == (2, 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="cuDNN's recurrent layers exist on CUDA only")
def test_the_gradient_in_eval_mode_exists_on_cuda():
    cm, wave = recipe.untrained(seed=0).eval().cuda(), noise(1).cuda().requires_grad_()
    bonafide_log_odds(cm(wave), cm.classes).sum().backward()
    assert torch.isfinite(wave.grad).all() and torch.backends.cudnn.enabled


# ------------------------------------------------------------------------------------------------------------- contract


@pytest.fixture(scope="module")
def cm() -> RawNet2:
    return recipe.untrained(seed=0, n_samples=N_SAMPLES).eval()


def test_it_keeps_the_contract(cm):
    assert not lacking(cm)
    assert (cm.sample_rate, cm.n_samples, cm.classes) == (16_000, N_SAMPLES, ("spoof", "bonafide"))
    assert (cm.resolves, cm.layers_resolve, cm.module_rules) == ({"time"}, {"time"}, False)
    assert callable(cm.modules)
    frequency, time = cm.axes
    assert (frequency.kind, time.kind, len(frequency), len(time)) == ("frequency", "time", 1, N_SAMPLES)
    assert frequency.edges.tolist() == [0, 8_000] and time.edges[[0, -1]].tolist() == [0, 0.75]
    assert recipe.name == "rawnet2" and "2011.01108" in recipe.paper
    assert {n: recipe.options[n] for n in BASELINE} == {**BASELINE, "gru_nodes": 128, "gru_layers": 1, "fc_nodes": 128}


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
    assert idle == {f"backend.block{i}.bn1.{part}" for i in range(1, 6) for part in ("weight", "bias")}
    assert all(torch.isfinite(p.grad).all() for p in cm.parameters() if p.grad is not None)


def test_the_score_is_differentiable_down_to_the_waveform(cm):
    wave = noise(1).requires_grad_()
    bonafide_log_odds(cm(wave), cm.classes).sum().backward()
    assert torch.isfinite(wave.grad).all() and float(wave.grad.abs().max()) > 0
    silent = torch.zeros(1, N_SAMPLES, requires_grad=True)
    bonafide_log_odds(cm(silent), cm.classes).sum().backward()
    assert torch.isfinite(silent.grad).all()


@pytest.mark.parametrize("n_samples", [3_211, 16_000, 20_001])
def test_any_length_is_taken(cm, n_samples):
    with torch.no_grad():
        assert torch.isfinite(cm(noise(1, n_samples))).all()


def test_too_short_speech_is_refused_in_words(cm):
    with pytest.raises(XaibenchError, match=r"3,211 samples.* got 3,210"):
        cm(noise(1, 3_210))


def test_layers_are_the_six_scaled_blocks_from_input_to_output(cm):
    ran: list[tuple[str, tuple[int, ...]]] = []
    hooks = [
        m.register_forward_hook(lambda _m, _i, out, name=name: ran.append((name, tuple(out.shape))))
        for name, m in cm.layers.items()
    ]
    with torch.no_grad():
        cm(noise(1))
    for hook in hooks:
        hook.remove()
    frames, expected = (N_SAMPLES - 1_024) // 3, []
    for number, channels in enumerate((20, 20, 128, 128, 128, 128)):
        frames //= 3
        expected.append((f"scaling{number}", (1, channels, 1, frames)))
    assert ran == expected


def test_a_view_of_it_resolves_time_and_offers_no_rules(cm):
    view = native_view(cm, noise(1), noise(1, seed=1), noise(1, seed=2), ["a/x"])
    assert view.shape == (1, N_SAMPLES) and view.resolves == {"time"} and len(view.layers) == 6
    assert "modules" not in view.offers and {"gradients", "layers"} <= view.offers
    copy.deepcopy(view.model)


def test_weights_survive_the_disk_and_sizes_survive_json(cm, tmp_path):
    save_weights(tmp_path / "rawnet2.safetensors", cm)
    other = recipe.untrained(seed=9, n_samples=N_SAMPLES, filters=[20, 128])  # JSON has no tuples
    load_weights(other, tmp_path / "rawnet2.safetensors")
    assert weights_hash(other) == weights_hash(cm)


def test_convert_writes_what_a_run_can_load(published, tmp_path):
    _, path = published
    out = recipe.convert(path, tmp_path / "out" / "rawnet2.safetensors")
    module, card, _ = load_countermeasure("rawnet2", str(out), {"n_samples": N_SAMPLES})
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(noise()), load_rawnet2(path, n_samples=N_SAMPLES)(noise()))
    assert card["eer"] == {} and card["trained_on"]["data"] == f"unknown (imported from {path.name})"


def test_sizes_that_a_file_only_claims_make_no_matrix(tmp_path):
    """Vectors of 8,000 numbers would be kernels of a gigabyte; of 400,000, of two terabytes."""
    path = tmp_path / "x.pth"
    for size, said in ((8_000, "not these weights: missing"), (400_000, r"400,000, more than 8,192")):
        wide = {"first_bn.weight": torch.zeros(size), "bn_before_gru.weight": torch.zeros(size)}
        torch.save({**wide, "gru.weight_hh_l0": torch.zeros(1, 400), "fc1_gru.weight": torch.zeros(size, 1)}, path)
        with pytest.raises(CheckpointError, match=rf"x\.pth: .*{said}"):
            load_rawnet2(path)
