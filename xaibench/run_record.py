"""What a run says of itself: the facts of its run.json, read as anybody's file may be. No torch is imported here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xaibench.errors import RunError

#: What a field of a spec is made of.
PARTS = {"truth": ("name",), "grid": ("sample_rate", "n_fft", "hop", "window")}
_AGAIN = "run again with the same --out to have it made again"


def read_record(run: Path) -> dict[str, Any]:
    """The whole of run.json. Raises RunError: no such folder, no run folder, damaged, or no object."""
    path = Path(run) / "run.json"
    if not path.is_file():
        hint = "no such folder" if not Path(run).is_dir() else "it has no run.json"
        raise RunError(f"{run}: not a run folder ({hint}); expected the --out of `xaibench run`")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: damaged ({error}); {_AGAIN}") from error
    if not isinstance(record, dict):
        raise RunError(f"{path}: expected an object, got {type(record).__name__}; is it another program's file?")
    return record


def spec_of(record: Mapping[str, Any], run: Path, *, needs: Sequence[str] = ("data", "truth")) -> Mapping[str, Any]:
    """The `spec` of a record: what the run was asked for. What a caller `needs` of it is there, the parts of `PARTS` too.

    Raises RunError, naming the file and what is missing.
    """
    try:
        spec = record["spec"]
        for name in needs:
            for part in PARTS.get(name, ()):
                spec[name][part]
            spec[name]
    except (KeyError, TypeError) as error:
        raise RunError(f"{Path(run) / 'run.json'}: damaged ({type(error).__name__}: {error}); {_AGAIN}") from error
    return spec


def read_spec(run: Path, *, needs: Sequence[str] = ("data", "truth")) -> Mapping[str, Any]:
    """The `spec` of a run's folder. Raises RunError as `read_record` and `spec_of`."""
    return spec_of(read_record(run), run, needs=needs)
