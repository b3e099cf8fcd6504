"""The planted notch: in its rectangle and nowhere else, aligned, the same every time, and anywhere."""

import numpy as np
import pytest
import scipy.signal
from scipy import stats
from xaibench_minivoc.datasets import minivoc
from xaibench_planted.notch import DEPTH, HIGHEST, LOWEST, PULSE, SHARE, TAPS, WIDTH, notch, planted_notch, planted_rectangle

from xaibench.audio import read
from xaibench.errors import AudioError
from xaibench.grid import Grid

RATE = 16_000
#: Beyond the rectangle by this much, the notch cannot reach: half a window, and a window's main lobe with the skirts.
SECONDS, HERTZ = 0.017, 190.0


def noise(seed: int, n_samples: int = 2 * RATE) -> np.ndarray:
    return 0.05 * np.random.default_rng(seed).standard_normal(n_samples)


def power(x: np.ndarray) -> np.ndarray:
    """`(257, T)`: by scipy, at the grid's geometry."""
    return np.abs(scipy.signal.stft(x, RATE, "hann", 512, 512 - 160, padded=False)[2]) ** 2


def places(x: np.ndarray, *, seconds: float = 0.0, hertz: float = 0.0) -> np.ndarray:
    """Which cells of the grid lie in the rectangle, that much larger (or, below 0, smaller)."""
    start, end, low, high = planted_rectangle(x, RATE)
    frequency, time = Grid().frequency.centres, np.arange(len(x) // 160 + 1) * 0.01
    across = (frequency >= low - hertz) & (frequency <= high + hertz)
    return across[:, None] & ((time >= start - seconds) & (time <= end + seconds))[None, :]


@pytest.mark.parametrize("seed", range(4))
def test_it_lowers_its_rectangle_by_what_the_pulses_say(seed):
    x = noise(seed)
    within = places(x, seconds=-0.02, hertz=-60)
    ratio = power(notch(x, RATE))[within].mean() / power(x)[within].mean()
    depth = 1 - 10 ** (-DEPTH / 20)
    expected = 1 - depth + 3 / 8 * depth**2  # the mean of (1 - depth p)^2 over a pulse
    assert ratio == pytest.approx(expected, rel=0.05)


def test_it_falls_and_rises_once_a_pulse():
    x = noise(0)
    start, end, low, high = planted_rectangle(x, RATE)
    middle = slice(round(start * RATE) + 400, round(end * RATE) - 400)
    band_pass = scipy.signal.firwin(TAPS, [low + 60, high - 60], fs=RATE, pass_zero=False)
    before, after = (np.convolve(s, band_pass, "same")[middle] for s in (x, notch(x, RATE)))
    envelope = scipy.signal.periodogram(after**2 / (before**2).mean(), RATE)
    slow = (envelope[0] > 5) & (envelope[0] < 200)
    assert envelope[0][slow][envelope[1][slow].argmax()] == pytest.approx(1 / PULSE, rel=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_outside_the_rectangle_the_spectrogram_is_the_same(seed):
    """Beyond the reach of window and skirts, the difference is 60 dB below the speech; beyond the stretch, nothing."""
    x = noise(seed)
    y = notch(x, RATE)
    start, end, *_ = planted_rectangle(x, RATE)
    inside = np.zeros(len(x), dtype=bool)
    inside[round(start * RATE) : round(end * RATE)] = True
    assert np.array_equal(y[~inside], x[~inside]) and not np.array_equal(y[inside], x[inside])
    far = ~places(x, seconds=SECONDS, hertz=HERTZ)
    assert 10 * np.log10(power(y - x)[far].sum() / power(x)[far].sum()) < -60


@pytest.mark.parametrize("seed", range(3))
def test_it_is_aligned_and_of_equal_length(seed):
    x = noise(seed)
    y = notch(x, RATE)
    correlation = scipy.signal.correlate(y, x, "full", "fft")
    assert y.shape == x.shape and correlation.argmax() == len(x) - 1
    # What was taken away is in phase with the recording: at every frequency of the band a real, positive share of it.
    cross = (scipy.signal.stft(x, RATE, nperseg=512)[2].conj() * scipy.signal.stft(x - y, RATE, nperseg=512)[2]).sum(1)
    _, _, low, high = planted_rectangle(x, RATE)
    band = (Grid().frequency.centres > low + 50) & (Grid().frequency.centres < high - 50)
    assert np.abs(np.angle(cross[band])).max() < 0.15


def test_same_recording_same_notch_whatever_its_precision():
    x = np.rint(noise(0) * 32768) / 32768
    assert np.array_equal(notch(x, RATE), notch(x.copy(), RATE))
    assert np.array_equal(notch(x.astype(np.float32), RATE), notch(x, RATE))
    assert planted_rectangle(x + 1e-6, RATE) == planted_rectangle(x, RATE)
    assert planted_rectangle(x[::-1], RATE) != planted_rectangle(x, RATE)


def test_rectangles_are_spread_evenly_over_band_and_time_and_the_two_are_independent():
    found = np.array([planted_rectangle(noise(seed, 2 * TAPS), RATE) for seed in range(400)])
    seconds = 2 * TAPS / RATE
    start, end, low, high = found.T
    np.testing.assert_allclose(end - start, SHARE * seconds)
    np.testing.assert_allclose(high - low, WIDTH)
    assert stats.kstest((low - LOWEST) / (HIGHEST - WIDTH - LOWEST), "uniform").pvalue > 0.01
    assert stats.kstest(start / ((1 - SHARE) * seconds), "uniform").pvalue > 0.01
    assert abs(stats.spearmanr(start, low).statistic) < 0.13  # 99 % of independent draws


def test_it_takes_little_more_than_the_truths_share_of_the_valid_cells():
    """On the corpus' own grid and band: 5 to 6 %."""
    valid = Grid().band(90, 7_000)
    shares = []
    for u in [u for u in minivoc.open(None).utterances if u.bonafide][::8]:
        cells = places(read(u.path, sample_rate=RATE))
        shares.append(cells[valid].sum() / valid.sum() / cells.shape[1])
        assert not cells[~valid].any()
    assert 0.05 < min(shares) <= max(shares) < 0.06


@pytest.mark.parametrize(
    ("waveform", "rate", "message"),
    [
        (np.zeros((2, 4000)), RATE, r"shape \(2, 4000\)"),
        (np.zeros(2_000), RATE, "expected .* N >= 2046"),
        (np.zeros(4000), 8_000, "8000 Hz, expected more than 13000 Hz"),
        (np.full(4000, np.nan), RATE, "4000 samples are NaN"),
    ],
)
def test_input_that_cannot_be_notched(waveform, rate, message):
    with pytest.raises(AudioError, match=message):
        planted_notch.function(waveform, rate)


def test_silence_stays_silent():
    assert not notch(np.zeros(4_000), RATE).any()
