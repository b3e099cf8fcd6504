"""What the commands that only look import: no torch, no statistics library, nothing that a second is spent on."""

import subprocess
import sys

import fake_run
import pytest

HEAVY = ("torch", "torchaudio", "scipy.stats", "matplotlib", "statsmodels", "sklearn", "transformers", "captum")
LOADED = """
import sys
sys.argv = {words!r}
from xaibench.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("LOADED", *sys.modules)
"""


def loaded(*words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(words=["xaibench", *words])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split())


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["list"], ["list", "metrics"]], ids=" ".join)
def test_looking_imports_nothing_that_computes(words):
    found = loaded(*words)
    assert "xaibench.cli.listing" in found and not found & {*HEAVY, "pandas", "pyarrow", "scipy"}


def test_a_board_imports_neither_torch_nor_a_library_of_tests(tmp_path):
    run = fake_run.write_run(tmp_path / "run", fake_run.rows(fake_run.SCORES))
    found = loaded("leaderboard", str(run))
    assert "xaibench.leaderboard.table" in found and not found & set(HEAVY)


def test_the_width_of_a_list_is_that_of_a_board():
    from xaibench.cli.output import WIDTH
    from xaibench.leaderboard import render

    assert WIDTH == render.WIDTH
