"""Read this first: every metric of the benchmark, one entry each, with when to distrust it.

    METRICS["deletion-twin"].function(evidence)  ->  (B,) float64, NaN where undefined

localisation   does the attribution find the cells the vocoder changed? Needs the truth and no forward pass. Names that
               end in `-time`, and `frame-eer`, ask for the frames only: of maps that resolve time but not frequency, and
               of truths that are segments of partially spoofed speech.
faithfulness   does the countermeasure use the cells the attribution names? Needs forward passes and no truth.

A method can be good at one and bad at the other: a faithful map of a countermeasure that looks elsewhere misses the
vocoder's traces, and a perfect map of the vocoder's traces says nothing about the countermeasure. Report both, beside
the controls (`random`, `energy`, `inverse-energy`, `oracle` ...).

Names end in what stands where cells were removed: `-silence` (zero energy), `-mean` (the training mean of that
frequency), `-twin` (the bona fide half of the pair: takes away the artefact and leaves speech). Log-odds unless the name
says `-probability`. `chance` is the expected value of a random map where the truth's region is 5 % of the valid cells.

Importing this module does not import torch; the functions are looked up when first called.
"""

from __future__ import annotations

import math
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from xaibench.protocols import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from xaibench.metrics.evidence import Evidence

FILLS = ("silence", "mean", "twin")

#: Interior points of deletion and insertion curves, as shares of the valid cells. Denser where attributions differ most;
#: both hold 0.05, so that `drop-*` costs no forward pass beside a deletion curve.
FRACTIONS = {
    "quick": (0.02, 0.05, 0.1, 0.2, 0.4, 0.7),
    "full": (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85),
}

CLEVR_XAI = "Arras et al., Information Fusion 81 (2022), arXiv 2003.07258"
SEGMENTS = "Zhang et al., Interspeech 2023, arXiv 2305.17739 (segment-level error rate)"
RISE = "Petsiuk et al., BMVC 2018, arXiv 1806.07421"

UNBOUNDED = (-math.inf, math.inf)
UNIT = (0.0, 1.0)


def _localisation(name: str, evidence: Evidence) -> Tensor:
    function = getattr(import_module("xaibench.metrics.localisation"), name)
    return function(evidence.attribution.values, evidence.truth.region, evidence.truth.valid)


def _temporal(name: str, evidence: Evidence) -> Tensor:
    return getattr(import_module("xaibench.metrics.temporal"), name)(evidence.attribution.values, evidence.truth)


def _faithfulness(name: str, evidence: Evidence, **options: str) -> Tensor:
    return getattr(import_module("xaibench.metrics.faithfulness"), name)(evidence, **options)


def _found(name: str, function: str, paper: str, equation: str, misleads: str, *, chance: float) -> Metric:
    return Metric(
        name=name, family="localisation", function=partial(_localisation, function), direction="higher", range=UNIT,
        paper=paper, equation=equation, misleads=misleads, needs=frozenset({"truth", "frequency", "time"}), chance=chance,
    )  # fmt: skip


def _found_in_time(
    name: str, function: str, paper: str, equation: str, misleads: str, *, chance: float | None,
    direction: str = "higher", limits: tuple[float, float] = UNIT,
) -> Metric:  # fmt: skip
    return Metric(
        name=name, family="localisation", function=partial(_temporal, function), direction=direction, range=limits,
        paper=paper, equation=equation, misleads=misleads, needs=frozenset({"truth", "time"}), chance=chance,
    )  # fmt: skip


def _used(
    name: str, function: str, fill: str, direction: str, limits: tuple[float, float], paper: str, equation: str,
    misleads: str, **options: str,
) -> Metric:  # fmt: skip
    return Metric(
        name=name, family="faithfulness", function=partial(_faithfulness, function, fill=fill, **options),
        direction=direction, range=limits, paper=paper, equation=equation, misleads=misleads,
        needs=frozenset({"forward"}),
    )  # fmt: skip


_LOCALISATION = (
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

#: a_t: sum of the map over the valid frequencies of frame t. g_t: share of the frame's valid cells in R. S: the
#: N = round(sum of g_t) frames of largest g_t; the spoofed frames, where the truth is one of segments.
_TEMPORAL = (
    _found_in_time(
        "rank-accuracy-time", "rank_accuracy", f"{CLEVR_XAI}, on frames",
        "|top-N(a_t) & S| / N, N = |S| = round(sum of g_t)",
        "Chance is the share of spoofed frames: 5 % for a truth of the top 5 % of the cells, a fifth or more for segments. "
        "A map may name the right frame for the wrong frequencies, and evidence of both signs cancels within a frame.",
        chance=0.05,
    ),
    _found_in_time(
        "roc-auc-time", "roc_auc", "Fawcett, Pattern Recognition Letters 27 (2006), on frames",
        "P(a_t of a frame in S > a_t of a frame outside) + P(equal) / 2",
        "Says nothing of frequency. A map of the middle scores where segments seldom touch the ends of a recording, one of "
        "loudness where they lie in speech: compare with `centre`, `energy` and `inverse-energy`.",
        chance=0.5,
    ),
    _found_in_time(
        "average-precision-time", "average_precision", "McSherry, Najork, ECIR 2008 (under ties), on frames",
        "1 / |S| * sum over frames of S of the precision at their rank",
        "Its chance level is above the share of S, the more the fewer frames there are (0.07 for 10 of 200): never compare "
        "it between truths, data sets or lengths.",
        chance=None,
    ),
    _found_in_time(
        "spearman-time", "spearman", "Spearman, American Journal of Psychology 15 (1904)",
        "rank correlation of a_t and g_t; expected value over the orders of equal a_t",
        "Most frames have a small g_t, whose order is noise. Equal g_t keep even a perfect map below 1: 0.87 at most where "
        "half of the frames are spoofed, 0.7 where a fifth is. Compare with `oracle`, not with 1.",
        chance=0.0, limits=(-1.0, 1.0),
    ),
    _found_in_time(
        "frame-eer", "frame_eer", SEGMENTS,
        "false alarm = miss of the frames of one utterance at a threshold on a_t, S against the rest",
        "The threshold is chosen anew for each utterance, which no detector could do: read it as a distance of two "
        "rankings, not as the error rate of a localiser.",
        chance=0.5, direction="lower",
    ),
)  # fmt: skip

_FILL_MISLEADS = {
    "silence": "Zero energy is far from any speech, so the score also says how strange the input became: silencing even "
    "random cells can move it by more than the whole gap between a spoof and its twin. Read it beside `random`.",
    "mean": "The training mean has no fine structure: filled cells are smooth patches no speech has, which a countermeasure "
    "may read as a vocoder's trace.",
    "twin": "Cells are as bona fide as their recording, but a mixture of two recordings has seams; and where spoof and "
    "twin agree nothing is removed, so maps that miss the difference look harmless instead of wrong.",
}  # fmt: skip

_READOUT_MISLEADS = {
    "log-odds": "In the countermeasure's own log-odds: compare attributors, not countermeasures.",
    "probability": "A sigmoid saturates: where the countermeasure stays certain every map scores alike.",
}


def _curves(fill: str) -> list[Metric]:
    metrics = []
    for values, suffix, limits in (("log-odds", "", UNBOUNDED), ("probability", "-probability", UNIT)):
        symbol = "s" if values == "log-odds" else "sigmoid(s)"
        misleads = f"{_FILL_MISLEADS[fill]} {_READOUT_MISLEADS[values]}"
        metrics += [
            _used(
                f"deletion-{fill}{suffix}", "deletion", fill, "lower", limits, RISE,
                f"integral of {symbol}(x without its top share p of cells) dp, p from 0 to 1; trapezoids",
                misleads, values=values,
            ),
            _used(
                f"insertion-{fill}{suffix}", "insertion", fill, "higher", limits, RISE,
                f"integral of {symbol}(x with its top share p of cells only) dp, p from 0 to 1; trapezoids",
                misleads, values=values,
            ),
        ]  # fmt: skip
    drop = _used(
        f"drop-{fill}", "drop", fill, "higher", UNBOUNDED, "this benchmark",
        "(s(x) - s(x without its top 5 % of cells)) / (s(spoof) - s(bona fide twin))",
        f"{_FILL_MISLEADS[fill]} A share of the gap: pairs that the countermeasure hardly tells apart weigh most, and "
        "those below 1 log-odds are left out.",
    )  # fmt: skip
    return [*metrics, drop]


_PIXEL_FLIPPING = _used(
    "pixel-flipping", "flipping", "silence", "lower", (0.0, 9.0), "Bach et al., PLoS ONE 10 (2015); as Quantus 0.6.0",
    "trapezoids of width 1 over sigmoid(s(x without its top k * 10 % of cells)), k = 1 .. 10",
    f"{_FILL_MISLEADS['silence']} {_READOUT_MISLEADS['probability']} Steps of 10 % cannot see what the top 5 % do.",
)  # fmt: skip

#: Every metric by its name, in the order of reports.
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (*_LOCALISATION, *_TEMPORAL, *(m for fill in FILLS for m in _curves(fill)), _PIXEL_FLIPPING)
}

#: The presets of the command line. `quick` asks 3 fills one question each, and only the twin for whole curves.
QUICK = (
    *(metric.name for metric in _LOCALISATION), "rank-accuracy-time", "roc-auc-time",
    "drop-twin", "drop-mean", "drop-silence",
    "deletion-twin", "insertion-twin", "deletion-twin-probability", "insertion-twin-probability",
)  # fmt: skip
FULL = tuple(METRICS)
