"""From scores to the table of a countermeasure's error rates: pooled, and for each attack (or vocoder).

Pure functions of arrays. Higher scores are more bona fide; the positive class of precision, recall and F1 is spoof. The
decisions of two thresholds are judged: 0, where the log-odds change sides, and the equal-error threshold, which is chosen
on the very scores it judges and so flatters them.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from xaibench.errors import XaibenchError
from xaibench.metrics import tdcf
from xaibench.metrics.detection import decisions, equal_error_point
from xaibench.scorefile import AsvTrial, Trial

NO_ASV = "no ASV scores were given (--asv-scores); the t-DCF needs those of the data set's organisers"
UNNAMED = {"spoof", "replay"}  # what `xaibench.scorefile` calls attacks that a file does not name
COSTS = ("min_tdcf_2019_legacy", "min_tdcf_2021", "actual_tdcf_2019_legacy", "actual_tdcf_2021")


@dataclass(frozen=True, eq=False)
class Scores:
    """A countermeasure's scores: of bona fide speech `(N,)`, and of each attack `(M,)`."""

    bonafide: np.ndarray
    attacks: Mapping[str, np.ndarray]

    @property
    def spoof(self) -> np.ndarray:
        return np.concatenate([*self.attacks.values()]) if self.attacks else np.empty(0)


@dataclass(frozen=True, eq=False)
class AsvScores:
    """An ASV system's scores: of targets, nontargets, and of spoofs an attack; the attack "" where none is named."""

    target: np.ndarray
    nontarget: np.ndarray
    attacks: Mapping[str, np.ndarray]


def collect(trials: Iterable[Trial]) -> Scores:
    """Gather a stream of trials; 8 bytes a trial are kept.

    >>> collect([Trial("a", "bonafide", 1.0), Trial("b", "A07", -1.0)]).attacks
    {'A07': array([-1.])}
    """
    parts: dict[str, array] = {}
    for trial in trials:
        parts.setdefault(trial.attack, array("d")).append(trial.score)
    bonafide = np.array(parts.pop("bonafide", ()), dtype=float)
    return Scores(bonafide, {name: np.array(parts[name]) for name in sorted(parts)})


def collect_asv(trials: Iterable[AsvTrial]) -> AsvScores:
    """Gather a stream of ASV trials."""
    parts: dict[tuple[str, str], array] = {}
    for trial in trials:
        parts.setdefault((trial.key, trial.attack), array("d")).append(trial.score)
    target, nontarget = (np.array(parts.pop((key, ""), ()), dtype=float) for key in ("target", "nontarget"))
    return AsvScores(target, nontarget, {attack: np.array(parts[key, attack]) for key, attack in sorted(parts)})


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `summary` found: `facts` (JSON values) and `table`, a row for the pooled attacks and for each attack."""

    facts: dict[str, Any]
    table: pd.DataFrame


def summary(scores: Scores, *, asv: AsvScores | None = None) -> Evaluation:
    """Error rates, t-DCFs and decisions: pooled, and of each attack against all bona fide speech.

    Columns: attack ("pooled" first), bonafide and spoof (counts), eer, eer_threshold, min_tdcf_2019_legacy, min_tdcf_2021
    and the actual_ costs at the threshold 0, the fields of `Decisions` at 0 and, with the ending `_at_eer`, at the
    equal-error threshold, and `tdcf_note`, why a t-DCF has no value (NaN; null in JSON).

    An attack's t-DCF takes the ASV system's rate for that attack, at the threshold of all targets and nontargets, as in the
    2021 package's tables. The pooled one is for the attacks the ASV scores are of: it has no value unless they are the same.

    Raises XaibenchError without scores of both classes, for ASV scores that are incomplete or share no attack with these.
    """
    if not len(scores.bonafide) or not len(scores.spoof):
        there = "spoofs" if len(scores.spoof) else "bona fide speech"
        raise XaibenchError(f"only scores of {there}; an error rate needs both classes. Was it the whole of the split?")
    if "pooled" in scores.attacks:
        raise XaibenchError("an attack is called 'pooled', the name of the row of all attacks; rename it")
    costs = _Costs(scores, asv)
    parts = {"pooled": scores.spoof, **scores.attacks}
    rows = [_row(name, scores.bonafide, part, costs) for name, part in parts.items()]
    table = pd.DataFrame(rows)
    attacks = table[table["attack"] != "pooled"]
    worst = attacks.loc[attacks["eer"].idxmax()]
    facts = {
        "positive_class": "spoof",
        "decision": "bona fide if the score is above the threshold: 0, or (_at_eer) the equal-error threshold of the row",
        "trials": {"bonafide": len(scores.bonafide), "spoof": len(scores.spoof), "attacks": len(scores.attacks)},
        "mean_eer_of_attacks": float(attacks["eer"].mean()),
        "worst_attack": {"attack": str(worst["attack"]), "eer": float(worst["eer"])},
        "asv": None if costs.pooled is None else asdict(costs.pooled),
        "pooled": _plain(rows[0]),
        "attacks": {row["attack"]: _plain(row) for row in rows[1:]},
    }
    return Evaluation(facts, table)


class _Costs:
    """The ASV error rates that belong to each row."""

    def __init__(self, scores: Scores, asv: AsvScores | None) -> None:
        self.asv, self.mismatch = asv, ""
        self.pooled: tdcf.AsvErrorRates | None = None
        if asv is None:
            return
        spoof = np.concatenate([*asv.attacks.values()]) if asv.attacks else np.empty(0)
        self.pooled = tdcf.asv_error_rates(asv.target, asv.nontarget, spoof)
        mine, theirs = set(scores.attacks) - UNNAMED, set(asv.attacks) - {""}
        if mine and theirs and not mine & theirs:
            raise XaibenchError(
                f"the ASV scores are of {', '.join(sorted(theirs))}, the countermeasure's of {', '.join(sorted(mine))}; are "
                f"they of the same data set and split?"
            )
        if mine and theirs and mine != theirs:
            self.mismatch = f"{', '.join(sorted(mine ^ theirs))} in one of countermeasure and ASV scores only"

    def of(self, attack: str) -> tdcf.AsvErrorRates | str:
        """The rates of a row, or why there are none."""
        if self.asv is None or self.pooled is None:
            return NO_ASV
        if attack == "pooled":
            return self.mismatch or self.pooled
        if attack not in self.asv.attacks:
            return f"the ASV scores name no {attack}"
        return tdcf.asv_error_rates(
            self.asv.target, self.asv.nontarget, self.asv.attacks[attack], threshold=self.pooled.threshold
        )


def _row(name: str, bonafide: np.ndarray, spoof: np.ndarray, costs: _Costs) -> dict[str, Any]:
    rate, threshold = equal_error_point(bonafide, spoof)
    row: dict[str, Any] = {
        "attack": name, "bonafide": len(bonafide), "spoof": len(spoof), "eer": rate, "eer_threshold": threshold,
    }  # fmt: skip
    rates, notes = costs.of(name), []
    for column in COSTS:
        row[column] = math.nan
        if isinstance(rates, str):
            notes = [rates]
            continue
        try:
            row[column] = getattr(tdcf, column)(bonafide, spoof, rates)
        except XaibenchError as error:
            notes.append(f"{column}: {error}")
    for ending, at in (("", 0.0), ("_at_eer", threshold)):
        made = asdict(decisions(bonafide, spoof, threshold=at))
        row |= {f"{key}{ending}": value for key, value in made.items() if key != "threshold"}
    return {**row, "tdcf_note": "; ".join(dict.fromkeys(notes))}


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values; NaN becomes null."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items() if k != "attack"}
