"""What several benchmarks look at, made alike in every process: LCNN, a batch of minivoc, and maps without ties."""

from __future__ import annotations

import numpy as np
import torch

from xaibench.harness.device import choose_device
from xaibench.harness.plan import ordered_pairs
from xaibench.harness.spec import RunSpec
from xaibench.harness.workbench import Prepared, Workbench

UTTERANCES = 8


def open_bench() -> Workbench:
    """LCNN and minivoc, as the main job opens them, on the best device there is."""
    spec = RunSpec(countermeasures=("lcnn",), attributors=("energy",), metrics=("rank-accuracy",))
    return Workbench(spec, device=choose_device("auto"))


def open_batch(bench: Workbench) -> Prepared:
    """A batch of vocoded utterances on the native route."""
    return bench.prepare("lcnn", "native", ordered_pairs(bench.corpus, "eval")[:UTTERANCES])


def tie_free(prepared: Prepared) -> np.ndarray:
    """Positive maps `(B, F, T)` float32 without ties: shuffled ramps, the same in every process."""
    cells = prepared.view.shape[0] * prepared.view.shape[1]
    orders = [torch.randperm(cells, generator=torch.Generator().manual_seed(s)) for s in range(len(prepared.view))]
    return ((torch.stack(orders) + 1) / cells).view(-1, *prepared.view.shape).numpy()
