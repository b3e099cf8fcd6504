"""Weights on disk: safetensors only, with the card (JSON) beside them. Pickles are refused."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from xaibench import reading
from xaibench.errors import CheckpointError, first_line
from xaibench.files import whole, write_text

if TYPE_CHECKING:
    from xaibench.protocols import Countermeasure, TorchModule

#: Bytes of a card; the largest of ours has 20 kB.
LARGEST_CARD = 1 << 22


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
    expected = model.state_dict()
    # What the weights need, in doubles, and a megabyte for the header: more is no file for this model.
    most = sum(8 * max(1, t.numel()) for t in expected.values()) + (1 << 20)
    with reading.opened(path, CheckpointError, what="checkpoint", hint="`xaibench train --cm NAME` makes one") as file:
        head = file.read(9)
        size = os.fstat(file.fileno()).st_size
    # A safetensors file opens with the length of its header, which can be the same bytes as a pickle's or a zip's magic
    # (640 is 80 02); only the brace after it tells.
    magic = head[:2] == b"PK" or (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))
    if path.suffix in (".pt", ".pth", ".ckpt", ".pkl", ".bin") or (magic and head[8:9] != b"{"):
        raise CheckpointError(
            f"{path}: looks like a pickle, which can run code when loaded; expected safetensors. Convert it where you "
            f"trust it: safetensors.torch.save_file(torch.load(path, weights_only=True), 'weights.safetensors')"
        )
    try:
        with safe_open(path, framework="pt") as file:  # the header alone: nothing of another size is read
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            shapes = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in found.items()}
            _check_architecture(path, expected, shapes)
            if size > most:
                raise CheckpointError(f"{path}: {size:,} bytes, more than the {most:,} that its weights can have")
            state = {name: file.get_tensor(name) for name in found}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({first_line(error)}); truncated download?"
        ) from error
    broken = [n for n, t in state.items() if t.is_floating_point() and not t.isfinite().all()]
    if broken:
        raise CheckpointError(f"{path}: {broken[0]} holds NaN or infinity; the training diverged")
    model.load_state_dict(state)


def _check_architecture(
    path: Path, expected: Mapping[str, torch.Tensor], found: Mapping[str, tuple[tuple[int, ...], str]]
) -> None:
    """Names, shapes and kinds of number, as the header says them. Raises CheckpointError with the first that differ."""
    problems = [f"missing {n}" for n in expected if n not in found]
    problems += [f"unknown {first_line(n)}" for n in found if n not in expected]
    problems += [
        f"{n} is {found[n][0]}, expected {tuple(t.shape)}"
        for n, t in expected.items()
        if n in found and found[n][0] != tuple(t.shape)
    ]
    problems += [
        f"{n} is of {found[n][1]}, expected {t.dtype}"
        for n, t in expected.items()
        if n in found and found[n][1].startswith(("F", "BF")) != t.is_floating_point()
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{path}: weights of another architecture: {'; '.join(problems[:3])}{more}")


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

    Raises CheckpointError, naming the card: missing, not JSON, too large, not a JSON object, options that are none.
    """
    card = Path(path).with_suffix(".json")
    if not os.path.lexists(card):
        raise CheckpointError(
            f"{card}: the card of the checkpoint is missing; a model whose training set is unknown is not scored"
        )
    facts = reading.json_object(card, CheckpointError, hint="copy it anew from beside the weights", most=LARGEST_CARD)
    if not isinstance(facts.get("options", {}), dict):
        raise CheckpointError(f"{card}: its options are {type(facts['options']).__name__}, expected an object")
    return facts


def weights_hash(model: TorchModule) -> str:
    """sha256 over names, shapes and bytes of every parameter and buffer."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        # as bytes, because numpy has no bfloat16
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
