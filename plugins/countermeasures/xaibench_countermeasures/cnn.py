"""The plain convolutional network on a log-power spectrogram: the baseline that reports set beside a ResNet50.

No paper fixes this network. Reports that compare "a CNN" with ResNet50 on spectrograms mean a stack of convolution, batch
normalisation, ReLU and max-pooling; the depth, the widths and the rest are ours: five blocks of 3 x 3 convolutions with 8,
16, 48, 96 and 128 channels, the first four halved by max-pooling, global average pooling, dropout, one linear layer.

The pooling windows do not overlap and each follows its own ReLU, so every attribution library has a rule for every module.
Nothing but global average pooling and a linear layer follows the last ReLU: there Grad-CAM is the class activation map of
Zhou et al. (CVPR 2016, arXiv 1512.04150) but for its last ReLU. The network takes waveforms of any length; `n_samples`,
two seconds by default, is the one that the benchmark cuts or repeats to.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from xaibench.grid import Grid
from xaibench.recipe import Recipe
from xaibench_countermeasures.spectrogram import SpectrogramCountermeasure

#: Channels of the five blocks; with one input channel and two logits 161,050 parameters. Few channels where the
#: maps are large: two seconds take 7 to 8 ms on one core.
WIDTHS = (8, 16, 48, 96, 128)


def cnn_backend(*, widths: tuple[int, ...] = WIDTHS, classes: int = 2, dropout: float = 0.3) -> nn.Sequential:
    """The network behind the spectrogram. Shape: `(B, 1, F, T)` -> `(B, classes)`; F and T at least 16."""
    modules: list[tuple[str, nn.Module]] = []
    inputs = 1
    for number, outputs in enumerate(widths, start=1):
        modules += [
            (f"conv_{number}", nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)),  # the normalisation has the bias
            (f"norm_{number}", nn.BatchNorm2d(outputs)),
            (f"relu_{number}", nn.ReLU()),
        ]
        if number < len(widths):
            modules.append((f"pool_{number}", nn.MaxPool2d(2, 2)))
        inputs = outputs
    modules += [
        ("average", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("dropout", nn.Dropout(dropout)),
        ("fc", nn.Linear(inputs, classes)),
    ]
    return nn.Sequential(OrderedDict(modules))


class CNN(SpectrogramCountermeasure):
    """The countermeasure. Shape: `(B, N)` -> `(B, 2)`, classes spoof, bonafide.

    dropout:   rate before the linear layer.
    n_samples: the length it looks at, in samples at 16 kHz.

    >>> import torch
    >>> CNN().eval()(torch.zeros(1, 32_000)).shape
    torch.Size([1, 2])
    """

    def __init__(self, *, dropout: float = 0.3, n_samples: int = 32_000) -> None:
        super().__init__(Grid(), n_samples, cnn_backend(dropout=dropout))

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        return {name: m for name, m in self.backend.named_children() if name.startswith("relu")}


recipe = Recipe(
    name="cnn",
    paper="none: a plain CNN (3 x 3 convolution, batch normalisation, ReLU, max-pooling) on log-power spectrograms",
    build=CNN,
    folder=Path(__file__).parent / "checkpoints",
    training={"epochs": 24, "learning_rate": 1e-3},
    obtain="train it with `xaibench train --cm cnn`",
)
