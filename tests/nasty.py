"""Inputs that nobody would make on purpose, by name, and evidence made of them: for the fuzz of the metrics.

An *utterance* here is a map, a truth and a countermeasure's behaviour, each of a kind below, with a seed. A batch holds
utterances of different kinds on the same axes; any of them can be had alone, with the very same numbers, because every
draw is fixed by the utterance's own seed. Maps `(B, F, T)`, positive = evidence for spoof. Spoof log-odds, higher = more
spoofed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from xaibench.metrics.again import Again
from xaibench.metrics.evidence import Evidence, Probe
from xaibench.types import Attribution, Axis, Truth
from xaibench.view import View

Shape = tuple[int, int]

#: One cell, one frame, one frequency, primes, larger than a region of 9 x 9, wide and tall.
SHAPES: tuple[Shape, ...] = ((1, 1), (1, 2), (2, 1), (1, 23), (19, 1), (2, 3), (7, 5), (5, 11), (13, 29), (31, 3))


def _one_cell(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    values = np.zeros(shape)
    values.flat[rng.integers(values.size)] = rng.choice([1.0, -1.0, 1e-42, 3e38])
    return values


def _but(value: float) -> Callable[[np.random.Generator, Shape], np.ndarray]:
    """Noise with one cell of this value."""

    def make(rng: np.random.Generator, shape: Shape) -> np.ndarray:
        values = rng.standard_normal(shape)
        values.flat[rng.integers(values.size)] = value
        return values

    return make


#: Maps by kind. All are within float32's range; those of `NOT_FINITE` hold a cell that is no number.
MAPS: dict[str, Callable[[np.random.Generator, Shape], np.ndarray]] = {
    "noise": lambda rng, shape: rng.standard_normal(shape),
    "zero": lambda rng, shape: np.zeros(shape),
    "minus zero": lambda rng, shape: np.full(shape, -0.0),
    "both zeros": lambda rng, shape: rng.choice([0.0, -0.0], shape),
    "constant": lambda rng, shape: np.full(shape, rng.choice([1.0, -1.0, 0.1, 1e-45, -3e38, 3.0])),
    "nearly constant": lambda rng, shape: 1 + 1e-7 * rng.integers(-2, 3, shape),
    "one cell": _one_cell,
    "two values": lambda rng, shape: rng.choice([0.0, 1.0], shape),
    "ties": lambda rng, shape: rng.integers(-2, 3, shape).astype(float),
    "negative": lambda rng, shape: -rng.random(shape),
    "positive": lambda rng, shape: rng.random(shape),
    "tiny": lambda rng, shape: rng.integers(-3, 4, shape) * 1.4e-45,
    "huge": lambda rng, shape: rng.choice([-1.0, 1.0], shape) * 10 ** rng.uniform(30, 38.4, shape),
    "all scales": lambda rng, shape: rng.choice([-1.0, 1.0], shape) * 10 ** rng.uniform(-44, 38, shape),
    "a gradient": lambda rng, shape: np.arange(float(shape[0] * shape[1])).reshape(shape),
    "cancelling": lambda rng, shape: np.resize([1.0, -1.0], shape),
    "NaN": _but(np.nan),
    "inf": _but(np.inf),
    "-inf": _but(-np.inf),
}
NOT_FINITE = ("NaN", "inf", "-inf")

#: Regions by kind, of the values that the truth has, `(F, T)`.
REGIONS: dict[str, Callable[[np.random.Generator, np.ndarray], np.ndarray]] = {
    "top": lambda rng, values: values >= np.quantile(values, 0.9),
    "random": lambda rng, values: rng.random(values.shape) < 0.3,
    "empty": lambda rng, values: np.zeros(values.shape, bool),
    "full": lambda rng, values: np.ones(values.shape, bool),
    "one": lambda rng, values: np.arange(values.size).reshape(values.shape) == rng.integers(values.size),
    "frames": lambda rng, values: np.broadcast_to(rng.random(values.shape[1]) < 0.5, values.shape),
    "all but one": lambda rng, values: np.arange(values.size).reshape(values.shape) != rng.integers(values.size),
}

#: The truth's values by kind, not negative.
AMOUNTS: dict[str, Callable[[np.random.Generator, Shape], np.ndarray]] = {
    "noise": lambda rng, shape: np.abs(rng.standard_normal(shape)),
    "zero": lambda rng, shape: np.zeros(shape),
    "constant": lambda rng, shape: np.full(shape, 0.3),
    "ties": lambda rng, shape: rng.integers(0, 3, shape).astype(float),
    "tiny": lambda rng, shape: rng.integers(0, 4, shape) * 1.4e-45,
    "huge": lambda rng, shape: 10 ** rng.uniform(30, 38, shape),
    "silence": lambda rng, shape: rng.choice([0.0, 1e8], shape),
}

#: Valid cells by kind; "none" is what no metric takes.
VALID: dict[str, Callable[[np.random.Generator, Shape], np.ndarray]] = {
    "all": lambda rng, shape: np.ones(shape, bool),
    "band": lambda rng, shape: np.broadcast_to((np.arange(shape[0]) >= shape[0] // 3)[:, None], shape).copy(),
    "one bin": lambda rng, shape: np.broadcast_to((np.arange(shape[0]) == rng.integers(shape[0]))[:, None], shape).copy(),
    "one cell": lambda rng, shape: (np.arange(shape[0] * shape[1]) == rng.integers(shape[0] * shape[1])).reshape(shape),
    "scattered": lambda rng, shape: rng.random(shape) < 0.6,
    "none": lambda rng, shape: np.zeros(shape, bool),
}

#: What the spoof log-odds are made of the weighted sum of the input, `(M,)` -> `(M,)`.
ANSWERS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda s: s,
    "certain": lambda s: 1e4 * torch.sign(s),
    "saturated": lambda s: 60 * torch.tanh(s),
    "constant": lambda s: torch.full_like(s, 0.25),
    "zero": torch.zeros_like,
    "steps": torch.round,
    "huge": lambda s: 1e37 * torch.tanh(s),
    "wrong way round": lambda s: -s,
    "NaN": lambda s: torch.full_like(s, torch.nan),
    "NaN when masked": lambda s: torch.where(s.abs() > 0.5, s, torch.nan),
    "inf": lambda s: torch.where(s > 0, torch.inf, -torch.inf),
    "overflows": lambda s: torch.where(s.abs() < 10, torch.exp(1000 * s.abs()), s),
}
#: Those whose answers are numbers, always.
ANSWERS_FINITE = tuple(n for n in ANSWERS if n not in ("NaN", "NaN when masked", "inf", "overflows"))


@dataclass(frozen=True)
class Utterance:
    """The kinds of what belongs to one utterance, and its seed."""

    map: str
    region: str = "top"
    amount: str = "noise"
    answer: str = "plain"
    seed: int = 0

    def rng(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, purpose])


class Answering(nn.Module):
    """Spoof log-odds of a tensor `(M, C, F, T)`: a weighted sum, and what each utterance's kind makes of it.

    The utterance of an input is written in a channel that no fill replaces by another number, so that one model gives every
    utterance answers of its own kind. Sums are of one row each, so they do not depend on the batch.
    """

    def __init__(self, weight: Tensor, kinds: Sequence[str]) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.kinds = tuple(kinds)

    def forward(self, x: Tensor) -> Tensor:
        sums = torch.stack([(row[0].double() * self.weight.double()).sum() for row in x]).float()
        kinds = x[:, 1, 0, 0].round().long().tolist()
        out = torch.empty_like(sums)
        for kind in set(kinds):
            at = torch.tensor([k == kind for k in kinds])
            out[at] = ANSWERS[self.kinds[kind]](sums[at])
        return out[:, None]


def axes(shape: Shape) -> tuple[Axis, Axis]:
    return Axis("frequency", np.linspace(0, 8000, shape[0] + 1)), Axis("time", np.arange(shape[1] + 1) * 0.01)


def maps_of(utterances: Sequence[Utterance], shape: Shape, dtype: torch.dtype, *, draw: int = 0) -> Tensor:
    """The utterances' maps `(B, F, T)`; `draw` counts the maps that a method makes of the same utterance."""
    found = [MAPS[u.map](u.rng(10 + draw), shape) for u in utterances]
    most = torch.finfo(dtype).max
    values = torch.from_numpy(np.stack(found))
    return torch.where(values.isfinite(), values.clamp(-most, most), values).to(dtype)


def truth_of(utterances: Sequence[Utterance], shape: Shape, valid: str, seed: int) -> Truth:
    """Their truths, on valid cells that all share."""
    mask = VALID[valid](np.random.default_rng([seed, 99]), shape)
    values = np.stack([AMOUNTS[u.amount](u.rng(1), shape) for u in utterances])
    region = np.stack([REGIONS[u.region](u.rng(2), v) for u, v in zip(utterances, values, strict=True)])
    added = np.stack([u.rng(3).random(shape) < 0.5 for u in utterances])
    values = torch.from_numpy(values).float()
    return Truth(values, torch.from_numpy(region), torch.from_numpy(mask), "eq2", added=torch.from_numpy(added))


def view_of(utterances: Sequence[Utterance], shape: Shape) -> View:
    """A view whose countermeasure answers each utterance in its own way."""
    kinds = tuple(ANSWERS)
    weight = torch.from_numpy(np.random.default_rng(5).standard_normal(shape)).float()
    tones = torch.stack(
        [torch.from_numpy(u.rng(4).standard_normal(shape)).float() + weight / weight.norm() for u in utterances]
    )
    twins = torch.stack([torch.from_numpy(u.rng(5).standard_normal(shape)).float() for u in utterances])
    which = torch.tensor([float(kinds.index(u.answer)) for u in utterances])[:, None, None].expand(-1, *shape)
    inputs, twin = torch.stack([tones, which], 1), torch.stack([twins, which], 1)
    mark = torch.stack([torch.zeros_like(which), which], 1)
    fills = {"silence": mark, "mean": mark + torch.tensor([0.1, 0.0])[:, None, None], "twin": twin}
    model = nn.Sequential(OrderedDict(backend=Answering(weight / weight.norm(), kinds))).eval()
    ids = tuple(f"utterance-{u.seed}/toy" for u in utterances)
    return View("native", model, inputs, axes(shape), fills, inputs[:0], (), ids, frozenset({"gradients"}), batch_size=4)


def evidence_of(
    utterances: Sequence[Utterance], shape: Shape, *, dtype: torch.dtype = torch.float32, valid: str = "all", seed: int = 0,
    again: str = "",
) -> Evidence:  # fmt: skip
    """All that a metric may ask of these utterances. `again`: the kind of the method's maps under a change.

    Raises XaibenchError as `Probe` does, for no valid cell.
    """
    view, known = view_of(utterances, shape), truth_of(utterances, shape, valid, seed)
    maps = maps_of(utterances, shape, dtype)
    probe = Probe(view, known.valid, (0.05, 0.2, 0.5, 0.9))

    def asked(change: str) -> Again:
        number = sum(change.encode()) % 50
        other = [Utterance(again or u.map, seed=u.seed) for u in utterances]
        moved = torch.stack([torch.from_numpy(u.rng(200 + number).standard_normal(shape)).float() for u in utterances])
        return Again(maps_of(other, shape, dtype, draw=1 + number), view.inputs + 0.01 * moved[:, None])

    return Evidence(Attribution(maps, *view.axes), maps, known, probe, asked)
