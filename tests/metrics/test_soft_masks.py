"""L-MAC's family: against its twin, golden values, certain countermeasures, and what is paid for."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from asking import COUNT, VALID, every_fill, evidence, noise, recorded
from hypothesis import given
from hypothesis import strategies as st
from toys import SHAPE, ConvCM, LinearCM, view_of
from twins import faithfulness as twin

from xaibench.errors import XaibenchError
from xaibench.metrics import soft_masks as ours

LISTENED = {
    "average-drop": ours.average_drop,
    "average-increase": ours.average_increase,
    "average-gain": ours.average_gain,
    "fid-in": ours.fidelity_in,
}
EVERY = (*LISTENED.values(), ours.faithfulness_on_spectra)


@pytest.fixture(scope="module")
def view():
    return view_of(LinearCM(), COUNT)


def test_mask_golden():
    valid = torch.tensor([[True, True, False], [True, True, True]])
    values = torch.tensor([[[-3.0, 1.0, 90.0], [4.0, 0.0, 2.0]], [[5.0, 5.0, 0.0], [5.0, 5.0, 5.0]]])
    expected = [[[0.0, 0.25, 1.0], [1.0, 0.0, 0.5]], [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]]
    assert ours.soft_mask(values, valid).tolist() == expected


def test_relative_fall_golden():
    # p = 3/4 (odds 3), o = 1/4: (1/2) / (3/4). The other way round nothing falls.
    p, o = torch.tensor([math.log(3), -math.log(3)]), torch.tensor([-math.log(3), math.log(3)])
    assert ours.relative_fall(p, o).tolist() == pytest.approx([2 / 3, 0.0])


@given(st.floats(-20, 20), st.floats(-20, 20))
def test_relative_falls_are_the_formulas(before, after):
    p, o = 1 / (1 + math.exp(-before)), 1 / (1 + math.exp(-after))
    s, t = torch.tensor(before, dtype=torch.float64), torch.tensor(after, dtype=torch.float64)
    assert ours.relative_fall(s, t).item() == pytest.approx(max(p - o, 0) / p, rel=1e-6, abs=1e-6)
    # The plain formula has lost its digits where 1 - p is 1e-9.
    assert ours.relative_fall(-s, -t).item() == pytest.approx(max(o - p, 0) / (1 - p), rel=1e-6, abs=1e-6)


def test_a_certain_countermeasure_still_gains_and_drops():
    # 1 - p = exp(-50) is 0 beside 1 in float64; one log-odds more leaves 1/e of what was missing.
    s, t = torch.tensor([50.0], dtype=torch.float64), torch.tensor([51.0], dtype=torch.float64)
    assert ours.relative_fall(-s, -t).item() == pytest.approx(1 - math.exp(-1))
    assert ours.relative_fall(t, s).item() == pytest.approx(math.exp(-50) - math.exp(-51), rel=1e-9)


@every_fill
@pytest.mark.parametrize("route", ["native", "grid"])
@pytest.mark.parametrize("bias", [0.0, 1.3])
def test_they_are_their_twin(fill, route, bias):
    cm = ConvCM()
    with torch.no_grad():  # a countermeasure that decides for bona fide, and one for spoof
        cm.backend[-1].bias.copy_(torch.tensor([bias, 0.0]))
    view = view_of(cm, 2, route=route)
    values = noise(2)
    given_ = evidence(view, values)
    for i in range(2):
        spoof, other = view.inputs[i].numpy(), view.fill(fill)[i].numpy()

        def decided(x, view=view, spoof=spoof):
            s = view.score(torch.from_numpy(x)[None]).item()
            sign = 1 if view.score(torch.from_numpy(spoof)[None]).item() >= 0 else -1
            return 1 / (1 + math.exp(-sign * s))

        p = decided(spoof)
        o = decided(twin.soft_masked(spoof, other, values[i].numpy(), VALID.numpy()))
        for name, expected in twin.listened(p, o).items():
            assert LISTENED[name](given_, fill=fill)[i].item() == pytest.approx(expected, abs=1e-3), name
        rest = decided(twin.soft_masked(spoof, other, values[i].numpy(), VALID.numpy(), out=True))
        score = ours.faithfulness_on_spectra(given_, fill=fill, values="probability")[i].item()
        assert score == pytest.approx(p - rest, abs=1e-5)


def test_in_log_odds_the_rest_of_a_linear_countermeasure_is_exact(view):
    values = noise()
    mask = ours.soft_mask(values, VALID)
    mask = torch.where(VALID, mask, 0.0)
    sign = torch.where(view.score(view.inputs) >= 0, 1.0, -1.0)
    expected = sign * (LinearCM().exact(view) * mask).sum((1, 2))
    score = ours.faithfulness_on_spectra(evidence(view, values), fill="mean")
    torch.testing.assert_close(score, expected.double(), rtol=0, atol=1e-5)


def test_a_constant_map_keeps_everything(view):
    given_ = evidence(view, torch.full((COUNT, *SHAPE), 3.0))
    scores = {name: function(given_, fill="silence").tolist() for name, function in LISTENED.items()}
    assert scores["average-drop"] == scores["average-increase"] == scores["average-gain"] == [0.0] * COUNT
    assert scores["fid-in"] == [1.0] * COUNT
    whole = given_.probe.untouched - given_.probe.filled("silence")
    sign = torch.where(given_.probe.untouched >= 0, 1.0, -1.0)
    torch.testing.assert_close(ours.faithfulness_on_spectra(given_, fill="silence"), sign * whole, rtol=0, atol=1e-5)


def test_the_scale_of_a_map_changes_nothing_and_negative_cells_are_not_heard(view):
    values = noise()
    for function in EVERY:
        scores = function(evidence(view, values), fill="twin")
        torch.testing.assert_close(function(evidence(view, 8 * values), fill="twin"), scores)
        torch.testing.assert_close(function(evidence(view, values.clamp_min(0)), fill="twin"), scores)


def test_a_map_without_a_positive_valid_cell_is_undefined(view):
    values = torch.stack([-noise(1)[0].abs(), (~VALID).float(), noise(1)[0]])
    for function in EVERY:
        assert function(evidence(view, values), fill="mean").isnan().tolist() == [True, True, False]


def test_one_pass_for_the_masked_in_input_and_one_for_the_rest(view):
    recorder, watched = recorded(view)
    given_ = evidence(watched, noise())
    _ = given_.probe.untouched
    for function in LISTENED.values():
        function(given_, fill="mean")
    assert recorder.utterances == 2 * COUNT
    for values in ("log-odds", "probability"):
        ours.faithfulness_on_spectra(given_, fill="mean", values=values)
    assert recorder.utterances == 3 * COUNT
    assert not any((x.view(COUNT, *view.inputs.shape[1:]) != view.inputs)[..., ~VALID].any() for x in recorder.inputs)


def test_bad_maps_and_fills_are_refused(view):
    values = noise()
    values[0, 0, 0] = torch.inf
    with pytest.raises(XaibenchError, match="1 NaN or infinite"):
        ours.average_drop(evidence(view, values), fill="mean")
    with pytest.raises(XaibenchError, match="'black'"):
        ours.average_drop(evidence(view, noise()), fill="black")
    with pytest.raises(XaibenchError, match="'logit'"):
        ours.faithfulness_on_spectra(evidence(view, noise()), fill="mean", values="logit")
    orphan = replace(view, fills={name: view.fills[name] for name in ("silence", "mean")})
    with pytest.raises(XaibenchError, match="'twin'"):
        ours.average_drop(evidence(orphan, noise()), fill="twin")


def answered(untouched, masked):
    """Evidence of these log-odds; nothing is asked."""
    given = torch.tensor([untouched, masked], dtype=torch.float64)
    return SimpleNamespace(probe=SimpleNamespace(untouched=given[0]), kept=lambda what, fill, ask: given[1])


def test_the_class_decided_for_is_spoof_from_log_odds_of_zero_on():
    asked = answered([0.0, 0.0, -1e-9, 2.0, -2.0], [1.0, -1.0, 1.0, 2.0, -3.0])
    half, most = 0.5, 1 / (1 + math.exp(-1))
    assert ours.average_drop(asked, fill="mean").tolist() == pytest.approx(
        [0, 100 * (most - half) / half, 100 * (most - half) / half, 0, 0]
    )
    assert ours.average_increase(asked, fill="mean").tolist() == [100, 0, 0, 0, 100]
    assert ours.fidelity_in(asked, fill="mean").tolist() == [1, 0, 0, 1, 1]
    assert ours.faithfulness_on_spectra(asked, fill="mean").tolist() == pytest.approx([-1, 1, 1, 0, -1])
    gain = (1 / (1 + math.exp(-3)) - 1 / (1 + math.exp(-2))) * (1 + math.exp(2))
    assert ours.average_gain(asked, fill="mean").tolist() == pytest.approx([100 * (most - half) / half, 0, 0, 0, 100 * gain])
    assert ours.fidelity_in(answered([1.0], [0.0]), fill="mean").item() == 1
