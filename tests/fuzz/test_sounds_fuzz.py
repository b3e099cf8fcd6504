"""Files that may be sounds, or were: whatever they hold, a reader gives samples that are right, or a sentence that names it.

Each test works in a child of its own (`tests/apart.py`): libsndfile, libFLAC, mpg123 and FFmpeg are native code, and what
kills the child is a failure that names the file. What counts as one input: one file, different from all before it.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
import sounds
from apart import apart
from fuzzing import SEEDS, TIMES, fuzz, many
from garbling import EDGES, garbled
from hypothesis import given
from hypothesis import strategies as st
from sounds import RATE, Wav

from xaibench import audio
from xaibench.recordings import Excerpt, read_any

PARTS = (None, None, None, Excerpt(channel=0), Excerpt(start=0.05), Excerpt(start=0.01, end=0.12))


def fair(samples):
    """What every recording of a data set is."""
    assert samples.dtype == np.float32 and samples.ndim == 1 and len(samples)
    assert np.isfinite(samples).all() and np.abs(samples).max() <= audio.LOUDEST


def fair_recording(found):
    fair(found.samples)
    assert found.sample_rate == RATE and found.seconds > 0 and found.channels >= 1
    assert len(found.sha256) == 64 and found.heard and found.encoding
    assert all(isinstance(note, str) and note for note in found.notes)


# Garbled files of every format -----------------------------------------------------------------------------------------


def garble(read, check, files, examples):
    """Work for `apart`: every file garbled by many seeds, asked of a reader."""
    names, contents = list(files), list(files.values())

    def one(desk, draw):
        name = draw.choice(names)
        path = desk.put(name, garbled(draw, files[name], contents))
        with desk.gathering(path):
            found = desk.ask(path, lambda: read(path, draw))
            if not isinstance(found, str):
                check(found)

    return many(examples, one)


def test_garbled_recordings_of_a_data_set(tmp_path):
    files = sounds.all_formats(n=800)
    assert len(files) > 20, "libsndfile was built without most of its formats"
    work = garble(lambda path, draw: audio.read(path, sample_rate=RATE), fair, files, 140)
    inputs, read = apart(work, tmp_path)
    assert inputs >= 6_500 * TIMES and read > inputs // 20


def test_garbled_recordings_of_a_user(tmp_path):
    media = {f"{i}{name}": content for i in range(3) for name, content in sounds.media().items()}  # as often as a third
    files = {**sounds.all_formats(n=3_200, channels=2), **sounds.all_formats(n=3_200), **media}
    work = garble(lambda path, draw: read_any(path, sample_rate=RATE, excerpt=draw.choice(PARTS)), fair_recording, files, 40)
    inputs, read = apart(work, tmp_path)
    assert inputs >= 1_900 * TIMES and read > inputs // 10


# WAV files put together field by field ---------------------------------------------------------------------------------

KINDS = st.sampled_from([(1, 8), (1, 16), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64), (6, 8), (7, 8)])
HARMLESS = [b"junk", b"xxxx", b"ID3 "]  # chunks that say nothing of the sound


def chunks(names):
    return st.lists(st.tuples(st.sampled_from(names), st.binary(max_size=41)), max_size=3).map(tuple)


LIES = st.dictionaries(
    st.sampled_from(["data", "riff", "fmt", "align", "bytes", "bits", "channels", "rate"]),
    st.sampled_from(EDGES) | st.integers(0, 400) | st.sampled_from([8, 12, 20, 24, 44_100, 192_000]),
    min_size=1, max_size=3,
)  # fmt: skip


@st.composite
def wavs(draw, lies, names=HARMLESS):
    tag, bits = draw(KINDS)
    channels = draw(st.sampled_from([1, 1, 1, 1, 2, 6]))
    size = draw(st.integers(0, 90)) * channels * bits // 8
    sound = random.Random(draw(SEEDS)).randbytes(size)
    if tag == 3:
        values = np.random.RandomState(size).uniform(-1, 1, size // (bits // 8))
        sound = values.astype(f"<f{bits // 8}").tobytes()
    return Wav(
        tag=tag, bits=bits, channels=channels, sound=sound, extensible=draw(st.booleans()), before=draw(chunks(names)),
        after=draw(st.sampled_from([b"", b"\0", b"LIST\x04\0\0\0abcd", b"junk after the sound"])), lies=draw(lies),
    )  # fmt: skip


def test_honest_wav_files_are_read_right(tmp_path):
    """Against a decoder of ours: every depth, extensible or not, other chunks, odd sizes, bytes behind the sound."""

    def work(desk):
        @fuzz(1_500)
        @given(wavs(st.just({})))
        def one(wav):
            path = desk.put("honest.wav", wav.encoded())
            found = desk.ask(path, lambda: audio.read(path, sample_rate=RATE))
            if wav.channels != 1:
                assert f"{wav.channels} channels" in found
            elif not wav.sound:
                assert "empty" in found
            elif (wanted := wav.samples()) is not None:
                assert np.array_equal(found, wanted[:, 0].astype(np.float32)), found
            else:
                assert len(found) == len(wav.sound)

        one()

    inputs, read = apart(work, tmp_path)
    assert inputs >= 1_200 * TIMES and read > inputs // 3


def test_wav_headers_that_lie(tmp_path):
    def work(desk):
        @fuzz(2_000)
        @given(wavs(LIES, [*HARMLESS, b"LIST", b"fact", b"bext", b"cue ", b"smpl", b"PEAK", b"ds64", b"cart"]))
        def one(wav):
            path = desk.put("liar.wav", wav.encoded())
            found = desk.ask(path, lambda: audio.read(path, sample_rate=RATE))
            if not isinstance(found, str):
                fair(found)
                assert len(found) <= len(wav.sound) + len(wav.after) + 8, "more samples than there are bytes"

        one()

    inputs, _ = apart(work, tmp_path)
    assert inputs >= 1_700 * TIMES


# The child itself ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crime", "said"),
    [
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("import os; os.abort()", "SIGABRT"),
        ("raise ZeroDivisionError('by whom?')", "by whom"),
        ("bytearray(1 << 36)", "MemoryError"),
        ("import warnings; warnings.warn('overflow in a product', RuntimeWarning)", "overflow in a product"),
    ],
)
def test_what_kills_a_reader_is_a_failure_that_names_the_file(tmp_path, crime, said):
    def work(desk):
        path = desk.put("culprit.wav", b"RIFF")
        desk.ask(path, lambda: exec(crime))

    with pytest.raises(pytest.fail.Exception, match=rf"(?s){said}.*culprit\.wav"):
        apart(work, tmp_path)


def test_an_endless_reader_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr("apart.SECONDS", 0.05)

    def work(desk):
        desk.put("endless.wav", b"RIFF")
        while True:
            pass

    with pytest.raises(pytest.fail.Exception, match=r"(?s)SIGPROF.*endless\.wav"):
        apart(work, tmp_path)
