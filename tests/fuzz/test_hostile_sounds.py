"""Recordings that somebody will bring, one by one, each with what must come of it: the samples, or the sentence."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import sounds
from sounds import RATE, Wav, noise

from xaibench import audio, reading
from xaibench.errors import AudioError
from xaibench.recordings import Excerpt, read_any
from xaibench.types import Utterance

SECOND = noise(RATE, 1)
PCM = np.round(SECOND[:, 0] * 32767).astype("<i2").tobytes()


def written(path, x, rate=RATE, **how):
    soundfile.write(path, x, rate, **how)
    return path


def sentence(read, path):
    with pytest.raises(AudioError) as caught:
        read(path, sample_rate=RATE)
    assert str(path) in str(caught.value)
    return str(caught.value)


def refused(path, wanted):
    """Both readers say so, with the file's name."""
    for read in (audio.read, read_any):
        assert wanted in sentence(read, path)


# What the samples are ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 320, 30 * 60 * RATE])
def test_from_one_sample_to_half_an_hour(tmp_path, n):
    x = np.resize(np.frombuffer(PCM, "<i2"), n)
    path = written(tmp_path / "a.wav", x)
    assert np.array_equal(audio.read(path, sample_rate=RATE) * np.float32(32768), x)
    if n < RATE:
        assert "s of sound from 0 s on, expected at least 0.1 s" in sentence(read_any, path)
    else:
        assert "1,800 s to explain, at most 600 s at a time" in sentence(read_any, path)
        assert read_any(path, sample_rate=RATE, excerpt=Excerpt(start=1799)).seconds == 1.0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the system for the peak of memory")
def test_memory_stays_bounded(tmp_path):
    """Half an hour takes its samples, 110 MB, and little more."""
    written(tmp_path / "long.wav", np.resize(SECOND[:, 0], 30 * 60 * RATE))
    code = (
        "import re, sys\nfrom xaibench import audio\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1]) / 1024\n"
        "before = peak()\nx = audio.read(sys.argv[1], sample_rate=16000)\nprint(peak() - before, x.nbytes / 2**20)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "long.wav"], capture_output=True, text=True, check=True)
    used, kept = map(float, done.stdout.split())
    assert 109 < kept < 111 and used < 2.5 * kept


def test_no_samples(tmp_path):
    path = written(tmp_path / "a.wav", np.zeros(0))
    assert "empty, expected at least one sample" in sentence(audio.read, path)
    assert "empty, it holds not one sample" in sentence(read_any, path)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 96_000, 192_000])
def test_other_rates_are_converted_and_told_or_refused(tmp_path, rate):
    path = written(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate), rate)
    assert f"sampled at {rate} Hz, expected 16000 Hz" in sentence(audio.read, path)
    found = read_any(path, sample_rate=RATE)
    assert (found.original_rate, found.facts()["original_rate"], len(found.samples)) == (rate, rate, RATE)
    assert np.abs(np.fft.rfft(found.samples)).argmax() == 440
    assert any(f"above {rate / 2:g} Hz the recording holds nothing" in note for note in found.notes) == (rate < RATE)


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_are_mixed_and_told_or_refused(tmp_path, channels):
    x = noise(RATE, 3, channels)
    path = written(tmp_path / "a.wav", x)
    assert f"{channels} channels, expected 1" in sentence(audio.read, path)
    found = read_any(path, sample_rate=RATE)
    assert found.heard == f"the mean of {channels} channels" and np.abs(found.samples - x.mean(axis=1)).max() < 1e-4


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "W64"])
def test_every_depth_is_read_exactly(tmp_path, kind, subtype):
    path = written(tmp_path / "a.wav", SECOND[:, 0], format=kind, subtype=subtype)
    assert np.array_equal(audio.read(path, sample_rate=RATE), SECOND[:, 0].astype(np.float32))


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610"])
def test_lossy_wav_says_that_it_is(tmp_path, subtype):
    path = written(tmp_path / "a.wav", SECOND, subtype=subtype)
    assert any("lossy" in note for note in read_any(path, sample_rate=RATE).notes)


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_silence_is_a_recording_of_a_data_set_and_nothing_to_explain(tmp_path, ending):
    path = written(tmp_path / f"a.{ending}", np.zeros(RATE))
    assert not audio.read(path, sample_rate=RATE).any()
    assert "digital silence, every sample is 0" in sentence(read_any, path)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.clip(3 * np.sin(np.arange(RATE) / 20), -1, 1), "Clipped: 78 % of the samples"),
        (0.3 * SECOND[:, 0] + 0.4, "A constant offset (DC) of +0.4"),
        (np.full(RATE, 0.5), "Every sample is 0.5: a constant (DC) and no sound"),
        (1e-4 * np.sin(np.arange(RATE)), "Very quiet: the loudest sample is at -80 dB of full scale"),
        (1e-40 * np.sin(np.arange(RATE)), "Very quiet: the loudest sample is at -800 dB of full scale"),
        (2.5 * np.sin(np.arange(RATE) * 0.1), "The loudest sample is 2.50, beyond full scale (1.0)"),
    ],
)
def test_what_is_wrong_with_a_sound_is_told(tmp_path, x, said):
    path = written(tmp_path / "a.wav", x, subtype="FLOAT")
    notes = read_any(path, sample_rate=RATE).notes
    assert sum(said in note for note in notes) == 1, notes
    assert np.array_equal(audio.read(path, sample_rate=RATE), x.astype(np.float32))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.nan, "NaN or infinite, the first at index 5"), (-np.inf, "NaN or infinite, the first at index 5"),
        (1e300, "NaN or infinite"), (1e30, "are these integers in a file of floats?"),
        (-32768, "Divide them by their full scale"),
    ],
)  # fmt: skip
def test_floats_that_are_no_sound(tmp_path, value, said):
    x = SECOND[:, 0].copy()
    x[5] = value
    refused(written(tmp_path / "a.wav", x, subtype="DOUBLE"), said)


# Headers that lie --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lies", "strict", "lenient"),
    [
        ({"data": 0xFFFFFFFF}, "truncated, its header promises 4,294,935,295 bytes more", "The file ends before its header"),
        ({"data": 0x7FFFFFFF}, "truncated, its header promises 2,147,451,647 bytes more", "The file ends before its header"),
        ({"data": 0}, "empty, expected at least one sample", None),
        ({"rate": 0}, "not readable as audio", None),
        ({"rate": 1}, "1 samples a second, expected 100 to 1,000,000", None),
        ({"rate": 1 << 31}, "not readable as audio", None),
        ({"channels": 0}, "Channel count is zero", None),
        ({"channels": 65535}, "Too many channels", None),
        ({"bits": 0}, "not readable as audio", None),
    ],
)  # fmt: skip
def test_a_wav_header_that_lies(tmp_path, lies, strict, lenient):
    path = tmp_path / "a.wav"
    path.write_bytes(Wav(sound=PCM, lies=lies).encoded())
    assert strict in sentence(audio.read, path)
    if lenient is None:
        sentence(read_any, path)
    else:
        found = read_any(path, sample_rate=RATE)
        assert any(lenient in note for note in found.notes) and found.seconds == 1.0


def flac(change=lambda content: None, **fields):
    """A FLAC file of a second with other numbers in its header: `rate` (20 bit), `total` (36 bit), `md5`."""
    content = bytearray(sounds.whole("FLAC", "PCM_16", n=RATE))
    bits = int.from_bytes(content[18:26], "big")
    for name, width, at in (("rate", 20, 44), ("total", 36, 0)):
        if name in fields:
            bits = bits & ~(((1 << width) - 1) << at) | fields[name] << at
    content[18:26] = bits.to_bytes(8, "big")
    content[26:42] = fields.get("md5", content[26:42])
    change(content)
    return bytes(content)


def turned(content):
    content[len(content) // 2] ^= 0xFF


@pytest.mark.parametrize(
    ("content", "strict", "lenient"),
    [
        (flac(total=(1 << 36) - 1), "68,719,476,735 samples, expected at most 268,435,456", "is its header damaged"),
        (flac(total=0), "does not say how many samples", "libsndfile could not read the file (it does not say how many"),
        (flac(rate=0), "not readable as audio", "libsndfile could not read the file"),
        (flac(rate=1), "1 samples a second", "16,000 s to explain"),
        (flac(md5=b"another recordin"), "damaged, its samples do not have the checksum", "do not have the checksum (MD5)"),
        (flac(turned), "lost sync", "libsndfile could not read the file (flac decoder lost sync)"),
        (flac()[:-1], "lost sync", "libsndfile could not read the file"),
        (flac()[: RATE // 2], "lost sync", "libsndfile could not read the file"),
    ],
)  # fmt: skip
def test_a_flac_file_that_is_damaged(tmp_path, content, strict, lenient):
    path = tmp_path / "a.flac"
    path.write_bytes(content)
    assert strict in sentence(audio.read, path)
    try:
        said = " ".join(read_any(path, sample_rate=RATE).notes)  # FFmpeg reads on, and the record says so
    except AudioError as error:
        said = str(error)
        assert str(path) in said
    assert lenient in said or "not readable as a recording" in said  # without FFmpeg


def test_a_flac_file_without_a_checksum_is_read(tmp_path):
    (tmp_path / "a.flac").write_bytes(flac(md5=bytes(16)))
    assert np.array_equal(audio.read(tmp_path / "a.flac", sample_rate=RATE), noise(RATE)[:, 0].astype(np.float32))


def test_no_byte_of_a_flac_file_can_turn_without_a_word(tmp_path):
    """Each frame has its own checksum, the whole the MD5: what is read is right or refused."""
    content = sounds.whole("FLAC", "PCM_16", n=3_000)
    (tmp_path / "good.flac").write_bytes(content)
    good = audio.read(tmp_path / "good.flac", sample_rate=RATE)
    draw, path = random.Random(5), tmp_path / "a.flac"
    read = 0
    for _ in range(300):
        changed = bytearray(content)
        changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            assert np.array_equal(audio.read(path, sample_rate=RATE), good)
            read += 1
        except AudioError as error:
            assert "a.flac" in str(error)
    assert read < 30


@pytest.mark.parametrize("name", sorted(sounds.all_formats(n=3_200)))
def test_a_cut_file_of_any_format_is_refused_for_a_data_set(tmp_path, name):
    content = sounds.all_formats(n=3_200)[name]
    path = tmp_path / name
    rate = 48_000 if "opus" in name else RATE
    path.write_bytes(content)
    whole = audio.read(path, sample_rate=rate)
    path.write_bytes(content[: len(content) * 2 // 3])
    try:
        cut = audio.read(path, sample_rate=rate)
    except AudioError as error:
        assert name in str(error)
    else:  # SPHERE and ALAC say nowhere where they end
        assert name.endswith((".nist", "alac_16.caf")) and len(cut) < len(whole)


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2), ("5.1", 6), ("7.1", 8)])
def test_what_pyav_reads_of_many_channels(tmp_path, layout, channels):
    """From eight channels on, PyAV 18 takes more planes than there are for samples, and ends the process."""
    pytest.importorskip("av")
    files = sounds.media(layout, channels)
    assert "a.m4a" in files
    for name, content in files.items():
        if name == "a.flv" and channels > 2:
            continue  # its header knows mono and stereo
        (tmp_path / name).write_bytes(content)
        found = read_any(tmp_path / name, sample_rate=RATE)
        assert found.channels == channels and 0.3 < found.seconds < 0.6 and 0.05 < np.abs(found.samples).max() < 1
        assert not any("could not read" in note for note in found.notes)


# What is no file, or has a strange name ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "strict"),
    [
        (b"", "an empty file (0 bytes)"),
        (b"hello " * 500, "its first bytes are those of no format that is read here"),
        ("<html>".encode("utf-16") * 99, "not readable as"),
        (bytes(5000), "its first bytes are those of no format"),
        (random.Random(0).randbytes(20_000), "its first bytes are those of no format"),
        (b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(3000), "not readable as"),
    ],
    ids=["0 bytes", "text", "UTF-16", "zeros", "random", "ID3 alone"],
)  # fmt: skip
def test_what_is_no_sound(tmp_path, content, strict):
    (tmp_path / "a.wav").write_bytes(content)
    refused(tmp_path / "a.wav", strict)


def test_a_directory_a_pipe_a_socket_and_links(tmp_path):
    (tmp_path / "folder.wav").mkdir()
    refused(tmp_path / "folder.wav", "a directory, expected a")
    os.mkfifo(tmp_path / "pipe.wav")  # nobody writes to it: who opens it as a file waits for ever
    refused(tmp_path / "pipe.wav", "a pipe or a device, whose end nobody knows")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)  # the name of a socket has 108 bytes at most
        try:
            server.bind("socket.wav")
        finally:
            os.chdir(here)
        refused(tmp_path / "socket.wav", "cannot be opened")
    (tmp_path / "nowhere.wav").symlink_to(tmp_path / "gone")
    refused(tmp_path / "nowhere.wav", "no such file")
    (tmp_path / "round.wav").symlink_to(tmp_path / "round.wav")
    refused(tmp_path / "round.wav", "cannot be opened (Too many levels of symbolic links)")
    (tmp_path / "a.wav").write_bytes(Wav(sound=PCM).encoded())
    (tmp_path / "link.wav").symlink_to(tmp_path / "a.wav")
    assert read_any(tmp_path / "link.wav", sample_rate=RATE).seconds == 1.0


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no such device")
def test_a_device_is_not_read(tmp_path):
    (tmp_path / "zeros.wav").symlink_to("/dev/zero")
    refused(tmp_path / "zeros.wav", "a pipe or a device")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(tmp_path):
    path = written(tmp_path / "a.wav", SECOND)
    path.chmod(0)
    refused(path, "cannot be opened (Permission denied)")


NAMES = [
    "-", "-rf.wav", "--help", "a b.wav", "q'\"`$(x).wav", "é.wav", "e\u0301.wav", "👨‍👩‍👧.wav", "line\nbreak.wav",
    "esc\x1b[31m.wav",
    os.fsdecode(b"\xff\xfe.wav"), "x" * 251 + ".wav", "a.raw", "a.vox", "a.mp3", "none", "%s%n.wav", "..wav", "~",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_that_a_file_can_have(tmp_path, monkeypatch, name):
    """Also "-", which libsndfile takes for the standard input, and `.raw`, which it takes for samples whatever they are."""
    monkeypatch.chdir(tmp_path)
    try:
        (tmp_path / name).write_bytes(Wav(sound=PCM).encoded())
    except OSError:
        pytest.skip("this file system has no such name")
    for path in (tmp_path / name, name):
        assert len(audio.read(path, sample_rate=RATE)) == RATE
        assert read_any(path, sample_rate=RATE).name == reading.printable(name)
    (tmp_path / name).write_bytes(b"no sound")
    refused(tmp_path / name, "not readable as")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * 300, "cannot be opened (File name too long)"), ("/".join(["d" * 200] * 30), "(File name too long)"),
        ("a\0b", "no file can have this name"), ("\ud800", "no file can have this name"), ("gone", "no such file"),
        ("a.wav/b.wav", "no such file"),
    ],
    ids=["300", "6000", "zero byte", "half a pair", "gone", "in a file"],
)  # fmt: skip
def test_names_that_no_file_can_have(tmp_path, name, said):
    (tmp_path / "a.wav").write_bytes(b"")
    for read in (audio.read, read_any):
        with pytest.raises(AudioError, match=r".") as caught:
            read(tmp_path / name, sample_rate=RATE)
        assert said in str(caught.value)


# A file that is not what the manifest says -------------------------------------------------------------------------------


def test_a_file_shorter_than_its_manifest_says(tmp_path):
    path = written(tmp_path / "a.wav", SECOND)
    utterance = Utterance(source="a", speaker="s", split="eval", vocoder="v", path=path, sha256="", n_samples=RATE, lag=3)
    with pytest.raises(
        AudioError, match=rf"a\.wav: {RATE - 3} samples after its lag, the manifest says {RATE}; was the file"
    ):
        audio.read_aligned(utterance, sample_rate=RATE)


@pytest.mark.parametrize("part", [{"end": np.inf}, {"start": np.nan}, {"end": np.nan}, {"longest": np.inf}, {"longest": 0}])
def test_excerpts_that_are_none(part):
    with pytest.raises(AudioError, match="expected"):
        Excerpt(**part)


def test_the_command_line_names_a_file_whose_name_would_colour_the_terminal(tmp_path, command):
    path = tmp_path / "esc\x1b[31m.txt"
    path.write_bytes(b"LA_E_1 A07 spoof many\n")
    code, _, said = command("evaluate", "--scores", path, "--out", tmp_path / "out")
    assert code == 2 and "esc\\x1b[31m.txt:1: score 'many', expected a number" in said and "\x1b" not in said
