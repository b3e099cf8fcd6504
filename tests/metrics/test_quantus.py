"""Agreement with Quantus 0.6.0 to 1e-6 on maps without ties (with ties Quantus goes by memory order, we by expectation)."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from toys import SHAPE, ConvCM, truth_of, view_of

from xaibench.metrics import faithfulness, localisation
from xaibench.metrics.evidence import Probe

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    quantus = pytest.importorskip("quantus", minversion="0.6")

COUNT = 3
QUIET = {"disable_warnings": True, "display_progressbar": False}


def maps():
    """No ties: a shuffled ramp, brought to an uneven scale."""
    cells = SHAPE[0] * SHAPE[1]
    orders = [torch.randperm(cells, generator=torch.Generator().manual_seed(s)) for s in range(COUNT)]
    return (torch.stack(orders).double() / cells).square().float().view(COUNT, *SHAPE) + 0.01


def quantus_score(metric, model, inputs, attributions, regions=None, **options):
    return metric(
        model=model, x_batch=inputs.numpy(), y_batch=np.zeros(COUNT, dtype=int), a_batch=attributions.unsqueeze(1).numpy(),
        s_batch=None if regions is None else regions.unsqueeze(1).numpy(), device="cpu", channel_first=True, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("RelevanceRankAccuracy", localisation.relevance_rank_accuracy),
        ("RelevanceMassAccuracy", localisation.relevance_mass_accuracy),
    ],
)
def test_localisation(theirs, ours):
    attributions, region = maps(), truth_of(COUNT).region
    metric = getattr(quantus, theirs)(abs=False, normalise=False, **QUIET)
    expected = quantus_score(metric, ConvCM().backend, torch.zeros(COUNT, 1, *SHAPE), attributions, region)
    assert len(set(expected)) == COUNT
    assert ours(attributions, region).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("steps", [6, 14])
@pytest.mark.parametrize("baseline", [0.0, -4.5])
def test_pixel_flipping(steps, baseline):
    cm, attributions = ConvCM(), maps()
    size = SHAPE[0] * SHAPE[1] // steps
    assert size * steps == SHAPE[0] * SHAPE[1]
    view = view_of(cm, COUNT)
    metric = quantus.PixelFlipping(features_in_step=size, perturb_baseline=baseline, abs=False, normalise=False, **QUIET)
    model = nn.Sequential(cm.backend).eval()
    expected = np.array(quantus_score(metric, model, view.inputs, attributions, softmax=True))  # spoof is class 0

    view = replace(view, fills={"constant": torch.full((1, 1, 1, 1), baseline)})
    probe = Probe(view, torch.ones(SHAPE, dtype=torch.bool), [i / steps for i in range(1, steps)])
    curve = probe.curve(attributions, "deletion", "constant")
    assert np.ptp(expected, axis=1).min() > 1e-3  # the curves do move
    np.testing.assert_allclose(curve.probability[:, 1:].numpy(), expected, atol=1e-6, rtol=0)
    areas = [np.trapezoid(row) for row in expected]  # quantus.helpers.utils.calculate_auc
    assert faithfulness.pixel_flipping(curve).tolist() == pytest.approx(areas, abs=1e-6 * steps)


def test_on_a_tied_map_quantus_goes_by_position_and_we_do_not():
    attributions = torch.ones(COUNT, *SHAPE)
    attributions[:, 16, 63] = 2.0  # outside both regions; Quantus refuses constant maps
    left, right = torch.zeros(2, COUNT, *SHAPE, dtype=torch.bool)
    left[:, :, :9], right[:, :, -9:] = True, True
    metric = quantus.RelevanceRankAccuracy(abs=False, normalise=False, **QUIET)
    inputs = torch.zeros(COUNT, 1, *SHAPE)
    scores = [quantus_score(metric, ConvCM().backend, inputs, attributions, region) for region in (left, right)]
    assert scores[0] != scores[1]
    size, cells = 9 * SHAPE[0], SHAPE[0] * SHAPE[1]
    for region in (left, right):
        ours = localisation.relevance_rank_accuracy(attributions, region)
        assert ours.tolist() == pytest.approx([(size - 1) / (cells - 1)] * COUNT, abs=1e-12)
