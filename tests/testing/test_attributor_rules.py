"""Every rule of an attributor fails on one that is made to break it, with the number seen and the likely cause."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from xaibench.errors import PluginError
from xaibench.protocols import attributor
from xaibench.testing import RULES, Broken, NotApplicable, checks, checks_of

_spec = importlib.util.spec_from_file_location("kit_broken", Path(__file__).with_name("broken.py"))
broken = importlib.util.module_from_spec(_spec)
sys.modules["kit_broken"] = broken  # so that what it defines can be pickled
_spec.loader.exec_module(broken)


def check_of(thing, rule: str, kind: str = "attributor"):
    return next(c for c in checks(kind, thing) if c.rule == rule)


@pytest.mark.parametrize("which", broken.BROKEN)
def test_a_rule_fails_on_an_attributor_that_breaks_it(which):
    method, message = broken.BROKEN[which]
    with pytest.raises(Broken, match=message):
        check_of(method, which.partition(":")[0]).run()


def test_there_is_a_broken_attributor_for_every_rule():
    assert {which.partition(":")[0] for which in broken.BROKEN} == set(RULES["attributor"])


@checks_of("attributor", broken.well_behaved)
def test_a_well_behaved_one_keeps_them_all(check):
    check()


@attributor(name="few-masks", paper="Petsiuk et al., BMVC 2018, arXiv 1806.07421", random=True)
def few_masks(view, *, draws=256, coarse=7):
    """RISE: smooth random masks, weighted by the score of what each leaves."""
    maps = []
    for one in view.each():
        grids = torch.rand(draws, 1, coarse, coarse, generator=one.generator()).round()
        masks = torch.nn.functional.interpolate(grids, size=one.shape, mode="bilinear")[:, 0]
        score = one.score(one.filled(masks[None], "mean"))
        maps.append(((score - score.mean())[:, None, None] * masks).mean(0))
    return torch.stack(maps)


def test_smooth_random_masks_are_allowed_their_noise_in_padding_but_not_that_of_too_few():
    assert 0.02 < check_of(few_masks, "padding-invariance").run().number < 0.5
    with pytest.raises(Broken, match="or draw too few samples"):
        check_of(few_masks.with_options(draws=16), "padding-invariance").run()


def test_what_is_not_declared_does_not_apply():
    for rule in ("completeness", "api", "import-time"):
        with pytest.raises(NotApplicable):
            check_of(broken.well_behaved, rule).run()


def test_rules_that_compare_maps_leave_the_form_to_the_rules_of_the_form():
    method = broken.BROKEN["finite: not_a_number"][0]
    with pytest.raises(NotApplicable, match="has not the right form"):
        check_of(method, "batch-invariance").run()


@pytest.mark.parametrize(
    ("expected", "message"),
    [({"batch-invariant": "why"}, "no rule of attributor"), ({"batch-invariance": " "}, "has no reason")],
)
def test_an_expectation_names_a_rule_and_has_a_reason(expected, message):
    with pytest.raises(PluginError, match=message):
        checks_of("attributor", broken.well_behaved, expected=expected)


def cases(mark) -> dict:
    return {param.id: param.values[0] for param in mark.args[1]}


def test_an_expected_failure_fails_when_the_rule_holds_and_is_expected_otherwise():
    holds = cases(checks_of("attributor", broken.well_behaved, expected={"quiet": "it is talkative"}))
    with pytest.raises(pytest.fail.Exception, match=r"quiet holds .* although it is expected to fail: it is talkative"):
        holds["quiet"]()
    chatty = broken.BROKEN["quiet: chatty"][0]
    with pytest.raises(pytest.xfail.Exception, match=r"it is talkative \(it printed"):
        cases(checks_of("attributor", chatty, expected={"quiet": "it is talkative"}))["quiet"]()


def test_several_plugins_are_asked_under_their_names():
    assert "well-behaved-quiet" in cases(checks_of("attributor", [broken.well_behaved, broken.well_behaved]))


def test_on_a_countermeasure_that_is_given():
    from xaibench.testing.toys import ConvToy

    found = {c.rule: c for c in checks("attributor", broken.well_behaved, cm=ConvToy)}
    assert found["runs"].run().number == 2  # native, and on the grid
