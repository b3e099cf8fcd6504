"""Peak memory of a run of 100 and of 2,000 utterances, each in a process of its own. The target: within 5 %."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FEW, MANY, TARGET = 100, 2_000, 1.05
SCRIPT = Path(__file__).with_name("memory_run.py")


def measured(folder: Path, utterances: int, keep_maps: bool) -> dict:
    """What `memory_run.py` prints; its folder is removed."""
    command = [sys.executable, str(SCRIPT), str(folder), str(utterances), *(["--keep-maps"] if keep_maps else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    shutil.rmtree(folder)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("keep_maps", [False, True], ids=["rows", "rows-and-maps"])
def test_peak_memory_does_not_grow_with_utterances(benchmark, tmp_path, keep_maps):
    few = measured(tmp_path / "few", FEW, keep_maps)
    many = benchmark.pedantic(measured, (tmp_path / "many", MANY, keep_maps), rounds=1)
    assert many["rows"] == few["rows"] * MANY / FEW, "both score every utterance"
    benchmark.extra_info.update(
        utterances=[FEW, MANY], peak_mb=[round(few["peak_mb"]), round(many["peak_mb"])],
        ratio=many["peak_mb"] / few["peak_mb"], target=f"at most {TARGET}",
    )  # fmt: skip
