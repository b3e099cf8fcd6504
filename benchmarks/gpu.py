"""Utterances per second of every attribution method on this machine's device, and agreement with the CPU.

    python benchmarks/gpu.py [--limit N] > benchmarks/<device>.md

Prints a markdown page with the device's name. Without a CUDA device it measures the CPU and says so.
"""

from __future__ import annotations

import argparse
import time

import torch

from xaibench.errors import XaibenchError
from xaibench.harness.cell import explain
from xaibench.harness.device import choose_device, tune_allocator
from xaibench.harness.environment import environment
from xaibench.harness.plan import ordered_pairs
from xaibench.harness.spec import RunSpec
from xaibench.harness.workbench import Workbench, known_names


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--limit", type=int, default=8, help="vocoded utterances")
    limit = arguments.parse_args().limit
    tune_allocator()
    names, _ = known_names("attributors", ["all"])
    spec = RunSpec(countermeasures=("lcnn",), attributors=names, metrics=("rank-accuracy",))
    device = choose_device("auto")
    here, cpu = Workbench(spec, device=device, batch_size=limit), Workbench(spec, device="cpu", batch_size=4)
    chosen = ordered_pairs(here.corpus, "eval")[:limit]
    ours, theirs = here.prepare("lcnn", "native", chosen), cpu.prepare("lcnn", "native", chosen[:2])
    stamp = environment(device)
    print(f"# Methods on {stamp['device']}\n\ntorch {stamp['packages']['torch']}, {limit} utterances in one batch, fp32\n")
    print("| method | utterances/s | largest difference to the CPU, relative |\n| --- | ---: | ---: |")
    for name in names:
        try:
            explain(here, ours, name)  # warm-up
            started = time.perf_counter()
            found = explain(here, ours, name)
            if device.type == "cuda":
                torch.cuda.synchronize()
            speed = limit / (time.perf_counter() - started)
            reference = explain(cpu, theirs, name).on_view
        except XaibenchError as error:
            print(f"| {name} | {type(error).__name__} | {error} |")
            continue
        gap = (found.on_view[:2].cpu() - reference).abs().max() / reference.abs().max().clamp_min(1e-30)
        print(f"| {name} | {speed:.1f} | {float(gap):.1e} |", flush=True)


if __name__ == "__main__":
    main()
