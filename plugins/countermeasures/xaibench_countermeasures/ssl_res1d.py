"""SSL-Res1D: frame features, one residual block over time, a frame-wise projection and its mean.

Liu et al., "How Do Neural Spoofing Countermeasures Detect Partially Spoofed Audio?", Interspeech 2024 (arXiv 2406.02483), as
published in WeDefense (zlin0/wedefense: models/ssl_backend/Res1D.py 981f237, models/projections.py 4dfae26,
bin/XAI_GradCam_infer.py 93eeb55; recipe x12_ssl_res1d):

    features (D, T) -> x + SE(convolution 1, 3, 1, each with ReLU, then batch normalisation) -> fc, D to 128 at every frame
    -> mean over time -> cosines with two class vectors -> logits

Head. P2SGrad in its form as a mean squared error (Wang & Yamagishi, Interspeech 2021, arXiv 2103.11326): the cosines are
trained towards the one-hot label. As in WeDefense the logit of a class is the logit of its cosine brought to [0, 1],
`ln((1 + cos) / (1 - cos))`, so the difference of the two is a log-odds; its size is that of cosines near 0 and 1, not a
calibrated one. WeDefense clamps at 1e-5, where a gradient ends; here the cosine is shrunk by 1e-5 instead.

Frames. `fc` is linear and stands before the mean, so every frame has an embedding of its own, and `frame_scores` gives it to
the same classifier. The score of an utterance is that of the mean embedding, not the mean of the frames' scores.

Grad-CAM. The last layer is `fc`, WeDefense's target, so `grad-cam` on the native route is Liu et al.'s map: ReLU of the
channels weighted by the mean gradient, brought to [0, 1] per utterance. It explains the difference of the two logits,
WeDefense the spoof logit alone.

Departures: a small encoder, trained from nothing, unless `ssl` names a folder (`xaibench_countermeasures.encoder`); its last
layer instead of s3prl's weighted sum of all; the recipe's mean removal per utterance (`cmvn`) is an option, off by default,
since it takes away what a vocoder does to all frames alike.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from xaibench.frontends import whole_band
from xaibench.recipe import Recipe
from xaibench.scoring import bonafide_log_odds
from xaibench.types import Axis
from xaibench_countermeasures.encoder import SAMPLE_RATE, frame_encoder, mean_frame

#: The cosine is shrunk by this before its logit, which is infinite at 1.
COSINE_MARGIN = 1e-5


def p2sgrad_loss(cosines: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error between cosines `(B, K)` and one-hot labels `(B,)` (Wang & Yamagishi 2021). A scalar.

    weight: class weights `(K,)`; utterances are averaged with the weight of their class, as in a weighted cross-entropy.

    >>> float(p2sgrad_loss(torch.tensor([[1.0, 0.5]]), torch.tensor([0])))
    0.125
    """
    target = nn.functional.one_hot(labels, cosines.shape[1]).to(cosines)
    error = (cosines - target).square().mean(1)
    if weight is None:
        return error.mean()
    share = weight.to(cosines)[labels]
    return (share * error).sum() / share.sum()


class SqueezeExcitation(nn.Module):
    """Channels scaled by a gate computed from their mean over time (Hu et al., CVPR 2018). `(B, C, 1, T)` -> same."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, bottleneck, 1),
            nn.ReLU(),
            nn.Conv2d(bottleneck, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Res1D(nn.Module):
    """The residual block of WeDefense's Res1D.py. Shape: `(B, C, 1, T)` -> same; kernels are `(1, k)`."""

    def __init__(self, channels: int, *, bottleneck: int = 128) -> None:
        super().__init__()
        modules: list[tuple[str, nn.Module]] = []
        for number, kernel in enumerate((1, 3, 1), start=1):
            modules += [
                (f"conv_{number}", nn.Conv2d(channels, channels, (1, kernel), padding=(0, kernel // 2))),
                (f"relu_{number}", nn.ReLU()),
                (f"norm_{number}", nn.BatchNorm2d(channels)),
            ]
        modules.append(("se", SqueezeExcitation(channels, bottleneck)))
        self.block = nn.Sequential(OrderedDict(modules))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class MeanRemoval(nn.Module):
    """Every feature minus its mean over the utterance (WeDefense's `cmvn` with `norm_mean`). `(B, C, 1, T)` -> same."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=3, keepdim=True)


class Cosine(nn.Module):
    """Cosines of embeddings with class vectors, in single precision. Shape: `(B, E)` -> `(B, K)`."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            normalise = nn.functional.normalize
            return normalise(x.float(), dim=1) @ normalise(self.weight.float(), dim=1).T


class CosineLogit(nn.Module):
    """`ln((1 + cos) / (1 - cos))`: the logit of `(1 + cos) / 2`. Shape: any -> same.

    >>> [round(v, 1) for v in CosineLogit()(torch.tensor([0.0, 1.0])).tolist()]
    [0.0, 12.2]
    """

    def forward(self, cosine: Tensor) -> Tensor:
        return 2 * torch.atanh((1 - COSINE_MARGIN) * cosine)


class Res1DBackend(nn.Module):
    """Everything after the encoder. Shape: tap `(B, D, 1, T)` -> logits `(B, classes)`."""

    def __init__(self, dimension: int, classes: int, *, embedding: int = 128, cmvn: bool = False) -> None:
        super().__init__()
        self.cmvn = MeanRemoval() if cmvn else nn.Identity()
        self.res1d = Res1D(dimension)
        self.fc = nn.Conv2d(dimension, embedding, 1)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.cosine = Cosine(embedding, classes)
        self.logit = CosineLogit()

    def embeddings(self, tap: Tensor) -> Tensor:
        """One embedding a frame. Shape: `(B, D, 1, T)` -> `(B, embedding, 1, T)`."""
        return self.fc(self.res1d(self.cmvn(tap)))

    def cosines(self, tap: Tensor) -> Tensor:
        """Of the mean embedding with the class vectors. Shape: `(B, D, 1, T)` -> `(B, classes)`."""
        return self.cosine(self.flatten(self.mean(self.embeddings(tap))))

    def forward(self, tap: Tensor) -> Tensor:
        return self.logit(self.cosines(tap))

    def frame_logits(self, tap: Tensor) -> Tensor:
        """The classifier on every frame's embedding. Shape: `(B, D, 1, T)` -> `(B, T, classes)`."""
        frames = self.embeddings(tap)[:, :, 0].transpose(1, 2)
        return self.logit(self.cosine(frames.flatten(0, 1))).view(*frames.shape[:2], -1)


class SSLRes1D(nn.Module):
    """The countermeasure. Shape: `(B, N)` -> `(B, 2)`, classes spoof, bonafide.

    ssl:       folder with a wav2vec 2.0 model, or None for the small encoder.
    n_samples: the length it looks at, in samples at 16 kHz.
    cmvn:      remove every feature's mean over the utterance, as the recipe in WeDefense does.

    >>> SSLRes1D().eval()(torch.zeros(1, 32_000)).shape
    torch.Size([1, 2])
    """

    sample_rate = SAMPLE_RATE
    classes = ("spoof", "bonafide")
    resolves = frozenset({"time"})
    module_rules = False  # the gate multiplies activations, the cosine divides by a norm: no rule of LRP or DeepLift fits

    tap_mean: Tensor

    def __init__(self, *, ssl: str | None = None, n_samples: int = 32_000, cmvn: bool = False) -> None:
        super().__init__()
        self.n_samples = n_samples
        self.frontend = frame_encoder(ssl)
        self.backend = Res1DBackend(self.frontend.dimension, len(self.classes), cmvn=cmvn)
        self.register_buffer("tap_mean", torch.zeros(1, self.frontend.dimension, 1, 1))

    def forward(self, waveform: Tensor) -> Tensor:
        return self.backend(self.frontend(waveform))

    def training_loss(self, tap: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """P2SGrad as a mean squared error; `weight` `(2,)` weighs the classes."""
        return p2sgrad_loss(self.backend.cosines(tap), labels, weight)

    def settle(self, waveforms: Tensor) -> None:
        """Set the mean of the learned tap from training waveforms `(B, N)`. In eval()."""
        self.tap_mean.copy_(mean_frame(self.frontend, waveforms))

    @torch.no_grad()
    def frame_scores(self, waveform: Tensor) -> Tensor:
        """Bona fide log-odds of every 20 ms frame: higher = more bona fide. Shape: `(B, N)` -> `(B, T)`.

        The encoder and the convolution look beyond the frame, so a score is about the frame in its utterance.
        """
        logits = self.backend.frame_logits(self.frontend(waveform))
        return bonafide_log_odds(logits.flatten(0, 1), self.classes).view(logits.shape[:2])

    @property
    def axes(self) -> tuple[Axis, Axis]:
        return whole_band(self.sample_rate), self.frontend.time(self.n_samples)

    @property
    def mean_tap(self) -> Tensor:
        return self.tap_mean

    @property
    def attentions(self) -> Mapping[str, nn.Module]:
        return self.frontend.attentions

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        return {"res1d": self.backend.res1d, "fc": self.backend.fc}


recipe = Recipe(
    name="ssl-res1d",
    paper="Liu et al., Interspeech 2024, arXiv 2406.02483 (WeDefense); on a small encoder unless --ssl names a folder",
    build=SSLRes1D,
    folder=Path(__file__).parent / "checkpoints",
    training={"epochs": 30, "learning_rate": 7e-4, "batch_pairs": 12},
    obtain="train it with `xaibench train --cm ssl-res1d`",
)
