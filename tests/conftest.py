"""Shared set-up: `import toys` and `from twins import ...` work in every test; one torch thread, no deadlines; the toy data
set and the command line as fixtures."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import seeds

torch.set_num_threads(1)
seeds.steady()

#: A device registered with torch stays for the whole process, so its checks have one of their own (test_second_device.py);
#: mutation testing (`make mutation`) holds no test.
collect_ignore = ["second", "mutation"]


def pytest_configure(config: pytest.Config) -> None:
    if seeds.SEED is not None:
        config.option.hypothesis_seed = str(seeds.SEED)


def pytest_report_header() -> str:
    return f"random inputs: {'the same in every run' if seeds.SEED is None else f'XAIBENCH_TEST_SEED={seeds.SEED}'}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy data set, and the toy countermeasure's weights in `weights/`."""
    import toybench

    folder = tmp_path_factory.mktemp("toy")
    toybench.write_corpus(folder)
    toybench.write_checkpoint(folder / "weights")
    return folder


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `xaibench ...` in this process; returns (exit code, standard output, standard error)."""
    from xaibench import cli

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["xaibench", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as done:
            code = int(done.code or 0)
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


CHROMIUM = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip


@pytest.fixture(scope="session")
def chromium():
    """A running browser, one for all tests of a process. Skips, with the reason, where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    binary = os.environ.get("XAIBENCH_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if binary is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is on the PATH, and XAIBENCH_CHROMIUM names none")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=CHROMIUM)
        yield browser
        browser.close()
