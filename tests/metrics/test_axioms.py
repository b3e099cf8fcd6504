"""Completeness and input invariance: against twins and on a linear countermeasure, where the answers are exact."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import BAND, GRID, N_SAMPLES, SHAPE, LinearCM, truth_of, view_of
from twins import axioms as twin

from xaibench.errors import Unsupported, XaibenchError
from xaibench.metrics import axioms as ours
from xaibench.metrics.again import Again
from xaibench.metrics.catalog import METRICS
from xaibench.metrics.evidence import Evidence, Probe
from xaibench.types import Attribution

COUNT = 3
VALID = torch.from_numpy(GRID.band(*BAND))[:, None].expand(SHAPE).contiguous()
AXIOMS = [name for name in METRICS if METRICS[name].family == "axioms"]
FILLS = ("silence", "mean", "twin")
every_fill = pytest.mark.parametrize("fill", FILLS)


@pytest.fixture(scope="module")
def cm():
    return LinearCM(0.05 + torch.zeros(SHAPE))  # far apart: silence and speech, twin and spoof


@pytest.fixture(scope="module")
def view(cm):
    return view_of(cm, COUNT)


def noise(seed=0):
    return torch.randn(COUNT, *SHAPE, generator=torch.Generator().manual_seed(seed))


def evidence(view, values, again=None):
    attribution = Attribution(values, GRID.frequency, GRID.time(N_SAMPLES))
    return Evidence(attribution, values, truth_of(len(view)), Probe(view, VALID, ()), again)


@given(
    cells=st.lists(st.integers(-9, 9).map(float), min_size=6, max_size=6).filter(any),
    shifted=st.lists(st.integers(-9, 9).map(float), min_size=6, max_size=6),
    score=st.integers(2, 9), baseline=st.integers(-9, 1),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_each_is_its_twin(cells, shifted, score, baseline):
    maps, others = (torch.tensor(v).view(1, 2, 3) for v in (cells, shifted))
    gap = ours.completeness_gap(maps, torch.tensor([float(score - baseline)])).item()
    assert gap == pytest.approx(twin.completeness_gap(cells, score, baseline), abs=1e-9)
    found = ours.relative_change(maps, others).item()
    assert found == pytest.approx(twin.input_invariance(cells, shifted), abs=1e-9)


@every_fill
def test_the_exact_attribution_is_complete_and_another_is_off_by_what_it_misses(cm, view, fill):
    function, exact = METRICS[f"completeness-{fill}"].function, cm.exact(view, fill)
    assert function(evidence(view, exact)).abs().max() < 1e-4
    assert function(evidence(view, 1.5 * exact)).tolist() == pytest.approx([0.5] * COUNT, abs=1e-4)
    assert function(evidence(view, -exact)).tolist() == pytest.approx([2.0] * COUNT, abs=1e-4)


@every_fill
def test_every_cell_is_filled_and_counted_not_only_the_valid_ones(cm, view, fill):
    """On `VALID` alone the exact map would miss what the other cells carry."""
    exact = cm.exact(view, fill)
    cut = METRICS[f"completeness-{fill}"].function(evidence(view, exact * VALID))
    missed = (exact * ~VALID).sum((1, 2)) / exact.sum((1, 2))
    assert cut.tolist() == pytest.approx(missed.abs().tolist(), abs=1e-4) and cut.min() > 0.01


def test_below_one_log_odds_the_gap_is_undefined():
    maps = torch.ones(4, 2, 3)
    maps[3] = 0
    gap = ours.completeness_gap(maps, torch.tensor([1.0, -0.99, -2.0, 5.0]))
    assert gap.isnan().tolist() == [False, True, False, True]
    assert gap[[0, 2]].tolist() == [5.0, 4.0]


@pytest.mark.parametrize("name", AXIOMS)
def test_a_map_of_zeros_is_undefined_and_one_that_is_not_finite_refused(view, name):
    values = noise()
    values[1] = 0
    found = METRICS[name].function(evidence(view, values, lambda _: Again(noise(1), view.inputs)))
    assert found.isnan().tolist() == [False, True, False]
    with pytest.raises(XaibenchError, match="NaN or infinite"):
        METRICS[name].function(evidence(view, values / 0, lambda _: Again(noise(1), view.inputs)))


def test_a_view_without_twins_and_evidence_without_a_method_are_unsupported(view):
    orphan = replace(view, fills={"silence": view.fills["silence"]})
    with pytest.raises(Unsupported, match="'twin'"):
        METRICS["completeness-twin"].function(evidence(orphan, noise()))
    with pytest.raises(Unsupported, match="only the map was given"):
        METRICS["input-invariance"].function(evidence(view, noise()))


def test_invariance_asks_for_one_deviation_and_looks_at_valid_cells(view):
    values, questions = noise(), []

    def again(change):
        questions.append(change)
        return Again(torch.where(VALID, 1.25 * values, 0), view.inputs)

    assert METRICS["input-invariance"].function(evidence(view, values, again)).tolist() == pytest.approx([0.25] * COUNT)
    assert questions == ["shift:1.0"]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(XaibenchError, match=r"expected finite maps \(B, F, T\)"):
        ours.completeness_gap(noise(), torch.ones(2))
    with pytest.raises(XaibenchError, match=r"expected finite maps \(B, F, T\)"):
        ours.completeness_gap(noise()[0], torch.ones(SHAPE[0]))
