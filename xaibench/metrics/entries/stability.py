"""Does the attribution stay the same when the recording changes in ways nobody hears?"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from xaibench.metrics.entries.sources import POSITIVE, SIGNED_UNIT
from xaibench.protocols import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from xaibench.metrics.evidence import Evidence

SPEARMAN = "Spearman, American Journal of Psychology 15 (1904)"

_BLIND = (
    "A map that never looked at the recording is perfectly stable: `constant`, `centre`, and even `random`, whose draws "
    "are fixed by the utterance's name."
)


def _stability(name: str, evidence: Evidence, **options: str) -> Tensor:
    return getattr(import_module("xaibench.metrics.stability"), name)(evidence, **options)


def _moved(name: str, function: str, paper: str, equation: str, misleads: str) -> Metric:
    return Metric(
        name=name, family="stability", function=partial(_stability, function), direction="lower", range=POSITIVE,
        paper=paper, equation=equation, misleads=f"{_BLIND} {misleads}", needs=frozenset({"explain"}),
    )  # fmt: skip


def _robust(kind: str, change: str, misleads: str) -> Metric:
    return Metric(
        name=f"robustness-{kind}", family="stability", function=partial(_stability, "robustness", change=change),
        direction="higher", range=SIGNED_UNIT, paper=SPEARMAN,
        equation=f"rank correlation over the valid cells of A(x) and A(x'), x' = x under {change}",
        misleads=f"{_BLIND} {misleads}", needs=frozenset({"explain"}),
    )  # fmt: skip


#: Every metric of this family.
STABILITY: tuple[Metric, ...] = (
    _moved(
        "max-sensitivity", "max_sensitivity", "Yeh et al., NeurIPS 2019, arXiv 1901.09392; divided as in Quantus 0.6.0",
        "max over k of ||A(x_k) - A(x)|| / ||A(x)||, x_k = x under noise:40:k, k = 0, 1, 2",
        "Three draws find less than the maximum. Near 1.4 the maps share nothing; and a map that fades in noise counts as "
        "much as one that moves.",
    ),
    _moved(
        "local-lipschitz", "local_lipschitz", "Alvarez-Melis, Jaakkola, 2018, arXiv 1806.08049",
        "max over k of ||A_k/max|A_k| - A/max|A||| / ||(x_k - x)/rms(x)||, x the explained tensor, x_k under noise:40:k"
        "; both divided by their size, which the paper and Quantus 0.6.0 do not",
        "Its unit is the countermeasure's own: the same noise moves a logarithmic tap far and a complex spectrum little, so "
        "compare methods, never countermeasures or routes. A single outlying cell makes all others small, and so stable.",
    ),
    _robust(
        "noise", "white:20:0",
        "The noise is heard, and may change what the countermeasure says: then the map should change, too.",
    ),
    _robust(
        "mu-law", "codec:mu-law",
        "Quantisation noise fills the quiet cells above all: a map of loud cells stays as it is.",
    ),
    _robust(
        "vorbis", "codec:vorbis",
        "The coder takes away quiet cells beneath loud ones, where vocoders leave traces. A countermeasure that used them "
        "has lost its evidence (LCNN's log-odds of a spoof of minivoc fell from 14 to -11), and its map should change.",
    ),
)  # fmt: skip
