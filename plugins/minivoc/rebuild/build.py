"""Build one pool: every utterance of a selection table, bona fide and vocoded, through the common chain.

    python -m rebuild.build rebuild/tables/select_main.csv SOURCES POOL [--weights DIR] [--vocoders world mlsa ...]

Writes POOL/SPLIT/VOCODER/UTTERANCE.flac and POOL/manifest.csv. An utterance that cannot be built is left out and named,
and the exit status is 1: the tables list only utterances that could.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: one thread keeps the order of sums, and so the bits
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import soundfile
from xaibench_minivoc import vocoders

from rebuild import chain, clips, neural
from xaibench.errors import AudioError

Synthesis = Callable[[np.ndarray, int], np.ndarray]
DSP: dict[str, Synthesis] = {
    "world": vocoders.world.function,
    "mlsa": vocoders.mlsa.function,
    "griffinlim": vocoders.griffin_lim.function,
}
NEURAL = {"hifigan": neural.hifigan, "lyra": neural.lyra}
COPIED = ("utt_id", "speaker", "gender", "language", "licence", "package", "split")
COLUMNS = (*COPIED, "vocoder", "path", "n_samples")


@cache
def synthesis(name: str, weights: Path | None) -> Synthesis:
    """A vocoder by the name it has in the manifests; a neural one reads its weights once per process."""
    if name in DSP:
        return DSP[name]
    if weights is None:
        raise TypeError(f"vocoder {name!r} needs the folder of its weights")
    return NEURAL[name](weights)


def versions(row: Mapping[str, str], sources: Path, names: Iterable[str], weights: Path | None) -> dict[str, np.ndarray]:
    """One utterance in all versions, `{name: (N,) int16}`, bona fide first."""
    x = chain.prepare(clips.load(row, sources))
    made = {"bonafide": x, **{name: synthesis(name, weights)(x.copy(), clips.SAMPLE_RATE) for name in names}}
    return chain.finish(made, row["utt_id"])


def build(
    row: Mapping[str, str], *, sources: Path, pool: Path, names: tuple[str, ...], weights: Path | None
) -> list[list[object]] | str:
    """Write the files of one utterance; returns its rows of the pool's manifest, or the reason why it was left out."""
    rows: list[list[object]] = []
    try:
        made = versions(row, sources, names, weights)
    except (ValueError, AudioError) as error:
        return f"{row['utt_id']} left out: {error}"
    for name, samples in made.items():
        path = Path(row["split"]) / name / f"{row['utt_id']}.flac"
        (pool / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(pool / path, samples, clips.SAMPLE_RATE, subtype="PCM_16", compression_level=1.0)
        rows.append([*(row[c] for c in COPIED), name, path.as_posix(), len(samples)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("sources", type=Path)
    parser.add_argument("pool", type=Path)
    parser.add_argument("--vocoders", nargs="+", choices=[*DSP, *NEURAL], default=[*DSP, *NEURAL])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--utterances", nargs="+", help="only these (utt_id), for a check")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    if options.weights is None and set(options.vocoders) & set(NEURAL):
        parser.error(f"{' and '.join(NEURAL)} need --weights DIR; without weights: --vocoders {' '.join(DSP)}")
    with options.table.open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if not options.utterances or r["utt_id"] in options.utterances]
    options.pool.mkdir(parents=True, exist_ok=True)
    one = partial(build, sources=options.sources, pool=options.pool, names=tuple(options.vocoders), weights=options.weights)
    left_out = 0
    with (
        ProcessPoolExecutor(options.jobs) as executor,
        (options.pool / "manifest.csv").open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for count, written in enumerate(executor.map(one, rows, chunksize=2), start=1):
            if isinstance(written, str):
                left_out += 1
                print(written, flush=True)
            else:
                writer.writerows(written)
            if count % 40 == 0 or count == len(rows):
                print(f"{count} of {len(rows)} utterances", flush=True)
    sys.exit(bool(left_out))


if __name__ == "__main__":
    main()
