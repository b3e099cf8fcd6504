"""What a countermeasure's page shows: its card, its error rates, what it uses, and which methods explain it.

Facts come from run.json (`countermeasures`), which holds the card of the weights as it lay beside them. A card may be
anybody's: what is missing of it, or of another form, is left out. Error rates are shares.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from xaibench.leaderboard.render import number
from xaibench.leaderboard.table import SECTION, metric_facts
from xaibench.leaderboard.verdict import EER_LIMIT, uses_truth
from xaibench.site import checked, shell
from xaibench.site.content import Board, Line, Reading
from xaibench.site.installed import Facts
from xaibench.site.references import references
from xaibench.site.source import Source, section

BEST = 5  # methods named a metric


@dataclass(frozen=True)
class Rates:
    """Equal error rates of one split. rows: (data, one cell a column)."""

    split: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Explained:
    """A board of a countermeasure. best: metric, arrow and its best methods; lacks: (reason, methods, cells)."""

    board: Board
    use: tuple[str, ...]
    best: tuple[tuple[str, str, tuple[tuple[Line, Reading], ...]], ...]
    lacks: tuple[tuple[str, str, int], ...]


def entry(source: Source, name: str, facts: Facts) -> dict[str, Any]:
    """What a countermeasure's page and its line of the index say."""
    records = [r["countermeasures"][name] for r in source.records if name in r.get("countermeasures", {})]
    record = records[-1] if records else {}
    card = _mapping(record.get("card"))
    paper = str(card.get("paper") or facts.paper)
    works = references(paper)
    origins = dict.fromkeys(str(r.get("origins", {}).get(f"countermeasures/{name}", "")) for r in source.records)
    boards = [b for b in source.boards if b.countermeasure == name]
    return {
        "name": name,
        "page": f"countermeasures/{shell.slug(name)}.html",
        "summary": facts.summary,
        "paper": paper,
        "works": works,
        "bibtex": "\n".join(w.bibtex for w in works),
        "problem": facts.problem,
        "void": str(record.get("void") or ""),
        "answers": checked.of_countermeasure(source.runs, name),
        "facts": _facts(record, card, [o for o in origins if o] or ([facts.origin] if facts.origin else [])),
        "weights": str(record.get("weights") or ""),
        "training": _training(card),
        "settings": _pairs(card.get("spec")),
        "rates": _rates(card.get("eer")),
        "eers": list(dict.fromkeys((b.dataset, b.eer_words.removeprefix("EER "), b.poor) for b in boards)),
        "limit": EER_LIMIT,
        "routes": ", ".join(dict.fromkeys(b.route for b in boards)),
        "parameters": _count(card.get("parameters")),
        "length": _length(card),
        "uses": ", ".join(dict.fromkeys(_use(source, b)[1] for b in boards)),
    }


def board(source: Source, shown: Board) -> Explained:
    """One board of a countermeasure."""
    best = []
    for headline in shown.headlines:
        place = next(i for i, c in enumerate(shown.columns) if c.metric == headline.metric)
        higher = metric_facts(headline.metric).direction == "higher"
        scored = [(line, line.readings[place]) for line in shown.methods if line.readings[place].value is not None]
        scored.sort(key=lambda found: ((-1 if higher else 1) * (found[1].value or 0.0), found[0].name))
        best.append((headline.metric, shown.columns[place].arrow, tuple(scored[:BEST])))
    rows = section(source, shown)
    lacks = []
    failed = rows[rows["status"].isin(["unsupported", "void"])]
    for note, part in failed.groupby("note", observed=True, dropna=False):
        names = ", ".join(sorted(part["attributor"].astype(str).unique()))
        lacks.append((str(note) if isinstance(note, str) and note else "no reason given", names, len(part)))
    return Explained(shown, tuple(_use(source, shown)[0]), tuple(best), tuple(sorted(lacks, key=lambda x: (-x[2], x[0]))))


def _use(source: Source, shown: Board) -> tuple[list[str], str]:
    """Whether the countermeasure uses the truth's region: in sentences, and in a word."""
    part = source.usual
    for column in SECTION:
        part = part[part[column].astype(str).eq(getattr(shown, column))]
    said = uses_truth(part)
    if not said:
        return [], "not asked"
    return said, "not shown" if said[0].startswith("Warning") else "yes" if said[0].endswith("does use it.") else "unknown"


def _facts(record: Mapping[str, Any], card: Mapping[str, Any], origins: list[str]) -> list[tuple[str, str]]:
    """(what, value) of everything short that is known."""
    found = {
        "Package": ", ".join(origins),
        "Classes": ", ".join(map(str, card["classes"])) if isinstance(card.get("classes"), list | tuple) else "",
        "Sample rate": f"{card['sample_rate']} Hz" if _is_count(card.get("sample_rate")) else "",
        "Input": _length(card),
        "Parameters": _count(card.get("parameters")),
        "Options": ", ".join(f"{k} = {v}" for k, v in _pairs(record.get("options"))),
        "Licence": str(card.get("licence") or card.get("license") or ""),
        "Checkpoint": str(record.get("checkpoint") or ""),
    }
    return [(what, value) for what, value in found.items() if value]


def _training(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where its weights come from."""
    on = card.get("trained_on")
    if not isinstance(on, Mapping):
        return [("Trained on", str(on))] if on else []
    data = on.get("data")
    hashes = [f"{k} ({str(v)[:12]})" for k, v in data.items()] if isinstance(data, Mapping) else [str(data)] if data else []
    found = {
        "Data, with hash": ", ".join(hashes),
        "Utterances": _count(on.get("utterances")),
        "Speakers": _count(on.get("speakers")),
        "Vocoders": _listed(on.get("vocoders")),
        "Held out of training": _listed(on.get("held_out")),
        "Made with": ", ".join(f"{k} {v}" for k, v in _pairs(card.get("made_with"))),
    }
    return [(what, value) for what, value in found.items() if value]


def _rates(eer: object) -> list[Rates]:
    """The card's error rates: `{split: {data: {vocoder: share}}}`; what has another form is left out."""
    tables = []
    for split, by_data in _mapping(eer).items():
        rows = {
            str(data): {str(v): rate for v, rate in _mapping(rates).items() if _is_share(rate)}
            for data, rates in _mapping(by_data).items()
        }
        rows = {data: rates for data, rates in rows.items() if rates}
        names = dict.fromkeys(v for rates in rows.values() for v in rates)
        columns = sorted(names, key=lambda v: (not v.startswith("pooled"), v))
        cells = [(d, tuple(f"{100 * rates[v]:.1f}" if v in rates else "-" for v in columns)) for d, rates in rows.items()]
        if cells:
            tables.append(Rates(str(split), tuple(columns), tuple(cells)))
    return sorted(tables, key=lambda t: (t.split != "eval", t.split))


def _length(card: Mapping[str, Any]) -> str:
    samples, rate = card.get("n_samples"), card.get("sample_rate")
    return f"{number(samples / rate)} s ({samples:,} samples)" if _is_count(samples) and _is_count(rate) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _pairs(value: object) -> list[tuple[str, str]]:
    """A mapping for people: (name, value) as text."""
    return [(str(k), v if isinstance(v, str) else json.dumps(v, default=str)) for k, v in _mapping(value).items()]


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "")


def _count(value: object) -> str:
    return f"{value:,}" if _is_count(value) else ""


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
