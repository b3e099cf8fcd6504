"""What a new plugin package is called, and whether it may be.

One name is typed, the plugin's; the distribution and the module follow from it. Of the characters that a name may hold
(`xaibench.protocols.NAME`), PyPI takes hyphens only and Python underscores only, so the others are spelt out.
"""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution

from xaibench import registry
from xaibench.errors import PluginError
from xaibench.metrics.catalog import METRICS
from xaibench.protocols import KINDS, NAME, RESERVED


@dataclass(frozen=True)
class Names:
    """kind: one of `KINDS`. plugin: as typed after `--xai`. distribution: as pip knows it. module: as Python imports it."""

    kind: str
    plugin: str
    distribution: str
    module: str


def names_of(kind: str, plugin: str) -> Names:
    """The names of a new package. Raises PluginError for an unknown kind, or a name that is none.

    >>> names_of("metric", "iou@5")
    Names(kind='metric', plugin='iou@5', distribution='xaibench-iou-at-5', module='xaibench_iou_at_5')
    """
    if kind not in KINDS:
        raise PluginError(f"unknown kind {kind!r}; there are: {', '.join(KINDS)}")
    if not NAME.fullmatch(plugin):
        shown = plugin if len(plugin) <= 80 else f"{plugin[:77]}..."
        likely = _likely(plugin)
        raise PluginError(
            f"{shown!r} is no name of a plugin: lower-case letters and digits, and after the first also '-', '+' and '@', "
            "64 in all" + (f"; perhaps {likely!r}?" if likely else "")
        )
    if plugin in RESERVED:
        raise PluginError(f"{plugin!r} means something else on the command line; taken are {', '.join(sorted(RESERVED))}")
    if plugin.startswith(f"{registry.CORE}-"):
        rest = plugin.removeprefix(f"{registry.CORE}-")
        raise PluginError(f"the package gets the prefix '{registry.CORE}-' by itself; call the plugin {rest!r}")
    slug = re.sub("-+", "-", plugin.replace("+", "-plus-").replace("@", "-at-")).strip("-")
    return Names(kind, plugin, f"{registry.CORE}-{slug}", f"{registry.CORE}_{slug.replace('-', '_')}")


def refuse_taken(names: Names) -> None:
    """Raise PluginError, naming who has it, if the plugin, its distribution or its module is there already."""
    group = f"{names.kind}s"
    claims = registry.plugins(group).get(names.plugin, ())
    who = " and ".join(f"{c.distribution} {c.version}" for c in claims)
    if names.kind == "metric" and names.plugin in METRICS:
        who = registry.CORE
    if who:
        raise PluginError(f"the {names.kind} {names.plugin!r} is there already, from {who}; choose another name")
    try:
        known = distribution(names.distribution)
    except PackageNotFoundError:
        known = None
    if known is not None:
        raise PluginError(
            f"the package {names.distribution} {known.version} is installed already; choose another name, or add the "
            f"{names.kind} to it: one package may have many entry points"
        )
    spec = importlib.util.find_spec(names.module)
    if spec is not None:
        where = spec.origin or ", ".join(spec.submodule_search_locations or ())
        raise PluginError(f"there is a module {names.module} already, {where}; choose another name")


def _likely(plugin: str) -> str:
    """The nearest name that is one, or "".

    >>> _likely("Ma Méthode"), _likely("../x"), _likely("<>")
    ('ma-methode', 'x', '')
    """
    ascii_only = unicodedata.normalize("NFKD", plugin).encode("ascii", "ignore").decode()
    likely = re.sub(r"[^a-z0-9@+]+", "-", ascii_only.lower()).strip("-@+")
    return likely if NAME.fullmatch(likely) and likely not in RESERVED else ""
