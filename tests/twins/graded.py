"""Scores against the continuous truth as their papers define them: one order of the cells, loops, no shortcuts.

`order` lists cells from the largest attribution to the smallest (`twins.localisation.orders`); a tied map scores the mean
over all its orders.
"""

from __future__ import annotations

from math import log2

import numpy as np

Cell = tuple[int, int]


def dcg(order: list[Cell], amount: np.ndarray) -> float:
    """Gains of the ranks 1, 2 ... divided by the logarithm of the next rank, summed."""
    total = 0.0
    for rank, cell in enumerate(order, start=1):
        total += float(amount[cell]) / log2(rank + 1)
    return total


def ndcg(order: list[Cell], amount: np.ndarray) -> float:
    """DCG over that of the ideal order."""
    ideal = sorted(order, key=lambda cell: -amount[cell])
    return dcg(order, amount) / dcg(ideal, amount)


def ranks(numbers: list[float]) -> list[float]:
    """From 1; equal numbers get the mean of the ranks they take together."""
    result = []
    for x in numbers:
        below = sum(1 for y in numbers if y < x)
        equal = sum(1 for y in numbers if y == x)
        result.append(below + (equal + 1) / 2)
    return result


def spearman(order: list[Cell], amount: np.ndarray) -> float:
    """Pearson's correlation of the places in the order, counted from the end, with the ranks of the amounts."""
    places = [float(len(order) - i) for i in range(len(order))]
    theirs = ranks([float(amount[cell]) for cell in order])
    a, b = sum(places) / len(places), sum(theirs) / len(theirs)
    cov = sum((x - a) * (y - b) for x, y in zip(places, theirs, strict=True))
    return cov / (sum((x - a) ** 2 for x in places) * sum((y - b) ** 2 for y in theirs)) ** 0.5
