"""Does the attribution stay the same when the recording changes in ways nobody hears?"""

from __future__ import annotations

from xaibench.protocols import Metric

#: Every metric of this family.
STABILITY: tuple[Metric, ...] = ()
