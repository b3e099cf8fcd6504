"""Self-attention spelled out, for the duration of a block, whoever wrote it.

    A = softmax(Q K^T / sqrt(d) + mask)        weights (B, heads, n, n), rows are queries and sum to 1
    O = A V

Within the block, torch's fused functions `scaled_dot_product_attention` and `multi_head_attention_forward` are computed by
these two lines, so that the weights exist, have gradients, and can be given rules. A `TorchFunctionMode` sees every call
of torch in the thread; no module is patched, and leaving the block, by an exception too, restores everything. The fused
paths of `nn.MultiheadAttention` and `nn.TransformerEncoderLayer` in eval mode, which would hide the weights, look for such
a mode themselves and step aside. A model of the transformers library may run in eager or in sdpa mode.

References: Vaswani et al., NeurIPS 2017, arXiv 1706.03762, Eq. 1.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from xaibench.errors import Unsupported

_MULTI_HEAD = inspect.signature(functional.multi_head_attention_forward)


class Spelled(TorchFunctionMode):
    """Base of what watches or changes attention: a child overrides `call`, which sees every other function of torch."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            with self:
                return scaled_dot_product(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            given = _MULTI_HEAD.bind(*args, **kwargs)
            given.apply_defaults()
            with self:
                return multi_head(given.arguments)
        return self.call(func, tuple(args), kwargs)

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Any function but the two: here as it is. The mode is off inside; `with self:` puts it on again."""
        return func(*args, **kwargs)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """The two lines above. Shape: `(..., n, d)`, `(..., m, d)`, `(..., m, e)` -> `(..., n, e)`, weights `(..., n, m)`.

    mask: added to the scores (float), or True where a query may look (bool).
    """
    scores = torch.matmul(query, key.transpose(-2, -1)) * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    weights = functional.softmax(scores, dim=-1)
    return torch.matmul(weights, value), weights


def scaled_dot_product(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """As `torch.nn.functional.scaled_dot_product_attention`, without dropout. Raises Unsupported with dropout."""
    if dropout_p > 0:
        raise Unsupported(f"attention with dropout {dropout_p} is random; a countermeasure in eval mode has none")
    if enable_gqa:
        key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], dim=-3) for t in (key, value))
    if is_causal:
        attn_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    return attend(query, key, value, attn_mask, query.shape[-1] ** -0.5 if scale is None else scale)[0]


def multi_head(given: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
    """As `torch.nn.functional.multi_head_attention_forward`, whose arguments `given` names, in eval mode.

    Raises Unsupported for extra keys and values (`bias_k`, `bias_v`, `add_zero_attn`, `static_k`, `static_v`).
    """
    extra = [n for n in ("bias_k", "bias_v", "static_k", "static_v") if given[n] is not None]
    if extra or given["add_zero_attn"]:
        raise Unsupported(f"multi-head attention with {', '.join(extra) or 'add_zero_attn'} has keys that are no token")
    streams = given["query"], given["key"], given["value"]
    batched = streams[0].ndim == 3
    if not batched:
        streams = tuple(t.unsqueeze(1) for t in streams)
    if given["use_separate_proj_weight"]:
        weights = given["q_proj_weight"], given["k_proj_weight"], given["v_proj_weight"]
    else:
        weights = given["in_proj_weight"].chunk(3)
    biases = (None,) * 3 if given["in_proj_bias"] is None else given["in_proj_bias"].chunk(3)
    heads = given["num_heads"]
    query, key, value = (  # (n, B, D) -> (B, heads, n, d)
        functional.linear(x, w, b).unflatten(-1, (heads, -1)).permute(1, 2, 0, 3)
        for x, w, b in zip(streams, weights, biases, strict=True)
    )
    mask = _blocked(given["attn_mask"], query)
    if mask is not None and mask.ndim == 3:  # (B * heads, n, m)
        mask = mask.unflatten(0, (-1, heads))
    padding = _blocked(given["key_padding_mask"], query)
    if padding is not None:
        padding = padding.reshape(query.shape[0], 1, 1, -1)
        mask = padding if mask is None else mask + padding
    result, seen = attend(query, key, value, mask, query.shape[-1] ** -0.5)
    result = result.permute(2, 0, 1, 3).flatten(2)
    result = functional.linear(result, given["out_proj_weight"], given["out_proj_bias"])
    seen = seen.mean(1) if given["average_attn_weights"] else seen
    if not batched:
        result, seen = result.squeeze(1), seen.squeeze(0)
    return result, seen if given["need_weights"] else None


def _blocked(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """A mask of multi-head attention, True where a query may *not* look, as what is added to the scores."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)
