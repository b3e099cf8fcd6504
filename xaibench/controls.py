"""The rows between which every method stands: floors that know nothing of the countermeasure, and the ceiling.

If a famous method does not beat `inverse-energy` or `frequency-prior`, the board must say so.

Two *shams* are as large and as shaped as the truth, and in the wrong place: they say whether a countermeasure that gives
way when the truth is deleted would not give way to any hole of that size (`moved-truth`), or to any cells as loud
(`energy-matched`). `xaibench.extremal` has the ceiling of faithfulness.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xaibench.errors import Unsupported
from xaibench.protocols import attributor
from xaibench.view import View


def _energy(view: View) -> Tensor:
    """|STFT| of the vocoded speech on the view's axes. Shape: `(B, F, T)`. Raises Unsupported without one."""
    if view.energy is not None:
        return view.energy
    if view.route != "grid":  # a tap may be normalised, so its size says nothing of energy
        raise Unsupported("the energy of the vocoded speech was not given to this view of the native route")
    return view.inputs.square().sum(1).sqrt()


@attributor(name="random", paper="control: uniform noise", random=True, class_specific=False, control=True)
def random_map(view: View) -> Tensor:
    """Independent uniform values."""
    maps = [torch.rand(view.shape, generator=view.generator(i)) for i in range(len(view))]
    return torch.stack(maps).to(view.device)


@attributor(name="constant", paper="control: every cell equal", signed=False, class_specific=False, control=True)
def constant(view: View) -> Tensor:
    """One everywhere: every tie rule shows here."""
    return torch.ones(len(view), *view.shape, device=view.device)


@attributor(
    name="energy", paper="control: magnitude of the vocoded speech", signed=False, class_specific=False, control=True
)
def energy(view: View) -> Tensor:
    """Loud cells first: |STFT of the vocoded utterance|."""
    return _energy(view)


@attributor(
    name="inverse-energy", paper="control: 1 / magnitude of the vocoded speech", signed=False, class_specific=False,
    control=True,
)  # fmt: skip
def inverse_energy(view: View) -> Tensor:
    """Quiet cells first: 1 / |STFT|. Eq. 2 divides by energy, so this knows more than it seems."""
    return 1 / _energy(view).clamp_min(1e-12)


@attributor(
    name="frequency-prior", paper="control: mean training truth per frequency", needs=["prior"], signed=False,
    class_specific=False, control=True,
)  # fmt: skip
def frequency_prior(view: View) -> Tensor:
    """How often training pairs have truth at that frequency (the mean of their regions): the same in every frame."""
    if view.prior is None:
        raise Unsupported("this view holds no prior: the data set has no training pairs")
    return view.prior.to(view.device)[None, :, None].expand(len(view), *view.shape).contiguous()


@attributor(name="centre", paper="control: nearness to the centre", signed=False, class_specific=False, control=True)
def centre(view: View) -> Tensor:
    """A Gaussian on the middle of the map, a quarter of it wide."""
    f = torch.linspace(-2, 2, view.shape[0], device=view.device)
    t = torch.linspace(-2, 2, view.shape[1], device=view.device)
    bump = torch.exp(-0.5 * (f[:, None].square() + t[None, :].square()))
    return bump.expand(len(view), -1, -1).contiguous()


@attributor(
    name="oracle", paper="ceiling: the truth itself", needs=["truth"], signed=False, class_specific=False, control=True
)
def oracle(view: View) -> Tensor:
    """The truth: its region, and within and outside it the cells in the order of D.

    Not D itself, whose few largest values (it divides by the energy of bona fide speech) would decide every sum over
    cells: the time marginal of D is no ceiling of the metrics that look at frames.
    """
    truth = view.known_truth()
    region, flat = truth.region, truth.values.flatten(1)
    ranks = flat.argsort(dim=1, stable=True).argsort(dim=1).to(flat.dtype).view_as(truth.values)
    # Small beside the region; apart by more than float32 rounds, as ranks within the region are counted from its own first.
    first = ranks.masked_fill(~region, torch.inf).flatten(1).amin(1).clamp_max(flat.shape[1])[:, None, None]
    return torch.where(region, 1 + 1e-3 * (ranks - first) / flat.shape[1], 1e-3 * ranks / flat.shape[1])


@attributor(
    name="moved-truth", paper="sham: the truth, moved elsewhere", needs=["truth"], signed=False, random=True,
    class_specific=False, control=True,
)  # fmt: skip
def moved_truth(view: View) -> Tensor:
    """The oracle's map, shifted in a circle by at least a quarter of the recording and of the valid band.

    The shape of the region, its clusters and its size stay; what it has to do with the vocoder goes. Each utterance has a
    shift of its own. Where nothing tells frequencies apart, only time moves.
    """
    best, rows = oracle.function(view), view.known_truth().valid.any(1).nonzero()[:, 0]
    maps = torch.zeros_like(best)
    for i, values in enumerate(best):
        generator = view.generator(i)
        shift = tuple(_shift(length, generator) for length in (len(rows), values.shape[1]))
        maps[i, rows] = values[rows].roll(shift, dims=(0, 1))
    return maps


def _shift(length: int, generator: torch.Generator) -> int:
    """A whole number of cells between a quarter and three quarters of `length`; 0 of a single cell."""
    low, high = -(-length // 4), 3 * length // 4
    return int(torch.randint(low, high + 1, (1,), generator=generator)) if 0 < low <= high and length > 1 else 0


@attributor(
    name="energy-matched", paper="sham: cells as loud as the truth's", needs=["truth"], signed=False,
    class_specific=False, control=True,
)  # fmt: skip
def energy_matched(view: View) -> Tensor:
    """For every cell of the truth's region another cell of the same recording, outside it, of the nearest energy. 1 or 0.

    In the order of energy each cell of the region takes the next free cell that is at least as loud; the loudest, when
    none is left, the loudest that is free.
    """
    truth = view.known_truth()
    valid, region = truth.valid, truth.region
    maps = torch.zeros(len(view), *view.shape, device=view.device)
    for i, energy in enumerate(_energy(view)):
        inside, outside = (cells.flatten().nonzero()[:, 0] for cells in (region[i] & valid, valid & ~region[i]))
        if len(outside) < len(inside):
            raise Unsupported("more than half of the valid cells are truth: there are no cells left to match")
        inside, outside = (cells[energy.flatten()[cells].argsort(stable=True)] for cells in (inside, outside))
        place = torch.searchsorted(energy.flatten()[outside], energy.flatten()[inside])
        count = torch.arange(len(inside), device=place.device)
        taken = torch.minimum(count + (place - count).cummax(0).values, len(outside) - len(inside) + count)
        maps[i].view(-1)[outside[taken]] = 1
    return maps
