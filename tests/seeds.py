"""One seed for every random input of the tests: hypothesis and `tests/differential` draw the same in every run, unless

XAIBENCH_TEST_SEED=7 pytest ...

asks for others. A run prints which it has.
"""

import os

import hypothesis

SEED: int | None = int(os.environ["XAIBENCH_TEST_SEED"]) if os.environ.get("XAIBENCH_TEST_SEED") else None


def steady() -> None:
    """A profile of hypothesis without deadlines (a busy machine is slow, not wrong), derandomised without a seed."""
    hypothesis.settings.register_profile("xaibench", deadline=None, derandomize=SEED is None, database=None)
    hypothesis.settings.load_profile("xaibench")
