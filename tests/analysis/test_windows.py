"""Windows: they tile a recording, and their maps join to the map of the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xaibench import scoring
from xaibench.analysis.windows import Windows, cut, join, taper
from xaibench.errors import AudioError, XaibenchError
from xaibench.grid import Grid
from xaibench.types import Axis

GRID = Grid(n_fft=64, hop=32)
RATE = GRID.sample_rate


@given(length=st.integers(1, 5_000), n=st.integers(2, 700), overlap=st.sampled_from([0.0, 0.25, 0.5, 0.9]))
def test_every_sample_is_in_a_window_and_every_window_in_the_recording(length, n, overlap):
    x = np.arange(1.0, length + 1)
    found = cut(x, n, overlap=overlap)
    assert found.waves.shape == (len(found.starts), n) and list(found.starts) == sorted(set(found.starts))
    assert set(np.unique(found.waves)) == set(x)
    for wave, start in zip(found.waves, found.starts, strict=True):
        assert np.array_equal(wave[: length - start], x[start : start + n])


@pytest.mark.parametrize("length", [100, 400, 401, 1_000, 1_333])
def test_half_an_overlap_gives_the_windows_that_evaluate_scores(length):
    x = np.random.default_rng(0).standard_normal(length)
    assert np.array_equal(cut(x, 400).waves, scoring.windows(x, 400))


def test_bad_overlaps_and_empty_recordings_are_refused():
    for overlap in (-0.1, 1.0, float("nan")):
        with pytest.raises(XaibenchError, match=r"expected a share from 0 to 0\.95"):
            cut(np.ones(9), 4, overlap=overlap)
    with pytest.raises(AudioError):
        cut(np.ones(0), 4)


@given(length=st.integers(40, 6_000), overlap=st.sampled_from([0.0, 0.3, 0.5, 0.8]))
def test_the_weights_sum_to_one(length, overlap):
    """Maps of the density 3 everywhere join to 3 everywhere, wherever windows begin and however many see a moment."""
    n = 800
    found, target = cut(np.ones(length), n, overlap=overlap), GRID.time(length)
    time = GRID.time(n)
    density = np.diff(time.edges) / (GRID.hop / RATE)  # half a cell, half the mass
    joined = join(np.broadcast_to(3 * density, (len(found.starts), 2, len(time))), found.placements(RATE), time, target)
    assert np.allclose(joined, 3 * np.diff(target.edges) / (GRID.hop / RATE), atol=1e-6)


def test_one_window_is_returned_as_it_is():
    values = np.random.default_rng(1).standard_normal((1, 5, 26))
    found = cut(np.ones(800), 800)
    assert np.allclose(join(values, found.placements(RATE), GRID.time(800), GRID.time(800)), values[0], atol=1e-12)


def test_windows_that_agree_give_what_they_agree_on():
    """Cut from one long map, at starts on the grid, the windows' maps join to that map."""
    length, n = 1_600, 800
    truth = np.random.default_rng(2).random((3, length // GRID.hop + 1))
    found = cut(np.ones(length), n)
    assert found.starts == (0, 400, 800) and 400 % GRID.hop  # the second one begins between two frames
    found = Windows(found.waves, (0, 384, 800), length)
    frames = n // GRID.hop + 1
    maps = np.stack([truth[:, s // GRID.hop : s // GRID.hop + frames] for s in found.starts])
    # The outer cells of a window are half as wide as those of the recording.
    maps[1:, :, 0] /= 2
    joined = join(maps, found.placements(RATE), GRID.time(n), GRID.time(length))
    assert np.allclose(joined[:, 1:-1], truth[:, 1:-1], atol=0.02) and np.abs(joined - truth).max() < 0.6
    inner = np.r_[1:11, 14:24, 27:49]
    assert np.allclose(joined[:, inner], truth[:, inner], atol=1e-9)


def test_golden_two_windows_half_overlapping():
    """Two windows of four cells, the second two cells later: in the shared cells the mean weighted by sin^2."""
    time, target = Axis("time", [0.0, 1, 2, 3, 4]), Axis("time", [0.0, 1, 2, 3, 4, 5, 6])
    a, b = np.sin(np.pi * 0.125) ** 2, np.sin(np.pi * 0.375) ** 2
    assert np.allclose(taper(time), [a, b, b, a])
    joined = join(np.array([[[1.0, 1, 1, 1]], [[3.0, 3, 3, 3]]]), [(0, 0.0), (1, 2.0)], time, target)
    shared = [(b * 1 + a * 3) / (a + b), (a * 1 + b * 3) / (a + b)]
    assert np.allclose(joined, [[1, 1, *shared, 3, 3]])


def test_a_repeated_recording_is_folded_back():
    """Three copies in one window: the mean of what was said of each copy, on the recording's own length."""
    found = cut(np.arange(320.0), 800)
    assert found.repeats == 3 and [round(at * RATE) for _, at in found.placements(RATE)] == [0, -320, -640]
    assert found.seconds(RATE) == [(0.0, 0.02)]
    time, target = GRID.time(800), GRID.time(320)
    values = np.zeros((1, 1, len(time)))
    values[0, 0, 13] = 1.0  # sample 416 is sample 96 of the second copy: frame 3
    joined = join(values, found.placements(RATE), time, target)
    assert joined.shape == (1, 11) and joined[0].argmax() == 3 and np.count_nonzero(joined > 1e-9) == 1
    weights = taper(time)
    assert np.isclose(joined[0, 3], weights[13] / (weights[3] + weights[13] + weights[23]))


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(XaibenchError, match="maps \\(W, F, T'\\) with 26 frames"):
        join(np.zeros((1, 3, 25)), [(0, 0.0)], GRID.time(800), GRID.time(800))
