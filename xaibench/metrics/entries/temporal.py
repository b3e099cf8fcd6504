"""Does the attribution find the frames the vocoder changed, or those that are spoofed?"""

from __future__ import annotations

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
    return getattr(import_module("xaibench.metrics.temporal"), name)(evidence.attribution.values, evidence.truth)


def _found_in_time(
    name: str, function: str, paper: str, equation: str, misleads: str, *, chance: float | None,
    direction: str = "higher", limits: tuple[float, float] = UNIT,
) -> Metric:  # fmt: skip
    return Metric(
        name=name, family="localisation", function=partial(_temporal, function), direction=direction, range=limits,
        paper=paper, equation=equation, misleads=misleads, needs=frozenset({"truth", "time"}), chance=chance,
    )  # fmt: skip


#: a_t: sum of the map over the valid frequencies of frame t. g_t: share of the frame's valid cells in R. S: the
#: N = round(sum of g_t) frames of largest g_t; the spoofed frames, where the truth is one of segments.
TEMPORAL = (
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
