"""What several entries share: names of fills, ranges, and the papers that more than one entry cites."""

from __future__ import annotations

import math

FILLS = ("silence", "mean", "twin")

CLEVR_XAI = "Arras et al., Information Fusion 81 (2022), arXiv 2003.07258"
RISE = "Petsiuk et al., BMVC 2018, arXiv 1806.07421"

UNBOUNDED = (-math.inf, math.inf)
POSITIVE = (0.0, math.inf)
UNIT = (0.0, 1.0)
SIGNED_UNIT = (-1.0, 1.0)
