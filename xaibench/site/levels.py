"""Maps, masks and sound as text that a page can load: small, and exact where it matters.

A page opened from a folder may run scripts but not fetch files or read back images, so what it shows must be text in a
script. A map `(F, T)` becomes *levels*, one byte a cell, 0 for the largest values:

- an edge lies wherever the shares of `SHARES` cut the ranking, so that "level below `stops[i]`" is exactly the top share
  that `xaibench.truth.top_share` picks, with the same cells where a tie decides;
- further edges lie where the colour changes: `BINS` equal steps between minus and plus the 99th percentile of the
  magnitude, as the figures colour a map. The mean of a level is what a cell of it is drawn and read as.

Levels are predicted from their neighbours (the median of left, below and left + below - diagonal: Weinberger et al., LOCO-I,
IEEE TIP 9(8), 2000) where that helps, deflated (RFC 1951), and written as characters of 15 bits for a file in UTF-16: 7 %
more than the bytes, where base64 takes 33 %. numpy only.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xaibench.errors import XaibenchError

#: Shares of the valid cells at which a page can cut every map.
SHARES = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5)
BINS = 32  # colours from one end of the scale to the other
FIRST = 0x3000  # the first of 32768 characters, none of which is a surrogate, a quote or a line's end


@dataclass(frozen=True, eq=False)
class Levels:
    """A map in levels. codes: `(F, T)` uint8. means: `(L,)`, of a level's valid cells. stops: for every count asked for, the
    level from which cells are no longer among the largest. tied: whether equal cells stand on both sides of that cut.
    limit: the value at the end of the colour scale. flat: whether all valid cells are equal, so that there is no top share
    (`xaibench.top.top_mask`).
    """

    codes: np.ndarray
    means: np.ndarray
    stops: tuple[int, ...]
    tied: tuple[bool, ...]
    limit: float
    flat: bool = False

    def top(self, place: int, valid: np.ndarray) -> np.ndarray:
        """The cells above the cut `stops[place]`. Shape: valid `(F, T)` bool -> `(F, T)` bool."""
        return (self.codes < self.stops[place]) & valid


def count(share: float, valid: int) -> int:
    """How many cells a share of so many valid cells is, rounded as everywhere."""
    return round(share * valid)


def levels(values: np.ndarray, valid: np.ndarray, counts: Sequence[int]) -> Levels:
    """A map `(F, T)` in levels that can be cut after each of `counts` valid cells.

    Cells outside the valid band get the level of their value; no cut ever counts them. Raises XaibenchError for other
    shapes, no valid cell, or a cell that is not finite.

    >>> found = levels(np.array([[1.0, 3.0], [3.0, 0.0]]), np.ones((2, 2), bool), [1])
    >>> found.top(0, np.ones((2, 2), bool)).tolist(), found.tied
    ([[False, True], [False, False]], (True,))
    """
    values, valid = np.asarray(values, dtype=np.float64), np.asarray(valid, dtype=bool)
    if values.ndim != 2 or values.shape != valid.shape or not valid.any():
        raise XaibenchError(f"expected a map and its valid cells (F, T), got {values.shape} and {valid.shape}")
    if not np.isfinite(values).all():
        raise XaibenchError(f"{np.count_nonzero(~np.isfinite(values))} cells of the map are NaN or infinite")
    inside = values[valid]
    order = np.argsort(-inside, kind="stable")
    ranked = inside[order]
    magnitude = np.abs(values)
    limit = float(np.percentile(magnitude, 99)) or float(magnitude.max()) or 1.0
    colour = np.floor((np.clip(ranked / limit, -1, 1) + 1) / 2 * BINS).clip(0, BINS - 1)
    edges = {int(e) for e in np.flatnonzero(np.diff(colour)) + 1} | set(counts)
    starts = np.array([0, *sorted(e for e in edges if 0 < e < len(ranked))])
    codes = np.empty(values.shape, dtype=np.uint8)
    place = np.empty(len(ranked), dtype=np.uint8)
    place[order] = np.repeat(np.arange(len(starts)), np.diff([*starts, len(ranked)]))
    codes[valid] = place
    codes[~valid] = (np.searchsorted(-ranked[starts], -values[~valid], side="right") - 1).clip(0)
    means = np.add.reduceat(ranked, starts) / np.diff([*starts, len(ranked)])
    tied = tuple(bool(0 < n < len(ranked) and ranked[n - 1] == ranked[n]) for n in counts)
    return Levels(codes, means, tuple(int(np.searchsorted(starts, n)) for n in counts), tied, limit,
                  bool(ranked[0] == ranked[-1]))  # fmt: skip


def predicted(codes: np.ndarray) -> np.ndarray:
    """What is left of levels after prediction from their neighbours, modulo 256. Shape: `(F, T)` uint8 -> `(F, T)` uint8.

    >>> predicted(np.array([[3, 3], [3, 4]], np.uint8)).tolist()
    [[3, 0], [0, 1]]
    """
    x = np.pad(codes.astype(np.int16), ((1, 0), (1, 0)))
    left, below, diagonal = x[1:, :-1], x[:-1, 1:], x[:-1, :-1]
    guess = np.clip(left + below - diagonal, np.minimum(left, below), np.maximum(left, below))
    return ((x[1:, 1:] - guess) & 255).astype(np.uint8)


def packed(codes: np.ndarray) -> tuple[bool, str]:
    """Levels `(F, T)` uint8 as text, and whether they were predicted: whichever has the lower entropy."""
    residual = predicted(codes)
    better = _entropy(residual) < _entropy(codes)
    return better, text(deflated((residual if better else codes).tobytes()))


def packed_mask(mask: np.ndarray) -> str:
    """A mask `(F, T)` bool as text: bits in row order, deflated."""
    return text(deflated(np.packbits(mask).tobytes()))


def deflated(content: bytes) -> bytes:
    """Bytes as a raw deflate stream, what a browser's `DecompressionStream("deflate-raw")` reads."""
    stream = zlib.compressobj(6, zlib.DEFLATED, -15)  # levels above 6 take four times as long for 1.5 %
    return stream.compress(content) + stream.flush()


def text(content: bytes) -> str:
    """Bytes as characters of 15 bits each; the first says how many bits of the last are padding.

    >>> [hex(ord(c)) for c in text(b"\\xff\\x01")]
    ['0x300e', '0xaf80', '0x7000']
    """
    bits = np.unpackbits(np.frombuffer(content, dtype=np.uint8))
    padding = -len(bits) % 15
    groups = np.pad(bits, (0, padding)).reshape(-1, 15)
    units = groups.astype(np.uint16) @ (1 << np.arange(14, -1, -1)).astype(np.uint16) + FIRST
    return np.concatenate([[FIRST + padding], units]).astype("<u2").tobytes().decode("utf-16-le")


def content(text: str) -> bytes:
    """The bytes of a `text`.

    >>> content(text(b"a map"))
    b'a map'
    """
    units = np.frombuffer(text.encode("utf-16-le"), dtype="<u2").astype(np.int64) - FIRST
    bits = (units[1:, None] >> np.arange(14, -1, -1)) & 1
    bits = bits.ravel()[: bits.size - int(units[0])]
    return np.packbits(bits.astype(np.uint8)).tobytes()


def _entropy(codes: np.ndarray) -> float:
    """Bits of all cells, each alone."""
    counts = np.bincount(codes.ravel(), minlength=256)
    counts = counts[counts > 0]
    return float((counts * np.log2(codes.size / counts)).sum())
