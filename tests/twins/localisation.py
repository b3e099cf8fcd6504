"""Localisation scores as their papers define them: one map, one loop, one order of the cells.

`order` lists the cells `(f, t)` from the largest attribution to the smallest. Where values tie there are many such
orders; `orders` lists all of them (few ties only), and the score of a tied map is the mean over them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, groupby, permutations, product

import numpy as np

Cell = tuple[int, int]


def cells_of(valid: np.ndarray) -> list[Cell]:
    return [(f, t) for f in range(valid.shape[0]) for t in range(valid.shape[1]) if valid[f, t]]


def orders(attribution: np.ndarray, valid: np.ndarray) -> Iterator[list[Cell]]:
    """Every order of the valid cells in which no cell comes before a larger one."""
    falling = sorted(cells_of(valid), key=lambda cell: -attribution[cell])
    groups = [list(group) for _, group in groupby(falling, key=lambda cell: attribution[cell])]
    for choice in product(*(permutations(group) for group in groups)):
        yield list(chain.from_iterable(choice))


def random_order(attribution: np.ndarray, valid: np.ndarray, rng: np.random.Generator) -> list[Cell]:
    cells = cells_of(valid)
    shuffled = [cells[i] for i in rng.permutation(len(cells))]
    return sorted(shuffled, key=lambda cell: -attribution[cell])


def rank_accuracy(order: list[Cell], region: np.ndarray) -> float:
    """Arras et al. 2022: the hits among the N highest ranks, over N, the size of the ground truth."""
    size = sum(bool(region[cell]) for cell in order)
    hits = 0
    for cell in order[:size]:
        if region[cell]:
            hits += 1
    return hits / size


def mass_accuracy(attribution: np.ndarray, region: np.ndarray, valid: np.ndarray) -> float:
    """Arras et al. 2022, on the positive part: relevance within the ground truth over all relevance."""
    within = total = 0.0
    for cell in cells_of(valid):
        relevance = max(float(attribution[cell]), 0.0)
        total += relevance
        if region[cell]:
            within += relevance
    return within / total


def intersection(order: list[Cell], region: np.ndarray, count: int) -> int:
    """How many of the `count` first cells lie in the region."""
    return len(set(order[:count]) & {cell for cell in order if region[cell]})


def precision(order: list[Cell], region: np.ndarray, count: int) -> float:
    """Of the cells named, those that are right."""
    return sum(1 for cell in order[:count] if region[cell]) / len(order[:count])


def recall(order: list[Cell], region: np.ndarray, count: int) -> float:
    """Of the cells that are right, those named."""
    right = [cell for cell in order if region[cell]]
    return sum(1 for cell in right if cell in order[:count]) / len(right)


def dice(order: list[Cell], region: np.ndarray, count: int) -> float:
    """Dice 1945: twice the common ones over the sum of both."""
    named, right = set(order[:count]), {cell for cell in order if region[cell]}
    return 2 * len(named & right) / (len(named) + len(right))


def jaccard(order: list[Cell], region: np.ndarray, count: int) -> float:
    """Jaccard 1912: the common ones over all."""
    named, right = set(order[:count]), {cell for cell in order if region[cell]}
    return len(named & right) / len(named | right)


def concept_influence(order: list[Cell], region: np.ndarray, count: int) -> float:
    """Theiner et al. 2022: the concept's share of the cells named over its share of all cells."""
    named, everywhere = [region[cell] for cell in order[:count]], [region[cell] for cell in order]
    return (sum(named) / len(named)) / (sum(everywhere) / len(everywhere))


def average_precision(order: list[Cell], region: np.ndarray) -> float:
    """The precision at the rank of every cell of the region, averaged over those cells."""
    hits, precisions = 0, []
    for rank, cell in enumerate(order, start=1):
        if region[cell]:
            hits += 1
            precisions.append(hits / rank)
    return sum(precisions) / len(precisions)


def roc_auc(attribution: np.ndarray, region: np.ndarray, valid: np.ndarray) -> float:
    """All pairs of one cell inside and one outside: won 1, tied 1/2, lost 0 (Mann-Whitney)."""
    inside = [attribution[c] for c in cells_of(valid) if region[c]]
    outside = [attribution[c] for c in cells_of(valid) if not region[c]]
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in inside for b in outside)
    return wins / (len(inside) * len(outside))


def pointing_game(order: list[Cell], region: np.ndarray) -> float:
    """Zhang et al. 2018: does the maximum hit?"""
    return float(region[order[0]])
