"""What the site gives away: the board as csv, json, md, parquet and LaTeX, every cell as parquet, every method's BibTeX.

SITE/downloads/leaderboard.csv, .json, .md      as `xaibench leaderboard --out` writes them
SITE/downloads/leaderboard.parquet              the board with every metric that was computed
SITE/downloads/rows.parquet                     every cell, one row each, as `leaderboard.table.read_rows` gives it
SITE/downloads/leaderboard.tex                  tables for a paper (booktabs): \\input them
SITE/downloads/methods.bib                      the works behind methods, countermeasures and data sets

Same rows, same bytes: nothing here reads a clock or depends on the order of the runs, and the board's numbers have `DIGITS`
digits, as those after them change with the number of threads that add them up. Unknown numbers are empty or null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from xaibench.files import whole
from xaibench.leaderboard.reading import CELL
from xaibench.leaderboard.render import BLOCKS, FORMATS, WITH_INTERVAL, number, percent
from xaibench.leaderboard.table import SECTION, metric_facts, metrics_of
from xaibench.site import installed, shell
from xaibench.site.references import bibliography, latex, references
from xaibench.site.source import Source

FOLDER = "downloads"
DIGITS = 12
#: (file, label, what it is), in the order of the page.
FILES = (
    (
        "leaderboard.csv",
        "CSV",
        "The board: one row a method, floor, sham or ceiling of each board. Text like a formula begins with an apostrophe.",
    ),
    ("leaderboard.json", "JSON", "The same board with what it says in sentences."),
    ("leaderboard.md", "Markdown", "The same board for an issue, a wiki or a README."),
    ("leaderboard.parquet", "Parquet, board", "The board with every metric that was computed."),
    ("rows.parquet", "Parquet, cells", "Every cell: one row a method, utterance, vocoder and metric, with its status."),
    ("leaderboard.tex", "LaTeX", "A table a board, made with booktabs: \\usepackage{booktabs} and \\input the file."),
    ("methods.bib", "BibTeX", "The works behind methods, countermeasures and data sets; keywords: who comes from which."),
)


def write(source: Source, out: Path) -> list[tuple[str, str, int]]:
    """Write `out/downloads`, with a page of its own. Returns (label, address from the site's top, bytes) of each file.

    Raises RunError where a file cannot be written.
    """
    folder = Path(out) / FOLDER
    usual = _steady(source.usual)
    texts = {f"leaderboard.{name}": FORMATS[name](usual) for name in ("csv", "json", "md")}
    texts |= {"leaderboard.tex": as_latex(usual, papers(source)), "methods.bib": bibliography(citations(source))}
    for name, text in texts.items():
        shell.write(folder / name, text)
    _write_parquet(folder / "leaderboard.parquet", _steady(source.full))
    _write_parquet(folder / "rows.parquet", _plain(source.rows))
    found = [(label, f"{FOLDER}/{name}", (folder / name).stat().st_size) for name, label, _ in FILES]
    lines = [(name, what, size(count)) for (name, _, what), (_, _, count) in zip(FILES, found, strict=True)]
    frame: dict[str, Any] = {"nav": source.nav, "footer": source.footer, "here": "Downloads"}
    page = shell.render("downloads.html.j2", root="../", title="Downloads", files=lines, **frame)
    shell.write(folder / "index.html", page)
    return found


def size(count: int) -> str:
    """Bytes for people.

    >>> size(900), size(25_300), size(3_200_000)
    ('900 B', '25 kB', '3.2 MB')
    """
    return f"{count} B" if count < 1000 else f"{count / 1000:.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


def papers(source: Source) -> dict[str, str]:
    """Method -> its `paper`, of those whose plugins are known: see `installed.facts`."""
    found = installed.facts("attributors", sorted(source.usual["attributor"].unique()), source.records)
    return {name: facts.paper for name, facts in found.items() if facts.paper}


def citations(source: Source) -> dict[str, str]:
    """Everything of the site that comes from a work: "grad-cam", "countermeasure lcnn", "data set minivoc" -> citation."""
    found = papers(source)
    names = sorted(source.usual["countermeasure"].unique())
    plugins = installed.facts("countermeasures", names, source.records)
    for record in source.records:
        cards = {n: (c.get("card") or {}).get("paper") for n, c in record.get("countermeasures", {}).items()}
        for name in names:
            if paper := cards.get(name) or plugins[name].paper:
                found.setdefault(f"countermeasure {name}", str(paper))
        data = record.get("dataset", {})
        if data.get("citation"):
            found.setdefault(f"data set {data.get('name')}", str(data["citation"]))
    return found


def as_latex(board: pd.DataFrame, cited: Mapping[str, str] | None = None) -> str:
    """A booktabs table a section: ceilings, methods, shams and floors in blocks, the best method of each column in bold.

    cited: method -> `paper`; a method with a work is followed by \\xaibenchcite{key}, which prints nothing until redefined.
    """
    head = (
        "% Made by xaibench. In the preamble: \\usepackage{booktabs}. To cite: put methods.bib into your bibliography and\n"
        "% \\newcommand{\\xaibenchcite}[1]{~\\cite{#1}} before the tables.\n"
        "\\providecommand{\\xaibenchcite}[1]{}\n"
    )
    parts = [_latex_table(part, cited or {}) for _, part in board.groupby(list(SECTION), sort=True)]
    return head + "\n" + "\n".join(parts)


def _latex_table(part: pd.DataFrame, cited: Mapping[str, str]) -> str:
    row, metrics = part.iloc[0], metrics_of(part)
    methods = part[part["kind"].eq("method")]
    skilled = [m for m in metrics if m in WITH_INTERVAL and methods[f"{m}_skill"].notna().any()]
    names, arrows = [""], {"higher": "$\\uparrow$", "lower": "$\\downarrow$"}
    for m in metrics:
        names.append(f"{latex(m)} {arrows[metric_facts(m).direction]}")
        names += ["skill, \\%"] if m in skilled else []
    columns = len(names)
    best = {m: _best(methods[m], metric_facts(m).direction == "higher") for m in metrics}
    lines = []
    for kind, heading in BLOCKS.items():
        block = part[part["kind"].eq(kind)]
        if block.empty:
            continue
        lines += ["\\midrule", f"\\multicolumn{{{columns}}}{{l}}{{\\emph{{{heading.capitalize()}}}}} \\\\"]
        for line in block.to_dict("records"):
            keys = ",".join(r.key for r in references(cited.get(line["attributor"], "")))
            name = latex(line["attributor"])
            name = "{}" * name.startswith(("[", "*")) + name  # after a line end these two would be read as its argument
            cells = [name + (f"\\xaibenchcite{{{keys}}}" if keys else "")]
            for m in metrics:
                bold = kind == "method" and line[m] == best[m]
                cells.append(_bold(_signed(number(line[m])), bold))
                cells += [_bold(_latex_skill(line, m), bold)] if m in skilled else []
            lines.append(" & ".join(cells) + " \\\\")
    eer = "unknown" if math.isnan(row["eer"]) else f"{100 * row['eer']:.1f}\\,\\%"
    section = ", ".join(latex(str(row[c])) for c in ("countermeasure", "dataset"))
    caption = (
        f"{section} (EER {eer}), {latex(str(row['route']))} route, truth {latex(str(row['truth']))}, {int(row['pairs'])} "
        f"pairs. Skill: share of the way from the best floor to the ceiling, with its 95\\,\\% interval. Bold: best method."
    )
    label = shell.slug("-".join(str(row[c]) for c in ("countermeasure", "route", "truth", "dataset")))
    head = ["\\begin{table}", "\\centering\\footnotesize", f"\\caption{{{caption}}}", f"\\label{{tab:xaibench-{label}}}"]
    head += [f"\\begin{{tabular}}{{l{'r' * (columns - 1)}}}", "\\toprule", " & ".join(names) + " \\\\"]
    return "\n".join([*head, *lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


def _best(values: pd.Series, higher: bool) -> float:
    return float(values.max() if higher else values.min())


def _bold(text: str, bold: bool) -> str:
    return f"\\textbf{{{text}}}" if bold and text else text


def _signed(text: str) -> str:
    """
    >>> _signed("-.050"), _signed("-"), _signed(".213")
    ('$-$.050', '--', '.213')
    """
    return "--" if text == "-" else text.replace("-", "$-$", 1) if text.startswith("-") else text


def _latex_skill(line: Mapping[str, float], metric: str) -> str:
    ends = [line[f"{metric}_skill{end}"] for end in ("", "_low", "_high")]
    if math.isnan(ends[0]):
        return ""
    mean, low, high = (_signed(percent(e)).replace("<", "$<$").replace(">", "$>$") for e in ends)
    return f"{mean} [{low}, {high}]" if line["kind"] == "method" and math.isfinite(ends[1]) else mean


def _steady(board: pd.DataFrame) -> pd.DataFrame:
    """A board with its numbers rounded to `DIGITS`."""
    found = board.select_dtypes("float")
    return board.assign(**{c: [float(f"{v:.{DIGITS}g}") for v in found[c]] for c in found})


def _plain(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows in the order of their cells, whatever the order of the runs; text columns as text."""
    rows = rows.sort_values(list(CELL), kind="stable", ignore_index=True)
    return rows.drop(columns=[c for c in ("file",) if c in rows])


def _write_parquet(path: Path, table: pd.DataFrame) -> None:
    """A parquet file, whole or not at all. Raises RunError where it cannot be written."""
    arrow = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata()
    for i, field in enumerate(arrow.schema):  # categories are a way of reading, not of keeping
        if pa.types.is_dictionary(field.type):
            arrow = arrow.set_column(i, field.name, arrow.column(i).cast(pa.string()))
    with whole(path) as scratch, scratch.open("wb") as file:  # not by its name, which may be no UTF-8
        pq.write_table(arrow, file, compression="zstd")
