"""Can a metric be trusted? MetaQuantus: it should not mind what nobody hears, and should notice what destroys the map.

A metric is asked for the scores of L methods on N utterances, once as they are and K times under a perturbation: a minor
one, which leaves the countermeasure's decision as it is, and a disruptive one, after which no map should be good any more
(`xaibench.audit.perturbed` makes them, of the recording or of the countermeasure). Two questions, two answers each:

               noise resilience (NR, minor)                       adversary reactivity (AR, disruptive)
    IAC        p of the Wilcoxon signed-rank test between         1 - p
               scores before and after, a method at a time
    IEC        share of (utterance, method) whose rank among      share of (utterance, method) whose score got
               the methods is the same before and after           worse, in the metric's own direction

IAC: intra-consistency, IEC: inter-consistency; each is the mean over the draws (and IAC over the methods). MC, the
meta-consistency, is the mean of the four. All lie in [0, 1], higher is better. What they come to where nothing is known:

    scores that never change         NR 1, AR 0 (IAC and IEC alike)          MC 0.5
    scores that are pure noise       IAC about 0.5, IEC_NR 1 / L, IEC_AR 0.5  MC about 0.4 (five methods)

Scores are `(L, N)`, perturbed ones `(K, L, N)`, float64; NaN is an undefined score: left out, with its utterance, of what
needs it. What is left without any score is NaN.

Read with care. IAC is a p value: it knows the sign and order of the changes, not their size. Changes of a millionth, or of
rounding, that go either way give an IAC_NR of about 0.5, and of nearly 0 if they all go the same way, so that a metric of
real numbers can expect 0.5 and not 1; `moved`, the median size of a minor change in standard deviations of the scores, says
how large they were. N utterances cannot give a p below 2 / 2^N. IEC_AR counts a fall of any size. A metric on which the
methods are no better than a random map has nothing to lose: `IEC_floor` is the IEC_AR that a random map in the place of
each map would have, and where it is about 0.5 or less a low AR says nothing about the metric.

Deviations from metaquantus 0.0.5, the authors' code:

- Its IEC_AR takes the words "lower" and "higher" for true alike, so that a rise counts as a fall in quality for every
  metric. The paper asks whether quality fell, and so does this.
- It ranks equal scores by the order in which the methods are listed. Here IEC_NR is the expected value over all such
  orders, in closed form: it depends on the scores alone.
- It takes p from scipy, which approximates it by a normal distribution where scores are tied or many, and counts p as 0
  where scipy fails, so that a test without a single utterance is a perfect reaction. Here p is always exact, given the
  sizes of the changes (zeros keep their rank and have no sign, as in Pratt 1959), and undefined where there is no score.
- It looks at disruptive perturbations only where the decision changed. A countermeasure has two answers, and a randomised
  one gives the same to everybody, so that all utterances or none would remain: here all count. The minor ones count, as
  in the paper, where the decision stayed.
- It repeats everything for several iterations; here there is one, of K draws.

Reference: Hedstroem, Bommer, Wickstroem, Samek, Lapuschkin, Hoehne, "The meta-evaluation problem in explainable AI:
identifying reliable estimators with MetaQuantus", TMLR 2023, arXiv 2302.07265. Wilcoxon, Biometrics Bulletin 1 (1945);
Pratt, JASA 54 (1959) for changes of zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from xaibench.audit.section import Section
from xaibench.comparisons import signed_rank
from xaibench.errors import XaibenchError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = ("IAC_NR", "IAC_AR", "IEC_NR", "IEC_AR")
#: Where a random map in place of the method's makes fewer scores worse than this, the methods count as being at chance.
AT_CHANCE = 0.6


@dataclass(frozen=True, eq=False)
class Scores:
    """One metric's scores of L methods on N utterances, as they are and under K draws of each strength of a test.

    before:             `(L, N)`
    floor:              `(N,)`, of the control that knows nothing
    minor, disruptive:  `(K, L, N)`
    kept, flipped:      `(K, N)` bool, whether the minor perturbation left the decision, and whether the disruptive turned it
    """

    before: np.ndarray
    floor: np.ndarray
    minor: np.ndarray
    disruptive: np.ndarray
    kept: np.ndarray
    flipped: np.ndarray

    def __post_init__(self) -> None:
        n_methods, n = self.before.shape if self.before.ndim == 2 else (0, 0)
        draws = len(self.minor) if self.minor.ndim else 0
        expected = {
            "floor": (n,), "minor": (draws, n_methods, n), "disruptive": (draws, n_methods, n), "kept": (draws, n),
            "flipped": (draws, n),
        }  # fmt: skip
        wrong = [f"{name} {getattr(self, name).shape}, not {shape}" for name, shape in expected.items()
                 if getattr(self, name).shape != shape]  # fmt: skip
        if wrong or n_methods < 2 or not n or not draws:
            raise XaibenchError(
                f"expected scores (L, N) of two methods or more, perturbed ones (K, L, N): got {self.before.shape}"
                f"{'; ' if wrong else ''}{', '.join(wrong)}"
            )

    @staticmethod
    def join(parts: Sequence[Scores]) -> Scores:
        """The scores of all batches, utterances one after the other."""
        return Scores(*(np.concatenate([getattr(p, f.name) for p in parts], axis=-1) for f in fields(Scores)))


@dataclass(frozen=True)
class Consistency:
    """What `consistency` finds. NR and AR are the means of their two; `record` has the columns of the table."""

    IAC_NR: float
    IAC_AR: float
    IEC_NR: float
    IEC_AR: float
    IEC_floor: float
    moved: float
    kept: float
    flipped: float
    methods: int
    pairs: int

    @property
    def MC(self) -> float:
        """The mean of the four; NaN where one of them is."""
        return (self.IAC_NR + self.IAC_AR + self.IEC_NR + self.IEC_AR) / 4

    def record(self) -> dict[str, float]:
        """Its columns, in order."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**{name: values.pop(name) for name in PARTS}, "MC": self.MC, **values}


def consistency(scores: Scores, *, higher: bool) -> Consistency:
    """IAC, IEC and MC of one metric in one test. higher: whether a higher score is better.

    >>> before = np.array([[1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 1.0, 2.0, 3.0, 4.0]])
    >>> yes = np.ones((1, 5), dtype=bool)
    >>> found = consistency(Scores(before, before[1], before[None], before[None] - 9, yes, yes), higher=True)
    >>> found.IAC_NR, found.IEC_NR, found.IEC_AR, found.IAC_AR  # 1 - 2 / 2**5
    (1.0, 1.0, 1.0, 0.9375)
    """
    n_methods, n = scores.before.shape
    every = np.ones_like(scores.kept)
    pairs = int(np.isfinite(scores.before).all(axis=0).sum())
    return Consistency(
        IAC_NR=intra(scores.before, scores.minor, scores.kept),
        IAC_AR=1 - intra(scores.before, scores.disruptive, every),
        IEC_NR=same_ranks(scores.before, scores.minor, scores.kept),
        IEC_AR=worse(scores.before, scores.disruptive, higher=higher),
        IEC_floor=worse(scores.before, np.broadcast_to(scores.floor, (1, n_methods, n)), higher=higher),
        moved=moved(scores.before, scores.minor), kept=float(scores.kept.mean()), flipped=float(scores.flipped.mean()),
        methods=n_methods, pairs=pairs,
    )  # fmt: skip


def intra(before: np.ndarray, after: np.ndarray, kept: np.ndarray) -> float:
    """Mean p of the signed-rank test over draws and methods. Shapes: `(L, N)`, `(K, L, N)`, `(K, N)` bool."""
    found = [
        signed_rank_p(method[mask], changed[mask])
        for draw, mask in zip(after, kept, strict=True)
        for method, changed in zip(before, draw, strict=True)
    ]
    return _mean(found)


def signed_rank_p(before: np.ndarray, after: np.ndarray) -> float:
    """Two-sided p of the Wilcoxon signed-rank test, exact. Shape: `(N,)` twice; NaN without a pair of numbers.

    The sum of the ranks of rising scores, among all 2^m ways to give the m changes a sign. Changes of equal size share
    their mean rank; a change of zero keeps its rank and takes no side, so that scores that all stay give 1.

    >>> signed_rank_p(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([2.0, 4.0, 6.0, 8.0, 10.0]))  # all five rise: 2 / 32
    0.0625
    """
    change = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    change = change[np.isfinite(change)]
    if not change.size:
        return math.nan
    return signed_rank(change).p


def same_ranks(before: np.ndarray, after: np.ndarray, kept: np.ndarray) -> float:
    """Mean share of methods that keep their rank on an utterance. Shapes as in `intra`.

    Utterances of one method or none that has both scores are left out.
    """
    found = []
    for draw, mask in zip(after, kept, strict=True):
        for star, hat in zip(before.T[mask], draw.T[mask], strict=True):
            both = np.isfinite(star) & np.isfinite(hat)
            if both.sum() > 1:
                found.append(same_rank(star[both], hat[both]).mean())
    return _mean(found)


def same_rank(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The chance of every method to have the same rank before and after. Shape: `(L,)` twice -> `(L,)`.

    Equal scores are ranked by one random order of the methods, the same before and after. Of a method let d be how many
    more others are below it after than before, a how many others tie with it only before, b only after. It keeps its rank
    if j of the b and j + d of the a come before it in that order; the others that tie both times cancel. The place of the
    method among these a + b is uniform, so

        P = sum over j of  C(a, j + d) C(b, j) / ((a + b + 1) C(a + b, 2j + d))

    >>> same_rank(np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.0])).tolist()  # ties that stay ties
    [1.0, 1.0, 1.0]
    >>> same_rank(np.array([0.0, 0.0]), np.array([0.0, 1.0])).tolist()  # a tie that breaks
    [0.5, 0.5]
    """
    found = []
    for i in range(len(before)):
        others = np.arange(len(before)) != i
        tied, later = (before == before[i]) & others, (after == after[i]) & others
        a, b = int((tied & ~later).sum()), int((later & ~tied).sum())
        d = int((after < after[i]).sum()) - int((before < before[i]).sum())
        ways = (
            math.comb(a, j + d) * math.comb(b, j) / ((a + b + 1) * math.comb(a + b, 2 * j + d))
            for j in range(max(0, -d), min(b, a - d) + 1)
        )
        found.append(sum(ways))
    return np.array(found, dtype=np.float64)


def worse(before: np.ndarray, after: np.ndarray, *, higher: bool) -> float:
    """Share of scores that got worse; one that stays did not. Shapes: `(L, N)`, `(K, L, N)`."""
    fall = (before - after) if higher else (after - before)
    return _mean(fall[np.isfinite(fall)] > 0)


def moved(before: np.ndarray, after: np.ndarray) -> float:
    """Median size of a change, in standard deviations of the scores before. Shapes: `(L, N)`, `(K, L, N)`.

    0 where nothing changes; NaN where scores that were all equal do.
    """
    change = np.abs(after - before)
    change, level = change[np.isfinite(change)], before[np.isfinite(before)]
    if not change.size:
        return math.nan
    size, spread = float(np.median(change)), float(level.std())
    return 0.0 if size == 0 else size / spread if spread > 0 else math.nan


def _mean(values: Sequence[float] | np.ndarray) -> float:
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    return float(finite.mean()) if finite.size else math.nan


# ---- the part of the audit -------------------------------------------------------------------------------------------

QUESTION = (
    "Can the metrics themselves be trusted? A good metric does not mind a change that nobody hears, and notices one that "
    "must spoil every map (MetaQuantus, Hedstroem et al. 2023). Every metric scores maps of the same utterances, as they "
    "are and made again under a minor and under a disruptive change: of the recording (noise 40 dB below the speech in "
    "every cell; white noise as loud as the speech) and of the countermeasure (every parameter changed by about 0.1 %; all "
    "parameters drawn anew). NR, noise resilience: under the minor change the scores stay (IAC), and so does the order of "
    "the methods (IEC). AR, adversary reactivity: under the disruptive one the scores change (IAC) and get worse (IEC). MC "
    "is the mean of these four numbers; each lies in [0, 1], and higher is better."
)


def meta_section(table: pd.DataFrame) -> Section:
    """The table of `xaibench.audit.perturbed.meta_evaluate` as a part of the audit.

    Raises XaibenchError for a table without its columns or rows.
    """
    needed = {"metric", "family", "test", *PARTS, "MC", *(f.name for f in fields(Consistency))}
    missing = sorted(needed - set(table.columns))
    if missing or table.empty:
        raise XaibenchError(f"the table {'lacks ' + ', '.join(missing) if missing else 'is empty'}; is it meta_evaluate's?")
    table = table.assign(
        NR=table[["IAC_NR", "IEC_NR"]].mean(axis=1, skipna=False), AR=table[["IAC_AR", "IEC_AR"]].mean(axis=1, skipna=False)
    )
    answer = [_reliable(table), *_blind(table), _resilient(table), *_silent(table), _fine_print(table)]
    return Section(
        name="meta", title="Which metrics can be trusted?", question=QUESTION, answer=tuple(answer),
        table=table.drop(columns=["NR", "AR"]), draw=partial(_draw, table),
    )  # fmt: skip


def _reliable(table: pd.DataFrame) -> str:
    means = table.groupby("metric", sort=False)["MC"].agg(lambda v: v.mean(skipna=False)).dropna()
    if means.empty:
        return "No metric has a score in every test, so none can be called more reliable than another."
    order = means.sort_values(ascending=False, kind="stable")
    n_methods = int(table["methods"].iloc[0])
    few = min(3, len(order))
    return (
        f"Most reliable (MC, mean of its tests): {_listed(order[:few])}. Least: {_listed(order[::-1][:few])}. For "
        f"comparison: scores that never change would have 0.50, and scores that are pure noise about "
        f"{(1.5 + 1 / n_methods) / 4:.2f}. Reliable means steady and reactive, not that what is measured is what one wants "
        f"to know: a metric of complexity can be both, and does not say whether a map is right."
    )


def _blind(table: pd.DataFrame) -> list[str]:
    """Who does not notice a randomised countermeasure, or gets better by it; and for whom that says nothing."""
    model = table[table["test"].eq("model")].set_index("metric")
    if model.empty:
        return []
    deaf = model[model["AR"] < 0.5]
    better = model[(model["AR"] >= 0.5) & (model["IEC_AR"] < 0.5)]
    lines = [
        f"Do not react to a countermeasure whose parameters are random (AR below 0.5): {_listed(deaf['AR'])}."
        if len(deaf)
        else "Every metric with a score there reacts to a countermeasure whose parameters are random (AR of 0.5 or more)."
    ]
    if len(better):
        lines.append(
            f"Do react, but fewer than half of the scores get worse (IEC_AR): {_listed(better['IEC_AR'])}. A bad value of "
            f"such a metric does not mean that the map is bad, nor a good one that it is good."
        )
    low = pd.concat([deaf, better])
    chance = low[low["IEC_floor"] < AT_CHANCE]
    if len(chance):
        others = sorted(set(low.index) - set(chance.index))
        rest = f" That leaves {', '.join(others)}." if others else ""
        lines.append(
            f"A warning before blaming these metrics: where the methods' maps are at chance, nothing can get worse. Random "
            f"maps in the place of theirs would make only this share of the scores worse: {_listed(chance['IEC_floor'])} "
            f"(nearly 1 where methods stand out). Of these the test says nothing.{rest}"
        )
    return lines


def _resilient(table: pd.DataFrame) -> str:
    lines = []
    for test, what in (("input", "noise that nobody hears"), ("model", "a change of every parameter by about 0.1 %")):
        part = table[table["test"].eq(test)].set_index("metric")["IEC_NR"].dropna()
        size = table[table["test"].eq(test)]["moved"].dropna()
        if len(part) and len(size):
            worst = part.sort_values(kind="stable")[: min(3, len(part))]
            lines.append(
                f"Under {what} a score moves by {size.median():.1%} of the scores' standard deviation (median over metrics; "
                f"at most {size.max():.1%}), and {part.median():.0%} of the methods keep their rank (IEC_NR); the lowest: "
                f"{_listed(worst)}."
            )
    return " ".join(lines) or "No metric has a score under a minor change."


def _silent(table: pd.DataFrame) -> list[str]:
    lost = table[table["MC"].isna()]
    cases = [f"{metric} ({', '.join(part['test'])} test)" for metric, part in lost.groupby("metric", sort=False)]
    if not cases:
        return []
    return [
        f"Without a score under a change, and therefore without MC: {', '.join(cases)}. Where a metric is undefined for a "
        f"countermeasure that no longer tells the pair apart, giving no number is the right reaction."
    ]


def _fine_print(table: pd.DataFrame) -> str:
    pairs, n_methods = int(table["pairs"].min()), int(table["methods"].iloc[0])
    shares = table.groupby("test", sort=False)[["kept", "flipped"]].first()
    turned = ", ".join(f"{test}: {row.kept:.0%} and {row.flipped:.0%}" for test, row in shares.iterrows())
    return (
        f"From {pairs} utterances and {n_methods} methods; no p can be below {2 / 2**pairs:.2g}, and a difference of a few "
        f"hundredths is noise. IAC compares signs and order of changes, not their size: scores that move a little, either "
        f"way, have an IAC_NR of about 0.5. Decisions that the minor change left and the disruptive one turned: {turned}."
    )


def _listed(values: pd.Series) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items())


def _draw(table: pd.DataFrame) -> Figure:
    """A row a metric, a panel a test: noise resilience, adversary reactivity and their mean."""
    from matplotlib.lines import Line2D

    from xaibench.figures.style import BLUE, VERMILLION, columns_of_axes, quiet, style

    tests = list(dict.fromkeys(table["test"]))
    order = (
        table.groupby("metric", sort=False)["MC"]
        .agg(lambda v: v.mean(skipna=False))
        .sort_values(na_position="first", kind="stable")
        .index
    )
    with style():
        figure, panels = columns_of_axes(2.4 + 2.6 * len(tests), 1.5 + 0.19 * len(order), columns=len(tests))
        for axes, test in zip(panels, tests, strict=True):
            part = table[table["test"].eq(test)].set_index("metric").reindex(order)
            at_chance = (part["IEC_floor"] < AT_CHANCE).to_numpy()
            places = np.arange(len(part))
            axes.hlines(places, part[["NR", "AR"]].min(axis=1), part[["NR", "AR"]].max(axis=1), color="#CCCCCC", linewidth=1)
            axes.scatter(part["NR"], places, s=22, color=BLUE, zorder=3)
            fill = np.where(at_chance, "white", VERMILLION)
            axes.scatter(part["AR"], places, s=22, marker="D", facecolors=fill, edgecolors=VERMILLION, zorder=3)
            axes.scatter(part["MC"], places, s=40, marker="|", color="black", zorder=4)
            axes.axvline(0.5, color="black", linewidth=0.7, linestyle=":")
            axes.set(xlim=(-0.03, 1.03), ylim=(-0.7, len(part) - 0.3), xlabel="higher is better")
            axes.set_title(
                {"input": "change of the recording", "model": "change of the countermeasure"}.get(test, test), loc="left"
            )
            axes.set_yticks(places, part.index if axes is panels[0] else [])
            axes.tick_params(axis="y", length=0)
            quiet(axes)
        marks = [
            Line2D([], [], marker="o", linestyle="", color=BLUE, label="noise resilience"),
            Line2D([], [], marker="D", linestyle="", color=VERMILLION, label="reactivity"),
            Line2D([], [], marker="D", linestyle="", color=VERMILLION, markerfacecolor="white",
                   label="reactivity, methods at chance: says nothing"),
            Line2D([], [], marker="|", linestyle="", color="black", label="MC"),
        ]  # fmt: skip
        figure.legend(handles=marks, loc="lower center", ncols=4, frameon=False, fontsize=7)
        figure.tight_layout(rect=(0, 0.35 / figure.get_size_inches()[1], 1, 1))
        return figure
