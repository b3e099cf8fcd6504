"""Runs that are killed, and what must be left in the end: the client of `crash_server.py`."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pandas as pd

from xaibench import checksums, maps
from xaibench.harness.results import Store
from xaibench.types import ROW_COLUMNS

#: Set it to have the moments of an earlier test again; every test prints the one it used.
SEED = int(os.environ.get("XAIBENCH_CRASH_SEED", random.SystemRandom().randrange(10**6)))
KEYS = ["countermeasure", "route", "truth", "attributor", "utterance", "vocoder", "metric"]
#: Methods that succeed, that fail with a traceback, and that are void; one control.
ATTRIBUTORS = ["toy-gradient", "toy-crash", "toy-deaf", "energy"]
CHANGES = {"keep_maps": True, "limit": 2, "metrics": ["rank-accuracy", "deletion-twin"]}


def told(seed: int) -> None:
    """Say which seed it was, where a failed test shows it."""
    sys.stdout.write(f"XAIBENCH_CRASH_SEED={seed}\n")


class Server:
    """Runs asked for one after the other, each in a process of its own that may be killed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        command = [sys.executable, str(Path(__file__).with_name("crash_server.py"))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )  # fmt: skip

    def run(self, out: Path, **asked: object) -> dict:
        """What a run answers; of one that was killed {"signal": 9}. `asked`: see `crash_server`."""
        line = {"root": str(self.root), "out": str(out), "attributors": ATTRIBUTORS, "changes": CHANGES, **asked}
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def rows(out: Path) -> pd.DataFrame:
    """All rows in one order, without their times and the name of the folder; none there twice."""
    table = (
        Store(out).read_rows().drop(columns="file").astype({c: object for c in ROW_COLUMNS if c not in ("value", "seconds")})
    )
    assert not table.duplicated(KEYS).any(), "a row is there twice"
    return table.sort_values(KEYS).drop(columns=["seconds", "run"]).reset_index(drop=True)


def files(out: Path) -> list[str]:
    """What is in a run folder, but for what was moved out of the way."""
    found = (p.relative_to(out) for p in out.rglob("*") if not p.is_dir())
    return sorted(str(p) for p in found if p.parts[0] not in ("stale", "damaged"))


def assert_same(out: Path, expected: Path) -> None:
    """A run folder is as if nothing had happened: rows, maps, files, checksums, nobody's lock."""
    pd.testing.assert_frame_equal(rows(out), rows(expected), check_exact=True)
    assert files(out) == files(expected)
    for path in sorted((expected / "maps").rglob("*.safetensors")):
        one, other = (maps.read_map(p) for p in (path, out / path.relative_to(expected)))
        assert (
            (one.values == other.values).all()
            and one.metadata == other.metadata
            and one.curves.keys() == other.curves.keys()
        )
    sums, torn = checksums.read(out)
    assert not torn and {n: (checksums.digest((out / n).read_bytes()),) for n in sums} == sums
    assert sorted(sums) == [n for n in files(out) if n.split("/")[0] not in ("maps", ".lock", checksums.NAME)]
    assert (out / ".lock").read_bytes() == b""
    leftovers = [p for p in out.rglob("*") if ".tmp" in p.name or p.name == ".scratch"]
    assert not leftovers
