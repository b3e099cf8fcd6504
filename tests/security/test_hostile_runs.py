"""Run folders by an enemy: every command that reads one ends with a board or a sentence, and writes nowhere else.

XAIBENCH_TEST_SEED=7 pytest -m heavy tests/security/test_hostile_runs.py      six hundred others
"""

from __future__ import annotations

import json
import os
import random
import resource
from pathlib import Path

import fake_run
import hostile_runs as hostile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import seeds

from xaibench import checksums, lock, maps
from xaibench.errors import RunError
from xaibench.harness import doctor
from xaibench.harness.results import SCHEMA, Store, read_files
from xaibench.leaderboard.reading import read_rows
from xaibench.site import installed

ENDS = (0, 1, 2)


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch):
    """Pages do not ask the plugins that are installed, which takes a process."""
    monkeypatch.setattr(installed, "_ask", lambda group, names, records=(): {})


def check(command, words: tuple, folder: Path, what: object) -> int:
    """Run a command; nothing raw comes out of it, and nothing that a terminal obeys."""
    code, out, err = command(*words)
    assert code in ENDS, (what, words)
    faults = hostile.faults_of_lines(out + err)
    assert "Traceback" not in err and not faults, (what, words, faults)
    assert code or not err.startswith("error"), (what, err)
    return code


def attack(command, folder: Path, seed: int, *, site: bool) -> int:
    """Make a run of this seed, and let the commands read it; the code of the first."""
    draw = random.Random(seed)
    content = hostile.changed(draw, hostile.record()) if draw.random() < 0.7 else hostile.record()
    rows = hostile.hostile_rows(draw) if draw.random() < 0.7 else fake_run.rows(fake_run.SCORES, utterances=1)
    run = hostile.write(folder / "run", rows, content)
    words: tuple = ("leaderboard", run, "--out", folder / "out")
    code = check(command, words if site else (*words, "--formats", "csv,json,md,txt"), folder, seed)
    check(command, ("doctor", run), folder, seed)
    assert not hostile.faults_of_pages(folder / "out"), seed
    assert {p.name for p in folder.iterdir()} <= {"run", "out"}, seed
    return code


def test_sixteen_run_folders_by_an_enemy_give_a_board_or_a_sentence(tmp_path, command):
    ends = [attack(command, tmp_path / str(i), 1_000 * (seeds.SEED or 0) + i, site=i % 8 == 0) for i in range(16)]
    assert 1 < ends.count(0) < 16, "some are to be read, some are to be refused"
    assert [p.name for p in sorted(tmp_path.iterdir())] == sorted(map(str, range(16)))


@pytest.mark.heavy
def test_six_hundred_more(tmp_path, command):
    for i in range(600):
        attack(command, tmp_path / str(i), 10**6 * (1 + (seeds.SEED or 0)) + i, site=i % 3 == 0)


def test_three_hundred_records_by_an_enemy_are_read_or_refused_by_name(tmp_path):
    run = hostile.write(tmp_path / "run", fake_run.rows({"lime": {"iou@5": 0.5}}, utterances=1), hostile.record())
    draw, read = random.Random(seeds.SEED or 0), 0
    for _ in range(300):
        (run / "run.json").write_text(json.dumps(hostile.changed(draw, hostile.record())), encoding="utf-8")
        try:
            read += len(read_rows([run])) == 2
        except RunError as error:
            assert str(run) in str(error)
        if draw.random() < 0.05:
            assert all(isinstance(str(finding), str) for finding in doctor.examine(run))
    assert 30 < read < 270


def mutants(draw: random.Random, content: bytes, count: int):
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(draw.choice((1, 2, 4, 30))):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        yield bytes(changed[: draw.choice((len(changed), len(changed), draw.randrange(len(changed))))])


def test_five_hundred_row_files_with_other_bytes_are_read_or_refused_by_name(tmp_path):
    run = hostile.write(tmp_path / "run", fake_run.rows({"lime": {"iou@5": 0.5}}, utterances=1), hostile.record())
    (file,) = run.rglob("*.parquet")
    draw, read = random.Random(seeds.SEED or 0), 0
    for content in mutants(draw, file.read_bytes(), 500):
        file.write_bytes(content)
        try:
            read += len(read_files([file])) > 0
        except RunError as error:
            assert str(file) in str(error)
    assert 5 < read < 500


# --- bombs ------------------------------------------------------------


def equal(count: int) -> pa.Table:
    """So many rows that are one row."""
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int8)), ["ok"])
    return pa.table({f.name: text if f.type == pa.string() else pa.array(np.zeros(count)) for f in SCHEMA})


def with_note(note: str) -> pa.Table:
    rows = pa.Table.from_pandas(fake_run.rows({"lime": {"iou@5": 0.5}}, utterances=1), schema=SCHEMA, preserve_index=False)
    return rows.set_column(rows.schema.get_field_index("note"), "note", pa.array([note] * len(rows)))


@pytest.mark.parametrize(
    "table",
    [lambda: equal(4_000_000), lambda: with_note("x" * 40_000_000)],
    ids=["four million equal rows", "a note of 40 MB"],
)
def test_a_small_file_that_becomes_a_large_table_is_refused_before_it_is_decoded(tmp_path, table):
    file = tmp_path / "bomb.parquet"
    pq.write_table(table(), file, compression="zstd")
    assert file.stat().st_size < 1 << 18
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RunError, match="more than a row file has"):
        read_files([file])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000, "in kB"


def test_columns_that_no_row_file_has_are_not_read(tmp_path):
    rows = with_note("")
    more = {f"c{i}": pa.array(np.zeros(len(rows))) for i in range(3_000)}
    pq.write_table(pa.table({**{c: rows[c] for c in rows.column_names}, **more}), tmp_path / "wide.parquet")
    assert len(read_files([tmp_path / "wide.parquet"])) == len(rows)


@pytest.mark.parametrize("column", [pa.array([{"a": 1}] * 2), pa.array([["x"]] * 2), pa.array([b"\xff", b"\xfe"])])
def test_columns_of_another_kind_are_refused(tmp_path, column):
    rows = with_note("").slice(0, 2)
    for name in ("note", "value"):
        table = rows.set_column(rows.schema.get_field_index(name), name, column)
        pq.write_table(table, tmp_path / "odd.parquet")
        with pytest.raises(RunError, match=r"odd\.parquet: damaged"):
            read_files([tmp_path / "odd.parquet"])


# --- links, pipes, other names ------------------------------------------------------------


@pytest.fixture
def run(tmp_path) -> Path:
    """A run of invented rows, and beside it a folder of somebody else's."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("mine", encoding="utf-8")
    return hostile.write(tmp_path / "run", fake_run.rows(fake_run.SCORES, utterances=2), hostile.record())


def untouched(tmp_path: Path) -> bool:
    outside = tmp_path / "outside"
    return [p.name for p in outside.iterdir()] == ["secret.txt"] and (outside / "secret.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "name",
    ["rows", "preflight", "warnings", "errors", "rows/lcnn", "rows/aasist", "run.json", "SHA256SUMS", ".lock", "maps",
     "maps/lcnn", "damaged", "stale", "rows/lcnn/native-eq2/any/1.parquet"],
)  # fmt: skip
def test_nothing_is_read_or_written_through_a_link_out_of_a_run(tmp_path, run, command, name):
    """What a link leads to is neither shown nor changed, by any command."""
    place = run / name
    if place.exists():
        place.rename(tmp_path / "aside")
    place.parent.mkdir(parents=True, exist_ok=True)
    file = "." in place.name or place.name == checksums.NAME
    place.symlink_to(tmp_path / "outside" / ("secret.txt" if file else ""))
    writes = name.split("/")[0] in ("maps", "damaged", "stale")
    for words in (("doctor", run, "--repair"), ("doctor", run), ("leaderboard", run)):
        code, out, err = command(*words)
        assert code in ((0, 1, 2) if writes else (1, 2)) and "Traceback" not in err and "mine" not in out + err
    with pytest.raises(RunError, match=r"link"), Store(run).locked():
        pass
    assert untouched(tmp_path) and place.is_symlink()


def test_a_link_within_a_run_is_followed(run):
    (file,) = (run / "rows").rglob("*.parquet")
    kept = file.rename(run / "rows" / "kept")
    file.symlink_to(kept)
    assert len(read_rows([run])) == 48


@pytest.mark.parametrize("name", [".lock", checksums.NAME])
def test_a_file_with_another_name_outside_is_not_written(tmp_path, run, name):
    secret = tmp_path / "outside" / "secret.txt"
    os.link(secret, run / name)
    if name == ".lock":
        with pytest.raises(RunError, match="hard links"), lock.held(run):
            pass
    else:
        with Store(run).locked() as store:
            store.write_json("preflight/x.json", {"void": ""})
        assert checksums.read(run)[0].keys() == {"preflight/x.json"}
    assert untouched(tmp_path)


@pytest.mark.parametrize(
    "name", [".lock", checksums.NAME, "run.json", "errors/x.txt", "preflight/lcnn.json", "rows/x.parquet"]
)
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(run, command, name):
    place = run / name
    place.unlink(missing_ok=True)
    place.parent.mkdir(exist_ok=True)
    os.mkfifo(place)
    for words in (("doctor", run), ("leaderboard", run), ("doctor", run, "--repair")):
        code, _, err = command(*words)
        assert code in ENDS and "Traceback" not in err
    if name == ".lock":
        with pytest.raises(RunError, match="a pipe"), lock.held(run):
            pass


def test_a_lock_of_brackets_is_no_holder(run):
    (run / ".lock").write_bytes(b"[" * 4_000)
    assert lock.killed(run) == {}


def test_a_map_behind_a_link_is_not_read(tmp_path, run):
    mine, theirs = (maps.map_path(where, "lcnn", "native", "lime", "u0/world") for where in (run, tmp_path / "outside2"))
    maps.write_map(theirs, np.zeros((2, 3)), metadata={})
    mine.parent.mkdir(parents=True)
    mine.symlink_to(theirs)
    for path in (mine, *(one.path for one in maps.kept(run))):
        with pytest.raises(RunError, match="a link that leads out"):
            maps.read_map(path)
    mine.unlink()
    mine.parent.rmdir()
    mine.parent.symlink_to(theirs.parent)
    with pytest.raises(RunError, match="a link that leads out"):
        maps.read_map(mine)


def test_a_site_is_not_written_through_a_link(tmp_path, run, command):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "assets").symlink_to(tmp_path / "outside")
    code, _, err = command("leaderboard", run, "--out", tmp_path / "site")
    assert code == 2 and "is a link" in err and untouched(tmp_path)


# --- what a terminal shows ------------------------------------------------------------


def test_markup_and_signs_of_a_terminal_stay_text_on_a_board(tmp_path, command):
    names = {name: {"rank-accuracy": 0.2} for name in ("[/red]a", "[red]b", "c\x1b[2J\x1b]0;x\x07", ":bomb:")}
    run = hostile.write(tmp_path / "run", fake_run.rows({**names, **fake_run.SCORES}), hostile.record())
    for words in (("leaderboard", run), ("compare", run)):
        code, out, _ = command(*words)
        assert code == 0 and not hostile.faults_of_lines(out)
        assert all(name in out.replace("\n", "") for name in ("[/red]a", "[red]b", ":bomb:", "c\\x1b[2J"))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1e308, 10**400, "12", [1]])
def test_a_number_of_a_record_that_counts_nothing_is_refused(tmp_path, number):
    content = hostile.record()
    content["dataset"]["pairs"] = number
    run = hostile.write(tmp_path / "run", fake_run.rows(fake_run.SCORES, utterances=1), content)
    with pytest.raises(RunError, match=r"dataset\.pairs is"):
        read_rows([run])


@pytest.mark.parametrize("name", ["attributors", "countermeasures"])
def test_names_of_a_record_that_are_no_texts_are_refused(tmp_path, name):
    content = hostile.record()
    content["spec"][name] = ["x", []]
    run = hostile.write(tmp_path / "run", fake_run.rows(fake_run.SCORES, utterances=1), content)
    with pytest.raises(RunError, match=rf"spec\.{name}\.1 is list"):
        read_rows([run])


@pytest.mark.parametrize("name", ["x" * 3000, "a/" * 3000, "../../secret", "/etc/passwd", "a\udcff"])
def test_lines_of_checksums_of_what_no_run_has_are_void(tmp_path, name):
    """Also twice, when the file itself would be asked which of the two is right."""
    run = hostile.write(tmp_path / "a" / "run", fake_run.rows(fake_run.SCORES, utterances=1), hostile.record())
    (tmp_path / "secret").write_text("x")
    kept = checksums.read(run)[0]
    with (run / checksums.NAME).open("a", encoding="utf-8", errors="replace") as file:
        file.write(f"{'0' * 64}  {name}\n{'1' * 64}  {name}\n")
    doctor.examine(run)
    checksums.settle(run)
    assert checksums.read(run)[0] == kept
