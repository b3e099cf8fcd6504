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
