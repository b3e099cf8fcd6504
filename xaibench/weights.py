"""Weights on disk: safetensors only, with the card (JSON) beside them. Pickles are refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from xaibench.errors import CheckpointError
from xaibench.files import whole, write_text

if TYPE_CHECKING:
    from xaibench.protocols import Countermeasure, TorchModule


def save_weights(path: Path, model: TorchModule, *, half: bool = False) -> None:
    """Write every parameter and buffer, atomically. A tensor registered under two names is written under both.

    half: floating-point numbers as float16, half the size; `halved` first, so that the model is what is written.
    """
    path = Path(path)
    # clone: safetensors refuses tensors that share memory
    state = {name: t.detach().cpu().contiguous().clone() for name, t in model.state_dict().items()}
    if half:
        state = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    with whole(path, flush=True) as scratch:
        save_file(state, scratch)


@torch.no_grad()
def halved(model: nn.Module) -> nn.Module:
    """Round every parameter and buffer to half precision, in place; they stay in their own type. Returns the model.

    Raises CheckpointError for a value beyond what float16 holds (65,504).

    >>> halved(nn.Linear(1, 1)).weight.dtype
    torch.float32
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            rounded = tensor.half().to(tensor.dtype)
            if not rounded.isfinite().all():
                raise CheckpointError(f"{name} holds {float(tensor.abs().max()):.3g}, beyond half precision; keep it whole")
            tensor.copy_(rounded)
    return model


def load_weights(model: TorchModule, path: Path) -> None:
    """Load weights into `model` in place.

    Raises CheckpointError, naming the file: missing, a pickle (`.pt`, `.pth`, `.ckpt`, `.pkl`, `.bin`), damaged, or of
    another architecture (the first differing names and shapes are listed).
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; `xaibench train --cm NAME` makes one")
    with path.open("rb") as file:
        head = file.read(9)
    # A safetensors file opens with the length of its header, which can be the same bytes as a pickle's or a zip's magic
    # (640 is 80 02); only the brace after it tells.
    magic = head[:2] == b"PK" or (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))
    if path.suffix in (".pt", ".pth", ".ckpt", ".pkl", ".bin") or (magic and head[8:9] != b"{"):
        raise CheckpointError(
            f"{path}: looks like a pickle, which can run code when loaded; expected safetensors. Convert it where you "
            f"trust it: safetensors.torch.save_file(torch.load(path, weights_only=True), 'weights.safetensors')"
        )
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}); truncated download?") from error
    expected = model.state_dict()
    problems = [f"missing {n}" for n in expected if n not in state]
    problems += [f"unknown {n}" for n in state if n not in expected]
    problems += [
        f"{n} is {tuple(state[n].shape)}, expected {tuple(t.shape)}"
        for n, t in expected.items()
        if n in state and state[n].shape != t.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{path}: weights of another architecture: {'; '.join(problems[:3])}{more}")
    broken = [n for n, t in state.items() if t.is_floating_point() and not t.isfinite().all()]
    if broken:
        raise CheckpointError(f"{path}: {broken[0]} holds NaN or infinity; the training diverged")
    model.load_state_dict(state)


def save_imported(
    path: Path, model: Countermeasure, *, name: str, paper: str, options: Mapping[str, object], source: Path, **facts: str
) -> Path:
    """Write weights that others trained, with a card that says so: no training set, no error rates. Returns `path`.

    options: with which the recipe `name` builds `model`. source: the file they came from. facts: of the training, in words.
    Raises CheckpointError for a name that does not end in .safetensors.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: a checkpoint is written as .safetensors, with its card (.json) beside it")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, model)
    card = {
        "name": name,
        "paper": paper,
        "options": dict(options),
        "classes": list(model.classes),
        "sample_rate": model.sample_rate,
        "n_samples": model.n_samples,
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_on": {"data": f"unknown (imported from {Path(source).name})", **facts},
        "eer": {},
        "made_with": {"torch": torch.__version__},
    }
    write_text(path.with_suffix(".json"), json.dumps(card, indent=2) + "\n")
    return path


def read_card(path: Path) -> Mapping[str, Any]:
    """The card of a checkpoint: what it was trained on, its classes and its EER.

    Raises CheckpointError, naming the card: missing, not JSON, or not a JSON object.
    """
    card = Path(path).with_suffix(".json")
    try:
        facts = json.loads(card.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{card}: the card of the checkpoint is missing; a model whose training set is unknown is not scored"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{card}: not JSON ({error})") from error
    if not isinstance(facts, dict):
        raise CheckpointError(f"{card}: holds a JSON {type(facts).__name__}, expected an object with the card's keys")
    return facts


def weights_hash(model: TorchModule) -> str:
    """sha256 over names, shapes and bytes of every parameter and buffer."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        # as bytes, because numpy has no bfloat16
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
