"""Every metric of the catalogue on evidence that nobody would make on purpose (`tests/nasty.py`).

Whatever it is asked, a metric gives one number an utterance, in the range that it declares, or NaN where it has no value,
and then `why_undefined` says what was missing; or it raises XaibenchError, for a map or a countermeasure that is at fault,
or for too few cells. An utterance's number does not depend on what else is in the batch.

What counts as one input: one metric asked about one utterance in a batch. `FUZZ` and `FUZZ_SEED`: see `tests/fuzzing.py`.
"""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import replace

import nasty
import numpy as np
import pytest
import torch
from fuzzing import TIMES, fuzz, handed
from hypothesis import given
from hypothesis import strategies as st
from nasty import ANSWERS, ANSWERS_FINITE, MAPS, NOT_FINITE, REGIONS, SHAPES, VALID, Utterance, evidence_of

from xaibench.errors import XaibenchError
from xaibench.harness.form import scores
from xaibench.metrics import marginals, temporal
from xaibench.metrics.catalog import METRICS
from xaibench.metrics.undefined import SAME, SILENT, SILENT_IN_BAND, UNKNOWN, why_undefined

#: Every other rounding of a number than in a batch: vectorised sigmoids and logarithms round by place.
ROUNDING = 1e-12
#: What a metric may say of finite maps and of a countermeasure that gives numbers.
MAY_SAY = re.compile(r"a share of [\d.]+ of \d+ valid cells is 0 cells|beyond float32")
#: Asked of maps and truths alone: no forward pass, so many more of them.
OF_MAPS = {name: m for name, m in METRICS.items() if not m.needs & {"forward", "explain"}}

FINITE_MAPS = [name for name in MAPS if name not in NOT_FINITE]
SEEDS = st.integers(0, 2**31)
DTYPES = st.sampled_from([torch.float32] * 4 + [torch.float64, torch.float16, torch.bfloat16])


def utterances(maps, answers):
    return st.builds(
        Utterance, map=st.sampled_from(maps), region=st.sampled_from(list(REGIONS)),
        amount=st.sampled_from(list(nasty.AMOUNTS)), answer=st.sampled_from(list(answers)), seed=SEEDS,
    )  # fmt: skip


def asked(metric, evidence):
    """Its numbers, one an utterance, or its sentence. Anything else that it raises or warns of fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return scores(metric, metric.function(evidence), len(evidence.on_view))
        except XaibenchError as error:
            return str(error)


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b)) or abs(a - b) <= ROUNDING * max(1.0, abs(a))


def undefined(name: str, evidence) -> bool | None:
    """Whether a score of one map against one truth has no value, in so many words; None for what is not one."""
    metric, truth = METRICS[name], evidence.truth
    if metric.family not in ("localisation", "complexity"):
        return None
    a, valid = evidence.attribution.values[0].double().numpy(), truth.valid.numpy()
    region, amount, inside = truth.region[0].numpy() & valid, truth.values[0].numpy()[valid], a[valid]
    if not inside.any():
        return True
    if metric.family == "complexity":
        return False
    if name in ("ndcg", "spearman"):
        return not amount.any() if name == "ndcg" else amount.min() == amount.max()
    if not {"frequency", "time"} <= metric.needs:
        make = temporal.frames if "time" in metric.needs else marginals.frequencies
        marginal, spoofed, share = (part[0].numpy() for part in vars(make(torch.from_numpy(a)[None], truth)).values())
        if not spoofed.any() or spoofed.all() or (name.startswith("spearman") and share.min() == share.max()):
            return True
        return not (marginal > 0).any() if name == "rcq" else not marginal.any()
    if name.endswith(("-added", "-missing")):
        added = truth.added[0].numpy()
        region = region & (added if name.endswith("-added") else ~added)
    if name == "mass-accuracy" and not (inside > 0).any():
        return True
    return not region.any() or (name.startswith("roc-auc") and bool(region[valid].all()))


def judge(name, metric, evidence, alone, batch):
    """Ask one metric of a batch and of each of its utterances alone, and hold both to what the module's docstring says."""
    together, singles = asked(metric, evidence), [asked(metric, one) for one in alone]
    if isinstance(together, str):
        assert any(isinstance(s, str) for s in singles), f"{name} fails in a batch only: {together}"
    for index, (utterance, single) in enumerate(zip(batch, singles, strict=True)):
        sound = utterance.map not in NOT_FINITE and utterance.answer in ANSWERS_FINITE
        if isinstance(single, str):
            assert not sound or MAY_SAY.search(single), f"{name}: {single}"
            assert isinstance(together, str), f"{name} fails alone only: {single}"
            continue
        (value,) = single
        low, high = metric.range
        assert math.isnan(value) or low <= value <= high, f"{name} = {value!r}"
        assert metric.family == "axioms" or utterance.map not in NOT_FINITE, f"{name} of a map with a {utterance.map}"
        assert utterance.answer != "NaN" or "forward" not in metric.needs, f"{name} of a countermeasure that says NaN"
        if not isinstance(together, str):
            assert same(value, together[index]), f"{name}: {value!r} alone, {together[index]!r} in the batch"
        wanted = undefined(name, alone[index])
        assert wanted is None or wanted == math.isnan(value), f"{name} = {value}"
        if math.isnan(value):
            hold_to_its_reason(metric, alone[index])


def hold_to_its_reason(metric, evidence):
    why = why_undefined(metric, evidence, 0)
    assert why != UNKNOWN and why == why_undefined(metric, evidence, 0), metric.name
    of_grid = metric.family in ("localisation", "complexity")
    values = (evidence.attribution.values if of_grid else evidence.on_view)[0]
    assert (why == SILENT) == (not values.any()), f"{metric.name}: {why}"
    if why == SILENT_IN_BAND:
        assert not values[evidence.truth.valid].any()
    if why == SAME:
        assert not (evidence.truth.region[0] & evidence.truth.valid).any()


def everything(test, metrics, batch, shape, options):
    """All of these metrics on one batch; counts what was handed over."""
    try:
        evidence = evidence_of(batch, shape, **options)
    except XaibenchError as error:
        assert options["valid"] in ("none", "scattered") and "hold at least one cell" in str(error)
        return
    handed[f"{test}, utterances"] += len(batch)
    alone = [evidence_of([one], shape, **options) for one in batch]
    for name, metric in metrics.items():
        judge(name, metric, evidence, alone, batch)
        handed[test] += len(batch)


OPTIONS = st.fixed_dictionaries({
    "dtype": DTYPES, "valid": st.sampled_from(list(VALID)), "seed": st.integers(0, 1000),
    "again": st.sampled_from(FINITE_MAPS),
})  # fmt: skip


#: What is asked: metrics, utterances of a batch, batches; and the fewest inputs and utterances that this must come to.
ASKED = {
    "every metric": (METRICS, st.lists(utterances(FINITE_MAPS, ANSWERS_FINITE), min_size=1, max_size=4), 60, 12_000, 80),
    "metrics of maps": (OF_MAPS, st.lists(utterances(FINITE_MAPS, ["plain"]), min_size=1, max_size=8), 150, 12_000, 250),
    "what is no number": (METRICS, st.lists(utterances(list(MAPS), ANSWERS), min_size=1, max_size=3), 25, 4_000, 25),
}


@pytest.mark.parametrize("times", [TIMES, pytest.param(20 * TIMES, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("what", ASKED)
def test_a_number_in_its_range_or_a_reason(what, times):
    metrics, batches, examples, inputs, fewest = ASKED[what]
    handed[what] = handed[f"{what}, utterances"] = 0

    @fuzz(examples, times=times)
    @given(batch=batches, shape=st.sampled_from(SHAPES), options=OPTIONS)
    def ask(batch, shape, options):
        everything(what, metrics, batch, shape, options)

    ask()
    assert handed[what] >= times * inputs and handed[f"{what}, utterances"] >= times * fewest, dict(handed)


def test_the_fuzz_knows_every_kind():
    """Each kind of map, alone, by every metric: none is left to chance."""
    for kind in MAPS:
        one = [Utterance(kind, seed=3)]
        everything("kinds", METRICS, one, (7, 5), {"dtype": torch.float32, "valid": "band", "seed": 1, "again": "noise"})
    for kind in ANSWERS:
        one = [Utterance("noise", answer=kind, seed=3), Utterance("ties", seed=4)]
        everything("kinds", METRICS, one, (5, 11), {"dtype": torch.float32, "valid": "all", "seed": 1, "again": "ties"})


@pytest.mark.parametrize("answer", ["NaN", "NaN when masked", "inf"])
def test_a_countermeasure_without_a_number_gives_no_metric_one(answer):
    """The masked inputs alone may be what it cannot take: a fall from or to NaN is no fall, and no share of steps."""
    found = {n: asked(m, evidence_of([Utterance("noise", answer=answer, seed=2)], (13, 29))) for n, m in METRICS.items()}
    silent = {n for n, said in found.items() if "forward" in METRICS[n].needs and not isinstance(said, str)}
    assert not silent, silent
    assert all("the countermeasure gives NaN or infinity as the score of" in s for s in found.values() if isinstance(s, str))
    assert not any(isinstance(said, str) for n, said in found.items() if "forward" not in METRICS[n].needs)


@pytest.mark.parametrize("value", [1e39, 1e300, 1e-50, 5e-324])
def test_maps_beyond_float32_give_the_right_number_or_are_refused(value):
    """Ranks know no size; sums and squares do, and those of float64 overflow. A map in a run is float32."""
    plain = evidence_of([Utterance("ties", region="random", seed=4)], (13, 29), dtype=torch.float64)
    scaled = replace(plain.attribution, values=plain.attribution.values * value)
    evidence = replace(plain, attribution=scaled, on_view=scaled.values)
    refused = 0
    for name, metric in OF_MAPS.items():
        found = asked(metric, evidence)
        if isinstance(found, str):
            assert "beyond float32" in found
            refused += 1
        else:
            np.testing.assert_allclose(found, asked(metric, plain), rtol=1e-9, err_msg=name)
    assert 0 < refused < len(OF_MAPS) / 2
