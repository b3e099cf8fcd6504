"""Streaming a manifest, and its further columns: what `read_manifest` refuses, `stream` refuses before its first row."""

import hashlib
from pathlib import Path

import pytest

from xaibench.errors import ManifestError
from xaibench.manifest import COLUMNS, format_segments, pairs, parse_segments, read_manifest, stream

ROWS = [
    "u1,ann,train,bonafide,a.wav,9,x,,,",
    "u1,ann,train,world,b.wav,8,x,,-3,",
    "u2,bob,eval,bonafide,c.wav,9,x,main,0,0.0 0.5 bonafide;0.5 1.25 spoof",
]
FACTS = {"name": '"demo"', "table": '"demo.csv"', "sample_rate": "16000", "valid_band": "[0, 8000]"}


def write(folder: Path, rows=ROWS, header=(*COLUMNS, "root", "lag", "segments"), **facts) -> Path:
    content = "\n".join([",".join(header), *rows, ""]).encode()
    (folder / "demo.csv").write_bytes(content)
    facts = {**FACTS, "table_sha256": f'"{hashlib.sha256(content).hexdigest()}"', **facts}
    (folder / "demo.toml").write_text("".join(f"{k} = {v}\n" for k, v in facts.items()), encoding="utf-8")
    return folder / "demo.toml"


def refused(manifest, roots, message):
    for read in (read_manifest, lambda path, root: next(stream(path, root))):
        with pytest.raises(ManifestError, match=message):
            read(manifest, roots)


def test_stream_gives_what_read_manifest_gives(tmp_path):
    manifest = write(tmp_path)
    found = tuple(stream(manifest, tmp_path))
    assert found == read_manifest(manifest, tmp_path).utterances
    assert [u.lag for u in found] == [0, -3, 0]
    assert found[2].segments == ((0.0, 0.5, "bonafide"), (0.5, 1.25, "spoof"))
    assert tuple(stream(manifest, {"main": tmp_path})) == found


def test_stream_reads_one_row_at_a_time(tmp_path):
    rows = stream(write(tmp_path), tmp_path)
    assert next(rows).source == "u1"
    rows.close()


@pytest.mark.parametrize(
    ("line", "row", "message"),
    [
        (1, "u1,ann,train,world,b.wav,8,x,,3.5,", r"demo\.csv:3: lag '3\.5'"),
        (1, "u1,ann,train,world,b.wav,8,x,,--3,", r"demo\.csv:3: lag '--3'"),
        (1, "u1,ann,train,world,b.wav,8,x,other,,", r"demo\.csv:3: root 'other' is not given; given: main"),
        (1, "u1,ann,train,bonafide,b.wav,8,x,,,", r"demo\.csv:3: bonafide of 'u1' is already on line 2"),
        (1, "u1,ann,train,world,a.wav,8,x,,,", r"demo\.csv:3: the file 'a\.wav' is already on line 2"),
        (1, "u3,ann,train,world,b.wav,8,x,,,", r"demo\.csv: world of 'u3' has no bona fide twin"),
        (1, "u1,bob,train,world,b.wav,8,x,,,", "twins share both"),
        (1, "u1,ann,train,world,../b.wav,8,x,,,", r"demo\.csv:3: path '\.\./b\.wav' leaves the root"),
        (2, "u2,bob,eval,bonafide,c.wav,9,x,,,0 0.5", r"demo\.csv:4: segment '0 0\.5'"),
        (2, "u2,bob,eval,bonafide,c.wav,9,x,,,0 0.5 fake", r"demo\.csv:4: segment '0 0\.5 fake'"),
        (2, "u2,bob,eval,bonafide,c.wav,9,x,,,0.5 0.5 spoof", "rising"),
        (2, "u2,bob,eval,bonafide,c.wav,9,x,,,0 nan spoof", "segment '0 nan spoof'"),
    ],
)
def test_bad_rows_are_refused_before_the_first_is_given(tmp_path, line, row, message):
    rows = list(ROWS)
    rows[line] = row
    refused(write(tmp_path, rows), tmp_path, message)


def test_counts_and_hash_are_compared_first(tmp_path):
    refused(write(tmp_path, files="4"), tmp_path, "files = 4, but its table holds 3")
    refused(write(tmp_path, splits="{ train = 2 }"), tmp_path, "splits = ")
    refused(write(tmp_path, table_sha256='"0"'), tmp_path, "was the table edited")


def test_twins_are_asked_of_paired_sets_only(tmp_path):
    rows = [ROWS[0], "u9,eve,eval,A07,b.wav,8,x,,,", ROWS[2]]
    refused(write(tmp_path, rows, paired="true"), tmp_path, "A07 of 'u9' has no bona fide twin")
    manifest = write(tmp_path, rows, paired="false", kinds='{ A07 = "tts" }')
    corpus = read_manifest(manifest, tmp_path)
    assert len(list(stream(manifest, tmp_path))) == 3
    assert corpus.kinds == {"A07": "tts"}
    assert pairs(corpus) == []


@pytest.mark.parametrize("value", ["1", '"yes"'])
def test_paired_is_true_or_false(tmp_path, value):
    refused(write(tmp_path, paired=value), tmp_path, "paired = .*, expected bool")


def test_every_root_is_kept_to(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    rows = [ROWS[0].replace("x,,,", "x,two,,"), ROWS[1], ROWS[2]]
    manifest = write(tmp_path, rows, roots='["main", "two"]')
    refused(manifest, tmp_path / "one", "its root 'two', which is not given; given: main")
    roots = {"main": tmp_path / "one", "two": tmp_path / "two"}
    assert [u.path.parent.name for u in stream(manifest, roots)] == ["two", "one", "one"]
    (tmp_path / "two/a.wav").symlink_to(tmp_path / "one")
    refused(manifest, roots, "path 'a.wav' leaves the root .*two")


def test_segments_survive_writing():
    segments = ((0.0, 0.1 + 0.2, "spoof"), (1.0, 1e3, "bonafide"))
    assert parse_segments("x", format_segments(segments)) == segments
    assert parse_segments("x", "") == ()
