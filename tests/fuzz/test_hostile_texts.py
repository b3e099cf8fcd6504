"""Manifests, tables, score files, protocols and labels that somebody will bring, each with its sentence."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from xaibench import reading
from xaibench.datasets import partialspoof
from xaibench.datasets.catalog import LAYOUTS
from xaibench.datasets.index import index
from xaibench.datasets.layout import Problem, cells, lines
from xaibench.datasets.seglab import label_cells, read_label_file
from xaibench.errors import ManifestError, XaibenchError
from xaibench.manifest import read_manifest, remembered_roots, stream, verify
from xaibench.metrics.rcq import read_vad
from xaibench.scorefile import read_asv, read_keys, read_trials
from xaibench.segments import fit_segments

HEADER = "utt_id,speaker,split,vocoder,path,n_samples,sha256,lag,segments"
REAL = "a,s,eval,bonafide,real/a.wav,400,,,"
FAKE = "a,s,eval,hifigan,fake/a.wav,400,,,"
TOML = 'name = "demo"\ntable = "demo.csv"\nsample_rate = 16000\nvalid_band = [0.0, 8000.0]\n'


@pytest.fixture
def home(tmp_path):
    """Write a manifest, its table, or both; returns the manifest. Its root is `root/`, with links out of it."""
    (tmp_path / "root/real").mkdir(parents=True)
    (tmp_path / "root/out").symlink_to(tmp_path)
    (tmp_path / "root/round").symlink_to("round")
    (tmp_path / "outside.wav").write_bytes(b"RIFF")

    def write(table=f"{HEADER}\n{REAL}\n{FAKE}\n", toml=TOML):
        (tmp_path / "demo.csv").write_bytes(table.encode() if isinstance(table, str) else table)
        (tmp_path / "demo.toml").write_bytes(toml.encode() if isinstance(toml, str) else toml)
        return tmp_path / "demo.toml"

    return write


def refused(manifest, *wanted):
    """Both ways to read a manifest say the same, in one line that a terminal can hold."""
    said = set()
    for read in (read_manifest, lambda path, root: list(stream(path, root))):
        with pytest.raises(ManifestError) as caught:
            read(manifest, manifest.parent / "root")
        said.add(str(caught.value))
    (sentence,) = said
    assert len(sentence) < 1_200, len(sentence)
    for part in wanted:
        assert part in sentence, sentence


def row(**changes):
    values = dict(zip(HEADER.split(","), FAKE.split(","), strict=True)) | changes
    return f"{HEADER}\n{REAL}\n{','.join(values.values())}\n"


# Tables ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table", [f"{HEADER}\n{REAL}\n{FAKE}\n", f"\ufeff{HEADER}\r\n{REAL}\r\n{FAKE}\r\n", f"{HEADER}\n{REAL}\n{FAKE}"]
)
def test_a_table_may_have_a_bom_other_line_ends_or_no_last_one(home, table):
    corpus = read_manifest(home(table), home(table).parent / "root")
    assert [u.vocoder for u in corpus.utterances] == ["bonafide", "hifigan"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (f"{HEADER}\n{REAL}\n".encode("utf-16"), "demo.csv:1: UTF-16, expected UTF-8; save the table as UTF-8"),
        (f"{HEADER}\n{REAL.replace('s', 'é')}\n".encode("latin-1"), "demo.csv:2: not UTF-8 (invalid continuation byte"),
        (f"{HEADER}\n{REAL}\0\n", "demo.csv:2: a zero byte, expected text"),
        (f"{HEADER}\r{REAL}\r{FAKE}\r", "demo.csv:1: a carriage return within the line; save the table"),
        (b"x" * (reading.LONGEST_LINE + 5), "demo.csv:1: more than 1,048,576 bytes in a line; is this a table"),
        (f"{HEADER}\n{REAL}\n" + '"' + "a,b\n" * 50_000, "is a quotation mark open?"),
        (f'{HEADER}\n{REAL}\n"{FAKE}\n', "expected 9 fields, as in the header; is a quotation mark open"),
        (f"{HEADER}\n" + "," * 100_000 + "\n", "expected 9 fields, as in the header"),
        (f"{HEADER},speaker,path\n{REAL},,\n", "several columns are named speaker, path; which one counts?"),
        (f"{HEADER.replace('path,', '')}\n{REAL}\n", "the columns path are missing"),
        ("", "the columns utt_id, speaker, split"),
        (f"{HEADER}\n{REAL}\n{REAL}\n", "demo.csv:3: bonafide of 'a' is already on line 2"),
        (f"{HEADER}\n{REAL}\n{FAKE.replace('fake', 'real')}\n", "demo.csv:3: the file 'real/a.wav' is already on line 2"),
        (f"{HEADER}\n{FAKE}\n", "hifigan of 'a' has no bona fide twin"),
    ],
    ids=lambda x: None if isinstance(x, str) and "expected" not in x else ".",
)  # fmt: skip
def test_a_table_that_is_none(home, table, said):
    refused(home(table), said)


@pytest.mark.parametrize("count", ["9" * 5_000, "9" * 16, "-1", "1e3", "1_000", "0x10", "٣", "", "nan", "4.0", "+4", " 4"])
def test_numbers_of_samples_that_are_none(home, count):
    refused(home(row(n_samples=count)), "demo.csv:3: n_samples ", "expected a whole number")


@pytest.mark.parametrize("lag", ["1.5", "--3", "9" * 5_000, "1_0", "nan", "٣", "1e2", "0x1"])
def test_lags_that_are_none(home, lag):
    refused(home(row(lag=lag)), "demo.csv:3: lag ", "expected a whole number of samples")


@pytest.mark.parametrize(
    ("segments", "said"),
    [
        ("1 0.5 spoof", "rising"), ("-1 1 spoof", "rising"), ("0 1e999 spoof", "rising"), ("nan 1 spoof", "rising"),
        ("0 1_0 spoof", "'START END bonafide|spoof'"), ("0 ٣ spoof", "'START END bonafide|spoof'"),
        ("0 1 fake", "rising"), ("0 1", "'START END bonafide|spoof'"), ("0 0x1 spoof", "'START END bonafide|spoof'"),
        ("0 1 bonafide;0.5 2 spoof", "0.5 to 1.0 s is bonafide and spoof; segments of two labels must not overlap"),
        ("0 2 spoof;0.1 0.3 bonafide;1 1.5 spoof", "0.1 to 0.3 s is spoof and bonafide"),
        ("x" * 5_000, "segment 'xxx"),
    ],
)  # fmt: skip
def test_segments_that_are_none(home, segments, said):
    refused(home(row(segments=segments)), "demo.csv:3", said)


def test_segments_of_one_label_may_overlap(home):
    manifest = home(row(segments="0 1 spoof;0.5 2 spoof;2 3 bonafide;2.99 4 spoof"))
    assert len(read_manifest(manifest, manifest.parent / "root").utterances[1].segments) == 4


@pytest.mark.parametrize(
    "path",
    [
        "../outside.wav",
        "/etc/passwd",
        "out/outside.wav",
        "real/../../outside.wav",
        "out/../outside.wav",
        "./../outside.wav",
        "..",
    ],
)
def test_paths_that_leave_their_root(home, path):
    refused(home(row(path=path)), "demo.csv:3: path ", "leaves the root")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"path": "round/a.wav"}, "names no file"),
        ({"path": '"a\nb.wav"'}, "path 'a\\nb.wav' holds a control character (a line end?); rename it"),
        ({"path": "a\x1b[31m.wav"}, "holds a control character"),
        ({"path": ""}, "path is empty"),
        ({"utt_id": "../a"}, "utt_id '../a' holds a path separator"),
        ({"utt_id": "x" * 121}, "is longer than 120 bytes; it names files, shorten it"),
        ({"utt_id": "é" * 61}, "is longer than 120 bytes"),
        ({"vocoder": "a\u2028b"}, "vocoder 'a\\u2028b' holds a control character"),
        ({"vocoder": "a__b"}, "holds '__'"),
        ({"split": "test" * 1_000}, "split 'testtest"),
    ],
)  # fmt: skip
def test_names_and_paths_that_cannot_be(home, changes, said):
    refused(home(row(**changes)), said)


def test_a_path_too_long_for_the_system_is_missing_when_it_is_looked_for(home):
    manifest = home(row(path="d/" * 3_000 + "a.wav"))
    corpus = read_manifest(manifest, manifest.parent / "root")
    with pytest.raises(ManifestError, match="missing, or no file"):
        verify(corpus.utterances[1:])


# Manifests ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (TOML.encode("utf-16"), "not TOML in UTF-8"),
        (TOML.replace("demo\"", "d\xe9mo\"", 1).encode("latin-1"), "not TOML in UTF-8"),
        (TOML + "\0", "not TOML in UTF-8"),
        (TOML + "kinds = " + "[" * 100_000, "not TOML in UTF-8"),
        (TOML + "files = " + "9" * 5_000 + "\n", "not TOML in UTF-8 (Exceeds the limit"),
        (TOML + "files = " + "9" * 4_000 + "\n", "expected numbers of at most 2^53"),
        (TOML + "splits = { eval = 100000000000000000000 }\n", "expected numbers of at most 2^53"),
        (TOML + "x" * 5_000 + " = 1\n", "unknown key 'xxx"),
        (TOML + f'licence = "{"x" * (1 << 20)}"\n', "expected a manifest of at most 1,048,576"),
        (TOML + "name = 1\n", "not TOML in UTF-8 (Cannot overwrite a value"),
        (TOML.replace('"demo"', "1"), "name = '1', expected str"),
        (TOML.replace("16000", "true"), "sample_rate = 'True', expected int"),
        (TOML.replace("16000", "16000.0"), "sample_rate = '16000.0', expected int"),
        (TOML.replace("16000", "-16000"), "sample_rate = -16000, expected 100 to 1,000,000 Hz"),
        (TOML.replace("16000", "0"), "sample_rate = 0"),
        (TOML.replace("16000", "4000000000"), "sample_rate = 4000000000, expected 100 to 1,000,000 Hz"),
        (TOML.replace("8000.0", "nan"), "valid_band = '[0.0, nan]', expected two rising frequencies"),
        (TOML.replace("8000.0", "inf"), "reaches beyond half the sample rate"),
        (TOML.replace("8000.0", "true"), "expected two rising frequencies"),
        (TOML.replace("[0.0, 8000.0]", "[[[[]]]]"), "expected two rising frequencies"),
        (TOML.replace("[0.0, 8000.0]", "1979-05-27"), "valid_band = '1979-05-27', expected list"),
        (TOML + "held_out = [1, 2]\n", "held_out = '[1, 2]', expected str for each of its values"),
        (TOML + "held_out = [[[]]]\n", "expected str for each of its values"),
        (TOML + 'splits = { eval = "1" }\n', "expected int for each of its values"),
        (TOML + "kinds = { a = { b = 1 } }\n", "expected str for each of its values"),
        (TOML + "roots = [{}]\n", "expected str for each of its values"),
        (TOML + 'roots = ["main", "else"]\n', "demo.toml: the data set 'demo' has files in a further folder"),
        (TOML.replace("demo.csv", "../demo.csv"), "table = '../demo.csv', expected the bare name of a file"),
        (TOML.replace("demo.csv", "/etc/passwd"), "table = '/etc/passwd', expected the bare name"),
        (TOML.replace("demo.csv", ""), "table = '', expected the bare name"),
        (TOML.replace("demo.csv", ".."), "table = '..', expected the bare name"),
        (TOML.replace("demo.csv", "x" * 300), "x' ..., expected the bare name"),
        (TOML.replace("demo.csv", "a\\u0000b"), "expected the bare name"),
        (TOML.replace("demo.csv", "none.csv"), "none.csv: no such file; demo.toml names it as its table"),
        (TOML + 'table_sha256 = "0"\n', "but demo.toml says 0; was the table edited"),
        (TOML + "files = 3\n", "files = 3, but its table holds 2"),
    ],
    ids=range(36),
)  # fmt: skip
def test_a_manifest_that_is_none(home, toml, said):
    refused(home(toml=toml), said)


def test_a_manifest_may_have_a_bom_and_crlf(home):
    manifest = home(toml="\ufeff" + TOML.replace("\n", "\r\n"))
    assert read_manifest(manifest, manifest.parent / "root").name == "demo"


def test_a_directory_a_pipe_and_links_in_place_of_a_manifest_or_table(home):
    manifest = home()
    refused(manifest.parent, "a directory, expected a manifest")
    for name in ("demo.csv", "demo.toml"):
        path = manifest.with_name(name)
        path.unlink()
        os.mkfifo(path)
        refused(manifest, f"{name}: a pipe or a device, whose end nobody knows")
        path.unlink()
        path.symlink_to(path)
        refused(manifest, f"{name}: cannot be opened (Too many levels of symbolic links)")
        path.unlink()
        home()


@pytest.mark.parametrize("root", ["x" * 300, "round", "demo.csv", "gone"])
def test_a_root_that_is_no_folder(home, root):
    manifest = home()
    with pytest.raises(ManifestError, match="no such folder; the data set 'demo' needs its root"):
        read_manifest(manifest, manifest.parent / "root" / root)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 200_000, "damaged"), (b"[]", "expected an object, got list"),
        (b'{"main": 1}', "expected an object from root"),
        (b"\xff", "damaged"), (b"", "damaged"), (b'{"a": ' + b"9" * 5_000 + b"}", "damaged"),
        (b'{"a": NaN}', "from root to folder"),
    ],
)  # fmt: skip
def test_remembered_roots_that_are_none(home, content, said):
    home().with_name("demo.roots.json").write_bytes(content)
    with pytest.raises(ManifestError, match=said) as caught:
        remembered_roots(home())
    assert "demo.roots.json" in str(caught.value) and "delete it and give --root" in str(caught.value)


# Score files and keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a A07 spoof 1e999", "1: score '1e999', expected a finite number; the model that made it diverged"),
        ("a A07 spoof nan", "1: score 'nan', expected a finite number"),
        ("a A07 spoof 1_000", "1: score '1_000', expected a number"), ("a A07 spoof ٣", "1: score '٣', expected a number"),
        ("a A07 spoof 0x10", "1: score '0x10', expected a number"), ("a A07 spoof 1,5", "1: score '1,5', expected a number"),
        ("a A07 spoof " + "9" * 5_000, "1: score '999"),
        ("a A07 spoof 1\nA07 spoof 1", "2: 3 columns ('A07 spoof 1'), expected 4, as on the first line"),
        ("a A07 spoof 1\na A07 spoof 2", "2: a second score of 'a'"),
        ("a A07 fake 1", "1: key 'fake', expected bonafide or spoof"),
        ("a bonafide spoof 1", "1: attack 'bonafide' with key 'spoof', expected the two to agree"),
        ("a,A07,spoof,1", "1: 1 columns ('a,A07,spoof,1'), expected 4"), ("x " * 200_000, "200000 columns ('x x x"),
        ("x" * (reading.LONGEST_LINE + 1), "1: more than 1,048,576 bytes in a line"), ("", "no scores in it"),
        ("\n \n\t\n", "no scores"),
        ("a A07 spoof 1\r", None), ("\ufeffa A07 spoof 1\r\n", None), ("a A07 spoof -0\nb - bonafide 1e-320", None),
        ("a A07 spoof 1\rb A07 spoof 2", "1: a carriage return within the line"), ("a A07 spoof 1\0", "1: a zero byte"),
    ],
    ids=range(21),
)  # fmt: skip
def test_score_files(tmp_path, content, said):
    path = tmp_path / "scores.txt"
    path.write_bytes(content.encode())
    if said is None:
        assert {t.utterance for t in read_trials(path)} <= {"a", "b"}
        return
    with pytest.raises(XaibenchError) as caught:
        list(read_trials(path))
    assert f"{path}" in str(caught.value) and said in str(caught.value) and len(str(caught.value)) < 600
    for read in (read_keys, lambda path: list(read_asv(path))):
        if content.strip():
            with pytest.raises(XaibenchError, match=r"scores\.txt"):
                read(path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the system for the peak of memory")
def test_one_line_of_a_hundred_megabytes_is_not_held(tmp_path):
    path = tmp_path / "scores.txt"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    code = (
        "import re, sys\nfrom xaibench.errors import XaibenchError\nfrom xaibench.scorefile import read_trials\n"
        "try:\n    list(read_trials(sys.argv[1]))\nexcept XaibenchError as error:\n    print(error)\n"
        "print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    said, peak = done.stdout.splitlines()
    assert "scores.txt:1: more than 1,048,576 bytes in a line" in said and int(peak) < 90 << 10


# Protocols ---------------------------------------------------------------------------------------------------------------


def entry(layout, root, text, where):
    path = root / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return list(LAYOUTS[layout].scan({"main": root, "bonafide": root}))


@pytest.mark.parametrize(
    ("layout", "where", "text", "said"),
    [
        ("in-the-wild", "meta.csv", 'file,speaker,label\n"0.wav,A,spoof\n', "no comma-separated values (unexpected"),
        ("in-the-wild", "meta.csv", "file,speaker,label\n0.wav,A\n", "2 fields, expected 3"),
        ("in-the-wild", "meta.csv", f"file,speaker,label\n0.wav,A,{'x' * 999}\n", "label 'xxx"),
        ("folder", "pairs.csv", "bonafide,spoof\n/,v/a.wav\n", "with bonafide and spoof, got '/,v/a.wav'"),
        ("folder", "pairs.csv", "bonafide,spoof\n.,v/a.wav\n", "with bonafide and spoof, got"),
        ("folder", "pairs.csv", 'bonafide,spoof\n"a,b\n', "no comma-separated values"),
        ("asvspoof2021-df", "keys/DF/CM/trial_metadata.txt", "s /etc/x c s - bonafide n eval\n", "'/etc/x' is a path"),
        ("asvspoof2021-df", "keys/DF/CM/trial_metadata.txt", "s x c s - bonafide\n", "6 columns, expected 8"),
        ("vocv4", "protocol.txt", "s /a/LA_T_1234567 - hifigan spoof\n", "'/a/LA_T_1234567' is a path, expected"),
        ("common-voice", "validated.tsv", "client_id\tpath\nx\n", "the column path is missing or empty"),
    ],
)  # fmt: skip
def test_a_line_of_a_protocol_that_is_none_is_a_problem_of_that_line(tmp_path, layout, where, text, said):
    (tmp_path / "flac").mkdir()
    (tmp_path / "ASVspoof2019_LA_cm_protocols").mkdir()
    (problem,) = entry(layout, tmp_path, text, where)
    assert isinstance(problem, Problem) and said in problem.message and where in problem.where
    assert len(problem.message) < 500


@pytest.mark.parametrize(
    ("layout", "where", "text"),
    [
        ("in-the-wild", "meta.csv", "file,speaker,label,label\n"), ("in-the-wild", "meta.csv", '"file,speaker,label\n'),
        ("folder", "pairs.csv", "bonafide,bonafide,spoof\n"), ("common-voice", "validated.tsv", "client_id\tpath\tpath\n"),
    ],
)  # fmt: skip
def test_a_header_that_is_none(tmp_path, layout, where, text):
    with pytest.raises(ManifestError, match=r":1: the columns .* are missing, or there twice"):
        entry(layout, tmp_path, text, where)


def test_a_protocol_reads_one_line_at_a_time(tmp_path):
    (tmp_path / "p.txt").write_bytes(b"a b\n" + b"\xff\n")
    with pytest.raises(
        ManifestError, match=r"p\.txt:2: not UTF-8 \(invalid start byte at byte 0\); save the protocol as UTF-8"
    ):
        list(lines(tmp_path / "p.txt"))
    assert cells("x:1", 'a,"b ""c"" d"') == ["a", 'b "c" d']


@pytest.mark.parametrize("name", [os.fsdecode(b"\xff"), "new\nline"])
def test_files_and_folders_whose_names_a_table_cannot_hold(tmp_path, name):
    """Such a file is left out and named; such a folder is refused."""
    root = tmp_path / "set"
    for place in ("bonafide/good.wav", f"bonafide/{name}.wav", "world/good.wav", f"world/{name}.wav"):
        try:
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write((root / place).open("wb"), np.sin(np.arange(800)), 16_000, format="WAV")
        except OSError:
            pytest.skip("this file system has no such name")
    report = index(LAYOUTS["folder"], {"main": root}, tmp_path / "out", on_error="skip")
    assert report.files == 2 and report.problems == 2
    said = (tmp_path / "out/folder.problems.txt").read_text(encoding="utf-8")
    assert "the name is not UTF-8; rename the file" in said or "holds a control character (a line end?); rename it" in said
    assert len(list(stream(report.manifest, root))) == 2
    if name.isprintable() or "\n" in name:
        return
    (tmp_path / name).mkdir()
    for roots, out in (({"main": tmp_path / name}, tmp_path / "out"), ({"main": root}, tmp_path / name / "out")):
        with pytest.raises(ManifestError, match=r"\\udcff.*: the folder's name is not UTF-8"):
            index(LAYOUTS["folder"], roots, out)


def test_a_damaged_index_of_an_earlier_run_is_named(tmp_path):
    for place in ("bonafide/a.wav", "world/a.wav"):
        (tmp_path / "set" / place).parent.mkdir(parents=True)
        soundfile.write(tmp_path / "set" / place, np.sin(np.arange(800)), 16_000)
    roots, store = {"main": tmp_path / "set"}, tmp_path / "out/folder.index"
    index(LAYOUTS["folder"], roots, tmp_path / "out")
    good = store.read_bytes()
    for content in (
        b"no database" * 1_000,
        good[:5_000],
        good[:4_096] + bytes(len(good) - 4_096),
        good[:100] + b"\xff" * 3_000,
    ):
        store.write_bytes(content)
        with pytest.raises(ManifestError, match=r"folder\.index: (cannot be used|damaged).* delete it: only the"):
            index(LAYOUTS["folder"], roots, tmp_path / "out")


# Labels ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (partialspoof.read_durations, "a 1\na 2\n", "reco2dur:2: a second duration of 'a'"),
        (partialspoof.read_durations, "a 1_0\n", "reco2dur:1: duration '1_0' is not a number of seconds"),
        (partialspoof.read_durations, "a 1e999\n", "reco2dur:1: duration '1e999' is not finite"),
        (partialspoof.read_durations, "a -0\n", "expected seconds above 0"),
        (partialspoof.read_durations, "a\n", "reco2dur:1: duration '' is not a number"),
        (partialspoof.read_rttm, "x" * 9_000 + "\n", "reco2dur:1: 'xxx"),
        (partialspoof.read_rttm, "SPEAKER a 1 1e30 0.1 - - spoof - -\n", "start 1e30, duration 0.1, expected a stretch"),
        (partialspoof.read_rttm, "SPEAKER a 1 1e308 1e308 - - spoof - -\n", "expected a stretch of time"),
        (partialspoof.read_rttm, "SPEAKER a 1 1 1e-9 - - spoof - -\n", "expected a stretch of time"),
        (partialspoof.read_rttm, "SPEAKER a 1 0 ٣ <NA> <NA> spoof <NA> <NA>\n", "duration '٣' is not a number"),
        (
            partialspoof.read_rttm,
            "SPEAKER a 1 0 1 <NA> <NA> spoof <NA> <NA>\nSPEAKER a 1 0.5 1 <NA> <NA> bonafide <NA> <NA>\n",
            "'a': 0.5 to 1.0 s is spoof and bonafide; segments of two labels must not overlap",
        ),
        (read_vad, "0 1 1_0\n", "expected `start end label`"), (read_vad, "0 inf 1\n", "expected times in seconds"),
        (read_vad, "0 1 ١\n", "expected `start end label`"), (read_vad, "0 1 99\n", "unknown label 99"),
    ],
)  # fmt: skip
def test_labels_in_text(tmp_path, read, text, said):
    (tmp_path / "reco2dur").write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError) as caught:
        read(tmp_path / "reco2dur")
    assert said in str(caught.value) and len(str(caught.value)) < 500


def label_file(path, body):
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(body)
    return path


def doubling(times):
    """Opcodes of a tuple of two tuples of two tuples ...: a few bytes in memory; printed or hashed it would not end."""
    code = b"N\x94"
    for i in range(times):
        code += b"j" + i.to_bytes(4, "little") + b"\x86\x94"
    return code


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"\x80\x04}" + doubling(120) + b"Ns.", "not a pickle of labels (ValueError: a key that is no name"),
        (b"\x80\x04}(" + doubling(120) + b"Nu.", "not a pickle of labels (ValueError: a key that is no name"),
        (b"\x80\x04}\x8c\x01a" + doubling(120) + b"s.", None),
        (b"\x80\x04cnumpy\nndarray\n" + doubling(120) + b"b.", "not a pickle of labels (ValueError: ndarray has no state)"),
        (b"\x80\x04cnumpy\ndtype\n" + doubling(120) + b"\x85R.", "not a pickle of labels (ValueError: element type tuple)"),
        (b"\x80\x04" + b"(" * (1 << 18) + b".", "not a pickle of labels"),
        (b"\x80\x04cposix\nsystem\n\x8c\x04true\x85R.", "refers to posix.system, which a label file has no use for"),
        (b"\x80\x04c" + b"x" * 100_000 + b"\ny\n.", "which a label file has no use for"),
        (b"\x80\x04}.", None),
        (b"", "not a pickle of labels (EOFError"),
        (b"\x80\x04J\0", "not a pickle of labels (error: unpack requires a buffer of 4 bytes"),
    ],
    ids=range(11),
)  # fmt: skip
def test_label_files_made_to_hang_run_or_fill_the_memory(tmp_path, body, said):
    path = label_file(tmp_path / "x.npy", body)
    if said is not None:
        with pytest.raises(ManifestError) as caught:
            read_label_file(path)
        assert "x.npy" in str(caught.value) and said in str(caught.value) and len(str(caught.value)) < 1_000
        return
    for name, labels in read_label_file(path).items():
        with pytest.raises(ManifestError, match=r"has the label of type (tuple|NoneType)"):
            label_cells(labels, path=path, utterance=name)


def test_the_work_and_the_labels_of_a_label_file_are_bounded(tmp_path, monkeypatch):
    good = label_file(tmp_path / "x.npy", pickle.dumps(np.array({"a": np.array(list("0110"))}, dtype=object), protocol=4))
    assert label_cells(read_label_file(good)["a"], path=good, utterance="a") == list("0110")
    for bound, said in (("MOST_LABELS", "labels"), ("MOST_OPCODES", "opcodes")):
        monkeypatch.setattr(f"xaibench.datasets.seglab.{bound}", 3)
        with pytest.raises(ManifestError, match=f"more than .* {said}"):
            read_label_file(good)
        monkeypatch.undo()


@pytest.mark.parametrize("letters", ["\x80", "\U0010ffff", "é"])
def test_labels_in_other_letters(tmp_path, letters):
    body = pickle.dumps(np.array({"a": np.array(list(letters))}, dtype=object), protocol=4)
    with pytest.raises(ManifestError, match="labels in letters beyond ASCII"):
        read_label_file(label_file(tmp_path / "x.npy", body))
    broken = body.replace(letters.encode("utf-32-le"), b"\xff\xff\xff\xff")
    assert broken != body
    with pytest.raises(ManifestError, match="labels in letters beyond ASCII"):
        read_label_file(label_file(tmp_path / "x.npy", broken))


def test_many_segments_of_a_recording_of_one_sample():
    with pytest.raises(XaibenchError, match=r"2 segments within 6\.25e-05 s, repeated 64000 times: more than 100,000"):
        fit_segments([(0.0, 1e-5, "spoof"), (2e-5, 3e-5, "spoof")], 1 / 16_000, 64_000, sample_rate=16_000)
