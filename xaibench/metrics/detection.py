"""Scores of a countermeasure itself: error rates over all thresholds, and decisions at one.

Higher score = more bona fide (the ASVspoof convention). A decision at threshold t calls an utterance bona fide if and only
if its score is above t, else spoof; a score of exactly t is rejected, as in the DET curve, whose operating points reject a
score and everything below it. The positive class of precision, recall and F1 is spoof, what a countermeasure is to find;
the same three for bona fide carry that class in their name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from xaibench.errors import XaibenchError
from xaibench.numbers import real_numbers


def _checked(scores: object, what: str) -> np.ndarray:
    array = real_numbers(scores, f"{what} scores").ravel()
    if array.size == 0:
        raise XaibenchError(f"no {what} scores: an error rate needs at least one of each class")
    if not np.isfinite(array).all():
        raise XaibenchError(f"{np.count_nonzero(~np.isfinite(array))} {what} scores are NaN or infinite")
    return array


def detection_error_tradeoff(bonafide_scores: object, spoof_scores: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Miss rate, false-alarm rate and threshold at every operating point, by rising threshold.

    As in the ASVspoof 2019 evaluation package (`compute_det_curve`): a stable sort of all scores, bona fide first among
    ties. Returns three arrays `(n + 1,)`; rates are shares in [0, 1].
    """
    target, other = _checked(bonafide_scores, "bona fide"), _checked(spoof_scores, "spoof")
    scores = np.concatenate([target, other])
    labels = np.concatenate([np.ones(target.size), np.zeros(other.size)])
    order = np.argsort(scores, kind="stable")
    misses = np.cumsum(labels[order])
    rejected = np.arange(1, scores.size + 1) - misses
    miss = np.concatenate([[0.0], misses / target.size])
    false_alarm = np.concatenate([[1.0], (other.size - rejected) / other.size])
    thresholds = np.concatenate([[scores[order[0]] - 0.001], scores[order]])
    return miss, false_alarm, thresholds


def equal_error_point(bonafide_scores: object, spoof_scores: object) -> tuple[float, float]:
    """Equal error rate and its threshold, by the lowest threshold where miss and false-alarm rate differ least.

    Source: ASVspoof 2019 evaluation package, `compute_eer`. Raises as `equal_error_rate`. The threshold is chosen on the
    very scores it is judged on, so decisions at it are better than a system without keys could make.

    >>> equal_error_point([2.0, 3.0, 4.0], [0.0, 1.0, 2.5])
    (0.3333333333333333, 2.0)
    """
    miss, false_alarm, thresholds = detection_error_tradeoff(bonafide_scores, spoof_scores)
    at = int(np.argmin(np.abs(miss - false_alarm)))
    return float((miss[at] + false_alarm[at]) / 2), float(thresholds[at])


def equal_error_rate(bonafide_scores: object, spoof_scores: object) -> float:
    """Equal error rate, a share in [0, 1]: the mean of miss and false-alarm rate where they differ least.

    Source: ASVspoof 2019 evaluation package, `compute_eer`. Raises XaibenchError without scores of both classes, or for
    scores that are not finite.

    >>> equal_error_rate([2.0, 3.0, 4.0], [0.0, 1.0, 2.5])
    0.3333333333333333
    """
    return equal_error_point(bonafide_scores, spoof_scores)[0]


@dataclass(frozen=True)
class Decisions:
    """What a threshold decides, as shares in [0, 1]; NaN where a share has no denominator (nothing was called spoof).

    accuracy counts utterances, so in a set of mostly spoofs it is mostly the recall of spoofs; balanced_accuracy is the
    mean of the two recalls. precision, recall and f1 are those of spoof.
    """

    threshold: float
    accuracy: float
    balanced_accuracy: float
    precision: float
    recall: float
    f1: float
    bonafide_precision: float
    bonafide_recall: float
    bonafide_f1: float


def decisions(bonafide_scores: object, spoof_scores: object, *, threshold: float = 0.0) -> Decisions:
    """Accuracy, precision TP / (TP + FP), recall TP / (TP + FN) and F1 2 TP / (2 TP + FP + FN) at one threshold.

    The default, 0, is where a log-odds changes sides. Raises XaibenchError without scores of both classes, for scores or a
    threshold that are not finite.

    >>> made = decisions([1.0, -1.0], [-2.0, -3.0, 4.0, 0.0])
    >>> made.precision, made.recall, made.bonafide_precision, made.bonafide_recall
    (0.75, 0.75, 0.5, 0.5)
    """
    target, other = _checked(bonafide_scores, "bona fide"), _checked(spoof_scores, "spoof")
    if not math.isfinite(threshold):
        raise XaibenchError(f"threshold {threshold!r}, expected a finite number")
    accepted = int(np.count_nonzero(target > threshold))
    rejected = int(np.count_nonzero(other <= threshold))
    missed, passed = target.size - accepted, other.size - rejected
    recall, bonafide_recall = rejected / other.size, accepted / target.size
    return Decisions(
        threshold=float(threshold),
        accuracy=(accepted + rejected) / (target.size + other.size),
        balanced_accuracy=(recall + bonafide_recall) / 2,
        precision=rejected / (rejected + missed) if rejected + missed else math.nan,
        recall=recall,
        f1=2 * rejected / (2 * rejected + missed + passed),
        bonafide_precision=accepted / (accepted + passed) if accepted + passed else math.nan,
        bonafide_recall=bonafide_recall,
        bonafide_f1=2 * accepted / (2 * accepted + missed + passed),
    )
