"""A small convolutional network on log power that is trained on planted pairs alone.

Four blocks of convolution, batch normalisation and ReLU on the benchmark's grid, the second and third halved by pooling,
then the average over the plane and one linear layer. The first convolution, 5 x 5 cells, just holds one pulse of the notch;
a feature of the last block sees 22 bins by 22 frames (0.7 kHz by 0.2 s), less than the rectangle, and the head adds features
up. So what speaks for the notch lies where the notch is, give or take that field.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from torch import nn
from xaibench_countermeasures.spectrogram import SpectrogramCountermeasure

from xaibench.grid import Grid
from xaibench.recipe import Recipe

#: Channels in and out, kernel size, and whether pooling follows, of the four blocks.
BLOCKS = ((1, 16, 5, False), (16, 16, 3, True), (16, 32, 3, True), (32, 32, 3, False))


def planted_backend() -> nn.Sequential:
    """The network behind the spectrogram. Shape: `(B, 1, F, T)` -> `(B, 2)`; F and T at least 4."""
    modules: list[tuple[str, nn.Module]] = []
    for number, (inputs, outputs, size, pool) in enumerate(BLOCKS, start=1):
        modules += [
            (f"conv_{number}", nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)),
            (f"norm_{number}", nn.BatchNorm2d(outputs)),
            (f"relu_{number}", nn.ReLU()),
        ]
        if pool:
            modules.append((f"pool_{number}", nn.MaxPool2d(2, 2)))
    modules += [("average", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten()), ("fc", nn.Linear(BLOCKS[-1][1], 2))]
    return nn.Sequential(OrderedDict(modules))


class PlantedCNN(SpectrogramCountermeasure):
    """The countermeasure. Shape: `(B, N)` -> `(B, 2)`, classes spoof, bonafide.

    n_samples: the length it looks at, in samples at 16 kHz.

    >>> import torch
    >>> PlantedCNN().eval()(torch.zeros(1, 32_000)).shape
    torch.Size([1, 2])
    """

    def __init__(self, *, n_samples: int = 32_000) -> None:
        super().__init__(Grid(), n_samples, planted_backend())

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        return {name: m for name, m in self.backend.named_children() if name.startswith("relu")}


recipe = Recipe(
    name="planted-cnn",
    paper="none: a small CNN trained on planted notches, so that the right explanation is known",
    build=PlantedCNN,
    folder=Path(__file__).parent / "checkpoints",
    # Neither masks nor a random response, which are notches themselves.
    training={"epochs": 80, "learning_rate": 3e-3, "time_mask": 0, "frequency_mask": 0, "equaliser_db": 0.0},
    obtain="train it with `xaibench train --cm planted-cnn --data planted`",
    optional=True,
)
