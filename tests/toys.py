"""The kit's countermeasures (`xaibench.testing.toys`) at 4,000 samples of 16 kHz, with pairs and views to match.

Their tap has 33 bins x 126 frames. Unlike the kit's, utterances of one call are drawn together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xaibench.testing.toys import BAND, GRID, ConvToy, LinearToy, Toy
from xaibench.truth import truth
from xaibench.types import Truth
from xaibench.view import View, grid_view, native_view

N_SAMPLES = 4_000
SHAPE = GRID.shape(N_SAMPLES)  # (33, 126)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class LinearCM(LinearToy):
    """The kit's linear toy, a quarter of a second long."""

    def __init__(self, weight: Tensor | None = None, *, bias: float = 0.3, seed: int = 0) -> None:
        super().__init__(weight, bias=bias, seed=seed, n_samples=N_SAMPLES)


class ConvCM(ConvToy):
    """The kit's convolutional toy, a quarter of a second long."""

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(seed=seed, n_samples=N_SAMPLES)


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


def view_of(cm: Toy, count: int = 3, *, route: str = "native", seed: int = 1, **facts: object) -> View:
    """A view of `pairs(count, seed=seed)`, with two bona fide references. `facts` go to `View` (batch_size, truth ...)."""
    spoof, bonafide = pairs(count, seed=seed)
    references = pairs(2, seed=seed + 100)[1]
    ids = [f"utterance-{i}/toy" for i in range(count)]
    if route == "grid":
        return grid_view(cm, spoof, bonafide, references, ids, grid=GRID, **facts)
    return native_view(cm, spoof, bonafide, references, ids, **facts)
