"""How many inputs go through the model at a time, what happens when memory runs out, and when a device is lost.

Utterances a chunk and inputs at a time are two numbers. The first decides chunks and file names and is a constant
(`xaibench.harness.device`). The second is a limit that every method and metric respects (`View.batch_size`): utterances,
masks and samples alike are split by it. It changes the last bits of a result and nothing else (docs/determinism.md), so it
must not hang on how busy a machine is: `fitting_batch` doubles it with real inputs, up to MOST, while they fit, and asks no
clock. (The fastest size was 4 on a busy machine and 16 on a quiet one: the same command, other last bits. Of five
countermeasures, 16 is within 10 % of the best size of each on a CPU.)

Out of memory: half as many inputs at a time, then one utterance at a time, then `failed` rows (`xaibench.harness.cell`).
A CUDA context that an error has left unusable answers every later call with the same error, so nothing is tried again in
that process. The errors that do are those of which NVIDIA's documentation of `cudaError` says that "the process must be
terminated and relaunched" (CUDA Runtime API, Data types used by CUDA Runtime).
"""

from __future__ import annotations

import gc
import os
import resource
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from xaibench.errors import first_line, text_of
from xaibench.view import View

#: Most inputs at a time, by kind of device. What masks themselves need grows with it, too.
MOST = {"cpu": 16, "cuda": 256}
#: The share of all memory that one forward and backward pass may take, and of what is free now; the rest is for masks, maps
#: and other batches. The first decides unless most of the memory is taken: what others do should not change a number.
SHARE = {"cpu": 0.25, "cuda": 0.5}
FREE_SHARE = 0.8

#: What cuBLAS, cuDNN, cuFFT, the CPU's allocator and the driver say. A MemoryError says so by its type.
OUT_OF_MEMORY = (
    "out of memory", "defaultcpuallocator: can't allocate memory", "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed", "cufft_alloc_failed", "std::bad_alloc",
)  # fmt: skip
#: `cudaError` codes after which the process must be relaunched, and how the runtime says them.
POISONED = {
    214: "uncorrectable ecc error",
    226: "invalid access of peer gpu memory over nvlink or a hardware error",
    700: "an illegal memory access was encountered",
    702: "the launch timed out and was terminated",
    709: "context is destroyed",
    710: "device-side assert triggered",
    714: "hardware stack error",
    715: "an illegal instruction was encountered",
    716: "misaligned address",
    717: "operation not supported on global/shared address space",
    718: "invalid program counter",
    719: "unspecified launch failure",
    721: "tensor memory not completely freed",
}

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Size:
    """Inputs at a time, and why no more: a sentence for the record."""

    inputs: int
    why: str


# ---- what went wrong ---------------------------------------------------------------------------------------------------


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those it was raised from: a library may wrap what torch said."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a device or off it, and a smaller batch may do.

    >>> is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    True
    >>> is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
    False
    """
    if is_poisoned(error):
        return False
    return any(
        isinstance(e, (MemoryError, torch.OutOfMemoryError))
        or (isinstance(e, RuntimeError) and any(words in text_of(e).lower() for words in OUT_OF_MEMORY))
        for e in _chain(error)
    )


def is_poisoned(error: BaseException) -> bool:
    """Whether the CUDA context of this process is lost: every later call fails with the same error.

    >>> is_poisoned(RuntimeError("CUDA error: device-side assert triggered"))
    True
    >>> is_poisoned(RuntimeError("CUDA error: invalid argument"))
    False
    """
    return any(_poisons(e) for e in _chain(error))


def _poisons(error: BaseException) -> bool:
    if isinstance(error, torch.AcceleratorError) and getattr(error, "error_code", None) in POISONED:
        return True
    said = text_of(error).lower()
    return isinstance(error, RuntimeError) and "cuda" in said and any(words in said for words in POISONED.values())


def lost_device(
    error: BaseException, device: torch.device, doing: str,
    kept: str = "The rows of finished chunks are kept; the same command continues in a new process.",
) -> str:  # fmt: skip
    """The sentence about a lost CUDA context: which process of which host, what it did, what is kept, and how to go on."""
    said = first_line(next(e for e in _chain(error) if _poisons(e))) or "a CUDA error"
    return (
        f"{doing}: {device} on {socket.gethostname()} (process {os.getpid()}) was lost to {said!r}; CUDA answers nothing "
        f"more in that process.{f' {kept}' if kept else ''} If it ends here again, leave that method out, or find its "
        f"kernel with CUDA_LAUNCH_BLOCKING=1"
    )


def release(device: torch.device) -> None:
    """Give back what nothing refers to any more. To be called outside the `except` block, whose error holds tensors."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def with_room(work: Callable[[], Thing], smaller: Callable[[], bool], device: torch.device) -> Thing:
    """What `work` gives; called again whenever memory ran out and `smaller` found something to make smaller.

    Raises what `work` raises in the end. A lost CUDA context is never tried again.
    """
    while True:
        try:
            return work()
        except Exception as error:
            if not is_out_of_memory(error) or not smaller():
                raise
        release(device)


# ---- how much fits -----------------------------------------------------------------------------------------------------


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had: of the card and torch's own cache, or of the machine and the process' cgroup."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    found = [n for n in (_available(), _cgroup_headroom()) if n is not None]
    return min(found) if found else 2**30  # nobody says: little


def total_memory(device: torch.device) -> int:
    """Bytes of the card, or of the machine and the process' cgroup: the same whatever else runs."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    found = [n for n in (_pages("SC_PHYS_PAGES"), _cgroup_number("memory.max")) if n is not None]
    return min(found) if found else 2**32


def _available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return _pages("SC_AVPHYS_PAGES")  # macOS knows only the size of its memory, which is not what is free


def _pages(kind: str) -> int | None:
    try:
        return os.sysconf(kind) * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


_CGROUP = Path("/sys/fs/cgroup")


def _cgroup_number(name: str, root: Path = _CGROUP) -> int | None:
    try:
        text = (root / name).read_text(encoding="ascii").strip()
        return None if text == "max" else int(text)
    except (OSError, ValueError):
        return None


def _cgroup_headroom(root: Path = _CGROUP) -> int | None:
    """What a container with a cgroup namespace of its own leaves this process (version 2); None where it sets no limit."""
    limit, taken = _cgroup_number("memory.max", root), _cgroup_number("memory.current", root)
    return None if limit is None or taken is None else max(limit - taken, 0)


def peak_memory() -> int:
    """The largest resident size this process has had, in bytes; its parent's, which `getrusage` may count, left out."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _resident() -> int:
    """Bytes of this process in memory now; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def _needs(work: Callable[[], object], device: torch.device) -> int:
    """Bytes that `work` takes at its peak. On a CPU 0 where the process once had as much: nothing more is needed then."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    resident, peak = _resident(), peak_memory()
    work()
    return peak_memory() - (resident or peak) if peak_memory() > peak else 0


def fitting_batch(view: View) -> Size:
    """Inputs at a time for a view's countermeasure: doubled from 1, on the view's own utterances repeated, up to MOST.

    One forward and backward pass of each size says what it needs. Raises what the model raises, other than for want of
    memory.
    """
    kind = "cuda" if view.device.type == "cuda" else "cpu"
    most = MOST[kind]
    judge = _gradient if "gradients" in view.offers else _forward
    best = size = 1
    while size <= most:
        need = None
        inputs = view.inputs[torch.arange(size, device=view.device) % len(view)]
        try:
            need = _needs(lambda: judge(view, inputs), view.device)  # noqa: B023 - called at once
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        if need is None:  # outside the except block, which holds the tensors
            release(view.device)
            return Size(best, f"{size} run out of memory")
        best, size = size, 2 * size
        if size <= most and 2 * need > SHARE[kind] * total_memory(view.device):
            return Size(best, f"{size} would take more than {SHARE[kind]:.0%} of the memory")
        if size <= most and 2 * need > FREE_SHARE * free_memory(view.device):
            return Size(best, f"{size} would take more than {FREE_SHARE:.0%} of what is free of the memory now")
    return Size(best, f"no more than {most} at a time")


def _forward(view: View, inputs: torch.Tensor) -> None:
    replace(view, batch_size=len(inputs)).score(inputs).cpu()  # waits for the device


def _gradient(view: View, inputs: torch.Tensor) -> None:
    at = inputs.detach().requires_grad_()
    with torch.enable_grad():
        torch.autograd.grad(view.model(at).sum(), at)
