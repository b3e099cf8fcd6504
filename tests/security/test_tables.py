"""Tables for people: no cell is a formula, whoever named the rows; what xaibench reads back is what was written."""

import ast
import csv
import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xaibench.datasets import index
from xaibench.leaderboard.writing import escape
from xaibench.manifest import read_manifest
from xaibench.tables import csv_text, csv_writer, guarded, unguarded

ROOT = Path(__file__).parents[2]
SIGNS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "\u2212")
ODD = "=+-@'\"\t\r\n ;,ab1.e\u00a0\u2003\uff1d\u2212|"
texts = st.text(alphabet=st.sampled_from(ODD), max_size=12) | st.text(max_size=9)
#: Files that write comma-separated values in another way, and why they may.
OTHER = {
    "xaibench/tables.py": "the one way itself",
    "plugins/minivoc/rebuild/assemble.py": "a script of ours that runs without xaibench, on ids of its own making",
    "plugins/minivoc/rebuild/build.py": "the same",
    "plugins/minivoc/tests/test_rebuild.py": "its test",
}


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("before", ["", " ", "\t", "\r", "\n", "\u00a0", "x;", "x\t", "x\n", "x; ", "'", "x;'"])
def test_no_cell_and_no_part_of_one_begins_as_a_formula(before, sign):
    shown = guarded(f"{before}{sign}cmd|' /C calc'!A0")
    for separator in ";\t\r\n":
        assert not [p for p in shown.split(separator) if p.lstrip()[:1] in SIGNS], ascii(shown)
    assert unguarded(shown) == f"{before}{sign}cmd|' /C calc'!A0"


@given(text=texts)
def test_every_text_comes_back_as_it_was(text):
    shown = guarded(text)
    assert unguarded(shown) == text
    assert shown == text or shown.count("'") > text.count("'")
    cells = [shown] + [part for separator in ";\t\r\n" for part in shown.split(separator)]
    assert (shown == text and _is_number(text)) or not any(cell.lstrip()[:1] in SIGNS for cell in cells)


def _is_number(text: str) -> bool:
    try:
        return text.isascii() and float(text) is not None
    except ValueError:
        return False


@given(text=texts)
def test_a_table_has_its_cells_and_headings_guarded_and_its_numbers_as_they_are(text):
    text = "x" if text == "score" else text
    table = pd.DataFrame({text or "x": pd.Categorical([text, "b"]), "score": [-0.5, float("nan")]})
    rows = list(csv.reader(io.StringIO(csv_text(table), newline="")))
    lined = text.replace("\r\n", "\n").replace("\r", "\n")
    assert rows == [[guarded(lined or "x"), "score"], [guarded(lined), "-0.5"], ["b", ""]]
    written = io.StringIO(newline="")
    csv_writer(written)([text, -0.5, "-0.5", None])
    assert next(csv.reader(io.StringIO(written.getvalue(), newline=""))) == [guarded(lined), "-0.5", "-0.5", ""]


def test_what_an_index_guards_a_manifest_reads_as_it_was(tmp_path):
    """The one table of names that xaibench writes and reads back."""
    from xaibench import audio

    names = ["=1+1", "@SUM(A1)", "-x", "'=quoted", "plain"]
    rows = []
    for name in names:
        audio.write(tmp_path / f"{name}.wav", pd.Series([0.0] * 160).to_numpy("float32"), sample_rate=16_000)
        rows.append((name, "s", "eval", "bonafide", f"{name}.wav", "", 160))
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        write = csv_writer(file)
        write(index.COLUMNS)
        for utterance, speaker, split, vocoder, path, sha256, count in rows:
            facts = {"utt_id": utterance, "speaker": speaker, "split": split, "vocoder": vocoder, "path": path,
                     "sha256": sha256, "n_samples": count}  # fmt: skip
            write([facts[c] for c in index.COLUMNS])
    assert "\n=1" not in (tmp_path / "a.csv").read_text(encoding="utf-8")
    (tmp_path / "a.toml").write_text(
        'name = "a"\ntable = "a.csv"\nsample_rate = 16000\nvalid_band = [100, 7000]\n', encoding="utf-8"
    )
    assert [u.source for u in read_manifest(tmp_path / "a.toml", tmp_path).utterances] == names


def _writers(path: Path) -> list[int]:
    """The lines of a file that write comma-separated values themselves."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in ("to_csv", "DictWriter", "write_csv"):
            found.append(node.lineno)
        if isinstance(node, ast.Attribute) and node.attr == "writer" and getattr(node.value, "id", "") == "csv":
            found.append(node.lineno)
        names = {a.name for a in node.names} if isinstance(node, ast.ImportFrom) and node.module == "csv" else set()
        if names & {"writer", "DictWriter"}:
            found.append(node.lineno)
    return found


def test_there_is_one_way_to_write_comma_separated_values():
    files = [p for top in ("xaibench", "plugins") for p in (ROOT / top).rglob("*.py")]
    found = {str(p.relative_to(ROOT)) for p in files if not {"build", "dist", ".venv"} & set(p.parts) and _writers(p)}
    assert found == set(OTHER), "use xaibench.tables.csv_text or csv_writer"


def test_the_way_is_told_from_others(tmp_path):
    for text in ("t.to_csv(x)", "csv.writer(f)", "from csv import DictWriter", "csv.DictWriter(f, [])"):
        (tmp_path / "x.py").write_text(text, encoding="utf-8")
        assert _writers(tmp_path / "x.py") == [1]
    (tmp_path / "x.py").write_text("csv_text(t); csv.reader(f)", encoding="utf-8")
    assert _writers(tmp_path / "x.py") == []


def test_commands_print_through_one_door():
    """`say` and `note` write out what a terminal would obey; a bare `print` would not."""
    bare = [
        f"{path.name}:{node.lineno}"
        for path in sorted((ROOT / "xaibench" / "cli").glob("*.py"))
        if path.name not in ("output.py", "app.py", "stopping.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]  # fmt: skip
    assert not bare


@pytest.mark.parametrize(
    "text",
    ["a|b", "<b>x</b>", "[x](//e.org)", "![i](//e.org/p)", "a\nb", "\\|", "\\\\|", "[x\\](//e.org)", "[x] [y]", "&lt;b&gt;"],
)
def test_a_cell_of_markdown_shows_its_text_and_nothing_else(text):
    """Rendered by a parser of GitHub's dialect: one cell of plain text."""
    markdown = pytest.importorskip("markdown_it", reason="markdown-it-py comes with rich")
    parser = markdown.MarkdownIt("gfm-like", {"html": True, "linkify": False})
    page = parser.render(f"| a | b |\n|---|---|\n| {escape(text)} | z |\n")
    assert page.count("<td>") == 2 and "<td>z</td>" in page
    assert not any(f"<{tag}" in page for tag in ("a ", "img", "b>", "script"))
