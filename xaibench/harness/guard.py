"""What a method may not touch: the tensors it shares with every other method, and torch's process-wide settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from xaibench.errors import XaibenchError
from xaibench.view import View


def private_tensors(view: View) -> View:
    """The same view with copies of every tensor, so that writing into one changes nobody else's numbers."""

    def copy(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor.clone()

    truth = view.truth and replace(
        view.truth,
        values=view.truth.values.clone(),
        region=view.truth.region.clone(),
        valid=view.truth.valid.clone(),
        added=copy(view.truth.added),
    )
    return replace(
        view, inputs=view.inputs.clone(), fills={n: t.clone() for n, t in view.fills.items()},
        references=view.references.clone(), energy=copy(view.energy), prior=copy(view.prior), truth=truth,
    )  # fmt: skip


def _settings() -> dict[str, object]:
    return {
        "gradient mode": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "number of threads": torch.get_num_threads(),
        "deterministic mode": torch.are_deterministic_algorithms_enabled(),
    }


def _restore(settings: dict[str, object]) -> None:
    torch.set_grad_enabled(settings["gradient mode"])
    torch.set_default_dtype(settings["default dtype"])
    torch.set_num_threads(settings["number of threads"])
    if settings["deterministic mode"] != torch.are_deterministic_algorithms_enabled():  # to set it imports a compiler, 2 s
        torch.use_deterministic_algorithms(settings["deterministic mode"])


@contextmanager
def guarded(name: str) -> Iterator[None]:
    """Within the block a method's code runs. Raises XaibenchError when it changed a process-wide setting of torch (after
    restoring it) or called `sys.exit`.
    """
    before = _settings()
    try:
        yield
    except SystemExit as error:
        raise XaibenchError(f"{name} called sys.exit({error.code}); a method returns a map or raises") from error
    finally:
        after = _settings()
        _restore({**after, **{k: v for k, v in before.items() if after[k] != v}})
    changed = [k for k, v in before.items() if after[k] != v]
    if changed:
        raise XaibenchError(f"{name} changed torch's {' and '.join(changed)} for the whole process; it was restored")
