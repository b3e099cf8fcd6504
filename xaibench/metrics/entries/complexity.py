"""Over how many cells does the attribution spread?"""

from __future__ import annotations

from xaibench.protocols import Metric

#: Every metric of this family.
COMPLEXITY: tuple[Metric, ...] = ()
