"""TCA: a countermeasure on frame features that computes its own explanation, the temporal class activation.

Li & Zhang, "Interpretable Temporal Class Activation Representation for Audio Spoofing Detection", Interspeech 2024 (arXiv
2406.08825); code: menglu-lml/Interpretable-Detection-IS24 (model.py, d03e88a). `T` frames, `T' = T + 1` rows, `C` features,
`K` classes:

    x  (T, C)   encoder frames through dense_1 and dense_2
    u  (C,)     attentive statistics of x through dense_3: what the utterance is like
    S  (T', C)  the rows of x, and u as the last one
    A  (C, K)   class activation vectors, S^T W with a weight W (T', K) for every row and class
    z  (K,)     first logits, one linear map of every column of A
    M  (C, K)   gate: linear over the classes of A, softmax over the features
    S' (T', K)  temporal class activation, z_k (S M)_tk
    z' (K,)     logits: linear map of (mean of S' over frames, S' of the utterance row)
    loss        0.3 CE(z) + 0.7 CE(z')

Where paper and code differ, and where both had to be left (docs/tca.md has the table with reasons):

- S' is T' x K (code), not T' x C; LeakyReLU (code), not ReLU.
- Statistics `sum_t alpha_t x_t` and its standard deviation, attention with a bias (paper). The code divides the mean by T
  once more and takes no root, and its attention has no bias.
- **W.** The code learns one number for every class and *position* of a row, 202 x 3 for 4.04 s: no other length fits. Here
  W is computed from the row itself, `tanh(row . q_k + b_k)`, divided by T for frames: any length, and a shifted excerpt is
  the same utterance. `frames=201` gives the literature's position weights back, for that number of frames only.
- **Encoder.** `SmallEncoder`, trained from nothing on little data, unless `ssl` names a folder with XLS-R.

`intrinsic["tca"]` is oriented and contrasted, so that positive speaks for spoof: see `TCA.temporal_activation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xaibench.errors import Unsupported, XaibenchError
from xaibench.frontends import whole_band
from xaibench.protocols import attributor
from xaibench.recipe import Recipe
from xaibench.scoring import bonafide_index
from xaibench.types import Axis
from xaibench.view import View
from xaibench_countermeasures.encoder import SAMPLE_RATE, frame_encoder, mean_frame

PAPER = "Li & Zhang, Interspeech 2024, arXiv 2406.08825"
#: Shares of the two cross-entropies, of z and of z' (paper and code agree).
FIRST_SHARE, FINAL_SHARE = 0.3, 0.7
#: Below this the variance of a feature counts as zero: the root has no gradient there.
VARIANCE_FLOOR = 1e-6


def attentive_statistics(x: Tensor, alpha: Tensor) -> Tensor:
    """Weighted mean and standard deviation over time (Okabe et al., Interspeech 2018, Eq. 5-6).

    Shape: frames `(B, T, C)`, weights `(B, T)` that sum to 1 -> `(B, 2C)`.

    >>> attentive_statistics(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[0.5, 0.5]])).tolist()
    [[2.0, 1.0]]
    """
    weights = alpha.unsqueeze(2)
    mean = (weights * x).sum(1)
    variance = (weights * (x - mean.unsqueeze(1)).square()).sum(1)
    return torch.cat([mean, variance.clamp_min(VARIANCE_FLOOR).sqrt()], dim=1)


def class_activation(rows: Tensor, weights: Tensor) -> Tensor:
    """`A = S^T W`, every feature's sum over rows. Shape: `(B, T', C)`, `(B, T', K)` or `(T', K)` -> `(B, C, K)`."""
    return rows.transpose(1, 2) @ weights


def temporal_class_activation(rows: Tensor, gate: Tensor, first: Tensor) -> Tensor:
    """`S'_tk = z_k sum_c S_tc M_ck`. Shape: `(B, T', C)`, `(B, C, K)`, `(B, K)` -> `(B, T', K)`."""
    return first.unsqueeze(1) * (rows @ gate)


def frames_and_utterance(activation: Tensor) -> Tensor:
    """Mean of all rows but the last, and the last. Shape: `(B, T', K)` -> `(B, 2, K)`."""
    return torch.stack([activation[:, :-1].mean(1), activation[:, -1]], dim=1)


class Parts(NamedTuple):
    """first: z `(B, K)`; activation: S' `(B, T + 1, K)`; logits: z' `(B, K)`."""

    first: Tensor
    activation: Tensor
    logits: Tensor


class PositionWeights(nn.Module):
    """W of the literature: one number for every row position and class. Shape: `(B, T', C)` -> `(T', K)`."""

    def __init__(self, rows: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, classes).uniform_(-1, 1) * rows**-0.5)

    def forward(self, rows: Tensor) -> Tensor:
        if rows.shape[1] != len(self.weight):
            raise XaibenchError(
                f"this TCA has weights for {len(self.weight) - 1} frames, the utterance has {rows.shape[1] - 1}; build it "
                f"with frames=None (any length), or cut the waveform to the length it was made for"
            )
        return self.weight


class ContentWeights(nn.Module):
    """W computed from the row: `tanh(row . q_k + b_k)`, a frame's divided by T. Shape: `(B, T', C)` -> `(B, T', K)`."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.query = nn.Linear(features, classes)
        self.tanh = nn.Tanh()

    def forward(self, rows: Tensor) -> Tensor:
        scale = rows.new_full((rows.shape[1], 1), 1 / (rows.shape[1] - 1))
        scale[-1] = 1.0
        return scale * self.tanh(self.query(rows))


def _dense(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    """A linear layer over features, the same at every frame, as a 1 x 1 convolution. `(B, C, 1, T)` -> same rank."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.01), nn.Dropout(dropout)
    )  # fmt: skip


class TCABackend(nn.Module):
    """Everything after the encoder. Shape: tap `(B, D, 1, T)` -> logits z' `(B, K)`; `parts` has all three results."""

    def __init__(
        self, dimension: int, classes: int, *, features: int = 128, dropout: float = 0.2, frames: int | None = None
    ) -> None:
        super().__init__()
        hidden = max(dimension // 2, features)  # 512 for XLS-R's 1024, as in the paper
        self.dense_1 = _dense(dimension, hidden, dropout)
        self.dense_2 = _dense(hidden, features, dropout)
        self.attention = nn.Linear(features, 1)
        self.tanh = nn.Tanh()
        self.over_time = nn.Softmax(dim=1)
        self.dense_3 = nn.Linear(2 * features, features)
        self.weights = ContentWeights(features, classes) if frames is None else PositionWeights(frames + 1, classes)
        self.bias = nn.Parameter(torch.zeros(classes))
        self.project = nn.Linear(features, 1)
        self.mix = nn.Linear(classes, classes)
        self.over_features = nn.Softmax(dim=1)
        self.combine = nn.Linear(2, 1)

    def forward(self, tap: Tensor) -> Tensor:
        return self.parts(tap).logits

    def parts(self, tap: Tensor) -> Parts:
        """z, S' and z' of a tap `(B, D, 1, T)`."""
        x = self.dense_2(self.dense_1(tap))
        with torch.autocast(tap.device.type, enabled=False):  # small, and a variance needs all digits
            return self._head(x[:, :, 0].transpose(1, 2).float())

    def _head(self, x: Tensor) -> Parts:
        alpha = self.over_time(self.tanh(self.attention(x)[:, :, 0]))
        utterance = self.dense_3(attentive_statistics(x, alpha))
        rows = torch.cat([x, utterance.unsqueeze(1)], dim=1)
        vectors = class_activation(rows, self.weights(rows)) + self.bias
        first = self.project(vectors.transpose(1, 2))[:, :, 0]
        gate = self.over_features(self.mix(vectors))
        activation = temporal_class_activation(rows, gate, first)
        logits = self.combine(frames_and_utterance(activation).transpose(1, 2))[:, :, 0]
        return Parts(first, activation, logits)


class TCA(nn.Module):
    """The countermeasure. Shape: `(B, N)` -> `(B, K)`, classes bonafide and the kinds of spoofing.

    kinds:     the kinds told apart; the paper's for ASVspoof 2019 LA are ("tts", "vc"). One name makes it binary.
    ssl:       folder with a wav2vec 2.0 model, or None for the small encoder.
    n_samples: the length it looks at, in samples at 16 kHz; the paper's is 64,600.
    frames:    None, or the number of frames for the literature's position weights (201 with XLS-R and 64,600 samples).

    >>> TCA().eval()(torch.zeros(1, 32_000)).shape
    torch.Size([1, 3])
    """

    sample_rate = SAMPLE_RATE
    resolves = frozenset({"time"})
    module_rules = False  # products of activations (attention, gate, z * S M): no rule of LRP or DeepLift is right there

    tap_mean: Tensor

    def __init__(
        self,
        *,
        kinds: Sequence[str] = ("signal-processing", "neural"),
        ssl: str | None = None,
        n_samples: int = 32_000,
        frames: int | None = None,
    ) -> None:
        super().__init__()
        if isinstance(kinds, str):
            raise XaibenchError(f"kinds is a list of names, got the text {kinds!r}; one kind is [{kinds!r}]")
        self.classes = ("bonafide", *kinds)
        bonafide_index(self.classes)
        self.n_samples = n_samples
        self.frontend = frame_encoder(ssl)
        self.backend = TCABackend(self.frontend.dimension, len(self.classes), frames=frames)
        self.register_buffer("tap_mean", torch.zeros(1, self.frontend.dimension, 1, 1))

    def forward(self, waveform: Tensor) -> Tensor:
        return self.backend(self.frontend(waveform))

    def training_loss(self, tap: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """`0.3 CE(z) + 0.7 CE(z')`; `weight` `(K,)` weighs the classes. The paper's weights are 8, 1, 1."""
        parts = self.backend.parts(tap)
        losses = [nn.functional.cross_entropy(z.float(), labels, weight=weight) for z in (parts.first, parts.logits)]
        return FIRST_SHARE * losses[0] + FINAL_SHARE * losses[1]

    def settle(self, waveforms: Tensor) -> None:
        """Set the mean of the learned tap from training waveforms `(B, N)`. In eval()."""
        self.tap_mean.copy_(mean_frame(self.frontend, waveforms))

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
        return {"dense_1": self.backend.dense_1, "dense_2": self.backend.dense_2}

    @property
    def intrinsic(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        return {"tca": self.temporal_activation, "tca-class": self.class_alone}

    @torch.no_grad()
    def temporal_activation(self, tap: Tensor) -> Tensor:
        """Every frame's share of `z'_k - z'_bonafide`, k the likelier kind of spoofing. `(B, D, 1, T)` -> `(B, 1, T)`.

        `d_1 (S'_tk - S'_t,bonafide) / T`, `d_1` the weight that the logits give the frames. Bona fide is subtracted because
        a softmax does not see what is added to all classes alike: S' of one class alone is only known up to that. `d_1`
        orients: nothing in the training keeps it from being negative, and S' would then speak against its own class.
        The frames' shares and the utterance row's `d_2 (S'_uk - S'_u,bonafide)` sum to `z'_k - z'_bonafide`.
        """
        return self._oriented(tap, subtract=True)

    @torch.no_grad()
    def class_alone(self, tap: Tensor) -> Tensor:
        """As `temporal_activation` without subtracting bona fide: the column of S' that the paper's figures show."""
        return self._oriented(tap, subtract=False)

    @torch.no_grad()
    def class_maps(self, tap: Tensor) -> Tensor:
        """`d_1 S'_tk / T` of every class, in the order of `classes`. Shape: `(B, D, 1, T)` -> `(B, K, T)`.

        Higher speaks for class k. Known only up to what all classes share in a frame, which a softmax does not see.
        """
        frames = self.backend.parts(tap).activation[:, :-1]
        return self.backend.combine.weight[0, 0] * frames.transpose(1, 2) / frames.shape[1]

    def _oriented(self, tap: Tensor, *, subtract: bool) -> Tensor:
        _, activation, logits = self.backend.parts(tap)
        index = bonafide_index(self.classes)
        masked = logits.clone()
        masked[:, index] = -torch.inf
        likelier = masked.argmax(1)
        frames = activation[:, :-1]
        chosen = frames.gather(2, likelier[:, None, None].expand(-1, frames.shape[1], 1))[:, :, 0]
        if subtract:
            chosen = chosen - frames[:, :, index]
        return (self.backend.combine.weight[0, 0] * chosen / frames.shape[1]).unsqueeze(1)


@attributor(name="tca", paper=PAPER, needs=["intrinsic"], class_specific=False)
def attribution(view: View, *, subtract_bonafide: bool = True) -> Tensor:
    """The temporal class activation that a TCA countermeasure computes itself. Shape: `(B, 1, T)`.

    subtract_bonafide: False shows the column of the likelier kind of spoofing alone, as the paper's figures do.

    It is a function of the countermeasure, not of `view.model`. Raises Unsupported for countermeasures without one.
    """
    name = "tca" if subtract_bonafide else "tca-class"
    if name not in view.intrinsic:
        known = ", ".join(view.intrinsic) or "none"
        raise Unsupported(f"this countermeasure computes no map {name!r} of its own (it has: {known}); --cm tca does")
    with torch.no_grad():
        return torch.cat([view.intrinsic[name](part) for part in view.inputs.split(view.batch_size)])


recipe = Recipe(
    name="tca",
    paper=f"{PAPER}; on a small encoder instead of wav2vec 2.0 XLS-R unless --ssl names a folder",
    build=TCA,
    folder=Path(__file__).parent / "checkpoints",
    training={"epochs": 30, "learning_rate": 7e-4, "batch_pairs": 12},
    obtain="train it with `xaibench train --cm tca`",
)
