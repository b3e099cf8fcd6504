"""Whether the packages that every plugin shares are still what they were: installing a plugin must not swap torch.

pip installs what the last package asked for. A plugin that pins `torch==2.9` takes the torch away on which everybody's rows
were computed, and nothing says so. xaibench says so: what no longer fits its own requirements, whose requirements are not
met, and what changed since it last computed something here.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version

from packaging.requirements import InvalidRequirement, Requirement

from xaibench import registry
from xaibench.cache import keep, kept

#: What all plugins share, and whose version decides numbers.
SHARED = ("torch", "torchaudio", "torchvision", "numpy")


def versions(names: Sequence[str] = SHARED) -> dict[str, str]:
    """Installed version by distribution name; those not installed are left out."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def swapped() -> list[str]:
    """Sentences about shared packages that do not fit, or are no longer those of the last run; none where all is well."""
    now, packages = versions(), _packages()
    notes = []
    for name, who in packages.items():
        for wanted in _requirements(who):
            have = now.get(wanted.name)
            if have is not None and not wanted.specifier.contains(have, prereleases=True):
                notes.append(f"{name} {registry.called(who)[1]} needs {wanted}, but {wanted.name} {have} is installed")
    before = kept(_memory())
    for shared, then in before.get("versions", {}).items():
        have = now.get(shared, "not installed")
        if have != then:
            new = [f"{n} {v}" for n, v in _named(packages).items() if before.get("packages", {}).get(n) != v]
            since = f"; new since then: {', '.join(new)}" if new else ""
            notes.append(
                f"{shared} was {then} when xaibench last computed something here, and is {have} now{since}. If that was not "
                f"meant: pip install {shared}=={then}"
            )
    return notes


def remember() -> None:
    """Take the versions of now for those of the last run. A home that cannot be written to remembers nothing."""
    keep(_memory(), {"versions": versions(), "packages": _named(_packages())})


def _packages() -> dict[str, Distribution]:
    """xaibench and every package with plugins."""
    claims = [claim for group in registry.GROUPS for claim in registry.plugins(group).values()]
    names = {plugin.distribution for claim in claims for plugin in claim}
    found = {}
    for name in sorted({registry.CORE, *names}):
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # run from a source tree that is not installed
    return found


def _named(packages: Mapping[str, Distribution]) -> dict[str, str]:
    """The version of each, as the registry has it."""
    return {name: registry.called(who)[1] for name, who in packages.items()}


def _requirements(who: Distribution) -> list[Requirement]:
    """What a package asks of the shared ones, extras aside."""
    found = []
    try:
        asked = who.requires or ()
    except (UnicodeDecodeError, OSError):
        return []  # damaged metadata, or none: there is nothing to compare with
    for text in asked:
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            continue  # pip said so when it was installed
        if wanted.name.lower() in SHARED and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
            found.append(wanted)
    return found


def _memory() -> str:
    """The name under which this environment's versions are kept."""
    return f"stack-{hashlib.sha256(sys.prefix.encode()).hexdigest()[:16]}"
