"""The page of all rules (docs/check.md), made from the table `RULES`, so that it cannot say what is not asked."""

from __future__ import annotations

import inspect

from xaibench.testing.rules import EVERY, KINDS, RULES

HEAD = """# Checking a plugin

A plugin keeps a contract ([contract](contract.md)). `xaibench check` holds one against it:

    xaibench check my-method                      every rule, one line each, with the number seen
    xaibench check my-method --cm lcnn            an attributor, on a real countermeasure instead of the kit's toys
    xaibench check my-method --json               the same for machines
    xaibench check my-method --expect 'RULE=why'  a failure that has a reason

It ends with 1 when a rule fails. `ok` comes with the number behind it; `failed` with what was seen, what was expected and
the likely cause; `n/a` with the reason why the rule cannot be asked.

The same rules run as tests, one a rule:

    from xaibench.testing import checks_of

    @checks_of("attributor", "my-method")
    def test_contract(check):
        check()

Where a plugin must break a rule, say why. Such a test fails as soon as the rule holds, so no reason outlives its cause:

    @checks_of("attributor", "my-method", expected={"batch-invariance": "its norm is shared by the batch, as in the paper"})

An attributor is asked on toys: countermeasures of a few thousand parameters, on a tenth of a second of noise. No data set
and no weights are needed. `cm=` gives another countermeasure, by name or as a function that makes one.

What "the same map" means: the largest difference, as a share of the largest value. Two runs on one machine may differ by
0.0001, an utterance alone and in a batch by 0.01: the bound by which a run withdraws a method from its board.
"""


def page() -> str:
    """The whole page, Markdown: rules of every kind, then of each kind."""
    parts = [HEAD]
    for kind in (EVERY, *KINDS):
        if not RULES[kind]:
            continue
        title = "Every kind" if kind == EVERY else kind.capitalize()
        rows = [f"| `{r.name}` | {r.sentence} | {_more(r.function)} |" for r in RULES[kind].values()]
        parts.append(
            f"\n## {title}\n\n| rule | what must hold | how it is asked |\n|---|---|---|\n" + "\n".join(rows) + "\n"
        )
    return "".join(parts)


def _more(function: object) -> str:
    """The rule's docstring on one line of a table."""
    return " ".join((inspect.getdoc(function) or "").split()).replace("|", "\\|")
