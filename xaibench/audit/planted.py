"""Planted truth: a countermeasure trained to find one artefact whose place is known. Do the methods find it?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from xaibench import registry
from xaibench.audit.section import Section, per_cent
from xaibench.harness.known import control_names, known_names
from xaibench.harness.run import Progress, run
from xaibench.harness.spec import RunSpec
from xaibench.leaderboard.table import SHAMS, board, read_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = (
    "On vocoded speech nobody knows what the countermeasure listens to. Here it is known: each spoof is a bona fide "
    "recording in which one rectangle of time and frequency was turned down, at a place drawn anew for every recording, "
    "and the countermeasure was trained on nothing else. The rest of the pair is identical, so the score can depend on the "
    "rectangle only, and the truth (Eq. 2, top 5 %) lies within it. A chain of truth, projection and metrics that works "
    "gives good methods a high rank accuracy here and leaves the controls at chance. Skill is 0 % for the best control and "
    "100 % for the truth itself."
)
COUNTERMEASURE, DATA = "planted-cnn", "planted"
METRICS = ("rank-accuracy", "roc-auc", "drop-twin", "deletion-twin", "insertion-twin")
#: Skill in rank accuracy above which a method is said to find the artefact, and below which to miss it.
FOUND, MISSED = 0.5, 0.1


def installed() -> bool:
    """Whether the plugin with the planted corpus and its countermeasure is here (`plugins/planted`)."""
    return COUNTERMEASURE in registry.plugins("countermeasures") and DATA in registry.plugins("datasets")


def planted_board(
    out: Path, *, limit: int, seed: int, device: torch.device | str, batch_size: int | None,
    report: Callable[[Progress], None],
) -> tuple[pd.DataFrame, tuple[str, ...]]:  # fmt: skip
    """The board of every installed method on the planted countermeasure, in the run folder `out`, and the run's problems."""
    methods, broken = known_names("attributors", ["all"])
    spec = RunSpec(
        countermeasures=(COUNTERMEASURE,), attributors=tuple(dict.fromkeys([*methods, *control_names()])), metrics=METRICS,
        data=DATA, limit=limit, seed=seed, keep_maps=True,
    )  # fmt: skip
    done = run(spec, out, device=device, batch_size=batch_size, report=report)
    return board(read_rows([out]), metrics=METRICS, sort="rank-accuracy"), (*broken, *done.problems)


def planted_section(found: pd.DataFrame) -> Section:
    """The part of the audit."""
    columns = ["attributor", "kind"]
    for metric in METRICS:
        columns += [metric, f"{metric}_skill"]
    table = found[[*columns, "rank-accuracy_skill_low", "rank-accuracy_skill_high"]]
    first = found.iloc[0]
    methods = found[found["kind"].eq("method") & found["rank-accuracy"].notna()]
    floors = found[found["kind"].eq("floor")]
    skill = methods.set_index("attributor")["rank-accuracy_skill"].dropna()
    good, poor = skill[skill > FOUND], skill[skill < MISSED]
    above = methods[methods["rank-accuracy_margin_low"] > 0]
    fall = found.set_index("attributor")["drop-twin"]
    truth = found.set_index("attributor")["rank-accuracy"].get("oracle", np.nan)
    eer = "an unknown equal error rate" if np.isnan(first["eer"]) else f"an equal error rate of {first['eer']:.1%}"
    answer = [
        f"{first['countermeasure']} has {eer} on these recordings. The truth itself scores "
        f"{f'{truth:.2f}' if np.isfinite(truth) else 'nothing'} in rank accuracy, the best control, "
        f"{first['rank-accuracy_floor']}, {floors['rank-accuracy'].max():.3f}, chance 0.05.",
        f"{len(above)} of {len(methods)} methods exceed the best control in rank accuracy beyond the interval.",
        f"Find the artefact (skill above {per_cent(FOUND)}): {len(good)} of {len(skill)}. {_named(good)}",
        f"Miss it (below {per_cent(MISSED)}): {len(poor)} of {len(skill)}. {_named(poor)}",
    ]
    shams = [name for name in SHAMS if np.isfinite(fall.get(name, np.nan))]
    if shams and np.isfinite(fall.get("oracle", np.nan)):
        lows = found.set_index("attributor")[["drop-twin_low", "drop-twin_margin_low"]]
        hears = lows.at["oracle", "drop-twin_low"] > 0 and (lows.loc[shams, "drop-twin_margin_low"] > 0).all()
        answer.append(
            f"Replacing the truth's cells by the twin's takes away {per_cent(fall['oracle'])} of the gap, "
            + ", ".join(f"those of {name} {per_cent(fall[name])}" for name in shams)
            + ": that the countermeasure listens where the artefact was planted is "
            + ("certain beyond the intervals." if hears else "not beyond doubt.")
        )
    return Section("planted", "Planted truth", QUESTION, tuple(answer), table, lambda: _draw(found))


def _named(skill: pd.Series) -> str:
    ordered = skill.sort_values(ascending=False, kind="stable")
    return ", ".join(f"{name} {per_cent(value)}" for name, value in ordered.items()) + "." if len(ordered) else "None."


def _draw(found: pd.DataFrame) -> Figure:
    from xaibench.figures.style import KINDS, new_figure

    rows = found[found["rank-accuracy"].notna()].sort_values("rank-accuracy")
    figure = new_figure(7.2, 0.19 * len(rows) + 0.7, layout="constrained")
    axes = figure.subplots()
    for y, line in enumerate(rows.to_dict("records")):
        ends = [line["rank-accuracy_low"], line["rank-accuracy_high"]]
        if np.isfinite(ends).all():
            axes.plot(ends, [y, y], color=KINDS[line["kind"]], linewidth=1)
        axes.plot(line["rank-accuracy"], y, "o", color=KINDS[line["kind"]], markersize=4)
    axes.set_yticks(range(len(rows)), rows["attributor"], fontsize=7)
    axes.axvline(0.05, color="black", linewidth=0.6, linestyle=":")
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("rank accuracy on the planted artefact (dotted: chance)")
    return figure
