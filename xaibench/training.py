"""Train a countermeasure on paired data, and evaluate it honestly.

A batch holds pairs: the same excerpt of a bona fide utterance and of one vocoded twin, so that speaker, words and level
cannot serve as a cue. Epoch `e` of seed `s` depends on `(s, e)` alone, so a resumed training continues the same course.
The weights that are kept are an exponential moving average; the epoch is chosen on the dev split without any held-out
vocoder.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from xaibench import audio
from xaibench.errors import RunError
from xaibench.frontends import LogPower
from xaibench.layers import deeplift_form
from xaibench.metrics.detection import equal_error_rate
from xaibench.protocols import Corpus, CountermeasureRecipe
from xaibench.scoring import bonafide_index, score_recordings
from xaibench.weights import load_weights, save_weights


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
    bfloat16: bool = True  # autocast of the convolutions while training (scores are always float32)

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_pairs) < 1:
            raise RunError(f"epochs and batch_pairs must be at least 1, got {self.epochs} and {self.batch_pairs}")


class Excerpts:
    """All training audio in memory (16 bit), at every speed, as `{source: [{vocoder: (N,)} per speed]}`."""

    def __init__(self, corpora: Sequence[Corpus], speeds: Sequence[float], weights: Mapping[str, float]) -> None:
        self.weights = weights
        self.audio: dict[str, list[dict[str, np.ndarray]]] = {}
        held_out = _held_out(corpora)
        for corpus in corpora:
            for u in corpus.utterances:
                if u.split != "train" or u.vocoder in held_out:
                    continue
                samples = audio.read(u.path, sample_rate=corpus.sample_rate)
                variants = self.audio.setdefault(u.source, [{} for _ in speeds])
                if u.vocoder in variants[0]:
                    raise RunError(f"{corpus.name}: a data set before it has {u.vocoder} of {u.source!r}, too; rename one")
                for variant, speed in zip(variants, speeds, strict=True):
                    changed = audio.resample(samples, round(corpus.sample_rate * speed), corpus.sample_rate)
                    variant[u.vocoder] = np.round(np.clip(changed, -1, 1) * 32767).astype(np.int16)
        self.sources = sorted(s for s, (first, *_) in self.audio.items() if "bonafide" in first and len(first) > 1)
        if not self.sources:
            raise RunError(
                f"no training pairs in {', '.join(c.name for c in corpora)}; expected a split named train with vocoded "
                f"twins that are not held out"
            )
        vocoders = {v for variants in self.audio.values() for v in variants[0]} - {"bonafide"}
        stray = sorted(set(weights) - vocoders)
        if stray:
            raise RunError(
                f"weights are set for {', '.join(stray)}; the vocoders to train on are {', '.join(sorted(vocoders))}"
            )

    def batch(self, sources: Sequence[str], n_samples: int, draw: np.random.Generator) -> np.ndarray:
        """Waveforms `(2 * len(sources), n_samples)`: all bona fide halves, then their vocoded twins."""
        real, fake = [], []
        for source in sources:
            variant = self.audio[source][draw.integers(len(self.audio[source]))]
            vocoders = sorted(v for v in variant if v != "bonafide")
            weights = np.array([self.weights.get(v, 1.0) for v in vocoders])
            vocoder = str(draw.choice(vocoders, p=weights / weights.sum()))
            length = min(len(variant["bonafide"]), len(variant[vocoder]))
            start = int(draw.integers(max(length - n_samples, 0) + 1))
            for half, name in ((real, "bonafide"), (fake, vocoder)):
                half.append(audio.fit(variant[name][start:length], n_samples))
        return np.stack(real + fake).astype(np.float32) / 32767


def augment_waveform(x: Tensor, spec: TrainSpec, draw: torch.Generator) -> Tensor:
    """Random level and, for half of the samples, white noise. Shape: `(B, N)` -> `(B, N)`."""
    gain = (torch.rand(len(x), 1, generator=draw) * 2 - 1) * spec.gain_db
    low, high = spec.noise_db
    level = torch.rand(len(x), 1, generator=draw) * (high - low) + low
    on = (torch.rand(len(x), 1, generator=draw) < 0.5).float()
    noise = torch.randn(x.shape, generator=draw)
    return x * 10 ** (gain / 20) + on * noise * 10 ** (level / 20)


def augment_tap(z: Tensor, deviation: Tensor, spec: TrainSpec, draw: torch.Generator) -> Tensor:
    """Random equaliser, then time and frequency masks at the mean (0). Shape: `(B, 1, F, T)` -> same."""
    batch, _, bins, frames = z.shape
    knots = torch.randn(batch, 1, 8, generator=draw) * spec.equaliser_db * math.log(10) / 10
    curve = nn.functional.interpolate(knots, size=bins, mode="linear", align_corners=True)
    z = z + (curve[:, 0, :, None] / deviation)[:, None]
    for size, longest, dim in ((bins, spec.frequency_mask, 2), (frames, spec.time_mask, 3)):
        position = torch.arange(size)
        for _ in range(2):
            width = torch.rand(batch, 1, generator=draw) * longest
            start = torch.rand(batch, 1, generator=draw) * (size - width)
            hidden = (position >= start) & (position < start + width)
            z = z.masked_fill(hidden[:, None, :, None] if dim == 2 else hidden[:, None, None, :], 0.0)
    return z


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


def _held_out(corpora: Sequence[Corpus]) -> list[str]:
    """What one data set holds out is held out of all."""
    return sorted({v for c in corpora for v in c.held_out})


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
    held_out = _held_out(corpora)
    judges = {u.bonafide for c in corpora for u in c.utterances if u.split == "dev" and u.vocoder not in held_out}
    if len(judges) < 2:
        raise RunError(
            f"{', '.join(c.name for c in corpora)}: no dev split with bona fide and vocoded utterances, held-out vocoders "
            f"aside; it chooses the epoch"
        )


def evaluate(
    model: nn.Module, corpora: Sequence[Corpus], split: str, *, device: str = "cpu", held_out: bool = True
) -> pd.DataFrame:
    """Score every utterance of a split: columns dataset, utterance, speaker, vocoder, score. `model` in eval()."""
    model.eval()
    hidden = () if held_out else _held_out(corpora)
    chosen = [(c, u) for c in corpora for u in c.utterances if u.split == split and u.vocoder not in hidden]
    scores = score_recordings(model, [audio.read(u.path, sample_rate=c.sample_rate) for c, u in chosen], device=device)
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
    device: str = "cpu",
    report: Callable[[dict], None] = lambda line: None,
) -> Path:
    """Train and write `out/NAME.safetensors` with its card `out/NAME.json`, `history.csv` and `scores.csv`.

    Every epoch ends with a checkpoint in `out/last.pt`; calling again continues there. `report` gets one dictionary an
    epoch. Raises RunError when `out` cannot be written or holds a training with another spec, for data that cannot be
    trained on or judged (no training pairs, fewer than a batch, no dev split, one class only, another sample rate, two
    data sets with one utterance), and for a loss that is not finite.
    """
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out}: cannot write here ({error.strerror}); choose another --out") from error
    identity = {"countermeasure": recipe.name, "spec": asdict(spec), "data": {c.name: c.hash for c in corpora}}
    identity = json.loads(json.dumps(identity))
    held_out = _held_out(corpora)
    model = recipe.untrained(seed=spec.seed).to(device, memory_format=torch.channels_last)
    _check_corpora(corpora, model.sample_rate)
    excerpts = Excerpts(corpora, spec.speeds, dict(spec.vocoder_weights))
    steps = len(excerpts.sources) // spec.batch_pairs
    if steps < 1:
        raise RunError(
            f"{len(excerpts.sources)} training utterances do not fill a batch; lower --batch-pairs {spec.batch_pairs}"
        )
    _fit_normalisation(model, excerpts, spec)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(spec.average), use_buffers=True
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, spec.learning_rate, total_steps=steps * spec.epochs + 1, pct_start=0.15
    )
    parts = {"model": model, "average": average, "optimiser": optimiser, "schedule": schedule}
    history, best = _resume(out / "last.pt", identity, parts)
    for epoch in range(len(history), spec.epochs):
        started = time.perf_counter()
        with deeplift_form(model):  # the backward pass of its ReLU form takes half the time of torch.maximum's on a CPU
            loss = _epoch(model, average, optimiser, schedule, excerpts, spec, epoch, device)
        rates = error_rates(evaluate(average.module, corpora, "dev", device=device, held_out=False), held_out)
        line = {
            "epoch": epoch,
            "loss": loss,
            "dev_eer": rates["pooled"],
            "rate": schedule.get_last_lr()[0],
            "seconds": time.perf_counter() - started,
        }
        history.append(line)
        if best is None or line["dev_eer"] <= best["dev_eer"]:
            best = line
            save_weights(out / "best.safetensors", average.module)
        pd.DataFrame(history).to_csv(out / "history.csv", index=False)
        _save(out / "last.pt", {"identity": identity, "history": history, "best": best}, parts)
        report(line)
    load_weights(model, out / "best.safetensors")
    return _publish(recipe, model, corpora, out, identity, best, held_out, device)


def _fit_normalisation(model: nn.Module, excerpts: Excerpts, spec: TrainSpec) -> None:
    """Per-band mean and deviation from 256 training excerpts, both halves, with their augmentation of the waveform."""
    frontend = model.frontend
    if not isinstance(frontend, LogPower):
        return
    draw = np.random.default_rng([spec.seed, 0])
    waves = excerpts.batch(draw.choice(excerpts.sources, 128), model.n_samples, draw)
    noisy = augment_waveform(torch.from_numpy(waves), spec, torch.Generator().manual_seed(spec.seed))
    frontend.fit(frontend.log_power(noisy.to(frontend.mean.device)))


def _epoch(model, average, optimiser, schedule, excerpts, spec, epoch, device) -> float:
    draw = np.random.default_rng([spec.seed, 1 + epoch])
    generator = torch.Generator().manual_seed(int(draw.integers(2**62)))
    torch.manual_seed(int(draw.integers(2**62)))  # dropout
    model.train()
    order = draw.permutation(excerpts.sources)
    steps = len(order) // spec.batch_pairs
    real = bonafide_index(model.classes)
    labels = torch.tensor([real] * spec.batch_pairs + [1 - real] * spec.batch_pairs, device=device)
    total = 0.0
    for step in range(steps):
        sources = order[step * spec.batch_pairs : (step + 1) * spec.batch_pairs]
        waves = torch.from_numpy(excerpts.batch(sources, model.n_samples, draw))
        with torch.no_grad():
            tap = model.frontend(augment_waveform(waves, spec, generator).to(device))
            if isinstance(model.frontend, LogPower):
                tap = augment_tap(tap.cpu(), model.frontend.deviation.cpu(), spec, generator).to(device)
            tap = tap.contiguous(memory_format=torch.channels_last)
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=spec.bfloat16):
            logits = model.backend(tap)
        loss = nn.functional.cross_entropy(logits.float(), labels, label_smoothing=spec.label_smoothing)
        if not torch.isfinite(loss):
            raise RunError(f"the loss is {loss.item()} at epoch {epoch}, step {step}; lower --learning-rate")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(model)
        total += loss.item()
    return total / steps


def _save(path: Path, facts: dict, parts: dict) -> None:
    scratch = path.with_suffix(".tmp")
    try:
        torch.save({**facts, **{name: part.state_dict() for name, part in parts.items()}}, scratch)
        os.replace(scratch, path)
    except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as a RuntimeError
        raise RunError(f"{path}: could not be written ({error}); the epoch before is safe, run again to continue") from error


def _resume(path: Path, identity: dict, parts: dict) -> tuple[list[dict], dict | None]:
    if not path.exists():
        return [], None
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise RunError(f"{path}: damaged ({str(error).splitlines()[0]}); remove it to train from the start") from error
    if state["identity"] != identity:
        differ = sorted(k for k in identity if state["identity"].get(k) != identity[k])
        raise RunError(f"{path}: holds a training with another {', '.join(differ)}; choose another --out, or remove it")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["history"], state["best"]


def _publish(recipe, model, corpora, out, identity, best, held_out, device) -> Path:
    """The final weights, scores and card."""
    weights = out / f"{recipe.name}.safetensors"
    save_weights(weights, model)
    tables = []
    for split in ("dev", "eval"):
        table = evaluate(model, corpora, split, device=device)
        tables.append(table.assign(split=split))
    table = pd.concat(tables)
    table.to_csv(out / "scores.csv", index=False)
    trained = [u for c in corpora for u in c.utterances if u.split == "train" and u.vocoder not in held_out]
    card = {
        "name": recipe.name,
        "paper": recipe.paper,
        "classes": list(model.classes),
        "sample_rate": model.sample_rate,
        "n_samples": model.n_samples,
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_on": {
            "data": identity["data"],
            "utterances": len({u.source for u in trained}),
            "speakers": len({u.speaker for u in trained}),
            "vocoders": sorted({u.vocoder for u in trained} - {"bonafide"}),
            "held_out": held_out,
        },
        "spec": identity["spec"],
        "epoch": best["epoch"],
        "eer": {
            split: {
                "+".join(sorted(group.dataset.unique())): error_rates(group, held_out),
                **{name: error_rates(g, held_out) for name, g in group.groupby("dataset")},
            }
            for split, group in table.groupby("split")
        },
        "made_with": {"torch": torch.__version__, "python": platform.python_version(), "device": device},
    }
    weights.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return weights
