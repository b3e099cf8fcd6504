"""The planted notch, its pairs and the countermeasure that hears it keep the rules of the kit."""

import pytest

from xaibench.testing import checks_of


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """The twins are made in a folder of the test's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@checks_of("vocoder", "planted-notch")
def test_notch(check):
    check()


@checks_of("dataset", "planted")
def test_pairs(check):
    check()


@checks_of("countermeasure", "planted-cnn")
def test_cnn(check):
    check()
