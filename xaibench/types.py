"""Frozen records that travel through the house. Validated when made, no behaviour beyond that.

Conventions: arrays are frequency first, batch first: spectrograms `(B, F, T)`, waveforms `(B, N)`. Frequencies in Hz,
times in seconds. A countermeasure's score is higher for bona fide speech; an attribution is positive where a cell
speaks for *spoof*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xaibench.errors import ManifestError, XaibenchError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

STATUSES = ("ok", "unsupported", "undefined", "failed", "void")
ROUTES = ("native", "grid")


@dataclass(frozen=True, eq=False)
class Axis:
    """One physical axis of a map: `n` adjacent cells between `n + 1` rising edges.

    kind: "frequency" (edges in Hz) or "time" (edges in seconds).

    >>> Axis("time", [0.0, 0.5, 1.0]).centres.tolist()
    [0.25, 0.75]
    """

    kind: str
    edges: np.ndarray

    def __post_init__(self) -> None:
        import numpy as np  # 50 ms, and `xaibench list` has no axis

        edges = np.array(self.edges, dtype=np.float64)  # a copy: the record freezes it, not the caller's array
        if self.kind not in ("frequency", "time"):
            raise XaibenchError(f"an axis is of kind 'frequency' or 'time', got {self.kind!r}")
        if edges.ndim != 1 or len(edges) < 2 or not np.isfinite(edges).all() or not np.all(np.diff(edges) > 0):
            raise XaibenchError(
                f"the edges of a {self.kind} axis must be at least two rising, finite numbers, got {edges!r}"
            )
        edges.setflags(write=False)
        object.__setattr__(self, "edges", edges)

    def __len__(self) -> int:
        return len(self.edges) - 1

    def __eq__(self, other: object) -> bool:
        import numpy as np

        return (
            isinstance(other, Axis)
            and self.kind == other.kind
            and len(self) == len(other)
            and bool(np.allclose(self.edges, other.edges, rtol=1e-9, atol=1e-9))
        )

    @property
    def centres(self) -> np.ndarray:
        return (self.edges[1:] + self.edges[:-1]) / 2


@dataclass(frozen=True)
class Utterance:
    """One file of a data set. `source` is shared by a bona fide utterance and its vocoded twins.

    `vocoder` is the field's *attack* where a data set has attacks instead (A01 ... A19).
    """

    source: str
    speaker: str
    split: str
    vocoder: str  # "bonafide" or the vocoder's name
    path: Path
    sha256: str = ""
    n_samples: int = 0
    lag: int = 0  # samples by which this recording is late against its bona fide twin
    segments: tuple[tuple[float, float, str], ...] = ()  # (start s, end s, "bonafide" | "spoof"); empty: the whole is one

    @property
    def bonafide(self) -> bool:
        return self.vocoder == "bonafide"


@dataclass(frozen=True)
class Pair:
    """A bona fide utterance and one vocoded twin of it.

    `bonafide` is None for partially spoofed speech without a twin, whose truth is its segments.
    """

    bonafide: Utterance | None
    spoof: Utterance

    def __post_init__(self) -> None:
        if self.bonafide is None:
            if self.spoof.bonafide:
                raise ManifestError(f"a pair needs a spoofed file, got bona fide {self.spoof.source!r} alone")
            return
        if not self.bonafide.bonafide or self.spoof.bonafide:
            raise ManifestError(
                f"a pair is one bona fide and one vocoded file, got {self.bonafide.vocoder!r} and "
                f"{self.spoof.vocoder!r} for utterance {self.spoof.source!r}"
            )
        if self.bonafide.source != self.spoof.source:
            raise ManifestError(f"not twins: {self.bonafide.source!r} and {self.spoof.source!r}")

    @property
    def halves(self) -> tuple[Utterance, ...]:
        """The files there are: bona fide first."""
        return (self.spoof,) if self.bonafide is None else (self.bonafide, self.spoof)

    @property
    def id(self) -> str:
        """`source/vocoder`: the name of the vocoded utterance in every table."""
        return f"{self.spoof.source}/{self.spoof.vocoder}"


@dataclass(frozen=True, eq=False)
class Truth:
    """Where a vocoder changed the speech.

    values: `(B, F, T)`, non-negative, 0 outside the valid band.
    region: `(B, F, T)` bool, the top `share` of the valid cells of each pair.
    valid:  `(F, T)` bool, the cells anyone may look at.
    name:   which definition ("eq2", "eq1", "log-difference", "segments").
    resolves: which axes it tells apart; a truth of time segments says nothing of frequency.
    added:  `(B, F, T)` bool, where the vocoded speech has more energy than the bona fide; None for a truth without sign
            (segments, or averaged onto other axes).
    """

    values: Tensor
    region: Tensor
    valid: Tensor
    name: str
    resolves: frozenset[str] = frozenset({"frequency", "time"})
    added: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Attribution:
    """What a method said: `values` `(B, F, T)` on its axes; positive speaks for spoof.

    `resolves` says which axes carry information of the method's own; a time-only map broadcast over frequency keeps
    `{"time"}`, and metrics that need frequency answer `unsupported`.
    """

    values: Tensor
    frequency: Axis
    time: Axis
    resolves: frozenset[str] = frozenset({"frequency", "time"})


ROW_COLUMNS = (
    "run", "dataset", "utterance", "speaker", "vocoder", "countermeasure", "attributor", "route", "truth",
    "metric", "value", "status", "seconds", "note", "fingerprint",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One cell of the benchmark: countermeasure x attributor x metric x utterance. `value` is NaN unless `ok`.

    `utterance` is the *source* utterance: the cluster of the statistics; with `vocoder` it names the vocoded file.
    `seconds` is the wall time of the attribution (not of the metric), shared equally by the utterances of a chunk.
    """

    run: str
    dataset: str
    utterance: str
    speaker: str
    vocoder: str
    countermeasure: str
    attributor: str
    route: str
    truth: str
    metric: str
    value: float
    status: str
    seconds: float
    note: str
    fingerprint: str

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise XaibenchError(f"status {self.status!r} is none of {', '.join(STATUSES)}")
        if (self.status == "ok") == math.isnan(self.value):
            raise XaibenchError(f"a row has a value if and only if it is ok, got {self.value} with {self.status!r}")
