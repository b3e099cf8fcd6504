"""The rules of metrics: each breaks on a metric made to break it, with the reason; and every metric of the catalogue."""

from dataclasses import replace

import pytest
import torch

from xaibench.metrics.catalog import METRICS
from xaibench.metrics.ranking import Ranking
from xaibench.protocols import Metric
from xaibench.testing import Broken, NotApplicable, checks

#: What breaks a rule and must, by the beginning of the metric's name: rule -> why.
KNOWN = {
    "monotonicity-": {
        "direction": "adding the least relevant cells first means adding evidence against spoof first: a right signed map "
        "falls at every such step, as `misleads` says"
    },
    "average-drop-": {"constant-map": "a constant mask keeps the whole input, so nothing drops: it scores 0, the best"},
    "fid-in-": {"constant-map": "a constant mask keeps the whole input, so the decision stays: it scores 1, the best"},
    "faithfulness-on-spectra-": {
        "constant-map": "a constant mask, taken away, leaves the fill alone: the whole of the score"
    },
}


def asked(metric: Metric | str, rule: str):
    (check,) = [c for c in checks("metric", metric) if c.rule == rule]
    return check.run()


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_of_the_catalogue_keeps_the_rules(name):
    expected = next((rules for start, rules in KNOWN.items() if name.startswith(start)), {})
    broken = {}
    for check in checks("metric", name):
        try:
            check.run()
        except NotApplicable:
            continue
        except Broken as error:
            broken[check.rule] = str(error)
    allowed = {rule: broken[rule] for rule in expected if rule in broken}
    assert broken == allowed, broken
    if name in ("monotonicity-twin", "average-drop-twin", "fid-in-twin", "faithfulness-on-spectra-twin"):
        assert set(broken) == set(expected), "no reason outlives its cause"


def test_a_metric_of_the_catalogue_is_found_by_name():
    assert asked("roc-auc", "direction").text == asked(METRICS["roc-auc"], "direction").text
    assert asked("roc-auc", "direction").number > 0.4
    with pytest.raises(Broken, match="unknown metric 'roc-acu'"):
        asked("roc-acu", "loads")


# ---- broken ones -----------------------------------------------------------------------------------------------------


def metric(function, **facts) -> Metric:
    known = {"family": "localisation", "direction": "higher", "range": (0.0, 1.0), "paper": "none", "equation": "x",
             "misleads": "always", "needs": frozenset({"truth"})}  # fmt: skip
    return Metric(**{"name": "toy", "function": function, **known, **facts})


def auc(evidence):
    return METRICS["roc-auc"].function(evidence)


def share_above(evidence):
    """Recall at a threshold of `>=`: the equal cells of a constant map are all above it."""
    values, truth = evidence.attribution.values.flatten(1), evidence.truth
    top = values >= values.quantile(0.95, dim=1, keepdim=True)
    region = truth.region.flatten(1)
    return (top & region).sum(1).double() / region.sum(1)


def inside(evidence):
    """The sum of the map in the region: has the map's unit."""
    return (evidence.attribution.values.clamp_min(0) * evidence.truth.region).sum((1, 2)).double()


def counted(evidence):
    return evidence.probe.untouched + evidence.undefined


def again(evidence):
    return 1 - (evidence.again("white:20:0").maps - evidence.on_view).abs().mean((1, 2)).double()


def writes(evidence):
    evidence.on_view.mul_(2)
    return auc(evidence)


def seeds(evidence):
    torch.manual_seed(0)
    return auc(evidence)


ALL = (-float("inf"), float("inf"))
BROKEN = [
    (metric(auc, misleads=" "), "described", "misleads is empty"),
    (metric(auc, family="accuracy"), "described", "its family is 'accuracy'; expected one of localisation"),
    (metric(auc, needs=frozenset({"mask"})), "described", "it needs mask; expected some of"),
    (metric(auc, chance=2.0), "described", r"its chance value 2.0 lies outside its range \(0, 1\)"),
    (metric(lambda e: auc(e).mean()), "shape", r"it gives torch.float64 \(\); expected floats \(3,\)"),
    (metric(lambda e: auc(e).tolist()), "shape", "it gives list; expected floats"),
    (metric(lambda e: auc(e) / 0), "shape", r"it gives \[(inf|nan), .*expected finite numbers, or NaN"),
    (metric(lambda e: auc(e) * torch.nan), "shape", "undefined .NaN. for all of the truth, the truth moved"),
    (metric(auc, range=(0.0, 0.6)), "range", "it gave values from .* to 1; it declares 0 to 0.6"),
    (metric(auc, direction="lower"), "direction", "scores 0.* and noise 0.4.*where lower is better.*the wrong way round"),
    (metric(lambda e: 1 - auc(e)), "identity", r"the truth reversed scores 1, .* expected the truth to be the best"),
    (
        metric(share_above),
        "constant-map",
        r"a constant scores 1, noise 0.0.* expected NaN or less than half.*Are ties broken",
    ),
    (
        metric(lambda e: auc(e).nan_to_num(1.0)),
        "zero-map",
        r"zero scores 1, noise 0.4.* Return NaN where a map says nothing",
    ),
    (metric(auc, chance=0.05), "chance", r"60 maps of noise score 0.4.* on average .*it declares 0.05"),
    (metric(lambda e: inside(e) / inside(e).max()), "batch-invariance", "alone and in a batch its values differ by"),
    (metric(lambda e: auc(e) + 1e-3 * torch.rand(len(e.on_view))), "deterministic", "asked twice its values differ by"),
    (metric(inside), "unit-invariance", "for three times the map its values differ by .*no two methods share a unit"),
    (metric(auc, needs=frozenset()), "needs", "with another truth its values differ by .*does not declare the need `truth`"),
    (metric(counted, range=ALL), "needs", "asks the countermeasure, and does not declare the need `forward`"),
    (metric(again), "needs", "TypeError: 'NoneType' object is not callable"),
    (metric(writes), "evidence-unchanged", "it changed the map; expected all as before"),
    (metric(seeds), "evidence-unchanged", "it changed torch's generator; expected all as before"),
]


@pytest.mark.parametrize(("thing", "rule", "message"), BROKEN, ids=[f"{r}-{i}" for i, (_, r, _) in enumerate(BROKEN)])
def test_one_that_breaks_a_rule(thing, rule, message):
    before = torch.random.get_rng_state()
    with pytest.raises(Broken, match=f"(?s){message}"):
        asked(thing, rule)
    if rule != "deterministic":
        assert torch.equal(torch.random.get_rng_state(), before)


def test_rules_that_cannot_be_asked_say_why():
    explains = metric(again, needs=frozenset({"explain"}), range=ALL)
    for rule in ("direction", "constant-map", "zero-map"):
        with pytest.raises(NotApplicable, match="no map is right or wrong for it"):
            asked(explains, rule)
    with pytest.raises(NotApplicable, match="declares no chance value"):
        asked(explains, "chance")
    with pytest.raises(NotApplicable, match="the map's own unit"):
        asked(replace(METRICS["completeness-mean"]), "unit-invariance")


def test_evidence_is_what_was_planted():
    from xaibench.testing.evidences import evidence, oracle

    given = evidence(oracle)
    odds, twins = given.probe.untouched, given.probe.bonafide
    assert bool((odds > 2).all() and (twins < -2).all())
    added = (given.truth.region & given.truth.added).sum((1, 2)) / given.truth.region.sum((1, 2))
    assert bool((added > 0.2).all() and (added < 0.8).all())
    assert len(Ranking(given.attribution.values, given.truth.valid)) == int(given.truth.valid.sum())
