"""Randomisation and class tests of a map: against twins, Quantus' functions and maps whose answer is plain."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import BAND, GRID, N_SAMPLES, SHAPE, LinearCM, truth_of, view_of
from twins import sanity as twin

from xaibench.errors import Unsupported, XaibenchError
from xaibench.metrics import sanity as ours
from xaibench.metrics.again import Again
from xaibench.metrics.catalog import METRICS
from xaibench.metrics.evidence import Evidence, Probe
from xaibench.types import Attribution
from xaibench.view import derive_seed

COUNT = 3
VALID = torch.from_numpy(GRID.band(*BAND))[:, None].expand(SHAPE).contiguous()
SANITY = [name for name in METRICS if METRICS[name].family == "sanity"]


@pytest.fixture(scope="module")
def view():
    return view_of(LinearCM(), COUNT)


def noise(seed=0):
    return torch.randn(COUNT, *SHAPE, generator=torch.Generator().manual_seed(seed))


def asked(view, values, answer, valid=VALID):
    """Evidence whose method answers every change with `answer(change)`."""
    attribution = Attribution(values, GRID.frequency, GRID.time(N_SAMPLES))
    return Evidence(
        attribution, values, truth_of(len(view)), Probe(view, valid, ()), lambda c: Again(answer(c), view.inputs)
    )  # fmt: skip


def unrelated(change):
    return noise(derive_seed(change) % 1000)


def test_each_is_its_twin(view):
    values = noise(5).clamp(-1, 2)  # with ties
    few = VALID & (torch.arange(SHAPE[1]) % 10 == 3)
    found = {
        name: METRICS[name].function(asked(view, values, lambda c: unrelated(c).exp() + values, few)) for name in SANITY
    }  # fmt: skip

    def flat(maps):
        return [m[few].double().tolist() for m in maps]

    cells = {
        c: flat(unrelated(c).exp() + values)
        for c in (*(f"randomised:{s}" for s in ours.CASCADE), "bonafide-logit", "opposite", *ours.NOISES,
                  *(f"randomised:1.0+{n}" for n in ours.NOISES))
    }  # fmt: skip
    before = flat(values)
    for i in range(COUNT):
        cascade = [cells[f"randomised:{s}"][i] for s in (0.25, 0.5, 0.75, 1.0)]
        noisy, random = ([cells[f"{p}noise:40:{k}"][i] for k in range(3)] for p in ("", "randomised:1.0+"))
        expected = {
            "mprt": twin.mprt(before[i], cascade), "smooth-mprt": twin.smooth_mprt(noisy, random),
            "efficient-mprt": twin.efficient_mprt(before[i], cascade[-1]),
            "random-logit": twin.random_logit(before[i], cells["bonafide-logit"][i]),
            "class-sensitivity": twin.spearman(before[i], cells["opposite"][i]),
        }  # fmt: skip
        for name, value in expected.items():
            assert found[name][i].item() == pytest.approx(value, abs=1e-6), name
            assert abs(value) > 1e-3


@pytest.mark.parametrize("name", SANITY)
def test_a_map_that_never_changes_fails_and_an_unrelated_one_passes(view, name):
    metric, values = METRICS[name], noise()
    same = metric.function(asked(view, values, lambda _: values))
    assert same.tolist() == pytest.approx([0.0 if name == "efficient-mprt" else 1.0] * COUNT, abs=1e-12)
    other = metric.function(asked(view, values, unrelated))
    assert (other.abs() < 0.1).all()


@pytest.mark.parametrize("name", SANITY)
def test_a_silent_map_is_undefined_and_one_that_falls_silent_is_not(view, name):
    values = noise()
    values[1] = 0
    assert METRICS[name].function(asked(view, values, unrelated)).isnan().tolist() == [False, True, False]
    gone = METRICS[name].function(asked(view, noise(), lambda c: noise() * ("noise" in c and "+" not in c)))
    assert gone.tolist() == [-1.0 if name == "efficient-mprt" else 0.0] * COUNT


@pytest.mark.parametrize("name", SANITY)
def test_maps_that_are_not_finite_or_do_not_fit_are_refused_and_no_method_is_unsupported(view, name):
    with pytest.raises(XaibenchError, match="NaN or infinite"):
        METRICS[name].function(asked(view, noise(), lambda _: noise() / 0))
    if name != "efficient-mprt":
        with pytest.raises(XaibenchError, match="one shape"):
            METRICS[name].function(
                asked(view, noise(), lambda c: noise()[:, 1:] if "noise" not in c or "+" in c else noise())
            )
    alone = Evidence(Attribution(noise(), *view.axes), noise(), truth_of(COUNT), Probe(view, VALID, ()))
    with pytest.raises(Unsupported, match="only the map was given"):
        METRICS[name].function(alone)


def test_signs_count_where_they_should(view):
    values = noise()
    turned = {name: METRICS[name].function(asked(view, values, lambda _: -values)).mean().item() for name in SANITY}
    assert turned == pytest.approx(
        {"mprt": 1, "smooth-mprt": 1, "efficient-mprt": 0, "random-logit": 1, "class-sensitivity": -1}
    )


def test_a_map_of_one_size_has_no_histogram_to_rise_from(view):
    ones = torch.ones(COUNT, *SHAPE)
    assert ours.histogram_entropy(ones).tolist() == [0.0] * COUNT
    assert ours.efficient_mprt(asked(view, ones, unrelated)).isnan().all()
    assert ours.mprt(asked(view, ones, lambda _: ones)).tolist() == [1.0] * COUNT
    assert ours.mprt(asked(view, ones, unrelated)).tolist() == [0.0] * COUNT


@given(
    values=st.lists(st.integers(-40, 40).map(lambda v: v / 8), min_size=6, max_size=6), scale=st.sampled_from([1e-8, 1, 4])
)
@settings(max_examples=60, deadline=None)
def test_the_histograms_entropy_is_its_twin_whatever_the_scale(values, scale):
    maps = torch.tensor(values, dtype=torch.float64).view(1, 2, 3)
    found = ours.histogram_entropy(scale * maps).item()
    assert 0 <= found <= math.log(ours.BINS)
    if scale != 1e-8:  # on the edge of two bins rounding decides
        assert found == pytest.approx(twin.histogram_entropy([scale * v for v in values]), abs=0.5)


def test_a_full_histogram_and_quantus():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        complexity = pytest.importorskip("quantus.functions.complexity_func")
    ramp = torch.arange(1000.0).view(1, 20, 50)
    assert ours.histogram_entropy(ramp).item() == pytest.approx(math.log(100), abs=1e-6)
    for one, found in zip(noise(), ours.histogram_entropy(noise()).tolist(), strict=True):
        assert found == pytest.approx(complexity.discrete_entropy(a=one.double().abs().numpy(), x=None), abs=1e-6)


def test_a_map_that_is_silent_where_it_counts_is_undefined_however_the_noisy_ones_are(view):
    outside = noise() * ~VALID
    outside[0] = noise()[0]
    for name in ("smooth-mprt", "efficient-mprt", "mprt", "random-logit"):
        assert METRICS[name].function(asked(view, outside, unrelated)).isnan().tolist() == [False, True, True], name


def test_maps_near_the_end_of_float32_are_averaged_all_the_same(view):
    def answer(change):
        made = unrelated(change)
        return made / made.abs().amax()

    loud = METRICS["smooth-mprt"].function(asked(view, noise(), lambda c: 3e38 * answer(c)))
    plain = METRICS["smooth-mprt"].function(asked(view, noise(), answer))
    assert loud.tolist() == pytest.approx(plain.tolist(), abs=1e-6)
