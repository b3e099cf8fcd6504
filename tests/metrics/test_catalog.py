"""The table of metrics: complete, importable without torch, and every entry means what it declares."""

import gc
import math
import pickle
import subprocess
import sys
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn
from toys import GRID, N_SAMPLES, SHAPE, LinearCM, truth_of, view_of

from xaibench.errors import Unsupported
from xaibench.metrics import axioms, ranking
from xaibench.metrics.again import Again
from xaibench.metrics.catalog import FRACTIONS, FULL, METRICS, QUICK
from xaibench.metrics.evidence import Evidence, Probe
from xaibench.metrics.marginals import turned
from xaibench.metrics.temporal import temporal_region
from xaibench.truth import HALVES, half
from xaibench.types import Attribution
from xaibench.view import derive_seed

COUNT = 4
FAITHFULNESS = [name for name in METRICS if METRICS[name].family == "faithfulness"]
LOCALISATION = [name for name in METRICS if METRICS[name].family == "localisation"]
TEMPORAL = [name for name in LOCALISATION if "frequency" not in METRICS[name].needs]
FREQUENCY = [name for name in LOCALISATION if "time" not in METRICS[name].needs]
STABILITY = [name for name in METRICS if METRICS[name].family == "stability"]
COMPLEXITY = [name for name in METRICS if METRICS[name].family == "complexity"]
SANITY = [name for name in METRICS if METRICS[name].family == "sanity"]
AXIOMS = [name for name in METRICS if METRICS[name].family == "axioms"]


@pytest.fixture(scope="module")
def linear():
    return LinearCM()


@pytest.fixture(scope="module")
def view(linear):
    return view_of(linear, COUNT)


@pytest.fixture(scope="module")
def truth():
    made = truth_of(COUNT)
    added = made.added.clone()
    added[:, ::2] = True  # the toys' pairs lose energy all over the region; here half of it counts as gained
    return replace(made, added=added)


def evidence(view, truth, values, preset="quick"):
    attribution = Attribution(values, GRID.frequency, GRID.time(N_SAMPLES))
    probe = Probe(view, truth.valid, FRACTIONS[preset])
    return Evidence(attribution, values, truth, probe, slightly_different(view, values))


def slightly_different(view, values):
    """A method that answers every change with the map it gave and some noise, and moved inputs."""
    return lambda change: Again(values + 0.3 * noise(derive_seed(change) % 1000), view.inputs + 0.1)


@pytest.fixture(autouse=True)
def small_differences(monkeypatch):
    monkeypatch.setattr(axioms, "SMALLEST_DIFFERENCE", 1e-6)  # the toy's scores differ by less than 1 log-odds


def noise(seed=0):
    return torch.rand(COUNT, *SHAPE, generator=torch.Generator().manual_seed(seed))


def test_the_table_needs_no_torch():
    code = "import sys, xaibench.metrics.catalog as c; assert len(c.METRICS) > 20; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_names():
    fills = ("silence", "mean", "twin")
    curves = {f"{d}-{f}{p}" for d in ("deletion", "insertion") for f in fills for p in ("", "-probability")}
    twice = ("pixel-flipping", "aopc-morf", "aopc-lerf", "abpc", "comprehensiveness", "sufficiency", "region-perturbation",
             "faithfulness-correlation", "infidelity", "faithfulness-on-spectra")  # fmt: skip
    once = ("drop", "monotonicity", "average-drop", "average-increase", "average-gain", "fid-in")
    others = {f"{n}-{f}{p}" for f in fills for n in twice for p in ("", "-probability")}
    assert set(FAITHFULNESS) == curves | others | {f"{n}-{f}" for f in fills for n in once}
    cuts = [f"{score}@{cut}" for cut in (1, 2, 5, 10, 20) for score in ("iou", "dice", "precision", "recall")]
    cells = ["top-k-intersection", "concept-influence", "mass-accuracy", "roc-auc", "average-precision", "pointing-game"]
    signs = ["rank-accuracy-added", "rank-accuracy-missing", "roc-auc-added", "roc-auc-missing"]
    assert ["rank-accuracy", *cuts, *cells, "ndcg", "spearman", *signs, *TEMPORAL, *FREQUENCY] == LOCALISATION
    scores = ("rank-accuracy", "roc-auc", "average-precision", "spearman")
    assert [f"{score}-frequency" for score in scores] == FREQUENCY
    assert STABILITY == [
        "max-sensitivity", "local-lipschitz", "robustness-noise", "robustness-mu-law", "robustness-vorbis",
    ]  # fmt: skip
    assert COMPLEXITY == ["sparseness", "entropy", "effective-area"]
    assert SANITY == ["mprt", "smooth-mprt", "efficient-mprt", "random-logit", "class-sensitivity"]
    assert [*(f"completeness-{f}" for f in fills), "input-invariance"] == AXIOMS
    assert TEMPORAL == ["rank-accuracy-time", "roc-auc-time", "average-precision-time", "spearman-time", "frame-eer", "rcq"]


@pytest.mark.parametrize("name", METRICS)
def test_every_entry_is_complete_and_travels_to_another_process(name):
    metric = METRICS[name]
    assert metric.name == name and metric.paper and metric.equation and len(metric.misleads) > 40
    assert metric.needs <= {"truth", "forward", "explain", "frequency", "time"}
    assert ("truth" in metric.needs) == (metric.family == "localisation")
    assert ("forward" in metric.needs) == (metric.family == "faithfulness" or name.startswith("completeness"))
    assert ("explain" in metric.needs) == (metric.family in ("stability", "sanity") or name == "input-invariance")
    assert metric.range[0] < metric.range[1]
    again = pickle.loads(pickle.dumps(metric))
    assert (again.function.func, again.function.args, again.function.keywords) == (
        metric.function.func, metric.function.args, metric.function.keywords,
    )  # fmt: skip


def test_presets():
    assert set(QUICK) < set(FULL) and len(set(QUICK)) == len(QUICK)
    assert [m for m in METRICS if m not in FULL] == [*STABILITY, *SANITY, "input-invariance"]  # they explain again
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


def best_map(truth, name):
    """What no map can beat: D; for frames and frequencies their region; for one sign of D the cells of that sign."""
    # Frames are ranked by their share of the region, not by the sum of D: there the temporal region is the best map.
    if name in TEMPORAL:
        return temporal_region(truth)[:, None].expand_as(truth.values).float()
    if name in FREQUENCY:
        return temporal_region(turned(truth.values, truth)[1])[:, :, None].expand_as(truth.values).float()
    sign = next((h for h in HALVES if name.endswith(h)), None)
    return truth.values if sign is None else half(truth, sign).float()


def ceiling(truth, name):
    """The score of the best map, from the sizes of the region and of the attribution's own."""
    if METRICS[name].direction == "lower":
        return 0.0
    cells, size = int(truth.valid.sum()), int(truth.region[0].sum())
    if name == "top-k-intersection":
        return size / 1000
    if name == "concept-influence":
        return cells / size
    score, _, cut = name.partition("@")
    if not cut:
        return 1.0
    count = round(int(cut) / 100 * cells)
    hits = min(count, size)
    unions = {"iou": count + size - hits, "dice": (count + size) / 2, "precision": count, "recall": size}
    return hits / unions[score]


@pytest.mark.parametrize("name", LOCALISATION)
def test_the_truth_itself_wins_at_localisation_and_chance_is_chance(view, truth, name):
    metric = METRICS[name]
    oracle = metric.function(evidence(view, truth, best_map(truth, name)))
    if name not in ("mass-accuracy", "spearman-time", "spearman-frequency", "rcq"):  # spearman: equal shares keep it below 1
        torch.testing.assert_close(oracle, torch.full_like(oracle, ceiling(truth, name)))
    random = torch.stack([metric.function(evidence(view, truth, noise(seed))) for seed in range(60)])
    assert (oracle > random.mean(0)).all() if metric.direction == "higher" else (oracle < random.mean(0)).all()
    error = random.std() / math.sqrt(random.numel())
    if metric.chance is not None:
        assert abs(random.mean() - metric.chance) < 4 * error + 0.002  # average precision is a little above


# Monotonicity adds negative evidence first, so the exact attribution falls with it: see test_faithfulness.
@pytest.mark.parametrize("name", [name for name in FAITHFULNESS if not name.startswith("monotonicity")])
def test_the_exact_attribution_wins_at_faithfulness_in_the_declared_direction(linear, view, truth, name):
    metric = METRICS[name]
    fill = next((f for f in ("mean", "twin") if f in name), "silence")
    exact = linear.exact(view, fill)
    other = noise() - 0.5 if name.startswith("infidelity") else -exact  # the best factor turns a reversed map round
    best, worst = (metric.function(evidence(view, truth, v)) for v in (exact, other))
    assert (best > worst).all() if metric.direction == "higher" else (best < worst).all()


def test_presets_cost_what_they_must(view, truth):
    class Counter(nn.Module):
        seen = 0

        def forward(self, inputs):
            self.seen += len(inputs)
            return view.model(inputs)

    for preset, names, constants, questions in (
        ("quick", QUICK, 3, 2 * 6 + 2),  # untouched, twin, filled; two curves on the twin and two drops
        # Untouched, and the valid cells, all cells and 50 subsets filled with each of three fills. An attribution: two
        # curves that hold the ten equal steps, up to 6 of the 56 regions here, two soft masks.
        ("full", FULL, 1 + 3 * (2 + 50), 3 * (2 * 16 + 6 + 2)),
    ):
        counter = Counter()
        probe = Probe(replace(view, model=counter), truth.valid, FRACTIONS[preset])
        for seed in range(2):
            values = noise(seed)
            asked = Evidence(Attribution(values, GRID.frequency, GRID.time(N_SAMPLES)), values, truth, probe)
            for name in names:
                METRICS[name].function(asked)
        assert counter.seen == COUNT * (constants + 2 * questions), preset


def test_a_truth_without_a_sign_offers_no_halves(view, truth):
    asked = evidence(view, replace(truth, added=None), noise())
    for name in ("rank-accuracy-added", "rank-accuracy-missing", "roc-auc-added", "roc-auc-missing"):
        with pytest.raises(Unsupported, match="'eq2' has no sign"):
            METRICS[name].function(asked)


def test_a_half_without_a_cell_is_undefined(view, truth):
    added = truth.added.clone()
    added[1] = True
    scores = METRICS["rank-accuracy-missing"].function(evidence(view, replace(truth, added=added), noise()))
    assert scores.isnan().tolist() == [False, True, False, False]


def test_the_cells_of_an_attribution_are_sorted_once_and_forgotten_with_it(view, truth, monkeypatch):
    made = []

    class Counted(ranking.Ranking):
        def __init__(self, *arguments):
            made.append(weakref.ref(self))
            super().__init__(*arguments)

    monkeypatch.setattr(ranking, "Ranking", Counted)
    first, second = (evidence(view, replace(truth), noise(seed)) for seed in range(2))
    cells = [name for name in LOCALISATION if name not in TEMPORAL + FREQUENCY]
    alone = {name: METRICS[name].function(evidence(view, truth, noise(0))) for name in cells}
    made.clear()
    for asked in (first, second):
        scores = {name: METRICS[name].function(asked) for name in cells}
        if asked is first:
            torch.testing.assert_close(scores, alone, rtol=0, atol=0, equal_nan=True)
    assert len(made) == 4  # two attributions, and the truth of each
    del first, second, asked
    gc.collect()
    assert [kept() for kept in made] == [None] * 4
