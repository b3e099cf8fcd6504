"""What each choice of 5 % of the cells finds of the truth, and what replacing them does to the score."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd

from xaibench.audit.runs import clusters, scores
from xaibench.audit.section import Section, per_cent
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
    columns = ["cells chosen by", "kind", *(f"{h}{end}" for h in COLUMNS.values() for end in ("", " low", " high"))]
    table = pd.DataFrame([lines[name] for name in order if name in lines], columns=columns)
    methods = table[table["kind"].eq("method")]
    twin, silence = COLUMNS["drop-twin"], COLUMNS["drop-silence"]
    moved = methods[silence].dropna().abs()
    beyond, random = int((moved > 1).sum()), table.loc[table["cells chosen by"].eq("random"), silence].dropna()
    answer = (
        f"In rank accuracy {_between(methods, 'rank accuracy', '{:.3f}'.format)}; chance is 0.05.",
        f"In the fall of the score (twin fill), as a share of the gap, {_between(methods, twin, per_cent)}.",
        f"Silencing the cells of {beyond} of {len(moved)} methods moves the score by more than the whole gap"
        + (": with that fill a score also measures how strange the input has become. " if beyond else ". ")
        + f"Silencing random cells takes away {per_cent(random.iloc[0]) if len(random) else 'an unknown share'} of it.",
    )
    draw = (lambda: _draw(table)) if len(table) else None
    return Section("overview", "What 5 % of the cells do", QUESTION, answer, table, draw)


def _between(methods: pd.DataFrame, column: str, text: Callable[[float], str]) -> str:
    """Where the methods lie, in words."""
    there = methods.dropna(subset=[column]).sort_values(column, kind="stable")
    ends = [f"{text(line[column])} ({line['cells chosen by']})" for line in there.to_dict("records")]
    if len(ends) < 2:
        return f"the only method with a value has {ends[0]}" if ends else "no method has a value"
    return f"the {len(ends)} methods lie between {ends[0]} and {ends[-1]}"


def _draw(table: pd.DataFrame) -> Figure:
    """Two columns of dots with their intervals: finding the truth, and moving the score."""
    from xaibench.figures.style import KINDS, VERMILLION, new_figure

    figure = new_figure(7.2, 0.2 * len(table) + 1.1, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    headings = ("rank accuracy", COLUMNS["drop-twin"])
    for axes, heading, label in zip(panels, headings, ("rank accuracy", "fall of the score, share of the gap"), strict=True):
        for y, line in enumerate(table.to_dict("records")):
            colour, points = KINDS[line["kind"]], [line[heading]]
            axes.plot([line[f"{heading} low"], line[f"{heading} high"]], [y, y], color=colour, linewidth=1)
            axes.plot(points, [y], "o", color=colour, markersize=4)
        axes.set_xlabel(label)
    panels[0].axvline(0.05, color=VERMILLION, linewidth=0.7, linestyle=":")
    panels[0].set_title("dotted: chance", fontsize=8, loc="left")
    panels[0].set_xlim(-0.03, 1.03)
    panels[1].axvline(0, color="black", linewidth=0.5)
    panels[1].set_title("twin fill; logarithmic beyond 1", fontsize=8, loc="left")
    panels[1].set_xscale("symlog", linthresh=1)
    panels[1].set_xticks([0, 0.5, 1, 2, 5], ["0", "0.5", "1", "2", "5"], minor=False)
    panels[1].minorticks_off()
    panels[0].set_yticks(range(len(table)), table["cells chosen by"], fontsize=8)
    panels[0].set_ylim(len(table) - 0.4, -0.6)
    return figure
