"""Completeness and input invariance of one map, plain loops."""

from __future__ import annotations

import math


def completeness_gap(cells: list[float], score: float, baseline: float) -> float:
    """Sundararajan et al. 2017: what is missing of F(x) - F(x')."""
    total = 0.0
    for cell in cells:
        total += cell
    return abs(total - (score - baseline)) / abs(score - baseline)


def input_invariance(cells: list[float], shifted: list[float]) -> float:
    change = math.sqrt(sum((b - a) ** 2 for a, b in zip(cells, shifted, strict=True)))
    return change / math.sqrt(sum(a * a for a in cells))
