"""`audit.md`, its figures and `audit.json`: a page that a reader understands without the code."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from xaibench.audit.section import Section
from xaibench.files import write_text
from xaibench.leaderboard.render import number
from xaibench.leaderboard.writing import escape, plain, table_line

#: Lines of a table on the page; audit.json has all.
LONGEST = 60
DPI = 160


def write_page(sections: Sequence[Section], out: Path, *, title: str, facts: Mapping[str, str]) -> list[Path]:
    """Write `out/audit.md`, `out/audit.json` and `out/figures/*.png`. Returns the paths, the page first.

    facts: what was audited, on what, as lines of the page's head. Raises RunError where the folder cannot be written.
    """
    from xaibench.figures.style import save_as, style

    out = Path(out)
    paths = [out / "audit.md", out / "audit.json"]
    for section in sections:
        if section.draw is not None:
            paths.append(out / "figures" / f"{section.name}.png")
            with style():
                save_as(section.draw(), paths[-1], dpi=DPI)
    write_text(paths[0], page(sections, title=title, facts=facts))
    write_text(paths[1], as_json(sections, title=title, facts=facts))
    return paths


def page(sections: Sequence[Section], *, title: str, facts: Mapping[str, str]) -> str:
    """The page as markdown: answers first, then each part with its question, figure and table."""
    lines = [f"# {title}", ""]
    lines += [f"- {name}: {escape(value)}" for name, value in facts.items()]
    lines += ["", "## In short", ""]
    lines += [f"- **{section.title}** {escape(section.answer[0])}" for section in sections]
    for section in sections:
        lines += ["", f"## {section.title}", "", escape(section.question), ""]
        lines += [f"- {escape(sentence)}" for sentence in section.answer]
        if section.draw is not None:
            lines += ["", f"![{section.title}](figures/{section.name}.png)"]
        lines += ["", *_table(section.table)]
    return "\n".join(lines) + "\n"


def as_json(sections: Sequence[Section], *, title: str, facts: Mapping[str, str]) -> str:
    """Every number: `{"title", "facts", "sections": [{name, title, question, answer, table: [...]}]}`; unknown is null."""
    content = {
        "title": title,
        "facts": dict(facts),
        "sections": [
            {
                "name": s.name, "title": s.title, "question": s.question, "answer": list(s.answer),
                "table": [{k: plain(v) for k, v in row.items()} for row in s.table.to_dict("records")],
            }
            for s in sections
        ],
    }  # fmt: skip
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _table(table: pd.DataFrame) -> list[str]:
    """Markdown lines; `x low` and `x high` become an interval beside x."""
    ends = {end for name in table.columns for end in _ends(name, table.columns) or ()}
    names = [name for name in table.columns if name not in ends]
    lines = [table_line(names), table_line(["---" if table[c].dtype.kind not in "fiu" else "---:" for c in names])]
    for row in table.head(LONGEST).to_dict("records"):
        lines.append(table_line([_cell(row, name) for name in names]))
    if len(table) > LONGEST:
        lines += ["", f"{len(table) - LONGEST} further lines are in audit.json."]
    return lines


def _ends(name: str, columns: Collection[str]) -> tuple[str, str] | None:
    """The columns of the interval beside a column, if any."""
    pairs = [(f"{name} low", f"{name} high"), (f"{name}_low", f"{name}_high"), *([("low", "high")] if name == "tau" else [])]
    return next((pair for pair in pairs if set(pair) <= set(columns)), None)


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if not isinstance(value, float):
        return str(value)
    ends = _ends(name, row)
    if ends is None or not all(math.isfinite(row[e]) for e in ends):
        return number(value)
    return f"{number(value)} [{number(row[ends[0]])}, {number(row[ends[1]])}]"
