"""Every metric of the catalogue once more, from other libraries where one has it, else from its equation, one map at a time.

Nothing here calls `xaibench.metrics`. A reference gets a `Case` and the number of an utterance, and returns a float, NaN
where the metric is undefined, or None where it says nothing (scikit-learn's average precision goes by memory order under
ties). What belongs to the question, not to the score, is taken from the evidence: the fills, the random subsets of regions,
and the maps of a method that explains again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy import integrate, ndimage, special, stats
from sklearn import metrics as sk

from xaibench.view import View

EQUATION = "its equation, one map at a time"
FILLS = ("silence", "mean", "twin")
NOISES = ("noise:40:0", "noise:40:1", "noise:40:2")


@dataclass(frozen=True)
class Case:
    """A batch of arrays: maps, amount (D), region and added `(B, F, T)`, valid `(F, T)`; the view, its random subsets
    `(B, K, R)` of the regions of `side` cells, the curve's fractions, and change -> (maps, what was explained).
    """

    maps: np.ndarray
    region: np.ndarray
    amount: np.ndarray
    added: np.ndarray
    valid: np.ndarray
    view: View | None = None
    subsets: np.ndarray | None = None
    fractions: tuple[float, ...] = ()
    side: int = 9
    again: dict[str, tuple[np.ndarray, np.ndarray]] | None = None

    def cells(self, i: int, region: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The valid cells of a map and of a region."""
        return self.maps[i][self.valid], (self.region if region is None else region)[i][self.valid]


@dataclass(frozen=True)
class Reference:
    """Against what a metric is checked, and how."""

    against: str
    score: Callable[[Case, int], float | None]


# ---- cells, frames, frequencies: `part` gives scores and labels, one of each -----------------------------------------

Part = Callable[[Case, int], tuple[np.ndarray, np.ndarray]]


def cells(case: Case, i: int) -> tuple[np.ndarray, np.ndarray]:
    return case.cells(i)


def half(case: Case, i: int, added: bool) -> tuple[np.ndarray, np.ndarray]:
    return case.cells(i, case.region & (case.added == added))


def _shares(case: Case, i: int, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a, g and mean D of every line of cells along an axis that has a valid one."""
    count = case.valid.sum(axis)
    seen = count > 0
    sums = [(x[i] * case.valid).sum(axis)[seen] for x in (case.maps, case.region, case.amount)]
    return sums[0], sums[1] / count[seen], sums[2] / count[seen]


def marginal(case: Case, i: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
    a, share, level = _shares(case, i, axis)
    order = np.lexsort((np.arange(len(a)), -level, -share))
    chosen = np.zeros(len(a), bool)
    chosen[order[: round(share.sum())]] = True
    return a, chosen


def _decided(part: Part, case: Case, i: int, both: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """Scores and labels, or None where the metric is undefined."""
    a, inside = part(case, i)
    return None if not a.any() or not inside.any() or (both and inside.all()) else (a, inside)


def scored(part: Part, score: Callable, case: Case, i: int, *, both: bool = False) -> float | None:
    found = _decided(part, case, i, both)
    return np.nan if found is None else score(*found)


def top(a: np.ndarray, inside: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Possible numbers of hits among the `count` largest, and their probabilities: of a tie at the cut-off any cells."""
    edge = np.sort(a)[-count]
    tie, room = a == edge, count - (a > edge).sum()
    drawn = np.arange(room + 1)
    return inside[a > edge].sum() + drawn, stats.hypergeom(tie.sum(), inside[tie].sum(), room).pmf(drawn)


def at_size(a: np.ndarray, inside: np.ndarray) -> float:
    hits, chance = top(a, inside, inside.sum())
    return float(hits @ chance / inside.sum())


def at_share(what: str, share: float, a: np.ndarray, inside: np.ndarray) -> float:
    count, size = round(share * len(a)), inside.sum()
    hits, chance = top(a, inside, count)
    made = {
        "precision": hits / count, "recall": hits / size, "dice": 2 * hits / (count + size),
        "iou": hits / (count + size - hits), "concept-influence": hits / count * len(a) / size,
    }  # fmt: skip
    return float(made[what] @ chance)


def top_k(a: np.ndarray, inside: np.ndarray) -> float:
    count = min(1000, len(a))
    hits, chance = top(a, inside, count)
    return float(hits @ chance / count)


def mass(a: np.ndarray, inside: np.ndarray) -> float:
    positive = np.maximum(a, 0)
    return positive[inside].sum() / positive.sum() if positive.any() else np.nan


def auc(a: np.ndarray, inside: np.ndarray) -> float:
    return np.nan if inside.all() else sk.roc_auc_score(inside, a)


def precision_of_ranks(a: np.ndarray, inside: np.ndarray) -> float | None:
    return sk.average_precision_score(inside, a) if len(np.unique(a)) == len(a) else None


def pointing(a: np.ndarray, inside: np.ndarray) -> float:
    return inside[a == a.max()].mean()


def ndcg(case: Case, i: int) -> float:
    a, amount = case.cells(i, case.amount)
    return sk.ndcg_score(amount[None], a[None]) if a.any() and amount.any() else np.nan


def spearman(a: np.ndarray, amount: np.ndarray) -> float:
    """scipy's, but for the spread of a tied map, which is that of its orders."""
    if not a.any() or np.ptp(amount) == 0:
        return np.nan
    ranks, n = stats.rankdata(a), len(a)
    if np.ptp(a) == 0:
        return 0.0
    return stats.spearmanr(a, amount).statistic * ranks.std() / np.arange(n).std()


def spearman_of_cells(case: Case, i: int) -> float:
    return spearman(*case.cells(i, case.amount))


def spearman_of_shares(axis: int, case: Case, i: int) -> float:
    if _decided(partial(marginal, axis=axis), case, i, both=True) is None:
        return np.nan
    return spearman(*_shares(case, i, axis)[:2])


def frame_eer(a: np.ndarray, inside: np.ndarray) -> float:
    alarm, hit, _ = sk.roc_curve(inside, a, drop_intermediate=False)
    return float(np.interp(0, alarm - (1 - hit), alarm))


def rcq(a: np.ndarray, inside: np.ndarray) -> float:
    height = np.maximum(a, 0)
    return 100 * (height[inside].mean() / height.mean() - 1) if height.any() else np.nan


# ---- the countermeasure's answers ------------------------------------------------------------------------------------


def answer(case: Case, i: int, mask: np.ndarray | None = None, fill: str = "", *, soft: bool = False) -> float:
    """Spoof log-odds of one utterance with the fill where the mask is 1 (or by that share)."""
    x = case.view.inputs[i : i + 1]
    if mask is not None:
        weight = torch.from_numpy(np.asarray(mask, dtype=np.float32)).expand_as(x)
        filled = case.view.fills[fill]
        filled = filled[i : i + 1] if len(filled) > 1 else filled
        x = (1 - weight) * x + weight * filled if soft else torch.where(weight > 0, filled, x)
    with torch.no_grad():
        return float(case.view.model(x.to(torch.float32))[0, 0])


def read(log_odds: np.ndarray | float, probability: bool) -> np.ndarray | float:
    return special.expit(log_odds) if probability else log_odds


def curve(case: Case, i: int, shares: tuple[float, ...], fill: str, *, keep: bool = False) -> np.ndarray:
    """Answers without the top shares of the valid cells, or with them only."""
    places, n = np.flatnonzero(case.valid), int(case.valid.sum())
    order = places[np.argsort(-case.maps[i].ravel()[places], kind="stable")]
    found = []
    for share in shares:
        mask = np.zeros(case.valid.size, bool)
        mask[order[round(share * n) :] if keep else order[: round(share * n)]] = True
        found.append(answer(case, i, mask.reshape(case.valid.shape), fill))
    return np.array(found)


STEPS = tuple(k / 10 for k in range(11))
BINS = (0.01, 0.05, 0.1, 0.2, 0.5)


def of_curve(what: str, fill: str, probability: bool, case: Case, i: int) -> float:
    if not case.maps[i][case.valid].any():
        return np.nan
    shares = (0.0, *case.fractions, 1.0)
    get = partial(curve, case, i, fill=fill)
    start = read(answer(case, i), probability)
    if what in ("deletion", "insertion"):
        heights = read(get(shares, keep=what == "insertion"), probability)
        return float(integrate.trapezoid(heights, shares))
    if what == "drop":
        gap = answer(case, i) - answer(case, i, np.ones_like(case.valid), "twin")
        return float((start - get((0.05,))[0]) / gap) if gap >= 1 else np.nan
    if what in ("comprehensiveness", "sufficiency"):
        return float((start - read(get(BINS, keep=what == "sufficiency"), probability)).mean())
    if what == "aopc-lerf":
        return float((start - read(get(tuple(1 - s for s in STEPS), keep=True), probability)).mean())
    if what == "abpc":
        return of_curve("aopc-morf", fill, probability, case, i) - of_curve("aopc-lerf", fill, probability, case, i)
    heights = read(get(STEPS), probability)
    if what == "monotonicity":  # cells come back, the least relevant first: the last step is undone first
        return float((np.diff(heights[::-1]) >= 0).mean())
    return float(integrate.trapezoid(heights[1:]) if what == "pixel-flipping" else (start - heights).mean())


def _labels(case: Case) -> tuple[np.ndarray, int]:
    """The region of every valid cell, from 1, by squares of `side` cells from the first; 0 elsewhere."""
    f, t = case.valid.shape
    squares = (np.arange(f) // case.side)[:, None] * (t // case.side + 1) + np.arange(t) // case.side
    _, labels = np.unique(np.where(case.valid, squares, -1), return_inverse=True)
    return labels.reshape(f, t) + case.valid.all(), int(labels.max()) + int(case.valid.all())


def of_regions(what: str, fill: str, probability: bool, case: Case, i: int) -> float:
    if not case.maps[i][case.valid].any():
        return np.nan
    labels, count = _labels(case)
    sums = ndimage.sum_labels(case.maps[i], labels, np.arange(1, count + 1))
    start = read(answer(case, i), probability)

    def without(chosen: np.ndarray) -> float:
        return start - read(answer(case, i, np.isin(labels, 1 + chosen), fill), probability)

    if what == "region-perturbation":
        order = np.argsort(-sums, kind="stable")
        return float(np.mean([0.0, *(without(order[: max(1, round(k / 100 * count))]) for k in range(1, 11))]))
    relevance = case.subsets[i] @ sums
    falls = np.array([without(np.flatnonzero(subset)) for subset in case.subsets[i]])
    if what == "faithfulness-correlation":
        return stats.pearsonr(relevance, falls).statistic
    scale = np.linalg.lstsq(relevance[:, None], falls, rcond=None)[0]
    return float(np.square(relevance * scale - falls).mean())


def of_soft_mask(what: str, fill: str, probability: bool, case: Case, i: int) -> float:
    positive = np.maximum(case.maps[i], 0) * case.valid
    if not positive.any():
        return np.nan
    mask = positive / positive.max()
    clean = answer(case, i)
    out = what == "faithfulness-on-spectra"
    masked = answer(case, i, mask if out else np.where(case.valid, 1 - mask, 0), fill, soft=True)
    sign = 1 if clean >= 0 else -1
    p, o = special.expit(sign * clean), special.expit(sign * masked)
    not_p, not_o = special.expit(-sign * clean), special.expit(-sign * masked)  # 1 - p may be below 1e-16
    if out:
        return float(p - o) if probability else float(sign * (clean - masked))
    return {
        "average-drop": 100 * max(p - o, 0) / p, "average-gain": 100 * max(not_p - not_o, 0) / not_p,
        "average-increase": 100.0 * (sign * masked > sign * clean), "fid-in": float((masked >= 0) == (clean >= 0)),
    }[what]  # fmt: skip


# ---- the map alone, and explained again ------------------------------------------------------------------------------


def of_sizes(what: str, case: Case, i: int) -> float:
    a = np.abs(case.maps[i][case.valid])
    if not a.any():
        return np.nan
    if what == "sparseness":  # half the mean difference of two cells, relative to the mean
        return np.abs(a[:, None] - a).mean() / (2 * a.mean())
    return stats.entropy(a) if what == "entropy" else a.sum() ** 2 / (len(a) * (a @ a))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    return stats.spearmanr(a, b).statistic


def entropy_of_sizes(a: np.ndarray) -> float:
    return stats.entropy(np.histogram(np.abs(a), 100)[0])


def explained_again(what: str, case: Case, i: int) -> float:
    a, x = case.maps[i][case.valid], case.view.inputs[i].double().numpy()
    if not a.any():
        return np.nan

    def again(change: str) -> np.ndarray:
        return case.again[change][0][i][case.valid]

    def slope(change: str) -> float:
        b = again(change)
        moved = np.linalg.norm(case.again[change][1][i].astype(float) - x) / np.sqrt((x**2).mean())
        scaled = b / np.abs(b).max() if b.any() else b
        return np.linalg.norm(a / np.abs(a).max() - scaled) / moved if moved > 0 else np.nan

    if what == "max-sensitivity":
        return np.max([np.linalg.norm(again(n) - a) / np.linalg.norm(a) for n in NOISES])
    if what == "local-lipschitz":
        return np.max([slope(n) for n in NOISES])
    if what == "mprt":
        return np.mean([abs(rank_correlation(a, again(f"randomised:{s}"))) for s in (0.25, 0.5, 0.75, 1.0)])
    if what == "smooth-mprt":
        clean, random = (np.mean([again(f"{more}{n}") for n in NOISES], 0) for more in ("", "randomised:1.0+"))
        return abs(rank_correlation(clean, random))
    if what == "efficient-mprt":
        before, after = entropy_of_sizes(a), entropy_of_sizes(again("randomised:1.0"))
        return (after - before) / before if before > 0 else np.nan
    if what == "random-logit":
        return abs(rank_correlation(np.abs(a), np.abs(again("bonafide-logit"))))
    if what == "input-invariance":
        return np.linalg.norm(again("shift:1.0") - a) / np.linalg.norm(a)
    change = {"robustness-noise": "white:20:0", "robustness-mu-law": "codec:mu-law", "robustness-vorbis": "codec:vorbis"}
    return rank_correlation(a, again(change.get(what, "opposite")))


def completeness(fill: str, case: Case, i: int) -> float:
    wanted = answer(case, i) - answer(case, i, np.ones_like(case.valid), fill)
    if abs(wanted) < 1 or not case.maps[i].any():
        return np.nan
    return abs(case.maps[i].sum() - wanted) / abs(wanted)


# ---- the catalogue ---------------------------------------------------------------------------------------------------

FRAMES, BANDS = partial(marginal, axis=0), partial(marginal, axis=1)


def _localisation() -> dict[str, Reference]:
    found = {
        "rank-accuracy": Reference("scipy `hypergeom`", partial(scored, cells, at_size)),
        "top-k-intersection": Reference("scipy `hypergeom`", partial(scored, cells, top_k)),
        "concept-influence": Reference(
            "scipy `hypergeom`", partial(scored, cells, partial(at_share, "concept-influence", 0.05))
        ),
        "mass-accuracy": Reference(EQUATION, partial(scored, cells, mass)),
        "pointing-game": Reference(EQUATION, partial(scored, cells, pointing)),
        "ndcg": Reference("scikit-learn `ndcg_score`", ndcg),
        "spearman": Reference("scipy `spearmanr`", spearman_of_cells),
        "frame-eer": Reference("scikit-learn `roc_curve`", partial(scored, FRAMES, frame_eer, both=True)),
        "rcq": Reference(EQUATION, partial(scored, FRAMES, rcq, both=True)),
    }
    for share in (1, 2, 5, 10, 20):
        for name in ("iou", "dice", "precision", "recall"):
            score = partial(scored, cells, partial(at_share, name, share / 100))
            found[f"{name}@{share}"] = Reference("scipy `hypergeom`", score)
    parts = {"": cells, "-added": partial(half, added=True), "-missing": partial(half, added=False), "-time": FRAMES,
             "-frequency": BANDS}  # fmt: skip
    for end, part in parts.items():
        both = part in (FRAMES, BANDS)
        found[f"rank-accuracy{end}"] = Reference("scipy `hypergeom`", partial(scored, part, at_size, both=both))
        found[f"roc-auc{end}"] = Reference("scikit-learn `roc_auc_score`", partial(scored, part, auc, both=both))
        if both or not end:
            score = partial(scored, part, precision_of_ranks, both=both)
            found[f"average-precision{end}"] = Reference("scikit-learn `average_precision_score`", score)
    for axis, end in enumerate(("-time", "-frequency")):
        found[f"spearman{end}"] = Reference("scipy `spearmanr`", partial(spearman_of_shares, axis))
    return found


def _faithfulness() -> dict[str, Reference]:
    found = {}
    kinds = {
        of_curve: ("deletion", "insertion", "pixel-flipping", "aopc-morf", "aopc-lerf", "abpc", "comprehensiveness",
                   "sufficiency"),
        of_regions: ("region-perturbation", "faithfulness-correlation", "infidelity"),
        of_soft_mask: ("faithfulness-on-spectra",),
    }  # fmt: skip
    against = {
        "deletion": "scipy `trapezoid`", "insertion": "scipy `trapezoid`", "pixel-flipping": "scipy `trapezoid`",
        "region-perturbation": "scipy `sum_labels`", "faithfulness-correlation": "scipy `pearsonr`",
        "infidelity": "numpy `lstsq`",
    }  # fmt: skip
    for fill in FILLS:
        for score, names in kinds.items():
            for name in names:
                for end in ("", "-probability"):
                    made = Reference(against.get(name, EQUATION), partial(score, name, fill, bool(end)))
                    found[f"{name}-{fill}{end}"] = made
        for name in ("drop", "monotonicity"):
            found[f"{name}-{fill}"] = Reference(EQUATION, partial(of_curve, name, fill, False))
        for name in ("average-drop", "average-increase", "average-gain", "fid-in"):
            found[f"{name}-{fill}"] = Reference(EQUATION, partial(of_soft_mask, name, fill, True))
        found[f"completeness-{fill}"] = Reference(EQUATION, partial(completeness, fill))
    return found


def _others() -> dict[str, Reference]:
    against = {
        "entropy": "scipy `entropy`", "max-sensitivity": "numpy `norm`", "local-lipschitz": "numpy `norm`",
        "input-invariance": "numpy `norm`", "efficient-mprt": "numpy `histogram`, scipy `entropy`",
    }  # fmt: skip
    again = ("max-sensitivity", "local-lipschitz", "robustness-noise", "robustness-mu-law", "robustness-vorbis", "mprt",
             "smooth-mprt", "efficient-mprt", "random-logit", "class-sensitivity", "input-invariance")  # fmt: skip
    sizes = {
        n: Reference(against.get(n, EQUATION), partial(of_sizes, n)) for n in ("sparseness", "entropy", "effective-area")
    }
    return sizes | {n: Reference(against.get(n, "scipy `spearmanr`"), partial(explained_again, n)) for n in again}


#: Metric -> its reference.
REFERENCES: dict[str, Reference] = _localisation() | _faithfulness() | _others()


def table() -> str:
    """Which metric is checked against what."""
    groups: dict[str, list[str]] = {}
    for name, reference in REFERENCES.items():
        groups.setdefault(reference.against, []).append(name)
    lines = ["| against | metrics |", "|---|---|"]
    for against, names in sorted(groups.items(), key=lambda pair: -len(pair[1])):
        lines.append(f"| {against} | {', '.join(f'`{name}`' for name in names)} |")
    return "\n".join(lines)
