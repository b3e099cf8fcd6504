"""Reading NII's own checkpoints of LFCC-LCNN (`__pretrained/trained_network.pt`, one a training run).

Their networks (`lfcc-lcnn-fixed-sig`, `lfcc-lcnn-lstmsum-sig` in project/03-asvspoof-mega of
nii-yamagishilab/project-NN-Pytorch-scripts; Wang and Yamagishi, Interspeech 2021, arXiv 2103.11326) are saved as bare state
dicts, epochs as `{"state_dict": ...}`; both are read. What changes on the way:

- `m_transform.0.<i>`, `m_before_pooling.0.<i>` and `m_output_act.0...` keep their names and get the prefix `backend.`;
- kernels are transposed, and the columns of trim-pad's first dense layer reordered, because NII puts time before the
  cepstrum (`xaibench_countermeasures.lcnn_lfcc`);
- `input_mean`, `input_std`, `output_mean`, `output_std` are not used by the sigmoid networks, and `m_frontend.*` are
  constants that `xaibench_countermeasures.lfcc` computes: left out. The filter bank among them is compared with ours first,
  because a network on 60 linear filter bank outputs (LFB) has the very same shapes as one on 60 LFCC.

Written from the published code and tested with generated state dicts of its names and shapes: no file of NII's was at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from xaibench.errors import CheckpointError
from xaibench.states import load_state
from xaibench.weights import save_imported
from xaibench_countermeasures.lcnn_lfcc import FRAME_WIDTH, LFCCLCNN, REDUCTION, lstm_sum, trim_pad
from xaibench_countermeasures.lfcc import HOP, triangles

#: Bytes of a checkpoint; theirs have some MB.
LARGEST = 1 << 28
#: Keys of NII's state dicts that carry no trained weight.
IGNORED = ("input_mean", "input_std", "output_mean", "output_std")
IGNORED_PREFIX = "m_frontend."
FILTER_BANK = "m_frontend.0.lfcc_fb"

RECIPES = {recipe.name: recipe for recipe in (trim_pad, lstm_sum)}
#: NII's number of frames for trim-pad; 10 ms each.
NII_FRAMES = 750
#: Trim-pad's first dense layer, behind a flattened (channel, time, cepstrum).
DENSE = "m_output_act.0.1.weight"


def read_nii(path: Path) -> dict[str, Tensor]:
    """NII's weights under our names and in our orientation. Without `frontend.mean`, which NII does not keep.

    Raises CheckpointError, naming the file: missing, not loadable without running code, no state dict; and naming the key:
    not a tensor, not finite, (the first dense layer) of a width that is no whole number of frames, or (the filter bank)
    missing or not that of LFCC.
    """
    path = Path(path)
    state = _state_dict(path)
    _check_filter_bank(path, state.get(FILTER_BANK))
    weights = {"backend.logits.weight": torch.tensor([[-0.5], [0.5]])}
    for key, tensor in state.items():
        if key in IGNORED or str(key).startswith(IGNORED_PREFIX):
            continue
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: {key} is a {type(tensor).__name__}, expected a tensor; is this a state dict?")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {key} holds NaN or infinity; the training diverged")
        if tensor.ndim == 4:
            tensor = tensor.transpose(2, 3)
        elif key == DENSE:
            tensor = _time_last(path, tensor)
        weights[f"backend.{key}"] = tensor.contiguous()
    return weights


def convert_nii(recipe_name: str, path: Path, out: Path, *, frames: int = NII_FRAMES, mean: Tensor | None = None) -> Path:
    """Write NII's checkpoint `path` as `out` (safetensors) with its card beside it. Returns `out`.

    recipe_name: "lcnn-lfcc" (trim-pad) or "lcnn-lfcc-lstm" (LSTM-sum).
    frames:      what trim-pad was trained on (10 ms each); the length the benchmark cuts to for LSTM-sum, too.
    mean:        `(257, 1)`, the training mean of the power spectrum, as `PowerSpectrum.fit` finds it. NII does not keep
                 one; without it the fill `mean` is silence, and the card says so.

    Raises CheckpointError for an unknown name, a file that `read_nii` refuses, and weights of another network (the loss
    functions other than sigmoid have other output layers; LFB and spectrogram networks another input).
    """
    if recipe_name not in RECIPES:
        raise CheckpointError(f"{recipe_name!r} is no network of NII's that can be read; there are: {', '.join(RECIPES)}")
    path, out = Path(path), Path(out)
    recipe = RECIPES[recipe_name]
    options = {"dropout": 0.7, "n_samples": frames * HOP}
    if recipe is trim_pad:
        options["frames"] = frames
    model = cast(LFCCLCNN, recipe.untrained(seed=0, **options))
    weights = read_nii(path)
    weights["frontend.mean"] = model.frontend.mean if mean is None else mean
    _check(path, weights, model)
    model.load_state_dict(weights)
    return save_imported(
        out, model, name=recipe.name, paper=recipe.paper, options=options, source=path,
        mean="none; the fill mean is silence" if mean is None else "given",
    )  # fmt: skip


def _state_dict(path: Path) -> dict:
    state = load_state(path, most=LARGEST, hint="NII's are called __pretrained/trained_network.pt")
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not any(str(key).startswith("m_transform.") for key in state):
        raise CheckpointError(f"{path}: expected a state dict with keys m_transform.0.<i>; not of NII's LCNN")
    return state


def _check_filter_bank(path: Path, bank: object) -> None:
    ours = torch.from_numpy(triangles().T)
    if not isinstance(bank, Tensor) or bank.shape != ours.shape or not torch.allclose(bank.double(), ours, atol=1e-4):
        found = f"{tuple(bank.shape)}" if isinstance(bank, Tensor) else "missing" if bank is None else type(bank).__name__
        raise CheckpointError(
            f"{path}: {FILTER_BANK} is {found}, expected the {tuple(ours.shape)} filter bank of LFCC; a network on linear "
            f"filter bank outputs (lfb-lcnn) has the same shapes but another input"
        )


def _time_last(path: Path, weight: Tensor) -> Tensor:
    """Columns from NII's (32, time, 3) to our (32, 3, time). Shape: `(160, columns)` -> same."""
    if weight.ndim != 2 or weight.shape[1] % FRAME_WIDTH:
        raise CheckpointError(
            f"{path}: {DENSE} is {tuple(weight.shape)}, expected (160, {FRAME_WIDTH} * (frames // {REDUCTION}))"
        )
    steps = weight.shape[1] // FRAME_WIDTH
    return weight.unflatten(1, (32, steps, FRAME_WIDTH // 32)).transpose(2, 3).flatten(1)


def _check(path: Path, weights: dict[str, Tensor], model: LFCCLCNN) -> None:
    expected = model.state_dict()
    problems = [f"missing {n}" for n in expected if n not in weights]
    problems += [f"unknown {n}" for n in weights if n not in expected]
    problems += [
        f"{n} is {tuple(weights[n].shape)}, expected {tuple(t.shape)}"
        for n, t in expected.items()
        if n in weights and weights[n].shape != t.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        named = "; ".join(problems[:3]).replace("backend.", "")
        raise CheckpointError(
            f"{path}: not the weights of {type(model).__name__}: {named}{more}. Only the sigmoid LFCC networks fit; is it "
            f"trim-pad or LSTM-sum, and is the number of frames right?"
        )
