"""Two workers against one process

The same run in this process on one thread, and on a Dask cluster of two processes of one thread each, with a real scheduler.
Timed from the first chunk to the last row on disk; workers open data, weights and training prior themselves, within that
time, as they do in every run. Efficiency is the time of one divided by twice the time of two. The target: at least 0.85.
"""

from __future__ import annotations

import time

import pytest
import torch

from xaibench.harness.engine import Engine
from xaibench.harness.run import run
from xaibench.harness.spec import RunSpec
from xaibench.metrics import catalog

pytest.importorskip("distributed", reason="Dask is not installed: pip install 'xaibench[cluster]'")
from xaibench.harness.cluster import DaskEngine

METHODS = ("energy", "saliency", "grad-cam", "integrated-gradients", "lrp", "occlusion", "score-cam", "smoothgrad")
UTTERANCES, TARGET = 32, 0.85


def seconds(folder, engine: Engine) -> tuple[float, dict[str, int]]:
    """From the first chunk to the last row, and how many rows of each status there are."""
    spec = RunSpec(
        countermeasures=("lcnn",), attributors=METHODS, metrics=tuple(catalog.QUICK), preset="full", limit=UTTERANCES
    )  # fmt: skip
    begun: list[float] = []

    def note(progress):
        if progress.phase == "cells" and not begun:
            begun.append(time.perf_counter())

    summary = run(spec, folder, engine=engine, device="cpu", batch_size=4, report=note)
    return time.perf_counter() - begun[0], summary.statuses


@pytest.mark.benchmark(group=f"one run of 8 methods x {UTTERANCES} utterances")
def test_two_workers(benchmark, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one, rows = seconds(tmp_path / "one", Engine())
    finally:
        torch.set_num_threads(threads)
    found = []
    with DaskEngine(workers=2) as engine:
        benchmark.pedantic(lambda: found.append(seconds(tmp_path / "two", engine)), rounds=1)
    two, same = found[0]
    assert rows == same
    benchmark.extra_info.update(
        one_process_s=one, two_workers_s=two, speed_up=one / two, ratio=one / two / 2, target=f"at least {TARGET}"
    )  # fmt: skip
