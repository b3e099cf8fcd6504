"""LCNN, the light convolutional network with Max-Feature-Map of the STC system.

Lavrentyeva et al., "STC Antispoofing Systems for the ASVspoof2019 Challenge", Interspeech 2019 (arXiv 1904.05576),
Table 1: layer numbers in the code below are the table's. Same padding everywhere; the table's 863 x 600 input gives
10,198,818 parameters, a 60 x 750 LFCC input 865,058.

Two recipes: `lcnn` looks at two seconds on the benchmark's own grid (257 x 201), `lcnn-stc` is the table at its own size
(863 x 600: Blackman window of 1724 samples, hop 0.0081 s, the first 600 frames).

Departures, each a decision: dropout stands before the last batch normalisation; the loss is cross-entropy instead of
A-softmax; the log-power spectrum is normalised per band, which the STC system is not reported to do; the dropout rate is
0.3 and torch's default initialisation is kept: with 0.75 and Kaiming initialisation the network stayed at chance for 600
steps of 24 two-second excerpts of minivoc (loss 0.68), without them it left it within 75.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from xaibench.grid import Grid
from xaibench.layers import MaxFeatureMap
from xaibench.recipe import Recipe
from xaibench_countermeasures.spectrogram import SpectrogramCountermeasure

#: The front end of the STC system: 863 bins; 0.0081 s at 16 kHz are 129.6 samples.
STC_N_FFT, STC_HOP, STC_FRAMES = 1724, 130, 600


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


class LCNN(SpectrogramCountermeasure):
    """The countermeasure: log-power STFT, then Table 1. Shape: `(B, n_samples)` -> `(B, 2)`, classes spoof, bonafide.

    dropout:            rate before the last batch normalisation.
    n_samples:          the length it looks at; the first dense layer fixes it.
    n_fft, hop, window: the STFT, as of `xaibench.grid.Grid`, which raises XaibenchError where they do not fit.

    >>> import torch
    >>> LCNN().eval()(torch.zeros(1, 32_000)).shape
    torch.Size([1, 2])
    """

    def __init__(
        self, *, dropout: float = 0.3, n_samples: int = 32_000, n_fft: int = 512, hop: int = 160, window: str = "hann"
    ) -> None:
        grid = Grid(sample_rate=self.sample_rate, n_fft=n_fft, hop=hop, window=window)
        super().__init__(grid, n_samples, lcnn_backend(*grid.shape(n_samples), dropout=dropout))

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        return {name: m for name, m in self.backend.named_children() if name.startswith("mfm") and name != "mfm_30"}


def stc_lcnn(
    *,
    dropout: float = 0.3,
    n_samples: int = (STC_FRAMES - 1) * STC_HOP,
    n_fft: int = STC_N_FFT,
    hop: int = STC_HOP,
    window: str = "blackman",
) -> LCNN:
    """`LCNN` with the front end and the input size of Table 1: 4.87 s as 863 bins x 600 frames.

    The first 600 frames of a longer waveform need no samples but these 77,870 (and half a window, which is reflected).
    """
    return LCNN(dropout=dropout, n_samples=n_samples, n_fft=n_fft, hop=hop, window=window)


_FOLDER = Path(__file__).parent / "checkpoints"

recipe = Recipe(
    name="lcnn",
    paper="Lavrentyeva et al., Interspeech 2019, arXiv 1904.05576, Table 1",
    build=LCNN,
    folder=_FOLDER,
)

stc = Recipe(
    name="lcnn-stc",
    paper="Lavrentyeva et al., Interspeech 2019, arXiv 1904.05576, Table 1, at its own size of 863 x 600",
    build=stc_lcnn,
    folder=_FOLDER,
    training={"frequency_mask": 84},  # bins: the same share of the band as 25 of 257
    obtain="its 10.2 M weights are too many to ship; make them with `xaibench train --cm lcnn-stc` (on a GPU)",
)
