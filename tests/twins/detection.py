"""The equal error rate of the ASVspoof 2019 evaluation package, one score at a time."""

from __future__ import annotations


def det_curve(bonafide: list[float], spoof: list[float]) -> list[tuple[float, float]]:
    """(miss rate, false-alarm rate) when the lowest 0, 1, 2, ... scores are rejected; bona fide first among equals."""
    trials = sorted([(s, 0) for s in bonafide] + [(s, 1) for s in spoof])
    points = [(0.0, 1.0)]
    for rejected in range(1, len(trials) + 1):
        misses = sum(1 for _, label in trials[:rejected] if label == 0)
        accepted_spoofs = sum(1 for _, label in trials[rejected:] if label == 1)
        points.append((misses / len(bonafide), accepted_spoofs / len(spoof)))
    return points


def equal_error_rate(bonafide: list[float], spoof: list[float]) -> float:
    """The mean of both rates at the first point where they differ least."""
    best = None
    for miss, false_alarm in det_curve(bonafide, spoof):
        if best is None or abs(miss - false_alarm) < abs(best[0] - best[1]):
            best = (miss, false_alarm)
    return (best[0] + best[1]) / 2
