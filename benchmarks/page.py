"""The page of a benchmark run: what was measured, how, against which target, and where it is not faster.

    python benchmarks/page.py REPORT.json > benchmarks/README.md         (`make bench` does both)

REPORT.json is what pytest-benchmark writes. A group of it becomes a table, a module's docstring (less its code) the text
above its tables. Rows have the shortest and the median time, their multiple of the group's fastest, and all of `extra_info`.
There `target` is about `ratio` (and `target NAME` about `ratio NAME`): a number or "at least 15" bounds it from below, "at
most 1.1" from above; a table {"seconds": 3.0} bounds the row's columns of these names from above.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
INTRODUCTION = """# Benchmarks

`make bench` measures and writes this page. Every ratio is of times of one run. Nothing here is tested for its
time; that the results are equal is tested in `tests/`. `python benchmarks/gpu.py` measures every method on the
device at hand."""


def page(report: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """The markdown page of a pytest-benchmark report; `texts` are the modules' texts by file name."""
    rows = report["benchmarks"]
    parts = [INTRODUCTION, machine(report.get("machine_info", {})), _targets(rows), _slow(rows)]
    for module in dict.fromkeys(_module(row) for row in rows):
        mine = [row for row in rows if _module(row) == module]
        title, *text = texts.get(module, module).split("\n\n")
        parts += [f"## {title}", *text]
        for group in dict.fromkeys(_group(row) for row in mine):
            parts += [f"### {group}", group_table([row for row in mine if _group(row) == group])]
    return "\n\n".join(part for part in parts if part) + "\n"


def machine(info: Mapping[str, Any]) -> str:
    """Where it was measured, in one sentence and without names."""
    ours = info.get("xaibench", {})
    facts = [f"{ours.get('cores', '?')} cores, {info.get('machine', '?')}"]
    flags = ours.get("flags", [])
    facts += [f"with {', '.join(flags)}" if flags else "of unknown features"]
    facts += [f"{ours['threads']} threads"] if "threads" in ours else []
    facts += [f"device {ours['device']}"] if "device" in ours else []
    facts += [f"{name} {version}" for name, version in ours.get("packages", {}).items()]
    return f"Measured on: {'; '.join([*facts, 'Python ' + info.get('python_version', '?')])}."


def group_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One group: times, multiples of the fastest, `extra_info`, and whether the targets are met."""
    fastest = min(row["stats"]["min"] for row in rows)
    extras = list(dict.fromkeys(key for row in rows for key in row["extra_info"]))
    judged = any(_verdicts(row) for row in rows)
    head = ["what", "shortest", "median", "x the fastest", *extras, *(["met"] if judged else [])]
    cells = []
    for row in rows:
        stats, extra = row["stats"], row["extra_info"]
        times = [seconds(stats["min"]), seconds(stats["median"]), f"{stats['min'] / fastest:.3g}"]
        met = [", ".join(_word(v) for _, v in _verdicts(row))] if judged else []
        cells.append([_name(row), *times, *(_cell(extra.get(key, "")) for key in extras), *met])
    return table(head, cells)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table; the first column on the left, the others on the right.

    >>> print(table(["what", "time"], [["a|b", "1 s"]]))
    | what | time |
    | --- | ---: |
    | a\\|b | 1 s |
    """
    clean = [[str(cell).replace("|", r"\|").replace("\n", " ") for cell in cells] for cells in (head, *rows)]
    lines = [clean[0], ["---", *["---:"] * (len(head) - 1)], *clean[1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def seconds(value: float) -> str:
    """A time with its unit.

    >>> seconds(0.0123), seconds(2.0)
    ('12.3 ms', '2 s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.3g} us"


def text_of(source: str) -> str:
    """The docstring of a module without its indented parts: code, and commands."""
    paragraphs = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")
    return "\n\n".join(p for p in paragraphs if not p.startswith("    "))


def _verdicts(row: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """(what is asked, whether it is so) of every target of a row."""
    extra, found = row["extra_info"], []
    for key, target in extra.items():
        if not key.startswith("target"):
            continue
        if isinstance(target, Mapping):
            found += [(f"{name} at most {most:g}", extra[name] <= most) for name, most in target.items() if name in extra]
            continue
        name = key.replace("target", "ratio", 1)
        asked = target if isinstance(target, str) else f"at least {target:g}"
        *bound, number = asked.split()
        if name in extra and bound in (["at", "least"], ["at", "most"]):
            value = float(extra[name])
            found.append((f"{name} {asked}", value >= float(number) if bound[1] == "least" else value <= float(number)))
    return found


def _targets(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [[_group(row), _name(row), asked, _cell(_value(row, asked)), _word(met)] for row, asked, met in _asked(rows)]
    return "## Targets\n\n" + table(["group", "what", "asked", "measured", "met"], cells) if cells else ""


def _slow(rows: Sequence[Mapping[str, Any]]) -> str:
    """Missed targets, and whatever has a ratio of 1 or less, by name."""
    missed = [
        f"- {_group(row)}, {_name(row)}: {asked}, measured {_cell(_value(row, asked))}."
        for row, asked, met in _asked(rows)
        if not met
    ]
    level = [
        f"- {_group(row)}, {_name(row)}: {key} {_cell(value)}."
        for row in rows
        for key, value in row["extra_info"].items()
        if key.startswith("ratio") and isinstance(value, (int, float)) and value <= 1.1 and not _verdicts(row)
    ]
    if not missed + level:
        return ""
    return "## Where a target is missed, and where it is not faster (a ratio of at most 1.1)\n\n" + "\n".join(missed + level)


def _asked(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], str, bool]]:
    return ((row, asked, met) for row in rows for asked, met in _verdicts(row))


def _value(row: Mapping[str, Any], asked: str) -> Any:
    return row["extra_info"][asked.partition(" at ")[0]]


def _name(row: Mapping[str, Any]) -> str:
    """`test_quantus[default]` -> "quantus: default"."""
    name, _, parameters = row["name"].removesuffix("]").partition("[")
    return name.removeprefix("test_").replace("_", " ") + (f": {parameters}" if parameters else "")


def _group(row: Mapping[str, Any]) -> str:
    return row["group"] or "ungrouped"


def _module(row: Mapping[str, Any]) -> str:
    return row["fullname"].partition("::")[0].rpartition("/")[2]


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return _word(value)
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(each)}" for key, each in value.items())
    return str(value)


def _word(yes: bool) -> str:
    return "yes" if yes else "**no**"


def main() -> None:
    """Print the page of the report that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    report = json.loads(parser.parse_args().report.read_text(encoding="utf-8"))
    texts = {path.name: text_of(path.read_text(encoding="utf-8")) for path in sorted(HERE.glob("test_*.py"))}
    print(page(report, texts), end="")


if __name__ == "__main__":
    main()
