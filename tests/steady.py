"""How two run folders differ: every file of them, and every value of their rows against the promises of docs/determinism.md.

`python tests/steady.py` runs the real thing twice in fresh processes that share nothing but the machine, and compares.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

KEYS = ["countermeasure", "route", "truth", "attributor", "utterance", "vocoder", "metric"]
#: Of the rows: what a clock says.
CLOCK = ["seconds"]
#: Files of a run that say when, who or in which order; all others are the same.
PASSING = ("SHA256SUMS", ".lock")
#: Facts of run.json that are not of the numbers.
FACTS = ("days",)
PAGE = Path(__file__).parents[1] / "docs" / "determinism.md"


@functools.cache
def promises() -> Mapping[str, float]:
    """The tolerances as the page states them: name of a change -> largest difference, 0 for bit for bit.

    They stand on the page alone, so that what is promised is what is tested.
    """
    lines = re.findall(r"^\| `([a-z-]+)` \|[^|]*\| ([^|]+) \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: 0.0 if words.strip() == "none" else float(words) for name, words in lines}


def rows(folder: Path) -> pd.DataFrame:
    """The rows in one order, without what a clock says."""
    return pd.read_parquet(folder / "rows").sort_values(KEYS).reset_index(drop=True).drop(columns=CLOCK)


def differences(one: Path, other: Path) -> list[str]:
    """What is not the same bit for bit in two folders of one run."""
    found = []
    names = {folder: {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} for folder in (one, other)}
    found += [f"{name} is in one of them only" for name in sorted(names[one] ^ names[other]) if name not in PASSING]
    for name in sorted(names[one] & names[other]):
        if name in PASSING:
            continue
        a, b = one / name, other / name
        if name == "run.json":
            same = _record(a) == _record(b)
        elif name.endswith(".parquet"):
            tables = [pd.read_parquet(file).drop(columns=CLOCK) for file in (a, b)]
            same = tables[0].equals(tables[1])  # NaN equals NaN, and the order of rows counts
        else:
            same = a.read_bytes() == b.read_bytes()
        if not same:
            found.append(f"{name} differs")
    return found


def _record(file: Path) -> dict:
    return {k: v for k, v in json.loads(file.read_text(encoding="utf-8")).items() if k not in FACTS}


def gap(one: pd.DataFrame, other: pd.DataFrame) -> float:
    """The largest difference of two tables' values, as a share of the value, or of 1 if more; all else must be equal."""
    rest = [c for c in one if c not in ("value", "run")]
    pd.testing.assert_frame_equal(one[rest], other[rest])
    a, b = one["value"].to_numpy(), other["value"].to_numpy()
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    return float(np.nanmax(np.abs(a - b) / np.maximum(1, np.abs(a)), initial=0.0))


def surroundings(folder: Path, *, number: int) -> dict[str, str]:
    """An environment that shares nothing it need not with another `number`: hash seed, folders, language, time zone."""
    folder.mkdir(parents=True, exist_ok=True)
    language, zone = (("C", "UTC"), ("C.UTF-8", "Asia/Tokyo"))[number % 2]
    return {
        **os.environ, "PYTHONHASHSEED": str(1 + 76 * number), "TMPDIR": str(folder), "LC_ALL": language, "TZ": zone,
        "OMP_DYNAMIC": "FALSE", "COLUMNS": str(80 + 40 * number),
    }  # fmt: skip


#: Methods of the real comparison: gradients, CAMs, two that draw random numbers, one of every library, references.
METHODS = (
    "random", "oracle", "energy", "input-x-gradient", "integrated-gradients", "gradient-shap", "smoothgrad", "lime",
    "occlusion", "grad-cam", "score-cam", "gradient-explainer", "epsilon-plus", "deeplift",
)  # fmt: skip


def fresh(folder: Path, *, limit: int, options: tuple[str, ...] = (), times: int = 2) -> list[Path]:
    """`xaibench run` on LCNN in fresh processes of different surroundings, one after the other; their folders."""
    found = []
    for number in range(times):
        place = folder / str(number)
        environment = surroundings(place / "temporary", number=number)
        command = [
            sys.executable, "-m", "xaibench.cli", "run", "--cm", "lcnn", "--xai", ",".join(METHODS), "--limit", str(limit),
            "--keep-maps", "--out", str(place / "run"), "--device", "cpu", *options,
        ]  # fmt: skip
        mask = os.umask(0o022 if number else 0o077)
        try:
            subprocess.run(command, env=environment, cwd=place, check=True, stdout=subprocess.DEVNULL, timeout=3600)
        finally:
            os.umask(mask)
        found.append(place / "run")
    return found


def main() -> int:
    """Compare, and say how it went."""
    with tempfile.TemporaryDirectory() as folder:
        one, other = fresh(Path(folder), limit=4)
        differ = differences(one, other)
        files, table = sum(p.is_file() for p in one.rglob("*")), rows(one)
    differ.append(f"{len(table)} rows and {files} files of two fresh processes: {len(differ) or 'no'} differences")
    sys.stdout.write("\n".join(differ) + "\n")
    return len(differ) > 1


if __name__ == "__main__":
    sys.exit(main())
