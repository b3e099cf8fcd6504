"""What a conformance rule is, and how rules become checks: one generator feeds `xaibench check` and the pytest decorator.

A rule is a function of a `Subject` (the plugin in hand) that returns what it saw (`Seen`), raises `Broken` with the number
seen, what was expected and the likely cause, or raises `NotApplicable` with the reason. It is registered by the decorator
`rule` under its kind, or under `EVERY` for all five kinds:

    @rule("attributor", "batch-invariance", "An utterance has the same map alone and in a batch.")
    def batch_invariance(subject: Subject) -> Seen: ...

The idea of one list of checks that both the library and its users run is that of scikit-learn's `check_estimator` and
`parametrize_with_checks` (Buitinck et al. 2013, arXiv:1309.0238).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from xaibench.errors import PluginError, Unsupported, XaibenchError, told
from xaibench.protocols import KINDS

T = TypeVar("T")

#: In the place of a kind: a rule that holds for all of them.
EVERY = "every kind"


class Broken(XaibenchError):
    """A plugin breaks a rule: what was seen, what was expected and the likely cause, in one or two sentences."""


class NotApplicable(Exception):
    """A rule cannot be asked of this plugin, with the reason; neither held nor broken."""


@dataclass(frozen=True)
class Seen:
    """What a rule saw where it holds: the number behind the judgement (None where there is none) and a sentence."""

    number: float | None
    text: str


@dataclass(frozen=True)
class Rule:
    """One rule: its kind (or `EVERY`), its name (lower case, hyphens), one sentence and its function."""

    kind: str
    name: str
    sentence: str
    function: Callable[[Subject], Seen]


@dataclass(frozen=True)
class Check:
    """A rule and the plugin to ask it of. `run()` returns `Seen`, or raises `Broken` or `NotApplicable`, nothing else."""

    rule: str
    sentence: str
    run: Callable[[], Seen]

    def __call__(self) -> Seen:
        return self.run()


@dataclass(eq=False)
class Subject:
    """The plugin in hand: its object, loaded when a rule first asks for it, and what rules keep for one another.

    given: the object itself, or None where it is looked up by `name` in the registry.
    cm:    a real countermeasure to check an attributor on, its name or a function that makes it; None: the kit's toys.
    """

    kind: str
    name: str
    given: Any = None
    cm: Any = None
    _kept: dict[str, Any] = field(default_factory=dict)

    @property
    def thing(self) -> Any:
        """The plugin's object. Raises NotApplicable where it does not load; the rule `loads` says why."""
        if self.given is not None:
            return self.given
        try:
            return self.load()
        except PluginError as reason:
            raise NotApplicable("it does not load") from reason

    @property
    def named(self) -> bool:
        """Whether it was looked up by name: only then there is an entry point, a distribution and an import to judge."""
        return self.given is None

    def load(self) -> Any:
        """The object from the registry. Raises PluginError."""
        from xaibench import registry

        return self.once("thing", lambda: registry.load(f"{self.kind}s", self.name))

    def once(self, key: str, make: Callable[[], T]) -> T:
        """What `make` gives, made at the first call and shared by all rules: views, maps, a report on the import."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


#: Kind (or `EVERY`) -> name -> rule, in the order in which they are asked.
RULES: dict[str, dict[str, Rule]] = {kind: {} for kind in (EVERY, *KINDS)}


def rule(kind: str, name: str, sentence: str) -> Callable[[Callable[[Subject], Seen]], Callable[[Subject], Seen]]:
    """Register a function of a `Subject` as a rule of a kind, or of `EVERY` kind. The sentence says what holds."""
    if kind not in RULES:
        raise PluginError(f"a rule is of one of the kinds {', '.join(RULES)}, got {kind!r}")

    def register(function: Callable[[Subject], Seen]) -> Callable[[Subject], Seen]:
        known = RULES[kind].get(name) or RULES[EVERY].get(name)
        where = (function.__module__, function.__qualname__)
        if known is not None and (known.function.__module__, known.function.__qualname__) != where:  # else imported again
            raise PluginError(f"there is a rule {name!r} of {kind} already")
        RULES[kind][name] = Rule(kind, name, sentence, function)
        return function

    return register


def rules_of(kind: str) -> dict[str, Rule]:
    """The rules of a kind, those of every kind first. Raises PluginError for an unknown kind."""
    if kind not in KINDS:
        raise PluginError(f"unknown kind {kind!r}; there are: {', '.join(KINDS)}")
    return {**RULES[EVERY], **RULES[kind]}


def checks(kind: str, thing_or_name: Any, *, cm: Any = None) -> Iterator[Check]:
    """One check a rule, for a plugin by name or for its object. Nothing is imported or computed until a check runs.

    cm: check an attributor on this countermeasure (a name, or a function that makes one) instead of the kit's toys.
    """
    rules = rules_of(kind)
    given = None if isinstance(thing_or_name, str) else thing_or_name
    if given is None and kind == "metric":
        from xaibench.metrics.catalog import METRICS  # xaibench's own metrics have no entry points

        given = METRICS.get(thing_or_name)
    subject = Subject(kind, _name(thing_or_name), given, cm)
    return (Check(r.name, r.sentence, _asked(r, subject)) for r in rules.values())


def _name(thing: Any) -> str:
    return thing if isinstance(thing, str) else str(getattr(thing, "name", type(thing).__name__))


def _asked(one: Rule, subject: Subject) -> Callable[[], Seen]:
    def run() -> Seen:
        from xaibench.testing.restoring import restored  # needs torch

        try:
            with restored():  # what a plugin does to the process is not the next rule's
                return one.function(subject)
        except (Broken, NotApplicable):
            raise
        except Unsupported as reason:
            raise NotApplicable(str(reason)) from reason
        except Exception as error:
            raise Broken(f"{subject.name} raised {told(error)}") from error

    return run


def checks_of(
    kind: str, things: Any, *, expected: Mapping[str, str] | None = None, cm: Any = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a test function of one argument `check`: pytest runs it once a rule, the rule's name is the test's id.

    things:   a plugin's name, or its object; of a list of several, a test's id opens with the plugin's name.
    expected: rule -> the reason, in a sentence, why this plugin breaks it. Such a test is an expected failure; it fails
        when the rule holds, so that no reason outlives its cause. Raises PluginError for an unknown rule or an empty reason.

        @checks_of("attributor", "my-method", expected={"batch-invariance": "its features are shared by the batch"})
        def test_contract(check):
            check()
    """
    import pytest

    expected = expectations(kind, expected or {})

    def case(check: Check) -> Callable[[], None]:
        def run() -> None:
            reason = expected.get(check.rule)
            try:
                seen = check.run()
            except NotApplicable as why:
                pytest.skip(f"does not apply: {why}")
            except Broken as broken:
                if reason is None:
                    raise
                pytest.xfail(f"{reason} ({broken})")
            if reason is not None:
                pytest.fail(f"{check.rule} holds ({seen.text}) although it is expected to fail: {reason}; remove it")

        return run

    several = isinstance(things, list | tuple)
    cases = [
        pytest.param(case(check), id=f"{_name(thing)}-{check.rule}" if several else check.rule)
        for thing in (things if several else [things])
        for check in checks(kind, thing, cm=cm)
    ]
    return pytest.mark.parametrize("check", cases)


def expectations(kind: str, expected: Mapping[str, str]) -> dict[str, str]:
    """Expected failures, checked: every rule exists and every reason is written. Raises PluginError."""
    known = rules_of(kind)
    for name, reason in expected.items():
        if name not in known:
            raise PluginError(f"an expected failure of the rule {name!r}: no rule of {kind}; there are: {', '.join(known)}")
        if not reason.strip():
            raise PluginError(f"the expected failure of {name!r} has no reason; write in one sentence why it must break")
    return dict(expected)
