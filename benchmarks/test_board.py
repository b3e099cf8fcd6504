"""The board of a million rows, and what resuming such a run asks of it, against the targets of issue 5.

    .venv/bin/python -m pytest benchmarks/test_board.py -q --benchmark-json=board.json

The run folder is invented, its layout is the store's, `rows/CM/ROUTE-TRUTH/ATTRIBUTOR/BATCH-HASH.parquet`: 40 attributors x
42 metrics x 600 pairs, one file a chunk of 8 pairs (3,000 files) or one an attributor (40 files); and 8 countermeasures x
40 x 42 x 75 pairs (3,200 files), which is eight boards. One cell in a hundred failed. `xaibench leaderboard` is a process
of its own: seconds have the start of Python and every import, peak memory is its resident set, files are in the cache of
the system. `extra_info` of each row: "seconds" (median), "peak_gb", "rows", "files", "target".
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from process import measured

from xaibench.harness import missing
from xaibench.harness.results import SCHEMA, Store, safe
from xaibench.harness.spec import RunSpec
from xaibench.leaderboard.table import CEILINGS, DEFAULT_METRICS, FLOORS, SHAMS
from xaibench.metrics.catalog import METRICS
from xaibench.types import Pair, Utterance

TARGET = {"seconds": 3.0, "peak_gb": 1.0}
METHODS = (*FLOORS, *CEILINGS, *SHAMS, *(f"method-{i:02d}" for i in range(29)))
NAMES = tuple(dict.fromkeys([*DEFAULT_METRICS, *METRICS]))[:42]
VOCODERS = ("griffinlim", "hifigan", "world")
RUNS = {
    "40 files": {"batch": 600},
    "3,000 files": {"batch": 8},
    "8 countermeasures, 3,200 files": {"pairs": 75, "countermeasures": tuple(f"cm{i}" for i in range(8))},
}


def pair(number: int) -> tuple[str, str, str]:
    """Source utterance, speaker and vocoder of a pair: three vocoders an utterance, forty speakers."""
    return f"utterance_{number // 3:05d}", f"speaker_{number // 3 % 40:03d}", VOCODERS[number % 3]


def fingerprint(countermeasure: str, attributor: str, number: int) -> str:
    """As long as a real one, and another for every pair, countermeasure and attributor."""
    return hashlib.sha256(f"{countermeasure}/{attributor}/{number}".encode()).hexdigest()[:16]


def write_run(folder: Path, *, pairs: int = 600, batch: int = 8, countermeasures: tuple[str, ...] = ("lcnn",)) -> Path:
    """A run folder of 40 attributors x 42 metrics x `pairs` a countermeasure, `batch` pairs a file.

    Scores are normal around a mean a method, with a part that a pair gives to every method.
    """
    random = np.random.default_rng(0)
    shared = random.normal(0, 0.1, pairs)
    for cm in countermeasures:
        for method in METHODS:
            where = folder / "rows" / safe(cm) / "native-eq2" / safe(method)
            where.mkdir(parents=True)
            middle = 1.0 if method == "oracle" else random.uniform(0.1, 0.8)
            for number, start in enumerate(range(0, pairs, batch)):
                who = np.repeat(np.arange(start, min(start + batch, pairs)), len(NAMES))
                value = middle + shared[who] + random.normal(0, 0.05, len(who))
                value[random.uniform(size=len(who)) < 0.01] = np.nan
                name = hashlib.sha256(f"{cm}{method}{number}".encode()).hexdigest()[:12]
                pq.write_table(_rows(cm, method, who, value), where / f"{number:05d}-{name}.parquet")
    record = {
        "spec": {"data": "toy", "preset": "full", "truth": {"name": "eq2"}, "grid": {"n_fft": 512}, "seed": 0},
        "environment": {"xaibench": "0.1.0", "git_commit": "0" * 40, "git_dirty": False},
        "countermeasures": {cm: {"card": {}, "weights": "abc", "eer": 0.05} for cm in countermeasures},
        "dataset": {"name": "toy", "hash": "d" * 8, "utterances": -(-pairs // 3), "pairs": pairs},
    }
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def _rows(cm: str, method: str, who: np.ndarray, value: np.ndarray) -> pa.Table:
    n, ok = len(who), ~np.isnan(value)
    of = {int(u): (*pair(u), fingerprint(cm, method, int(u))) for u in np.unique(who)}
    source, speaker, vocoder, prints = zip(*(of[u] for u in who.tolist()), strict=True)
    columns = {
        "run": ["run"] * n, "dataset": ["toy"] * n, "utterance": source, "speaker": speaker, "vocoder": vocoder,
        "countermeasure": [cm] * n, "attributor": [method] * n, "route": ["native"] * n, "truth": ["eq2"] * n,
        "metric": NAMES * (n // len(NAMES)), "value": pa.array(value, from_pandas=True),
        "status": np.where(ok, "ok", "failed").tolist(), "seconds": (0.1 + who * 1e-4).tolist(),
        "note": np.where(ok, "", "out of memory").tolist(), "fingerprint": prints,
    }  # fmt: skip
    return pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run folders by name, each made when first asked for."""
    root = tmp_path_factory.mktemp("board")

    class Made(dict):
        def __missing__(self, name: str) -> Path:
            self[name] = write_run(root / name.replace(" ", "-"), **RUNS[name])
            return self[name]

    return Made()


@pytest.mark.benchmark(group="xaibench leaderboard, 1,008,000 rows")
@pytest.mark.parametrize("name", RUNS)
def test_leaderboard(benchmark, runs, name):
    run = runs[name]
    files = list(run.rglob("*.parquet"))
    measured(benchmark, ["-m", "xaibench.cli", "leaderboard", str(run)], rounds=5)
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    benchmark.extra_info |= {"rows": rows, "files": len(files), "target": TARGET}


@pytest.mark.benchmark(group="resuming a run of 1,008,000 rows")
@pytest.mark.parametrize("name", ["40 files", "3,000 files"])
def test_resume(benchmark, runs, monkeypatch, name):
    """Every row read, its fingerprint held against what its cell has now, and nothing found missing."""
    pairs = [
        Pair(*(Utterance(s, k, "eval", v, Path("x.wav"), "0" * 64) for v in ("bonafide", w)))
        for s, k, w in map(pair, range(600))
    ]
    place = {p.id: i for i, p in enumerate(pairs)}
    real = missing.fingerprint

    def known(spec, pair, facts):
        real(spec, pair, facts)  # what it costs
        return fingerprint(facts["cm"], facts["attributor"], place[pair.id])

    monkeypatch.setattr(missing, "fingerprint", known)
    spec = RunSpec(countermeasures=("lcnn",), attributors=METHODS, metrics=NAMES)
    bench = SimpleNamespace(
        batch_size=8, route=lambda cm: "native", facts=lambda cm, route, attributor: {"cm": cm, "attributor": attributor},
        countermeasure=lambda cm: SimpleNamespace(module=SimpleNamespace(n_samples=64_000)),
    )  # fmt: skip
    store = Store(runs[name])

    def resume() -> int:
        have = missing.retire_stale(spec, bench, pairs, store, {}, {}, [])
        assert not list(missing.missing_chunks(spec, bench, pairs, have, store.path))
        return len(have)

    rows = benchmark.pedantic(resume, rounds=3, warmup_rounds=1)
    benchmark.extra_info |= {"seconds": benchmark.stats.stats.median, "rows": rows}
