"""The tutorial: its committed cells are those of its source, it has been run, and it runs from scratch."""

from __future__ import annotations

import runpy
from pathlib import Path

import nbformat
import pytest

DOCS = Path(__file__).parents[1] / "docs"
BUILDER = runpy.run_path(str(DOCS / "notebook.py"))
SOURCE = (DOCS / "tutorial.py").read_text(encoding="utf-8")
LARGEST = 1_500_000  # bytes of the committed notebook


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(DOCS / "tutorial.ipynb", as_version=4)


def cells(book) -> list[tuple[str, str, str]]:
    return [(cell.id, cell.cell_type, cell.source) for cell in book.cells]


def test_the_committed_cells_are_those_of_the_source(committed):
    assert cells(committed) == cells(BUILDER["notebook"](SOURCE)), "run python docs/notebook.py"


def test_the_committed_notebook_was_run_whole_and_without_a_word_on_stderr(committed):
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= kinds
    nbformat.validate(committed)
    assert (DOCS / "tutorial.ipynb").stat().st_size < LARGEST


def test_the_tutorial_has_every_step_of_the_homework(committed):
    text = "\n".join(cell.source for cell in committed.cells)
    for step in ("load_data", "Audio(", 'countermeasure("lcnn")', "equal_error_rate", "grid.stft", "gaussian_filter1d",
                 "truth_of", "autograd.grad", '"grad-cam"', '"input-x-gradient"', "top(0.05)", '"oracle"', '"random"',
                 'curve("deletion"', "xaibench.run(", "@xaibench.attributor", "2506.03425"):  # fmt: skip
        assert step in text, step


def test_a_source_becomes_cells():
    book = BUILDER["notebook"]("# for readers\n\n# %% [markdown]\n# # Title\n#\n# text\n\n# %%\nx = 1\n\n\nx\n")
    assert cells(book) == [("cell-00", "markdown", "# Title\n\ntext"), ("cell-01", "code", "x = 1\n\n\nx")]


def test_it_runs_from_scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("XAIBENCH_TUTORIAL_UTTERANCES", "2")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    book = BUILDER["executed"](BUILDER["notebook"](SOURCE), tmp_path)
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    (board,) = [o for o in outputs if "What it says" in o.get("data", {}).get("text/html", "")]
    assert {"text/html", "text/markdown", "text/plain"} <= set(board.data)
    assert "grad-cam" in board.data["text/plain"]  # and no library printed the board beside it
    assert (tmp_path / "results" / "tutorial" / "run.json").is_file()
