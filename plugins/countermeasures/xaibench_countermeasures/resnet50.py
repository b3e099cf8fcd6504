"""ResNet50 on a log-power spectrogram: the image network that reports set beside a plain CNN.

He et al., CVPR 2016, arXiv 1512.03385, Table 1, column 50-layer, as torchvision builds it (the stride in the 3 x 3
convolution of a bottleneck, "ResNet v1.5"), for one input channel and two classes: 23,505,858 parameters. The input is the
benchmark's own STFT, 257 x 201 for two seconds at 16 kHz, neither resized nor repeated over three channels.

With `weights` the convolutions start from an ImageNet checkpoint *on your disk*: the three input channels of the first
convolution are summed to one (what three equal channels would give), the classifier of 1,000 classes is left out. The
option is for starting a training only; nothing is ever downloaded.

torchvision's blocks call one ReLU three times and in place, which attribution libraries take for one module; here every
call has an instance of its own, and so have the residual sums (see `resnet_cqt.ResidualSum`). The names of the weights are
torchvision's. The windows of the only max-pooling overlap (3 x 3, stride 2), as published; for DeepLIFT see
`OverlappingMaxPool`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from xaibench.errors import CheckpointError
from xaibench.grid import Grid
from xaibench.recipe import Recipe
from xaibench.states import load_state
from xaibench_countermeasures.resnet_cqt import Carry, ResidualSum
from xaibench_countermeasures.spectrogram import SpectrogramCountermeasure

#: Bytes of a checkpoint; torchvision's has 100 MB.
LARGEST = 1 << 30


class OverlappingMaxPool(nn.MaxPool2d):
    """Max-pooling whose windows overlap. Shape: `(B, C, F, T)` -> `(B, C, F', T')`.

    The DeepLIFT rules of captum and shap put what each window's winner is owed back in its place, and where a cell wins in
    several windows they keep one of these debts: on an untrained ResNet50 the map missed the difference of scores by 30 %.
    """

    kernel_size: int  # square windows
    stride: int
    padding: int

    def deeplift_form(self) -> nn.Module:
        """The same function, with windows that do not overlap: every window is laid out as a block of its own."""
        return _DisjointMaxPool(self.kernel_size, self.stride, self.padding)


class _DisjointMaxPool(nn.Module):
    def __init__(self, size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.size, self.stride, self.padding = size, stride, padding
        self.pool = nn.MaxPool2d(size, size)

    def forward(self, x: Tensor) -> Tensor:
        # finite, unlike the -inf of max-pooling itself: rules take the difference of input and reference here, too
        x = nn.functional.pad(x, [self.padding] * 4, value=torch.finfo(x.dtype).min)
        blocks = x.unfold(2, self.size, self.stride).unfold(3, self.size, self.stride)  # (B, C, F', T', size, size)
        return self.pool(blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3))


class SeparateBottleneck(Bottleneck):
    """torchvision's bottleneck, the same function and weights, with one module for each call and nothing in place."""

    def __init__(self, *args, **keywords) -> None:
        super().__init__(*args, **keywords)
        del self.relu
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        if self.downsample is None:
            self.shortcut = Carry()
        self.sum = ResidualSum()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu1(self.bn1(self.conv1(x)))
        branch = self.relu2(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        shortcut = self.shortcut(x) if self.downsample is None else self.downsample(x)
        return self.relu3(self.sum(shortcut, branch))


def resnet50_backend(*, classes: int = 2) -> ResNet:
    """The network behind the spectrogram. Shape: `(B, 1, F, T)` -> `(B, classes)`."""
    net = ResNet(SeparateBottleneck, [3, 4, 6, 3], num_classes=classes)
    net.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's own
    net.relu = nn.ReLU()
    net.maxpool = OverlappingMaxPool(3, stride=2, padding=1)
    return net


def load_imagenet(net: ResNet, path: Path) -> None:
    """Load torchvision's three-channel weights from a local file into a one-channel `net`, without the classifier.

    `.safetensors`, or `.pth`/`.pt` read without running code. Raises CheckpointError, naming the file: missing, not
    readable, or weights of another network.
    """
    path = Path(path)
    state = load_state(path, most=LARGEST, hint="the option weights wants a local copy of ResNet50's ImageNet weights")
    if not isinstance(state, Mapping) or not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in state.items()):
        raise CheckpointError(f"{path}: holds no dictionary of tensors; save the state_dict alone, not the model")
    state = {name: t for name, t in state.items() if not name.startswith("fc.")}
    first = state.get("conv1.weight")
    if first is not None and first.ndim == 4 and first.shape[1] == 3:
        state["conv1.weight"] = first.sum(dim=1, keepdim=True)
    expected = {name: t for name, t in net.state_dict().items() if not name.startswith("fc.")}
    counters = {name for name in expected if name.endswith("num_batches_tracked")}  # old files have none
    problems = [f"missing {n}" for n in expected if n not in state and n not in counters]
    problems += [f"unknown {n}" for n in state if n not in expected]
    problems += [
        f"{n} is {tuple(state[n].shape)}, expected {tuple(t.shape)}"
        for n, t in expected.items()
        if n in state and state[n].shape != t.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{path}: not the weights of ResNet50: {'; '.join(problems[:3])}{more}")
    net.load_state_dict(state, strict=False)


class ResNet50(SpectrogramCountermeasure):
    """The countermeasure. Shape: `(B, N)` -> `(B, 2)`, classes spoof, bonafide.

    weights:   path of ImageNet weights to start from, or None; see `load_imagenet` (raises CheckpointError).
    n_samples: the length it looks at, in samples at 16 kHz.

    >>> ResNet50().eval()(torch.zeros(1, 32_000)).shape
    torch.Size([1, 2])
    """

    def __init__(self, *, weights: str | None = None, n_samples: int = 32_000) -> None:
        super().__init__(Grid(), n_samples, resnet50_backend())
        if weights is not None:
            load_imagenet(self.backend, Path(weights))

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        return {f"layer{n}": getattr(self.backend, f"layer{n}") for n in (1, 2, 3, 4)}


recipe = Recipe(
    name="resnet50",
    paper="He et al., CVPR 2016, arXiv 1512.03385, Table 1 (50-layer), on log-power spectrograms",
    build=ResNet50,
    folder=Path(__file__).parent / "checkpoints",
    training={"epochs": 20, "learning_rate": 3e-4},
    initial=("weights",),
    obtain="it is too large to ship; train it with `xaibench train --cm resnet50`",
)
