"""Does the attribution find the frames the vocoder changed, or those that are spoofed? And its frequencies?"""

from __future__ import annotations

import math
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from xaibench.metrics.entries.sources import CLEVR_XAI, UNIT
from xaibench.protocols import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from xaibench.metrics.evidence import Evidence

SEGMENTS = "Zhang et al., Interspeech 2023, arXiv 2305.17739 (segment-level error rate)"


def _temporal(name: str, evidence: Evidence) -> Tensor:
    scores, values, truth = import_module("xaibench.metrics.temporal"), evidence.attribution.values, evidence.truth
    kept = import_module("xaibench.metrics.ranking").kept
    return getattr(scores, name)(kept(evidence, "frames", lambda: scores.frames(values, truth)))


def _in_frequency(name: str, evidence: Evidence) -> Tensor:
    scores, values, truth = import_module("xaibench.metrics.marginals"), evidence.attribution.values, evidence.truth
    kept = import_module("xaibench.metrics.ranking").kept
    return getattr(scores, name)(kept(evidence, "frequencies", lambda: scores.frequencies(values, truth)))


def _found_in_time(
    name: str, function: str, paper: str, equation: str, misleads: str, *, chance: float | None,
    direction: str = "higher", limits: tuple[float, float] = UNIT,
) -> Metric:  # fmt: skip
    return Metric(
        name=name, family="localisation", function=partial(_temporal, function), direction=direction, range=limits,
        paper=paper, equation=equation, misleads=misleads, needs=frozenset({"truth", "time"}), chance=chance,
    )  # fmt: skip


def _found_in_frequency(
    name: str, function: str, paper: str, equation: str, misleads: str, *, chance: float | None,
    limits: tuple[float, float] = UNIT,
) -> Metric:  # fmt: skip
    return Metric(
        name=name, family="localisation", function=partial(_in_frequency, function), direction="higher", range=limits,
        paper=paper, equation=equation, misleads=misleads, needs=frozenset({"truth", "frequency"}), chance=chance,
    )  # fmt: skip


#: a_t: sum of the map over the valid frequencies of frame t. g_t: share of the frame's valid cells in R. S: the
#: N = round(sum of g_t) frames of largest g_t; the spoofed frames, where the truth is one of segments.
_IN_TIME = (
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
    _found_in_time(
        "rcq", "rcq", "Liu et al., Interspeech 2024, arXiv 2406.02483, of one utterance",
        "100 * (mean of h_t over S - mean of h_t) / mean of h_t, h_t = max(a_t, 0)",
        "Of one utterance and of spoofed frames only; the paper pools a whole set and tells speech, non-speech and "
        "transitions apart, which `xaibench rcq` does. Any map whose positive marginal lies in S alone has the largest "
        "value there is, 100 * (T / |S| - 1).",
        chance=0.0, limits=(-100.0, math.inf),
    ),
)  # fmt: skip

#: a_f: sum of the map over the valid frames of frequency f. g_f: share of the frequency's valid cells in R. S: the
#: N = round(sum of g_f) frequencies of largest g_f.
_IN_FREQUENCY = (
    _found_in_frequency(
        "rank-accuracy-frequency", "rank_accuracy", f"{CLEVR_XAI}, on frequencies",
        "|top-N(a_f) & S| / N, N = |S| = round(sum of g_f)",
        "N is 11 of 222 frequencies on the grid up to 7 kHz: steps of 0.09. A map that knows a corpus' vocoders and not "
        "this utterance scores: compare with `frequency-prior`. Evidence of both signs cancels within a frequency.",
        chance=0.05,
    ),
    _found_in_frequency(
        "roc-auc-frequency", "roc_auc", "Fawcett, Pattern Recognition Letters 27 (2006), on frequencies",
        "P(a_f of a frequency in S > a_f of one outside) + P(equal) / 2",
        "A straight line that rises with frequency scores 0.85 on Griffin-Lim and 0.72 on MLSA (minivoc) without having "
        "heard anything. Compare with `frequency-prior`, `energy` and `inverse-energy`.",
        chance=0.5,
    ),
    _found_in_frequency(
        "average-precision-frequency", "average_precision", "McSherry, Najork, ECIR 2008 (under ties), on frequencies",
        "1 / |S| * sum over frequencies of S of the precision at their rank",
        "Its chance level is above the share of S (0.06 to 0.08 for 11 of 222) and rises as the grid gets coarser: never "
        "compare it between grids, bands or truths.",
        chance=None,
    ),
    _found_in_frequency(
        "spearman-frequency", "spearman", "Spearman, American Journal of Psychology 15 (1904)",
        "rank correlation of a_f and g_f; expected value over the orders of equal a_f",
        "g_f is smooth over frequency, and so are most maps: a straight line that rises with frequency scores 0.85 on "
        "Griffin-Lim and 0.56 on MLSA (minivoc), `inverse-energy` 0.77. Compare with these, and with `frequency-prior`.",
        chance=0.0, limits=(-1.0, 1.0),
    ),
)  # fmt: skip

TEMPORAL = (*_IN_TIME, *_IN_FREQUENCY)
