"""What xaibench asks of every attributor, of `tca`: on the countermeasure that it is made for, with its weights."""

from xaibench.testing import checks_of


@checks_of("attributor", "tca", cm="tca")
def test_contract(check):
    check()
