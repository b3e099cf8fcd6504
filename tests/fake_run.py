"""Run folders made of invented rows, for tests of what reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from xaibench.types import ROW_COLUMNS

VOCODERS = ("griffinlim", "world")


def run_record(
    *, eer: float = 0.05, pairs: int = 12, weights: str = "abc", dirty: bool = False, dataset: str = "toy", **spec: object
) -> dict:
    """What `run.json` holds."""
    return {
        "spec": {"data": dataset, "preset": "quick", "truth": {"name": "eq2"}, "grid": {"n_fft": 512}, "seed": 0, **spec},
        "environment": {"xaibench": "0.1.0", "git_commit": "0" * 40, "git_dirty": dirty},
        "countermeasures": {"lcnn": {"card": {}, "weights": weights, "eer": eer, "card_eer": {"eval": 0.04}}},
        "dataset": {"name": dataset, "hash": "d" * 8, "utterances": pairs // len(VOCODERS), "pairs": pairs},
    }


def rows(
    scores: dict[str, dict[str, float]], *, utterances: int = 6, spread: float = 0.01, seed: int = 0, **fixed: object
) -> pd.DataFrame:
    """Rows `attributor -> metric -> mean`: scores around the mean, with the part an utterance gives to every method.

    Oracles and other methods of spread 0 can be had with a mean of exactly 1.
    """
    shared = np.random.default_rng(seed).normal(0, spread, utterances)
    lines = []
    for attributor, means in scores.items():
        own = np.random.default_rng([seed, sum(map(ord, attributor))])
        for metric, mean in means.items():
            for u in range(utterances):
                for vocoder in VOCODERS:
                    noise = shared[u] + own.normal(0, spread / 3)
                    value = mean if mean == 1 or spread == 0 else mean + noise
                    lines.append(
                        {
                            "run": "r", "dataset": "toy", "utterance": f"u{u}", "speaker": f"s{u % 2}", "vocoder": vocoder,
                            "countermeasure": "lcnn", "attributor": attributor, "route": "native", "truth": "eq2",
                            "metric": metric, "value": value, "status": "ok", "seconds": 0.5, "note": "",
                            "fingerprint": f"{attributor}-{u}-{vocoder}", **fixed,
                        }
                    )  # fmt: skip
    return pd.DataFrame(lines, columns=list(ROW_COLUMNS))


def fail(table: pd.DataFrame, where: pd.Series, *, status: str = "failed", note: str = "out of memory") -> pd.DataFrame:
    """The same rows with the cells `where` gone wrong."""
    table = table.copy()
    table.loc[where, "value"] = np.nan
    table.loc[where, "status"] = status
    table.loc[where, "note"] = note
    return table


def write_run(folder: Path, table: pd.DataFrame, record: dict | None = None) -> Path:
    """A run folder as the harness leaves it: one parquet file an attributor."""
    for (cm, attributor), part in table.groupby(["countermeasure", "attributor"]):
        target = folder / "rows" / cm / f"{part['route'].iloc[0]}-eq2" / attributor
        target.mkdir(parents=True, exist_ok=True)
        part.to_parquet(target / "00000-000000000000.parquet", index=False)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(record or run_record()), encoding="utf-8")
    return folder


#: A board where a floor beats two of three methods in alignment, and faithfulness orders them the other way round.
SCORES = {
    "saliency": {"rank-accuracy": 0.10, "drop-twin": 0.9},
    "lime": {"rank-accuracy": 0.15, "drop-twin": 0.6},
    "grad-cam": {"rank-accuracy": 0.40, "drop-twin": 0.3},
    "inverse-energy": {"rank-accuracy": 0.25, "drop-twin": 0.2},
    "random": {"rank-accuracy": 0.05, "drop-twin": 0.1},
    "oracle": {"rank-accuracy": 1.0, "drop-twin": 0.8},
}
