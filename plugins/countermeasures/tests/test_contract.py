"""Every countermeasure of the package keeps the rules of the kit: one test a rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from xaibench import registry
from xaibench.testing import checks_of

NAMES = sorted(
    name for name, (plugin, *_) in registry.plugins("countermeasures").items()
    if plugin.distribution == "xaibench-countermeasures"
)  # fmt: skip
LARGE = {"lcnn-stc", "resnet50"}


def contract(name: str) -> Callable[..., None]:
    """The test of one countermeasure."""

    @checks_of("countermeasure", name)
    def test(check):
        check()

    return pytest.mark.heavy(test) if name in LARGE else test


for _name in NAMES:
    globals()[f"test_{_name.replace('-', '_')}"] = contract(_name)
