"""Passes that a board takes, counted: what every method asks of LCNN, and every metric of a preset, an utterance.

    python benchmarks/arithmetic.py > counted.md

The countermeasure is counted at its backend. The page docs/scale.md multiplies these numbers.
"""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from xaibench.errors import XaibenchError
from xaibench.harness.cell import explain, run_chunk
from xaibench.harness.device import tune_allocator
from xaibench.harness.known import known_names
from xaibench.harness.plan import Chunk, ordered_pairs
from xaibench.harness.spec import RunSpec
from xaibench.harness.workbench import Workbench
from xaibench.metrics import catalog
from xaibench.passes import count_passes

UTTERANCES = 2


def main() -> None:
    """Count and print."""
    tune_allocator()
    names, _ = known_names("attributors", ["all"])
    spec = RunSpec(countermeasures=("lcnn",), attributors=names, metrics=("rank-accuracy",))
    bench = Workbench(spec, batch_size=UTTERANCES)
    pairs = ordered_pairs(bench.corpus, "eval")
    backend = bench.countermeasure("lcnn").module.backend
    prepared = bench.prepare("lcnn", "native", pairs[:UTTERANCES])
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        backend(prepared.view.inputs[:1])
    print(f"One forward pass of LCNN: {flops.get_total_flops() / 1e9:.2f} GFLOP.\n")
    print("| method | forwards | backwards |\n| --- | ---: | ---: |")
    total, methods = [0, 0], 0
    for name in names:
        control = bench.attributor(name).control
        try:
            with count_passes(backend) as count:
                explain(bench, prepared, name)
        except XaibenchError:
            continue
        made = count.forwards // UTTERANCES, count.backwards // UTTERANCES
        print(f"| {name}{' (control)' if control else ''} | {made[0]} | {made[1]} |")
        if not control:
            total, methods = [a + b for a, b in zip(total, made, strict=True)], methods + 1
    print(f"| all {methods} methods | {total[0]} | {total[1]} |\n")
    for preset, metrics in (("quick", catalog.QUICK), ("full", catalog.FULL)):
        spec = RunSpec(countermeasures=("lcnn",), attributors=names, metrics=tuple(metrics), preset=preset)
        bench = Workbench(spec, batch_size=UTTERANCES)
        backend, chosen, counted = bench.countermeasure("lcnn").module.backend, tuple(pairs[:UTTERANCES]), []
        for method in ("energy", "inverse-energy"):  # neither asks the countermeasure anything itself
            chunk = Chunk("lcnn", "native", method, 0, chosen, tuple(metrics), ("0" * 16,) * UTTERANCES)
            with count_passes(backend) as count:
                run_chunk(bench, chunk, "run")
            counted.append(count.forwards // UTTERANCES)
        shared = counted[0] - counted[1]
        print(f"`{preset}`: {counted[1]} forward passes a method and utterance, {shared} more shared by all.\n")


if __name__ == "__main__":
    main()
