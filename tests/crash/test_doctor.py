"""`xaibench doctor`: what it finds, what it repairs, and that a repair and a run give the rows of an untouched run."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import toybench
from crashing import SEED, rows, told

from xaibench import checksums, lock
from xaibench.errors import RunError
from xaibench.harness import doctor
from xaibench.harness.run import run


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    toybench.install(monkeypatch, "toy-gradient", "toy-crash")


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """A finished run with maps and a failed cell."""
    with pytest.MonkeyPatch.context() as patch:
        toybench.install(patch, "toy-gradient", "toy-crash")
        out = tmp_path_factory.mktemp("finished")
        again(root, out)
    return out


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def again(root, out, **changes):
    spec = toybench.spec(root, "toy-gradient", "toy-crash", **{"keep_maps": True, "limit": 2, **changes})
    return run(spec, out, batch_size=1)


def first(folder, pattern: str):
    return sorted(folder.rglob(pattern))[0]


def edit(path, find: bytes, put: bytes) -> None:
    assert find in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(find, put))


def resum(run_, path) -> None:
    """As if the damage had been there when the file was written."""
    sums = {name: values[-1] for name, values in checksums.read(run_)[0].items()}
    checksums.write(run_, {**sums, path.relative_to(run_).as_posix(): checksums.digest(path.read_bytes())})


# ---- one damage each ---------------------------------------------------------------------------------------------------


def scratch(run_):
    (run_ / "rows" / ".xaibench-0123.tmp").mkdir()
    (run_ / "maps" / "toy" / ".old.safetensors.77.tmp").write_bytes(b"half")
    (run_ / ".scratch").mkdir()


def torn(run_):
    with (run_ / checksums.NAME).open("a") as file:
        file.write("0123")


def unlisted(run_):
    lines = (run_ / checksums.NAME).read_text().splitlines(keepends=True)
    (run_ / checksums.NAME).write_text("".join(lines[1:]))


def cut(run_):
    path = first(run_ / "rows", "*.parquet")
    path.write_bytes(path.read_bytes()[:-9])


def other_columns(run_):
    path = first(run_ / "rows", "*.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["note"]), path)
    resum(run_, path)


def no_value(run_):
    path = next(p for p in sorted((run_ / "rows").rglob("*.parquet")) if "gradient" in str(p))
    table = pq.read_table(path).to_pandas().assign(value=float("nan"))
    table.to_parquet(path)
    resum(run_, path)


def elsewhere(run_):
    path = first(run_ / "rows", "*.parquet")
    target = path.parent.parent / "other" / path.name
    target.parent.mkdir()
    os.rename(path, target)


def doubled(run_):
    path = first(run_ / "rows", "*.parquet")
    shutil.copy(path, path.with_name("00009-copy.parquet"))


def other_print(run_):
    path = first(run_ / "rows", "*.parquet")
    table = pq.read_table(path).to_pandas()
    table.loc[0, "fingerprint"] = "0" * 16
    table.to_parquet(path)
    resum(run_, path)


def lost_rows(run_):
    first(run_ / "rows", "*.parquet").unlink()


def folder_for_rows(run_):
    path = first(run_ / "rows", "*.parquet")
    path.unlink()
    path.mkdir()
    (path / "x").write_text("")


def bad_map(run_):
    path = first(run_ / "maps" / "toy", "*.safetensors")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def bad_truth(run_):
    first(run_ / "maps" / "truth", "*.safetensors").write_bytes(b"")


def swapped_maps(run_):
    one, other = sorted((run_ / "maps" / "toy" / "native" / "toy-gradient").iterdir())
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def bad_record(run_):
    (run_ / "run.json").write_text("{")


def no_record(run_):
    (run_ / "run.json").unlink()


def bad_verdict(run_):
    edit(first(run_ / "preflight", "*gradient*.json"), b'"void": ""', b'"void": "x"')


def bad_traceback(run_):
    first(run_ / "errors", "*.txt").write_text("")


def bad_warning(run_):
    path = run_ / "warnings" / "toy" / "w.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"warnings": 3}')


def folder_for_checksums(run_):
    (run_ / checksums.NAME).unlink()
    (run_ / checksums.NAME).mkdir()


def folder_for_lock(run_):
    (run_ / lock.NAME).unlink()
    (run_ / lock.NAME).mkdir()


def file_for_maps(run_):
    shutil.rmtree(run_ / "maps")
    (run_ / "maps").write_text("in the way")


#: What is done, and what is said of it; cells that the next run computes.
DAMAGE = {
    scratch: ("half-written, by a process that has ended", 0),
    torn: ("1 line is torn", 0),
    unlisted: ("no line in SHA256SUMS", 0),
    cut: ("not as it was written", 2),
    other_columns: ("it lacks note", 2),
    no_value: ("is ok without a finite one", 2),
    elsewhere: ("rows of something else", 2),
    doubled: ("has cells that another row file has", 0),
    other_print: ("have different fingerprints", 2),
    lost_rows: ("is not there", 2),
    folder_for_rows: ("rows/toy", 2),
    bad_map: ("its SHA-256 differs", 0),
    bad_truth: ("damaged", 0),
    swapped_maps: ("a map of something else", 0),
    bad_record: ("not as it was written", 0),
    no_record: ("missing", 0),
    bad_verdict: ("not as it was written", 0),
    bad_traceback: ("the traceback of failed cells is lost", 0),
    bad_warning: ("the rows stay", 0),
    folder_for_checksums: ("a folder, expected a file", 0),
    folder_for_lock: ("a folder, expected a file", 0),
    file_for_maps: ("a file, expected a folder", 0),
}  # fmt: skip


def test_a_finished_run_is_healthy_and_stays_as_it_is(copy):
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    assert doctor.examine(copy) == doctor.repair(copy) == []
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_is_found_repaired_and_computed_again(root, finished, copy, damage):
    words, cells = DAMAGE[damage]
    damage(copy)
    everything = sum(1 for p in copy.rglob("*") if p.is_file() and ".tmp" not in str(p))
    found = doctor.examine(copy)
    assert any(words in str(finding) for finding in found), found
    assert any(f.ill for f in found) or damage is no_record
    assert doctor.examine(copy) == found, "to look changes nothing"
    repaired = doctor.repair(copy)
    assert {f.file for f in found if f.ill} <= {f.file for f in repaired if f.repaired}
    assert not any(f.ill for f in repaired) and not any(f.ill for f in doctor.examine(copy))
    assert not any(f.repaired for f in doctor.repair(copy)), "a second time there is nothing to repair"
    assert sum(1 for p in copy.rglob("*") if p.is_file()) >= everything, "nothing is deleted"
    assert again(root, copy).computed == cells
    assert rows(copy).equals(rows(finished))
    assert not [f for f in doctor.examine(copy) if f.ill or f.cure == "run"]


def test_a_map_of_another_seed_is_not_that_of_these_rows(root, finished, copy, tmp_path):
    """Same place, whole, and named for the same utterance: only the fingerprint tells."""
    again(root, tmp_path / "other", seed=1)
    theirs = first(tmp_path / "other" / "maps" / "toy", "*.safetensors")
    mine = copy / theirs.relative_to(tmp_path / "other")
    shutil.copy(theirs, mine)
    found, missing = doctor.examine(copy)
    assert missing.file == found.file and missing.cure == "run"
    assert found.file == str(mine.relative_to(copy)) and "a map of other code, weights, options or seed" in found.what
    doctor.repair(copy)
    again(root, copy)
    assert mine.read_bytes() == (finished / mine.relative_to(copy)).read_bytes() and doctor.examine(copy) == []


def test_a_file_s_name_takes_one_line_whatever_it_is(copy):
    (copy / "rows" / "a\nb.txt").write_text("")
    (found,) = doctor.examine(copy)
    assert str(found).startswith("rows/a\\nb.txt: ") and "\n" not in str(found)


def test_maps_that_are_gone_are_for_the_run(root, copy):
    shutil.rmtree(copy / "maps")
    found = doctor.examine(copy)
    assert {f.cure for f in found} == {"run"} and len(found) == 3 + 2, "maps of ok rows, and truths"
    assert doctor.repair(copy) == found
    again(root, copy)
    assert doctor.examine(copy) == []


def test_maps_without_rows_are_for_the_run(root, finished, copy):
    shutil.rmtree(copy / "rows")
    found = [f for f in doctor.examine(copy) if "a map without rows" in f.what]
    assert len(found) == 3 and {f.cure for f in found} == {"run"}
    assert again(root, copy).computed == 8 and rows(copy).equals(rows(finished))
    assert doctor.examine(copy) == []


def test_what_is_put_away_twice_is_kept_twice(root, copy):
    for _ in range(2):
        cut(copy)
        doctor.repair(copy)
        again(root, copy)
    assert len(list((copy / "damaged").rglob("*.parquet*"))) == 2


def test_strangers_are_named_and_left_alone(copy):
    (copy / "board.html").write_text("mine")
    (copy / "rows" / "note.txt").write_text("mine")
    found = doctor.repair(copy)
    assert [f.file for f in found] == ["board.html", "rows/note.txt"] and not any(f.ill for f in found)
    assert (copy / "rows" / "note.txt").read_text() == "mine"


def test_a_folder_that_somebody_writes_to_is_named_and_not_touched(copy):
    cut(copy)
    with lock.held(copy):
        found = doctor.examine(copy)
        assert any(f"(process {os.getpid()} on " in f.what and f.cure == "hand" for f in found)
        with pytest.raises(RunError, match="another process is running in this folder"):
            doctor.repair(copy)
    assert not (copy / "damaged").exists()


def test_a_folder_that_is_no_run_is_said_to_be_none(tmp_path):
    (tmp_path / "a.txt").write_text("")
    for folder in (tmp_path, tmp_path / "gone", tmp_path / "a.txt"):
        with pytest.raises(RunError, match="expected the --out of `xaibench run`"):
            doctor.examine(folder)


# ---- the command -------------------------------------------------------------------------------------------------------


def test_the_command_says_it_in_sentences_and_in_json(command, copy):
    assert command("doctor", copy) == (0, f"{copy}: healthy\n", "")
    cut(copy)
    code, out, _ = command("doctor", copy)
    assert code == 1 and "rows/toy/native-eq2/toy-crash/0000" in out
    assert f"1 to repair: `xaibench doctor {copy} --repair`" in out
    code, out, _ = command("doctor", copy, "--format", "json")
    told_ = json.loads(out)
    assert code == 1 and not told_["healthy"] and told_["findings"][0].keys() == {
        "file", "what", "consequence", "cure", "repaired",
    }  # fmt: skip
    code, out, _ = command("doctor", copy, "--repair")
    assert code == 0 and "(repaired)" in out and "`xaibench run` with the same options makes what is missing" in out
    assert command("doctor", copy.parent)[0] == 2


def test_it_imports_no_torch_and_no_plugin(copy):
    code = "import sys; from xaibench.harness import doctor; doctor.examine(sys.argv[1])\n"
    code += "bad = [m for m in sys.modules if m == 'torch' or m.startswith('xaibench_')]; assert not bad, bad"
    subprocess.run([sys.executable, "-c", code, str(copy)], check=True)


# ---- any damage --------------------------------------------------------------------------------------------------------


def spoil(run_, random_) -> str:
    """Do something to a file of a run, any of them; says what."""
    path = random_.choice(sorted(p for p in run_.rglob("*") if p.is_file()))
    content = path.read_bytes()
    kind = random_.choice(["bit", "bytes", "cut", "empty", "zeros", "gone", "swap", "folder", "more"])
    if kind == "bit" and content:
        turned = bytearray(content)
        turned[random_.randrange(len(turned))] ^= 1 << random_.randrange(8)
        path.write_bytes(turned)
    elif kind == "bytes" and content:
        at = random_.randrange(len(content))
        path.write_bytes(content[:at] + random_.randbytes(9) + content[at + 9 :])
    elif kind in ("cut", "empty", "zeros"):
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "zeros": bytes(len(content))}[kind])
    elif kind in ("gone", "folder"):
        path.unlink()
        path.mkdir() if kind == "folder" else None
    elif kind == "swap":
        other = random_.choice(sorted(p for p in run_.rglob("*") if p.is_file()))
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
    elif kind == "more":
        path.write_bytes(content + random_.randbytes(20))
    return f"{kind} {path.relative_to(run_)}"


def any_damage(root, finished, folder, count: int) -> None:
    told(SEED)
    random_, expected = random.Random(SEED), rows(finished)
    for _ in range(count):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(finished, folder)
        done = [spoil(folder, random_) for _ in range(random_.choice([1, 1, 2, 4]))]
        assert not any(f.ill for f in doctor.repair(folder)), done
        again(root, folder)
        assert rows(folder).equals(expected), done
        assert not [f for f in doctor.examine(folder) if f.ill or f.cure == "run"], done


def test_after_any_damage_a_repair_and_a_run_give_the_same_rows(root, finished, tmp_path):
    any_damage(root, finished, tmp_path / "run", 12)


@pytest.mark.heavy
@pytest.mark.timeout(7200)
def test_after_any_of_two_thousand_damages_a_repair_and_a_run_give_the_same_rows(root, finished, tmp_path):
    any_damage(root, finished, tmp_path / "run", 2_000)
