"""Frame encoders: waveform `(B, N)` -> learned frame features `(B, D, 1, T)`, one frame every 20 ms.

Two of them, with the same interface (`dimension`, `frames`, `time`):

`SmallEncoder` stands in for wav2vec 2.0 XLS-R where there are hundreds of utterances instead of 436,000 hours. It is trained
end to end with the classifier: **there is no self-supervision and nothing is pre-trained**. It therefore starts from the
normalised log power STFT instead of raw samples, which a few hundred utterances cannot teach a network to analyse; then
follow, as in wav2vec 2.0 (Baevski et al., NeurIPS 2020, arXiv 2006.11477), convolutions down to 20 ms frames, a position
embedding by convolution, and transformer layers.

`HuggingFaceEncoder` is wav2vec 2.0 itself, from a folder on this machine (XLS-R 300M: Babu et al., Interspeech 2022, arXiv
2111.09296). Its weights are fine-tuned with the classifier, as Li & Zhang and Liu et al. do, and so travel whole in the
countermeasure's checkpoint (XLS-R 300M: 1.3 GB). The folder must still be there when that checkpoint is loaded, because the
architecture is built from it.

Attention makes every frame a function of the whole utterance: frame `t` is centred on its 20 ms, but is not confined to it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xaibench import reading
from xaibench.errors import CheckpointError, PluginError, XaibenchError, told
from xaibench.frontends import LogPower
from xaibench.grid import Grid
from xaibench.reading import shown
from xaibench.types import Axis

SAMPLE_RATE = 16_000


def frame_axis(frames: int, hop: int, centre: float, n_samples: int, sample_rate: int = SAMPLE_RATE) -> Axis:
    """Time axis of `frames` cells, cell `t` centred on sample `centre + t * hop`; the outer two reach to the ends.

    >>> frame_axis(3, 320, 0, 800).edges.tolist()
    [0.0, 0.01, 0.03, 0.05]
    """
    edges = centre + (np.arange(frames + 1) - 0.5) * hop
    edges[0] = 0.0
    edges[-1] = max(edges[-1], n_samples)
    return Axis("time", edges / sample_rate)


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, arXiv 1706.03762, Eq. 1). Shape: `(B, T, D)` -> same.

    Written out instead of `nn.MultiheadAttention`, whose fused path in eval mode skips hooks and whose output is a tuple.
    `attention` sees the scores `(B, heads, T, T)` and gives the weights, for whoever wants to hook them.
    """

    def __init__(self, dimension: int, heads: int) -> None:
        super().__init__()
        if dimension % heads:
            raise PluginError(f"{dimension} features cannot be shared by {heads} heads")
        self.heads = heads
        self.project = nn.Linear(dimension, 3 * dimension)
        self.attention = nn.Softmax(dim=-1)
        self.output = nn.Linear(dimension, dimension)

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, dimension = x.shape
        query, key, value = self.project(x).view(batch, frames, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = self.attention(query @ key.transpose(-1, -2) / math.sqrt(dimension // self.heads))
        return self.output((weights @ value).transpose(1, 2).reshape(batch, frames, dimension))


class TransformerLayer(nn.Module):
    """Pre-norm transformer layer, as in the XLS-R models (`do_stable_layer_norm`). Shape: `(B, T, D)` -> same."""

    def __init__(self, dimension: int, *, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(dimension)
        self.attend = SelfAttention(dimension, heads)
        self.drop_1 = nn.Dropout(dropout)
        self.norm_2 = nn.LayerNorm(dimension)
        self.feed = nn.Sequential(
            nn.Linear(dimension, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dimension), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_1(self.attend(self.norm_1(x)))
        return x + self.feed(self.norm_2(x))


class SmallEncoder(nn.Module):
    """Log power STFT -> convolutions -> transformer. Shape: `(B, N)` -> `(B, dimension, 1, T)`, `T = N // 160 // 2 + 1`.

    Frame `t` is centred on sample `320 t`. The normalisation of the spectrogram is set by `fit`. Not pre-trained.

    >>> SmallEncoder().eval()(torch.zeros(2, 32_000)).shape
    torch.Size([2, 128, 1, 101])
    """

    hop = 320  # samples, 20 ms

    def __init__(self, *, dimension: int = 128, depth: int = 2, heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.dimension = dimension
        self.grid = Grid()
        self.spectrum = LogPower(self.grid)
        bins = self.grid.n_fft // 2 + 1
        modules: list[tuple[str, nn.Module]] = []
        inputs = 1
        # (channels, kernel, stride) over (frequency, time); only the first one halves the frame rate
        for number, (channels, kernel, stride) in enumerate(
            ((16, (5, 5), (2, 2)), (24, (3, 3), (2, 1)), (32, (3, 3), (2, 1)), (48, (3, 3), (2, 1))), start=1
        ):
            padding = kernel[0] // 2, kernel[1] // 2
            modules += [
                (f"conv_{number}", nn.Conv2d(inputs, channels, kernel, stride, padding, bias=False)),
                (f"norm_{number}", nn.BatchNorm2d(channels)),
                (f"relu_{number}", nn.ReLU()),
            ]
            inputs, bins = channels, (bins - 1) // 2 + 1
        modules += [  # all bands at once, so that a band is told from another
            ("bands", nn.Conv2d(inputs, dimension, (bins, 1), bias=False)),
            ("norm_bands", nn.BatchNorm2d(dimension)),
        ]
        self.convolutions = nn.Sequential(OrderedDict(modules))
        self.position = nn.Conv1d(dimension, dimension, 31, padding=15, groups=dimension)
        self.gelu = nn.GELU()
        self.layers = nn.ModuleList(
            TransformerLayer(dimension, heads=heads, hidden=2 * dimension, dropout=dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dimension)

    def forward(self, waveform: Tensor) -> Tensor:
        with torch.autocast(waveform.device.type, enabled=False):  # the logarithm of a power needs all digits
            z = self.spectrum(waveform.float())
        x = self.convolutions(z)[:, :, 0]
        x = (x + self.gelu(self.position(x))).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x).transpose(1, 2).unsqueeze(2)

    @property
    def attentions(self) -> Mapping[str, nn.Module]:
        """The self-attention of every transformer layer, one token a frame."""
        return {f"layer_{number}": layer.get_submodule("attend") for number, layer in enumerate(self.layers, start=1)}

    def fit(self, waveforms: Tensor) -> None:
        """Set the normalisation per frequency from training waveforms `(B, N)`."""
        self.spectrum.fit(waveforms)

    def frames(self, n_samples: int) -> int:
        """Number of frames of a waveform.

        >>> SmallEncoder().frames(64_600)
        202
        """
        return (self.grid.shape(n_samples)[1] - 1) // 2 + 1

    def time(self, n_samples: int) -> Axis:
        """Time axis of a waveform of `n_samples`, in seconds."""
        return frame_axis(self.frames(n_samples), self.hop, 0.0, n_samples)


class HuggingFaceEncoder(nn.Module):
    """wav2vec 2.0 from a local folder of the transformers library. Shape: `(B, N)` -> `(B, D, 1, T)`, last hidden state.

    path: a folder with `config.json` and `model.safetensors`; nothing is ever downloaded, pickles are refused.

    Every utterance is brought to zero mean and unit variance *by itself* if the folder's `preprocessor_config.json` says
    `do_normalize` (or is missing: true is the library's default). The code of Li & Zhang gives the feature extractor the
    whole batch as one array, which normalises it jointly, so that a score depends on its neighbours.

    Random masking of hidden states while fine-tuning (`apply_spec_augment`) is switched off: it draws from numpy's global
    generator. Attention is the plain one (`eager`), which keeps its weights and has second derivatives.

    Raises CheckpointError for a folder that lacks a file, holds a pickle only, or another kind of model; PluginError where
    transformers is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        folder = _checked(Path(path).expanduser())
        try:
            from transformers import Wav2Vec2Config, Wav2Vec2Model
        except ImportError as error:
            raise PluginError(
                f"--ssl {path} needs the transformers library: pip install 'xaibench-countermeasures[ssl]' ({error})"
            ) from error
        try:
            config = Wav2Vec2Config.from_pretrained(folder, local_files_only=True)
            config.apply_spec_augment = False
            with torch.device("meta"):
                needed = sum(p.numel() for p in Wav2Vec2Model(config).parameters())
            if needed > sum(path.stat().st_size for path in folder.glob("*.safetensors")):  # a number has two bytes or more
                raise ValueError(f"config.json describes {needed:,} numbers, more than its files hold")
            loaded: Any = Wav2Vec2Model.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                attn_implementation="eager",
                output_loading_info=True,
            )
        except Exception as error:  # whatever a library says of files of others is about the files
            raise CheckpointError(f"{folder}: transformers cannot load it ({told(error)})") from error
        model, found = loaded
        # transformers fills what a file lacks with random numbers and a warning; the mask's embedding is not used here
        missing = sorted(set(found["missing_keys"]) - {"masked_spec_embed"})
        if missing:
            raise CheckpointError(
                f"{folder}: its weights lack {len(missing)} tensors of a wav2vec 2.0 model, {missing[0]} first"
            )
        self.model: Any = model.float()
        self.normalize = _normalises(folder)
        self.dimension = int(config.hidden_size)
        self.hop = math.prod(config.conv_stride)
        # samples that reach one frame: 1 + sum (kernel - 1) * product of the strides before it; 400 for XLS-R
        before = [math.prod(config.conv_stride[:i]) for i in range(len(config.conv_kernel))]
        self.field = 1 + sum((k - 1) * b for k, b in zip(config.conv_kernel, before, strict=True))

    def forward(self, waveform: Tensor) -> Tensor:
        self.frames(waveform.shape[1])
        if self.normalize:
            # as Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm: population variance, 1e-7
            centred = waveform - waveform.mean(1, keepdim=True)
            waveform = centred / (centred.square().mean(1, keepdim=True) + 1e-7).sqrt()
        return self.model(waveform).last_hidden_state.transpose(1, 2).unsqueeze(2)

    @property
    def attentions(self) -> Mapping[str, nn.Module]:
        """The self-attention of every transformer layer, one token a frame."""
        return {f"layer_{number}": layer.attention for number, layer in enumerate(self.model.encoder.layers, start=1)}

    def frames(self, n_samples: int) -> int:
        """Number of frames of a waveform; 201 for the 64,600 samples of the literature. Raises XaibenchError below one."""
        if n_samples < self.field:
            raise XaibenchError(f"{n_samples} samples are too few for this encoder: at least {self.field} are needed")
        return int(self.model._get_feat_extract_output_lengths(n_samples))

    def time(self, n_samples: int) -> Axis:
        """Time axis of a waveform of `n_samples`, in seconds: cells around the centres of the receptive fields."""
        return frame_axis(self.frames(n_samples), self.hop, (self.field - 1) / 2, n_samples)


def frame_encoder(ssl: str | None) -> SmallEncoder | HuggingFaceEncoder:
    """The encoder of an option `ssl`: None, or a folder with a wav2vec 2.0 model."""
    return SmallEncoder() if ssl is None else HuggingFaceEncoder(ssl)


@torch.no_grad()
def mean_frame(encoder: nn.Module, waveforms: Tensor, *, batch_size: int = 16) -> Tensor:
    """Mean feature vector over utterances and frames. Shape: `(B, N)` -> `(1, D, 1, 1)`. The encoder must be in eval()."""
    return torch.cat([encoder(part).mean(dim=3) for part in waveforms.split(batch_size)]).mean(0)[None, :, :, None]


def _checked(folder: Path) -> Path:
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: no such folder; --ssl takes a folder on this machine with config.json and model.safetensors, "
            f"not the name of a model (nothing is downloaded)"
        )
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: config.json is missing; expected a model folder of the transformers library")
    config = _read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind != "wav2vec2":
        raise CheckpointError(f"{folder}: config.json names the model type {kind!r}, expected 'wav2vec2' (XLS-R, say)")
    huge = [name for name, value in config.items() if not _sane(value)]
    if huge or config.keys() & {"auto_map", "quantization_config"}:
        named = huge or sorted(config.keys() & {"auto_map", "quantization_config"})
        raise CheckpointError(f"{folder}: config.json has {shown(named[0])} as no wav2vec 2.0 model has it")
    for name in _shards(folder / "model.safetensors.index.json"):
        try:
            reading.Root(folder)(name)
        except ValueError as error:
            raise CheckpointError(f"{folder}: its index names a file elsewhere ({error})") from error
    if not any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(pattern))
        if pickles:
            raise CheckpointError(
                f"{folder}: {pickles[0]} is a pickle, which can run code and is refused; convert it to model.safetensors "
                f"(save_pretrained(..., safe_serialization=True)) where you trust it"
            )
        raise CheckpointError(f"{folder}: model.safetensors is missing")
    return folder


def _sane(value: object) -> bool:
    """Whether no number of a configuration is beyond what a network on this earth has; lists have at most 4,096 of them."""
    if isinstance(value, list):
        return len(value) <= 4096 and all(map(_sane, value))
    return not isinstance(value, int | float) or abs(value) <= 1 << 20


def _shards(index: Path) -> list[str]:
    """The files that an index of weights names."""
    found = _read_json(index).get("weight_map", {}) if index.is_file() else {}
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise CheckpointError(f"{index}: its weight_map is no object from tensor to file")
    return sorted(set(found.values()))


def _normalises(folder: Path) -> bool:
    path = folder / "preprocessor_config.json"
    return bool(_read_json(path).get("do_normalize", True)) if path.is_file() else True


def _read_json(path: Path) -> dict[str, Any]:
    return reading.json_object(path, CheckpointError, hint="is it the model's own?", most=1 << 22)
