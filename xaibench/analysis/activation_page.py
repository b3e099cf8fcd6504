"""The analysis of a run's activations as files: statistics.csv, segments.csv, summary.md, pictures and one page.

    statistics.csv   a row an utterance, method and threshold     segments.csv   a row a detected segment
    summary.md       means with intervals                         activations.html   the same with the pictures
    pictures/        histograms of every countermeasure and route, temporal maps of some utterances (PNG)

The page is one file but for its pictures, asks nobody for anything and opens from the folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from xaibench import __version__
from xaibench.analysis.activation_pictures import Drawn, Report, Wanted, draw_histograms, draw_temporal
from xaibench.analysis.activation_run import BONAFIDE, SEGMENTS, SPOOFED, ActivationRun, Mapped, segment_table, table
from xaibench.analysis.activations import Rules
from xaibench.analysis.statistics import summary
from xaibench.errors import RunError
from xaibench.leaderboard.table import kind
from xaibench.leaderboard.writing import escape, table_line
from xaibench.site import shell
from xaibench.tables import csv_text


@dataclass(frozen=True, eq=False)
class Written:
    """The files, the means behind them, and sentences worth the user's attention."""

    files: tuple[Path, ...]
    means: pd.DataFrame
    notes: tuple[str, ...]


def analyse(
    run: Path, out: Path, *, rules: Rules | None = None, wanted: Wanted | None = None, report: Report = lambda step: None
) -> Written:
    """Analyse the kept maps of a run and write everything to `out`.

    Raises RunError: not a run folder, no kept maps, none of the methods named, or a folder that cannot be written.
    """
    rules, wanted, out = rules or Rules(), wanted or Wanted(), Path(out)
    opened = ActivationRun(run, rules)
    strange = sorted(set(wanted.xai) - {m[2] for m in opened.methods})
    if strange:
        known = ", ".join(sorted({m[2] for m in opened.methods}))
        raise RunError(f"{run}: no map of {strange[0]!r} was kept; there are {known}")
    pairs = opened.chosen(wanted.utterances)
    report(f"{len(pairs)} utterances")
    every = list(opened.mapped(pairs, xai=wanted.xai))
    if not every:
        raise RunError(f"{run}: no map of these methods and utterances was kept")
    notes: list[str] = []
    if wanted.bonafide:
        every += _bonafide(opened, every, wanted.device, notes, report)
    rows = table(opened, every)
    means = summary(rows)
    files = [_csv(rows, out / "statistics.csv"), _csv(segment_table(opened, every), out / "segments.csv")]
    drawn = draw_histograms(opened, every, rows, out, report)
    drawn += draw_temporal(opened, every, means, wanted, out, notes, report)
    notes += _remarks(opened, rows)
    content = _content(opened, rows, means, pairs, notes)
    files.append(shell.write(out / "summary.md", _markdown(content)))
    page = shell.render("activations.html.j2", inline=True, pictures=[_picture(out, d) for d in drawn], **content)
    files.append(shell.write(out / "activations.html", page))
    return Written((*files, *(d.path for d in drawn)), means, tuple(notes))


def _csv(rows: pd.DataFrame, path: Path) -> Path:
    return shell.write(path, csv_text(rows))


def _bonafide(run: ActivationRun, every: Sequence[Mapped], device: str, notes: list[str], report: Report) -> list[Mapped]:
    """The same methods on the bona fide twins, one a source utterance."""
    from xaibench.analysis.rerun import bench_of_run, explained

    asked: dict[tuple[str, str], tuple[dict[str, str], list[str]]] = {}
    frames = {}
    for one in every:
        firsts, methods = asked.setdefault((one.countermeasure, one.route), ({}, []))
        firsts.setdefault(run.pairs[one.pair].spoof.source, one.pair)
        frames[one.countermeasure, one.route, one.pair] = len(one.activity.h)
        if one.attributor not in methods:
            methods.append(one.attributor)
    found = []
    for (cm, route), (firsts, methods) in asked.items():
        heard = {pair: run.heard(pair, frames[cm, route, pair]) for pair in firsts.values()}
        waves = [(pair, h.bonafide) for pair, h in heard.items() if h.bonafide is not None]
        if not waves:
            notes.append(f"{run.corpus.name} has no bona fide twins to explain")
            continue
        report(f"{len(waves)} bona fide twins through {cm}")
        failures: dict[str, str] = {}
        bench = bench_of_run(run.path, cm, route, device=device)
        for pair, method, values in explained(bench, waves, methods, failures):
            found.append(run.observed((cm, route, method), pair, values, BONAFIDE))
        notes += _not_explained(cm, failures)
        found = [m for m in found if (m.countermeasure, m.route) != (cm, route) or m.attributor not in failures]
    return found


def _not_explained(cm: str, failures: dict[str, str]) -> list[str]:
    """Why methods have no maps of bona fide twins; the controls that are made of the truth in one sentence."""
    made_of_truth = [name for name in failures if kind(name) in ("ceiling", "sham")]
    notes = [
        f"{name} on {cm}: bona fide twins not explained: {failures[name]}" for name in failures if name not in made_of_truth
    ]
    if made_of_truth:
        notes.append(f"{', '.join(made_of_truth)} on {cm} are made of the truth, which a bona fide twin does not have")
    return notes


def _remarks(run: ActivationRun, rows: pd.DataFrame) -> list[str]:
    """What a reader of these numbers must know, counted."""
    once = rows.drop_duplicates(["countermeasure", "route", "attributor", "utterance", "vocoder", "half"])
    notes = []
    once, every = once[once["half"].eq(SPOOFED)], once
    aside = once["aside"].sum() / max(once["frames"].sum(), 1)
    notes.append(f"the guard sets {aside:.0%} of the frames of the spoofed halves aside")
    pauses = once.groupby(["utterance", "vocoder"])["nonspeech_n"].first()
    if pauses.sum() == 0 or (pauses == 0).mean() > 0.5:
        notes.append(
            f"{(pauses == 0).mean():.0%} of the utterances have no pause left outside the guard, so speech against "
            f"non-speech is known for few"
        )
    blank = every[every["flat"].eq(1) & every["attributor"].map(kind).eq("method")]
    for (name, half), part in blank.groupby(["attributor", "half"]):
        total = int((every["attributor"].eq(name) & every["half"].eq(half)).sum())
        notes.append(
            f"{name}: {len(part)} of {total} maps of {half} halves have no positive frame, or one value in all; their "
            f"activation is 0"
        )
    return notes


def _content(
    run: ActivationRun, rows: pd.DataFrame, means: pd.DataFrame, pairs: Sequence[str], notes: Sequence[str]
) -> dict[str, Any]:
    """What summary.md and the page say."""
    rules, partial = run.rules, run.truth == SEGMENTS
    middle = sorted(rules.thresholds)[len(rules.thresholds) // 2]
    sections = []
    for (half, cm, route), part in means.groupby(["half", "countermeasure", "route"], sort=True):
        part = part.assign(
            kind=part["attributor"].map(kind), last=part["attributor"].map(kind).ne("method")
        )  # fmt: skip
        part = part.sort_values(["last", "delta", "all_mean"], ascending=[True, False, False], kind="stable")
        first = part[part["threshold"].eq(middle)]
        every = part.sort_values(["last", "attributor", "threshold"])
        about = {"half": half, "countermeasure": cm, "route": route}
        sections.append({**about, "methods": first.to_dict("records"), "thresholds": every.to_dict("records")})
    sections.sort(key=lambda s: (s["countermeasure"], s["route"], s["half"] != SPOOFED))
    halves = set(rows["half"])
    return {
        "title": f"Activations of {run.path.name}",
        "footer": f"xaibench {__version__}. Numbers of every utterance: statistics.csv; every segment: segments.csv.",
        "run": run.path.name, "data": run.corpus.name, "truth": run.truth, "partial": partial, "pairs": len(pairs),
        "rules": rules, "middle": middle, "sections": sections, "notes": list(notes), "both": BONAFIDE in halves,
        "guideline": _guideline(rows),
    }  # fmt: skip


def _guideline(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The tutorial's guidelines, counted: bona fide below 0.3 with a deviation below 0.15, partially spoofed above 0.4."""
    once = rows.drop_duplicates(["countermeasure", "route", "attributor", "utterance", "vocoder", "half"])
    lines = []
    for (cm, route, name), part in once.groupby(["countermeasure", "route", "attributor"], sort=True):
        spoof, real = (part[part["half"].eq(h)] for h in (SPOOFED, BONAFIDE))
        low = real["all_mean"].lt(0.3) & real["all_std"].lt(0.15)
        level = real["raw_mean"].mean() if len(real) else float("nan")
        lines.append(
            {
                "countermeasure": cm,
                "route": route,
                "attributor": name,
                "spoofed": float(spoof["all_mean"].gt(0.4).mean()),
                "bonafide": float(low.mean()) if len(real) else float("nan"),
                "level": float(spoof["raw_mean"].mean() / level) if level > 0 else float("nan"),
            }
        )
    return lines


def _picture(out: Path, drawn: Drawn) -> dict[str, str]:
    return {"address": quote(drawn.path.relative_to(out).as_posix()), "title": drawn.title, "alt": drawn.alt}


def _interval(line: dict[str, Any], name: str) -> str:
    """A mean with its interval.

    >>> _interval({"delta": 0.5, "delta_low": 0.25, "delta_high": float("nan")}, "delta")
    '0.50'
    """
    low, high = line[f"{name}_low"], line[f"{name}_high"]
    mean = shell.number(line[name], 2)
    return mean if low != low or high != high else f"{mean} [{shell.number(low, 2)}, {shell.number(high, 2)}]"


_HEADS = {
    "share_above": "share above", "segments": "segments", "precision": "precision", "recall": "recall", "f1": "F1",
    "iou": "IoU", "f1_of_all": "F1 if all is flagged",
}  # fmt: skip
_EFFECTS = {"difference": "difference", "delta": "delta", "speech_delta": "speech delta"}


def _markdown(content: dict[str, Any]) -> str:
    rules = content["rules"]
    thresholds = ", ".join(f"{t:g}" for t in rules.thresholds)
    lines = [
        f"# {escape(content['title'])}", "",
        f"{content['pairs']} utterances of {escape(content['data'])}, truth `{content['truth']}`. Thresholds {thresholds}; "
        f"guard {1000 * rules.guard:.0f} ms at {', '.join(rules.guard_at) or 'nothing'}; voice activity: {rules.vad}; "
        f"scale: {rules.scale}.", "",
        *(f"- {escape(note)}" for note in content["notes"]), "",
    ]  # fmt: skip
    heads = ["method", "threshold", "utterances", *_HEADS.values(), *_EFFECTS.values()]
    for part in content["sections"]:
        lines += [f"## {escape(part['countermeasure'])}, {part['route']} route, {part['half']} halves", ""]
        lines += [table_line(heads), table_line(["---"] * len(heads))]
        for line in part["thresholds"]:
            first = [line["attributor"], f"{line['threshold']:g}", str(line["utterances"])]
            numbers = [shell.number(line[name], 2) for name in _HEADS]
            lines.append(table_line([*first, *numbers, *(_interval(line, name) for name in _EFFECTS)]))
        lines.append("")
    return "\n".join(lines)
