"""Whatever a caller takes for numbers, as float64; an error of ours where it is none. numpy only, torch tensors too."""

from __future__ import annotations

import numpy as np

from xaibench.errors import XaibenchError, told

#: Sums of squares of larger numbers are infinite: a variance of them would be wrong in silence.
LARGEST = 1e100


def real_numbers(values: object, what: str) -> np.ndarray:
    """`values` as a float64 array of their own shape; NaN and infinity stay. Tensors of any kind and device are taken.

    Raises XaibenchError, naming `what`, for text, complex numbers, None and lists of unequal length.

    >>> real_numbers([1, 2.5], "scores").tolist()
    [1.0, 2.5]
    """
    try:
        if hasattr(values, "detach"):  # a tensor, without an import of torch; half precisions have no numpy type
            values = values.detach().cpu().double().numpy()
        array = np.asarray(values)
        if array.dtype.kind in "biufO" and not (array.dtype.kind == "O" and any(isinstance(v, str) for v in array.flat)):
            return array.astype(np.float64)
    except Exception as error:
        raise XaibenchError(f"{what} must be real numbers, got {type(values).__name__} ({told(error)})") from error
    raise XaibenchError(f"{what} must be real numbers, got {type(values).__name__} of {array.dtype}")


def check_squarable(values: np.ndarray, what: str) -> None:
    """Raise XaibenchError for finite values so large that sums of their squares are not. NaN and infinity do not count.

    >>> check_squarable(np.array([0.0, -2.0, np.nan]), "scores")
    """
    sizes = np.abs(values[np.isfinite(values)])
    largest = float(sizes.max(initial=0.0))
    if largest > LARGEST:
        raise XaibenchError(
            f"the largest of the {what} is {largest:.3g} in size; squares of such are infinite, scale them first"
        )
