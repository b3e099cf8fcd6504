"""Voice activity: the energy rule and its smoothing by literal twins, silero on synthetic speech, and what is refused."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xaibench import registry
from xaibench.analysis import speech
from xaibench.analysis.speech import on_frames, runs, smoothed, speech_stretches, voice_activity
from xaibench.audio import read, resample
from xaibench.errors import XaibenchError
from xaibench.segments import speech_frames

RATE = 16_000
MASKS = st.lists(st.booleans(), min_size=1, max_size=40)


def talk(*, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """0.4 s of faint noise, 0.6 s of loud noise, 0.5 s of faint noise."""
    draw = np.random.default_rng(seed).standard_normal(round(1.5 * rate))
    level = np.full(len(draw), 1e-4)
    level[round(0.4 * rate) : round(1.0 * rate)] = 0.1
    return draw * level


def smoothed_twin(mask, pause, burst):
    """Frame by frame: a False frame is filled if its run is short and between two True ones; then short runs go."""
    mask = list(mask)

    def run_of(values, at):
        first = last = at
        while first > 0 and values[first - 1] == values[at]:
            first -= 1
        while last + 1 < len(values) and values[last + 1] == values[at]:
            last += 1
        return first, last

    filled = list(mask)
    for at, value in enumerate(mask):
        first, last = run_of(mask, at)
        if not value and first > 0 and last < len(mask) - 1 and last - first + 1 < pause:
            filled[at] = True
    return [v and run_of(filled, at)[1] - run_of(filled, at)[0] + 1 >= burst for at, v in enumerate(filled)]


@given(MASKS, st.integers(0, 6), st.integers(0, 6))
def test_smoothing_is_its_twin(mask, pause, burst):
    assert smoothed(np.array(mask), pause=pause, burst=burst).tolist() == smoothed_twin(mask, pause, burst)


@given(MASKS)
def test_runs_give_the_mask_back(mask):
    back = np.zeros(len(mask), dtype=bool)
    for first, last in runs(np.array(mask)):
        assert first < last and not back[first:last].any() and (first == 0 or not mask[first - 1])
        back[first:last] = True
    assert back.tolist() == mask


def test_energy_finds_the_loud_part_on_any_frame_axis():
    ((start, end),) = speech_stretches(talk(), sample_rate=RATE)
    assert start == pytest.approx(0.4, abs=0.03) and end == pytest.approx(1.0, abs=0.03)
    coarse = voice_activity(talk(), np.array([0.0, 0.35, 0.75, 1.2, 1.5]), sample_rate=RATE)
    assert coarse.tolist() == [False, True, True, False]  # 0.75 to 1.2 s: 0.25 s or more of 0.45 s


def test_energy_on_the_grid_is_the_rule_of_the_segments_where_nothing_is_smoothed():
    wave = talk(seed=3)
    edges = np.clip((np.arange(152) - 0.5) * 0.01, 0, 1.5)
    plain = speech_frames(wave, 151, hop=160, sample_rate=RATE)
    assert runs(plain)[0][1] - runs(plain)[0][0] > 5 and len(runs(plain)) == 1
    assert voice_activity(wave, edges, sample_rate=RATE).tolist() == plain.tolist()


def test_another_rate_hears_the_same():
    for rate in (8_000, 22_050, 44_100):
        ((start, end),) = speech_stretches(resample(talk(rate=RATE), RATE, rate), sample_rate=rate)
        assert start == pytest.approx(0.4, abs=0.04) and end == pytest.approx(1.0, abs=0.04)


def test_silence_has_no_speech():
    assert speech_stretches(np.zeros(4000), sample_rate=RATE) == ()
    assert not voice_activity(np.zeros(4000), np.linspace(0, 0.25, 6), sample_rate=RATE).any()


def test_a_frame_half_covered_is_not_speech():
    assert on_frames([(0.05, 0.2)], np.array([0.0, 0.1, 0.2])).tolist() == [False, True]
    assert on_frames([(0.04, 0.2)], np.array([0.0, 0.1, 0.2])).tolist() == [True, True]


@pytest.mark.parametrize(
    ("samples", "options", "says"),
    [
        (np.zeros((2, 50)), {}, "is it stereo"),
        (np.array([]), {}, "at least one"),
        (np.array([0.0, np.nan]), {}, "finite"),
        (np.zeros(50), {"detector": "webrtc"}, "energy, silero"),
        (np.zeros(50), {"sample_rate": 0}, "sample rate of 0"),
    ],
)
def test_what_is_refused(samples, options, says):
    with pytest.raises(XaibenchError, match=says):
        speech_stretches(samples, **{"sample_rate": RATE, **options})


def test_edges_that_do_not_rise_are_refused():
    with pytest.raises(XaibenchError, match="rising"):
        voice_activity(talk(), np.array([0.0, 0.2, 0.2]), sample_rate=RATE)


def test_silero_missing_says_how_to_install_it(monkeypatch):
    speech._silero.cache_clear()
    monkeypatch.setitem(sys.modules, "silero_vad", None)  # importing it raises ImportError
    with pytest.raises(XaibenchError, match=r"pip install 'xaibench\[speech\]'"):
        speech_stretches(talk(), sample_rate=RATE, detector="silero")


def spoken() -> np.ndarray:
    """1 s of silence, real speech of the embedded corpus, 1 s of silence."""
    corpus = registry.open_corpus("minivoc")
    one = next(u for u in corpus.utterances if u.bonafide and u.split == "eval")
    rest = 1e-5 * np.random.default_rng(0).standard_normal(RATE)
    return np.r_[rest, read(one.path, sample_rate=RATE)[: 2 * RATE], rest].astype(np.float32)


def test_silero_hears_speech_at_any_rate_and_leaves_the_threads_alone():
    pytest.importorskip("silero_vad", reason="the extra `speech` is not installed")
    speech._silero.cache_clear()
    for name in [n for n in sys.modules if n.partition(".")[0] == "silero_vad"]:
        del sys.modules[name]  # so that it is imported again, which is when it sets one thread
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        wave = spoken()
        for rate in (RATE, 44_100):
            found = speech_stretches(resample(wave, RATE, rate), sample_rate=rate, detector="silero")
            assert found and 0.8 < found[0][0] < 1.4 and 2.4 < found[-1][1] < 3.4
            mask = voice_activity(resample(wave, RATE, rate), np.linspace(0, 4, 81), sample_rate=rate, detector="silero")
            assert not mask[:16].any() and not mask[-10:].any() and mask[20:60].mean() > 0.6
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    noise = 0.05 * np.random.default_rng(0).standard_normal(2 * RATE)
    assert speech_stretches(noise, sample_rate=RATE, detector="silero") == ()
    assert speech_stretches(noise, sample_rate=RATE) != ()  # the energy rule cannot tell
