"""How good can an order of cells be? The optimised order, what reaches it, and how far it lies from the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from xaibench.audit.runs import clusters, scores
from xaibench.audit.section import Section, per_cent
from xaibench.leaderboard.table import CEILINGS, FLOORS, SHAMS, best_of, kind, metric_facts
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
    """One line a metric x attributor: the mean, and its place between the best floor and the optimum.

    place = (score - floor) / (optimum - floor), of means over the pairs that all three have; NaN where the optimum is not
    above the floor.
    """
    lines = []
    for fill in ("twin", "silence"):
        for curve in CURVES:
            metric, best = f"{curve}-{fill}", f"extremal-{fill}"
            wide = scores(rows, metric)
            means = wide.mean()
            sign = 1 if metric_facts(metric).direction == "higher" else -1
            floor = best_of(wide, FLOORS, sign)
            if best not in means.index or floor is None:
                continue
            for name, mean in means.items():
                common = wide[list(dict.fromkeys((name, floor, best)))].dropna().mean()
                reach = sign * (common[best] - common[floor])
                place = sign * (common[name] - common[floor]) / reach if reach > 0 else np.nan
                lines.append(
                    {"metric": metric, "attributor": name, "kind": kind(name), "mean": mean, "place": place, "floor": floor}
                )
    return pd.DataFrame(lines, columns=["metric", "attributor", "kind", "mean", "place", "floor"])


def ceiling_section(rows: pd.DataFrame, countermeasure: str) -> Section:
    """The part of the audit."""
    table = ceiling_table(rows)
    answer = [_placed(str(metric), part) for metric, part in table.groupby("metric", sort=False)]
    wide = scores(rows, "rank-accuracy")
    for fill in ("twin", "silence"):
        name = f"extremal-{fill}"
        there = wide[[name, "random"]].dropna() if {name, "random"} <= set(wide.columns) else wide.iloc[:0]
        if len(there):
            answer.append(_where(there, name, fill, countermeasure))
    answer = answer or ["Nothing can be placed: the optimised orders have no score here."]
    draw = (lambda: _draw(table)) if table["place"].notna().any() else None
    return Section("ceiling", "The ceiling of faithfulness", QUESTION, tuple(answer), _by_attributor(table), draw)


def _placed(metric: str, part: pd.DataFrame) -> str:
    """Where the methods and the truth stand in one metric."""
    place, floor = part.set_index("attributor")["place"], part["floor"].iloc[0]
    methods = place[[n for n in place.index if kind(n) == "method"]].dropna().sort_values(ascending=False, kind="stable")
    if np.isnan(place[f"extremal-{metric.rpartition('-')[2]}"]):
        return f"{metric}: the optimum found is not above the best control, {floor}, so nothing can be placed."
    if methods.empty:
        return f"{metric}: no method can be placed between the best control, {floor}, and the optimum."
    return (
        f"{metric}: between the best control, {floor} (0 %), and the optimum (100 %) the best method, {methods.index[0]}, "
        f"stands at {per_cent(methods.iloc[0])}, the median of {len(methods)} at {per_cent(methods.median())}, the truth "
        f"itself at {per_cent(place.get('oracle', np.nan))}."
        + (" A place above 100 % means that the search stopped short of the optimum." if place.max() > 1 else "")
    )


def _where(there: pd.DataFrame, name: str, fill: str, countermeasure: str) -> str:
    """Does the optimum lie in the truth's region? `there`: rank accuracies of the optimum and of random cells."""
    found = cluster_bootstrap(there[name], clusters(there))
    more = paired_difference(there[name].to_numpy(), there["random"].to_numpy(), clusters(there))
    ends = "" if np.isnan(found.low) else f" [{found.low:.3f}, {found.high:.3f}]"
    random = there["random"].mean()
    if np.isnan(more.low):
        text = f"random cells hold {random:.3f}, and whether that is less is unknown."
    elif more.low > 0 or more.high < 0:
        text = f"{'more' if more.low > 0 else 'less'} than random cells do ({random:.3f})."
    else:
        text = f"not told apart from random cells ({random:.3f})."
    if found.high < 0.5:
        text += f" These cells, found to move {countermeasure}, lie for the most part outside what the vocoder changed most."
    elif found.low > 0.5:
        text += f" These cells, found to move {countermeasure}, are for the most part those that the vocoder changed most."
    return f"The top 5 % of the optimum towards {fill} hold {found.mean:.3f}{ends} of the truth's region, {text}"


def _by_attributor(table: pd.DataFrame) -> pd.DataFrame:
    """The table of the page, one line an attributor: mean and place in every metric."""
    lines: dict[str, dict[str, object]] = {}
    for line in table.to_dict("records"):
        mine = lines.setdefault(line["attributor"], {"attributor": line["attributor"], "kind": line["kind"]})
        mine |= {line["metric"]: line["mean"], f"{line['metric']} place": line["place"]}
    order = [*CEILINGS, *SHAMS, *sorted(n for n in lines if kind(n) == "method"), *FLOORS]
    columns = [f"{metric}{end}" for metric in dict.fromkeys(table["metric"]) for end in ("", " place")]
    return pd.DataFrame([lines[name] for name in order if name in lines], columns=["attributor", "kind", *columns])


def _draw(table: pd.DataFrame) -> Figure:
    from xaibench.figures.style import KINDS, new_figure

    metrics = list(dict.fromkeys(table["metric"]))
    figure = new_figure(7.2, 0.62 * len(metrics) + 1.0, layout="constrained")
    axes = figure.subplots()
    for y, metric in enumerate(metrics):
        part = table[table["metric"].eq(metric)]
        for k, (name, colour) in enumerate(KINDS.items()):
            places = part.loc[part["kind"].eq(name), "place"].clip(-1.5, 1.2)
            axes.plot(places, [y + 0.15 * (k - 1.5)] * len(places), "o", color=colour, markersize=4, alpha=0.8,
                      label=name if y == 0 else None)  # fmt: skip
        truth = part.loc[part["attributor"].eq("oracle"), "place"].clip(-1.5, 1.2)
        axes.plot(truth, [y + 0.3] * len(truth), "^", color="black", markersize=5, label="the truth" if y == 0 else None)
    axes.set_yticks(range(len(metrics)), metrics)
    axes.set_ylim(len(metrics) - 0.45, -0.55)
    for at in (0, 1):
        axes.axvline(at, color="black", linewidth=0.5)
    axes.set_xlabel("place between the best floor (0) and the optimum (1); cut at -1.5 and 1.2")
    axes.legend(frameon=False, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure
