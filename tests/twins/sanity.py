"""The randomisation tests of one map, plain loops, from Adebayo et al. 2018 and Hedstroem et al. 2023."""

from __future__ import annotations

import math

from twins.stability import spearman


def mprt(before: list[float], cascade: list[list[float]]) -> float:
    return sum(abs(spearman(before, after)) for after in cascade) / len(cascade)


def mean(maps: list[list[float]]) -> list[float]:
    return [sum(cell) / len(maps) for cell in zip(*maps, strict=True)]


def smooth_mprt(noisy: list[list[float]], noisy_randomised: list[list[float]]) -> float:
    return abs(spearman(mean(noisy), mean(noisy_randomised)))


def histogram_entropy(values: list[float], bins: int = 100) -> float:
    sizes = [abs(v) for v in values]
    low, high = min(sizes), max(sizes)
    counts = [0] * bins
    for v in sizes:
        place = 0
        while place < bins - 1 and v >= low + (high - low) * (place + 1) / bins and high > low:
            place += 1
        counts[place] += 1
    return -sum(c / len(sizes) * math.log(c / len(sizes)) for c in counts if c)


def efficient_mprt(before: list[float], randomised: list[float]) -> float:
    simple = histogram_entropy(before)
    return (histogram_entropy(randomised) - simple) / simple


def random_logit(before: list[float], other: list[float]) -> float:
    return abs(spearman([abs(v) for v in before], [abs(v) for v in other]))
