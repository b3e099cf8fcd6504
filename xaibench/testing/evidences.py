"""What a metric is asked about: maps of a linear toy that hears exactly what was planted, with everything evidence has.

In every spoofed utterance two rectangles of the STFT are three times as loud as in its bona fide twin (`ADDED`) and one is
a tenth as loud (`MISSING`): the truth. The toy weighs these rectangles, by sign, and the other cells a little at random:
so the truth's own map is right, and gradient times (input - fill) is exact and complete.

A broken metric may write into what it is given, so every evidence has tensors of its own. Maps are made by a `Method`, a
function of the view, so that metrics that explain again get the same method's map of the changed recording or model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, reduce

import torch
from torch import Tensor

from xaibench import controls
from xaibench.harness.guard import private_tensors
from xaibench.metrics.again import Again, Change, bonafide_logit, opposite, parse, perturb, redraw, shifted
from xaibench.metrics.catalog import FRACTIONS
from xaibench.metrics.evidence import Evidence, Probe
from xaibench.testing import toys
from xaibench.truth import half, truth
from xaibench.types import Attribution
from xaibench.view import View, native_view

Method = Callable[[View], Tensor]

#: Utterances of a batch, and draws of the random map that stand for chance.
ROWS, DRAWS = (0, 1, 2), 20
#: Rectangles in cells of the toys' grid: first and one past the last row, first and one past the last frame.
ADDED, MISSING = ((5, 8, 8, 12), (18, 21, 33, 37)), ((9, 17, 20, 28),)
#: Spoof log-odds that all added cells together get for one unit of the normalised tap, and all missing cells lose.
WEIGHT = 2.0
#: Standard deviation of what is not planted: without it twins would agree to rounding, and rounding would decide.
HUM = 1e-3


def oracle(view: View) -> Tensor:
    """The truth as a map: its region first, the rest in the order of the difference. Shape: `(B, F, T)`."""
    return controls.oracle.function(view)


def half_of(which: str) -> Method:
    """The cells of the truth where energy was "added", or where it is "missing", as a map."""
    return lambda view: half(view.known_truth(), which).float()


def moved(view: View) -> Tensor:
    """The truth at another place (`controls.moved_truth`). Shape: `(B, F, T)`."""
    return controls.moved_truth.function(view)


def reverse(view: View) -> Tensor:
    """The truth turned upside down: its region last. Shape: `(B, F, T)`."""
    return -oracle(view)


def chance(draw: int) -> Method:
    """Uniform noise, its seed the utterance and the draw."""
    return lambda view: controls.random_map.function(replace(view, seed=draw))


def constant(view: View) -> Tensor:
    """One everywhere. Shape: `(B, F, T)`."""
    return torch.ones(len(view), *view.shape)


def silent(view: View) -> Tensor:
    """Zero everywhere. Shape: `(B, F, T)`."""
    return torch.zeros(len(view), *view.shape)


def exact(fill: str) -> Method:
    """Gradient times (input - fill): exact and complete, because the toy is linear in its tap."""

    def explain(view: View) -> Tensor:
        x = view.inputs.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(view.model(x).sum(), x)
        return (gradient * (view.inputs - view.fill(fill))).sum(1)

    return explain


def planted(rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Spoofed and bona fide waveforms `(B, n_samples)` of these utterances: noise, and the same noise with rectangles."""
    bonafide = toys.utterances(rows)[1]
    gain = torch.ones(toys.SHAPE)
    for low, high, start, end in ADDED:
        gain[low:high, start:end] = 3.0
    for low, high, start, end in MISSING:
        gain[low:high, start:end] = 0.1
    hum = torch.stack([torch.randn(toys.N_SAMPLES, generator=torch.Generator().manual_seed(2_000 + row)) for row in rows])
    return toys.GRID.istft(toys.GRID.stft(bonafide) * gain, toys.N_SAMPLES) + HUM * hum, bonafide


@cache
def toy() -> toys.LinearToy:
    """The countermeasure: about +3 log-odds for a planted utterance and -3 for its twin."""
    weight = 2e-3 * torch.randn(toys.SHAPE, generator=torch.Generator().manual_seed(0))
    for places, sign in ((ADDED, 1.0), (MISSING, -1.0)):
        cells = sum((high - low) * (end - start) for low, high, start, end in places)
        for low, high, start, end in places:
            weight[low:high, start:end] += sign * WEIGHT / cells
    cm = toys.LinearToy(weight, bias=0.0)
    with torch.no_grad():
        odds = [-(logits[:, 1] - logits[:, 0]).mean() for logits in map(cm, planted(ROWS))]
        cm.backend.get_parameter("1.bias")[0] -= (odds[0] + odds[1]) / 2
    return cm


@cache
def _seen(rows: tuple[int, ...]) -> View:
    """The view of these utterances; never handed out."""
    spoof, bonafide = planted(rows)
    known, energy = truth(spoof, bonafide, grid=toys.GRID, band=toys.BAND), toys.GRID.stft(spoof).abs()
    ids = [f"utterance-{row}/toy" for row in rows]
    return native_view(toy(), spoof, bonafide, planted(range(100, 104))[1], ids, truth=known, energy=energy)


def evidence(method: Method, rows: Sequence[int] = ROWS) -> Evidence:
    """Evidence of the utterances of these numbers, with nothing shared."""
    seen = private_tensors(_seen(tuple(rows)))
    view = replace(seen, model=seen.private_model())
    maps = method(view)

    def again(change: str) -> Again:
        other = reduce(lambda seen, one: _changed(seen, one, rows), parse(change), view)
        return Again(method(other), other.inputs)

    known = view.known_truth()
    probe = Probe(view, known.valid, FRACTIONS["quick"])
    return Evidence(Attribution(maps, *view.axes), maps, known, probe, again)


def _changed(view: View, change: Change, rows: Sequence[int]) -> View:
    """As `xaibench.harness.again` does it in a run."""
    if change.of_recording:
        spoof, bonafide = planted(rows)
        heard = native_view(toy(), perturb(spoof, change, view.ids, grid=toys.GRID), bonafide, bonafide[:0], view.ids)
        return replace(view, inputs=heard.inputs)
    if change.name == "randomised":
        model = copy.deepcopy(view.model)
        redraw(model, change.values[0], 0)
        return replace(view, model=model)
    if change.name == "bonafide-logit":
        return bonafide_logit(view, toys.Toy.classes)
    return opposite(view) if change.name == "opposite" else shifted(view, change.values[0])
