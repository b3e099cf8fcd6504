"""The steps of the benchmark one by one: data, countermeasure, truth, view, attribution.

Each does what a run does, by the same code: a map of `attribute` is bit for bit what `xaibench run` scores, as long as batch
sizes agree. Waveforms `(N,)` float32 in [-1, 1]; a countermeasure's score is the log-odds of bona fide, higher = more bona
fide; a view's model and a map speak of *spoof*.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xaibench import audio, registry
from xaibench.api.facts import Facts
from xaibench.api.map import Map
from xaibench.errors import RunError, Undefined, Unsupported, XaibenchError
from xaibench.grid import Grid
from xaibench.harness.cell import Explained, explain, run_chunk
from xaibench.harness.device import choose_device
from xaibench.harness.known import known_metrics, known_names, load_countermeasure
from xaibench.harness.plan import Chunk, ordered_pairs
from xaibench.harness.spec import RunSpec
from xaibench.harness.workbench import Prepared, Workbench
from xaibench.metrics.evidence import Evidence
from xaibench.protocols import Attributor, Corpus, Countermeasure
from xaibench.scoring import score_recordings
from xaibench.truth import TruthSpec, truth
from xaibench.types import Pair, Utterance
from xaibench.view import View


@dataclass(frozen=True, eq=False)
class Data:
    """A split of a data set: its recordings, and its pairs of a real recording and a vocoded twin.

    It is a sequence of `Twins`, ordered so that the first few are balanced over speakers and vocoders. `data["ID"]` finds a
    pair by its name `source/vocoder`.
    """

    name: str
    root: str | Mapping[str, str] | None
    split: str
    corpus: Corpus
    pairs: tuple[Pair, ...]

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        """Every recording of the split, real and vocoded."""
        return tuple(u for u in self.corpus.utterances if u.split == self.split)

    def waveform(self, utterance: Utterance) -> np.ndarray:
        """The samples of a recording. Shape: `(N,)` float32. Raises AudioError."""
        return audio.read_aligned(utterance, sample_rate=self.corpus.sample_rate)

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Twins]:
        return (Twins(self, pair) for pair in self.pairs)

    def __getitem__(self, which: int | str) -> Twins:
        if isinstance(which, str):
            found = [pair for pair in self.pairs if pair.id == which]
            if not found:
                close = difflib.get_close_matches(which, [pair.id for pair in self.pairs], n=3)
                hint = f"did you mean {' or '.join(close)}?" if close else f"its pairs are named like {self.pairs[0].id}"
                raise XaibenchError(f"{self.name} has no pair {which!r} in its split {self.split!r}; {hint}")
            return Twins(self, found[0])
        return Twins(self, self.pairs[which])

    def _facts(self) -> Facts:
        spoken = {u.speaker for u in self.utterances}
        counts: dict[str, int] = {}
        for u in self.utterances:
            counts[u.vocoder] = counts.get(u.vocoder, 0) + 1
        low, high = self.corpus.valid_band
        lines = {
            "split": self.split,
            "recordings": ", ".join(f"{n} {name}" for name, n in counts.items()),
            "pairs": str(len(self.pairs)),
            "speakers": f"{len(spoken)}: {', '.join(sorted(spoken)[:8])}{' ...' if len(spoken) > 8 else ''}",
            "sample rate": f"{self.corpus.sample_rate} Hz, scored from {low:g} to {high:g} Hz",
            "licence": self.corpus.licence,
        }
        return Facts(self.corpus.name, lines)

    def __repr__(self) -> str:
        return str(self._facts())

    def _repr_html_(self) -> str:
        return self._facts().html()


@dataclass(frozen=True, eq=False)
class Twins:
    """A real recording and its vocoded twin: the same words, sample by sample aligned."""

    data: Data
    pair: Pair

    @property
    def id(self) -> str:
        """`source/vocoder`."""
        return self.pair.id

    @property
    def vocoder(self) -> str:
        return self.pair.spoof.vocoder

    @property
    def sample_rate(self) -> int:
        return self.data.corpus.sample_rate

    @cached_property
    def _halves(self) -> tuple[np.ndarray, np.ndarray]:
        if self.pair.bonafide is None:
            raise XaibenchError(f"{self.id} has no bona fide twin: {self.data.name} is partially spoofed speech")
        real, fake = audio.read_halves(self.pair, sample_rate=self.sample_rate)
        return real, fake

    @property
    def bonafide(self) -> np.ndarray:
        """The real recording. Shape: `(N,)` float32. Raises XaibenchError where there is none."""
        return self._halves[0]

    @property
    def spoof(self) -> np.ndarray:
        """The vocoded one. Shape: `(N,)` float32."""
        return self._halves[1]

    def _facts(self) -> Facts:
        sounds = {"bona fide": self.bonafide, f"vocoded by {self.vocoder}": self.spoof}
        length = f"{len(self.spoof) / self.sample_rate:.2f} s"
        return Facts(self.id, {"speaker": self.pair.spoof.speaker, "length": length}, sounds, self.sample_rate)

    def __repr__(self) -> str:
        return f"Twins {self.id}: {len(self.spoof) / self.sample_rate:.2f} s at {self.sample_rate} Hz"

    def _repr_html_(self) -> str:
        return self._facts().html()


def load_data(name: str = "minivoc", *, split: str = "eval", root: str | Mapping[str, str] | None = None) -> Data:
    """A data set by name, or by the path of a manifest (NAME.toml); root: its folder, where it is not embedded.

    Raises PluginError for an unknown name, ManifestError for files that are not what the manifest says, RunError for a split
    without pairs.

    >>> data = load_data("minivoc")
    >>> len(data), data[0].id, data[0].spoof.shape
    (240, 'cs_big_cs_000/griffinlim', (32000,))
    """
    corpus = registry.open_corpus(name, root)
    return Data(name, root, split, corpus, tuple(ordered_pairs(corpus, split)))


@dataclass(frozen=True, eq=False)
class TrainedCountermeasure:
    """A countermeasure with its weights. module: the torch module `(B, N) -> (B, classes)`, in eval mode."""

    name: str
    module: Countermeasure
    card: Mapping[str, Any]  # what is known of its training
    checkpoint: str | None  # the weights asked for; None: those found, or shipped
    device: torch.device

    @property
    def sample_rate(self) -> int:
        return self.module.sample_rate

    @property
    def layers(self) -> Mapping[str, torch.nn.Module]:
        """Its convolutional layers by name, from input to output."""
        return self.module.layers

    def score(self, waveforms: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Log-odds of bona fide of recordings of any length. Shape: `(N,)`, `(B, N)` or a list of B `(N,)` -> `(B,)`.

        The mean over half-overlapping windows of the length it was trained on; higher = more bona fide.
        """
        single = isinstance(waveforms, np.ndarray) and waveforms.ndim == 1
        recordings = [np.asarray(w, dtype=np.float32) for w in ([waveforms] if single else waveforms)]
        return score_recordings(self.module, recordings, device=self.device)

    def _facts(self) -> Facts:
        trained = self.card.get("trained_on", {})
        eers = self.card.get("eer", {}).get("eval", {})
        eer = next((f"{100 * rates['pooled']:.1f} % on {name}" for name, rates in eers.items() if "pooled" in rates), "")
        lines = {
            "paper": self.card.get("paper", ""),
            "parameters": f"{sum(p.numel() for p in self.module.parameters()):,}",
            "sees": f"{self.module.n_samples / self.sample_rate:g} s at {self.sample_rate} Hz",
            "classes": ", ".join(self.module.classes),
            "trained on": f"{trained['utterances']} utterances of {', '.join(trained['data'])}" if trained else "",
            "vocoders seen": ", ".join(trained.get("vocoders", ())),
            "held out": ", ".join(trained.get("held_out", ())),
            "EER": eer,
        }
        return Facts(self.name, lines)

    def __repr__(self) -> str:
        return str(self._facts())

    def _repr_html_(self) -> str:
        return self._facts().html()


def countermeasure(name: str = "lcnn", *, checkpoint: str | None = None, device: str = "auto") -> TrainedCountermeasure:
    """A trained countermeasure. checkpoint: weights (safetensors) instead of the shipped.

    Raises PluginError for an unknown name, CheckpointError where there are no weights of it.

    >>> lcnn = countermeasure("lcnn", device="cpu")
    >>> lcnn.score(np.zeros(32_000)).shape
    (1,)
    """
    module, card, _ = load_countermeasure(name, checkpoint, {})
    where = choose_device(device)
    module = module.to(where).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return TrainedCountermeasure(name, module, card, checkpoint, where)


def truth_of(pair: Twins, truth_name: str = "eq2", *, grid: Grid | None = None) -> Map:
    """Where the vocoder changed the speech: the values of `eq2`, `eq1` or `log-difference`, and their top 5 % as `region`.

    grid: default that of runs, 512 samples every 160. Raises XaibenchError for a pair without its bona fide half.

    >>> t = truth_of(load_data("minivoc")[0])
    >>> t.values.shape, f"{t.region.sum() / t.valid.sum():.3f}"
    ((257, 201), '0.050')
    """
    grid = grid or Grid(sample_rate=pair.sample_rate)
    halves = [torch.from_numpy(np.ascontiguousarray(half))[None] for half in (pair.spoof, pair.bonafide)]
    found = truth(*halves, grid=grid, band=pair.data.corpus.valid_band, spec=TruthSpec(truth_name))
    values, region, valid = found.values[0].numpy(), found.region[0].numpy(), found.valid.numpy()
    axes = grid.frequency, grid.time(len(pair.spoof))
    return Map(f"truth {truth_name}", pair.id, values, *axes, valid=valid, region=region)


def view_of(cm: str | TrainedCountermeasure, pair: Twins, *, route: str = "auto") -> View:
    """What a method sees of a pair: `view.model` from the explained tensor `view.inputs` `(1, C, F, T)` to the spoof
    log-odds `(1, 1)`, layers, fills, references. A method is a function of a view.
    """
    bench, at = _bench(*_key(cm, pair)), _name(cm)
    return bench.prepare(at, _route(bench, at, route), (pair.pair,)).view


def attribute(
    cm: str | TrainedCountermeasure, xai: str | Attributor, pair: Twins, *, route: str = "auto",
    options: Mapping[str, Any] | None = None,
) -> Map:  # fmt: skip
    """The map of a method on the vocoded half of a pair, on the grid.

    xai: a method's name, a control's (`random`, `oracle`), or a method of your own made with `@xaibench.attributor`. route:
    "native" (at the countermeasure's own spectrogram), "grid" (an STFT in front of it) or "auto". options: of the method.

    Raises PluginError for unknown names and options, Unsupported for a method that cannot explain this countermeasure,
    Undefined for one that has no answer here, and whatever a method of your own raises.

    >>> m = attribute("lcnn", "input-x-gradient", load_data("minivoc")[0])
    >>> m.values.shape, 0 < m.score("rank-accuracy") < 0.2
    ((257, 201), True)
    """
    bench, at = _bench(*_key(cm, pair)), _name(cm)
    method = _method(xai).with_options(**(options or {}))
    taken = _route(bench, at, route)
    prepared = bench.prepare(at, taken, (pair.pair,))
    made = explain(bench, prepared, method)
    behind = _Behind(bench, Chunk(at, taken, method.name, 0, (pair.pair,), (), ("",)), prepared, made)
    values = made.on_grid.values[0].cpu().numpy()
    valid, region = prepared.truth.valid.cpu().numpy(), prepared.truth.region[0].cpu().numpy()
    axes = made.on_grid.frequency, made.on_grid.time
    return Map(method.name, pair.id, values, *axes, valid=valid, region=region, seconds=made.seconds, behind=behind)


@dataclass(frozen=True, eq=False)
class _Behind:
    """What a map of `attribute` was made with."""

    bench: Workbench
    chunk: Chunk
    prepared: Prepared
    made: Explained

    def score(self, metric: str) -> float:
        """As `Map.score`: the cell of a run, its status an error where it is not ok."""
        known_metrics([metric], RunSpec.preset)  # an unknown name is an error with those that are near
        (row,) = run_chunk(self.bench, replace(self.chunk, metrics=(metric,)), "", explained=self.made).rows
        kinds = {"unsupported": Unsupported, "undefined": Undefined}
        if row.status != "ok":
            raise kinds.get(row.status, XaibenchError)(
                f"{metric} of {row.attributor} on {self.chunk.pairs[0].id}: {row.note}"
            )
        return row.value

    def curve(self, direction: str, fill: str, fractions: Sequence[float] | None) -> tuple[np.ndarray, np.ndarray]:
        """As `Map.curve`."""
        made, prepared = self.made, self.prepared
        evidence = Evidence(made.on_grid, made.on_view, prepared.truth, prepared.probe)
        found = evidence.curve(direction, fill, fractions)
        return found.fractions.numpy(), found.log_odds[0].cpu().numpy()


def _method(xai: str | Attributor) -> Attributor:
    names = known_names("attributors", [xai])[0] if isinstance(xai, str) else ()
    method = registry.load("attributors", names[0]) if len(names) == 1 else xai
    if not isinstance(method, Attributor):
        raise XaibenchError(f"{xai!r} is no attribution method: give one name, or a function under @xaibench.attributor")
    return method


def _name(cm: str | TrainedCountermeasure) -> str:
    return cm if isinstance(cm, str) else cm.name


def _key(cm: str | TrainedCountermeasure, pair: Twins) -> tuple[Any, ...]:
    """What a workbench depends on, to be kept by."""
    root = pair.data.root
    roots = tuple(sorted(root.items())) if isinstance(root, Mapping) else root
    if isinstance(cm, str):
        return cm, None, "auto", pair.data.name, roots, None
    return cm.name, cm.checkpoint, str(cm.device), pair.data.name, roots, _mark(cm.checkpoint)


def _mark(checkpoint: str | None) -> tuple[int, int] | None:
    """What changes when a checkpoint is written again: a notebook trains, looks, and trains on."""
    if checkpoint is None or not Path(checkpoint).is_file():
        return None
    found = Path(checkpoint).stat()
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=4)
def _bench(name: str, checkpoint: str | None, device: str, data: str, roots: Any, mark: object) -> Workbench:
    """The workbench of a countermeasure and a data set; it keeps what it opened. mark: see `_mark`."""
    spec = RunSpec(
        countermeasures=(name,),
        attributors=("saliency", "grad-cam"),  # a hint which passes to make together; any method may ask
        metrics=("rank-accuracy",),
        data=data,
        checkpoints={} if checkpoint is None else {name: checkpoint},
        root=dict(roots) if isinstance(roots, tuple) else roots,
    )
    return Workbench(spec, device=choose_device(device))


def _route(bench: Workbench, name: str, route: str) -> str:
    if route not in ("auto", "native", "grid"):
        raise RunError(f"unknown route {route!r}; expected auto, native or grid")
    return bench.route(name) if route == "auto" else route
