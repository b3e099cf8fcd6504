"""How hard a fuzz tries: `FUZZ=20` asks twenty times as many inputs, `FUZZ_SEED=7` others than every other run asks.

Without a seed the inputs are the same each time, so that a failure of CI is one at home. Hypothesis shrinks what fails.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis

TIMES = int(os.environ.get("FUZZ", "1"))
SEED = os.environ.get("FUZZ_SEED")

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
