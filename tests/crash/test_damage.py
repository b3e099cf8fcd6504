"""Damaged files of a run: an error that names the file, or a row that is computed again; never a number.

Row files cut at every length and with bits turned, run.json of every form, folders in place of files, checksums.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import toybench
from crashing import SEED, files, rows, told

from xaibench import checksums, maps
from xaibench.errors import RunError
from xaibench.harness.results import Store, read_files
from xaibench.harness.run import run
from xaibench.leaderboard.table import read_rows


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """A finished run with maps."""
    with pytest.MonkeyPatch.context() as patch:
        toybench.install(patch, "toy-gradient")
        out = tmp_path_factory.mktemp("finished")
        run(toybench.spec(root, "toy-gradient", "energy", keep_maps=True, limit=2), out, batch_size=1)
    return out


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    toybench.install(monkeypatch, "toy-gradient")


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def first(folder, pattern: str):
    return sorted(folder.rglob(pattern))[0]


def again(root, out, **changes):
    return run(toybench.spec(root, "toy-gradient", "energy", keep_maps=True, limit=2, **changes), out, batch_size=1)


# ---- rows --------------------------------------------------------------------------------------------------------------


def test_a_row_file_cut_at_any_length_is_named(copy):
    path = first(copy, "*.parquet")
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(RunError, match=f"{path}: not as it was written"):
            read_rows([copy])
    (copy / checksums.NAME).unlink()  # and as in a folder of before there were checksums
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(RunError, match=f"{path}: damaged"):
            read_rows([copy])


def test_a_row_file_with_one_bit_turned_is_named(copy):
    told(SEED)
    path, random_ = first(copy, "*.parquet"), random.Random(SEED)
    content = path.read_bytes()
    for _ in range(300):
        turned = bytearray(content)
        turned[random_.randrange(len(content))] ^= 1 << random_.randrange(8)
        path.write_bytes(turned)
        with pytest.raises(RunError, match=f"{path}: not as it was written .*edited, or damaged.*doctor RUN --repair"):
            Store(copy).read_rows()
    path.write_bytes(content)
    assert len(read_rows([copy])) == 8


def test_damage_without_a_checksum_is_the_same_rows_or_an_error_of_ours(copy, tmp_path):
    """pyarrow is given any bytes: the file's own sums of its pages tell what SHA256SUMS no longer can."""
    told(SEED)
    source, random_ = first(copy, "*.parquet"), random.Random(SEED)
    content, expected = source.read_bytes(), read_files([source]).drop(columns="file")
    path, found = tmp_path / "any.parquet", {True: 0, False: 0}
    for _ in range(1_000):
        turned = bytearray(content)
        for _ in range(random_.choice([1, 2, 50])):
            turned[random_.randrange(len(turned))] = random_.randrange(256)
        path.write_bytes(turned)
        try:
            assert read_files([path]).drop(columns="file").equals(expected)
            found[True] += 1
        except RunError as error:
            assert str(path) in str(error)
            found[False] += 1
    assert min(found.values()) > 20


def test_rows_under_the_names_of_others_are_neither_lost_nor_twice(root, copy, finished):
    """Names tell chunks apart: one that is computed again must not be written over rows that were kept."""
    one, other = sorted((copy / "rows" / "toy" / "native-eq2" / "energy").glob("*.parquet"))
    one.unlink()
    other.rename(one)
    (copy / "SHA256SUMS").unlink()
    summary = again(root, copy)
    assert "1 row files hold other cells than their names say" in " ".join(summary.problems)
    pd.testing.assert_frame_equal(rows(copy), rows(finished), check_exact=True)
    assert again(root, copy).computed == 0


def test_a_folder_in_place_of_a_row_file_is_named(copy):
    path = first(copy, "*.parquet")
    path.unlink()
    path.mkdir()
    with pytest.raises(RunError, match=f"{path}: "):
        read_rows([copy])


def test_a_map_with_one_bit_turned_is_named(copy):
    told(SEED)
    path, random_ = first(copy / "maps" / "toy", "*.safetensors"), random.Random(SEED)
    content, whole = path.read_bytes(), maps.read_map(path)
    assert not any("sha256" in key for key in whole.metadata)
    unseen = 0
    for _ in range(300):
        turned = bytearray(content)
        turned[random_.randrange(len(content))] ^= 1 << random_.randrange(8)
        path.write_bytes(turned)
        try:
            found = maps.read_map(path)
        except RunError as error:
            assert str(path) in str(error)
        else:  # a blank of the header
            unseen += 1
            np.testing.assert_array_equal(found.values, whole.values)
            assert found.curves.keys() == whole.curves.keys()
    assert unseen < 10


# ---- run.json ----------------------------------------------------------------------------------------------------------

WRONG = {
    "empty": b"", "cut": b'{"spec": {', "not JSON": b"hello", "no text": b"\xff\xfe", "no object": b"[1]", "null": b"null",
    "deep": b"[" * 100_000, "number": b"1" * 5_000, "no identity": b"{}",
    **{
        f"{name} {json.dumps(value)}": json.dumps({"identity": {}, name: value}).encode()
        for name, values in {
            "spec": ([], None, "x"), "dataset": (1, {"pairs": "many"}), "days": ("x", [{}]), "truths": ([],), "sizes": (3,),
            "countermeasures": ([], {"toy": 1}, {"toy": {"eer": "x"}}), "earlier": ({}, [1], [{"environment": []}]),
        }.items()
        for value in values
    },
}  # fmt: skip


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_a_run_json_that_is_none_is_named_and_what_to_do(root, copy, content):
    (copy / checksums.NAME).unlink()
    (copy / "run.json").write_bytes(content)
    before = {name: (copy / name).read_bytes() for name in files(copy) if name.startswith("rows/")}
    with pytest.raises(RunError, match=r"run\.json: .*(remove it|holds another run|expected an object)"):
        again(root, copy)
    if content not in (b"{}",):
        with pytest.raises(RunError, match=r"run\.json"):
            read_rows([copy])
    (copy / "run.json").unlink()
    assert again(root, copy).computed == 0
    assert {name: (copy / name).read_bytes() for name in before} == before


def test_an_edited_run_json_is_no_number_on_a_board(copy):
    record = json.loads((copy / "run.json").read_text())
    record["countermeasures"]["toy"]["eer"] = 0.01
    (copy / "run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"run\.json: not as it was written"):
        read_rows([copy])


# ---- checksums ---------------------------------------------------------------------------------------------------------


def test_sha256sum_reads_them(copy):
    done = subprocess.run(["sha256sum", "--strict", "-c", checksums.NAME], cwd=copy, capture_output=True, text=True)
    listed = [name for name in files(copy) if name.split("/")[0] not in ("maps", ".lock", checksums.NAME)]
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.splitlines() == [f"{name}: OK" for name in listed]


def test_a_file_without_a_line_and_a_torn_line_are_read_as_before(root, copy):
    expected = rows(copy)
    lines = (copy / checksums.NAME).read_text().splitlines(keepends=True)
    (copy / checksums.NAME).write_text("".join(lines[:3]) + lines[3][:40])
    assert rows(copy).equals(expected)
    again(root, copy, metrics=("rank-accuracy", "drop-twin", "roc-auc"))
    sums, torn = checksums.read(copy)
    assert not torn and all(len(values) == 1 for values in sums.values()) and "run.json" in sums
    assert len(sums) == 3 + 4 + 1, "three of before, four row files, run.json"


def test_of_several_lines_the_right_one_stays(tmp_path):
    for content in (b"one", b"two"):
        (tmp_path / "run.json").write_bytes(content)
        checksums.add(tmp_path, "run.json", checksums.digest(content))
    checksums.add(tmp_path, "run.json", checksums.digest(b"three"))  # killed before that took its place
    checksums.add(tmp_path, "gone", checksums.digest(b""))
    checksums.check(tmp_path / "run.json", b"two", checksums.known(tmp_path))
    checksums.settle(tmp_path)
    assert checksums.read(tmp_path) == ({"run.json": (checksums.digest(b"two"),)}, [])


def test_names_are_the_same_however_the_folder_is_called(copy, monkeypatch):
    monkeypatch.chdir(copy.parent)
    for name in ("run", "./run", "../" + copy.parent.name + "/run"):
        assert len(read_rows([name])) == 8
    monkeypatch.chdir(copy)
    path = first(copy, "*.parquet")
    path.write_bytes(path.read_bytes() + b"\0")
    for name in (".", copy, "../run", ""):
        with pytest.raises(RunError, match="not as it was written"):
            read_rows([name])
