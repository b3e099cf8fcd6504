"""Lay the pools out as the three folders of the corpus, each with its manifest.csv.

    python -m rebuild.assemble MAIN WORDS MORE OUT

OUT/minivoc: 80 / 24 / 48 utterances of the main pool, round-robin over the speakers of each split, cut to the loudest
2 s of the bona fide version. OUT/minivoc-train: all other training utterances, full length, without the held-out
vocoder. OUT/minivoc-extra-eval: all other dev and eval utterances, full length. Samples are copied unchanged.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import random
import shutil
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import soundfile

SAMPLE_RATE = 16_000  # Hz
SECONDS = 2.0
STEP = 160  # samples: an excerpt starts on a multiple of 10 ms
COUNTS = {"train": 80, "dev": 24, "eval": 48}
HELD_OUT = ("lyra",)
COLUMNS = (
    "utt_id", "speaker", "gender", "gender_source", "language", "licence", "package", "split", "vocoder", "path",
    "duration", "n_samples", "window_start", "sha256",
)  # fmt: skip

#: Gender from the package, the file names or the credits; all others are inferred from the median F0.
STATED = frozenset({
    "allison", "carlo", "june", "ivrvoice_ru", "nl_small", "nl_big", "cs_small", "cs_big",
    "kl_da", "kl_en", "kl_he", "kl_nds",
})  # fmt: skip
UNKNOWN = frozenset({"kl_pt_br"})  # the credits name a man and a child

Versions = dict[str, dict[str, str]]  # vocoder -> row of the pool, with its root


def pool(root: Path) -> dict[str, Versions]:
    """`{utterance: {vocoder: row}}` of a built pool."""
    found: dict[str, Versions] = defaultdict(dict)
    with (root / "manifest.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found[row["utt_id"]][row["vocoder"]] = {**row, "file": str(root / row["path"])}
    return found


def choose(utterances: Mapping[str, Versions], counts: Mapping[str, int], seconds: float) -> list[str]:
    """Utterances at least `seconds` long, taken in turn from the speakers of each split; the draw is seeded by speaker."""
    kept: list[str] = []
    for split, wanted in counts.items():
        by_speaker: dict[str, list[str]] = defaultdict(list)
        for name in sorted(utterances):
            row = utterances[name]["bonafide"]
            if row["split"] == split and int(row["n_samples"]) / SAMPLE_RATE >= seconds:
                by_speaker[row["speaker"]].append(name)
        for speaker, names in by_speaker.items():
            random.Random(speaker).shuffle(names)
        chosen: list[str] = []
        while len(chosen) < wanted and any(by_speaker.values()):
            for speaker in sorted(by_speaker):
                if by_speaker[speaker] and len(chosen) < wanted:
                    chosen.append(by_speaker[speaker].pop())
        kept += chosen
    return kept


def loudest(samples: np.ndarray, length: int) -> int:
    """Start of the window of `length` samples with most energy, on a 10 ms grid (rounded down)."""
    if len(samples) <= length:
        return 0
    energy = np.concatenate([[0.0], np.cumsum(samples**2)])
    return int(np.argmax(energy[length:] - energy[:-length])) // STEP * STEP


def write_folder(
    out: Path, utterances: Mapping[str, Versions], *, seconds: float | None = None, without: Collection[str] = ()
) -> None:
    """Copy (or cut, with `seconds`) the files of `utterances` to `out` and write its manifest."""
    table: list[tuple[object, ...]] = []
    for name in sorted(utterances):
        versions = {vocoder: row for vocoder, row in utterances[name].items() if vocoder not in without}
        start: int | None = None
        if seconds is not None:
            start = loudest(soundfile.read(versions["bonafide"]["file"])[0], int(seconds * SAMPLE_RATE))
        for vocoder in sorted(versions, key=lambda v: (v != "bonafide", v)):
            row = versions[vocoder]
            target = out / row["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            if seconds is None or start is None:
                shutil.copyfile(row["file"], target)
            else:
                x = soundfile.read(row["file"], dtype="int16")[0][start : start + int(seconds * SAMPLE_RATE)]
                soundfile.write(target, x, SAMPLE_RATE, subtype="PCM_16", compression_level=1.0)
            table.append(_record(row, target, "" if start is None else round(start / SAMPLE_RATE, 2)))
    with (out / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *table])
    print(out.name, len(utterances), "utterances", len(table), "files")


def _record(row: Mapping[str, str], target: Path, start: object) -> tuple[object, ...]:
    n = soundfile.info(target).frames
    return (
        row["utt_id"], row["speaker"], "?" if row["speaker"] in UNKNOWN else row["gender"],
        "stated" if row["speaker"] in STATED else "inferred", row["language"], row["licence"], row["package"],
        row["split"], row["vocoder"], row["path"], round(n / SAMPLE_RATE, 4), n, start,
        hashlib.sha256(target.read_bytes()).hexdigest(),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("main", "words", "more", "out"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    main_pool = pool(options.main)
    excerpts = set(choose(main_pool, COUNTS, SECONDS))
    rest = {name: v for name, v in main_pool.items() if name not in excerpts}
    training = {name: v for name, v in rest.items() if v["bonafide"]["split"] == "train"}
    other = {name: v for name, v in rest.items() if name not in training}
    write_folder(options.out / "minivoc", {name: main_pool[name] for name in excerpts}, seconds=SECONDS)
    further = {**training, **pool(options.words), **pool(options.more)}
    write_folder(options.out / "minivoc-train", further, without=HELD_OUT)
    write_folder(options.out / "minivoc-extra-eval", other)


if __name__ == "__main__":
    main()
