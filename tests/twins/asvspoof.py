"""Error rates and both t-DCFs of the ASVspoof evaluation packages, one trial at a time.

Written from the formulas as they stand in the 2019 package (`tDCF_python_v2`: `obtain_asv_error_rates`, `compute_eer`,
`compute_tDCF_legacy`) and the 2021 package (`eval-package/eval_metrics.py`: `compute_tDCF`), with their refusals. Lists and
loops only; slow on purpose.
"""

from __future__ import annotations

from twins.detection import det_curve

P_SPOOF = 0.05
P_TAR = (1 - P_SPOOF) * 0.99
P_NON = (1 - P_SPOOF) * 0.01


def equal_error_point(positive: list[float], negative: list[float]) -> tuple[float, float]:
    """(rate, threshold) at the first operating point where both error rates differ least."""
    scores = sorted(positive + negative)
    thresholds = [scores[0] - 0.001, *scores]
    points = det_curve(positive, negative)
    best = 0
    for i, (miss, false_alarm) in enumerate(points):
        if abs(miss - false_alarm) < abs(points[best][0] - points[best][1]):
            best = i
    return sum(points[best]) / 2, thresholds[best]


def asv_error_rates(target: list[float], nontarget: list[float], spoof: list[float]) -> tuple[float, float, float, float]:
    """P_fa, P_miss, P_miss_spoof, P_fa_spoof at the equal-error threshold; a score on it is accepted."""
    threshold = equal_error_point(target, nontarget)[1]
    p_fa = sum(1 for s in nontarget if s >= threshold) / len(nontarget)
    p_miss = sum(1 for s in target if s < threshold) / len(target)
    p_miss_spoof = sum(1 for s in spoof if s < threshold) / len(spoof)
    p_fa_spoof = sum(1 for s in spoof if s >= threshold) / len(spoof)
    return p_fa, p_miss, p_miss_spoof, p_fa_spoof


def _check_soft(bonafide: list[float], spoof: list[float]) -> None:
    if len({*bonafide, *spoof}) < 3:
        raise ValueError("soft scores, not decisions")


def min_tdcf_2019_legacy(
    bonafide: list[float], spoof: list[float], p_fa: float, p_miss: float, p_miss_spoof: float
) -> float:
    c_miss_asv, c_fa_asv, c_miss_cm, c_fa_cm = 1, 10, 1, 10
    _check_soft(bonafide, spoof)
    c1 = P_TAR * (c_miss_cm - c_miss_asv * p_miss) - P_NON * c_fa_asv * p_fa
    c2 = c_fa_cm * P_SPOOF * (1 - p_miss_spoof)
    if c1 < 0 or c2 < 0:
        raise ValueError("negative weights")
    return min((c1 * miss + c2 * false_alarm) / min(c1, c2) for miss, false_alarm in det_curve(bonafide, spoof))


def min_tdcf_2021(bonafide: list[float], spoof: list[float], p_fa: float, p_miss: float, p_fa_spoof: float) -> float:
    c_miss, c_fa, c_fa_spoof = 1, 10, 10
    _check_soft(bonafide, spoof)
    c0 = P_TAR * c_miss * p_miss + P_NON * c_fa * p_fa
    c1 = P_TAR * c_miss - (P_TAR * c_miss * p_miss + P_NON * c_fa * p_fa)
    c2 = P_SPOOF * c_fa_spoof * p_fa_spoof
    if c0 < 0 or c1 < 0 or c2 < 0:
        raise ValueError("negative weights")
    points = det_curve(bonafide, spoof)
    return min((c0 + c1 * miss + c2 * false_alarm) / (c0 + min(c1, c2)) for miss, false_alarm in points)
