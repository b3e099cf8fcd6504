"""What the audit measures once and every part of it reads: one run of chosen methods, and the controls under other truths.

Both are ordinary run folders' worth of rows (`xaibench.harness`), so a stopped audit continues where it was, and anybody
can make a board of them: OUT/run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from xaibench import registry
from xaibench.errors import RunError
from xaibench.harness.known import control_names
from xaibench.harness.run import Progress, run
from xaibench.harness.spec import RunSpec
from xaibench.leaderboard.table import read_rows
from xaibench.truth import DIFFERENCES, TruthSpec
from xaibench.types import Pair

#: Methods of every kind: gradients, paths, propagation rules, class activation maps, perturbation.
METHODS = (
    "saliency", "smoothgrad", "input-x-gradient", "integrated-gradients", "twin-ig", "gradient-shap", "deeplift", "lrp",
    "excitation-backprop", "guided-backprop", "grad-cam", "grad-cam++", "hirescam", "occlusion",
)  # fmt: skip
METRICS = (
    "rank-accuracy", "roc-auc", "drop-twin", "drop-silence", "deletion-twin", "insertion-twin", "deletion-silence",
    "insertion-silence", "completeness-twin",
)  # fmt: skip
#: What is asked of the controls under each truth.
USE = ("rank-accuracy", "drop-twin", "drop-silence")
USERS = ("oracle", "moved-truth", "energy-matched", "random")
#: Steps of the search for the optimum: four times those of a board.
STEPS = 40


@dataclass(frozen=True)
class AuditSpec:
    """What an audit is of. `limit` counts vocoded utterances, balanced over speakers and vocoders as in a run."""

    countermeasure: str
    methods: tuple[str, ...]
    data: str = "minivoc"
    split: str = "eval"
    limit: int = 45
    seed: int = 0
    steps: int = STEPS
    root: str | Mapping[str, str] | None = None
    checkpoint: str | None = None
    cm_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise RunError(f"steps must be at least 1, got {self.steps}: the search for the best order of cells takes some")

    @property
    def run(self) -> RunSpec:
        """The run that every part reads."""
        ceilings = ("extremal-twin", "extremal-silence")
        return RunSpec(
            countermeasures=(self.countermeasure,),
            attributors=tuple(dict.fromkeys([*self.methods, *control_names(), *ceilings])),
            metrics=METRICS,
            data=self.data, split=self.split, limit=self.limit, seed=self.seed, root=self.root, keep_maps=True,
            checkpoints={self.countermeasure: self.checkpoint} if self.checkpoint else {},
            cm_options={self.countermeasure: self.cm_options} if self.cm_options else {},
            options={name: {"steps": self.steps} for name in ceilings},
        )  # fmt: skip

    def under(self, truth: str) -> RunSpec:
        """The controls alone, under another definition of the truth."""
        return replace(
            self.run, attributors=USERS, metrics=USE, truth=TruthSpec(truth), keep_maps=False, options={}
        )  # fmt: skip


def default_methods() -> tuple[str, ...]:
    """Those of `METHODS` that are installed."""
    return tuple(name for name in METHODS if name in registry.plugins("attributors"))


def measure(
    spec: AuditSpec, out: Path, *, device: torch.device | str, batch_size: int | None, report: Callable[[Progress], None]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Every row of the audit, and the problems the runs had. Raises what `xaibench.harness.run.run` raises."""
    problems: list[str] = []
    folders = [Path(out) / "run"]
    problems += run(spec.run, folders[0], device=device, batch_size=batch_size, report=report).problems
    for truth in DIFFERENCES[1:]:
        folders.append(Path(out) / f"run-{truth}")
        problems += run(spec.under(truth), folders[-1], device=device, batch_size=batch_size, report=report).problems
    rows = pd.concat([read_rows([folder]) for folder in folders], ignore_index=True)
    return rows, tuple(dict.fromkeys(problems))


def only(rows: pd.DataFrame, spec: AuditSpec, *, route: str, pairs: Sequence[Pair]) -> pd.DataFrame:
    """The rows of this audit: its folder may hold other countermeasures, routes, methods and utterances of earlier ones."""
    mine = rows["countermeasure"].eq(spec.countermeasure) & rows["route"].eq(route)
    mine &= rows["attributor"].isin(spec.run.attributors)
    mine &= (rows["utterance"] + "/" + rows["vocoder"]).isin([pair.id for pair in pairs])
    return rows[mine].reset_index(drop=True)


def scores(rows: pd.DataFrame, metric: str, *, truth: str = "eq2") -> pd.DataFrame:
    """The ok scores of one metric, pairs x attributors that have any; the index is (utterance, vocoder)."""
    mine = rows[rows["metric"].eq(metric) & rows["truth"].eq(truth) & rows["status"].eq("ok")]
    return mine.pivot(index=["utterance", "vocoder"], columns="attributor", values="value")


def clusters(wide: pd.DataFrame) -> Any:
    """The source utterance of each line of `scores`."""
    return wide.index.get_level_values("utterance").to_numpy()
