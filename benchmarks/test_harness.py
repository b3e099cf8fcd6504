"""What the harness costs beside the passes

A full cell, that is every metric of `--preset full` for one method on one batch: audio read, truth made, method run, metrics
scored, rows written. Its wall time is set against the number of forward and backward passes that it made, times what one
pass takes at the best batch size, measured before and after in the same process. Passes are counted at the countermeasure
itself, and timed there: `forward share` is the part of the wall time spent within its forward passes; what backward passes
take is not in it. The target: at most 1.10.
"""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from opened import open_bench

from xaibench.harness.plan import Chunk, ordered_pairs
from xaibench.harness.results import Store
from xaibench.harness.tasks import Task
from xaibench.harness.worker import compute
from xaibench.metrics import catalog
from xaibench.passes import count_passes
from xaibench.view import View

BATCH, ROUNDS, TARGET = 4, 3, 1.10
SIZES = (1, 2, 4, 8)


def chunk(bench, attributor: str, batch: int) -> Chunk:
    pairs = tuple(ordered_pairs(bench.corpus, "eval")[batch * BATCH : (batch + 1) * BATCH])
    return Chunk("lcnn", "native", attributor, batch, pairs, tuple(catalog.FULL), tuple("0" * 16 for _ in pairs))


def seconds_a_pass(view: View, size: int, *, backward: bool, times: int = 15) -> float:
    """The median time of one utterance through the model, forwards or both ways, `size` at a time."""
    inputs = view.inputs.repeat(-(-size // len(view)), 1, 1, 1)[:size]
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        if backward:
            x = inputs.clone().requires_grad_()
            torch.autograd.grad(view.model(x).sum(), x)
        else:
            view.score(inputs)
        taken.append((time.perf_counter() - started) / size)
    return statistics.median(taken)


def best_passes(view: View) -> tuple[float, float]:
    """Seconds of a forward and of a backward pass, each at its best batch size."""
    forward = min(seconds_a_pass(view, size, backward=False) for size in SIZES)
    both = min(seconds_a_pass(view, size, backward=True) for size in SIZES)
    return forward, max(both - forward, 0.0)


@pytest.mark.parametrize("attributor", ["grad-cam", "integrated-gradients", "occlusion"])
@pytest.mark.benchmark(group="wall time of a full cell against its passes, 4 utterances")
def test_a_full_cell(benchmark, bench, prepared, tmp_path, attributor):
    bench = open_bench()  # nothing of other benchmarks is kept in it
    compute(bench, "warm", Task((chunk(bench, attributor, 9),), ("",)))
    batches = iter(range(ROUNDS))
    view = prepared.view
    before, within, begun = best_passes(view), [], []
    backend = bench.countermeasure("lcnn").module.backend
    backend.register_forward_pre_hook(lambda *_: begun.append(time.perf_counter()))
    backend.register_forward_hook(lambda *_: within.append(time.perf_counter() - begun.pop()))
    with Store(tmp_path / "run").locked() as store, count_passes(backend) as count:

        def cell():
            task = Task((chunk(bench, attributor, next(batches)),), ("",))
            (outcome,) = compute(bench, "run", task).outcomes
            store.write_rows(task.chunks[0], "eq2", outcome.rows)
            assert {row.status for row in outcome.rows} <= {"ok", "undefined"}

        benchmark.pedantic(cell, rounds=ROUNDS)
    forward, backward = (statistics.mean(pair) for pair in zip(before, best_passes(view), strict=True))
    utterances = BATCH * ROUNDS
    floor = (count.forwards * forward + count.backwards * backward) / utterances
    wall = statistics.mean(benchmark.stats.stats.data) / BATCH
    share = sum(within) / sum(benchmark.stats.stats.data)
    benchmark.extra_info.update(
        forwards=count.forwards // utterances, backwards=count.backwards // utterances, forward_ms=1000 * forward,
        backward_ms=1000 * backward, **{"forward share": share}, passes_s=floor, wall_s=wall, ratio=wall / floor,
        target=f"at most {TARGET}",
    )  # fmt: skip
