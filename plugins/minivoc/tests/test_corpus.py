"""The embedded corpus is what its manifest, its licences and the leak rules say."""

import csv
import os
import subprocess
import sys
from collections import Counter
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import soundfile
import xaibench_minivoc
from xaibench_minivoc.datasets import AUDIO, minivoc, minivoc_extra_eval, minivoc_train
from xaibench_minivoc.leaks import best_sign_error_rate, cues, leak_table

from xaibench.audio import read
from xaibench.errors import ManifestError, XaibenchError
from xaibench.manifest import bundled, pairs, verify
from xaibench.protocols import Dataset, Vocoder

HERE = Path(xaibench_minivoc.__file__).parent
NAMES = ("minivoc", "minivoc-train", "minivoc-extra-eval")
VOCODERS = {"griffinlim", "hifigan", "lyra", "mlsa", "world"}

#: Licence in the manifests -> its text in LICENSES/ and words that only that text has.
TEXTS = {
    "CC-BY-SA-3.0": ("CC-BY-SA-3.0.txt", "Attribution-ShareAlike 3.0"),
    "CC-BY-3.0": ("CC-BY-3.0.txt", "\n Attribution 3.0 Unported\n"),
    "GPL-2": ("GPL-2.txt", "GNU GENERAL PUBLIC LICENSE\n                       Version 2, June 1991"),
    "GPL-2+": ("GPL-2.txt", "GNU GENERAL PUBLIC LICENSE\n                       Version 2, June 1991"),
    "BSD-2/public-domain": ("BSD-2-Clause-pocketsphinx.txt", "Redistributions in binary form"),
}


@pytest.fixture(scope="module")
def corpus():
    return minivoc.open(None)


@pytest.fixture(scope="module")
def corpora(corpus, tmp_path_factory):
    """All three manifests; the two that are not embedded with an empty root, as only their tables are looked at."""
    empty = tmp_path_factory.mktemp("empty")
    return {
        "minivoc": corpus,
        "minivoc-train": minivoc_train.open(empty),
        "minivoc-extra-eval": minivoc_extra_eval.open(empty),
    }


def rows(name):
    with bundled(name).with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# What is there -------------------------------------------------------------------------------------------------------


def test_every_file_has_the_hash_of_the_manifest(corpus):
    assert verify(corpus.utterances) == 912


def test_no_file_is_unlisted(corpus):
    assert {p.resolve() for p in AUDIO.rglob("*") if p.is_file()} == {u.path for u in corpus.utterances}


def test_152_utterances_in_six_versions(corpus):
    versions = {}
    for u in corpus.utterances:
        versions.setdefault((u.split, u.source), set()).add(u.vocoder)
    assert Counter(split for split, _ in versions) == {"train": 80, "dev": 24, "eval": 48}
    assert all(found == {"bonafide", *VOCODERS} for found in versions.values())
    assert len(pairs(corpus)) == 152 * 5


def test_the_path_says_split_and_vocoder(corpus):
    for u in corpus.utterances:
        assert u.path.relative_to(AUDIO.resolve()).as_posix() == f"{u.split}/{u.vocoder}/{u.source}.flac"


def test_every_file_is_two_seconds_of_16_bit_mono_flac(corpus):
    for u in corpus.utterances:
        info = soundfile.info(u.path)
        found = (info.samplerate, info.channels, info.subtype, info.format, info.frames)
        assert found == (16_000, 1, "PCM_16", "FLAC", 32_000), u.path
        assert u.n_samples == 32_000


def test_counts_of_the_other_folders(corpora):
    for name, files, utterances, splits in (
        ("minivoc-train", 2610, 522, {"train": 522}),
        ("minivoc-extra-eval", 414, 69, {"dev": 27, "eval": 42}),
    ):
        corpus = corpora[name]
        assert len(corpus.utterances) == files
        assert Counter(u.split for u in corpus.utterances if u.bonafide) == splits
        assert len({u.source for u in corpus.utterances}) == utterances


# Separation ----------------------------------------------------------------------------------------------------------


def test_speakers_keep_to_one_split_over_all_folders(corpora):
    splits = {}
    for corpus in corpora.values():
        for u in corpus.utterances:
            splits.setdefault(u.speaker, set()).add(u.split)
    assert len(splits) == 47
    assert [s for s, found in splits.items() if len(found) > 1] == []


def test_no_utterance_is_in_two_folders(corpora):
    sources = [source for corpus in corpora.values() for source in {u.source for u in corpus.utterances}]
    assert [s for s, n in Counter(sources).items() if n > 1] == []
    hashes = [u.sha256 for corpus in corpora.values() for u in corpus.utterances]
    assert len(set(hashes)) == len(hashes)


def test_lyra_is_held_out(corpora):
    assert all(corpus.held_out == ("lyra",) for corpus in corpora.values())
    assert {u.vocoder for u in corpora["minivoc-train"].utterances} == {"bonafide", *VOCODERS} - {"lyra"}


def test_eval_languages_are_unseen_in_training():
    languages = {
        split: {r["language"] for n in NAMES for r in rows(n) if r["split"] == split} for split in ("train", "eval")
    }
    assert languages["eval"] == {"cs", "fr"}
    assert not languages["eval"] & languages["train"]


# Signals -------------------------------------------------------------------------------------------------------------


def envelopes(x):
    """Log envelopes of eleven bands up to 6.9 kHz, every 8 samples: `(T, 11)`, each with zero mean."""
    frames = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), 256)[::8] * np.hanning(256)
    magnitude = np.abs(np.fft.rfft(frames, axis=1))
    bands = np.log(np.add.reduceat(magnitude[:, 2:112], np.arange(0, 110, 10), axis=1) + 1e-3)
    return bands - bands.mean(0)


def lag(bonafide, spoof, reach=25):
    """Samples by which `spoof` is late, from the peak of the correlation of the envelopes; at most +-200."""
    a, b = envelopes(bonafide), envelopes(spoof)
    inner = slice(reach, len(a) - reach)
    scores = [(a[inner] * b[reach + k : len(b) - reach + k]).sum() for k in range(-reach, reach + 1)]
    return 8 * (int(np.argmax(scores)) - reach)


def test_the_lag_measure_finds_a_known_lag(corpus):
    x = read(corpus.utterances[0].path, sample_rate=16_000)
    assert lag(x, x) == 0
    assert lag(x, np.roll(x, 48)) == 48
    assert lag(x, np.roll(x, -72)) == -72


@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
def test_twins_are_aligned(corpus, vocoder):
    """Within 0.75 ms in the mean of eight utterances, 2.5 ms each: far below the 20 ms window of the truth."""
    chosen = pairs(corpus, split="eval", vocoders=[vocoder])[::6]
    lags = [lag(*(read(u.path, sample_rate=16_000) for u in (p.bonafide, p.spoof))) for p in chosen]
    assert len(lags) == 8
    assert abs(np.mean(lags)) <= 12
    assert np.abs(lags).max() <= 40


def test_twins_have_equal_level(corpus):
    """All were set to -30 dBFS before the excerpt was cut, so that only the window's position moves them."""
    level = {(u.source, u.vocoder): read(u.path, sample_rate=16_000).std() for u in corpus.utterances if u.split == "eval"}
    gaps = [20 * np.log10(v / level[source, "bonafide"]) for (source, _), v in level.items()]
    assert abs(np.mean(gaps)) < 0.1
    assert np.abs(gaps).max() < 1.5


def test_no_single_cue_gives_the_class_away(corpus):
    table = leak_table([u for u in corpus.utterances if u.split == "eval"], sample_rate=corpus.sample_rate)
    assert len(table) == 13
    assert all(set(rates) == VOCODERS for rates in table.values())
    leaks = {(cue, v): rate for cue, rates in table.items() for v, rate in rates.items() if rate <= 0.25}
    assert leaks == {}


def test_the_leak_check_finds_leaks(corpus):
    """The same files, the vocoded ones a little louder, shifted or cut: the cue that was changed must show it."""
    files = [(u.bonafide, read(u.path, sample_rate=16_000)) for u in corpus.utterances if u.split == "dev"]
    changes = {"dc": lambda x: x + 0.01, "length": lambda x: x[:-160], "floor_p2": lambda x: np.round(x * 64) / 64}
    for cue, change in changes.items():
        bonafide = np.array([cues(x)[cue] for real, x in files if real])
        spoof = np.array([cues(change(x))[cue] for real, x in files if not real])
        assert best_sign_error_rate(bonafide, spoof) < 0.25, cue


def test_the_leak_check_needs_bonafide(corpus):
    with pytest.raises(XaibenchError, match="no bona fide file"):
        leak_table([u for u in corpus.utterances[:6] if not u.bonafide], sample_rate=16_000)


# Licences ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_licence_is_known_and_its_text_is_here(name):
    for licence in {r["licence"] for r in rows(name)}:
        file, words = TEXTS[licence]
        assert words in (HERE / "LICENSES" / file).read_text(encoding="utf-8"), licence


def test_twins_have_the_licence_of_their_source():
    found = {}
    for r in rows("minivoc"):
        found.setdefault(r["utt_id"], set()).add((r["licence"], r["package"]))
    assert {len(v) for v in found.values()} == {1}


def test_every_source_package_has_its_copyright_file():
    files = {p.stem for p in (HERE / "LICENSES" / "debian-copyright").iterdir()}
    packages = {r["package"] for n in NAMES for r in rows(n)}
    assert [p for p in packages if not p.startswith(tuple(files))] == []


def test_sources_names_every_speaker_with_licence_package_and_author():
    text = (HERE / "SOURCES.md").read_text(encoding="utf-8")
    table = {}
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        if len(cells) in (8, 10) and cells[1] in ("train", "dev", "eval"):
            table[cells[0]] = cells
    facts = {}
    for name in NAMES:
        for r in rows(name):
            facts.setdefault((r["speaker"], r["split"], r["licence"]), set()).add(r["package"])
    assert {(c[0], c[1], c[-3]) for c in table.values()} == set(facts)
    for (speaker, _, _), packages in facts.items():
        assert all(p in table[speaker][-2] for p in packages)
        assert len(table[speaker][-1]) > 15


# The door ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", [minivoc_train, minivoc_extra_eval], ids=lambda d: d.name)
def test_what_is_not_embedded_says_so(dataset):
    with pytest.raises(ManifestError, match=rf"'{dataset.name}' is not embedded .* --root {dataset.name}=DIR"):
        dataset.open(None)


def test_minivoc_takes_another_root(tmp_path):
    assert minivoc.open(tmp_path).utterances[0].path.is_relative_to(tmp_path.resolve())


def test_entry_points():
    for group, kind, names in (
        ("xaibench.datasets", Dataset, {*NAMES, "minivoc-partial"}),
        ("xaibench.vocoders", Vocoder, {"world", "mlsa", "griffin-lim"}),
    ):
        ours = [e for e in entry_points(group=group) if e.value.startswith("xaibench_minivoc.")]
        assert {e.name for e in ours} == names
        assert all(isinstance(e.load(), kind) and e.load().name == e.name for e in ours)


def test_listing_imports_neither_torch_nor_the_vocoder_libraries():
    code = (
        "import sys, xaibench_minivoc.datasets as d, xaibench_minivoc.vocoders, xaibench_minivoc.leaks\n"
        "d.minivoc.open(None)\n"
        "sys.exit(', '.join(m for m in ('torch', 'librosa', 'pyworld', 'pysptk') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), check=False)
    assert (done.returncode, done.stderr) == (0, "")
