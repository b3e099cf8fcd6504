"""Does the attribution depend on what the countermeasure learned, and on the class it explains?"""

from __future__ import annotations

import math
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from xaibench.metrics.entries.sources import SIGNED_UNIT, UNIT
from xaibench.protocols import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from xaibench.metrics.evidence import Evidence

REVISITED = "Hedstroem et al., 2023, arXiv 2401.06465"


def _sanity(name: str, evidence: Evidence) -> Tensor:
    return getattr(import_module("xaibench.metrics.sanity"), name)(evidence)


def _sane(
    name: str, direction: str, limits: tuple[float, float], paper: str, equation: str, misleads: str
) -> Metric:  # fmt: skip
    return Metric(
        name=name, family="sanity", function=partial(_sanity, name.replace("-", "_")), direction=direction, range=limits,
        paper=paper, equation=equation, misleads=misleads, needs=frozenset({"explain"}),
    )  # fmt: skip


#: Every metric of this family. rho: Spearman's rank correlation over the valid cells; A_q: the map of a copy whose last
#: share q of modules has redrawn parameters.
SANITY: tuple[Metric, ...] = (
    _sane(
        "mprt", "lower", UNIT, "Adebayo et al., NeurIPS 2018, arXiv 1810.03292",
        "mean of |rho(A, A_q)|, q = 0.25, 0.5, 0.75, 1 of the modules, from the output",
        "Noise is the best map: one that changes at every look at anything depends on the parameters, too. And one "
        "that has the input as a factor stays like the input, however much the rest depends on them.",
    ),
    _sane(
        "smooth-mprt", "lower", UNIT, REVISITED,
        "|rho(mean_k A(x_k), mean_k A_1(x_k))|, x_k = x under noise:40:k, k = 0, 1, 2",
        "Noise that three draws do not average away still lowers it: compare with `max-sensitivity`. As `mprt`, it falls "
        "for methods that copy the input.",
    ),
    _sane(
        "efficient-mprt", "higher", (-1.0, math.inf), REVISITED,
        "(H(A_1) - H(A)) / H(A), H the entropy of the histogram of |A| (100 bins)",
        "Only the histogram counts: a map whose cells have all moved, with the same values, scores 0. A map that was simple "
        "for another reason (one outlier, clipping at zero) has much to rise.",
    ),
    _sane(
        "random-logit", "lower", UNIT, "Sixt et al., ICML 2020, arXiv 1912.09818; rank correlation in place of SSIM",
        "|rho(|A|, |A of the bona fide logit|)|",
        "Made for many classes. Of two, cross-entropy makes the logits mirror images: a faithful map is then the same "
        "for both up to its sign, and scores 1. A low value says that the logits differ, or that the method is noise.",
    ),
    _sane(
        "class-sensitivity", "lower", SIGNED_UNIT, "this benchmark, after Sixt et al., ICML 2020, arXiv 1912.09818",
        "rho(A, A of the negated log-odds)",
        "Any map that is odd in the gradient scores -1, whatever it shows. Methods without a sign score 1 by their "
        "design, and those that clip at zero show two halves of one map: that need not be a fault.",
    ),
)  # fmt: skip
