"""How much of each recording a countermeasure hears: it takes one length, longer ones are cut and shorter ones repeated.

A sentence where that leaves little of a recording, or makes much of little: the scores are of what was heard. Lengths are
those of the manifest; a recording of unknown length (0 samples) is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xaibench.types import Pair

#: Less than this share of a recording heard, or more than so many repetitions, is said.
LEAST_SHARE, MOST_REPEATED = 0.1, 10


def heard(chosen: Sequence[Pair], n_samples: int, sample_rate: int) -> dict[str, Any]:
    """For run.json: seconds that are heard, how many spoofs are cut and repeated to that, the shortest, the longest."""
    lengths = [p.spoof.n_samples for p in chosen if p.spoof.n_samples > 0]
    found: dict[str, Any] = {"seconds": n_samples / sample_rate}
    if lengths:
        found |= {
            "cut": sum(n > n_samples for n in lengths), "repeated": sum(n < n_samples for n in lengths),
            "shortest": min(lengths) / sample_rate, "longest": max(lengths) / sample_rate,
        }  # fmt: skip
    return found


def said(countermeasure: str, chosen: Sequence[Pair], n_samples: int, sample_rate: int) -> str:
    """The sentence; "" where nothing is out of the ordinary."""
    known = [p for p in chosen if p.spoof.n_samples > 0]
    long = [p for p in known if p.spoof.n_samples * LEAST_SHARE > n_samples]
    short = [p for p in known if p.spoof.n_samples * MOST_REPEATED < n_samples]
    parts = []
    for some, verb, extreme in ((long, "cut to that", max), (short, "repeated to that", min)):
        if some:
            worst = extreme(some, key=lambda p: p.spoof.n_samples)
            seconds = worst.spoof.n_samples / sample_rate
            parts.append(f"{len(some)} utterances are {verb} ({worst.id} of {seconds:.4g} s)")
    return f"{countermeasure} hears {n_samples / sample_rate:.4g} s: {' and '.join(parts)}" if parts else ""
