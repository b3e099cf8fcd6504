"""LCNN against the published table, and against the contract every countermeasure keeps."""

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from xaibench_countermeasures.lcnn import LCNN, lcnn_backend, recipe, stc, stc_lcnn

from xaibench.errors import PluginError, XaibenchError
from xaibench.layers import MaxFeatureMap
from xaibench.protocols import lacking
from xaibench.scoring import bonafide_log_odds
from xaibench.weights import load_weights, save_weights, weights_hash

#: Table 1 of arXiv 1904.05576 for an 863 x 600 input: layer -> (frequency, time, channels) of its output.
TABLE = OrderedDict(
    mfm_2=(863, 600, 32), pool_3=(431, 300, 32), mfm_5=(431, 300, 32), norm_6=(431, 300, 32), mfm_8=(431, 300, 48),
    pool_9=(215, 150, 48), norm_10=(215, 150, 48), mfm_12=(215, 150, 48), norm_13=(215, 150, 48), mfm_15=(215, 150, 64),
    pool_16=(107, 75, 64), mfm_18=(107, 75, 64), norm_19=(107, 75, 64), mfm_21=(107, 75, 32), norm_22=(107, 75, 32),
    mfm_24=(107, 75, 32), norm_25=(107, 75, 32), mfm_27=(107, 75, 32), pool_28=(53, 37, 32),
)  # fmt: skip


#: Scores of the shipped checkpoint for three synthetic waveforms, before the network took options.
GOLDEN = [-3.478232, 6.784339, -3.184068]


def noise(count: int = 2) -> Tensor:
    return 0.1 * torch.randn(count, 32_000, generator=torch.Generator().manual_seed(0))


def activations(backend: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    """Output shape of every named layer, in the order in which they ran."""
    seen: dict[str, tuple[int, ...]] = {}
    for name, module in backend.named_children():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: tuple(out.shape)}))
    backend(x)
    return seen


@pytest.fixture(scope="module")
def cm() -> LCNN:
    return recipe.untrained(seed=0).eval()


@pytest.mark.parametrize(("bins", "frames", "parameters"), [(863, 600, 10_198_818), (60, 750, 865_058)])
def test_the_published_number_of_parameters(bins, frames, parameters):
    with torch.device("meta"):
        backend = lcnn_backend(bins, frames)
    assert sum(p.numel() for p in backend.parameters()) == parameters


def test_every_activation_has_the_size_of_the_published_table():
    with torch.device("meta"):
        backend = lcnn_backend(863, 600).eval()
        seen = activations(backend, torch.empty(1, 1, 863, 600))
    found = OrderedDict((name, (*shape[2:], shape[1])) for name, shape in seen.items() if name in TABLE)
    assert found == TABLE  # an OrderedDict: the order counts, too
    assert (seen["fc_29"], seen["mfm_30"], seen["norm_31"], seen["fc_32"]) == ((1, 160), (1, 80), (1, 80), (1, 2))


def test_kernels_and_channels_of_the_published_table():
    with torch.device("meta"):
        backend = lcnn_backend(863, 600)
    convolutions = [m for m in backend if isinstance(m, nn.Conv2d)]
    assert [m.kernel_size[0] for m in convolutions] == [5, 1, 3, 1, 3, 1, 3, 1, 3]
    assert [m.out_channels for m in convolutions] == [64, 64, 96, 96, 128, 128, 64, 64, 64]
    assert all(m.kernel_size[0] == m.kernel_size[1] and m.stride == (1, 1) for m in convolutions)


def test_dropout_stands_before_the_last_normalisation():
    with torch.device("meta"):
        names = [name for name, _ in lcnn_backend(863, 600).named_children()]
    assert names[-5:] == ["fc_29", "mfm_30", "dropout", "norm_31", "fc_32"]


def test_every_call_has_a_max_feature_map_of_its_own(cm):
    maps = [m for _, m in cm.named_modules(remove_duplicate=False) if isinstance(m, MaxFeatureMap)]
    assert len(maps) == 10 and len({id(m) for m in maps}) == 10
    calls = []
    hooks = [m.register_forward_hook(lambda m, *_: calls.append(id(m))) for m in maps]
    with torch.no_grad():
        cm(noise(1))
    for hook in hooks:
        hook.remove()
    assert calls == [id(m) for m in maps]


def test_it_keeps_the_contract(cm):
    assert not lacking(cm)
    assert (cm.sample_rate, cm.n_samples, cm.classes) == (16_000, 32_000, ("spoof", "bonafide"))
    frequency, time = cm.axes
    assert (frequency.kind, time.kind, len(frequency), len(time)) == ("frequency", "time", 257, 201)
    assert (frequency.edges[-1], time.edges[0]) == (8_000, 0)
    assert recipe.name == "lcnn" and "1904.05576" in recipe.paper


def test_the_tap_is_a_true_cut_and_has_the_declared_axes(cm):
    with torch.no_grad():
        tap = cm.frontend(noise())
        assert tap.shape == (2, 1, *(len(a) for a in cm.axes))
        assert torch.equal(cm.backend(tap), cm(noise()))
        assert cm(noise()).shape == (2, 2)
        assert torch.broadcast_shapes(cm.mean_tap.shape, tap.shape) == tap.shape


def test_the_score_is_differentiable_down_to_the_waveform(cm):
    wave = noise(1).requires_grad_()
    bonafide_log_odds(cm(wave), cm.classes).sum().backward()
    assert torch.isfinite(wave.grad).all() and float(wave.grad.abs().max()) > 0


def test_layers_are_the_nine_two_dimensional_maps_from_input_to_output(cm):
    assert list(cm.layers) == [f"mfm_{n}" for n in (2, 5, 8, 12, 15, 18, 21, 24, 27)]
    ran: list[tuple[str, int]] = []
    hooks = [
        m.register_forward_hook(lambda _m, _i, out, name=name: ran.append((name, out.ndim))) for name, m in cm.layers.items()
    ]
    with torch.no_grad():
        cm(noise(1))
    for hook in hooks:
        hook.remove()
    assert ran == [(name, 4) for name in cm.layers]


def test_the_mean_tap_is_the_training_mean():
    cm = LCNN(dropout=0.0).eval()
    cm.frontend.fit(noise(4))
    with torch.no_grad():
        tap = cm.frontend(noise(4))
    mean = tap.mean(dim=(0, 3), keepdim=True)
    assert torch.allclose(mean, cm.mean_tap.expand_as(mean), atol=1e-4)
    assert torch.allclose(tap.std(dim=(0, 3)), torch.ones(1, 257), atol=1e-3)


def test_same_seed_same_weights_without_disturbing_the_global_generator():
    before = torch.random.get_rng_state()
    one, same, other = (weights_hash(recipe.untrained(seed=s)) for s in (3, 3, 4))
    assert one == same != other
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_utterance_scores_the_same_alone_and_in_a_batch(cm):
    with torch.no_grad():
        together = cm(noise())
        alone = torch.cat([cm(w[None]) for w in noise()])
        assert torch.allclose(together, alone, atol=1e-5)
        assert torch.equal(cm(noise()), together)  # no dropout in eval()


def test_weights_survive_the_disk(cm, tmp_path):
    save_weights(tmp_path / "lcnn.safetensors", cm)
    other = recipe.untrained(seed=9)
    load_weights(other, tmp_path / "lcnn.safetensors")
    assert weights_hash(other) == weights_hash(cm)


def test_the_names_of_the_weights_are_fixed():
    """Checkpoints in the wild carry them."""
    with torch.device("meta"):
        names = set(LCNN().state_dict())
    assert {"frontend.mean", "frontend.deviation", "backend.conv_1.weight", "backend.fc_32.bias"} <= names
    assert {n.split(".")[1] for n in names if n.startswith("backend")} == {
        *(f"conv_{n}" for n in (1, 4, 7, 11, 14, 17, 20, 23, 26)), *(f"norm_{n}" for n in (6, 10, 13, 19, 22, 25, 31)),
        "fc_29", "fc_32",
    }  # fmt: skip


def test_the_shipped_checkpoint_is_where_the_recipe_says():
    path = recipe.shipped()
    load_weights(recipe.untrained(seed=0), path)
    assert path.with_suffix(".json").is_file()


def test_the_shipped_checkpoint_gives_the_scores_it_always_gave():
    cm = recipe.untrained(seed=0).eval()
    load_weights(cm, recipe.shipped())
    time = torch.arange(32_000) / 16_000
    hum = sum(0.1 / k * torch.sin(2 * torch.pi * 110 * k * time) for k in range(1, 30))
    waves = torch.stack([hum, 0.1 * torch.sin(2 * torch.pi * 1_000 * time), 0.5 * hum * torch.sin(3 * time)])
    with torch.no_grad():
        scores = bonafide_log_odds(cm(waves), cm.classes)
    assert scores.tolist() == pytest.approx(GOLDEN, abs=1e-3)


def test_the_stc_recipe_is_the_published_table_at_its_own_size():
    with torch.device("meta"):
        cm = stc_lcnn()
    assert sum(p.numel() for p in cm.backend.parameters()) == 10_198_818
    assert cm.grid.shape(cm.n_samples) == (863, 600) and cm.n_samples == 77_870
    frequency, time = cm.axes
    assert (len(frequency), len(time)) == (863, 600) and frequency.edges[-1] == 8_000
    assert (cm.grid.window, cm.grid.n_fft, cm.grid.hop) == ("blackman", 1724, 130)
    assert stc.name == "lcnn-stc" and "863 x 600" in stc.paper and "xaibench train --cm lcnn-stc" in stc.obtain
    assert stc.shipped() is None and stc.build is stc_lcnn


def test_a_network_of_another_size_runs_and_says_its_axes():
    cm = stc.untrained(seed=0, n_samples=8_000, n_fft=256, hop=100).eval()
    assert [len(a) for a in cm.axes] == [129, 81]
    x = noise()[:, :8_000].clone().requires_grad_()
    tap = cm.frontend(x)
    assert tap.shape == (2, 1, 129, 81)
    cm(x)[:, 0].sum().backward()
    assert torch.isfinite(x.grad).all() and float(x.grad.abs().max()) > 0


def test_options_are_named_and_checked():
    assert recipe.options == dict(dropout=0.3, n_samples=32_000, n_fft=512, hop=160, window="hann")
    assert stc.options == dict(dropout=0.3, n_samples=77_870, n_fft=1724, hop=130, window="blackman")
    with pytest.raises(PluginError, match="no option bins"):
        recipe.untrained(seed=0, bins=863)
    with pytest.raises(XaibenchError, match="window must be hann, hamming or blackman"):
        recipe.untrained(seed=0, window="kaiser")


def test_the_default_network_of_a_seed_does_not_depend_on_how_it_is_asked_for():
    explicit = recipe.untrained(seed=3, n_samples=32_000, n_fft=512, hop=160, window="hann", dropout=0.3)
    assert weights_hash(explicit) == weights_hash(recipe.untrained(seed=3))
