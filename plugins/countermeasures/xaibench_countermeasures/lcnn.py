"""LCNN, the light convolutional network with Max-Feature-Map of the STC system.

Lavrentyeva et al., "STC Antispoofing Systems for the ASVspoof2019 Challenge", Interspeech 2019 (arXiv 1904.05576),
Table 1: layer numbers in the code below are the table's. Same padding everywhere; the table's 863 x 600 input gives
10,198,818 parameters, a 60 x 750 LFCC input 865,058.

Departures, each a decision: dropout stands before the last batch normalisation; the loss is cross-entropy instead of
A-softmax; the front end is the benchmark's own STFT (257 x 201 for two seconds at 16 kHz) with per-band normalisation;
the dropout rate is 0.3 and torch's default initialisation is kept: with 0.75 and Kaiming initialisation the network stayed
at chance for 600 steps of 24 two-second excerpts of minivoc (loss 0.68), without them it left it within 75.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from xaibench.frontends import LogPower
from xaibench.grid import Grid
from xaibench.layers import MaxFeatureMap
from xaibench.types import Axis


def lcnn_backend(bins: int, frames: int, *, classes: int = 2, dropout: float = 0.3) -> nn.Sequential:
    """Table 1 for an input `(B, 1, bins, frames)`; returns logits `(B, classes)`."""
    modules: list[tuple[str, nn.Module]] = []

    def convolution(number: int, size: int, inputs: int, outputs: int) -> None:
        modules.append((f"conv_{number}", nn.Conv2d(inputs, 2 * outputs, size, padding=size // 2)))
        modules.append((f"mfm_{number + 1}", MaxFeatureMap()))

    def pool(number: int) -> None:
        modules.append((f"pool_{number}", nn.MaxPool2d(2, 2)))

    def norm(number: int, channels: int) -> None:
        modules.append((f"norm_{number}", nn.BatchNorm2d(channels)))

    convolution(1, 5, 1, 32)
    pool(3)
    convolution(4, 1, 32, 32)
    norm(6, 32)
    convolution(7, 3, 32, 48)
    pool(9)
    norm(10, 48)
    convolution(11, 1, 48, 48)
    norm(13, 48)
    convolution(14, 3, 48, 64)
    pool(16)
    convolution(17, 1, 64, 64)
    norm(19, 64)
    convolution(20, 3, 64, 32)
    norm(22, 32)
    convolution(23, 1, 32, 32)
    norm(25, 32)
    convolution(26, 3, 32, 32)
    pool(28)
    modules += [
        ("flatten", nn.Flatten()),
        ("fc_29", nn.Linear(32 * (bins // 16) * (frames // 16), 160)),
        ("mfm_30", MaxFeatureMap()),
        ("dropout", nn.Dropout(dropout)),
        ("norm_31", nn.BatchNorm1d(80)),
        ("fc_32", nn.Linear(80, classes)),
    ]
    return nn.Sequential(OrderedDict(modules))


class LCNN(nn.Module):
    """The countermeasure: log-power STFT, then Table 1. Shape: `(B, n_samples)` -> `(B, 2)`, classes spoof, bonafide.

    >>> LCNN().eval()(torch.zeros(1, 32_000)).shape
    torch.Size([1, 2])
    """

    sample_rate = 16_000
    n_samples = 32_000
    classes = ("spoof", "bonafide")

    def __init__(self, *, dropout: float = 0.3) -> None:
        super().__init__()
        self.grid = Grid()
        self.frontend = LogPower(self.grid)
        self.backend = lcnn_backend(*self.grid.shape(self.n_samples), dropout=dropout)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.backend(self.frontend(waveform))

    @property
    def axes(self) -> tuple[Axis, Axis]:
        return self.grid.frequency, self.grid.time(self.n_samples)

    @property
    def mean_tap(self) -> Tensor:
        return torch.zeros_like(self.frontend.mean)[None, None]

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        return {name: m for name, m in self.backend.named_children() if name.startswith("mfm") and name != "mfm_30"}


class _Recipe:
    name = "lcnn"
    paper = "Lavrentyeva et al., Interspeech 2019, arXiv 1904.05576, Table 1"

    def untrained(self, *, seed: int) -> LCNN:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reach the GPUs, not restored here
            return LCNN()

    def shipped(self) -> Path | None:
        path = Path(__file__).parent / "checkpoints" / "lcnn.safetensors"
        return path if path.exists() else None


recipe = _Recipe()
