"""The page, its figures and its numbers, from invented sections."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from xaibench.audit.page import LONGEST, as_json, page, write_page
from xaibench.audit.section import Section
from xaibench.errors import RunError

TABLE = pd.DataFrame(
    {
        "truth": ["eq2", "|log difference|"], "score": [0.25, np.nan], "score low": [0.125, np.nan],
        "score high": [0.5, np.nan], "pairs": [8, 0], "skill": [0.75, 0.5], "tau": [0.5, -1.0], "low": [0.25, -1.0],
        "high": [0.75, np.nan], "too high": [7.5, 2.5],
    }
)  # fmt: skip


def draw():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    return figure


def section(table: pd.DataFrame = TABLE, **changes: object) -> Section:
    facts = {"name": "use", "title": "Does it?", "question": "Asked <so>.", "answer": ("Yes | no.", "Also."), "draw": draw}
    return Section(**{**facts, "table": table, **changes})


FACTS = {"Data": "toy | more", "Methods": "a, b"}


def test_every_cell_stands_once_and_intervals_beside_their_means():
    lines = page([section()], title="Audit", facts=FACTS).splitlines()
    table = lines[lines.index("| truth | score | pairs | skill | tau | too high |") :]
    assert table == [
        "| truth | score | pairs | skill | tau | too high |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| eq2 | .250 [.125, .500] | 8 | .750 | .500 [.250, .750] | 7.50 |",
        "| \\|log difference\\| | - | 0 | .500 | -1.00 | 2.50 |",
    ]


def test_answers_first_then_each_part_with_its_question_figure_and_table():
    text = page([section(), section(name="more", title="And?", draw=None)], title="Audit of x", facts=FACTS)
    assert text.startswith(
        "# Audit of x\n\n- Data: toy \\| more\n- Methods: a, b\n\n## In short\n\n- **Does it?** Yes \\| no."
    )
    order = ["## In short", "- **And?**", "## Does it?", "Asked &lt;so>.", "- Also.", "![Does it?](figures/use.png)",
             "| truth |", "## And?"]  # fmt: skip
    places = [text.index(word) for word in order]
    assert places == sorted(places) and "figures/more.png" not in text
    assert text.endswith("|\n") and not text.endswith("\n\n")


def test_long_tables_say_where_the_rest_is_and_empty_ones_keep_their_heading():
    long = pd.DataFrame({"n": range(LONGEST + 5)})
    lines = page([section(long)], title="t", facts={}).splitlines()
    assert f"| {LONGEST - 1} |" in lines and f"| {LONGEST} |" not in lines
    assert lines[-1] == "5 further lines are in audit.json."
    assert page([section(TABLE.iloc[:0])], title="t", facts={}).rstrip().endswith("---: |")


def test_json_holds_every_number_and_null_for_the_unknown():
    odd = TABLE.assign(single=np.array([np.nan, 1.5], dtype=np.float32), flag=[True, False], far=[np.inf, 1.0])
    content = json.loads(as_json([section(odd)], title="Audit", facts=FACTS))
    assert content["title"] == "Audit" and content["facts"] == FACTS
    (only,) = content["sections"]
    assert {k: only[k] for k in ("name", "title", "question", "answer")} == {
        "name": "use", "title": "Does it?", "question": "Asked <so>.", "answer": ["Yes | no.", "Also."]
    }  # fmt: skip
    assert list(only["table"][0]) == list(odd.columns)
    back = pd.DataFrame(only["table"])
    for name in odd.columns:
        expected = [None if isinstance(v, float) and not np.isfinite(v) else v for v in odd[name].astype(object)]
        assert [None if isinstance(v, float) and np.isnan(v) else v for v in back[name].astype(object)] == expected, name
    assert only["table"][1]["score"] is None and only["table"][0]["single"] is None and only["table"][0]["far"] is None


def test_files_are_written_and_the_same_again(tmp_path):
    sections = [section(), section(name="bare", draw=None)]
    paths = write_page(sections, tmp_path / "deep" / "audit", title="Audit", facts=FACTS)
    assert [p.relative_to(tmp_path / "deep" / "audit").as_posix() for p in paths] == [
        "audit.md", "audit.json", "figures/use.png"
    ]  # fmt: skip
    before = [p.read_bytes() for p in paths]
    assert before[0].decode() == page(sections, title="Audit", facts=FACTS)
    assert before[2].startswith(b"\x89PNG") and b"Software" not in before[2]
    write_page(sections, tmp_path / "deep" / "audit", title="Audit", facts=FACTS)
    assert [p.read_bytes() for p in paths] == before
    assert sorted(p.name for p in (tmp_path / "deep" / "audit").iterdir()) == ["audit.json", "audit.md", "figures"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"file/audit/.+: cannot be written \(.+\); choose another --out"):
        write_page([section()], tmp_path / "file" / "audit", title="t", facts={})
    (tmp_path / "taken" / "audit.md").mkdir(parents=True)
    with pytest.raises(RunError, match=r"audit\.md: cannot be written"):
        write_page([section()], tmp_path / "taken", title="t", facts={})
