"""ResNet on constant-Q features, after Halpern et al., Odyssey 2020 (doi 10.21437/Odyssey.2020-46).

Known of the paper, from its abstract and its companion page: constant-Q features, a residual network that makes an
embedding, a Gaussian mixture model as the classifier, ASVspoof 2019 LA; explained by Grad-CAM on the CQT, whose salient part
is kept and resynthesised. Everything below was *not in what could be read of the paper* and is ours:

- the transform: 62.5 Hz to 7,025 Hz, 16 bins an octave, 110 bins, a hop of 10 ms, mean power a frame (see `cqt`);
- natural logarithm of power, each band brought to zero mean and unit deviation over the training set;
- two seconds at 16 kHz, and no limit otherwise (`n_samples` is an option);
- the network: a 7 x 7 convolution of stride 2 with 16 channels, four stages of two basic blocks (He et al., CVPR 2016, arXiv
  1512.03385, Fig. 5 left) with 16, 32, 64 and 128 channels, the last three of stride 2, no max-pooling, projections with
  batch normalisation where the size changes; global average pooling; a linear embedding of 64 numbers; dropout;
- a linear layer to two logits *instead of the mixture model*, trained with it by cross-entropy: attribution needs one
  differentiable function from the tap to the score, with a rule for every module.

The residual sums are modules that attribution libraries have rules for: see `ResidualSum`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from xaibench.recipe import Recipe
from xaibench.types import Axis
from xaibench_countermeasures.cqt import ConstantQ, LogCQT

WIDTHS = (16, 32, 64, 128)
EMBEDDING = 64


def _watched(module: nn.Module) -> bool:
    """Whether someone has hooked the module: an attribution library that wants to see it called."""
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks))


class ResidualSum(nn.Module):
    """`shortcut + branch`, which libraries see as a sum-pooling. Shape: two `(B, C, F, T)` -> `(B, C, F, T)`.

    A bare `+` is right for gradients and DeepLIFT, but LRP needs a rule that shares relevance between the two. Laying them
    out row by row moves values only, and `nn.AvgPool2d` (with the divisor 1) is a module that captum, zennit and shap know:
    zennit gives it the rule of its own `Sum`. It adds no weights. While nothing is hooked to the pooling, a plain sum stands
    in for it: equal to the last bit, and a network of these blocks then takes 0.7 of the time.

    >>> ResidualSum()(torch.ones(1, 2, 3, 4), torch.full((1, 2, 3, 4), 0.5)).unique()
    tensor([1.5000])
    """

    def __init__(self) -> None:
        super().__init__()
        self.sum = nn.AvgPool2d((2, 1), divisor_override=1)

    def forward(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        if not _watched(self.sum):
            return shortcut + branch
        return self.sum(torch.stack([shortcut, branch], dim=3).flatten(2, 3))


class Carry(nn.Module):
    """The identity shortcut, which libraries see as a pooling of one cell. Shape: `(B, C, F, T)` -> same.

    captum's LRP multiplies what comes back to a module's input by that input. Of a tensor that goes both into a convolution
    and past it unchanged, the second share would be multiplied once more. (`nn.Identity` returns the tensor it was given,
    and will not do.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) if _watched(self.pool) else x


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut. Shape: `(B, inputs, F, T)` -> `(B, outputs, ceil(F / stride), ...)`."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm_1 = nn.BatchNorm2d(outputs)
        self.relu_1 = nn.ReLU()
        self.conv_2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm_2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = Carry()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(OrderedDict(conv=projection, norm=nn.BatchNorm2d(outputs)))
        self.sum = ResidualSum()
        self.relu_2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.norm_2(self.conv_2(self.relu_1(self.norm_1(self.conv_1(x)))))
        return self.relu_2(self.sum(self.shortcut(x), branch))


def resnet_backend(*, widths: tuple[int, ...] = WIDTHS, classes: int = 2, dropout: float = 0.2) -> nn.Sequential:
    """The network behind the transform. Shape: `(B, 1, F, T)` -> `(B, classes)`."""
    modules: list[tuple[str, nn.Module]] = [
        ("conv", nn.Conv2d(1, widths[0], 7, stride=2, padding=3, bias=False)),
        ("norm", nn.BatchNorm2d(widths[0])),
        ("relu", nn.ReLU()),
    ]
    inputs = widths[0]
    for number, outputs in enumerate(widths, start=1):
        first = BasicBlock(inputs, outputs, stride=1 if number == 1 else 2)
        modules.append((f"stage_{number}", nn.Sequential(first, BasicBlock(outputs, outputs))))
        inputs = outputs
    modules += [
        ("average", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("embedding", nn.Linear(inputs, EMBEDDING)),
        ("dropout", nn.Dropout(dropout)),
        ("fc", nn.Linear(EMBEDDING, classes)),
    ]
    return nn.Sequential(OrderedDict(modules))


class ResNetCQT(nn.Module):
    """The countermeasure. Shape: `(B, N)` -> `(B, 2)`, classes spoof, bonafide. N above 4,160.

    dropout:   rate on the embedding.
    n_samples: the length it looks at, in samples at 16 kHz.

    >>> ResNetCQT().eval()(torch.zeros(1, 32_000)).shape
    torch.Size([1, 2])
    """

    sample_rate = 16_000
    classes = ("spoof", "bonafide")

    def __init__(self, *, dropout: float = 0.2, n_samples: int = 32_000) -> None:
        super().__init__()
        self.n_samples = n_samples
        self.geometry = ConstantQ(sample_rate=self.sample_rate)
        self.frontend = LogCQT(self.geometry)
        self.backend = resnet_backend(dropout=dropout)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.backend(self.frontend(waveform))

    @property
    def axes(self) -> tuple[Axis, Axis]:
        return self.geometry.axis, self.geometry.time(self.n_samples)

    @property
    def mean_tap(self) -> Tensor:
        return torch.zeros_like(self.frontend.mean)[None, None]

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        return {name: m for name, m in self.backend.named_children() if name.startswith("stage")}


recipe = Recipe(
    name="resnet-cqt",
    paper="after Halpern et al., Odyssey 2020, doi 10.21437/Odyssey.2020-46; settings ours, linear classifier for the GMM",
    build=ResNetCQT,
    folder=Path(__file__).parent / "checkpoints",
    training={"epochs": 24, "learning_rate": 1e-3},
    obtain="train it with `xaibench train --cm resnet-cqt`",
)
