"""The conformance kit: what a plugin must keep, as checks that `xaibench check NAME` and pytest run.

from xaibench.testing import checks_of

@checks_of("attributor", "my-method")
def test_contract(check):
    check()
"""

from xaibench.testing import (
    attributors,
    countermeasures,
    datasets,
    declared,
    generic,
    handling,
    manners,
    metrics,
    taps,
    vocoders,
)
from xaibench.testing.rules import RULES, Broken, Check, NotApplicable, Rule, Seen, Subject, checks, checks_of, rule

#: The modules whose import registers rules, in the order in which their rules are asked.
MODULES = (generic, attributors, declared, manners, countermeasures, taps, handling, metrics, datasets, vocoders)

__all__ = ["MODULES", "RULES", "Broken", "Check", "NotApplicable", "Rule", "Seen", "Subject", "checks", "checks_of", "rule"]
