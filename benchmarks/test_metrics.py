"""Localisation and deletion against Quantus 0.6 on the same maps and steps, and against the forward pass itself.

    make bench

Within a group, pytest-benchmark prints each row's ratio to the fastest. The results are equal:
tests/metrics/test_quantus.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xaibench.metrics.evidence import Probe
from xaibench.metrics.faithfulness import pixel_flipping
from xaibench.metrics.localisation import relevance_mass_accuracy, relevance_rank_accuracy, roc_auc

quantus = pytest.importorskip("quantus")

STEPS = 67  # Quantus wants a step that divides 257 x 201 = 3 x 67 x 257


def _localise(metric, prepared, maps):
    view, region = prepared.view, prepared.truth.region.cpu().numpy()[:, None]
    return metric(
        model=view.model, x_batch=view.inputs.cpu().numpy(), y_batch=np.zeros(len(maps), int), a_batch=maps[:, None].copy(),
        s_batch=region, device=str(view.device),
    )  # fmt: skip


@pytest.mark.benchmark(group="rank accuracy, 8 maps of 257 x 201")
def test_rank_accuracy(benchmark, prepared, maps):
    benchmark(relevance_rank_accuracy, torch.from_numpy(maps), prepared.truth.region.cpu())


@pytest.mark.benchmark(group="rank accuracy, 8 maps of 257 x 201")
def test_rank_accuracy_quantus(benchmark, prepared, maps):
    metric = quantus.RelevanceRankAccuracy(disable_warnings=True, display_progressbar=False)
    benchmark(_localise, metric, prepared, maps)


@pytest.mark.benchmark(group="mass accuracy, 8 maps of 257 x 201")
def test_mass_accuracy(benchmark, prepared, maps):
    benchmark(relevance_mass_accuracy, torch.from_numpy(maps), prepared.truth.region.cpu())


@pytest.mark.benchmark(group="mass accuracy, 8 maps of 257 x 201")
def test_mass_accuracy_quantus(benchmark, prepared, maps):
    metric = quantus.RelevanceMassAccuracy(disable_warnings=True, display_progressbar=False)
    benchmark(_localise, metric, prepared, maps)


@pytest.mark.benchmark(group="ROC-AUC, 8 maps of 257 x 201")
def test_roc_auc(benchmark, prepared, maps):
    benchmark(roc_auc, torch.from_numpy(maps), prepared.truth.region.cpu())


@pytest.mark.benchmark(group="ROC-AUC, 8 maps of 257 x 201")
def test_roc_auc_quantus(benchmark, prepared, maps):
    metric = quantus.AUC(disable_warnings=True, display_progressbar=False)
    benchmark(_localise, metric, prepared, maps)


class TwoClasses(torch.nn.Module):
    """What Quantus asks for: one column a class."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s = self.model(x)
        return torch.cat([s / 2, -s / 2], dim=1)


@pytest.mark.benchmark(group=f"deletion, 8 utterances x {STEPS} steps")
def test_deletion(benchmark, prepared, maps):
    values = torch.from_numpy(maps).to(prepared.view.device)
    everywhere = torch.ones(prepared.view.shape, dtype=torch.bool)
    fractions = tuple(i / STEPS for i in range(1, STEPS))

    def score():
        return pixel_flipping(Probe(prepared.view, everywhere, fractions).curve(values, "deletion", "silence"))

    benchmark.pedantic(score, rounds=2, warmup_rounds=1)


@pytest.mark.benchmark(group=f"deletion, 8 utterances x {STEPS} steps")
def test_deletion_quantus(benchmark, prepared, maps):
    view = prepared.view
    features = view.shape[0] * view.shape[1]
    metric = quantus.PixelFlipping(
        features_in_step=features // STEPS, disable_warnings=True, display_progressbar=False, perturb_baseline="black"
    )
    model = TwoClasses(view.model).eval()

    def score():
        return metric(
            model=model, x_batch=view.inputs.cpu().numpy(), y_batch=np.zeros(len(maps), int), a_batch=maps[:, None].copy(),
            device=str(view.device),
        )  # fmt: skip

    benchmark.pedantic(score, rounds=2, warmup_rounds=1)


@pytest.mark.benchmark(group=f"deletion, 8 utterances x {STEPS} steps")
def test_its_forward_passes_alone(benchmark, prepared):
    """The floor: as many forward passes as the curve has points, nothing else."""
    view = prepared.view

    def forwards():
        for _ in range(STEPS + 1):
            view.score(view.inputs)

    benchmark.pedantic(forwards, rounds=2, warmup_rounds=1)
