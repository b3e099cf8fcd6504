"""Attributors that read attention weights: attention rollout and GATR.

`A_l` is the attention of layer l, `(heads, n, n)`, rows are queries; s is the spoof log-odds. A map says how much of each
token reaches the score. There is no [CLS] token here: frames are pooled after the transformer, so rows are averaged.

Axes. A token is a frame of the encoder (`View.attention_axes`), so a map has one cell of frequency, resolves time alone,
and lies on the encoder's own frames, 20 ms for wav2vec 2.0 and its stand-in; the harness spreads each frame's mass over the
cells that it covers. Whatever stands in front of the transformer is taken to keep time: a frame's convolutions hear some
tens of ms more. Tokens of a time-frequency grid resolve both axes.

Routes. Native and grid give the same map up to rounding: where the explained tensor lies does not change what attention did.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xaibench.errors import PluginError
from xaibench.protocols import attributor
from xaibench.types import Attribution
from xaibench.view import View

from .weights import Layer, attention, token_axes

FUSIONS = ("mean", "max", "min")
QUERIES = ("gradient", "uniform")


@attributor(
    name="attention-rollout",
    paper="Abnar and Zuidema, ACL 2020, arXiv 2005.00928, Eq. 1",
    needs=["attention"],
    signed=False,
    class_specific=False,
)
def attention_rollout(view: View, *, heads: str = "mean") -> Attribution:
    """How much of each frame attention carries to the last layer, whatever the score.

    `A'_l = normalised rows of (0.5 W_l + 0.5 I)`, `rollout = A'_L ... A'_1`, W_l the heads' mean (or `heads` max, min; then
    rows are brought to a sum of 1 again). The map is the mean over query rows, not the [CLS] row: the mean of the frames is
    what these countermeasures pool, nearly; it sums to 1. It never looks at the score, nor at what the values are.
    """
    if heads not in FUSIONS:
        raise PluginError(f"attention-rollout fuses heads by {', '.join(FUSIONS)}, got {heads!r}")
    parts = []
    for layers in attention(view, gradients=False):
        parts.append(rollout([_fused(layer.weights, heads) for layer in layers]).mean(1))
    return _on_tokens(view, torch.cat(parts))


@attributor(
    name="gatr",
    paper="Grinberg et al., ICASSP 2025, arXiv 2501.13887, in part; Chefer et al., ICCV 2021, arXiv 2103.15679, Eq. 5-6",
    needs=["gradients", "attention"],
    signed=False,
)
def gatr(view: View, *, queries: str = "gradient", identity: bool = False) -> Attribution:
    """Gradient Average Transformer Relevancy: attention where it raises the score, gathered over layers and frames.

    `Abar_l = mean over heads of (dS/dA_l * A_l)+`, `R = I`, then `R <- R + Abar_l R` for every layer from the input on
    (Chefer et al.). A frame's relevancy is the average of the rows of `R - I`, `sum_t w_t (R - I)_t`, each weighed by the
    gradient of its attention in the last layer: `w_t = mean over heads and keys of (dS/dA_L)+`, brought to a sum of 1
    (uniform where no gradient is positive; `queries="uniform"` takes the plain mean).

    I is taken away for two reasons. In the row of a [CLS] token, which Chefer et al. read, I only touches that token's own
    entry, which is dropped. And Abar is in units of the score, I is not: attention of one frame moves a score little, and
    with I left in (`identity=True`) the map is all but w. The README has the numbers of every reading.

    **UNVERIFIED**: the paper could not be read. Public summaries say that the update rule is the transformer relevancy of
    Chefer et al., that in want of a [CLS] token gradient-weighted averaging gives one relevancy a time step, and that
    gradients of the last layer's attention weigh it. That the weight is the mean of the positive part, and what becomes of
    I, is our reading. Evidence for bona fide is cut off by the positive part, not counted as negative.
    """
    if queries not in QUERIES:
        raise PluginError(f"gatr averages query rows by {', '.join(QUERIES)}, got {queries!r}")
    parts = []
    for layers in attention(view, gradients=True):
        relevancy = relevancies(layers)
        if not identity:
            relevancy = relevancy - torch.eye(relevancy.shape[-1]).to(relevancy)
        weights = _query_weights(layers[-1], uniform=queries == "uniform")
        parts.append((weights.unsqueeze(1) @ relevancy).squeeze(1))
    return _on_tokens(view, torch.cat(parts))


def rollout(layers: Sequence[Tensor]) -> Tensor:
    """The product of layers `(B, n, n)`, each mixed with the residual connection. Rows sum to 1.

    >>> rollout([torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])]).tolist()
    [[[0.5, 0.5], [0.5, 0.5]]]
    """
    result = torch.eye(layers[0].shape[-1]).to(layers[0])
    identity = result
    for weights in layers:
        mixed = 0.5 * weights + 0.5 * identity
        result = (mixed / mixed.sum(-1, keepdim=True)) @ result
    return result


def relevancies(layers: Sequence[Layer]) -> Tensor:
    """R of Chefer et al., Eq. 5-6, after the last layer. Shape: `(B, n, n)`, rows are queries."""
    result = torch.eye(layers[0].weights.shape[-1]).to(layers[0].weights)
    for layer in layers:
        result = result + (layer.slope * layer.weights).clamp_min(0).mean(1) @ result
    return result.expand(len(layers[0].weights), -1, -1)


def _query_weights(last: Layer, *, uniform: bool) -> Tensor:
    """`(B, n)`, rows sum to 1."""
    rising = last.slope.clamp_min(0).mean(dim=(1, 3))
    total = rising.sum(1, keepdim=True)
    even = torch.full_like(rising, 1 / rising.shape[1])
    if uniform:
        return even
    return torch.where(total > 0, rising / total.clamp_min(torch.finfo(total.dtype).tiny), even)


def _fused(weights: Tensor, heads: str) -> Tensor:
    return weights.mean(1) if heads == "mean" else getattr(weights, f"a{heads}")(1)


def _on_tokens(view: View, values: Tensor) -> Attribution:
    frequency, time = token_axes(view)
    resolves = frozenset(axis.kind for axis in (frequency, time) if len(axis) > 1)
    return Attribution(values.unflatten(1, (len(frequency), len(time))), frequency, time, resolves)
