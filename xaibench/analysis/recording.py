"""A countermeasure at work on a recording that belongs to no data set: windows, scores and maps.

`RecordingBench` is the harness' workbench without pairs. There is no bona fide twin and no truth, so methods that need one
answer `Unsupported`, with the reason. References (for methods that compare with bona fide speech) come from the data set
that the countermeasure's card says it was trained on, if that is installed and opens without a folder; else there are none.

Maps are made as in a run: on the native route where the tap has time and frequency, in fp32, seeded by method and window,
each method on tensors of its own. They come back on the common grid `(F, T)`, joined over the windows; positive = evidence
for spoof. Scores are the countermeasure's: log-odds, higher = more bona fide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xaibench import registry
from xaibench.analysis.windows import Windows, join
from xaibench.errors import RunError, Undefined, Unsupported, XaibenchError, told
from xaibench.grid import Grid
from xaibench.harness import cell
from xaibench.harness.device import to_device
from xaibench.harness.known import found_weights
from xaibench.harness.sizes import is_poisoned, lost_device, with_room
from xaibench.harness.spec import RunSpec
from xaibench.harness.workbench import Prepared, Workbench
from xaibench.metrics.probe import Probe
from xaibench.passes import READ_INPUTS, Passes
from xaibench.project import average
from xaibench.protocols import Attributor, Corpus
from xaibench.recordings import Excerpt
from xaibench.scoring import score_recordings
from xaibench.types import Axis, Truth
from xaibench.weights import read_card, weights_hash

NOTHING = "no data set"


@dataclass(frozen=True)
class Settings:
    """How a recording is cut and looked at.

    route: native, grid or auto. overlap: share that neighbouring windows have in common. most: places to list of a map.
    excerpt: which part of the file. checkpoint, cm_options: weights instead of the shipped ones, and options on top of their
    card's. threshold: of the decision, on the score; None takes the card's, else 0. sounds: make and score the kept and
    removed versions. seed: of every random draw.
    """

    route: str = "auto"
    overlap: float = 0.5
    most: int = 10
    excerpt: Excerpt = field(default_factory=Excerpt)
    checkpoint: str | None = None
    cm_options: Mapping[str, Any] = field(default_factory=dict)
    threshold: float | None = None
    sounds: bool = True
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Joined:
    """A method's map of a whole recording, `(F, T)` on the grid, and which axes it tells apart.

    seconds: of computing. notes: warnings, and what a reader of the map must know.
    """

    values: np.ndarray
    resolves: frozenset[str]
    seconds: float
    notes: tuple[str, ...] = ()


class RecordingBench(Workbench):
    """A workbench for one countermeasure and some methods, on recordings; `open_bench` makes one."""

    @property
    def name(self) -> str:
        """The countermeasure's."""
        return self.spec.countermeasures[0]

    @cached_property
    def corpus(self) -> Corpus:
        """The training data of the countermeasure, where it is here; else a data set without utterances."""
        rate = self.spec.grid.sample_rate
        card = _card(self.name, self.spec.checkpoints.get(self.name))
        return training_corpus(card, sample_rate=rate) or Corpus(NOTHING, (), rate, (0.0, rate / 2))

    def scores(self, waves: np.ndarray) -> np.ndarray:
        """Log-odds of waveforms `(B, n_samples)`, higher = more bona fide. Shape: `(B,)`."""
        module = self.countermeasure(self.name).module
        return score_recordings(module, list(waves), device=self.device, batch_size=self.batch_size)

    def score(self, samples: np.ndarray) -> float:
        """The score of a recording `(N,)` of any length, as `xaibench evaluate` gives it."""
        module = self.countermeasure(self.name).module
        samples = np.asarray(samples, dtype=np.float32)
        return float(score_recordings(module, [samples], device=self.device, batch_size=self.batch_size)[0])

    def seen(self, waves: np.ndarray, ids: Sequence[str]) -> Prepared:
        """Waveforms `(B, n_samples)` as methods get to see them: no twin, and a truth that holds nothing."""
        route, n_samples = self.route(self.name), waves.shape[1]
        _, prior = self.once(("training", n_samples), lambda: self._training(n_samples))
        grid_axes, axes = self._axes(self.countermeasure(self.name).module, route)
        if prior is not None and axes != grid_axes:
            prior = average(prior[:, None].expand(-1, len(grid_axes[1])), grid_axes, axes)[:, 0]
        view = self.look(self.name, route, ids, (None, to_device(waves, self.device)), truth=None, prior=prior)
        view = replace(view, passes=Passes.of(view, together=not READ_INPUTS.isdisjoint(self.spec.attributors)))
        # `cell.explain` reads the number of frames from the prepared truth; the view, which is what a method sees, has none.
        shape = self.spec.grid.shape(n_samples)
        blank = torch.zeros(len(waves), *shape, device=self.device)
        nothing = Truth(blank, blank.bool(), torch.ones(shape, dtype=torch.bool, device=self.device), "none")
        everywhere = torch.ones(view.shape, dtype=torch.bool, device=self.device)
        return Prepared(view, nothing, Probe(view, everywhere, self.spec.fractions), self.name)


def open_bench(
    cm: str, xai: Sequence[str], *, device: torch.device | str = "cpu", settings: Settings | None = None,
) -> RecordingBench:  # fmt: skip
    """A bench for any number of recordings. Weights and references are loaded when first needed.

    Raises PluginError for an unknown countermeasure, CheckpointError for a card that cannot be read.
    """
    settings = settings or Settings()
    rate = _card(cm, settings.checkpoint).get("sample_rate", Grid().sample_rate)
    spec = RunSpec(
        countermeasures=(cm,),
        attributors=tuple(xai),
        metrics=("none",),  # a spec has some; nothing here asks for any
        data=NOTHING,
        route=settings.route,
        seed=settings.seed,
        checkpoints={cm: settings.checkpoint} if settings.checkpoint else {},
        cm_options={cm: dict(settings.cm_options)} if settings.cm_options else {},
        grid=Grid(sample_rate=rate),
    )
    return RecordingBench(spec, device=device)


def training_corpus(card: Mapping[str, Any], *, sample_rate: int) -> Corpus | None:
    """The first data set of a card's `trained_on` that is installed, opens without a folder and has this sample rate."""
    for name in card.get("trained_on", {}).get("data", {}):
        if name in registry.plugins("datasets"):
            try:
                corpus = registry.open_corpus(name)
            except XaibenchError:
                continue
            if corpus.sample_rate == sample_rate:
                return corpus
    return None


def maps_of(
    bench: RecordingBench, windows: Windows, *, report: Callable[[int, int], None] = lambda done, total: None
) -> tuple[dict[str, Joined], dict[str, str]]:
    """Every method's map of a recording, and why a method has none. A method that fails costs its own map only.

    report: called with (steps done, steps in all). Random draws are fixed by the samples, and by nothing else: a renamed
    recording has the same maps, and two recordings of one name do not share what the bench keeps.
    """
    methods = list(bench.spec.attributors)
    made: dict[str, list[cell.Explained | None]] = {method: [] for method in methods}
    failures = {method: why for method in methods if (why := _impossible(bench.attributor(method)))}
    undefined: dict[str, str] = {}
    chunks = [
        range(i, min(i + bench.batch_size, len(windows.waves))) for i in range(0, len(windows.waves), bench.batch_size)
    ]
    content = sha256(np.ascontiguousarray(windows.waves).data).hexdigest()
    for at, chunk in enumerate(chunks):
        ids = tuple(f"{content}@{windows.starts[i]}" for i in chunk)
        for number, method in enumerate(methods):
            report(at * len(methods) + number, len(chunks) * len(methods))
            if method in failures:
                continue
            try:
                made[method] += _explained(bench, windows.waves[chunk.start : chunk.stop], ids, method, undefined)
            except Unsupported as reason:
                failures[method] = str(reason)
            except Exception as error:  # whatever a plugin raises costs its own map only
                if is_poisoned(error):
                    raise RunError(lost_device(error, bench.device, f"{method} on {bench.name}", "")) from error
                bench.forget(bench.name)  # it may have stopped half-way through changing the countermeasure
                failures[method] = told(error)
    report(len(chunks) * len(methods), len(chunks) * len(methods))
    found = {}
    for method in methods:
        if method in failures:
            continue
        if all(one is None for one in made[method]):
            failures[method] = undefined[method]
            continue
        found[method] = _joined(bench, windows, made[method], undefined.get(method, ""))
    return found, failures


def _impossible(method: Attributor) -> str:
    """Why a method cannot explain a recording that nobody knows anything about; empty where it may."""
    lacks = {"twin": "the bona fide twin of the recording", "truth": "the truth: where the recording was changed"}
    missing = [text for need, text in lacks.items() if need in method.needs]
    return f"it needs {' and '.join(missing)}, which nobody has for a recording of your own" if missing else ""


def _explained(
    bench: RecordingBench, waves: np.ndarray, ids: tuple[str, ...], method: str, undefined: dict[str, str]
) -> list[cell.Explained | None]:
    """A method's maps of some windows; None of a window where it has nothing to say, with the reason in `undefined`."""
    key = ("batch", bench.name, ids)
    look = partial(bench.once, key, lambda: bench.seen(waves, ids), most=2)
    smaller = partial(bench.halve, bench.name, bench.route(bench.name), method)
    try:
        one = with_room(lambda: cell.explain(bench, look(), method), smaller, bench.device)
    except Undefined as reason:
        undefined[method] = str(reason)
        if len(ids) == 1:
            return [None]
        return [
            part for i in range(len(ids)) for part in _explained(bench, waves[i : i + 1], ids[i : i + 1], method, undefined)
        ]
    loaded = bench.countermeasure(bench.name)
    if bench.once(("again", bench.name, method), lambda: weights_hash(loaded.module)) != loaded.weights:
        raise XaibenchError("it changed the weights of the countermeasure")
    return [replace(one.select(i), warnings=one.warnings) for i in range(len(ids))]


def _joined(bench: RecordingBench, windows: Windows, made: Sequence[cell.Explained | None], undefined: str) -> Joined:
    """The windows' maps as one, on the recording's grid; a window without a map is left at zero."""
    grid, n_samples = bench.spec.grid, windows.waves.shape[1]
    there = [one for one in made if one is not None]
    values = np.zeros((len(made), *grid.shape(n_samples)), dtype=np.float32)
    values[[one is not None for one in made]] = torch.cat([one.on_grid.values for one in there]).cpu().numpy()
    placements = windows.placements(grid.sample_rate)
    target: Axis = grid.time(windows.length)
    notes = list(dict.fromkeys(w for one in there for w in one.warnings))
    if len(there) < len(made):
        notes.append(f"No map of {len(made) - len(there)} of {len(made)} windows, which are left at zero: {undefined}")
    peaks = np.abs(values).reshape(len(values), -1).max(axis=1)
    if len(peaks[peaks > 0]) > 1 and np.ptp(peaks[peaks > 0]) < 1e-3 * peaks.max():
        notes.append(
            "This method scales every window's map to the same maximum: within a window its cells compare, between windows "
            "they do not."
        )
    return Joined(
        values=join(values, placements, grid.time(n_samples), target).astype(np.float32),
        resolves=frozenset.intersection(*(one.on_grid.resolves for one in there)),
        seconds=sum(one.seconds for one in there),
        notes=tuple(notes),
    )


def _card(cm: str, checkpoint: str | None) -> dict[str, Any]:
    """What the weights' card says; empty where there are no weights (loading them says how to get some)."""
    path = Path(checkpoint) if checkpoint else found_weights(cm)
    return dict(read_card(path)) if path is not None and path.is_file() else {}
