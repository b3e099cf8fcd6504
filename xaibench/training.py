"""Train a countermeasure on paired data, and evaluate it honestly.

A batch holds pairs: the same excerpt of a bona fide utterance and of one vocoded twin, so that speaker, words and level
cannot serve as a cue. Epoch `e` of seed `s` depends on `(s, e)` alone, so a resumed training continues the same course.
The weights that are kept are an exponential moving average, of the best epoch or averaged over the best few; epochs are
judged on the dev split without any held-out vocoder.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler, swa_utils

from xaibench import audio, augment
from xaibench.errors import CheckpointError, RunError, XaibenchError, first_line
from xaibench.excerpts import Excerpts, held_out
from xaibench.files import whole, write_text
from xaibench.layers import deeplift_form
from xaibench.lock import held
from xaibench.metrics.detection import equal_error_point, equal_error_rate
from xaibench.protocols import Corpus, Countermeasure, CountermeasureRecipe, TorchModule
from xaibench.scoring import bonafide_index, score_recordings
from xaibench.states import load_state
from xaibench.tables import csv_text
from xaibench.weights import halved, load_weights, save_weights


@dataclass(frozen=True)
class TrainSpec:
    """Everything that decides the outcome of a training."""

    seed: int = 0
    epochs: int = 26
    batch_pairs: int = 12
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    average: float = 0.99  # decay of the moving average of the weights, per step
    label_smoothing: float = 0.0
    vocoder_weights: tuple[tuple[str, float], ...] = ()  # how often a vocoder is drawn, relative; 1 where not named
    speeds: tuple[float, ...] = (0.9, 1.0, 1.1)  # speed perturbation, applied alike to both halves
    gain_db: float = 3.0  # level, uniform in +-
    equaliser_db: float = 3.0  # smooth random frequency response, deviation at its knots
    noise_db: tuple[float, float] = (-80.0, -62.0)  # white noise for half of the samples, dB re full scale
    time_mask: int = 25  # frames, longest of two masks
    frequency_mask: int = 25  # bins, longest of two masks
    bfloat16: bool = True  # autocast while training (scores are always float32)
    crop_seconds: float | None = None  # length of the excerpts; the countermeasure's own where None
    rawboost: int = 0  # algorithm 1 to 8 of RawBoost on every excerpt, 0 for none
    class_weights: tuple[float, ...] = ()  # weights of the classes in the loss, in their order; all 1 where empty
    judge_every: int = 1  # epochs from one look at dev to the next; the last epoch is always judged
    patience: int = 0  # stop after so many judged epochs without a better one; 0: never
    average_best: int = 1  # how many of the best epochs the final weights are averaged over
    half: bool = False  # publish the weights in half precision; the card's figures are of these

    def __post_init__(self) -> None:
        least = {n: getattr(self, n) for n in ("epochs", "batch_pairs", "judge_every", "average_best")}
        small = [f"{n} {v}" for n, v in least.items() if v < 1]
        if small:
            raise RunError(f"{' and '.join(small)}: must be at least 1")
        if self.crop_seconds is not None and not self.crop_seconds > 0:
            raise RunError(f"crop_seconds must be positive, got {self.crop_seconds}")
        if self.patience < 0:
            raise RunError(f"patience must be at least 1, or 0 to train to the end, got {self.patience}")
        if self.rawboost not in range(9):
            raise RunError(f"rawboost {self.rawboost}: expected one of its algorithms 1 to 8, or 0 for none")
        if any(not w > 0 for w in self.class_weights):
            raise RunError(f"class_weights must be positive, got {self.class_weights}")

    @classmethod
    def suited(cls, recipe: CountermeasureRecipe, **chosen: object) -> TrainSpec:
        """The recipe's own settings, with those in `chosen` that are not None on top.

        Raises RunError for a setting there is not.
        """
        known = [f.name for f in fields(cls)]
        settings = {**recipe.training, **{k: v for k, v in chosen.items() if v is not None}}
        stray = sorted(set(settings) - set(known))
        if stray:
            raise RunError(f"{recipe.name} asks for the training settings {', '.join(stray)}; there are {', '.join(known)}")
        return cls(**settings)


def error_rates(table: pd.DataFrame, held_out: Sequence[str]) -> dict[str, float]:
    """EER per vocoder, `pooled` (every vocoder) and `pooled-seen` (without the held-out ones), shares in [0, 1].

    Raises XaibenchError unless `table` (columns vocoder, score) holds finite scores of both classes.
    """
    bonafide = table.loc[table.vocoder == "bonafide", "score"]
    fake = table[table.vocoder != "bonafide"]
    rates = {str(v): equal_error_rate(bonafide, g.score) for v, g in fake.groupby("vocoder")}
    rates["pooled"] = equal_error_rate(bonafide, fake.score)
    seen = fake[~fake.vocoder.isin(held_out)]
    if len(seen):
        rates["pooled-seen"] = equal_error_rate(bonafide, seen.score)
    return rates


def decision_threshold(table: pd.DataFrame, held_out: Sequence[str]) -> float:
    """The score, higher = more bona fide, where both errors are equal on vocoders that training saw: of a card, from dev.

    Raises as `error_rates`, and where every vocoder was held out.
    """
    seen = table[~table.vocoder.isin([*held_out, "bonafide"])]
    return equal_error_point(table.loc[table.vocoder == "bonafide", "score"], seen.score)[1]


def _check_corpora(corpora: Sequence[Corpus], sample_rate: int) -> None:
    """What would only be found out after an epoch, or after all of them."""
    for corpus in corpora:
        if corpus.sample_rate != sample_rate:
            raise RunError(
                f"{corpus.name} is sampled at {corpus.sample_rate} Hz, the countermeasure works at {sample_rate} Hz"
            )
        for split in ("dev", "eval"):
            classes = {u.bonafide for u in corpus.utterances if u.split == split}
            if len(classes) == 1:
                what = "bona fide" if classes == {True} else "vocoded"
                raise RunError(
                    f"{corpus.name}: only {what} utterances in its split {split}; an error rate needs both classes"
                )
    hidden = held_out(corpora)
    judges = {u.bonafide for c in corpora for u in c.utterances if u.split == "dev" and u.vocoder not in hidden}
    if len(judges) < 2:
        raise RunError(
            f"{', '.join(c.name for c in corpora)}: no dev split with bona fide and vocoded utterances, held-out vocoders "
            f"aside; it chooses the epoch"
        )


def evaluate(
    model: Countermeasure, corpora: Sequence[Corpus], split: str, *, device: str = "cpu", unseen: bool = True
) -> pd.DataFrame:
    """Score every utterance of a split, without held-out vocoders unless `unseen`.

    Columns dataset, utterance, speaker, vocoder, score. Puts `model` in eval().
    """
    model.eval()
    hidden = () if unseen else held_out(corpora)
    chosen = [(c, u) for c in corpora for u in c.utterances if u.split == split and u.vocoder not in hidden]
    recordings = [audio.read(u.path, sample_rate=c.sample_rate) for c, u in chosen]
    scores = score_recordings(model, recordings, device=device)
    return pd.DataFrame(
        [(c.name, u.source, u.speaker, u.vocoder, s) for (c, u), s in zip(chosen, scores, strict=True)],
        columns=["dataset", "utterance", "speaker", "vocoder", "score"],
    )


def train(
    recipe: CountermeasureRecipe,
    corpora: Sequence[Corpus],
    out: Path,
    spec: TrainSpec,
    *,
    options: Mapping[str, object] | None = None,
    excerpts: Excerpts | None = None,
    device: str = "cpu",
    report: Callable[[dict], None] = lambda line: None,
) -> Path:
    """Train and write `out/NAME.safetensors` with its card `out/NAME.json`, `history.csv` and `scores.csv`.

    Every epoch ends with a checkpoint in `out/last.pt`; calling again continues there. `report` gets one dictionary an
    epoch. `options` are the countermeasure's; `excerpts` the training audio, where it was read before (for another seed).
    A recipe with a `fit` of its own is trained by it instead, in one go: of the spec only the seed counts then.

    Raises RunError when `out` cannot be written or holds a training with another spec, for data that cannot be
    trained on or judged (no training pairs, fewer than a batch, no dev split, one class only, another sample rate, two
    data sets with one utterance, a vocoder of no known class), and for a loss that is not finite.
    """
    out = Path(out)
    with held(out):
        return _train(recipe, corpora, out, spec, dict(options or {}), excerpts, device, report)


def _train(recipe, corpora, out, spec, options, excerpts, device, report) -> Path:
    """`train`, while nobody else trains in `out`."""
    identity = {
        "countermeasure": recipe.name, "options": options, "spec": asdict(spec), "data": {c.name: c.hash for c in corpora},
    }  # fmt: skip
    identity = json.loads(json.dumps(identity))
    model = recipe.untrained(seed=spec.seed, **options).to(device, memory_format=torch.channels_last)
    _check_corpora(corpora, model.sample_rate)
    fit = getattr(recipe, "fit", None)
    if fit is not None:
        identity["spec"] = {"seed": spec.seed}  # nothing else of it decides
        fit(model, _recordings(corpora), seed=spec.seed)
        return _publish(recipe, model, corpora, out, identity, [0], spec, device)
    excerpts = excerpts or Excerpts(corpora, spec.speeds, dict(spec.vocoder_weights))
    steps = len(excerpts.sources) // spec.batch_pairs
    if steps < 1:
        raise RunError(
            f"{len(excerpts.sources)} training utterances do not fill a batch; lower --batch-pairs {spec.batch_pairs}"
        )
    lesson = _Lesson(model, excerpts, spec, _labels(model, corpora, excerpts.vocoders), device)
    lesson.try_out()
    lesson.fit()
    average = swa_utils.AveragedModel(
        lesson.network, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(spec.average), use_buffers=True
    )
    optimiser = torch.optim.Adam(
        [p for p in model.parameters() if p.requires_grad], lr=spec.learning_rate, weight_decay=spec.weight_decay
    )
    schedule = lr_scheduler.OneCycleLR(optimiser, spec.learning_rate, total_steps=steps * spec.epochs + 1, pct_start=0.15)
    parts = {"model": model, "average": average, "optimiser": optimiser, "schedule": schedule}
    history = _resume(out / "last.pt", identity, parts)
    for epoch in range(len(history), spec.epochs):
        if _out_of_patience(history, spec.patience):
            break
        started = time.perf_counter()
        with deeplift_form(model):  # the backward pass of its ReLU form takes half the time of torch.maximum's on a CPU
            loss = lesson.epoch(epoch, average, optimiser, schedule)
        line = {"epoch": epoch, "loss": loss, "dev_eer": None, "rate": schedule.get_last_lr()[0]}
        if (epoch + 1) % spec.judge_every == 0 or epoch + 1 == spec.epochs:
            table = evaluate(cast(Countermeasure, average.module), corpora, "dev", device=device, unseen=False)
            line["dev_eer"] = error_rates(table, held_out(corpora))["pooled"]
        line["seconds"] = time.perf_counter() - started
        history.append(line)
        best = _best(history, spec.average_best)
        if epoch in best:
            save_weights(out / f"epoch-{epoch}.safetensors", average.module)
        write_text(out / "history.csv", csv_text(pd.DataFrame(history)))
        _save(out / "last.pt", {"identity": identity, "history": history}, parts)
        _keep_epochs(out, best)
        report(line)
    best = _best(history, spec.average_best)
    _keep_epochs(out, best)  # again: a training that was killed after its last checkpoint does not come by above
    _load_average(model, [out / f"epoch-{e}.safetensors" for e in best])
    lesson.settle()
    return _publish(recipe, model, corpora, out, identity, best, spec, device)


def _recordings(corpora: Sequence[Corpus]) -> dict[str, list[np.ndarray]]:
    """The training recordings `(N,)` by vocoder, "bonafide" among them, without held-out vocoders.

    Raises RunError unless there are both bona fide and vocoded ones.
    """
    hidden = held_out(corpora)
    found: dict[str, list[np.ndarray]] = {}
    for corpus in corpora:
        for u in corpus.utterances:
            if u.split == "train" and u.vocoder not in hidden:
                found.setdefault(u.vocoder, []).append(audio.read(u.path, sample_rate=corpus.sample_rate))
    if "bonafide" not in found or len(found) < 2:
        raise RunError(f"no bona fide and vocoded training recordings in {', '.join(c.name for c in corpora)}")
    return found


def _keep_epochs(out: Path, best: Sequence[int]) -> None:
    """Remove the weights of all epochs but these."""
    for old in set(out.glob("epoch-*.safetensors")) - {out / f"epoch-{e}.safetensors" for e in best}:
        old.unlink()


def _best(history: Sequence[dict], count: int) -> list[int]:
    """The judged epochs of lowest dev EER, the later of equals first."""
    judged = [line for line in history if line["dev_eer"] is not None]
    return [line["epoch"] for line in sorted(judged, key=lambda line: (line["dev_eer"], -line["epoch"]))[:count]]


def _out_of_patience(history: Sequence[dict], patience: int) -> bool:
    """Whether so many judged epochs have passed since the first that none was better than; an equal one is not better."""
    judged = [line["dev_eer"] for line in history if line["dev_eer"] is not None]
    return bool(patience and judged) and len(judged) - 1 - judged.index(min(judged)) >= patience


def _load_average(model: TorchModule, paths: Sequence[Path]) -> None:
    """The mean of several checkpoints of one architecture; whole numbers (counts of batches) of the first."""
    load_weights(model, paths[0])
    state = {n: t.clone() for n, t in model.state_dict().items()}
    total = {n: t.double() for n, t in state.items() if t.is_floating_point()}
    for path in paths[1:]:
        load_weights(model, path)
        total = {n: t + model.state_dict()[n].double() for n, t in total.items()}
    model.load_state_dict({**state, **{n: (t / len(paths)).to(state[n].dtype) for n, t in total.items()}})


def _labels(model: Countermeasure, corpora: Sequence[Corpus], vocoders: Sequence[str]) -> dict[str, int]:
    """The class of bona fide speech and of every vocoder: by its kind where the countermeasure tells kinds apart."""
    classes = list(model.classes)
    real = bonafide_index(classes)
    if len(classes) == 2:
        return {"bonafide": real, **{v: 1 - real for v in vocoders}}
    kinds = {v: k for c in corpora for v, k in c.kinds.items()}
    stray = {v: kinds.get(v, "not said") for v in vocoders if kinds.get(v) not in classes}
    if stray:
        raise RunError(
            f"the countermeasure tells {', '.join(classes)} apart, but the kind of {stray} is none of them; the manifest's "
            f"table [kinds] says it, and the countermeasure's option `kinds` chooses its classes"
        )
    return {"bonafide": real, **{v: classes.index(kinds[v]) for v in vocoders}}


class _Lesson:
    """What one training step needs: model, data, labels and loss."""

    def __init__(
        self, model: Countermeasure, excerpts: Excerpts, spec: TrainSpec, labels: Mapping[str, int], device: str
    ) -> None:
        self.model, self.excerpts, self.spec, self.labels, self.device = model, excerpts, spec, labels, device
        self.network = cast(nn.Module, model)  # what torch's own functions ask for
        self.n_samples = model.n_samples if spec.crop_seconds is None else round(spec.crop_seconds * model.sample_rate)
        self.learned_tap = any(p.requires_grad for p in model.frontend.parameters())
        self.log_tap = hasattr(model.frontend, "deviation")  # a normalised log spectrum, masked and filtered as it is
        if spec.class_weights and len(spec.class_weights) != len(model.classes):
            raise RunError(f"class_weights {spec.class_weights}: expected one for each of {', '.join(model.classes)}")
        self.weight = torch.tensor(spec.class_weights, device=device) if spec.class_weights else None

    def _noisy(self, waves: Tensor, generator: torch.Generator) -> Tensor:
        spec = self.spec
        return augment.level_and_noise(waves, gain_db=spec.gain_db, noise_db=spec.noise_db, generator=generator)

    @torch.no_grad()
    def try_out(self) -> None:
        """Raise RunError for excerpts of a length that the countermeasure does not take."""
        if self.n_samples == self.model.n_samples:
            return
        was_training = self.model.training
        try:
            self.model.eval()(torch.zeros(1, self.n_samples, device=self.device))
        except (RuntimeError, XaibenchError) as error:
            raise RunError(
                f"the countermeasure does not take excerpts of {self.spec.crop_seconds} s ({self.n_samples} samples; it "
                f"looks at {self.model.n_samples}): {next(iter(str(error).splitlines()), '')}; leave out --crop-seconds"
            ) from error
        self.model.train(was_training)

    def fit(self) -> None:
        """The front end's normalisation, from 256 training excerpts, both halves, with level and noise augmented."""
        fit = getattr(self.model.frontend, "fit", None)
        if fit is not None:
            draw = np.random.default_rng([self.spec.seed, 0])
            batch = self.excerpts.batch(draw.choice(self.excerpts.sources, 128), self.n_samples, draw)
            noisy = self._noisy(torch.from_numpy(batch.waveforms), torch.Generator().manual_seed(self.spec.seed))
            fit(noisy.to(self.device))

    @torch.no_grad()
    def settle(self) -> None:
        """What is known only after training, from 128 training excerpts as they are."""
        settle = getattr(self.model, "settle", None)
        if settle is not None:
            draw = np.random.default_rng([self.spec.seed, 0])
            batch = self.excerpts.batch(draw.choice(self.excerpts.sources, 64), self.model.n_samples, draw)
            self.model.eval()
            settle(torch.from_numpy(batch.waveforms).to(self.device))

    def _masks(self, generator: torch.Generator) -> dict[str, Any]:
        spec = self.spec
        return {
            "equaliser_db": spec.equaliser_db, "frequency_mask": spec.frequency_mask, "time_mask": spec.time_mask,
            "generator": generator,
        }  # fmt: skip

    def _augmented(self, waves: Tensor, draw: np.random.Generator, generator: torch.Generator) -> Tensor:
        waves = augment.rawboosted(waves, self.spec.rawboost, self.model.sample_rate, draw)
        waves = self._noisy(waves, generator)
        if not self.log_tap:
            waves = augment.spectrum(waves, **self._masks(generator))
        return waves.to(self.device)

    def _tap(self, waves: Tensor, generator: torch.Generator) -> Tensor:
        frontend = self.model.frontend
        with torch.set_grad_enabled(self.learned_tap):
            tap = frontend(waves)
        if self.log_tap:
            deviation: Any = frontend.deviation  # a tensor, as `log_tap` says
            tap = augment.log_spectrum(tap.cpu(), deviation.cpu(), **self._masks(generator)).to(self.device)
        return tap

    def _autocast(self, wanted: bool) -> torch.autocast:
        kind = torch.device(self.device).type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=wanted and self.spec.bfloat16)

    def _loss(self, tap: Tensor, labels: Tensor) -> Tensor:
        if hasattr(self.model, "training_loss"):
            return self.model.training_loss(tap, labels, self.weight)
        logits = self.model.backend(tap).float()
        return nn.functional.cross_entropy(
            logits, labels, weight=self.weight, label_smoothing=self.spec.label_smoothing
        )  # fmt: skip

    def epoch(
        self, number: int, average: swa_utils.AveragedModel, optimiser: torch.optim.Optimizer,
        schedule: lr_scheduler.LRScheduler,
    ) -> float:  # fmt: skip
        """One pass over the bona fide utterances. Returns the mean loss; raises RunError when it is not finite."""
        spec, model = self.spec, self.model
        draw = np.random.default_rng([spec.seed, 1 + number])
        generator = torch.Generator().manual_seed(int(draw.integers(2**62)))
        torch.manual_seed(int(draw.integers(2**62)))  # dropout
        model.train()
        order = draw.permutation(self.excerpts.sources)
        steps = len(order) // spec.batch_pairs
        total = 0.0
        for step in range(steps):
            sources = order[step * spec.batch_pairs : (step + 1) * spec.batch_pairs]
            batch = self.excerpts.batch(sources, self.n_samples, draw)
            names = ["bonafide"] * spec.batch_pairs + list(batch.vocoders)
            labels = torch.tensor([self.labels[n] for n in names], device=self.device)
            waves = self._augmented(torch.from_numpy(batch.waveforms), draw, generator)
            with self._autocast(self.learned_tap):  # a fixed front end keeps its precision
                tap = self._tap(waves, generator)
            with self._autocast(True):
                loss = self._loss(tap.contiguous(memory_format=torch.channels_last), labels)
            if not torch.isfinite(loss):
                raise RunError(f"the loss is {loss.item()} at epoch {number}, step {step}; lower --learning-rate")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            average.update_parameters(self.network)
            total += loss.item()
        return total / steps


def _save(path: Path, facts: dict, parts: dict) -> None:
    safe = "the epoch before is safe, run again to continue"
    with whole(path, hint=safe, flush=True) as scratch:
        try:
            torch.save({**facts, **{name: part.state_dict() for name, part in parts.items()}}, scratch)
        except RuntimeError as error:  # so torch's writer reports a full disk
            raise RunError(f"{path}: cannot be written ({first_line(error)}); {safe}") from error


def _resume(path: Path, identity: dict, parts: dict) -> list[dict]:
    if not path.exists():
        return []
    try:
        state = load_state(path)
        known, history = state["identity"], state["history"]
        if not isinstance(known, dict) or not isinstance(history, list) or not all(map(_is_line, history)):
            raise TypeError("its identity or its history is none")
    except (CheckpointError, KeyError, TypeError) as error:
        why = first_line(error).removeprefix(f"{path}: ")
        raise RunError(f"{path}: damaged ({why}); remove it to train from the start") from error
    if known != identity:
        differ = sorted(k for k in identity if known.get(k) != identity[k])
        raise RunError(f"{path}: holds a training with another {', '.join(differ)}; choose another --out, or remove it")
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except Exception as error:
        raise RunError(f"{path}: damaged ({first_line(error)}); remove it to train from the start") from error
    return history


def _is_line(line: object) -> bool:
    """Whether it is what is noted of an epoch."""
    number = (int, float)
    kinds: dict[str, Any] = {"epoch": int, "loss": number, "dev_eer": (*number, type(None))}
    kinds |= {"rate": number, "seconds": number}
    return isinstance(line, dict) and line.keys() == kinds.keys() and all(isinstance(line[n], k) for n, k in kinds.items())


def _portable(recipe: CountermeasureRecipe, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options for the card: without those that only say where training starts; of a path the last part, as other machines
    have other folders. Text with a slash that names no file here (`a/b`) stays as it is.
    """
    kept = {k: v for k, v in options.items() if k not in getattr(recipe, "initial", ())}
    return {k: Path(v).name if isinstance(v, str) and _is_path(v) else v for k, v in kept.items()}


def _is_path(text: str) -> bool:
    return os.sep in text and (os.path.isabs(text) or os.path.exists(text))


def _publish(recipe, model, corpora, out, identity, best, spec, device) -> Path:
    """The final weights, scores and card."""
    weights = out / f"{recipe.name}.safetensors"
    if spec.half:
        halved(model)
    save_weights(weights, model, half=spec.half)
    tables = []
    for split in ("dev", "eval"):
        table = evaluate(model, corpora, split, device=device)
        tables.append(table.assign(split=split))
    table = pd.concat(tables)
    write_text(out / "scores.csv", csv_text(table))
    hidden = held_out(corpora)
    trained = [u for c in corpora for u in c.utterances if u.split == "train" and u.vocoder not in hidden]
    card = {
        "name": recipe.name,
        "paper": recipe.paper,
        "options": _portable(recipe, identity["options"]),
        "classes": list(model.classes),
        "sample_rate": model.sample_rate,
        "n_samples": model.n_samples,
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_on": {
            "data": identity["data"],
            "utterances": len({u.source for u in trained}),
            "speakers": len({u.speaker for u in trained}),
            "vocoders": sorted({u.vocoder for u in trained} - {"bonafide"}),
            "held_out": hidden,
        },
        "spec": identity["spec"],
        "epoch": best[0],
        "averaged_epochs": best,
        "eer": {
            split: {
                "+".join(sorted(group.dataset.unique())): error_rates(group, hidden),
                **{name: error_rates(g, hidden) for name, g in group.groupby("dataset")},
            }
            for split, group in table.groupby("split")
        },
        "threshold": decision_threshold(tables[0], hidden),
        "made_with": {"torch": torch.__version__, "python": platform.python_version(), "device": device},
    }
    write_text(weights.with_suffix(".json"), json.dumps(card, indent=2) + "\n", flush=True)
    return weights
