"""Segment labels: fitted to what the harness hears, as a truth, as categories; and RCQ of a run's kept maps."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import BAND, GRID, N_SAMPLES, SHAPE

from xaibench import audio, maps, registry
from xaibench.errors import ManifestError, RunError, XaibenchError
from xaibench.leaderboard.rcq import COLUMNS, rcq_of_run
from xaibench.metrics import temporal
from xaibench.metrics.rcq import CATEGORIES, heat, rcq
from xaibench.protocols import Corpus
from xaibench.segments import (
    categories,
    fit_segments,
    segment_truth,
    speech_frames,
    spoofed_share,
    utterance_segments,
)
from xaibench.types import Utterance

RATE = GRID.sample_rate
HOP = GRID.hop / RATE


def truth_of(*segments, n_samples=N_SAMPLES):
    return segment_truth(segments, grid=GRID, n_samples=n_samples, band=BAND, sample_rate=RATE)


# Fitting -------------------------------------------------------------------------------------------------------------


def test_segments_of_a_long_recording_are_cut():
    segments = [(0.1, 0.2, "spoof"), (0.4, 0.9, "bonafide"), (0.9, 1.0, "spoof")]
    assert fit_segments(segments, 1.0, 8_000, sample_rate=16_000) == ((0.1, 0.2, "spoof"), (0.4, 0.5, "bonafide"))


def test_segments_of_a_short_recording_repeat_with_it():
    fitted = fit_segments([(0.2, 0.4, "spoof")], 0.5, 18_400, sample_rate=16_000)
    assert [(round(a, 9), round(b, 9)) for a, b, _ in fitted] == [(0.2, 0.4), (0.7, 0.9)]
    fitted = fit_segments([(0.2, 0.4, "spoof")], 0.5, 20_000, sample_rate=16_000)
    assert [(round(a, 9), round(b, 9)) for a, b, _ in fitted] == [(0.2, 0.4), (0.7, 0.9), (1.2, 1.25)]


def test_labels_beyond_the_recording_are_cut_at_its_end():
    assert fit_segments([(0.4, 0.52, "spoof"), (0.6, 0.7, "spoof")], 0.5, 8_000, sample_rate=16_000) == (
        (0.4, 0.5, "spoof"),
    )


@given(
    n=st.integers(50, 400),
    heard=st.integers(50, 900),
    cuts=st.lists(st.integers(0, 400), min_size=2, max_size=6, unique=True),
)
@settings(max_examples=80)
def test_fitted_segments_mark_the_samples_that_fitted_audio_holds(n, heard, cuts):
    rate, edges = 100, sorted(cuts)
    segments = [(a / rate, b / rate, "spoof") for a, b in zip(edges[::2], edges[1::2], strict=False)]
    marked = np.array([any(s <= (i + 0.5) / rate < e for s, e, _ in segments) for i in range(n)])
    fitted = fit_segments(segments, n / rate, heard, sample_rate=rate)
    after = [any(s <= (i + 0.5) / rate < e for s, e, _ in fitted) for i in range(heard)]
    assert after == audio.fit(marked, heard).tolist()


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        ((0.5, 0.5, "spoof"), "0 <= start < end"),
        ((-0.1, 0.5, "spoof"), "0 <= start < end"),
        ((0.5, math.nan, "spoof"), "0 <= start < end"),
        ((0.5, math.inf, "spoof"), "0 <= start < end"),
        ((0.0, 0.5, "fake"), "label 'fake', expected one of bonafide, spoof"),
    ],
)
def test_malformed_segments_are_named(segment, message):
    with pytest.raises(XaibenchError, match=message):
        fit_segments([segment], 1.0, 16_000, sample_rate=16_000)
    with pytest.raises(XaibenchError, match=message):
        truth_of([segment])


@pytest.mark.parametrize("duration", [0.0, -1.0, math.nan])
def test_a_recording_without_length_is_refused(duration):
    with pytest.raises(XaibenchError, match="expected a duration above 0"):
        fit_segments([], duration, 16_000, sample_rate=16_000)


def utterance(vocoder="world", **facts):
    return Utterance(source="a", speaker="s", split="eval", vocoder=vocoder, path="a.wav", **facts)


def test_an_utterance_without_segments_is_one():
    for vocoder, label in (("bonafide", "bonafide"), ("world", "spoof")):
        assert utterance_segments(utterance(vocoder), n_samples=4_000, sample_rate=16_000) == ((0.0, 0.25, label),)


def test_segments_need_the_length_of_the_recording():
    segments = ((0.0, 0.1, "spoof"),)
    with pytest.raises(ManifestError, match="n_samples = 0"):
        utterance_segments(utterance(segments=segments), n_samples=4_000, sample_rate=16_000)
    fitted = utterance_segments(utterance(segments=segments, n_samples=3_200), n_samples=4_000, sample_rate=16_000)
    assert fitted == ((0.0, 0.1, "spoof"), (0.2, 0.25, "spoof"))


# The truth -----------------------------------------------------------------------------------------------------------


def literal_share(segments, n_samples):
    """The share of spoofed samples among those nearest to each frame's centre."""
    spoofed = np.array(
        [any(s <= (i + 0.5) / RATE < e for s, e, label in segments if label == "spoof") for i in range(n_samples)]
    )
    shares = []
    for t in range(SHAPE[1]):
        low, high = max(t * GRID.hop - GRID.hop // 2, 0), min(t * GRID.hop + GRID.hop // 2, n_samples)
        shares.append(spoofed[low:high].mean())
    return np.array(shares)


@given(st.lists(st.tuples(st.integers(0, N_SAMPLES - 1), st.integers(1, N_SAMPLES)), max_size=3))
@settings(max_examples=40)
def test_the_truth_is_the_share_of_spoofed_samples_of_each_frame(spans):
    segments = [(a / RATE, min(a + n, N_SAMPLES) / RATE, "spoof") for a, n in spans]
    truth = truth_of(segments)
    share = literal_share(segments, N_SAMPLES)
    inside = torch.from_numpy(GRID.band(*BAND))
    assert truth.name == "segments" and truth.resolves == {"time"}
    assert torch.equal(truth.valid, inside[:, None].expand(SHAPE))
    np.testing.assert_allclose(truth.values[0, inside].numpy(), np.tile(share, (int(inside.sum()), 1)), atol=1e-5)
    assert not truth.values[0, ~inside].any() and not truth.region[0, ~inside].any()
    assert truth.region[0, inside].all(0).tolist() == (share > 0.5).tolist()
    assert torch.equal(truth.region[0, inside].all(0), truth.region[0].any(0))


def test_a_frame_that_is_half_spoofed_is_not_in_the_region():
    truth = truth_of([(10 * HOP, 20 * HOP, "spoof")])  # from centre to centre
    assert truth.region[0].any(0).nonzero()[:, 0].tolist() == list(range(11, 20))
    assert truth.values[0].amax(0)[[10, 20]].tolist() == pytest.approx([0.5, 0.5])


def test_bona_fide_labels_and_overlaps_change_nothing():
    plain = truth_of([(0.05, 0.1, "spoof")])
    more = truth_of([(0.0, 0.05, "bonafide"), (0.05, 0.09, "spoof"), (0.06, 0.1, "spoof"), (0.1, 0.2, "bonafide")])
    torch.testing.assert_close(plain.values, more.values)
    assert torch.equal(plain.region, more.region)


def test_the_temporal_region_of_segments_is_exactly_their_frames():
    truth = truth_of([(0.05, 0.1, "spoof")], [(0.1, 0.11, "spoof"), (0.2, 0.24, "spoof")], [])
    assert torch.equal(temporal.temporal_region(truth), truth.region.any(1))
    assert torch.equal(truth.region.any((1, 2)), torch.tensor([True, True, False]))


def test_the_first_and_the_last_frame_can_be_wholly_spoofed():
    truth = truth_of([(0.0, N_SAMPLES / RATE, "spoof")])
    assert truth.region[:, truth.valid].all() and truth.values[:, truth.valid].min() == 1


def test_the_truth_of_no_utterance_is_empty():
    assert truth_of().region.shape == (0, *SHAPE)


def test_another_sample_rate_than_the_grids_is_refused():
    with pytest.raises(XaibenchError, match="8000 Hz, the grid at 16000 Hz"):
        segment_truth([[]], grid=GRID, n_samples=N_SAMPLES, band=BAND, sample_rate=8_000)


# Categories ----------------------------------------------------------------------------------------------------------


def test_every_frame_is_in_one_category():
    speech = np.ones(101, dtype=bool)
    speech[[0, 1, 2, 50, 51, 99]] = False
    found = categories([(0.3, 0.7, "spoof")], speech, hop=0.01)
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(101))
    assert found["TR"].tolist() == [28, 29, 30, 31, 32, 68, 69, 70, 71, 72]
    assert found["SS"].tolist() == [*range(33, 50), *range(52, 68)] and found["SN"].tolist() == [50, 51]
    assert found["BN"].tolist() == [0, 1, 2, 99]
    assert set(found) == set(CATEGORIES)


def test_the_ends_of_the_recording_are_no_splices():
    found = categories([(0.0, 0.5, "spoof")], np.ones(101, dtype=bool), hop=0.01)
    assert found["TR"].tolist() == [48, 49, 50, 51, 52] and found["SS"][0] == 0
    whole = categories([(0.0, 1.0, "spoof")], np.ones(101, dtype=bool), hop=0.01)
    assert len(whole["TR"]) == 0 and len(whole["SS"]) == 101


def test_speech_is_what_lies_within_25_db_of_the_loud_frames():
    rate, hop = 16_000, 160
    n = np.arange(rate)
    x = np.sin(2 * np.pi * 500 * n / rate)
    gain = np.where(n < 8_000, 1.0, 10 ** (-24 / 20))
    assert speech_frames(gain * x, 101, hop=hop, sample_rate=rate)[:99].all()
    gain = np.where(n < 8_000, 1.0, 10 ** (-26 / 20))
    speech = speech_frames(gain * x, 101, hop=hop, sample_rate=rate)
    assert speech[:50].all() and not speech[53:].any()


def test_silence_has_no_speech_and_an_empty_recording_is_refused():
    assert not speech_frames(np.zeros(1_000), 7, hop=160, sample_rate=16_000).any()
    with pytest.raises(XaibenchError, match="0 samples and 7 frames"):
        speech_frames(np.zeros(0), 7, hop=160, sample_rate=16_000)


def test_overlapping_segments_count_once():
    assert spoofed_share([(0.0, 0.5, "spoof"), (0.25, 1.0, "spoof")], np.array([0.0, 1.0])).tolist() == [1.0]


# A run's kept maps ---------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A run folder with the maps of two methods, over two partially spoofed utterances and a wholly spoofed one."""
    segments = ((0.05, 0.15, "spoof"),)
    utterances, draw = [], np.random.default_rng(0)
    for name in ("a_1", "b"):
        path = tmp_path / f"{name}.wav"
        loud = np.where(np.arange(N_SAMPLES) < 1_500, 0.3, 0.001)
        audio.write(path, loud * np.clip(draw.standard_normal(N_SAMPLES), -2, 2), sample_rate=RATE)
        facts = {"speaker": "s", "split": "eval", "n_samples": N_SAMPLES, "source": name}
        utterances += [
            Utterance(vocoder="bonafide", path=path, **facts),
            Utterance(vocoder="world", path=path, segments=segments, **facts),
            Utterance(vocoder="whole", path=path, **facts),
        ]
    corpus = Corpus("parts", tuple(utterances), RATE, BAND)
    monkeypatch.setattr(registry, "open_corpus", lambda name, root: corpus)
    run = tmp_path / "run"
    values = {}
    for method in ("ig:steps=50", "energy"):
        for name in ("a_1", "b"):
            for vocoder in ("world", "whole"):
                values[method, name, vocoder] = draw.standard_normal(SHAPE).astype(np.float32)
                path = maps.map_path(run, "lcnn", "native", method, f"{name}/{vocoder}")
                maps.write_map(path, values[method, name, vocoder], metadata={})
    path = maps.truth_path(run, "segments", SHAPE[1], "a_1/world")
    maps.write_truth(path, np.ones(SHAPE), np.ones(SHAPE), np.ones(SHAPE), metadata={})
    grid = {"sample_rate": RATE, "n_fft": GRID.n_fft, "hop": GRID.hop, "window": "hann"}
    (run / "run.json").write_text(json.dumps({"spec": {"data": "parts", "root": None, "grid": grid}}))
    return run, values, tmp_path, corpus


def test_rcq_of_a_run_pools_the_marginals_of_partially_spoofed_utterances(kept):
    run, values, folder, _ = kept
    table = rcq_of_run(run)
    assert list(table.columns) == list(COLUMNS)
    assert table[["countermeasure", "route", "attributor", "utterances"]].to_numpy().tolist() == [
        ["lcnn", "native", "energy", 2], ["lcnn", "native", "ig:steps=50", 2],
    ]  # fmt: skip
    inside = GRID.band(*BAND)
    for row in table.to_dict("records"):
        heats = [heat(values[row["attributor"], n, "world"][inside].astype(np.float64).sum(0)) for n in ("a_1", "b")]
        frames = [
            categories(
                [(0.05, 0.15, "spoof")],
                speech_frames(audio.read(folder / f"{n}.wav", sample_rate=RATE), SHAPE[1], hop=GRID.hop, sample_rate=RATE),
                hop=HOP,
            )
            for n in ("a_1", "b")
        ]
        assert all(len(f) for f in frames[0].values())
        expected = rcq(heats, frames)
        assert {c: row[c] for c in CATEGORIES} == pytest.approx(expected)


def test_rcq_of_a_run_takes_labels_from_vad_files(kept):
    run, _, folder, _ = kept
    for name in ("a_1", "b"):
        (folder / f"{name}.vad").write_text("0.0 0.05 1\n0.05 0.15 2\n0.15 0.25 101\n")
    table = rcq_of_run(run, vad=folder)
    assert np.isfinite(table[["BS", "SS", "BN"]]).all(axis=None) and table[["TR", "SN"]].isna().all(axis=None)
    (folder / "b.vad").unlink()
    with pytest.raises(ManifestError, match=r"b\.vad"):
        rcq_of_run(run, vad=folder)


def test_rcq_of_a_run_says_what_it_lacks(kept, monkeypatch):
    run, _, folder, corpus = kept
    with pytest.raises(RunError, match=r"no run\.json"):
        rcq_of_run(folder)
    only = Corpus("parts", tuple(u for u in corpus.utterances if u.vocoder == "world"), RATE, BAND)
    monkeypatch.setattr(registry, "open_corpus", lambda name, root: only)
    with pytest.raises(RunError, match="no bona fide original"):
        rcq_of_run(run)
    whole = Corpus("parts", tuple(u for u in corpus.utterances if not u.segments), RATE, BAND)
    monkeypatch.setattr(registry, "open_corpus", lambda name, root: whole)
    with pytest.raises(RunError, match="parts has no segment labels"):
        rcq_of_run(run)
    monkeypatch.setattr(registry, "open_corpus", lambda name, root: corpus)
    for path in (run / "maps").rglob("*world*"):
        path.unlink()
    with pytest.raises(RunError, match="--keep-maps"):
        rcq_of_run(run)
    (run / "run.json").write_text("{}")
    with pytest.raises(RunError, match=r"run\.json: damaged"):
        rcq_of_run(run)
