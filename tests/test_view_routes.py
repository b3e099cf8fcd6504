"""Both routes in numbers: the identities of the grid, the tap as a true cut, the sign, and what fills a mask."""

import numpy as np
import pytest
import torch
from torch import nn
from toys import GRID, N_SAMPLES, SHAPE, ConvCM, LinearCM, pairs
from view_toys import ManyClassCM, RawCM, gradient, make

from xaibench.errors import PluginError, Unsupported, XaibenchError
from xaibench.scoring import bonafide_log_odds
from xaibench.view import FILLS, Resynthesis, SpoofLogOdds

ROUTES = ("native", "grid")

# The grid route: four identities


@pytest.mark.parametrize("cm", [RawCM, ConvCM, LinearCM])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-4)])
def test_the_untouched_grid_scores_as_the_waveform(cm, dtype, tolerance):
    cm = cm().to(dtype).eval()
    view = make(cm, "grid", dtype)
    wanted = -bonafide_log_odds(cm(pairs(2)[0].to(dtype)), cm.classes)
    assert torch.allclose(view.score(view.inputs), wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("cm", [RawCM, ConvCM, LinearCM])
def test_input_times_gradient_on_the_grid_sums_to_that_on_the_waveform(cm):
    cm = cm().double().eval()
    view = make(cm, "grid")
    wave = pairs(2)[0].double().requires_grad_()
    slope = torch.autograd.grad(-bonafide_log_odds(cm(wave), cm.classes).sum(), wave)[0]
    wanted = (wave.detach() * slope).sum(1)
    found = (view.inputs * gradient(view, view.inputs)).sum((1, 2, 3))
    assert torch.allclose(found, wanted, rtol=1e-7, atol=1e-9)
    assert float(wanted.abs().min()) > 1e-4  # not zero against zero


@pytest.mark.parametrize("cm", [RawCM, ConvCM, LinearCM])
@pytest.mark.parametrize("route", ROUTES)
def test_the_gradient_is_the_slope_of_the_score(cm, route):
    view = make(cm(), route)
    draw = torch.Generator().manual_seed(0)
    step = torch.randn(view.inputs.shape, generator=draw, dtype=torch.float64) * view.inputs.abs().mean()
    slope = (gradient(view, view.inputs) * step).sum((1, 2, 3))
    h = 1e-6
    measured = (view.score(view.inputs + h * step) - view.score(view.inputs - h * step)) / (2 * h)
    assert torch.allclose(slope, measured, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("cm", "route", "baseline", "tolerance"),
    [
        (RawCM, "grid", "silence", 1e-9),
        (RawCM, "grid", "twin", 1e-9),
        (RawCM, "native", "twin", 1e-9),
        (LinearCM, "native", "silence", 1e-9),
        (ConvCM, "native", "mean", 1e-2),  # kinks: Max-Feature-Map and pooling
        (ConvCM, "grid", "twin", 3e-2),  # and a logarithm on top
    ],
)
def test_integrated_gradients_sum_to_the_difference_of_scores(cm, route, baseline, tolerance):
    view = make(cm(), route)
    start = view.fill(baseline)
    nodes, weights = np.polynomial.legendre.leggauss(64)
    total = torch.zeros_like(view.inputs)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        total += weight * gradient(view, start + node * (view.inputs - start))
    found = (total * (view.inputs - start)).sum((1, 2, 3))
    wanted = view.score(view.inputs) - view.score(start)
    assert torch.allclose(found, wanted, rtol=tolerance, atol=tolerance)
    assert float(wanted.abs().min()) > 1e-4


def test_resynthesis_ignores_what_no_waveform_can_have():
    spectrum = torch.randn(1, 2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stage = Resynthesis(GRID, N_SAMPLES)
    wave = stage(spectrum)
    again = GRID.stft(wave)
    assert wave.shape == (1, N_SAMPLES)
    assert torch.allclose(stage(torch.stack([again.real, again.imag], 1)), wave, atol=1e-12)


# The native route and the sign


@pytest.mark.parametrize("cm", [RawCM, ConvCM, LinearCM])
def test_the_native_tap_is_a_true_cut(cm):
    cm = cm().eval()
    wave = pairs(2)[0]
    assert torch.equal(cm.backend(cm.frontend(wave)), cm(wave))
    view = make(cm, "native", torch.float32)
    assert torch.allclose(view.score(view.inputs), -bonafide_log_odds(cm(wave), cm.classes), atol=1e-5)
    assert view.inputs.shape[2:] == view.shape == tuple(len(a) for a in view.axes)


def test_the_grid_view_explains_on_the_grid():
    view = make(RawCM(), "grid")
    assert view.shape == SHAPE and view.inputs.shape == (2, 2, *SHAPE)
    assert view.axes == (GRID.frequency, GRID.time(N_SAMPLES))
    assert len(view) == 2 and view.device == torch.device("cpu")


@pytest.mark.parametrize("classes", [("spoof", "bonafide"), ("bonafide", "spoof"), ("tts", "bonafide", "vc")])
def test_spoof_log_odds_are_the_negative_score(classes):
    logits = torch.randn(5, len(classes), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = SpoofLogOdds(classes).double()(logits)
    assert found.shape == (5, 1)
    assert torch.allclose(found[:, 0], -bonafide_log_odds(logits, classes), atol=1e-12)
    assert float(found.abs().max()) > 0.1


def test_spoof_log_odds_of_two_classes_are_one_linear_layer_without_trainable_parts_or_random_draws():
    before = torch.random.get_rng_state()
    contrast = SpoofLogOdds(("bonafide", "spoof"))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert isinstance(contrast.linear, nn.Linear) and contrast.linear.weight.tolist() == [[-1.0, 1.0]]
    assert not any(p.requires_grad for p in contrast.parameters())
    assert SpoofLogOdds(("a", "bonafide", "b")).linear is None


@pytest.mark.parametrize("route", ROUTES)
def test_the_order_of_the_classes_changes_nothing(route):
    one, other = ManyClassCM(("spoof", "bonafide")), ManyClassCM(("bonafide", "spoof"))
    last, flipped = one.backend[-1], other.backend[-1]
    flipped.load_state_dict({"weight": last.weight.flip(0), "bias": last.bias.flip(0)})
    a, b = make(one, route), make(other, route)
    assert torch.allclose(a.score(a.inputs), b.score(b.inputs), atol=1e-12)
    assert torch.allclose(gradient(a, a.inputs), gradient(b, b.inputs), atol=1e-12)


def test_three_classes_are_explained_too_but_offer_no_modules():
    view = make(ManyClassCM(("tts", "bonafide", "vc")), "native")
    logits = view.model.backend(view.inputs)
    wanted = logits[:, [0, 2]].logsumexp(1) - logits[:, 1]
    assert torch.allclose(view.score(view.inputs), wanted)
    assert "modules" not in view.offers  # a logsumexp has no rule in any library
    assert "modules" in make(ConvCM(), "native").offers


def test_a_view_needs_exactly_one_bonafide_class():
    cm = ConvCM()
    cm.classes = ("fake", "real")
    with pytest.raises(PluginError, match="'bonafide' exactly once"):
        make(cm, "native")


def test_a_tap_that_is_not_four_dimensional_is_refused():
    cm = RawCM()
    cm.frontend = nn.Identity()
    with pytest.raises(XaibenchError, match=r"must be \(B, C, F, T\), got \(2, 4000\); use --route grid"):
        make(cm, "native")


@pytest.mark.parametrize("route", ROUTES)
def test_views_look_through_an_evaluating_model_and_leave_the_global_generator_alone(route):
    cm = ConvCM().train()
    cm.frontend.add_module("dropout", nn.Dropout(0.5))
    before = torch.random.get_rng_state()
    view = make(cm, route)
    assert torch.equal(view.score(view.inputs), view.score(view.inputs))  # no dropout
    assert not cm.frontend.training and not view.model.training
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not view.inputs.requires_grad


# Fills


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("fill", FILLS)
def test_all_kept_is_the_input_and_nothing_kept_is_the_fill(route, fill):
    view = make(ConvCM(), route)
    keep = torch.stack([torch.ones(2, *SHAPE), torch.zeros(2, *SHAPE)], dim=1)
    mixed = view.filled(keep, fill).view(2, 2, *view.inputs.shape[1:])
    assert torch.equal(mixed[:, 0], view.inputs)
    assert torch.equal(mixed[:, 1], view.fill(fill))
    assert not torch.equal(view.fill(fill), view.inputs)


@pytest.mark.parametrize("route", ROUTES)
def test_the_twin_everywhere_gives_the_bona_fide_score(route):
    cm = ConvCM().double()
    view = make(cm, route)
    wanted = -bonafide_log_odds(cm(pairs(2)[1].double()), cm.classes)
    assert torch.allclose(view.score(view.filled(torch.zeros(2, 1, *SHAPE), "twin")), wanted, atol=1e-9)


@pytest.mark.parametrize("route", ROUTES)
def test_silence_everywhere_gives_the_score_of_silence(route):
    cm = ConvCM().double()
    view = make(cm, route)
    wanted = -bonafide_log_odds(cm(torch.zeros(2, N_SAMPLES, dtype=torch.float64)), cm.classes)
    assert torch.allclose(view.score(view.filled(torch.zeros(2, 1, *SHAPE), "silence")), wanted, atol=1e-9)


def test_the_mean_of_the_grid_has_the_inputs_phase_and_the_references_level():
    view = make(RawCM(), "grid")
    mean, inputs = view.fill("mean"), view.inputs
    level = view.references.square().sum(1).log().mean(dim=(0, 2)).div(2).exp()
    assert torch.allclose(mean.square().sum(1).sqrt(), level[None, :, None].expand(2, *SHAPE))
    assert torch.allclose(torch.atan2(mean[:, 1], mean[:, 0]), torch.atan2(inputs[:, 1], inputs[:, 0]))


def test_mixtures_are_linear_and_ordered_utterance_by_utterance():
    view = make(ConvCM(), "native")
    keep = torch.rand(2, 3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mixed = view.filled(keep, "twin")
    twin = view.fill("twin")
    assert mixed.shape == (6, 1, *SHAPE)
    for b in range(2):
        for k in range(3):
            wanted = keep[b, k] * view.inputs[b] + (1 - keep[b, k]) * twin[b]
            assert torch.allclose(mixed[3 * b + k], wanted)


def test_masks_of_another_shape_are_refused_not_broadcast():
    view = make(ConvCM(), "native")
    for shape in [(2, *SHAPE), (1, 3, *SHAPE), (2, 3, *SHAPE[::-1]), (2, 3, SHAPE[0], 1)]:
        with pytest.raises(XaibenchError, match=r"expected masks \(B, K, F, T\) = \(2, K, 33, 126\)"):
            view.filled(torch.ones(shape), "twin")


def test_an_unknown_fill_is_unsupported_and_names_those_there_are():
    with pytest.raises(Unsupported, match="'black' is not available on this view; there are: silence, mean, twin"):
        make(ConvCM(), "native").fill("black")
