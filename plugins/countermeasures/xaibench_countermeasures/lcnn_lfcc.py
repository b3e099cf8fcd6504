"""LFCC-LCNN of the NII comparison, with its two pooling schemes: trim-pad and LSTM-sum.

Wang and Yamagishi, "A Comparative Study on Recent Neural Spoofing Countermeasures for Synthetic Speech Detection",
Interspeech 2021 (arXiv 2103.11326); code `project/03-asvspoof-mega/lfcc-lcnn-{fixed,lstmsum}-sig` of
nii-yamagishilab/project-NN-Pytorch-scripts, whose module names and indices are kept (`m_transform.0.<i>` ...), so that
`xaibench_countermeasures.nii` can read its checkpoints.

    power spectrum (tap, B,1,257,T) -> LFCC (B,1,60,T) -> nine convolutions with Max-Feature-Map (B,32,3,T//16) ->
    trim-pad:  flatten -> dropout -> 160 -> Max-Feature-Map 80 -> z      T fixed; 864,305 trainable parameters at T = 750
    lstm-sum:  frames (T//16, 96) h -> two BLSTM -> mean over time of (BLSTM(h) + h) -> z      any length

z is their single output, a logit: sigmoid(z) = P(bona fide). The benchmark wants two logits, here (-z/2, z/2), whose
log-odds are z; binary cross-entropy on z and cross-entropy on the pair are the same loss.

Their network takes (B, 1, frame, coefficient); this one (B, 1, coefficient, frame), frequency-like axis first as everywhere
in the house. It is the same function with kernels and flattened columns transposed, which `nii` does on reading.

What attribution can and cannot do here: `module_rules` is False, because the logarithm within the cepstrum (and the LSTM)
has no relevance or DeepLIFT rule. The height of the convolutions' feature maps is cepstral, not frequency: a CAM of them
says *when*, never at which frequency (`layers_resolve`).

Departures: dropout 0.3 instead of 0.7, and two seconds instead of 7.5 (trim-pad): both for the small embedded corpus. Short
recordings are repeated sample by sample, where NII repeats frames; long ones are cut in windows, where NII cuts at random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from xaibench.errors import XaibenchError
from xaibench.layers import MaxFeatureMap
from xaibench.recipe import Recipe
from xaibench.types import Axis
from xaibench_countermeasures import lfcc

#: 60 coefficients after four poolings by two, times 32 channels.
FRAME_WIDTH = 32 * (3 * lfcc.FILTERS // 16)
#: Four poolings by two.
REDUCTION = 16


def nii_transform() -> nn.Sequential:
    """NII's convolutions, by their indices 0 to 27. Shape: `(B, 1, 60, T)` -> `(B, 32, 3, T // 16)`."""

    def convolution(size: int, inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, 2 * outputs, size, padding=size // 2), MaxFeatureMap()]

    def norm(channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels, affine=False)

    return nn.Sequential(
        *convolution(5, 1, 32),
        nn.MaxPool2d(2, 2),
        *convolution(1, 32, 32),
        norm(32),
        *convolution(3, 32, 48),
        nn.MaxPool2d(2, 2),
        norm(48),
        *convolution(1, 48, 48),
        norm(48),
        *convolution(3, 48, 64),
        nn.MaxPool2d(2, 2),
        *convolution(1, 64, 64),
        norm(64),
        *convolution(3, 64, 32),
        norm(32),
        *convolution(1, 32, 32),
        norm(32),
        *convolution(3, 32, 32),
        nn.MaxPool2d(2, 2),
    )


def two_logits() -> nn.Linear:
    """z `(B, 1)` -> `(-z/2, z/2)`, fixed: the log-odds of ("spoof", "bonafide") are z."""
    linear = nn.utils.skip_init(nn.Linear, 1, 2, bias=False)  # without drawing from the global generator
    linear.weight = nn.Parameter(torch.tensor([[-0.5], [0.5]]), requires_grad=False)
    return linear


class FirstFrames(nn.Module):
    """The first `frames` of `(B, 1, 60, T)`, after the deltas: those of the last frame kept see the next one, as in NII's.

    Raises XaibenchError where there are fewer.
    """

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] < self.frames:
            raise XaibenchError(
                f"{x.shape[-1]} frames of {lfcc.HOP} samples, {self.frames} are needed; repeat the recording to at least "
                f"{(self.frames - 1) * lfcc.HOP} samples"
            )
        return x[..., : self.frames]


class BLSTM(nn.Module):
    """A bidirectional LSTM that returns its sequence only. Shape: `(B, T, D)` -> `(B, T, D)`.

    cuDNN refuses the backward pass of an LSTM in eval mode, in which every attribution is made; so it is left aside there.
    In float32 always: on a CPU autocast would change little in speed and much in the state.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.l_blstm = nn.LSTM(width, width // 2, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.l_blstm.all_weights[0][0].dtype)
            if self.training:
                return self.l_blstm(x)[0]
            with torch.backends.cudnn.flags(enabled=False):
                return self.l_blstm(x)[0]


class TrimPad(nn.Module):
    """Back end with a dense layer over `frames`. Shape: tap `(B, 1, 257, T)`, T >= frames -> logits `(B, 2)`."""

    def __init__(self, frames: int, dropout: float) -> None:
        super().__init__()
        self.cepstrum = lfcc.Cepstrum()
        self.trim = FirstFrames(frames)
        self.m_transform = nn.ModuleList([nii_transform()])
        self.flatten = nn.Flatten()
        self.m_output_act = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Dropout(dropout),
                    nn.Linear(frames // REDUCTION * FRAME_WIDTH, 160),
                    MaxFeatureMap(),
                    nn.Linear(80, 1),
                )
            ]
        )
        self.logits = two_logits()

    def forward(self, power: Tensor) -> Tensor:
        features = self.m_transform[0](self.trim(self.cepstrum(power)))
        return self.logits(self.m_output_act[0](self.flatten(features)))


class LSTMSum(nn.Module):
    """Back end with two BLSTMs, a residual and the mean over time. Shape: tap `(B, 1, 257, T)`, T >= 16 -> `(B, 2)`."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.cepstrum = lfcc.Cepstrum()
        self.m_transform = nn.ModuleList([nii_transform().append(nn.Dropout(dropout))])
        self.m_before_pooling = nn.ModuleList([nn.Sequential(BLSTM(FRAME_WIDTH), BLSTM(FRAME_WIDTH))])
        self.m_output_act = nn.ModuleList([nn.Linear(FRAME_WIDTH, 1)])
        self.logits = two_logits()

    def forward(self, power: Tensor) -> Tensor:
        features = self.m_transform[0](self.cepstrum(power))
        frames = features.permute(0, 3, 1, 2).flatten(2)  # (B, T // 16, 32 * 3), channel first within a frame
        return self.logits(self.m_output_act[0]((self.m_before_pooling[0](frames) + frames).mean(1)))


class LFCCLCNN(nn.Module):
    """What both have in common: the power spectrum as tap. Shape: `(B, n_samples)` -> `(B, 2)`."""

    sample_rate = lfcc.SAMPLE_RATE
    classes = ("spoof", "bonafide")
    backend: TrimPad | LSTMSum
    #: Not every operation of the back end has a relevance and a DeepLIFT rule. (`modules` is a method of every nn.Module.)
    module_rules = False
    #: What a map of `layers` can tell apart: their height is cepstral.
    layers_resolve = frozenset({"time"})

    def __init__(self, n_samples: int) -> None:
        super().__init__()
        self.n_samples = n_samples
        self.tap_frames = n_samples // lfcc.HOP + 1
        if self.tap_frames < REDUCTION:
            raise XaibenchError(
                f"n_samples = {n_samples} are {self.tap_frames} frames of {lfcc.HOP} samples; four poolings need at least "
                f"{REDUCTION} frames, {(REDUCTION - 1) * lfcc.HOP} samples"
            )
        self.frontend = lfcc.PowerSpectrum()

    def forward(self, waveform: Tensor) -> Tensor:
        return self.backend(self.frontend(waveform))

    @property
    def axes(self) -> tuple[Axis, Axis]:
        return lfcc.axes(self.tap_frames)

    @property
    def mean_tap(self) -> Tensor:
        return self.frontend.mean[None, None]

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        """The nine Max-Feature-Maps between convolutions, by the numbers of Table 1 of arXiv 1904.05576."""
        named = self.backend.m_transform[0].named_children()
        return {f"mfm_{int(i) + 1}": m for i, m in named if isinstance(m, MaxFeatureMap)}


class LFCCLCNNTrimPad(LFCCLCNN):
    """LFCC-LCNN with a dense layer over a fixed number of frames. NII's size: `n_samples=120_000, frames=750`.

    dropout:   rate before the dense layers (NII: 0.7).
    frames:    the dense layer sees the first so many frames; None for all of `n_samples`. NII takes n_samples // 160 of
               them, and so drops the last one, which is half empty.

    Raises XaibenchError where `n_samples` are too few for `frames`.

    >>> LFCCLCNNTrimPad().eval()(torch.zeros(1, 32_000)).shape
    torch.Size([1, 2])
    """

    def __init__(self, *, dropout: float = 0.3, n_samples: int = 32_000, frames: int | None = None) -> None:
        super().__init__(n_samples)
        frames = self.tap_frames if frames is None else frames
        if not REDUCTION <= frames <= self.tap_frames:
            raise XaibenchError(
                f"frames = {frames}: expected {REDUCTION} to {self.tap_frames}, the frames of {n_samples} samples"
            )
        self.backend = TrimPad(frames, dropout)


class LFCCLCNNLSTMSum(LFCCLCNN):
    """LFCC-LCNN with two BLSTMs and a mean over time; takes any length of at least 2,400 samples (16 frames).

    dropout:   rate after the convolutions (NII: 0.7).
    n_samples: the length the harness cuts or repeats to (NII scores whole utterances).

    >>> LFCCLCNNLSTMSum().eval()(torch.zeros(1, 12_345)).shape
    torch.Size([1, 2])
    """

    def __init__(self, *, dropout: float = 0.3, n_samples: int = 32_000) -> None:
        super().__init__(n_samples)
        self.backend = LSTMSum(dropout)


_FOLDER = Path(__file__).parent / "checkpoints"

#: NII trains with Adam, 3e-4, batches of 64, halved every ten epochs, at most 100. Here batches hold 24 and the rate
#: falls to zero within the course, so it starts higher.
#: Without masks over frequency and with a weaker response: a silent band is log10(eps) in a filter, which spreads over all
#: cepstra (pooled EER on dev 19.4 % with masks and 3 dB, 11.8 % like this, lcnn-lfcc, seed 0).
_TRAINING = {"epochs": 28, "learning_rate": 1e-3, "frequency_mask": 0, "equaliser_db": 2.0}


def _convert(name: str) -> Callable[[Path, Path], Path]:
    def convert(path: Path, out: Path) -> Path:
        from xaibench_countermeasures.nii import convert_nii

        return convert_nii(name, path, out)

    return convert


trim_pad = Recipe(
    name="lcnn-lfcc",
    paper="Wang and Yamagishi, Interspeech 2021, arXiv 2103.11326, LFCC-LCNN trim-pad, sigmoid",
    build=LFCCLCNNTrimPad,
    folder=_FOLDER,
    training=_TRAINING,
    convert=_convert("lcnn-lfcc"),
    obtain="make them with `xaibench train --cm lcnn-lfcc`, or read NII's own with `xaibench convert lcnn-lfcc FILE`",
)

lstm_sum = Recipe(
    name="lcnn-lfcc-lstm",
    paper="Wang and Yamagishi, Interspeech 2021, arXiv 2103.11326, LFCC-LCNN LSTM-sum, sigmoid",
    build=LFCCLCNNLSTMSum,
    folder=_FOLDER,
    training=_TRAINING,
    convert=_convert("lcnn-lfcc-lstm"),
    obtain="make them with `xaibench train --cm lcnn-lfcc-lstm`, or read NII's with `xaibench convert lcnn-lfcc-lstm FILE`",
)
