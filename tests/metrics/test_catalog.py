"""The table of metrics: complete, importable without torch, and every entry means what it declares."""

import math
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn
from toys import GRID, N_SAMPLES, SHAPE, LinearCM, truth_of, view_of

from xaibench.metrics.catalog import FRACTIONS, FULL, METRICS, QUICK
from xaibench.metrics.evidence import Evidence, Probe
from xaibench.metrics.temporal import temporal_region
from xaibench.types import Attribution

COUNT = 4
FAITHFULNESS = [name for name in METRICS if METRICS[name].family == "faithfulness"]
LOCALISATION = [name for name in METRICS if METRICS[name].family == "localisation"]
TEMPORAL = [name for name in LOCALISATION if "frequency" not in METRICS[name].needs]


@pytest.fixture(scope="module")
def linear():
    return LinearCM()


@pytest.fixture(scope="module")
def view(linear):
    return view_of(linear, COUNT)


@pytest.fixture(scope="module")
def truth():
    return truth_of(COUNT)


def evidence(view, truth, values, preset="quick"):
    attribution = Attribution(values, GRID.frequency, GRID.time(N_SAMPLES))
    return Evidence(attribution, values, truth, Probe(view, truth.valid, FRACTIONS[preset]))


def noise(seed=0):
    return torch.rand(COUNT, *SHAPE, generator=torch.Generator().manual_seed(seed))


def test_the_table_needs_no_torch():
    code = "import sys, xaibench.metrics.catalog as c; assert len(c.METRICS) > 20; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_names():
    fills = ("silence", "mean", "twin")
    curves = {f"{d}-{f}{p}" for d in ("deletion", "insertion") for f in fills for p in ("", "-probability")}
    assert set(FAITHFULNESS) == curves | {f"drop-{f}" for f in fills} | {"pixel-flipping"}
    cells = ["rank-accuracy", "iou", "mass-accuracy", "roc-auc", "average-precision", "pointing-game"]
    assert [*cells, *TEMPORAL] == LOCALISATION
    assert TEMPORAL == ["rank-accuracy-time", "roc-auc-time", "average-precision-time", "spearman-time", "frame-eer"]


@pytest.mark.parametrize("name", METRICS)
def test_every_entry_is_complete_and_travels_to_another_process(name):
    metric = METRICS[name]
    assert metric.name == name and metric.paper and metric.equation and len(metric.misleads) > 40
    assert metric.needs <= {"truth", "forward", "frequency", "time"}
    assert ("forward" in metric.needs) == (metric.family == "faithfulness") != ("truth" in metric.needs)
    assert metric.range[0] < metric.range[1]
    again = pickle.loads(pickle.dumps(metric))
    assert (again.function.func, again.function.args, again.function.keywords) == (
        metric.function.func, metric.function.args, metric.function.keywords,
    )  # fmt: skip


def test_presets():
    assert set(QUICK) < set(FULL) and tuple(METRICS) == FULL and len(set(QUICK)) == len(QUICK)
    assert len(FRACTIONS["quick"]) == 6 and len(FRACTIONS["full"]) == 16
    for fractions in FRACTIONS.values():
        assert 0.05 in fractions and list(fractions) == sorted(set(fractions)) and 0 < fractions[0] < fractions[-1] < 1


@pytest.mark.parametrize("name", METRICS)
def test_scores_are_finite_of_one_number_an_utterance_and_within_the_declared_range(view, truth, name):
    for seed in range(2):
        scores = METRICS[name].function(evidence(view, truth, noise(seed) - 0.5))
        assert scores.shape == (COUNT,) and scores.dtype == torch.float64 and scores.isfinite().all()
        low, high = METRICS[name].range
        assert (scores >= low).all() and (scores <= high).all()


@pytest.mark.parametrize("name", METRICS)
def test_a_map_of_zeros_is_undefined_for_every_metric(view, truth, name):
    values = noise()
    values[2] = 0
    undefined = METRICS[name].function(evidence(view, truth, values)).isnan()
    assert undefined.tolist() == [False, False, True, False]


@pytest.mark.parametrize("name", LOCALISATION)
def test_the_truth_itself_wins_at_localisation_and_chance_is_chance(view, truth, name):
    metric = METRICS[name]
    # Frames are ranked by their share of the region, not by the sum of D: there the temporal region is the best map.
    best = temporal_region(truth)[:, None].expand_as(truth.values).float() if name in TEMPORAL else truth.values
    oracle = metric.function(evidence(view, truth, best))
    if name not in ("mass-accuracy", "spearman-time"):  # spearman: equal shares of the region keep it below 1
        torch.testing.assert_close(oracle, torch.full_like(oracle, float(metric.direction == "higher")))
    random = torch.stack([metric.function(evidence(view, truth, noise(seed))) for seed in range(60)])
    assert (oracle > random.mean(0)).all() if metric.direction == "higher" else (oracle < random.mean(0)).all()
    error = random.std() / math.sqrt(random.numel())
    if metric.chance is not None:
        assert abs(random.mean() - metric.chance) < 4 * error + 0.002  # average precision is a little above


@pytest.mark.parametrize("name", FAITHFULNESS)
def test_the_exact_attribution_wins_at_faithfulness_in_the_declared_direction(linear, view, truth, name):
    metric = METRICS[name]
    fill = next((f for f in ("mean", "twin") if f in name), "silence")
    exact = linear.exact(view, fill)
    best, worst = (metric.function(evidence(view, truth, v)) for v in (exact, -exact))
    assert (best > worst).all() if metric.direction == "higher" else (best < worst).all()


def test_presets_cost_what_they_must(view, truth):
    class Counter(nn.Module):
        seen = 0

        def forward(self, inputs):
            self.seen += len(inputs)
            return view.model(inputs)

    for preset, names, constants, questions in (
        ("quick", QUICK, 3, 2 * 6 + 2),  # untouched, twin, filled; two curves on the twin and two drops
        ("full", FULL, 5, 3 * 2 * 16 + 4),  # three fills; pixel flipping shares 5 of its 9 interior points
    ):
        counter = Counter()
        probe = Probe(replace(view, model=counter), truth.valid, FRACTIONS[preset])
        for seed in range(2):
            values = noise(seed)
            asked = Evidence(Attribution(values, GRID.frequency, GRID.time(N_SAMPLES)), values, truth, probe)
            for name in names:
                METRICS[name].function(asked)
        assert counter.seen == COUNT * (constants + 2 * questions), preset
