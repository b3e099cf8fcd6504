"""A site that is written again: what is gone is removed, what is somebody else's stays."""

import json

import fake_run
import pytest

from xaibench.errors import RunError
from xaibench.site import folder, installed
from xaibench.site.build import build


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A run of two countermeasures, and one of the first alone with a method less; nothing is asked of plugins."""
    monkeypatch.setattr(installed, "_ask", lambda group, names: {})
    record = fake_run.run_record()
    record["countermeasures"]["other"] = record["countermeasures"]["lcnn"]
    table = fake_run.rows(fake_run.SCORES)
    both = fake_run.write_run(tmp_path / "both", table, record)
    fake_run.write_run(tmp_path / "both", table.assign(countermeasure="other"), record)
    return both, fake_run.write_run(tmp_path / "one", table[table["attributor"].ne("lime")])


def files(site):
    return {p.relative_to(site).as_posix() for p in site.rglob("*") if p.is_file()}


def test_pages_of_what_is_gone_are_removed_and_the_files_of_others_stay(runs, tmp_path):
    site = tmp_path / "site"
    build([runs[0]], site)
    first = files(site)
    assert {"methods/lime.html", "countermeasures/other.html", folder.NOTE, folder.PLAIN} <= first
    assert set(json.loads((site / folder.NOTE).read_text())["files"]) == first - {folder.NOTE}
    (site / "boards" / "mine.html").write_text("mine")
    (site / "CNAME").write_text("example.org")
    build([runs[1]], site)
    build([runs[1]], tmp_path / "fresh")
    assert files(site) == files(tmp_path / "fresh") | {"boards/mine.html", "CNAME"}
    assert not any("other" in name or "lime" in name for name in files(site))


def test_the_same_build_again_removes_nothing(runs, tmp_path):
    build([runs[1]], tmp_path / "site")
    before = {p: p.read_bytes() for p in (tmp_path / "site").rglob("*") if p.is_file()}
    build([runs[1]], tmp_path / "site")
    assert {p: p.read_bytes() for p in (tmp_path / "site").rglob("*") if p.is_file()} == before


def test_a_build_that_is_interrupted_forgets_nothing(runs, tmp_path, monkeypatch):
    site = tmp_path / "site"
    build([runs[0]], site)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("xaibench.site.build._board_page", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        build([runs[1]], site)
    assert (site / "methods" / "lime.html").is_file()  # the former site is not half gone
    build([runs[1]], site)
    assert not (site / "methods" / "lime.html").exists()


def test_a_note_reaches_no_further_than_its_folder(tmp_path):
    site = tmp_path / "site"
    (site / "boards").mkdir(parents=True)
    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "a.txt").write_text("a")
    (site / "linked").symlink_to(outside)
    (site / "link.html").symlink_to(outside / "a.txt")
    names = ["../precious/a.txt", str(outside / "a.txt"), "linked/a.txt", "link.html", "boards", "", ".", "none.html"]
    (site / folder.NOTE).write_text(json.dumps({"files": [*names, 3, None]}))
    assert folder.settle(site, []) == []
    assert (outside / "a.txt").read_text() == "a" and (site / "link.html").is_symlink() and (site / "boards").is_dir()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', "null", "\xff"])
def test_a_damaged_note_names_nothing(tmp_path, text):
    (tmp_path / folder.NOTE).write_bytes(text.encode("latin-1"))
    assert folder.noted(tmp_path) == set()


def test_somebody_elses_first_page_is_not_written_over(runs, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("<h1>My own page</h1>")
    with pytest.raises(RunError, match="no page of xaibench"):
        build([runs[1]], site)
    assert files(site) == {"index.html"}


def test_a_site_among_the_rows_of_a_run_is_refused(runs):
    with pytest.raises(RunError, match="rows/ of"):
        build([runs[1]], runs[1] / "rows" / "site")
    build([runs[1]], runs[1] / "site")  # beside them it harms nothing
    build([runs[1]], runs[1] / "site")
