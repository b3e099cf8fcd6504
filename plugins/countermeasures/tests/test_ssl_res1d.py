"""SSL-Res1D against a literal twin in numpy, its Grad-CAM against WeDefense's, and the contract."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from xaibench_countermeasures.ssl_res1d import Cosine, CosineLogit, SSLRes1D, p2sgrad_loss, recipe
from xaibench_gradcam.methods import grad_cam

from xaibench.protocols import lacking
from xaibench.scoring import bonafide_log_odds
from xaibench.view import View, native_view
from xaibench.weights import load_weights, save_weights, weights_hash

N_SAMPLES = 8_000  # 26 frames
SPOOF, BONAFIDE = 0, 1


def noise(count: int = 2, n_samples: int = N_SAMPLES, *, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(count, n_samples, generator=torch.Generator().manual_seed(seed))


def lived_in(cm: SSLRes1D) -> SSLRes1D:
    """Running statistics as after some training: at their initial 0 and 1 a wrong formula could pass."""
    draw = torch.Generator().manual_seed(1)
    for module in cm.backend.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=draw)
            module.running_var.uniform_(0.5, 2, generator=draw)
    cm.frontend.fit(noise(4))
    return cm.eval()


@pytest.fixture(scope="module")
def cm() -> SSLRes1D:
    return lived_in(recipe.untrained(seed=0, n_samples=N_SAMPLES))


@pytest.fixture(scope="module")
def tap(cm: SSLRes1D) -> Tensor:
    """Encoder frames, and rougher ones: an untrained encoder hardly tells frames apart."""
    with torch.no_grad():
        frames = cm.frontend(noise(3))
        return frames + torch.randn(frames.shape, generator=torch.Generator().manual_seed(5))


def view_of(cm: SSLRes1D, **facts: object) -> View:
    return native_view(cm, noise(3), noise(3, seed=1), noise(2, seed=2), ["a/x", "b/x", "c/x"], **facts)


# ------------------------------------------------------------------------------------------- the twin, in plain numpy


def array(parameter: Tensor) -> np.ndarray:
    return parameter.detach().double().numpy()


def convolution(layer: nn.Conv2d, x: np.ndarray) -> np.ndarray:
    """Over time, zeros beyond the ends. Shape: `(inputs, T)` -> `(outputs, T)`."""
    kernel = array(layer.weight)[:, :, 0]
    half = kernel.shape[2] // 2
    padded = np.pad(x, ((0, 0), (half, half)))
    columns = [
        sum(kernel[:, :, k] @ padded[:, t + k] for k in range(kernel.shape[2])) + array(layer.bias)
        for t in range(x.shape[1])
    ]
    return np.stack(columns, axis=1)


def normalised(layer: nn.BatchNorm2d, x: np.ndarray) -> np.ndarray:
    scale = array(layer.weight) / np.sqrt(array(layer.running_var) + layer.eps)
    return (x - array(layer.running_mean)[:, None]) * scale[:, None] + array(layer.bias)[:, None]


def twin_embeddings(cm: SSLRes1D, x: np.ndarray) -> np.ndarray:
    """WeDefense's Res1D and fc, one utterance. Shape: `(D, T)` -> `(128, T)`."""
    block = cm.backend.res1d.block
    y = x
    for number in (1, 2, 3):
        y = np.maximum(convolution(block[3 * (number - 1)], y), 0)
        y = normalised(block[3 * (number - 1) + 2], y)
    gate = block.se.gate
    squeezed = np.maximum(array(gate[1].weight)[:, :, 0, 0] @ y.mean(1) + array(gate[1].bias), 0)
    excited = 1 / (1 + np.exp(-(array(gate[3].weight)[:, :, 0, 0] @ squeezed + array(gate[3].bias))))
    return convolution(cm.backend.fc, x + y * excited[:, None])


def twin_cosines(cm: SSLRes1D, embedding: np.ndarray) -> np.ndarray:
    classes = array(cm.backend.cosine.weight)
    return np.array([w @ embedding / np.linalg.norm(w) / np.linalg.norm(embedding) for w in classes])


def twin_logits(cosines: np.ndarray) -> np.ndarray:
    """WeDefense: `p = (cos + 1) / 2` clamped to 1e-5, `ln(p / (1 - p))`."""
    p = np.clip((cosines + 1) / 2, 1e-5, 1 - 1e-5)
    return np.log(p / (1 - p))


def test_logits_are_those_of_the_literal_twin(cm, tap):
    with torch.no_grad():
        logits, cosines = cm.backend(tap), cm.backend.cosines(tap)
    for i in range(3):
        expected = twin_cosines(cm, twin_embeddings(cm, array(tap[i, :, 0])).mean(1))
        assert np.allclose(cosines[i], expected, atol=1e-5)
        assert np.allclose(logits[i], twin_logits(expected), atol=1e-4)


def test_mean_removal_is_an_option_that_makes_an_offset_of_the_features_vanish(cm, tap):
    with_it = SSLRes1D(n_samples=N_SAMPLES, cmvn=True).eval()
    with_it.load_state_dict(cm.state_dict())
    offset = torch.linspace(-1, 1, 128)[None, :, None, None]
    with torch.no_grad():
        assert torch.allclose(with_it.backend(tap + offset), with_it.backend(tap), atol=1e-4)
        assert not torch.allclose(cm.backend(tap + offset), cm.backend(tap), atol=1e-2)
        assert torch.allclose(with_it.backend(tap), cm.backend(tap - tap.mean(3, keepdim=True)), atol=1e-5)


def test_p2sgrad_is_the_mean_squared_error_to_the_label():
    cosines, labels = torch.tensor([[0.9, -0.2], [0.4, 0.5], [0.1, 1.0]]), torch.tensor([0, 1, 1])
    rows = [(0.01 + 0.04) / 2, (0.16 + 0.25) / 2, (0.01 + 0) / 2]
    assert float(p2sgrad_loss(cosines, labels)) == pytest.approx(sum(rows) / 3)
    weighted = (3 * rows[0] + rows[1] + rows[2]) / 5
    assert float(p2sgrad_loss(cosines, labels, torch.tensor([3.0, 1.0]))) == pytest.approx(weighted)


def test_the_loss_of_the_countermeasure_is_that_of_its_cosines(cm, tap):
    labels = torch.tensor([0, 1, 1])
    with torch.no_grad():
        expected = p2sgrad_loss(cm.backend.cosines(tap), labels)
        assert torch.equal(cm.training_loss(tap, labels, None), expected)
        assert not torch.equal(cm.training_loss(tap, labels, torch.tensor([5.0, 1.0])), expected)


def test_the_logit_is_finite_and_has_a_gradient_where_the_cosine_is_one():
    head, logit = Cosine(4, 2), CosineLogit()
    embedding = (3 * head.weight[:1].detach()).requires_grad_()
    out = logit(head(embedding))
    assert torch.isfinite(out).all() and out[0, 0].item() == pytest.approx(math.log(2e5), abs=0.1)
    cosine = torch.tensor([1.0, 0.5], requires_grad=True)
    logit(cosine).sum().backward()
    assert logit(cosine)[1].item() == pytest.approx(math.log(3), abs=1e-4)
    assert torch.isfinite(cosine.grad).all() and (cosine.grad > 1).all()


def test_silent_embeddings_have_a_finite_score(cm):
    with torch.no_grad():
        assert torch.isfinite(CosineLogit()(cm.backend.cosine(torch.zeros(1, 128)))).all()


# ------------------------------------------------------------------------------------------------------------ grad-cam


def test_grad_cam_on_the_native_route_is_that_of_wedefense(cm):
    """Channel weights: mean over time of the gradients at fc; weighted sum, ReLU, min-max per utterance, no resize."""
    view = view_of(cm)
    made = grad_cam(view)
    assert view.layers == ("backend.res1d", "backend.fc")
    assert made.values.shape == (3, 1, 26) and made.resolves == {"time"}
    for i in range(3):
        activations = twin_embeddings(cm, array(view.inputs[i, :, 0]))
        mean = activations.mean(1)

        def spoof_log_odds(embedding: np.ndarray) -> float:
            logits = twin_logits(twin_cosines(cm, embedding))
            return float(logits[SPOOF] - logits[BONAFIDE])

        # one frame moves the mean embedding by 1/T; the gradient is the same at every frame
        step = 1e-6
        at_mean = np.array([spoof_log_odds(mean + step * e) - spoof_log_odds(mean - step * e) for e in np.eye(128)])
        gradients = np.repeat((at_mean / (2 * step) / 26)[:, None], 26, axis=1)
        weights = gradients.mean(1)
        heat = np.maximum((weights[:, None] * activations).sum(0), 0)
        heat = heat - heat.min()
        heat = heat / (heat.max() + 1e-7)
        assert heat.std() > 0.05 and np.allclose(made.values[i, 0], heat, atol=2e-3)


# -------------------------------------------------------------------------------------------------------- frame scores


def test_frame_scores_are_the_classifier_on_every_frame(cm):
    waves = noise(2)
    found = cm.frame_scores(waves)
    assert found.shape == (2, 26)
    with torch.no_grad():
        features = cm.frontend(waves)
    for i in range(2):
        embeddings = twin_embeddings(cm, array(features[i, :, 0]))
        logits = np.array([twin_logits(twin_cosines(cm, embeddings[:, t])) for t in range(26)])
        assert np.allclose(found[i], logits[:, BONAFIDE] - logits[:, SPOOF], atol=1e-3)


def test_an_utterance_of_equal_embeddings_scores_as_each_of_its_frames(cm):
    class Same(nn.Module):
        def forward(self, waveform: Tensor) -> Tensor:
            return torch.linspace(-1, 1, 128)[None, :, None, None].expand(len(waveform), 128, 1, 1)

    still = SSLRes1D(n_samples=N_SAMPLES).eval()
    still.backend.load_state_dict(cm.backend.state_dict())
    still.frontend = Same()
    with torch.no_grad():
        utterance = bonafide_log_odds(still(noise(2)), still.classes)
    assert torch.allclose(still.frame_scores(noise(2)), utterance[:, None], atol=1e-5)


# -------------------------------------------------------------------------------------------------------- the contract


def test_it_keeps_the_contract(cm):
    assert not lacking(cm)
    assert (cm.classes, cm.sample_rate, cm.resolves, cm.module_rules) == (("spoof", "bonafide"), 16_000, {"time"}, False)
    frequency, time = cm.axes
    assert (len(frequency), len(time), cm.n_samples, SSLRes1D().n_samples) == (1, 26, N_SAMPLES, 32_000)
    assert recipe.name == "ssl-res1d" and "2406.02483" in recipe.paper
    assert "modules" not in view_of(cm).offers


def test_the_tap_is_a_true_cut_of_any_length(cm):
    for n_samples in (257, N_SAMPLES, 20_001):
        with torch.no_grad():
            frames = cm.frontend(noise(2, n_samples))
            together = cm(noise(2, n_samples))
            assert frames.shape == (2, 128, 1, cm.frontend.frames(n_samples))
            assert torch.equal(cm.backend(frames), together)
            alone = torch.cat([cm(wave[None]) for wave in noise(2, n_samples)])
        assert torch.allclose(together, alone, atol=1e-4)


def test_the_score_is_differentiable_down_to_the_waveform(cm):
    wave = noise(1).requires_grad_()
    bonafide_log_odds(cm(wave), cm.classes).sum().backward()
    assert torch.isfinite(wave.grad).all() and float(wave.grad.abs().max()) > 0


def test_layers_end_with_fc_and_have_maps_over_time(cm):
    assert list(cm.layers) == ["res1d", "fc"]
    seen: list[tuple[int, ...]] = []
    hooks = [m.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape))) for m in cm.layers.values()]
    with torch.no_grad():
        cm(noise(1))
    for hook in hooks:
        hook.remove()
    assert seen == [(1, 128, 1, 26)] * 2


def test_the_loss_falls_and_every_weight_learns():
    cm = recipe.untrained(seed=0, n_samples=N_SAMPLES).train()
    real = noise(4, 4_000)
    waves = torch.cat([real, nn.functional.conv1d(real[:, None], torch.full((1, 1, 3), 1 / 3), padding=1)[:, 0]])
    labels = torch.tensor([BONAFIDE] * 4 + [SPOOF] * 4)
    cm.frontend.fit(waves)
    optimiser = torch.optim.Adam(cm.parameters(), lr=1e-3)
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(8):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = cm.training_loss(cm.frontend(waves), labels, None)
            assert loss.dtype == torch.float32
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in cm.parameters())


def test_one_utterance_can_be_trained_on():
    cm = SSLRes1D(n_samples=N_SAMPLES).train()
    cm.training_loss(cm.frontend(noise(1)), torch.tensor([1]), None).backward()


def test_settling_sets_the_mean_of_the_learned_tap():
    cm = lived_in(SSLRes1D(n_samples=N_SAMPLES))
    cm.settle(noise(5))
    with torch.no_grad():
        assert torch.allclose(cm.mean_tap, cm.frontend(noise(5)).mean((0, 3), keepdim=True), atol=1e-5)


def test_on_wav2vec_features_the_block_is_as_wide_as_they_are(tmp_path):
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=2, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    Wav2Vec2Model(config).save_pretrained(tmp_path, safe_serialization=True)
    cm = recipe.untrained(seed=0, ssl=str(tmp_path), n_samples=N_SAMPLES).eval()
    assert cm.backend.fc.in_channels == 16
    with torch.no_grad():
        assert cm(noise()).shape == (2, 2)
    save_weights(tmp_path / "tuned.safetensors", cm)
    again = recipe.untrained(seed=1, ssl=str(tmp_path), n_samples=N_SAMPLES)
    load_weights(again, tmp_path / "tuned.safetensors")
    assert weights_hash(again) == weights_hash(cm)


def test_same_seed_same_weights_without_disturbing_the_global_generator():
    before = torch.random.get_rng_state()
    one, same, other = (weights_hash(recipe.untrained(seed=s)) for s in (3, 3, 4))
    assert one == same != other
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_names_of_the_weights_are_fixed():
    """Checkpoints in the wild carry them."""
    with torch.device("meta"):
        names = set(SSLRes1D().state_dict())
    assert {"tap_mean", "backend.cosine.weight", "backend.fc.bias", "backend.res1d.block.conv_2.weight"} <= names
    assert {".".join(n.split(".")[:2]) for n in names} == {
        "tap_mean", "frontend.spectrum", "frontend.convolutions", "frontend.position", "frontend.layers", "frontend.norm",
        "backend.res1d", "backend.fc", "backend.cosine",
    }  # fmt: skip
