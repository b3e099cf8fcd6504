"""What a pack says of its run, taken from a stranger's JSON: of the right form, within bounds, and as our own records.

Of what it says only data set, split, preset, seed, precision, grid, truths, and options of plugins reach code. An option
is a number, a short text or a list of these, and never a path: nothing in a pack chooses a file of the verifier's machine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from xaibench.errors import SubmissionError, XaibenchError
from xaibench.grid import Grid
from xaibench.harness.spec import RunSpec
from xaibench.submission.pack import RUN, shown
from xaibench.submission.privacy import GONE
from xaibench.truth import TruthSpec

_ORIGIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*) (?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)\Z")
_HASH = re.compile(r"[0-9a-f]{64}\Z")
#: Bounds of what a stranger's spec can ask of the verifier's machine.
MOST_NUMBER, MOST_TEXT, MOST_ITEMS, MOST_PAIRS = 100_000, 200, 200, 10_000_000
LARGEST_FFT, SMALLEST_HOP, MOST_OVERLAP, LARGEST_KERNEL = 8_192, 16, 32, 101


@dataclass(frozen=True)
class Stated:
    """A pack's record in our terms. `options` are those of each attributor, `cm_options` of each countermeasure."""

    record: Mapping[str, Any]
    identity: Mapping[str, Any]
    grid: Grid
    truths: Mapping[str, TruthSpec]
    options: Mapping[str, Mapping[str, Any]]
    cm_options: Mapping[str, Mapping[str, Any]]
    pairs: int

    def origin(self, group: str, name: str) -> tuple[str, str]:
        """Distribution and version of a plugin, as stated; ("", "") where that is not said in the usual form."""
        found = _ORIGIN.match(str(self.record["origins"].get(f"{group}/{name}", "")))
        return (found["name"], found["version"]) if found else ("", "")

    def spec(self, truth: str, countermeasure: str, route: str, *, attributors: Sequence[str], metrics: Sequence[str],
             **own: Any) -> RunSpec:  # fmt: skip
        """The run of one section, with what is the verifier's `own`: data, root, checkpoints, cm_options."""
        own = {"data": self.identity["data"], **own}
        options = {name: self.options[name] for name in attributors if self.options.get(name)}
        return RunSpec(
            (countermeasure,), tuple(attributors), tuple(metrics), split=self.identity["split"], route=route,
            preset=self.identity["preset"], limit=self.pairs, seed=self.identity["seed"],
            precision=self.identity["precision"], grid=self.grid, truth=self.truths[truth], options=options, **own,
        )  # fmt: skip


def stated(record: Mapping[str, Any], rows: pd.DataFrame) -> Stated:
    """A pack's record, checked against its rows. Raises SubmissionError naming what cannot be."""
    try:
        identity, dataset = dict(record["identity"]), record["dataset"]
        pairs = _whole(dataset["pairs"], "dataset.pairs", 1, MOST_PAIRS)
        _whole(identity["seed"], "identity.seed", 0, 2**31)
        grid = _record(Grid, identity["grid"], sample_rate=192_000, n_fft=LARGEST_FFT, hop=LARGEST_FFT)
        if grid.hop < SMALLEST_HOP or grid.n_fft > MOST_OVERLAP * grid.hop:
            raise ValueError(f"the grid has a hop of {grid.hop} samples for windows of {grid.n_fft}")
        truths = {name: _record(TruthSpec, facts) for name, facts in record["truths"].items()}
        for name, truth in truths.items():
            if truth.name != name or max(truth.kernel) > LARGEST_KERNEL or len(truth.kernel) != 2:
                raise ValueError(f"the truth {shown(name)} is described as {shown(truth)}")
        if not re.fullmatch(r"[^/\\~]{1,200}", str(identity["data"])) or not isinstance(identity["split"], str):
            raise ValueError(f"identity.data {shown(identity['data'])} is no data set")
        for name, facts in record["countermeasures"].items():
            if not _HASH.match(str(facts["weights"])):
                raise ValueError(f"no sha256 of the weights of {shown(name)}")
            if facts.get("void") or not (facts.get("eer") is None or 0 <= facts["eer"] <= 1):
                raise ValueError(f"the countermeasure {shown(name)} is void, or its equal error rate is no share")
        if any(stamp["environment"].get("git_dirty") for stamp in (record, *record["earlier"])):
            raise ValueError("uncommitted code made some of its rows")
        if not all(isinstance(w, dict) for stamp in (record, *record["earlier"]) for w in stamp.get("workers", [])):
            raise TypeError("a worker is no object")
        _check_covers(record, rows, truths)
        options: dict[str, Mapping[str, Any]] = {}
        cm_options: dict[str, Mapping[str, Any]] = {}
        for spec in (*(stamp["spec"] for stamp in record["earlier"]), record["spec"]):
            for names, theirs, mine in (("attributors", "options", options), ("countermeasures", "cm_options", cm_options)):
                mine.update({str(n): _options(spec.get(theirs, {}).get(n, {}), n) for n in spec[names]})
        if not isinstance(record["origins"], dict):
            raise TypeError("origins is no object")
        found = Stated(record, identity, grid, truths, options, cm_options, pairs)
        for truth in truths:  # the rest of the identity is checked where it is used
            found.spec(truth, "x", "native", attributors=("x",), metrics=("x",))
    except (KeyError, TypeError, AttributeError, ValueError, XaibenchError) as error:
        what = f"{type(error).__name__}: {shown(str(error), 160)}"
        raise SubmissionError(f"{RUN}: {what}; not as `xaibench submit` writes it") from error
    return found


def _check_covers(record: Mapping[str, Any], rows: pd.DataFrame, truths: Mapping[str, Any]) -> None:
    for column, known in (
        ("truth", set(truths)), ("countermeasure", set(record["countermeasures"])), ("dataset", {record["dataset"]["name"]}),
    ):  # fmt: skip
        stray = sorted(set(rows[column].cat.categories) - known)
        if stray:
            raise ValueError(f"the rows have a {column} that the record does not: {stray[0]}")


def _record(kind: type, facts: Mapping[str, Any], **most: int) -> Any:
    """A frozen record of ours from JSON: lists as tuples, whole numbers within bounds, no field that it has not."""
    for name, largest in most.items():
        _whole(facts[name], name, 1, largest)
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()})


def _whole(value: Any, name: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} is {shown(value)}, expected a whole number from {least} to {most}")
    return value


def _options(options: Any, name: str) -> dict[str, Any]:
    """Options that may be given to a plugin. Raises ValueError for a path, a huge number, a long text, anything nested."""
    if not isinstance(options, dict):
        raise ValueError(f"options of {shown(name)} are no object")
    for key, value in options.items():
        items = value if isinstance(value, list) else [value]
        if len(items) > MOST_ITEMS:
            raise ValueError(f"option {shown(key)} of {shown(name)} has {len(items)} values")
        for item in items:
            small = isinstance(item, bool | None) or (
                isinstance(item, int | float) and abs(item) <= MOST_NUMBER and math.isfinite(item)
            )
            plain = isinstance(item, str) and len(item) <= MOST_TEXT and (not re.search(r"[/\\~]", item) or item[0] == GONE)
            if not small and not plain:
                raise ValueError(f"option {shown(key)} of {shown(name)} is {shown(item)}: not one a pack may have")
    return options
