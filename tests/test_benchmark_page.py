"""The page of a benchmark run: every row and extra column, targets judged, markdown that is well formed."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "page.py"


@pytest.fixture(scope="module")
def bench_page():
    spec = importlib.util.spec_from_file_location("bench_page", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(name, group, least, *, module="test_first", median=None, **extra):
    return {
        "name": name, "fullname": f"benchmarks/{module}.py::{name}", "group": group, "extra_info": extra,
        "stats": {"min": least, "median": least * 1.5 if median is None else median},
    }  # fmt: skip


def report():
    return {
        "machine_info": {
            "node": "some-host", "machine": "x86_64", "python_version": "3.11.7", "cpu": {"brand_raw": "Brand 9000"},
            "xaibench": {"cores": 2, "threads": 1, "flags": ["avx512f"], "device": "cpu", "packages": {"torch": "2.14.1"}},
        },
        "benchmarks": [
            row("test_theirs[AUC]", "AUC", 0.3),
            row("test_ours[AUC]", "AUC", 0.01, ratio=30.0, target="at least 15", gap=5.6e-17),
            row("test_one", "curves", 2.0, **{"ratio bf16": 2.5, "target bf16": "at least 3.5", "note": "a|b\nc"}),
            row("test_level", "curves", 2.2, ratio=1.04),
            row("test_board", None, 2.5, module="test_second", seconds=2.5, gb=1.2, target={"seconds": 3, "gb": 1}),
            row("test_overhead", "harness", 1e-5, module="test_second", ratio=1.2, target="at most 1.1"),
            row("test_fast", "harness", 0.002, module="test_second", ratio=2.5, target=2.5, met_by=True),
        ],
    }  # fmt: skip


TEXTS = {"test_first.py": "First things.\n\nHow they are measured.", "test_second.py": "Second things."}


def tables(text):
    """The rows of every table of a page, as lists of cells."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, flags=re.M)
    return [[[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()] for block in blocks]


def test_every_table_is_well_formed(bench_page):
    text = bench_page.page(report(), TEXTS)
    found = tables(text)
    assert len(found) == 5  # the targets, and four groups
    for head, rule, *rows in found:
        assert rows and len(set(head)) == len(head) and all(head)
        assert [len(cells) for cells in (rule, *rows)] == [len(head)] * (len(rows) + 1)
        assert rule[0] == "---" and set(rule[1:]) == {"---:"}
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith(("#", "|")) and not lines[number - 1].startswith("|"):
            assert number == 0 or not lines[number - 1]  # blocks stand apart
    assert text.endswith("\n") and "\n\n\n" not in text


def test_rows_have_times_multiples_and_all_extra_columns(bench_page):
    _, first, second, *_ = tables(bench_page.page(report(), TEXTS))
    assert first[0] == ["what", "shortest", "median", "x the fastest", "ratio", "target", "gap", "met"]
    assert first[2] == ["theirs: AUC", "300 ms", "450 ms", "30", "", "", "", ""]
    assert first[3] == ["ours: AUC", "10 ms", "15 ms", "1", "30", "at least 15", "5.6e-17", "yes"]
    assert second[2] == ["one", "2 s", "3 s", "1", "2.5", "at least 3.5", r"a\|b c", "", "**no**"]
    assert second[3] == ["level", "2.2 s", "3.3 s", "1.1", "", "", "", "1.04", ""]


def test_targets_are_judged_from_both_sides_and_by_column(bench_page):
    text = bench_page.page(report(), TEXTS)
    asked = {(cells[1], cells[2]): (cells[3], cells[4]) for cells in tables(text)[0][2:]}
    assert asked == {
        ("ours: AUC", "ratio at least 15"): ("30", "yes"),
        ("one", "ratio bf16 at least 3.5"): ("2.5", "**no**"),
        ("board", "seconds at most 3"): ("2.5", "yes"),
        ("board", "gb at most 1"): ("1.2", "**no**"),
        ("overhead", "ratio at most 1.1"): ("1.2", "**no**"),
        ("fast", "ratio at least 2.5"): ("2.5", "yes"),
    }


def test_what_is_not_faster_is_said(bench_page):
    text = bench_page.page(report(), TEXTS)
    section = text.partition("## Where")[2].partition("\n## ")[0]
    assert re.findall(r"^- (.*)$", section, flags=re.M) == [
        "curves, one: ratio bf16 at least 3.5, measured 2.5.",
        "ungrouped, board: gb at most 1, measured 1.2.",
        "harness, overhead: ratio at most 1.1, measured 1.2.",
        "curves, level: ratio 1.04.",
    ]
    calm = {**report(), "benchmarks": report()["benchmarks"][:2]}
    assert "## Where" not in bench_page.page(calm, TEXTS)


def test_modules_come_with_their_text_and_the_machine_without_its_name(bench_page):
    text = bench_page.page(report(), TEXTS)
    assert text.index("## First things.") < text.index("How they are measured.") < text.index("### AUC")
    assert text.index("### curves") < text.index("## Second things.") < text.index("### harness")
    assert "Measured on: 2 cores, x86_64; with avx512f; 1 threads; device cpu; torch 2.14.1; Python 3.11.7." in text
    assert "some-host" not in text and "9000" not in text


def test_the_text_of_a_module_is_its_docstring_without_code(bench_page):
    source = '"""Title.\n\n    make bench\n\nWhat `ratio` is.\n"""\n\nx = 1\n'
    assert bench_page.text_of(source) == "Title.\n\nWhat `ratio` is."
    assert bench_page.text_of("x = 1\n") == ""


def test_a_module_without_text_is_called_by_its_name(bench_page):
    assert "## test_first.py\n" in bench_page.page(report(), {})


def test_the_command_prints_the_page(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report()))
    printed = subprocess.run([sys.executable, SCRIPT, path], capture_output=True, text=True, check=True, timeout=60).stdout
    assert len(tables(printed)) == 5 and printed.startswith("# Benchmarks\n")
