"""A run of many utterances in a process of its own, and the most memory it took. Called by `test_memory.py`.

    python benchmarks/memory_run.py FOLDER UTTERANCES [--keep-maps]

FOLDER gets the data set and the run. Every utterance is minivoc's audio from another place, under an id of its own: the
recordings are short, so that 2,000 of them take minutes. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import soundfile

from xaibench import audio, registry
from xaibench.harness.device import tune_allocator
from xaibench.harness.plan import ordered_pairs
from xaibench.harness.run import run
from xaibench.harness.sizes import peak_memory
from xaibench.harness.spec import RunSpec

#: Samples of a recording, and by how many the place moves from one copy of an utterance to the next.
LENGTH, STEP = 8_000, 80
#: Cheap ones: what grows with the number of utterances is the harness'.
METHODS = ("saliency", "energy")
METRICS = ("rank-accuracy", "drop-twin")


def write_corpus(folder: Path, count: int) -> Path:
    """`count` vocoded utterances and as many bona fide twins, with those of minivoc's training speakers as references."""
    source = registry.open_corpus("minivoc", None)
    rows: list[list[object]] = []
    wanted = {"eval": count, "train": 8}
    for split, most in wanted.items():
        pairs = ordered_pairs(source, split)
        for number in range(most):
            pair = pairs[number % len(pairs)]
            for half in pair.halves:
                samples = audio.read(half.path, sample_rate=source.sample_rate)
                piece = np.roll(samples, -STEP * (number // len(pairs)))[:LENGTH]
                file = folder / split / f"{number:05d}-{half.vocoder}.wav"
                file.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(file, piece, source.sample_rate, subtype="PCM_16")
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                place = file.relative_to(folder)
                rows.append([f"{split}-{number:05d}", half.speaker, split, half.vocoder, place, len(piece), digest])
    with (folder / "many.csv").open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(["utt_id", "speaker", "split", "vocoder", "path", "n_samples", "sha256"])
        table.writerows(rows)
    low, high = source.valid_band
    manifest = folder / "many.toml"
    manifest.write_text(
        f'name = "many"\ntable = "many.csv"\nsample_rate = {source.sample_rate}\nvalid_band = [{low}, {high}]\n',
        encoding="utf-8",
    )
    return manifest


def main() -> None:
    """Score, and print the peak."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("utterances", type=int)
    arguments.add_argument("--keep-maps", action="store_true")
    asked = arguments.parse_args()
    manifest = write_corpus(asked.folder / "data", asked.utterances)
    tune_allocator()
    spec = RunSpec(
        countermeasures=("cnn",), attributors=METHODS, metrics=METRICS, data=str(manifest), limit=asked.utterances,
        cm_options={"cnn": {"n_samples": LENGTH}}, keep_maps=asked.keep_maps,
    )  # fmt: skip
    started = time.perf_counter()
    done = run(spec, asked.folder / "run", batch_size=4)
    peak = peak_memory() / 2**20
    print(json.dumps({
        "utterances": asked.utterances, "rows": done.computed, "statuses": done.statuses, "peak_mb": peak,
        "seconds": time.perf_counter() - started,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
