"""Over how many cells does the attribution spread?"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from xaibench.metrics.entries.sources import POSITIVE, UNIT
from xaibench.protocols import Metric

if TYPE_CHECKING:
    from torch import Tensor

    from xaibench.metrics.evidence import Evidence

_NOT_WHERE = "Says how few cells are named, not that they are the right ones: one wrong cell alone is the best map."


def _complexity(name: str, evidence: Evidence) -> Tensor:
    function = getattr(import_module("xaibench.metrics.complexity"), name)
    return function(evidence.attribution.values, evidence.truth.valid)


def _spread(
    name: str, function: str, direction: str, limits: tuple[float, float], paper: str, equation: str, misleads: str,
    *, chance: float | None,
) -> Metric:  # fmt: skip
    return Metric(
        name=name, family="complexity", function=partial(_complexity, function), direction=direction, range=limits,
        paper=paper, equation=equation, misleads=f"{_NOT_WHERE} {misleads}", chance=chance,
    )  # fmt: skip


#: Every metric of this family. All look at the valid cells of the map on the grid; `chance` is that of uniform noise.
COMPLEXITY: tuple[Metric, ...] = (
    _spread(
        "sparseness", "gini", "higher", UNIT, "Chalasani et al., ICML 2020 (Gini index)",
        "1 - 2 * sum_k |a|_(k) / |a|_1 * (n - k + 1/2) / n, |a|_(k) rising",
        "A method that clips at zero, as the CAM family does, is sparse by its rule.",
        chance=1 / 3,
    ),
    _spread(
        "entropy", "entropy", "lower", POSITIVE, "Bhatt et al., IJCAI 2020",
        "- sum of p ln p, p = |a| / |a|_1",
        "In nats, at most ln n: never compare it between grids, bands or lengths. A map coarser than the grid is a plateau "
        "on it, and looks as complex as its plateaus are wide.",
        chance=None,
    ),
    _spread(
        "effective-area", "effective_area", "lower", UNIT, "Simpson, Nature 163 (1949), inverse, over n",
        "(sum |a|)^2 / (n * sum a^2)",
        "The largest cells decide: one outlier hides a map that is busy everywhere else.",
        chance=0.75,
    ),
)  # fmt: skip
