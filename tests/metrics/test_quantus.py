"""Agreement with Quantus 0.6.0 to 1e-6 on maps without ties (with ties Quantus goes by memory order, we by expectation),
and of infidelity with captum.
"""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from asking import ALL, VALID, evidence
from torch import nn
from toys import SHAPE, ConvCM, truth_of, view_of

from xaibench.metrics import faithfulness, localisation, subsets
from xaibench.metrics.evidence import Probe
from xaibench.metrics.regions import SUBSETS

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


@pytest.mark.parametrize("readout", ["log-odds", "probability"])
def test_region_perturbation(readout):
    """On regions of 3x3 cells, which divide both axes; Quantus returns the falls, one region a step."""
    cm, attributions, baseline = ConvCM(), maps(), -4.5
    view = view_of(cm, COUNT)
    metric = quantus.RegionPerturbation(
        patch_size=3, regions_evaluation=46, perturb_baseline=baseline, abs=False, normalise=False, **QUIET
    )
    model, softmax = (view.model, False) if readout == "log-odds" else (nn.Sequential(cm.backend).eval(), True)
    falls = np.array(quantus_score(metric, model, view.inputs, attributions, softmax=softmax))
    assert falls.shape == (COUNT, 46) and np.ptp(falls, axis=1).min() > 1e-3
    counts = [round(k / 100 * 11 * 42) for k in range(1, 11)]
    expected = np.concatenate([np.zeros((COUNT, 1)), falls[:, [n - 1 for n in counts]]], axis=1).mean(1)

    view = replace(view, fills={"constant": torch.full((1, 1, 1, 1), baseline)})
    given = evidence(view, attributions, valid=ALL, side=3)
    assert faithfulness.region_perturbation(given, fill="constant", values=readout).tolist() == pytest.approx(
        expected.tolist(), abs=1e-6
    )


def test_where_the_side_does_not_divide_the_axes_quantus_centres_its_regions():
    """33 x 126 cells in regions of 9: Quantus pads one bin below and two above, ours begin at the first bin."""
    view, attributions = view_of(ConvCM(), COUNT), maps()
    attributions[:, 0, :9] = 20.0  # nine cells in one row: the largest sum by far, and the first region of both
    metric = quantus.RegionPerturbation(
        patch_size=9, regions_evaluation=1, perturb_baseline=-4.5, abs=False, normalise=False, **QUIET
    )
    theirs = np.array(quantus_score(metric, view.model, view.inputs, attributions, softmax=False))[:, 0]
    view = replace(view, fills={"constant": torch.full((1, 1, 1, 1), -4.5)})
    without = {}
    for rows in (8, 9):
        keep = torch.ones(COUNT, 1, *SHAPE)
        keep[..., :rows, :9] = 0
        without[rows] = (view.score(view.inputs) - view.score(view.filled(keep, "constant"))).tolist()
    ours = evidence(view, attributions, valid=ALL).region_curve("constant", (0.0, 0.01)).log_odds
    assert np.abs(np.subtract(without[8], without[9])).min() > 1e-3
    assert theirs.tolist() == pytest.approx(without[8], abs=1e-5)
    assert (ours[:, 0] - ours[:, 1]).tolist() == pytest.approx(without[9], abs=1e-5)


@pytest.mark.parametrize("readout", ["log-odds", "probability"])
@pytest.mark.parametrize("valid", [ALL, VALID], ids=["all", "band"])
def test_faithfulness_correlation(readout, valid, monkeypatch):
    """Quantus draws single cells; here it is handed the cells of our subsets instead, one utterance at a time."""
    cm, attributions, baseline = ConvCM(), maps(), -4.5
    view = replace(view_of(cm, COUNT), fills={"constant": torch.full((1, 1, 1, 1), baseline)})
    given = evidence(view, attributions, valid=valid)
    ours = subsets.faithfulness_correlation(given, fill="constant", values=readout)
    model, softmax = (view.model, False) if readout == "log-odds" else (nn.Sequential(cm.backend).eval(), True)
    for i, single in enumerate(view.each()):
        cells = given.probe.regions.mask(given.probe.subsets[i : i + 1])[0].flatten(1)
        drawn = iter([chosen.nonzero()[:, 0].numpy() for chosen in cells])
        monkeypatch.setattr(np.random, "choice", lambda *_, drawn=drawn, **__: next(drawn))
        metric = quantus.FaithfulnessCorrelation(
            nr_runs=SUBSETS, subset_size=5, perturb_baseline=baseline, abs=False, normalise=False, **QUIET
        )
        (expected,) = metric(
            model=model, x_batch=single.inputs.numpy(), y_batch=np.zeros(1, dtype=int), softmax=softmax, device="cpu",
            a_batch=attributions[i : i + 1].unsqueeze(1).numpy(), channel_first=True,
        )  # fmt: skip
        assert next(drawn, None) is None and abs(expected) < 0.999
        assert ours[i].item() == pytest.approx(expected, abs=1e-6)


def test_quantus_monotonicity_is_true_for_every_map():
    """It fills with the baseline what it has filled already, so its score never moves; ours adds the input's cells."""
    view = view_of(ConvCM(), COUNT)
    metric = quantus.Monotonicity(features_in_step=297, perturb_baseline=-4.5, abs=False, normalise=False, **QUIET)
    for attributions in (maps(), 1.0 - maps()):
        theirs = quantus_score(metric, view.model, view.inputs, attributions, softmax=False)
        assert [bool(x) for x in theirs] == [True] * COUNT
    given = evidence(replace(view, fills={"constant": torch.full((1, 1, 1, 1), -4.5)}), maps(), valid=ALL)
    assert (faithfulness.monotonicity(given, fill="constant") < 1).all()


def test_infidelity_is_captums():
    captum = pytest.importorskip("captum.metrics")
    view, attributions = view_of(ConvCM(), COUNT), maps() - 0.3
    given = evidence(view, attributions)
    cells = given.probe.regions.mask(given.probe.subsets).flatten(0, 1).unsqueeze(1)  # (B * SUBSETS, 1, F, T)

    def without(inputs, baselines):
        assert len(inputs) == len(cells)  # captum repeats every utterance in place
        return cells.to(inputs.dtype), torch.where(cells, baselines, inputs)

    expected = captum.infidelity(
        view.model, without, view.inputs, attributions.unsqueeze(1), baselines=view.fill("mean"),
        n_perturb_samples=SUBSETS, normalize=True,
    )  # fmt: skip
    assert expected.min() > 1e-4
    torch.testing.assert_close(subsets.infidelity(given, fill="mean"), expected.double(), rtol=1e-3, atol=1e-6)
