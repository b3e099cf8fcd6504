"""Packs made to harm who reads them: none gets further than a sentence that says what is wrong with it."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import struct
import zipfile
from pathlib import Path

import fake_run
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xaibench.errors import SubmissionError
from xaibench.harness.results import SCHEMA
from xaibench.submission import report
from xaibench.submission.pack import BOARD, MANIFEST, ROWS, RUN, bounded_json, json_bytes, pack_bytes, read_pack
from xaibench.submission.rows import read_table
from xaibench.submission.stated import stated
from xaibench.submission.submit import pack_run
from xaibench.submission.verdict import Cell, Claim, Question, Verdict

ESCAPE, BIDI = "\x1b]0;owned\x07", "a\u202eb"


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Path:
    """The pack of an invented run, with a record as runs have it."""
    folder = tmp_path_factory.mktemp("hostile")
    grid = {"sample_rate": 16000, "n_fft": 512, "hop": 160, "window": "hann"}
    truth = {"name": "eq2", "kernel": [3, 11], "variance": [3.0, 5.0], "epsilon": 1e-8, "share": 0.05}
    identity = {"data": "toy", "split": "eval", "preset": "quick", "seed": 0, "precision": "fp32", "grid": grid}
    spec = {**identity, "countermeasures": ["lcnn"], "attributors": list(fake_run.SCORES), "truth": truth, "options": {}}
    record = fake_run.run_record(weights="a" * 64)
    record |= {"identity": {**identity, "dataset_hash": "d" * 8}, "spec": spec, "truths": {"eq2": truth}, "earlier": []}
    record |= {"origins": {"attributors/lime": "xaibench-captum 0.1.0"}}
    fake_run.write_run(folder / "run", fake_run.rows(fake_run.SCORES), record)
    (folder / "pack.zip").write_bytes(pack_run(folder / "run")[0])
    return folder / "pack.zip"


def parts(pack: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(pack) as file:
        return {name: file.read(name) for name in file.namelist() if name != MANIFEST}


def zipped(out: Path, *entries: tuple[zipfile.ZipInfo | str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(out, "w", compression) as file:
        for name, content in entries:
            file.writestr(name, content)
    return out


def altered(pack: Path, out: Path, **changes: bytes) -> Path:
    """A pack with members replaced and hashes that fit."""
    names = {"run": RUN, "rows": ROWS, "board": BOARD, "claims": "claims.json"}
    out.write_bytes(pack_bytes({**parts(pack), **{names[k]: v for k, v in changes.items()}}))
    return out


def refused(path: Path) -> str:
    with pytest.raises(SubmissionError) as caught:
        members = read_pack(path)
        stated(members.run, read_table(members.rows))
    text = str(caught.value)
    assert text.isprintable(), "a message is shown on a terminal"
    return text


def test_the_pack_itself_is_read(pack):
    members = read_pack(pack)
    assert len(read_table(members.rows)) == 144 and stated(members.run, read_table(members.rows)).pairs == 12


@pytest.mark.parametrize(
    "name",
    ["../../x", "/etc/passwd", "a\\..\\x", "C:\\x", "run.json/../x", "RUN.JSON", f"{ESCAPE}.json", "./run.json", "maps/"],
)
def test_a_member_of_another_name_is_refused_and_nothing_is_written(pack, tmp_path, name):
    inside = tmp_path / "inside"
    inside.mkdir()
    path = zipped(inside / "h.zip", *parts(pack).items(), (name, b"x"))
    assert "a member" in refused(path)
    assert [p.name for p in tmp_path.rglob("*")] == ["inside", "h.zip"]


def test_a_name_that_differs_between_directory_and_file_is_refused(pack, tmp_path):
    data = pack.read_bytes()
    (tmp_path / "h.zip").write_bytes(data.replace(b"run.json", b"rum.json", 1))  # the manifest names it once
    assert "member" in refused(tmp_path / "h.zip") or "zip" in refused(tmp_path / "h.zip")
    central = data.rfind(b"run.json")
    (tmp_path / "h.zip").write_bytes(data[:central] + b"../x.jsn" + data[central + 8 :])
    assert "'../x.jsn'" in refused(tmp_path / "h.zip")


def entry(name: str, *, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    found = zipfile.ZipInfo(name)
    found.create_system, found.external_attr = 3, mode << 16
    return found


def test_what_a_member_hides_beside_its_content_is_refused(pack, tmp_path):
    hiding = entry(RUN)
    hiding.extra = b"\x99\x99\x04\x00mine"
    assert "stores its files as they are" in refused(
        zipped(tmp_path / "h.zip", (MANIFEST, b"{}"), (hiding, parts(pack)[RUN]))
    )


def test_what_lies_between_members_or_in_a_comment_or_a_date_is_refused(pack, tmp_path):
    """No hash covers these: a pack is byte for byte what its members give."""
    whole = {MANIFEST: zipfile.ZipFile(pack).read(MANIFEST), **parts(pack)}

    def plain(name: str, **facts: object) -> zipfile.ZipInfo:
        found = entry(name)
        found.date_time = (1980, 1, 1, 0, 0, 0)
        for key, value in facts.items():
            setattr(found, key, value)
        return found

    out = tmp_path / "h.zip"
    assert read_pack(zipped(out, *((plain(n), c) for n, c in whole.items()))).rows == whole[ROWS]
    for facts in (
        {"comment": b"<script>"},
        {"date_time": (2020, 1, 1, 0, 0, 0)},
        {"create_system": 0},
        {"internal_attr": 1},
    ):
        assert "byte for byte" in refused(zipped(out, *((plain(n, **facts), c) for n, c in whole.items())))
    assert "byte for byte" in refused(zipped(out, *((plain(n), whole[n]) for n in reversed(whole))))
    data = pack.read_bytes()
    directory = struct.unpack("<4s4H2LH", data[-22:])[6]
    moved = bytearray(data[:directory] + b"hidden here" + data[directory:])
    moved[-6:-2] = struct.pack("<L", directory + 11)
    out.write_bytes(bytes(moved))
    assert "byte for byte" in refused(out)


@pytest.mark.parametrize(
    ("method", "why"),
    [(zipfile.ZIP_DEFLATED, "compressed"), (zipfile.ZIP_BZIP2, "compressed"), (zipfile.ZIP_LZMA, ""), (99, ""), (9, "")],
)
def test_another_compression_or_a_password_is_refused(pack, tmp_path, method, why):
    data = bytearray(pack.read_bytes())
    start = struct.unpack("<4s4H2LH", data[-22:])[6]
    struct.pack_into("<H", data, start + 10, method)
    struct.pack_into("<H", data, 8, method)
    (tmp_path / "h.zip").write_bytes(bytes(data))
    assert why in refused(tmp_path / "h.zip")
    data = bytearray(pack.read_bytes())
    for flags in (start + 8, 6):
        struct.pack_into("<H", data, flags, 1)
    (tmp_path / "h.zip").write_bytes(bytes(data))
    assert "encrypted" in refused(tmp_path / "h.zip")


@pytest.mark.parametrize(
    "name", ["CON.json", "run.json.", "run.json ", "ｒun.json", "Run.json", "rows.parquet::$DATA", "run\u0130.json"]
)
def test_a_name_that_another_system_takes_for_one_of_ours_is_refused(pack, tmp_path, name):
    whole = {MANIFEST: zipfile.ZipFile(pack).read(MANIFEST), **parts(pack)}
    assert "a member" in refused(zipped(tmp_path / "h.zip", *whole.items(), (name, whole[RUN])))


def test_two_members_in_one_place_and_sizes_that_lie_are_refused(pack, tmp_path):
    """A directory whose entries point at one local header, or say more bytes than there are."""
    data = pack.read_bytes()
    start = struct.unpack("<4s4H2LH", data[-22:])[6]
    second = data.index(b"PK\x01\x02", start + 4)
    for where, value in (
        (second + 42, 0),
        (start + 20, 0xFFFFFFFF),
        (start + 24, 0xFFFFFFFF),
        (start + 24, 1),
        (start + 42, 7),
    ):
        changed = bytearray(data)
        struct.pack_into("<L", changed, where, value)
        (tmp_path / "h.zip").write_bytes(bytes(changed))
        refused(tmp_path / "h.zip")


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755, stat.S_IFIFO | 0o644, stat.S_IFCHR | 0o644])
def test_links_folders_and_devices_are_refused(pack, tmp_path, mode):
    members = parts(pack)
    link = zipped(tmp_path / "h.zip", (MANIFEST, b"{}"), (entry(RUN, mode=mode), b"/etc/passwd"), (ROWS, members[ROWS]))
    assert "not a plain file" in refused(link)


def test_a_member_twice_is_refused(pack, tmp_path):
    members = parts(pack)
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = zipped(tmp_path / "h.zip", *members.items(), (RUN, b"{}"))
    assert refused(path) == "the pack holds run.json twice"


def test_a_zip_bomb_is_refused_before_it_is_opened(tmp_path):
    bomb = zipped(tmp_path / "h.zip", (RUN, bytes(1 << 21)), (ROWS, bytes(1 << 27)), compression=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1 << 20 and "is compressed" in refused(bomb)
    many = zipped(tmp_path / "m.zip", *((f"{i}.json", b"") for i in range(2_000)))
    assert "2000 members" in refused(many)
    large = zipped(tmp_path / "l.zip", (RUN, b" " * ((1 << 21) + 1)))
    assert "more than the 2,097,152 it may have" in refused(large)


@pytest.mark.parametrize("cut", [0, 3, 21, 1_000, -1, -23])
def test_what_was_cut_off_or_is_no_zip_is_refused(pack, tmp_path, cut):
    (tmp_path / "h.zip").write_bytes(pack.read_bytes()[:cut])
    assert "zip" in refused(tmp_path / "h.zip")
    (tmp_path / "h.zip").write_bytes(b"#!/bin/sh\n" + pack.read_bytes())
    assert "begins with its first member" in refused(tmp_path / "h.zip")
    (tmp_path / "h.zip").write_bytes(pack.read_bytes() + b"<script>")
    assert "bytes follow it" in refused(tmp_path / "h.zip")


def test_a_folder_a_missing_file_and_one_of_zeros_are_refused(tmp_path):
    assert "a directory, expected a pack" in refused(tmp_path) and "no such file" in refused(tmp_path / "none.zip")
    (tmp_path / "zeros").write_bytes(bytes(10_000))
    assert "not a zip" in refused(tmp_path / "zeros")


def test_members_that_do_not_fit_their_hash_or_lack_are_refused(pack, tmp_path):
    whole = {MANIFEST: zipfile.ZipFile(pack).read(MANIFEST), **parts(pack)}
    other = zipped(tmp_path / "h.zip", *{**whole, RUN: whole[RUN].replace(b"lime", b"lame")}.items())
    assert "not the file of the manifest" in refused(other)
    short = zipped(tmp_path / "h.zip", *((n, c) for n, c in whole.items() if n != ROWS))
    assert refused(short).startswith("the pack lacks rows.parquet")
    listed = json.loads(whole[MANIFEST])
    newer = zipped(tmp_path / "h.zip", *{**whole, MANIFEST: json_bytes({**listed, "format": 99})}.items())
    assert "format '99'" in refused(newer)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[" * 100_000, "nested deeper"),
        (b"[" * 40 + b"]" * 40, "nested deeper"),
        (b'{"a": 1, "a": 2}', "a key twice"),
        (b'{"a": NaN}', "it holds NaN"),
        (b'{"a": Infinity}', "it holds Infinity"),
        (b"9" * 5_000, "not JSON"),
        (b'{"a": "\xff"}', "not JSON"),
        (b"{", "not JSON"),
        (json.dumps({ESCAPE: 1}).encode(), "control characters"),
        (json.dumps([BIDI]).encode(), "control characters"),
        (b'["\\ud800"]', "control characters"),
    ],
)
def test_json_that_we_do_not_write_is_refused(content, why):
    with pytest.raises(SubmissionError, match=why) as caught:
        bounded_json(RUN, content)
    assert str(caught.value).isprintable()


def test_a_pack_with_such_json_is_refused(pack, tmp_path):
    assert "nested" in refused(altered(pack, tmp_path / "h.zip", run=b"[" * 90 + b"]" * 90))
    assert "expected a JSON dict" in refused(altered(pack, tmp_path / "h.zip", run=b"[]"))
    with pytest.raises(SubmissionError, match="more than the"):
        pack_bytes({RUN: b" " * (1 << 22)})


# --- rows ------------------------------------------------------------


def table(pack: Path) -> pa.Table:
    return pq.read_table(io.BytesIO(parts(pack)[ROWS]))


def with_rows(pack: Path, out: Path, rows: pa.Table) -> Path:
    buffer = io.BytesIO()
    pq.write_table(rows, buffer)
    return altered(pack, out, rows=buffer.getvalue())


def column(rows: pa.Table, name: str, values: list) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), name, pa.array(values, SCHEMA.field(name).type))


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("attributor", ESCAPE, "no such name"), ("attributor", "<script>alert(1)</script>", "no such name"),
        ("attributor", "=cmd|' /C calc'!A0", "no such name"), ("metric", "../../x", "no such name"),
        ("utterance", BIDI, "no such name"), ("speaker", "x" * 300, "no such name"), ("note", "\x9b31m", "no such name"),
        ("route", "sideways", "none of native, grid"), ("status", "great", "none of ok"), ("truth", "eq9", "does not"),
        ("countermeasure", "wavlm", "does not"), ("dataset", "vocv4", "does not"), ("value", float("inf"), "finite value"),
        ("value", float("nan"), "finite value"), ("value", 1e300, "finite value"), ("note", None, "lacks a value"),
    ],
)  # fmt: skip
def test_rows_with_what_no_run_has_are_refused(pack, tmp_path, name, value, why):
    rows = table(pack)
    values = rows[name].to_pylist()
    assert why in refused(with_rows(pack, tmp_path / "h.zip", column(rows, name, [*values[:-1], value])))


def test_rows_twice_in_disorder_of_other_columns_or_none_are_refused(pack, tmp_path):
    rows, out = table(pack), tmp_path / "h.zip"
    assert "there twice" in refused(with_rows(pack, out, pa.concat_tables([rows, rows.slice(143)])))
    assert "not in the order" in refused(with_rows(pack, out, rows.take(np.arange(143, -1, -1))))
    assert "other columns" in refused(with_rows(pack, out, rows.drop_columns(["note"])))
    assert "other columns" in refused(with_rows(pack, out, rows.append_column("code", pa.array(["x"] * 144))))
    text = rows.set_column(10, "value", rows["value"].cast(pa.string()))
    assert "other columns" in refused(with_rows(pack, out, text))
    assert "no rows" in refused(with_rows(pack, out, rows.slice(0, 0)))
    assert "not a whole parquet file" in refused(altered(pack, out, rows=b"PAR1" + bytes(100) + b"PAR1"))


def test_a_short_file_that_says_it_is_huge_is_refused(pack, tmp_path):
    """Ten million equal rows take a few kilobytes."""
    count = 9_000_000
    same = {
        f.name: pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int8)), ["x"])
        if f.type == pa.string() else pa.array(np.zeros(count)) for f in SCHEMA
    }  # fmt: skip
    path = with_rows(pack, tmp_path / "h.zip", pa.table(same))
    assert path.stat().st_size < 1 << 21 and "more than a pack may have" in refused(path)


# --- the record ------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda r: r.pop("identity"), "identity"),
        (lambda r: r["identity"]["grid"].update(n_fft=1 << 30), "whole number"),
        (lambda r: r["identity"]["grid"].update(hop=1), "hop of 1"),
        (lambda r: r["identity"]["grid"].update(hop=8, n_fft=64), "hop of 8 samples for windows of 64"),
        (lambda r: r["identity"]["grid"].update(hop=160.5), "whole number"),
        (lambda r: r["identity"].update(data="/etc/passwd"), "no data set"),
        (lambda r: r["identity"].update(seed=-1), "whole number"),
        (lambda r: r["identity"].update(preset=["quick"]), "TypeError"),
        (lambda r: r["identity"].update(precision="fp8"), "precision"),
        (lambda r: r["dataset"].update(pairs=True), "whole number"),
        (lambda r: r["truths"]["eq2"].update(kernel=[3, 99_999]), "described"),
        (lambda r: r["truths"]["eq2"].update(evil=1), "TypeError"),
        (lambda r: r["truths"].update(x=r["truths"]["eq2"]), "described"),
        (lambda r: r["countermeasures"]["lcnn"].update(weights="../w"), "sha256"),
        (lambda r: r["countermeasures"]["lcnn"].update(eer=10**400), "void"),
        (lambda r: r["countermeasures"]["lcnn"].update(void="x"), "void"),
        (lambda r: r["environment"].update(git_dirty=True), "uncommitted"),
        (lambda r: r.update(earlier=[1]), "TypeError"),
        (lambda r: r.update(workers=["x"]), "worker"),
        (lambda r: r["spec"].update(options={"lime": {"file": "/etc/passwd"}}), "not one a pack may have"),
        (lambda r: r["spec"].update(options={"lime": {"file": "..\\x"}}), "not one a pack may have"),
        (lambda r: r["spec"].update(options={"lime": {"samples": 10**12}}), "not one a pack may have"),
        (lambda r: r["spec"].update(options={"lime": {"samples": {"a": 1}}}), "not one a pack may have"),
        (lambda r: r["spec"].update(cm_options={"lcnn": {"ssl": "~/x"}}), "not one a pack may have"),
    ],
)
def test_a_record_that_asks_for_what_it_may_not_is_refused(pack, tmp_path, change, why):
    record = json.loads(parts(pack)[RUN])
    change(record)
    assert why in refused(altered(pack, tmp_path / "h.zip", run=json_bytes(record)))


# --- what a stranger's text becomes on paper ------------------------------------------------------------

NASTY = "`<script>alert(1)</script>` | [x](javascript:y) ![i](//e.org/p) @everyone #1 **b** =1+1 \x1b[2J\u202e"


def verdict(text: str) -> Verdict:
    cell = Cell(text, text, text, text, text, text, text, text, None, text, None, 0.0, None, text)
    claim = Claim(text, text, text, text, text, 0.5, text, 0.4, 0.3, 0.5, 1, 1)
    return Verdict("a" * 64, 0, 10, (Question(text, None, text),), (cell,), (text,), (text,), (claim,))


def test_a_strangers_text_stays_text():
    shown = verdict(NASTY)
    for text in (report.as_text(shown), report.as_markdown(shown), report.as_json(shown)):
        assert "\x1b" not in text and "\u202e" not in text
    page = report.as_markdown(shown)
    assert "<" not in page
    outside = "".join(page.replace("\\|", "").split("`")[::2])  # what is not between backticks
    assert not {*"<>[]!@#*="} & set(outside.replace("## Pack", "").replace("**CANNOT", "").replace("here.**", "")
                                     .replace("told: ", "").replace("[95 %]", "").replace("**", ""))  # fmt: skip
    widths = {
        line.count("|") - line.count("\\|") for line in page.splitlines() if line.startswith("| ") and "text" not in line
    }
    assert widths == {8, 4, 12}, "a bar within a cell does not make another cell"


def test_what_is_plain_stays_plain():
    page = report.as_markdown(verdict("grad-cam"))
    assert "`" not in page and "| grad-cam |" in page


# --- mutations ------------------------------------------------------------

places = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6)


def mutated(content: bytes, changes: list[tuple[float, int]]) -> bytes:
    found = bytearray(content)
    for place, byte in changes:
        found[int(place * len(found))] = byte
    return bytes(found)


@settings(max_examples=300)
@given(changes=places)
def test_no_change_of_a_few_bytes_is_accepted_or_crashes(pack, tmp_path_factory, changes):
    content = mutated(pack.read_bytes(), changes)
    path = tmp_path_factory.getbasetemp() / f"m-{hashlib.sha256(content).hexdigest()[:16]}.zip"
    path.write_bytes(content)
    try:
        members = read_pack(path)
        assert content == pack.read_bytes() and members.rows == parts(pack)[ROWS]
    except SubmissionError as error:
        assert str(error).isprintable()
    finally:
        path.unlink()


@settings(max_examples=300)
@given(changes=places)
def test_no_change_of_the_rows_crashes(pack, changes):
    try:
        read_table(mutated(parts(pack)[ROWS], changes))
    except SubmissionError as error:
        assert str(error).isprintable()


def test_an_end_record_that_lies_is_refused(pack, tmp_path):
    data = pack.read_bytes()
    for field, value in ((2, 1), (4, 9), (5, 4_000_000_000), (6, 0)):
        numbers = list(struct.unpack("<4s4H2LH", data[-22:]))
        numbers[field] = value
        (tmp_path / "h.zip").write_bytes(data[:-22] + struct.pack("<4s4H2LH", *numbers))
        assert "zip" in refused(tmp_path / "h.zip")
