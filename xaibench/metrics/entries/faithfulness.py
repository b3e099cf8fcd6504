"""Does the countermeasure use the cells the attribution names?"""

from __future__ import annotations

from xaibench.metrics.entries.fills import FILL_MISLEADS, both, used
from xaibench.metrics.entries.masks import SAMEK, regions_and_subsets, soft_masks
from xaibench.metrics.entries.sources import FILLS, RISE, SIGNED_UNIT, UNBOUNDED, UNIT
from xaibench.protocols import Metric

BACH = "Bach et al., PLoS ONE 10 (2015); as Quantus 0.6.0"
ERASER = "DeYoung et al., ACL 2020, arXiv 1911.03429"
AIX360 = "Arya et al., 2019, arXiv 1909.03012; Luss et al., arXiv 1905.12698"


def _curves(fill: str) -> list[Metric]:
    """Deletion, insertion and the drop with one fill."""
    deletion = both(
        "deletion", "faithfulness.deletion", fill, "lower", UNIT, RISE,
        "integral of {f}(x without its top share p of cells) dp, p from 0 to 1; trapezoids", "",
    )  # fmt: skip
    insertion = both(
        "insertion", "faithfulness.insertion", fill, "higher", UNIT, RISE,
        "integral of {f}(x with its top share p of cells only) dp, p from 0 to 1; trapezoids", "",
    )  # fmt: skip
    drop = used(
        f"drop-{fill}", "faithfulness.drop", fill, "higher", UNBOUNDED, "this benchmark",
        "(s(x) - s(x without its top 5 % of cells)) / (s(spoof) - s(bona fide twin))",
        f"{FILL_MISLEADS[fill]} A share of the gap: pairs that the countermeasure hardly tells apart weigh most, and "
        "those below 1 log-odds are left out.",
    )  # fmt: skip
    # By read-out: deletion and insertion of log-odds, then of the probability.
    return [metric for pair in zip(deletion, insertion, strict=True) for metric in pair] + [drop]


def _steps(fill: str) -> list[Metric]:
    """Scores of ten equal steps, and of ERASER's five bins, with one fill."""
    return [
        *both(
            "pixel-flipping", "faithfulness.flipping", fill, "lower", (0.0, 9.0), BACH,
            "trapezoids of width 1 over {f}(x without its top k * 10 % of cells), k = 1 .. 10",
            "Steps of 10 % cannot see what the top 5 % do.",
        ),
        *both(
            "aopc-morf", "faithfulness.aopc_morf", fill, "higher", (-10 / 11, 10 / 11), SAMEK,
            "1/11 * sum of {f}(x) - {f}(x without its top k * 10 % of cells), k = 0 .. 10",
            "The first step is a tenth of the cells: a map that names the decisive cells in its top 1 % scores as one that "
            "hides them anywhere in its top 10 %.",
        ),
        *both(
            "aopc-lerf", "faithfulness.aopc_lerf", fill, "lower", (-10 / 11, 10 / 11), SAMEK,
            "1/11 * sum of {f}(x) - {f}(x without its bottom k * 10 % of cells), k = 0 .. 10",
            "Rewards evidence against spoof at the bottom: its removal raises the score, which a map of absolute values can "
            "never order. Compare signed maps with signed ones.",
        ),
        *both(
            "abpc", "faithfulness.abpc", fill, "higher", (-9 / 11, 9 / 11), SAMEK,
            "AOPC of the most relevant first - AOPC of the least relevant first, in ten steps of {f}",
            "A countermeasure with much evidence against spoof opens the area between the curves from below, even if the "
            "top of the map is wrong: read `aopc-morf` beside it.",
        ),
        *both(
            "comprehensiveness", "faithfulness.comprehensiveness", fill, "higher", SIGNED_UNIT, ERASER,
            "mean of {f}(x) - {f}(x without its top share b of cells), b in 1, 5, 10, 20, 50 %",
            "A trace that stands in many cells at once survives the removal of half of them: a right map scores 0.",
        ),
        *both(
            "sufficiency", "faithfulness.sufficiency", fill, "lower", SIGNED_UNIT, ERASER,
            "mean of {f}(x) - {f}(x with its top share b of cells only), b in 1, 5, 10, 20, 50 %",
            "Below 0 the fragments look more spoofed than the recording: that is how a few cells on their own look to the "
            "countermeasure, not that they suffice. Where the fill alone looks spoofed every map is sufficient.",
        ),
        used(
            f"monotonicity-{fill}", "faithfulness.monotonicity", fill, "higher", UNIT, AIX360,
            "share of k = 1 .. 10 with s(x without its top 10 (10 - k) %) >= s(x without its top 10 (11 - k) %)",
            "Adding the least relevant cells first means adding evidence against spoof first: the score falls at "
            "every such step, so a right signed map is marked down, and the same map with its sign turned scores alike. "
            "AIX360 answers 1 or 0, this the share of steps. Asks for the sign of ten "
            f"steps, not for their order or size. {FILL_MISLEADS[fill]} The same in log-odds and as a probability.",
        ),
    ]  # fmt: skip


#: Every metric of this family.
FAITHFULNESS: tuple[Metric, ...] = tuple(
    metric for ask in (_curves, _steps, regions_and_subsets, soft_masks) for fill in FILLS for metric in ask(fill)
)
