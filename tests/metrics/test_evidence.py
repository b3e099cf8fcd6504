"""Deletion, insertion and the top-share effect: against their twin, against a countermeasure whose answers are known in
closed form, and against the price list (which forward passes are made, and how large).
"""

from dataclasses import replace

import pytest
import torch
from asking import ALL, COUNT, FRACTIONS, VALID, every_fill, evidence, noise, recorded
from toys import SHAPE, ConvCM, LinearCM, view_of
from twins import faithfulness as twin

from xaibench.errors import Unsupported, XaibenchError
from xaibench.metrics import faithfulness as ours
from xaibench.metrics.evidence import Probe

every_direction = pytest.mark.parametrize("direction", ["deletion", "insertion"])


@pytest.fixture(scope="module")
def linear():
    return LinearCM()


@pytest.fixture(scope="module")
def view(linear):
    return view_of(linear, COUNT)


def top(values, count):
    """The `count` largest cells of each map without ties. Shape: `(B, F, T)` bool."""
    flat = values.flatten(1)
    return (flat >= flat.topk(count, dim=1).values[:, -1:]).view_as(values)


# --- curves -------------------------------------------------------------------------------------------------------


@every_fill
@every_direction
@pytest.mark.parametrize("route", ["native", "grid"])
def test_curves_are_their_twin(route, direction, fill):
    view = view_of(ConvCM(), 2, route=route)
    values = noise(2)
    curve = Probe(view, VALID, FRACTIONS).curve(values, direction, fill)
    assert curve.fractions.tolist() == [0.0, *FRACTIONS, 1.0]
    counts = [round(f * int(VALID.sum())) for f in curve.fractions.tolist()]
    for i in range(2):
        cells = [tuple(c) for c in VALID.nonzero().tolist()]
        order = sorted(cells, key=lambda cell: -values[i][cell].item())
        expected = twin.curve(
            lambda masked: view.score(torch.from_numpy(masked)[None]).item(),
            view.inputs[i].numpy(), view.fill(fill)[i].numpy(), order, counts, direction=direction,
        )  # fmt: skip
        assert curve.log_odds[i].tolist() == pytest.approx(expected, abs=2e-5)


def test_the_probability_is_the_countermeasures_softmax(linear, view):
    logits = linear.backend(view.inputs)
    curve = Probe(view, VALID, ()).curve(noise(), "deletion", "mean")
    torch.testing.assert_close(curve.probability[:, 0], logits.softmax(1)[:, 0].double(), rtol=0, atol=1e-6)


@every_fill
def test_on_a_linear_countermeasure_deletion_takes_away_exactly_what_the_cells_carried(linear, view, fill):
    exact, values = linear.exact(view, fill), noise()
    curve = Probe(view, ALL, FRACTIONS).curve(values, "deletion", fill)
    for step, fraction in enumerate(FRACTIONS, start=1):
        removed = (exact * top(values, round(fraction * ALL.numel()))).sum((1, 2))
        torch.testing.assert_close(
            curve.log_odds[:, step], curve.log_odds[:, 0] - removed, rtol=0, atol=1e-4, check_dtype=False
        )


@every_fill
def test_no_order_beats_the_exact_attribution_of_a_linear_countermeasure(linear, view, fill):
    best = evidence(view, linear.exact(view, fill))
    for seed in range(3):
        other = evidence(view, noise(seed=seed))
        assert (ours.deletion(best, fill=fill) < ours.deletion(other, fill=fill)).all()
        assert (ours.insertion(best, fill=fill) > ours.insertion(other, fill=fill)).all()
        assert (best.drop(fill) > other.drop(fill)).all()


@every_fill
@every_direction
def test_the_ends_of_a_curve(view, direction, fill):
    curve = Probe(view, VALID, FRACTIONS).curve(noise(), direction, fill)
    whole = view.score(view.inputs)
    emptied = view.score(torch.where(VALID, view.fill(fill), view.inputs))
    first, last = (whole, emptied) if direction == "deletion" else (emptied, whole)
    torch.testing.assert_close(curve.log_odds[:, 0], first.double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(curve.log_odds[:, -1], last.double(), rtol=0, atol=1e-5)


@every_fill
def test_deleting_from_the_top_is_inserting_from_the_bottom(view, fill):
    probe = Probe(view, ALL, (0.25, 0.5, 0.75))
    forth, back = probe.curve(noise(), "deletion", fill), probe.curve(-noise(), "insertion", fill)
    torch.testing.assert_close(forth.log_odds, back.log_odds.flip(1), rtol=0, atol=1e-5)


@every_direction
def test_cells_that_are_not_valid_are_never_touched(view, direction):
    recorder, watched = recorded(view)
    Probe(watched, VALID, FRACTIONS).curve(noise(), direction, "silence")
    touched = 0
    for inputs in recorder.inputs:
        per_utterance = inputs.view(COUNT, -1, *view.inputs.shape[1:])
        changed = per_utterance != view.inputs.unsqueeze(1)
        assert not changed[..., ~VALID].any()
        touched += int(changed[..., VALID].any(-1).sum())
    assert touched == COUNT * (1 + len(FRACTIONS))  # every question but the untouched one


@every_direction
def test_a_batch_has_the_curves_of_its_utterances_alone(view, direction):
    values = noise().round()  # with ties
    together = Probe(view, VALID, FRACTIONS).curve(values, direction, "twin").log_odds
    for i, single in enumerate(view.each()):
        alone = Probe(single, VALID, FRACTIONS).curve(values[i : i + 1], direction, "twin").log_odds
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 64])
def test_memory_is_bounded_and_the_batch_size_changes_nothing(view, batch_size):
    recorder, watched = recorded(view, batch_size=batch_size)
    curve = Probe(watched, VALID, FRACTIONS).curve(noise(), "deletion", "mean")
    assert max(len(x) for x in recorder.inputs) <= batch_size
    reference = Probe(view, VALID, FRACTIONS).curve(noise(), "deletion", "mean")
    torch.testing.assert_close(curve.log_odds, reference.log_odds, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("batch_size", "most"), [(2, COUNT), (7, 6), (64, 4 * COUNT)])
def test_no_more_masked_inputs_exist_than_said(view, batch_size, most, monkeypatch):
    built = []
    filled = type(view).filled
    monkeypatch.setattr(type(view), "filled", lambda *args: built.append(filled(*args)) or built[-1])
    Probe(replace(view, batch_size=batch_size), VALID, FRACTIONS).curve(noise(), "insertion", "mean")
    assert max(map(len, built)) == most


# --- order and ties -----------------------------------------------------------------------------------------------


def test_ranks_fall_with_the_values_and_leave_invalid_cells_last(view):
    probe, values = Probe(view, VALID, ()), noise()
    ranks = probe.ranks(values)
    assert (ranks[:, ~VALID] == probe.cells).all()
    for i in range(COUNT):
        order = ranks[i][VALID].argsort()
        assert (values[i][VALID][order].diff() < 0).all()
        assert sorted(ranks[i][VALID].tolist()) == list(range(probe.cells))


def test_ties_fall_at_random_but_alike_for_every_attributor(view):
    probe = Probe(view, VALID, ())
    ones = probe.ranks(torch.ones(COUNT, *SHAPE))
    assert torch.equal(ones, Probe(replace(view, seed=5), VALID, ()).ranks(torch.full((COUNT, *SHAPE), 3.0)))
    assert not torch.equal(ones[0], ones[1])
    # In a random order the mean row of the first half is the middle one, to a few standard errors (0.2 rows each).
    rows = torch.arange(SHAPE[0])[:, None].expand(SHAPE)
    for i in range(COUNT):
        assert abs(rows[ones[i] < probe.cells // 2].double().mean() - rows[VALID].double().mean()) < 1.0


def test_ties_never_overrule_values(view):
    values = noise().round()
    ranks = Probe(view, ALL, ()).ranks(values)
    ordered = values.flatten(1).gather(1, ranks.flatten(1).argsort(1))
    assert (ordered.diff(dim=1) <= 0).all()


def test_an_all_zero_map_is_undefined_and_a_constant_one_is_not(view):
    values = torch.stack([torch.zeros(SHAPE), torch.ones(SHAPE), (~VALID).float()])
    given_ = evidence(view, values)
    for result in (
        ours.deletion(given_, fill="twin"),
        ours.insertion(given_, fill="mean", values="probability"),
        ours.drop(given_, fill="silence"),
        ours.flipping(given_, fill="silence"),
    ):
        assert result.isnan().tolist() == [True, False, True]


# --- the top-share effect -----------------------------------------------------------------------------------------


def test_putting_the_whole_twin_in_place_is_an_effect_of_one(view, monkeypatch):
    monkeypatch.setattr(ours, "SMALLEST_GAP", 1e-6)  # the toy's gaps are small
    given_ = evidence(view, noise(), valid=ALL)
    effect = ours.top_share_effect(given_.drop("twin", share=1.0), given_.probe.gap)
    torch.testing.assert_close(effect, torch.ones(COUNT, dtype=torch.float64), rtol=0, atol=1e-5)


def test_the_gap_is_the_difference_of_the_pair(view):
    probe = Probe(view, VALID, ())
    expected = view.score(view.inputs) - view.score(view.fills["twin"])
    torch.testing.assert_close(probe.gap, expected.double(), rtol=0, atol=1e-6)


def test_a_drop_on_a_linear_countermeasure(linear, view):
    values = noise()
    carried = (linear.exact(view, "mean") * top(values, round(0.05 * ALL.numel()))).sum((1, 2)).double()
    torch.testing.assert_close(evidence(view, values, valid=ALL).drop("mean"), carried, rtol=0, atol=1e-4)


def test_a_countermeasure_that_cannot_tell_a_pair_apart_leaves_the_effect_undefined():
    view = view_of(LinearCM(torch.zeros(SHAPE)), COUNT)
    assert ours.drop(evidence(view, noise()), fill="mean").isnan().all()


# --- what is paid for ---------------------------------------------------------------------------------------------


def test_a_drop_costs_one_forward_pass_an_utterance(view):
    recorder, watched = recorded(view)
    given_ = evidence(watched, noise())
    _ = given_.probe.untouched
    before = recorder.utterances
    first = given_.drop("mean")
    assert recorder.utterances - before == COUNT
    assert torch.equal(given_.drop("mean"), first) and recorder.utterances - before == COUNT


@pytest.mark.parametrize("drop_first", [True, False])
def test_a_drop_is_free_beside_the_deletion_curve_whichever_comes_first(view, drop_first):
    recorder, watched = recorded(view)
    given_ = evidence(watched, noise())
    questions = [lambda: given_.drop("mean"), lambda: ours.deletion(given_, fill="mean")]
    for ask in questions if drop_first else reversed(questions):
        ask()
    ours.deletion(given_, fill="mean", values="probability")
    assert recorder.utterances == COUNT * (2 + len(FRACTIONS))  # untouched, filled, and one an interior point


def test_answers_that_no_attribution_changes_are_asked_once_a_batch(view):
    recorder, watched = recorded(view)
    probe = Probe(watched, VALID, FRACTIONS)
    for seed in range(3):
        for direction in ("deletion", "insertion"):
            probe.curve(noise(seed=seed), direction, "twin")
    assert (probe.gap.shape, recorder.utterances) == ((COUNT,), COUNT * (3 + 3 * 2 * len(FRACTIONS)))


def test_fractions_that_round_to_one_number_of_cells_are_one_question(view):
    recorder, watched = recorded(view)
    curve = Probe(watched, VALID, (1e-9, 0.5, 0.5 + 1e-9)).curve(noise(), "deletion", "mean")
    assert recorder.utterances == COUNT * 3  # untouched, half, filled
    assert torch.equal(curve.log_odds[:, 0], curve.log_odds[:, 1]) and torch.equal(
        curve.log_odds[:, 2], curve.log_odds[:, 3]
    )


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fractions", [(0.0, 0.5), (0.5, 1.0), (0.5, 0.2), (0.2, 0.2), (float("nan"),)])
def test_fractions_must_rise_between_zero_and_one(view, fractions):
    with pytest.raises(XaibenchError, match="rise strictly between 0 and 1"):
        Probe(view, VALID, fractions)


@pytest.mark.parametrize("valid", [VALID.T, VALID.float(), torch.zeros_like(VALID)])
def test_valid_must_fit_the_view(view, valid):
    with pytest.raises(XaibenchError, match=r"view's shape \(33, 126\)"):
        Probe(view, valid, ())


@pytest.mark.parametrize("values", [torch.ones(COUNT, *SHAPE[::-1]), torch.ones(1, *SHAPE), torch.ones(SHAPE)])
def test_values_must_be_on_the_views_axes(view, values):
    with pytest.raises(XaibenchError, match=r"view's axes \(3, 33, 126\)"):
        Probe(view, VALID, ()).ranks(values)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_values_must_be_finite(view, bad):
    values = noise()
    values[1, 0, 0] = bad
    with pytest.raises(XaibenchError, match="1 NaN or infinite"):
        evidence(view, values).drop("mean")


def test_unknown_directions_and_fills_are_named(view):
    probe = Probe(view, VALID, FRACTIONS)
    with pytest.raises(XaibenchError, match="deletion, insertion, got 'removal'"):
        probe.curve(noise(), "removal", "mean")
    with pytest.raises(Unsupported, match="'black'"):
        probe.curve(noise(), "deletion", "black")


def test_a_view_without_twins_answers_unsupported(view):
    orphan = replace(view, fills={name: view.fills[name] for name in ("silence", "mean")})
    with pytest.raises(Unsupported, match="'twin'"):
        ours.drop(evidence(orphan, noise()), fill="mean")


def test_two_methods_with_one_order_of_cells_share_every_answer_and_others_none():
    seen, view = recorded(view_of(ConvCM(), 2))
    first = evidence(view, noise(2))
    scores = ours.deletion(first, fill="twin"), ours.insertion(first, fill="twin")
    seen.inputs.clear()
    stretched = replace(evidence(view, noise(2).exp() * 7), probe=first.probe)  # other values in the same order
    assert torch.equal(ours.deletion(stretched, fill="twin"), scores[0])
    assert torch.equal(ours.insertion(stretched, fill="twin"), scores[1])
    assert not seen.inputs
    swapped = noise(2)
    at = VALID.nonzero()[:2]
    swapped[1, at[0, 0], at[0, 1]], swapped[1, at[1, 0], at[1, 1]] = (
        swapped[1, at[1, 0], at[1, 1]].clone(), swapped[1, at[0, 0], at[0, 1]].clone(),
    )  # fmt: skip
    ours.deletion(replace(evidence(view, swapped), probe=first.probe), fill="twin")
    assert seen.inputs


def test_whole_curves_that_were_asked_for_are_told_and_nothing_else(view):
    asked = evidence(view, noise())
    assert asked.asked() == {}
    asked.drop("twin")
    ours.flipping(asked, fill="mean")
    assert asked.asked() == {}
    curve = asked.curve("insertion", "twin")
    asked.curve("deletion", "mean")
    found = asked.asked()
    assert list(found) == ["deletion-mean", "insertion-twin"]
    assert torch.equal(found["insertion-twin"].log_odds, curve.log_odds)
    assert found["insertion-twin"].fractions.tolist() == [0.0, *FRACTIONS, 1.0]
    assert "_known" not in repr(asked) and "_kept" not in repr(asked)


def test_the_effect_of_the_top_share_is_of_that_share(view):
    asked = evidence(view, noise())
    for share in (0.05, 0.2, 1.0):
        fell = asked.probe.untouched - asked.curve("deletion", "mean", (share,)).log_odds[:, 0]
        assert torch.equal(asked.drop("mean", share), fell)
    assert torch.equal(asked.drop("mean"), asked.drop("mean", 0.05))


def test_shares_of_regions_round_and_are_one_region_at_least(view):
    asked = evidence(view, noise(), side=9)
    count = asked.probe.regions.count
    curve = asked.region_curve("mean", (0.0, 1e-6, 1 / count, 2.4 / count, 1.0))
    one = asked.region_curve("mean", (0.0, 1 / count)).log_odds
    assert torch.equal(curve.log_odds[:, 0], asked.probe.untouched)
    torch.testing.assert_close(curve.log_odds[:, 1:3], one[:, 1:].expand(-1, 2))
    torch.testing.assert_close(curve.log_odds[:, 3], asked.region_curve("mean", (0.0, 2 / count)).log_odds[:, 1])
    torch.testing.assert_close(curve.log_odds[:, 4], asked.probe.filled("mean"))
    assert curve.fractions.dtype == torch.float64 and curve.log_odds.dtype == torch.float64
    silent = noise()
    silent[1] = 0
    silent[2] *= ~VALID  # speaks outside the valid cells only
    asked = evidence(view, silent)
    for answers in (asked.region_curve("mean", (0.0, 0.5)).log_odds, asked.curve("deletion", "mean").log_odds):
        assert answers.isnan().all(1).tolist() == [False, True, True] and answers[0].isfinite().all()


def test_what_no_attribution_changes_is_asked_once(view):
    recorder, watched = recorded(view)
    probe = Probe(watched, VALID, FRACTIONS)
    for _ in range(2):
        probe.untouched, probe.filled("mean"), probe.nothing_but("mean"), probe.bonafide, probe.gap
    assert recorder.utterances == 4 * COUNT
