"""Masks on the complex STFT: what is kept and removed adds up, levels agree, nothing clips, silence stays silence."""

import math

import numpy as np
import pytest
import torch

from xaibench.errors import XaibenchError
from xaibench.grid import Grid
from xaibench.listen import (
    PEAK,
    griffin_lim,
    kept,
    leakage,
    level,
    level_matched,
    masked,
    power_of,
    removed,
    to_level,
)  # fmt: skip
from xaibench.top import top_mask
from xaibench.truth import top_share

GRID = Grid(sample_rate=8_000, n_fft=64, hop=20)
N = 2_410
SHAPE = GRID.shape(N)


def wave(seed=0, n=N):
    return 0.1 * np.random.default_rng(seed).standard_normal(n)


def random_mask(seed=1, share=0.3):
    return np.random.default_rng(seed).random(SHAPE) < share


# Masks ---------------------------------------------------------------------------------------------------------------


def test_the_top_mask_is_the_truths_rule():
    values = np.random.default_rng(0).integers(0, 6, (9, 11)).astype(float)
    valid = np.ones((9, 11), bool)
    valid[0] = False
    values[0] = 99  # what is not valid is never chosen, however large
    expected = top_share(torch.from_numpy(values)[None], torch.from_numpy(valid), 0.1)[0].numpy()
    np.testing.assert_array_equal(top_mask(values, 0.1, valid), expected)
    assert top_mask(values, 1.0, valid).sum() == valid.sum()


def test_a_map_that_says_nothing_has_an_empty_mask():
    values = np.full((4, 7), 0.3)
    assert not top_mask(values, 0.5).any()
    values[2, 3] = 0.31
    assert top_mask(values, 0.5).sum() == 14


@pytest.mark.parametrize("share", [0, -0.1, 1.01, math.nan, 5])
def test_a_share_beyond_one_is_refused(share):
    with pytest.raises(XaibenchError, match=r"more than 0 and at most 1"):
        top_mask(np.random.default_rng(0).random((4, 5)), share)


def test_a_mask_of_no_cell_and_maps_of_another_form_are_refused():
    with pytest.raises(XaibenchError, match="less than one cell"):
        top_mask(np.random.default_rng(0).random((4, 5)), 0.01)
    with pytest.raises(XaibenchError, match=r"\(F, T\)"):
        top_mask(np.zeros((1, 4, 5)), 0.1)
    with pytest.raises(XaibenchError, match="2 cells of the map are NaN"):
        top_mask(np.array([[np.nan, np.inf, 1.0]]), 0.5)


def test_kept_and_removed_add_up_to_the_utterance():
    x, mask = wave(), random_mask()
    assert kept(x, mask, GRID) + removed(x, mask, GRID) == pytest.approx(x, abs=1e-12)
    soft = np.random.default_rng(2).random(SHAPE)
    assert kept(x, soft, GRID) + removed(x, soft, GRID) == pytest.approx(x, abs=1e-12)


def test_a_mask_of_ones_is_the_utterance_and_of_zeros_silence_or_the_twin():
    x, twin = wave(), wave(3)
    assert masked(x, np.ones(SHAPE), GRID) == pytest.approx(x, abs=1e-12)
    assert not masked(x, np.zeros(SHAPE), GRID).any()
    assert masked(x, np.zeros(SHAPE), GRID, fill=twin) == pytest.approx(twin, abs=1e-12)


def test_the_fill_is_what_the_stft_of_the_twin_has_there():
    x, twin, mask = wave(), wave(3), random_mask()
    both = np.where(mask, *(GRID.stft(torch.from_numpy(w)[None])[0].numpy() for w in (x, twin)))
    expected = GRID.istft(torch.from_numpy(both)[None], N)[0].numpy()
    assert kept(x, mask, GRID, fill=twin) == pytest.approx(expected, abs=1e-12)
    assert removed(x, mask, GRID, fill=twin) == pytest.approx(kept(twin, mask, GRID, fill=x), abs=1e-12)


def test_what_is_heard_has_the_original_phase():
    x = wave()
    mask = np.zeros(SHAPE)
    mask[5:20, 30:90] = 1  # within a large region the STFT of what is heard is that of the utterance
    before, after = (GRID.stft(torch.from_numpy(w)[None])[0].numpy() for w in (x, kept(x, mask, GRID)))
    inside = (slice(9, 16), slice(36, 84))
    assert after[inside] == pytest.approx(before[inside], rel=0.05, abs=0.02)
    assert leakage(kept(x, mask, GRID), mask, GRID) < 0.1


def test_lone_cells_ring_over_their_neighbours():
    x, lone = wave(), np.zeros(SHAPE)
    lone[10, 40] = 1
    assert leakage(kept(x, lone, GRID), lone, GRID) > 0.5
    assert leakage(x, np.ones(SHAPE), GRID) == 0 == leakage(np.zeros(N), lone, GRID)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_and_length_are_the_utterances(dtype):
    heard = kept(wave().astype(dtype), random_mask(), GRID)
    assert heard.dtype == dtype and heard.shape == (N,)


def test_masks_and_fills_of_another_form_are_refused():
    with pytest.raises(XaibenchError, match=r"expected \(F, T\) = \(33, 121\)"):
        masked(wave(), np.zeros(SHAPE[::-1]), GRID)
    with pytest.raises(XaibenchError, match=r"from 0\.0 to 2\.0, expected values in \[0, 1\]"):
        masked(wave(), 2.0 * random_mask(), GRID)
    with pytest.raises(XaibenchError, match="the fill has 2000 samples"):
        masked(wave(), random_mask(), GRID, fill=wave(n=2_000))
    with pytest.raises(XaibenchError, match="1 samples are NaN"):
        masked(np.append(wave()[1:], np.nan), random_mask(), GRID)


# Griffin-Lim ---------------------------------------------------------------------------------------------------------


def test_griffin_lim_finds_a_sound_of_that_magnitude():
    x = wave()
    magnitude = np.sqrt(power_of(x, GRID))
    found = np.sqrt(power_of(griffin_lim(magnitude, N, GRID), GRID))
    start = np.sqrt(power_of(griffin_lim(magnitude, N, GRID, iterations=0), GRID))

    def apart(other):
        return np.linalg.norm(other - magnitude) / np.linalg.norm(magnitude)

    assert apart(found) < 0.2 < apart(start)


def test_griffin_lim_is_seeded_and_leaves_the_generator_alone():
    magnitude = np.sqrt(power_of(wave(), GRID))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = griffin_lim(magnitude, N, GRID, iterations=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(first, griffin_lim(magnitude, N, GRID, iterations=3))
    assert not np.allclose(first, griffin_lim(magnitude, N, GRID, iterations=3, seed=1))


def test_griffin_lim_refuses_what_is_no_magnitude():
    with pytest.raises(XaibenchError, match="not negative"):
        griffin_lim(-np.ones(SHAPE), N, GRID)
    with pytest.raises(XaibenchError, match=r"expected \(F, T\)"):
        griffin_lim(np.ones((3, 4)), N, GRID)


# Levels --------------------------------------------------------------------------------------------------------------


def test_levels_match_and_the_gain_is_told():
    quiet, like = 0.001 * wave(1), wave(2)
    made = level_matched(quiet, like)
    assert level(made.samples) == pytest.approx(level(like), abs=1e-9)
    assert made.samples == pytest.approx(quiet * 10 ** (made.gain / 20)) and not made.limited and not made.silent


def test_a_peak_limits_the_gain():
    click = np.zeros(1_000)
    click[500] = 0.01
    made = level_matched(click, wave(n=1_000))
    assert np.abs(made.samples).max() == pytest.approx(PEAK) and made.limited
    assert level(made.samples) < level(wave(n=1_000))
    assert made.gain == pytest.approx(20 * math.log10(PEAK / 0.01))


def test_what_is_too_loud_is_made_softer():
    made = to_level(np.array([3.0, -3.0, 3.0]), 0.0)
    assert np.abs(made.samples).max() == pytest.approx(PEAK) and made.limited


@pytest.mark.parametrize("scale", [0.0, 1e-12])
def test_silence_stays_silence(scale):
    made = level_matched(scale * wave(), wave(2))
    assert made.silent and not made.samples.any() and made.gain == 0
    assert level_matched(wave(), np.zeros(N)).silent


def test_levels_are_root_mean_squares():
    assert level(np.full(7, 0.1)) == pytest.approx(-20)
    assert level(np.zeros(4)) == -math.inf
    with pytest.raises(XaibenchError, match=r"\(N,\)"):
        level(np.zeros((2, 4)))
