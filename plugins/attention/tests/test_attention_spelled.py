"""Attention spelled out equals torch's own, whichever way it is called, and the weights are seen whoever computes them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from xaibench_attention.attnlrp import attnlrp
from xaibench_attention.maps import attention_rollout, gatr
from xaibench_attention.spelled import Spelled
from xaibench_attention.weights import attention

from xaibench.errors import Unsupported
from xaibench.testing.toys import GRID, SHAPE, AttentionToy, utterances, view_of
from xaibench.types import Axis
from xaibench.view import grid_view, native_view

BATCH, TOKENS, DIMENSION, HEADS = 3, 7, 8, 2


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def causal() -> Tensor:
    return torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": ~causal()},
        {"attn_mask": draw(BATCH, 1, TOKENS, TOKENS, seed=9)},
    ],
    ids=["plain", "scale", "causal", "bool mask", "float mask"],
)
def test_scaled_dot_product(options: dict) -> None:
    query, key, value = (draw(BATCH, HEADS, TOKENS, 4, seed=i) for i in range(3))
    own = functional.scaled_dot_product_attention(query, key, value, **options)
    with Spelled():
        spelled = functional.scaled_dot_product_attention(query, key, value, **options)
    assert torch.allclose(own, spelled, atol=1e-6)


def test_grouped_queries() -> None:
    query, key, value = draw(1, 4, TOKENS, 4), draw(1, 2, TOKENS, 4, seed=1), draw(1, 2, TOKENS, 4, seed=2)
    own = functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    with Spelled():
        assert torch.allclose(own, functional.scaled_dot_product_attention(query, key, value, enable_gqa=True), atol=1e-6)


def layer(**options: object) -> nn.MultiheadAttention:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = nn.MultiheadAttention(DIMENSION, HEADS, **options).eval()
        for bias in (made.in_proj_bias, made.out_proj.bias):
            if bias is not None:
                nn.init.normal_(bias)
    return made


PADDING = torch.arange(TOKENS) >= torch.tensor([[TOKENS], [5], [3]])


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"batch_first": True}, {}),
        ({"batch_first": False}, {"average_attn_weights": False}),
        ({"batch_first": True, "bias": False}, {"attn_mask": causal()}),
        ({"batch_first": True}, {"attn_mask": draw(BATCH * HEADS, TOKENS, TOKENS, seed=4)}),
        ({"batch_first": True}, {"key_padding_mask": PADDING}),
        ({"batch_first": True}, {"key_padding_mask": PADDING, "attn_mask": causal(), "is_causal": True}),
        ({"batch_first": True, "kdim": 5, "vdim": 6}, {}),
    ],
    ids=["plain", "time first", "causal", "mask a head", "padding", "both masks", "other keys"],
)
@pytest.mark.parametrize("weights", [True, False], ids=["weights", "none"])
@pytest.mark.parametrize("gradients", [True, False], ids=["gradients", "fast path"])
def test_multi_head(options: dict, asked: dict, weights: bool, gradients: bool) -> None:
    module = layer(**options)
    size = (BATCH, TOKENS) if options["batch_first"] else (TOKENS, BATCH)
    query = draw(*size, DIMENSION)
    key, value = (query, query) if "kdim" not in options else (draw(*size, 5, seed=1), draw(*size, 6, seed=2))
    with torch.set_grad_enabled(gradients):
        own = module(query, key, value, need_weights=weights, **asked)
        with Spelled():
            spelled = module(query, key, value, need_weights=weights, **asked)
    assert torch.allclose(own[0], spelled[0], atol=1e-5)
    assert (own[1] is None) == (spelled[1] is None) == (not weights)
    if weights:
        assert own[1].shape == spelled[1].shape and torch.allclose(own[1], spelled[1], atol=1e-6)


def test_multi_head_without_a_batch() -> None:
    module, query = layer(), draw(TOKENS, DIMENSION)
    own = module(query, query, query)
    with Spelled():
        spelled = module(query, query, query)
    assert all(a.shape == b.shape and torch.allclose(a, b, atol=1e-6) for a, b in zip(own, spelled, strict=True))


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}], ids=["bias_kv", "zero_attn"])
def test_keys_that_are_no_token_are_refused(options: dict) -> None:
    module, query = layer(**options), draw(TOKENS, BATCH, DIMENSION)
    with pytest.raises(Unsupported, match="keys that are no token"), Spelled():
        module(query, query, query)


def test_dropout_in_attention_is_refused() -> None:
    query = draw(1, 1, TOKENS, 4)
    with pytest.raises(Unsupported, match=r"dropout 0\.1 is random"), Spelled():
        functional.scaled_dot_product_attention(query, query, query, dropout_p=0.1)


def test_torch_s_own_layers_show_their_weights_in_eval_mode() -> None:
    """Their fast path, taken here without gradients, has none to show; the scores stay those of the fast path."""
    view = view_of(AttentionToy(), rows=(0,))
    block = view.model.backend
    with torch.no_grad():
        fused = view.model(view.inputs)
        frames = block.embed(view.inputs[:, 0].transpose(1, 2))
        first = block.layers[0]
        normed = first.norm1(frames)
        _, expected = first.self_attn(normed, normed, normed, need_weights=True, average_attn_weights=False)
    (layers,) = attention(view, gradients=False)
    assert torch.allclose(layers[0].weights, expected, atol=1e-6)
    with torch.no_grad(), Spelled():
        assert torch.allclose(view.model(view.inputs), fused, atol=1e-5)


@pytest.fixture(scope="module")
def wav2vec2():
    """A wav2vec 2.0 with random weights on 1,600 samples: 4 frames of 20 ms."""
    transformers = pytest.importorskip("transformers")
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, feat_extract_norm="layer", do_stable_layer_norm=True,
        conv_bias=True, apply_spec_augment=False, initializer_range=0.5,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.Wav2Vec2Model(config).eval()


class Frames(nn.Module):
    """Waveform `(B, N)` -> last hidden state as a tap `(B, D, 1, T)`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, waveform: Tensor) -> Tensor:
        return self.model(waveform).last_hidden_state.transpose(1, 2).unsqueeze(2)


class Third(AttentionToy):
    """A countermeasure as a third party would write it, on a model of the transformers library."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.frontend = Frames(model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.backend = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))

    axes = property(lambda self: (Axis("frequency", [0, 8_000]), Axis("time", [0, 0.02, 0.04, 0.06, 0.1])))
    attentions = property(lambda self: {str(i): each.attention for i, each in enumerate(self.frontend.model.encoder.layers)})


@pytest.mark.heavy  # half a minute, to import transformers
def test_a_model_of_the_transformers_library_is_read_in_eager_and_in_sdpa_mode(wav2vec2) -> None:
    found = {}
    for mode in ("eager", "sdpa"):
        wav2vec2.set_attn_implementation(mode)
        speech, _ = utterances((0, 1))
        view = native_view(Third(wav2vec2), speech, None, speech, ["a", "b"])
        found[mode] = attention_rollout(view).values, gatr(view).values
        (layers,) = attention(replace(view, batch_size=2), gradients=False)
        relevance = attnlrp(grid_view(Third(wav2vec2), speech, None, speech, ["a", "b"], grid=GRID)).values
        assert relevance.shape == (2, *SHAPE) and relevance.isfinite().all() and relevance.std() > 0
        if mode == "eager":
            own = wav2vec2(view.recordings, output_attentions=True).attentions
            assert len(own) == len(layers) == 2
            assert all(torch.allclose(a, b.weights, atol=1e-6) for a, b in zip(own, layers, strict=True))
    for eager, sdpa in zip(found["eager"], found["sdpa"], strict=True):
        assert torch.allclose(eager, sdpa, rtol=1e-4, atol=1e-7) and eager.shape == (2, 1, 4)
