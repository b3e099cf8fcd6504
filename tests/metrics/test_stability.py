"""Sensitivity and robustness: against twins, Quantus' functions and maps whose answer is plain."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import BAND, GRID, N_SAMPLES, SHAPE, LinearCM, truth_of, view_of
from twins import stability as twin

from xaibench.errors import Unsupported, XaibenchError
from xaibench.metrics import stability as ours
from xaibench.metrics.again import Again
from xaibench.metrics.catalog import METRICS
from xaibench.metrics.evidence import Evidence, Probe
from xaibench.types import Attribution

COUNT = 3
VALID = torch.from_numpy(GRID.band(*BAND))[:, None].expand(SHAPE).contiguous()
STABILITY = [name for name in METRICS if METRICS[name].family == "stability"]
six = st.lists(st.integers(-3, 3).map(float), min_size=6, max_size=6)


@pytest.fixture(scope="module")
def view():
    return view_of(LinearCM(), COUNT)


def noise(seed=0, count=COUNT):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def evidence(view, values, again=None):
    attribution = Attribution(values, GRID.frequency, GRID.time(N_SAMPLES))
    return Evidence(attribution, values, truth_of(len(view)), Probe(view, VALID, ()), again)


def maps(values):
    return torch.tensor(values, dtype=torch.float64).view(1, 2, 3)


@given(a=six.filter(any), b=six)
@settings(max_examples=100, deadline=None)
def test_the_pure_functions_are_their_twins(a, b):
    assert ours.rank_correlation(maps(a), maps(b)).item() == pytest.approx(twin.spearman(a, b), abs=1e-12)
    assert ours.relative_change(maps(a), maps(b)).item() == pytest.approx(twin.max_sensitivity(a, [b]), abs=1e-12)
    x = [1.0, 2.0, 4.0, -1.0]
    moved = [2.0, 2.0, 3.5, -1.0]
    found = ours.local_slope(maps(a), maps(b), tuple(torch.tensor([v]).view(1, 2, 1, 2) for v in (x, moved)))
    assert found.item() == pytest.approx(twin.local_lipschitz(a, [b], x, [moved]), abs=1e-6)


def test_the_worst_of_three_draws_counts(view):
    values, x = noise(), view.inputs
    scales = {"noise:40:0": 0.1, "noise:40:1": 0.3, "noise:40:2": 0.2}
    asked = evidence(view, values, lambda change: Again((1 + scales[change]) * values, x + scales[change]))
    assert ours.max_sensitivity(asked).tolist() == pytest.approx([0.3] * COUNT, abs=1e-6)
    assert ours.local_lipschitz(asked).abs().max() < 1e-5  # maps of the same form at the same scale

    other = noise(1)
    asked = evidence(view, values, lambda change: Again(values + scales[change] * other, x + 0.5))
    flat = [v[VALID].double().tolist() for v in values]
    others = [[(values + s * other)[i][VALID].double().tolist() for s in scales.values()] for i in range(COUNT)]
    xs = [u.flatten().double().tolist() for u in x]
    moved = [[(x + 0.5)[i].flatten().double().tolist()] * 3 for i in range(COUNT)]
    expected = [twin.local_lipschitz(flat[i], others[i], xs[i], moved[i]) for i in range(COUNT)]
    assert ours.local_lipschitz(asked).tolist() == pytest.approx(expected, rel=1e-5)
    assert ours.max_sensitivity(asked).tolist() == pytest.approx(
        [twin.max_sensitivity(flat[i], others[i]) for i in range(COUNT)], rel=1e-5
    )


@pytest.mark.parametrize("name", STABILITY)
def test_a_map_that_does_not_change_is_perfectly_stable_whatever_it_is(view, name):
    for values in (noise(), torch.ones(COUNT, *SHAPE), noise().relu()):
        best = METRICS[name].function(evidence(view, values, lambda _, v=values: Again(v, view.inputs + 1)))
        assert best.tolist() == pytest.approx([float(METRICS[name].direction == "higher")] * COUNT, abs=1e-12)


@pytest.mark.parametrize("name", STABILITY)
def test_unrelated_maps_are_unstable_and_silent_ones_undefined(view, name):
    values = noise()
    values[1] = 0
    worse = METRICS[name].function(evidence(view, values, lambda change: Again(noise(len(change)), view.inputs + 1)))
    assert worse.isnan().tolist() == [False, True, False]
    metric, worse = METRICS[name], worse[[0, 2]]
    assert (
        (worse.abs() < 0.1).all()
        if metric.direction == "higher"
        else (worse > (1 if name == "max-sensitivity" else 0.1)).all()
    )
    gone = METRICS[name].function(evidence(view, noise(), lambda _: Again(torch.zeros(COUNT, *SHAPE), view.inputs + 1)))
    assert gone.isfinite().all()
    if name != "local-lipschitz":
        assert gone.tolist() == [float(name == "max-sensitivity")] * COUNT


@pytest.mark.parametrize("name", STABILITY)
def test_without_the_method_a_metric_is_unsupported(view, name):
    with pytest.raises(Unsupported, match="only the map was given"):
        METRICS[name].function(evidence(view, noise()))


def test_only_valid_cells_count(view):
    values, other = noise(), noise(1)
    there = torch.where(VALID, values, other)
    for name in ("max-sensitivity", "robustness-noise"):
        asked = evidence(view, values, lambda _: Again(there, view.inputs + 1))
        assert METRICS[name].function(asked).tolist() == [float(name != "max-sensitivity")] * COUNT


def test_an_input_that_did_not_move_has_no_slope():
    x = torch.ones(1, 2, 2, 3)
    assert ours.local_slope(noise()[:1], noise(1)[:1], (x, x)).isnan().all()
    assert ours.local_slope(noise()[:1], noise(1)[:1], (0 * x, x)).isinf().sum() == 0


def test_maps_of_two_shapes_are_refused():
    with pytest.raises(XaibenchError, match="one shape"):
        ours.rank_correlation(noise(), noise()[:2])
    with pytest.raises(XaibenchError, match="NaN or infinite"):
        ours.relative_change(noise(), noise() / 0)
    with pytest.raises(XaibenchError, match="expected two tensors of 3 utterances"):
        ours.local_slope(noise(), noise(1), (torch.ones(3, 1, 2, 2), torch.ones(2, 1, 2, 2)))


@given(a=six.filter(any), b=six.filter(any), scale=st.sampled_from([0.5, 3.0]))
@settings(max_examples=50, deadline=None)
def test_properties_of_a_correlation(a, b, scale):
    there, back = ours.rank_correlation(maps(a), maps(b)), ours.rank_correlation(maps(b), maps(a))
    assert there.item() == pytest.approx(back.item(), abs=1e-12) and -1 <= there <= 1
    assert ours.rank_correlation(scale * maps(a), maps(b) ** 3).item() == pytest.approx(there.item(), abs=1e-12)
    if len(set(b)) > 1:
        assert ours.rank_correlation(maps(a), -maps(b)).item() == pytest.approx(-there.item(), abs=1e-12)
    assert ours.rank_correlation(maps(a), maps(a)).item() == pytest.approx(1)


def test_quantus_has_the_same_correlation():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        similarity = pytest.importorskip("quantus.functions.similarity_func")
    a, b = noise(), (noise() + noise(1)).relu()  # half of the second is tied at zero
    expected = similarity.correlation_spearman(a.flatten(1).numpy(), b.flatten(1).numpy(), batched=True)
    assert ours.rank_correlation(a, b).tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_constant_map_costs_its_neighbours_in_the_batch_nothing():
    maps = torch.tensor([[[1.0, 1.0, 1.0]], [[1.0, 2.0, 4.0]], [[2.0, 2.0, 2.0]]])
    other = torch.tensor([[[5.0, 5.0, 5.0]], [[1.0, 9.0, 8.0]], [[1.0, 2.0, 3.0]]])
    assert ours.rank_correlation(maps, other).tolist() == [1, 0.5, 0]
    assert ours.rank_correlation(other, maps).tolist() == [1, 0.5, 0]
    x = torch.tensor([[[[1.0, -1.0, 1.0]]], [[[2.0, -2.0, 2.0]]], [[[3.0, 3.0, 3.0]]]])
    moved = x + torch.tensor([0.5, 2.0, 0.0])[:, None, None, None]
    slope = ours.local_slope(other, maps, (x, moved))
    one = math.dist((1 / 9, 1, 8 / 9), (1 / 4, 1 / 2, 1)) / math.sqrt(3)
    assert slope.tolist() == pytest.approx([0, one, math.nan], nan_ok=True)
    assert ours.relative_change(maps, other).tolist() == pytest.approx([4, math.sqrt((49 + 16) / 21), math.sqrt(2 / 12)])
