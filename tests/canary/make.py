"""The canary: numbers of the benchmark on two embedded utterances, kept in board.json, that may move with its version only.

board.json holds the version (`xaibench.BENCHMARK_VERSION`), for every version so far the digest of its numbers, and the
numbers of the last: equal error rates, sizes of the truth, what preflight measured, and means by countermeasure, route,
method and metric. They have eight digits; what is computed anew may differ by TOLERANCE, a share of the number or of 1 if
that is more. It is larger than what libraries, processors and threads do to a sum (docs/determinism.md), and holds one
cell of a map that changes sides.

`python tests/canary/make.py` writes them, after the version was raised; it refuses to do so before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from xaibench import BENCHMARK_VERSION, maps
from xaibench.harness.known import known_names
from xaibench.harness.run import run
from xaibench.harness.spec import RunSpec
from xaibench.harness.verdicts import read_checks

FILE = Path(__file__).parent / "board.json"
TOLERANCE = 1e-3
DIGITS = 8
LIMIT = 2
METRICS = (
    "rank-accuracy", "mass-accuracy", "roc-auc", "spearman", "sparseness", "drop-twin", "deletion-twin", "insertion-twin",
)  # fmt: skip
REFERENCES = ("random", "constant", "energy", "frequency-prior", "centre", "oracle", "moved-truth", "energy-matched")
METHODS = (
    "input-x-gradient", "integrated-gradients", "smoothgrad", "guided-backprop", "deeplift", "epsilon-plus", "grad-cam",
    "hirescam", "fullgrad",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A run of the canary: countermeasure, route, and which methods."""

    countermeasure: str
    route: str
    methods: tuple[str, ...]


#: What every run of the tests computes, in seconds.
QUICK = (Part("lcnn", "native", (*REFERENCES, *METHODS)), Part("cnn", "grid", (*REFERENCES, *METHODS[:3])))


def everything() -> tuple[Part, ...]:
    """Every method on LCNN: what the heavy test computes beside, in minutes."""
    methods = tuple(n for n in known_names("attributors", ["all"])[0] if n != "tca")  # the map of another countermeasure
    return tuple(Part("lcnn", route, methods) for route in ("native", "grid"))


def numbers(parts: tuple[Part, ...]) -> dict[str, float | None]:
    """Every number of some parts, by a name such as `lcnn/native/grad-cam/roc-auc`; None where no cell has a value."""
    torch.set_num_threads(1)
    found: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            out = Path(folder) / part.countermeasure / part.route
            spec = RunSpec(
                countermeasures=(part.countermeasure,), attributors=part.methods, metrics=METRICS, limit=LIMIT,
                route=part.route, keep_maps=True,
            )  # fmt: skip
            run(spec, out)
            found |= dict(_of_run(out, f"{part.countermeasure}/{part.route}"))
    return {name: None if value is None else float(f"{value:.{DIGITS}g}") for name, value in sorted(found.items())}


def _of_run(out: Path, where: str) -> Iterator[tuple[str, float | None]]:
    rows = pd.read_parquet(out / "rows")
    for (method, metric), values in rows.groupby(["attributor", "metric"])["value"]:
        yield f"{where}/{method}/{metric}", float(values.mean()) if values.notna().any() else None
    facts = json.loads((out / "run.json").read_text(encoding="utf-8"))["countermeasures"]
    yield from ((f"{name}/eer", facts[name]["eer"]) for name in facts)
    checks = read_checks([out])
    for line in checks[checks["measured"].notna()].itertuples():
        yield f"{where}/{line.attributor or 'itself'}/preflight {line.check}", line.measured
    for line in checks[checks["outcome"].isin(["failed", "unchecked"])].itertuples():
        yield f"{where}/{line.attributor or 'itself'}/preflight {line.check} {line.outcome}", 1.0
    for pair in sorted({f"{r.utterance}/{r.vocoder}" for r in rows.itertuples()}):
        (path,) = maps.truth_paths(out, "eq2", pair)
        truth = maps.read_truth(path)
        yield f"truth/{pair}/cells", float(truth.region.sum())
        yield f"truth/{pair}/valid", float(truth.valid.sum())
        yield f"truth/{pair}/sum", float(truth.values.sum(dtype="float64"))


def digest(values: Mapping[str, Any]) -> str:
    """sha256 of the numbers, as board.json holds them."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def moved(known: Mapping[str, float | None], now: Mapping[str, float | None]) -> list[str]:
    """A sentence for each number that is not what it was, those that moved most first."""
    found = [(float("inf"), f"{name} is there now and was not") for name in now.keys() - known.keys()]
    found += [(float("inf"), f"{name} is gone, it was {known[name]}") for name in known.keys() - now.keys()]
    for name in known.keys() & now.keys():
        a, b = known[name], now[name]
        if (a is None) != (b is None):
            found.append((float("inf"), f"{name} was {a}, is {b}"))
        elif a is not None and b is not None and not abs(a - b) <= TOLERANCE * max(1.0, abs(a)):
            found.append((abs(a - b) / max(1.0, abs(a)), f"{name} was {a:.6g}, is {b:.6g} (by {b - a:+.2g})"))
    return [words for _, words in sorted(found, key=lambda x: (-x[0], x[1]))]


def sentence(differ: list[str]) -> str:
    """What a test says of them."""
    rest = f"; and {len(differ) - 8} more" if len(differ) > 8 else ""
    return (
        f"{len(differ)} numbers of the canary board moved: {'; '.join(differ[:8])}{rest}. Either a defect, or bump "
        f"BENCHMARK_VERSION (now {BENCHMARK_VERSION}; docs/determinism.md says when) and run `make canary`."
    )


def problems(board: Mapping[str, Any], version: int) -> list[str]:
    """What is wrong with the file itself: its numbers must be those of its last version, and that the benchmark's."""
    history, found = board["versions"], []
    if list(history) != [str(n) for n in range(1, len(history) + 1)]:
        found.append(f"board.json lists the versions {', '.join(history)}, expected every one from 1")
    if board["benchmark"] != version or len(history) != version:
        found.append(f"board.json is of version {board['benchmark']}, the benchmark is version {version}: run `make canary`")
    elif history[str(version)] != digest([board["quick"], board["all"]]):
        found.append(
            f"the numbers in board.json are not those of version {version}: they were changed without a new version. Take "
            f"them back, or bump BENCHMARK_VERSION and run `make canary`"
        )
    if len(set(history.values())) != len(history):
        found.append("two versions in board.json have the same numbers: a version is raised when numbers change")
    return found


def made(
    board: Mapping[str, Any] | None, quick: Mapping[str, Any], whole: Mapping[str, Any], version: int
) -> dict[str, Any]:
    """The new content. Raises ValueError where numbers moved and the version did not, or it did and they did not."""
    if board is not None:
        differ = moved(board["quick"], quick) + moved(board["all"], whole)
        if version == board["benchmark"]:
            raise ValueError(sentence(differ) if differ else f"nothing moved since version {version}: nothing to write")
        if version != board["benchmark"] + 1:
            raise ValueError(f"board.json is of version {board['benchmark']}, so the next is not {version}")
        if not differ:
            raise ValueError(f"no number moved since version {board['benchmark']}: there is no reason for another one")
    history = {**(board["versions"] if board else {}), str(version): digest([quick, whole])}
    return {"benchmark": version, "versions": history, "quick": dict(quick), "all": dict(whole)}


def main() -> int:
    """Compute all and write board.json, or say why not."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    board = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else None
    try:
        new = made(board, numbers(QUICK), numbers(everything()), BENCHMARK_VERSION)
    except ValueError as why:
        sys.stderr.write(f"{why}\n")
        return 1
    FILE.write_text(json.dumps(new, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
