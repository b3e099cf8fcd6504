"""Train a network to answer the Shapley values of one countermeasure: FastSHAP, from the countermeasure's own scores.

Two stages. First the countermeasure is asked: excerpts of the training split, bona fide and vocoded alike, each under a few
coalitions drawn from Shapley's kernel. Then the network is fitted to these answers (`shapley.loss`), and the epoch of lowest
loss on the dev split is kept. No label, no twin and no truth enters: the data of a pair are never compared.

Jethani et al. draw coalitions anew in every step; here each excerpt keeps its own, because the countermeasure's answers are
what costs time. Every draw is fixed by the seed and the excerpt's number, so a training that was stopped continues with the
same command.
"""

from __future__ import annotations

import copy
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import xaibench
from xaibench import audio, reading
from xaibench.errors import CheckpointError, RunError, first_line
from xaibench.excerpts import held_out
from xaibench.files import whole
from xaibench.grid import Grid
from xaibench.protocols import Corpus, Countermeasure
from xaibench.states import load_state
from xaibench.view import View, derive_seed, grid_view, native_view, patches
from xaibench.weights import save_weights, weights_hash
from xaibench_amortised import shapley
from xaibench_amortised.network import PatchNetwork

#: Excerpts a view, and answers between two savings.
TOGETHER, SAVED = 8, 20 * 8
#: Bona fide utterances behind the grid's fill `mean`, as many as a run's references.
REFERENCES = 20
#: Settings that the answers depend on; the others may be changed and the same answers used again.
ASKED = ("seed", "route", "fill", "bands", "spans", "masks", "precision")


@dataclass(frozen=True)
class Spec:
    """Everything that decides the outcome, beside the countermeasure and the data."""

    seed: int = 0
    route: str = "native"
    fill: str = "mean"
    bands: int = 8
    spans: int = 5
    excerpts: int = 3600
    dev_excerpts: int = 160
    masks: int = 20
    epochs: int = 20
    batch: int = 32
    learning_rate: float = 2e-3
    precision: str = "fp32"  # of the countermeasure's answers: a name of `xaibench.precision.PRECISIONS`

    def patch(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Cells of a patch, as those of `kernel-shap`: all in time where the map resolves time alone."""
        bands, spans = (1, self.bands * self.spans) if shape[0] == 1 else (self.bands, self.spans)
        return -(-shape[0] // bands), -(-shape[1] // spans)


def excerpts(
    corpora: Sequence[Corpus], split: str, count: int, n_samples: int, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """`count` excerpts `(n_samples,)` with their names: utterances in random order, again and again, cut at random.

    Held-out vocoders are left out but for the split eval, as in the training of countermeasures. Raises RunError for an
    empty split.
    """
    hidden = [] if split == "eval" else held_out(corpora)
    chosen = [(c, u) for c in corpora for u in c.utterances if u.split == split and u.vocoder not in hidden]
    if not chosen:
        raise RunError(f"{', '.join(c.name for c in corpora)}: no utterances in the split {split!r}")
    order: list[int] = []
    for number in range(count):
        draw = np.random.default_rng([derive_seed(seed, split), number])
        order = order or draw.permutation(len(chosen)).tolist()
        corpus, utterance = chosen[order.pop()]
        samples = audio.read_aligned(utterance, sample_rate=corpus.sample_rate)
        start = int(draw.integers(max(len(samples) - n_samples, 0) + 1))
        yield f"{utterance.source}/{utterance.vocoder}@{number}", audio.fit(samples[start:], n_samples)


def views(cm: Countermeasure, corpora: Sequence[Corpus], spec: Spec, split: str) -> Iterator[tuple[int, View]]:
    """The excerpts of a split as the countermeasure sees them, a few a view, with the number of each view's first one.

    Without twins and without truth: neither is ever made.
    """
    count = spec.dev_excerpts if split == "dev" else spec.excerpts
    real = [(c, u) for c in corpora for u in c.utterances if u.split == "train" and u.bonafide][:REFERENCES]
    heard = [audio.fit(audio.read(u.path, sample_rate=c.sample_rate), cm.n_samples) for c, u in real]
    references = torch.from_numpy(np.stack(heard)) if spec.route == "grid" else torch.zeros(0, cm.n_samples)
    stream = excerpts(corpora, split, count, cm.n_samples, spec.seed)
    for first in range(0, count, TOGETHER):
        names, waves = zip(*itertools.islice(stream, TOGETHER), strict=True)
        batch = torch.from_numpy(np.stack(waves))
        if spec.route == "grid":
            view = grid_view(cm, batch, None, references, names, grid=Grid(sample_rate=cm.sample_rate))
        else:
            view = native_view(cm, batch, None, references, names)
        yield first, replace(view, precision=spec.precision)


def drawn(spec: Spec, split: str, number: int, players: int) -> Tensor:
    """The coalitions of one excerpt. Shape: `(K, d)`."""
    draw = torch.Generator().manual_seed(derive_seed(spec.seed, split, "coalitions", number))
    return shapley.coalitions(players, spec.masks, draw)


def answers(
    cm: Countermeasure, corpora: Sequence[Corpus], spec: Spec, split: str, file: Path, report: Callable[[str], object]
) -> Tensor:
    """Spoof log-odds of every excerpt under its coalitions, then of all and of none kept. Shape: `(N, K + 2)`.

    `file` keeps them as they come; what it holds is not asked again.
    """
    known = _kept(file, spec.masks + 2) if file.exists() else torch.zeros(0, spec.masks + 2)
    count = spec.dev_excerpts if split == "dev" else spec.excerpts
    if len(known) < count:  # a last view of fewer excerpts is asked again as a whole
        known = known[: len(known) // TOGETHER * TOGETHER]
    started = time.perf_counter()
    for first, view in views(cm, corpora, spec, split):
        if first < len(known):
            continue
        numbers = patches(view.shape, *spec.patch(view.shape))
        players = int(numbers.max()) + 1
        limits = torch.tensor([[1.0], [0.0]]).expand(2, players)
        for row, one in enumerate(view.each()):
            kept = torch.cat([drawn(spec, split, first + row, players), limits])
            scores = torch.cat(
                [one.score(one.filled(part[None], spec.fill)) for part in kept[:, numbers].split(one.batch_size)]
            )
            known = torch.cat([known, scores.float()[None]])
        if len(known) % SAVED == 0:
            _write(file, known)
            report(f"{split}: {len(known)} excerpts asked, {time.perf_counter() - started:.0f} s")
    _write(file, known)
    return known[:count]


def _kept(path: Path, columns: int) -> Tensor:
    """The answers of a file. Raises RunError where it holds something else."""
    try:
        scores = load_state(path)["scores"]
    except (CheckpointError, KeyError) as error:
        raise RunError(f"{path}: damaged ({first_line(error)}); remove it to have them asked again") from error
    if scores.dtype != torch.float32 or scores.ndim != 2 or scores.shape[1] != columns:
        raise RunError(f"{path}: {scores.dtype} {tuple(scores.shape)}, expected float32 (N, {columns}); remove it")
    return scores


def _write(path: Path, scores: Tensor) -> None:
    with whole(path) as scratch:
        save_file({"scores": scores}, scratch)


@dataclass(frozen=True, eq=False)
class Lessons:
    """Features `(N, 1, F, T)`, half precision; coalitions `(N, K, d)`; v(S) - v(none) `(N, K)`; v(all) - v(none) `(N,)`."""

    features: Tensor
    kept: Tensor
    worth: Tensor
    gap: Tensor

    @classmethod
    def of(
        cls, network: PatchNetwork, cm: Countermeasure, corpora: Sequence[Corpus], spec: Spec, split: str, scores: Tensor
    ):
        """What the network learns from, or is judged by."""
        features = torch.cat([network.features(view.inputs).half() for _, view in views(cm, corpora, spec, split)])
        kept = torch.stack([drawn(spec, split, n, network.rows * network.columns) for n in range(len(scores))])
        return cls(features, kept, scores[:, :-2] - scores[:, -1:], scores[:, -2] - scores[:, -1])

    def loss(self, network: PatchNetwork, at: Tensor) -> Tensor:
        """The loss of the efficient answers of some excerpts."""
        values = shapley.efficient(network.of_features(self.features[at].float()), self.gap[at])
        return shapley.loss(values, self.kept[at], self.worth[at])

    @torch.no_grad()
    def judged(self, network: PatchNetwork, batch: int) -> float:
        """The mean loss, in eval mode."""
        network.eval()
        parts = torch.arange(len(self.gap)).split(batch)
        return sum(float(self.loss(network, at)) * len(at) for at in parts) / len(self.gap)


def fit(network: PatchNetwork, train: Lessons, dev: Lessons, spec: Spec, report: Callable[[dict], None]) -> None:
    """Adam with one cycle; the weights of the epoch of lowest loss on dev are kept."""
    optimiser = torch.optim.Adam(network.parameters(), lr=spec.learning_rate, weight_decay=1e-5)
    steps = -(-len(train.gap) // spec.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, spec.learning_rate, total_steps=steps * spec.epochs + 1)
    best, kept = float("inf"), copy.deepcopy(network.state_dict())
    for epoch in range(spec.epochs):
        started = time.perf_counter()
        network.train()
        order = torch.from_numpy(np.random.default_rng([spec.seed, 1 + epoch]).permutation(len(train.gap)))
        total = 0.0
        for at in order.split(spec.batch):
            loss = train.loss(network, at)
            if not torch.isfinite(loss):
                raise RunError(f"the loss is {loss.item()} in epoch {epoch}; lower the learning rate {spec.learning_rate}")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(at)
        judged = dev.judged(network, spec.batch)
        if judged < best:
            best, kept = judged, copy.deepcopy(network.state_dict())
        report(
            {"epoch": epoch, "loss": total / len(train.gap), "dev_loss": judged, "seconds": time.perf_counter() - started}
        )
    network.load_state_dict(kept)
    network.eval()


def train(
    name: str, cm: Countermeasure, corpora: Sequence[Corpus], out: Path, spec: Spec, *, report: Callable[[str], object] = str
) -> Path:
    """Train, and write `out` (safetensors) with its card. The answers lie in `out`'s folder `NAME.answers` until then.

    name: of the countermeasure `cm`, in eval mode, with its weights. Raises RunError for `out` of another ending, answers of
    another training, and a loss that is not finite.
    """
    out = Path(out)
    if out.suffix != ".safetensors":
        raise RunError(f"{out}: the weights are written as .safetensors, with their card (.json) beside them")
    identity = {
        "countermeasure": name,
        "weights": weights_hash(cm),
        "spec": asdict(spec),
        "data": {c.name: c.hash for c in corpora},
    }
    folder = out.with_suffix(".answers")
    folder.mkdir(parents=True, exist_ok=True)
    note, asked = folder / "identity.json", {**identity, "spec": {n: getattr(spec, n) for n in ASKED}}
    if note.exists() and reading.json_object(note, RunError, hint="remove it, or choose another --out") != asked:
        raise RunError(f"{folder}: holds the answers to other questions; remove it, or choose another --out")
    note.write_text(json.dumps(asked, indent=2) + "\n", encoding="utf-8")
    scores = {s: answers(cm, corpora, spec, s, folder / f"{s}.safetensors", report) for s in ("train", "dev")}
    _, first = next(views(cm, corpora, spec, "train"))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(spec.seed)
        network = PatchNetwork(first.shape, spec.patch(first.shape), channels=first.inputs.shape[1])
        network.silence.copy_(first.fills["silence"].mean(dim=(0, 3)))
        some = torch.cat([v.inputs for _, v in itertools.islice(views(cm, corpora, spec, "train"), 16)])
        network.fit(some, scores["train"][:, :-2] - scores["train"][:, -1:])
        lessons = {s: Lessons.of(network, cm, corpora, spec, s, scores[s]) for s in scores}
        history: list[dict] = []

        def line(epoch: dict) -> None:
            history.append(epoch)
            report("  ".join(f"{k} {v:.4g}" for k, v in epoch.items()))

        fit(network, lessons["train"], lessons["dev"], spec, line)
    save_weights(out, network)
    card = {
        "method": "fast-shap",
        "paper": "Jethani et al., ICLR 2022, arXiv 2107.07436",
        **identity,
        "model": weights_hash(first.model),
        "shape": list(first.shape),
        "patch": list(network.patch),
        "channels": first.inputs.shape[1],
        "width": network.width,
        "parameters": sum(p.numel() for p in network.parameters()),
        "learned_from": "scores of the countermeasure under masks; no label, no twin, no truth",
        "excerpts": {s: len(scores[s]) for s in scores},
        "history": history,
        "made_with": {"torch": torch.__version__, "xaibench": xaibench.__version__},
    }
    out.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return out
