"""The release as a stranger gets it: wheels of the core and of each plugin, installed where no checkout is, and tried.

python tests/release/wheels.py build DIST      every wheel, its metadata and its content looked at
python tests/release/wheels.py try DIST        a clean environment in a temporary folder: install, list, check, run, site

`make wheels` does both. The second takes 8 GB of disk while it runs, most of it PyTorch's CUDA libraries.
"""

from __future__ import annotations

import email
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: What no wheel may hold: tests, caches, results, and anything of the machine that built it.
FOREIGN = ("/tests/", "__pycache__", ".pyc", "/rebuild/", "results/", ".DS_Store")


def build(dist: Path) -> list[Path]:
    """Build all wheels into `dist`, and look at each."""
    dist.mkdir(parents=True, exist_ok=True)
    for old in dist.glob("*.whl"):
        old.unlink()
    projects = [ROOT, *(p.parent for p in sorted(ROOT.glob("plugins/*/pyproject.toml")))]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(dist)]
    subprocess.run([*command, *map(str, projects)], check=True, cwd=ROOT)
    wheels = sorted(dist.glob("*.whl"))
    if len(wheels) != len(projects):
        raise SystemExit(f"{len(projects)} projects gave {len(wheels)} wheels")
    faults = [f"{wheel.name}: {fault}" for wheel in wheels for fault in looked_at(wheel)]
    if faults:
        raise SystemExit("\n".join(faults))
    return wheels


def looked_at(wheel: Path) -> Iterator[str]:
    """What is wrong with a wheel, a sentence each."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        about = next(n for n in names if n.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(about))
        entries = next((archive.read(n).decode() for n in names if n.endswith("entry_points.txt")), "")
        text = [n for n in names if n.endswith((".py", ".json", ".toml", ".md", ".csv"))]
        home = [n for n in text if str(ROOT).encode() in archive.read(n)]
    yield from (f"holds {n}" for n in names if any(part in f"/{n}" for part in FOREIGN))
    yield from (f"{n} names a folder of this machine" for n in home)
    if not metadata.get_payload().strip():
        yield "has no description: its pyproject names no readme"
    if not any("LICENSE" in n for n in names):
        yield "has no licence file"
    if "[xaibench." in entries and "[xaibench.api]" not in entries:
        yield "has plugins, and declares no version of their contract"
    if "xaibench/protocols.py" in names and "xaibench/py.typed" not in names:
        yield "has no py.typed: the types of the contract are hidden from who writes a plugin"


def attempt(dist: Path) -> None:
    """Install the wheels in a clean environment, and do with them what the README says, far from the checkout."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        subprocess.run([sys.executable, "-m", "venv", there / "env"], check=True)
        programs = there / "env" / ("Scripts" if os.name == "nt" else "bin")
        wheels = sorted(map(str, dist.glob("*.whl")))
        say = [programs / "python", "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*say, "install", "--quiet", "--no-cache-dir", *wheels], check=True)
        subprocess.run([*say, "check"], check=True)

        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "XAIBENCH", "VIRTUAL_ENV"))}
        environment |= {"XDG_CACHE_HOME": str(there / "cache"), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}

        def xaibench(*words: str) -> str:
            done = subprocess.run(
                [programs / "xaibench", *words], cwd=there, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise SystemExit(f"xaibench {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
            return done.stdout

        where = subprocess.run(
            [programs / "python", "-c", "import xaibench; print(xaibench.__file__)"],
            cwd=there, env=environment, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        if not Path(where).is_relative_to(there):
            raise SystemExit(f"xaibench was imported from {where}, not from the wheel")
        xaibench("list")
        board = xaibench("run", "--cm", "lcnn", "--xai", "all", "--limit", "2", "--keep-maps", "--out", "demo")
        xaibench("leaderboard", "demo", "--quiet", "--out", "site")
        xaibench("plugin", "new", "attributor", "my-method", "--out", "mine")
        xaibench("check", "random")
        record = json.loads((there / "demo" / "run.json").read_text(encoding="utf-8"))
        if not (there / "site" / "index.html").is_file() or "oracle" not in board:
            raise SystemExit("the demo wrote no site, or printed no board")
        methods = len(record["plugins"]) - 1
        sys.stdout.write(
            f"{board}\n{len(wheels)} wheels, {methods} methods, torch {record['environment']['packages']['torch']}\n"
        )


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("build", "try"):
        raise SystemExit(__doc__)
    if sys.argv[1] == "build":
        sys.stdout.write("".join(f"{wheel}\n" for wheel in build(Path(sys.argv[2]))))
    else:
        attempt(Path(sys.argv[2]))
