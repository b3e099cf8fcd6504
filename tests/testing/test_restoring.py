"""After one rule's plugin the process is as before: what it did is not the next rule's."""

from __future__ import annotations

import os
import random
import warnings

import numpy as np
import pytest
import torch

from xaibench.testing.restoring import restored
from xaibench.testing.snapshots import changed, of_generators, of_process

LITTER = {
    "working directory": lambda folder: os.chdir(folder),
    "warnings filters": lambda folder: warnings.simplefilter("ignore", FutureWarning),
    "environment variables": lambda folder: os.environ.update(XAIBENCH_LITTER="1"),
    "torch's default dtype": lambda folder: torch.set_default_dtype(torch.float64),
    "torch's generator": lambda folder: torch.rand(1),
    "numpy's generator": lambda folder: np.random.rand(),
    "the generator of `random`": lambda folder: random.random(),
    "numpy's error settings": lambda folder: np.seterr(all="raise"),
}


def look() -> dict[str, object]:
    return {**of_process(), **of_generators()}


@pytest.mark.parametrize("what", LITTER)
@pytest.mark.parametrize("raises", [False, True])
def test_what_a_plugin_leaves_behind_is_seen_and_taken_away(what, raises, tmp_path):
    before = look()
    with pytest.raises(ZeroDivisionError) if raises else warnings.catch_warnings(), restored():
        within = look()
        LITTER[what](tmp_path)
        assert changed(within, look()) == [what]
        assert not raises or 1 / 0
    assert changed(before, look()) == []
