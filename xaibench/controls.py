"""The rows between which every method stands: floors that know nothing of the countermeasure, and the ceiling.

If a famous method does not beat `inverse-energy` or `frequency-prior`, the board must say so.
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
    """|STFT of the vocoded utterance|: loud cells first."""
    return _energy(view)


@attributor(
    name="inverse-energy", paper="control: 1 / magnitude of the vocoded speech", signed=False, class_specific=False,
    control=True,
)  # fmt: skip
def inverse_energy(view: View) -> Tensor:
    """1 / |STFT|: quiet cells first. Eq. 2 divides by energy, so this knows more than it seems."""
    return 1 / _energy(view).clamp_min(1e-12)


@attributor(
    name="frequency-prior", paper="control: mean training truth per frequency", needs=["prior"], signed=False,
    class_specific=False, control=True,
)  # fmt: skip
def frequency_prior(view: View) -> Tensor:
    """How often training pairs have truth at that frequency (the mean of their regions): the same in every frame."""
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
    region = view.truth.region
    flat = view.truth.values.flatten(1)
    ranks = flat.argsort(dim=1, stable=True).argsort(dim=1).to(flat.dtype).view_as(view.truth.values)
    # Small beside the region; apart by more than float32 rounds, as ranks within the region are counted from its own first.
    first = ranks.masked_fill(~region, torch.inf).flatten(1).amin(1).clamp_max(flat.shape[1])[:, None, None]
    return torch.where(region, 1 + 1e-3 * (ranks - first) / flat.shape[1], 1e-3 * ranks / flat.shape[1])
