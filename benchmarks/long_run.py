"""A long run, watched: 10,000 utterances, 40 methods, a toy countermeasure. What must not grow is written down as it goes.

    python benchmarks/long_run.py FOLDER [--utterances 10000] [--methods 40] [--batch 16] [--stop-after CHUNKS]

FOLDER gets the data set and the run; the same command continues a run that was stopped. Prints one line of JSON a
twentieth of the run: milliseconds a chunk (the median, and the mean, which holds garbage collection and the disk's moods),
memory of the process in MB, open files, threads, and what the progress report promised: the share done, the seconds left
by its own speed. The last line is the summary, with the seconds before the first chunk.

The countermeasure is that of the tests, with a tap of 33 bins x 126 frames, so that a chunk takes milliseconds, and what is
measured is the harness. The methods are gradients times the input, with another power each.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import json
import os
import statistics
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]
import toybench  # noqa: E402 - a benchmark small enough for tests
from toys import GRID, N_SAMPLES  # noqa: E402

from xaibench import registry  # noqa: E402
from xaibench.harness.device import tune_allocator  # noqa: E402
from xaibench.harness.run import Progress, run  # noqa: E402
from xaibench.manifest import read_manifest  # noqa: E402
from xaibench.protocols import Dataset, attributor  # noqa: E402

PARTS = 20


def method(number: int) -> object:
    """`long-NN`: gradient times the input, to its own power."""

    @attributor(name=f"long-{number:02d}", paper="none", needs=["gradients"])
    def attribute(view):
        """Gradient times input."""
        x = view.inputs.clone().requires_grad_()
        (grad,) = torch.autograd.grad(view.model(x).sum(), x)
        product = (x * grad).sum(1).detach()
        return product.sign() * product.abs() ** (1 + number / 10)

    return attribute


def write_corpus(folder: Path, count: int) -> None:
    """`count` utterances of noise with one vocoded twin each, and four pairs to train on; nothing that is there already."""
    if (folder / "long.toml").exists():
        return
    rows: list[list[object]] = []
    draw = np.random.default_rng(0)
    for number in range(-4, count):
        split, speaker = ("train", "t") if number < 0 else ("eval", f"s{number % 97:02d}")
        noise = 0.1 * draw.standard_normal(N_SAMPLES)
        for vocoder, taps in {"bonafide": [1.0], ("comb", "smooth")[number % 2]: [0.5, 0.5][: 2 - number % 2]}.items():
            samples = np.convolve(noise, taps if len(taps) > 1 or vocoder == "bonafide" else [0.2, 0.6, 0.2], "same")
            place = Path(split) / f"{number % 100:02d}" / f"{number + 4:06d}-{vocoder}.wav"
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / place, np.clip(samples, -1, 1), GRID.sample_rate, subtype="PCM_16")
            digest = hashlib.sha256((folder / place).read_bytes()).hexdigest()
            rows.append([f"{split}-{number + 4:06d}", speaker, split, vocoder, place, N_SAMPLES, digest])
    with (folder / "long.csv").open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(["utt_id", "speaker", "split", "vocoder", "path", "n_samples", "sha256"])
        table.writerows(rows)
    (folder / "long.toml").write_text(
        f'name = "long"\ntable = "long.csv"\nsample_rate = {GRID.sample_rate}\nvalid_band = [500.0, 7000.0]\n',
        encoding="utf-8",
    )


def install(patch: pytest.MonkeyPatch, count: int) -> tuple[str, ...]:
    """Offer the toy countermeasure, the data set and `count` methods, as entry points of an invented package."""
    module = importlib.import_module(Path(__file__).stem)  # by its name, as entry points find it
    toybench.install(patch)
    known, offered = registry._scan(), []
    for number in range(count):
        found = method(number)
        setattr(module, f"method_{number}", found)
        offered.append(("attributors", found.name, f"{module.__name__}:method_{number}"))
    module.corpus = Dataset("long", "noise", lambda root: read_manifest(root / "long.toml", root))
    offered.append(("datasets", "long", f"{module.__name__}:corpus"))
    mine = tuple(
        registry.Plugin(group, name, "a-long-run", "1.0", EntryPoint(name, value, f"xaibench.{group}"))
        for group, name, value in offered
    )
    patch.setattr(registry, "_scan", lambda: known + mine)
    return tuple(name for group, name, _ in offered if group == "attributors")


def resident() -> float:
    """Memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


class Watch:
    """Takes the run's reports and prints a line a part. Raises KeyboardInterrupt after `stop_after` chunks."""

    def __init__(self, started: float, stop_after: int | None) -> None:
        self.started, self.stop_after = started, stop_after
        self.first = self.last = 0.0
        self.chunks, self.part, self.taken = 0, 0, []

    def __call__(self, progress: Progress) -> None:
        now = time.perf_counter()
        if progress.phase != "cells":
            return
        if not progress.done:
            self.first = self.last = now
            return
        self.chunks += 1
        self.taken.append(1000 * (now - self.last))
        self.last = now
        if progress.done * PARTS >= (self.part + 1) * progress.total:
            self.part += 1
            speed = progress.done / (now - self.first)
            print(json.dumps({
                "share": round(progress.done / progress.total, 3), "chunks": self.chunks,
                "median_ms": round(statistics.median(self.taken), 2), "mean_ms": round(statistics.mean(self.taken), 2),
                "memory_mb": round(resident(), 1), "files": len(os.listdir("/proc/self/fd")),
                "threads": len(os.listdir("/proc/self/task")), "seconds": round(now - self.first, 1),
                "left_s": round((progress.total - progress.done) / speed, 1),
            }), flush=True)  # fmt: skip
            self.taken = []
        if self.stop_after is not None and self.chunks >= self.stop_after:
            raise KeyboardInterrupt


def main() -> None:
    """Run, and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--utterances", type=int, default=10_000)
    arguments.add_argument("--methods", type=int, default=40)
    arguments.add_argument("--batch", type=int, default=16)
    arguments.add_argument("--stop-after", type=int)
    asked = arguments.parse_args()
    data = asked.folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    write_corpus(data, asked.utterances)
    tune_allocator()
    with pytest.MonkeyPatch.context() as patch:
        names = install(patch, asked.methods)
        checkpoint = toybench.write_checkpoint(data / "weights")
        spec = toybench.spec(data, *names, data="long", checkpoints={"toy": str(checkpoint)}, limit=asked.utterances)
        started = time.perf_counter()
        watch = Watch(started, asked.stop_after)
        try:
            done = run(spec, asked.folder / "run", batch_size=asked.batch, report=watch)
        except KeyboardInterrupt:
            print(json.dumps({"stopped_after": watch.chunks, "before_first_chunk_s": round(watch.first - started, 1)}))
            return
    print(json.dumps({
        "rows": done.computed, "kept": done.kept, "statuses": done.statuses, "problems": done.problems[:5],
        "seconds": round(done.seconds, 1), "before_first_chunk_s": round(watch.first - started, 1),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
