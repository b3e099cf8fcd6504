"""Recordings: what is read is what was written, and every unusable file is refused by name."""

import wave

import numpy as np
import pytest
import soundfile

from xaibench import audio
from xaibench.audio import fit, read, resample, write
from xaibench.errors import AudioError
from xaibench.types import Pair, Utterance

RATE = 16_000
FORMATS = ("flac", "wav")


def speech(n=4000, seed=0):
    """Noise with every 16-bit value possible, as floats on the 16-bit grid."""
    integers = np.random.RandomState(seed).randint(-32768, 32768, n)
    integers[:2] = -32768, 32767
    return (integers / 32768).astype(np.float32)


def refused(path, *parts, sample_rate=RATE):
    with pytest.raises(AudioError) as caught:
        read(path, sample_rate=sample_rate)
    assert str(path) in str(caught.value)
    for part in parts:
        assert str(part) in str(caught.value)


# Read and write ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", FORMATS)
def test_round_trip_is_bit_exact(tmp_path, ending):
    path, x = tmp_path / f"a.{ending}", speech()
    write(path, x, sample_rate=RATE)
    y = read(path, sample_rate=RATE)
    assert y.dtype == np.float32
    assert y.shape == x.shape
    assert np.array_equal(x, y)
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")


def test_both_formats_hold_the_same_samples_off_the_grid(tmp_path):
    x = np.array([0.4, 0.6, -0.4, -0.6, 1.5, 2.5, -1.5]) / 32768
    for ending in FORMATS:
        write(tmp_path / f"a.{ending}", x, sample_rate=RATE)
        assert soundfile.read(tmp_path / f"a.{ending}", dtype="int16")[0].tolist() == [0, 1, 0, -1, 2, 2, -2]


def test_full_scale_is_the_largest_sample(tmp_path):
    write(tmp_path / "a.wav", np.array([1.0, -1.0]), sample_rate=RATE)
    assert soundfile.read(tmp_path / "a.wav", dtype="int16")[0].tolist() == [32767, -32768]


@pytest.mark.parametrize("value", [1.001, -1.5, np.inf, np.nan])
def test_write_refuses_to_clip(tmp_path, value):
    with pytest.raises(AudioError, match=r"a\.flac: peak .* would clip"):
        write(tmp_path / "a.flac", np.array([0.0, value]), sample_rate=RATE)
    assert not (tmp_path / "a.flac").exists()


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a", "a.FLACK"])
def test_write_refuses_other_endings(tmp_path, name):
    with pytest.raises(AudioError, match=r"expected \.flac or \.wav"):
        write(tmp_path / name, speech(), sample_rate=RATE)


def test_write_refuses_stereo(tmp_path):
    with pytest.raises(AudioError, match=r"shape \(2, 100\), expected \(N,\)"):
        write(tmp_path / "a.wav", np.zeros((2, 100)), sample_rate=RATE)


@pytest.mark.parametrize("ending", FORMATS)
def test_write_into_a_missing_folder(tmp_path, ending):
    with pytest.raises(AudioError, match=r"gone.*cannot be written"):
        write(tmp_path / "gone" / f"a.{ending}", speech(), sample_rate=RATE)


@pytest.mark.parametrize("name", ["žluťoučký kůň.flac", "語音 🗣.wav", "a b'\"c.flac", "x" * 240 + ".flac"])
def test_names_of_all_kinds(tmp_path, name):
    write(tmp_path / name, speech(), sample_rate=RATE)
    assert np.array_equal(read(tmp_path / name, sample_rate=RATE), speech())


# What is refused -----------------------------------------------------------------------------------------------------


def test_missing(tmp_path):
    refused(tmp_path / "gone.flac", "no such file", "--root")


def test_name_too_long_for_the_file_system(tmp_path):
    refused(tmp_path / ("x" * 300 + ".flac"), "cannot be opened")


def test_directory(tmp_path):
    refused(tmp_path, "a directory")


@pytest.mark.parametrize("name", ["a.flac", "a.wav", "a.txt"])
@pytest.mark.parametrize(
    "content", [b"", b"hello", b"utt_id,path\n" * 500, b"RIFF", b"RIFF\0\0\0\0WAVE", b"fLaC", bytes(5000)]
)
def test_text_empty_and_headers_only(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name)


@pytest.mark.parametrize("ending", FORMATS)
def test_no_samples(tmp_path, ending):
    soundfile.write(tmp_path / f"a.{ending}", np.zeros(0), RATE)
    refused(tmp_path / f"a.{ending}")


@pytest.mark.parametrize("ending", FORMATS)
def test_stereo(tmp_path, ending):
    soundfile.write(tmp_path / f"a.{ending}", np.zeros((100, 2)), RATE)
    refused(tmp_path / f"a.{ending}", "2 channels", "expected 1")


@pytest.mark.parametrize("ending", FORMATS)
def test_wrong_rate(tmp_path, ending):
    soundfile.write(tmp_path / f"a.{ending}", speech(), 8000)
    refused(tmp_path / f"a.{ending}", "8000 Hz", "16000 Hz")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_a_number(tmp_path, value):
    x = speech()
    x[[7, 9]] = value
    soundfile.write(tmp_path / "a.wav", x, RATE, subtype="FLOAT")
    refused(tmp_path / "a.wav", "2 samples", "index 7")


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("share", [0.999, 0.9, 0.5, 0.1, 0.02])
def test_truncated(tmp_path, ending, share):
    path = tmp_path / f"a.{ending}"
    write(path, speech(), sample_rate=RATE)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path)


def test_flac_truncated_at_any_byte(tmp_path):
    """Also where a frame ends, which the decoder takes for the end of the file."""
    path = tmp_path / "a.flac"
    soundfile.write(path, speech(20_000) / 300, RATE, subtype="PCM_16", compression_level=1.0)
    content = path.read_bytes()
    read(path, sample_rate=RATE)
    for length in range(len(content) - 1, 0, -37):
        path.write_bytes(content[:length])
        refused(path)


def test_truncated_wav_says_how_much_is_missing(tmp_path):
    path = tmp_path / "a.wav"
    write(path, speech(), sample_rate=RATE)
    path.write_bytes(path.read_bytes()[:-500])
    refused(path, "truncated", "500 bytes")


def test_wav_with_further_chunks_is_whole(tmp_path):
    """A chunk of odd length before the sound and one after it: neither is taken for missing sound."""
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((speech() * 32768).astype("<i2").tobytes())
    content = path.read_bytes()
    odd, tail = b"note" + (3).to_bytes(4, "little") + b"abc\0", b"LIST" + (4).to_bytes(4, "little") + b"INFO"
    body = content[8:36] + odd + content[36:] + tail
    path.write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    assert np.array_equal(read(path, sample_rate=RATE), speech())


def test_damaged_flac(tmp_path):
    """FLAC frames carry check sums, so a changed byte is found without the manifest's hash."""
    path = tmp_path / "a.flac"
    write(path, speech(), sample_rate=RATE)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    refused(path)


# Length and rate -----------------------------------------------------------------------------------------------------


def test_fit_cuts_repeats_or_keeps():
    x = np.arange(3.0)
    assert fit(x, 2).tolist() == [0, 1]
    assert fit(x, 3).tolist() == [0, 1, 2]
    assert fit(x, 7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert fit(x, 0).tolist() == []


def test_fit_of_nothing():
    with pytest.raises(AudioError, match="empty recording"):
        fit(np.zeros(0), 4)


def test_resample_keeps_a_tone_and_the_duration():
    x = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    y = resample(x, RATE, 8000)
    assert len(y) == 8000
    middle = slice(1000, 7000)
    assert np.allclose(y[middle], np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)[middle], atol=1e-3)
    assert resample(x, RATE, RATE) is x


@pytest.mark.parametrize("lag", [-7, 0, 5])
def test_the_halves_of_a_pair_lie_on_each_other_however_often_they_are_repeated(tmp_path, lag):
    """A bona fide file may be longer than what its twin has of it; a short one repeats what both have."""
    real = np.rint(3_000 * np.random.default_rng(0).standard_normal(1_000)).clip(-32768, 32767) / 32768
    late = np.concatenate([np.zeros(max(lag, 0)), real[max(-lag, 0) :]])  # what the vocoder made of it, unchanged
    shared = 900 - abs(lag)
    audio.write(tmp_path / "r.wav", real, sample_rate=8_000)
    audio.write(tmp_path / "f.wav", late[: shared + max(lag, 0)], sample_rate=8_000)
    spoof = Utterance("u", "s", "eval", "world", tmp_path / "f.wav", n_samples=shared, lag=lag)
    pair = Pair(Utterance("u", "s", "eval", "bonafide", tmp_path / "r.wav", n_samples=1_000), spoof)
    halves = [audio.fit(half, 2_500) for half in audio.read_halves(pair, sample_rate=8_000)]
    np.testing.assert_array_equal(*halves)
    assert halves[0].std() > 0
    (alone,) = audio.read_halves(Pair(None, spoof), sample_rate=8_000)
    assert len(alone) == shared


def test_twins_of_different_lengths_are_refused(tmp_path):
    for name, count in (("r", 100), ("f", 90)):
        audio.write(tmp_path / f"{name}.wav", np.full(count, 0.1), sample_rate=8_000)
    pair = Pair(*(Utterance("u", "s", "eval", v, tmp_path / f"{n}.wav") for v, n in (("bonafide", "r"), ("world", "f"))))
    with pytest.raises(AudioError, match=r"90 samples, its bona fide twin .* has 100"):
        audio.read_halves(pair, sample_rate=8_000)
