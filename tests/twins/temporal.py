"""Temporal scores once more: one map, numpy and loops, written from the definitions.

`order` lists frames from the largest marginal to the smallest; a tied map scores the mean over all its orders.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, groupby, pairwise, permutations, product

import numpy as np
from scipy.stats import spearmanr


def marginal(attribution: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """`(F, T)` -> `(T,)`."""
    sums = np.zeros(attribution.shape[1])
    for t in range(attribution.shape[1]):
        for f in range(attribution.shape[0]):
            if valid[f, t]:
                sums[t] += attribution[f, t]
    return sums


def share(region: np.ndarray, valid: np.ndarray) -> list[float]:
    """g_t: cells of the region among the valid cells of a frame."""
    shares = []
    for t in range(region.shape[1]):
        cells = [bool(region[f, t]) for f in range(region.shape[0]) if valid[f, t]]
        shares.append(sum(cells) / len(cells) if cells else 0.0)
    return shares


def frames(values: np.ndarray, region: np.ndarray, valid: np.ndarray) -> set[int]:
    """The round(sum of g_t) frames of largest g_t, then of largest mean truth, then the first."""
    g = share(region, valid)
    mean = [np.mean([values[f, t] for f in range(len(values)) if valid[f, t]] or [0.0]) for t in range(len(g))]
    ranked = sorted(range(len(g)), key=lambda t: (-g[t], -mean[t], t))
    return set(ranked[: round(sum(g))])


def orders(a: np.ndarray) -> Iterator[list[int]]:
    """Every order of the frames in which none comes before one of larger marginal."""
    falling = sorted(range(len(a)), key=lambda t: -a[t])
    groups = [list(group) for _, group in groupby(falling, key=lambda t: a[t])]
    for choice in product(*(permutations(group) for group in groups)):
        yield list(chain.from_iterable(choice))


def rank_accuracy(order: list[int], spoofed: set[int]) -> float:
    return len(set(order[: len(spoofed)]) & spoofed) / len(spoofed)


def average_precision(order: list[int], spoofed: set[int]) -> float:
    hits, precisions = 0, []
    for rank, t in enumerate(order, start=1):
        if t in spoofed:
            hits += 1
            precisions.append(hits / rank)
    return sum(precisions) / len(precisions)


def roc_auc(order: list[int], spoofed: set[int]) -> float:
    wins = sum(1 for i, t in enumerate(order) for u in order[i + 1 :] if t in spoofed and u not in spoofed)
    return wins / (len(spoofed) * (len(order) - len(spoofed)))


def spearman(order: list[int], g: list[float]) -> float:
    """scipy's, of the ranks that the order gives."""
    ranks = np.empty(len(order))
    ranks[order] = -np.arange(len(order))
    return spearmanr(ranks, g).statistic


def frame_eer(a: np.ndarray, spoofed: set[int]) -> float:
    """Operating points at every threshold, joined by lines; where miss and false alarm are equal, by bisection."""
    rest = set(range(len(a))) - spoofed
    points = [(0.0, 1.0)]  # false alarm, miss
    for threshold in sorted(set(a.tolist()), reverse=True):
        flagged = {t for t in range(len(a)) if a[t] >= threshold}
        points.append((len(flagged & rest) / len(rest), 1 - len(flagged & spoofed) / len(spoofed)))
    for (x0, y0), (x1, y1) in pairwise(points):
        if y0 - x0 >= 0 >= y1 - x1:
            low, high = 0.0, 1.0
            for _ in range(80):
                middle = (low + high) / 2
                x, y = x0 + middle * (x1 - x0), y0 + middle * (y1 - y0)
                low, high = (middle, high) if y > x else (low, middle)
            return x0 + low * (x1 - x0)
    raise AssertionError("the curve must cross the diagonal")


def rcq(a: np.ndarray, spoofed: set[int]) -> float:
    """Frame by frame, as in the paper: what the spoofed frames have over the average frame, in per cent of it."""
    heights = [max(value, 0.0) for value in a.tolist()]
    mean = sum(heights) / len(heights)
    return 100 * (sum(heights[t] for t in spoofed) / len(spoofed) - mean) / mean
