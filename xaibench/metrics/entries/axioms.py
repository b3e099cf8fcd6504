"""Does the attribution keep the promises of its kind: sums to the difference of scores, ignores what changes nothing?"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from xaibench.metrics.entries.sources import FILLS, POSITIVE
from xaibench.protocols import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from xaibench.metrics.evidence import Evidence


def _axioms(name: str, evidence: Evidence, **options: str) -> Tensor:
    return getattr(import_module("xaibench.metrics.axioms"), name)(evidence, **options)


def _complete(fill: str) -> Metric:
    return Metric(
        name=f"completeness-{fill}", family="axioms", function=partial(_axioms, "completeness", fill=fill),
        direction="lower", range=POSITIVE, paper="Sundararajan et al., ICML 2017, arXiv 1703.01365",
        equation=f"|sum of A - (s(x) - s({fill} everywhere))| / |s(x) - s({fill} everywhere)|; every cell, valid or not",
        misleads=f"Only methods that promise completeness to this baseline ({fill}) can keep it: others have another unit, "
        "and a value near 1 says no more than that their sum is small. A right sum may be spread over any cells. Left out "
        "where the scores differ by less than 1 log-odds.",
        needs=frozenset({"forward"}),
    )  # fmt: skip


#: Every metric of this family. s: spoof log-odds.
AXIOMS: tuple[Metric, ...] = (
    *(_complete(fill) for fill in FILLS),
    Metric(
        name="input-invariance", family="axioms", function=partial(_axioms, "input_invariance"), direction="lower",
        range=POSITIVE, paper="Kindermans et al., 2017, arXiv 1711.00867",
        equation="||A' - A|| / ||A||, A' of f(x - c) at x + c, c = one standard deviation of the references",
        misleads="A map that has no part of the input in it is invariant, whatever it shows: `constant`, `random`. "
        "Baselines are shifted with the input, so a method with a baseline passes; with one at zero it would not.",
        needs=frozenset({"explain"}),
    ),
)  # fmt: skip
