"""What activations dwell on, in numbers: the rows of statistics.csv, their means with intervals, and histograms.

One row an utterance, method and threshold; the columns are those of `statistics`. Frames within the guard of an edge are
left out of every number but the segments. Effects compare, within one utterance, the frames the truth points at (`truth`;
of a partial spoof the spoofed ones) with its other frames (`other`; the bona fide ones), and speech with non-speech. Their
means over utterances have intervals that resample source utterances (`xaibench.stats`), as vocoded twins share their speech.

Frames: `h` `(T,)` in [0, 1], masks `(T,)` bool, see `xaibench.analysis.activations`. numpy and pandas only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from xaibench.analysis.activations import Activity, Rules, segments_above
from xaibench.analysis.speech import on_frames
from xaibench.errors import XaibenchError
from xaibench.stats import Batch

QUANTILES = {"q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}

#: What tells one map's rows from another's: its countermeasure, route and method.
METHOD = ("countermeasure", "route", "attributor")
#: Columns of `summary` that are means with an interval, and plain means.
EFFECTS = ("difference", "delta", "speech_difference", "speech_delta")
MEANS = (
    "share_above", "segments", "segment_seconds", "precision", "recall", "f1", "iou", "all_mean", "all_std", "truth_mean",
    "other_mean", "speech_mean", "nonspeech_mean", "truth_share", "f1_of_all",
)  # fmt: skip


def groups(activity: Activity) -> dict[str, np.ndarray]:
    """all, truth, other, speech, nonspeech: their frames, without those set aside. Shape: `(T,)` bool each."""
    counted = activity.counted
    truth = np.zeros_like(counted) if activity.truth is None else activity.truth
    return {
        "all": counted, "truth": counted & truth, "other": counted & ~truth,
        "speech": counted & activity.speech, "nonspeech": counted & ~activity.speech,
    }  # fmt: skip


def described(values: np.ndarray) -> dict[str, float]:
    """n, mean, std (of the population), max and `QUANTILES` of values `(n,)`; NaN of none.

    >>> described(np.array([0.0, 1.0]))["mean"], described(np.array([]))["n"]
    (0.5, 0)
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        return {"n": 0, **dict.fromkeys(("mean", "std", "max", *QUANTILES), math.nan)}
    spread = dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values())).tolist(), strict=True))
    return {"n": len(values), "mean": float(values.mean()), "std": float(values.std()), "max": float(values.max()), **spread}


def cliffs_delta(first: np.ndarray, second: np.ndarray) -> float:
    """P(first > second) - P(first < second) over all pairs; in [-1, 1], 0 for no effect, NaN for an empty side.

    Cliff, Psychological Bulletin 114 (1993); 2 AUC - 1. It asks for the order alone: no rising scale changes it.

    >>> cliffs_delta(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.75
    """
    first, second = np.asarray(first, dtype=np.float64), np.sort(np.asarray(second, dtype=np.float64))
    if not len(first) or not len(second):
        return math.nan
    below = np.searchsorted(second, first, side="left").sum()
    above = (len(second) - np.searchsorted(second, first, side="right")).sum()
    return float(below - above) / (len(first) * len(second))


def detection(found: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    """How found frames and true ones agree: precision, recall, f1, iou. Shape: `(T,)` each; `weight`: seconds a frame.

    Frames that do not count weigh 0. Without a true frame all are NaN, and without a found one the precision.

    >>> detection(np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool), np.ones(4))
    {'precision': 0.5, 'recall': 0.5, 'f1': 0.5, 'iou': 0.3333333333333333}
    """
    weight = np.asarray(weight, dtype=np.float64)
    both, said, there = (float(weight[m].sum()) for m in (found & truth, found, truth))
    if not there:
        return dict.fromkeys(("precision", "recall", "f1", "iou"), math.nan)
    return {
        "precision": both / said if said else math.nan, "recall": both / there,
        "f1": 2 * both / (said + there), "iou": both / (said + there - both),
    }  # fmt: skip


def statistics(activity: Activity, rules: Rules) -> list[dict[str, float]]:
    """The numbers of one map: a row a threshold.

    Of the threshold: share_above, precision, recall, f1, iou (in seconds, frames set aside left out), segments,
    segment_seconds and longest (of the whole recording: a guard would cut one segment in two). Of the map, the same in each
    row: frames, aside (how many the guard leaves out), flat (1 where h is 0 everywhere), `<group>_<statistic>` of h,
    raw_mean and raw_max of the positive part before it is scaled, difference and delta (truth less other: of the means of
    h, and Cliff's), speech_difference and speech_delta (speech less non-speech), truth_share (of the counted seconds) and
    f1_of_all, the f1 of calling every frame spoofed.
    """
    within, width = groups(activity), np.diff(activity.edges)
    values = {name: activity.h[mask] for name, mask in within.items()}
    fixed: dict[str, float] = {"frames": len(activity.h), "aside": int(activity.aside.sum())}
    fixed["flat"] = int(not activity.h.any())
    seconds = float(width[within["all"]].sum())
    share = math.nan if activity.truth is None or not seconds else float(width[within["truth"]].sum()) / seconds
    for name, mine in values.items():
        fixed |= {f"{name}_{key}": value for key, value in described(mine).items()}
    raw = np.clip(activity.curve, 0, None)[within["all"]]
    fixed |= {
        "raw_mean": float(raw.mean()) if len(raw) else math.nan,
        "raw_max": float(raw.max()) if len(raw) else math.nan,
        "difference": fixed["truth_mean"] - fixed["other_mean"],
        "delta": cliffs_delta(values["truth"], values["other"]),
        "speech_difference": fixed["speech_mean"] - fixed["nonspeech_mean"],
        "speech_delta": cliffs_delta(values["speech"], values["nonspeech"]),
        "truth_share": share,
        "f1_of_all": 2 * share / (1 + share) if share > 0 else math.nan,
    }
    return [{"threshold": t, **_above(activity, within["all"], t, rules), **fixed} for t in rules.thresholds]


def _above(activity: Activity, counted: np.ndarray, threshold: float, rules: Rules) -> dict[str, float]:
    """What one threshold finds."""
    found = segments_above(activity.h, threshold, activity.edges, gap=rules.gap, shortest=rules.shortest)
    over = on_frames([(s.start, s.end) for s in found], activity.edges)
    lengths = [s.end - s.start for s in found]
    truth = np.zeros_like(counted) if activity.truth is None else activity.truth
    return {
        "share_above": float(over[counted].mean()) if counted.any() else math.nan,
        "segments": len(found),
        "segment_seconds": float(sum(lengths)),
        "longest": float(max(lengths, default=0.0)),
        **detection(over, truth, np.diff(activity.edges) * counted),
    }


@dataclass(frozen=True, eq=False)
class Histogram:
    """Frames in bins of h: edges `(bins + 1,)` over [0, 1], and the share of each side's frames in a bin, `(bins,)`.

    A side without a frame is zero everywhere. count: frames a side.
    """

    edges: np.ndarray
    shares: Mapping[str, np.ndarray]
    count: Mapping[str, int]


def histograms(sides: Mapping[str, Sequence[np.ndarray]], bins: int = 50) -> Histogram:
    """Frames pooled over utterances, a histogram a side ("bona fide", "spoof"). sides: arrays `(n,)` in [0, 1].

    Each side sums to 1, so that sides of different size compare. Raises XaibenchError for values outside [0, 1].

    >>> histograms({"spoof": [np.array([0.1, 0.9])], "bona fide": []}, 2).shares["spoof"].tolist()
    [0.5, 0.5]
    """
    if bins < 1:
        raise XaibenchError(f"{bins} bins: expected at least 1")
    edges = np.linspace(0, 1, bins + 1)
    shares, count = {}, {}
    for side, arrays in sides.items():
        pooled = np.concatenate([np.zeros(0), *(np.asarray(a, dtype=np.float64) for a in arrays)])
        if len(pooled) and not (pooled.min() >= 0 and pooled.max() <= 1):
            raise XaibenchError(f"{side}: activations from {pooled.min():g} to {pooled.max():g}, expected [0, 1]")
        found = np.histogram(pooled, edges)[0].astype(np.float64)
        shares[side], count[side] = found / max(len(pooled), 1), len(pooled)
    return Histogram(edges, shares, count)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over utterances of rows of `statistics`: a row a half, countermeasure, route, method and threshold.

    table: rows with `METHOD`, `half`, `utterance` (the cluster) and `threshold`. Each of `EFFECTS` has `<name>_low` and
    `<name>_high`, the ends of its 95 % interval; NaN with one utterance. Utterances without a value (no frame of a kind, no
    segment found) are left out of that mean; `utterances` counts all, `flat` those whose curve is 0 everywhere.
    """
    batch, asked = Batch(), []
    lines: list[dict[Any, Any]] = []
    for key, part in table.groupby(["half", *METHOD, "threshold"], sort=True):
        line = dict(zip(["half", *METHOD, "threshold"], key, strict=True))
        line |= {"utterances": len(part), "flat": int(part["flat"].sum())}
        line |= {name: float(part[name].mean()) for name in MEANS}
        for name in EFFECTS:
            there = part.dropna(subset=[name])
            if there.empty:
                line |= dict.fromkeys((name, f"{name}_low", f"{name}_high"), math.nan)
                continue
            _, owner = np.unique(there["utterance"].to_numpy(dtype=str), return_inverse=True)
            asked.append((len(lines), name, batch.mean(there[name].to_numpy(dtype=np.float64), owner, bounds=(-1.0, 1.0))))
        lines.append(line)
    intervals = batch.intervals()
    for at, name, place in asked:
        lines[at] |= dict(zip((name, f"{name}_low", f"{name}_high"), intervals[place], strict=True))
    ends = [f"{name}{end}" for name in EFFECTS for end in ("", "_low", "_high")]
    return pd.DataFrame(lines, columns=["half", *METHOD, "threshold", "utterances", "flat", *MEANS, *ends])
