"""Sparseness and complexity as their papers write them: one list of numbers, plain loops."""

from __future__ import annotations

import math


def gini(values: list[float]) -> float:
    """Chalasani et al. 2020, after Hurley and Rickard 2009."""
    rising = sorted(abs(v) for v in values)
    total, n = sum(rising), len(rising)
    taken = 0.0
    for k, v in enumerate(rising, start=1):
        taken += v / total * (n - k + 0.5) / n
    return 1 - 2 * taken


def entropy(values: list[float]) -> float:
    """Bhatt et al. 2020: the entropy of each cell's part of the whole."""
    total = sum(abs(v) for v in values)
    result = 0.0
    for v in values:
        part = abs(v) / total
        if part:
            result -= part * math.log(part)
    return result


def effective_area(values: list[float]) -> float:
    """1 / (n * sum p^2): Simpson's index, turned over, as a share."""
    total = sum(abs(v) for v in values)
    return 1 / (len(values) * sum((abs(v) / total) ** 2 for v in values))
