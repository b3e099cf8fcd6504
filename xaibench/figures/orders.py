"""Orders for a page: critical differences of average ranks, and the agreement of orders by metric or run.

What is computed is `xaibench.leaderboard.compare`'s, the drawing `xaibench.diagrams`'; here they meet, with a caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from xaibench import diagrams
from xaibench.comparisons import Friedman
from xaibench.errors import XaibenchError
from xaibench.figures.style import Look, Picture
from xaibench.leaderboard.compare import KEY, Comparison, agreements, compare
from xaibench.leaderboard.table import ALIGNMENT, FAITHFULNESS, TEMPORAL
from xaibench.maps import component


def draw_ranks(
    rows: pd.DataFrame,
    out: Path,
    *,
    metrics: Sequence[str] | None = None,
    cluster: str = "utterance",
    look: Look | None = None,
) -> list[Picture]:
    """The critical-difference diagram of each section and metric of the rows of `compare.read_sources`.

    Raises XaibenchError where no section has average ranks (too few utterances that all methods share, or methods), and as
    `compare.compare`.
    """
    comparisons = compare(rows, metrics=metrics, cluster=cluster).comparisons
    pictures = []
    for found in comparisons:
        if found.friedman is None:
            continue
        parts = ["critical-difference", *(component(found.facts[k]) for k in KEY if found.facts[k]), component(found.metric)]
        stem = Path(out) / "__".join(parts)
        paths = diagrams.critical_difference(found.friedman, found.ranked, stem, unit=cluster, look=look or Look())
        pictures.append(Picture(tuple(paths), _ranks_in_words(found, found.friedman)))
    if not pictures:
        best = max(comparisons, key=lambda c: c.complete)
        raise XaibenchError(
            f"no average ranks: {best.complete} of {best.clusters} {cluster}s have a {best.metric} of all "
            f"{len(best.table)} methods, of which there must be two or more"
        )
    return pictures


def _ranks_in_words(found: Comparison, test: Friedman) -> str:
    p = "p < 0.001" if test.p_f < 0.001 else f"p = {test.p_f:.2g}"
    return (
        f"{found.title}. Average ranks over {test.n} {found.cluster}s, 1 is best; a bar joins methods that the Nemenyi test "
        f"({test.alpha:.0%}) does not tell apart, CD = {test.critical_difference:.2f}. Friedman, after Iman and "
        f"Davenport: {p}."
    )


def draw_agreement(
    rows: pd.DataFrame,
    out: Path,
    *,
    metrics: Sequence[str] | None = None,
    cluster: str = "utterance",
    look: Look | None = None,
) -> list[Picture]:
    """Heat maps of Kendall's tau between orders: by metric within a section, by section for a metric.

    Raises XaibenchError where there is but one order, and as `compare.compare`.
    """
    valued = set(rows.loc[rows["status"].eq("ok"), "metric"])
    chosen = metrics or [m for m in (*ALIGNMENT, *TEMPORAL, *FAITHFULNESS) if m in valued]
    pictures = []
    for orders in agreements(rows, chosen, cluster=cluster):
        stem = Path(out) / f"agreement__{orders.name}"
        paths = diagrams.agreement(orders.tau, orders.labels, stem, look=look or Look())
        least, most = int(orders.methods.min()), int(orders.methods.max())
        count = f"{least}" if least == most else f"{least} to {most}"
        words = f"Agreement of the orders of {count} methods by {orders.what}: Kendall's tau, 1 the same, -1 reversed."
        pictures.append(Picture(tuple(paths), words))
    if not pictures:
        raise XaibenchError("one metric of one section is one order; name a second --metric, or a second run")
    return pictures
