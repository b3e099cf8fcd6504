"""Do integrated gradients along the path to the twin sum to s(spoof) - s(bona fide), as they must?"""

from __future__ import annotations

import pandas as pd

from xaibench.audit.runs import scores
from xaibench.audit.section import Section

QUESTION = (
    "Integrated gradients from the bona fide twin to the vocoded speech share out the difference of the two scores: a sum "
    "that misses it would mean that the path was not resolved. The completeness gap is |sum of the map - (s(spoof) - "
    "s(bona fide))| / |s(spoof) - s(bona fide)|; pairs closer than 1 in log-odds are left out."
)
METHOD, METRIC = "twin-ig", "completeness-twin"


def twinpath_section(rows: pd.DataFrame) -> Section | None:
    """The part of the audit; None where the method is not installed or found no pair."""
    wide = scores(rows, METRIC)
    if METHOD not in wide.columns or wide[METHOD].dropna().empty:
        return None
    table = wide.median().rename("median gap").to_frame().assign(worst=wide.max(), pairs=wide.notna().sum())
    table = table.loc[[n for n in ("twin-ig", "integrated-gradients", "deeplift", "input-x-gradient") if n in table.index]]
    table = table.rename_axis("attributor").reset_index()
    gaps = wide[METHOD].dropna()
    resolved = "resolved" if gaps.max() < 0.05 else "not resolved for every pair"
    answer = (
        f"Over {len(gaps)} pairs the sum of {METHOD} misses the difference of the scores by {100 * gaps.median():.2f} % "
        f"(median) and {100 * gaps.max():.1f} % at most: the twin path is {resolved}.",
        "Methods with another baseline explain another difference, so their sums are no share of this one.",
    )
    return Section("twinpath", "The path to the twin", QUESTION, answer, table)
