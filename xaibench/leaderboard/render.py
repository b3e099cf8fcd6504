"""A board on paper: terminal (rich), markdown, csv and json. Nothing is computed here and no clock is read.

Numbers have three significant digits in tables for people; csv and json keep every digit. In csv and json an unknown
number is empty or null. Floors and ceilings stand in blocks of their own: they are not entries of the competition.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from xaibench import registry
from xaibench.errors import XaibenchError
from xaibench.files import write_text
from xaibench.leaderboard.table import SECTION, metric_facts, metrics_of
from xaibench.leaderboard.verdict import EER_LIMIT, verdict
from xaibench.leaderboard.writing import escape, plain, table_line
from xaibench.screen import Screen
from xaibench.tables import csv_text

#: Metrics whose skill is printed with its interval: one an axis, or the table is too wide to read.
WITH_INTERVAL = ("rank-accuracy", "rank-accuracy-time", "drop-twin")
BLOCKS = {"ceiling": "ceilings", "method": "methods", "sham": "shams", "floor": "floors"}
LEGEND = (
    "Skill: how far a score is on the way from the best floor (0 %) to the ceiling (100 %), [a b] its 95 % interval. Floors "
    "know nothing of the countermeasure; ceilings are the truth itself and an optimised order of cells; shams are as large "
    "as the truth, in the wrong place. s/utt: seconds an utterance; ok: share of planned cells that have a value; arrows "
    "point to better."
)
_STYLE = {"ceiling": "green", "method": "", "sham": "dim", "floor": "dim"}
WIDTH = 112  # columns of a table written to a file


def number(value: float) -> str:
    """Three significant digits without a leading zero; a dash for the unknown.

    >>> number(0.2134), number(-0.05), number(1.0), number(12.34), number(float("nan"))
    ('.213', '-.050', '1.00', '12.3', '-')
    """
    if not math.isfinite(value):
        return "-"
    size = abs(value)
    text = f"{value:.3f}" if size < 0.9995 else f"{value:.2f}" if size < 9.995 else f"{value:.1f}"
    if size >= 9999.5:
        text = f"{value:.1e}"
    return text.replace("0.", ".", 1) if size < 0.9995 else text


def with_interval(mean: float, low: float, high: float, *, text: Callable[[float], str] = number) -> str:
    """
    >>> with_interval(0.2134, 0.19, 0.24), with_interval(0.2, float("nan"), float("nan"))
    ('.213 [.190 .240]', '.200 [- -]')
    """
    return f"{text(mean)} [{text(low)} {text(high)}]"


def short(value: float) -> str:
    """At most four characters for what stands in an interval of the terminal's table (five below -99).

    >>> short(0.2134), short(-0.2134), short(1.0), short(-1.26), short(12.34), short(-12.34)
    ('.213', '-.21', '1.00', '-1.3', '12.3', '-12')
    """
    if not math.isfinite(value) or value >= 0:
        return number(value)
    if value > -0.995:
        return f"{value:.2f}".replace("0.", ".", 1)
    return f"{value:.1f}" if value > -9.95 else f"{value:.0f}"


def percent(share: float) -> str:
    """A share in whole per cent; beyond a thousand only that it is; a dash for the unknown.

    >>> percent(0.2134), percent(-0.004), percent(1.0), percent(-25.0), percent(float("nan"))
    ('21', '0', '100', '<-999', '-')
    """
    if not math.isfinite(share):
        return "-"
    whole = round(100 * share)
    return str(whole) if abs(whole) < 1000 else ">999" if whole > 0 else "<-999"


def whole_percent(coverage: float) -> str:
    """A coverage in whole per cent, 100 only where nothing is missing.

    >>> whole_percent(1.0), whole_percent(0.9999)
    ('100%', '99%')
    """
    return f"{coverage:.0%}" if coverage in (0, 1) else f"{min(coverage, 0.99):.0%}"


def terminal(board: pd.DataFrame, *, narrow: bool = False) -> RenderableType:
    """Everything about a board, for `rich`: a table a section, what is missing and why, and the verdict.

    narrow: for fewer than `WIDTH` columns; skill stands without intervals, beside the first metric of each kind only.
    """
    parts: list[RenderableType] = []
    for part in _sections(board):
        lines = [Text("- " + line) for line in verdict(part)]
        gaps = [Text(f"- {name}: {why}") for name, why in _gaps(part)]
        ends = [Text(scale(part), style="dim"), Text()] if _skilled(part, metrics_of(part)) else []
        parts += [Text(title(part), style="bold"), Text(), _table(part, narrow), Text(), Text(LEGEND, style="dim")]
        parts += [Text(), *ends]
        if gaps:
            parts += [Text("Cells without a value"), Padding(Group(*gaps), (0, 0, 1, 2))]
        if lines:
            parts += [Text("What it says"), Padding(Group(*lines), (0, 0, 1, 2))]
    return Group(*parts)


def text(board: pd.DataFrame, *, width: int = WIDTH) -> str:
    """`terminal` as plain text, `width` columns wide."""
    written = io.StringIO()
    Screen(file=written, width=width, plain=True).print(terminal(board))
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()) + "\n"


def markdown(board: pd.DataFrame) -> str:
    """GitHub-flavoured markdown: a table a section, with gaps and verdict below."""
    metrics = metrics_of(board)
    blocks = []
    for part in _sections(board):
        skilled = _skilled(part, metrics)
        header = ["attributor", "kind"]
        for m in metrics:
            header += [f"{m} {_arrow(m)}"] + (["skill, %"] if m in skilled else [])
        header += ["s/utt", "coverage"]
        lines = [
            f"## {escape(title(part))}",
            "",
            LEGEND,
            "",
            table_line(header),
            table_line(["---"] * 2 + ["---:"] * (len(header) - 2)),
        ]
        for row in part.to_dict("records"):
            cells = []
            for m in metrics:
                cells += [_cell(row, m)] + ([_skill(row, m)] if m in skilled else [])
            lines.append(
                table_line([row["attributor"], row["kind"], *cells, number(row["seconds"]), whole_percent(row["coverage"])])
            )
        for heading, items in (
            ("Floors and ceilings", [scale(part)] if skilled else []),
            ("Cells without a value", [f"{name}: {why}" for name, why in _gaps(part)]),
            ("What it says", verdict(part)),
        ):
            if items:
                lines += ["", f"### {heading}", "", *(f"- {escape(item)}" for item in items)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def as_csv(board: pd.DataFrame) -> str:
    """The whole board, all digits."""
    return csv_text(board)


def as_json(board: pd.DataFrame) -> str:
    """`{"sections": [{dataset, truth, countermeasure, route, eer, rows: [...], verdict: [...]}]}`; unknown is null."""
    sections = []
    for part in _sections(board):
        first = part.iloc[0]
        shared = [*SECTION, "eer", "utterances", "vocoders", "pairs", "dirty", "precision"]
        rows = part.drop(columns=shared).to_dict("records")
        sections.append({**{c: plain(first[c]) for c in shared}, "rows": rows, "verdict": verdict(part)})
    for section in sections:
        section["rows"] = [{k: plain(v) for k, v in row.items()} for row in section["rows"]]
    content = {"metrics": {m: {"direction": metric_facts(m).direction} for m in metrics_of(board)}, "sections": sections}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[pd.DataFrame], str]] = {"csv": as_csv, "json": as_json, "md": markdown, "txt": text}
PICTURE = "png"


def write(board: pd.DataFrame, out: Path, formats: Sequence[str] = ("csv", "json", "md")) -> list[Path]:
    """Write `out/leaderboard.<format>` for each of `FORMATS` asked for, atomically; "png" draws bars (one a section).

    Returns the paths.

    Raises XaibenchError for an unknown format, RunError when the folder cannot be written.
    """
    for name in formats:
        if name not in (*FORMATS, PICTURE):
            raise XaibenchError(registry.unknown("format", name, [*FORMATS, PICTURE]))
    out, paths = Path(out), []
    for name in dict.fromkeys(formats):
        if name == PICTURE:
            from xaibench.figures import board_bars  # matplotlib only when a picture is asked for

            paths += board_bars(board, out)
            continue
        paths.append(write_text(out / f"leaderboard.{name}", FORMATS[name](board)))
    return paths


def _sections(board: pd.DataFrame) -> Iterator[pd.DataFrame]:
    return (part for _, part in board.groupby(list(SECTION), sort=True))


def title(part: pd.DataFrame) -> str:
    """What was explained, how well it decides, where one looked, and on how much."""
    row = part.iloc[0]
    eer = "EER unknown" if math.isnan(row["eer"]) else f"EER {row['eer']:.1%}"
    eer += ": explains little" if row["eer"] > EER_LIMIT else ""
    size = f"{_count(row['utterances'], 'utterance')} x {_count(row['vocoders'], 'vocoder')}"
    if row["pairs"] != row["utterances"] * row["vocoders"]:
        size += f", {row['pairs']} pairs of them"
    dirty = "; from uncommitted code" if row["dirty"] else ""
    rounded = f"; scores in {row['precision']}" if row["precision"] != "fp32" else ""
    what = f"{row['countermeasure']} ({eer}), {row['route']} route, truth {row['truth']}, {row['dataset']}"
    return f"{what}: {size}{rounded}{dirty}"


def _gaps(part: pd.DataFrame) -> list[tuple[str, str]]:
    """The reasons, each once, with the attributors it concerns."""
    shared = part[part["gaps"].ne("")].groupby("gaps", sort=False)["attributor"].agg(", ".join)
    return [(names, gaps) for gaps, names in shared.items()]


def _arrow(metric: str) -> str:
    return "↑" if metric_facts(metric).direction == "higher" else "↓"


def _cell(row: dict, metric: str) -> str:
    if math.isnan(row[metric]):
        return "-"
    return with_interval(row[metric], row[f"{metric}_low"], row[f"{metric}_high"])


def _skill(row: dict, metric: str, *, interval: bool = True) -> str:
    """The skill in per cent, for methods with its interval."""
    value = row[f"{metric}_skill"]
    if not interval or math.isnan(value) or row["kind"] != "method":
        return percent(value)
    return with_interval(value, row[f"{metric}_skill_low"], row[f"{metric}_skill_high"], text=percent)


def _skilled(part: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    """The metrics of a section in which a method has a skill."""
    methods = part[part["kind"].eq("method")]
    return [m for m in metrics if methods[f"{m}_skill"].notna().any()]


def scale(part: pd.DataFrame) -> str:
    """The rows that are 0 and 100 % of each metric's skill, with their scores."""
    means, ends = part.set_index("attributor"), part.iloc[0]
    words = []
    for m in _skilled(part, metrics_of(part)):
        low, high = ends[f"{m}_floor"], ends[f"{m}_ceiling"]
        words.append(f"{m} from {low} ({number(means.at[low, m])}) to {high} ({number(means.at[high, m])})")
    return f"Skill is measured in {'; '.join(words)}."


def _header(metric: str) -> str:
    """A metric's name and direction, on two lines.

    >>> _header("deletion-twin"), _header("mass-accuracy")
    ('deletion\\n-twin ↓', 'mass- ↑\\naccuracy')
    """
    first, hyphen, second = metric.partition("-")
    arrow = _arrow(metric)
    if not hyphen:
        return f"{metric} {arrow}"
    ways = ((f"{first}-", f"{second} {arrow}"), (f"{first}", f"-{second} {arrow}"), (f"{first}- {arrow}", second))
    return "\n".join(min(ways, key=lambda lines: max(map(len, lines))))


def _table(part: pd.DataFrame, narrow: bool) -> Table:
    metrics = metrics_of(part)
    intervals = [m for m in WITH_INTERVAL if m in metrics] or metrics[:1]
    longest = int(part["attributor"].str.len().max())
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("attributor", overflow="fold", min_width=12 if narrow else max(12, min(longest, 24)))
    skilled = [m for m in _skilled(part, metrics) if m in intervals or not narrow]
    for metric in metrics:
        table.add_column(_header(metric), justify="right", no_wrap=True)
        if metric in skilled:
            table.add_column("skill\n%", justify="right", no_wrap=True)
    table.add_column("s/\nutt", justify="right", no_wrap=True)
    table.add_column("ok", justify="right", no_wrap=True)
    for kind, heading in BLOCKS.items():
        rows = part[part["kind"].eq(kind)].to_dict("records")
        if not rows:
            continue
        table.add_section()
        table.add_row(Text(f"[{heading}]", style="italic"))
        for row in rows:
            cells = []
            for m in metrics:
                cells += [number(row[m])] + (
                    [_skill(row, m, interval=m in intervals and not narrow)] if m in skilled else []
                )
            last = number(row["seconds"]), whole_percent(row["coverage"])
            table.add_row(Text(row["attributor"]), *cells, *last, style=_STYLE[kind])
    return table


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
