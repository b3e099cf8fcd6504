"""Countermeasures small enough to reason about, with pairs and views to match.

`LinearCM` is linear in its tap, so its exact attribution is known: `weight * (input - baseline)`. `ConvCM` is a tiny
convolutional network with the parts attribution libraries trip over: Max-Feature-Map, batch normalisation, pooling and
dropout. Both take 4,000 samples at 16 kHz to a tap of 33 bins x 126 frames and answer (spoof, bona fide).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from xaibench.frontends import LogPower
from xaibench.grid import Grid
from xaibench.layers import MaxFeatureMap
from xaibench.truth import truth
from xaibench.types import Axis, Truth
from xaibench.view import View, grid_view, native_view

GRID = Grid(n_fft=64, hop=32)
N_SAMPLES = 4_000
SHAPE = GRID.shape(N_SAMPLES)  # (33, 126)
BAND = (500.0, 7_000.0)  # Hz; bins 2 to 28


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class _ToyCM(nn.Module):
    sample_rate = GRID.sample_rate
    n_samples = N_SAMPLES
    classes = ("spoof", "bonafide")
    backend: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.frontend = LogPower(GRID)
        noise = 0.1 * torch.randn(8, N_SAMPLES, generator=_generator(0))
        self.frontend.fit(noise)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.backend(self.frontend(waveform))

    @property
    def axes(self) -> tuple[Axis, Axis]:
        return GRID.frequency, GRID.time(N_SAMPLES)

    @property
    def mean_tap(self) -> Tensor:
        return torch.zeros(1, 1, SHAPE[0], 1)

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        return {}


class LinearCM(_ToyCM):
    """Spoof log-odds = sum(weight * tap) + bias. `weight` `(F, T)`; by default Gaussian noise of unit norm on average."""

    def __init__(self, weight: Tensor | None = None, *, bias: float = 0.3, seed: int = 0) -> None:
        super().__init__()
        if weight is None:
            weight = torch.randn(SHAPE, generator=_generator(seed)) / (SHAPE[0] * SHAPE[1]) ** 0.5
        linear = nn.Linear(SHAPE[0] * SHAPE[1], 2)
        with torch.no_grad():
            linear.weight.copy_(torch.stack([weight.flatten() / 2, -weight.flatten() / 2]))
            linear.bias.copy_(torch.tensor([bias, 0.0]))
        self.weight, self.bias = weight, bias
        self.backend = nn.Sequential(nn.Flatten(), linear)
        self.eval()

    def exact(self, view: View, baseline: str = "mean") -> Tensor:
        """The attribution every complete method must find on the native route. Shape: `(B, F, T)`."""
        return self.weight * (view.inputs - view.fill(baseline))[:, 0]


class ConvCM(_ToyCM):
    """Two convolutions with Max-Feature-Map; 16 frequency-time regions reach the classifier."""

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.backend = nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1), MaxFeatureMap(), nn.MaxPool2d(2, 2), nn.BatchNorm2d(4),
                nn.Conv2d(4, 8, 3, padding=1), MaxFeatureMap(), nn.AdaptiveAvgPool2d(4),
                nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 2),
            )  # fmt: skip
        self.eval()

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        return {"mfm_1": self.backend[1], "mfm_2": self.backend[5]}


def pairs(count: int = 3, *, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Vocoded and bona fide waveforms `(count, 4000)` each: noise, and the same noise through a weak, smooth filter."""
    bonafide = 0.1 * torch.randn(count, N_SAMPLES, generator=_generator(seed))
    taps = torch.tensor([0.2, 0.6, 0.2])
    smooth = torch.nn.functional.conv1d(bonafide[:, None], taps[None, None], padding=1)[:, 0]
    return smooth + 0.002 * torch.randn(count, N_SAMPLES, generator=_generator(seed + 1)), bonafide


def truth_of(count: int = 3, *, seed: int = 1) -> Truth:
    """The benchmark's truth of `pairs(count, seed=seed)` on the toys' own STFT."""
    spoof, bonafide = pairs(count, seed=seed)
    return truth(spoof, bonafide, grid=GRID, band=BAND)


def view_of(cm: _ToyCM, count: int = 3, *, route: str = "native", seed: int = 1, **facts: object) -> View:
    """A view of `pairs(count, seed=seed)`, with two bona fide references. `facts` go to `View` (batch_size, truth ...)."""
    spoof, bonafide = pairs(count, seed=seed)
    references = pairs(2, seed=seed + 100)[1]
    ids = [f"utterance-{i}/toy" for i in range(count)]
    if route == "grid":
        return grid_view(cm, spoof, bonafide, references, ids, grid=GRID, **facts)
    return native_view(cm, spoof, bonafide, references, ids, **facts)
