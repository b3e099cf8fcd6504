"""Benchmarks print ratios within one run; nothing here asserts a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xaibench.harness.device import choose_device, tune_allocator
from xaibench.harness.plan import ordered_pairs
from xaibench.harness.spec import RunSpec
from xaibench.harness.workbench import Prepared, Workbench

UTTERANCES = 8


@pytest.fixture(scope="session")
def bench() -> Workbench:
    """LCNN and minivoc, as the main job opens them, on the best device there is."""
    tune_allocator()
    spec = RunSpec(countermeasures=("lcnn",), attributors=("energy",), metrics=("rank-accuracy",))
    return Workbench(spec, device=choose_device("auto"))


@pytest.fixture(scope="session")
def prepared(bench: Workbench) -> Prepared:
    """A batch of vocoded utterances on the native route."""
    return bench.prepare("lcnn", "native", ordered_pairs(bench.corpus, "eval")[:UTTERANCES])


@pytest.fixture(scope="session")
def maps(prepared: Prepared) -> np.ndarray:
    """Tie-free maps `(B, F, T)`."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(len(prepared.view), *prepared.view.shape, generator=generator).numpy()
