"""Class-boundary *mean audio*: many utterances at one distance from the decision boundary, summed to one sound.

At a cocktail party no talker is understood, and what all of them share is heard. So words drown in the sum, and what is
common to the utterances that a countermeasure finds hard (close to its boundary) or easy (far from it) stays. The idea, the
table and the names `mean_audio_{bonafide|spoof}_<attack>_add_num_<first rank>` are those of Halpern et al., "Residual
networks for resisting noise", Odyssey 2020 (10.21437/Odyssey.2020-46). How many files were summed there, and how levels and
lengths were made alike, is UNVERIFIED.

The boundary is the threshold of the equal error rate on the data itself: a score above it is called bona fide, one at or
below it spoof. Scores are the countermeasure's, higher = more bona fide. The rank of an utterance, from 0 at the boundary,
is that of |score - threshold| among those of its class (bona fide, or one attack) on their own side. Those on the wrong side
have no rank; they are counted and listed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xaibench import audio
from xaibench.errors import RunError, XaibenchError
from xaibench.evaluation import utterance_name
from xaibench.listen import SILENT, Levelled, file_part, level, to_level
from xaibench.metrics.detection import equal_error_point
from xaibench.scorefile import Trial
from xaibench.tables import csv_text
from xaibench.types import Utterance

DISTANCES = ("close", "medium", "far")
COUNT = 20  # files of a sum where there are as many
LEVEL = -26.0  # dBFS of each utterance before it is added, and of the sum (ITU-T P.56's usual speech level)
EVERY = "all"  # the row of bona fide speech, which has no attack


@dataclass(frozen=True)
class Ranked:
    """One utterance and where it stands. rank: None on the wrong side. cell: where it was summed, or "" (`DISTANCES`)."""

    utterance: str
    attack: str  # "bonafide" for bona fide speech
    score: float
    distance: float  # score - threshold
    rank: int | None
    cell: str = ""

    @property
    def bonafide(self) -> bool:
        return self.attack == "bonafide"


@dataclass(frozen=True)
class Boundary:
    """Every utterance of a data set against the boundary. threshold: of the equal error rate `eer`, a share in [0, 1]."""

    threshold: float
    eer: float
    ranked: tuple[Ranked, ...]

    def group(self, attack: str) -> tuple[Ranked, ...]:
        """Those of one attack (or "bonafide") on their own side, by rank."""
        mine = (r for r in self.ranked if r.attack == attack and r.rank is not None)
        return tuple(sorted(mine, key=lambda r: r.rank or 0))

    def wrong(self, attack: str) -> tuple[Ranked, ...]:
        """Those of one attack (or "bonafide") that the boundary puts on the other side, farthest first."""
        return tuple(
            sorted((r for r in self.ranked if r.attack == attack and r.rank is None), key=lambda r: -abs(r.distance))
        )

    @property
    def attacks(self) -> tuple[str, ...]:
        """Names of the attacks, sorted."""
        return tuple(sorted({r.attack for r in self.ranked if not r.bonafide}))


@dataclass(frozen=True)
class Cell:
    """One sum. ranks: first and last, both summed. scores: least and greatest of what was summed. level: of the file, dBFS.
    peak: of 1. gain: dB on the sum; `limited` where the peak allowed no more.
    """

    attack: str
    distance: str
    file: str
    ranks: tuple[int, int]
    count: int
    scores: tuple[float, float]
    utterances: tuple[str, ...]
    seconds: float
    level: float
    peak: float
    gain: float
    limited: bool
    score: float | None = None  # of the sum itself, by the same countermeasure


def boundary(trials: Iterable[Trial]) -> Boundary:
    """Threshold, sides and ranks. Equal distances are ranked by name. Raises XaibenchError without both classes.

    >>> found = boundary([Trial("b", "bonafide", 3.0), Trial("c", "bonafide", 1.0), Trial("s", "A07", -2.0)])
    >>> found.threshold, [(r.utterance, r.rank) for r in found.group("bonafide")]
    (-2.0, [('c', 0), ('b', 1)])
    """
    trials = list(trials)
    eer, threshold = equal_error_point(
        [t.score for t in trials if t.bonafide], [t.score for t in trials if not t.bonafide]
    )  # fmt: skip
    order = sorted(trials, key=lambda t: (abs(t.score - threshold), t.utterance))
    seen: dict[str, int] = {}
    ranked = []
    for trial in order:
        own = (trial.score > threshold) == trial.bonafide
        rank = seen.get(trial.attack, 0) if own else None
        seen[trial.attack] = seen.get(trial.attack, 0) + own
        ranked.append(Ranked(trial.utterance, trial.attack, trial.score, trial.score - threshold, rank))
    return Boundary(threshold, eer, tuple(ranked))


def first_ranks(size: int, count: int | None, ranks: Sequence[int] | None, what: str) -> tuple[tuple[int, int, int], int]:
    """The first ranks of close, medium and far in a class of `size` utterances, and how many are summed from each.

    Without `ranks`, close are the nearest, far the farthest and medium the middle ones; without `count` they are `COUNT`,
    or a third of the class where that is less. Raises XaibenchError where there are too few, with what would do.

    >>> first_ranks(48, None, None, "bona fide"), first_ranks(9, None, None, "A07")
    (((0, 16, 32), 16), ((0, 3, 6), 3))
    >>> first_ranks(7000, 20, (0, 1000, 2000), "A07")
    ((0, 1000, 2000), 20)
    """
    if count is not None and count < 1:
        raise XaibenchError(f"count {count}, expected at least 1 utterance a sum")
    if ranks is not None:
        if len(ranks) != 3 or list(ranks) != sorted(set(ranks)) or ranks[0] < 0:
            raise XaibenchError(f"ranks {list(ranks)}, expected three rising whole numbers, as 0,1000,2000")
        wanted = count or min(COUNT, max(size - ranks[2], 1))
        if ranks[2] + wanted > size:
            raise XaibenchError(
                f"{what}: {size} utterances on their own side, too few for {wanted} from rank {ranks[2]} on; choose lower "
                f"--ranks or a lower --count"
            )
        return (ranks[0], ranks[1], ranks[2]), wanted
    third = size // 3
    if third < 1 or (count is not None and count > third):
        raise XaibenchError(
            f"{what}: {size} utterances on their own side, too few for three sums of {count or 1}; "
            + (f"--count {third} is the most" if third else "the class needs at least 3")
        )
    wanted = count or min(COUNT, third)
    return (0, (size - wanted) // 2, size - wanted), wanted


def summed(waves: Iterable[np.ndarray], n_samples: int) -> Levelled:
    """Waveforms, each brought to `LEVEL` and cut or repeated to `n_samples`, added; the sum is brought to `LEVEL` again.

    So every utterance weighs the same, however loud it was recorded. One at a time is held. Raises XaibenchError for none,
    and for one that is silent.
    """
    total, count = np.zeros(n_samples), 0
    for wave in waves:
        fitted = audio.fit(np.asarray(wave, dtype=np.float64), n_samples)
        found = level(fitted)
        if found < SILENT:
            raise XaibenchError(f"utterance {count} of a sum (from 0) is silent; remove it from the data set")
        total += fitted * 10 ** ((LEVEL - found) / 20)  # beyond 1 or not: only the sum is written
        count += 1
    if not count:
        raise XaibenchError("a sum of no utterances; expected at least one")
    return to_level(total, LEVEL)


def mean_audio(
    found: Boundary, utterances: Iterable[Utterance], out: Path, *, sample_rate: int, count: int | None = None,
    ranks: Sequence[int] | None = None, ending: str = "wav", with_vocoder: bool = True,
) -> tuple[Boundary, list[Cell]]:  # fmt: skip
    """Sum close, medium and far utterances of bona fide speech and of each attack; writes a file a cell to `out`.

    utterances: those that were scored, named as `xaibench.evaluation.utterance_name` does (`with_vocoder`). A sum is as long
    as the median of its utterances. Returns the boundary with each utterance's cell, and the cells.

    An attack of fewer than three utterances on its own side has no cells, unless `count` or `ranks` ask for some. Raises
    XaibenchError, naming the class, where it is too small for what was asked; RunError for a scored utterance that is gone.
    """
    if ending not in ("wav", "flac"):
        raise XaibenchError(f"format {ending!r}, expected wav or flac")
    classes = ("bonafide", *found.attacks)
    plans = {}
    for name in classes:
        size = len(found.group(name))
        if size < len(DISTANCES) and count is None and ranks is None and name != "bonafide":
            continue  # an attack that fools the countermeasure has no cells; the page says how many are on the wrong side
        plans[name] = first_ranks(size, count, ranks, "bona fide" if name == "bonafide" else f"attack {name}")
    cell_of: dict[str, list[str]] = {}
    for name, (starts, wanted) in plans.items():
        group = found.group(name)
        for distance, start in zip(DISTANCES, starts, strict=True):
            for ranked in group[start : start + wanted]:
                cell_of.setdefault(ranked.utterance, []).append(distance)
    files = {n: u for u in utterances if (n := utterance_name(u, with_vocoder=with_vocoder)) in cell_of}
    missing = sorted(set(cell_of) - set(files))
    if missing:
        raise RunError(f"{missing[0]!r} was scored and is not in the data set ({len(missing)} such); score it again")
    Path(out).mkdir(parents=True, exist_ok=True)
    cells = []
    for name, (starts, wanted) in plans.items():
        group = found.group(name)
        for distance, start in zip(DISTANCES, starts, strict=True):
            chosen = group[start : start + wanted]

            def read(ranked: Ranked) -> np.ndarray:
                return audio.read(files[ranked.utterance].path, sample_rate=sample_rate)

            lengths = [files[r.utterance].n_samples or len(read(r)) for r in chosen]
            made = summed((read(r) for r in chosen), int(np.median(lengths)))
            kind = f"bonafide_{EVERY}" if name == "bonafide" else f"spoof_{file_part(name)}"
            file = f"mean_audio_{kind}_add_num_{start}.{ending}"
            audio.write(Path(out) / file, made.samples, sample_rate=sample_rate)
            stored = audio.read(Path(out) / file, sample_rate=sample_rate)
            scores = [r.score for r in chosen]
            cells.append(
                Cell(
                    attack=name, distance=distance, file=file, ranks=(start, start + wanted - 1), count=wanted,
                    scores=(min(scores), max(scores)), utterances=tuple(r.utterance for r in chosen),
                    seconds=len(stored) / sample_rate, level=level(stored), peak=float(np.abs(stored).max()),
                    gain=made.gain, limited=made.limited,
                )
            )  # fmt: skip
    marked = [Ranked(**{**asdict(r), "cell": "+".join(cell_of.get(r.utterance, ()))}) for r in found.ranked]
    return Boundary(found.threshold, found.eer, tuple(marked)), cells


def write_page(found: Boundary, cells: Sequence[Cell], out: Path, *, about: Mapping[str, Any]) -> list[Path]:
    """`index.html`, the paper's table with a player a cell; `mean_audio.csv`, a row an utterance; `mean_audio.json`.

    about: `countermeasure`, `data` and `split`, for people.
    """
    import pandas as pd

    from xaibench import __version__
    from xaibench.leaderboard.writing import plain
    from xaibench.site import shell

    out = Path(out)
    table = pd.DataFrame([asdict(r) for r in found.ranked]).astype({"rank": "Int64"})
    table = table.sort_values(["attack", "rank", "utterance"], kind="stable")
    facts = {**about, "threshold": found.threshold, "eer": found.eer, "level": LEVEL, "cells": [asdict(c) for c in cells]}
    by_place = {(c.attack, c.distance): c for c in cells}
    rows = [(a, [by_place.get((k, d)) for k in ("bonafide", a) for d in DISTANCES]) for a in found.attacks]
    counts = {a: (len(found.group(a)), found.wrong(a)) for a in ("bonafide", *found.attacks)}
    page = shell.render(
        "mean_audio.html.j2", inline=True, title="Mean audio at the class boundary", about=about, found=found, rows=rows,
        counts=counts, level=LEVEL, footer=f"Made by xaibench {__version__} mean-audio. Numbers: mean_audio.csv, .json.",
    )  # fmt: skip
    return [
        shell.write(out / "mean_audio.csv", csv_text(table)),
        shell.write(out / "mean_audio.json", json.dumps(plain(facts), indent=2, allow_nan=False) + "\n"),
        shell.write(out / "index.html", page),
    ]


def scored(
    cells: Sequence[Cell], out: Path, score: Callable[[list[np.ndarray]], np.ndarray], *, sample_rate: int
) -> list[Cell]:
    """The cells with the score of each sum, by `score`, recordings -> `(len,)`, higher = more bona fide."""
    found = score([audio.read(Path(out) / c.file, sample_rate=sample_rate) for c in cells])
    return [Cell(**{**asdict(c), "score": float(s)}) for c, s in zip(cells, found, strict=True)]
