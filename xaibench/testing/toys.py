"""Countermeasures small enough to reason about, with utterances and views to match: what the kit asks an attributor on.

    linear   spoof log-odds = sum(weight * tap) + bias: the exact attribution is known, `weight * (input - baseline)`
    conv     two convolutions with Max-Feature-Map, batch normalisation, pooling and dropout: what libraries trip over
    raw      raw waveform, a tap `(B, 1, 1, T)` that resolves time alone
    own      `conv`, and a map that the countermeasure computes itself (`intrinsic`)
    attention  two transformer layers over the frames of the tap, which it names (`attentions`)

All take 1,600 samples at 16 kHz (0.1 s) and answer (spoof, bona fide); the first two have a tap of 33 bins x 51 frames. No
corpus is needed: utterance `i` is made from the seed `i`, so it is the same in every batch. Waveforms `(B, N)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xaibench.frontends import LogPower, whole_band
from xaibench.grid import Grid
from xaibench.layers import MaxFeatureMap
from xaibench.project import average
from xaibench.protocols import Countermeasure
from xaibench.truth import top_share, truth
from xaibench.types import Axis, Truth
from xaibench.view import View, grid_view, native_view

GRID = Grid(n_fft=64, hop=32)
N_SAMPLES = 1_600
SHAPE = GRID.shape(N_SAMPLES)  # (33, 51)
BAND = (500.0, 7_000.0)  # Hz
#: Bona fide utterances that serve as references.
REFERENCES = 6


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Toy(nn.Module):
    """What the toys share: a log-power front end fitted on noise, frequency and time, no layers."""

    sample_rate = GRID.sample_rate
    classes = ("spoof", "bonafide")
    backend: nn.Module

    def __init__(self, *, n_samples: int = N_SAMPLES) -> None:
        super().__init__()
        self.n_samples = n_samples
        self.frontend: nn.Module = LogPower(GRID)
        self.frontend.fit(0.1 * torch.randn(8, n_samples, generator=_generator(0)))

    def forward(self, waveform: Tensor) -> Tensor:
        return self.backend(self.frontend(waveform))

    @property
    def axes(self) -> tuple[Axis, Axis]:
        return GRID.frequency, GRID.time(self.n_samples)

    @property
    def mean_tap(self) -> Tensor:
        return torch.zeros(1, 1, SHAPE[0], 1)

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        return {}


class LinearToy(Toy):
    """Spoof log-odds = sum(weight * tap) + bias. `weight` `(F, T)`; by default Gaussian noise of unit norm on average."""

    def __init__(
        self, weight: Tensor | None = None, *, bias: float = 0.3, seed: int = 0, n_samples: int = N_SAMPLES
    ) -> None:  # fmt: skip
        super().__init__(n_samples=n_samples)
        shape = GRID.shape(n_samples)
        if weight is None:
            weight = torch.randn(shape, generator=_generator(seed)) / (shape[0] * shape[1]) ** 0.5
        linear = nn.utils.skip_init(nn.Linear, shape[0] * shape[1], 2)
        with torch.no_grad():
            linear.weight.copy_(torch.stack([weight.flatten() / 2, -weight.flatten() / 2]))
            linear.bias.copy_(torch.tensor([bias, 0.0]))
        self.weight, self.bias = weight, bias
        self.backend = nn.Sequential(nn.Flatten(), linear)
        self.eval()

    def exact(self, view: View, baseline: str = "mean") -> Tensor:
        """The attribution every complete method must find on the native route. Shape: `(B, F, T)`."""
        return self.weight * (view.inputs - view.fill(baseline))[:, 0]


class ConvToy(Toy):
    """Two convolutions with Max-Feature-Map; 16 frequency-time regions reach the classifier."""

    backend: nn.Sequential

    def __init__(self, *, seed: int = 0, n_samples: int = N_SAMPLES) -> None:
        super().__init__(n_samples=n_samples)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.backend = nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1), MaxFeatureMap(), nn.MaxPool2d(2, 2), nn.BatchNorm2d(4),
                nn.Conv2d(4, 8, 3, padding=1), MaxFeatureMap(), nn.AdaptiveAvgPool2d(4),
                nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 2),
            )  # fmt: skip
        self.eval()

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        return {"mfm_1": self.backend[1], "mfm_2": self.backend[5]}


class OwnMapToy(ConvToy):
    """`ConvToy` with a map of its own: two of its first feature maps, one against the other."""

    @property
    def intrinsic(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Name -> function `(B, C, F, T)` -> `(B, F, T)`."""

        def contrast(tap: Tensor) -> Tensor:
            activations = self.backend[1](self.backend[0](tap))
            return activations[:, 0] - activations[:, 1]

        return {"own": contrast}


class AttentionToy(Toy):
    """Two of torch's own transformer layers over frames, and their mean: the attention is torch's, too."""

    module_rules = False
    backend: FramesBackend

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.backend = FramesBackend(SHAPE[0])
        self.eval()

    @property
    def attentions(self) -> Mapping[str, nn.Module]:
        """The self-attention of both layers, from input to output; a token is a frame of the tap."""
        return {f"layer_{i}": layer.get_submodule("self_attn") for i, layer in enumerate(self.backend.layers, start=1)}


class FramesBackend(nn.Module):
    """Transformer layers over frames. Shape: tap `(B, 1, F, T)` -> logits `(B, 2)`."""

    def __init__(self, bands: int, *, dimension: int = 16, heads: int = 2, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(bands, dimension)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dimension, heads, 2 * dimension, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.classify = nn.Linear(dimension, 2)
        with torch.no_grad():  # as torch starts it, attention is all but even
            for layer in self.layers:
                layer.get_parameter("self_attn.in_proj_weight").mul_(3)

    def forward(self, tap: Tensor) -> Tensor:
        frames = self.embed(tap[:, 0].transpose(1, 2))
        for layer in self.layers:
            frames = layer(frames)
        return self.classify(frames.mean(1))


class RawToy(nn.Module):
    """A raw-waveform countermeasure: its tap is the waveform, and resolves time alone."""

    sample_rate, n_samples, classes = GRID.sample_rate, N_SAMPLES, ("spoof", "bonafide")
    resolves = frozenset({"time"})

    def __init__(self, *, seed: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.frontend = nn.Unflatten(1, (1, 1, -1))
            self.backend = nn.Sequential(
                nn.Conv2d(1, 8, (1, 64), stride=(1, 32)), nn.ReLU(), nn.Conv2d(8, 8, (1, 5)), nn.ReLU(),
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
            )  # fmt: skip
            with torch.no_grad():
                self.backend.get_parameter("0.weight").mul_(20)
        self.eval()

    def forward(self, waveform: Tensor) -> Tensor:
        return self.backend(self.frontend(waveform))

    @property
    def axes(self) -> tuple[Axis, Axis]:
        return whole_band(self.sample_rate), Axis("time", np.arange(N_SAMPLES + 1) / self.sample_rate)

    @property
    def mean_tap(self) -> Tensor:
        return torch.zeros(1, 1, 1, 1)

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        return {"first": self.backend[1], "second": self.backend[3]}


def utterances(rows: Sequence[int] = (0, 1, 2), *, n_samples: int = N_SAMPLES) -> tuple[Tensor, Tensor]:
    """Vocoded and bona fide waveforms `(B, n_samples)` of the utterances of these numbers.

    Noise under an envelope, and the same noise through a weak, smooth filter. An utterance is the same in every batch.
    """
    noise = torch.stack([torch.randn(2, n_samples, generator=_generator(1_000 + row)) for row in rows])
    envelope = 0.1 * (1.2 + torch.sin(torch.linspace(0, 9, n_samples)))
    bonafide = envelope * noise[:, 0]
    smooth = nn.functional.conv1d(bonafide[:, None], torch.tensor([[[0.2, 0.6, 0.2]]]), padding=1)[:, 0]
    return smooth + 0.002 * noise[:, 1], bonafide


def view_of(
    cm: Countermeasure, rows: Sequence[int] = (0, 1, 2), *, route: str = "native", grid: Grid = GRID, seed: int = 0,
    batch_size: int = 2, device: torch.device | str = "cpu",
) -> View:  # fmt: skip
    """A view of some utterances with all that the harness gives one: references, twins, truth, prior and energy.

    grid: of the grid route, and of the truth.
    """
    spoof, bonafide = (half.to(device) for half in utterances(rows, n_samples=cm.n_samples))
    references = utterances(range(100, 100 + REFERENCES), n_samples=cm.n_samples)[1].to(device)
    axes = grid.frequency, grid.time(cm.n_samples)
    frequency, time = cm.axes
    on = axes if route == "grid" else (frequency, time)
    facts: dict[str, Any] = {
        "truth": _on(truth(spoof, bonafide, grid=grid, band=BAND), axes, on),
        "prior": average(_prior(references, grid), axes, on).mean(1),
        "energy": average(grid.stft(spoof).abs(), axes, on),
        "seed": seed, "batch_size": batch_size,
    }  # fmt: skip
    ids = [f"utterance-{row}/toy" for row in rows]
    if route == "grid":
        return grid_view(cm, spoof, bonafide, references, ids, grid=grid, **facts)
    return native_view(cm, spoof, bonafide, references, ids, **facts)


def _prior(references: Tensor, grid: Grid) -> Tensor:
    """Something that differs between frequencies. Shape: `(F, T)`."""
    frequency, time = grid.shape(references.shape[1])
    return torch.linspace(0.1, 0.9, frequency, device=references.device)[:, None].expand(frequency, time)


def _on(found: Truth, axes: tuple[Axis, Axis], on: tuple[Axis, Axis]) -> Truth:
    """A truth on the axes of a view, much as the harness takes it there: its region is the cells that it covers most."""
    if axes == on:
        return found
    values, covered = (average(t.float(), axes, on) for t in (found.values, found.region))
    valid = average(found.valid.float(), axes, on) > 0.5
    return Truth(values * valid, top_share(covered, valid, 0.05), valid, found.name, found.resolves)
