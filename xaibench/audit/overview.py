"""What each choice of 5 % of the cells finds of the truth, and what replacing them does to the score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from xaibench.audit.runs import clusters, scores
from xaibench.audit.section import Section
from xaibench.leaderboard.table import CEILINGS, FLOORS, SHAMS, kind
from xaibench.stats import cluster_bootstrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = (
    "Every line chooses 5 % of the cells of each vocoded utterance. The first column is the share of the truth's region "
    "among them (chance is 0.05), the others how far the score falls when they are replaced by the bona fide twin's or "
    "silenced, as a share of the gap between the halves of the pair. A fall of more than 1 means that the mixture of two "
    "recordings, which is no speech, looks more bona fide than the bona fide one."
)
COLUMNS = {"rank-accuracy": "rank accuracy", "drop-twin": "fall, twin fill", "drop-silence": "fall, silence fill"}


def overview_section(rows: pd.DataFrame) -> Section:
    """The part of the audit."""
    lines: dict[str, dict[str, object]] = {}
    for metric, heading in COLUMNS.items():
        wide = scores(rows, metric)
        for name in wide.columns:
            there = wide[name].dropna()
            found = cluster_bootstrap(there, clusters(there))
            ends = (heading, f"{heading} low", f"{heading} high")
            lines.setdefault(name, {"cells chosen by": name, "kind": kind(name)}).update(zip(ends, found, strict=True))
    order = [*CEILINGS, *SHAMS, *sorted(n for n in lines if kind(n) == "method"), *FLOORS]
    table = pd.DataFrame([lines[name] for name in order if name in lines])
    methods = table[table["kind"].eq("method")]
    twin, silence = COLUMNS["drop-twin"], COLUMNS["drop-silence"]
    most, least = methods.loc[methods[twin].idxmax()], methods.loc[methods[twin].idxmin()]
    beyond = methods[methods[silence] > 1]
    best = methods.loc[methods["rank accuracy"].idxmax()]
    answer = (
        f"In rank accuracy the methods lie between {methods['rank accuracy'].min():.3f} and "
        f"{best['rank accuracy']:.3f} ({best['cells chosen by']}); chance is 0.05.",
        f"In the fall of the score (twin fill) they lie between {least[twin]:.0%} ({least['cells chosen by']}) and "
        f"{most[twin]:.0%} ({most['cells chosen by']}) of the gap.",
        f"Silencing the cells of {len(beyond)} of {len(methods)} methods moves the score by more than the whole gap, so "
        f"with that fill a score also measures how strange the input has become; random cells move it by "
        f"{table.set_index('cells chosen by').at['random', silence]:.0%}.",
    )
    return Section("overview", "What 5 % of the cells do", QUESTION, answer, table, lambda: _draw(table))


def _draw(table: pd.DataFrame) -> Figure:
    from matplotlib.figure import Figure

    from xaibench.figures import BLUE, GREEN, GREY, ORANGE, VERMILLION

    colours = {"ceiling": GREEN, "method": VERMILLION, "sham": ORANGE, "floor": GREY}
    figure = Figure(figsize=(7.2, 5.0), layout="constrained")
    axes = figure.subplots()
    for line in table.to_dict("records"):
        x, y = line["rank accuracy"], line[COLUMNS["drop-twin"]]
        if np.isfinite(x + y):
            axes.plot(x, y, "o", color=colours[line["kind"]], markersize=5)
            axes.annotate(line["cells chosen by"], (x, y), xytext=(4, 2), textcoords="offset points", fontsize=7)
    axes.axvline(0.05, color=BLUE, linewidth=0.7, linestyle=":")
    axes.axhline(0, color="black", linewidth=0.5)
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set_yscale("symlog", linthresh=0.5)
    axes.set_xlabel("rank accuracy (dotted: chance)")
    axes.set_ylabel("fall of the score, twin fill, share of the gap")
    return figure
