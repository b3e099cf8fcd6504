"""The page of all rules (docs/check.md), made from the table `RULES`, so that it cannot say what is not asked."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

from xaibench.testing.rules import EVERY, KINDS, RULES

HEAD = """# Checking a plugin

Generated from `xaibench/testing` by `docs/generate.py`; do not edit.

A plugin keeps [a contract](contract.md). `xaibench check` holds a plugin against it:

```bash
xaibench check my-method                       # every rule, one line each, with the number seen
xaibench check my-method --cm lcnn             # an attributor, on a real countermeasure instead of the kit's toys
xaibench check my-method --json                # the same for machines
xaibench check my-method --expect 'RULE=why'   # a failure that has a reason
```

It ends with 1 when a rule fails. `ok` comes with the number behind it; `failed` with what was seen, what was expected and
the likely cause; `n/a` with the reason why the rule cannot be asked.

The same rules run as tests, one a rule:

```python
from xaibench.testing import checks_of


@checks_of("attributor", "saliency")
def test_contract(check):
    check()
```

Where a plugin must break a rule, say why. Such a test fails as soon as the rule holds, so no reason outlives its cause:

```text
@checks_of("attributor", "my-method", expected={"batch-invariance": "its norm is shared by the batch, as in the paper"})
```

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


def _more(function: Callable[..., Any]) -> str:
    """The rule's docstring on one line of a table, the constants that it names with their values."""
    known = inspect.unwrap(function).__globals__
    text = re.sub(r"`([A-Z]+)`", lambda found: _value(known[found[1]]), inspect.getdoc(function) or "")
    return " ".join(text.split()).replace("|", "\\|")


def _value(constant: float | Iterable[str]) -> str:
    """
    >>> _value(9.0), _value({"noise": 1, "the truth": 2})
    ('9', 'noise, the truth')
    """
    return f"{constant:g}" if isinstance(constant, int | float) else ", ".join(constant)
