"""Scores of the frequency marginal: golden and twins; what frames and frequencies share is tested in test_temporal."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from twins import temporal as twin

from xaibench.errors import XaibenchError
from xaibench.metrics import marginals as ours
from xaibench.metrics import temporal
from xaibench.metrics.catalog import METRICS
from xaibench.types import Truth

SCORES = {
    "rank-accuracy-frequency": ours.rank_accuracy,
    "roc-auc-frequency": ours.roc_auc,
    "average-precision-frequency": ours.average_precision,
    "spearman-frequency": ours.spearman,
}
every_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)


def truth_of(region, valid=None, values=None):
    region = torch.as_tensor(region, dtype=torch.bool)
    region = region[None] if region.ndim == 2 else region
    valid = torch.ones(region.shape[1:], dtype=torch.bool) if valid is None else torch.as_tensor(valid, dtype=torch.bool)
    values = region.float() if values is None else torch.as_tensor(values, dtype=torch.float32).view(region.shape)
    return Truth(values=values * valid, region=region, valid=valid, name="eq2", added=torch.zeros_like(region))


@st.composite
def cases(draw, *, values=st.integers(-3, 3), batch=1):  # noqa: B008
    """Maps `(batch, F, T)` and a truth with frequencies in and out of its region."""
    f, t = draw(st.integers(3, 5)), draw(st.integers(1, 3))
    maps = torch.tensor(draw(st.lists(values, min_size=batch * f * t, max_size=batch * f * t)), dtype=torch.float32)
    bits = st.lists(st.booleans(), min_size=f * t, max_size=f * t)
    region = torch.tensor([draw(bits) for _ in range(batch)]).view(batch, f, t)
    valid = torch.tensor(draw(bits)).view(f, t)
    valid[:2] = True
    region[:, 0], region[:, 1] = True, False
    return maps.view(batch, f, t), truth_of(region, valid)


# 5 frequencies x 2 frames, the lowest outside the band. Marginals - 5 3 3 -1; shares - 1 0 1/2 0: one and a half, so two
MAP = torch.tensor([[[90.0, 90.0], [4.0, 1.0], [1.0, 2.0], [0.0, 3.0], [1.0, -2.0]]])
TRUTH = truth_of([[1, 1], [1, 1], [0, 0], [0, 1], [0, 0]], [[0, 0], [1, 1], [1, 1], [1, 1], [1, 1]])


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (ours.rank_accuracy, 3 / 4),  # the first, and one of two threes
        (ours.roc_auc, (2 + 1.5) / 4),
        (ours.average_precision, (1 + (2 / 2 + 2 / 3) / 2) / 2),
        # ranks 1.5 {0.5 -0.5} {0.5 -0.5} -1.5; shares have mid-ranks 1.5 -1 0.5 -1
        (ours.spearman, (1.5 * 1.5 + 0 + 0 + 1.5 * 1) / (5 * 4.5) ** 0.5),
    ],
)
def test_golden(score, expected):
    result = score(MAP, TRUTH)
    assert result.dtype == torch.float64 and result.shape == (1,)
    assert result.item() == pytest.approx(expected, abs=1e-12)


@every_score
@given(case=cases(values=st.integers(-(10**6), 10**6)))
@settings(max_examples=40)
def test_every_score_is_the_twin_of_its_marginals(score, case):
    values, truth = case
    numbers, region, valid = values[0].numpy().astype(float), truth.region[0].numpy(), truth.valid.numpy()
    seen = [f for f in range(len(valid)) if valid[f].any()]
    a = np.array([sum(numbers[f, t] for t in range(valid.shape[1]) if valid[f, t]) for f in seen])
    g = [np.mean([region[f, t] for t in range(valid.shape[1]) if valid[f, t]]) for f in seen]
    chosen = sorted(range(len(seen)), key=lambda i: -g[i])[: round(sum(g))]  # D is the region: no second key but order
    assume(0 < len(chosen) < len(seen) and len(set(a)) == len(a))
    order = next(twin.orders(a))
    reference = {
        ours.rank_accuracy: lambda: twin.rank_accuracy(order, set(chosen)),
        ours.roc_auc: lambda: twin.roc_auc(order, set(chosen)),
        ours.average_precision: lambda: twin.average_precision(order, set(chosen)),
        ours.spearman: lambda: spearmanr(a, g).statistic,
    }[score]
    assert score(values, truth).item() == pytest.approx(reference(), abs=1e-9)


@every_score
@given(case=cases(batch=2))
@settings(max_examples=30)
def test_a_frequency_is_a_frame_of_the_map_turned(score, case):
    values, truth = case
    turned = Truth(truth.values.mT, truth.region.mT, truth.valid.mT, "eq2")
    in_time = getattr(temporal, score.__name__)(values.mT, turned)
    torch.testing.assert_close(score(values, truth), in_time, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(score(ours.frequencies(values, truth)), in_time, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("name", [n for n in SCORES if n != "spearman-frequency"])
def test_identity_the_truths_frequencies_are_perfect(name):
    best = torch.zeros(1, 5, 2)
    best[0, [1, 3]] = 1.0
    assert SCORES[name](best, TRUTH).item() == pytest.approx(1.0, abs=1e-12)


@every_score
def test_empty_and_full_regions_and_marginals_of_zeros_are_undefined(score):
    values = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(0))
    region = torch.zeros(4, 5, 2, dtype=torch.bool)
    region[1], region[2, 1], region[3, 1] = True, True, True
    values[3, :, 1] = -values[3, :, 0]
    assert score(values, truth_of(region)).isnan().tolist() == [True, True, False, True]
    assert score(values[:0], truth_of(region[:0])).shape == (0,)


@every_score
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attribution": torch.ones(1, 4, 3)}, r"shape \(1, 3, 4\), got \(1, 4, 3\)"),
        ({"attribution": torch.ones(3, 4)}, "project the attribution"),
        ({"attribution": torch.full((1, 3, 4), torch.nan)}, "12 NaN or infinite cells of 12"),
        ({"valid": torch.ones(4, 3, dtype=torch.bool)}, "valid mask"),
        ({"valid": torch.zeros(3, 4, dtype=torch.bool)}, "no valid cell"),
    ],
)
def test_invalid_arguments_are_named_in_the_order_they_came(score, change, message):
    good = {"region": torch.ones(1, 3, 4, dtype=torch.bool), "valid": torch.ones(3, 4, dtype=torch.bool)}
    parts = {k: v for k, v in {**good, **change}.items() if k != "attribution"}
    with pytest.raises(XaibenchError, match=message):
        score(change.get("attribution", torch.ones(1, 3, 4)), Truth(values=torch.ones(1, 3, 4), name="eq2", **parts))


def test_time_does_not_matter():
    draw = torch.Generator().manual_seed(0)
    values, region = torch.rand(2, 9, 30, generator=draw), torch.rand(2, 9, 30, generator=draw) < 0.3
    truth, order = truth_of(region), torch.randperm(30, generator=draw)
    moved = replace(truth, values=truth.values[..., order], region=region[..., order])
    for score in SCORES.values():
        torch.testing.assert_close(score(values, truth), score(values[..., order], moved), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", SCORES)
def test_the_mean_of_random_maps_is_the_declared_chance(name):
    draw = torch.Generator().manual_seed(0)
    region = torch.zeros(400, 60, 3, dtype=torch.bool)
    region[:, 20:23] = True  # 5 % of the frequencies
    scores = SCORES[name](torch.rand(400, 60, 3, generator=draw), truth_of(region))
    chance = {"rank-accuracy-frequency": 0.05, "roc-auc-frequency": 0.5, "spearman-frequency": 0.0}.get(name)
    metric = METRICS[name]
    assert metric.chance == chance and metric.needs == {"truth", "frequency"} and metric.direction == "higher"
    assert abs(scores.mean() - (0.05 if chance is None else chance)) < 4 * scores.std() / 20 or chance is None
    if chance is None:
        assert scores.mean() > 0.07  # average precision of few frequencies: well above their share


def test_a_constant_map_is_chance():
    values = torch.full((1, 60, 7), 0.1)
    region = torch.zeros(1, 60, 7, dtype=torch.bool)
    region[:, 20:23] = True
    truth = truth_of(region)
    assert ours.rank_accuracy(values, truth).item() == pytest.approx(0.05, abs=1e-12)
    assert ours.roc_auc(values, truth).item() == 0.5 and ours.spearman(values, truth).item() == 0


def test_a_truth_is_turned_with_its_signs():
    region = torch.tensor([[[True, False, True], [False, False, False]]])
    truth = Truth(values=region.float(), region=region, valid=region[0] | True, name="eq2", added=~region)
    attribution, other = ours.turned(region.float(), truth)
    assert torch.equal(attribution, region.float().mT) and torch.equal(other.added, ~region.mT)
    assert torch.equal(other.region, region.mT) and torch.equal(other.values, truth.values.mT)
    assert other.valid.shape == (3, 2) and other.name == "eq2"
    assert ours.turned(region.float(), replace(truth, added=None))[1].added is None
