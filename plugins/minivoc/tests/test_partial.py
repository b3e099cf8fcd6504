"""minivoc-partial: labels exact to the sample, files that are the same everywhere, made once and whole."""

import hashlib
import json
import os
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xaibench_minivoc import partial
from xaibench_minivoc.datasets import AUDIO, minivoc
from xaibench_minivoc.partial import FADE, build, draw_spans, minivoc_partial, splice, weight

from xaibench.audio import read, write
from xaibench.errors import ManifestError
from xaibench.manifest import pairs, verify
from xaibench.protocols import Dataset
from xaibench.segments import speech_frames, utterance_segments

RATE = 16_000

#: sha256 of the table of all 760 files. It changes only with `VERSION`, which then must change, too.
HASH = "18d04d577be3c7360c6820d837ba62d6e7610d6a35a62b12b2b37991d4050c53"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def corpus(cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        return minivoc_partial.open(None)


@pytest.fixture(scope="module")
def few():
    """minivoc, of two utterances only."""
    whole = minivoc.open(None)
    chosen = {"allison_en_010", "june_fr_003"} & {u.source for u in whole.utterances}
    assert len(chosen) == 2
    return replace(whole, utterances=tuple(u for u in whole.utterances if u.source in chosen))


def spans_of(utterance):
    return [(round(a * RATE), round(b * RATE)) for a, b, _ in utterance.segments]


def test_the_data_set_is_offered_as_a_plugin():
    assert isinstance(minivoc_partial, Dataset)
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    entries = project["project"]["entry-points"]["xaibench.datasets"]
    assert entries[minivoc_partial.name] == "xaibench_minivoc.partial:minivoc_partial"


def test_every_pair_of_minivoc_has_its_partial_one(corpus):
    source = minivoc.open(None)
    assert [p.id for p in pairs(corpus)] == [p.id for p in pairs(source)]
    assert corpus.name == "minivoc-partial" and corpus.held_out == source.held_out and corpus.licence == source.licence
    assert [u for u in corpus.utterances if u.bonafide] == [u for u in source.utterances if u.bonafide]
    assert Counter(len(u.segments) for u in corpus.utterances if not u.bonafide).keys() == {1, 2}


def test_the_files_are_those_of_the_recipe(corpus):
    assert corpus.hash == HASH
    assert verify(corpus.utterances) == 912


def test_bit_for_bit_vocoded_within_the_segments_and_bona_fide_outside(corpus):
    vocoded = {(u.source, u.vocoder): u for u in minivoc.open(None).utterances}
    for pair in pairs(corpus)[::19]:
        mixed, real = read(pair.spoof.path, sample_rate=RATE), read(pair.bonafide.path, sample_rate=RATE)
        fake = read(vocoded[pair.spoof.source, pair.spoof.vocoder].path, sample_rate=RATE)
        outside = np.ones(len(real), dtype=bool)
        for first, last in spans_of(pair.spoof):
            outside[first - FADE // 2 : last + FADE // 2] = False
            within = slice(first + FADE // 2, last - FADE // 2)
            assert np.array_equal(mixed[within], fake[within]) and not np.array_equal(mixed[within], real[within])
        assert np.array_equal(mixed[outside], real[outside]) and len(mixed) == len(real)


def test_segments_are_of_the_length_and_in_the_place_that_was_promised(corpus):
    for pair in pairs(corpus):
        spans = spans_of(pair.spoof)
        assert all(partial.SHORTEST * RATE <= b - a <= partial.LONGEST * RATE for a, b in spans)
        assert spans[0][0] >= partial.MARGIN and spans[-1][1] <= pair.spoof.n_samples - partial.MARGIN
        assert all(later[0] - earlier[1] >= partial.APART for earlier, later in pairwise(spans))
        assert {label for *_, label in pair.spoof.segments} == {"spoof"}


def test_segments_lie_in_speech(corpus):
    for pair in pairs(corpus)[::7]:
        real = read(pair.bonafide.path, sample_rate=RATE)
        speech = speech_frames(real, len(real) // partial.HOP + 1, hop=partial.HOP, sample_rate=RATE)
        for first, last in spans_of(pair.spoof):
            assert speech[first // partial.HOP : last // partial.HOP].mean() >= partial.SPEECH - 0.05


def test_the_vocoders_of_an_utterance_have_segments_of_their_own(corpus):
    places = {}
    for u in corpus.utterances:
        if not u.bonafide:
            places.setdefault(u.source, set()).add(u.segments)
    assert all(len(p) == 5 for p in places.values())


def test_the_harness_hears_the_segments(corpus):
    utterance = next(u for u in corpus.utterances if u.segments)
    fitted = utterance_segments(utterance, n_samples=2 * utterance.n_samples, sample_rate=RATE)
    assert len(fitted) == 2 * len(utterance.segments)


@given(
    start=st.integers(100, 2_000),
    length=st.integers(200, 3_000),
    gap=st.integers(200, 1_000),
    second=st.integers(200, 3_000),
)
@settings(max_examples=50)
def test_the_weight_is_above_a_half_exactly_within_the_segments(start, length, gap, second):
    spans = [(start, start + length), (start + length + gap, start + length + gap + second)]
    w = weight(12_000, spans)
    inside = np.zeros(12_000, dtype=bool)
    for first, last in spans:
        inside[first:last] = True
    assert np.array_equal(w > 0.5, inside) and w.min() == 0 and w.max() <= 1
    assert np.count_nonzero((w > 0) & (w < 1)) <= 4 * FADE
    assert np.abs(np.diff(w)).max() < np.pi / 2 / FADE * 1.01  # no step


def test_splicing_a_recording_into_itself_changes_nothing():
    x = np.random.default_rng(0).uniform(-0.9, 0.9, 20_000)
    np.testing.assert_allclose(splice(x, x, [(3_000, 8_000)]), x, atol=1e-15)


def test_the_draw_depends_on_the_name_alone():
    x = np.random.default_rng(0).uniform(-0.9, 0.9, 32_000)
    assert draw_spans("a/world", x) == draw_spans("a/world", x)
    assert len({tuple(draw_spans(f"{i}/world", x)) for i in range(50)}) == 50
    assert {len(draw_spans(f"{i}/world", x)) for i in range(50)} == {1, 2}


def test_a_segment_finds_what_speech_there_is():
    x = 1e-4 * np.random.default_rng(0).standard_normal(32_000)
    x[8_000:9_600] *= 1_000  # 0.1 s: no segment is 60 % speech
    for i in range(20):
        ((first, last),) = draw_spans(f"{i}/world", x)
        assert first < 8_000 + partial.HOP and last > 9_600 - 2 * partial.HOP


def test_a_recording_too_short_for_a_segment_is_named():
    with pytest.raises(ManifestError, match=r"a/world: 5000 samples, expected at least"):
        draw_spans("a/world", np.ones(5_000))


def test_twins_that_are_not_aligned_are_refused(few, tmp_path):
    late = replace(few, utterances=tuple(u if u.bonafide else replace(u, lag=3) for u in few.utterances))
    with pytest.raises(ManifestError, match="lag 3"):
        build(late, tmp_path)


def test_a_wav_file_has_the_bytes_that_soundfile_would_write(tmp_path):
    x = np.random.default_rng(0).uniform(-1, 1, 999)
    x[:3] = 1.0, -1.0, 0.5 / 32768
    write(tmp_path / "x.wav", x, sample_rate=RATE)
    assert partial.wav(x, sample_rate=RATE) == (tmp_path / "x.wav").read_bytes()


# The cache -----------------------------------------------------------------------------------------------------------


def test_the_files_lie_in_the_users_cache_or_in_the_root(corpus, cache, few, tmp_path):
    assert all(u.path.is_relative_to(cache / "xaibench" / "minivoc-partial") for u in corpus.utterances if not u.bonafide)
    assert all(u.path.is_relative_to(AUDIO.resolve()) for u in corpus.utterances if u.bonafide)
    assert all(u.path.is_relative_to(tmp_path) for u in build(few, tmp_path).utterances if not u.bonafide)


def made(folder):
    return {p.relative_to(folder): (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*") if p.is_file()}


def test_nothing_is_made_twice(few, tmp_path):
    first = build(few, tmp_path)
    before = made(tmp_path)
    assert build(few, tmp_path) == first and made(tmp_path) == before


@pytest.mark.parametrize("damage", ["missing", "short", "index", "no index"])
def test_what_is_missing_or_damaged_is_made_again(few, tmp_path, damage):
    first = build(few, tmp_path)
    (index,) = tmp_path.rglob("index.json")
    victim = next(u.path for u in first.utterances if not u.bonafide)
    if damage == "missing":
        victim.unlink()
    elif damage == "short":
        victim.write_bytes(victim.read_bytes()[:1_000])
    elif damage == "index":
        index.write_text(index.read_text()[:50])
    else:
        index.unlink()
    assert build(few, tmp_path) == first
    assert verify(first.utterances) == 12


def test_a_killed_process_leaves_nothing_that_is_taken_for_a_file(few, tmp_path, monkeypatch):
    real, count = os.replace, Counter()

    def fail(source, target):
        count["files"] += 1
        if count["files"] == 3:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        build(few, tmp_path)
    monkeypatch.undo()
    assert not list(tmp_path.rglob("index.json"))
    assert verify(build(few, tmp_path).utterances) == 12


_BUILD = """
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xaibench.manifest import verify
from xaibench_minivoc.datasets import minivoc
from xaibench_minivoc.partial import build
whole = minivoc.open(None)
some = sorted({u.source for u in whole.utterances})[:12]
few = replace(whole, utterances=tuple(u for u in whole.utterances if u.source in some))
sys.stdin.read(1)
corpus = build(few, Path(sys.argv[1]))
verify(corpus.utterances)
sys.stdout.write(corpus.hash)
"""


def test_two_processes_at_once_do_no_harm(tmp_path):
    command = [sys.executable, "-c", _BUILD, str(tmp_path)]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for worker in workers:
        worker.stdin.write("x")
        worker.stdin.flush()
    hashes = {worker.communicate()[0] for worker in workers}
    assert [w.returncode for w in workers] == [0, 0] and len(hashes) == 1 and hashes != {""}
    (index,) = tmp_path.rglob("index.json")
    facts = json.loads(index.read_text())
    assert len(facts) == 60
    for path in index.parent.rglob("*.wav"):
        name = f"{path.stem}/{path.parent.name}"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == facts[name]["sha256"]
    assert not [p for p in tmp_path.rglob(".*") if p.is_file()]


def test_a_folder_that_cannot_be_written_is_named(few, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ManifestError, match=r"cannot write minivoc-partial here.*XDG_CACHE_HOME"):
        build(few, tmp_path / "file")


def test_opening_needs_no_torch(cache, corpus):
    code = (
        "import sys; from xaibench_minivoc.partial import minivoc_partial; minivoc_partial.open(None); "
        "sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
