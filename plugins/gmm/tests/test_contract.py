"""What xaibench asks of every countermeasure: the rules of its conformance kit."""

from xaibench.testing import checks_of


@checks_of("countermeasure", "gmm-lfcc")
def test_contract(check):
    check()
