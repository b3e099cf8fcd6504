"""The rebuild scripts, without packages, weights or ffmpeg: chain, joins, choice, checks."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rebuild import assemble, build, chain, clips, fetch_sources, verify
from xaibench_minivoc.datasets import AUDIO, minivoc

from xaibench.manifest import bundled

TABLES = Path(fetch_sources.__file__).parent / "tables"
RATE = 16_000


def table(name):
    with (TABLES / f"select_{name}.csv").open(newline="", encoding="utf-8") as file:
        return {r["utt_id"]: r for r in csv.DictReader(file)}


def shipped(name):
    with bundled(name).with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        return {r["utt_id"]: r for r in csv.DictReader(file)}


def noise(n, seed=0, scale=0.1):
    return (np.random.RandomState(seed).randn(n) * scale).astype(np.float32)


# Chain ---------------------------------------------------------------------------------------------------------------


def test_versions_leave_the_chain_at_equal_level_and_in_the_band():
    done = chain.finish({"bonafide": noise(RATE), "other": 3 * noise(RATE, 1)}, "u")
    for y in done.values():
        assert y.dtype == np.int16
        x = y / 32767
        assert 20 * np.log10(x.std()) == pytest.approx(-30, abs=0.05)
        power = np.abs(np.fft.rfft(x * np.hanning(len(x)))) ** 2
        inside = power[200:6900].mean()
        assert power[7200:].mean() < 1e-3 * inside
        assert power[:40].mean() < 1e-2 * inside


def test_noise_and_polarity_are_the_utterances_own():
    x = noise(RATE)
    one, same, other = (chain.finish({"bonafide": x, "twin": x}, name) for name in ("u", "u", "v"))
    assert np.array_equal(one["bonafide"], one["twin"])  # the noise cancels between twins
    assert np.array_equal(one["bonafide"], same["bonafide"])
    assert not np.array_equal(one["bonafide"], other["bonafide"])
    signs = {np.sign((chain.finish({"bonafide": x}, f"u{i}")["bonafide"] * x).sum()) for i in range(12)}
    assert signs == {-1.0, 1.0}


def test_a_click_lowers_all_versions_alike():
    x = noise(RATE)
    click = x * 0.01
    click[8000] = 3.0
    alone = chain.finish({"bonafide": x}, "u")["bonafide"]
    both = chain.finish({"bonafide": x, "click": click}, "u")
    assert np.abs(both["click"]).max() == pytest.approx(chain.CEILING * 32767, abs=1)
    ratio = both["bonafide"].std() / alone.std()
    assert ratio < 0.99
    assert np.abs(both["bonafide"] - alone * ratio).max() < 2


@pytest.mark.parametrize("broken", [np.full(RATE, np.nan), np.zeros(RATE), noise(RATE, scale=100)])
def test_a_broken_version_is_refused_by_name(broken):
    with pytest.raises(ValueError, match="world of u7"):
        chain.finish({"bonafide": noise(RATE), "world": broken}, "u7")


@pytest.mark.parametrize("x", [noise(RATE - 1), noise(2 * RATE, scale=1e-6)])
def test_too_short_or_silent(x):
    with pytest.raises(ValueError, match="at least a second"):
        chain.prepare(x)


def test_prepare_sets_peak_and_mean():
    y = chain.prepare(noise(RATE) + 0.3)
    assert np.abs(y).max() == pytest.approx(0.7)
    assert abs(y.mean()) < 1e-6
    assert y.dtype == np.float32


# Clips ---------------------------------------------------------------------------------------------------------------


def test_join_keeps_lengths_equalises_levels_and_repeats_itself():
    parts = [noise(6000, 0, 0.1), noise(5000, 1, 0.05), noise(7000, 2, 0.1)]
    y = clips.join(parts, [50, 90], seed=3)
    assert len(y) == 18_000 + 800 + 1440
    assert np.array_equal(y, clips.join(parts, [50, 90], seed=3))
    assert not np.array_equal(y, clips.join(parts, [50, 90], seed=4))
    first, second = y[1000:5000].std(), y[6800 + 1000 : 6800 + 4000].std()
    assert second / first == pytest.approx(1, abs=0.1)  # 6 dB apart before
    assert y[6100:6700].std() > 0.02  # room tone, no digital silence, in the gap


def test_load_cuts_seconds(monkeypatch):
    monkeypatch.setattr(clips, "decode", lambda path: np.arange(4 * RATE, dtype=np.float32))
    y = clips.load({"utt_id": "u", "src": "a.ogg", "cut": "0.5-1.25", "gaps": ""}, Path())
    assert (y[0], len(y)) == (8000, 12_000)


def test_a_clip_that_cannot_be_decoded_is_named(monkeypatch):
    monkeypatch.setenv("FFMPEG", "false")
    with pytest.raises(ValueError, match=r"a\.g722: ffmpeg cannot decode"):
        clips.decode(Path("a.g722"))


def test_seed_does_not_depend_on_the_machine():
    assert clips.seed_of("") == 0xE3B0C442  # sha256 of nothing begins e3b0c442


# Tables and assembly -------------------------------------------------------------------------------------------------


def test_tables_and_choice_give_the_shipped_folders():
    """The three folders hold every utterance of the tables once, and the seeded draw picks the embedded ones."""
    main = table("main")
    pool = {}
    for name, row in main.items():
        start, end = (int(float(t) * RATE) for t in row["cut"].split("-"))
        pool[name] = {"bonafide": {**row, "n_samples": str(end - start)}}
    chosen = set(assemble.choose(pool, assemble.COUNTS, assemble.SECONDS))
    assert chosen == set(shipped("minivoc"))
    training = {name for name, row in main.items() if row["split"] == "train"}
    assert set(main) - chosen - training == set(shipped("minivoc-extra-eval"))
    assert (training - chosen) | set(table("words")) | set(table("more")) == set(shipped("minivoc-train"))


def test_tables_agree_with_the_manifests():
    rows = {**table("main"), **table("words"), **table("more")}
    for name in ("minivoc", "minivoc-train", "minivoc-extra-eval"):
        for utterance, row in shipped(name).items():
            for column in ("speaker", "split", "language", "licence", "package"):
                assert rows[utterance][column] == row[column]
    packages = fetch_sources.expected_packages()
    assert {p.split("/")[0] for r in rows.values() for p in r["src"].split(";")} == set(packages)


def test_no_source_clip_is_used_in_two_splits():
    splits = {}
    for name in ("main", "words", "more"):
        for row in table(name).values():
            for clip in row["src"].split(";"):
                splits.setdefault(clip, set()).add(row["split"])
    assert {len(found) for found in splits.values()} == {1}


def test_loudest_window():
    x = noise(3 * RATE, scale=0.01)
    x[RATE : 2 * RATE] *= 50
    assert assemble.loudest(x, RATE) == RATE
    assert assemble.loudest(x, 5 * RATE) == 0


def test_build_and_assemble_write_what_the_manifests_look_like(tmp_path, monkeypatch):
    name = next(n for n in shipped("minivoc") if n.startswith("june_fr"))
    row = table("main")[name]
    monkeypatch.setattr(clips, "load", lambda row, sources: noise(3 * RATE))
    monkeypatch.setitem(build.DSP, "world", lambda x, rate: x * 0.9)
    monkeypatch.setattr(build, "synthesis", lambda name, weights: build.DSP[name])
    rows = build.build(row, sources=tmp_path, pool=tmp_path / "pool", names=("world",), weights=None)
    with (tmp_path / "pool" / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([build.COLUMNS, *rows])
    assemble.write_folder(tmp_path / "minivoc", assemble.pool(tmp_path / "pool"), seconds=2.0)
    with (tmp_path / "minivoc" / "manifest.csv").open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    expected = shipped("minivoc")[name]
    assert [r["vocoder"] for r in written] == ["bonafide", "world"]
    assert list(written[0]) == list(expected)
    same = (
        "utt_id",
        "speaker",
        "gender",
        "gender_source",
        "language",
        "licence",
        "package",
        "split",
        "duration",
        "n_samples",
    )
    assert {c: written[0][c] for c in same} == {c: expected[c] for c in same}
    assert soundfile.info(tmp_path / "minivoc" / written[0]["path"]).frames == 32_000


def test_build_says_what_it_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "load", lambda row, sources: noise(100))
    answer = build.build(table("main")["june_fr_005"], sources=tmp_path, pool=tmp_path, names=(), weights=None)
    assert answer.startswith("june_fr_005 left out: 100 samples")


# Checks --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    """The first utterance of the corpus in a folder of its own."""
    corpus = minivoc.open(tmp_path)
    utterances = corpus.utterances[:6]
    for u in utterances:
        u.path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(AUDIO / u.path.relative_to(tmp_path.resolve()), u.path)
    return replace(corpus, utterances=utterances)


def test_a_good_folder_has_no_problems(small, tmp_path):
    assert verify.file_problems(small, tmp_path) == []
    assert set(verify.signal_differences(small, tmp_path).values()) == {(1, np.inf, 0)}


def test_verify_finds_changed_missing_and_unlisted_files(small, tmp_path):
    changed, missing = small.utterances[1].path, small.utterances[2].path
    x = soundfile.read(changed, dtype="int16")[0]
    x[100] += 5
    soundfile.write(changed, x[:-1], RATE, subtype="PCM_16")
    missing.unlink()
    (tmp_path / "extra.flac").write_bytes(b"")
    problems = "\n".join(verify.file_problems(small, tmp_path))
    for part in (
        f"{changed}: sha256",
        f"{changed}: 31999 samples",
        f"{missing}: missing",
        "extra.flac: not in",
        "different length",
    ):
        assert part in problems


def test_signal_differences_are_in_16_bit_steps(small, tmp_path):
    path = small.utterances[1].path
    x = soundfile.read(path, dtype="int16")[0]
    x[100] += 5
    soundfile.write(path, x, RATE, subtype="PCM_16")
    files, ratio, step = verify.signal_differences(small, tmp_path)[small.utterances[1].vocoder]
    assert (files, step) == (1, 5)
    assert 60 < ratio < 120


def test_split_problems(small):
    moved = replace(small, utterances=tuple(replace(u, split="dev") for u in small.utterances))
    problems = verify.split_problems([small, moved])
    assert len(problems) == 2
    assert "is in dev, train" in problems[0]
    assert "is in 2 folders" in problems[1]


def test_another_package_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_sources.subprocess, "run", lambda *a, **k: None)
    with pytest.raises(ValueError, match="another version of klettres-data"):
        fetch_sources.fetch("klettres-data", tmp_path, tmp_path)
    (tmp_path / fetch_sources.expected_packages()["klettres-data"][0]).write_bytes(b"other")
    with pytest.raises(ValueError, match=r"sha256 .*, expected 1186d257"):
        fetch_sources.fetch("klettres-data", tmp_path, tmp_path)
