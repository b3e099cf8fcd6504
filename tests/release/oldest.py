"""The oldest versions that the pyprojects claim to work with, as constraints for pip: every `>=` becomes `==`.

python tests/release/oldest.py > oldest.txt && pip install -c oldest.txt ...    (`make oldest` does, and runs the tests)
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
#: Tools of whose versions nothing depends.
TOOLS = frozenset({"ruff", "mypy", "hatchling", "editables", "playwright", "axe-playwright-python"})


def requirements(root: Path = ROOT) -> Iterator[Requirement]:
    """What the core, its extras and the plugins ask for."""
    for path in [root / "pyproject.toml", *sorted(root.glob("plugins/*/pyproject.toml"))]:
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        lists = [project.get("dependencies", []), *project.get("optional-dependencies", {}).values()]
        yield from (Requirement(text) for asked in lists for text in asked)


def oldest(asked: Iterator[Requirement]) -> dict[str, Version]:
    """Package -> the lowest version that all of them allow, of those with a lower bound."""
    found: dict[str, Version] = {}
    for wanted in asked:
        bounds = [Version(s.version) for s in wanted.specifier if s.operator in (">=", "==", "~=")]
        if bounds and wanted.name not in TOOLS and not wanted.name.startswith("xaibench"):
            found[wanted.name] = max([*bounds, *([found[wanted.name]] if wanted.name in found else [])])
    return found


if __name__ == "__main__":
    sys.stdout.write("".join(f"{name}=={version}\n" for name, version in sorted(oldest(requirements()).items())))
