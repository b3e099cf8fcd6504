"""The ceiling of faithfulness: an order of cells found by optimisation, for deletion and insertion at once.

    minimise over theta   mean over shares p of  s(x without its top p) - s(x with its top p only)

where the top p of a map theta is what lies above its (1 - p) quantile over the valid cells, softened by a sigmoid so that
a gradient reaches theta; s is the spoof log-odds, and removed cells hold a fill. This is the dual game of Fong, Patrick,
Vedaldi, "Understanding deep networks via extremal perturbations and smooth masks", ICCV 2019 (arXiv 1910.08485), with one
map for all areas instead of one mask for each and without the smoothness of their masks: no order of cells that somebody
names should do better, so nothing may be forbidden to the optimum.

It looks for the bound from below: a longer search can only raise it (on LCNN, 10 steps reach 95 % of what 40 steps do in
deletion, and 97 % in insertion). What it finds need not mean anything to a listener, and where it lies far from the truth
the countermeasure can be moved by other cells than the vocoder changed. Of the truth it reads only which cells are valid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xaibench.protocols import attributor
from xaibench.view import View

#: Shares of the cells that are in the game, one a step in turn.
SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)
#: Softness of the edge of the top cells, in deviations of theta, which starts as normal scores.
SOFTNESS = 0.15
#: Steps between two looks at the true score, with hard edges, which decides which theta is kept.
LOOK = 10


@attributor(
    name="extremal-twin", paper="ceiling: Fong et al., ICCV 2019, arXiv 1910.08485, towards the twin",
    needs=["gradients", "twin", "truth"], control=True,
)  # fmt: skip
def extremal_twin(view: View, *, steps: int = 10, rate: float = 0.2) -> Tensor:
    """The best order found for cells that are replaced by the bona fide twin's, as normal scores. Shape: `(B, F, T)`."""
    return extremal(view, "twin", steps=steps, rate=rate)


@attributor(
    name="extremal-silence", paper="ceiling: Fong et al., ICCV 2019, arXiv 1910.08485, towards silence",
    needs=["gradients", "truth"], control=True, optional=True,
)  # fmt: skip
def extremal_silence(view: View, *, steps: int = 10, rate: float = 0.2) -> Tensor:
    """The best order found for cells that are silenced, as normal scores. Shape: `(B, F, T)`."""
    return extremal(view, "silence", steps=steps, rate=rate)


def extremal(view: View, fill: str, *, steps: int, rate: float) -> Tensor:
    """Search `steps` steps of Adam from the order of the gradient along the straight path. Shape: `(B, F, T)`.

    The best order seen is returned, judged without softness, so the result is never worse than where it starts. One
    utterance at a time: the search magnifies what a convolution rounds differently in a batch of another size.
    """
    return torch.cat([_search(one, fill, steps=steps, rate=rate) for one in view.each()])


def _search(view: View, fill: str, *, steps: int, rate: float) -> Tensor:
    best = _normal_scores(_along_the_path(view, fill))
    lowest = _game(view, best, fill)
    cells = _cells(view)
    theta = best.clone().requires_grad_()
    optimiser = torch.optim.Adam([theta], lr=rate)
    with torch.enable_grad():
        for step in range(1, steps + 1):
            share = SHARES[step % len(SHARES)]
            top = torch.sigmoid((theta - _edge(theta, cells, share)) / SOFTNESS)
            (theta.grad,) = torch.autograd.grad(_scores(view, top, fill).sum(), theta)
            optimiser.step()
            if step % LOOK == 0 or step == steps:
                found = _game(view, theta.detach(), fill)
                better = found < lowest
                best = torch.where(better[:, None, None], theta.detach(), best)
                lowest = torch.where(better, found, lowest)
    return best


def _along_the_path(view: View, fill: str, points: int = 4) -> Tensor:
    """Evidence by the mean gradient at `points` midpoints between fill and input, summed over channels."""
    base, total = view.fill(fill), torch.zeros_like(view.inputs)
    with torch.enable_grad():
        for k in range(points):
            at = torch.lerp(base, view.inputs, (k + 0.5) / points).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(view.model(at).sum(), at)
            total += gradient / points
    return ((view.inputs - base) * total).sum(1).detach()


def _normal_scores(values: Tensor) -> Tensor:
    """Each map's ranks as quantiles of the normal distribution. Shape: `(B, F, T)`.

    >>> _normal_scores(torch.tensor([[[1.0, 5.0, 2.0]]])).mul(100).round().tolist()
    [[[-97.0, 97.0, 0.0]]]
    """
    flat = values.flatten(1)
    ranks = flat.argsort(dim=1, stable=True).argsort(dim=1).to(flat.dtype)
    return torch.special.ndtri((ranks + 0.5) / flat.shape[1]).view_as(values)


def _cells(view: View) -> Tensor:
    """Indices of the valid cells of a flat map, `(n,)`: of a mask a GPU would have to count the cells every time."""
    return view.known_truth().valid.flatten().nonzero()[:, 0]


def _edge(theta: Tensor, cells: Tensor, share: float) -> Tensor:
    """The least of the top `share` of each map's valid cells. Shape: `(B, 1, 1)`; no gradient."""
    values = theta.detach().flatten(1)[:, cells]
    return values.topk(max(round(share * len(cells)), 1), dim=1).values[:, -1, None, None]


def _scores(view: View, top: Tensor, fill: str) -> Tensor:
    """The score without the top cells minus that with them only; cells that are not valid stay. Shape: top `(B, F, T)` in
    [0, 1] -> `(B,)`.
    """
    valid = view.known_truth().valid
    top = top * valid
    keep = torch.stack([1 - top, torch.where(valid, top, 1.0)], 1)
    scores = view.model(view.filled(keep, fill))[:, 0]
    return scores[0::2] - scores[1::2]


def _game(view: View, theta: Tensor, fill: str) -> Tensor:
    """The objective with hard edges. Shape: `(B,)`."""
    cells = _cells(view)
    with torch.no_grad():
        games = [_scores(view, (theta >= _edge(theta, cells, share)).to(theta.dtype), fill) for share in SHARES]
    return torch.stack(games).mean(0)
