"""Files that name other files, folders in which somebody laid links: nothing is read or written elsewhere or hangs."""

from __future__ import annotations

import json
import os
import random
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import seeds
import soundfile

from xaibench import cache, reading
from xaibench.cli.words import options_of
from xaibench.datasets import folder, make_pairs
from xaibench.datasets.index import index
from xaibench.datasets.store import Facts, Store
from xaibench.errors import ManifestError, RunError, SubmissionError, XaibenchError
from xaibench.manifest import read_manifest, stream
from xaibench.reading import Root
from xaibench.submission.claims import read_claims

PARTS = (
    "..",
    ".",
    "",
    "a",
    "in",
    "out",
    "round",
    "deep",
    "~",
    "..\\",
    "C:",
    "\\\\x",
    "\u2025",
    "\uff0e\uff0e",
    "a\0b",
    "x" * 300,
    " ",
    "..;",
    "%2e%2e",
    "\udc80",
    "up",
    "etc",
    "passwd",
    "-rf",
    "con",
    "a:b",
    "\n",
    "\u202e",
)


@pytest.fixture
def tree(tmp_path):
    """A root with a file, a folder, and links: out, round, up, and within."""
    root = tmp_path / "root"
    (root / "in/deep").mkdir(parents=True)
    (root / "in/a").write_text("mine")
    (tmp_path / "secret").write_text("secret")
    (root / "out").symlink_to(tmp_path)
    (root / "round").symlink_to("round")
    (root / "up").symlink_to("..")
    (root / "in/back").symlink_to("../in/a")
    (root / "in/steal").symlink_to(tmp_path / "secret")
    return root


def test_ten_thousand_names_stay_within_the_root(tree):
    draw, within = random.Random(seeds.SEED or 0), 0
    place, top = Root(tree), tree.resolve()
    for _ in range(10_000):
        name = draw.choice(("", "", "", "/")) + draw.choice(("/", "/", "\\")).join(
            draw.choice(PARTS) for _ in range(draw.randrange(1, 6))
        )
        try:
            found = place(name)
        except ValueError as error:
            assert str(error).isprintable() and len(str(error)) < 1_000
            continue
        assert Path(os.path.realpath(found)).is_relative_to(top), name
        within += 1
    assert 500 < within < 9_000
    assert place("in/back") == top / "in/a"
    for name in ("in/steal", "out/secret", "up/secret", "in/../../secret", str(top / "../secret")):
        with pytest.raises(ValueError, match="leaves the root"):
            place(name)


TOML = 'name = "x"\ntable = "x.csv"\nsample_rate = 16000\nvalid_band = [0.0, 8000.0]\n'
DEEP = {
    "a key of parts": "splits." + ".".join(["a"] * 500) + " = 1",
    "a key of 100,000 parts": "splits." + ".".join(["a"] * 100_000) + " = 1",  # tomllib alone takes minutes
    "a header of parts": "[splits." + ".".join(["a"] * 100_000) + "]",
    "quoted parts": "splits." + ".".join(['"a"'] * 100_000) + " = 1",
    "tables in tables": "splits = " + "{a = " * 5_000 + "1" + "}" * 5_000,
    "lists in lists": "roots = " + "[" * 5_000 + "]" * 5_000,
    "a long number": "files = " + "9" * 10_000,
    "a zero byte": "title = '\0'",
}


@pytest.mark.parametrize("name", DEEP)
def test_a_manifest_that_would_never_be_read(name, tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(TOML + DEEP[name])
    (tmp_path / "x.csv").write_text("utt_id\n")
    for read in (read_manifest, lambda path, root: list(stream(path, root))):
        with pytest.raises(ManifestError, match=r"x\.toml: not TOML") as caught:
            read(path, tmp_path)
        assert str(caught.value).isprintable()
    with pytest.raises(SubmissionError, match=r"x\.toml: (not TOML|400,084 bytes)"):
        read_claims(path, [])


def test_claims_of_a_pipe_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "claims.toml")
    with pytest.raises(SubmissionError, match="a pipe or a device"):
        read_claims(tmp_path / "claims.toml", [])


HOSTILE_JSON = [
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"[]",
    b"\xff\xfe",
    b'{"a": 1',
    b"9" * 10_000,
    b"",
    b'{"files": 7}',
    b'{"files": [["a"]]}',
]


@pytest.mark.parametrize("content", HOSTILE_JSON, ids=range(len(HOSTILE_JSON)))
def test_caches_of_somebody_else_cost_an_answer_and_no_more(content, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = cache.place("x")
    path.parent.mkdir()
    path.write_bytes(content)
    assert isinstance(cache.kept("x"), dict)
    cache.keep("x", {"a": 1})
    assert cache.kept("x") == {"a": 1} and path.stat().st_mode & 0o022 == 0
    path.unlink()
    os.mkfifo(path)
    assert cache.kept("x") == {}


def test_a_link_in_the_cache_is_replaced_and_not_written_through(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache/xaibench").mkdir(parents=True)
    (tmp_path / "mine").write_text("mine")
    cache.place("x").symlink_to(tmp_path / "mine")
    cache.keep("x", {"a": 1})
    assert (tmp_path / "mine").read_text() == "mine" and cache.kept("x") == {"a": 1}


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 10_000, "{" * 9, "\udcff", '{"a":' * 5_000])
def test_an_option_that_is_no_json_is_text(text):
    assert options_of([f"m.o={text}"]) == {"m": {"o": text}}


# Folders that are written to ----------------------------------------------------------------------------------------------


def recordings(top: Path, *names: str) -> Path:
    draw = np.random.default_rng(0)
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(top / name, 0.1 * draw.standard_normal(24_000), 16_000)
    return top


@pytest.fixture
def vocoder(monkeypatch):
    from xaibench.protocols import Vocoder

    made = Vocoder(name="toy", function=lambda x, rate: x, paper="none")
    monkeypatch.setattr(make_pairs.registry, "load", lambda group, name: made)


def test_pairs_are_not_written_through_links(tmp_path, vocoder):
    source, out, away = recordings(tmp_path / "in", "a.wav"), tmp_path / "out", tmp_path / "away"
    away.mkdir()
    (away / "a.flac").write_text("mine")
    out.mkdir()
    (out / "toy").symlink_to(away)
    with pytest.raises(ManifestError, match="leaves the root"):
        make_pairs.make_pairs(["toy"], source, out)
    assert (away / "a.flac").read_text() == "mine" and len(list(away.iterdir())) == 1
    (out / "toy").unlink()
    (out / "toy").mkdir()
    (out / "toy/a.flac").symlink_to(away / "new.flac")  # it is not there: no file, so not done
    with pytest.raises(ManifestError, match="leaves the root"):
        make_pairs.make_pairs(["toy"], source, out)
    (out / "toy/a.flac").unlink()
    (out / "toy/.a.flac.part").symlink_to(away / "a.flac")
    make_pairs.make_pairs(["toy"], source, out)
    assert (away / "a.flac").read_text() == "mine" and {p.name for p in away.iterdir()} == {"a.flac"}


@pytest.mark.parametrize(
    "suffix", [".csv.part", ".toml.part", ".roots.json.part", ".toml", ".csv", ".roots.json", ".problems.txt", ".index"]
)
def test_an_index_is_not_written_through_links(suffix, tmp_path):
    root, out = tmp_path / "root", tmp_path / "out"
    recordings(root, "bonafide/a.wav", "toy/a.wav")
    out.mkdir()
    (tmp_path / "mine").write_text("mine")
    (out / f"{folder.layout.name}{suffix}").symlink_to(tmp_path / "mine")
    if suffix == ".index":
        with pytest.raises(ManifestError, match="it is a link"):
            index(folder.layout, {"main": root}, out)
    else:
        assert index(folder.layout, {"main": root}, out).files == 2
    assert (tmp_path / "mine").read_text() == "mine"


STORES = {
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON files BEGIN DELETE FROM files; END",
    "a view": "CREATE VIEW v AS SELECT 1",
    "a further table": "CREATE TABLE other (a)",
    "a run of text": "INSERT INTO files (root, path, run) VALUES ('a', 'b', 'zzz')",
}


@pytest.mark.parametrize("name", STORES)
def test_the_index_of_an_enemy_is_refused(name, tmp_path):
    path = tmp_path / "x.index"
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute(STORES[name])
    db.close()
    with pytest.raises(ManifestError, match=r"x\.index: cannot be used \(it is no index of this version\)"):
        Store(path)


def test_facts_of_another_form_are_refused(tmp_path):
    path = tmp_path / "x.index"
    store = Store(path)
    store.put(Facts("main", "a.wav", 1, 1))
    store.commit()
    store.db.execute("UPDATE files SET rate = 'fast'")
    with pytest.raises(ManifestError, match=r"x\.index: damaged \(facts of another form\)"):
        store.earlier("main", "a.wav")
    store.close()


def test_json_that_is_no_object_names_its_file(tmp_path):
    for number, content in enumerate(HOSTILE_JSON[:7]):
        path = tmp_path / f"{number}.json"
        path.write_bytes(content)
        with pytest.raises(XaibenchError, match=rf"{number}\.json: (damaged|expected an object)"):
            reading.json_object(path, RunError, hint="x")
    (tmp_path / "good.json").write_text(json.dumps({"a": 1}))
    assert reading.json_object(tmp_path / "good.json", RunError, hint="x") == {"a": 1}
