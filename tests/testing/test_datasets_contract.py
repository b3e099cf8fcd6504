"""The data sets of xaibench itself keep the rules of the kit; none has its files here, so what needs them does not apply."""

import pytest

from xaibench.datasets.catalog import PLACES
from xaibench.testing import NotApplicable, checks

ASKED = {"loads", "name", "api", "summary", "opens", "no-folder"}


@pytest.mark.parametrize("name", PLACES)
def test_a_data_set_that_is_not_indexed_says_so(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XAIBENCH_MANIFESTS", str(tmp_path))
    held, reasons = set(), {}
    for check in checks("dataset", name):
        try:
            check.run()
        except NotApplicable as reason:
            reasons[check.rule] = str(reason)
        else:
            held.add(check.rule)
    assert held >= ASKED
    assert f"xaibench data index {name} --root DIR" in reasons["twins"]
