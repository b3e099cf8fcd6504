"""RCQ once more: one loop over utterances, stretches and frames, with running sums."""

from __future__ import annotations

import math

import numpy as np

ORDER = ("BS", "SS", "TR", "BN", "SN")


def rcq(items: list[tuple[np.ndarray, list[tuple[float, float, int]]]]) -> dict[str, float]:
    sums, counts = [0.0] * 5, [0] * 5
    for heatmap, stretches in items:
        largest = len(heatmap) - 2
        wanted = math.ceil(stretches[-1][1] * 1000 / 20)
        kept = heatmap[-wanted:] if len(heatmap) > wanted else heatmap
        for start, end, label in stretches:
            first = min(max(int((start * 1000 - 10) // 20), 0), largest)
            last = min(max(int((end * 1000 - 10) // 20), 0), largest)
            if label == 1:
                kind, frames = 0, range(first + 1, last)
            elif label <= 20:
                kind, frames = 1, range(first + 1, last)
            elif label == 100:
                kind, frames = 2, range(first + 1, last)
            elif label == 101:
                kind, frames = 3, range(first, last + 1)
            else:
                kind, frames = 4, range(first, last + 1)
            for i in frames:
                sums[kind] += float(kept[i])
                counts[kind] += 1
    mean = sum(sums) / sum(counts)
    return {n: (s / c - mean) / mean * 100 if c else math.nan for n, s, c in zip(ORDER, sums, counts, strict=True)}
