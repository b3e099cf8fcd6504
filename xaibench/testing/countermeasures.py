"""The rules of countermeasures: what every method, metric and page takes for granted, asked of the recipe and its module.

Asked is the countermeasure with the weights that ship with its package, else an untrained one of seed 0; on the CPU, in
eval mode, with signals made from a seed. The rules of the tap and its axes are in `xaibench.testing.taps`, those of what it
survives in `xaibench.testing.handling`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xaibench import audio, registry
from xaibench.errors import CheckpointError, PluginError, XaibenchError
from xaibench.manifest import pairs
from xaibench.metrics.detection import equal_error_rate
from xaibench.protocols import Countermeasure, CountermeasureRecipe, TorchModule
from xaibench.scoring import bonafide_index, score_recordings
from xaibench.testing.rules import Broken, NotApplicable, Seen, Subject, rule
from xaibench.testing.signals import noise
from xaibench.types import Pair
from xaibench.weights import load_weights, read_card, weights_hash

#: Largest difference of one answer given twice, as a share of the largest logit (or of 1, if that is less).
SAME, NEAR = 1e-6, 1e-4
#: Labelled pairs that the order of the classes is asked on.
PAIRS = 8


# ---- what the rules share --------------------------------------------------------------------------------------------


def built(subject: Subject) -> Countermeasure:
    """The countermeasure, shared by all rules: whoever changes it takes a copy. Raises NotApplicable if it is not built."""

    def make() -> Countermeasure:
        try:
            made = trained(subject)
        except (CheckpointError, PluginError):  # the rule `checkpoint` says what is wrong with the weights
            made = None
        return _untrained(subject) if made is None else made

    return subject.once("built", make)


def _untrained(subject: Subject) -> Countermeasure:
    try:
        return subject.thing.untrained(seed=0).eval()
    except Exception as error:
        raise NotApplicable(f"it cannot be built ({type(error).__name__}: {error}); the rule `seeded` says why") from error


def trained(subject: Subject) -> Countermeasure | None:
    """The countermeasure with its shipped weights, built as its card says; None where none ship. Raises as loading does."""
    path = subject.thing.shipped()
    if path is None:
        return None
    return _loaded(subject.thing, path)


def _loaded(recipe: CountermeasureRecipe, path: Path) -> Countermeasure:
    cm = recipe.untrained(seed=0, **read_card(path).get("options", {}))
    load_weights(cm, path)
    return cm.eval()


def heard(subject: Subject, count: int = 3) -> Tensor:
    """Noise as long as the countermeasure listens. Shape: `(count, n_samples)`."""
    return noise(count, built(subject).n_samples)


@torch.no_grad()
def logits(cm: Countermeasure, waveforms: Tensor) -> Tensor:
    """The answers, without a gradient. Shape: `(B, N)` -> `(B, K)`."""
    return cm(waveforms)


def gap(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest absolute value or of 1, if that is more."""
    return float((one - other).abs().max() / one.abs().max().clamp_min(1.0))


def tensors(model: TorchModule) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer, those too that a checkpoint leaves out."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def listed(names: Sequence[str]) -> str:
    """Up to four names, and how many more.

    >>> listed(["a", "b", "c", "d", "e"])
    'a, b, c, d and 1 more'
    """
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


# ---- the recipe ------------------------------------------------------------------------------------------------------


@rule(
    "countermeasure", "seeded", "One seed builds the same weights twice, another seed others, and torch's own draws go on."
)
def seeded(subject: Subject) -> Seen:
    """What `xaibench train --seed` promises; read off every parameter and buffer."""
    recipe, before = subject.thing, torch.random.get_rng_state()
    one, same, other = (recipe.untrained(seed=seed) for seed in (3, 3, 4))
    moved = [n for (n, a), (_, b) in zip(tensors(one), tensors(same), strict=True) if not torch.equal(a, b)]
    if moved:
        raise Broken(
            f"two builds with seed 3 differ in {len(moved)} tensors, the first is {moved[0]!r}; expected equal weights. "
            "Does it draw from numpy, or from a generator of its own? Recipe.untrained seeds torch's"
        )
    if not torch.equal(torch.random.get_rng_state(), before):
        raise Broken("building it moved torch's random numbers; expected them as before. Build within torch.random.fork_rng")
    if not any(p.requires_grad for p in one.parameters()):
        return Seen(0, "equal weights from one seed; it has no parameters to train, so another seed changes nothing")
    if weights_hash(one) == weights_hash(other):
        raise Broken("seeds 3 and 4 build the same weights; expected different ones. Does it set a seed of its own?")
    return Seen(sum(p.numel() for p in one.parameters()), "equal weights from one seed, different ones from another")


@rule("countermeasure", "options", "Options have defaults that a card can hold, and an unknown option is refused by name.")
def options(subject: Subject) -> Seen:
    """The card of a checkpoint records the options, in JSON, and the countermeasure is rebuilt from them."""
    recipe = subject.thing
    known = dict(recipe.options)
    try:
        json.dumps(known)
    except TypeError as error:
        raise Broken(
            f"its options {known} cannot be written on a checkpoint's card ({error}); expected JSON values"
        ) from error
    try:
        recipe.untrained(seed=0, no_such_option=1)
    except PluginError as error:
        if "no_such_option" not in str(error):
            raise Broken(f"an unknown option is refused with {str(error)!r}; expected its name in the sentence") from error
        return Seen(len(known), f"options: {', '.join(known) or 'none'}; an unknown one is refused")
    except TypeError as error:
        raise Broken(
            f"an unknown option raises TypeError ({error}); expected a PluginError that names those there are"
        ) from error
    raise Broken("the option no_such_option=1 was taken in silence; expected a PluginError. Does `build` take **options?")


@rule("countermeasure", "checkpoint", "Shipped weights load, and their card says name, classes and training data.")
def checkpoint(subject: Subject) -> Seen:
    """Where none ship, the recipe's `obtain` says how to get weights."""
    recipe = subject.thing
    path = recipe.shipped()
    if path is None:
        if not recipe.obtain.strip():
            raise Broken("no weights ship and `obtain` is empty; expected one sentence that says how to get weights")
        return Seen(None, f"none ship; {recipe.obtain}")
    card, cm = read_card(path), _loaded(recipe, path)
    data = dict(card.get("trained_on", {})).get("data")
    found = {"name": card.get("name"), "classes": card.get("classes"), "n_samples": card.get("n_samples", cm.n_samples)}
    wanted = {"name": recipe.name, "classes": list(cm.classes), "n_samples": cm.n_samples}
    wrong = [key for key in wanted if found[key] != wanted[key]]
    if wrong:
        key = wrong[0]
        raise Broken(
            f"{path.name}: its card says {key} {found[key]!r}, the countermeasure {wanted[key]!r}; one of them is stale"
        )
    if not data:
        raise Broken(
            f"{path.name}: its card says nothing in trained_on.data; expected the training data by name. A countermeasure "
            "that was trained on the evaluation speech looks better than it is"
        )
    names = ", ".join(data) if isinstance(data, Mapping) else str(data)
    return Seen(
        path.stat().st_size / 1e6, f"{path.stat().st_size / 1e6:.1f} MB load; classes {', '.join(cm.classes)}; {names}"
    )


# ---- the answers -----------------------------------------------------------------------------------------------------


@rule("countermeasure", "contract", "It has every part of the contract, in the right type.")
def contract(subject: Subject) -> Seen:
    """Sample rate, length, classes, front end, back end, axes, mean tap and layers."""
    cm = built(subject)
    parts = ("sample_rate", "n_samples", "classes", "frontend", "backend", "axes", "mean_tap", "layers")
    missing = [part for part in parts if not hasattr(cm, part)]
    if missing:
        raise Broken(f"it has no {', '.join(missing)}; expected {', '.join(parts)} (xaibench.protocols.Countermeasure)")
    for name in ("sample_rate", "n_samples"):
        value = getattr(cm, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise Broken(f"{name} is {value!r}; expected a whole number of {'Hz' if name == 'sample_rate' else 'samples'}")
    strangers = [n for n in ("frontend", "backend") if not isinstance(getattr(cm, n), nn.Module)]
    if strangers or not isinstance(cm, nn.Module):
        raise Broken(f"{' and '.join(strangers) or 'it'} is no torch.nn.Module; methods hook, copy and move modules")
    return Seen(cm.n_samples, f"{cm.n_samples} samples at {cm.sample_rate} Hz")


@rule("countermeasure", "classes", "Exactly one of two or more classes is called bonafide.")
def classes(subject: Subject) -> Seen:
    """Confusing the order flips every explanation, so the bona fide logit is found by name."""
    names = list(built(subject).classes)
    try:
        index = bonafide_index(names)
    except PluginError as error:
        raise Broken(str(error)) from error
    return Seen(index, f"logit {index} of {', '.join(names)} is bona fide")


@rule("countermeasure", "logits", "Its answer is one finite float32 logit a class, for noise, silence and full scale.")
def answers(subject: Subject) -> Seen:
    """Shape `(B, K)`; also for a batch as large as none of the other sizes."""
    cm = built(subject)
    kinds = {"noise": heard(subject), "silence": torch.zeros(2, cm.n_samples), "full scale": heard(subject, 2).sign()}
    largest = 0.0
    for what, waveforms in kinds.items():
        out = logits(cm, waveforms)
        if tuple(out.shape) != (len(waveforms), len(cm.classes)):
            raise Broken(
                f"for {tuple(waveforms.shape)} waveforms it gives {tuple(out.shape)}; expected logits ({len(waveforms)}, "
                f"{len(cm.classes)}), one a class. Does it return embeddings, or squeeze a batch?"
            )
        if out.dtype != torch.float32:
            raise Broken(
                f"its logits are {out.dtype}; expected float32. Did a buffer made by numpy turn the sum to float64?"
            )
        if not bool(out.isfinite().all()):
            count = int((~out.isfinite()).sum())
            raise Broken(
                f"{count} of {out.numel()} logits for {what} are NaN or infinite; a logarithm or a division of zero?"
            )
        largest = max(largest, float(out.abs().max()))
    return Seen(largest, f"finite for {', '.join(kinds)}; the largest is {largest:.3g}")


@rule("countermeasure", "class-order", "On labelled clips bona fide speech scores higher than spoofed speech.")
def class_order(subject: Subject) -> Seen:
    """EER over `PAIRS` pairs of an evaluation split, without held-out vocoders; needs weights."""
    if subject.thing.shipped() is None:
        raise NotApplicable("no weights ship with it, and an untrained countermeasure guesses")
    cm, card = built(subject), read_card(subject.thing.shipped())
    source, own, chosen = labelled(cm, card)
    files = [half for pair in chosen for half in pair.halves]
    recordings = [audio.read(u.path, sample_rate=cm.sample_rate) for u in files]
    scores = score_recordings(cm, recordings)
    real, fake = (scores[[u.bonafide == want for u in files]] for want in (True, False))
    eer = equal_error_rate(real, fake)
    # Of other data than its own it may know nothing; beyond guessing by a standard deviation it has the order wrong.
    limit = 0.5 if own else 0.5 + 0.5 / len(real) ** 0.5
    means = f"bona fide {real.mean():.2f} and spoofed {fake.mean():.2f} on average"
    seen = f"EER {eer:.0%} on {len(chosen)} pairs of {source}, {means}"
    if not np.isfinite(scores).all() or eer >= limit or (own and real.mean() <= fake.mean()):
        raise Broken(
            f"{seen} (log-odds of bona fide); expected an EER below {limit:.0%}. Are the classes in the right order?"
        )
    return Seen(eer, seen)


def labelled(cm: Countermeasure, card: Mapping[str, Any]) -> tuple[str, bool, list[Pair]]:
    """Pairs to ask the order of the classes on: the data set's name, whether it was trained on it, and the pairs.

    Of the data sets that its card names the first that is here, else minivoc. Raises NotApplicable without any.
    """
    about = card.get("trained_on") or {}
    names = list(about.get("data") or ()) if isinstance(about.get("data"), Mapping) else []
    for name in dict.fromkeys((*names, "minivoc")):
        try:
            corpus = registry.open_corpus(name)
        except XaibenchError:
            continue  # not installed, or its files are not here
        vocoders = {u.vocoder for u in corpus.utterances} - {"bonafide", *about.get("held_out", corpus.held_out)}
        found = [p for p in pairs(corpus, split="eval", vocoders=vocoders) if p.bonafide is not None]
        if corpus.sample_rate == cm.sample_rate and found:
            return name, name in names, found[:: max(1, len(found) // PAIRS)][:PAIRS]
    raise NotApplicable(
        f"no labelled clips at {cm.sample_rate} Hz are here: install xaibench-minivoc, or index "
        f"{', '.join(names) or 'a data set'}"
    )


@rule("countermeasure", "batch-invariance", "A recording has the same logits alone and in a batch.")
def batch_invariance(subject: Subject) -> Seen:
    """Three recordings of different level, relative to the largest logit."""
    cm, waveforms = built(subject), heard(subject, 3) * torch.tensor([[1.0], [0.1], [3.0]])
    together = logits(cm, waveforms)
    alone = torch.cat([logits(cm, one[None]) for one in waveforms])
    return same(together, alone, NEAR, "a recording alone and in a batch", "Does it normalise over the batch?")


@rule("countermeasure", "padding-invariance", "A short recording scores as its repetition, beside long ones or alone.")
def padding_invariance(subject: Subject) -> Seen:
    """The contract cuts or repeats to `n_samples`, and a long recording is scored by windows."""
    cm = built(subject)
    long = noise(1, cm.n_samples + cm.n_samples // 3, seed=1)[0].numpy()
    short = long[: max(1, 2 * cm.n_samples // 5)]
    repeated = audio.fit(short, cm.n_samples)
    beside = score_recordings(cm, [short, long, repeated], batch_size=2)
    alone = score_recordings(cm, [repeated], batch_size=1)
    scores = torch.from_numpy(np.array([beside[0], beside[2], alone[0]]))
    return same(
        scores, scores[2].expand(3), NEAR, "a recording of two fifths of n_samples and its repetition",
        "Does an answer depend on what stands beside it, or came before?",
    )  # fmt: skip


@rule("countermeasure", "deterministic", "In eval mode the same recording has the same logits every time.")
def deterministic(subject: Subject) -> Seen:
    """torch's generator is seeded anew between the two looks."""
    cm, waveforms = built(subject), heard(subject, 2)
    first = logits(cm, waveforms)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(12_345)
        second = logits(cm, waveforms)
    return same(first, second, SAME, "two looks at the same recordings", "Is dropout on in eval mode, or noise added?")


def same(one: Tensor, other: Tensor, tolerance: float, what: str, cause: str) -> Seen:
    """Seen, where two answers agree to a tolerance; else Broken, with the likely cause. Logits or scores of one shape."""
    found = gap(one, other)
    if not found <= tolerance:
        raise Broken(f"{what} differ by {found:.2g} of the largest logit; expected at most {tolerance:g}. {cause}")
    return Seen(found, f"{what} differ by {found:.2g}")
