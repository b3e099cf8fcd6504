"""LFCC-LCNN, trim-pad and LSTM-sum, against the published sizes and the contract. Scores against NII's: test_nii.py."""

import pytest
import torch
from torch import Tensor, nn
from xaibench_countermeasures.lcnn_lfcc import LFCCLCNNLSTMSum, LFCCLCNNTrimPad, lstm_sum, trim_pad

from xaibench.errors import PluginError, XaibenchError
from xaibench.layers import MaxFeatureMap
from xaibench.protocols import lacking
from xaibench.scoring import bonafide_log_odds
from xaibench.weights import load_weights, save_weights, weights_hash

NUMBERS = (2, 5, 8, 12, 15, 18, 21, 24, 27)


def noise(count: int = 2, n_samples: int = 32_000) -> Tensor:
    return 0.1 * torch.randn(count, n_samples, generator=torch.Generator().manual_seed(0))


def trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.fixture(scope="module", params=[trim_pad, lstm_sum], ids=lambda r: r.name)
def recipe(request):
    return request.param


@pytest.fixture(scope="module")
def cm(recipe):
    """Untrained, but with batch statistics: without them its output hardly depends on its input."""
    model = recipe.untrained(seed=0).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(torch.cat([noise(2), torch.cumsum(noise(2), 1) / 20]))
    return model.eval()


def test_the_published_number_of_trainable_parameters():
    assert trainable(trim_pad.untrained(seed=0, n_samples=120_000, frames=750)) == 864_305
    convolutions = 157_504  # of Table 1, arXiv 1904.05576; without affine normalisation
    blstm = 2 * 2 * 4 * (48 * 96 + 48 * 48 + 2 * 48)  # two layers, two directions, four gates, two biases
    assert trainable(lstm_sum.untrained(seed=0)) == convolutions + blstm + 96 + 1


def test_the_logits_are_a_fixed_split_of_one_output(cm):
    seen = []
    hook = cm.backend.logits.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    with torch.no_grad():
        logits = cm(noise())
    hook.remove()
    assert seen[0].shape == (2, 1)
    assert torch.allclose(bonafide_log_odds(logits, cm.classes), seen[0][:, 0])
    assert not cm.backend.logits.weight.requires_grad


def test_it_keeps_the_contract(cm, recipe):
    assert not lacking(cm)
    assert (cm.sample_rate, cm.n_samples, cm.classes) == (16_000, 32_000, ("spoof", "bonafide"))
    assert [(a.kind, len(a)) for a in cm.axes] == [("frequency", 257), ("time", 201)]
    assert cm.module_rules is False and callable(cm.modules)
    assert recipe.name.startswith("lcnn-lfcc") and "2103.11326" in recipe.paper and recipe.name in recipe.obtain


def test_the_tap_is_a_true_cut_with_a_mean(cm):
    cm.frontend.fit(noise(4))
    with torch.no_grad():
        tap = cm.frontend(noise())
        assert tap.shape == (2, 1, *(len(a) for a in cm.axes)) and float(tap.min()) >= 0
        assert torch.equal(cm.backend(tap), cm(noise()))
    assert torch.broadcast_shapes(cm.mean_tap.shape, tap.shape) == tap.shape
    assert torch.allclose(cm.mean_tap, cm.frontend(noise(4)).mean(dim=(0, 3), keepdim=True))


def test_the_energy_is_taken_from_the_tap(cm):
    """NII computes it beside the filter bank; here scaling the tap must do what scaling the waveform does."""
    with torch.no_grad():
        tap = cm.frontend(noise())
        quieter = cm.backend(tap / 100)
        assert torch.allclose(quieter, cm(noise() / 10), atol=1e-4)
        assert not torch.allclose(quieter, cm.backend(tap), atol=1e-2)


def test_layers_are_the_nine_two_dimensional_maps_from_input_to_output(cm):
    assert list(cm.layers) == [f"mfm_{n}" for n in NUMBERS]
    shapes = {}
    hooks = [
        m.register_forward_hook(lambda _m, _i, out, name=name: shapes.update({name: tuple(out.shape)}))
        for name, m in cm.layers.items()
    ]
    with torch.no_grad():
        cm(noise(1))
    for hook in hooks:
        hook.remove()
    assert list(shapes) == list(cm.layers)
    assert (shapes["mfm_2"], shapes["mfm_27"]) == ((1, 32, 60, 201), (1, 32, 7, 25))  # height, then time
    assert cm.layers_resolve == {"time"}


def test_every_module_is_called_once_and_answers_a_tensor(cm):
    calls: dict[str, int] = {}

    def count(name: str):
        def hook(_m, _i, out):
            calls[name] = calls.get(name, 0) + 1
            assert isinstance(out, Tensor) or name.endswith("l_blstm")

        return hook

    leaves = {n: m for n, m in cm.named_modules() if next(m.children(), None) is None}
    hooks = [m.register_forward_hook(count(n)) for n, m in leaves.items()]
    with torch.no_grad():
        cm(noise(1))
    for hook in hooks:
        hook.remove()
    assert calls == dict.fromkeys(leaves, 1)
    assert sum(isinstance(m, MaxFeatureMap) for m in leaves.values()) == (
        10 if "flatten" in dict(cm.backend.named_children()) else 9
    )


def test_the_score_is_differentiable_in_eval_mode_down_to_the_waveform(cm):
    wave = noise(1).requires_grad_()
    bonafide_log_odds(cm(wave), cm.classes).sum().backward()
    assert torch.isfinite(wave.grad).all() and float(wave.grad.abs().max()) > 0
    assert not any(m.training for m in cm.modules())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_score_is_differentiable_in_eval_mode_on_a_gpu(recipe):
    cm = recipe.untrained(seed=0).eval()
    wave = noise(1).requires_grad_()
    bonafide_log_odds(cm(wave), cm.classes).sum().backward()
    there = noise(1).cuda().requires_grad_()
    bonafide_log_odds(cm.cuda()(there), cm.classes).sum().backward()
    assert torch.nn.functional.cosine_similarity(wave.grad, there.grad.cpu()) > 0.99


def test_cudnn_is_left_aside_in_eval_mode_only():
    cm = lstm_sum.untrained(seed=0)
    seen = []
    cm.backend.m_before_pooling[0][0].l_blstm.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
    before = torch.backends.cudnn.enabled
    for mode in (True, False):
        cm.train(mode)(noise(2))
    assert seen == [before, False] and torch.backends.cudnn.enabled == before


def test_an_utterance_scores_the_same_alone_and_in_a_batch(cm):
    with torch.no_grad():
        together = cm(noise())
        assert torch.allclose(together, torch.cat([cm(w[None]) for w in noise()]), atol=1e-5)
        assert float((together[0] - together[1]).abs().max()) > 1e-3
        assert torch.equal(cm(noise()), together)  # no dropout in eval()


def test_a_training_step_lowers_the_loss(recipe):
    cm = recipe.untrained(seed=0, dropout=0.0).train()
    x = torch.cat([noise(2), torch.cumsum(noise(2), 1) / 20])  # white and brown
    labels = torch.tensor([1, 1, 0, 0])
    parameters = [p for p in cm.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(parameters, 1e-3)
    losses = []
    for _ in range(4):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = cm(x)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in parameters)


def test_lstm_sum_takes_any_length_of_sixteen_frames():
    cm = lstm_sum.untrained(seed=0).eval()
    with torch.no_grad():
        assert {cm(noise(1, n)).shape for n in (2_400, 12_345, 70_001)} == {(1, 2)}
    with pytest.raises(XaibenchError, match="at least 16 frames"):
        LFCCLCNNLSTMSum(n_samples=2_399)


def test_trim_pad_reads_the_first_frames_only():
    cm = LFCCLCNNTrimPad(n_samples=8_000, frames=50).eval()
    x, later = noise(1, 9_600), noise(1, 9_600)
    later[:, 8_400:] = 0  # frame 49 reaches sample 8,000, and its delta-delta two frames further: 8,320
    with torch.no_grad():
        assert torch.equal(cm(x), cm(later))
        sooner = x.clone()
        sooner[:, 7_600:] = 0
        assert not torch.equal(cm(x), cm(sooner))
    with pytest.raises(XaibenchError, match="50 are needed"):
        cm(noise(1, 7_000))
    with pytest.raises(XaibenchError, match=r"frames = 52: expected 16 to 51"):
        LFCCLCNNTrimPad(n_samples=8_000, frames=52)


def test_same_seed_same_weights_without_disturbing_the_global_generator(recipe):
    before = torch.random.get_rng_state()
    one, same, other = (weights_hash(recipe.untrained(seed=s)) for s in (3, 3, 4))
    assert one == same != other
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_unknown_option_is_named(recipe):
    with pytest.raises(PluginError, match="no option bins; its options: dropout, n_samples"):
        recipe.untrained(seed=0, bins=3)


def test_weights_survive_the_disk_with_the_mean(recipe, tmp_path):
    one, other = recipe.untrained(seed=1), recipe.untrained(seed=2)
    one.frontend.fit(noise(2))
    save_weights(tmp_path / "net.safetensors", one)
    load_weights(other, tmp_path / "net.safetensors")
    assert weights_hash(other) == weights_hash(one) and torch.equal(other.mean_tap, one.mean_tap)
