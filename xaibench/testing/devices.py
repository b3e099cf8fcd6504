"""An attributor on another device: a GPU, or the kit's second device in a process of its own.

The process is the fork in which the plugin's import was judged (`xaibench.testing.probe`): there its libraries are already
imported, and a device registered with torch goes with it. For the same reason all attributors of a module are asked at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from xaibench.errors import Undefined, Unsupported, first_line
from xaibench.harness.preflight import BATCH_TOLERANCE, gap_of
from xaibench.protocols import Attributor
from xaibench.testing.rules import Broken
from xaibench.testing.stages import TOYS, Stage, explain, values_of
from xaibench.view import View


def on_device(values: Tensor, view: View) -> None:
    """Raise Broken for a map that is on another device than the view."""
    if values.device.type != view.device.type:
        raise Broken(f"its map is on {values.device}, the view's tensors on {view.device}: return it by .to(view.device)")


def on_another(attributor: Attributor, stage: Stage, device: torch.device | str) -> float:
    """How much its map differs there from the CPU's, as a share of the largest value. Raises Broken."""
    first, view = values_of(explain(attributor, stage.view())), stage.view(device=device)
    try:
        made = explain(attributor, view)
    except (RuntimeError, TypeError) as error:
        raise Broken(
            f"on another device it raised {first_line(error)}; make tensors with device=view.device, or by zeros_like and "
            f"its kin, and .cpu() before numpy"
        ) from error
    on_device(made.values, view)
    gap = gap_of(first, values_of(made))
    if not gap <= BATCH_TOLERANCE:
        raise Broken(f"on another device its map differs by {gap:.1%} of the largest value: draw from view.generator(i)")
    return gap


def ask_there(module: Any, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Every attributor of a module on the second device. To be called in a process that ends afterwards."""
    from xaibench.testing.second_device import DEVICE, SecondDevice

    with SecondDevice():
        return {name: _asked(getattr(module, name), DEVICE) for name in names}


def _asked(attributor: Attributor, device: torch.device) -> dict[str, Any]:
    found: dict[str, Any] = {"number": None, "broken": "", "text": "no toy it gives a map"}
    for stage in TOYS:
        try:
            gap = on_another(attributor, stage, device)
        except (Unsupported, Undefined):
            continue
        except Broken as broken:
            return {**found, "broken": str(broken)}
        except Exception as error:  # noqa: BLE001 - of the method on the CPU, which other rules judge
            return {**found, "text": f"a second device nothing can be said ({type(error).__name__})"}
        return {**found, "number": gap, "text": "a second device"}
    return found
