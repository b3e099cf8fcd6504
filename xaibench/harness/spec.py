"""What a run is: everything that decides its numbers, and nothing that does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from xaibench.errors import RunError
from xaibench.grid import Grid
from xaibench.metrics import catalog
from xaibench.precision import PRECISIONS
from xaibench.truth import TruthSpec

#: Vocoded utterances of the evaluation split that a preset scores; None is all of them. Fifteen of minivoc are five of each
#: speaker and three of each vocoder, no source utterance twice.
PRESET_PAIRS = {"quick": 15, "full": None}


@dataclass(frozen=True)
class RunSpec:
    """A run. `limit` counts vocoded utterances; the plan orders them so that every prefix is balanced."""

    countermeasures: tuple[str, ...]
    attributors: tuple[str, ...]
    metrics: tuple[str, ...]
    data: str = "minivoc"
    split: str = "eval"
    route: str = "auto"  # native | grid | auto: native where the tap has time and frequency
    preset: str = "quick"
    limit: int | None = None
    seed: int = 0
    precision: str = "fp32"  # of the forward passes that metrics ask for; maps are made in fp32
    checkpoints: Mapping[str, str] = field(default_factory=dict)  # countermeasure -> weights instead of the shipped
    cm_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # on top of those in the checkpoint's card
    root: str | Mapping[str, str] | None = None
    keep_maps: bool = False
    grid: Grid = field(default_factory=Grid)
    truth: TruthSpec = field(default_factory=TruthSpec)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # attributor -> its options, where not default

    def __post_init__(self) -> None:
        if self.preset not in PRESET_PAIRS:
            raise RunError(f"unknown preset {self.preset!r}; expected one of {', '.join(PRESET_PAIRS)}")
        if self.route not in ("auto", "native", "grid"):
            raise RunError(f"unknown route {self.route!r}; expected auto, native or grid")
        if self.precision not in PRECISIONS:
            raise RunError(f"unknown precision {self.precision!r}; expected one of {', '.join(PRECISIONS)}")
        stray = sorted(set(self.options) - set(self.attributors))
        if stray:
            raise RunError(f"options are set for {', '.join(stray)}, which this run does not include")
        if not self.metrics:
            raise RunError("no metrics chosen; name some, `preset` or `all`")
        if self.limit is not None and self.limit < 1:
            raise RunError(f"limit must be at least 1, got {self.limit}")
        for what, named in (("a checkpoint", self.checkpoints), ("options", self.cm_options)):
            stray = sorted(set(named) - set(self.countermeasures))
            if stray:
                raise RunError(f"{what} given for {', '.join(stray)}; this run has {', '.join(self.countermeasures)}")

    @property
    def pairs(self) -> int | None:
        """How many vocoded utterances to score; None is all."""
        return self.limit if self.limit is not None else PRESET_PAIRS[self.preset]

    @property
    def fractions(self) -> tuple[float, ...]:
        """The shares of cells at which deletion and insertion curves are taken."""
        return tuple(catalog.FRACTIONS[self.preset])

    def only(self, countermeasure: str) -> RunSpec:
        """The same run with one of its countermeasures."""

        def mine(settings: Mapping[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in settings.items() if name == countermeasure}

        checkpoints, options = mine(self.checkpoints), mine(self.cm_options)
        return replace(self, countermeasures=(countermeasure,), checkpoints=checkpoints, cm_options=options)

    def identity(self) -> dict[str, Any]:
        """What must agree for a run folder to be continued; the rest may grow (methods, metrics, limit, route, truth)."""
        return {
            "data": self.data,
            "split": self.split,
            "preset": self.preset,
            "seed": self.seed,
            "precision": self.precision,
            "grid": asdict(self.grid),
        }

    def record(self) -> dict[str, Any]:
        """Everything, for run.json."""
        return asdict(self)
