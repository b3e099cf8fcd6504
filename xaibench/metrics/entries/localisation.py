"""Does the attribution find the cells the vocoder changed?"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from xaibench.metrics.entries.sources import CLEVR_XAI, POSITIVE, SIGNED_UNIT, UNIT
from xaibench.protocols import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from xaibench.metrics.evidence import Evidence
    from xaibench.metrics.ranking import Ranking

THEINER = "Theiner et al., WACV 2022, arXiv 2104.14995"
FAWCETT = "Fawcett, Pattern Recognition Letters 27 (2006)"

#: Per cent of the valid cells that scores with a cut-off take for the attribution's own region.
CUTS = (1, 2, 5, 10, 20)

#: Per cent of the valid cells in the region that `chance` and `misleads` speak of.
REGION = 5


def _ranking(evidence: Evidence) -> Ranking:
    """The maps' cells in order, sorted once for all metrics of the evidence."""
    ranking = import_module("xaibench.metrics.ranking")
    values, valid = evidence.attribution.values, evidence.truth.valid
    return ranking.kept(evidence, "cells", lambda: ranking.Ranking(values, valid))


def _localisation(name: str, evidence: Evidence, *, half: str | None = None, **options: float) -> Tensor:
    truth, region = evidence.truth, evidence.truth.region
    if half is not None:
        halves, ranking = import_module("xaibench.truth"), import_module("xaibench.metrics.ranking")
        region = ranking.kept(truth, half, lambda: halves.half(truth, half))
    return getattr(import_module("xaibench.metrics.localisation"), name)(_ranking(evidence), region, **options)


def _graded(name: str, evidence: Evidence) -> Tensor:
    ranking, truth = import_module("xaibench.metrics.ranking"), evidence.truth
    values, valid = truth.values, truth.valid
    amount = ranking.kept(truth, "cells", lambda: ranking.Ranking(values, valid))
    return getattr(import_module("xaibench.metrics.graded"), name)(_ranking(evidence), amount)


def _found(
    name: str, function: partial[Tensor], paper: str, equation: str, misleads: str, *, chance: float | None,
    limits: tuple[float, float] = UNIT,
) -> Metric:  # fmt: skip
    return Metric(
        name=name, family="localisation", function=function, direction="higher", range=limits,
        paper=paper, equation=equation, misleads=misleads, needs=frozenset({"truth", "frequency", "time"}), chance=chance,
    )  # fmt: skip


def _at(cut: int) -> tuple[Metric, ...]:
    """The four scores at one cut-off."""
    k, share, region = f"k = {cut} % of the valid cells", cut / 100, REGION / 100
    both = share * region  # expected intersection of a random map, as a share of the cells
    if cut == REGION:
        same = f"While the region, too, is {REGION} % of the cells this is rank accuracy under another name"
        precision = recall = f"{same}, to the last digit: no second opinion."
        dice = f"{same}, to the last digit: no second opinion."
        iou = f"{same}: x / (2 - x) of it on each utterance. Its small values look worse than they are."
    else:
        one = f"On each utterance it orders methods as `precision@{cut}` does: four names at one cut-off, one measurement. "
        few, many = sorted((cut, REGION))
        dice = f"{one}The oracle itself gets {200 * few / (few + many) / 100:.2g}, not 1."
        iou = f"{one}The oracle itself gets {few / many:.2g}, not 1."
        if cut < REGION:
            precision = (
                f"A map that names {cut / REGION:.0%} of the region and nothing else of it is perfect: one burst of a few "
                f"frames will do. A map of quiet cells scores, too: compare with `inverse-energy`."
            )
            recall = f"{one}The oracle itself gets {cut / REGION:.2g}, not 1."
        else:
            precision = (
                f"The oracle itself gets {REGION / cut:.2g}, not 1, and a map that has the region in the last of its {cut} "
                f"% scores as one that has it first."
            )
            recall = (
                f"A map of blobs {cut / REGION:.0f} times as large as the region is perfect once they cover it: smooth maps "
                f"gain by their smoothness alone. Compare with `precision@1`."
            )
    return tuple(
        _found(
            f"{name}@{cut}", partial(_localisation, function, share=share), paper, f"{formula}, {k}", misleads,
            chance=chance,
        )
        for name, function, paper, formula, misleads, chance in (
            ("iou", "intersection_over_union", "Jaccard, New Phytologist 11 (1912)",
             "I / (k + |R| - I), I = |top-k(A) & R|", iou, both / (share + region - both)),
            ("dice", "dice", "Dice, Ecology 26 (1945)",
             "2 |top-k(A) & R| / (k + |R|)", dice, 2 * both / (share + region)),
            ("precision", "precision", "van Rijsbergen, Information Retrieval (1979), chapter 7",
             "|top-k(A) & R| / k", precision, region),
            ("recall", "recall", "van Rijsbergen, Information Retrieval (1979), chapter 7",
             "|top-k(A) & R| / |R|", recall, share),
        )
    )  # fmt: skip


LOCALISATION = (
    _found(
        "rank-accuracy", partial(_localisation, "relevance_rank_accuracy"), CLEVR_XAI,
        "|top-N(A) & R| / N, N = |R|",
        "Only who is in the top 5 % counts, not in what order. The truth divides by the energy of the bona fide speech, so "
        "a map of quiet cells scores without having seen the countermeasure: compare with `inverse-energy`.",
        chance=0.05,
    ),
    *(metric for cut in CUTS for metric in _at(cut)),
    _found(
        "top-k-intersection", partial(_localisation, "top_k_intersection"), THEINER,
        "|top-K(A) & R| / K, K = 1000 cells, or all where there are fewer",
        "K is a number of cells, not a share: 1.1 % of 4 s of speech on the grid, 4.5 % of 1 s. Never compare it between "
        "lengths, grids or countermeasures that hear different lengths; `precision@1` is the same question with a share.",
        chance=0.05,
    ),
    _found(
        "concept-influence", partial(_localisation, "concept_influence"), THEINER,
        "|top-k(A) & R| / k * n / |R|, n valid cells, k = 5 % of them",
        "20 times `precision@5` while the region is 5 % of the cells, and no news then. Between truths of different share "
        "its ceiling n / |R| moves: 100 for a region of 1 %, so a small region looks well found.",
        chance=1.0, limits=POSITIVE,
    ),
    _found(
        "mass-accuracy", partial(_localisation, "relevance_mass_accuracy"), CLEVR_XAI,
        "sum of A+ over R / sum of A+",
        "A map concentrated on one cell scores 1 if that cell is right; and it depends on the sizes, not only on the "
        "order: squaring a map changes it, up or down. Negative evidence does not count.",
        chance=0.05,
    ),
    _found(
        "roc-auc", partial(_localisation, "roc_auc"), FAWCETT,
        "P(A of a cell in R > A of a cell outside) + P(equal) / 2",
        "Weighs the order of the 95 % of cells outside the region, where nobody looks, as much as the top: a broad map "
        "that never names the right cells first can score well.",
        chance=0.5,
    ),
    _found(
        "average-precision", partial(_localisation, "average_precision"), "McSherry, Najork, ECIR 2008 (under ties)",
        "1 / |R| * sum over cells of R of the precision at their rank",
        "Its chance level is the share of the region: never compare it between truths of different share.",
        chance=0.05,
    ),
    _found(
        "pointing-game", partial(_localisation, "pointing_game"), "Zhang et al., IJCV 126 (2018)",
        "[argmax A in R]",
        "One cell an utterance decides: very noisy, and blind to everything but the maximum.",
        chance=0.05,
    ),
    _found(
        "ndcg", partial(_graded, "ndcg"), "Jaervelin, Kekaelaeinen, ACM TOIS 20 (2002); ties: McSherry, Najork, ECIR 2008",
        "sum over ranks j of D / log2(j + 1), over the same in the order of D; all valid cells",
        "Every cell gains, the top 5 % of them only a third of the sum: on 4 s of vocoded speech (minivoc) a random map "
        "scores 0.80 to 0.88 and the truth's own region, in random order, 0.88 to 0.93. Read the distance from "
        "`random`, never the value.",
        chance=None,
    ),
    _found(
        "spearman", partial(_graded, "spearman"), "Spearman, American Journal of Psychology 15 (1904)",
        "rank correlation of A and D over the valid cells; expected value over the orders of equal A",
        "Weighs the order of the 95 % of cells that hardly changed as much as the top: the truth's own region, in random "
        "order, scores 0.14, and a map of quiet cells 0.30 on Griffin-Lim (minivoc). Compare with `inverse-energy`.",
        chance=0.0, limits=SIGNED_UNIT,
    ),
    *(
        _found(
            f"rank-accuracy-{half}", partial(_localisation, "relevance_rank_accuracy", half=half),
            f"{CLEVR_XAI}, on one sign of D",
            f"|top-N(A) & H| / N, N = |H|, H = R and {sign}",
            misleads,
            chance=None,
        )
        for half, sign, misleads in (
            ("added", "M_s > M_b",
             "Chance is the half's share of the valid cells, from 2 to 5 % by vocoder and utterance: compare methods on "
             "the same pairs only. Where a vocoder only adds (HiFi-GAN: 99.8 % of the region in minivoc) it is rank "
             "accuracy again."),
            ("missing", "not M_s > M_b",
             "D of a missing cell is at most 1, of an added one without limit, so few missing cells reach the region: "
             "none for most of HiFi-GAN (undefined), half of it for Griffin-Lim. A mean over vocoders is one over those "
             "that lose energy."),
        )
    ),
    *(
        _found(
            f"roc-auc-{half}", partial(_localisation, "roc_auc", half=half), f"{FAWCETT}, on one sign of D",
            f"P(A of a cell in H > A of another) + P(equal) / 2, H = R and {sign}",
            misleads,
            chance=0.5,
        )
        for half, sign, misleads in (
            ("added", "M_s > M_b",
             "It hardly asks for the sign: a map of the whole region, both halves alike, scores 0.99 (minivoc). Whether a "
             "map tells added energy from missing shows in `rank-accuracy-added` beside `rank-accuracy-missing`."),
            ("missing", "not M_s > M_b",
             "It hardly asks for the sign: a map of the whole region scores 0.98 (minivoc). Missing cells of the region "
             "are quiet ones: `inverse-energy` scores 0.6 to 0.8 without having seen the countermeasure."),
        )
    ),
)  # fmt: skip
