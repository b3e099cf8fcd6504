"""How good can an order of cells be? The optimised order, what reaches it, and how far it lies from the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from xaibench.audit.runs import clusters, scores
from xaibench.audit.section import Section
from xaibench.leaderboard.table import FLOORS, kind, metric_facts
from xaibench.stats import cluster_bootstrap, paired_difference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = (
    "Deletion and insertion have no perfect score. An order of cells optimised for them (extremal perturbation, Fong et "
    "al., ICCV 2019, on the grid; `extremal-twin` and `extremal-silence`) is what any method can hope for; the best "
    "control is what knowing nothing gives. 0 is that floor, 1 that ceiling. If the optimum lies outside the truth's "
    "region, other cells than those the vocoder changed most move this countermeasure best."
)
CURVES = ("drop", "deletion", "insertion")


def ceiling_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a metric x attributor: the mean, and where it stands between floor and optimum."""
    lines = []
    for fill in ("twin", "silence"):
        for curve in CURVES:
            metric, best = f"{curve}-{fill}", f"extremal-{fill}"
            wide = scores(rows, metric)
            if best not in wide.columns:
                continue
            sign = 1 if metric_facts(metric).direction == "higher" else -1
            means = wide.mean()
            floor = max((n for n in FLOORS if n in means.index), key=lambda n, m=means, s=sign: s * m[n])
            reach = means[best] - means[floor]
            for name, mean in means.items():
                place = (mean - means[floor]) / reach if sign * reach > 0 else np.nan
                lines.append(
                    {"metric": metric, "attributor": name, "kind": kind(name), "mean": mean, "place": place, "floor": floor}
                )
    return pd.DataFrame(lines)


def ceiling_section(rows: pd.DataFrame, countermeasure: str) -> Section:
    """The part of the audit."""
    table = ceiling_table(rows)
    answer = []
    for metric, part in table.groupby("metric", sort=False):
        methods = part[part["kind"].eq("method")].sort_values("place", ascending=False)
        if methods.empty or methods["place"].isna().all():
            answer.append(f"{metric}: the optimum is not above the floor, so nothing can be placed.")
            continue
        first, truth = methods.iloc[0], part.set_index("attributor")["place"].get("oracle", np.nan)
        answer.append(
            f"{metric}: the best method, {first['attributor']}, goes {first['place']:.0%} of the way from "
            f"{part['floor'].iloc[0]} to the optimum, the median method {methods['place'].median():.0%}, the truth itself "
            f"{truth:.0%}."
        )
    wide = scores(rows, "rank-accuracy")
    for fill in ("twin", "silence"):
        name = f"extremal-{fill}"
        if name in wide.columns and wide[name].notna().any():
            there = wide[[name, "random"]].dropna()
            found = cluster_bootstrap(there[name], clusters(there))
            more = paired_difference(there[name].to_numpy(), there["random"].to_numpy(), clusters(there))
            where = "more than" if more.low > 0 else "less than" if more.high < 0 else "no more than"
            answer.append(
                f"The optimum towards {fill} has {found.mean:.3f} [{found.low:.3f}, {found.high:.3f}] of the truth's region "
                f"in its top 5 % ({where} random cells): {countermeasure} can be moved best by "
                f"{'cells that are in part' if more.low > 0 else 'other cells than'} those the vocoder changed most."
            )
    return Section("ceiling", "The ceiling of faithfulness", QUESTION, tuple(answer), table, lambda: _draw(table))


def _draw(table: pd.DataFrame) -> Figure:
    from matplotlib.figure import Figure

    from xaibench.figures import BLUE, GREEN, GREY, ORANGE, VERMILLION

    colours = {"ceiling": GREEN, "method": VERMILLION, "sham": ORANGE, "floor": GREY}
    metrics = list(dict.fromkeys(table["metric"]))
    figure = Figure(figsize=(7.2, 0.62 * len(metrics) + 1.0), layout="constrained")
    axes = figure.subplots()
    for y, metric in enumerate(metrics):
        part = table[table["metric"].eq(metric)]
        for k, (name, colour) in enumerate(colours.items()):
            places = part.loc[part["kind"].eq(name), "place"].clip(-1.5, 1.2)
            axes.plot(places, [y + 0.15 * (k - 1.5)] * len(places), "o", color=colour, markersize=4, alpha=0.8,
                      label=name if y == 0 else None)  # fmt: skip
        truth = part.loc[part["attributor"].eq("oracle"), "place"].clip(-1.5, 1.2)
        axes.plot(truth, [y + 0.3] * len(truth), "^", color=BLUE, markersize=5, label="the truth" if y == 0 else None)
    axes.set_yticks(range(len(metrics)), metrics)
    axes.invert_yaxis()
    for at in (0, 1):
        axes.axvline(at, color="black", linewidth=0.5)
    axes.set_xlabel("place between the best floor (0) and the optimum (1); cut at -1.5")
    axes.legend(frameon=False, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure
