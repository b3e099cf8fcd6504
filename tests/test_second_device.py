"""Runs `second/check_second_device.py`: a whole benchmark on a device that is not the CPU, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("which", ["not heavy", pytest.param("heavy", marks=pytest.mark.heavy)])
def test_no_tensor_is_on_the_wrong_device(which):
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", which, "-p", "no:cacheprovider", "--import-mode=importlib"]
    paths = os.pathsep.join([str(HERE), str(HERE / "second"), *filter(None, [os.environ.get("PYTHONPATH")])])
    # Without the house's conftest, which leaves the folder out, and from within it, so that its files are found.
    done = subprocess.run(
        [
            *command, "--noconftest", "-c", os.devnull, "--rootdir", str(HERE / "second"), "-o", "markers=heavy",
            "check_second_device.py",
        ],
        cwd=HERE / "second", env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
