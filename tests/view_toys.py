"""What the tests of views share: a smooth raw-waveform countermeasure, one of many classes, and a view in any precision."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from toys import GRID, N_SAMPLES, ConvCM, pairs

from xaibench.types import Axis
from xaibench.view import View, grid_view, native_view


class RawCM(nn.Module):
    """A raw-waveform countermeasure, smooth everywhere, so that integrals along a path converge to rounding."""

    sample_rate, n_samples, classes = 16_000, N_SAMPLES, ("spoof", "bonafide")

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.frontend = nn.Unflatten(1, (1, 1, -1))
            self.backend = nn.Sequential(
                nn.Conv2d(1, 8, (1, 64), stride=(1, 32)), nn.Tanh(), nn.Conv2d(8, 8, (1, 5)), nn.Softplus(),
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
            )  # fmt: skip
            for p in self.backend[0].parameters():
                p.data.mul_(20)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.backend(self.frontend(waveform))

    @property
    def axes(self) -> tuple[Axis, Axis]:
        return Axis("frequency", [0, 8_000]), Axis("time", np.arange(N_SAMPLES + 1) / 16_000)

    @property
    def mean_tap(self) -> Tensor:
        return torch.zeros(1, 1, 1, 1)

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        return {"first": self.backend[0]}


class ManyClassCM(ConvCM):
    """Three classes, bona fide in the middle; or two in any order."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.classes = classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            self.backend[-1] = nn.Linear(64, len(classes))
        self.eval()


def make(cm: nn.Module, route: str, dtype: torch.dtype = torch.float64, count: int = 2, **facts: object) -> View:
    spoof, bonafide = (w.to(dtype) for w in pairs(count))
    ids = [f"u{i}/toy" for i in range(count)]
    if route == "grid":
        return grid_view(cm.to(dtype), spoof, bonafide, bonafide, ids, grid=GRID, **facts)
    return native_view(cm.to(dtype), spoof, bonafide, bonafide, ids, **facts)


def gradient(view: View, at: Tensor) -> Tensor:
    at = at.detach().clone().requires_grad_()
    return torch.autograd.grad(view.model(at).sum(), at)[0]
