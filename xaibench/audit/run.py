"""The audit from end to end: measure, ask each question, write the page after each answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch

import xaibench
from xaibench.audit.ceiling import ceiling_section
from xaibench.audit.constants import constants_section, constants_table, rescored
from xaibench.audit.meta import meta_section
from xaibench.audit.overview import overview_section
from xaibench.audit.page import write_page
from xaibench.audit.perturbed import meta_evaluate
from xaibench.audit.planted import installed, planted_board, planted_section
from xaibench.audit.runs import AuditSpec, measure, only, scores
from xaibench.audit.section import Section
from xaibench.audit.twinpath import twinpath_section
from xaibench.audit.use import use_section
from xaibench.errors import RunError
from xaibench.harness.plan import ordered_pairs
from xaibench.harness.run import Progress
from xaibench.harness.workbench import Workbench
from xaibench.leaderboard.table import RUN_COLUMNS
from xaibench.types import ROW_COLUMNS

#: The parts, in the order of the page.
PARTS = ("use", "overview", "twinpath", "constants", "ceiling", "meta", "planted")
#: Methods whose scores the meta-evaluation disturbs, pairs it takes, and draws of each disturbance.
META_METHODS = ("saliency", "input-x-gradient", "integrated-gradients", "grad-cam", "lrp")
META_PAIRS, META_DRAWS = 12, 2
PLANTED_PAIRS = 24


@dataclass(frozen=True)
class Audited:
    """What an audit found. `paths`: the page first."""

    sections: tuple[Section, ...]
    paths: tuple[Path, ...]
    problems: tuple[str, ...]


def audit(
    spec: AuditSpec, out: Path, *, parts: tuple[str, ...] = PARTS, device: torch.device | str = "cpu",
    batch_size: int | None = None, report: Callable[[Progress], None] = lambda progress: None,
) -> Audited:  # fmt: skip
    """Examine one countermeasure on one data set, into the folder `out`; running it again continues.

    Raises RunError for unknown parts, no method, data without bona fide twins (every question needs them), or parts that
    have nothing to show; and what a run raises.
    """
    unknown = [p for p in parts if p not in PARTS]
    if unknown or not parts:
        raise RunError(f"unknown part of the audit: {', '.join(unknown) or 'none given'}; there are {', '.join(PARTS)}")
    if not spec.methods:
        raise RunError("the audit needs at least one method; the controls are there by themselves")
    out = Path(out)
    bench = Workbench(spec.run, device=device, batch_size=batch_size)
    pairs = ordered_pairs(bench.corpus, spec.split)
    if any(pair.bonafide is None for pair in pairs):
        raise RunError(f"{spec.data}: some spoofed speech has no bona fide twin, which every question of the audit needs")
    name = spec.countermeasure
    rows = pd.DataFrame(columns=[*ROW_COLUMNS, *RUN_COLUMNS])
    problems: tuple[str, ...] = ()
    if set(parts) - {"meta", "planted"}:  # these two make their own
        rows, problems = measure(spec, out, device=device, batch_size=batch_size, report=report)
        rows = only(rows, spec, route=bench.route(name), pairs=pairs[: spec.limit])
    meta_methods = [m for m in META_METHODS if m in spec.methods]
    meta_methods = meta_methods if len(meta_methods) > 1 else list(spec.methods[: len(META_METHODS)])
    noticed = list(problems)

    def meta() -> Section | None:
        if len(meta_methods) < 2:
            return None  # there is no order to keep or to lose
        table = meta_evaluate(bench, name, pairs[:META_PAIRS], methods=meta_methods, draws=META_DRAWS)
        noticed.extend(f"meta: {problem}" for problem in table.attrs["problems"])
        return meta_section(table)

    def planted() -> Section:
        board, trouble = planted_board(
            out / "planted",
            limit=min(PLANTED_PAIRS, spec.limit),
            seed=spec.seed,
            device=device,
            batch_size=batch_size,
            report=report,
        )
        noticed.extend(f"planted: {problem}" for problem in trouble)
        return planted_section(board)

    ask: dict[str, Callable[[], Section | None]] = {
        "use": partial(use_section, rows, name),
        "overview": partial(overview_section, rows),
        "twinpath": partial(twinpath_section, rows),
        "constants": lambda: constants_section(
            constants_table(rescored(bench, out / "run", name, scores(rows, "rank-accuracy")), seed=spec.seed)
        ),
        "ceiling": partial(ceiling_section, rows, name),
        "meta": meta,
        "planted": planted,
    }
    found: list[Section] = []
    facts = _facts(spec, bench, rows)
    paths: list[Path] = []
    for number, part in enumerate(p for p in PARTS if p in parts):
        report(Progress("parts", number, len(parts), part))
        if part == "planted" and not installed():
            noticed.append("planted: its plugin is not installed (xaibench-planted); this part is left out")
            continue
        section = ask[part]()
        if section is None:
            noticed.append(f"{part}: nothing to show with these methods")
            continue
        found.append(section)
        paths = write_page(found, out, title=f"Audit of {name} on {bench.corpus.name}", facts=facts)
    if not found:
        raise RunError(f"the audit has nothing to write: {'; '.join(noticed)}")
    report(Progress("parts", len(parts), len(parts)))
    return Audited(tuple(found), tuple(paths), tuple(dict.fromkeys(noticed)))


def _facts(spec: AuditSpec, bench: Workbench, rows: pd.DataFrame) -> dict[str, str]:
    eer = rows["eer"].dropna()
    of = rows[rows["truth"].eq("eq2")]
    return {
        "Countermeasure": f"{spec.countermeasure}, {bench.route(spec.countermeasure)} route, weights "
        f"{bench.countermeasure(spec.countermeasure).weights[:12]}, equal error rate "
        + (f"{eer.iloc[0]:.1%}" if len(eer) else "not measured"),
        "Data": f"{bench.corpus.name}, split {spec.split}: {len(of[['utterance', 'vocoder']].drop_duplicates())} vocoded "
        f"utterances of {of['utterance'].nunique()} sources and {of['speaker'].nunique()} speakers",
        "Methods": ", ".join(spec.methods),
        "Made by": f"xaibench {xaibench.__version__}, seed {spec.seed}",
    }
