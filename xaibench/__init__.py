"""xaibench: score explanations of speech anti-spoofing countermeasures against vocoder-difference truth.

    import xaibench
    run = xaibench.run("lcnn", "grad-cam,input-x-gradient", limit=4)    # the board, shown by a notebook
    pair = xaibench.load_data("minivoc")[0]                             # real speech and its vocoded twin
    xaibench.attribute("lcnn", "grad-cam", pair).score("rank-accuracy")

`docs/tutorial.ipynb` begins there. Names are imported when first used: `import xaibench` alone costs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xaibench.analysis.explanation import explain as explain
    from xaibench.api.map import Map as Map
    from xaibench.api.parts import attribute as attribute
    from xaibench.api.parts import countermeasure as countermeasure
    from xaibench.api.parts import load_data as load_data
    from xaibench.api.parts import truth_of as truth_of
    from xaibench.api.parts import view_of as view_of
    from xaibench.api.runs import Run as Run
    from xaibench.api.runs import open_run as open_run
    from xaibench.api.runs import run as run
    from xaibench.errors import XaibenchError as XaibenchError
    from xaibench.grid import Grid as Grid
    from xaibench.metrics.detection import equal_error_rate as equal_error_rate
    from xaibench.protocols import attributor as attributor

__version__ = "0.1.0"

#: The version of the benchmark, apart from that of the package: raised when a number of a board that stays the same (truth,
#: projection, metrics, methods and their defaults, shipped data and weights) changes by more than rounding, and never
#: otherwise. `run.json` holds it, runs of two versions share no board, and `tests/canary` keeps the numbers.
BENCHMARK_VERSION = 1

#: Public name -> the module it lives in.
_HOMES = {
    "run": "xaibench.api.runs",
    "open_run": "xaibench.api.runs",
    "explain": "xaibench.analysis.explanation",
    "load_data": "xaibench.api.parts",
    "truth_of": "xaibench.api.parts",
    "countermeasure": "xaibench.api.parts",
    "attribute": "xaibench.api.parts",
    "view_of": "xaibench.api.parts",
    "equal_error_rate": "xaibench.metrics.detection",
    "attributor": "xaibench.protocols",
    "Run": "xaibench.api.runs",
    "Map": "xaibench.api.map",
    "Grid": "xaibench.grid",
    "XaibenchError": "xaibench.errors",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    """A public name, imported now."""
    if name not in _HOMES:
        raise AttributeError(f"module 'xaibench' has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
