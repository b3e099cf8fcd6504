"""A command in a process of its own: how long from its start to its end, and how much memory at its peak."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from statistics import median
from typing import Any

#: Runs and watches it. A process of its own, too, and a small one: the memory of whoever starts a process counts as its own.
_WATCH = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(json.dumps([time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, code]))
"""


def python(*words: str) -> tuple[float, float]:
    """Run `python WORDS`: wall seconds, and peak resident memory in GB. Raises RuntimeError where it fails."""
    done = subprocess.run([sys.executable, "-c", _WATCH, sys.executable, *words], capture_output=True, text=True, check=True)
    seconds, peak, code = json.loads(done.stdout)
    if code:
        raise RuntimeError(f"python {' '.join(words)} ended with {code}: {done.stderr.strip()[-300:]}")
    return seconds, peak / (1e9 if sys.platform == "darwin" else 1e6)  # bytes there, kilobytes elsewhere


def measured(benchmark: Any, words: Sequence[str], *, rounds: int) -> None:
    """Benchmark `python WORDS` after one round that fills the caches; "seconds" (median) and "peak_gb" in `extra_info`."""
    found: list[tuple[float, float]] = []
    benchmark.pedantic(lambda: found.append(python(*words)), rounds=rounds, warmup_rounds=1)
    seconds, peak = zip(*found[1:], strict=True)
    benchmark.extra_info |= {"seconds": median(seconds), "peak_gb": max(peak)}
