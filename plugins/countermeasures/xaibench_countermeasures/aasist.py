"""AASIST, a graph attention network over the raw waveform.

Jung et al., "AASIST: Audio Anti-Spoofing using Integrated Spectro-Temporal Graph Attention Networks", ICASSP 2022
(arXiv 2110.01200), after the authors' code (clovaai/aasist, models/AASIST.py; MIT licence), whose names the parameters
carry: every name of a published checkpoint is ours after `backend.`. AASIST has 297,866 parameters, AASIST-L 85,306.

    (B, 1, 1, N) -> 70 fixed sinc filters, |.|, max over 3 x 3 -> (B, 1, 23, T) -> six residual blocks -> (B, C, 23, T')
    -> |.|, max over time: 23 spectral nodes; max over frequency: T' temporal nodes -> graph attention, graph pooling,
    two branches of two heterogeneous layers with a master node, their maximum -> five vectors -> logits

Kept as published, though they look like slips: the first normalisation of blocks 2 to 6 is computed there and thrown
away (`conv1` takes the block's input); here it is not computed, and its parameters are there for the checkpoints only.
The class order is that of the authors' labels and scores: 0 spoof, 1 bona fide.

Departures: two seconds instead of 64,600 samples (4 s) by default, and any length from 2,315 samples on is taken, since no
parameter depends on it; nothing works in place. The random mask over filters is an option (`filter_mask`), off as in both
published configurations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from xaibench.errors import XaibenchError
from xaibench.recipe import Recipe
from xaibench_countermeasures.sinc import GENTLE, Sinc, WaveformCountermeasure

FILTERS, TAPS = 70, 128  # sinc filters and their length, which Sinc makes odd
NODES_S = FILTERS // 3  # spectral nodes

#: Activations of this many values an excerpt are computed excerpt by excerpt on a CPU outside training: four excerpts of
#: two seconds take 0.54 s of the first block instead of 1.2 s (one core), most of which was fresh memory.
LARGE = 2_000_000


@dataclass(frozen=True)
class Size:
    """The numbers of a configuration file of the authors (config/AASIST.conf, config/AASIST-L.conf)."""

    channels: tuple[int, ...]  # of the six residual blocks
    gat_dims: tuple[int, int]  # first graph layers, heterogeneous graph layers
    pool_ratios: tuple[float, float, float]  # share of nodes kept: spectral, temporal, heterogeneous
    temperatures: tuple[float, float, float] = (2.0, 2.0, 100.0)  # of the attention: spectral, temporal, heterogeneous


SIZES = {
    "full": Size((32, 32, 64, 64, 64, 64), (64, 32), (0.5, 0.7, 0.5)),
    "l": Size((32, 32, 24, 24, 24, 24), (24, 32), (0.4, 0.5, 0.7)),
}


class ResidualBlock(nn.Module):
    """Shape: `(B, in, F, T)` -> `(B, out, F, T // 3)`."""

    def __init__(self, inputs: int, outputs: int, *, first: bool) -> None:
        super().__init__()
        if not first:
            self.bn1 = nn.BatchNorm2d(inputs)  # unused, see the module
        self.conv1 = nn.Conv2d(inputs, outputs, (2, 3), padding=(1, 1))
        self.bn2 = nn.BatchNorm2d(outputs)
        self.selu = nn.SELU()
        self.conv2 = nn.Conv2d(outputs, outputs, (2, 3), padding=(0, 1))
        self.conv_downsample = None
        if inputs != outputs:
            self.conv_downsample = nn.Conv2d(inputs, outputs, (1, 3), padding=(0, 1))
        self.mp = nn.MaxPool2d((1, 3))

    def forward(self, x: Tensor) -> Tensor:
        if self.training or x.is_cuda or x[0, 0].numel() * self.conv1.out_channels < LARGE:
            return self._together(x)
        return torch.cat([self._together(part) for part in x.split(1)])

    def _together(self, x: Tensor) -> Tensor:
        identity = x if self.conv_downsample is None else self.conv_downsample(x)
        return self.mp(self.conv2(self.selu(self.bn2(self.conv1(x)))) + identity)


def _attention_weight(size: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(size, 1)))


def _over_nodes(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Batch normalisation of `(B, nodes, D)` over batch and nodes."""
    return norm(x.flatten(0, 1)).view_as(x)


class GraphAttention(nn.Module):
    """Graph attention over one kind of nodes. Shape: `(B, n, D)` -> `(B, n, D')`."""

    def __init__(self, inputs: int, outputs: int, *, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.att_proj = nn.Linear(inputs, outputs)
        self.att_weight = _attention_weight(outputs)
        self.proj_with_att = nn.Linear(inputs, outputs)
        self.proj_without_att = nn.Linear(inputs, outputs)
        self.bn = nn.BatchNorm1d(outputs)
        self.input_drop = nn.Dropout(0.2)
        self.act = nn.SELU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_drop(x)
        pairs = torch.tanh(self.att_proj(x.unsqueeze(2) * x.unsqueeze(1)))  # (B, n, n, D')
        weights = torch.softmax((pairs @ self.att_weight).squeeze(-1) / self.temperature, dim=-1)
        return self.act(_over_nodes(self.bn, self.proj_with_att(weights @ x) + self.proj_without_att(x)))


class HeterogeneousAttention(nn.Module):
    """The heterogeneous stacking graph attention layer (Section 3.2).

    Temporal nodes `(B, n1, D)`, spectral nodes `(B, n2, D)` and the master node `(B or 1, 1, D)` -> the same three with D'
    features, the master `(B, 1, D')`. Attention within and across kinds has weights of its own; the master is told by all
    nodes and tells none.
    """

    def __init__(self, inputs: int, outputs: int, *, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.proj_type1 = nn.Linear(inputs, inputs)
        self.proj_type2 = nn.Linear(inputs, inputs)
        self.att_proj = nn.Linear(inputs, outputs)
        self.att_projM = nn.Linear(inputs, outputs)
        self.att_weight11 = _attention_weight(outputs)
        self.att_weight22 = _attention_weight(outputs)
        self.att_weight12 = _attention_weight(outputs)
        self.att_weightM = _attention_weight(outputs)
        self.proj_with_att = nn.Linear(inputs, outputs)
        self.proj_without_att = nn.Linear(inputs, outputs)
        self.proj_with_attM = nn.Linear(inputs, outputs)
        self.proj_without_attM = nn.Linear(inputs, outputs)
        self.bn = nn.BatchNorm1d(outputs)
        self.input_drop = nn.Dropout(0.2)
        self.act = nn.SELU()

    def _weights(self, x: Tensor, n1: int) -> Tensor:
        """How much node i listens to node j. Shape: `(B, n, D)` -> `(B, n, n)`, rows sum to 1."""
        pairs = torch.tanh(self.att_proj(x.unsqueeze(2) * x.unsqueeze(1)))
        same1, same2 = pairs[:, :n1, :n1] @ self.att_weight11, pairs[:, n1:, n1:] @ self.att_weight22
        cross12, cross21 = pairs[:, :n1, n1:] @ self.att_weight12, pairs[:, n1:, :n1] @ self.att_weight12
        rows = torch.cat([torch.cat([same1, cross12], 2), torch.cat([cross21, same2], 2)], 1)
        return torch.softmax(rows.squeeze(-1) / self.temperature, dim=-1)

    def _master(self, x: Tensor, master: Tensor) -> Tensor:
        scores = torch.tanh(self.att_projM(x * master)) @ self.att_weightM  # (B, n, 1)
        told = torch.softmax(scores / self.temperature, dim=-2).transpose(1, 2) @ x
        return self.proj_with_attM(told) + self.proj_without_attM(master)

    def forward(self, x1: Tensor, x2: Tensor, master: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n1 = x1.shape[1]
        x = self.input_drop(torch.cat([self.proj_type1(x1), self.proj_type2(x2)], dim=1))
        master = self._master(x, master)
        mixed = self.proj_with_att(self._weights(x, n1) @ x) + self.proj_without_att(x)
        y = self.act(_over_nodes(self.bn, mixed))
        return y[:, :n1], y[:, n1:], master


class GraphPool(nn.Module):
    """The share `ratio` of the nodes, those with the highest learned score, times it. Shape: `(B, n, D)` -> `(B, k, D)`."""

    def __init__(self, ratio: float, size: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.proj = nn.Linear(size, 1)
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.sigmoid(self.proj(self.drop(x)))
        keep = max(int(x.shape[1] * self.ratio), 1)
        index = scores.topk(keep, dim=1).indices.expand(-1, -1, x.shape[2])
        return (x * scores).gather(1, index)


class AasistBackend(nn.Module):
    """Everything after the tap. Shape: `(B, 1, 1, N)` -> logits `(B, 2)`: spoof, bona fide."""

    def __init__(self, size: Size, *, filter_mask: int = 0) -> None:
        super().__init__()
        first, second = size.gat_dims
        self.conv_time = Sinc(FILTERS, TAPS, filter_mask=filter_mask)
        self.pool_time = nn.MaxPool2d(3)
        self.first_bn = nn.BatchNorm2d(1)
        self.selu = nn.SELU()
        inputs = (1, *size.channels)
        blocks = [ResidualBlock(i, o, first=i == 1) for i, o in zip(inputs, size.channels, strict=False)]
        self.encoder = nn.Sequential(*(nn.Sequential(block) for block in blocks))
        self.encoder.to(memory_format=torch.channels_last)  # twice as fast on a CPU, the same result
        last = size.channels[-1]
        self.pos_S = nn.Parameter(torch.randn(1, NODES_S, last))
        self.master1 = nn.Parameter(torch.randn(1, 1, first))
        self.master2 = nn.Parameter(torch.randn(1, 1, first))
        temperature_s, temperature_t, temperature = size.temperatures
        self.GAT_layer_S = GraphAttention(last, first, temperature=temperature_s)
        self.GAT_layer_T = GraphAttention(last, first, temperature=temperature_t)
        self.HtrgGAT_layer_ST11 = HeterogeneousAttention(first, second, temperature=temperature)
        self.HtrgGAT_layer_ST12 = HeterogeneousAttention(second, second, temperature=temperature)
        self.HtrgGAT_layer_ST21 = HeterogeneousAttention(first, second, temperature=temperature)
        self.HtrgGAT_layer_ST22 = HeterogeneousAttention(second, second, temperature=temperature)
        ratio_s, ratio_t, ratio = size.pool_ratios
        self.pool_S = GraphPool(ratio_s, first)
        self.pool_T = GraphPool(ratio_t, first)
        self.pool_hS1 = GraphPool(ratio, second)
        self.pool_hT1 = GraphPool(ratio, second)
        self.pool_hS2 = GraphPool(ratio, second)
        self.pool_hT2 = GraphPool(ratio, second)
        self.drop_way = nn.Dropout(0.2)
        self.drop = nn.Dropout(0.5)
        self.out_layer = nn.Linear(5 * second, 2)

    def spectrum(self, tap: Tensor) -> Tensor:
        """What the encoder reads. Shape: `(B, 1, 1, N)` -> `(B, 1, 23, (N - 128) // 3)`."""
        if tap.shape[-1] < N_MIN:
            raise XaibenchError(f"AASIST takes {N_MIN:,} samples (0.14 s) and more, got {tap.shape[-1]:,}")
        return self.selu(self.first_bn(self.pool_time(self.conv_time(tap).abs())))

    def forward(self, tap: Tensor) -> Tensor:
        e = self.encoder(self.spectrum(tap)).abs()
        spectral = self.pool_S(self.GAT_layer_S(e.amax(3).transpose(1, 2) + self.pos_S))
        temporal = self.pool_T(self.GAT_layer_T(e.amax(2).transpose(1, 2)))
        t1, s1, m1 = self._branch(temporal, spectral, 1)
        t2, s2, m2 = self._branch(temporal, spectral, 2)
        t, s, m = torch.maximum(t1, t2), torch.maximum(s1, s2), torch.maximum(m1, m2)
        readout = torch.cat([t.abs().amax(1), t.mean(1), s.abs().amax(1), s.mean(1), m.squeeze(1)], dim=1)
        return self.out_layer(self.drop(readout))

    def _branch(self, temporal: Tensor, spectral: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
        first = getattr(self, f"HtrgGAT_layer_ST{number}1")
        second = getattr(self, f"HtrgGAT_layer_ST{number}2")
        t, s, m = first(temporal, spectral, getattr(self, f"master{number}"))
        s, t = getattr(self, f"pool_hS{number}")(s), getattr(self, f"pool_hT{number}")(t)
        more_t, more_s, more_m = second(t, s, m)
        return self.drop_way(t + more_t), self.drop_way(s + more_s), self.drop_way(m + more_m)


N_MIN = 3**7 + TAPS  # one cell after the seven poolings by three


class Aasist(WaveformCountermeasure):
    """The countermeasure. Shape: `(B, N)` -> `(B, 2)`, classes spoof, bonafide.

    variant:     "full" (AASIST) or "l" (AASIST-L).
    n_samples:   what the harness cuts or repeats to; 64,600 in the literature.
    filter_mask: see `Sinc`; 20 in the authors' code where it is on.

    >>> Aasist().eval()(torch.zeros(1, 32_000)).shape
    torch.Size([1, 2])
    """

    backend: AasistBackend
    layers_resolve = frozenset({"time"})  # the 23 rows of a layer are equal on the mel scale, not in hertz
    module_rules = False  # the graph part is functional: no library has rules for it

    def __init__(self, *, variant: str = "l", n_samples: int = 32_000, filter_mask: int = 0) -> None:
        if variant not in SIZES:
            raise XaibenchError(f"aasist: variant is one of {', '.join(SIZES)}, got {variant!r}")
        super().__init__(n_samples, AasistBackend(SIZES[variant], filter_mask=filter_mask))
        self.variant = variant

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        return {f"block_{number}": block for number, block in enumerate(self.backend.encoder, start=1)}


def _convert(path: Path, out: Path) -> Path:
    from xaibench_countermeasures.raw_weights import convert_aasist

    return convert_aasist(path, out)


recipe = Recipe(
    name="aasist",
    paper="Jung et al., ICASSP 2022, arXiv 2110.01200",
    build=Aasist,
    folder=Path(__file__).parent / "checkpoints",
    training={"epochs": 24, "batch_pairs": 8, "learning_rate": 1e-3, "crop_seconds": 1.0, **GENTLE},
    convert=_convert,
    obtain="make them with `xaibench train --cm aasist`, or read the authors' with `xaibench convert aasist FILE`",
)
