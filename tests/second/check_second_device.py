"""Everything stays on the device: views, methods and metrics on a second device that computes (tests/seconddevice.py).

Each answer is compared with the CPU's, which it must equal to rounding: both compute with the same kernels. A tensor made
on the wrong device raises, as on CUDA; copies are counted.

Not here: countermeasures with recurrent layers (torch picks kernels for them that only CUDA has), bf16 and tf32, streams.
"""

from __future__ import annotations

import copy
import warnings
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
import toybench
from seconddevice import DEVICE, SecondDevice, Tagged, plain, to_second
from torch import nn
from toys import BAND, GRID, SHAPE, ConvCM, pairs, truth_of, view_of

from xaibench import registry
from xaibench.grid import Grid
from xaibench.harness.cell import explain, run_chunk
from xaibench.harness.known import known_names
from xaibench.harness.plan import Chunk, ordered_pairs
from xaibench.harness.workbench import Workbench
from xaibench.metrics import catalog
from xaibench.metrics.evidence import Evidence
from xaibench.metrics.probe import Probe
from xaibench.metrics.ranking import Ranking
from xaibench.project import average, project
from xaibench.protocols import attributor
from xaibench.segments import segment_truth
from xaibench.truth import truth
from xaibench.types import Attribution, Axis, Truth
from xaibench.view import grid_view, native_view

#: Methods of libraries that work with numpy, or ask for one value at a time, and so copy more than a map.
#: grad-cam: activations and gradients go to numpy, the map comes back; shap: every gradient and every set of masks;
#: captum: LIME's and KernelSHAP's samples are drawn on the host one by one and fitted there by scikit-learn.
THROUGH_NUMPY = {
    "grad-cam", "grad-cam++", "hirescam", "xgrad-cam", "layer-cam", "eigen-cam", "eigen-grad-cam", "score-cam",
    "ablation-cam", "finer-cam", "fullgrad", "shapley-cam", "deep-explainer", "gradient-explainer", "partition-explainer",
    "lime", "kernel-shap",
}  # fmt: skip
#: Copies of anything to the device that one utterance may cost, whatever the steps.
FEW = 5

ROUTES = ("native", "grid")
#: All but one that has to learn a countermeasure first (asked in plugins/amortised).
METHODS = sorted({*known_names("attributors", ["all"])[0], "extremal-silence"} - {"fast-shap"})
#: shap compiles its tree of rectangles when it is first used.
COMPILED = ("partition-explainer",)
#: What the routes share is tested on the native one: on the grid, each library once.
ON_THE_GRID = ("integrated-gradients", "smoothgrad", "occlusion", "grad-cam", "gradient-explainer", "energy", "moved-truth")
#: Fewer steps than usual: they take time here, and change nothing that is tested.
OPTIONS = {
    "shapley-sampling": {"permutations": 1, "bands": 3, "spans": 2}, "feature-ablation": {"bands": 3, "spans": 2},
    "occlusion": {"bands": 3, "spans": 2}, "lime": {"samples": 8}, "kernel-shap": {"samples": 8},
    "integrated-gradients": {"steps": 4}, "twin-ig": {"steps": 4}, "gradient-shap": {"samples": 3},
    "smoothgrad": {"samples": 3}, "vargrad": {"samples": 3}, "extremal-twin": {"steps": 2}, "extremal-silence": {"steps": 2},
    "partition-explainer": {"max_evals": 8}, "gradient-explainer": {"nsamples": 3}, "deeplift-shap": {"references": 2},
}  # fmt: skip


class ConvRecipe(toybench.ToyRecipe):
    """A network with layers, modules with rules and a gradient that varies."""

    def untrained(self, *, seed: int) -> ConvCM:
        return ConvCM(seed=5)


recipe = ConvRecipe()


@attributor(name="toy-on-the-host", paper="none")
def on_the_host(view):
    """A map made without a thought of devices."""
    return torch.arange(float(len(view) * view.shape[0] * view.shape[1])).view(len(view), *view.shape)


@pytest.fixture(scope="module")
def second():
    with SecondDevice() as device:
        yield device


@pytest.fixture(scope="module")
def benches(tmp_path_factory, second):
    """A workbench on the CPU and one on the second device, for every route."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toybench, "recipe", recipe)
        offered = [
            ("countermeasures", "toy", "toybench:recipe"), ("datasets", "toy", "toybench:corpus"),
            ("attributors", "toy-on-the-host", f"{__name__}:on_the_host"),
        ]  # fmt: skip
        toys = tuple(registry.Plugin(g, n, "toy", "1.0", EntryPoint(n, v, f"xaibench.{g}")) for g, n, v in offered)
        real = registry._scan()
        patch.setattr(registry, "_scan", lambda: real + toys)
        root = tmp_path_factory.mktemp("toy")
        toybench.write_corpus(root)
        toybench.write_checkpoint(root / "weights")

        def bench(route: str, device: torch.device | str) -> Workbench:
            spec = toybench.spec(root, *METHODS, metrics=tuple(catalog.METRICS), route=route, options=OPTIONS)
            return Workbench(spec, device=device, batch_size=4)

        yield {route: (bench(route, "cpu"), bench(route, DEVICE)) for route in ROUTES}


def prepared(bench: Workbench, route: str):
    return bench.prepare("toy", route, ordered_pairs(bench.corpus, "eval")[:2])


def second_view(cm: nn.Module, count: int = 2, route: str = "native", **facts: object):
    """The view of `toys.view_of`, on the second device."""
    spoof, bonafide = (to_second(x) for x in pairs(count))
    references, ids = to_second(pairs(2, seed=101)[1]), [f"utterance-{i}/toy" for i in range(count)]
    cm = copy.deepcopy(cm).to(DEVICE)
    if route == "grid":
        return grid_view(cm, spoof, bonafide, references, ids, grid=GRID, **facts)
    return native_view(cm, spoof, bonafide, references, ids, **facts)


def second_truth(found: Truth) -> Truth:
    on = {name: to_second(getattr(found, name)) for name in ("values", "region", "valid", "added")}
    return Truth(name=found.name, resolves=found.resolves, **on)


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """To the rounding of gradients, which the CPU has a way of its own for (`xaibench.backward.quicken`)."""
    assert isinstance(ours, Tagged) and ours.device == DEVICE
    torch.testing.assert_close(plain(ours), theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max() or 1), equal_nan=True)


# ---- the second device itself ----------------------------------------------------------------------------------------


def test_it_computes_what_the_cpu_does(second):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(40, 2))
    net.eval()
    there, x = copy.deepcopy(net).to(DEVICE, memory_format=torch.channels_last), torch.randn(3, 1, 12, 6)
    assert all(p.device == DEVICE and isinstance(p, nn.Parameter) for p in there.parameters())
    assert next(copy.deepcopy(there).parameters()) is not next(there.parameters())
    gradients = []
    for model, start in ((net, x.clone()), (there, to_second(x))):
        start.requires_grad_()
        gradients += torch.autograd.grad(model(start).square().sum(), [start, model[0].weight])
    close(gradients[2], gradients[0])
    close(gradients[3], gradients[1])
    spectrum = GRID.stft(to_second(x.flatten(1).repeat(1, 3)))
    close(GRID.istft(spectrum, 216), GRID.istft(GRID.stft(x.flatten(1).repeat(1, 3)), 216))
    y = to_second(x).flatten(1)
    order = y.argsort(dim=1, stable=True)
    close(torch.empty_like(order).scatter_(1, order, torch.arange(72, device=DEVICE).expand(3, -1)), x.flatten(1).argsort(1).argsort(1))  # fmt: skip  # noqa: E501
    view = y[:, ::2]
    view.add_(1)  # a view shares its memory
    close(y, x.flatten(1) + torch.tensor([1.0, 0.0]).repeat(36))


@pytest.mark.parametrize(
    "mix",
    [
        lambda here, there: there + here,
        lambda here, there: here.add_(there),
        lambda here, there: torch.where(there > 0, here, there),
        lambda here, there: torch.cat([there, here]),
        lambda here, there: torch.stack([there[0], torch.tensor(1.0)]),
        lambda here, there: there.scatter_(0, torch.tensor([0]), 1.0),
        lambda here, there: here[torch.zeros(2, dtype=torch.long, device=DEVICE)],
        lambda here, there: torch.randn(3, device=DEVICE, generator=torch.Generator()),
    ],
)
def test_it_refuses_what_cuda_refuses(second, mix):
    with pytest.raises(RuntimeError, match=r"same device|device type for generator"):
        mix(torch.ones(3), to_second(torch.ones(3)))


def test_numpy_cannot_read_it(second):
    for read in (lambda x: x.numpy(), np.asarray):
        with pytest.raises(TypeError, match="numpy"):
            read(to_second(torch.ones(3)))


@pytest.mark.parametrize(
    ("act", "counted"),
    [
        (lambda x: torch.ones(3).to(DEVICE), (1, 0, 0)),
        (lambda x: torch.tensor([1.0, 2.0], device=DEVICE), (1, 0, 0)),
        (lambda x: x.new_tensor([1.0]), (1, 0, 0)),
        (lambda x: x[torch.tensor([0, 1])], (1, 0, 0)),
        (lambda x: x[[0, 1]], (1, 0, 0)),
        (lambda x: x.cpu(), (0, 1, 0)),
        (lambda x: x.tolist(), (0, 1, 0)),
        (lambda x: float(x[0]), (0, 0, 1)),
        (lambda x: bool(x.any()), (0, 0, 1)),
        (lambda x: x[x > 0], (0, 0, 1)),
        (lambda x: x.nonzero(), (0, 0, 1)),
        (lambda x: x.to(DEVICE) + torch.zeros(3, device=DEVICE) + torch.arange(3, device=DEVICE), (0, 0, 0)),
        (lambda x: x + torch.tensor(1.0), (0, 0, 0)),
        (lambda x: x[1:].clone(), (0, 0, 0)),
    ],
)
def test_it_counts_what_crosses(second, act, counted):
    x = to_second(torch.ones(3))
    before = second.to_device, second.to_host, second.reads
    act(x)
    assert (
        tuple(now - then for now, then in zip((second.to_device, second.to_host, second.reads), before, strict=True))
        == counted
    )


# ---- views, truth, projection ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES)
def test_a_view_and_all_it_holds_is_on_the_device(second, route):
    here, there = view_of(ConvCM(seed=5), 2, route=route), second_view(ConvCM(seed=5), route=route)
    assert there.device == DEVICE
    close(there.inputs, here.inputs)
    close(there.references, here.references)
    for name in here.fills:
        close(there.fill(name), here.fill(name))
    keep = torch.rand(2, 3, *here.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    close(there.score(there.filled(to_second(keep), "mean")), here.score(here.filled(keep, "mean")))
    before = second.copies
    list(there.each())
    assert second.copies - before <= 2  # the number of each utterance


def test_truth_projection_and_averages(second):
    spoof, bonafide = pairs(2)
    here, there = truth_of(2), truth(to_second(spoof), to_second(bonafide), grid=GRID, band=BAND)
    for name in ("values", "region", "valid", "added"):
        assert torch.equal(plain(getattr(there, name)), getattr(here, name)) and getattr(there, name).device == DEVICE
    coarse = Axis("frequency", GRID.frequency.edges[::3]), Axis("time", GRID.time(4_000).edges[::6])
    values = torch.rand(2, 11, 21, generator=torch.Generator().manual_seed(0))
    fine = GRID.frequency, GRID.time(4_000)
    close(
        project(Attribution(to_second(values), *coarse), *fine).values, project(Attribution(values, *coarse), *fine).values
    )
    close(average(there.values, fine, coarse), average(here.values, fine, coarse))
    labels = [[(0.05, 0.1, "spoof")], [(0.0, 0.2, "spoof")]]
    facts = {"grid": GRID, "n_samples": 4_000, "band": BAND, "sample_rate": 16_000}
    told = segment_truth(labels, device=DEVICE, **facts)
    close(told.values, segment_truth(labels, **facts).values)
    assert told.region.device == told.valid.device == DEVICE


# ---- methods ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "route"),
    [
        *(pytest.param(name, "native", marks=[pytest.mark.heavy] * (name in COMPILED)) for name in METHODS),
        *((name, "grid") for name in ON_THE_GRID),
    ],
)
def test_a_method_finds_the_same_map_on_the_device(second, benches, name, route):
    here, there = benches[route]
    a, b = prepared(here, route), prepared(there, route)
    method = here.attributor(name)
    if not method.needs <= a.view.offers:
        assert not method.needs <= b.view.offers
        return
    second.draws.clear()
    ours = explain(here, a, name)
    before = second.to_device, second.to_host
    theirs = explain(there, b, name)
    up, down = second.to_device - before[0], second.to_host - before[1]
    close(theirs.on_view, ours.on_view)
    close(theirs.on_grid.values, ours.on_grid.values)
    if name not in THROUGH_NUMPY:
        assert down == 0, f"{down} arrays came back to the host"
        assert up <= FEW * len(b.view), f"{up} arrays were copied to the device"
    assert method.random or not second.draws, f"{dict(second.draws)} drawn on the device, where CUDA draws other numbers"


@pytest.mark.parametrize(
    ("name", "few", "many"),
    [
        ("integrated-gradients", {"steps": 3}, {"steps": 12}),
        ("twin-ig", {"steps": 3}, {"steps": 12}),
        ("smoothgrad", {"samples": 2}, {"samples": 9}),
        ("gradient-shap", {"samples": 2}, {"samples": 9}),
        ("occlusion", {"bands": 2, "spans": 2}, {"bands": 5, "spans": 4}),
        ("feature-ablation", {"bands": 2, "spans": 2}, {"bands": 5, "spans": 4}),
        ("extremal-twin", {"steps": 2}, {"steps": 6}),
        ("deeplift-shap", {"references": 1}, {"references": 2}),
    ],
)
def test_copies_do_not_grow_with_the_steps(second, name, few, many):
    facts = {"truth": second_truth(truth_of(2)), "batch_size": 2}
    view, found = second_view(ConvCM(seed=5), **facts), []
    for options in (few, many):
        before = second.copies, second.reads
        registry.load("attributors", name).with_options(**options)(view)
        found.append((second.copies - before[0], second.reads - before[1]))
    assert found[0][0] == found[1][0]
    if name != "feature-ablation":  # captum asks for the number of every patch, three times
        assert found[0][1] == found[1][1], "the host waits for the device at every step"


def test_a_map_made_on_the_host_is_taken_to_the_device(second, benches):
    there = benches["native"][1]
    found = explain(there, prepared(there, "native"), "toy-on-the-host")
    assert found.on_view.device == found.on_grid.values.device == DEVICE


# ---- metrics ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("route", "metrics"), [("native", tuple(catalog.METRICS)), ("grid", catalog.QUICK)])
def test_every_metric_of_the_catalogue(second, benches, route, metrics):
    """Those that explain again, too."""
    rows = []
    for bench in benches[route]:
        made = explain(bench, prepared(bench, route), "input-x-gradient")
        chosen = tuple(ordered_pairs(bench.corpus, "eval")[:2])
        chunk = Chunk("toy", route, "input-x-gradient", 0, chosen, metrics, ("a", "b"))
        before, second.largest["to_host"] = second.to_host, 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows.append(run_chunk(bench, chunk, "run", explained=made).rows)
    came_back = second.to_host - before
    assert len(rows[0]) == len(rows[1]) == 2 * len(metrics)
    for ours, theirs in zip(*rows, strict=True):
        assert (ours.metric, ours.status) == (theirs.metric, theirs.status), (ours, theirs)
        if ours.status == "ok":
            assert theirs.value == pytest.approx(ours.value, rel=1e-4, abs=1e-6), ours.metric
    assert {row.status for row in rows[0]} <= {"ok", "undefined"}
    # A score for each utterance and metric, the names of orders, recordings that a codec changes: never a map.
    assert came_back <= 2 * len(metrics) and second.largest["to_host"] < SHAPE[0] * SHAPE[1]


@pytest.mark.parametrize("fill", ["twin", "silence"])
def test_copies_do_not_grow_with_the_masks(second, fill):
    view = second_view(ConvCM(seed=5), batch_size=2)
    found, values = [], to_second(torch.rand(2, *view.shape, generator=torch.Generator().manual_seed(0)))
    for count in (3, 13):
        shares = tuple((i + 1) / (count + 1) for i in range(count))
        probe = Probe(view, to_second(truth_of(2).valid), shares)
        evidence = Evidence(
            Attribution(values, GRID.frequency, GRID.time(4_000)), values, second_truth(truth_of(2)), probe
        )  # fmt: skip
        before = second.copies
        for direction in ("deletion", "insertion"):
            evidence.curve(direction, fill)
        evidence.region_curve(fill, (0.0, *shares[:3]))
        found.append(second.copies - before)
    assert found[0] == found[1] <= 12


def test_a_ranking_is_torchs_there_and_equal_to_numpys(second):
    """Ties, zeros of both signs and a band of valid cells: the same order, and so the same of all that follows."""
    maps = torch.randint(-3, 4, (3, 7, 11), generator=torch.Generator().manual_seed(0)).float()
    maps[1] = torch.rand(7, 11, generator=torch.Generator().manual_seed(1)) - 0.5
    maps[2, 0] = -0.0
    region = torch.rand(3, 7, 11, generator=torch.Generator().manual_seed(2)) < 0.3
    valid = torch.zeros(7, 11, dtype=torch.bool)
    valid[1:6] = True
    for dtype in (torch.float32, torch.float64):
        here = Ranking(maps.to(dtype), valid)
        before = second.to_host
        there = Ranking(to_second(maps.to(dtype)), to_second(valid))
        close(there.order, here.order)
        close(there.mid_ranks, here.mid_ranks)
        close(there.silent, here.silent)
        close(there.hits(to_second(region), 9), here.hits(region, 9))
        assert second.to_host == before


# ---- countermeasures -------------------------------------------------------------------------------------------------

QUICK = ("cnn", "lcnn-lfcc", "planted-cnn", "resnet-cqt", "ssl-res1d", "tca")
SLOW = ("aasist", "lcnn", "lcnn-stc", "resnet50")


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.heavy) for n in SLOW)])
def test_a_countermeasure_of_ours(second, name):
    """Scores and gradients on both routes, every fill, and its own maps."""
    cm = registry.load("countermeasures", name).untrained(seed=0).eval()
    there = copy.deepcopy(cm).to(DEVICE)
    x = 0.1 * torch.randn(2, cm.n_samples, generator=torch.Generator().manual_seed(0))
    for make, options in ((native_view, {}), (grid_view, {"grid": Grid()})):
        views = [
            make(model, on(x[:1]), on(x[1:]), on(x), ["a/b"], **options)
            for model, on in ((cm, lambda t: t), (there, to_second))
        ]
        scores, gradients = [], []
        for view in views:
            start = view.inputs.detach().clone().requires_grad_()
            score = view.model(start)
            gradients += torch.autograd.grad(score.sum(), start)
            scores.append(score.detach())
        close(scores[1], scores[0])
        close(gradients[1], gradients[0])
        for fill in views[0].fills:
            close(views[1].fill(fill), views[0].fill(fill))
        for own in views[0].intrinsic:
            close(views[1].intrinsic[own](views[1].inputs), views[0].intrinsic[own](views[0].inputs))
