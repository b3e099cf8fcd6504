"""A board to what its page shows: frozen records of texts and numbers. Nothing is read, drawn or written here.

Numbers are worded as in the terminal (`leaderboard.render.number`: three digits, no leading zero), and sorted by all their
digits. Skill is a share, 0 at the best floor and 1 at the ceiling; its bar shows -20 % to 100 %, and what lies outside is
cut there while the number beside it stays. Unknown is None, and "-" in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from xaibench.leaderboard.render import BLOCKS, number, percent, scale, whole_percent
from xaibench.leaderboard.table import DEFAULT_METRICS, SECTION, TEMPORAL, metric_facts, metrics_of
from xaibench.leaderboard.verdict import EER_LIMIT, verdict
from xaibench.site.shell import section_slug, slug
from xaibench.site.stamp import Stamp, stamp

#: What a block of the table is, for one who never saw a board.
MEANINGS = {
    "ceiling": "what there is to reach: the truth itself, and an optimised order of cells",
    "method": "what is compared",
    "sham": "as large as the truth, in the wrong place",
    "floor": "maps that know nothing of the countermeasure",
}
FAMILIES = {
    "localisation": "Alignment: does it find the cells the vocoder changed?",
    "faithfulness": "Faithfulness: does the countermeasure use the cells it names?",
    "stability": "Stability", "complexity": "Complexity", "sanity": "Sanity", "axioms": "Axioms",
}  # fmt: skip
LOW, HIGH = -0.2, 1.0  # skill at the ends of a bar
BAR = 100.0  # its length


@dataclass(frozen=True)
class Reading:
    """A row's score in one metric. value, low, high: in the metric's units; skill and its ends: shares. bar, whisker: SVG
    paths in a box of 100 x 10, "" where there is nothing to draw.
    """

    metric: str
    value: float | None
    low: float | None
    high: float | None
    skill: float | None
    skill_low: float | None
    skill_high: float | None
    cells: int
    bar: str = ""
    whisker: str = ""

    @property
    def words(self) -> str:
        """The mean."""
        return "-" if self.value is None else number(self.value)

    @property
    def interval(self) -> str:
        """Its interval, "" where it is unknown."""
        return "" if self.low is None or self.high is None else f"{number(self.low)} to {number(self.high)}"

    @property
    def skill_words(self) -> str:
        """The skill in per cent with its interval, "" where it has none."""
        if self.skill is None:
            return ""
        ends = "" if self.skill_low is None or self.skill_high is None else (
            f" [{percent(self.skill_low)} {percent(self.skill_high)}]"
        )  # fmt: skip
        return f"{percent(self.skill)} %{ends}"


@dataclass(frozen=True)
class Line:
    """A row of the table: an attributor. seconds: of an utterance; coverage: share of planned cells that are ok."""

    name: str
    kind: str
    page: str
    origin: str
    readings: tuple[Reading, ...]
    seconds: float | None
    coverage: float
    gaps: str

    @property
    def cost(self) -> str:
        """Seconds an utterance, in words."""
        return "-" if self.seconds is None else number(self.seconds)

    @property
    def share(self) -> str:
        """The coverage in whole per cent; 100 % only where nothing is missing."""
        return whole_percent(self.coverage)


@dataclass(frozen=True)
class Block:
    """Rows of one kind."""

    kind: str
    heading: str
    meaning: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Column:
    """A metric of the table. usual: shown before anyone chooses; floor, ceiling: the rows that are 0 and 100 % of skill."""

    metric: str
    family: str
    direction: str
    usual: bool
    floor: str
    ceiling: str
    misleads: str

    @property
    def arrow(self) -> str:
        """Points to better."""
        return "↑" if self.direction == "higher" else "↓"


@dataclass(frozen=True)
class Headline:
    """What the first page says of a board in one metric: best method and best control."""

    metric: str
    method: str
    best: Reading
    control: str
    control_score: str


@dataclass(frozen=True)
class Board:
    """A section: what its page and its place on the first page show. eer: a share; said: the verdict, sentence by sentence;
    missing: (names, why).
    """

    dataset: str
    truth: str
    countermeasure: str
    route: str
    page: str
    countermeasure_page: str
    eer: float | None
    poor: bool
    size: str
    precision: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    said: tuple[str, ...]
    missing: tuple[tuple[str, str], ...]
    scale: str
    headlines: tuple[Headline, ...]
    stamp: Stamp

    @property
    def slug(self) -> str:
        """Its name in addresses."""
        return self.page.removeprefix("boards/").removesuffix(".html")

    @property
    def name(self) -> str:
        """What tells it from others, in words."""
        return f"{self.countermeasure}, {self.route} route, truth {self.truth}, {self.dataset}"

    @property
    def eer_words(self) -> str:
        """The equal error rate."""
        return "EER unknown" if self.eer is None else f"EER {self.eer:.1%}"

    @property
    def methods(self) -> tuple[Line, ...]:
        """The rows that compete."""
        return tuple(line for block in self.blocks if block.kind == "method" for line in block.lines)

    @property
    def lines(self) -> tuple[Line, ...]:
        """All rows."""
        return tuple(line for block in self.blocks for line in block.lines)


def boards(
    usual: pd.DataFrame, full: pd.DataFrame, prints: Mapping[tuple[str, ...], str], records: Sequence[Mapping[str, Any]],
    *, dates: Sequence[str] = (),
) -> tuple[Board, ...]:  # fmt: skip
    """The sections of a board, in the order of their names.

    usual: the board as the terminal prints it: order of rows, verdict, what is shown first. full: the same rows with every
    metric. prints: section -> `fingerprint`. records: the run.json of every run, with the date of each.
    """
    found = []
    every = {key: part for key, part in full.groupby(list(SECTION), sort=True)}
    dates = list(dates) or [""] * len(records)
    for key, part in usual.groupby(list(SECTION), sort=True):
        found.append(_board(key, part, every[key], prints.get(key, ""), list(zip(records, dates, strict=True))))
    return tuple(found)


def bar(skill: float | None, low: float | None = None, high: float | None = None) -> tuple[str, str]:
    """SVG paths of a skill's bar, from 0, and of its whiskers, without the end that is cut; box 100 x 10.

    >>> bar(0.5), bar(0.1, -0.5, 0.4)
    (('M16.7 5H58.3', ''), ('M16.7 5H25', 'M0 5H50M50 2v6'))
    """
    if skill is None:
        return "", ""
    path = f"M{_x(0):.3g} 5H{_x(skill):.3g}"
    if low is None or high is None:
        return path, ""
    ends = "".join(f"M{_x(end):.3g} 2v6" for end in (low, high) if LOW <= end <= HIGH)
    return path, f"M{_x(low):.3g} 5H{_x(high):.3g}{ends}"


def _x(skill: float) -> float:
    return BAR * (min(max(skill, LOW), HIGH) - LOW) / (HIGH - LOW)


def _board(
    key: tuple[str, ...], part: pd.DataFrame, full: pd.DataFrame, mark: str,
    records: Sequence[tuple[Mapping[str, Any], str]],
) -> Board:  # fmt: skip
    facts = dict(zip(SECTION, map(str, key), strict=True))
    mine = [(r, d) for r, d in records if facts["countermeasure"] in r.get("countermeasures", {})] or list(records)
    origins = {k: v for record, _ in mine for k, v in record.get("origins", {}).items()}
    names = _ordered(metrics_of(full), metrics_of(part))
    by_name = full.set_index("attributor")
    blocks = []
    for kind, heading in BLOCKS.items():
        rows = part.loc[part["kind"].eq(kind), "attributor"]
        lines = tuple(_line(str(n), by_name.loc[n], names, origins.get(f"attributors/{n}", "")) for n in rows)
        if lines:
            blocks.append(Block(kind, heading, MEANINGS[kind], lines))
    row = part.iloc[0]
    skilled = any(line.readings and any(r.skill is not None for r in line.readings) for b in blocks for line in b.lines)
    gaps = full[full["gaps"].ne("")].groupby("gaps", sort=False)["attributor"].agg(", ".join)
    return Board(
        **facts,
        page=f"boards/{section_slug(facts)}.html",
        countermeasure_page=f"countermeasures/{slug(facts['countermeasure'])}.html",
        eer=_known(row["eer"]),
        poor=bool(row["eer"] > EER_LIMIT),
        size=_size(row),
        precision=str(row["precision"]),
        columns=tuple(_column(m, full, m in metrics_of(part)) for m in names),
        blocks=tuple(blocks),
        said=tuple(verdict(part)),
        missing=tuple((str(who), str(why)) for why, who in gaps.items()),
        scale=scale(part) if skilled else "",
        headlines=tuple(h for h in (_headline(part, family) for family in ("localisation", "faithfulness")) if h),
        stamp=stamp(mine, mark, facts["countermeasure"], bool(row["dirty"])),
    )


def _ordered(names: Sequence[str], first: Sequence[str]) -> list[str]:
    """The usual metrics, then the others in the catalogue's order."""
    from xaibench.metrics.catalog import METRICS

    place = {name: i for i, name in enumerate((*DEFAULT_METRICS, *TEMPORAL, *METRICS))}
    rest = sorted((n for n in names if n not in first), key=lambda n: (place.get(n, len(place)), n))
    return [*(n for n in first if n in names), *rest]


def _column(metric: str, part: pd.DataFrame, usual: bool) -> Column:
    facts, row = metric_facts(metric), part.iloc[0]
    floor, ceiling = (v if isinstance(v := row[f"{metric}_{end}"], str) else "" for end in ("floor", "ceiling"))
    return Column(metric, facts.family, facts.direction, usual, floor, ceiling, misleads=facts.misleads)


def _line(name: str, row: pd.Series, metrics: Sequence[str], origin: str) -> Line:
    return Line(
        name=name,
        kind=row["kind"],
        page=f"methods/{slug(name)}.html",
        origin=origin,
        readings=tuple(_reading(row, m) for m in metrics),
        seconds=_known(row["seconds"]),
        coverage=float(row["coverage"]),
        gaps=row["gaps"],
    )


def _reading(row: pd.Series, metric: str) -> Reading:
    ends = ("", "_low", "_high", "_skill", "_skill_low", "_skill_high")
    value, low, high, skill, skill_low, skill_high = (_known(row[f"{metric}{end}"]) for end in ends)
    if row["kind"] == "ceiling":
        skill_low = skill_high = None  # an end of the scale
    cells = row[f"{metric}_n"]
    paths = bar(skill, skill_low, skill_high)
    return Reading(metric, value, low, high, skill, skill_low, skill_high, 0 if pd.isna(cells) else int(cells), *paths)


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _size(row: pd.Series) -> str:
    parts = [_count(int(row["utterances"]), "utterance"), _count(int(row["vocoders"]), "vocoder")]
    if row["pairs"] != row["utterances"] * row["vocoders"]:
        return f"{' x '.join(parts)}, {_count(int(row['pairs']), 'pair')} of them"
    return " x ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _headline(part: pd.DataFrame, family: str) -> Headline | None:
    metric = next((m for m in metrics_of(part) if metric_facts(m).family == family), None)
    if metric is None:
        return None
    rising = metric_facts(metric).direction == "lower"
    best = {}
    for kind in ("method", "floor"):
        rows = part[part["kind"].eq(kind) & part[metric].notna()].sort_values(metric, ascending=rising, kind="stable")
        best[kind] = rows.iloc[0] if len(rows) else None
    if best["method"] is None:
        return None
    control = ("", "-") if best["floor"] is None else (best["floor"]["attributor"], number(best["floor"][metric]))
    return Headline(metric, best["method"]["attributor"], _reading(best["method"], metric), *control)
