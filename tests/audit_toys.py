"""Invented rows for the parts of the audit, and the words of a page."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from xaibench.leaderboard.table import RUN_COLUMNS
from xaibench.types import ROW_COLUMNS

VOCODERS = ("griffinlim", "world")


def rows_of(
    scores: Mapping[str, Mapping[str, object]], *, truth: str = "eq2", vocoders: tuple[str, ...] = VOCODERS, **fixed: object
) -> pd.DataFrame:
    """Rows of `attributor -> metric -> scores (utterances, vocoders)`; NaN becomes an undefined cell."""
    lines = []
    for attributor, metrics in scores.items():
        for metric, values in metrics.items():
            for u, line in enumerate(np.asarray(values, dtype=float).reshape(-1, len(vocoders))):
                for vocoder, value in zip(vocoders, line, strict=True):
                    lines.append(
                        {
                            "run": "r", "dataset": "toy", "utterance": f"u{u}", "speaker": f"s{u % 2}", "vocoder": vocoder,
                            "countermeasure": "cm", "attributor": attributor, "route": "native", "truth": truth,
                            "metric": metric, "value": value, "status": "undefined" if np.isnan(value) else "ok",
                            "seconds": 0.1, "note": "", "fingerprint": "f", "eer": 0.1, "pairs": 12.0, "dirty": False,
                            "precision": "fp32",
                            **fixed,
                        }
                    )  # fmt: skip
    return pd.DataFrame(lines, columns=[*ROW_COLUMNS, *RUN_COLUMNS])


def around(mean: float, *, utterances: int = 8, spread: float = 0.02, seed: int = 0, vocoders: int = 2) -> np.ndarray:
    """Scores `(utterances, vocoders)` about a mean."""
    return mean + spread * np.random.default_rng([seed, round(1000 * abs(mean))]).standard_normal((utterances, vocoders))
