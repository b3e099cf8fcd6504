"""Which cells of a pack are computed again, and what it means that they agree.

The draw is stratified: cells in the order of countermeasure, truth, route, attributor, metric are cut into as many runs as
cells are drawn, all equally long but for one cell, and each run gives one, at random and on its own. So every part of the
board is asked, however few cells are drawn.

If a share p of all cells is wrong, and p_h of run h, no wrong cell is drawn with probability

    prod_h (1 - p_h) <= (1 - p)^n        log(1 - p) is concave, and the mean of p_h is p

so the bound of simple random sampling holds for this draw, too: with n cells drawn and none wrong, the share of wrong cells
is below 1 - 0.05^(1/n) with 95 % confidence (Clopper and Pearson 1934; about 3/n, the rule of three, Hanley and
Lippman-Hand 1983). The bound needs a draw that the author could not foresee: the seed must be chosen after the pack was
made. An author who knows it can try packs until the wrong cells are not drawn.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
from scipy.stats import beta

from xaibench.harness.results import keys

STRATA = ("truth", "countermeasure", "route", "attributor", "metric")
LEVEL = 0.95


def draw(rows: pd.DataFrame, count: int, *, pack: str, seed: int) -> np.ndarray:
    """Places of `count` encoded rows, rising; of all where there are no more. `pack` is the sha256 of the pack's file."""
    order = np.argsort(keys(rows, STRATA), kind="stable")
    count = min(count, len(rows))
    digest = hashlib.sha256(f"{pack}/{seed}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "big"))
    ends = np.linspace(0, len(rows), count + 1).round().astype(np.int64)
    return np.sort(order[generator.integers(ends[:-1], ends[1:])])


def most_wrong(wrong: int, drawn: int, total: int) -> float:
    """The largest share of wrong cells that the draw leaves possible at `LEVEL` (one-sided Clopper-Pearson).

    >>> round(most_wrong(0, 20, 12_000), 3), round(most_wrong(1, 20, 12_000), 3), most_wrong(0, 12, 12)
    (0.139, 0.216, 0.0)
    """
    if drawn == total:
        return wrong / total
    return 1.0 if wrong >= drawn else float(beta.ppf(LEVEL, wrong + 1, drawn - wrong))
