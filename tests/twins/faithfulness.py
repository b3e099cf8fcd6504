"""Deletion and insertion as Petsiuk et al. 2018 (RISE) define them: one utterance, one cell after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def curve(
    score: Callable[[np.ndarray], float],
    spoof: np.ndarray,
    fill: np.ndarray,
    order: list[tuple[int, int]],
    counts: list[int],
    *,
    direction: str,
) -> list[float]:
    """Scores after the first `counts` cells of `order` were deleted from, or inserted into, an input `(C, F, T)`.

    `order` holds the valid cells only; no other cell ever changes.
    """
    values = []
    for count in counts:
        masked = spoof.copy()
        for f, t in order:
            if direction == "insertion":
                masked[:, f, t] = fill[:, f, t]
        for f, t in order[:count]:
            masked[:, f, t] = fill[:, f, t] if direction == "deletion" else spoof[:, f, t]
        values.append(score(masked))
    return values


def area(values: list[float]) -> float:
    """RISE's area for equal steps: the sum of all values, the ends counted half, over the number of steps."""
    return (sum(values) - values[0] / 2 - values[-1] / 2) / (len(values) - 1)


def aopc(values: list[float]) -> float:
    """Samek et al. 2017: `1 / (L + 1) * sum over k = 0 .. L of f(x_0) - f(x_k)`."""
    total = 0.0
    for value in values:
        total += values[0] - value
    return total / len(values)


def regions(valid: np.ndarray, side: int) -> list[list[tuple[int, int]]]:
    """The valid cells of every square of `side` x `side`, from the first cell on; squares without one are left out."""
    found = []
    for top in range(0, valid.shape[0], side):
        for left in range(0, valid.shape[1], side):
            cells = []
            for f in range(top, min(top + side, valid.shape[0])):
                for t in range(left, min(left + side, valid.shape[1])):
                    if valid[f, t]:
                        cells.append((f, t))
            if cells:
                found.append(cells)
    return found


def relevance(values: np.ndarray, cells: list[tuple[int, int]]) -> float:
    """The sum of a map over some cells."""
    return sum(float(values[cell]) for cell in cells)


def without(spoof: np.ndarray, fill: np.ndarray, cells: list[tuple[int, int]]) -> np.ndarray:
    """An input `(C, F, T)` with some cells filled."""
    masked = spoof.copy()
    for f, t in cells:
        masked[:, f, t] = fill[:, f, t]
    return masked


def pearson(a: list[float], b: list[float]) -> float:
    """The correlation of Bhatt et al. 2020, from its definition."""
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    cov = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return cov / (sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)) ** 0.5


def infidelity(sums: list[float], falls: list[float]) -> float:
    """Yeh et al. 2019, definition 2.1, with the factor that makes it smallest, found among many."""

    def error(beta: float) -> float:
        return sum((beta * a - b) ** 2 for a, b in zip(sums, falls, strict=True)) / len(sums)

    low, high = -1e3, 1e3
    for _ in range(300):  # a parabola: thirds leave its minimum inside
        third = (high - low) / 3
        if error(low + third) < error(high - third):
            high -= third
        else:
            low += third
    return error((low + high) / 2)


def soft_masked(
    spoof: np.ndarray, fill: np.ndarray, values: np.ndarray, valid: np.ndarray, *, out: bool = False
) -> np.ndarray:
    """L-MAC's masked-in input `(C, F, T)`, or the masked-out one; cells that are not valid keep the input."""
    largest = max(float(values[f, t]) for f, t in zip(*np.nonzero(valid), strict=True))
    masked = spoof.copy()
    for f, t in zip(*np.nonzero(valid), strict=True):
        m = max(float(values[f, t]), 0.0) / largest
        m = 1 - m if out else m
        masked[:, f, t] = m * spoof[:, f, t] + (1 - m) * fill[:, f, t]
    return masked


def listened(p: float, o: float) -> dict[str, float]:
    """SpeechBrain's recipes/ESC50/interpret, without its 1e-10: the probability of the class decided for, then masked in."""
    return {
        "average-drop": 100 * max(p - o, 0.0) / p,
        "average-increase": 100.0 if o > p else 0.0,
        "average-gain": 100 * max(o - p, 0.0) / (1 - p),
        "fid-in": 1.0 if o >= 0.5 else 0.0,
    }
