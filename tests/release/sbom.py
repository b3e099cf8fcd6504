"""What an installation of xaibench and its plugins consists of, as CycloneDX (https://cyclonedx.org) writes it.

python tests/release/sbom.py OUT.json          of the environment whose Python runs this; `make sbom`

The environment of a checkout holds the tools of the tests too. Kept is what the packages of this repository lead to by what
they require: packages, versions, licences and who needs whom. No place on this machine is kept.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
OURS = "root-component"  # what CycloneDX calls the project whose pyproject.toml it is given


def made(python: str) -> dict[str, Any]:
    """The whole environment of a Python. CycloneDX checks it against its own schema."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "-o", "-"]
    done = subprocess.run([*command, "--pyproject", "pyproject.toml", python], check=True, capture_output=True, cwd=ROOT)
    return json.loads(done.stdout)


def edges(names: Iterable[str]) -> dict[str, set[str]]:
    """Package -> packages that it requires here, for `names` and all that they lead to, by the installed metadata.

    An extra counts where somebody who counts asked for it. Raises SystemExit: a package is not installed.
    """
    found: dict[str, set[str]] = {}
    done: set[tuple[str, str]] = set()
    ahead = [(named(name), "") for name in names]
    while ahead:
        name, extra = ahead.pop()
        if (name, extra) in done:
            continue
        done.add((name, extra))
        try:
            lines = metadata.requires(name) or ()
        except metadata.PackageNotFoundError as error:
            raise SystemExit(f"{name} is not installed; expected the environment of `make test`") from error
        for need in map(Requirement, lines):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                found.setdefault(name, set()).add(named(need.name))
                ahead += [(named(need.name), e) for e in ("", *need.extras)]
        found.setdefault(name, set())
    return found


def named(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def kept(bom: dict[str, Any], needs: dict[str, set[str]]) -> dict[str, Any]:
    """The part of an environment that `needs` names, as `edges` gives it."""
    refs = {named(part["name"]): part["bom-ref"] for part in bom["components"]} | {"xaibench": OURS}
    parts = [p for p in bom["components"] if named(p["name"]) in needs]
    parts = [{**p, "externalReferences": _public(p.get("externalReferences", []))} for p in parts]
    graph = [{"ref": refs[n], "dependsOn": sorted(refs[m] for m in needs[n])} for n in sorted(needs)]
    return {**bom, "components": sorted(parts, key=lambda part: part["bom-ref"]), "dependencies": graph}


def _public(references: list[dict[str, str]]) -> list[dict[str, str]]:
    """Addresses that packages give of themselves; those that pip notes of an installation name machines and indexes."""
    return [r for r in references if r["url"].startswith("http") and "PackageSource" not in r.get("comment", "")]


if __name__ == "__main__":
    projects = [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]
    ours = [tomllib.loads(path.read_text(encoding="utf-8"))["project"]["name"] for path in projects]
    found = kept(made(sys.executable), edges(ours))
    out = Path(sys.argv[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{out}: {len(found['components'])} packages")
