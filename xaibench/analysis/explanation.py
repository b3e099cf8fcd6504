"""`xaibench explain`: what a countermeasure decides about any recording, and which places in it made it say so.

    found = explain("FILE.wav", cm="lcnn", xai="grad-cam,ig")
    found.decision.spoof, found.maps["grad-cam"].places.found[0].sentence()

A long recording is seen in windows (`xaibench.analysis.windows`): each has a score, the decision is about their mean, which
is what `xaibench evaluate` gives, and the window that is most like spoof is named beside it. Maps are joined to one,
`(F, T)` on the common grid, positive = evidence for spoof. Scores are log-odds, higher = more bona fide.

A map's top cells can be listened to: kept alone, or removed (`xaibench.listen`). Both are scored again, and so are random
cells, as many: a few cells in silence are like nothing a countermeasure was trained on, and only the difference to random
cells says something about the map.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from xaibench.analysis.activations import RecordingActivity, of_recording
from xaibench.analysis.places import Places, covered, places
from xaibench.analysis.recording import NOTHING, RecordingBench, Settings, maps_of, open_bench
from xaibench.analysis.windows import cut
from xaibench.errors import XaibenchError
from xaibench.grid import Grid
from xaibench.leaderboard.writing import plain
from xaibench.listen import kept, power_of, removed
from xaibench.recordings import Recording, read_any
from xaibench.scoring import asking
from xaibench.types import Axis

DRAWS = 3  # random masks that are scored


@dataclass(frozen=True)
class WindowScore:
    """One look: from `start` to `end` s of the recording, and its score."""

    start: float
    end: float
    score: float


@dataclass(frozen=True)
class Decision:
    """`spoof` where the score is not above the threshold. source: where the threshold is from, a sentence."""

    score: float
    threshold: float
    source: str

    @property
    def spoof(self) -> bool:
        return self.score <= self.threshold

    @property
    def word(self) -> str:
        return "spoof" if self.spoof else "bona fide"


@dataclass(frozen=True, eq=False)
class Heard:
    """Scores of a recording's kept cells alone and of the rest; NaN where they were not asked for."""

    kept: float = math.nan
    removed: float = math.nan


@dataclass(frozen=True, eq=False)
class MethodMap:
    """What one method says: values `(F, T)`, the places they point at, their sum over frequency in time, and what happened.

    resolves: which axes the map tells apart. seconds: of computing. notes: sentences. heard: scores of its top cells.
    random: the same of random cells, as many; of a map in time alone of whole frames, as its own are.
    """

    name: str
    paper: str
    values: np.ndarray = field(repr=False)
    places: Places
    over_time: RecordingActivity = field(repr=False)
    resolves: frozenset[str]
    seconds: float
    notes: tuple[str, ...] = ()
    heard: Heard = field(default_factory=Heard)
    random: Heard = field(default_factory=Heard)

    @property
    def empty(self) -> bool:
        """Whether no cell speaks for spoof, or all cells alike."""
        return not len(self.places)


@dataclass(frozen=True, eq=False)
class Explanation:
    """Everything that is known of one recording. Nothing in it is about the recording's true class: nobody said it.

    maps: attributor -> its map; failures: attributor -> why there is none. share: of the cells that count as a map's top.
    most: how many places to list. card: of the countermeasure.
    references: the data set that gave bona fide references, or "no data set".
    """

    recording: Recording
    countermeasure: str
    weights: str
    card: Mapping[str, Any]
    route: str
    grid: Grid
    decision: Decision
    windows: tuple[WindowScore, ...]
    window_seconds: float
    repeats: int
    maps: Mapping[str, MethodMap]
    failures: Mapping[str, str]
    share: float
    most: int
    references: str

    @property
    def worst(self) -> WindowScore:
        """The window that is most like spoof."""
        return min(self.windows, key=lambda w: w.score)

    @cached_property
    def power(self) -> np.ndarray:
        """|STFT|^2 of the recording. Shape: `(F, T)`."""
        return power_of(self.recording.samples, self.grid)

    def kept(self, name: str) -> np.ndarray:
        """The top cells of a map alone, in the original phase. Shape: `(N,)`."""
        return kept(self.recording.samples, self.maps[name].places.mask, self.grid)

    def removed(self, name: str) -> np.ndarray:
        """The recording without the top cells of a map. Shape: `(N,)`."""
        return removed(self.recording.samples, self.maps[name].places.mask, self.grid)

    def sentence(self) -> str:
        """The decision in words."""
        return (
            f"{self.countermeasure} calls {self.recording.name} {self.decision.word}: score {self.decision.score:+.2f}, "
            f"threshold {self.decision.threshold:+.2f} (higher is more bona fide)"
        )

    def training(self) -> str:
        """What the countermeasure has heard before, and what that means for any other recording."""
        return training_sentence(self.countermeasure, self.card)

    def facts(self) -> dict[str, Any]:
        """All but samples, maps and masks, in plain numbers and words; the unknown is None."""
        worst = self.worst
        return plain(
            {
                "recording": self.recording.facts(),
                "countermeasure": {
                    "name": self.countermeasure,
                    "weights": self.weights,
                    "route": self.route,
                    "trained_on": self.card.get("trained_on", {}),
                    "window_seconds": self.window_seconds,
                },
                "decision": {
                    "word": self.decision.word,
                    "score": self.decision.score,
                    "score_is": "mean over windows of the log-odds, higher = more bona fide",
                    "threshold": self.decision.threshold,
                    "threshold_from": self.decision.source,
                    "most_spoofed_window": asdict(worst),
                },
                "windows": [asdict(w) for w in self.windows],
                "repeats": self.repeats,
                "grid": asdict(self.grid),
                "share": self.share,
                "references": self.references,
                "attributors": {name: _facts(m, self.most) for name, m in self.maps.items()},
                "failures": dict(self.failures),
                "caveat": self.training(),
            }
        )

    def to_json(self) -> str:
        """`facts` as JSON."""
        return json.dumps(self.facts(), indent=1, ensure_ascii=False) + "\n"

    def save(self, out: Path | str) -> Path:
        """Write the page, numbers, pictures, sounds and maps into a folder, as the command does; returns the page.

        Raises RunError where the folder cannot be written.
        """
        from xaibench.analysis.page import write_folder

        return write_folder(self, Path(out))

    def __repr__(self) -> str:
        lines = [self.sentence()]
        for name, one in self.maps.items():
            lines += [name, *(f"  {p.sentence()}" for p in one.places.found[:3])]
            lines += ["  nothing speaks for spoof"] if one.empty else []
        lines += [f"{name} has no map: {reason}" for name, reason in self.failures.items()]
        return "\n".join([*lines, ".save(FOLDER) writes the page, sounds and numbers"])

    def _repr_html_(self) -> str:
        from xaibench.analysis.page import brief

        return brief(self)


def explain(
    path: Path | str, *, cm: str, xai: str | Sequence[str] = "grad-cam", share: float = 0.05, device: str = "auto",
    settings: Settings | None = None,
) -> Explanation:  # fmt: skip
    """Explain a recording of yours.

    path: any file that `xaibench.recordings` reads. cm: a countermeasure with weights. xai: attributors, by name or by what
    people call them ("grad-cam,ig"), or "all". share: of the cells that count as a map's top. device: auto, cpu, cuda.

    Raises AudioError for a recording that cannot be used, PluginError for unknown names, CheckpointError for a
    countermeasure without weights, and XaibenchError where not one method has a map.
    """
    settings = settings or Settings()
    bench = bench_for(cm, xai, device=device, settings=settings)
    return explain_on(bench, path, share=share, settings=settings)


def bench_for(
    cm: str, xai: str | Sequence[str], *, device: str = "auto", settings: Settings | None = None
) -> RecordingBench:
    """A bench for any number of recordings, with every name looked up. Raises PluginError and RunError."""
    from xaibench.harness.device import choose_device
    from xaibench.harness.known import known_names

    wanted = [n.strip() for n in xai.split(",") if n.strip()] if isinstance(xai, str) else list(xai)
    methods, _ = known_names("attributors", wanted)
    (name,), _ = known_names("countermeasures", [cm])
    return open_bench(name, methods, device=choose_device(device), settings=settings)


def explain_on(
    bench: RecordingBench, path: Path | str, *, share: float = 0.05, settings: Settings | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Explanation:  # fmt: skip
    """Explain one recording on a bench that is there. As `explain`; report: called with (steps done, steps in all)."""
    settings = settings or Settings()
    if not 0 < share < 1:
        raise XaibenchError(f"share {share}, expected more than 0 and less than 1, as 0.05 for 5 %")
    if settings.most < 1:
        raise XaibenchError(f"{settings.most} places to list, expected at least 1")
    grid = bench.spec.grid
    recording = read_any(Path(path), sample_rate=grid.sample_rate, excerpt=settings.excerpt)
    loaded = bench.countermeasure(bench.name)
    windows = cut(recording.samples, loaded.module.n_samples, overlap=settings.overlap)
    with asking(bench.name, str(path)):
        scores = bench.scores(windows.waves)
    if not np.isfinite(scores).all():
        raise XaibenchError(f"{path}: {bench.name} gives a score that is NaN or infinite; nothing can be explained")
    made, failures = maps_of(bench, windows, report=report)
    if not made:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise XaibenchError(f"{path}: no method has a map of it. {reasons}")
    power = power_of(recording.samples, grid)
    axes = grid.frequency, _until(grid.time(len(recording.samples)), recording.seconds)
    found: dict[str, MethodMap] = {}
    drawn: dict[Any, Heard] = {}
    for name, one in made.items():
        spots = places(one.values, axes, share=share, power=power, resolves=one.resolves)
        heard = control = Heard()
        if settings.sounds and len(spots):
            with asking(bench.name, f"{path}, what {name} keeps and removes"):
                heard = _scored(bench, recording.samples, spots.mask)
                key = one.resolves, int(spots.mask.sum())
                control = drawn[key] = drawn.get(key) or _random(bench, recording.samples, spots.mask, one.resolves)
        paper = bench.attributor(name).paper
        over_time = of_recording(one.values, *axes, recording.samples, grid.sample_rate)
        found[name] = MethodMap(
            name, paper, one.values, spots, over_time, one.resolves, one.seconds, one.notes, heard, control
        )
    return Explanation(
        recording=recording,
        countermeasure=bench.name,
        weights=loaded.weights,
        card=loaded.card,
        route=bench.route(bench.name),
        grid=grid,
        decision=Decision(float(scores.mean()), *threshold_of(loaded.card, settings.threshold)),
        windows=tuple(
            WindowScore(a, b, float(s)) for (a, b), s in zip(windows.seconds(grid.sample_rate), scores, strict=True)
        ),
        window_seconds=loaded.module.n_samples / grid.sample_rate,
        repeats=windows.repeats,
        maps=found,
        failures=failures,
        share=share,
        most=settings.most,
        references=bench.corpus.name if bench.corpus.utterances else NOTHING,
    )


def threshold_of(card: Mapping[str, Any], wanted: float | None = None) -> tuple[float, str]:
    """The threshold of the decision, and where it is from: given, on the weights' card, or 0.

    >>> threshold_of({})
    (0.0, "the weights' card records none, so 0: where spoof and bona fide are equally likely to the countermeasure")
    """
    if wanted is not None:
        if not math.isfinite(wanted):
            raise XaibenchError(f"threshold {wanted}, expected a finite number")
        return float(wanted), "given by the user"
    found = card.get("threshold")
    if isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found):
        return float(found), "of the weights' card: where both errors are equal on its development data"
    return 0.0, ("the weights' card records none, so 0: where spoof and bona fide are equally likely to the countermeasure")


def training_sentence(cm: str, card: Mapping[str, Any]) -> str:
    """What a card says of the training, as a warning.

    >>> training_sentence("x", {}).partition(":")[0]
    'Nobody wrote down what x was trained on'
    """
    trained = card.get("trained_on") or {}
    far = (
        "other microphones, rooms, codecs, languages and vocoders are unknown to it. There it can be wrong and sure of "
        "itself; its EER says nothing about them."
    )
    if not trained.get("data"):
        return f"Nobody wrote down what {cm} was trained on: {far}"
    parts = [f"{trained[k]} {k}" for k in ("utterances", "speakers") if k in trained]
    vocoders = f", vocoders {', '.join(map(str, trained['vocoders']))}" if trained.get("vocoders") else ""
    size = f" ({', '.join(parts)}{vocoders})" if parts or vocoders else ""
    *others, last = trained["data"]
    data = f"{', '.join(others)} and {last}" if others else last
    return f"{cm} was trained on {data}{size}: {far}"


def _until(time: Axis, seconds: float) -> Axis:
    """A time axis whose last cell, half a hop beyond the last sample, ends where the recording does."""
    edges = np.array(time.edges)
    if edges[-2] < seconds < edges[-1]:
        edges[-1] = seconds
    return Axis("time", edges)


def _facts(one: MethodMap, most: int) -> dict[str, Any]:
    return {
        "paper": one.paper,
        "resolves": sorted(one.resolves),
        "regions": [p.facts() for p in one.places.found[:most]],
        "regions_in_all": len(one.places),
        "share_of_listed": covered(one.places.found, most),
        "segments": {str(t): [asdict(s) for s in found] for t, found in one.over_time.segments.items()},
        "kept_score": one.heard.kept,
        "removed_score": one.heard.removed,
        "random_kept_score": one.random.kept,
        "random_removed_score": one.random.removed,
        "seconds": one.seconds,
        "notes": list(one.notes),
    }


def _scored(bench: RecordingBench, samples: np.ndarray, mask: np.ndarray) -> Heard:
    """Scores of a mask's cells alone, and of the rest, at the level they have in the recording."""
    grid = bench.spec.grid
    return Heard(bench.score(kept(samples, mask, grid)), bench.score(removed(samples, mask, grid)))


def _random(bench: RecordingBench, samples: np.ndarray, mask: np.ndarray, resolves: frozenset[str]) -> Heard:
    """The mean over random masks of as many cells as `mask` `(F, T)`, drawn one by one or as whole frames or bins."""
    draw = np.random.default_rng(bench.spec.seed)
    along = tuple(n if name in resolves else 1 for n, name in zip(mask.shape, ("frequency", "time"), strict=True))
    count = round(mask.mean() * along[0] * along[1])
    found = []
    for _ in range(DRAWS):
        line = np.zeros(along[0] * along[1], bool)
        line[draw.permutation(line.size)[:count]] = True
        found.append(_scored(bench, samples, np.broadcast_to(line.reshape(along), mask.shape)))
    return Heard(float(np.mean([h.kept for h in found])), float(np.mean([h.removed for h in found])))
