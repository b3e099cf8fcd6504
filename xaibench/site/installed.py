"""What plugins say of themselves: paper, one sentence, options, needs. As runs recorded it, else as it is installed here.

What no run recorded is asked in a process of its own. To load every method takes seconds to most of a minute (torch, captum,
shap), and a site is made often: answers are kept, by name, until any installed distribution or plugin file changes. A plugin
that is not here, or fails to import, has its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xaibench import registry
from xaibench.cache import keep, kept
from xaibench.harness.described import described
from xaibench.probe import Silent, ask


@dataclass(frozen=True)
class Facts:
    """Of one plugin. origin: package and version; options: name -> default, as text; flags: those of `protocols.Attributor`
    that hold; problem: why nothing is known, in words, else "".
    """

    name: str
    origin: str = ""
    paper: str = ""
    summary: str = ""
    needs: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    problem: str = ""


def facts(group: str, names: Sequence[str], records: Sequence[Mapping[str, Any]] = ()) -> dict[str, Facts]:
    """What the plugins of these names say, each name once. Never raises for a plugin: see `Facts.problem`.

    records: the run.json of the runs, the last word first; only what none of them says is asked here.

    >>> facts("attributors", ["no-such-method"])["no-such-method"].problem
    'it is not installed where this page was made'
    """
    here = registry.plugins(group)
    said: dict[str, Any] = {}
    for record in records:
        for key, found in record.get("plugins", {}).items():
            said.setdefault(key, {"origin": record.get("origins", {}).get(key, ""), **found})
    if all(f"{group}/{n}" in said for n in names):
        return {n: _facts(group, n, said[f"{group}/{n}"], True) for n in dict.fromkeys(names)}
    known = {**kept(_store()), **said}
    wanted = [n for n in dict.fromkeys(names) if n in here and f"{group}/{n}" not in known]
    if wanted:
        answer = _ask(group, wanted)
        known |= answer
        if len(answer) == len(wanted):
            keep(_store(), {k: v for k, v in known.items() if k not in said})
    return {
        n: _facts(group, n, known.get(f"{group}/{n}"), n in here or f"{group}/{n}" in said) for n in dict.fromkeys(names)
    }


def describe(place: str) -> dict[str, Any]:
    """`described` of the plugin `group/name`, and the package it comes from; imports it."""
    group, _, name = place.partition("/")
    found = described(group, name)
    if "problem" in found:
        return found
    plugin = registry.find(group, name)
    return {"origin": f"{plugin.distribution} {plugin.version}", **found}


def _ask(group: str, names: Sequence[str]) -> dict[str, Any]:
    """`group/name` -> `describe`, asked in a process of its own; without those that gave no answer."""
    found = ask(f"{__name__}:describe", [f"{group}/{name}" for name in names], seconds=registry.IMPORT_SECONDS)
    return {place: said for place, said in found.items() if not isinstance(said, Silent)}


def _facts(group: str, name: str, found: Mapping[str, Any] | None, here: bool) -> Facts:
    if not here:
        return Facts(name, problem="it is not installed where this page was made")
    if found is None:
        return Facts(name, problem="the process that tried to import it ended")
    if "problem" in found:
        return Facts(name, problem=found["problem"])
    # a record may be of any version
    lists: dict[str, Any] = {k: tuple(map(str, found.get(k) or ())) for k in ("needs", "flags")}
    texts: dict[str, Any] = {k: str(found.get(k) or "") for k in ("origin", "paper", "summary")}
    return Facts(name, options=dict(found.get("options") or {}), **texts, **lists)


def _store() -> str:
    """The name under which answers are kept, until what is installed changes."""
    return f"facts-{registry.state()}"
