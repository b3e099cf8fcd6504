"""The critical-difference diagram as shapes of an SVG, so that it has the page's colours and its texts are texts.

Form: Demsar (JMLR 7, 2006, figure 1), as `xaibench.diagrams` draws it: average ranks on an axis, best on the left, names in
two columns, a bar over every largest group that the Nemenyi test does not tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xaibench.comparisons import Friedman
from xaibench.diagrams import stacked


@dataclass(frozen=True)
class Diagram:
    """A critical-difference diagram, in a box `width` x `height`: ticks (x, label), leaders (x, y, edge, text, anchor),
    bars (x1, x2, y), the critical difference (x1, x2, its words), and where the axis runs.
    """

    metric: str
    width: float
    height: float
    axis: float
    first: float
    last: float
    ticks: tuple[tuple[float, str], ...]
    leaders: tuple[tuple[float, float, float, str, str], ...]
    bars: tuple[tuple[float, float, float], ...]
    difference: tuple[float, float, str]
    note: str
    ranks: tuple[tuple[str, str], ...]

    @property
    def alt(self) -> str:
        """The diagram in words."""
        names = ", ".join(f"{name} {rank}" for name, rank in self.ranks[:5])
        return f"Average ranks by {self.metric}, best first: {names}. {self.difference[2]}. The list below has all."


def critical_difference(found: Friedman, methods: Sequence[str], *, metric: str, unit: str = "utterance") -> Diagram:
    """Average ranks on an axis, best on the left, a bar over every group that Nemenyi's test does not tell apart."""
    order = np.argsort(found.ranks, kind="stable")
    ranks, names = found.ranks[order], [methods[i] for i in order]
    place = {int(i): n for n, i in enumerate(order)}
    spans = [(ranks[min(g)], ranks[max(g)]) for g in ([place[i] for i in group] for group in found.groups())]
    levels = stacked(spans)
    half = math.ceil(len(names) / 2)
    margin, axis, width = 210.0, 84.0, 980.0
    first, last = math.floor(ranks[0]), math.ceil(ranks[-1])
    last = max(last, first + 2, first + math.ceil(found.critical_difference))

    def x(rank: float) -> float:
        return round(margin + (width - 2 * margin) * (rank - first) / (last - first), 1)

    top = axis + 16 + 9 * (max(levels, default=-1) + 1)
    leaders = []
    for n, (rank, name) in enumerate(zip(ranks, names, strict=True)):
        left = n < half
        row = n if left else len(names) - 1 - n  # the outermost names stand highest, so no leader crosses another
        edge = margin - 8 if left else width - margin + 8
        text = f"{name}  {rank:.2f}" if left else f"{rank:.2f}  {name}"
        leaders.append((x(rank), top + 18 * (row + 0.5), edge, text, "end" if left else "start"))
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 1000) if (last - first) / s <= 12)
    p = "p < 0.001" if found.p_f < 0.001 else f"p = {found.p_f:.2g}"
    return Diagram(
        metric, width, top + 18 * half + 8, axis, x(first), x(last),
        tuple((x(t), str(t)) for t in range(first, last + 1) if t % step == 0 or step == 1),
        tuple(leaders),
        tuple((x(a) - 2, x(b) + 2, axis + 9 * (level + 1)) for (a, b), level in zip(spans, levels, strict=True)),
        (x(first), x(first + found.critical_difference), f"critical difference {found.critical_difference:.2f} ranks"),
        f"Average rank over {found.n} {unit}{'' if found.n == 1 else 's'}, 1 is best. A bar joins methods that the Nemenyi "
        f"test ({found.alpha:.0%}) does not tell apart. Friedman's test, after Iman and Davenport: {p}.",
        tuple((name, f"{rank:.2f}") for name, rank in zip(names, ranks, strict=True)),
    )  # fmt: skip
