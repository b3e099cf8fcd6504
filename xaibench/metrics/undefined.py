"""Why a metric has no value for a map: one sentence, looked for where the metric looked.

A metric says NaN and no more, as its functions take batches. What was missing is found here afterwards, from the same maps,
truth and answers of the countermeasure (all kept: nothing is asked again). The first sentence that is true is the reason,
in the order map, truth, what the metric asks of both. Decides no number.
"""

from __future__ import annotations

from collections.abc import Iterator

from xaibench.metrics import marginals, temporal
from xaibench.metrics.catalog import METRICS
from xaibench.metrics.evidence import Evidence
from xaibench.protocols import Metric
from xaibench.truth import HALVES, half

SILENT, SILENT_IN_BAND = "the map is zero everywhere", "the map is zero on every cell of the valid band"
SAME = "the twins do not differ, so there is no truth to find"
NO_SPOOF = "no frame is spoofed, so there is no truth to find"
ALL_SPOOF = "every frame is spoofed, so there is nothing to tell apart"
NOTHING_FOR_SPOOF = "the map has no evidence for spoof on the valid band, only against it"

#: What is left when map and truth are as they should be, by the beginning of the metric's name.
REST = {
    "drop-": "the countermeasure's scores of the spoof and its bona fide twin hardly differ, or are the wrong way round",
    "average-drop-": NOTHING_FOR_SPOOF,
    "average-increase-": NOTHING_FOR_SPOOF,
    "average-gain-": NOTHING_FOR_SPOOF,
    "fid-in-": NOTHING_FOR_SPOOF,
    "faithfulness-on-spectra-": NOTHING_FOR_SPOOF,
    "mass-accuracy": NOTHING_FOR_SPOOF,
    "rcq": NOTHING_FOR_SPOOF,
    "faithfulness-correlation-": "the random subsets all have one relevance, or the score falls alike without any of them",
    "infidelity-": "no random subset has any relevance, or the score never falls without one",
    "local-lipschitz": "what the countermeasure hears did not change, or is silent",
    "smooth-mprt": "the maps of the noisy recordings are zero on the valid band, or cancel",
    "efficient-mprt": "all valid cells of the map are of one size, so its complexity is zero",
    "completeness-": "the scores of the utterance and of the fill hardly differ, so a sum has nothing to miss",
    "ndcg": "the truth has no difference to find on the valid band",
    "spearman": "the truth's values are all equal, so there is no order to find",
}
UNKNOWN = "the metric has no value for this map, and does not say why"


def why_undefined(metric: Metric, evidence: Evidence, index: int) -> str:
    """The reason for a NaN of a metric for one utterance of the evidence."""
    return next(_reasons(metric, evidence, index), UNKNOWN)


def _reasons(metric: Metric, evidence: Evidence, index: int) -> Iterator[str]:
    of_grid = metric.family in ("localisation", "complexity") or "truth" in metric.needs
    values = (evidence.attribution.values if of_grid else evidence.on_view)[index]
    valid = evidence.truth.valid if of_grid else evidence.probe.valid
    if not values.any():
        yield SILENT
    if not metric.name.startswith("completeness-") and not values[valid].any():  # a sum is over all cells
        yield SILENT_IN_BAND
    if "truth" in metric.needs:
        yield from _of_truth(metric, evidence, index)
    if metric.name in METRICS:
        yield from (why for name, why in REST.items() if metric.name.startswith(name))


def _of_truth(metric: Metric, evidence: Evidence, index: int) -> Iterator[str]:
    truth = evidence.truth
    region = truth.region[index] & truth.valid
    if not region.any():
        yield NO_SPOOF if truth.name == "segments" else SAME
    if "frequency" not in truth.resolves and bool(region.any(0).all()):
        yield ALL_SPOOF
    if metric.name not in METRICS or metric.name == "mass-accuracy":
        return
    if not {"frequency", "time"} <= metric.needs:  # of marginals
        yield from _of_marginal(metric, evidence, index)
        return
    which = next((name for name in HALVES if metric.name.endswith(f"-{name}")), "")
    if which:
        region = half(truth, which)[index] & truth.valid
        if not region.any():
            yield f"the truth's region has no cell where energy {'was added' if which == 'added' else 'is missing'}"
    if metric.name not in ("ndcg", "spearman") and bool((region == truth.valid).all()):
        yield "every valid cell lies in the truth's region, so there is nothing to tell apart"


def _of_marginal(metric: Metric, evidence: Evidence, index: int) -> Iterator[str]:
    by_time = "time" in metric.needs
    found = (temporal.frames if by_time else marginals.frequencies)(evidence.attribution.values, evidence.truth)
    one = "frame" if by_time else "frequency"
    marginal, region = found.marginal[index], found.region[index]
    if not marginal.any():
        yield f"the map cancels: its sum over every {one} is zero"
    if not region.any():
        yield f"the truth's region does not fill half a {one}"
    if metric.name.startswith("spearman") and bool((found.share[index] == found.share[index, 0]).all()):
        yield f"every {one} holds as much of the truth's region as the others, so there is no order to find"
    if bool(region.all()):
        yield ALL_SPOOF if by_time else "every frequency is in the truth's region, so there is nothing to tell apart"
