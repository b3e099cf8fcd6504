"""In which numbers forward passes are computed, where the result is only a score.

fp32   as the weights are; the default, and what published boards use.
tf32   CUDA only: matrix products and convolutions round their factors to 10 bits of mantissa; elsewhere the same as fp32.
bf16   autocast: layers that profit compute in bfloat16 (8 bits), the others in fp32. On a CPU it pays where the processor
       multiplies bfloat16 (AMX, AVX-512 BF16).

Attribution maps are always made in fp32: a gradient does not survive eight bits as a score does. The precision of a run is
part of its identity, so numbers of different precision never share a folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from xaibench.errors import XaibenchError

PRECISIONS = ("fp32", "tf32", "bf16")


@contextmanager
def computed_in(precision: str, device: str) -> Iterator[None]:
    """Within the block forward passes on a kind of device ("cpu", "cuda") are computed so; afterwards all is as before.

    Raises XaibenchError for an unknown precision.

    >>> layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    >>> with computed_in("bf16", "cpu"):
    ...     layer(x).dtype
    torch.bfloat16
    >>> layer(x).dtype
    torch.float32
    """
    if precision not in PRECISIONS:
        raise XaibenchError(f"unknown precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    if precision == "bf16":
        with torch.autocast(device, torch.bfloat16):
            yield
    elif device == "cuda":
        yield from _rounded_factors(precision == "tf32")
    else:
        yield


def _rounded_factors(rounded: bool) -> Iterator[None]:
    """tf32 on or off for both libraries that multiply on CUDA; torch has it on for convolutions unless told otherwise."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = rounded
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before
