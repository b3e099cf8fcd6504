"""The form of a map, one judgement each: a real tensor, `(B, F, T)` on its own axes, finite; and that of scores.

XaibenchError for any other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xaibench.errors import XaibenchError
from xaibench.protocols import Metric
from xaibench.types import Attribution, Axis

#: By which share of itself (or of 1) a score may pass the end of its metric's range: rounding.
ROUNDING = 1e-6


def scores(metric: Metric, values: object, count: int) -> list[float]:
    """What a metric gave for `count` utterances, NaN where it has no value. All in the range that it declares."""
    name, (low, high) = metric.name, metric.range
    values = real(f"metric {name}", values, form="(B,)")
    if tuple(values.shape) != (count,):
        raise XaibenchError(f"metric {name} returned shape {tuple(values.shape)}, expected ({count},)")
    values = values.double().cpu()  # to the host once, however much is asked there
    if values.isinf().any():
        raise XaibenchError(f"metric {name} returned infinity")
    found: list[float] = values.tolist()
    for value in found:
        slack = ROUNDING * max(1.0, abs(value))
        if value < low - slack or value > high + slack:  # of NaN neither
            raise XaibenchError(
                f"metric {name} returned {value:.6g}, outside the range {low:g} to {high:g} that it declares"
            )
    return found


def real(name: str, values: object, *, form: str = "(B, F, T)") -> Tensor:
    """The values without their history, where they are a real tensor that holds its numbers one by one."""
    what = type(values).__name__
    if isinstance(values, Tensor):
        if type(values) is not Tensor:  # a class of its own may answer questions as it likes
            values = values.as_subclass(Tensor)
        values = values.detach()
        what = _unlike(values)
        if not what:
            return values
    raise XaibenchError(f"{name} returned {what}, expected a real tensor {form}")


def _unlike(values: Tensor) -> str:
    """What it is, if not a tensor of real numbers one after the other; else ""."""
    if values.is_complex():
        return f"complex values ({values.dtype})"
    if values.is_meta:
        return "a tensor on the device `meta`, which holds no numbers"
    if values.is_nested or values.is_quantized or values.layout is not torch.strided:
        kind = "nested" if values.is_nested else f"quantised ({values.dtype})" if values.is_quantized else str(values.layout)
        return f"a tensor of another kind, {kind}"
    return ""


def fitting(name: str, values: Tensor, attribution: Attribution, count: int) -> Tensor:
    """The values, where they have the shape of `count` utterances on the attribution's axes."""
    for axis in (attribution.frequency, attribution.time):
        if not isinstance(axis, Axis):
            raise XaibenchError(f"{name} returned an Attribution on {type(axis).__name__}, expected an Axis each way")
    expected = (count, len(attribution.frequency), len(attribution.time))
    if tuple(values.shape) != expected:
        raise XaibenchError(f"{name} returned shape {tuple(values.shape)}, expected (B, F, T) = {expected}")
    return values


def finite(name: str, values: Tensor) -> Tensor:
    """The values, where all are finite."""
    if not values.isfinite().all():
        raise XaibenchError(f"{name} returned NaN or infinity for {int((~values.isfinite()).sum())} cells")
    return values
