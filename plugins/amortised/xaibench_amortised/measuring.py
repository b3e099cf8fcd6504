"""How close a network comes to the Shapley values it stands for: KernelSHAP with thousands of coalitions an excerpt.

Excerpts are of the eval split, which no training saw, held-out vocoders among them; scores are computed in the precision
of the training. One row a way of answering:

    network     one forward pass
    mean map    the same map for every excerpt, the mean of the reference over the others, made efficient
    equal       the gap in equal shares: what efficiency alone gives
    kernel 80   KernelSHAP with 80 coalitions, the budget of `kernel-shap`
    half        KernelSHAP with half of the coalitions, which the reference shares: has it settled?

r2: 1 - sum (phi - reference)^2 / sum (reference - its mean over patches)^2, over patches, mean and median over excerpts.
rank: Spearman's correlation over patches, mean over excerpts. random: the same with patches shuffled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from xaibench.protocols import Corpus, Countermeasure
from xaibench.weights import read_card
from xaibench_amortised import shapley
from xaibench_amortised.checkpoint import load
from xaibench_amortised.training import Spec, views


def measure(
    cm: Countermeasure, corpora: Sequence[Corpus], weights: Path, *, excerpts: int = 40, masks: int = 2000
) -> pd.DataFrame:
    """The table above. `masks`: coalitions an excerpt for the reference."""
    network = load(weights)
    learned = Spec(**read_card(weights)["spec"])
    spec = replace(learned, excerpts=excerpts, masks=masks)
    ways: dict[str, list[np.ndarray]] = {name: [] for name in ("reference", "network", "equal", "kernel 80", "half")}
    for _, view in views(cm, corpora, spec, "eval"):
        for one in view.each():
            kept = shapley.coalitions(network.rows * network.columns, masks, one.generator())
            worth = one.score(one.filled(kept[:, network.numbers][None], spec.fill))
            none, whole = one.score(one.fill(spec.fill)), one.score(one.inputs)
            gap = (whole - none)[0]
            middle = masks // 4 * 2
            answers = {
                "reference": shapley.solved(kept, worth - none, gap),
                "network": shapley.efficient(network(one.inputs).detach(), gap[None])[0],
                "equal": gap.expand(kept.shape[1]) / kept.shape[1],
                "kernel 80": shapley.solved(kept[:80], worth[:80] - none, gap),
                "half": shapley.solved(kept[:middle], worth[:middle] - none, gap),
            }
            for name, values in answers.items():
                ways[name].append(values.double().numpy())
    return compared({name: np.stack(rows) for name, rows in ways.items()})


def compared(ways: dict[str, np.ndarray]) -> pd.DataFrame:
    """Each way `(N, d)` against the way `reference`, and the mean of the other excerpts' references."""
    truth = ways["reference"]
    total, count = truth.sum(0), len(truth)
    if count > 1:
        mean = (total - truth) / (count - 1)
        ways = {**ways, "mean map": mean + (truth.sum(1) - mean.sum(1))[:, None] / truth.shape[1]}
    draw = np.random.default_rng(0)
    rows = {}
    for name, values in ways.items():
        r2 = 1 - ((values - truth) ** 2).sum(1) / ((truth - truth.mean(1, keepdims=True)) ** 2).sum(1)
        flat = np.ptp(values, axis=1).max() < 1e-9
        rank = [0.0 if flat else spearmanr(a, b).statistic for a, b in zip(values, truth, strict=True)]
        shuffled = [0.0 if flat else spearmanr(draw.permutation(a), b).statistic for a, b in zip(values, truth, strict=True)]
        rows[name] = {
            "r2": r2.mean(), "r2 median": np.median(r2), "rank": np.mean(rank), "rank, shuffled": np.mean(shuffled),
        }  # fmt: skip
    return pd.DataFrame(rows).T
