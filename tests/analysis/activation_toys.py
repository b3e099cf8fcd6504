"""A run folder of invented maps on the embedded partially spoofed corpus: what `xaibench run --keep-maps` would leave."""

import json
from pathlib import Path

import numpy as np

from xaibench import maps, registry
from xaibench.harness.plan import ordered_pairs

EVIL = "<img src=x onerror=alert(1)>"
SHAPE = (257, 201)


def partial_run(folder: Path, *, pairs: int = 3) -> list:
    """Maps of `right` (the truth, scaled), `wrong` (its negative) and `EVIL` (noise) of lcnn; returns the pairs."""
    corpus = registry.open_corpus("minivoc-partial")
    chosen = ordered_pairs(corpus, "eval")[:pairs]
    grid = {"sample_rate": 16_000, "n_fft": 512, "hop": 160, "window": "hann"}
    spec = {
        "countermeasures": ["lcnn"], "attributors": ["right", "wrong"], "metrics": ["rank-accuracy-time"],
        "data": "minivoc-partial", "split": "eval", "grid": grid, "root": None,
        "truth": {"name": "segments", "kernel": [3, 11], "variance": [3.0, 5.0], "epsilon": 1e-8, "share": 0.05},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"spec": spec}), encoding="utf-8")
    for number, pair in enumerate(chosen):
        draw = np.random.default_rng(number)
        times = np.arange(SHAPE[1]) * 0.01
        spoofed = np.zeros(SHAPE[1], dtype=bool)
        for start, end, label in pair.spoof.segments:
            spoofed |= (times >= start) & (times < end) & (label == "spoof")
        right = np.tile(spoofed * 2.0, (SHAPE[0], 1))
        right[240:] = 99.0  # above the corpus' band of 7 kHz: must not count
        for name, values in (("right", right), ("wrong", -right), (EVIL, draw.random(SHAPE) - 0.5)):
            path = maps.map_path(folder, "lcnn", "native", name.replace("/", "|"), pair.id)
            maps.write_map(path, values, metadata={"grid": "16000/512/160/hann"})
    return chosen
