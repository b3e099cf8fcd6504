"""Recordings of a user's: every format comes out as mono at the wanted rate, and what cannot be used is refused by name."""

import builtins
import stat
import sys

import numpy as np
import pytest
import soundfile

from xaibench.errors import AudioError
from xaibench.recordings import Excerpt, read_any

RATE = 16_000
SECONDS = 1.5


def tone(rate=RATE, *, hertz=440.0, seconds=SECONDS):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def loudest(samples, rate=RATE):
    """The frequency with the most power, Hz."""
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


def hidden(monkeypatch, *, av=True, ffmpeg=True):
    """As where PyAV or ffmpeg is not installed."""
    real = builtins.__import__

    def importing(name, *args, **kwargs):
        if av and name.split(".")[0] == "av":
            raise ImportError("No module named 'av'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", importing)
    if ffmpeg:
        monkeypatch.setattr("xaibench.recordings.shutil.which", lambda name: None)


def m4a(path, samples, rate=44_100):
    """Write an AAC file; skipped where PyAV or its encoder is not there."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        try:
            stream = container.add_stream("aac", rate=rate, layout="stereo")
        except (ValueError, av.FFmpegError) as error:
            pytest.skip(f"PyAV has no AAC encoder ({error})")
        planes = np.ascontiguousarray(np.broadcast_to(samples, (2, len(samples))), dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout="stereo")
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return path


def test_a_mono_file_at_the_wanted_rate_comes_back_bit_for_bit(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), RATE, subtype="PCM_16")
    found = read_any(tmp_path / "a.wav", sample_rate=RATE)
    assert found.samples.dtype == np.float32 and found.seconds == SECONDS == found.file_seconds
    assert np.array_equal(found.samples, soundfile.read(tmp_path / "a.wav", dtype="float32")[0])
    assert (found.name, found.original_rate, found.channels, found.notes) == ("a.wav", RATE, 1, ())


def test_stereo_is_mixed_down_or_one_channel_is_taken(tmp_path):
    left, right = tone(44_100), 0.2 * tone(44_100, hertz=2_000)
    soundfile.write(tmp_path / "s.wav", np.stack([left, right], 1), 44_100, subtype="FLOAT")
    mixed = read_any(tmp_path / "s.wav", sample_rate=RATE)
    second = read_any(tmp_path / "s.wav", sample_rate=RATE, excerpt=Excerpt(channel=1))
    assert mixed.heard == "the mean of 2 channels" and second.heard == "channel 1 of 2"
    assert len(mixed.samples) == len(second.samples) == round(SECONDS * RATE)
    assert abs(loudest(mixed.samples) - 440) < 1 and abs(loudest(second.samples) - 2_000) < 1
    inner = slice(800, -800)  # a resampler rings at the ends
    wanted = (tone() + 0.2 * tone(hertz=2_000)) / 2
    assert np.abs(mixed.samples[inner] - wanted[inner]).max() < 1e-3
    with pytest.raises(AudioError, match=r"s\.wav: has 2 channels, there is no channel 2"):
        read_any(tmp_path / "s.wav", sample_rate=RATE, excerpt=Excerpt(channel=2))


@pytest.mark.parametrize(("ending", "lossy"), [("flac", False), ("ogg", True), ("mp3", True), ("aiff", False)])
def test_what_libsndfile_reads(tmp_path, monkeypatch, ending, lossy):
    hidden(monkeypatch)
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, tone(32_000), 32_000)
    found = read_any(path, sample_rate=RATE)
    assert abs(loudest(found.samples) - 440) < 2 and abs(found.seconds - SECONDS) < 0.1
    assert any("lossy" in note for note in found.notes) == lossy


def test_m4a_by_pyav(tmp_path):
    found = read_any(m4a(tmp_path / "a.m4a", tone(44_100)), sample_rate=RATE)
    assert found.channels == 2 and found.original_rate == 44_100
    assert "AAC" in found.encoding and any("lossy" in note for note in found.notes)
    assert abs(found.seconds - SECONDS) < 0.1 and abs(loudest(found.samples) - 440) < 2


def test_a_part_of_an_m4a(tmp_path):
    both = np.concatenate([tone(44_100), tone(44_100, hertz=1_500)])
    found = read_any(m4a(tmp_path / "a.m4a", both), sample_rate=RATE, excerpt=Excerpt(start=2.0, end=2.5))
    assert abs(found.seconds - 0.5) < 0.01 and abs(loudest(found.samples) - 1_500) < 4


def test_m4a_where_nothing_reads_it_says_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom" + bytes(400))
    hidden(monkeypatch)
    with pytest.raises(AudioError, match=r"a\.m4a: not readable .*pip install 'xaibench\[media\]', or put ffmpeg on the"):
        read_any(tmp_path / "a.m4a", sample_rate=RATE)


@pytest.mark.skipif(sys.platform == "win32", reason="a script with a shebang")
def test_ffmpeg_where_pyav_is_not(tmp_path, monkeypatch):
    """A stand-in of ffmpeg, which shows what it is asked: the file alone, formats of sounds alone."""
    soundfile.write(tmp_path / "sound.au", np.stack([tone(22_050)] * 2, 1), 22_050, format="AU", subtype="FLOAT")
    program = tmp_path / "ffmpeg"
    program.write_text(
        f"#!{sys.executable}\nimport sys, pathlib\nhere = pathlib.Path({str(tmp_path)!r})\n"
        "(here / 'asked').write_text(chr(10).join(sys.argv[1:]))\n"
        "sys.stdout.buffer.write((here / 'sound.au').read_bytes())\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    hidden(monkeypatch, ffmpeg=False)
    (tmp_path / "a.m4a").write_bytes(b"no sound that libsndfile knows" * 9)
    found = read_any(tmp_path / "a.m4a", sample_rate=RATE)
    assert found.encoding == "m4a, read by ffmpeg" and found.channels == 2 and abs(loudest(found.samples) - 440) < 2
    asked = (tmp_path / "asked").read_text().splitlines()
    assert f"file:{tmp_path / 'a.m4a'}" in asked and "-format_whitelist" in asked
    assert "hls" not in asked[asked.index("-format_whitelist") + 1].split(",")


def test_a_playlist_opens_no_other_file(tmp_path):
    pytest.importorskip("av")
    soundfile.write(tmp_path / "secret.wav", tone(), RATE)
    (tmp_path / "a.m4a").write_text("ffconcat version 1.0\nfile secret.wav\n")
    with pytest.raises(AudioError, match="not readable as a recording"):
        read_any(tmp_path / "a.m4a", sample_rate=RATE)


def test_an_excerpt_is_what_lies_between(tmp_path):
    x = np.arange(3 * RATE) / (4 * RATE)
    soundfile.write(tmp_path / "a.wav", x, RATE, subtype="FLOAT")
    found = read_any(tmp_path / "a.wav", sample_rate=RATE, excerpt=Excerpt(start=1.0, end=1.5))
    assert np.allclose(found.samples, x[RATE : RATE + RATE // 2]) and found.start == 1.0 and found.file_seconds == 3.0
    to_the_end = read_any(tmp_path / "a.wav", sample_rate=RATE, excerpt=Excerpt(start=2.5, end=9.0))
    assert to_the_end.seconds == 0.5
    with pytest.raises(AudioError, match="there is nothing from 4 s on"):
        read_any(tmp_path / "a.wav", sample_rate=RATE, excerpt=Excerpt(start=4.0))
    with pytest.raises(AudioError, match="an end after it"):
        Excerpt(start=2.0, end=1.0)


def test_a_recording_of_hours_is_refused_before_it_is_read(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "long.flac", np.zeros(8 * 3600 * 100, np.float32) + 0.01, 100)
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *a, **k: pytest.fail("all of it was read"))
    with pytest.raises(AudioError, match=r"long\.flac: 28,800 s to explain, at most 600 s .*--start and --end"):
        read_any(tmp_path / "long.flac", sample_rate=RATE)


def test_a_part_of_a_recording_of_hours_is_read(tmp_path):
    soundfile.write(tmp_path / "long.flac", 0.5 * np.ones(8 * 3600 * 100, np.float32), 100)
    part = Excerpt(start=20_000, end=20_002)
    assert read_any(tmp_path / "long.flac", sample_rate=200, excerpt=part).seconds == 2.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"Dear diary, today I trained a countermeasure.\n" * 30, "not readable as a recording"),
        (bytes(5_000), "not readable as a recording"),
    ],
)
def test_what_is_no_sound(tmp_path, content, message):
    (tmp_path / "a.mp3").write_bytes(content)
    with pytest.raises(AudioError, match=message) as caught:
        read_any(tmp_path / "a.mp3", sample_rate=RATE)
    assert str(tmp_path / "a.mp3") in str(caught.value)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(AudioError, match="no such file"):
        read_any(tmp_path / "none.wav", sample_rate=RATE)
    with pytest.raises(AudioError, match="a directory"):
        read_any(tmp_path, sample_rate=RATE)


def test_silence_nan_and_too_short(tmp_path):
    for name, samples, message in (
        ("silent", np.zeros(RATE), "digital silence"),
        ("nan", np.where(np.arange(RATE) == 7, np.nan, 0.1), "1 sample is NaN or infinite, the first at index 7"),
        ("blip", tone(seconds=0.05), "expected at least 0.1 s"),
    ):
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE, subtype="FLOAT")
        with pytest.raises(AudioError, match=message):
            read_any(tmp_path / f"{name}.wav", sample_rate=RATE)


def test_channels_that_cancel_are_named(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([tone(), -tone()], 1), RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="its channels may cancel: pick one"):
        read_any(tmp_path / "a.wav", sample_rate=RATE)
    assert read_any(tmp_path / "a.wav", sample_rate=RATE, excerpt=Excerpt(channel=0)).samples.any()


def test_a_truncated_file_is_read_as_far_as_it_goes(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), RATE, subtype="PCM_16")
    whole = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(whole[: 44 + RATE])  # half a second of 16 bit
    found = read_any(tmp_path / "a.wav", sample_rate=RATE)
    assert found.seconds == 0.5 and any("ends before its header says" in note for note in found.notes)


def test_what_may_matter_is_noted(tmp_path):
    soundfile.write(tmp_path / "loud.wav", 3.0 * tone(8_000), 8_000, subtype="FLOAT")
    soundfile.write(tmp_path / "quiet.wav", 1e-4 * tone(), RATE, subtype="FLOAT")
    loud, quiet = (read_any(tmp_path / f"{n}.wav", sample_rate=RATE) for n in ("loud", "quiet"))
    assert "above 4000 Hz the recording holds nothing" in loud.notes[0] and "beyond full scale" in loud.notes[1]
    assert any("Very quiet" in note for note in quiet.notes)


def test_an_offset_and_a_clipped_level_are_told(tmp_path):
    """A constant of 1 % of the level turns LCNN's -5 into 0, and clipping moves it as much."""
    speech = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    made = {"fine": speech, "offset": speech + 0.01, "cut": np.clip(3 * tone(), -0.9, 0.9)}
    for name, samples in made.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE, subtype="PCM_16")
    fine, offset, cut = (read_any(tmp_path / f"{n}.wav", sample_rate=RATE).notes for n in ("fine", "offset", "cut"))
    assert not any("offset" in note or "Clipped" in note for note in (*fine, *cut[1:]))
    assert any("A constant offset (DC) of +0.0" in note and "% of the level" in note for note in offset)
    assert any(note.startswith("Clipped: ") for note in cut)


def test_a_recording_knows_the_digest_of_its_file(tmp_path):
    from hashlib import sha256

    soundfile.write(tmp_path / "a.wav", tone(), RATE)
    found = read_any(tmp_path / "a.wav", sample_rate=RATE)
    assert found.facts()["sha256"] == sha256((tmp_path / "a.wav").read_bytes()).hexdigest()
