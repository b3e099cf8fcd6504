"""How long the commands take that only look: `xaibench --help`, `xaibench list`, against the target of issue 5.

    .venv/bin/python -m pytest benchmarks/test_startup.py -q --benchmark-json=startup.json

Each is a process of its own, from start to end; the start of Python alone and `import torch` stand beside them. `list` says
which plugins fail to import, and asks that once for an environment, in a process that imports them all; the answer is kept
until a distribution or a plugin's file changes. `extra_info`: "seconds" (median), "peak_gb", "target", for `list` also
"first_seconds", the time of a call without an answer kept.
"""

from __future__ import annotations

import pytest
from process import measured, python

TARGET = {"seconds": 0.4}
ROWS = {
    "python": ["-c", "pass"],
    "xaibench --help": ["-m", "xaibench.cli", "--help"],
    "xaibench list": ["-m", "xaibench.cli", "list"],
    "import torch": ["-c", "import torch"],
}


@pytest.mark.benchmark(group="start-up")
@pytest.mark.parametrize("name", ROWS)
def test_startup(benchmark, name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, _ = python(*ROWS[name])
    measured(benchmark, ROWS[name], rounds=9)
    if name.startswith("xaibench"):
        benchmark.extra_info["target"] = TARGET
    if name == "xaibench list":
        benchmark.extra_info["first_seconds"] = first
