"""Where an attributor is asked: the kit's toys, or one real countermeasure, as views that are made anew every time.

A broken method may wreck what it is given, so nothing that one rule handed out is handed to another: a view holds a deep
copy of a countermeasure that no method ever saw.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from xaibench.errors import Undefined, Unsupported, XaibenchError
from xaibench.grid import Grid
from xaibench.harness import guard
from xaibench.protocols import Attributor, Countermeasure
from xaibench.testing import toys
from xaibench.testing.restoring import restored
from xaibench.testing.rules import NotApplicable, Subject
from xaibench.types import Attribution
from xaibench.view import View

#: Utterances of a batch: an odd number, and no multiple of the inputs at a time (two).
ROWS = (0, 1, 2)


@dataclass(frozen=True)
class Stage:
    """A countermeasure and a route, by the name a message calls them."""

    name: str
    make: Callable[[], Countermeasure]
    route: str = "native"
    grid: Grid = toys.GRID

    @cached_property
    def untouched(self) -> Countermeasure:
        """The countermeasure that is copied and never handed out."""
        cm = self.make().eval()
        for parameter in cm.parameters():
            parameter.requires_grad_(False)  # as the harness has it
        return cm

    def view(self, rows: Sequence[int] = ROWS, *, seed: int = 0, device: torch.device | str = "cpu") -> View:
        """A view nobody else has."""
        cm = copy.deepcopy(self.untouched).to(device)
        return toys.view_of(cm, rows, route=self.route, grid=self.grid, seed=seed, device=device)


#: In the order of preference: the first that offers a method's needs is where most rules ask.
TOYS = (
    Stage("the conv toy", toys.ConvToy),
    Stage("the linear toy", toys.LinearToy),
    Stage("the toy with a map of its own", toys.OwnMapToy),
    Stage("the conv toy on the grid", toys.ConvToy, "grid"),
    Stage("the raw toy", toys.RawToy),
    Stage("the attention toy", toys.AttentionToy),
)
LINEAR = TOYS[1]


class Stages:
    """The stages of one attributor, and what it said there."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.attributor: Attributor = subject.thing
        self.all = TOYS if subject.cm is None else _real(subject.cm)
        self._maps: dict[str, Attribution | Exception] = {}

    def asked(self, stage: Stage) -> Attribution | Exception:
        """What it says of the first utterances there, asked once; what it raised, where it raised."""
        if stage.name not in self._maps:
            try:
                with restored():
                    self._maps[stage.name] = explain(self.attributor, stage.view())
            except Exception as error:  # noqa: BLE001 - the rule `runs` judges it
                self._maps[stage.name] = error
        return self._maps[stage.name]

    @property
    def answered(self) -> list[tuple[Stage, Attribution]]:
        """Every stage where it answers, with the answer. Raises NotApplicable where there is none."""
        found = [(stage, self.asked(stage)) for stage in self.all]
        answered = [(stage, made) for stage, made in found if isinstance(made, Attribution)]
        if not answered:
            raise NotApplicable("it gives no map: see the rule `runs`")
        return answered

    @property
    def main(self) -> tuple[Stage, Tensor]:
        """The first stage where it answers, with its map `(B, F, T)`. Raises NotApplicable where that is no such map."""
        stage, made = self.answered[0]
        return stage, values_of(made)

    def unsupported(self, stage: Stage) -> bool:
        """Whether it said itself that it cannot serve this stage."""
        return isinstance(self.asked(stage), Unsupported | Undefined)


def stages(subject: Subject) -> Stages:
    """The stages of the attributor in hand, shared by its rules."""
    return subject.once("stages", lambda: Stages(subject))


def explain(attributor: Attributor, view: View) -> Attribution:
    """Its answer, as the harness asks: only where its needs are offered, without the truth unless it needs it."""
    view.require(attributor.needs, "it")
    if "truth" not in attributor.needs:
        view = replace(view, truth=None)
    before = guard.settings()
    try:
        return attributor(view)
    except SystemExit as error:
        raise XaibenchError(f"it called sys.exit({error.code}); a method returns a map or raises") from error
    finally:
        guard.restore(before)  # the rule `settings-unchanged` judges it


def map_of(attributor: Attributor, view: View) -> Tensor:
    """Its map `(B, F, T)` in float64 on the host, on its own axes. Raises NotApplicable where there is none."""
    return values_of(explain(attributor, view))


def values_of(made: Attribution) -> Tensor:
    """The values of a map, for comparing. Raises NotApplicable for what is none: the rules `shape` and so on say so."""
    values = made.values
    if (
        not isinstance(values, Tensor)
        or values.ndim != 3
        or values.is_complex()
        or values.is_meta
        or not values.isfinite().all()
    ):
        raise NotApplicable("its map has not the right form: see the rules `real`, `shape` and `finite`")
    return values.detach().double().cpu()


def _real(cm: str | Callable[[], Countermeasure]) -> tuple[Stage, ...]:
    name = cm if isinstance(cm, str) else getattr(cm, "__name__", "the countermeasure given")
    make = (lambda: _load(cm)) if isinstance(cm, str) else cm
    made = copy.deepcopy(make())
    grid = Grid(sample_rate=made.sample_rate)
    native = Stage(name, lambda: made, "native", grid)
    return native, Stage(f"{name} on the grid", lambda: made, "grid", grid)


def _load(name: str) -> Countermeasure:
    """A countermeasure by name, with its weights where they are here, else untrained."""
    from xaibench import registry
    from xaibench.harness.known import found_weights, load_countermeasure

    if found_weights(name) is None:
        return registry.load("countermeasures", name).untrained(seed=0)
    return load_countermeasure(name, None, {})[0]
