"""A page for every method and every countermeasure: what it is, how it scores on each board, where it fails.

SITE/methods/index.html, methods/SLUG.html                  methods; floors, shams and ceilings they are compared with
SITE/countermeasures/index.html, countermeasures/SLUG.html

Scores come from rows and board, facts from run.json and from what is installed here (`xaibench.site.installed`). Where a
plugin is not installed the page says so and shows the scores. Values are in a metric's units, skill in per cent; ranks count
methods only, 1 is best, equal means share a rank.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pandas as pd

from xaibench import reading
from xaibench.errors import RunError
from xaibench.harness import verdicts
from xaibench.leaderboard.render import BLOCKS, number
from xaibench.leaderboard.table import kind
from xaibench.protocols import NEEDS
from xaibench.site import cards, installed, shell
from xaibench.site.checked import DAMAGED, Answer, Noise, answers, noises, of_method
from xaibench.site.content import MEANINGS, Board, Line, Reading
from xaibench.site.downloads import DIGITS
from xaibench.site.installed import Facts
from xaibench.site.references import references
from xaibench.site.source import Source, section
from xaibench.site.strata import Cell, Places, places

ASSETS = ("board.css", "profiles.css", "profiles.js")
#: What a row that is no method is for.
ROLES = {
    "ceiling": "A ceiling, not a method: it is given what a method has to find. Its score is 100 % of the skill.",
    "sham": "A sham, not a method: as large as the truth, in the wrong place. The truth must do better than it.",
    "floor": "A floor, not a method: it knows nothing of the countermeasure. A method must exceed it.",
}
FLAGS = {
    "signed": ("signed", "magnitudes only: it does not tell evidence for spoof from evidence against"),
    "random": ("draws random numbers, seeded for each utterance", ""),
    "complete": ("declares completeness: its map sums to the difference of scores", ""),
    "class_specific": ("", "its map does not depend on the class that is explained"),
    "optional": ("left out of `--xai all`: run it by name", ""),
}


@dataclass(frozen=True)
class Score:
    """A line of a method's table: one metric. rank: among `of` methods, None for other rows; against: see `against`."""

    reading: Reading
    arrow: str
    rank: int | None
    of: int
    against: str


@dataclass(frozen=True)
class Gap:
    """Cells without a value that share status and reason. metrics: which, in words."""

    status: str
    reason: str
    cells: int
    metrics: str


@dataclass(frozen=True)
class Check:
    """What preflight said before scoring. void: why its cells do not count; unchecked: why it could not be judged."""

    void: str = ""
    unchecked: str = ""
    warnings: tuple[str, ...] = ()
    measured: tuple[tuple[str, str], ...] = ()  # of runs from before there were answers
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True)
class Result:
    """A method on one board. said: its ranks in a sentence; usual, more: its scores; cost: seconds an utterance and rank;
    explorer: its address for this board, from the top of the site, or ""; shown: what it has, None where all.
    """

    board: Board
    line: Line
    said: str
    usual: tuple[Score, ...]
    more: tuple[Score, ...]
    cost: str
    gaps: tuple[Gap, ...]
    checks: tuple[Check, ...]
    noises: tuple[Noise, ...]
    places: tuple[Places, ...]
    explorer: str
    shown: Collection[str] | None

    def address(self, cell: Cell, metric: str) -> str:
        """Where the explorer shows a cell, from the top of the site; "" where it does not."""
        pair = f"{cell.utterance}/{cell.vocoder}"
        place = f"explorer/{Path(self.board.page).stem}/{shell.slug(pair)}.js"
        if not self.explorer or (self.shown is not None and place not in self.shown):
            return ""
        asked = urlencode({"u": pair, "m": self.line.name, "by": metric})
        return f"{self.explorer}&{asked}"


def write(source: Source, out: Path, *, shown: Collection[str] | None = None) -> list[Path]:
    """Write the pages to `out/methods` and `out/countermeasures`. Returns their paths, indices first.

    shown: the files of the explorer, from the top of the site, where it may not show every board and utterance.

    Raises RunError where a page cannot be written.
    """
    out = Path(out)
    methods = sorted({line.name for board in source.boards for line in board.lines})
    countermeasures = sorted({board.countermeasure for board in source.boards})
    known = [
        installed.facts(*asked, source.records) for asked in (("attributors", methods), ("countermeasures", countermeasures))
    ]
    shell.copy_assets(out, ASSETS)
    results = _results(source, shown)
    entries = {name: entry(source, name, known[0][name]) for name in methods}
    models = {name: cards.entry(source, name, known[1][name]) for name in countermeasures}
    groups = [(heading, MEANINGS[k], [e for e in entries.values() if e["kind"] == k]) for k, heading in BLOCKS.items()]
    groups = sorted((g for g in groups if g[2]), key=lambda g: g[2][0]["kind"] != "method")  # what competes stands first
    page = _page(source)
    paths = [
        page(out / "methods/index.html", "methods.html.j2", "Methods", "Methods", groups=groups),
        page(out / "countermeasures/index.html", "countermeasures.html.j2", "Countermeasures", "Countermeasures",
             models=list(models.values())),
    ]  # fmt: skip
    for name in methods:
        path = out / f"methods/{shell.slug(name)}.html"
        paths.append(page(path, "method.html.j2", name, "Methods", method=entries[name], results=results[name]))
    for name in countermeasures:
        path = out / f"countermeasures/{shell.slug(name)}.html"
        boards = [cards.board(source, board) for board in source.boards if board.countermeasure == name]
        paths.append(page(path, "countermeasure.html.j2", name, "Countermeasures", model=models[name], boards=boards))
    return paths


def _page(source: Source) -> Any:
    def write_page(path: Path, template: str, title: str, here: str, **content: Any) -> Path:
        content |= {"nav": source.nav, "footer": source.footer, "here": here, "title": title, "cluster": source.cluster}
        return shell.write(path, shell.render(template, root="../", number=number, code=code, **content))

    return write_page


def entry(source: Source, name: str, facts: Facts) -> dict[str, Any]:
    """What a method's page and its line of the index say beside the scores."""
    row = kind(name)
    used = list(dict.fromkeys(str(r.get("origins", {}).get(f"attributors/{name}", "")) for r in source.records))
    used = [origin for origin in used if origin]
    works = references(facts.paper)
    return {
        "name": name,
        "kind": row,
        "role": ROLES.get(row, ""),
        "page": f"methods/{shell.slug(name)}.html",
        "summary": facts.summary,
        "paper": facts.paper,
        "works": works,
        "bibtex": "\n".join(w.bibtex for w in works),
        "origins": used or ([facts.origin] if facts.origin else []),
        "other": facts.origin if used and facts.origin and facts.origin not in used else "",
        "problem": facts.problem,
        "needs": [(need, NEEDS.get(need, "")) for need in facts.needs],
        "options": _options(source.records, name, facts.options),
        "notes": _notes(facts) if not facts.problem else [],
    }


def _notes(facts: Facts) -> list[str]:
    """What the plugin declares of its maps, where that is not what everyone expects."""
    usual = ("signed", "class_specific")
    found = [FLAGS[flag][0] for flag in facts.flags if flag in FLAGS and flag not in usual]
    return [note for note in [*found, *(FLAGS[flag][1] for flag in usual if flag not in facts.flags)] if note]


def _options(records: Sequence[Mapping[str, Any]], name: str, defaults: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(option, default, what the runs used where that is another value), in the order of the plugin."""
    used: dict[str, list[str]] = {}
    for record in records:
        for stamp in (record, *record.get("earlier", ())):
            for option, value in ((stamp.get("spec", {}).get("options") or {}).get(name) or {}).items():
                used.setdefault(str(option), []).append(value if isinstance(value, str) else json.dumps(value))
    return [
        (option, defaults.get(option, "unknown"), ", ".join(dict.fromkeys(used.get(option, ()))))
        for option in dict.fromkeys((*defaults, *used))
    ]


def _results(source: Source, shown: Collection[str] | None = None) -> dict[str, list[Result]]:
    """attributor -> its result on every board that has it, in the order of the boards."""
    found: dict[str, list[Result]] = {}
    exploring = ("Explorer", "explorer.html") in source.nav
    said = noises(source.runs)
    for board in source.boards:
        rows = section(source, board)
        full = _of(source.full, board).set_index("attributor")
        metrics = [h.metric for h in board.headlines]
        spread = {metric: places(rows, metric, cluster=source.cluster) for metric in metrics}
        slug = Path(board.page).stem
        here = exploring and (shown is None or any(name.startswith(f"explorer/{slug}/") for name in shown))
        gaps = dict(_gaps(rows))
        ranks = {c.metric: _ranks(board.methods, i, c.direction) for i, c in enumerate(board.columns)}
        costs = _ranked({m.name: m.seconds for m in board.methods if m.seconds is not None}, higher=False)
        for line in board.lines:
            scores = [
                Score(reading, column.arrow, ranks[column.metric].get(line.name), len(ranks[column.metric]),
                      against(full.loc[line.name], column.metric))
                for reading, column in zip(line.readings, board.columns, strict=True)
            ]  # fmt: skip
            usual = [c.usual for c in board.columns]
            cost = "" if line.seconds is None else f"{line.cost} s an utterance"
            if line.name in costs:
                cost += f", {costs[line.name]} of {len(costs)} from cheapest to dearest"
            found.setdefault(line.name, []).append(
                Result(
                    board=board, line=line, cost=cost, gaps=tuple(gaps.get(line.name, ())), said=_said(scores, metrics),
                    usual=tuple(s for s, shown in zip(scores, usual, strict=True) if shown),
                    more=tuple(s for s, shown in zip(scores, usual, strict=True) if not shown),
                    checks=tuple(checks(source.runs, board, line.name)),
                    noises=of_method(said, board.countermeasure, board.route, board.truth, line.name),
                    places=tuple(spread[m][line.name] for m in metrics if line.name in spread[m]),
                    explorer=f"explorer.html#{urlencode({'s': slug})}" if here else "", shown=shown,
                )
            )  # fmt: skip
    return found


def _said(scores: Sequence[Score], metrics: Sequence[str]) -> str:
    """Rank and control in the metrics that a board names first."""
    found = []
    for score in scores:
        if score.reading.metric in metrics and score.rank is not None:
            control = f", and {score.against}, the best control" if score.against else ""
            found.append(f"in {score.reading.metric} it is {score.rank} of {score.of}{control}")
    text = "; ".join(found)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def code(text: str) -> list[tuple[str, bool]]:
    """A docstring's sentence as pieces: (text, whether it stood between backticks).

    >>> code("`relu(x)` of it")
    [('relu(x)', True), (' of it', False)]
    """
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        return [(text, False)]
    return [(piece, i % 2 == 1) for i, piece in enumerate(pieces) if piece]


def _of(table: pd.DataFrame, board: Board) -> pd.DataFrame:
    """The rows of a table that belong to a board."""
    facts = ("dataset", "truth", "countermeasure", "route")
    return table[pd.concat([table[f].astype(str).eq(getattr(board, f)) for f in facts], axis=1).all(axis=1)]


def _ranks(methods: Sequence[Line], place: int, direction: str) -> dict[str, int]:
    """Method -> rank in the metric that stands at `place`; without those that have no value."""
    values = {m.name: m.readings[place].value for m in methods}
    return _ranked({n: v for n, v in values.items() if v is not None}, higher=direction == "higher")


def _ranked(values: Mapping[str, float], *, higher: bool) -> dict[str, int]:
    """Means that differ by less than the order of their sum may are equal, as in the files (`downloads.DIGITS`).

    >>> _ranked({"a": 0.1, "b": 0.3, "c": 0.1 + 0.2}, higher=True)
    {'a': 3, 'b': 1, 'c': 1}
    """
    sign = 1 if higher else -1
    values = {n: float(f"{v:.{DIGITS}g}") for n, v in values.items()}
    return {n: 1 + sum(sign * other > sign * v for other in values.values()) for n, v in values.items()}


def against(row: pd.Series, metric: str) -> str:
    """Whether a method exceeds the best control, by the 95 % interval of the paired difference; "" where unknown."""
    low, high, floor = row[f"{metric}_margin_low"], row[f"{metric}_margin_high"], row[f"{metric}_floor"]
    if row["kind"] != "method" or not isinstance(floor, str) or math.isnan(low):
        return ""
    word = "exceeds" if low > 0 else "falls short of" if high < 0 else "is not told apart from"
    return f"{word} {floor}"


def _gaps(rows: pd.DataFrame) -> Iterator[tuple[str, list[Gap]]]:
    """attributor -> its cells without a value, most first, from the encoded rows of a section."""
    failed = rows[rows["status"].ne("ok")]
    computed = rows[["attributor", "metric"]].drop_duplicates().groupby("attributor", observed=True).size()
    for name, part in failed.groupby("attributor", observed=True):
        found = []
        for (status, note), cells in part.groupby(["status", "note"], observed=True, dropna=False):
            metrics = sorted(cells["metric"].astype(str).unique())
            rest = f" and {len(metrics) - 4} others" if len(metrics) > 5 else ""
            words = "every metric" if len(metrics) == computed[name] else ", ".join(metrics[:4] if rest else metrics) + rest
            reason = note if isinstance(note, str) and note else "no reason given"
            found.append(Gap(str(status), reason, len(cells), words))
        yield str(name), sorted(found, key=lambda g: (-g.cells, g.status, g.reason))


def checks(runs: Sequence[Path], board: Board, name: str) -> Iterator[Check]:
    """What the preflight of each run wrote of a method; nothing where a run has no such file."""
    file = verdicts.file_of(board.countermeasure, board.route, name)
    seen = set()
    for run in runs:
        path = Path(run) / file
        if not os.path.isfile(path):  # also for a name that no file can have
            continue
        try:
            said = reading.json_object(path, RunError, hint="run again")
            measured = tuple((k.replace("_", " "), number(float(v))) for k, v in (said.get("measured") or {}).items())
            asked = answers(verdicts.read(path), of_method=True)
            check = Check(str(said.get("void") or ""), str(said.get("unchecked") or ""),
                          tuple(map(str, said.get("warnings") or ())), () if asked else measured, asked)  # fmt: skip
        except (ValueError, TypeError, AttributeError, RunError):
            check = Check(unchecked=DAMAGED)
        if check not in seen:
            seen.add(check)
            yield check
