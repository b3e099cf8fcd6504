"""The grid as physics: what goes in at a time and a frequency is found in the cell that covers them."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.signal import get_window

from xaibench.errors import XaibenchError
from xaibench.grid import Grid
from xaibench.types import Axis

SMALL = Grid(n_fft=64, hop=16)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def cell_of(axis: Axis, value: float) -> int:
    return int(np.searchsorted(axis.edges, value, side="right")) - 1


def test_two_seconds_at_16_khz_are_257_by_201():
    grid = Grid()
    assert grid.shape(32_000) == (257, 201)
    assert grid.stft(noise(2, 32_000, dtype=torch.float32)).shape == (2, 257, 201)
    assert (len(grid.frequency), len(grid.time(32_000))) == (257, 201)


@pytest.mark.parametrize("n_samples", [257, 320, 399, 32_000, 32_159])
def test_shape_is_the_shape_of_the_stft(n_samples):
    assert Grid().stft(noise(1, n_samples)).shape[1:] == Grid().shape(n_samples)


@given(
    n_samples=st.integers(33, 500),
    hop=st.sampled_from([1, 7, 16, 20, 32]),
    window=st.sampled_from(["hann", "hamming", "blackman"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_resynthesis_is_exact_for_every_length(n_samples, hop, window, seed):
    grid = Grid(n_fft=64, hop=hop, window=window)
    x = noise(2, n_samples, seed=seed)
    back = grid.istft(grid.stft(x), n_samples)
    assert back.shape == x.shape
    assert float((back - x).abs().max()) < 1e-10


def test_resynthesis_of_the_default_grid_is_exact_to_rounding_in_both_precisions():
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 5e-6)):
        x = noise(2, 32_000, dtype=dtype)
        assert float((Grid().istft(Grid().stft(x), 32_000) - x).abs().max()) < tolerance


def test_stft_is_linear_and_treats_every_utterance_alone():
    x = noise(3, 700)
    together = SMALL.stft(x)
    assert torch.allclose(together[1:2], SMALL.stft(x[1:2]), rtol=0, atol=1e-13)
    assert torch.allclose(SMALL.stft(2 * x[:1] - x[1:2]), 2 * together[:1] - together[1:2], atol=1e-12)


def test_gradients_pass_through_stft_and_resynthesis():
    x = noise(1, 200).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: SMALL.istft(SMALL.stft(w) * 0.5, 200), x)


@given(frequency=st.floats(200, 7_800))
@settings(max_examples=40, deadline=None)
def test_a_sine_peaks_in_the_cell_that_covers_its_frequency(frequency):
    grid = Grid()
    assume(np.abs(grid.frequency.edges - frequency).min() > 1)
    x = torch.sin(2 * torch.pi * frequency * torch.arange(4_000, dtype=torch.float64) / grid.sample_rate)
    middle = grid.stft(x[None]).abs()[0, :, 5:-5]
    assert set(middle.argmax(0).tolist()) == {cell_of(grid.frequency, frequency)}


def test_the_height_of_a_sine_on_a_bin_is_half_the_windows_sum():
    x = 0.5 * torch.sin(2 * torch.pi * 1_000 * torch.arange(4_000, dtype=torch.float64) / 16_000)
    peak = Grid().stft(x[None]).abs()[0, 32, 10]
    assert float(peak) == pytest.approx(0.5 * 256 / 2, rel=1e-9)


@given(sample=st.integers(512, 3_000))
@settings(max_examples=40, deadline=None)
def test_an_impulse_is_loudest_in_the_cell_that_covers_its_time(sample):
    grid = Grid()
    assume(sample % grid.hop != grid.hop // 2)  # the border of two cells
    x = torch.zeros(1, 4_000, dtype=torch.float64)
    x[0, sample] = 1.0
    energy = grid.stft(x).abs().square().sum(1)[0]
    assert int(energy.argmax()) == cell_of(grid.time(4_000), sample / grid.sample_rate)


def test_energy_of_the_cells_is_the_energy_of_the_waveform():
    grid = Grid(n_fft=64, hop=16)  # squared Hann windows a quarter apart sum to 1.5
    x = torch.zeros(1, 800, dtype=torch.float64)
    x[0, 200:600] = noise(400)
    power = grid.stft(x).abs().square()
    both_sides = 2 * power.sum() - power[:, 0].sum() - power[:, -1].sum()
    assert float(both_sides) == pytest.approx(float(x.square().sum()) * 64 * 1.5, rel=1e-12)


@pytest.mark.parametrize("grid", [Grid(), SMALL, Grid(sample_rate=8_000, n_fft=30, hop=7)])
def test_axes_tile_the_plane(grid):
    frequency, time = grid.frequency, grid.time(1_000)
    assert (frequency.kind, time.kind) == ("frequency", "time")
    assert frequency.edges[0] == 0 and frequency.edges[-1] == grid.sample_rate / 2
    assert time.edges[0] == 0
    bins = np.arange(len(frequency)) * grid.sample_rate / grid.n_fft
    frames = np.arange(len(time)) * grid.hop / grid.sample_rate
    for axis, points in ((frequency, bins), (time, frames)):
        assert [cell_of(axis, p) for p in points[:-1]] == list(range(len(axis) - 1))
        assert np.allclose(axis.edges[1:-1], (points[1:] + points[:-1]) / 2)  # half-way to the neighbours
    assert (len(frequency), len(time)) == grid.shape(1_000)


def test_band_holds_the_bins_whose_centre_lies_within_both_ends_included():
    inside = Grid().band(62.5, 125)
    assert inside.shape == (257,) and inside.dtype == bool
    assert np.flatnonzero(inside).tolist() == [2, 3, 4]
    assert Grid().band(0, 8_000).all()


def test_band_without_a_bin_is_an_error():
    for low, high in ((10, 20), (9_000, 10_000), (4_000, 1_000)):
        with pytest.raises(XaibenchError, match=rf"between {low} and {high} Hz"):
            Grid().band(low, high)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_fft": 511}, "n_fft must be even.*511"),
        ({"n_fft": 0}, "n_fft must be even.*0"),
        ({"hop": 0}, "hop must lie in 1..n_fft/2 = 256.*got 0"),
        ({"hop": 257}, "got 257"),
        ({"window": "kaiser"}, "hann, hamming or blackman, got 'kaiser'"),
    ],
)
def test_impossible_geometries_are_refused(options, message):
    with pytest.raises(XaibenchError, match=message):
        Grid(**options)


def test_wrong_waveforms_are_refused():
    with pytest.raises(XaibenchError, match=r"expected waveforms \(B, N\), got shape \(700,\)"):
        SMALL.stft(noise(700))
    with pytest.raises(XaibenchError, match=r"32 samples are too few.*at least 33"):
        SMALL.stft(noise(1, 32))
    assert SMALL.stft(noise(1, 33)).shape == (1, 33, 3)


def test_an_axis_freezes_its_own_copy_of_the_edges():
    edges = np.array([0.0, 1.0, 2.0])
    axis = Axis("time", edges)
    edges[1] = 1.5  # the caller's array stays the caller's
    assert axis.edges.tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(ValueError, match="read-only"):
        axis.edges[0] = 3.0


@pytest.mark.parametrize("edges", [[1.0], [0.0, 0.0], [1.0, 0.0], [0.0, np.nan, 1.0], [0.0, np.inf], [[0.0, 1.0]]])
def test_axes_that_do_not_rise_are_refused(edges):
    with pytest.raises(XaibenchError, match="at least two rising, finite numbers"):
        Axis("time", edges)


def test_axes_are_equal_by_kind_and_edges():
    assert Axis("time", [0, 1, 2]) == Axis("time", [0, 1 + 1e-12, 2])
    assert Axis("time", [0, 1, 2]) != Axis("frequency", [0, 1, 2])
    assert Axis("time", [0, 1, 2]) != Axis("time", [0, 1])
    assert Axis("time", [0, 1, 2]) != "time"
    with pytest.raises(XaibenchError, match="'frequency' or 'time', got 'space'"):
        Axis("space", [0, 1])


def test_the_axes_of_a_small_grid_by_hand():
    grid = Grid(sample_rate=800, n_fft=8, hop=4)
    assert grid.frequency.edges.tolist() == [0, 50, 150, 250, 350, 400]
    assert grid.shape(11) == (5, 3) and grid.shape(12) == (5, 4)
    assert grid.time(11).edges.tolist() == pytest.approx([0, 0.0025, 0.0075, 0.0125])
    assert grid.band(100, 300).tolist() == [False, True, True, True, False]
    assert grid.band(101, 299).tolist() == [False, False, True, False, False]
    assert grid.band(0, 0).tolist() == [True, False, False, False, False]
    assert (grid.frequency.kind, grid.time(11).kind) == ("frequency", "time")


def test_the_smallest_and_the_largest_grid_that_can_be_resynthesised():
    assert Grid(n_fft=2, hop=1).shape(9) == (2, 10) and Grid(n_fft=64, hop=32).hop == 32
    assert Grid() == Grid(16_000, 512, 160, "hann")
    assert SMALL.stft(noise(1, 33)).shape == (1, 33, 3)


@pytest.mark.parametrize("window", ["hann", "hamming", "blackman"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_window_is_periodic_and_as_precise_as_what_it_weighs(window, dtype):
    grid = Grid(n_fft=64, hop=16, window=window)
    wanted = torch.from_numpy(get_window(window, 64, fftbins=True)).to(dtype)
    for like in (torch.zeros(1, dtype=dtype), torch.zeros(1, dtype=dtype.to_complex())):
        taper = grid.taper(like)
        assert taper.dtype == dtype
        torch.testing.assert_close(taper, wanted)
