"""What xaibench asks of every attributor, of each of this package: the rules of its conformance kit."""

from xaibench import registry
from xaibench.testing import checks_of

NAMES = [n for n, claims in registry.plugins("attributors").items() if claims[0].distribution == "xaibench-gradcam"]


@checks_of("attributor", NAMES)
def test_contract(check):
    check()
