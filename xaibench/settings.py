"""torch's settings that every plugin shares, and on which everybody's numbers hang: read, and set again as they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch


def settings() -> dict[str, Any]:
    """torch's process-wide settings that no method may change."""
    cudnn = torch.backends.cudnn
    return {
        "gradient mode": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "number of threads": torch.get_num_threads(),
        "deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "autocast": (_nesting(), *((d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in ("cpu", "cuda"))),
        "anomaly mode": (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        "matmul precision": torch.get_float32_matmul_precision(),
        "cuDNN settings": {n: getattr(cudnn, n) for n in ("enabled", "benchmark", "deterministic", "allow_tf32")},
        "hooks of all modules": {n: tuple(getattr(torch.nn.modules.module, n)) for n in _HOOKS},
    }


_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks", "_global_backward_pre_hooks")


def _nesting() -> int:
    """How many blocks of autocast are open."""
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()


def restore(settings: Mapping[str, Any]) -> None:
    """Set them as `settings()` found them."""
    torch.set_grad_enabled(settings["gradient mode"])
    torch.set_default_dtype(settings["default dtype"])
    torch.set_num_threads(settings["number of threads"])
    if settings["deterministic mode"] != torch.are_deterministic_algorithms_enabled():  # to set it imports a compiler, 2 s
        torch.use_deterministic_algorithms(settings["deterministic mode"])
    if settings["default device"] != torch.get_default_device():
        torch.set_default_device(None if settings["default device"] == torch.device("cpu") else settings["default device"])
    nesting, *devices = settings["autocast"]
    while torch.autocast_increment_nesting() > nesting + 1:
        torch.autocast_decrement_nesting()
        torch.autocast_decrement_nesting()
    torch.autocast_decrement_nesting()
    for device, enabled, dtype in devices:
        torch.set_autocast_enabled(device, enabled)
        torch.set_autocast_dtype(device, dtype)
    torch.clear_autocast_cache()
    torch.set_anomaly_enabled(*settings["anomaly mode"])
    if settings["matmul precision"] != torch.get_float32_matmul_precision():
        torch.set_float32_matmul_precision(settings["matmul precision"])
    for name, value in settings["cuDNN settings"].items():
        setattr(torch.backends.cudnn, name, value)
    for name, known in settings["hooks of all modules"].items():
        hooks = getattr(torch.nn.modules.module, name)
        for new in hooks.keys() - set(known):
            del hooks[new]


@contextmanager
def unchanged() -> Iterator[None]:
    """After the block they are what they were before it.

    >>> with unchanged():
    ...     torch.set_default_dtype(torch.float64)
    >>> torch.get_default_dtype()
    torch.float32
    """
    before = settings()
    try:
        yield
    finally:
        if settings() != before:
            restore(before)
