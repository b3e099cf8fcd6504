"""The core's own attributors keep the rules of its own kit: floors, shams and ceilings."""

from xaibench import registry
from xaibench.testing import checks_of

NAMES = [n for n, claims in registry.plugins("attributors").items() if claims[0].distribution == registry.CORE]


@checks_of("attributor", NAMES)
def test_contract(check):
    check()


def test_all_eleven_are_checked():
    assert len(NAMES) == 11 and "oracle" in NAMES
