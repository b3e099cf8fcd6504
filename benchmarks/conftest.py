"""Benchmarks print ratios within one run; nothing here asserts a time."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from xaibench.harness.device import choose_device, tune_allocator
from xaibench.harness.environment import environment, versions
from xaibench.harness.workbench import Prepared, Workbench

sys.path.insert(0, str(Path(__file__).parent))  # pytest imports by file; modules beside this one have to be found by name
from opened import open_batch, open_bench, tie_free

#: What of a processor decides how fast convolutions and sorts are.
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def pytest_benchmark_update_machine_info(config, machine_info):
    """What the page says of the machine, and no more: no names of hosts or processors."""
    listed = Path("/proc/cpuinfo")
    words = set(listed.read_text().split()) if listed.is_file() else set()
    stamp = environment(choose_device("auto"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kept = {key: machine_info[key] for key in ("machine", "python_version") if key in machine_info}
    machine_info.clear()
    machine_info |= kept | {
        "xaibench": {
            "cores": cores, "flags": [flag for flag in FLAGS if flag in words], "threads": stamp["threads"],
            "device": stamp["device"], "packages": versions(("torch", "numpy", "quantus", "captum")),
        }
    }  # fmt: skip


@pytest.fixture(scope="session")
def bench() -> Workbench:
    """`open_bench`, in a process whose allocator is tuned, as a run's is."""
    tune_allocator()
    return open_bench()


@pytest.fixture(scope="session")
def prepared(bench: Workbench) -> Prepared:
    """`open_batch`."""
    return open_batch(bench)


@pytest.fixture(scope="session")
def maps(prepared: Prepared) -> np.ndarray:
    """`tie_free`."""
    return tie_free(prepared)


@pytest.fixture(scope="module")
def least() -> dict[str, float]:
    """The shortest time of rows that were measured before, by the names a module gives them."""
    return {}
