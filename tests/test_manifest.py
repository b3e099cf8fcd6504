"""Manifests: what a good one gives, and that every bad one is refused with its file, line and value."""

import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xaibench.errors import ManifestError
from xaibench.manifest import COLUMNS, bundled, pairs, read_manifest, verify

HEADER = ",".join(COLUMNS)
ROWS = [
    "u1,ann,train,bonafide,train/bonafide/u1.flac,4,{}",
    "u1,ann,train,world,train/world/u1.flac,4,{}",
    "u2,bob,eval,bonafide,eval/bonafide/u2.flac,5,{}",
    "u2,bob,eval,world,eval/world/u2.flac,5,{}",
    "u2,bob,eval,lyra,eval/lyra/u2.flac,5,{}",
]
FACTS = {
    "name": '"demo"',
    "table": '"demo.csv"',
    "files": "5",
    "utterances": "2",
    "splits": "{ train = 1, eval = 1 }",
    "sample_rate": "16000",
    "valid_band": "[90.0, 7000.0]",
    "held_out": '["lyra"]',
    "licence": '"CC0"',
    "citation": '"nobody (2026)"',
}


class Folder:
    """A data set in a temporary folder: `root/` with its files, `demo.csv`, `demo.toml`."""

    def __init__(self, path: Path) -> None:
        self.path, self.root = path, path / "root"
        rows = []
        for row in ROWS:
            name = row.split(",")[4]
            file = self.root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(name.encode())
            rows.append(row.format(hashlib.sha256(name.encode()).hexdigest()))
        self.rows, self.header, self.facts = rows, HEADER, dict(FACTS)

    def write(self, *, table: bytes | None = None) -> Path:
        content = "\n".join([self.header, *self.rows, ""]).encode() if table is None else table
        (self.path / "demo.csv").write_bytes(content)
        facts = {"table_sha256": f'"{hashlib.sha256(content).hexdigest()}"', **self.facts}
        (self.path / "demo.toml").write_text("".join(f"{k} = {v}\n" for k, v in facts.items()), encoding="utf-8")
        return self.path / "demo.toml"

    def edit(self, line: int, old: str, new: str) -> None:
        """Change a row; `line` as an editor counts, the header being 1."""
        assert old in self.rows[line - 2]
        self.rows[line - 2] = self.rows[line - 2].replace(old, new)

    def refused(self, *parts: object) -> None:
        """Reading raises ManifestError whose message holds every part."""
        manifest = self.write()
        with pytest.raises(ManifestError) as caught:
            read_manifest(manifest, self.root)
        for part in parts:
            assert str(part) in str(caught.value)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


# Good ones -----------------------------------------------------------------------------------------------------------


def test_good_manifest_gives_every_fact(folder):
    manifest = folder.write()
    corpus = read_manifest(manifest, folder.root)
    assert (corpus.name, corpus.sample_rate, corpus.valid_band, corpus.held_out) == (
        "demo",
        16000,
        (90.0, 7000.0),
        ("lyra",),
    )
    assert (corpus.licence, corpus.citation) == ("CC0", "nobody (2026)")
    assert corpus.hash == hashlib.sha256((folder.path / "demo.csv").read_bytes()).hexdigest()
    first = corpus.utterances[0]
    assert (first.source, first.speaker, first.split, first.vocoder, first.n_samples) == (
        "u1",
        "ann",
        "train",
        "bonafide",
        4,
    )
    assert first.path == folder.root.resolve() / "train/bonafide/u1.flac"
    assert verify(corpus.utterances) == 5


def test_relative_root_gives_absolute_paths(folder, monkeypatch):
    manifest = folder.write()
    monkeypatch.chdir(folder.path)
    assert all(u.path.is_absolute() for u in read_manifest(manifest, Path("root")).utterances)


def test_pairs_keep_the_order_and_filter(folder):
    corpus = read_manifest(folder.write(), folder.root)
    assert [p.id for p in pairs(corpus)] == ["u1/world", "u2/world", "u2/lyra"]
    assert [p.id for p in pairs(corpus, split="eval")] == ["u2/world", "u2/lyra"]
    assert [p.id for p in pairs(corpus, vocoders=["lyra"])] == ["u2/lyra"]
    assert pairs(corpus, split="dev") == []
    assert pairs(corpus, vocoders=[]) == []
    assert {p.bonafide.vocoder for p in pairs(corpus)} == {"bonafide"}


def test_twin_rows_may_come_in_any_order(folder):
    folder.rows.reverse()
    assert len(pairs(read_manifest(folder.write(), folder.root))) == 3


def test_further_columns_and_quoted_fields_are_allowed(folder):
    folder.header += ",note"
    folder.rows = [row + ',"a, b"' for row in folder.rows]
    assert len(read_manifest(folder.write(), folder.root).utterances) == 5


def test_optional_facts_may_be_missing(folder):
    for key in ("files", "utterances", "splits", "held_out", "licence", "citation"):
        del folder.facts[key]
    manifest = folder.write()
    manifest.write_text(re.sub("table_sha256.*\n", "", manifest.read_text()))
    assert read_manifest(manifest, folder.root).held_out == ()


@pytest.mark.parametrize("name", ["minivoc", "minivoc-train", "minivoc-extra-eval"])
def test_bundled_manifests_are_in_order(name, tmp_path):
    corpus = read_manifest(bundled(name), tmp_path)
    assert corpus.name == name
    assert corpus.held_out == ("lyra",)
    assert all(re.fullmatch("[0-9a-f]{64}", u.sha256) for u in corpus.utterances)


def test_bundled_names_those_there_are():
    with pytest.raises(ManifestError, match=r"'minivok'; bundled: .*minivoc, "):
        bundled("minivok")


# Bad facts -----------------------------------------------------------------------------------------------------------


def test_no_such_manifest(tmp_path):
    with pytest.raises(ManifestError, match=r"gone\.toml: no such file"):
        read_manifest(tmp_path / "gone.toml", tmp_path)


def test_directory_instead_of_a_manifest(tmp_path):
    with pytest.raises(ManifestError, match="a directory, expected a manifest"):
        read_manifest(tmp_path, tmp_path)


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b"<html>", b"a = 1\na = 2\n"])
def test_not_toml(tmp_path, content):
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(ManifestError, match=r"bad\.toml: not TOML"):
        read_manifest(tmp_path / "bad.toml", tmp_path)


@pytest.mark.parametrize("key", ["name", "table", "sample_rate", "valid_band"])
def test_missing_key(folder, key):
    del folder.facts[key]
    folder.refused("demo.toml", f"'{key}' is missing")


def test_unknown_key_is_refused_because_it_may_be_a_misspelt_check(folder):
    folder.facts["table_sha265"] = '"0"'
    folder.refused("demo.toml", "unknown key 'table_sha265'", "table_sha256")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("name", "3", "str"),
        ("table", "[]", "str"),
        ("sample_rate", '"16 kHz"', "int"),
        ("sample_rate", "true", "int"),
        ("valid_band", "7000", "list"),
        ("valid_band", "[90.0]", "two rising"),
        ("valid_band", "[7000, 90]", "two rising"),
        ("valid_band", '["a", "b"]', "two rising"),
        ("valid_band", "[nan, 7000]", "two rising"),
        ("held_out", '"lyra"', "list"),
    ],
)
def test_value_of_the_wrong_type(folder, key, value, expected):
    folder.facts[key] = value
    folder.refused("demo.toml", f"{key} = ", expected)


def test_wrong_table_hash(folder):
    folder.facts["table_sha256"] = f'"{"0" * 64}"'
    folder.refused("demo.csv", "0" * 64, hashlib.sha256("\n".join([HEADER, *folder.rows, ""]).encode()).hexdigest())


def test_line_ends_changed_on_the_way_break_the_hash(folder):
    manifest = folder.write()
    table = folder.path / "demo.csv"
    table.write_bytes(table.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(ManifestError, match="line ends"):
        read_manifest(manifest, folder.root)


def test_missing_table(folder):
    manifest = folder.write()
    (folder.path / "demo.csv").unlink()
    with pytest.raises(ManifestError, match=r"demo\.csv: no such file; demo\.toml names it as its table"):
        read_manifest(manifest, folder.root)


def test_missing_root(folder):
    manifest = folder.write()
    with pytest.raises(ManifestError, match=r"nowhere: no such folder; .*'demo'.*--root"):
        read_manifest(manifest, folder.path / "nowhere")


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [("files", "6", "5"), ("utterances", "3", "2"), ("splits", "{ train = 2 }", "{'train': 1, 'eval': 1}")],
)
def test_wrong_count(folder, key, value, found):
    folder.facts[key] = value
    folder.refused("demo.toml", f"{key} = ", f"holds {found}")


# Bad tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", COLUMNS)
def test_missing_column(folder, column):
    folder.header = folder.header.replace(column, "other", 1)
    folder.refused("demo.csv", f"columns {column} are missing")


def test_empty_table(folder):
    manifest = folder.write(table=b"")
    with pytest.raises(ManifestError, match=r"demo\.csv: the columns utt_id, .* are missing"):
        read_manifest(manifest, folder.root)


def test_header_without_rows_breaks_the_count(folder):
    folder.rows = []
    folder.refused("demo.toml", "files = 5, but its table holds 0")


def test_table_that_is_not_utf8(folder):
    manifest = folder.write(table="\n".join([HEADER, *folder.rows]).replace("bob", "bôb").encode("latin-1"))
    with pytest.raises(ManifestError, match=r"demo\.csv:4: not UTF-8"):
        read_manifest(manifest, folder.root)


def test_field_that_is_too_long_for_csv(folder):
    folder.edit(3, "ann", "a" * 200_000)
    folder.refused("demo.csv", "field larger than field limit")


@pytest.mark.parametrize("row", ["u3,cat,dev", "u3,cat,dev,bonafide,a.flac,4,aa,bb,cc"])
def test_wrong_number_of_fields(folder, row):
    folder.rows.append(row)
    folder.refused("demo.csv:7", "expected 7 fields")


def test_path_that_climbs_out(folder):
    folder.edit(3, "train/world/u1.flac", "../secret.flac")
    folder.refused("demo.csv:3", "'../secret.flac' leaves the root", folder.root)


def test_absolute_path(folder):
    folder.edit(3, "train/world/u1.flac", "/etc/hostname")
    folder.refused("demo.csv:3", "'/etc/hostname' leaves the root")


def test_root_is_no_prefix_of_a_sibling(folder):
    (folder.path / "root-2").mkdir()
    folder.edit(3, "train/world/u1.flac", "../root-2/u1.flac")
    folder.refused("demo.csv:3", "leaves the root")


def test_symlink_out(folder):
    (folder.path / "outside.flac").write_bytes(b"x")
    link = folder.root / "train/world/u1.flac"
    link.unlink()
    link.symlink_to(folder.path / "outside.flac")
    folder.refused("demo.csv:3", "'train/world/u1.flac' leaves the root")


def test_zero_byte_in_a_path(folder):
    folder.edit(3, "u1.flac", "u\0.flac")
    folder.refused("demo.csv:3", "zero byte")


@pytest.mark.parametrize(("old", "column"), [("u1,", "utt_id"), (",world,", "vocoder"), (",train/world/u1.flac,", "path")])
def test_empty_field(folder, old, column):
    folder.edit(3, old, re.sub("[^,]", "", old))
    folder.refused("demo.csv:3", f"{column} is empty")


def test_duplicate_row(folder):
    folder.rows.append(folder.rows[1])
    folder.refused("demo.csv:7", "world of 'u1' is already on line 3")


def test_blank_lines_do_not_shift_the_line_numbers(folder):
    folder.rows.insert(1, "")
    folder.rows.append(folder.rows[2])
    folder.refused("demo.csv:8", "already on line 4")


def test_one_file_under_two_names(folder):
    folder.edit(6, "eval/lyra/u2.flac", "eval/world/u2.flac")
    folder.refused("demo.csv:6", "'eval/world/u2.flac' is already on line 5")


def test_bad_split(folder):
    folder.edit(4, "eval,", "test,")
    folder.refused("demo.csv:4", "split 'test'", "train, dev, eval")


@pytest.mark.parametrize("value", ["", "-4", "4.0", "4e3", "²", "four"])
def test_bad_n_samples(folder, value):
    folder.edit(3, ",4,", f",{value},")
    folder.refused("demo.csv:3", f"n_samples {value!r}", "whole number")


def test_orphan(folder):
    folder.rows[2] = folder.rows[2].replace("u2,", "u3,", 1)
    folder.refused("demo.csv", "world of 'u2' has no bona fide twin")


@pytest.mark.parametrize(("old", "new"), [(",eval,world", ",train,world"), (",bob,", ",ann,")])
def test_twins_share_split_and_speaker(folder, old, new):
    folder.edit(5, old, new)
    folder.refused("demo.csv", "world of 'u2'", "twins share both")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10_000), junk=st.binary(min_size=1, max_size=6), cut=st.booleans())
def test_a_damaged_table_is_read_or_refused_but_never_crashes(folder, at, junk, cut):
    """Even with no hash to catch it: whatever happens to the bytes, only ManifestError comes out."""
    content = "\n".join([HEADER, *folder.rows, ""]).encode()
    at %= len(content)
    damaged = content[:at] + junk + (b"" if cut else content[at + len(junk) :])
    manifest = folder.write(table=damaged)
    try:
        corpus = read_manifest(manifest, folder.root)
    except ManifestError as error:
        assert "demo." in str(error)  # names the table or the manifest
    else:
        assert len(corpus.utterances) == 5


# Files ---------------------------------------------------------------------------------------------------------------


def test_verify_of_nothing():
    assert verify([]) == 0


def test_verify_names_a_changed_file(folder):
    corpus = read_manifest(folder.write(), folder.root)
    (folder.root / "eval/lyra/u2.flac").write_bytes(b"other")
    with pytest.raises(ManifestError) as caught:
        verify(corpus.utterances)
    assert "lyra/u2.flac" in str(caught.value)
    assert corpus.utterances[4].sha256 in str(caught.value)
    assert hashlib.sha256(b"other").hexdigest() in str(caught.value)


@pytest.mark.parametrize("name", ["gone.flac", "x" * 300 + ".flac"])
def test_verify_names_a_missing_file(folder, name):
    folder.edit(3, "u1.flac", name)
    corpus = read_manifest(folder.write(), folder.root)
    with pytest.raises(ManifestError, match=f"{name}: missing.*root"):
        verify(corpus.utterances)


def test_verify_without_a_hash_does_not_pass(folder):
    folder.rows[0] = folder.rows[0].rpartition(",")[0] + ","
    corpus = read_manifest(folder.write(), folder.root)
    with pytest.raises(ManifestError, match=r"u1\.flac: the manifest has no sha256"):
        verify(corpus.utterances)
