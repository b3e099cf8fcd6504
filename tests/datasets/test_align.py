"""Lags: sign, synthetic delays, twins whose phases are scrambled, and pairs of the embedded corpus."""

import numpy as np
import pytest
import scipy.signal
import soundfile
import trees
from hypothesis import given, settings
from hypothesis import strategies as st

from xaibench.datasets import align

RATE = 16_000
minivoc = pytest.importorskip("xaibench_minivoc.datasets")


def speech(i, version="bonafide"):
    names = sorted(p.name for p in (minivoc.AUDIO / "eval/bonafide").iterdir())
    return soundfile.read(minivoc.AUDIO / "eval" / version / names[i])[0]


def scrambled(x, seed=0):
    """The magnitudes of `x` with random phases, as a vocoder without phases would give: waveforms do not correlate."""
    _, _, spectrum = scipy.signal.stft(x, nperseg=320, noverlap=240)
    phases = np.exp(2j * np.pi * np.random.RandomState(seed).rand(*spectrum.shape))
    return scipy.signal.istft(np.abs(spectrum) * phases, nperseg=320, noverlap=240)[1][: len(x)]


@settings(max_examples=25)
@given(late=st.integers(-700, 700), rate=st.sampled_from([16_000, 22_050, 24_000]), seed=st.integers(0, 50))
def test_a_delayed_copy_is_found_to_the_sample(late, rate, seed):
    x = trees.noise(f"{seed}", 12_000)
    assert align.lag(x, trees.late(x, late), rate) == late


def test_positive_means_that_the_spoof_is_late():
    x = speech(0)
    assert align.lag(x, np.concatenate([np.zeros(100), x]), RATE) == 100
    assert align.lag(np.concatenate([np.zeros(100), x]), x, RATE) == -100


@pytest.mark.parametrize("late", [-640, -160, 0, 160, 480])
def test_scrambled_phases_cost_at_most_a_millisecond(late):
    for i in (0, 20, 40):
        x = speech(i)
        assert abs(align.lag(x, trees.late(scrambled(x, i), late), RATE) - late) <= RATE // 1000


@pytest.mark.parametrize("vocoder", ["world", "mlsa", "griffinlim", "hifigan", "lyra"])
def test_aligned_twins_of_the_embedded_corpus_have_no_lag_and_moved_ones_have_it(vocoder):
    for i in (1, 25, 45):
        real, fake = speech(i), speech(i, vocoder)
        found = align.measure(real, fake, RATE)
        assert found.samples == 0
        assert found.likeness > 0.85
        assert abs(align.lag(real, trees.late(fake, 200), RATE) - 200) <= RATE // 1000


def test_other_utterances_are_not_alike():
    likeness = [align.measure(speech(i), speech(i + 9, "world"), RATE).likeness for i in range(0, 36, 6)]
    assert max(likeness) < align.TWINS


def test_most_bounds_the_answer():
    x = speech(0)
    assert abs(align.lag(x, trees.late(x, 700), RATE, most=0.01)) <= 160


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.zeros(8000), np.ones(8000)),
        (np.zeros(0), np.zeros(9)),
        (np.ones(8000), np.ones(8000)),
        (np.ones(600), np.ones(9000)),
    ],
)
def test_what_cannot_be_told_is_zero(a, b):
    found = align.measure(a, b, RATE)
    assert found.samples == 0


@given(n=st.integers(0, 50), m=st.integers(0, 50), late=st.integers(-60, 60))
def test_overlap_leaves_equal_lengths_of_what_belongs_together(n, m, late):
    real, fake = np.arange(n), np.arange(m) - late
    a, b = align.overlap(real, fake, late)
    assert len(a) == len(b) == align.overlap_length(n, m, late)
    assert np.array_equal(a, b)
