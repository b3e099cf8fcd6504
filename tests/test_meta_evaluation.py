"""The meta-evaluation of metrics: known scores, a literal twin, estimators of which everything is known, toys end to end."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
import toybench
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from twins import meta as twin

from xaibench.audit import perturbed
from xaibench.audit.meta import Scores, consistency, intra, meta_section, moved, same_rank, same_ranks, signed_rank_p, worse
from xaibench.audit.perturbed import meta_evaluate, other_model, redrawn, scaled
from xaibench.errors import Unsupported, XaibenchError
from xaibench.harness.again import changed_view
from xaibench.harness.plan import Chunk, ordered_pairs
from xaibench.harness.workbench import Workbench
from xaibench.metrics.catalog import METRICS
from xaibench.weights import weights_hash

K, L, N = 2, 3, 5
#: Whole numbers from a small range: ties and unchanged scores are frequent.
FEW = st.integers(-2, 2).map(float)


def scores(before, minor, disruptive, *, floor=None, kept=None, flipped=None) -> Scores:
    before, minor, disruptive = (np.asarray(x, dtype=np.float64) for x in (before, minor, disruptive))
    yes = np.ones((len(minor), before.shape[1]), dtype=bool)
    floor = before.min(axis=0) if floor is None else np.asarray(floor)
    return Scores(before, floor, minor, disruptive, yes if kept is None else kept, yes if flipped is None else flipped)


# ---- worked by hand --------------------------------------------------------------------------------------------------


def test_the_four_numbers_of_scores_worked_by_hand():
    # Two methods, four utterances, one draw. Higher is better.
    before = [[1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 1.0, 1.0]]
    # Method 1 changes by +0.1, -0.2, +0.3, +0.4: rank sum 8 of 10; as far from 5: 0, 1, 2, 8, 9, 10 with 1 pattern each
    # (3 and 7 have two): 6 of 16. Method 2 stays: 1.
    minor = [[[1.1, 1.8, 3.3, 4.4], [2.0, 1.0, 1.0, 1.0]]]
    # Both fall everywhere, but method 2 stays on the first utterance: 4 + 3 of 8. p: 2 / 16, and three changes, 2 / 8.
    disruptive = [[[0.9, 1.7, 2.5, 3.1], [2.0, 0.9, 0.8, 0.7]]]
    found = consistency(scores(before, minor, disruptive), higher=True)
    assert pytest.approx((6 / 16 + 1) / 2) == found.IAC_NR
    assert pytest.approx(1 - (2 / 16 + 2 / 8) / 2) == found.IAC_AR
    assert found.IEC_NR == 1  # method 2 leads on the first utterance, method 1 on the others, before and after
    assert found.IEC_AR == 7 / 8
    assert pytest.approx((11 / 16 + 13 / 16 + 1 + 7 / 8) / 4) == found.MC
    assert found.IEC_floor == 4 / 8  # the floor is the worse of both
    assert consistency(scores(before, minor, disruptive), higher=False).IEC_AR == 0  # a fall is no loss there


def test_ranks_that_change_are_counted_method_by_method():
    before = [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
    minor = [[[1.0, 2.0], [3.0, 3.0], [2.0, 1.0]]]  # the upper two swap; all three move on
    kept = np.array([[True, True]])
    assert same_ranks(np.array(before), np.array(minor), kept) == pytest.approx(1 / 6)
    assert same_ranks(np.array(before), np.array(minor), np.array([[True, False]])) == pytest.approx(1 / 3)


def test_the_size_of_a_change_is_in_deviations_of_the_scores():
    before = np.array([[0.0, 2.0], [0.0, 2.0]])  # deviation 1
    after = before[None] + np.array([[[0.1, -0.1], [0.3, 0.5]]])
    assert moved(before, after) == pytest.approx(0.2)
    assert moved(before, before[None]) == 0 and moved(np.zeros((2, 2)), np.zeros((1, 2, 2))) == 0
    assert np.isnan(moved(np.zeros((2, 2)), after)) and np.isnan(moved(before * np.nan, after))


# ---- the twin --------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(arrays(float, (L, N), elements=FEW), arrays(float, (K, L, N), elements=FEW), st.booleans())
def test_the_twin_agrees_ties_and_all(before, after, higher):
    found = consistency(scores(before, after, after[::-1]), higher=higher)
    lists = before.tolist(), after.tolist(), after[::-1].tolist()
    assert pytest.approx(twin.iac(*lists[:2]), abs=1e-12) == found.IAC_NR
    assert pytest.approx(1 - twin.iac(lists[0], lists[2]), abs=1e-12) == found.IAC_AR
    assert pytest.approx(twin.iec_resilience(*lists[:2]), abs=1e-12) == found.IEC_NR
    assert pytest.approx(twin.iec_reactivity(lists[0], lists[2], higher=higher)) == found.IEC_AR
    assert pytest.approx(twin.mc(*lists, higher=higher), abs=1e-12) == found.MC


@given(arrays(float, 5, elements=FEW), arrays(float, 5, elements=FEW))
def test_ranks_of_tied_methods_are_a_mean_over_their_orders(before, after):
    expected = twin.iec_resilience(before[:, None].tolist(), [after[:, None].tolist()])
    chances = same_rank(before, after)
    assert chances.mean() == pytest.approx(expected, abs=1e-12)
    assert ((chances >= 0) & (chances <= 1 + 1e-12)).all()
    assert same_rank(before, before) == pytest.approx(1)
    order = np.array([3, 0, 4, 2, 1])
    assert same_rank(before[order], after[order]) == pytest.approx(chances[order])
    assert same_rank(after, before) == pytest.approx(chances)


@pytest.mark.parametrize("n", [1, 2, 7, 12, 40])
def test_p_is_scipys_where_no_changes_are_equal(n):
    draw = np.random.default_rng(n)
    before = draw.standard_normal(n)
    after = before + draw.standard_normal(n) + 0.3
    expected = scipy.stats.wilcoxon(before, after, zero_method="zsplit", method="exact").pvalue
    assert signed_rank_p(before, after) == pytest.approx(expected, abs=1e-12)
    assert signed_rank_p(after, before) == pytest.approx(expected, abs=1e-12)


# ---- estimators of which everything is known -------------------------------------------------------------------------


def test_a_metric_that_never_changes_is_resilient_and_blind():
    before = np.random.default_rng(0).standard_normal((L, N))
    for level in (before, np.full((L, N), 0.5)):
        again = np.stack([level] * K)
        for higher in (True, False):
            found = consistency(scores(level, again, again), higher=higher)
            assert (found.IAC_NR, found.IEC_NR, found.IAC_AR, found.IEC_AR, found.MC) == (1, 1, 0, 0, 0.5)


def test_a_metric_that_is_noise_has_what_the_docstring_says():
    draw = np.random.default_rng(0)
    n_methods, n = 5, 12
    found = []
    for _ in range(60):
        before, minor, disruptive = (draw.standard_normal((1, n_methods, n)) for _ in range(3))
        found.append(consistency(scores(before[0], minor, disruptive), higher=True).record())
    means = pd.DataFrame(found).mean()
    expected = {"IAC_NR": 0.5, "IAC_AR": 0.5, "IEC_NR": 1 / n_methods, "IEC_AR": 0.5, "MC": 0.425}
    assert means[list(expected)].to_dict() == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("higher", [True, False])
def test_a_metric_that_reacts_perfectly_gets_all_that_its_utterances_allow(higher):
    before = np.random.default_rng(0).standard_normal((L, 10))
    fall = before - 10 if higher else before + 10
    found = consistency(scores(before, before[None], fall[None]), higher=higher)
    assert (found.IAC_NR, found.IEC_NR, found.IEC_AR) == (1, 1, 1)
    assert pytest.approx(1 - 2 / 2**10) == found.IAC_AR
    other = consistency(scores(before, before[None], fall[None]), higher=not higher)
    assert (other.IEC_AR, other.IAC_AR) == (0, found.IAC_AR)  # metaquantus 0.0.5 takes no notice of the direction


def test_only_sign_and_order_of_changes_count_not_their_size():
    before = np.random.default_rng(0).standard_normal((L, 8))
    for size in (1e-6, 1e6):
        assert intra(before, before[None] + size, np.ones((1, 8), bool)) == pytest.approx(2 / 2**8)


# ---- what is missing -------------------------------------------------------------------------------------------------


def test_undefined_scores_and_turned_decisions_are_left_out():
    before = np.arange(12.0).reshape(2, 6)
    minor = np.stack([before, before])
    minor[0, 0, 0] = np.nan
    minor[1, :, 1] = 99.0
    kept = np.ones((2, 6), dtype=bool)
    kept[1, 1] = False
    fall = np.stack([before - 1, before - 1])
    fall[:, 1, 2] = np.nan
    found = consistency(scores(before, minor, fall, kept=kept), higher=True)
    assert (found.IAC_NR, found.IEC_NR, found.IEC_AR) == (1, 1, 1)
    assert found.kept == 11 / 12 and found.pairs == 6
    gone = consistency(scores(before, minor, fall * np.nan), higher=True)
    assert np.isnan([gone.IAC_AR, gone.IEC_AR, gone.MC]).all() and gone.IAC_NR == 1  # metaquantus: p = 0, so IAC_AR = 1
    none = consistency(scores(before, minor, fall, kept=~np.ones((2, 6), dtype=bool)), higher=True)
    assert np.isnan([none.IAC_NR, none.IEC_NR, none.MC]).all()
    assert np.isnan(signed_rank_p(np.array([np.nan]), np.array([1.0]))) and np.isnan(
        worse(before * np.nan, fall, higher=True)
    )


@pytest.mark.parametrize(
    "changes",
    [{"before": np.zeros((1, N))}, {"before": np.zeros(N)}, {"floor": np.zeros(3)}, {"minor": np.zeros((K, L, 4))},
     {"disruptive": np.zeros((3, L, N))}, {"kept": np.ones((K, 4), bool)}, {"minor": np.zeros((0, L, N))}],
)  # fmt: skip
def test_scores_of_the_wrong_shape_are_named(changes):
    good = scores(np.zeros((L, N)), np.zeros((K, L, N)), np.zeros((K, L, N)))
    with pytest.raises(XaibenchError, match="expected scores"):
        replace(good, **changes)


def test_batches_join_along_the_utterances():
    draw = np.random.default_rng(0)
    whole = scores(draw.random((L, N)), draw.random((K, L, N)), draw.random((K, L, N)), kept=draw.random((K, N)) > 0.5)
    parts = [
        Scores(whole.before[:, s], whole.floor[s], whole.minor[..., s], whole.disruptive[..., s], whole.kept[:, s],
               whole.flipped[:, s])
        for s in (slice(0, 2), slice(2, None))
    ]  # fmt: skip
    assert consistency(Scores.join(parts), higher=True) == consistency(whole, higher=True)


# ---- perturbations of a countermeasure, and toys end to end ----------------------------------------------------------


@pytest.fixture
def bench(root, monkeypatch):
    toybench.install(monkeypatch, "toy-gradient", "toy-deaf", "toy-zero", "toy-unsupported", "toy-speechless")
    return Workbench(toybench.spec(root, "toy-gradient"), batch_size=4)


def test_minor_and_disruptive_models():
    before = torch.nn.Sequential(torch.nn.Conv2d(3, 40, 5), torch.nn.BatchNorm2d(40))
    one, two, other = (copy.deepcopy(before) for _ in range(3))
    scaled(one, 0), scaled(two, 0), scaled(other, 1)
    factors = (one[0].weight / before[0].weight - 1).detach().flatten()
    assert factors.mean().abs() < 1e-4 and factors.std().item() == pytest.approx(0.001, rel=0.1)
    assert torch.equal(one[0].weight, two[0].weight) and not torch.equal(one[0].weight, other[0].weight)
    assert not torch.equal(one[1].weight, before[1].weight) and torch.equal(one[1].running_var, before[1].running_var)
    redrawn(one, 0)
    correlation = torch.corrcoef(torch.stack([one[0].weight.flatten(), before[0].weight.flatten()]))[0, 1]
    assert correlation.abs() < 0.1


@pytest.mark.parametrize("route", ["native", "grid"])
def test_the_countermeasure_itself_stays_as_it_was(bench, route):
    pairs = ordered_pairs(bench.corpus, "eval")[:2]
    prepared = bench.prepare("toy", route, pairs)
    before = weights_hash(bench.countermeasure("toy").module), prepared.view.score(prepared.view.inputs)
    same = other_model(bench, "toy", prepared.view, lambda m: None)
    torch.testing.assert_close(same.score(same.inputs), before[1])
    other = other_model(bench, "toy", prepared.view, partial(redrawn, seed=0))
    assert not torch.allclose(other.score(other.inputs), before[1])
    assert weights_hash(bench.countermeasure("toy").module) == before[0]
    assert torch.equal(prepared.view.score(prepared.view.inputs), before[1])


METRICS_OF_TOYS = ("rank-accuracy", "sparseness", "drop-twin", "deletion-twin")


def test_toys_end_to_end(bench):
    pairs = ordered_pairs(bench.corpus, "eval")
    table = meta_evaluate(bench, "toy", pairs, methods=("toy-gradient", "toy-deaf"), metrics=METRICS_OF_TOYS, draws=2)
    assert table[["metric", "test"]].values.tolist() == [[m, t] for t in ("input", "model") for m in METRICS_OF_TOYS]
    assert list(table.columns[:8]) == ["metric", "family", "test", "IAC_NR", "IAC_AR", "IEC_NR", "IEC_AR", "MC"]
    assert (table["pairs"] == 6).all() and (table["methods"] == 2).all()
    four = table[["IAC_NR", "IAC_AR", "IEC_NR", "IEC_AR"]]
    pd.testing.assert_series_equal(table["MC"], four.mean(axis=1, skipna=False), check_names=False)
    assert ((four >= 0) & (four <= 1) | four.isna()).all(axis=None)
    rows = table.set_index(["test", "metric"])
    # The map that no countermeasure reaches, `toy-deaf`, cannot react to a random one; the other can.
    assert rows.loc[("model", "sparseness"), "IAC_AR"] <= 0.5 < rows.loc[("input", "sparseness"), "IAC_AR"]
    assert rows.loc[("model", "sparseness"), "IAC_NR"] > 0.5
    assert (table["moved"].dropna() < 0.5).all() and (table["kept"] == 1).all()


def test_batches_do_not_change_scores_beyond_rounding(bench):
    pairs = ordered_pairs(bench.corpus, "eval")[:4]
    known = {name: METRICS[name] for name in ("sparseness", "drop-twin")}
    methods = ("toy-gradient", "toy-deaf")
    whole = perturbed._scores(bench, "toy", pairs, methods, known, 2, {})
    single = Workbench(bench.spec, batch_size=1)
    parts = [perturbed._scores(single, "toy", [pair], methods, known, 2, {}) for pair in pairs]
    assert set(whole) == {(test, name) for test in ("input", "model") for name in known}
    for key, one in whole.items():
        other = Scores.join([part[key] for part in parts])
        for name in ("before", "floor", "minor", "disruptive"):
            np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-3, atol=1e-5)
        assert np.array_equal(other.kept, one.kept) and np.array_equal(other.flipped, one.flipped)
        assert not np.array_equal(one.minor[0], one.minor[1])


def test_map_and_questions_are_of_the_perturbed_input_and_the_truth_is_not(bench, monkeypatch):
    pairs = ordered_pairs(bench.corpus, "eval")[:2]
    prepared = bench.prepare("toy", "native", pairs)
    chunk = Chunk("toy", "native", "random", 0, tuple(pairs), (), ())
    seen = []
    real = perturbed._scored
    monkeypatch.setattr(perturbed, "_scored", lambda b, p, *rest: seen.append(p) or real(b, p, *rest))
    meta_evaluate(bench, "toy", pairs, methods=("toy-gradient", "toy-deaf"), metrics=("drop-twin",), draws=1)
    plain, floor, soft, loud, near, far = seen
    assert plain is floor is prepared
    for other, change in ((soft, "noise:40:0"), (loud, "white:0:0")):
        assert torch.equal(other.view.inputs, changed_view(bench, chunk, prepared, change).inputs)
    for other in (near, far):
        assert torch.equal(other.view.inputs, prepared.view.inputs)
        assert other.view.model is not prepared.view.model
    for other in (soft, loud, near, far):
        assert other.truth is prepared.truth and other.probe.view is other.view
        assert torch.equal(other.probe.valid, prepared.probe.valid)
        assert not torch.equal(other.probe.untouched, prepared.probe.untouched)


def test_a_method_that_cannot_or_an_empty_map_is_undefined_not_zero(bench):
    pairs = ordered_pairs(bench.corpus, "eval")[:2]
    ask = partial(meta_evaluate, bench, "toy", pairs, metrics=("rank-accuracy",), draws=1)
    for other in ("toy-zero", "toy-unsupported"):
        table = ask(methods=("toy-gradient", other))
        assert table["IEC_NR"].isna().all() and table["MC"].isna().all()  # one method has no rank
        assert table["IAC_NR"].notna().all() and (table["pairs"] == 0).all()


def test_what_cannot_be_asked_is_refused(bench):
    pairs = ordered_pairs(bench.corpus, "eval")[:1]
    with pytest.raises(Unsupported, match="max-sensitivity explain again"):
        meta_evaluate(bench, "toy", pairs, metrics=("rank-accuracy", "max-sensitivity"))
    for changes in ({"draws": 0}, {"methods": ("toy-deaf",)}, {"methods": ("toy-deaf", "toy-deaf")}, {"pairs": ()}):
        with pytest.raises(XaibenchError, match="needs pairs"):
            meta_evaluate(bench, "toy", **{"pairs": pairs, **changes})


def test_the_defaults_explain_once_and_are_in_the_catalogue():
    assert all("explain" not in METRICS[name].needs for name in perturbed.METRICS)
    assert {METRICS[name].family for name in perturbed.METRICS} >= {"localisation", "faithfulness", "complexity"}


# ---- the part of the audit -------------------------------------------------------------------------------------------


def row(metric, test, *, nr=(1.0, 1.0), ar=(1.0, 1.0), floor=0.9, moved=0.01) -> dict[str, object]:
    return {
        "metric": metric, "family": "localisation", "test": test, "IAC_NR": nr[0], "IAC_AR": ar[0], "IEC_NR": nr[1],
        "IEC_AR": ar[1], "MC": (sum(nr) + sum(ar)) / 4, "IEC_floor": floor, "moved": moved, "kept": 1.0, "flipped": 0.25,
        "methods": 5, "pairs": 8,
    }  # fmt: skip


def test_the_section_says_what_the_table_holds():
    table = pd.DataFrame(
        [
            row("good", "input"), row("good", "model"),
            row("blind", "input"), row("blind", "model", ar=(0.2, 0.3)),
            row("chance", "input"), row("chance", "model", ar=(0.1, 0.1), floor=0.48),
            row("wrong-way", "input"), row("wrong-way", "model", ar=(0.99, 0.1)),
            row("silent", "input"), row("silent", "model", ar=(np.nan, np.nan)),
            row("shaky", "input", nr=(0.1, 0.2)), row("shaky", "model"),
        ]
    )  # fmt: skip
    section = meta_section(table)
    reliable, deaf, better, warning, noise, silent, small = section.answer
    assert reliable.startswith("Most reliable (MC, mean of its tests): good 1.00") and "about 0.42" in reliable
    assert "Least: chance 0.78" in reliable and "silent" not in reliable
    assert deaf.endswith("(AR below 0.5): blind 0.25, chance 0.10.")
    assert "wrong-way 0.10" in better and "blind" not in better
    assert "chance 0.48" in warning and warning.endswith("That leaves blind, wrong-way.")
    assert "shaky 0.20" in noise and "1.0%" in noise
    assert "silent (model test)" in silent and "good" not in silent
    assert "0.0078" in small and "100% and 25%" in small
    pd.testing.assert_frame_equal(section.table, table)
    figure = section.draw()
    assert [a.get_title(loc="left") for a in figure.axes] == ["change of the recording", "change of the countermeasure"]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names[0] == "silent" and names[-1] == "good" and len(names) == 6


def test_a_section_of_little():
    fine = meta_section(pd.DataFrame([row("a", "model")]))
    assert fine.answer[1].startswith("Every metric") and fine.draw() is not None
    nothing = meta_section(pd.DataFrame([row("a", "input", nr=(np.nan, np.nan), ar=(np.nan, np.nan), moved=np.nan)]))
    assert nothing.answer[0].startswith("No metric") and nothing.draw() is not None
    with pytest.raises(XaibenchError, match="lacks IAC_NR"):
        meta_section(pd.DataFrame([row("a", "model")]).drop(columns="IAC_NR"))
    with pytest.raises(XaibenchError, match="empty"):
        meta_section(pd.DataFrame([row("a", "model")])[:0])


def test_what_a_method_or_metric_raises_costs_its_own_scores_and_is_said(bench, monkeypatch):
    from xaibench.audit import perturbed

    pairs = ordered_pairs(bench.corpus, "eval")
    real = perturbed.explain

    def fussy(bench, prepared, name):
        if name == "toy-deaf":
            raise ValueError("no such map")
        return real(bench, prepared, name)

    monkeypatch.setattr(perturbed, "explain", fussy)
    table = meta_evaluate(bench, "toy", pairs, methods=("toy-gradient", "toy-deaf"), metrics=("sparseness",), draws=1)
    assert len(table) == 2 and len(table.attrs["problems"]) == 1
    assert table.attrs["problems"][0].startswith("toy-deaf: ValueError: no such map (")
    monkeypatch.setattr(perturbed, "explain", real)
    table = meta_evaluate(bench, "toy", pairs, methods=("toy-gradient", "toy-deaf"), metrics=("sparseness",), draws=1)
    assert table.attrs["problems"] == ()
