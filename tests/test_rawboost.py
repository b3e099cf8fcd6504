"""RawBoost against a literal twin of the authors' code on the same random numbers, and what every algorithm promises."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from xaibench import rawboost as module
from xaibench.errors import XaibenchError
from xaibench.rawboost import band_stop, convolutive, impulsive, notches, rawboost, stationary

RATE = 16_000


def speech(n: int = 4_000, *, level: float = 0.3) -> np.ndarray:
    draw = np.random.default_rng(7)
    return level * np.sin(2 * np.pi * 220 * np.arange(n) / RATE) + 0.05 * level * draw.standard_normal(n)


class Twin:
    """RawBoost.py line by line, with the defaults of main.py; `np.random` replaced by a generator."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator

    def rand_range(self, x1, x2, integer):
        y = x1 + (x2 - x1) * self.generator.random()
        return int(y) if integer else y

    @staticmethod
    def norm_wav(x, always):
        if always or np.amax(abs(x)) > 1:
            x = x / np.amax(abs(x))
        return x

    def notch_coefficients(self, min_gain, max_gain, fs):
        b = np.ones(1)
        for _ in range(5):
            fc = self.rand_range(20, 8000, 0)
            bw = self.rand_range(100, 1000, 0)
            c = self.rand_range(10, 100, 1)
            if c / 2 == int(c / 2):
                c = c + 1
            f1 = fc - bw / 2
            f2 = fc + bw / 2
            if f1 <= 0:
                f1 = 1 / 1000
            if f2 >= fs / 2:
                f2 = fs / 2 - 1 / 1000
            b = np.convolve(signal.firwin(c, [float(f1), float(f2)], window="hamming", fs=fs), b)
        gain = self.rand_range(min_gain, max_gain, 0)
        _, h = signal.freqz(b, 1, fs=fs)
        return pow(10, gain / 20) * b / np.amax(abs(h))

    @staticmethod
    def filter_fir(x, b):
        n = b.shape[0] + 1
        y = signal.lfilter(b, 1, np.pad(x, (0, n), "constant"))
        return y[int(n / 2) : int(y.shape[0] - n / 2)]

    def lnl(self, x, fs):
        min_gain, max_gain, y = 0, 0, 0
        for i in range(5):
            if i == 1:
                min_gain, max_gain = min_gain - 5, max_gain - 20
            b = self.notch_coefficients(min_gain, max_gain, fs)
            y = y + self.filter_fir(np.power(x, (i + 1)), b)
        return self.norm_wav(y - np.mean(y), 0)

    def isd(self, x):
        beta = self.rand_range(0, 10, 0)
        y = x.copy()
        p = self.generator.permutation(x.shape[0])[: int(x.shape[0] * (beta / 100))]
        f_r = ((2 * self.generator.random(p.shape[0])) - 1) * ((2 * self.generator.random(p.shape[0])) - 1)
        y[p] = x[p] + 2 * x[p] * f_r
        return self.norm_wav(y, 0)

    def ssi(self, x, fs):
        noise = self.generator.normal(0, 1, x.shape[0])
        noise = self.norm_wav(self.filter_fir(noise, self.notch_coefficients(0, 0, fs)), 1)
        snr = self.rand_range(10, 40, 0)
        return x + noise / np.linalg.norm(noise, 2) * np.linalg.norm(x, 2) / 10.0 ** (0.05 * snr)

    def process(self, x, fs, algorithm):
        if algorithm == 1:
            return self.lnl(x, fs)
        if algorithm == 2:
            return self.isd(x)
        if algorithm == 3:
            return self.ssi(x, fs)
        if algorithm == 4:
            return self.ssi(self.isd(self.lnl(x, fs)), fs)
        if algorithm == 5:
            return self.isd(self.lnl(x, fs))
        if algorithm == 6:
            return self.ssi(self.lnl(x, fs), fs)
        if algorithm == 7:
            return self.ssi(self.isd(x), fs)
        if algorithm == 8:
            return self.norm_wav(self.lnl(x, fs) + self.isd(x), 0)
        return x


@pytest.mark.parametrize("algorithm", range(9))
@pytest.mark.parametrize("level", [0.3, 3.0])  # above a peak of 1 the normalisation acts
def test_every_algorithm_gives_what_the_authors_code_gives(algorithm, level):
    for seed in range(4):
        x = speech(level=level)
        ours = rawboost(x, RATE, algorithm, np.random.default_rng(seed))
        theirs = Twin(np.random.default_rng(seed)).process(x, RATE, algorithm)
        assert ours.shape == theirs.shape == x.shape
        assert np.allclose(ours, theirs, rtol=0, atol=1e-9 * np.abs(theirs).max())


@pytest.mark.parametrize(("taps", "low", "high"), [(11, 0.001, 300), (33, 900, 1_500), (99, 7_600, 7_999.999)])
def test_a_notch_is_scipys_window_design(taps, low, high):
    assert np.allclose(band_stop(taps, low, high, RATE), signal.firwin(taps, [low, high], fs=RATE), atol=1e-12)


def test_filters_in_series_have_odd_length_and_the_drawn_gain():
    lengths = set()
    for seed in range(40):
        b = notches(RATE, (-6.0, -6.0), np.random.default_rng(seed))
        lengths.add(len(b))
        assert len(b) % 2 == 1 and 5 * 11 - 4 <= len(b) <= 5 * 99 - 4
        assert np.allclose(b, b[::-1])  # linear phase
        _, response = signal.freqz(b)
        assert np.abs(response).max() == pytest.approx(10 ** (-6 / 20))
    assert len(lengths) > 10


@pytest.mark.parametrize("snr", [10.0, 25.0, 40.0])
def test_the_stationary_noise_has_the_drawn_ratio(snr, monkeypatch):
    monkeypatch.setattr(module, "SNR_DB", (snr, snr))
    x = speech()
    noise = stationary(x, RATE, np.random.default_rng(0)) - x
    assert 20 * np.log10(np.linalg.norm(x) / np.linalg.norm(noise)) == pytest.approx(snr)


def test_impulses_hit_the_drawn_share_and_stay_within_the_gain():
    shares = []
    for seed in range(30):
        x = speech()
        y = impulsive(x, np.random.default_rng(seed))
        hit = y != x
        shares.append(hit.mean())
        assert (np.abs(y - x)[hit] <= 2 * np.abs(x)[hit]).all()
    assert max(shares) <= 0.10 and min(shares) < 0.03 and max(shares) > 0.07


def test_the_convolutive_noise_has_no_mean_and_harmonics_of_its_own(monkeypatch):
    tone = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(4_000) / RATE)
    third = []
    for orders in (1, 5):
        monkeypatch.setattr(module, "ORDERS", orders)
        y = convolutive(tone, RATE, np.random.default_rng(1))
        assert abs(y.mean()) < 1e-12
        spectrum = np.abs(np.fft.rfft(y * np.hanning(len(y))))
        third.append(spectrum[750] / spectrum[250])  # 3 kHz over 1 kHz, 4 Hz a bin
    assert third[1] > 20 * third[0]


@pytest.mark.parametrize("algorithm", range(1, 9))
def test_the_generator_decides_and_the_input_stays(algorithm):
    x = speech()
    before = x.copy()
    one, same, other = (rawboost(x, RATE, algorithm, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other) and np.array_equal(x, before)
    assert not np.allclose(one, x)


def test_algorithm_0_is_a_copy():
    x = speech()
    y = rawboost(x, RATE, 0, np.random.default_rng(0))
    assert np.array_equal(x, y) and not np.shares_memory(x, y)


@pytest.mark.parametrize("algorithm", range(9))
@pytest.mark.parametrize("x", [np.zeros(500), np.ones(1), speech(3), speech(1_000).astype(np.float32)])
def test_odd_inputs_stay_finite_and_keep_their_length(algorithm, x):
    y = rawboost(x, 8_000, algorithm, np.random.default_rng(0))
    assert y.shape == x.shape and y.dtype == np.float64 and np.isfinite(y).all()


@pytest.mark.parametrize("algorithm", [-1, 9, 1.5])
def test_an_unknown_algorithm_is_refused_in_words(algorithm):
    with pytest.raises(XaibenchError, match="1 to 8"):
        rawboost(speech(), RATE, algorithm, np.random.default_rng(0))


@pytest.mark.parametrize("x", [np.zeros((2, 5)), np.zeros(0), np.array([0.0, np.nan])])
def test_what_is_no_waveform_is_refused_in_words(x):
    with pytest.raises(XaibenchError, match=r"waveform \(N,\)"):
        rawboost(x, RATE, 1, np.random.default_rng(0))
