"""Vocoders: refused input, missing libraries, and (where the libraries are installed) aligned output of equal length."""

import sys

import numpy as np
import pytest
from xaibench_minivoc import vocoders
from xaibench_minivoc.datasets import minivoc

from xaibench.audio import read
from xaibench.errors import AudioError, PluginError

ALL = {
    "world": (vocoders.world, "pyworld"),
    "mlsa": (vocoders.mlsa, "pysptk"),
    "griffin-lim": (vocoders.griffin_lim, "librosa"),
}


@pytest.mark.parametrize("name", ALL)
def test_a_missing_library_is_named_with_its_remedy(name, monkeypatch):
    vocoder, library = ALL[name]
    monkeypatch.setitem(sys.modules, library, None)  # makes `import` fail, installed or not
    with pytest.raises(PluginError, match=rf"{name}.*{library}.*pip install xaibench-minivoc\[rebuild\]"):
        vocoder.function(np.zeros(4000, np.float32), 16_000)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("waveform", "rate", "message"),
    [
        (np.zeros((2, 4000)), 16_000, r"shape \(2, 4000\)"),
        (np.zeros(100), 16_000, r"shape \(100,\)"),
        (np.zeros(4000), 22_050, "22050 Hz, expected 16000"),
        (np.full(4000, np.nan), 16_000, "4000 samples are NaN"),
    ],
)
def test_input_that_cannot_be_synthesised(name, waveform, rate, message):
    """Refused before any library is needed."""
    with pytest.raises(AudioError, match=f"{name}.*{message}"):
        ALL[name][0].function(waveform, rate)


def test_align_removes_the_lag_and_keeps_the_length():
    x = np.arange(1.0, 9.0)
    late = np.concatenate([np.zeros(3), x])
    assert vocoders.align(late, 8, lag=3).tolist() == x.tolist()
    assert vocoders.align(late, 4, lag=3).tolist() == x[:4].tolist()
    assert vocoders.align(x, 10, lag=0).tolist() == [*x, 0, 0]


@pytest.mark.parametrize("name", ALL)
def test_output_is_finite_of_equal_length_and_level(name):
    pytest.importorskip(ALL[name][1], reason="needs xaibench-minivoc[rebuild]")
    x = read(minivoc.open(None).utterances[0].path, sample_rate=16_000)[:20_001]
    y = ALL[name][0].function(x, 16_000)
    assert y.shape == x.shape
    assert y.dtype == np.float32
    assert np.isfinite(y).all()
    assert 0.3 < y.std() / x.std() < 3


@pytest.mark.parametrize("name", ["world", "griffin-lim"])
def test_same_input_same_output(name):
    pytest.importorskip(ALL[name][1], reason="needs xaibench-minivoc[rebuild]")
    x = read(minivoc.open(None).utterances[6].path, sample_rate=16_000)[:16_000]
    assert np.array_equal(ALL[name][0].function(x, 16_000), ALL[name][0].function(x.copy(), 16_000))
