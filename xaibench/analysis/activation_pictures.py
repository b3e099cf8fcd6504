"""The pictures of a run's activations: histograms of every method, temporal maps of some utterances, class maps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from xaibench import maps, registry
from xaibench.analysis.activation_run import BONAFIDE, SEGMENTS, SPOOFED, ActivationRun, Mapped
from xaibench.analysis.statistics import groups, histograms
from xaibench.analysis.temporal import Panel, Sound, histogram_figure, temporal_map
from xaibench.errors import XaibenchError
from xaibench.leaderboard.table import kind
from xaibench.site import shell

MOST = 8  # methods of one temporal map, unless they are named
BINS = 25

Report = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What to analyse and draw.

    utterances: `source`s or `source/vocoder`s; none is all. xai: methods; none is all. figures: temporal maps, utterances
    each. bonafide: also explain the bona fide twins, with the run's settings. device: of that.
    """

    utterances: tuple[str, ...] = ()
    xai: tuple[str, ...] = ()
    figures: int = 3
    bonafide: bool = False
    device: str = "cpu"


@dataclass(frozen=True)
class Drawn:
    """A picture: its file, its title, and the text for who cannot see it."""

    path: Path
    title: str
    alt: str


def draw_histograms(
    run: ActivationRun, every: Sequence[Mapped], rows: pd.DataFrame, out: Path, report: Report
) -> list[Drawn]:
    """Activation of frames, one picture a countermeasure and route, in `out`/pictures.

    Where bona fide halves were explained, one of the means of utterances, too: the tutorial's comparison.
    """
    sides = _sides(run)
    by: dict[tuple[str, str], dict[str, list[Mapped]]] = defaultdict(lambda: defaultdict(list))
    for one in every:
        by[one.countermeasure, one.route][one.attributor].append(one)
    drawn = []
    for (cm, route), methods in by.items():
        report(f"histograms of {cm}")
        mine = rows[rows["countermeasure"].eq(cm) & rows["route"].eq(route)]
        delta = mine[mine["half"].eq(SPOOFED)].groupby("attributor")["delta"].mean()
        order = sorted(methods, key=lambda m: (kind(m) != "method", -delta.fillna(-9).get(m, -9), m))
        panels, means = [], []
        for name in order:
            half = {h: [m.activity for m in methods[name] if m.half == h] for h in (SPOOFED, BONAFIDE)}
            shown = {side: [a.h[groups(a)[key]] for a in half[SPOOFED]] for side, key in sides.items()}
            if any(m.half == BONAFIDE for m in every):
                shown["frames of the bona fide twin"] = [a.h[groups(a)["all"]] for a in half[BONAFIDE]]
                of = {BONAFIDE: "bona fide utterances", SPOOFED: "spoofed utterances"}
                level = {of[h]: [a.h[a.counted].mean(keepdims=True) for a in half[h] if a.counted.any()] for h in of}
                means.append(Panel(name, "", histograms(level, BINS)))
            panels.append(
                Panel(name, f"delta {shell.number(float(delta.get(name, float('nan'))), 2)}", histograms(shown, BINS))
            )
        stem = f"{shell.slug(cm)}__{shell.slug(route)}"
        title = f"{cm}, {route} route: activation of frames, {run.corpus.name}, truth {run.truth}"
        path = histogram_figure(title, panels, out / "pictures" / f"histograms__{stem}.png", rules=run.rules)
        words = " and ".join(sides)
        alt = f"Histograms of activation over {words}, a panel for each of {len(panels)} methods."
        drawn.append(Drawn(path, title, alt))
        if means:
            title = f"{cm}, {route} route: mean activation of an utterance, bona fide and spoofed halves"
            path = out / "pictures" / f"means__{stem}.png"
            path = histogram_figure(title, means, path, rules=run.rules, what="utterances")
            alt = f"Histograms of an utterance's mean activation, a panel for each of {len(means)} methods."
            drawn.append(Drawn(path, title, alt))
    return drawn


def _sides(run: ActivationRun) -> dict[str, str]:
    """What the two groups of frames are called, and their names in `statistics.groups`."""
    if run.truth == SEGMENTS:
        return {"bona fide frames": "other", "spoofed frames": "truth"}
    return {"other frames": "other", "frames of the truth": "truth"}


def draw_temporal(
    run: ActivationRun, every: Sequence[Mapped], means: pd.DataFrame, wanted: Wanted, out: Path, notes: list[str],
    report: Report,
) -> list[Drawn]:  # fmt: skip
    """Temporal maps of the first utterances, each countermeasure and route by itself, in `out`/pictures.

    Of methods that nobody named the `MOST` with the largest mean delta are drawn; notes then says so.
    """
    order = means.groupby(["countermeasure", "route", "attributor"])["delta"].mean()
    drawn = []
    for cm, route in sorted({m[:2] for m in run.methods}):
        mine = [m for m in every if (m.countermeasure, m.route, m.half) == (cm, route, SPOOFED)]
        names = list(dict.fromkeys(m.attributor for m in mine))
        if not wanted.xai:
            names = sorted(
                (n for n in names if kind(n) == "method"), key=lambda n: -order.fillna(-9).get((cm, route, n), -9)
            )
            if len(names) > MOST:
                notes.append(f"temporal maps of {cm} show the {MOST} of {len(names)} methods with the largest mean delta")
            names = names[:MOST] or list(dict.fromkeys(m.attributor for m in mine))[:MOST]
        bench = None
        for pair in list(dict.fromkeys(m.pair for m in mine))[: wanted.figures]:
            report(f"temporal map of {pair}")
            found = {m.attributor: m.activity for m in mine if m.pair == pair}
            found = {name: found[name] for name in names if name in found}
            if not found:
                continue
            heard = run.heard(pair, len(next(iter(found.values())).h))
            bench = bench or _bench(run, cm, route, wanted.device, notes)
            curves = _classes(bench, heard.spoof, notes) if bench is not None else None
            grid = run.spec["grid"]
            sound = Sound(
                heard.spoof, run.corpus.sample_rate, (grid["n_fft"], grid["hop"], grid["window"]), heard.spoofed
            )  # fmt: skip
            name = "__".join(shell.slug(p) for p in (*maps.split_pair(pair), cm, route))
            title = f"{pair}, {cm}, {route} route"
            path = temporal_map(
                title, sound, found, out / "pictures" / f"temporal__{name}.png", rules=run.rules, classes=curves
            )  # fmt: skip
            spans = ", ".join(f"{a:.2f} to {b:.2f} s" for a, b in heard.spoofed)
            alt = f"Activation over time of {', '.join(found)}" + (f"; labelled spoofed: {spans}." if spans else ".")
            drawn.append(Drawn(path, title, alt))
    return drawn


def _bench(run: ActivationRun, cm: str, route: str, device: str, notes: list[str]) -> Any:
    """A bench for class maps; None where the countermeasure has none, or cannot be loaded again."""
    try:
        recipe = registry.load("countermeasures", cm)
        if not hasattr(getattr(recipe, "build", None), "class_maps"):
            return None
        from xaibench.analysis.rerun import bench_of_run

        return bench_of_run(run.path, cm, route, device=device)
    except XaibenchError as error:
        notes.append(f"no class maps of {cm}: {error}")
        return None


def _classes(bench: Any, wave: Any, notes: list[str]) -> Any:
    from xaibench.analysis.rerun import class_maps

    try:
        return class_maps(bench, wave)
    except XaibenchError as error:
        notes.append(f"no class maps of {bench.name}: {error}")
        return None
