"""How hard a fuzz tries: `FUZZ=20` asks twenty times as many inputs, `FUZZ_SEED=7` others than every other run asks.

Without a seed the inputs are the same each time, so that a failure of CI is one at home. Hypothesis shrinks what fails.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import strategies as st

TIMES = int(os.environ.get("FUZZ", "1"))
SEED = os.environ.get("FUZZ_SEED")

SEEDS = st.integers(0, 2**32 - 1)
BATCH = 50  # inputs from one seed

#: Inputs handed over so far, by test; a test asserts its own.
handed: Counter[str] = Counter()


def fuzz(examples: int, *, times: int = TIMES) -> Callable[[Any], Any]:
    """Settings of a property test that is asked `examples` times."""
    settings = hypothesis.settings(
        max_examples=examples * times, deadline=None, database=None, derandomize=SEED is None, print_blob=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip

    def decorate(test: Any) -> Any:
        return settings(test if SEED is None else hypothesis.seed(int(SEED))(test))

    return decorate


def many(examples: int, one: Callable[[Any, random.Random], None]) -> Callable[[Any], None]:
    """Work for `apart.apart`: `one(desk, draw)` for many seeds."""

    def work(desk: Any) -> None:
        @fuzz(examples)
        @hypothesis.given(SEEDS)
        def some(seed: int) -> None:
            draw = random.Random(f"{seed} {len(desk.inputs)}")
            for _ in range(BATCH):
                one(desk, draw)

        some()

    return work
