"""The frame encoders: geometry, gradients, normalisation, and every way in which a folder can be wrong."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from xaibench_countermeasures.encoder import (
    HuggingFaceEncoder,
    SelfAttention,
    SmallEncoder,
    frame_axis,
    frame_encoder,
    mean_frame,
)

from xaibench.errors import CheckpointError, PluginError, XaibenchError


def noise(count: int = 2, n_samples: int = 8_000, *, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(count, n_samples, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def small() -> SmallEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = SmallEncoder()
    encoder.fit(noise(4))
    return encoder.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wav2vec 2.0 of XLS-R's geometry with random weights, as the transformers library saves it."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    path = tmp_path_factory.mktemp("wav2vec2")
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, feat_extract_norm="layer", do_stable_layer_norm=True,
        conv_bias=True, mask_time_prob=0.5, layerdrop=0.0, hidden_dropout=0.0, attention_dropout=0.0,
        activation_dropout=0.0, feat_proj_dropout=0.0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Wav2Vec2Model(config).save_pretrained(path, safe_serialization=True)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(path)
    return path


def copied(folder: Path, to: Path, *, without: tuple[str, ...] = ()) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        if file.name not in without:
            (to / file.name).write_bytes(file.read_bytes())
    return to


# ---------------------------------------------------------------------------------------------------------- geometry


def test_frame_cells_lie_around_their_centres_and_reach_to_the_ends():
    axis = frame_axis(5, 320, 199.5, 2_000)
    assert np.allclose(axis.edges * 16_000, [0, 359.5, 679.5, 999.5, 1319.5, 2_000])
    assert np.allclose(axis.centres[1:-1] * 16_000, [519.5, 839.5, 1159.5])


@pytest.mark.parametrize("n_samples", [257, 319, 320, 8_000, 31_999, 32_000, 64_600])
def test_any_length_gives_the_declared_frames(small, n_samples):
    with torch.no_grad():
        frames = small(noise(1, n_samples))
    assert frames.shape == (1, 128, 1, small.frames(n_samples))
    axis = small.time(n_samples)
    assert len(axis) == small.frames(n_samples) and axis.edges[0] == 0
    assert axis.edges[-1] >= n_samples / 16_000


@pytest.mark.parametrize("frame", [3, 11, 20])
def test_a_click_moves_the_frame_centred_on_it_the_most(small, frame):
    """Before attention mixes the frames."""
    quiet = noise(1) * 0.01
    click = quiet.clone()
    click[0, frame * small.hop] += 0.5
    with torch.no_grad():
        change = small.convolutions(small.spectrum(click)) - small.convolutions(small.spectrum(quiet))
    # relu and the STFT window spread the click; its centre of mass stays
    strength = change.abs().sum((0, 1, 2))
    assert round(float((strength * torch.arange(len(strength))).sum() / strength.sum())) == frame
    assert small.time(8_000).centres[frame] == pytest.approx(frame * 0.02)


def test_it_is_small_and_learns_every_layer(small):
    assert sum(p.numel() for p in small.parameters()) < 1_200_000
    encoder = copy.deepcopy(small).train()
    encoder(noise(1)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


def test_features_are_differentiable_down_to_the_waveform_in_eval(small):
    wave = noise(1).requires_grad_()
    small(wave)[0, 0].sum().backward()
    assert torch.isfinite(wave.grad).all() and float(wave.grad.abs().max()) > 0


def test_an_utterance_is_the_same_alone_and_in_a_batch(small):
    with torch.no_grad():
        together = small(noise(3))
        alone = torch.cat([small(wave[None]) for wave in noise(3)])
        assert torch.allclose(together, alone, atol=1e-5)
        assert torch.equal(small(noise(3)), together)  # no dropout in eval()


def test_fit_brings_every_band_to_zero_mean_and_unit_deviation(small):
    with torch.no_grad():
        z = small.spectrum(noise(4))
    assert torch.allclose(z.mean((0, 1, 3)), torch.zeros(257), atol=1e-4)
    assert torch.allclose(z.std((0, 1, 3)), torch.ones(257), atol=1e-3)


def test_the_logarithm_keeps_its_digits_under_autocast(small):
    seen: list[Tensor] = []
    hook = small.convolutions.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        small(noise(1))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            small(noise(1))
    hook.remove()
    assert seen[1].dtype == torch.float32 and torch.equal(seen[0], seen[1])


# --------------------------------------------------------------------------------------------------------- attention


def test_attention_is_that_of_torch():
    torch.manual_seed(0)
    ours, theirs = SelfAttention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.project.weight)
        theirs.in_proj_bias.copy_(ours.project.bias.normal_())
        theirs.out_proj.weight.copy_(ours.output.weight)
        theirs.out_proj.bias.copy_(ours.output.bias.normal_())
        x = torch.randn(2, 7, 12)
        assert torch.allclose(ours(x), theirs(x, x, x, need_weights=False)[0], atol=1e-5)


def test_attention_weights_can_be_hooked_in_eval_without_gradients(small):
    seen: list[Tensor] = []
    hooks = [layer.attend.attention.register_forward_hook(lambda _m, _i, out: seen.append(out)) for layer in small.layers]
    with torch.no_grad():
        small(noise(2))
    for hook in hooks:
        hook.remove()
    assert [w.shape for w in seen] == [(2, 4, 26, 26)] * 2
    assert torch.allclose(seen[0].sum(-1), torch.ones(2, 4, 26), atol=1e-5)


def test_heads_must_share_the_features_evenly():
    with pytest.raises(PluginError, match="10 features cannot be shared by 4 heads"):
        SelfAttention(10, 4)


def test_the_mean_frame_is_the_mean_over_utterances_and_time_whatever_the_batch(small):
    with torch.no_grad():
        expected = small(noise(5)).mean((0, 3))
    for batch_size in (2, 5):
        found = mean_frame(small, noise(5), batch_size=batch_size)
        assert found.shape == (1, 128, 1, 1) and torch.allclose(found.flatten(), expected.flatten(), atol=1e-5)


# ----------------------------------------------------------------------------------------------- wav2vec 2.0, a folder


def test_the_folder_gives_the_last_hidden_state_of_each_utterance_as_transformers_computes_it(folder):
    from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model

    encoder = frame_encoder(str(folder)).eval()
    assert isinstance(encoder, HuggingFaceEncoder)
    extract, model = Wav2Vec2FeatureExtractor.from_pretrained(folder), Wav2Vec2Model.from_pretrained(folder).eval()
    waves = noise(2) + torch.tensor([[0.3], [-0.1]])  # an offset that normalisation has to remove
    with torch.no_grad():
        found = encoder(waves)
        for wave, features in zip(waves, found, strict=True):
            values = extract(wave.numpy(), sampling_rate=16_000, return_tensors="pt").input_values
            assert torch.allclose(features[:, 0].T, model(values).last_hidden_state[0], atol=1e-4)


def test_normalisation_ignores_the_neighbours(folder):
    encoder = HuggingFaceEncoder(folder).eval()
    quiet, loud = noise(1), 30 * noise(1, seed=1) + 5
    with torch.no_grad():
        assert torch.allclose(encoder(torch.cat([quiet, loud]))[:1], encoder(quiet), atol=1e-4)


@pytest.mark.parametrize(
    ("written", "expected"), [({"do_normalize": False}, False), ({"do_normalize": True}, True), ({}, True)]
)
def test_the_preprocessor_says_whether_to_normalise(folder, tmp_path, written, expected):
    path = copied(folder, tmp_path / "copy")
    (path / "preprocessor_config.json").write_text(json.dumps(written))
    encoder = HuggingFaceEncoder(path).eval()
    wave = noise(1)
    with torch.no_grad():
        assert torch.allclose(encoder(wave), encoder(4 * wave), atol=1e-4) == expected


def test_without_a_preprocessor_file_the_library_default_holds(folder, tmp_path):
    assert HuggingFaceEncoder(copied(folder, tmp_path / "copy", without=("preprocessor_config.json",))).normalize


def test_frames_and_centres_are_those_of_the_convolutions(folder):
    encoder = HuggingFaceEncoder(folder).eval()
    assert (encoder.field, encoder.hop, encoder.dimension) == (400, 320, 16)
    assert encoder.frames(64_600) == 201  # the literature's number
    wave = noise(1, 3_200).requires_grad_()
    encoder.model.feature_extractor(wave)[0, :, 4].sum().backward()
    reached = wave.grad[0].abs().nonzero()[:, 0]
    assert reached[0] >= 4 * 320 and reached[-1] < 4 * 320 + 400 and reached[-1] - reached[0] > 380
    with torch.no_grad():
        assert encoder(wave).shape == (1, 16, 1, encoder.frames(3_200))
    axis = encoder.time(3_200)
    assert axis.centres[4] * 16_000 == pytest.approx(4 * 320 + 199.5)
    assert (axis.edges[0], axis.edges[-1]) == (0, 0.2)


def test_fine_tuning_reaches_every_weight_and_draws_from_no_hidden_generator(folder):
    encoder = HuggingFaceEncoder(folder).train()
    state = np.random.get_state()[1].copy()
    first = encoder(noise(1, 16_000))
    assert torch.equal(encoder(noise(1, 16_000)), first)  # no masking of hidden states, though the folder asks for it
    assert np.array_equal(np.random.get_state()[1], state)
    first.square().sum().backward()
    lacking = [n for n, p in encoder.named_parameters() if p.grad is None]
    assert lacking in ([], ["model.masked_spec_embed"])


def test_half_precision_folders_compute_in_single_precision(folder, tmp_path):
    from transformers import Wav2Vec2Model

    Wav2Vec2Model.from_pretrained(folder).half().save_pretrained(tmp_path / "half", safe_serialization=True)
    encoder = HuggingFaceEncoder(tmp_path / "half").eval()
    with torch.no_grad():
        assert encoder(noise(1)).dtype == torch.float32


def test_a_folder_that_is_not_there_is_not_looked_for_elsewhere():
    with pytest.raises(CheckpointError, match=r"facebook/wav2vec2-xls-r-300m: no such folder.*nothing is downloaded"):
        HuggingFaceEncoder("facebook/wav2vec2-xls-r-300m")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, tmp_path, missing):
    with pytest.raises(CheckpointError, match=rf"{missing} is missing"):
        HuggingFaceEncoder(copied(folder, tmp_path / "copy", without=(missing,)))


def test_a_pickle_is_refused_by_name(folder, tmp_path):
    path = copied(folder, tmp_path / "copy", without=("model.safetensors",))
    (path / "pytorch_model.bin").write_bytes(b"never opened")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a pickle"):
        HuggingFaceEncoder(path)


@pytest.mark.parametrize(("text", "said"), [('{"model_type": "bert"}', "'bert'"), ("{", "damaged"), ("[]", "got list")])
def test_a_configuration_of_something_else_is_named(folder, tmp_path, text, said):
    path = copied(folder, tmp_path / "copy")
    (path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=said):
        HuggingFaceEncoder(path)


def test_damaged_weights_are_named(folder, tmp_path):
    path = copied(folder, tmp_path / "copy")
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"copy: transformers cannot load it"):
        HuggingFaceEncoder(path)


def test_weights_that_lack_a_tensor_are_not_filled_with_random_numbers(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    path = copied(folder, tmp_path / "copy")
    tensors = load_file(path / "model.safetensors")
    gone = next(name for name in tensors if name.endswith("feed_forward.output_dense.weight"))
    save_file({n: t for n, t in tensors.items() if n != gone}, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"lack 1 tensors.*{gone}"):
        HuggingFaceEncoder(path)


def test_without_transformers_the_message_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(PluginError, match=r"pip install 'xaibench-countermeasures\[ssl\]'"):
        HuggingFaceEncoder(folder)


def test_too_few_samples_are_refused(folder):
    with pytest.raises(XaibenchError, match="399 samples are too few for this encoder: at least 400"):
        HuggingFaceEncoder(folder).eval()(noise(1, 399))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 1 << 40}, "hidden_size"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_hidden_layers": 400}, "more than its files hold"),
        ({"conv_dim": [512] * 100_000}, "conv_dim"),
        ({"conv_stride": "x"}, "cannot load it"),
        ({"hidden_size": -16}, "cannot load it"),
        ({"hidden_act": "__import__"}, "cannot load it"),
        ({"auto_map": {"AutoModel": "evil--code.Model"}}, "auto_map"),
        ({"quantization_config": {"quant_method": "x"}}, "quantization_config"),
    ],
    ids=("wide", "deep", "400 layers", "many", "text", "negative", "a function", "code", "quantised"),
)
def test_a_configuration_of_an_enemy(folder, tmp_path, changes, said):
    path = copied(folder, tmp_path / "copy")
    known = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(known | changes))
    with pytest.raises(CheckpointError, match=said) as caught:
        HuggingFaceEncoder(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 1_000


@pytest.mark.parametrize("name", ["../away.safetensors", "/etc/passwd", "out/x.safetensors"])
def test_an_index_of_weights_stays_in_its_folder(folder, tmp_path, name):
    path = copied(folder, tmp_path / "copy")
    (path / "out").symlink_to(tmp_path)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="names a file elsewhere"):
        HuggingFaceEncoder(path)
