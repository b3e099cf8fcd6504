"""The tandem detection cost function (t-DCF): what a countermeasure costs in front of a speaker verification system.

Speech passes the countermeasure (CM), then automatic speaker verification (ASV), which is fixed at its equal-error point
and known here by four error rates. There are two versions, which are not comparable and never share a name:

2019 legacy (Kinnunen et al., Odyssey 2018, doi 10.21437/Odyssey.2018-44; ASVspoof 2019 evaluation plan; in the evaluation
package `compute_tDCF_legacy`):

    C1 = P_tar (C_miss_cm - C_miss_asv P_miss_asv) - P_non C_fa_asv P_fa_asv
    C2 = C_fa_cm P_spoof (1 - P_miss_spoof_asv)
    t-DCF(t) = (C1 P_miss_cm(t) + C2 P_fa_cm(t)) / min(C1, C2)

2021 revision (Kinnunen et al., IEEE/ACM TASLP 28, 2020, doi 10.1109/TASLP.2020.3009494, Eqs. 10-11; `compute_tDCF`):

    C0 = P_tar C_miss P_miss_asv + P_non C_fa P_fa_asv
    C1 = P_tar C_miss - C0
    C2 = P_spoof C_fa_spoof P_fa_spoof_asv
    t-DCF(t) = (C0 + C1 P_miss_cm(t) + C2 P_fa_cm(t)) / (C0 + min(C1, C2))

Both are normalised by the cheaper of accepting everything and rejecting everything, so 1 is a CM that is of no use. The
minimum over t is what the challenges report; the actual t-DCF at a given t also pays for a badly placed threshold. A
perfect CM costs 0 in the first, C0 / (C0 + min(C1, C2)) in the second: the ASV system's own errors remain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from xaibench.errors import Undefined, XaibenchError
from xaibench.metrics.detection import _checked, detection_error_tradeoff, equal_error_point

# The cost model of both challenges (ASVspoof 2019 evaluation plan; 2021 evaluation package, config.py).
P_SPOOF = 0.05
P_TARGET = (1 - P_SPOOF) * 0.99
P_NONTARGET = (1 - P_SPOOF) * 0.01
C_MISS = 1.0  # rejecting the target speaker: C_miss, C_miss_asv, C_miss_cm
C_FALSE_ALARM = 10.0  # accepting another speaker: C_fa, C_fa_asv
C_FALSE_ALARM_SPOOF = 10.0  # accepting a spoof: C_fa_spoof, C_fa_cm


@dataclass(frozen=True)
class AsvErrorRates:
    """The error rates of an ASV system at one threshold, shares in [0, 1].

    miss: targets rejected. false_alarm: nontargets accepted. spoof_miss, spoof_false_alarm: spoofs rejected, accepted.
    Raises XaibenchError for a rate outside [0, 1], or two rates of the spoofs that do not sum to 1.
    """

    miss: float
    false_alarm: float
    spoof_miss: float
    spoof_false_alarm: float
    threshold: float = math.nan  # NaN where the rates were given, not measured

    def __post_init__(self) -> None:
        for name in ("miss", "false_alarm", "spoof_miss", "spoof_false_alarm"):
            if not 0 <= getattr(self, name) <= 1:
                raise XaibenchError(f"{name} = {getattr(self, name)!r}, expected a share in [0, 1]; is it a percentage?")
        if abs(self.spoof_miss + self.spoof_false_alarm - 1) > 1e-9:
            raise XaibenchError(
                f"spoof_miss = {self.spoof_miss!r} and spoof_false_alarm = {self.spoof_false_alarm!r}, expected a sum of 1: "
                f"a spoof is either rejected or accepted"
            )


def asv_error_rates(target: object, nontarget: object, spoof: object, *, threshold: float | None = None) -> AsvErrorRates:
    """The rates of an ASV system from its scores (higher = more the claimed speaker); a score at the threshold is accepted.

    threshold: the default is the equal-error point of targets against nontargets. Source: `obtain_asv_error_rates` of both
    evaluation packages. Raises XaibenchError for scores of a kind that are missing or not finite.

    >>> rates = asv_error_rates([1.0, 3.0, 4.0], [0.0, 0.5, 2.0], [2.5, -1.0])
    >>> rates.threshold, rates.miss, rates.false_alarm, rates.spoof_miss
    (1.0, 0.0, 0.3333333333333333, 0.5)
    """
    target, nontarget = _checked(target, "ASV target"), _checked(nontarget, "ASV nontarget")
    spoof = _checked(spoof, "ASV spoof")
    at = equal_error_point(target, nontarget)[1] if threshold is None else float(threshold)
    if not math.isfinite(at):
        raise XaibenchError(f"ASV threshold {at!r}, expected a finite number")
    rejected = np.count_nonzero(spoof < at)
    return AsvErrorRates(
        miss=float(np.count_nonzero(target < at) / target.size),
        false_alarm=float(np.count_nonzero(nontarget >= at) / nontarget.size),
        spoof_miss=float(rejected / spoof.size),
        spoof_false_alarm=float((spoof.size - rejected) / spoof.size),
        threshold=at,
    )


def weights_2019_legacy(asv: AsvErrorRates) -> tuple[float, float]:
    """C1 and C2 of the 2019 legacy t-DCF. Raises XaibenchError for a negative C1."""
    c1 = P_TARGET * (C_MISS - C_MISS * asv.miss) - P_NONTARGET * C_FALSE_ALARM * asv.false_alarm
    c2 = C_FALSE_ALARM_SPOOF * P_SPOOF * (1 - asv.spoof_miss)
    _check_c1(c1, asv)
    return c1, c2


def weights_2021(asv: AsvErrorRates) -> tuple[float, float, float]:
    """C0, C1 and C2 of the 2021 t-DCF. Raises XaibenchError for a negative C1."""
    c0 = P_TARGET * C_MISS * asv.miss + P_NONTARGET * C_FALSE_ALARM * asv.false_alarm
    c1 = P_TARGET * C_MISS - c0
    c2 = P_SPOOF * C_FALSE_ALARM_SPOOF * asv.spoof_false_alarm
    _check_c1(c1, asv)
    return c0, c1, c2


def _check_c1(c1: float, asv: AsvErrorRates) -> None:
    if c1 < 0:  # C0 and C2 are sums and products of shares and costs
        raise XaibenchError(
            f"C1 = {c1:.6g}, expected at least 0: with miss rate {asv.miss:.4g} and false-alarm rate "
            f"{asv.false_alarm:.4g} the ASV system costs more than rejecting everyone; are its scores inverted?"
        )


def tdcf_2019_legacy(bonafide: object, spoof: object, asv: AsvErrorRates) -> tuple[np.ndarray, np.ndarray]:
    """The 2019 legacy t-DCF, normalised, at every operating point, and the thresholds; both `(n + 1,)`, as the DET curve.

    Raises XaibenchError for CM scores that are missing, not finite, or decisions (fewer than three different values), for
    a negative weight; Undefined where min(C1, C2) is 0.
    """
    miss, false_alarm, thresholds = _operating_points(bonafide, spoof)
    c1, c2 = weights_2019_legacy(asv)
    return (c1 * miss + c2 * false_alarm) / _default(min(c1, c2), "min(C1, C2)"), thresholds


def tdcf_2021(bonafide: object, spoof: object, asv: AsvErrorRates) -> tuple[np.ndarray, np.ndarray]:
    """The 2021 t-DCF, normalised, at every operating point, and the thresholds. Raises as `tdcf_2019_legacy`."""
    miss, false_alarm, thresholds = _operating_points(bonafide, spoof)
    c0, c1, c2 = weights_2021(asv)
    return (c0 + c1 * miss + c2 * false_alarm) / _default(c0 + min(c1, c2), "C0 + min(C1, C2)"), thresholds


def min_tdcf_2019_legacy(bonafide: object, spoof: object, asv: AsvErrorRates) -> float:
    """The least 2019 legacy t-DCF over all thresholds, in [0, 1]. Raises as `tdcf_2019_legacy`.

    >>> perfect_asv = AsvErrorRates(0.0, 0.0, 0.5, 0.5)
    >>> min_tdcf_2019_legacy([1.0, 2.0], [-1.0, -2.0], perfect_asv)
    0.0
    """
    return float(tdcf_2019_legacy(bonafide, spoof, asv)[0].min())


def min_tdcf_2021(bonafide: object, spoof: object, asv: AsvErrorRates) -> float:
    """The least 2021 t-DCF over all thresholds, in [0, 1]. Raises as `tdcf_2021`."""
    return float(tdcf_2021(bonafide, spoof, asv)[0].min())


def actual_tdcf_2019_legacy(bonafide: object, spoof: object, asv: AsvErrorRates, *, threshold: float = 0.0) -> float:
    """The normalised 2019 legacy t-DCF of the decisions at one threshold (bona fide above it). Never below the minimum."""
    miss, false_alarm = _rates_at(bonafide, spoof, threshold)
    c1, c2 = weights_2019_legacy(asv)
    return (c1 * miss + c2 * false_alarm) / _default(min(c1, c2), "min(C1, C2)")


def actual_tdcf_2021(bonafide: object, spoof: object, asv: AsvErrorRates, *, threshold: float = 0.0) -> float:
    """The normalised 2021 t-DCF of the decisions at one threshold (bona fide above it). Never below the minimum."""
    miss, false_alarm = _rates_at(bonafide, spoof, threshold)
    c0, c1, c2 = weights_2021(asv)
    return (c0 + c1 * miss + c2 * false_alarm) / _default(c0 + min(c1, c2), "C0 + min(C1, C2)")


def _operating_points(bonafide: object, spoof: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    target, other = _checked(bonafide, "bona fide"), _checked(spoof, "spoof")
    distinct = np.unique(np.concatenate([target, other])).size
    if distinct < 3:
        raise XaibenchError(
            f"the scores take {distinct} different values, expected at least 3: the t-DCF needs soft scores, not decisions"
        )
    return detection_error_tradeoff(target, other)


def _rates_at(bonafide: object, spoof: object, threshold: float) -> tuple[float, float]:
    target, other = _checked(bonafide, "bona fide"), _checked(spoof, "spoof")
    if not math.isfinite(threshold):
        raise XaibenchError(f"threshold {threshold!r}, expected a finite number")
    return float(np.mean(target <= threshold)), float(np.mean(other > threshold))


def _default(cost: float, name: str) -> float:
    if cost <= 0:
        raise Undefined(
            f"{name} = 0: the ASV system rejects every spoof or everyone, so no countermeasure can matter to it and the "
            f"normalised t-DCF has no value"
        )
    return cost
