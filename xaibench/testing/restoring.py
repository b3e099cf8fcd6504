"""A block after which the process is as before: what one rule's plugin does to it is not the next rule's."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from xaibench.harness import guard

#: Any number that is nobody's favourite.
SEED = 86_753_091


@contextmanager
def restored(*, seed: int = SEED) -> Iterator[None]:
    """After the block torch's settings, the surroundings, the generators and the filters of warnings are as before.

    Within it the generators begin at `seed`, by default one that no plugin sets, so that one that seeds them is seen every
    time.
    """
    settings, around, filters = guard.settings(), guard.surroundings(), list(warnings.filters)
    generators = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        guard.restore(settings)
        guard.put_back(around)
        torch.random.set_rng_state(generators[0])
        np.random.set_state(generators[1])
        random.setstate(generators[2])
        warnings.filters[:] = filters  # type: ignore[index]  # a list, of which the stubs promise a sequence
