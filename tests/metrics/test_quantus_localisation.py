"""Localisation against Quantus 0.6.0: to 1e-6 on maps without ties; where it leaves its papers, what it does instead."""

import warnings

import numpy as np
import pytest
import torch
from toys import SHAPE, ConvCM, truth_of

from xaibench.metrics import localisation

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    quantus = pytest.importorskip("quantus", minversion="0.6")

COUNT = 3
CELLS = SHAPE[0] * SHAPE[1]
QUIET = {"abs": False, "normalise": False, "disable_warnings": True, "display_progressbar": False}


@pytest.fixture(scope="module")
def model():
    return ConvCM().backend.eval()


def maps():
    """No ties, values of both signs."""
    orders = [torch.randperm(CELLS, generator=torch.Generator().manual_seed(s)) for s in range(COUNT)]
    return (torch.stack(orders).double() / CELLS - 0.4).float().view(COUNT, *SHAPE)


def regions():
    """Those of the truth, and three of other sizes: 2, 10 and 40 % of the cells."""
    drawn = torch.rand(COUNT, *SHAPE, generator=torch.Generator().manual_seed(9))
    return {"truth": truth_of(COUNT).region, "sizes": drawn < torch.tensor([0.02, 0.1, 0.4])[:, None, None]}


def theirs(metric, model, attributions, region):
    inputs = np.zeros((len(region), 1, *SHAPE), dtype=np.float32)
    return metric(
        model=model, x_batch=inputs, y_batch=np.zeros(len(region), dtype=int), device="cpu", channel_first=True,
        a_batch=attributions.unsqueeze(1).numpy(), s_batch=region.unsqueeze(1).numpy(),
    )  # fmt: skip


@pytest.mark.parametrize("which", ["truth", "sizes"])
@pytest.mark.parametrize(
    ("name", "options", "ours"),
    [
        ("RelevanceRankAccuracy", {}, localisation.relevance_rank_accuracy),
        ("TopKIntersection", {}, localisation.top_k_intersection),
        ("TopKIntersection", {"k": round(0.02 * CELLS)}, lambda a, r: localisation.precision(a, r, share=0.02)),
        (
            "TopKIntersection",
            {"k": round(0.05 * CELLS), "concept_influence": True},
            lambda a, r: localisation.concept_influence(a, r, share=0.05),
        ),
        ("AUC", {}, localisation.roc_auc),
        ("PointingGame", {}, localisation.pointing_game),
    ],
)
def test_agreement(model, name, options, ours, which):
    attributions, region = maps(), regions()[which]
    if name == "PointingGame":  # one hit, two misses
        at = region[0].nonzero()[3]
        attributions[0, at[0], at[1]] = 2.0
        for i in (1, 2):
            at = (~region[i]).nonzero()[5]
            attributions[i, at[0], at[1]] = 2.0
    expected = np.asarray(theirs(getattr(quantus, name)(**options, **QUIET), model, attributions, region), dtype=float)
    assert len(set(expected)) > 1
    assert ours(attributions, region).tolist() == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize("which", ["truth", "sizes"])
def test_mass_accuracy_agrees_on_maps_without_negative_cells(model, which):
    attributions, region = maps() + 0.5, regions()[which]
    expected = theirs(quantus.RelevanceMassAccuracy(**QUIET), model, attributions, region)
    assert localisation.relevance_mass_accuracy(attributions, region).tolist() == pytest.approx(expected, abs=1e-6)


def test_mass_accuracy_of_quantus_lets_negative_cells_count_against_the_total(model):
    # CLEVR-XAI takes the relevance to be positive (it squares, or clips). Quantus divides by the plain sum.
    attributions, region = torch.zeros(1, *SHAPE), torch.zeros(1, *SHAPE, dtype=torch.bool)
    attributions[0, 0, :3] = torch.tensor([3.0, 1.0, -3.5])
    region[0, 0, 0] = True
    assert theirs(quantus.RelevanceMassAccuracy(**QUIET), model, attributions, region) == [6.0]
    assert localisation.relevance_mass_accuracy(attributions, region).tolist() == [0.75]


def test_roc_auc_agrees_under_ties_too(model):
    attributions = torch.randint(0, 4, (COUNT, *SHAPE), generator=torch.Generator().manual_seed(2)).float()
    for inside in regions().values():
        expected = theirs(quantus.AUC(**QUIET), model, attributions, inside)
        assert localisation.roc_auc(attributions, inside).tolist() == pytest.approx(list(expected), abs=1e-9)


@pytest.fixture
def tied():
    """Two equal maxima, the first within the region."""
    attributions, region = torch.zeros(1, *SHAPE), torch.zeros(1, *SHAPE, dtype=torch.bool)
    attributions[0, 3, 5] = attributions[0, 30, 100] = 2.0
    region[0, :10, :10] = True
    return attributions, region


def test_the_pointing_game_of_quantus_counts_any_of_several_maxima_as_a_hit(model, tied):
    assert theirs(quantus.PointingGame(**QUIET), model, *tied) == [True]
    assert localisation.pointing_game(*tied).tolist() == [0.5]


def test_the_weighted_pointing_game_of_quantus_cannot_be_had(model, tied):
    # It writes weights of shape (hits, 1) into an array of booleans: numpy refuses, and would make every weight a hit.
    weighted = quantus.PointingGame(weighted=True, **QUIET)
    with pytest.raises((TypeError, ValueError), match="NumPy boolean array indexing assignment"):
        theirs(weighted, model, *tied)


def test_on_an_empty_region_the_pointing_game_of_quantus_hits(model, tied):
    # NaN, written into an array of booleans, is true. The first region keeps the batch within Quantus' own checks.
    attributions, region = (part.repeat(2, 1, 1) for part in tied)
    region[1] = False
    metric = quantus.PointingGame(**QUIET)
    hits = metric.evaluate_batch(a_batch=attributions.numpy(), s_batch=region.numpy())
    assert hits.dtype == bool and hits.tolist() == [True, True]
    assert localisation.pointing_game(attributions, region).isnan().tolist() == [False, True]


def test_the_top_k_of_quantus_go_by_position_under_ties(model, tied):
    attributions, region = tied
    attributions = attributions + 1.0
    left = theirs(quantus.TopKIntersection(k=102, **QUIET), model, attributions, region)
    right = theirs(quantus.TopKIntersection(k=102, **QUIET), model, attributions.flip(2), region.flip(2))
    assert left != right  # the same map and region, turned over
    ours = [localisation.top_k_intersection(*case, count=102).item() for case in (tied, [x.flip(2) for x in tied])]
    expected = (1 + 100 * 99 / (CELLS - 2)) / 102
    assert ours == pytest.approx([expected] * 2, abs=1e-12)


def test_of_fewer_cells_than_k_quantus_says_nothing(model):
    attributions, region = maps(), regions()["sizes"]
    with pytest.raises(ValueError, match="'k' must be smaller than input size"):
        theirs(quantus.TopKIntersection(k=CELLS, **QUIET), model, attributions, region)
    share = region.flatten(1).double().mean(1)
    for count in (CELLS, 10**6):
        assert localisation.top_k_intersection(attributions, region, count=count).tolist() == pytest.approx(share.tolist())
