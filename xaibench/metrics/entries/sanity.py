"""Does the attribution depend on what the countermeasure learned, and on the class it explains?"""

from __future__ import annotations

from xaibench.protocols import Metric

#: Every metric of this family.
SANITY: tuple[Metric, ...] = ()
