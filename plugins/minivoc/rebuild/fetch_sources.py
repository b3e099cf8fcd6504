"""Fetch the source packages by name with apt, check their hashes, unpack each into a folder of its name.

    python -m rebuild.fetch_sources DEBS SOURCES [--package NAME ...]

Needs a Debian 12 system (apt-get, dpkg-deb). The versions are those of `tables/packages.sha256`; a mirror with another
version fails the hash check, and that is meant: the selection tables name clips of exactly these packages.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
from pathlib import Path

TABLE = Path(__file__).parent / "tables" / "packages.sha256"


def expected_packages(table: Path = TABLE) -> dict[str, tuple[str, str]]:
    """`{package: (file name, sha256)}` of the table."""
    lines = [line.split() for line in table.read_text(encoding="utf-8").splitlines()]
    return {name.partition("_")[0]: (name, digest) for digest, name in lines}


def fetch(package: str, debs: Path, sources: Path) -> None:
    """Download one package unless it is there, check it, unpack it. Raises ValueError if the hash differs."""
    name, digest = expected_packages()[package]
    if not (debs / name).exists():
        subprocess.run(["apt-get", "download", package], cwd=debs, check=True)
    if not (debs / name).exists():
        raise ValueError(f"apt brought another version of {package}, expected {name}; is this Debian 12?")
    found = hashlib.sha256((debs / name).read_bytes()).hexdigest()
    if found != digest:
        raise ValueError(f"{debs / name}: sha256 {found}, expected {digest}; the package differs from the one used")
    (sources / package).mkdir(parents=True, exist_ok=True)
    subprocess.run(["dpkg-deb", "-x", str(debs / name), str(sources / package)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("debs", type=Path)
    parser.add_argument("sources", type=Path)
    parser.add_argument("--package", nargs="+", choices=sorted(expected_packages()), default=sorted(expected_packages()))
    options = parser.parse_args()
    options.debs.mkdir(parents=True, exist_ok=True)
    for package in options.package:
        fetch(package, options.debs, options.sources)
        print(package, "ok")


if __name__ == "__main__":
    main()
