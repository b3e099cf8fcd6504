"""Does the attribution find the cells the vocoder changed?"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from xaibench.metrics.entries.sources import CLEVR_XAI, UNIT
from xaibench.protocols import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from xaibench.metrics.evidence import Evidence


def _localisation(name: str, evidence: Evidence) -> Tensor:
    function = getattr(import_module("xaibench.metrics.localisation"), name)
    return function(evidence.attribution.values, evidence.truth.region, evidence.truth.valid)


def _found(name: str, function: str, paper: str, equation: str, misleads: str, *, chance: float) -> Metric:
    return Metric(
        name=name, family="localisation", function=partial(_localisation, function), direction="higher", range=UNIT,
        paper=paper, equation=equation, misleads=misleads, needs=frozenset({"truth", "frequency", "time"}), chance=chance,
    )  # fmt: skip


LOCALISATION = (
    _found(
        "rank-accuracy", "relevance_rank_accuracy", CLEVR_XAI,
        "|top-N(A) & R| / N, N = |R|",
        "Only who is in the top 5 % counts, not in what order. The truth divides by the energy of the bona fide speech, so "
        "a map of quiet cells scores without having seen the countermeasure: compare with `inverse-energy`.",
        chance=0.05,
    ),
    _found(
        "iou", "intersection_over_union", "Jaccard, New Phytologist 11 (1912)",
        "|top-k(A) & R| / |top-k(A) | R|, k = 5 % of the valid cells",
        "While the region, too, is 5 % of the cells, it ranks methods as rank accuracy does on each utterance; its "
        "small values look worse than they are.",
        chance=0.05**2 / (0.1 - 0.05**2),
    ),
    _found(
        "mass-accuracy", "relevance_mass_accuracy", CLEVR_XAI,
        "sum of A+ over R / sum of A+",
        "A map concentrated on one cell scores 1 if that cell is right; and it depends on the scale of a map, so a "
        "squared map beats the map itself. Negative evidence does not count.",
        chance=0.05,
    ),
    _found(
        "roc-auc", "roc_auc", "Fawcett, Pattern Recognition Letters 27 (2006)",
        "P(A of a cell in R > A of a cell outside) + P(equal) / 2",
        "Weighs the order of the 95 % of cells outside the region, where nobody looks, as much as the top: a broad map "
        "that never names the right cells first can score well.",
        chance=0.5,
    ),
    _found(
        "average-precision", "average_precision", "McSherry, Najork, ECIR 2008 (under ties)",
        "1 / |R| * sum over cells of R of the precision at their rank",
        "Its chance level is the share of the region: never compare it between truths of different share.",
        chance=0.05,
    ),
    _found(
        "pointing-game", "pointing_game", "Zhang et al., IJCV 126 (2018)",
        "[argmax A in R]",
        "One cell an utterance decides: very noisy, and blind to everything but the maximum.",
        chance=0.05,
    ),
)  # fmt: skip
