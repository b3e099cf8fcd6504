"""The truth against a slow twin, and against differences planted where we know them to be."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, sosfiltfilt
from toys import LinearCM, truth_of, view_of
from twins import truth as twin

from xaibench.errors import Unsupported, XaibenchError
from xaibench.grid import Grid
from xaibench.truth import (
    DEFINITIONS,
    DIFFERENCES,
    HALVES,
    TruthSpec,
    difference,
    half,
    signed_difference,
    smooth,
    top_share,
    truth,
)

SMALL = Grid(n_fft=64, hop=32)
BAND = (500.0, 7_000.0)
TWINS = {"eq1": twin.eq1, "eq2": twin.eq2, "log-difference": twin.log_difference}


def pairs(
    count: int = 3, n_samples: int = 4_000, *, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    bonafide = 0.1 * torch.randn(count, n_samples, generator=draw, dtype=dtype)
    return bonafide + 0.03 * torch.randn(count, n_samples, generator=draw, dtype=dtype), bonafide


@pytest.mark.parametrize("grid", [SMALL, Grid()], ids=["64/32", "512/160"])
@pytest.mark.parametrize("name", DIFFERENCES)
def test_agrees_with_the_slow_twin(name, grid):
    spoof, bonafide = pairs(2)
    made = truth(spoof, bonafide, grid=grid, band=BAND, spec=TruthSpec(name=name))
    for i in range(2):
        wanted = TWINS[name](spoof[i].numpy(), bonafide[i].numpy(), grid.n_fft, grid.hop)
        wanted = wanted * grid.band(*BAND)[:, None]
        assert np.allclose(made.values[i].numpy(), wanted, rtol=1e-8, atol=1e-10)
        assert np.array_equal(made.region[i].numpy(), twin.top(wanted, made.valid.numpy(), 0.05))
    assert made.name == name


def test_eq2_in_single_precision_agrees_with_the_twin_to_1e_5():
    spoof, bonafide = pairs(1)
    made = truth(spoof.float(), bonafide.float(), grid=Grid(), band=BAND).values[0].numpy()
    wanted = twin.eq2(spoof[0].numpy(), bonafide[0].numpy(), 512, 160) * Grid().band(*BAND)[:, None]
    assert np.abs(made - wanted).max() < 1e-5 * wanted.max()


@given(seed=st.integers(0, 999), f=st.integers(1, 14), t=st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_smoothing_is_scipys_at_every_size_even_below_the_kernels(seed, f, t):
    m = np.random.default_rng(seed).random((f, t))
    assert np.allclose(smooth(torch.from_numpy(m)[None])[0].numpy(), twin.gaussian(m), atol=1e-12)


def test_smoothing_takes_time_and_frequency_in_the_papers_order():
    point = torch.zeros(1, 31, 31, dtype=torch.float64)
    point[0, 15, 15] = 1.0
    spread = smooth(point)[0]
    assert int((spread.sum(1) > 0).sum()) == 11  # frequencies reached
    assert int((spread.sum(0) > 0).sum()) == 3  # frames reached
    assert float(spread.sum()) == pytest.approx(1.0)


def test_a_batch_is_its_pairs_one_by_one_to_the_bit():
    spoof, bonafide = pairs(3, dtype=torch.float32)
    together = truth(spoof, bonafide, grid=SMALL, band=BAND)
    for i in range(3):
        alone = truth(spoof[i : i + 1], bonafide[i : i + 1], grid=SMALL, band=BAND)
        assert torch.equal(alone.values[0], together.values[i])
        assert torch.equal(alone.region[0], together.region[i])


@pytest.mark.parametrize("name", DIFFERENCES)
def test_identical_halves_have_no_difference(name):
    _, bonafide = pairs(2)
    assert not truth(bonafide, bonafide, grid=SMALL, band=BAND, spec=TruthSpec(name=name)).values.any()


def test_a_common_gain_changes_nothing_and_silence_does_not_divide_by_zero():
    spoof, bonafide = pairs(2)
    for name in DIFFERENCES:
        spec = TruthSpec(name=name)
        loud, soft = (truth(g * spoof, g * bonafide, grid=SMALL, band=BAND, spec=spec) for g in (1.0, 0.01))
        assert torch.allclose(loud.values, soft.values, rtol=1e-3)
        assert torch.isfinite(truth(spoof, 0 * bonafide, grid=SMALL, band=BAND, spec=spec).values).all()


def test_doubling_the_spoof_is_a_difference_of_one():
    _, bonafide = pairs(1)
    wanted = {"eq1": 1.0, "eq2": 1.0, "log-difference": np.log(2)}
    for name, value in wanted.items():
        made = truth(2 * bonafide, bonafide, grid=SMALL, band=BAND, spec=TruthSpec(name=name))
        assert torch.allclose(made.values[0][made.valid], torch.tensor(value, dtype=torch.float64), rtol=1e-4)


def test_a_notch_in_a_known_band_and_time_is_where_the_region_lies():
    grid, rate = Grid(), 16_000
    speech = 0.1 * np.random.default_rng(0).standard_normal(rate)
    notch = butter(8, [3_000, 4_500], "bandstop", fs=rate, output="sos")
    cut = speech.copy()
    cut[4_800:11_200] = sosfiltfilt(notch, speech)[4_800:11_200]  # 0.3 s to 0.7 s
    made = truth(torch.from_numpy(cut)[None], torch.from_numpy(speech)[None], grid=grid, band=(90, 7_500))
    bins, frames = np.nonzero(made.region[0].numpy())
    low, high = grid.frequency.centres[bins].min(), grid.frequency.centres[bins].max()
    first, last = grid.time(rate).centres[frames].min(), grid.time(rate).centres[frames].max()
    assert 2_900 < low < 3_300 and 4_200 < high < 4_600
    assert 0.28 < first < 0.34 and 0.66 < last < 0.72
    # and it is nearly all of the notch's cells: well inside it three quarters of the energy at least are gone
    inside = made.values[0][97:144, 32:68]
    assert float((inside > 0.5).double().mean()) > 0.99


def test_a_difference_outside_the_valid_band_is_never_in_the_region():
    grid, rate = Grid(), 16_000
    t = np.arange(rate) / rate
    speech = 0.1 * np.random.default_rng(1).standard_normal(rate)
    spoof = speech + 0.5 * np.sin(2 * np.pi * 7_800 * t)
    pair = torch.from_numpy(spoof)[None], torch.from_numpy(speech)[None]
    seen = truth(*pair, grid=grid, band=(90, 8_000))
    assert not seen.region[:, grid.band(0, 7_000)].any()  # the tone takes it all when it may
    made = truth(*pair, grid=grid, band=(90, 7_000))
    outside = ~torch.from_numpy(grid.band(90, 7_000))
    assert not made.region[:, outside].any() and not made.values[:, outside].any() and not made.valid[outside].any()
    assert int(made.region.sum()) == round(0.05 * int(made.valid.sum()))


@given(
    data=st.lists(st.integers(0, 4), min_size=24, max_size=24),
    mask=st.lists(st.booleans(), min_size=24, max_size=24),
    share=st.floats(0.05, 0.95),
)
@settings(max_examples=60, deadline=None)
def test_top_share_marks_exactly_its_count_and_breaks_ties_in_row_order(data, mask, share):
    values = torch.tensor(data, dtype=torch.float32).view(1, 4, 6)
    valid = torch.tensor(mask).view(4, 6)
    count = round(share * int(valid.sum()))
    if count < 1:
        with pytest.raises(XaibenchError, match="less than one cell"):
            top_share(values, valid, share)
        return
    region = top_share(values, valid, share)
    assert int(region.sum()) == count
    assert np.array_equal(region[0].numpy(), twin.top(values[0].numpy(), valid.numpy(), share))


def test_ties_all_over_still_give_the_count():
    region = top_share(torch.zeros(2, 10, 10), torch.ones(10, 10, dtype=torch.bool), 0.05)
    assert region.sum(dim=(1, 2)).tolist() == [5, 5]
    assert region[0, 0, :5].all()


def test_every_pair_has_its_own_region():
    values = torch.zeros(2, 4, 5)
    values[0, 3, 4], values[1, 0, 2] = 1.0, 1.0
    region = top_share(values, torch.ones(4, 5, dtype=torch.bool), 0.05)
    assert region.nonzero().tolist() == [[0, 3, 4], [1, 0, 2]]


def test_halves_of_different_length_are_refused():
    spoof, bonafide = pairs(1)
    with pytest.raises(XaibenchError, match=r"agree in length, got \(1, 3999\) and \(1, 4000\) samples"):
        truth(spoof[:, :-1], bonafide, grid=SMALL, band=BAND)
    with pytest.raises(XaibenchError, match="agree in shape"):
        difference(torch.ones(1, 3, 4), torch.ones(1, 3, 5), TruthSpec())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "eq3"}, "unknown truth 'eq3'; expected one of eq2, eq1, log-difference"),
        ({"kernel": (3, 10)}, r"odd and positive, got \(3, 10\)"),
        ({"kernel": (-1, 11)}, "odd and positive"),
        ({"variance": (0.0, 5.0)}, "variances must be positive"),
        ({"epsilon": 0.0}, "epsilon must be positive"),
        ({"share": 0.0}, "share must lie between 0 and 1, got 0.0"),
        ({"share": 1.0}, "share must lie between 0 and 1, got 1.0"),
    ],
)
def test_impossible_specs_are_refused(options, message):
    with pytest.raises(XaibenchError, match=message):
        TruthSpec(**options)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_the_sign_says_where_the_vocoder_added_energy(name):
    spoof, bonafide = pairs(2)
    made = truth(spoof, bonafide, grid=SMALL, band=BAND, spec=TruthSpec(name=name))
    assert made.added.dtype == torch.bool and made.added.shape == made.values.shape
    ms, mb = (np.stack([twin.magnitude(x.numpy(), 64, 32) for x in half]) for half in (spoof, bonafide))
    if name == "eq2":
        ms, mb = (np.stack([twin.gaussian(m) for m in both]) for both in (ms, mb))
    assert np.array_equal(made.added.numpy(), (ms > mb) & made.valid.numpy())
    # Turned round, what was added is missing.
    back = truth(bonafide, spoof, grid=SMALL, band=BAND, spec=TruthSpec(name=name))
    assert torch.equal(back.added, ~made.added & made.valid)
    if name != "log-difference":  # no more can be missing than there was, and anything added
        assert float(made.values[~made.added].max()) <= 1
        louder = truth(9 * bonafide, bonafide, grid=SMALL, band=BAND, spec=TruthSpec(name=name))
        assert torch.equal(louder.added, louder.valid.expand_as(louder.added)) and float(louder.values.max()) > 7


def test_the_halves_of_a_region_are_disjoint_and_complete():
    made = truth(*pairs(2), grid=SMALL, band=BAND)
    added, missing = half(made, "added"), half(made, "missing")
    assert added.any() and missing.any() and not (added & missing).any() and torch.equal(added | missing, made.region)
    louder = truth(2 * pairs(1)[1], pairs(1)[1], grid=SMALL, band=BAND)
    assert not half(louder, "missing").any() and torch.equal(half(louder, "added"), louder.region)


def test_a_truth_without_a_sign_has_no_halves():
    made = replace(truth(*pairs(1), grid=SMALL, band=BAND), added=None)
    with pytest.raises(Unsupported, match="'eq2' has no sign, it lies on other axes"):
        half(made, "added")
    with pytest.raises(Unsupported, match="'segments' has no sign, it comes from labels"):
        half(replace(made, name="segments"), "missing")
    with pytest.raises(XaibenchError, match="added and missing, got 'gone'"):
        half(made, "gone")


def test_a_view_of_some_utterances_has_their_signs():
    made = truth_of(3)
    made = replace(made, added=torch.rand(made.values.shape, generator=torch.Generator().manual_seed(0)) < 0.5)
    view = view_of(LinearCM(), 3, truth=made)
    assert torch.equal(view.select([2, 0]).truth.added, made.added[[2, 0]])
    bare = view_of(LinearCM(), 3, truth=replace(made, added=None))
    assert bare.select([1]).truth.added is None


# Two cells of one frame: magnitudes by hand.
SPOOF, BONAFIDE = torch.tensor([[[6.0], [1.0]]]), torch.tensor([[[2.0], [1.5]]])


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (TruthSpec("eq1", epsilon=0.5), [4 / 2.5, -0.5 / 2]),
        (TruthSpec("eq2", kernel=(1, 1), epsilon=0.5), [4 / 2.5, -0.5 / 2]),
        (TruthSpec("eq2", kernel=(3, 1), variance=(1.0, 1.0), epsilon=0.5), [4 / 2.5, -0.5 / 2]),
        (TruthSpec("log-difference", epsilon=0.5), [np.log(6.5 / 2.5), np.log(1.5 / 2)]),
    ],
)
def test_a_difference_by_hand(spec, wanted):
    wanted = torch.tensor(wanted, dtype=torch.float32)
    torch.testing.assert_close(signed_difference(SPOOF, BONAFIDE, spec)[0, :, 0], wanted)
    torch.testing.assert_close(difference(SPOOF, BONAFIDE, spec)[0, :, 0], wanted.abs())


@pytest.mark.parametrize("which", [0, 1])
def test_both_halves_of_a_pair_are_smoothed_alike(which):
    kernel, variance = ((5, 1), (2.0, 9.0)) if which else ((1, 5), (9.0, 2.0))
    spec = TruthSpec("eq2", kernel=kernel, variance=variance, epsilon=0.5)
    draw = torch.Generator().manual_seed(0)
    one, two = (torch.rand(2, 9, 8, generator=draw) for _ in range(2))
    a, b = (smooth(x, kernel=kernel, variance=variance) for x in (one, two))
    torch.testing.assert_close(signed_difference(one, two, spec), (a - b) / (b + 0.5))
    axis = 2 if which else 1
    assert torch.equal(a.std(axis) < one.std(axis), torch.ones_like(a.std(axis), dtype=torch.bool))


def test_a_specs_smallest_and_largest_values_are_allowed():
    TruthSpec(kernel=(1, 1), variance=(1e-9, 1e-9), epsilon=1e-300, share=1e-9)
    assert TruthSpec() == TruthSpec("eq2", (3, 11), (3.0, 5.0), 1e-8, 0.05)
    for kernel in ((2, 1), (1, 0), (1, 2)):
        with pytest.raises(XaibenchError, match="odd and positive"):
            TruthSpec(kernel=kernel)


def test_a_cell_that_did_not_change_is_neither_added_nor_in_the_region():
    bonafide = torch.zeros(1, 2_000, dtype=torch.float64)
    bonafide[:, :900] = torch.randn(1, 900, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spoof = bonafide.clone()
    spoof[:, :700] *= 1.25
    made = truth(spoof, bonafide, grid=SMALL, band=(0.0, 8_000.0), spec=TruthSpec("eq1", share=0.9))
    assert not made.added[:, :, -20:].any() and not made.region[:, :, -20:].any()
    assert made.added[:, :, :15].all() and made.region[:, :, :15].all()  # by a quarter: far less than 1
    assert torch.allclose(made.values[:, :, 2:15], torch.tensor(0.25, dtype=torch.float64), rtol=1e-4)
    assert made.name == "eq1" and made.valid.all()


def test_the_names_of_truths_and_of_their_halves():
    assert [*DIFFERENCES] == ["eq2", "eq1", "log-difference"] and [*DEFINITIONS] == [*DIFFERENCES, "segments"]
    assert [*HALVES] == ["added", "missing"]
