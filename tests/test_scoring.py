"""One number a recording: the log-odds, the windows, and the order of the classes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import N_SAMPLES, ConvCM, LinearCM

from xaibench.errors import AudioError, PluginError
from xaibench.scoring import bonafide_index, bonafide_log_odds, score_recordings, windows


def test_the_log_odds_of_a_softmax():
    logits = torch.tensor([[0.3, 2.0, -1.0]], dtype=torch.float64)
    p = float(logits.softmax(1)[0, 1])
    found = float(bonafide_log_odds(logits, ("tts", "bonafide", "vc")))
    assert found == pytest.approx(math.log(p / (1 - p)))


def test_a_constant_on_all_logits_changes_nothing_and_more_bona_fide_is_higher():
    logits = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    classes = ("bonafide", "tts", "vc")
    score = bonafide_log_odds(logits, classes)
    assert torch.allclose(bonafide_log_odds(logits + 5, classes), score)
    assert (bonafide_log_odds(logits + torch.tensor([1.0, 0, 0]), classes) > score).all()
    assert torch.allclose(bonafide_log_odds(logits[:, [2, 0, 1]], ("vc", "bonafide", "tts")), score)


@pytest.mark.parametrize(
    "classes", [(), ("bonafide",), ("spoof", "real"), ("bonafide", "bonafide"), ("Bonafide", "spoof"), "bonafide"]
)
def test_classes_must_name_bonafide_once(classes):
    with pytest.raises(PluginError, match="'bonafide' exactly once"):
        bonafide_index(classes)


def test_the_index_is_by_name():
    assert [bonafide_index(c) for c in (("bonafide", "spoof"), ("spoof", "bonafide"), ["a", "bonafide", "b"])] == [0, 1, 1]


def test_one_logit_a_class():
    with pytest.raises(PluginError, match=r"expected logits \(B, 2\).*got \(1, 3\)"):
        bonafide_log_odds(torch.zeros(1, 3), ("spoof", "bonafide"))


@given(length=st.integers(1, 200), n_samples=st.integers(1, 40))
@settings(max_examples=80, deadline=None)
def test_windows_cover_every_sample_and_overlap_by_half_at_least(length, n_samples):
    samples = np.arange(length, dtype=np.float32)
    cut = windows(samples, n_samples)
    assert cut.shape[1] == n_samples and cut.dtype == np.float32
    if length >= n_samples:
        assert set(cut.ravel()) == set(samples)
        assert (np.diff(cut, axis=1) == 1).all()  # each is a stretch of the recording
        assert cut[0, 0] == 0 and cut[-1, -1] == length - 1
        assert (np.diff(cut[:, 0]) <= max(n_samples // 2, 1)).all() and (np.diff(cut[:, 0]) > 0).all()
    else:
        assert np.array_equal(cut, [np.resize(samples, n_samples)])


def test_an_empty_recording_is_refused():
    with pytest.raises(AudioError, match="empty recording"):
        windows(np.empty(0, np.float32), 10)


def recordings(*lengths: int) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [(0.1 * draw.standard_normal(n)).astype(np.float32) for n in lengths]


def test_a_recording_scores_the_mean_of_its_windows_whatever_the_batches():
    cm = ConvCM()
    audio = recordings(N_SAMPLES, 3 * N_SAMPLES + 17, 900)
    scores = score_recordings(cm, audio)
    assert scores.shape == (3,) and scores.dtype == np.float64
    for score, samples in zip(scores, audio, strict=True):
        parts = torch.from_numpy(windows(samples, N_SAMPLES))
        with torch.no_grad():
            wanted = bonafide_log_odds(cm(parts), cm.classes).mean()
        assert score == pytest.approx(float(wanted), abs=1e-5)
    assert np.allclose(score_recordings(cm, audio, batch_size=1), scores, atol=1e-5)
    assert np.allclose(score_recordings(cm, audio[::-1]), scores[::-1], atol=1e-5)


def test_a_short_recording_scores_as_its_repetition():
    cm = LinearCM()
    (short,) = recordings(1_000)
    assert score_recordings(cm, [short]) == pytest.approx(score_recordings(cm, [np.tile(short, 4)]))


def test_no_recordings_have_no_scores():
    assert score_recordings(ConvCM(), []).shape == (0,)
