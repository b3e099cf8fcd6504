"""RawNet2, a residual network with a recurrent layer over the raw waveform.

Tak et al., "End-to-end anti-spoofing with RawNet2", ICASSP 2021 (arXiv 2011.01108), as the baseline of ASVspoof 2021
(asvspoof-challenge/2021, LA/Baseline-RawNet2/model.py), whose fixed mel-spaced sinc filters it takes.

    (B, 1, 1, N) -> 20 sinc filters of 1025 taps, |.|, max over 3 -> six residual blocks, each with a maximum over 3 and
    filter-wise feature map scaling (x * s + s, s one sigmoid a filter) -> GRU, last state -> two linear layers

With the baseline's sizes (`filters` 20 and 128, `gru_nodes` 1024 in 3 layers, `fc_nodes` 1024) it has 17,621,410
parameters. The default is a small one of 545,314: one recurrent layer of 128.

Kept as published, though they look like slips: the first normalisation of blocks 1 to 5 is computed there and thrown away
(`conv1` takes the block's input); here it is not computed, and its parameters are there for the checkpoints only. The
class order is that of the authors' labels and scores: 0 spoof, 1 bona fide.

Departures: the log-softmax at the end is left out, which changes neither the difference of the logits nor their
cross-entropy; convolutions are two-dimensional with kernels (1, k), so that every activation is `(B, C, 1, T)`; two
seconds instead of 64,600 samples (4 s) by default (any length of 3,211 samples and more is taken).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from xaibench.errors import XaibenchError
from xaibench.recipe import Recipe
from xaibench_countermeasures.sinc import GENTLE, Sinc, WaveformCountermeasure

TAPS = 1024  # of the sinc filters; Sinc makes it odd
BLOCKS = 6
N_MIN = 3**7 + TAPS  # one recurrent step after the seven poolings by three


class ResidualBlock(nn.Module):
    """Shape: `(B, in, 1, T)` -> `(B, out, 1, T // 3)`."""

    def __init__(self, inputs: int, outputs: int, *, first: bool) -> None:
        super().__init__()
        if not first:
            self.bn1 = nn.BatchNorm2d(inputs)  # unused, see the module
        self.conv1 = nn.Conv2d(inputs, outputs, (1, 3), padding=(0, 1))
        self.bn2 = nn.BatchNorm2d(outputs)
        self.lrelu = nn.LeakyReLU(0.3)
        self.conv2 = nn.Conv2d(outputs, outputs, (1, 3), padding=(0, 1))
        self.conv_downsample = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None
        self.mp = nn.MaxPool2d((1, 3))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.conv_downsample is None else self.conv_downsample(x)
        return self.mp(self.conv2(self.lrelu(self.bn2(self.conv1(x)))) + identity)


class FilterScaling(nn.Module):
    """Filter-wise feature map scaling: `x * s + s`, s = sigmoid(linear(mean of x over time)). Shape: `(B, C, 1, T)` kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.average = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, channels)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        s = self.sigmoid(self.linear(self.average(x).flatten(1)))[:, :, None, None]
        return x * s + s


class LastState(nn.Module):
    """A GRU read at its last step: one tensor, where `nn.GRU` gives two. Shape: `(B, C, 1, T)` -> `(B, H)`."""

    def __init__(self, inputs: int, nodes: int, layers: int) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, nodes, num_layers=layers, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.flatten(2).transpose(1, 2).contiguous()
        if self.training or not x.is_cuda:
            return self.gru(steps)[0][:, -1]
        # cuDNN's recurrent layers have no backward pass in eval(), which gradient attributions need.
        with torch.backends.cudnn.flags(enabled=False):
            return self.gru(steps)[0][:, -1]


class RawNet2Backend(nn.Module):
    """Everything after the tap. Shape: `(B, 1, 1, N)` -> logits `(B, 2)`: spoof, bona fide."""

    def __init__(self, filters: tuple[int, int], gru_nodes: int, gru_layers: int, fc_nodes: int) -> None:
        super().__init__()
        narrow, wide = filters
        self.sinc = Sinc(narrow, TAPS)
        self.pool = nn.MaxPool2d((1, 3))
        self.first_bn = nn.BatchNorm2d(narrow)
        self.selu = nn.SELU()
        channels = (narrow, narrow, narrow, wide, wide, wide, wide)
        for number in range(BLOCKS):
            self.add_module(f"block{number}", ResidualBlock(*channels[number : number + 2], first=number == 0))
            self.add_module(f"scaling{number}", FilterScaling(channels[number + 1]))
        self.bn_before_gru = nn.BatchNorm2d(wide)
        self.selu_before_gru = nn.SELU()
        self.recurrent = LastState(wide, gru_nodes, gru_layers)
        self.fc1 = nn.Linear(gru_nodes, fc_nodes)
        self.fc2 = nn.Linear(fc_nodes, 2)

    def forward(self, tap: Tensor) -> Tensor:
        if tap.shape[-1] < N_MIN:
            raise XaibenchError(f"RawNet2 takes {N_MIN:,} samples (0.2 s) and more, got {tap.shape[-1]:,}")
        # (B, 1, filters, T) -> (B, filters, 1, T)
        x = self.selu(self.first_bn(self.pool(self.sinc(tap).abs()).transpose(1, 2)))
        for number in range(BLOCKS):
            x = getattr(self, f"scaling{number}")(getattr(self, f"block{number}")(x))
        x = self.recurrent(self.selu_before_gru(self.bn_before_gru(x)))
        return self.fc2(self.fc1(x))


class RawNet2(WaveformCountermeasure):
    """The countermeasure. Shape: `(B, N)` -> `(B, 2)`, classes spoof, bonafide.

    filters:    channels of the first two and of the last four blocks; the first is the number of sinc filters, too.
    gru_nodes, gru_layers, fc_nodes: 1024, 3 and 1024 in the baseline.
    n_samples:  what the harness cuts or repeats to; 64,600 in the literature.

    >>> RawNet2().eval()(torch.zeros(1, 32_000)).shape
    torch.Size([1, 2])
    """

    backend: RawNet2Backend
    layers_resolve = frozenset({"time"})
    module_rules = False  # no attribution library has a rule for a GRU

    def __init__(
        self,
        *,
        filters: tuple[int, int] = (20, 128),
        gru_nodes: int = 128,
        gru_layers: int = 1,
        fc_nodes: int = 128,
        n_samples: int = 32_000,
    ) -> None:
        super().__init__(n_samples, RawNet2Backend(filters, gru_nodes, gru_layers, fc_nodes))

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        names = [f"scaling{number}" for number in range(BLOCKS)]
        return {name: self.backend.get_submodule(name) for name in names}


def _convert(path: Path, out: Path) -> Path:
    from xaibench_countermeasures.raw_weights import convert_rawnet2

    return convert_rawnet2(path, out)


recipe = Recipe(
    name="rawnet2",
    paper="Tak et al., ICASSP 2021, arXiv 2011.01108; baseline of ASVspoof 2021",
    build=RawNet2,
    folder=Path(__file__).parent / "checkpoints",
    training={"epochs": 40, "batch_pairs": 8, "learning_rate": 1e-3, "crop_seconds": 2.0, **GENTLE},
    convert=_convert,
    obtain="make them with `xaibench train --cm rawnet2`, or read the authors' with `xaibench convert rawnet2 FILE`",
)
