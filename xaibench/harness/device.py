"""The one owner of the device, of the number of threads, and of the allocator."""

from __future__ import annotations

import ctypes
import sys

import numpy as np
import torch
from torch import Tensor

from xaibench.errors import RunError


def choose_device(name: str = "auto") -> torch.device:
    """`auto` takes CUDA where there is one. Raises RunError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RunError(f"unknown device {name!r}; expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RunError(f"device {name!r} was asked for, but torch sees no CUDA device; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RunError(f"device {name!r} was asked for, but there are {torch.cuda.device_count()} CUDA devices")
    return device


def default_batch_size(device: torch.device) -> int:
    """Utterances at a time. On a CPU large batches lose to page faults; on CUDA they fill the card."""
    return 4 if device.type == "cpu" else 32


def staged(array: np.ndarray, device: torch.device) -> Tensor:
    """A host tensor of the same values, from which a copy to `device` need not wait: page-locked for CUDA, else the array's
    own memory. Any thread may call it.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory() if device.type == "cuda" else tensor


def to_device(array: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """The array on a device. To CUDA it is copied while the host goes on; on the CPU an array's memory is shared.

    >>> to_device(np.ones((2, 3), np.float32), torch.device("cpu")).shape
    torch.Size([2, 3])
    """
    tensor = array if isinstance(array, Tensor) else staged(array, device)
    return tensor.to(device, non_blocking=device.type == "cuda")


def tune_allocator() -> None:
    """Keep freed memory in the process (glibc): a forward pass of LCNN takes about a quarter less time.

    The same as MALLOC_MMAP_MAX_=0 and a large MALLOC_TRIM_THRESHOLD_, settable while running. Does nothing elsewhere.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
