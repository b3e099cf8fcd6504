"""Every metric of the catalogue against its reference on random batches: odd shapes, ties, gaps in the valid cells, float32
and float64, maps of one sign and of both, silent ones.

The same batches in every run; XAIBENCH_TEST_SEED=7 draws others.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from differential.references import EQUATION, REFERENCES, Case, table
from seeds import SEED
from torch import nn
from toys import GRID, N_SAMPLES, SHAPE, ConvCM, LinearCM, truth_of, view_of

from xaibench.metrics.again import Again
from xaibench.metrics.catalog import FRACTIONS, METRICS
from xaibench.metrics.evidence import Evidence, Probe
from xaibench.types import Attribution, Axis, Truth

COUNT = 3
NEEDS = {
    name: ("explain" if "explain" in m.needs else "forward" if "forward" in m.needs else "") for name, m in METRICS.items()
}
BATCHES = {"": 40, "explain": 4, "forward": 2}  # the second countermeasure is convolutional


class Louder(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, log_odds: torch.Tensor) -> torch.Tensor:
        return self.factor * log_odds


def maps(draw: np.random.Generator, shape: tuple[int, ...], *, ties: bool = True) -> np.ndarray:
    """One of several kinds, exact in float32."""
    kind = draw.integers(5 if ties else 2)
    made = draw.standard_normal(shape).astype(np.float32)
    if kind == 1:
        made = np.abs(made)
    if kind == 2:
        made = draw.integers(-3, 4, shape).astype(np.float32)
    if kind == 3:
        made = np.maximum(made, 0)  # half of the cells are zero, as after a ReLU
    if kind == 4:
        made[draw.integers(len(made))] = draw.integers(-1, 2)  # constant, or zero
    return made * np.float32(10.0 ** draw.integers(-3, 4))


def cells(draw: np.random.Generator) -> tuple[Case, Evidence]:
    """A batch of small maps and a truth; no countermeasure."""
    f, t, count = draw.integers(1, 12), draw.integers(3, 40), draw.integers(1, 4)
    valid = np.repeat(np.arange(f)[:, None] >= draw.integers(f), t, 1) if draw.random() < 0.5 else draw.random((f, t)) < 0.8
    valid[-1, :2] = True
    while valid.sum() < 60:  # 1 % of the cells is one
        valid, f = np.concatenate([valid, valid[-1:]]), f + 1
    values = maps(draw, (count, f, t))
    amount = np.abs(maps(draw, (count, f, t))) * valid
    region = draw.random((count, f, t)) < draw.choice([0.02, 0.1, 0.5])
    added = draw.random((count, f, t)) < 0.5
    case = Case(values.astype(float), region, amount.astype(float), added, valid)
    axes = Axis("frequency", range(f + 1)), Axis("time", range(t + 1))
    on_view = torch.from_numpy(values).to(torch.float64 if draw.random() < 0.5 else torch.float32)
    parts = {"values": amount, "region": region, "valid": valid, "added": added}
    truth = Truth(name="eq2", **{key: torch.from_numpy(part) for key, part in parts.items()})
    return case, Evidence(Attribution(on_view, *axes), on_view, truth, SimpleNamespace(valid=truth.valid))


def heard(draw: np.random.Generator, number: int) -> tuple[Case, Evidence]:
    """A batch with a countermeasure and a method that answers any change with another map."""
    bias = float(draw.normal())
    cm = ConvCM(seed=int(draw.integers(99))) if number % 2 else LinearCM(bias=bias, seed=int(draw.integers(99)))
    view, truth = view_of(cm, COUNT, seed=int(draw.integers(999))), truth_of(COUNT)
    gap = (view.score(view.inputs) - view.score(view.fill("twin"))).mean()
    view = replace(view, model=nn.Sequential(view.model, Louder(4 / float(gap))))  # it tells most pairs apart
    values = maps(draw, (COUNT, *SHAPE), ties=False)
    valid = np.repeat((np.arange(SHAPE[0]) >= draw.integers(1, 9))[:, None], SHAPE[1], 1)
    fractions, side = FRACTIONS["quick"], int(draw.integers(4, 12))
    probe = Probe(view, torch.from_numpy(valid), fractions, side=side)
    changes = [f"{r}{n}" for r in ("", "randomised:1.0+") for n in ("noise:40:0", "noise:40:1", "noise:40:2")]
    changes += [*(f"randomised:{s}" for s in (0.25, 0.5, 0.75, 1.0)), "white:20:0", "codec:mu-law", "codec:vorbis"]
    changes += ["bonafide-logit", "opposite", "shift:1.0"]
    again = {c: (values + maps(draw, values.shape), view.inputs.numpy() + maps(draw, view.inputs.shape)) for c in changes}

    def explain(change: str) -> Again:
        return Again(*map(torch.from_numpy, again[change]))

    given = torch.from_numpy(values)
    made = Evidence(Attribution(given, GRID.frequency, GRID.time(N_SAMPLES)), given, truth, probe, explain)
    parts = (truth.region.numpy(), truth.values.double().numpy(), truth.added.numpy())
    case = Case(values.astype(float), *parts, valid, view, probe.subsets.numpy(), fractions, side, again)
    return case, made


@pytest.fixture(scope="module")
def batches():
    """Kind of metric -> its batches; made once."""
    start, made = (0 if SEED is None else SEED), {}
    for kind, count in BATCHES.items():
        draws = [np.random.default_rng([start, count, number]) for number in range(count)]
        made[kind] = [heard(draw, n) if kind else cells(draw) for n, draw in enumerate(draws)]
    return made


def test_every_metric_has_a_reference_and_every_reference_a_metric():
    assert set(REFERENCES) == set(METRICS)


def test_what_no_library_has_is_known_and_the_page_tells_the_truth():
    """Families of which no entry has a reference in scipy, scikit-learn or numpy: their equation is written out."""
    alone = {name.removesuffix("-probability") for name, reference in REFERENCES.items() if reference.against == EQUATION}
    alone = {name.removesuffix(end) for name in alone for end in ("-silence", "-mean", "-twin") if name.endswith(end)} | {
        name for name in alone if not name.endswith(("-silence", "-mean", "-twin"))
    }
    assert alone == {
        "mass-accuracy", "pointing-game", "rcq", "drop", "monotonicity", "aopc-morf", "aopc-lerf", "abpc", "sufficiency",
        "comprehensiveness", "average-drop", "average-increase", "average-gain", "fid-in", "faithfulness-on-spectra",
        "sparseness", "effective-area", "completeness",
    }  # fmt: skip
    page = Path(__file__).parents[2] / "docs" / "mutation.md"
    assert table() in page.read_text(encoding="utf-8"), "docs/mutation.md is old: python tests/mutation/page.py"


@pytest.mark.parametrize("name", METRICS)
def test_agrees_with_its_reference(name, batches):
    compared = 0
    for number, (case, evidence) in enumerate(batches[NEEDS[name]]):
        ours = METRICS[name].function(evidence).tolist()
        theirs = [REFERENCES[name].score(case, i) for i in range(len(case.maps))]
        for mine, other in zip(ours, theirs, strict=True):
            if other is not None:
                assert mine == pytest.approx(other, rel=2e-4, abs=2e-5, nan_ok=True), f"batch {number}, seed {SEED}"
                compared += not np.isnan(other)
    assert compared >= 3, f"{name}: nothing to compare with seed {SEED}"
