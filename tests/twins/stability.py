"""Sensitivity, local Lipschitz estimate and rank correlation of one map, plain loops."""

from __future__ import annotations

import math


def distance(a: list[float], b: list[float]) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def max_sensitivity(before: list[float], others: list[list[float]]) -> float:
    """Yeh et al. 2019, divided by the norm of the map."""
    return max(distance(before, after) / distance(before, [0.0] * len(before)) for after in others)


def local_lipschitz(before: list[float], others: list[list[float]], x: list[float], xs: list[list[float]]) -> float:
    """Alvarez-Melis and Jaakkola 2018, of maps at their largest size 1 and inputs at the rms 1 of x."""
    rms = math.sqrt(sum(v * v for v in x) / len(x))

    def unit(values: list[float]) -> list[float]:
        largest = max(abs(v) for v in values)
        return [v / largest if largest else 0.0 for v in values]

    found = []
    for after, other in zip(others, xs, strict=True):
        found.append(distance(unit(before), unit(after)) / distance([v / rms for v in x], [v / rms for v in other]))
    return max(found)


def mid_ranks(values: list[float]) -> list[float]:
    ranks = []
    for v in values:
        below = sum(1 for other in values if other < v)
        equal = sum(1 for other in values if other == v)
        ranks.append(below + (equal + 1) / 2)
    return ranks


def spearman(a: list[float], b: list[float]) -> float:
    """Pearson's correlation of the mid-ranks; two constants agree, one constant and another map do not."""
    constant = len(set(a)) == 1, len(set(b)) == 1
    if any(constant):
        return float(all(constant))
    p, q = mid_ranks(a), mid_ranks(b)
    mp, mq = sum(p) / len(p), sum(q) / len(q)
    top = sum((x - mp) * (y - mq) for x, y in zip(p, q, strict=True))
    return top / math.sqrt(sum((x - mp) ** 2 for x in p) * sum((y - mq) ** 2 for y in q))
