"""Preflight verdicts as results: what was asked of a countermeasure or a method, what was measured, and how it went.

RUN/preflight/CM.json                    the countermeasure
RUN/preflight/CM-ROUTE-ATTRIBUTOR.json   a method on it

Both hold `checks`, a list of objects: name, outcome, measured, tolerance (null where nothing was measured), note, and
whether a failure makes every cell void. Outcomes: `passed`; `failed`; `not applicable` (the question has no meaning here;
the note says why); `unchecked` (it could not be asked, as the method raised). QUESTIONS says what each asks and which fault
of a library or a model it is there for. `xaibench.harness.preflight` asks them. No torch is imported here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaibench.errors import RunError
from xaibench.harness.results import read_object, safe
from xaibench.run_record import read_record

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
FOLDER = "preflight"
PASSED, FAILED, NOT_APPLICABLE, UNCHECKED = OUTCOMES = ("passed", "failed", "not applicable", "unchecked")
COLUMNS = ("countermeasure", "route", "attributor", "check", "outcome", "measured", "tolerance", "note", "voids")
#: Methods that a sentence names before it counts.
NAMED = 8

#: What is asked of a method on a countermeasure, in this order.
METHOD = {
    "map": "It gives a finite map of the right shape.",
    "weights": "The countermeasure's weights and buffers are as before (train mode moves BatchNorm's statistics).",
    "modes": "Every module is in the mode it was in: dropout and BatchNorm left in train mode change every later score.",
    "hooks": "No hook is left on the countermeasure; one that is changes the next method's gradients.",
    "gradients": "No parameter asks for gradients, or holds one, that did not before.",
    "seed": "It draws no random number from torch's own generator.",
    "repeat": "The same map when it is asked twice, whatever the process' generators say: the run's seed decides.",
    "batch": "The same map for the last utterance of a batch alone: no sums, norms or targets shared by a batch.",
    "target": "Another map when the other class is explained.",
    "completeness": "The map sums to score(input) - score(baseline): a layer without a rule, or one used twice, breaks it.",
    "warnings": "No library warned of what makes its numbers wrong.",
    "distinct": "Maps of different utterances differ, and none is zero everywhere.",
}
#: What is asked of a countermeasure.
COUNTERMEASURE = {
    "answers": "It gives a finite score for every utterance.",
    "decides": "Not all scores are equal.",
    "classes": "Its equal error rate is not worse than guessing: the order of the classes is right.",
    "evaluation": "No module is in train mode: dropout is off, BatchNorm uses its statistics.",
    "repeat": "The same scores twice, whatever the process' generators say.",
    "batch": "The same score alone and in a batch.",
    "weights": "Scoring changes no weight and no buffer.",
    "cut": "backend(frontend(x)) is the whole model, so that the tap is a true cut.",
    "reuse": "No activation or pooling module is called twice in a pass: rules that hook modules then mix the calls up.",
}
QUESTIONS = {"method": METHOD, "countermeasure": COUNTERMEASURE}


@dataclass(frozen=True)
class Check:
    """One question and its answer. `voids`: whether a failure makes every cell void; else it is for the reader."""

    name: str
    outcome: str
    measured: float | None = None
    tolerance: float | None = None
    note: str = ""
    voids: bool = True


def void(checks: Iterable[Check]) -> str:
    """Why all cells are void, "" where they are not.

    >>> void([Check("seed", FAILED, note="it drew"), Check("batch", PASSED, 0.0, 0.01)])
    'it drew'
    """
    return "; ".join(c.note for c in checks if c.outcome == FAILED and c.voids)


def measured(checks: Iterable[Check]) -> dict[str, float]:
    """The numbers behind them, by name: what preflight files held before there were checks."""
    return {f"{c.name}_gap": c.measured for c in checks if c.measured is not None}


def file_of(countermeasure: str, route: str = "", attributor: str = "") -> str:
    """The verdict's file, relative to the run folder.

    >>> file_of("lcnn"), file_of("lcnn", "native", "grad-cam++")
    ('preflight/lcnn.json', 'preflight/lcnn-native-grad-cam++.json')
    """
    parts = (safe(countermeasure), route, safe(attributor)) if attributor else (safe(countermeasure),)
    return f"{FOLDER}/{'-'.join(parts)}.json"


def read(path: Path) -> tuple[Check, ...]:
    """The checks of a file; of one from before there were any, what it says of the outcome. None there: no checks.

    Raises RunError where it is damaged.
    """
    known = read_object(path)
    if known is None:
        return ()
    try:
        if "checks" not in known:
            return _old(known)
        return tuple(_check(c) for c in known["checks"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: damaged ({type(error).__name__}: {error}); remove it to have it made again") from error


def _check(said: Mapping[str, Any]) -> Check:
    measured, tolerance = (None if said[k] is None else float(said[k]) for k in ("measured", "tolerance"))
    if said["outcome"] not in OUTCOMES:
        raise ValueError(f"outcome {said['outcome']!r}, expected one of {', '.join(OUTCOMES)}")
    return Check(str(said["name"]), said["outcome"], measured, tolerance, str(said["note"]), bool(said["voids"]))


def _old(known: Mapping[str, Any]) -> tuple[Check, ...]:
    void, unchecked = str(known.get("void") or ""), str(known.get("unchecked") or "")
    outcome = FAILED if void else UNCHECKED if unchecked else PASSED
    return (Check("preflight", outcome, note=void or unchecked),)


def read_checks(runs: Sequence[Path]) -> pd.DataFrame:
    """Every check of some runs, one line each, in the order they were asked. `attributor` is "" of a countermeasure itself,
    `measured` and `tolerance` NaN where there is no number. A combination that several runs judged is taken from the last.

    Raises RunError naming a damaged file.
    """
    import pandas as pd

    lines: dict[tuple[str, str, str], list[tuple[Any, ...]]] = {}
    for run in map(Path, runs):
        for what in _judged(run):
            found = read(run / file_of(*what))
            if found:
                lines[what] = [(*what, c.name, c.outcome, c.measured, c.tolerance, c.note, c.voids) for c in found]
    table = pd.DataFrame([line for what in sorted(lines) for line in lines[what]], columns=list(COLUMNS))
    return table.astype({"measured": float, "tolerance": float, "voids": bool})


def _judged(run: Path) -> Iterable[tuple[str, str, str]]:
    """Countermeasures, and their routes and methods, that have rows. Names are of the run, as files' are made safe."""
    record = read_record(run)
    methods = {name.partition("/")[2] for name in record.get("origins", {}) if name.startswith("attributors/")}
    for cm in record.get("countermeasures", {}):
        yield cm, "", ""
        for route in ("grid", "native"):
            for name in sorted(methods):
                yield cm, route, name


def sentences(checks: pd.DataFrame) -> list[str]:
    """What the checks of `read_checks` come to: how many passed, who is void for which check, who failed or was not judged.
    Why a method is void stands with its cells.

    >>> import pandas as pd
    >>> line = ("lcnn", "native", "mixes", "batch", "failed", 0.5, 0.01, "it mixes utterances", True)
    >>> sentences(pd.DataFrame([line], columns=list(COLUMNS)))
    ['Preflight: 0 of 1 passed every check that applies.', 'Void: mixes on lcnn (batch).']
    """
    if checks.empty:
        return []
    groups: dict[str, list[str]] = {"Void": [], "Failed a check that voids nothing": [], "Not judged": []}
    judged = list(checks.groupby(["countermeasure", "route", "attributor"], sort=True))
    for (cm, _, method), part in judged:
        failed, unchecked = part[part["outcome"].eq(FAILED)], part["outcome"].eq(UNCHECKED).any()
        if failed.empty and not unchecked:
            continue
        kinds = "Not judged" if failed.empty else "Void" if failed["voids"].any() else "Failed a check that voids nothing"
        why = f" ({', '.join(failed['check'])})" if len(failed) else ""
        groups[kinds].append(f"{method} on {cm}{why}" if method else f"{cm} itself{why}")
    bad = sum(map(len, groups.values()))
    lines = [f"Preflight: {len(judged) - bad} of {len(judged)} passed every check that applies."]
    for kind, names in groups.items():
        rest = len(names) - NAMED
        if names:
            lines.append(f"{kind}: {', '.join(names[:NAMED])}{f' and {rest} more' if rest > 0 else ''}.")
    return lines
