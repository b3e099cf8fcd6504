"""Countermeasures with attention that these tests reason about. Utterances and views come from the kit's toys."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from xaibench.frontends import LogPower, whole_band
from xaibench.testing.toys import GRID, N_SAMPLES, SHAPE, Toy
from xaibench.types import Axis


class Attention(nn.Module):
    """One head with what it looks at, and what it hands on, given. `nudge` is added to the weights, behind the softmax."""

    def __init__(self, scores: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.scores = scores
        self.nudge: Tensor | None = None

    def forward(self, frames: Tensor) -> Tensor:
        weights = functional.softmax(self.scores(frames), dim=-1)
        if self.nudge is not None:
            weights = weights + self.nudge
        return weights @ frames.unsqueeze(1)


class Encoder(nn.Module):
    """Log power, and one attention layer over its frames. Shape: `(B, N)` -> tap `(B, 33, 1, 51)`."""

    def __init__(self, scores: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.spectrum = LogPower(GRID)
        self.attend = Attention(scores)

    def forward(self, waveform: Tensor) -> Tensor:
        frames = self.spectrum(waveform)[:, 0].transpose(1, 2)
        return self.attend(frames).mean(1).transpose(1, 2).unsqueeze(2)


class Head(nn.Module):
    """Spoof log-odds = mean over frames of a linear function. Shape: tap `(B, 33, 1, T)` -> `(B, 2)`."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(SHAPE[0], 2, bias=False)
        with torch.no_grad():
            weight = torch.randn(SHAPE[0], generator=torch.Generator().manual_seed(5))
            self.linear.weight.copy_(torch.stack([weight, -weight]))

    def forward(self, tap: Tensor) -> Tensor:
        return self.linear(tap[:, :, 0].mean(2))


class FrontCM(Toy):
    """Attention in front of the tap, as in a countermeasure on encoder frames."""

    resolves = frozenset({"time"})

    def __init__(self, scores: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.frontend = Encoder(scores)
        self.frontend.spectrum.fit(0.1 * torch.randn(8, N_SAMPLES, generator=torch.Generator().manual_seed(0)))
        self.backend = Head()
        self.eval()

    @property
    def axes(self) -> tuple[Axis, Axis]:
        return whole_band(self.sample_rate), GRID.time(self.n_samples)

    @property
    def attentions(self) -> Mapping[str, nn.Module]:
        return {"only": self.frontend.attend}


def by_content(frames: Tensor) -> Tensor:
    """Scores that depend on the frames. Shape: `(B, n, D)` -> `(B, 2, n, n)`, two heads."""
    half = frames.shape[2] // 2
    parts = frames[:, :, :half], frames[:, :, half : 2 * half]
    return torch.stack([q @ q.roll(1, 2).transpose(1, 2) / half for q in parts], dim=1)


def all_at(frame: int) -> Callable[[Tensor], Tensor]:
    """Scores with which every frame looks at one."""

    def scores(frames: Tensor) -> Tensor:
        result = frames.new_full((len(frames), 1, frames.shape[1], frames.shape[1]), -1e4)
        result[..., frame] = 0.0
        return result

    return scores
