"""Bring an attribution from its own axes to the common grid, keeping its mass.

    A_grid = W_f^T A W_t

Each row of W spreads one source cell over the grid cells it overlaps, in proportion to the overlap, and sums to 1 (a
source cell partly outside the grid's range keeps all its mass inside; one wholly outside loses it). No resolution is
invented: a coarse cell becomes a flat plateau.
"""

from __future__ import annotations

import numpy as np
import torch

from xaibench.errors import XaibenchError
from xaibench.types import Attribution, Axis


def overlap(source: Axis, target: Axis) -> np.ndarray:
    """W of the module's docstring. Shape: `(len(source), len(target))`; rows sum to 1, or to 0 outside the target.

    >>> overlap(Axis("time", [0, 2]), Axis("time", [0, 1, 2])).tolist()
    [[0.5, 0.5]]
    """
    if source.kind != target.kind:
        raise XaibenchError(f"cannot project a {source.kind} axis on a {target.kind} axis")
    low = np.maximum(source.edges[:-1, None], target.edges[None, :-1])
    high = np.minimum(source.edges[1:, None], target.edges[None, 1:])
    shared = np.clip(high - low, 0, None)
    total = shared.sum(1, keepdims=True)
    return np.divide(shared, total, out=np.zeros_like(shared), where=total > 0)


def project(attribution: Attribution, frequency: Axis, time: Axis) -> Attribution:
    """The same mass on other axes; unchanged when the axes already agree. Shape: `(B, F, T)` -> `(B, F', T')`.

    Raises XaibenchError when the values do not fit their own axes, or an axis is of the wrong kind.
    """
    own = len(attribution.frequency), len(attribution.time)
    if tuple(attribution.values.shape[-2:]) != own:
        raise XaibenchError(
            f"an attribution of shape {tuple(attribution.values.shape)} does not fit its axes of {own[0]} frequencies and "
            f"{own[1]} times; are frequency and time swapped?"
        )
    if attribution.frequency == frequency and attribution.time == time:
        return attribution
    values = attribution.values
    wf = torch.from_numpy(overlap(attribution.frequency, frequency)).to(values)
    wt = torch.from_numpy(overlap(attribution.time, time)).to(values)
    return Attribution(wf.T @ values @ wt, frequency, time, attribution.resolves)


def density(attribution: Attribution, frequency: Axis, time: Axis) -> Attribution:
    """The same density on other axes: `average` for a map whose values are not a mass (the controls: energy, the truth)."""
    values = average(attribution.values, (attribution.frequency, attribution.time), (frequency, time))
    return Attribution(values, frequency, time, attribution.resolves)


def average(values: torch.Tensor, source: tuple[Axis, Axis], target: tuple[Axis, Axis]) -> torch.Tensor:
    """The mean over each target cell of a quantity that is a density, not a mass (energy, the truth).

    Shape: `(..., F, T)` on `source` -> `(..., F', T')` on `target`; unchanged when the axes agree. Target cells outside
    the source become 0.
    """
    if source == target:
        return values
    wf = torch.from_numpy(overlap(target[0], source[0])).to(values)
    wt = torch.from_numpy(overlap(target[1], source[1])).to(values)
    return wf @ values @ wt.T
