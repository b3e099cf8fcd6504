"""`--xai all` against the same methods called one utterance at a time, as their libraries' documentation shows.

    make bench, or pytest benchmarks/test_all_methods.py

Ours is `xaibench.harness.cell.explain` on a batch of four as the harness runs it: channels_last, tuned allocator, private
copies and projection included. The library's side is `documented`, in a process of its own that is neither. One thread
count, one run, method after method; processor seconds an utterance, the least of four on the library's side and of two
batches on ours.

The maps are compared twice, relative to the largest value of an utterance's map. `map_gap`: both sides in the same memory
format, where only rounding may differ. `map_gap_formats`: each side in its own. There a convolution adds in another order,
so of two nearly equal cells the other one can win a maximum, and the gradient then takes that way: single cells differ.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

from xaibench.harness.cell import explain
from xaibench.harness.plan import ordered_pairs
from xaibench.harness.workbench import Prepared, Workbench
from xaibench.passes import Passes

sys.path.insert(0, str(Path(__file__).parent))  # the library's process, too, has to find it by this name
import documented

#: Utterances in the batch, and turns of which the fastest counts.
BATCH, TURNS = 4, 2

#: The ratio that issue 5 asks for.
TARGET = 2.5

#: Greatest `map_gap` allowed: rounding. (The largest measured is 7e-6, of occlusion: small differences of scores.)
TOLERANCE = 1e-5

FOUND: dict[str, tuple[float, float]] = {}  # name -> ours, library; seconds an utterance


@pytest.fixture(scope="module")
def library() -> Iterator[ProcessPoolExecutor]:
    """A process in which nothing of the harness' tuning has happened."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh, initializer=documented.start, initargs=(BATCH,)) as pool:
        yield pool


@pytest.fixture(scope="module")
def four(bench: Workbench) -> Prepared:
    if bench.device.type != "cpu":
        pytest.skip("processor time against processor time: hide the CUDA device (CUDA_VISIBLE_DEVICES=)")
    return bench.prepare("lcnn", "native", ordered_pairs(bench.corpus, "eval")[:BATCH])


def with_new_record(prepared: Prepared) -> Prepared:
    """The batch as it is when the first method of `--xai all` comes: no pass made yet."""
    return replace(prepared, view=replace(prepared.view, passes=Passes.of(prepared.view, together=True)))


def timed(bench: Workbench, prepared: Prepared, name: str) -> tuple[float, torch.Tensor]:
    """Seconds an utterance, and the maps `(B, F, T)`."""
    started = documented.clock()
    found = explain(bench, prepared, name)
    return (documented.clock() - started) / len(prepared.view), found.on_view


def gap(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, relative to the largest value of that utterance's map."""
    return float(((ours - theirs).abs().amax((1, 2)) / theirs.abs().amax((1, 2)).clamp_min(1e-30)).max())


@pytest.mark.benchmark(group="each method, a batch of 4")
@pytest.mark.parametrize("name", documented.CALLS)
def test_a_method(benchmark, bench, four, library, name):
    times, maps = [], []

    def ours():
        seconds, found = timed(bench, with_new_record(four), name)
        times.append(seconds)
        maps.append(found.cpu())

    least, stock = library.submit(documented.seconds, name).result()
    benchmark.pedantic(ours, rounds=TURNS)
    alike = torch.from_numpy(library.submit(documented.maps, name).result())
    mine = min(times)
    FOUND[name] = mine, least
    difference = gap(maps[-1][: len(alike)], alike)
    benchmark.extra_info |= {
        "method": name, "ours_ms": 1e3 * mine, "library_ms": 1e3 * least, "ratio": least / mine, "map_gap": difference,
        "map_gap_formats": gap(maps[-1], torch.from_numpy(stock)), "tolerance": TOLERANCE,
        "fix": documented.FIXES.get(name, ""),
    }  # fmt: skip
    assert difference <= TOLERANCE


@pytest.mark.benchmark(group="all methods, a batch of 4")
def test_all_methods_after_one_another(benchmark, bench, four):
    """As `--xai all` runs them: passes that several methods read are made once."""
    missing = set(documented.CALLS) - set(FOUND)
    if missing:
        pytest.skip(f"needs the times of every method, of {len(missing)} there are none")
    times = []

    def ours():
        batch = with_new_record(four)
        times.append(sum(timed(bench, batch, name)[0] for name in sorted(documented.CALLS)))

    benchmark.pedantic(ours, rounds=1)
    least = sum(theirs for _, theirs in FOUND.values())
    benchmark.extra_info |= {
        "method": "all", "ours_ms": 1e3 * min(times), "library_ms": 1e3 * least, "ratio": least / min(times),
        "target": TARGET, "ours_apart_ms": 1e3 * sum(mine for mine, _ in FOUND.values()),
    }  # fmt: skip


def test_no_first_party_method_is_left_out():
    libraries = ("xaibench_captum", "xaibench_gradcam", "xaibench_shap", "xaibench_zennit")
    found = {e.name for e in entry_points(group="xaibench.attributors") if e.value.startswith(libraries)}
    assert found == set(documented.CALLS)
