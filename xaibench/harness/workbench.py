"""What a worker holds: the opened corpus, loaded countermeasures and methods, and the batch it is looking at.

Everything is made once a worker from a `RunSpec`, so a worker needs nothing but the spec and chunks.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from xaibench import audio, registry
from xaibench.backward import quicken
from xaibench.errors import AudioError, PluginError, RunError, XaibenchError, told
from xaibench.harness.device import default_batch_size, staged, to_device
from xaibench.harness.guard import contained, private_tensors
from xaibench.harness.known import Load, load_countermeasure
from xaibench.harness.plan import interleave, reference_pairs, source_hash
from xaibench.harness.prefetch import Prefetch
from xaibench.harness.sizes import Size, fitting_batch, is_poisoned
from xaibench.harness.spec import RunSpec
from xaibench.installed import versions
from xaibench.metrics import catalog
from xaibench.metrics.evidence import Probe
from xaibench.passes import READ_INPUTS, Passes
from xaibench.precision import computed_in
from xaibench.project import average
from xaibench.protocols import Attributor, Corpus, Countermeasure, Metric
from xaibench.segments import segment_truth, utterance_segments
from xaibench.truth import SEGMENTS, top_share, truth
from xaibench.types import Axis, Pair, Truth
from xaibench.view import View, derive_seed, grid_view, native_view
from xaibench.weights import weights_hash

#: Bona fide utterances that serve as references, and training pairs behind the frequency prior.
REFERENCES = 20
PRIOR_PAIRS = 60

#: Kinds of what is kept that hold a countermeasure or what it heard, by its name: see `Workbench.forget`.
PER_COUNTERMEASURE = ("cm", "batch", "again", "randomised", "references")

Thing = TypeVar("Thing")


@dataclass(frozen=True, eq=False)
class Loaded:
    """A countermeasure with its weights, and what the board says of it."""

    name: str
    module: Countermeasure
    card: dict[str, Any]
    weights: str  # sha256
    checkpoint: Path
    options: dict[str, Any]  # what it was built with; of a path the last part, as other machines have other folders


@dataclass(frozen=True, eq=False)
class Prepared:
    """A batch of pairs, looked at by one countermeasure through one route."""

    view: View
    truth: Truth  # on the grid
    probe: Probe
    countermeasure: str = ""


class Workbench:
    """Opens and caches; every method is a function of the spec, the device and its arguments.

    batch_size: utterances a chunk and inputs at a time. None: a constant of the device for the first (`self.batch_size`),
        and for the second what is measured of each countermeasure and route (`self.sizes`).
    load: how an attributor is got; `registry.stand_in` where its facts are wanted and its code is not.
    """

    def __init__(
        self,
        spec: RunSpec,
        *,
        device: torch.device | str = "cpu",
        batch_size: int | None = None,
        load: Load = registry.load,
    ) -> None:
        self.spec = spec
        self.device = torch.device(device)
        self.batch_size = batch_size or default_batch_size(self.device)
        self._asked = batch_size
        self.load_plugin = load
        self._sizes: dict[tuple[str, ...], Size] = {}
        self._kept: OrderedDict[tuple[Hashable, ...], Any] = OrderedDict()
        self._ahead = Prefetch(self._read)

    def once(self, key: tuple[Hashable, ...], make: Callable[[], Thing], *, most: int | None = None) -> Thing:
        """What `make` gives, kept under a key; of the keys `(kind, ...)` of one kind the last `most` are kept."""
        if key not in self._kept:
            value = make()
            if most is not None:
                same = [k for k in self._kept if k[0] == key[0]]
                for old in same[: max(len(same) - most + 1, 0)]:
                    del self._kept[old]
            self._kept[key] = value
        return self._kept[key]

    @cached_property
    def corpus(self) -> Corpus:
        """The data set, opened and its manifest checked."""
        return registry.open_corpus(self.spec.data, self.spec.root)

    def countermeasure(self, name: str) -> Loaded:
        """A trained countermeasure. Raises CheckpointError when there are no weights, or weights of something else."""
        return self.once(("cm", name), lambda: self._load(name))

    def _load(self, name: str) -> Loaded:
        try:
            given = self.spec.checkpoints.get(name), self.spec.cm_options.get(name, {})
            module, card, path = load_countermeasure(name, *given)
        except (XaibenchError, torch.OutOfMemoryError):
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(f"{registry.find('countermeasures', name)} could not be loaded: {told(error)}") from error
        if self.corpus.sample_rate != module.sample_rate or self.spec.grid.sample_rate != module.sample_rate:
            raise RunError(
                f"{name} works at {module.sample_rate} Hz, {self.corpus.name} is sampled at {self.corpus.sample_rate} Hz "
                f"and the grid at {self.spec.grid.sample_rate} Hz; they must agree: resample the data and index it again"
            )
        module = quicken(module.to(self.device, memory_format=torch.channels_last)).eval()
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        options = {**card.get("options", {}), **self.spec.cm_options.get(name, {})}
        options = {k: Path(v).name if isinstance(v, str) and os.path.exists(v) else v for k, v in options.items()}
        return Loaded(name, module, card, weights_hash(module), path, options)

    def forget(self, countermeasure: str) -> None:
        """Drop a countermeasure that a method may have changed, and every batch seen through it: made again when needed."""
        for key in [k for k in self._kept if k[0] in PER_COUNTERMEASURE and k[1] == countermeasure]:
            del self._kept[key]

    @property
    def sizes(self) -> dict[str, dict[str, Any]]:
        """Inputs at a time so far, for run.json: `lcnn/native` -> {"inputs": 4, "why": ...}.

        `lcnn/native/METHOD` is a method that ran out of memory with as many as the others.
        """
        return {"/".join(k): {"inputs": s.inputs, "why": s.why} for k, s in sorted(self._sizes.items())}

    def known(self) -> dict[str, Any]:
        """What took time to find out and holds for every workbench of this run on this machine: see `adopt`."""
        training = {k[1]: found for k, found in self._kept.items() if k[0] == "training"}
        arrays = {n: (r.cpu().numpy(), None if p is None else p.cpu().numpy()) for n, (r, p) in training.items()}
        return {"sizes": {k: (s.inputs, s.why) for k, s in self._sizes.items()}, "training": arrays}

    def adopt(self, known: Mapping[str, Any]) -> None:
        """Take over what another workbench's `known` gave, so that it is neither measured nor read again."""
        self._sizes |= {key: Size(*size) for key, size in known.get("sizes", {}).items()}
        for n_samples, (references, prior) in known.get("training", {}).items():
            mine = None if prior is None else to_device(prior, self.device)
            self._kept["training", n_samples] = to_device(references, self.device), mine

    def _at_once(self, countermeasure: str, view: View) -> int:
        """Inputs at a time for a countermeasure and route: asked for, known, or measured on this view."""
        key = (countermeasure, view.route)
        if key not in self._sizes:
            self._sizes[key] = Size(self._asked, "asked for") if self._asked else self._measured(view)
        return self._sizes[key].inputs

    def _measured(self, view: View) -> Size:
        try:
            return fitting_batch(view)
        except Exception as error:
            if is_poisoned(error):
                raise
            fault = f"{type(error).__name__} while measuring"  # a model that fails says so in the cells that ask it
        return Size(self.batch_size, fault)

    def halve(self, countermeasure: str, route: str, attributor: str = "") -> bool:
        """Half as many inputs at a time from now on, for one method or for all; False where it is one already.

        The countermeasure and its batches are forgotten: they hold the old number, and memory, and a method that stopped
        half-way may have changed them.
        """
        key = (countermeasure, route, attributor) if attributor else (countermeasure, route)
        known = [self._sizes[k].inputs for k in {key, key[:2]} & self._sizes.keys()]
        before = min(known, default=self.batch_size)
        if before == 1:
            return False
        self._sizes[key] = Size(before // 2, f"{before} ran out of memory")
        self.forget(countermeasure)
        return True

    def attributor(self, name: str) -> Attributor:
        """The method of that name, with the options of the spec."""
        options = self.spec.options.get(name, {})
        return self.once(("attributor", name), lambda: self.load_plugin("attributors", name).with_options(**options))

    def metric(self, name: str) -> Metric:
        """The metric of that name, ours or a plugin's."""
        return catalog.METRICS[name] if name in catalog.METRICS else registry.load("metrics", name)

    def route(self, name: str) -> str:
        """The route taken for a countermeasure: `auto` is native where its tap has both axes."""
        if self.spec.route != "auto":
            return self.spec.route
        try:
            frequency, time = self.countermeasure(name).module.axes
        except Exception:  # noqa: BLE001 - no axes, or not two of them: a tap without frequency and time
            return "grid"
        return "native" if frequency is not None and time is not None else "grid"

    def facts(self, countermeasure: str, route: str, attributor: str) -> dict[str, Any]:
        """What the numbers of this combination depend on, beside the pair and the spec: input of the fingerprint."""
        cm, method = self.countermeasure(countermeasure), self.attributor(attributor)
        sources = {registry.find("countermeasures", countermeasure), registry.find("attributors", attributor)}
        return {
            "countermeasure": [countermeasure, cm.weights, cm.options],
            "attributor": [attributor, dict(method.options)],
            "route": route,
            "n_samples": cm.module.n_samples,
            "band": self.corpus.valid_band,
            "sources": sorted(source_hash(p.package) for p in sources),
            "versions": versions(("torch", "torchaudio", "soundfile", "numpy", "captum", "grad-cam", "shap", "zennit")),
            "references": [p.id for p in reference_pairs(self.corpus, most=PRIOR_PAIRS)],
        }

    def waveforms(self, chosen: Sequence[Pair], n_samples: int) -> tuple[Tensor | None, Tensor]:
        """Bona fide and vocoded halves, `(B, n_samples)` each, cut or repeated alike; None for halves without twins.

        Raises AudioError.
        """
        real, fake = self._ahead((tuple(chosen), n_samples))
        return real if real is None else to_device(real, self.device), to_device(fake, self.device)

    def read_ahead(self, countermeasure: str, route: str, chosen: Sequence[Pair]) -> None:
        """Begin to read a batch that is needed soon, on another thread, unless it is there."""
        if ("batch", countermeasure, route, tuple(p.id for p in chosen)) not in self._kept:
            self._ahead.soon((tuple(chosen), self.countermeasure(countermeasure).module.n_samples))

    def close(self) -> None:
        """Let go what was read ahead, and the thread that read it."""
        self._ahead.forget()

    def _read(self, key: tuple[tuple[Pair, ...], int]) -> tuple[Tensor | None, Tensor]:
        """The halves on the host, ready to be copied to the device. Called by another thread too: it keeps nothing."""
        chosen, n_samples = key
        if any(pair.bonafide is None for pair in chosen):
            alone = [audio.read_aligned(pair.spoof, sample_rate=self.corpus.sample_rate) for pair in chosen]
            return None, staged(np.stack([audio.fit(x, n_samples) for x in alone]), self.device)
        halves: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        for pair in chosen:
            for half, samples in zip(halves, audio.read_halves(pair, sample_rate=self.corpus.sample_rate), strict=True):
                half.append(audio.fit(samples, n_samples))
        real, fake = (staged(np.stack(half), self.device) for half in halves)
        return real, fake

    def readable(self, pair: Pair, n_samples: int) -> bool:
        """Whether both halves can be read and are aligned."""
        try:
            self.waveforms([pair], n_samples)
        except AudioError:
            return False
        return True

    def _training(self, n_samples: int) -> tuple[Tensor, Tensor | None]:
        """Bona fide references `(R, n_samples)` and the share of truth region per frequency `(F,)` of training pairs."""
        chosen = reference_pairs(self.corpus, most=PRIOR_PAIRS)
        if not chosen:
            return self._references(n_samples), None
        real, fake = self.waveforms(chosen, n_samples)
        if real is None:
            return self._references(n_samples), None
        found = self._truth(chosen, real, fake)
        names = [p.spoof.source for p in chosen]
        first = [i for i, n in enumerate(names) if n not in names[:i]][:REFERENCES]
        return real[first], found.region.float().mean(dim=(0, 2))

    def _references(self, n_samples: int) -> Tensor:
        """Bona fide training utterances of a data set without training twins. Shape: `(R, n_samples)`."""
        chosen = interleave([u for u in self.corpus.utterances if u.bonafide and u.split == "train"])[:REFERENCES]
        if not chosen:
            return torch.zeros(0, n_samples, device=self.device)
        found = [audio.fit(audio.read_aligned(u, sample_rate=self.corpus.sample_rate), n_samples) for u in chosen]
        return to_device(np.stack(found), self.device)

    def check_truth(self, chosen: Sequence[Pair]) -> None:
        """Raise RunError unless every one of these pairs has what the truth is made from: segments, or a twin."""
        wanted, name = self.spec.truth.name, self.corpus.name
        for pair in chosen:
            if wanted == SEGMENTS and not pair.spoof.segments:
                raise RunError(
                    f"{name} says no segments of {pair.id!r}: the truth `segments` is for partially spoofed speech "
                    f"(minivoc-partial, PartialSpoof); --truth eq2 is for vocoded twins"
                )
            if wanted != SEGMENTS and pair.bonafide is None:
                raise RunError(
                    f"{name} has no bona fide twins, which the truth {wanted!r} is made from; --truth segments needs none"
                )

    def _truth(self, chosen: Sequence[Pair], real: Tensor | None, fake: Tensor) -> Truth:
        """The truth of a batch on the grid. Raises RunError where the data set has no such truth."""
        self.check_truth(chosen)
        spec, corpus, n_samples = self.spec, self.corpus, fake.shape[1]
        if spec.truth.name == SEGMENTS:
            segments = [
                utterance_segments(p.spoof, n_samples=n_samples, sample_rate=corpus.sample_rate) for p in chosen
            ]  # fmt: skip
            return segment_truth(
                segments, grid=spec.grid, n_samples=n_samples, band=corpus.valid_band, sample_rate=corpus.sample_rate,
                device=self.device,
            )  # fmt: skip
        if real is None:
            raise RunError(f"{corpus.name} has no bona fide twins, which the truth {spec.truth.name!r} is made from")
        return truth(fake, real, grid=spec.grid, band=corpus.valid_band, spec=spec.truth)

    def prepare(self, countermeasure: str, route: str, chosen: Sequence[Pair]) -> Prepared:
        """The batch as the countermeasure sees it; the last few are kept, so that every method shares the work."""
        key = ("batch", countermeasure, route, tuple(p.id for p in chosen))
        return self.once(key, lambda: self._prepare(countermeasure, route, chosen), most=2)

    def _prepare(self, countermeasure: str, route: str, chosen: Sequence[Pair]) -> Prepared:
        with computed_in("fp32", self.device.type), contained(countermeasure, "a countermeasure returns logits or raises"):
            return self._looked_at(countermeasure, route, chosen)

    def _looked_at(self, countermeasure: str, route: str, chosen: Sequence[Pair]) -> Prepared:
        spec, cm = self.spec, self.countermeasure(countermeasure).module
        real, fake = self.waveforms(chosen, cm.n_samples)
        _, prior = self.once(("training", cm.n_samples), lambda: self._training(cm.n_samples))
        on_grid = self._truth(chosen, real, fake)
        grid_axes, axes = self._axes(cm, route)
        seen = on_grid
        if axes != grid_axes:
            inside = average(on_grid.valid.float(), grid_axes, axes)
            valid = inside > (0.5 if len(axes[0]) > 1 else 0)  # a single cell holds the band, however narrow
            covered = average(on_grid.region.float(), grid_axes, axes) / inside.clamp_min(1e-12)  # of its valid part
            values = average(on_grid.values, grid_axes, axes)
            # A cell of a coarse axis is rarely covered by half: the same share of cells then, the most covered ones.
            both = {"frequency", "time"} <= on_grid.resolves
            order = _ranks(covered, values)
            region = top_share(order, valid, spec.truth.share) & (covered > 0) if both else covered > 0.5
            seen = replace(on_grid, values=values, region=region, valid=valid, added=None)
            if prior is not None:
                frames = (grid_axes[1],)
                spread = prior[:, None].expand(-1, len(frames[0]))
                prior = average(spread, grid_axes, axes)[:, 0]
        ids = [p.id for p in chosen]
        view = self.look(countermeasure, route, ids, (real, fake), truth=seen, prior=prior)
        view = replace(view, passes=Passes.of(view, together=not READ_INPUTS.isdisjoint(spec.attributors)))
        return Prepared(view, on_grid, Probe(view, seen.valid, spec.fractions), countermeasure)

    def _axes(self, cm: Countermeasure, route: str) -> tuple[tuple[Axis, Axis], tuple[Axis, Axis]]:
        """Frequency and time of the grid, and of what is explained."""
        grid_axes = (self.spec.grid.frequency, self.spec.grid.time(cm.n_samples))
        return grid_axes, cm.axes if route == "native" else grid_axes

    def look(
        self, countermeasure: str, route: str, ids: Sequence[str], halves: tuple[Tensor | None, Tensor], *,
        truth: Truth | None, prior: Tensor | None,
    ) -> View:  # fmt: skip
        """The view of bona fide (or None) and vocoded waveforms `(B, n_samples)`. `truth` and `prior` on its axes."""
        with computed_in("fp32", self.device.type):
            return self._seen(countermeasure, route, ids, halves, truth=truth, prior=prior)

    def _seen(
        self, countermeasure: str, route: str, ids: Sequence[str], halves: tuple[Tensor | None, Tensor], *,
        truth: Truth | None, prior: Tensor | None,
    ) -> View:  # fmt: skip
        spec, cm = self.spec, self.countermeasure(countermeasure).module
        real, fake = halves
        references, _ = self.once(("training", cm.n_samples), lambda: self._training(cm.n_samples))
        energy = average(spec.grid.stft(fake).abs(), *self._axes(cm, route))
        seen = self._kept.get(("references", countermeasure, route))  # a front end may be dear, and these never change
        facts: dict[str, Any] = {
            "truth": truth,
            "prior": prior,
            "energy": energy,
            "seed": spec.seed,
            "precision": spec.precision,
            "seen": seen,
        }
        if route == "native":
            view = native_view(cm, fake, real, references, ids, **facts)
        else:
            view = grid_view(cm, fake, real, references, ids, grid=spec.grid, **facts)
        self._kept["references", countermeasure, route] = view.references
        return replace(view, batch_size=self._at_once(countermeasure, view))

    def view_for(self, prepared: Prepared, attributor: Attributor) -> View:
        """The view one method gets: its own seed and tensors, scores in fp32, and the truth only if it says it needs it."""
        view = prepared.view
        shown = view.truth if "truth" in attributor.needs else None
        own = self._sizes.get((prepared.countermeasure, view.route, attributor.name))
        size = min(view.batch_size, own.inputs) if own else view.batch_size
        seed = derive_seed(self.spec.seed, attributor.name)
        return private_tensors(replace(view, seed=seed, batch_size=size, precision="fp32", truth=shown))


def _ranks(covered: Tensor, values: Tensor) -> Tensor:
    """Ranks of cells by how much of them the region covers and, among equals, by the mean truth value, as in
    `xaibench.metrics.temporal`. Shape: `(B, F, T)` twice -> `(B, F, T)` float64.
    """
    covered = (covered.double() * 1e6).round().flatten(1)  # equal but for float32 rounding is equal
    order = values.flatten(1).argsort(dim=1, stable=True)
    order = order.gather(1, covered.gather(1, order).argsort(dim=1, stable=True))
    return order.argsort(dim=1, stable=True).double().view_as(values)
