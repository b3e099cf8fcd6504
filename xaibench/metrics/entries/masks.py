"""Entries of faithfulness that fill regions, random subsets of regions, or what an attribution's soft mask leaves over."""

from __future__ import annotations

from xaibench.metrics.entries.fills import FILL_MISLEADS, both, used
from xaibench.metrics.entries.sources import POSITIVE, SIGNED_UNIT, UNIT
from xaibench.protocols import Metric

SAMEK = "Samek et al., IEEE TNNLS 28 (2017), arXiv 1509.06321"
BHATT = "Bhatt et al., IJCAI 2020, arXiv 2005.00631"
YEH = "Yeh et al., NeurIPS 2019, arXiv 1901.09392"
GRAD_CAM_PP = "Chattopadhay et al., WACV 2018, arXiv 1710.11063; as L-MAC (Paissan et al., ICML 2024)"
OPTI_CAM = "Zhang et al., CVIU 248 (2024), arXiv 2301.07002; as L-MAC (Paissan et al., ICML 2024)"
L_MAC = "Paissan et al., ICML 2024; SpeechBrain recipes/ESC50/interpret"

PER_CENT = (0.0, 100.0)

_DECIDED = "For the class decided for: where that is bona fide, evidence of spoof counts against a map."


def regions_and_subsets(fill: str) -> list[Metric]:
    """Region perturbation, faithfulness correlation and infidelity with one fill."""
    return [
        *both(
            "region-perturbation", "faithfulness.region_perturbation", fill, "higher", (-10 / 11, 10 / 11), SAMEK,
            "1/11 * sum of {f}(x) - {f}(x without its top k % of regions), k = 0 .. 10; regions of 9 x 9 cells, by sum",
            "Looks at a tenth of the cells in squares: a map of thin lines (harmonics, onsets) is judged by the squares "
            "around them, and negative cells cancel positive ones beside them.",
        ),
        *both(
            "faithfulness-correlation", "subsets.faithfulness_correlation", fill, "higher", SIGNED_UNIT, BHATT,
            "Pearson(sum of A over S, {f}(x) - {f}(x without S)), 50 random S of 5 % of the regions of 9 x 9 cells",
            "50 subsets: an utterance's value has a standard error near 0.14 when there is no relation. A map with its "
            "relevance in few regions has the same sum over most subsets, however right these regions are.",
            in_log_odds=SIGNED_UNIT,
        ),
        *both(
            "infidelity", "subsets.infidelity", fill, "lower", UNIT, YEH,
            "mean of (beta * sum of A over S - ({f}(x) - {f}(x without S)))^2 over the same S; beta = the best factor",
            "The best factor may be negative: a map of reversed sign scores alike. Squared, and a map without any relation "
            "scores the mean squared fall at most, so a low value may be a countermeasure that no subset moves.",
            in_log_odds=POSITIVE,
        ),
    ]  # fmt: skip


def soft_masks(fill: str) -> list[Metric]:
    """The family of L-MAC with one fill; p, o: probability on x and on the masked-in input. In per cent, but for Fid-In."""
    wide = "A constant positive map keeps the whole input and scores a perfect"
    where = f"{_DECIDED} {FILL_MISLEADS[fill]}"
    masks = "M * x + (1 - M) * fill, M = max(A, 0) / max A"
    return [
        used(
            f"average-drop-{fill}", "soft_masks.average_drop", fill, "lower", PER_CENT, GRAD_CAM_PP,
            f"100 * max(p - o, 0) / p; o: {masks}",
            f"{wide} 0; any rise is a 0, too. {where}",
        ),
        used(
            f"average-increase-{fill}", "soft_masks.average_increase", fill, "higher", PER_CENT, GRAD_CAM_PP,
            f"100 * [o > p]; o: {masks}",
            "0 or 100 for one utterance, and a rise by a millionth is a 100: very noisy where the countermeasure is "
            f"certain. {where}",
        ),
        used(
            f"average-gain-{fill}", "soft_masks.average_gain", fill, "higher", PER_CENT, OPTI_CAM,
            f"100 * max(o - p, 0) / (1 - p); o: {masks}",
            "A share of what was missing to certainty: from p = 0.9999 to 0.99999 is a gain of 90, though no decision "
            f"depends on it. {where}",
        ),
        used(
            f"fid-in-{fill}", "soft_masks.fidelity_in", fill, "higher", UNIT, L_MAC,
            f"[same decision for x and for {masks}]",
            f"{wide} 1; and where the fill alone is already decided for as x is, every map scores 1. {where}",
        ),
        *both(
            "faithfulness-on-spectra", "soft_masks.faithfulness_on_spectra", fill, "higher", (-0.5, 1.0), L_MAC,
            "{f}(x) - {f}((1 - M) * x + M * fill), M = max(A, 0) / max A; f of the class decided for",
            "A constant positive map fills everything and takes the whole fall: the wider a map, the better. " + _DECIDED,
        ),
    ]  # fmt: skip
