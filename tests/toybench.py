"""A benchmark small enough for tests: a corpus of noise, a countermeasure that hears it, methods that behave and misbehave.

`install(monkeypatch, **attributors)` puts them behind the registry's own door, as entry points of an invented package.
"""

from __future__ import annotations

import csv
import hashlib
import json
import time
import weakref
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import numpy as np
import soundfile
import torch
from toys import GRID, N_SAMPLES, SHAPE, LinearCM

from xaibench import registry
from xaibench.errors import Undefined, Unsupported
from xaibench.harness.spec import RunSpec
from xaibench.manifest import read_manifest
from xaibench.protocols import Dataset, attributor
from xaibench.types import Attribution, Axis
from xaibench.weights import save_weights

VOCODERS = ("comb", "smooth")
SPEAKERS = {"train": ("a", "b"), "dev": ("f", "g"), "eval": ("c", "d", "e")}


class ToyRecipe:
    """Spoof log-odds fall with the energy of the upper bins: both toy vocoders weaken them. A recipe of its own making."""

    name = "toy"
    paper = "none"
    options: ClassVar[dict] = {}
    training: ClassVar[dict] = {}
    obtain = ""

    def untrained(self, *, seed: int) -> LinearCM:
        weight = torch.zeros(SHAPE)
        weight[16:] = -0.02
        return LinearCM(weight, bias=0.0)

    def shipped(self) -> Path | None:
        return None


recipe = ToyRecipe()


@attributor(name="toy-gradient", paper="Simonyan et al. 2014", needs=["gradients"])
def gradient(view):
    """input x gradient: exact on a linear countermeasure."""
    x = view.inputs.clone().requires_grad_()
    (grad,) = torch.autograd.grad(view.model(x).sum(), x)
    return (x * grad).sum(1).detach()


@attributor(name="toy-unsupported", paper="none")
def unsupported(view):
    """Cannot serve this countermeasure."""
    raise Unsupported("this method needs an LSTM")


@attributor(name="toy-crash", paper="none")
def crash(view):
    """Fails on one speaker's utterances only."""
    if any(name.startswith("c-") for name in view.ids):
        raise ZeroDivisionError("division by speaker c")
    return torch.rand(len(view), *view.shape, generator=torch.Generator().manual_seed(0))


@attributor(name="toy-nan", paper="none")
def nan(view):
    """Not a number anywhere."""
    return torch.full((len(view), *view.shape), float("nan"))


@attributor(name="toy-zero", paper="none")
def zero(view):
    """Zero everywhere."""
    return torch.zeros(len(view), *view.shape)


@attributor(name="toy-unseeded", paper="none")
def unseeded(view):
    """Random, and not seeded per utterance."""
    return torch.rand(len(view), *view.shape)


@attributor(name="toy-mixes", paper="none")
def mixes(view):
    """Normalises over the batch, so that an utterance's map depends on its neighbours."""
    return gradient.function(view) / len(view)


@attributor(name="toy-hooks", paper="none", needs=["gradients"])
def hooks(view):
    """Leaves a hook behind on the shared countermeasure."""
    view.model.register_forward_hook(lambda *_: None)
    return gradient.function(view)


@attributor(name="toy-deaf", paper="none")
def deaf(view):
    """Says that it depends on the class, and does not."""
    return view.inputs[:, 0].clone()


@attributor(name="toy-coarse", paper="none", class_specific=False)
def coarse(view):
    """Speaks of four bands and three stretches of time only, and says so by its axes."""
    frequency, time = (Axis(a.kind, a.edges[:: len(a) // n]) for a, n in zip(view.axes, (4, 3), strict=True))
    values = view.inputs.mean(dim=(1, 2, 3))[:, None, None] * torch.arange(12.0).view(4, 3)
    return Attribution(values, frequency, time)


@attributor(name="toy-wrecks", paper="none", class_specific=False)
def wrecks(view):
    """Stops half-way through changing the shared countermeasure."""
    wreck(view)
    raise KeyError("lost")


@attributor(name="toy-wrecks-late", paper="none", class_specific=False)
def wrecks_late(view):
    """The same, on one speaker only, so that a preflight does not see it."""
    if any(name.startswith("e-") for name in view.ids):
        wreck(view)
        raise KeyError("lost")
    return view.inputs[:, 0].clone()


def wreck(view):
    for parameter in view.model.parameters():
        parameter.data[..., ::2] = 0  # not a factor, which the scores relative to the pair's gap would not show


@attributor(name="toy-greedy", paper="none", class_specific=False)
def greedy(view):
    """Runs out of memory with more than one utterance; with one it does too, unless the batch's memory is free again."""
    large = torch.zeros(1000)
    if len(view) > 1:
        GREED.append(weakref.ref(large))
        raise torch.OutOfMemoryError("CUDA out of memory")
    if any(reference() is not None for reference in GREED):
        raise torch.OutOfMemoryError("the batch is still in memory")
    return view.inputs[:, 0].clone()


GREED: list[weakref.ref] = []


@attributor(name="toy-hungry", paper="none", class_specific=False)
def hungry(view):
    """Runs out of memory on one speaker's utterances, however few at a time."""
    if any(name.startswith("d-") for name in view.ids):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory")
    return view.inputs[:, 0].clone()


@attributor(name="toy-speechless", paper="none", class_specific=False)
def speechless(view):
    """Has nothing to say of one speaker."""
    if any(name.startswith("c-") for name in view.ids):
        raise Undefined("nothing to say of speaker c")
    return view.inputs[:, 0].clone()


@attributor(name="toy-slow", paper="none", needs=["gradients"])
def slow(view):
    """As `gradient`, and late: a chunk under way long enough to be interrupted."""
    time.sleep(0.2)
    return gradient.function(view)


METHODS = {
    a.name: a
    for a in (
        gradient, unsupported, crash, nan, zero, unseeded, mixes, hooks, deaf, coarse, wrecks, wrecks_late, greedy,
        hungry, speechless, slow,
    )
}  # fmt: skip


def write_corpus(root: Path) -> Path:
    """Seven utterances and their two twins, 0.25 s of noise each; returns the manifest."""
    rows = []
    draw = np.random.default_rng(0)
    filters = {"bonafide": [1.0], "comb": [0.5, 0.5], "smooth": [0.2, 0.6, 0.2]}
    for split, speakers in SPEAKERS.items():
        for speaker in speakers:
            noise = 0.1 * draw.standard_normal(N_SAMPLES)
            for vocoder, taps in filters.items():
                path = root / split / f"{speaker}-1_{vocoder}.flac"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, np.clip(np.convolve(noise, taps, "same"), -1, 1), GRID.sample_rate, subtype="PCM_16")
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                rows.append([f"{speaker}-1", speaker, split, vocoder, path.relative_to(root), N_SAMPLES, digest])
    with (root / "toy.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["utt_id", "speaker", "split", "vocoder", "path", "n_samples", "sha256"])
        writer.writerows(rows)
    manifest = root / "toy.toml"
    manifest.write_text(
        f'name = "toy"\ntable = "toy.csv"\nsample_rate = {GRID.sample_rate}\nvalid_band = [500.0, 7000.0]\n',
        encoding="utf-8",
    )
    return manifest


corpus = Dataset("toy", "noise", lambda root: read_manifest(root / "toy.toml", root))


def write_checkpoint(folder: Path, *, classes: tuple[str, str] = ("spoof", "bonafide")) -> Path:
    """The toy's weights and card."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "toy.safetensors"
    save_weights(path, recipe.untrained(seed=0))
    path.with_suffix(".json").write_text(json.dumps({"name": "toy", "classes": list(classes), "n_samples": N_SAMPLES}))
    return path


def install(monkeypatch, *names: str) -> None:
    """Offer the toy countermeasure, corpus and the named methods beside the real plugins."""
    offered = [("countermeasures", "toy", "toybench:recipe"), ("datasets", "toy", "toybench:corpus")]
    offered += [("attributors", name, f"toybench:{METHODS[name].function.__name__}") for name in names]
    real = tuple(p for p in registry._scan() if p.group != "attributors" or p.distribution == "xaibench")
    toys = tuple(
        registry.Plugin(group, name, "toy-package", "1.0", EntryPoint(name, value, f"xaibench.{group}"))
        for group, name, value in offered
    )
    monkeypatch.setattr(registry, "_scan", lambda: real + toys)


def spec(root: Path, *attributors: str, **changes: object) -> RunSpec:
    """A run of the toys: six vocoded utterances, two cheap metrics unless told otherwise."""
    settings = {
        "countermeasures": ("toy",), "attributors": attributors, "metrics": ("rank-accuracy", "drop-twin"), "data": "toy",
        "root": str(root), "checkpoints": {"toy": str(root / "weights" / "toy.safetensors")}, "grid": GRID,
    }  # fmt: skip
    return RunSpec(**{**settings, **changes})
