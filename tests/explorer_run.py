"""A run folder with maps and recordings, small and invented, for tests of the explorer."""

from __future__ import annotations

from pathlib import Path

import fake_run
import numpy as np
import pandas as pd
import torch

from xaibench import audio, maps
from xaibench.grid import Grid
from xaibench.protocols import Corpus, Dataset
from xaibench.truth import TruthSpec, truth
from xaibench.types import Utterance

EVIL = "<img src=x onerror=alert(1)>"
RATE, BAND = 8_000, (300.0, 3_500.0)
GRID = Grid(sample_rate=RATE, n_fft=128, hop=50)
PAIRS = ("u0/griffinlim", "u1/world", "u2/world")
METHODS = ("saliency", "grad-cam", "random", "oracle", EVIL)
FRACTIONS = (0.0, 0.05, 0.2, 0.5, 1.0)


def speech(seed: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """A voice-like sound and a changed copy, 16 bit. Shape: `(N,)` twice."""
    rng, t = np.random.default_rng(seed), np.arange(samples) / RATE
    pitch = np.cumsum(120 + 30 * np.sin(2 * np.pi * 2 * t)) / RATE
    voice = sum(np.sin(2 * np.pi * k * pitch) / k for k in range(1, 20)) * (0.2 + 0.15 * np.sin(2 * np.pi * 3 * t))
    fake = voice + 0.05 * rng.normal(size=samples) * (t > 0.1)
    return tuple((np.rint(8000 * x / np.abs(x).max()) / 32768).astype(np.float32) for x in (voice, fake))


def values(name: str, seed: int, region: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The map of a method: noise, few distinct values, a smooth hill, or the truth itself."""
    rng = np.random.default_rng([seed, len(name)])
    if name == "oracle":
        return region
    if name == "grad-cam":
        return np.round(np.sin(np.arange(shape[0])[:, None] / 9) * np.cos(np.arange(shape[1]) / 7), 1)
    if name == EVIL:
        return rng.integers(-2, 3, shape).astype(float)
    return rng.normal(size=shape)


def make(folder: Path, *, samples: int = 4_000, routes: tuple[str, ...] = ("native",), curves: bool = True) -> Path:
    """A run of `PAIRS` and `METHODS`; recordings lie in `folder/audio`."""
    scores = {name: {"rank-accuracy": 0.1 * i, "deletion-twin": -i} for i, name in enumerate(METHODS)}
    rows = pd.concat([fake_run.rows(scores, utterances=3, route=route) for route in routes])
    rows = rows[(rows["utterance"] + "/" + rows["vocoder"]).isin(PAIRS)]
    bad = rows["attributor"].eq("grad-cam") & rows["metric"].eq("rank-accuracy") & rows["utterance"].eq("u0")
    rows = fake_run.fail(rows, bad, note="out of <b>memory</b>")
    record = fake_run.run_record(pairs=3)
    record["dataset"] |= {"licence": "CC0 <i>", "citation": "Nobody (2026)"}
    record["countermeasures"]["lcnn"]["card"] = {"n_samples": samples}
    run = folder / "run"
    for route in routes:
        fake_run.write_run(run, rows[rows["route"].eq(route)], record)
    for seed, pair in enumerate(PAIRS):
        real, fake = speech(seed, samples)
        for name, wave in (("bonafide", real), (pair.split("/")[1], fake)):
            path = folder / "audio" / f"{pair.split('/')[0]}_{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            audio.write(path, wave, sample_rate=RATE)
        found = truth(*(torch.from_numpy(x)[None] for x in (fake, real)), grid=GRID, band=BAND, spec=TruthSpec())
        facts = {"grid": f"{RATE}/{GRID.n_fft}/{GRID.hop}/hann", "truth": "eq2"}
        shape = tuple(found.values.shape[1:])
        maps.write_truth(
            maps.truth_path(run, "eq2", shape[1], pair), found.values[0], found.region[0], found.valid, metadata=facts
        )
        for route in routes:
            for name in METHODS:
                curve = {"fractions": FRACTIONS, "deletion-twin": np.linspace(5, -len(name), 5)} if curves else None
                content = values(name, seed, found.values[0].numpy(), shape)
                maps.write_map(maps.map_path(run, "lcnn", route, name, pair), content, metadata=facts, curves=curve)
    return run


def dataset(folder: Path, *, twins: bool = True) -> Dataset:
    """The data set of `make(folder)`, for `registry.load`."""
    found = []
    for pair in PAIRS:
        source, vocoder = pair.split("/")
        for name in ("bonafide", vocoder) if twins else (vocoder,):
            segments = () if twins else ((0.0, 0.1, "bonafide"), (0.1, 0.5, "spoof"))
            path = folder / "audio" / f"{source}_{name}.wav"
            found.append(Utterance(source, "s0", "eval", name, path, n_samples=0, segments=segments))
    corpus = Corpus(name="toy", utterances=tuple(found), sample_rate=RATE, valid_band=BAND)
    return Dataset("toy", "a toy", lambda root: corpus)
