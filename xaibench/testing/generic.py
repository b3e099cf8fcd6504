"""The rules of every kind: that a plugin loads, what its import does, and what it says of itself.

The import is judged in a fresh process that already has torch and xaibench (`xaibench.testing.probe`), so only plugins
looked up by name have one: an object handed to `checks` was imported by whoever made it.
"""

from __future__ import annotations

import copy
import inspect
import pickle
import sys
from typing import Any

from xaibench import registry
from xaibench.errors import PluginError
from xaibench.protocols import API_VERSION, Attributor, Dataset, Metric, Vocoder
from xaibench.testing.probe import imported
from xaibench.testing.rules import EVERY, Broken, NotApplicable, Seen, Subject, rule

#: Seconds that a plugin's own modules may take; a library that it imports takes what it takes.
OWN_SECONDS = 1.0
LONGEST_REPR = 5_000

_CLASSES = {"attributor": Attributor, "metric": Metric, "dataset": Dataset, "vocoder": Vocoder}


def plugin_of(subject: Subject) -> registry.Plugin:
    """Its entry point. Raises NotApplicable for an object, and where there is none to be found."""
    if not subject.named:
        raise NotApplicable("it was given as an object; by its name, the entry point is looked at, too")
    try:
        return registry.find(f"{subject.kind}s", subject.name)
    except PluginError as error:
        raise NotApplicable("it does not load: see the rule `loads`") from error


@rule(EVERY, "loads", "It loads, and is what its kind asks for.")
def loads(subject: Subject) -> Seen:
    """Its entry point can be imported, and gives an object of the right type that calls itself by the same name."""
    if subject.named:
        try:
            thing = subject.load()
        except PluginError as error:
            raise Broken(str(error)) from error
        plugin = registry.find(f"{subject.kind}s", subject.name)
        where = f"{plugin.entry.value} of {plugin.distribution} {plugin.version}"
    else:
        thing, where = subject.thing, "an object"
    expected = _CLASSES.get(subject.kind)
    if expected is not None and not isinstance(thing, expected):
        raise Broken(f"it is of type {type(thing).__name__}, expected {expected.__name__} (see xaibench.protocols)")
    return Seen(None, where)


@rule(EVERY, "name", "It calls itself by the name of its entry point.")
def name(subject: Subject) -> Seen:
    """What the command line takes and what a board shows are one name."""
    own = getattr(subject.thing, "name", None)
    if own != subject.name:
        raise Broken(f"its entry point is called {subject.name!r}, and it calls itself {own!r}: one of them is misspelt")
    return Seen(None, f"{own!r}")


@rule(EVERY, "api", f"Its package declares the version of the contract that it is written for (now {API_VERSION}).")
def api(subject: Subject) -> Seen:
    """An entry point in the group `xaibench.api`, whose name is the version: readable without importing anything."""
    plugin = plugin_of(subject)
    if not plugin.api:
        raise Broken(
            f"{plugin.distribution} {plugin.version} declares no version, expected {API_VERSION}; put into its "
            f'pyproject.toml [project.entry-points."xaibench.api"] {API_VERSION} = "xaibench.protocols", and reinstall'
        )
    if why := registry.unfit(plugin):
        raise Broken(why)
    return Seen(float(plugin.api[-1]), f"{plugin.distribution} declares {' and '.join(plugin.api)}")


def _import(subject: Subject) -> dict[str, Any]:
    plugin = plugin_of(subject)
    subject.thing  # noqa: B018 - what does not load is judged by `loads`
    return import_of(plugin)


def import_of(plugin: registry.Plugin) -> dict[str, Any]:
    """What importing a plugin's module did in a fresh process, and what its attributors did on a second device there."""
    module = plugin.entry.module
    if module not in _IMPORTS:
        everyone = (claim for group in registry.plugins("attributors").values() for claim in group)
        claims = [claim for claim in everyone if not registry.unfit(claim)]  # of others: these may point nowhere
        attributors = [claim.entry.attr for claim in claims if claim.entry.module == module]
        _IMPORTS[module] = imported(module, attributors)
    return _IMPORTS[module]


#: Module -> what its import did: plugins of one module share it.
_IMPORTS: dict[str, Any] = {}


@rule(EVERY, "import-time", f"Importing it takes less than {OWN_SECONDS:.0f} s in its own modules.")
def import_time(subject: Subject) -> Seen:
    """In a fresh process that has torch and xaibench; what other libraries take is told, not judged."""
    found = _import(subject)
    if found["error"]:
        raise Broken(f"in a fresh process its import failed: {found['error']}; does it rely on what others import first?")
    own, others = found["own"], found["seconds"] - found["own"]
    if own > OWN_SECONDS:
        raise Broken(
            f"its own modules took {own:.1f} s to import, expected less than {OWN_SECONDS:.0f} s: load weights and data, "
            f"and compile, when it is used, not when it is imported"
        )
    return Seen(own, f"{own:.2f} s, and {others:.1f} s for libraries")


@rule(EVERY, "import-side-effects", "Importing it changes nothing for others.")
def import_side_effects(subject: Subject) -> Seen:
    """Settings of torch and numpy, generators, working directory, environment, sys.path, threads, warnings filters, files in
    the working directory, output. What the libraries do that it imports is told, not judged.
    """
    found = _import(subject)
    if found["error"]:
        raise NotApplicable("its import failed in a fresh process: see the rule `import-time`")
    labels = list(found["changed"])
    if found["printed"]:
        labels.append(f"printed {found['printed'].splitlines()[0][:60]!r}")
    if labels:
        raise Broken(
            f"its import changed {len(labels)} things of the process: {'; '.join(labels)}; do that where it is used, in a "
            f"`with` block, not at import"
        )
    libraries = f"; libraries changed {', '.join(found['by_libraries'])}" if found["by_libraries"] else ""
    return Seen(0, f"nothing changed{libraries}")


@rule(EVERY, "docstring", "Its docstring, or summary, opens with a sentence, and its paper is given.")
def docstring(subject: Subject) -> Seen:
    """What the documentation and a site show of it. `paper` may say that there is none, and why."""
    thing = subject.thing
    function = (
        getattr(thing, "function", None) or getattr(thing, "build", None) or getattr(thing, "open", None) or type(thing)
    )
    text = (inspect.getdoc(function) or getattr(thing, "summary", "") or "").strip()
    text = text if subject.kind != "dataset" else (getattr(thing, "summary", "") or text)
    first = text.partition("\n\n")[0].strip()
    if len(first.split()) < 2:
        raise Broken(f"its docstring opens with {first!r}; expected a sentence that says what it does")
    if subject.kind != "dataset":  # whose sources are said by its corpus: licence and citation
        paper = getattr(thing, "paper", None)
        if not isinstance(paper, str) or not paper.strip():
            raise Broken(f"its paper is {paper!r}; expected authors, year and where (or 'none: ...', with what it is)")
        return Seen(None, f"{paper[:60]}")
    return Seen(None, first[:60])


@rule(EVERY, "pickles", "Another process can have it, by name or pickled; it can be copied, and its repr is short.")
def pickles(subject: Subject) -> Seen:
    """A worker gets the name; an object is pickled, or found again where the decorator put it. A message shows the repr."""
    thing = subject.thing
    shown = repr(thing)
    if not shown or len(shown) > LONGEST_REPR:
        raise Broken(
            f"its repr has {len(shown):,} characters, expected at most {LONGEST_REPR:,}: is there a tensor among its fields?"
        )
    try:
        copy.copy(thing)
    except Exception as error:
        raise Broken(f"it cannot be copied: {type(error).__name__}: {error}") from error
    function = getattr(thing, "function", None)
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    if subject.named or getattr(module, getattr(function, "__name__", ""), None) is thing:
        return Seen(len(shown), f"found again by its name; a repr of {len(shown)} characters")
    try:
        pickle.loads(pickle.dumps(thing))
    except Exception as error:
        raise Broken(f"it cannot be pickled: {type(error).__name__}: {error}; make its functions at module level") from error
    return Seen(len(shown), f"pickled; a repr of {len(shown)} characters")


@rule(EVERY, "keyword-options", "Its options are keyword-only, with defaults.")
def keyword_options(subject: Subject) -> Seen:
    """So that `--set NAME.OPTION=VALUE` and a run's record mean the same in every version."""
    thing = subject.thing
    if subject.kind == "attributor":
        given = list(inspect.signature(thing.function).parameters.values())[1:]
    elif subject.kind == "countermeasure" and hasattr(thing, "build"):
        given = list(inspect.signature(thing.build).parameters.values())
    else:
        raise NotApplicable(f"a {subject.kind} takes no options")
    wrong = [p.name for p in given if p.kind is not p.KEYWORD_ONLY or p.default is p.empty]
    if wrong:
        raise Broken(
            f"{len(wrong)} of its options are not keyword-only with a default: {', '.join(wrong)}; put them behind a *"
        )
    declared = set(thing.options)
    if declared != {p.name for p in given}:
        raise Broken(f"it declares the options {sorted(declared)}, and its function takes {[p.name for p in given]}")
    return Seen(len(given), f"{len(given)} options")
