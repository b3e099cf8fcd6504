"""Published checkpoints of the raw-waveform countermeasures, read into ours.

The authors publish `state_dict`s as PyTorch files (`models/weights/AASIST.pth` and `AASIST-L.pth` of clovaai/aasist;
RawNet2 of the ASVspoof 2021 baseline). They are pickles, so they are read by `xaibench.states`, which runs no code in
them. The sizes are read off the shapes. `xaibench convert` writes them as ours, with a card that says where they come from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from xaibench.errors import CheckpointError
from xaibench.states import load_state
from xaibench.weights import save_imported
from xaibench_countermeasures import aasist, rawnet2
from xaibench_countermeasures.aasist import SIZES, Aasist
from xaibench_countermeasures.rawnet2 import RawNet2

Model = TypeVar("Model", Aasist, RawNet2)

#: Bytes of a checkpoint; the largest published one has 100 MB.
LARGEST = 1 << 30
#: The largest size of a tensor that says how wide a network is; the published ones have 1,024.
WIDEST = 1 << 13
DEEPEST = 32  # recurrent layers; they have 3

#: Names of the ASVspoof 2021 baseline -> ours. Whatever matches none keeps its name.
RAWNET2_NAMES = (
    (re.compile(r"^(block\d)\.0\."), r"\1."),
    (re.compile(r"^fc_attention(\d)\.0\."), r"scaling\1.linear."),
    (re.compile(r"^gru\."), "recurrent.gru."),
    (re.compile(r"^(fc[12])_gru\."), r"\1."),
)


def load_aasist(path: Path, *, n_samples: int = 64_600) -> Aasist:
    """AASIST or AASIST-L from a checkpoint of the authors, in eval(). The names are theirs after `backend.`.

    Raises CheckpointError, naming file and key: missing, not a state dict, unsafe, or of another architecture.
    """
    state = _read(path)
    width = _shape(path, state, "pos_S", 3)[2]
    variants = {size.channels[-1]: name for name, size in SIZES.items()}
    if width not in variants:
        known = ", ".join(f"{w} ({name})" for w, name in variants.items())
        raise CheckpointError(f"{path}: pos_S has {width} channels, expected {known}; not one of the published sizes")
    model = Aasist(variant=variants[width], n_samples=n_samples)
    return _fill(path, model, state)


def load_rawnet2(path: Path, *, n_samples: int = 64_600) -> RawNet2:
    """RawNet2 of any size from a checkpoint of the ASVspoof 2021 baseline, in eval().

    Its one-dimensional kernels `(out, in, k)` become `(out, in, 1, k)`. Raises CheckpointError as `load_aasist`.
    """
    state = _read(path)
    layers = sum(name.startswith("gru.weight_hh_l") for name in state)
    if layers > DEEPEST:
        raise CheckpointError(f"{path}: {layers:,} recurrent layers, more than {DEEPEST}")
    build = partial(
        RawNet2,
        filters=(_shape(path, state, "first_bn.weight", 1)[0], _shape(path, state, "bn_before_gru.weight", 1)[0]),
        gru_nodes=_shape(path, state, "gru.weight_hh_l0", 2)[1],
        gru_layers=layers,
        fc_nodes=_shape(path, state, "fc1_gru.weight", 2)[0],
        n_samples=n_samples,
    )
    renamed = {}
    for name, tensor in state.items():
        ours = name
        for pattern, replacement in RAWNET2_NAMES:
            ours = pattern.sub(replacement, ours)
        renamed[ours] = tensor.unsqueeze(2) if "conv" in name and tensor.ndim == 3 else tensor
    with torch.device("meta"):  # two vectors of 100,000 numbers would make a matrix of 40 GB
        expected = build().backend.state_dict()
    _check(path, expected, renamed)
    return _fill(path, build(), renamed)


def convert_aasist(path: Path, out: Path) -> Path:
    """The authors' checkpoint `path` as our file `out`, with its card. Raises as `load_aasist`."""
    model = load_aasist(path)
    options = {"variant": model.variant, "n_samples": model.n_samples}
    recipe = aasist.recipe
    return save_imported(out, model, name=recipe.name, paper=recipe.paper, options=options, source=path)


def convert_rawnet2(path: Path, out: Path) -> Path:
    """The baseline's checkpoint `path` as our file `out`, with its card. Raises as `load_rawnet2`."""
    model, recipe = load_rawnet2(path), rawnet2.recipe
    net = model.backend
    options = {
        "filters": [net.first_bn.num_features, net.bn_before_gru.num_features],
        "gru_nodes": net.recurrent.gru.hidden_size,
        "gru_layers": net.recurrent.gru.num_layers,
        "fc_nodes": net.fc1.out_features,
        "n_samples": model.n_samples,
    }
    return save_imported(out, model, name=recipe.name, paper=recipe.paper, options=options, source=path)


def _read(path: Path) -> Mapping[str, Tensor]:
    state = load_state(path, most=LARGEST, hint="obtain it from the authors' repository")
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(type(n) is str and isinstance(t, Tensor) for n, t in state.items())
    ):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}, expected a state_dict: names and tensors only")
    return state


def _shape(path: Path, state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        raise CheckpointError(f"{path}: {name} is missing; first names there: {', '.join(list(state)[:3])}")
    if state[name].ndim != dimensions:
        raise CheckpointError(f"{path}: {name} is {tuple(state[name].shape)}, expected {dimensions} dimensions")
    if max(state[name].shape, default=0) > WIDEST:
        raise CheckpointError(f"{path}: {name} has a size of {max(state[name].shape):,}, more than {WIDEST:,}")
    return tuple(state[name].shape)


def _check(path: Path, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    problems = [f"missing {n}" for n in expected if n not in state]
    problems += [f"unknown {n}" for n in state if n not in expected]
    problems += [
        f"{n} is {tuple(state[n].shape)}, expected {tuple(t.shape)}"
        for n, t in expected.items()
        if n in state and state[n].shape != t.shape
    ]
    problems += [f"{n} holds NaN or infinity" for n, t in state.items() if t.is_floating_point() and not t.isfinite().all()]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{path}: not these weights: {'; '.join(problems[:3])}{more}")


def _fill(path: Path, model: Model, state: Mapping[str, Tensor]) -> Model:
    _check(path, model.backend.state_dict(), state)
    model.backend.load_state_dict(state)
    return model.eval()
