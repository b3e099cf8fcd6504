"""The commands `data ...`, `evaluate` and `rcq` as a user of data sets types them, on small trees of noise."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toybench

sys.path.insert(0, str(Path(__file__).parent / "datasets"))
import trees

from xaibench.datasets.catalog import LAYOUTS, source
from xaibench.manifest import read_manifest, stream


@pytest.fixture(autouse=True)
def manifests(monkeypatch, tmp_path):
    """Manifests are written to a folder of the test."""
    monkeypatch.setenv("XAIBENCH_MANIFESTS", str(tmp_path / "manifests"))


@pytest.fixture
def pairs(tmp_path):
    """Three utterances through two vocoders; those of `my_coder` are 12 samples late."""
    trees.folder(tmp_path / "pairs")
    return tmp_path / "pairs"


def first(folder: Path) -> Path:
    return folder / "griffin-lim" / "a-b_c.wav"


def broken(folder: Path, how: str) -> str:
    """Spoil one vocoded file; returns what the message must say."""
    path = first(folder)
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
        return "truncated"
    path.unlink()
    if how == "empty":
        path.write_bytes(b"")
        return "0 bytes"
    if how == "directory":
        path.mkdir()
        return "a directory, expected an audio file"
    if how == "page":
        path.write_text("<html>404</html>", encoding="utf-8")
        return "not readable as audio"
    channels, rate, message = {"stereo": (2, 16_000, "2 channels"), "rate": (1, 8_000, "sampled at 8000 Hz")}[how]
    soundfile.write(path, np.full((4_000, channels), 0.1), rate)
    return message


def test_index_info_and_verify_of_every_tree(command, tmp_path):
    for name, (plant, counts) in trees.TREES.items():
        roots = plant(tmp_path / name)
        words = [w for n, r in roots.items() for w in ("--root", r if n == "main" else f"{n}={r}")]
        code, out, err = command("data", "index", name, *words, "--on-error", "skip")
        assert code == 0, err
        assert ("never checked against the archive" in out) == (name != "folder")  # a layout of ours has no archive
        files = int(re.search(r": ([\d,]+) files", out)[1])
        assert counts is None or files == sum(counts.values())
        code, out, err = command("data", "index", name, *words, "--on-error", "skip")
        assert f"0 read now, {files} as they were" in out
        assert f"{name}: {files} files agree" in command("data", "verify", name)[1]
        code, out, err = command("data", "info", name)
        assert code == 0, err
        assert sum(map(int, re.findall(r"(\d+) (?:bona fide and|spoofed files)", out))) == files


def test_layouts_say_what_to_type(command):
    code, out, _ = command("data", "layouts")
    assert code == 0
    for name, layout in LAYOUTS.items():
        assert f"xaibench data index {name} --root DIR" in out
        assert layout.title in out and layout.source in out
    assert "vocv4 --root DIR --root bonafide=DIR" in out and "[--root bonafide=DIR]" in out
    assert "train 25,380, dev 24,844, eval 71,237" in out


def test_a_set_that_is_not_indexed_says_the_whole_command(command):
    code, _, err = command("data", "info", "vocv4")
    assert code == 2 and "xaibench data index vocv4 --root DIR --root bonafide=DIR" in err


@pytest.mark.parametrize("how", ["truncated", "empty", "directory", "page", "stereo", "rate"])
def test_a_broken_file_is_named_and_stops_or_is_counted(command, pairs, tmp_path, how):
    message = broken(pairs, how)
    code, _, err = command("data", "index", "folder", "--root", pairs)
    assert code == 2 and message in err and str(first(pairs)) in err and "--on-error skip" in err
    code, out, err = command("data", "index", "folder", "--root", pairs, "--on-error", "skip")
    assert code == 0, err
    assert "8 files" in out and re.search(r"left out .*: 1\n", out) and message in out
    assert "bonafide 3, griffin-lim 2, my_coder 3" in out
    problems = (tmp_path / "manifests" / "folder.problems.txt").read_text(encoding="utf-8").splitlines()
    assert len(problems) == 1 and message in problems[0]
    shutil.rmtree(pairs)
    trees.folder(pairs)
    code, out, _ = command("data", "index", "folder", "--root", pairs)
    assert code == 0 and "9 files" in out and not (tmp_path / "manifests" / "folder.problems.txt").exists()


def test_the_odd_first_file_is_named_where_its_rate_is_everyones(command, pairs):
    soundfile.write(pairs / "bonafide" / "a-b_c.wav", np.full(4_000, 0.1), 8_000)
    code, _, err = command("data", "index", "folder", "--root", pairs)
    assert code == 2 and "8000 Hz is the rate of the first file, bonafide/a-b_c.wav" in err


def test_nothing_but_broken_files_says_why(command, pairs):
    for path in pairs.rglob("*.wav"):
        path.write_bytes(b"")
    code, _, err = command("data", "index", "folder", "--root", pairs, "--on-error", "skip")
    assert code == 2 and "not one file" in err and "0 bytes" in err


def test_twins_that_cannot_be_compared_are_named_and_not_moved(command, pairs, tmp_path):
    trees.sound(first(pairs), np.zeros(trees.PAIRED))
    trees.sound(pairs / "griffin-lim" / "été.wav", trees.noise("another", trees.PAIRED))
    code, out, _ = command("data", "index", "folder", "--root", pairs)
    assert code == 0 and "griffin-lim/a-b_c.wav: silent" in out and "griffin-lim/été.wav: its log-mel" in out
    lags = {u.source: u.lag for u in stream(tmp_path / "manifests" / "folder.toml", pairs) if u.vocoder == "griffin-lim"}
    assert lags["a-b_c"] == lags["été"] == 0
    assert "the worst 12 samples late" in out


def test_a_trial_does_not_replace_the_whole(command, pairs, tmp_path):
    code, out, _ = command("data", "index", "folder", "--root", pairs, "--limit", 3)
    assert code == 0 and "3 files" in out and "a trial of the first 3" in out
    code, out, _ = command("data", "index", "folder", "--root", pairs)
    assert code == 0 and "6 read now, 3 as they were" in out
    whole = (tmp_path / "manifests" / "folder.csv").read_bytes()
    code, _, err = command("data", "index", "folder", "--root", pairs, "--limit", 3)
    assert code == 2 and "holds 9 files" in err and "--out" in err
    assert (tmp_path / "manifests" / "folder.csv").read_bytes() == whole
    assert command("data", "index", "folder", "--root", pairs, "--limit", 0)[0] == 2


def test_a_table_of_full_paths_is_written_relative_to_it(command, pairs, tmp_path):
    table = pairs / "list.csv"
    table.write_text(f"bonafide,spoof\n{pairs}/bonafide/été.wav,{pairs}/my_coder/été.flac\n", encoding="utf-8")
    code, _, err = command("data", "index", "folder", "--root", table)
    assert code == 0, err
    found = read_manifest(tmp_path / "manifests" / "folder.toml", pairs).utterances
    assert [u.source for u in found] == ["bonafide-été"] * 2
    assert str(pairs) not in (tmp_path / "manifests" / "folder.csv").read_text(encoding="utf-8")
    table.write_text("bonafide,spoof\n/elsewhere/a.wav,my_coder/été.flac\n", encoding="utf-8")
    code, _, err = command("data", "index", "folder", "--root", table)
    assert code == 2 and "list.csv:2" in err and "not below the root" in err


def test_a_manifest_elsewhere_finds_its_files(command, pairs, tmp_path):
    manifest = tmp_path / "own" / "folder.toml"
    assert command("data", "index", "folder", "--root", pairs, "--out", manifest.parent)[0] == 0
    code, out, err = command("data", "verify", manifest)
    assert code == 0 and "9 files agree" in out, err
    code, _, err = command("data", "verify", manifest, "--root", f"bonafid={pairs}")
    assert code == 2 and "no root 'bonafid'; its roots: 'main'" in err
    (tmp_path / "own" / "folder.roots.json").write_text("{", encoding="utf-8")
    code, _, err = command("data", "verify", manifest)
    assert code == 2 and "folder.roots.json" in err and "delete it and give --root" in err
    (tmp_path / "own" / "folder.roots.json").unlink()
    assert command("data", "verify", manifest, "--root", pairs)[0] == 0


def test_an_edited_table_is_refused(command, pairs, tmp_path):
    command("data", "index", "folder", "--root", pairs)
    table = tmp_path / "manifests" / "folder.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("unknown", "me", 1), encoding="utf-8")
    for words in (("info",), ("verify",)):
        code, _, err = command("data", *words, "folder")
        assert code == 2 and "folder.csv" in err and "edited" in err


# evaluate ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """The words that evaluate the toy countermeasure on a folder of pairs; data sets stay the real ones."""
    toybench.install(monkeypatch)
    weights = toybench.write_checkpoint(tmp_path / "weights")
    return ["evaluate", "--cm", "toy", "--checkpoint", weights, "--device", "cpu"]


def test_evaluate_streams_an_indexed_set_and_continues(command, toy, pairs, tmp_path, monkeypatch):
    from xaibench.datasets import catalog

    monkeypatch.setattr(catalog, "read_manifest", None)  # the whole corpus is never held
    command("data", "index", "folder", "--root", pairs)
    out_folder = tmp_path / "ev"
    code, out, err = command(*toy, "--data", "folder", "--limit", 4, "--out", out_folder)
    assert code == 0, err
    assert "only the first 4 files of eval" in err
    code, out, err = command(*toy, "--data", "folder", "--out", out_folder)
    assert code == 0, err
    assert "tdcf" not in out and "griffin-lim" in out  # no column without a value
    names = [line.split()[0] for line in (out_folder / "scores.txt").read_text(encoding="utf-8").splitlines()]
    assert len(names) == len(set(names)) == 9 and "two%20words/bonafide" in names


def test_a_split_that_is_not_there_names_those_that_are(command, toy, pairs):
    command("data", "index", "folder", "--root", pairs)
    code, _, err = command(*toy, "--data", "folder", "--split", "test")
    assert code == 2 and "'test'" in err and "has eval" in err


@pytest.fixture
def scores(tmp_path):
    """A score file and an ASV score file of the same attacks."""
    draw = np.random.RandomState(0)
    cm = [f"LA_E_{i} - bonafide {2 + x}" for i, x in enumerate(draw.randn(40))]
    cm += [f"LA_E_{100 + i} A0{7 + i % 2} spoof {x - 2}" for i, x in enumerate(draw.randn(40))]
    asv = [f"bonafide target {4 + x}" for x in draw.randn(50)] + [f"bonafide nontarget {x - 4}" for x in draw.randn(50)]
    asv += [f"A0{7 + i % 2} spoof {2 + x}" for i, x in enumerate(draw.randn(50))]
    return trees.text(tmp_path / "cm.txt", *cm), trees.text(tmp_path / "asv.txt", *asv)


def test_both_tdcfs_with_asv_scores_and_the_reason_where_there_is_none(command, scores, tmp_path):
    cm, asv = scores
    words = ["evaluate", "--scores", cm, "--out", tmp_path / "ev", "--asv-scores"]
    code, out, err = command(*words, asv)
    assert code == 0, err
    assert "tdcf_2019" in out and "tdcf_2021" in out
    facts = json.loads((tmp_path / "ev" / "evaluation.json").read_text(encoding="utf-8"))
    assert 0 <= facts["pooled"]["min_tdcf_2021"] <= 1
    asv.write_text("".join(x for x in asv.read_text().splitlines(True) if "A08" not in x), encoding="utf-8")
    code, out, err = command(*words, asv)
    assert code == 0 and "no pooled t-DCF: A08" in err


@pytest.mark.parametrize("key", ["target", "nontarget", "spoof"])
def test_a_missing_class_of_asv_scores_names_the_asv_file(command, scores, tmp_path, key):
    cm, asv = scores
    asv.write_text("".join(x for x in asv.read_text().splitlines(True) if x.split()[1] != key), encoding="utf-8")
    code, _, err = command("evaluate", "--scores", cm, "--asv-scores", asv, "--out", tmp_path / "ev")
    assert code == 2 and f"{asv}: no {key} scores" in err and str(cm) not in err


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.replace(" spoof ", " spoof nan ", 1).replace("nan -", "nan #-", 1), "5 columns"),
        (lambda t: re.sub(r"bonafide \S+", "bonafide nan", t, count=1), "score 'nan'"),
        (lambda t: t.replace(" ", ","), "not by commas"),
        (lambda t: re.sub(r" \S+ (bonafide|spoof)", "", t), "--keys"),
        (lambda t: t + t.splitlines()[0], "a second score"),
        (lambda t: "", "no scores"),
    ],
)
def test_a_wrong_score_file_is_named(command, scores, tmp_path, spoil, message):
    cm, _ = scores
    cm.write_text(spoil(cm.read_text(encoding="utf-8")), encoding="utf-8")
    code, _, err = command("evaluate", "--scores", cm, "--out", tmp_path / "ev")
    assert code == 2 and message in err and str(cm) in err


def test_rcq_says_what_kind_of_run_it_needs(command, tmp_path):
    code, _, err = command("rcq", tmp_path)
    assert code == 2 and "not a run folder" in err


def test_a_data_set_of_another_package_is_opened_whole():
    opened = source("minivoc")
    assert opened.facts.utterances == () and len(list(opened.utterances())) == 912
