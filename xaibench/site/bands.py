"""Where in frequency the methods look: the share of their top cells in each band, against the truth's.

Maps are `(F, T)` on the run's grid, frequency first; a method's top cells are as many as the truth's region has, among the
valid ones. Cells that tie at the edge count by the share of them that has room, so that a constant map is spread over the
bands as the cells are, and not heaped where counting starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xaibench import maps
from xaibench.errors import XaibenchError

WIDTH = 1000.0  # Hz
MOST = 60  # pairs; of more, some evenly spread over the list: the shares of a band settle long before


@dataclass(frozen=True)
class Bands:
    """Shares of a region's cells by band. edges: `(n + 1,)` Hz; shares: attributor -> `(n,)`, sum 1; truth: `(n,)`; pairs:
    how many were looked at, of `total`; blind: methods whose maps do not tell frequencies apart.
    """

    edges: tuple[float, ...]
    truth: tuple[float, ...]
    shares: Mapping[str, tuple[float, ...]]
    pairs: int
    total: int
    blind: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The bands in kHz."""
        return tuple(f"{a / 1000:g}–{b / 1000:g}" for a, b in zip(self.edges, self.edges[1:], strict=False))


def bands(
    runs: Sequence[Path], countermeasure: str, route: str, truth: str, pairs: Sequence[str], attributors: Sequence[str]
) -> Bands | None:
    """The bands of a section, over the pairs whose maps were kept; None where no run kept any.

    pairs: ids `source/vocoder`. Raises RunError for a damaged map.
    """
    kept = [(run, pair) for pair in pairs for run in runs if truths(run, truth, pair)]
    chosen = [kept[i] for i in np.unique(np.linspace(0, len(kept) - 1, min(MOST, len(kept))).astype(int))] if kept else []
    sums: dict[str, np.ndarray] = {}
    found: dict[str, int] = {}
    blind: set[str] = set()
    whole, looked, edges = np.array(0.0), 0, np.array([])
    for run, pair in chosen:
        region = None
        for name in attributors:
            path = kept_map(run, countermeasure, route, name, pair)
            if path is None:
                continue
            stored = maps.read_map(path)
            if "frequency" not in stored.metadata.get("resolves", "frequency"):
                blind.add(name)
                continue
            if region is None:
                there = maps.truth_path(run, truth, stored.values.shape[1], pair)
                if not os.path.isfile(there):
                    break
                known = maps.read_truth(there)
                if not known.region.any():
                    break  # identical twins: no cell to be found, and no share of one
                region, valid = known.region, known.valid
                height = (len(region) - 1) * _bin(known.metadata)
                edges = np.arange(0.0, height + WIDTH / 2, WIDTH)
                upper = np.ceil(np.arange(len(region)) * _bin(known.metadata) / WIDTH).astype(int)
                place = np.clip(upper - 1, 0, len(edges) - 2)  # a band has its upper edge
                whole = whole + _by_band(region.astype(float), place, len(edges) - 1)
                looked += 1
            shares = _by_band(top_weights(stored.values, valid, int(region.sum())), place, len(edges) - 1)
            sums[name] = sums.get(name, 0.0) + shares
            found[name] = found.get(name, 0) + 1
    if not looked:
        return None
    last = int(np.flatnonzero(whole + sum(sums.values()))[-1]) + 1
    return Bands(
        tuple(edges[: last + 1].tolist()), tuple((whole / looked)[:last].tolist()),
        {name: tuple((values / found[name])[:last].tolist()) for name, values in sums.items()},
        looked, len(kept), tuple(sorted(blind - set(sums))),
    )  # fmt: skip


def kept_map(run: Path, countermeasure: str, route: str, name: str, pair: str) -> Path | None:
    """Where a map is, if it was kept: never of a name that cannot name a file."""
    with suppress(XaibenchError):
        path = maps.map_path(run, countermeasure, route, name, pair)
        return path if os.path.isfile(path) else None  # also for a name that no file can have
    return None


def truths(run: Path, truth: str, pair: str) -> list[Path]:
    """The kept truths of a pair: none of one whose id cannot name a file."""
    with suppress(XaibenchError):
        return maps.truth_paths(run, truth, pair)
    return []


def top_weights(values: np.ndarray, valid: np.ndarray, count: int) -> np.ndarray:
    """How much of every cell is among the `count` largest valid ones: 1, 0, or the share of a tie. Shapes: `(F, T)`.

    >>> top_weights(np.array([[2.0, 1.0], [1.0, 9.0]]), np.array([[True, True], [True, False]]), 2).tolist()
    [[1.0, 0.5], [0.5, 0.0]]
    """
    inside = values[valid]
    count = min(count, inside.size)
    if not count:
        return np.zeros(values.shape)
    edge = np.partition(inside, inside.size - count)[inside.size - count]
    above, ties = (values > edge) & valid, (values == edge) & valid
    return above + ties * ((count - np.count_nonzero(above)) / np.count_nonzero(ties))


def _by_band(weights: np.ndarray, place: np.ndarray, count: int) -> np.ndarray:
    """The share of the weights `(F, T)` in each band; `place` `(F,)` is the band of every bin."""
    return np.bincount(place, weights=weights.sum(axis=1), minlength=count) / max(weights.sum(), 1e-12)


def _bin(metadata: Mapping[str, str]) -> float:
    """Hz from one frequency bin to the next."""
    rate, n_fft, _, _ = maps.grid_of(metadata)
    return rate / n_fft
