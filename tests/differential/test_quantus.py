"""Quantus 0.6.0 on random maps without ties, where its definitions and ours coincide. Where they differ, and what needs a
countermeasure: tests/metrics/test_quantus*.py."""

import warnings

import numpy as np
import pytest
import torch
from seeds import SEED

from xaibench.metrics import complexity, localisation, sanity
from xaibench.metrics.faithfulness import pixel_flipping
from xaibench.metrics.probe import Curve
from xaibench.metrics.stability import rank_correlation, relative_change

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    quantus = pytest.importorskip("quantus", minversion="0.6")
    from quantus.functions import similarity_func
    from quantus.functions.complexity_func import discrete_entropy

QUIET = {"normalise": False, "disable_warnings": True, "display_progressbar": False}

#: Metric of Quantus -> ours on (maps, regions, k), by catalogue names; maps of one sign where the two differ on the other.
SCORES = {
    ("RelevanceRankAccuracy", "rank-accuracy"): lambda a, r, k: localisation.relevance_rank_accuracy(a, r),
    ("RelevanceMassAccuracy", "mass-accuracy"): lambda a, r, k: localisation.relevance_mass_accuracy(a, r),
    ("AUC", "roc-auc"): lambda a, r, k: localisation.roc_auc(a, r),
    ("PointingGame", "pointing-game"): lambda a, r, k: localisation.pointing_game(a, r),
    ("TopKIntersection", "top-k-intersection"): lambda a, r, k: localisation.top_k_intersection(a, r, count=k),
    ("Sparseness", "sparseness"): lambda a, r, k: complexity.gini(a),
    ("Complexity", "entropy"): lambda a, r, k: complexity.entropy(a),
}


def draw(number: int) -> np.random.Generator:
    return np.random.default_rng([SEED or 0, number])


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("names", SCORES, ids=lambda names: names[0])
def test_scores_of_a_map(names, number):
    rng = draw(number)
    shape = tuple(int(n) for n in rng.integers(5, 60, 2))
    maps = torch.from_numpy(rng.random((3, *shape)) + 0.01)
    regions = torch.from_numpy(rng.random((3, *shape)) < rng.choice([0.05, 0.3]))
    regions[:, 0, 0], regions[:, -1, -1] = True, False
    count = int(rng.integers(1, maps[0].numel()))
    options = {"k": count} if names[0] == "TopKIntersection" else {}
    kind = {"abs": names[0] in ("Sparseness", "Complexity"), **QUIET}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = getattr(quantus, names[0])(**options, **kind)(
            model=torch.nn.Identity(), x_batch=np.zeros((3, 1, *shape)), y_batch=np.zeros(3, int), device="cpu",
            a_batch=maps[:, None].numpy().copy(), s_batch=regions[:, None].numpy(), channel_first=True,
        )  # fmt: skip
    expected = np.asarray(theirs, dtype=float)
    assert SCORES[names](maps, regions, count).tolist() == pytest.approx(expected.tolist(), abs=1e-5), f"seed {SEED}"


@pytest.mark.parametrize("number", range(10))
def test_parts_of_scores(number):
    rng = draw(number)
    a, b = rng.standard_normal((2, int(rng.integers(20, 900))))
    ours, other = (torch.from_numpy(x)[None, None] for x in (a, b))
    alike = similarity_func.correlation_spearman(a, b)
    assert rank_correlation(ours, other).item() == pytest.approx(alike, abs=1e-9)
    assert sanity.histogram_entropy(ours).item() == pytest.approx(discrete_entropy(np.abs(a), np.abs(a)), abs=1e-6)
    heights = rng.random((1, int(rng.integers(3, 30))))
    steps = torch.linspace(0, 1, heights.shape[1] + 1)
    curve = Curve(steps, torch.logit(torch.from_numpy(np.concatenate([[[0.5]], heights], 1))))
    # quantus.helpers.utils.calculate_auc is numpy's, under a name that numpy 2 has dropped
    assert pixel_flipping(curve).item() == pytest.approx(np.trapezoid(heights[0]), abs=1e-9)
    size = np.linalg.norm(a)
    assert relative_change(ours, other).item() == pytest.approx(similarity_func.distance_euclidean(a, b) / size, abs=1e-9)
