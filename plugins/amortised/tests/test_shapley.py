"""The mathematics against slow twins: Shapley's formula, weighted least squares over all coalitions, a literal loss."""

from __future__ import annotations

import itertools
from math import comb, factorial

import numpy as np
import pytest
import torch
from torch import Tensor
from xaibench_amortised import shapley

from xaibench.errors import XaibenchError

PLAYERS = 5


def game(seed: int = 0) -> dict[tuple[int, ...], float]:
    """A value for each of the 2^5 coalitions, with interactions of every order."""
    draw = np.random.default_rng(seed)
    sets = [s for size in range(PLAYERS + 1) for s in itertools.combinations(range(PLAYERS), size)]
    return {s: float(draw.normal()) for s in sets}


def orders(worth: dict[tuple[int, ...], float]) -> np.ndarray:
    """Shapley values by their definition: the mean gain over all orders of joining."""
    values = np.zeros(PLAYERS)
    for order in itertools.permutations(range(PLAYERS)):
        kept: tuple[int, ...] = ()
        for player in order:
            more = tuple(sorted((*kept, player)))
            values[player] += worth[more] - worth[kept]
            kept = more
    return values / factorial(PLAYERS)


def table(worth: dict[tuple[int, ...], float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Every proper coalition `(30, 5)`, v(S) - v(none) `(30,)`, p(S) `(30,)` and the gap."""
    proper = [s for s in worth if 0 < len(s) < PLAYERS]
    kept = torch.tensor([[float(p in s) for p in range(PLAYERS)] for s in proper], dtype=torch.float64)
    gain = torch.tensor([worth[s] - worth[()] for s in proper], dtype=torch.float64)
    size = [len(s) for s in proper]
    weight = torch.tensor([(PLAYERS - 1) / (comb(PLAYERS, s) * s * (PLAYERS - s)) for s in size], dtype=torch.float64)
    return kept, gain, weight / weight.sum(), torch.tensor(worth[tuple(range(PLAYERS))] - worth[()], dtype=torch.float64)


def test_the_enumeration_is_the_mean_over_all_orders():
    worth = game()
    assert np.allclose(shapley.enumerated(worth, PLAYERS).numpy(), orders(worth))


def test_the_kernel_is_p_of_s_summed_over_the_coalitions_of_a_size():
    kept, _, weight, _ = table(game())
    sums = [float(weight[kept.sum(1) == size].sum()) for size in range(1, PLAYERS)]
    assert np.allclose(shapley.kernel(PLAYERS).numpy(), sums)


def test_the_minimum_of_the_loss_under_efficiency_is_the_shapley_values():
    worth = game(1)
    kept, gain, weight, gap = table(worth)
    exact = torch.from_numpy(orders(worth))
    root = weight.sqrt()
    # least squares with weights, the last player taking what is left
    rest, last = kept[:, :-1] - kept[:, -1:], kept[:, -1] * gap
    found = torch.linalg.lstsq(rest * root[:, None], ((gain - last) * root)[:, None]).solution[:, 0]
    assert torch.allclose(found, exact[:-1])
    # and the loss of the module, in the expectation over p(S), is least there among efficient values
    counts = (weight * 3_600).round().long()
    many, much = kept.repeat_interleave(counts, 0), gain.repeat_interleave(counts, 0)
    solution = shapley.solved(many, much, gap)
    assert torch.allclose(solution, exact, atol=2e-3)
    least = shapley.loss(exact[None], many[None], much[None])
    for seed in range(5):
        step = 0.1 * torch.randn(1, PLAYERS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        other = shapley.efficient(exact[None] + step, gap[None])
        assert shapley.loss(other, many[None], much[None]) > least


def test_many_sampled_coalitions_come_to_the_exact_values():
    worth = game(2)
    kept = shapley.coalitions(PLAYERS, 20_000, torch.Generator().manual_seed(0))
    gain = torch.tensor([worth[tuple(row.nonzero()[:, 0].tolist())] - worth[()] for row in kept])
    gap = torch.tensor(worth[tuple(range(PLAYERS))] - worth[()])
    assert np.allclose(shapley.solved(kept, gain, gap).numpy(), orders(worth), atol=0.03)


def test_the_loss_is_the_literal_mean_of_squares():
    draw = torch.Generator().manual_seed(3)
    values, worth = torch.randn(2, 4, generator=draw), torch.randn(2, 6, generator=draw)
    kept = torch.stack([shapley.coalitions(4, 6, draw) for _ in range(2)])
    total = 0.0
    for b in range(2):
        for k in range(6):
            answer = sum(float(values[b, p]) for p in range(4) if kept[b, k, p] == 1)
            total += (float(worth[b, k]) - answer) ** 2
    assert float(shapley.loss(values, kept, worth)) == pytest.approx(total / 12, rel=1e-5)


def test_coalitions_come_in_pairs_of_complements_with_the_kernels_sizes():
    kept = shapley.coalitions(PLAYERS, 8_000, torch.Generator().manual_seed(1))
    assert torch.equal(kept[::2] + kept[1::2], torch.ones(4_000, PLAYERS))
    share = kept.sum(1).long().bincount(minlength=PLAYERS + 1).double() / len(kept)
    assert share[0] == share[PLAYERS] == 0
    assert np.allclose(share[1:PLAYERS].numpy(), shapley.kernel(PLAYERS).numpy(), atol=0.02)
    assert np.allclose(kept.mean(0).numpy(), 0.5)


def test_efficient_values_sum_to_the_gap_and_keep_their_differences():
    values, gap = torch.tensor([[1.0, -2.0, 4.0], [0.0, 0.0, 0.0]]), torch.tensor([6.0, -3.0])
    found = shapley.efficient(values, gap)
    assert torch.allclose(found.sum(1), gap)
    assert torch.allclose(found - found[:, :1], values - values[:, :1])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_coalitions_without_their_pair_are_refused(count):
    with pytest.raises(XaibenchError, match="pairs"):
        shapley.coalitions(PLAYERS, count, torch.Generator())


def test_one_patch_shares_nothing():
    with pytest.raises(XaibenchError, match="at least two patches"):
        shapley.kernel(1)
