"""Areas, read-outs and effects as pure functions of curves: golden values, RISE's own formula, and what is refused; then
the scores of curves that share their forward passes (AOPC, ERASER, monotonicity, regions) against their twins.
"""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from asking import COUNT, VALID, every_fill, evidence, noise, recorded
from hypothesis import given
from hypothesis import strategies as st
from toys import SHAPE, ConvCM, LinearCM, view_of
from twins import faithfulness as twin

from xaibench.errors import XaibenchError
from xaibench.metrics import faithfulness as ours
from xaibench.metrics.probe import Curve


def test_area_golden():
    fractions = torch.tensor([0.0, 0.1, 0.5, 1.0])
    values = torch.tensor([[4.0, 2.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    assert ours.area_under_curve(fractions, values).tolist() == pytest.approx([0.3 + 0.6 + 0.25, 1.0])


def test_area_is_normalised_by_the_range_of_the_fractions():
    fractions, values = torch.tensor([0.2, 0.4]), torch.tensor([[3.0, 5.0]])
    assert ours.area_under_curve(fractions, values).item() == pytest.approx(4.0)


@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=12))
def test_area_of_equal_steps_is_rises(heights):
    fractions = torch.linspace(0, 1, len(heights), dtype=torch.float64)
    result = ours.area_under_curve(fractions, torch.tensor([heights], dtype=torch.float64))
    assert result.item() == pytest.approx(twin.area(heights), abs=1e-9)


@pytest.mark.parametrize(
    ("fractions", "values", "message"),
    [
        ([0.0], [[1.0]], "S >= 2"),
        ([0.0, 1.0], [[1.0, 2.0, 3.0]], r"\(2,\) and \(1, 3\)"),
        ([0.0, 1.0], [1.0, 2.0], "values"),
        ([0.0, 0.5, 0.5], [[1.0, 2.0, 3.0]], "rise strictly"),
    ],
)
def test_area_refuses_what_is_no_curve(fractions, values, message):
    with pytest.raises(XaibenchError, match=message):
        ours.area_under_curve(torch.tensor(fractions), torch.tensor(values))


def test_area_of_an_empty_batch_is_empty():
    assert ours.area_under_curve(torch.tensor([0.0, 1.0]), torch.zeros(0, 2)).shape == (0,)


def test_readout():
    curve = Curve(torch.tensor([0.0, 1.0]), torch.tensor([[0.0, 2.0]]))
    assert ours.readout(curve, "log-odds").tolist() == [[0.0, 2.0]]
    assert ours.readout(curve, "probability").tolist() == [pytest.approx([0.5, 0.880797])]
    with pytest.raises(XaibenchError, match="logit"):
        ours.readout(curve, "logit")


def test_pixel_flipping_golden():
    # Probabilities .5 after each of three steps; the untouched input (log-odds 9) is left out: two trapezoids of width 1.
    curve = Curve(torch.tensor([0.0, 1 / 3, 2 / 3, 1.0]), torch.tensor([[9.0, 0.0, 0.0, 0.0]]))
    assert ours.pixel_flipping(curve).item() == 1.0


@pytest.mark.parametrize("fractions", [[0.0, 0.1, 1.0], [0.1, 0.2, 0.3], [0.0, 1.0]])
def test_pixel_flipping_wants_equal_steps_from_zero(fractions):
    with pytest.raises(XaibenchError, match="equal steps from 0"):
        ours.pixel_flipping(Curve(torch.tensor(fractions), torch.zeros(1, len(fractions))))


def test_top_share_effect_is_a_share_of_the_gap():
    fall, gap = torch.tensor([2.0, 2.0, -1.0, 1.0, 1.0]), torch.tensor([4.0, -4.0, 2.0, 0.9, 0.0])
    torch.testing.assert_close(
        ours.top_share_effect(fall, gap), torch.tensor([0.5, torch.nan, -0.5, torch.nan, torch.nan]), equal_nan=True
    )


# --- falls --------------------------------------------------------------------------------------------------------


@given(st.floats(-30, 30), st.floats(-30, 30))
def test_a_fall_of_probability_is_the_difference_of_sigmoids(before, after):
    expected = 1 / (1 + math.exp(-before)) - 1 / (1 + math.exp(-after))
    pair = torch.tensor([before, after], dtype=torch.float64)
    assert ours.fall(pair[0], pair[1], "probability").item() == pytest.approx(expected, abs=1e-12)
    assert ours.fall(pair[0], pair[1], "log-odds").item() == before - after


def test_a_fall_survives_where_one_minus_p_does_not():
    # exp(-50) - exp(-60), both nothing beside 1.
    score = ours.fall(torch.tensor(60.0).double(), torch.tensor(50.0).double(), "probability")
    assert score.item() == pytest.approx(math.exp(-50) - math.exp(-60), rel=1e-9)
    assert ours.fall(torch.tensor(800.0), torch.tensor(-800.0), "probability").item() == 1.0
    with pytest.raises(XaibenchError, match="logit"):
        ours.fall(torch.zeros(1), torch.zeros(1), "logit")


def test_mean_fall_golden():
    curve = Curve(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[4.0, 1.0, -2.0], [0.0, math.log(3), 0.0]]))
    assert ours.mean_fall(curve, "log-odds").tolist() == pytest.approx([3.0, -math.log(3) / 3])
    assert ours.mean_fall(curve, "probability")[1].item() == pytest.approx(-0.25 / 3)


def test_pixel_flipping_in_log_odds():
    curve = Curve(torch.tensor([0.0, 1 / 3, 2 / 3, 1.0]), torch.tensor([[9.0, 2.0, 1.0, 0.0]]))
    assert ours.pixel_flipping(curve, "log-odds").item() == 2.0


# --- on a countermeasure ------------------------------------------------------------------------------------------

CURVES = (ours.flipping, ours.aopc_morf, ours.aopc_lerf, ours.abpc, ours.comprehensiveness, ours.sufficiency,
          ours.region_perturbation)  # fmt: skip


@pytest.fixture(scope="module")
def view():
    return view_of(LinearCM(), COUNT)


def answers(view, index, fill, values, order, counts, direction):
    """The twin's curve of one utterance, log-odds."""
    return twin.curve(
        lambda masked: view.score(torch.from_numpy(masked)[None]).item(),
        view.inputs[index].numpy(), view.fill(fill)[index].numpy(), order, counts, direction=direction,
    )  # fmt: skip


@every_fill
@pytest.mark.parametrize("readout", ["log-odds", "probability"])
def test_curves_are_their_twins(fill, readout):
    view = view_of(ConvCM(), 1)
    values = noise(1)
    given_ = evidence(view, values)
    cells = [tuple(c) for c in VALID.nonzero().tolist()]
    most = sorted(cells, key=lambda cell: -values[0][cell].item())
    steps = [round(k / 10 * len(cells)) for k in range(11)]
    bins = [round(b / 100 * len(cells)) for b in (1, 5, 10, 20, 50)]

    def read(scores):
        return scores if readout == "log-odds" else [1 / (1 + math.exp(-s)) for s in scores]

    def curve(order, counts, direction="deletion"):
        return read(answers(view, 0, fill, values, order, counts, direction))

    def check(function, expected):
        assert function(given_, fill=fill, values=readout).item() == pytest.approx(expected, abs=1e-5)

    morf, lerf = twin.aopc(curve(most, steps)), twin.aopc(curve(most[::-1], steps))
    check(ours.aopc_morf, morf)
    check(ours.aopc_lerf, lerf)
    check(ours.abpc, morf - lerf)
    check(ours.flipping, 9 * twin.area(curve(most, steps[1:])))
    whole = curve(most, [0])[0]
    check(ours.comprehensiveness, sum(whole - f for f in curve(most, bins)) / 5)
    check(ours.sufficiency, sum(whole - f for f in curve(most, bins, "insertion")) / 5)
    regions = sorted(twin.regions(VALID.numpy(), 9), key=lambda r: -twin.relevance(values[0].numpy(), r))
    tops = [[c for region in regions[: max(1, round(k / 100 * len(regions)))] for c in region] for k in range(1, 11)]
    check(ours.region_perturbation, twin.aopc([whole, *(curve(top, [len(top)])[0] for top in tops)]))


@every_fill
def test_least_relevant_first_is_most_relevant_first_of_the_reversed_map(view, fill):
    lerf = ours.aopc_lerf(evidence(view, noise()), fill=fill)
    torch.testing.assert_close(lerf, ours.aopc_morf(evidence(view, -noise()), fill=fill), rtol=0, atol=1e-5)
    abpc = ours.abpc(evidence(view, noise()), fill=fill)
    torch.testing.assert_close(abpc, -ours.abpc(evidence(view, -noise()), fill=fill), rtol=0, atol=1e-5)


def test_tied_cells_that_go_last_in_one_order_go_first_in_the_other(view):
    """The top half that MoRF removes and the bottom half that LeRF removes share no cell, with ties all over."""
    recorder, watched = recorded(view)
    given_ = evidence(watched, noise().sign())
    taken = {}
    for direction in ("deletion", "insertion"):
        recorder.inputs.clear()
        given_.curve(direction, "silence", (0.5,))
        (seen,) = recorder.inputs
        taken[direction] = (seen != view.inputs)[:, 0]
    assert not (taken["deletion"] & taken["insertion"]).any()
    assert torch.equal(taken["deletion"] | taken["insertion"], VALID.expand(COUNT, *SHAPE))
    # The reversed map breaks its ties in the other random order, so there the two may differ.
    reversed_ = evidence(watched, -noise().sign())
    recorder.inputs.clear()
    reversed_.curve("deletion", "silence", (0.5,))
    assert not torch.equal((recorder.inputs[0] != view.inputs)[:, 0], taken["insertion"])


def test_new_curves_cost_the_steps_that_no_other_curve_took(view):
    recorder, watched = recorded(view)
    given_ = evidence(watched, noise(), fractions=(0.01, 0.05, 0.1, 0.2, 0.5))
    ours.deletion(given_, fill="mean")
    ours.insertion(given_, fill="mean")
    before = recorder.utterances
    assert before == COUNT * (2 + 2 * 5)
    ours.comprehensiveness(given_, fill="mean")
    ours.sufficiency(given_, fill="mean", values="probability")
    assert recorder.utterances == before
    for function in (ours.flipping, ours.aopc_morf, ours.monotonicity):
        function(given_, fill="mean")
    assert recorder.utterances == before + COUNT * 6  # .3 .4 .6 .7 .8 .9
    ours.abpc(given_, fill="mean")
    assert recorder.utterances == before + COUNT * 12
    for values in ("log-odds", "probability"):
        ours.region_perturbation(given_, fill="mean", values=values)
    assert recorder.utterances == before + COUNT * (12 + 6)  # 56 regions: ten shares are 1 to 6 of them


@pytest.mark.parametrize("side", [1, 4, 9, 40, 200])
def test_regions_of_any_size_make_a_curve(view, side):
    curve = evidence(view, noise(), side=side).region_curve("silence", ours.REGION_STEPS)
    assert curve.log_odds.shape == (COUNT, 11) and curve.log_odds.isfinite().all()
    torch.testing.assert_close(curve.log_odds[:, 0], view.score(view.inputs).double())


def test_regions_never_touch_a_cell_that_is_not_valid_and_memory_is_bounded(view):
    recorder, watched = recorded(view, batch_size=4)
    ours.region_perturbation(evidence(watched, noise()), fill="silence")
    assert max(len(x) for x in recorder.inputs) <= 4
    for inputs in recorder.inputs:
        assert not (inputs != view.inputs)[..., ~VALID].any()


def test_tied_regions_go_at_random_but_alike_for_every_attributor(view):
    curves = [evidence(view, torch.full((COUNT, *SHAPE), v), side=3).region_curve("mean", (0.0, 0.1)) for v in (1.0, 2.0)]
    assert torch.equal(curves[0].log_odds, curves[1].log_odds)


@pytest.mark.parametrize("function", [*CURVES, ours.monotonicity])
def test_a_map_of_zeros_is_undefined_and_a_constant_one_is_not(view, function):
    values = torch.stack([torch.zeros(SHAPE), torch.ones(SHAPE), (~VALID).float()])
    assert function(evidence(view, values), fill="twin").isnan().tolist() == [True, False, True]


@pytest.mark.parametrize("function", CURVES)
def test_a_bad_map_or_read_out_is_refused(view, function):
    values = noise()
    values[2, 3, 4] = torch.nan
    with pytest.raises(XaibenchError, match="1 NaN or infinite"):
        function(evidence(view, values), fill="mean")
    with pytest.raises(XaibenchError, match="'logit'"):
        function(evidence(view, noise()), fill="mean", values="logit")


def test_the_probabilities_reach_no_further_than_declared():
    """The widest curves there are: certain of spoof untouched, certain of bona fide after, and the reverse."""
    high, low = torch.full((1, 11), 80.0), torch.full((1, 11), -80.0)
    fallen = Curve(torch.linspace(0, 1, 11), torch.cat([high[:, :1], low[:, 1:]], 1))
    assert ours.mean_fall(fallen, "probability").item() == pytest.approx(10 / 11)
    # Both curves of the area begin with the untouched input and end with everything filled: nine points are left.
    kept = Curve(fallen.fractions, torch.cat([high[:, :10], low[:, :1]], 1))
    area = ours.mean_fall(fallen, "probability") - ours.mean_fall(kept, "probability")
    assert area.item() == pytest.approx(9 / 11)
    assert ours.pixel_flipping(Curve(torch.linspace(0, 1, 11), high)).item() == pytest.approx(9.0)


# --- monotonicity -------------------------------------------------------------------------------------------------


def test_monotonicity_counts_the_steps_that_do_not_fall(view):
    given_ = evidence(view, noise())
    scores = given_.curve("deletion", "mean", ours.EQUAL_STEPS).log_odds.flip(1).tolist()  # from nothing to everything
    expected = [sum(b >= a for a, b in pairwise(row)) / 10 for row in scores]
    assert ours.monotonicity(given_, fill="mean").tolist() == pytest.approx(expected)
    assert min(expected) < 1 and max(expected) > 0


def test_every_order_is_monotone_where_all_evidence_is_for_spoof():
    view = view_of(LinearCM(torch.full(SHAPE, 0.01)), COUNT)
    view = replace(view, fills={"below": view.inputs - 1})  # every cell carries 0.01
    for values in (noise(), -noise()):
        assert ours.monotonicity(evidence(view, values), fill="below").tolist() == [1.0] * COUNT


def test_monotonicity_cannot_tell_the_exact_signed_map_from_its_reverse(view):
    """Why the exact attribution does not win: its negative cells come first and each of their steps falls."""
    exact = LinearCM().exact(view)
    best, worst = (ours.monotonicity(evidence(view, v), fill="mean") for v in (exact, -exact))
    assert (best < 1).all() and (best - worst).abs().max() <= 0.1 + 1e-9


def test_a_step_that_moves_nothing_does_not_fall():
    view = view_of(LinearCM(torch.zeros(SHAPE)), COUNT)
    assert ours.monotonicity(evidence(view, noise()), fill="mean").tolist() == [1.0] * COUNT


def test_the_constants_that_scores_are_defined_by():
    assert ours.SMALLEST_GAP == 1.0 and ours.BINS == (0.01, 0.05, 0.1, 0.2, 0.5)
    assert list(ours.EQUAL_STEPS) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1])
    assert list(ours.REGION_STEPS) == pytest.approx([0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1])
    effect = ours.top_share_effect(torch.tensor([0.5, 0.5, 0.5]), torch.tensor([1.0, 0.999, -2.0]))
    assert effect.tolist() == pytest.approx([0.5, torch.nan, torch.nan], nan_ok=True)


def test_two_equal_steps_are_enough_for_pixel_flipping_and_two_points_for_an_area():
    curve = Curve(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[9.0, 4.0, 2.0], [0.0, 1.0, 5.0]]))
    assert ours.pixel_flipping(curve, "log-odds").tolist() == [3, 3]
    almost = Curve(torch.tensor([0.0, 0.5, 1.0004]), curve.log_odds)
    assert ours.pixel_flipping(almost, "log-odds").tolist() == [3, 3]
    with pytest.raises(XaibenchError, match="equal steps"):
        ours.pixel_flipping(Curve(torch.tensor([0.0, 0.5, 1.01]), curve.log_odds))
    area = ours.area_under_curve(torch.tensor([0.25, 0.75]), torch.tensor([[1.0, 3.0], [0.0, 1.0]]))
    assert area.tolist() == [2, 0.5] and area.dtype == torch.float64
    single = ours.area_under_curve(torch.tensor([0.0, 1 / 3, 1.0]), torch.tensor([[2.0**24, 1.0, 1.0]]))
    assert single.item() == pytest.approx((2**24 + 1) / 6 + 2 / 3, rel=1e-7)
    for values in (torch.ones(3), torch.ones(1, 1, 3)):
        with pytest.raises(XaibenchError, match="expected fractions"):
            ours.area_under_curve(torch.tensor([0.0, 0.5, 1.0]), values)
    with pytest.raises(XaibenchError, match="rise strictly"):
        ours.area_under_curve(torch.tensor([0.0, 0.5, 0.5]), torch.ones(1, 3))
