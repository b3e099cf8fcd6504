"""Write docs/tutorial.ipynb: the cells of docs/tutorial.py, run in a fresh kernel.

python docs/notebook.py            (a test fails when the cells of the notebook are not those of its source)
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

SOURCE = Path(__file__).parent / "tutorial.py"
NOTEBOOK = Path(__file__).parent / "tutorial.ipynb"
LONGEST = 600  # seconds a cell may take


def notebook(text: str) -> nbformat.NotebookNode:
    """A notebook of a source in percent format: `# %%` begins a cell of code, `# %% [markdown]` one of text.

    What stands before the first cell is for readers of the source only.
    """
    cells = []
    parts = re.split(r"^# %%(.*)\n", text, flags=re.M)[1:]
    for number, (mark, body) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
        if "[markdown]" in mark:
            lines = [re.sub(r"^# ?", "", line) for line in body.strip().splitlines()]
            cell = nbformat.v4.new_markdown_cell("\n".join(lines))
        else:
            cell = nbformat.v4.new_code_cell(body.strip())
        cell["id"] = f"cell-{number:02d}"
        cells.append(cell)
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=about)


def executed(book: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """The notebook run from its first cell to its last in `folder`. Raises CellExecutionError where a cell fails."""
    client = NotebookClient(book, timeout=LONGEST, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute()
    return plain(book)


def plain(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without the clock, and without bars that are gone."""
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not _empty(o)]
    book.metadata.pop("widgets", None)
    book.metadata["language_info"] = {"name": "python"}
    return book


def _empty(output: Any) -> bool:
    return output.output_type == "display_data" and not any(str(v).strip() for v in output.data.values())


def main() -> None:
    """Write the notebook."""
    with tempfile.TemporaryDirectory() as folder:  # its runs are not for the repository
        book = executed(notebook(SOURCE.read_text(encoding="utf-8")), Path(folder))
    nbformat.write(book, NOTEBOOK)
    sys.stdout.write(f"{NOTEBOOK}: {NOTEBOOK.stat().st_size / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main()
