"""Run folders by an enemy, and what may not come of them: for `tests/security`.

Every payload holds `OWNED`. A page is clean when a parser finds that word in text and in attributes that are text only: in
no element's or attribute's name, no address, no script of its own. A line is clean when a terminal finds nothing to obey.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fake_run
import pandas as pd

OWNED = "owned"
PAYLOADS = (
    f"<script>{OWNED}=1</script>", f'"><img src=x onerror={OWNED}=1>', f"' onmouseover='{OWNED}=1", f"javascript:{OWNED}=1",
    f"</script><script>{OWNED}=1</script>", f"</style><svg onload={OWNED}=1>", f"<!--{OWNED}", f"]]>{OWNED}",
    f"a\u2028{OWNED}=1//", f"{{{{ {OWNED} }}}}", f"{{% raw %}}{OWNED}", f"${{{OWNED}}}", f"\x1b]0;{OWNED}\x07",
    f"\x1b[2J\x1b[31m{OWNED}", f"\x9b31m{OWNED}", f"a\u202e{OWNED}\u2066", f"[red]{OWNED}", f"[/red]{OWNED}",
    f"[link=file:///etc/passwd]{OWNED}[/link]", f"[@click=app.bell]{OWNED}[/]", f":bomb: {OWNED}",
    f"\\input{{/etc/passwd}}{OWNED}", f"\\write18{{{OWNED}}}", f"$\\frac{{{OWNED}$", f"$x$ ${OWNED}", f"}}, {OWNED} = {{",
    f"@string{{{OWNED}}}", f"[{OWNED}](javascript:1)", f"![x](//{OWNED}.example/p)", f"| {OWNED} | x |", f"`{OWNED}`",
    f"=HYPERLINK(\"http://{OWNED}.example\")", f"+{OWNED}", f"-{OWNED}", f"@SUM({OWNED})", f"\t={OWNED}", f"x;={OWNED}",
    f"\uff1d{OWNED}", f"../../{OWNED}", f"/tmp/{OWNED}", f"..\\{OWNED}", f"C:\\{OWNED}", f"CON{OWNED}", "CON", "..", ".",
    f"{OWNED}\0x", f"{OWNED}\nline\n  note: x", f"{OWNED}\ud800", OWNED * 100, "", " ", "__proto__", "constructor", "index",
    "%2e%2e%2f", "%", "{}", "{0.__class__}", "%s%n", "nan", "-", "\N{COMBINING ACUTE ACCENT}" * 50, "\U000e0041" + OWNED,
    f"doi 10.1234/{OWNED}\"><b>", f"arXiv {OWNED}, 2020", f"Doe, {OWNED} and Roe, ICML 2031, arXiv 3101.00001",
)  # fmt: skip
#: What stands in a record where something else was expected.
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, -1e308, float("nan"), float("inf"), 10**30, 10**400 // 1, [], {}, [[]], [None], {"x": None},
    {"a": {"b": 1}}, ["x"] * 3, [1, "x", {}], {"": ""}, {"__proto__": 1}, "2026-13-45", "16000/512/160/hann",
)  # fmt: skip
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: Where our own pages link to: themselves, and the two catalogues of papers.
_ADDRESS = re.compile(
    r"(?:https://(?:doi\.org|arxiv\.org)/|data:(?:image|audio)/|#|(?!//|\\|/)(?![a-zA-Z][a-zA-Z0-9+.-]*:))"
)
_TEXTS = ("title", "alt", "aria-label", "content", "value", "placeholder", "class", "id", "label")


class _Page(HTMLParser):
    """What is wrong with a page, in `faults`. ours: scripts and styles that stand within a page of one file."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.faults: list[str] = []
        self.policy = ""
        self.inside = ""
        self.kind: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if OWNED in tag:
            self.faults.append(f"an element {tag}")
        if tag == "meta" and (found.get("http-equiv") or "").lower() == "content-security-policy":
            self.policy = found.get("content") or ""
        if tag in ("iframe", "object", "embed", "base", "applet"):
            self.faults.append(f"an element {tag}")
        for name, value in attrs:
            value = value or ""
            if OWNED in name or name.startswith("on") or name in ("srcdoc", "action", "formaction", "ping", "background"):
                self.faults.append(f"an attribute {name} of {tag}")
            if name in ("href", "src", "xlink:href", "poster") and not _ADDRESS.match(value.strip()):
                self.faults.append(f"an address {value[:80]!r}")
            if name == "style" and OWNED in value:
                self.faults.append(f"a style {value[:80]!r}")
            if OWNED in value and not (name in _TEXTS or name.startswith(("data-", "aria-")) or name in ("href", "src")):
                self.faults.append(f"a payload in {name} of {tag}")
        self.inside, self.kind = tag, found.get("type")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.inside = ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_comment(self, data: str) -> None:
        if OWNED in data:
            self.faults.append("a payload in a comment")

    def handle_data(self, data: str) -> None:
        if self.inside in ("script", "style") and OWNED in data:
            if self.kind != "application/json":
                self.faults.append(f"a payload in a {self.inside}")
            else:
                json.loads(data)
        if _TURNS.search(data) and self.inside != "script":
            self.faults.append("a sign that turns the text round")


_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")


def faults_of_pages(folder: Path) -> list[str]:
    """What no page may have, of every page in a folder."""
    found = []
    for path in sorted(Path(folder).rglob("*.html")):
        page = _Page()
        page.feed(path.read_text(encoding="utf-8"))
        page.close()
        if "default-src 'none'" not in page.policy:
            page.faults.append("no policy")
        found += [f"{path.name[:60]}: {fault}" for fault in page.faults]
    return found


def faults_of_lines(text: str) -> list[str]:
    """Signs of a text that a terminal would obey."""
    return [ascii(text[max(0, m.start() - 20) : m.end() + 20]) for m in _OBEYED.finditer(text)][:3]


def record() -> dict[str, Any]:
    """A run.json with everything in it that some page shows."""
    found = fake_run.run_record()
    card = {
        "paper": "Doe et al., ICML 2020", "eer": {"eval": {"toy": {"pooled": 0.1, "world": 0.2}}},
        "trained_on": {"data": {"toy": "d" * 8}, "vocoders": ["world"], "held_out": ["x"], "utterances": 3, "speakers": 2},
        "n_samples": 4000, "sample_rate": 8000, "spec": {"epochs": 2}, "made_with": {"torch": "2"}, "parameters": 12,
        "classes": ["bonafide", "spoof"], "licence": "MIT",
    }  # fmt: skip
    found["countermeasures"]["lcnn"] |= {"card": card, "options": {"a": 1}, "void": "", "checkpoint": "x.safetensors"}
    found["earlier"] = [{"spec": {"data": "toy"}, "environment": {"git_commit": "1" * 40}}]
    found["plugins"] = {
        "attributors/lime": {"paper": "Doe, 2020", "summary": "s", "needs": ["gradients"], "flags": ["signed"],
                             "options": {"samples": "100"}},
        "countermeasures/lcnn": {"paper": "p", "summary": "s"},
    }  # fmt: skip
    found["origins"] = {"attributors/lime": "x 1", "countermeasures/lcnn": "y 2"}
    found |= {"days": ["2026-01-01"], "sizes": {"lcnn": 4}, "identity": {"data": "toy"}, "truths": {"eq2": {"name": "eq2"}}}
    found["dataset"] |= {"licence": "CC0", "citation": "Nobody (2026)"}
    return found


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to everything within a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from paths(inner, (*path, key))


def changed(draw: random.Random, value: dict[str, Any], values: tuple[Any, ...] = (*PAYLOADS, *ODD)) -> dict[str, Any]:
    """A copy of a record in which one to three things are something else, gone, or called otherwise."""
    copy = json.loads(json.dumps(value))
    for _ in range(draw.choice((1, 1, 2, 3))):
        every = list(paths(copy))
        if not every:
            break
        *way, key = draw.choice(every)
        holder = copy
        for step in way:
            holder = holder[step]
        kind = draw.random()
        if kind < 0.1:
            del holder[key]
        elif kind < 0.25 and isinstance(holder, dict):
            holder[draw.choice(PAYLOADS)] = holder.pop(key)
        else:
            holder[key] = draw.choice(values)
    return copy


TEXTS = ("run", "dataset", "utterance", "speaker", "vocoder", "countermeasure", "attributor", "route", "truth", "metric",
         "status", "note", "fingerprint")  # fmt: skip


def hostile_rows(draw: random.Random, *, utterances: int = 2) -> pd.DataFrame:
    """Rows in which some names and numbers are an enemy's."""
    methods = {name: means for name, means in fake_run.SCORES.items() if draw.random() < 0.8} or fake_run.SCORES
    table = fake_run.rows(methods, utterances=utterances)
    for _ in range(draw.choice((0, 1, 1, 2, 3))):
        column = draw.choice((*TEXTS, "attributor", "utterance", "note", "countermeasure"))
        old = draw.choice(sorted(set(table[column].astype(str))))
        table[column] = table[column].replace(old, draw.choice(PAYLOADS).encode("utf-8", "replace").decode())
    if draw.random() < 0.3:
        at = table.index == draw.randrange(len(table))
        note = draw.choice(PAYLOADS).encode("utf-8", "replace").decode()
        table = fake_run.fail(table, at, status=draw.choice(("failed", "void", "unsupported", "undefined")), note=note)
    if draw.random() < 0.2:
        table.loc[draw.randrange(len(table)), "value"] = draw.choice((float("nan"), float("inf"), 1e308, -1e308, 5e-324))
    if draw.random() < 0.2:
        table.loc[draw.randrange(len(table)), "seconds"] = draw.choice((float("nan"), float("inf"), -1.0, 1e308))
    if draw.random() < 0.1:
        table = pd.concat([table, table.iloc[: draw.randrange(1, 9)]])
    return table


def write(folder: Path, table: pd.DataFrame, content: Any) -> Path:
    """A run folder whose rows lie in one file, whatever they say."""
    place = Path(folder) / "rows" / "lcnn" / "native-eq2" / "any"
    place.mkdir(parents=True)
    table.to_parquet(place / "00000-000000000000.parquet", index=False)
    (Path(folder) / "run.json").write_text(json.dumps(content), encoding="utf-8")
    return Path(folder)


Command = Callable[..., tuple[int, str, str]]
