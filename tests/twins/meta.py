"""IAC, IEC and MC of Hedstroem et al. (TMLR 2023) in plain loops: every sign pattern, every order of tied methods.

Scores are nested lists: `before[method][utterance]`, `after[draw][method][utterance]`; no NaN.
"""

from __future__ import annotations

from itertools import permutations, product

Scores = list[list[float]]


def wilcoxon(before: list[float], after: list[float]) -> float:
    """Two-sided p: the share of all sign patterns of the changes whose rank sum is as far from its mean as the one seen."""
    changes = [b - a for a, b in zip(before, after, strict=True)]
    sizes = [abs(c) for c in changes]
    ranks = [sum(1 for s in sizes if s < x) + (sum(1 for s in sizes if s == x) + 1) / 2 for x in sizes]
    moved = [(rank, change) for rank, change in zip(ranks, changes, strict=True) if change != 0]
    middle = sum(rank for rank, _ in moved) / 2
    seen = abs(sum(rank for rank, change in moved if change > 0) - middle)
    patterns = list(product((False, True), repeat=len(moved)))
    far = 0
    for pattern in patterns:
        total = sum(rank for (rank, _), rises in zip(moved, pattern, strict=True) if rises)
        far += abs(total - middle) >= seen - 1e-9
    return far / len(patterns)


def iac(before: Scores, after: list[Scores]) -> float:
    """Mean p over draws and methods: IAC of noise resilience; that of adversary reactivity is 1 minus it."""
    found = []
    for draw in after:
        for method, changed in zip(before, draw, strict=True):
            found.append(wilcoxon(method, changed))
    return sum(found) / len(found)


def iec_resilience(before: Scores, after: list[Scores]) -> float:
    """Share of ranks that stay, averaged over all orders in which the methods could be listed (which decides ties)."""
    names = range(len(before))
    orders = list(permutations(names))
    same = total = 0
    for draw in after:
        for u in range(len(before[0])):
            for order in orders:
                star = sorted(order, key=lambda m: before[m][u])
                hat = sorted(order, key=lambda m: draw[m][u])
                for m in names:
                    same += star.index(m) == hat.index(m)
                    total += 1
    return same / total


def iec_reactivity(before: Scores, after: list[Scores], *, higher: bool) -> float:
    """Share of scores that got worse."""
    found = []
    for draw in after:
        for method, changed in zip(before, draw, strict=True):
            for a, b in zip(method, changed, strict=True):
                found.append(b < a if higher else b > a)
    return sum(found) / len(found)


def mc(before: Scores, minor: list[Scores], disruptive: list[Scores], *, higher: bool) -> float:
    """The mean of the four."""
    return (
        iac(before, minor)
        + (1 - iac(before, disruptive))
        + iec_resilience(before, minor)
        + iec_reactivity(before, disruptive, higher=higher)
    ) / 4
