"""Does the attribution keep the promises of its kind: sums to the difference of scores, ignores what changes nothing?"""

from __future__ import annotations

from xaibench.protocols import Metric

#: Every metric of this family.
AXIOMS: tuple[Metric, ...] = ()
