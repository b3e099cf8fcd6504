"""The rules of vocoders: a filter keeps them all, and each breaks on a vocoder made to break it, with the reason."""

import numpy as np
import pytest

from xaibench.errors import AudioError, PluginError
from xaibench.protocols import Vocoder
from xaibench.testing import Broken, NotApplicable, checks
from xaibench.testing.signals import voice
from xaibench.testing.vocoders import log_spectral_distance

RATE = 16_000


def smooth(x: np.ndarray, sample_rate: int) -> np.ndarray:
    """A weak low-pass: aligned, of equal length."""
    x = np.asarray(x, dtype=np.float32)
    if x.ndim != 1 or len(x) < 3:
        raise AudioError(f"got a waveform of shape {x.shape}, expected (N,) with N >= 3")
    if not np.isfinite(x).all():
        raise AudioError("some samples are NaN or infinite")
    return np.convolve(x, [0.2, 0.6, 0.2], "same").astype(np.float32)


def vocoder(function) -> Vocoder:
    return Vocoder("toy", "none: a filter", function)


def after(change) -> Vocoder:
    """`smooth`, and then something wrong."""
    return vocoder(lambda x, rate: change(smooth(x, rate)))


def asked(thing: Vocoder, rule: str):
    (check,) = [c for c in checks("vocoder", thing) if c.rule == rule]
    return check.run()


def test_a_good_one_keeps_every_rule():
    found = {check.rule: check for check in checks("vocoder", vocoder(smooth))}
    ours = (
        "waveform",
        "aligned",
        "level",
        "changes",
        "deterministic",
        "process-unchanged",
        "silence",
        "odd-input",
        "sample-rate",
    )
    assert {rule: bool(found[rule].run().text) for rule in ours} == dict.fromkeys(ours, True)


def test_it_is_asked_at_a_rate_that_it_takes():
    def only(x, rate):
        if rate != 22_050:
            raise AudioError(f"sampled at {rate} Hz, expected 22050 Hz")
        return smooth(x, rate)

    assert asked(vocoder(only), "sample-rate").number == 22_050

    def never(x, rate):
        raise AudioError("no")

    with pytest.raises(Broken, match=r"refuses 1.5 s of speech at every rate of 16000, 24000.* no"):
        asked(vocoder(never), "waveform")


def test_a_library_that_is_missing_is_no_broken_rule():
    def bare(x, rate):
        raise PluginError("needs the library pyworld; pip install it")

    with pytest.raises(NotApplicable, match="needs the library pyworld"):
        asked(vocoder(bare), "aligned")


def unseeded(x, rate):
    return smooth(x, rate) + np.random.default_rng().normal(0, 1e-4, np.shape(x)).astype(np.float32)


def writes(x, rate):
    x *= 0.5
    return smooth(x, rate)


def seeds(x, rate):
    np.random.seed(0)
    return smooth(x, rate)


def crashes_when_short(x, rate):
    return np.convolve(x, np.ones(9) / 9, "valid")[: len(x) - 8].repeat(2)[: len(x)] if len(x) > 1_000 else x[5]


def one_rate(x, rate):
    if rate != RATE:
        raise AudioError("resample it first")
    return smooth(x, rate)


BROKEN = [
    (after(lambda y: y[:-7]), "waveform", r"of 24000 samples it makes \(23993,\); expected \(24000,\).*whole frames"),
    (after(lambda y: y.astype(np.float16)), "waveform", "it gives float16; expected a numpy array of float32"),
    (after(lambda y: y.tolist()), "waveform", "it gives list; expected a numpy array"),
    (after(lambda y: np.where(np.arange(len(y)) == 5, np.nan, y)), "waveform", "1 of 24000 samples are NaN or infinite"),
    (after(lambda y: np.roll(y, 80)), "aligned", r"its output is late by 80 samples \(\+5.0 ms\)"),
    (after(lambda y: 2.5 * y), "level", "a voice of peak 0.50 comes out with 1.*it would clip"),
    (after(lambda y: 0.1 * y), "level", "comes out -20.* dB louder; expected within 10 dB"),
    (vocoder(lambda x, rate: x.copy()), "changes", "it gives back what it was given"),
    (vocoder(lambda x, rate: x + np.float32(1e-7)), "changes", "distance of output and input is 0.00 dB.*nothing to find"),
    (vocoder(lambda x, rate: voice(len(x), rate, seed=5)[::-1].copy()), "changes", "expected 0.05 to 9: another recording"),
    (vocoder(unseeded), "deterministic", "made twice it differs by up to .*Seed its noise"),
    (vocoder(writes), "process-unchanged", "it changed the waveform it was given"),
    (vocoder(seeds), "process-unchanged", "it changed numpy's generator"),
    (after(lambda y: y + np.float32(0.05)), "silence", "silence comes out at -26 dB of full scale; expected below -50"),
    (after(lambda y: y / np.abs(y).max()), "silence", r"silence comes out with 16000 NaN"),
    (vocoder(lambda x, rate: x[5:].sum() + x), "odd-input", r"for NaN it gives \(16000,\) with 16000 samples not finite"),
    (vocoder(crashes_when_short), "odd-input", "for no sample it raises IndexError .*expected a waveform, or an AudioError"),
    (vocoder(one_rate), "sample-rate", "8000 Hz is refused with 'resample it first'; expected 8000 in the sentence"),
]  # fmt: skip


@pytest.mark.parametrize(("thing", "rule", "message"), BROKEN, ids=[f"{r}-{i}" for i, (_, r, _) in enumerate(BROKEN)])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_one_that_breaks_a_rule(thing, rule, message):
    state = np.random.get_state()[1].copy()
    with pytest.raises(Broken, match=f"(?s){message}"):
        asked(thing, rule)
    assert np.array_equal(np.random.get_state()[1], state)


def test_the_log_spectral_distance_is_that_of_the_level_and_blind_to_what_lies_below_the_floor():
    x = np.random.default_rng(1).standard_normal(RATE)  # no cell of it is quiet
    assert log_spectral_distance(x, 2 * x, RATE) == pytest.approx(6.02, abs=0.01)
    x = voice(RATE, RATE)
    hiss = 1e-6 * np.random.default_rng(0).standard_normal(RATE)
    assert log_spectral_distance(x, x + hiss, RATE) < 0.05
