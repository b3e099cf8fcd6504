"""The command `check`: does a plugin keep the contract?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from xaibench.cli.app import app
from xaibench.cli.output import console, say
from xaibench.errors import PluginError

MARKS = {"ok": "[green]ok[/green]", "failed": "[bold red]failed[/bold red]", "expected": "[yellow]expected[/yellow]",
         "unexpected": "[bold red]holds[/bold red]", "n/a": "[dim]n/a[/dim]"}  # fmt: skip


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A plugin's name.")],
    kind: Annotated[
        str | None, typer.Option(help="countermeasure, attributor, metric, dataset or vocoder, where two have that name.")
    ] = None,
    cm: Annotated[str | None, typer.Option(help="Ask an attributor on this countermeasure, not on the kit's toys.")] = None,
    expect: Annotated[
        list[str] | None, typer.Option(metavar="RULE=REASON", help="A failure that has a reason, repeatable.")
    ] = None,
    rule_timeout: Annotated[float, typer.Option(metavar="SECONDS", help="How long one rule may take.")] = 120.0,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Hold a plugin against every rule of its kind: one line a rule, with the number seen. Ends with 1 when one fails.

    It is asked in a process of its own: one that hangs, or ends its process, fails that rule.

    `xaibench check my-method`
    """
    found_kind = _kind(name, kind)
    reasons = _reasons(expect or [])
    from xaibench.testing.apart import answers
    from xaibench.testing.rules import expectations, rules_of

    reasons = expectations(found_kind, reasons)
    found, known = answers(found_kind, name, cm=cm, seconds=rule_timeout), rules_of(found_kind)
    rows = [_row(known[rule], answer, reasons.get(rule)) for rule, answer in found.items()]
    failed = sum(row["outcome"] in ("failed", "unexpected") for row in rows)
    if json_:
        import json

        say(json.dumps({"kind": found_kind, "name": name, "cm": cm, "failed": failed, "rules": rows}, indent=2))
    else:
        _print(found_kind, name, rows)
    if failed:
        raise typer.Exit(1)


def _kind(name: str, kind: str | None) -> str:
    """The kind of a plugin of that name. Raises PluginError for none, and for several unless `kind` says which."""
    from xaibench import registry
    from xaibench.metrics.catalog import METRICS  # xaibench's own have no entry points
    from xaibench.protocols import KINDS

    if kind is not None:
        if kind not in KINDS:
            raise PluginError(registry.unknown("kind", kind, list(KINDS)))
        if not (kind == "metric" and name in METRICS):
            registry.find(f"{kind}s", name)
        return kind
    having = [k for k in KINDS if name in registry.plugins(f"{k}s") or (k == "metric" and name in METRICS)]
    if not having:
        everything = [*METRICS, *(n for k in KINDS for n in registry.plugins(f"{k}s"))]
        raise PluginError(registry.unknown("plugin", name, everything))
    if len(having) > 1:
        raise PluginError(f"{name!r} is a {' and a '.join(having)}; say which: --kind {having[0]}")
    return having[0]


def _reasons(expect: list[str]) -> dict[str, str]:
    found = {}
    for text in expect:
        rule, equals, reason = text.partition("=")
        if not equals:
            raise PluginError(f"--expect {text!r} is not RULE=REASON, as in --expect 'batch-invariance=its norm is shared'")
        found[rule] = reason
    return found


def _row(rule: Any, answer: Any, reason: str | None) -> dict[str, Any]:
    """One line: what came of a rule, beside what was expected of it."""
    outcome, text = answer.outcome, answer.text
    if reason is not None and outcome == "failed":
        outcome = "expected"
    elif reason is not None and outcome == "ok":
        outcome, text = "unexpected", f"it holds ({text}) although a failure is expected; remove the expectation"
    facts = {"rule": rule.name, "sentence": rule.sentence, "number": answer.number, "reason": reason}
    return {**facts, "outcome": outcome, "text": text}


def _print(kind: str, name: str, rows: list[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("rule", "", "what was seen", title=f"{kind} {name}", title_justify="left", box=None, pad_edge=False)
    for row in rows:
        text = escape(row["text"])
        if row["outcome"] in ("failed", "unexpected"):
            text += f"\n[dim]{escape(row['sentence'])}[/dim]"
        elif row["outcome"] == "expected":
            text = f"{escape(row['reason'])} [dim]({text})[/dim]"
        table.add_row(row["rule"], MARKS[row["outcome"]], text)
    screen = console(markup=True)
    screen.print(table)
    outcomes = [row["outcome"] for row in rows]
    failed = outcomes.count("failed") + outcomes.count("unexpected")
    parts = [f"{outcomes.count('ok')} ok", f"{failed} failed"]
    parts += [f"{outcomes.count('expected')} expected to fail"] * ("expected" in outcomes)
    parts += [f"{outcomes.count('n/a')} do not apply"] * ("n/a" in outcomes)
    screen.print(", ".join(parts))
