"""What a device can do, how much of it the countermeasure and every method use, and whether its numbers are the CPU's.

    python benchmarks/gpu.py [--limit N] [--batches 1,8,32] [--methods NAME,NAME] > benchmarks/DEVICE.md

Prints a markdown page with the device's name; without a CUDA device it measures the CPU and says so. LCNN at 257 x 201 on
minivoc, native route. Operations are counted by `torch.utils.flop_counter`: products and convolutions only, a multiplication
and an addition two of them, so that a fraction of the product's ceiling never counts normalisation or pooling as work.
Times of passes are the median of at least three calls after one to warm up, those of methods one call after one, with the
device waited for; a ceiling is the fastest. A
convolution may be computed with fewer operations than are counted (Winograd), and so go beyond it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from page import table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from xaibench.harness.cell import explain
from xaibench.harness.device import choose_device, tune_allocator
from xaibench.harness.environment import environment
from xaibench.harness.known import known_names
from xaibench.harness.plan import ordered_pairs
from xaibench.harness.sizes import is_out_of_memory, is_poisoned, release
from xaibench.harness.spec import RunSpec
from xaibench.harness.workbench import Prepared, Workbench
from xaibench.metrics.probe import Probe
from xaibench.passes import Passes
from xaibench.precision import PRECISIONS, computed_in
from xaibench.view import View

#: Seconds that one figure is measured for, and the fewest calls.
PATIENCE, CALLS = 0.5, 3
#: Rows and columns of the product, and bytes of the copy, by kind of device.
SIDE, BYTES = {"cpu": 1024, "cuda": 8192}, {"cpu": 2**26, "cuda": 2**29}
#: Utterances that the CPU computes, too.
COMPARED = 2


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--limit", type=int, default=8, help="vocoded utterances, for the methods")
    arguments.add_argument("--batches", default="1,2,4,8,16,32,64,128", help="inputs at a time, for the passes")
    arguments.add_argument("--methods", default="all", help="names, separated by commas")
    arguments.add_argument("--precision", default="", help="of the passes and scores; by default all that the device has")
    asked = arguments.parse_args()
    tune_allocator()
    device = choose_device("auto")
    # tf32 is the same as fp32 where there is no CUDA.
    precisions = (
        asked.precision.split(",") if asked.precision else [p for p in PRECISIONS if (device.type, p) != ("cpu", "tf32")]
    )
    names, _ = known_names("attributors", asked.methods.split(","))
    bench, cpu = (_bench(names, where, asked.limit) for where in (device, torch.device("cpu")))
    pairs = ordered_pairs(bench.corpus, "eval")[: asked.limit]
    ours = bench.prepare("lcnn", "native", pairs)
    theirs = cpu.prepare("lcnn", "native", pairs[:COMPARED])
    stamp = environment(device)
    print(f"# {stamp['device']}\n\ntorch {stamp['packages']['torch']}, {stamp['threads']} threads, {_memory(device)}.\n")
    print("## Ceilings\n")
    ceilings = {p: product_ceiling(device, p) for p in precisions}
    print(table(["what", "measured"], [*_products(ceilings, device), *_copies(device)]), flush=True)
    print("\n## Passes of LCNN\n")
    batches = [int(n) for n in asked.batches.split(",")]
    head = ["pass, precision, inputs", "utterances/s", "TFLOP/s", "of the ceiling", "peak memory"]
    print(table(head, passes(ours.view, batches, ceilings)), flush=True)
    print(f"\n## Methods, {len(pairs)} utterances, fp32\n")
    print("A method that draws its random numbers on the device draws others than on the CPU: its difference is no error.\n")
    head = ["method", "utterances/s", "peak memory", "largest difference to the CPU, relative"]
    print(table(head, methods(bench, ours, cpu, theirs, names)), flush=True)
    print("\n## Scores against the CPU's in fp32\n")
    print("Log-odds, and deletion curves of a random order in ten steps; differences relative to the largest value.\n")
    print(table(["precision", "log-odds", "deletion curves"], agreement(ours, theirs, precisions)))


def _bench(names: Sequence[str], device: torch.device, limit: int) -> Workbench:
    spec = RunSpec(countermeasures=("lcnn",), attributors=tuple(names), metrics=("rank-accuracy",))
    return Workbench(spec, device=device, batch_size=limit if device.type == "cuda" else min(limit, 4))


# ---- ceilings --------------------------------------------------------------------------------------------------------


def product_ceiling(device: torch.device, precision: str) -> float:
    """Operations a second of a square matrix product in a precision of `xaibench.precision`."""
    n = SIDE[device.type]
    a, b = (torch.randn(n, n, device=device) for _ in range(2))
    if precision == "bf16":  # the product alone: autocast would round the factors again in every call
        a, b, precision = a.bfloat16(), b.bfloat16(), "fp32"
    with computed_in(precision, device.type):
        return 2 * n**3 / min(_times(lambda: a @ b, device))


def _products(ceilings: dict[str, float], device: torch.device) -> Iterator[list[str]]:
    for precision, speed in ceilings.items():
        yield [f"product of {SIDE[device.type]} x {SIDE[device.type]}, {precision}", f"{speed / 1e12:.3g} TFLOP/s"]


def _copies(device: torch.device) -> Iterator[list[str]]:
    """Copies of one block: bytes read and bytes written are the same bytes here, counted once."""
    size = BYTES[device.type]
    here = torch.empty(size, dtype=torch.uint8)
    there, other = here.to(device), torch.empty(size, dtype=torch.uint8, device=device)
    routes: dict[str, Callable[[], object]] = {"within the device": lambda: other.copy_(there)}
    if device.type == "cuda":
        pinned = here.pin_memory()
        routes |= {
            "host to device": lambda: there.copy_(here),
            "host to device, pinned": lambda: there.copy_(pinned, non_blocking=True),
            "device to host, pinned": lambda: pinned.copy_(there, non_blocking=True),
        }
    for name, copy in routes.items():
        yield [f"copy {name}, {size // 2**20} MiB", f"{size / min(_times(copy, device)) / 1e9:.3g} GB/s"]


# ---- passes ----------------------------------------------------------------------------------------------------------


def passes(view: View, batches: Sequence[int], ceilings: dict[str, float]) -> Iterator[list[str]]:
    """Forward passes in every precision, forward and backward (of maps) in fp32, by inputs at a time."""
    kinds = [("forward", p, _forward) for p in ceilings]
    kinds += [("forward and backward", "fp32", _backward)] if "fp32" in ceilings else []
    for name, precision, make in kinds:
        for count in batches:
            what = f"{name}, {precision}, {count}"
            try:
                yield [what, *_pass(view, count, precision, make, ceilings[precision])]
            except RuntimeError as error:
                if is_poisoned(error) or not is_out_of_memory(error):
                    raise
            else:
                continue
            release(view.device)  # not within the except block: the error holds what did not fit
            yield [what, "out of memory", "", "", ""]
            break


def _pass(view: View, count: int, precision: str, make: Callable[..., Callable[[], object]], ceiling: float) -> list[str]:
    inputs = view.inputs.repeat(-(-count // len(view)), 1, 1, 1)[:count].contiguous()
    run = make(view, inputs)
    with computed_in(precision, view.device.type):
        with FlopCounterMode(display=False) as counter:
            run()
        _reset(view.device)
        each = statistics.median(_times(run, view.device)) / count
    speed = counter.get_total_flops() / count / each
    return [f"{1 / each:.4g}", f"{speed / 1e12:.3g}", f"{speed / ceiling:.0%}", _peak(view.device)]


def _forward(view: View, inputs: Tensor) -> Callable[[], object]:
    def run() -> None:
        with torch.no_grad():
            view.model(inputs)

    return run


def _backward(view: View, inputs: Tensor) -> Callable[[], object]:
    def run() -> None:
        start = inputs.detach().requires_grad_()
        view.model(start).sum().backward()  # not `autograd.grad`, which the counter of operations cannot follow

    return run


# ---- methods and scores ----------------------------------------------------------------------------------------------


def methods(
    bench: Workbench, ours: Prepared, cpu: Workbench, theirs: Prepared, names: Sequence[str]
) -> Iterator[list[str]]:  # fmt: skip
    """Speed and peak memory of every method, and its maps against the CPU's."""
    for name in names:
        try:
            found = explain(bench, _fresh(ours), name)  # to warm up
            _reset(bench.device)
            started = time.perf_counter()
            found = explain(bench, _fresh(ours), name)  # waits for the device itself
            speed = len(ours.view) / (time.perf_counter() - started)
            peak = _peak(bench.device)
            reference = explain(cpu, _fresh(theirs), name)
        except Exception as error:  # one method's failure, out of memory included, leaves the others their rows
            if is_poisoned(error):
                raise
            release(bench.device)
            yield [name, type(error).__name__, "", str(error)]
            continue
        drawn = " (random)" if bench.attributor(name).random else ""
        yield [name + drawn, f"{speed:.4g}", peak, f"{_gap(found.on_view[: len(theirs.view)], reference.on_view):.1e}"]


def _fresh(prepared: Prepared) -> Prepared:
    """The batch with no pass made yet: each method pays for its own."""
    return replace(prepared, view=replace(prepared.view, passes=Passes.of(prepared.view)))


def agreement(ours: Prepared, theirs: Prepared, precisions: Sequence[str]) -> Iterator[list[str]]:
    """Scores and deletion curves of the same utterances in every precision, against the CPU in fp32."""
    count = len(theirs.view)
    values = torch.rand(count, *theirs.view.shape, generator=torch.Generator().manual_seed(0))
    expected = _answers(theirs.view, theirs.probe.valid, values)
    view = ours.view.select(range(count))
    for precision in precisions:
        found = _answers(replace(view, precision=precision), ours.probe.valid, values)
        yield [precision, *(f"{_gap(a, b):.1e}" for a, b in zip(found, expected, strict=True))]


def _answers(view: View, valid: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    probe = Probe(view, valid, tuple(i / 10 for i in range(1, 10)))
    return probe.untouched, probe.curve(values.to(view.device), "deletion", "silence").log_odds


def _gap(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    theirs = theirs.cpu()
    return float((ours.cpu() - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30))


# ---- clocks ----------------------------------------------------------------------------------------------------------


def _times(run: Callable[[], object], device: torch.device) -> list[float]:
    """Seconds of each of several calls."""
    run()
    _wait(device)
    times: list[float] = []
    while len(times) < CALLS or sum(times) < PATIENCE:
        started = time.perf_counter()
        run()
        _wait(device)
        times.append(time.perf_counter() - started)
    return times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> str:
    """The most memory allocated since `_reset`; a CPU has no such count."""
    return f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB" if device.type == "cuda" else "-"


def _memory(device: torch.device) -> str:
    if device.type != "cuda":
        return "no CUDA device"
    facts = torch.cuda.get_device_properties(device)
    return f"CUDA {torch.version.cuda}, {facts.total_memory / 2**30:.0f} GiB"


if __name__ == "__main__":
    main()
