"""The data sets and vocoders of the package keep the rules of the kit."""

import pytest

from xaibench.testing import checks_of


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """What is made on first use is made in a folder of the test's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@checks_of("dataset", "minivoc")
def test_minivoc(check):
    check()


@checks_of("dataset", "minivoc-train")
def test_minivoc_train(check):
    check()


@checks_of("dataset", "minivoc-extra-eval")
def test_minivoc_extra_eval(check):
    check()


@checks_of("dataset", "minivoc-partial")
def test_minivoc_partial(check):
    check()


@checks_of("vocoder", "world")
def test_world(check):
    check()


@checks_of(
    "vocoder", "mlsa",
    expected={"deterministic": "the noise generator of pysptk.excite keeps its state from call to call, within the library"},
)  # fmt: skip
def test_mlsa(check):
    check()


@checks_of("vocoder", "griffin-lim")
def test_griffin_lim(check):
    check()
