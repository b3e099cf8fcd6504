"""Scores of a countermeasure itself. Higher score = more bona fide (the ASVspoof convention)."""

from __future__ import annotations

import numpy as np

from xaibench.errors import XaibenchError


def _checked(scores: object, what: str) -> np.ndarray:
    array = np.asarray(scores, dtype=np.float64).ravel()
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


def equal_error_rate(bonafide_scores: object, spoof_scores: object) -> float:
    """Equal error rate, a share in [0, 1]: the mean of miss and false-alarm rate where they differ least.

    Source: ASVspoof 2019 evaluation package, `compute_eer`. Raises XaibenchError without scores of both classes, or for
    scores that are not finite.

    >>> equal_error_rate([2.0, 3.0, 4.0], [0.0, 1.0, 2.5])
    0.3333333333333333
    """
    miss, false_alarm, _ = detection_error_tradeoff(bonafide_scores, spoof_scores)
    at = int(np.argmin(np.abs(miss - false_alarm)))
    return float((miss[at] + false_alarm[at]) / 2)
