"""Every localisation metric of Quantus 0.6 against ours, on the same eight maps of 257 x 201 cells without ties.

    make bench

Both get the maps as they are, unsorted, and one thread count; `ratio` is Quantus' shortest time over ours, `gap` the largest
difference of the scores. AttributionLocalisation (positive attributions) and Focus (its mosaic as a region) are both mass
accuracy, on other regions. Quantus' constants in denominators make its gap. How they agree, and where Quantus leaves its
papers, is in tests/metrics/test_quantus_localisation.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xaibench.metrics import localisation as ours
from xaibench.metrics.catalog import METRICS as METRICS_OF_OURS
from xaibench.metrics.evidence import Evidence
from xaibench.types import Attribution

quantus = pytest.importorskip("quantus", minversion="0.6")

TARGET = "at least 15"
QUIET = {"disable_warnings": True, "display_progressbar": False}
MOSAIC = (1, 0, 0, 1)  # the quarters of the target class: top left, top right, bottom left, bottom right

#: Quantus' name -> its options, and our function.
METRICS = {
    "RelevanceRankAccuracy": ({}, ours.relevance_rank_accuracy),
    "RelevanceMassAccuracy": ({}, ours.relevance_mass_accuracy),
    "AUC": ({}, ours.roc_auc),
    "TopKIntersection": ({}, ours.top_k_intersection),
    "PointingGame": ({}, ours.pointing_game),
    "AttributionLocalisation": ({"positive_attributions": True, "abs": False}, ours.relevance_mass_accuracy),
    "Focus": ({}, ours.relevance_mass_accuracy),
}


def quarters(like: torch.Tensor) -> torch.Tensor:
    """The mosaic's target quarters. Shape: `(B, F, T)` bool."""
    f, t = like.shape[1] // 2, like.shape[2] // 2
    region = torch.zeros(like.shape, dtype=torch.bool)
    for number, (rows, columns) in enumerate((r, c) for r in (slice(f), slice(f, None)) for c in (slice(t), slice(t, None))):
        region[:, rows, columns] = bool(MOSAIC[number])
    return region


def localise(metric, prepared, maps, region):
    """Quantus' scores of maps, as its users call it."""
    view = prepared.view
    own = {"custom_batch": [MOSAIC] * len(maps)} if metric.name == "Focus" else {"s_batch": region[:, None].numpy()}
    return metric(
        model=view.model, x_batch=view.inputs.cpu().numpy(), y_batch=np.zeros(len(maps), int), a_batch=maps[:, None].copy(),
        device=str(view.device), **own,
    )  # fmt: skip


@pytest.mark.parametrize("who", ["quantus", "xaibench"])
@pytest.mark.parametrize("name", METRICS)
def test_metric(benchmark, prepared, maps, least, name, who):
    benchmark.group = f"{name}, {len(maps)} maps"
    options, score = METRICS[name]
    values = torch.from_numpy(maps)
    region = quarters(values) if name == "Focus" else prepared.truth.region.cpu()
    metric = getattr(quantus, name)(**options, **QUIET)
    if who == "quantus":
        benchmark.pedantic(localise, (metric, prepared, maps, region), rounds=15, warmup_rounds=1)
        least[name] = benchmark.stats.stats.min
        return
    found = benchmark.pedantic(score, (values, region), rounds=15, warmup_rounds=1)
    gap = np.abs(np.asarray(localise(metric, prepared, maps, region), dtype=float) - found.numpy()).max()
    benchmark.extra_info.update(
        target=TARGET, ratio=round(least[name] / benchmark.stats.stats.min, 1), gap=float(f"{gap:.1e}")
    )


FAMILY = [metric for metric in METRICS_OF_OURS.values() if metric.family == "localisation"]
TOGETHER = f"all {len(FAMILY)} localisation metrics of a batch, and one forward pass of it"


@pytest.mark.benchmark(group=TOGETHER)
def test_the_family(benchmark, prepared):
    """All localisation metrics of one map set, as a cell asks them: the sort is made once, the truth's was made before."""
    truth, generator = prepared.truth, torch.Generator().manual_seed(0)

    def fresh():
        values = torch.randn(truth.values.shape, generator=generator).to(truth.values.device)
        return (Evidence(Attribution(values, *prepared.view.axes, "drawn"), values, truth, prepared.probe),), {}

    benchmark.pedantic(lambda evidence: [metric.function(evidence) for metric in FAMILY], setup=fresh, rounds=20)
    benchmark.extra_info["ms an utterance"] = round(benchmark.stats.stats.min * 1e3 / len(prepared.view), 2)


@pytest.mark.benchmark(group=TOGETHER)
def test_one_forward_pass(benchmark, prepared):
    view = prepared.view
    benchmark.pedantic(view.score, (view.inputs,), rounds=5, warmup_rounds=1)
    benchmark.extra_info["ms an utterance"] = round(benchmark.stats.stats.min * 1e3 / len(view), 2)
