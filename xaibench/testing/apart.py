"""A plugin held against its rules in a process of its own: one that hangs, or ends its process, loses one answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

from xaibench.probe import Silent, ask
from xaibench.testing.rules import Broken, Check, NotApplicable, checks, rules_of

#: Rules without an answer after which the rest is not asked: each would cost its time limit.
LOST = 2


@dataclass(frozen=True)
class Answer:
    """What came of a rule: `outcome` is "ok", "failed" or "n/a"; `number` and `text` as `rules.Seen` has them."""

    outcome: str
    number: float | None
    text: str


def answers(kind: str, name: str, *, cm: str | None = None, seconds: float) -> dict[str, Answer]:
    """Rule -> what came of it, for a plugin by name. seconds: what one rule may take; the first one also imports torch."""
    questions = {json.dumps([kind, name, cm, rule]): rule for rule in rules_of(kind)}
    found = ask(f"{__name__}:answer", list(questions), seconds=seconds, lost=LOST)
    return {rule: _read(found.get(question)) for question, rule in questions.items()}


def answer(question: str) -> tuple[str, float | None, str]:
    """The other side: one rule, asked here. `[kind, name, cm, rule]` in JSON."""
    *plugin, rule = json.loads(question)
    try:
        seen = _checks(*plugin)[rule].run()
    except NotApplicable as why:
        return "n/a", None, str(why)
    except Broken as broken:
        return "failed", None, str(broken)
    return "ok", seen.number, seen.text


@cache
def _checks(kind: str, name: str, cm: str | None) -> dict[str, Check]:
    """The checks of one plugin, which share what they computed."""
    return {check.rule: check for check in checks(kind, name, cm=cm)}


def _read(said: object) -> Answer:
    if said is None:
        return Answer("n/a", None, f"not asked: {LOST} rules before it gave no answer")
    if isinstance(said, Silent):
        return Answer("failed", None, f"no answer: {said}")
    assert isinstance(said, list)
    return Answer(*said)
