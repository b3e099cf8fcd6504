"""Deletion and insertion of one map set against Quantus 0.6 on the same maps and steps; in bf16; and at uneven steps.

    make bench, or pytest benchmarks/test_faithfulness.py

Quantus is asked with `PixelFlipping`, silence in the place of what is removed, probabilities by its softmax of (s/2, -s/2).
Insertion is the same of the maps turned over, read backwards. It runs in processes of its own, three times: on the model as
it loads (contiguous) with the allocator as Python finds it, the same with our allocator settings, and on the model as we
lay it out (channels_last), settings too. `ratio` is the shortest time of each over ours, in processor seconds, which other
work on the machine moves least; `gap` is the largest difference of any probability on any curve. Both need the same number
of forward passes, so what is left in the last comparison is the work around the passes: expect about 1.

The areas in bf16 are those of the main job: `quick` fractions, with the bona fide twin and with silence, a mean over the
batch. `of range`: the difference to fp32 over the range of the curve in log-odds; `of itself`: the area under
probabilities relative to itself, which is large where the area is nearly zero. Uneven steps: the error of the area
against 200 equal steps.
"""

from __future__ import annotations

import copy
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from opened import open_batch, open_bench, tie_free

from xaibench.errors import Unsupported
from xaibench.harness.cell import explain
from xaibench.harness.device import tune_allocator
from xaibench.harness.known import known_names
from xaibench.harness.workbench import Prepared
from xaibench.metrics.catalog import FRACTIONS
from xaibench.metrics.evidence import Evidence, Probe
from xaibench.metrics.faithfulness import area_under_curve
from xaibench.types import Attribution
from xaibench.view import View

quantus = pytest.importorskip("quantus", minversion="0.6")

STEPS = 67  # Quantus wants a step that divides 257 x 201 = 3 x 67 x 257
DIRECTIONS = ("deletion", "insertion")
BOTH = f"deletion and insertion, {STEPS} equal steps each"

#: How Quantus is run -> what to call it, and whether our memory layout and allocator settings are given to it.
BASELINES = {"default": "as it loads", "tuned": "with our allocator", "channels-last": "with our allocator and layout"}
TARGETS = {"fp32": "at least 1.8", "bf16": "at least 3.5"}


class TwoClasses(torch.nn.Module):
    """What Quantus asks for: one column a class."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s = self.model(x)
        return torch.cat([s / 2, -s / 2], dim=1)


def silenced(arr: np.ndarray, indices: np.ndarray, *, silence: np.ndarray, **_: object) -> np.ndarray:
    """A `perturb_func` of Quantus: silence at these indices. Shape: arr `(B, cells)`, indices `(B, k)`."""
    out = arr.copy()
    out[np.arange(len(arr))[:, None], indices] = silence[indices]
    return out


def by_quantus(view: View, maps: np.ndarray, model: torch.nn.Module) -> np.ndarray:
    """Probabilities of both curves, without their points at 0. Shape: `(2, B, STEPS)`."""
    cells = view.shape[0] * view.shape[1]
    metric = quantus.PixelFlipping(
        features_in_step=cells // STEPS, perturb_func=silenced, disable_warnings=True, display_progressbar=False,
        perturb_func_kwargs={"silence": view.fills["silence"].flatten().cpu().numpy()},
    )  # fmt: skip
    turned = maps.max() + maps.min() - maps.astype(np.float64)  # Quantus refuses maps without a positive cell
    inputs, classes = view.inputs.cpu().contiguous().numpy(), np.zeros(len(maps), int)
    curves = [
        metric(model=model, x_batch=inputs, y_batch=classes, a_batch=order[:, None], device=str(view.device))
        for order in (maps, turned)
    ]
    return np.array(curves)


def serve(how: str, target: Path) -> None:
    """A process of its own: both curves once for every line that is read, and the processor seconds they took."""
    if how != "default":
        tune_allocator()
    prepared = open_batch(open_bench())
    maps, model = tie_free(prepared), copy.deepcopy(prepared.view.model)
    if how != "channels-last":
        model = model.to(memory_format=torch.contiguous_format)
    model = TwoClasses(model).eval()
    with torch.no_grad():
        model(prepared.view.inputs.contiguous())
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.process_time()
        curves = by_quantus(prepared.view, maps, model)
        print(time.process_time() - started, flush=True)
        np.save(target, curves)


def by_us(prepared: Prepared, maps: torch.Tensor, precision: str) -> np.ndarray:
    """The same from a fresh probe, so that nothing is known from the last round. Shape: `(2, B, STEPS + 1)`."""
    view = replace(prepared.view, precision=precision)
    everywhere = torch.ones(view.shape, dtype=torch.bool)
    probe = Probe(view, everywhere, [step / STEPS for step in range(1, STEPS)])
    evidence = Evidence(Attribution(maps, *view.axes, "ramps"), maps, prepared.truth, probe)
    return np.stack([evidence.curve(direction, "silence").probability.cpu().numpy() for direction in DIRECTIONS])


@pytest.fixture(scope="module")
def found() -> dict[str, np.ndarray]:
    """Curves by who made them."""
    return {}


@pytest.mark.benchmark(group=BOTH)
@pytest.mark.parametrize("precision", TARGETS)
def test_xaibench(benchmark, prepared, maps, least, found, precision):
    values = torch.from_numpy(maps).to(prepared.view.device)
    view = replace(prepared.view, precision=precision)
    view.score(view.inputs)
    spent = []

    def curves() -> np.ndarray:
        started = time.process_time()
        made = by_us(prepared, values, precision)
        spent.append(time.process_time() - started)
        return made

    found[precision] = benchmark.pedantic(curves, rounds=3)
    least[precision] = min(spent)
    benchmark.extra_info["processor s"] = round(min(spent), 2)
    if precision != "fp32":
        benchmark.extra_info["gap"] = float(f"{np.abs(found[precision] - found['fp32']).max():.1e}")


@pytest.mark.benchmark(group=BOTH)
@pytest.mark.parametrize("how", BASELINES)
def test_quantus(benchmark, least, found, tmp_path, how):
    target = tmp_path / "curves.npy"
    command = [sys.executable, __file__, how, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        spent = []

        def ask() -> None:
            process.stdin.write("again\n")
            process.stdin.flush()
            spent.append(float(process.stdout.readline()))

        assert process.stdout.readline() == "ready\n"
        benchmark.pedantic(ask, rounds=2)
        process.stdin.close()
    deletion, insertion = np.load(target)
    ours = found["fp32"]
    # After k steps of the map turned over the top 1 - k / STEPS are left: the insertion curve from its end.
    gap = max(np.abs(deletion - ours[0][:, 1:]).max(), np.abs(insertion[:, ::-1] - ours[1][:, :-1]).max())
    benchmark.extra_info |= {"Quantus": BASELINES[how], "processor s": round(min(spent), 2), "gap": float(f"{gap:.1e}")}
    for precision in TARGETS:
        benchmark.extra_info[f"ratio {precision}"] = round(min(spent) / least[precision], 2)
        if how == "default":
            benchmark.extra_info[f"target {precision}"] = TARGETS[precision]


@pytest.mark.benchmark(group=BOTH)
def test_the_forward_passes_alone(benchmark, prepared):
    """The floor: as many forward passes as both curves have points together, the ends once."""
    view = prepared.view

    def forwards():
        for _ in range(2 * STEPS):
            view.score(view.inputs)

    benchmark.pedantic(forwards, rounds=3)


def areas(prepared: Prepared, maps: torch.Tensor, fill: str, precision: str) -> dict[str, tuple[torch.Tensor, ...]]:
    """Of both directions: area in log-odds, area under probabilities, and range of the log-odds. Shape: `(B,)` each."""
    view = replace(prepared.view, precision=precision)
    probe = Probe(view, prepared.probe.valid, FRACTIONS["quick"])
    evidence = Evidence(Attribution(maps, *view.axes, "method"), maps, prepared.truth, probe)
    found = {}
    for direction in DIRECTIONS:
        curve = evidence.curve(direction, fill)
        answers = curve.log_odds
        found[direction] = (
            area_under_curve(curve.fractions, answers), area_under_curve(curve.fractions, curve.probability),
            answers.amax(1) - answers.amin(1),
        )  # fmt: skip
    return found


@pytest.mark.benchmark(group="areas in bf16, every method")
@pytest.mark.parametrize("name", known_names("attributors", ["all"])[0])
def test_bf16(benchmark, bench, prepared, name):
    try:
        maps = explain(bench, prepared, name).on_view
    except Unsupported as reason:
        pytest.skip(str(reason))
    rows = {}
    for fill in ("twin", "silence"):
        exact = areas(prepared, maps, fill, "fp32")
        short = benchmark.pedantic(areas, (prepared, maps, fill, "bf16")) if fill == "twin" else None
        short = short or areas(prepared, maps, fill, "bf16")
        for direction in DIRECTIONS:
            (log, probability, span), (log16, probability16, _) = exact[direction], short[direction]
            rows[f"{direction}-{fill}, of range"] = (log16.mean() - log.mean()).abs() / span.mean()
            rows[f"{direction}-{fill}, of itself"] = (probability16.mean() / probability.mean() - 1).abs()
    met = max(float(value) for key, value in rows.items() if key.endswith("of range")) <= 0.005
    benchmark.extra_info |= {key: f"{100 * float(value):.2f} %" for key, value in rows.items()} | {
        "of range at most 0.5 %": met
    }


@pytest.mark.benchmark(group="area at uneven steps against 200 equal ones")
@pytest.mark.parametrize("preset", FRACTIONS)
def test_uneven_steps(benchmark, bench, prepared, preset):
    """Two utterances, three methods, both fills and directions; errors in log-odds and in per cent of the curve's range."""
    few = prepared.view.select([0, 1])
    even = [step / 200 for step in range(1, 200)]
    errors, spans = [], []

    def measure():
        for name in ("integrated-gradients", "grad-cam", "saliency"):
            maps = explain(bench, prepared, name).on_view[:2]
            fine, coarse = (Probe(few, prepared.probe.valid, at) for at in (even, FRACTIONS[preset]))
            for fill in ("twin", "silence"):
                for direction in DIRECTIONS:
                    want, have = (probe.curve(maps, direction, fill) for probe in (fine, coarse))
                    exact, found = (area_under_curve(c.fractions, c.log_odds) for c in (want, have))
                    errors.append((found - exact).abs())
                    spans.append(want.log_odds.amax(1) - want.log_odds.amin(1))

    benchmark.pedantic(measure)
    absolute, relative = torch.cat(errors), torch.cat(errors) / torch.cat(spans)
    benchmark.extra_info |= {
        "passes a curve": len(FRACTIONS[preset]) + 2, "mean error": round(float(absolute.mean()), 3),
        "largest error": round(float(absolute.max()), 3), "mean, of range": f"{100 * float(relative.mean()):.2f} %",
        "largest, of range": f"{100 * float(relative.max()):.2f} %",
    }  # fmt: skip


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
