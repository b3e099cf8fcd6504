"""Plugins by name, through entry points: looked up without importing them, loaded when used.

A name that two distributions claim is an error that names both; xaibench's own names are its own. A plugin that fails to
import is one named problem, never a crash of the command and never silence. `XAIBENCH_PLUGINS=a,b` restricts what is looked
at to the packages a and b (`shap` is short for `xaibench-shap`), and xaibench itself.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from typing import Any

from xaibench.cache import keep, kept
from xaibench.errors import PluginError, XaibenchError, first_line, told
from xaibench.manifest import Roots, read_manifest, remembered_roots
from xaibench.metrics.catalog import METRICS
from xaibench.probe import Silent, ask
from xaibench.protocols import (
    API_VERSION,
    GROUPS,
    NAME,
    RESERVED,
    SERVED,
    Attributor,
    Corpus,
    Dataset,
    Metric,
    Vocoder,
)
from xaibench.types import Utterance

_KINDS = {"attributors": Attributor, "datasets": Dataset, "metrics": Metric, "vocoders": Vocoder}


@dataclass(frozen=True)
class Plugin:
    """One entry point and where it comes from."""

    group: str
    name: str
    distribution: str
    version: str
    entry: EntryPoint
    api: tuple[str, ...] = ()  # versions of the contract that its distribution declares; none counts as "1"

    def __str__(self) -> str:
        return f"{self.group.removesuffix('s')} {self.name!r} of {self.distribution} {self.version}"

    @property
    def package(self) -> str:
        """The first part of its module's name."""
        return re.split(r"[.:\s]", self.entry.value.strip(), maxsplit=1)[0]


IMPORT_FAILED = "failed to import"
#: The distribution whose names nobody else can take, and which no setting leaves out.
CORE = "xaibench"


@cache
def _looked() -> tuple[tuple[Plugin, ...], dict[str, str]]:
    """Every plugin, and `packages/NAME` -> why the entry points of that package cannot be read."""
    found: dict[tuple[str, str, str, str], Plugin] = {}
    damaged: dict[str, str] = {}
    groups = {f"xaibench.{group}" for group in GROUPS}
    for distribution in distributions():
        try:
            entries = list(distribution.entry_points)
        except Exception as error:  # noqa: BLE001 - whatever wrote it: all other packages can be read
            name, version = called(distribution)
            damaged[f"packages/{name}"] = (
                f"entry_points.txt of {name} {version} cannot be read ({told(error)}); reinstall it"
            )
            continue
        ours = [entry for entry in entries if entry.group in groups]
        if not ours:
            continue
        name, version = called(distribution)
        api = tuple(sorted(e.name for e in entries if e.group == "xaibench.api"))
        for entry in ours:
            group = entry.group.removeprefix("xaibench.")
            found.setdefault((group, entry.name, name, entry.value), Plugin(group, entry.name, name, version, entry, api))
    return tuple(sorted(found.values(), key=lambda p: (p.group, p.name, p.distribution))), damaged


def called(distribution: Distribution) -> tuple[str, str]:
    """Name and version; where its metadata is damaged or lacks them, as its folder NAME-VERSION.dist-info says."""
    folder = Path(str(getattr(distribution, "_path", "a package without a name"))).stem
    name, _, version = folder.partition("-")
    with suppress(Exception):
        metadata = distribution.metadata  # parses the whole file
        name, version = metadata["Name"] or name, metadata["Version"] or version
    return first_line(name), first_line(version) or "(no version)"


def _installed() -> tuple[Plugin, ...]:
    return _looked()[0]


@cache
def _scan() -> tuple[Plugin, ...]:
    wanted = os.environ.get("XAIBENCH_PLUGINS")
    if wanted is None:
        return _installed()
    there = {_normal(p.distribution): p.distribution for p in _installed()}
    chosen = {CORE}
    for name in filter(None, (part.strip() for part in wanted.split(","))):
        known = [n for n in (_normal(name), f"{CORE}-{_normal(name)}") if n in there]
        if not known:
            raise PluginError(
                f"XAIBENCH_PLUGINS names {name!r}, which is no installed package with plugins; there are: "
                f"{', '.join(sorted(there))}"
            )
        chosen.add(known[0])
    return tuple(p for p in _installed() if _normal(p.distribution) in chosen)


def _normal(distribution: str) -> str:
    """A distribution's name as PyPI compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def look_again() -> None:
    """Forget what is installed: the next call looks anew."""
    for cached in (_looked, _scan, _state_once, _told):
        cached.cache_clear()


def plugins(group: str) -> Mapping[str, tuple[Plugin, ...]]:
    """Every name of a group with the distributions that claim it (more than one is a collision). Imports nothing.

    Raises PluginError when XAIBENCH_PLUGINS names a package that is not there.
    """
    names: dict[str, list[Plugin]] = {}
    for plugin in _scan():
        if plugin.group == group:
            names.setdefault(plugin.name, []).append(plugin)
    return {name: tuple(claims) for name, claims in names.items()}


def find(group: str, name: str) -> Plugin:
    """The plugin of that name. Raises PluginError with "did you mean", or naming both sides of a collision.

    A name of xaibench itself stays its own, whoever else claims it.
    """
    known = plugins(group)
    if name not in known:
        left_out = sorted({p.distribution for p in _installed() if (p.group, p.name) == (group, name)})
        if left_out:
            raise PluginError(f"XAIBENCH_PLUGINS leaves out {' and '.join(left_out)}, whose {group[:-1]} {name!r} is")
        raise PluginError(unknown(group.removesuffix("s"), name, known))
    claims = known[name]
    own = [c for c in claims if _normal(c.distribution) == CORE]
    if len(claims) > 1 and not own:
        raise PluginError(collision(claims))
    return (own or claims)[0]


def collision(claims: Sequence[Plugin]) -> str:
    """The sentence for a name that several distributions claim."""
    group, name = claims[0].group.removesuffix("s"), claims[0].name
    own = [c for c in claims if _normal(c.distribution) == CORE]
    if own:
        who = " and ".join(f"{c.distribution} {c.version}" for c in claims if c not in own)
        return f"{group} {name!r} of {who} is never used: the name belongs to xaibench {own[0].version}"
    who = " and ".join(f"{c.distribution} {c.version}" for c in claims)
    return f"{group} {name!r} is claimed by {who}; uninstall one of them, or leave it out with XAIBENCH_PLUGINS"


def unfit(plugin: Plugin) -> str:
    """Why a plugin cannot be used whatever its code does: its name, or the version of its contract; "" where all is well."""
    if not NAME.fullmatch(plugin.name) or plugin.name in RESERVED:
        return (
            f"{plugin} cannot be called that: a name is lower-case letters and digits, with '-', '+' or '@' after the "
            f"first, at most 64, and none of {', '.join(sorted(RESERVED))}"
        )
    if not plugin.entry.pattern.match(plugin.entry.value):
        return f"{plugin} points at {plugin.entry.value!r}; expected module:object in its entry point"
    if plugin.group == "metrics" and plugin.name in METRICS:
        return f"{plugin} is never used: the name belongs to xaibench"
    if not set(plugin.api or ("1",)) & set(map(str, SERVED)):
        served, declared = " and ".join(map(str, SERVED)), " and ".join(plugin.api)
        newer = all(api.isdecimal() and int(api) > API_VERSION for api in plugin.api)
        cure = "upgrade xaibench" if newer else f"{plugin.distribution} must be updated (docs/contract.md)"
        return f"{plugin} is written for version {declared} of the plugin contract, this xaibench serves {served}: {cure}"
    return ""


def ageing(plugin: Plugin) -> str:
    """The sentence for a plugin whose version of the contract will not be served for ever; "" for all others."""
    served = [api for api in SERVED if str(api) in (plugin.api or ("1",))]
    if not served or not SERVED[max(served)]:
        return ""
    return f"follows version {max(served)} of the plugin contract, which is served until {SERVED[max(served)]}"


def load(group: str, name: str) -> Any:
    """Import and return a plugin's object. Raises PluginError naming the distribution and the original error."""
    plugin = where = find(group, name)
    if why := unfit(plugin):
        raise PluginError(why)
    try:
        with _undone(group):
            thing = plugin.entry.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginError(f"{where} {IMPORT_FAILED}: {told(error)}") from error
    kind = _KINDS.get(group)
    if kind is not None and not isinstance(thing, kind):
        raise PluginError(f"{where} is of type {type(thing).__name__}, expected {kind.__name__} (see xaibench.protocols)")
    if kind is not None and thing.name != name:
        raise PluginError(f"{where} calls itself {thing.name!r}; entry point and plugin must agree")
    return thing


@contextmanager
def _undone(group: str) -> Iterator[None]:
    """An import that sets something of torch, or moves the working directory, would move the numbers and files of others."""
    folder = os.getcwd()
    try:
        if group in ("datasets", "vocoders") and "torch" not in sys.modules:  # these may do without it
            yield
        else:
            from xaibench.settings import unchanged

            with unchanged():
                yield
    finally:
        os.chdir(folder)


def open_corpus(name: str, root: Roots | None = None) -> Corpus:
    """A data set, opened: by its plugin's name, or by the path of a manifest (NAME.toml) that `xaibench data index` wrote.

    root: its folder, or `{name: folder}` where a manifest has several; those not given are where indexing found them.
    Raises what the plugin means to say (ManifestError), and PluginError for anything else.
    """
    if str(name).endswith(".toml"):
        return read_manifest(Path(name), remembered_roots(Path(name), root))
    dataset = load("datasets", name)
    try:
        corpus = dataset.open(
            {n: Path(r) for n, r in root.items()} if isinstance(root, Mapping) else Path(root) if root else None
        )
    except XaibenchError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{_data_set(name)} could not be opened: {told(error)}; does it need --root?") from error
    if why := _unsound(corpus):
        raise PluginError(f"{_data_set(name)} {why}")
    return corpus


def _data_set(name: str) -> str:
    plugin = find("datasets", name)
    return f"data set {name!r} of {plugin.distribution} {plugin.version}"


def _unsound(corpus: object) -> str:
    """What is wrong with what a data set opened; "" where nothing is."""
    if not isinstance(corpus, Corpus):
        return f"opened as {type(corpus).__name__}, expected a Corpus"
    known = set()
    for utterance in corpus.utterances:
        if not isinstance(utterance, Utterance):
            return f"holds {first_line(repr(utterance))}, expected an Utterance"
        which = utterance.source, utterance.vocoder, str(utterance.path)
        if which in known:
            return f"lists {utterance.path} twice; its pairs would count twice"
        known.add(which)
    if not corpus.valid_band[0] < corpus.valid_band[1]:
        return f"has the valid band {corpus.valid_band}, expected (low, high) in Hz"
    return ""


def unknown(what: str, name: str, known: Mapping[str, Any] | list[str]) -> str:
    """The sentence for an unknown name.

    >>> unknown("attributor", "gradcam", ["grad-cam", "saliency"])
    "unknown attributor 'gradcam'; did you mean 'grad-cam'? (`xaibench list` shows what is installed)"
    """
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(c) for c in close)}?" if close else f"there are: {', '.join(sorted(known))}"
    return f"unknown {what} {name!r}; {hint} (`xaibench list` shows what is installed)"


#: Seconds that one plugin may take to be imported when it is asked about; XAIBENCH_IMPORT_SECONDS changes it.
IMPORT_SECONDS = 60.0


def problems() -> Mapping[str, str]:
    """`group/name` -> why that plugin cannot be loaded. Tried in a process of its own, so that nothing is imported here.

    The answer is cached until any installed distribution or plugin file changes. Collisions are among them.
    """
    said = {place: known["problem"] for place, known in _told(_wait(), state()).items() if "problem" in known}
    return {**_claimed(), **said, **_looked()[1]}


def _claimed() -> dict[str, str]:
    everything = {(group, name): claims for group in GROUPS for name, claims in plugins(group).items()}
    return {f"{group}/{name}": collision(claims) for (group, name), claims in everything.items() if len(claims) > 1}


def stand_in(group: str, name: str) -> Any:
    """What `load` gives, but of an attributor only what it says of itself: its code is not imported into this process.

    A plugin of another kind is imported, once it is known that this ends well. Raises PluginError as `load` does, and for
    one that ends the process that imports it, or takes too long.
    """
    plugin = find(group, name)
    if _normal(plugin.distribution) == CORE or unfit(plugin):
        return load(group, name)
    known = _told(_wait(), _state_once()).get(f"{group}/{name}", {})
    if "problem" in known:
        raise PluginError(known["problem"])
    if group != "attributors" or not known:
        return load(group, name)

    def elsewhere(view: Any) -> None:
        raise PluginError(f"{plugin} was asked about only, and not imported into this process")

    elsewhere.__doc__ = known["doc"]
    facts = {**known["facts"], "needs": frozenset(known["facts"]["needs"])}
    return Attributor(name=name, function=elsewhere, options={k: _unsaid(v) for k, v in known["options"].items()}, **facts)


def introduce(place: str) -> dict[str, Any]:
    """What the plugin `group/name` says of itself, as JSON holds it; imports it. `{"problem": ...}` where that fails."""
    group, _, name = place.partition("/")
    try:
        thing = load(group, name)
    except PluginError as error:
        return {"problem": str(error)}
    if not isinstance(thing, Attributor):
        return {}
    flags = ("signed", "random", "complete", "class_specific", "control", "optional")
    return {
        "facts": {"paper": str(thing.paper), "needs": sorted(thing.needs), **{f: bool(getattr(thing, f)) for f in flags}},
        "options": {str(option): _said(value) for option, value in thing.options.items()},
        "doc": inspect.getdoc(thing.function) or "",
    }


def _said(value: object) -> list[str]:
    """An option's value in text, so that a tuple stays a tuple; what no literal says becomes the text of it.

    >>> _unsaid(_said((3, 1.5, None))), _unsaid(_said(float("inf")))
    ((3, 1.5, None), inf)
    """
    if isinstance(value, float):
        return ["float", repr(float(value))]
    try:
        return ["literal", repr(value)] if ast.literal_eval(repr(value)) == value else ["text", str(value)]
    except (ValueError, SyntaxError):
        return ["text", str(value)]


def _unsaid(said: list[str]) -> Any:
    kind, text = said
    readers: dict[str, Callable[[str], Any]] = {"float": float, "literal": ast.literal_eval, "text": str}
    return readers[kind](text)


def _wait() -> float:
    given = os.environ.get("XAIBENCH_IMPORT_SECONDS", IMPORT_SECONDS)
    try:
        return max(float(given), 0.1)
    except ValueError as error:
        raise PluginError(f"XAIBENCH_IMPORT_SECONDS is {given!r}, expected a number of seconds") from error


@cache
def _state_once() -> str:
    return state()


@cache
def _told(seconds: float, state: str) -> Mapping[str, Mapping[str, Any]]:
    """`group/name` -> what `introduce` says of every plugin but xaibench's own."""
    store = f"plugins-{state}-{seconds:g}"
    if found := kept(store):
        return found
    foreign = ((g, n) for g in GROUPS for n, claims in plugins(g).items() if _normal(claims[0].distribution) != CORE)
    places = ["/".join(place) for place in foreign]
    introduced = f"{__name__}:introduce"
    found = ask(introduced, places, seconds=seconds)
    for place, answer in found.items():
        if isinstance(answer, dict) and IMPORT_FAILED in answer.get("problem", ""):
            found |= ask(introduced, [place], seconds=seconds)  # alone: one imported before it may be to blame
    for place, answer in found.items():
        if not isinstance(answer, dict):
            group, _, name = place.partition("/")
            why = answer if isinstance(answer, Silent) else "its answer cannot be read"
            found[place] = {"problem": f"{find(group, name)} {IMPORT_FAILED}: {why}"}
    keep(store, found)
    return found


def state() -> str:
    """A mark of what is installed: it changes with any distribution and any file of a plugin."""
    digest = hashlib.sha256(sys.prefix.encode())
    for folder in sys.path:  # NAME-VERSION.dist-info: to read the names inside takes 1 ms a distribution
        if os.path.isdir(folder or "."):
            for found in sorted(os.scandir(folder or "."), key=lambda f: f.name):
                if found.name.endswith((".dist-info", ".egg-info")):
                    digest.update(f"{found.path}{found.stat().st_mtime_ns}\n".encode(errors="surrogateescape"))
    for plugin in _scan():
        digest.update(f"{plugin.group}{plugin.name}{plugin.version}{plugin.entry.value}".encode())
    for package in sorted({plugin.package for plugin in _scan()}):
        spec = None
        with suppress(ImportError, ValueError):  # no package of that name, or no name of a package
            spec = importlib.util.find_spec(package)
        files = [Path(spec.origin)] if spec and spec.origin else []
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            files += sorted(Path(folder).rglob("*.py"))
        for file in files:
            with suppress(OSError):  # a link to nowhere, or just deleted
                digest.update(f"{file}{file.stat().st_mtime_ns}".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
