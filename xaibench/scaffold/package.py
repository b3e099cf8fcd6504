"""The files of a new plugin package: made in memory, then written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from xaibench import __version__
from xaibench.errors import PluginError
from xaibench.protocols import API_VERSION
from xaibench.scaffold.names import Names

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
#: Kind -> the object behind the entry point, what the example is, and what it imports beside xaibench and its torch.
EXAMPLES = {
    "countermeasure": ("recipe", "a small convolutional network", ()),
    "attributor": ("method", "important direction gradient integration (IDGI)", ()),
    "metric": ("metric", "normalised scanpath saliency (NSS)", ()),
    "dataset": ("dataset", "pairs in a folder", ("soundfile>=0.13",)),
    "vocoder": ("vocoder", "a noise vocoder", ("numpy>=2", "scipy>=1.13")),
}
#: The author where git knows none; the README says to change it.
NOBODY = "Your Name"


def git_author() -> str:
    """`user.name` of git's configuration, on one line; "" without git or a name."""
    try:
        done = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return _printable(done.stdout.strip())


def render(names: Names, *, author: str = NOBODY, year: int | None = None) -> dict[str, bytes]:
    """Path within the package -> content. The same arguments give the same bytes.

    >>> from xaibench.scaffold.names import names_of
    >>> sorted(render(names_of("metric", "my-score")))[-2:]
    ['xaibench_my_score/__init__.py', 'xaibench_my_score/metric.py']
    """
    thing, summary, needs = EXAMPLES[names.kind]
    facts = {
        "kind": names.kind, "a_kind": f"{'an' if names.kind[0] in 'aeiou' else 'a'} {names.kind}", "name": names.plugin,
        "distribution": names.distribution, "module": names.module, "object": thing, "summary": summary,
        "dependencies": (f"xaibench{_range(__version__)}", *needs), "api": API_VERSION,
        "author": _printable(author), "nobody": author == NOBODY, "year": year or date.today().year,
    }  # fmt: skip
    kind, own = names.kind, names.module
    pages = {
        "pyproject.toml": "pyproject.toml", "README.md": "README.md", "LICENSE": "LICENSE", ".gitignore": "gitignore",
        ".github/workflows/test.yml": "test.yml", f"{own}/__init__.py": "__init__.py",
        f"{own}/{kind}.py": f"{kind}/{kind}.py", f"tests/test_{kind}.py": f"{kind}/test_{kind}.py",
    }  # fmt: skip
    environment = _environment()
    files = {path: environment.get_template(f"{page}.jinja").render(facts).encode("utf-8") for path, page in pages.items()}
    if kind == "dataset":
        from xaibench.scaffold.example import recordings

        files |= {f"{own}/audio/{path}": content for path, content in recordings().items()}
    return files


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Write a package into a folder that is not there yet, or is empty. Raises PluginError; then nothing is left behind."""
    folder = Path(folder).absolute()
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            what = "is not empty" if folder.is_dir() else "is a file"
            raise PluginError(f"{folder} {what}, and nothing is overwritten; --out is to be the package's own, new folder")
        _write(files, folder)
    except OSError as error:
        raise PluginError(f"{folder}: cannot be written ({error.strerror or error}); give another --out") from error


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    made = [p for p in (folder, *folder.parents) if not p.exists()]  # the deepest first
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".xaibench-", dir=folder) as scratch:
            for path, content in files.items():
                place = Path(scratch, "new", *PurePosixPath(path).parts)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
            for entry in sorted(Path(scratch, "new").iterdir()):
                os.rename(entry, folder / entry.name)
    except BaseException:  # also Ctrl-C: half a package would be taken for one
        for name in {PurePosixPath(path).parts[0] for path in files}:
            place = folder / name
            if place.is_dir():
                shutil.rmtree(place, ignore_errors=True)
            else:
                place.unlink(missing_ok=True)
        for place in made:
            if place.is_dir():
                place.rmdir()
        raise


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    environment.filters["toml"] = lambda text: json.dumps(text, ensure_ascii=False)  # of printable text: the same strings
    return environment


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())


def _range(version: str) -> str:
    """The versions of xaibench that a package written by this one asks for.

    >>> _range("0.3.1.dev2")
    '>=0.3,<1'
    """
    major, minor = version.split(".")[:2]
    return f">={major}.{minor},<{int(major) + 1}"
