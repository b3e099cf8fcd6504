"""Pairs from one's own recordings: files, chain, continuing, and what is left out."""

import numpy as np
import pytest
import soundfile
import trees

from xaibench import registry
from xaibench.datasets import chain
from xaibench.datasets.catalog import open_indexed
from xaibench.datasets.make_pairs import make_pairs
from xaibench.errors import ManifestError, PluginError
from xaibench.manifest import pairs, verify
from xaibench.protocols import Vocoder

CALLS = []


def halved(waveform, sample_rate):
    assert sample_rate == chain.SAMPLE_RATE
    CALLS.append(len(waveform))
    if len(waveform) == 20_000:
        raise RuntimeError("does not like this length")
    return 0.5 * waveform[::-1][::-1] + 0.001


@pytest.fixture
def given(tmp_path, monkeypatch):
    """Recordings in a folder, and two vocoders without libraries."""
    CALLS.clear()
    made = {
        "half-er": Vocoder("half-er", "none", halved),
        "late": Vocoder("late", "none", lambda x, rate: np.concatenate([np.zeros(80), x])[: len(x)]),
        "short": Vocoder("short", "none", lambda x, rate: x[1:]),
    }

    def load(group, name):
        if name not in made:
            raise PluginError(registry.unknown(group, name, made))
        return made[name]

    monkeypatch.setattr(registry, "load", load)
    trees.sound(tmp_path / "in/été.wav", trees.noise("a", 24_000))
    trees.sound(tmp_path / "in/sub/b-1_c.flac", trees.noise("b", 36_000), 24_000)
    return tmp_path


def test_pairs_open_as_the_data_set_folder(given):
    answer = make_pairs(["half-er", "late"], given / "in", given / "out")
    assert (answer.made, answer.kept, answer.left_out) == (2, 0, 0)
    corpus = open_indexed("folder", given / "out")
    assert verify(corpus.utterances) == 6
    assert [p.id for p in pairs(corpus)] == ["sub-b-1_c/half-er", "sub-b-1_c/late", "été/half-er", "été/late"]
    assert (corpus.sample_rate, corpus.valid_band) == (16_000, (90.0, 7000.0))
    assert [p.spoof.lag for p in pairs(corpus)] == [0, 80, 0, 80]
    assert {u.n_samples for u in corpus.utterances} == {24_000, 24_000 - 80}


def test_all_versions_leave_the_chain_alike(given):
    make_pairs(["half-er"], given / "in", given / "out")
    real, fake = (soundfile.read(given / f"out/{v}/été.flac")[0] for v in ("bonafide", "half-er"))
    assert np.abs(real - fake).max() < 1e-3  # level, polarity and noise are common
    assert 20 * np.log10(real.std()) == pytest.approx(-30, abs=0.05)


def test_the_same_command_continues(given):
    make_pairs(["half-er"], given / "in", given / "out")
    content = (given / "out/folder.csv").read_bytes()
    calls = len(CALLS)
    answer = make_pairs(["half-er"], given / "in", given / "out")
    assert (answer.made, answer.kept, len(CALLS)) == (0, 2, calls)
    (given / "out/half-er/été.flac").unlink()
    answer = make_pairs(["half-er"], given / "in", given / "out")
    assert (answer.made, answer.kept) == (1, 1)
    assert (given / "out/folder.csv").read_bytes() == content


def test_what_cannot_be_vocoded_is_named_and_left_out_whole(given):
    (given / "in/broken.wav").write_bytes(b"RIFF")
    trees.sound(given / "in/long.wav", trees.noise("x", 20_000))
    trees.sound(given / "in/quiet.wav", np.zeros(24_000))
    trees.sound(given / "in/short.wav", trees.noise("x", 900))
    answer = make_pairs(["half-er"], given / "in", given / "out")
    assert (answer.made, answer.left_out) == (2, 4)
    for part, message in zip(("broken", "long", "quiet", "short"), answer.named, strict=True):
        assert f"in/{part}.wav: " in message
    assert "RuntimeError: does not like this length" in answer.named[1]
    assert not (given / "out/bonafide/long.flac").exists()


def test_a_limit(given):
    assert make_pairs(["late"], given / "in", given / "out", limit=1).index.files == 2


def test_bad_requests(given):
    with pytest.raises(PluginError, match="did you mean 'half-er'"):
        make_pairs(["halfer"], given / "in", given / "out")
    with pytest.raises(ManifestError, match="no vocoder given"):
        make_pairs([], given / "in", given / "out")
    with pytest.raises(ManifestError, match="no such folder of recordings"):
        make_pairs(["late"], given / "nowhere", given / "out")
    with pytest.raises(ManifestError, match="lies inside"):
        make_pairs(["late"], given / "in", given / "in/out")
    with pytest.raises(
        ManifestError, match=r"not one recording could be vocoded: .*gave shape \(23999,\), expected \(24000,\)"
    ):
        make_pairs(["short"], given / "in", given / "out")
    trees.sound(given / "in/sub-b-1_c.wav", trees.noise("x", 20_000))
    with pytest.raises(ManifestError, match="would both be named 'sub-b-1_c'"):
        make_pairs(["late"], given / "in", given / "out")
