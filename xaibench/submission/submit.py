"""A run folder to a pack: which runs can be submitted, and what of a run's record others need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from xaibench import registry
from xaibench.errors import SubmissionError
from xaibench.leaderboard.reading import SECTION, read_rows
from xaibench.leaderboard.table import FLOORS, kind, unknown_metrics
from xaibench.metrics.catalog import METRICS
from xaibench.run_record import read_record
from xaibench.submission.claims import read_claims
from xaibench.submission.pack import BOARD, CLAIMS, ROWS, RUN, json_bytes, pack_bytes, texts
from xaibench.submission.privacy import GONE, Scrubber
from xaibench.submission.rows import LONGEST_NOTE, board_lines, in_order, table_bytes
from xaibench.types import ROW_COLUMNS

#: What of a record goes into a pack. Whatever is not named here stays: where files lie (`root`, whole `checkpoints`) first.
_SPEC = (
    "countermeasures", "attributors", "metrics", "data", "split", "route", "preset", "limit", "seed", "precision",
    "cm_options", "grid", "truth", "options",
)  # fmt: skip
_ENVIRONMENT = ("xaibench", "python", "platform", "device", "threads", "packages", "git_commit", "git_dirty", "count")
_COUNTERMEASURE = ("weights", "options", "source", "eer_pairs", "card", "eer", "route", "void", "shipped")
_DATASET = (
    "name", "hash", "licence", "citation", "sample_rate", "valid_band", "held_out", "pairs", "utterances", "speakers",
    "vocoders",
)  # fmt: skip
_NEEDED = ("identity", "spec", "environment", "truths", "countermeasures", "dataset", "origins")
_NAMED = 5  # things that a refusal names before it counts


def pack_run(run: Path, claims: Path | None = None) -> tuple[bytes, list[str]]:
    """The bytes of a run's pack, and what its author should know (one sentence each). The same run gives the same bytes.

    claims: a TOML file, see `xaibench.submission.claims`. Raises SubmissionError for a run that a board would not rank
    (incomplete, from uncommitted code, a void countermeasure, no method with a value) with every reason, RunError for a
    folder that is none, and SubmissionError where a folder or a name of the author's machine would leave in it.
    """
    run = Path(run)
    record = read_record(run)
    rows = read_rows([run], encoded=True)
    reasons = [*refusals(record, rows)]
    if reasons:
        raise SubmissionError(f"{run} cannot be submitted: " + "; ".join(reasons))
    scrub = Scrubber()
    facts = scrub.everywhere(run_facts(record, rows))
    rows = in_order(_scrubbed(rows, scrub))
    lines = board_lines(rows)
    try:
        told = json_bytes(facts)
    except ValueError as error:
        raise SubmissionError(
            f"{run / 'run.json'}: a number in it is NaN or infinite, which no pack holds; run it again"
        ) from error
    members = {RUN: told, ROWS: table_bytes(rows), BOARD: json_bytes(lines)}
    said = []
    if claims is not None:
        said = scrub.everywhere(read_claims(Path(claims), lines))
        members[CLAIMS] = json_bytes(said)
    _check_nothing_leaves(rows, [facts, lines, said], scrub)
    return pack_bytes(members), list(_notes(record, rows, scrub.changed))


def refusals(record: Mapping[str, Any], rows: pd.DataFrame) -> Iterable[str]:
    """Why a board would not rank this run, one sentence each; nothing where it would. `rows` are encoded."""
    lacking = [name for name in _NEEDED if not record.get(name)]
    if lacking:
        yield f"its run.json has no {', '.join(lacking)}; it was made by an older version, run it again"
        return
    if any(stamp.get("environment", {}).get("git_dirty") for stamp in (record, *record.get("earlier", []))):
        yield "dirty: uncommitted code made some of its rows; commit, and run again with a new --out"
    for name, facts in record["countermeasures"].items():
        if facts.get("void"):
            yield f"void: the countermeasure {name}: {facts['void']}"
    yield from _incomplete(record, rows)
    methods = rows[rows["attributor"].map(kind).eq("method").to_numpy()]
    if methods.empty:
        yield "it has no method, only controls; run with --xai METHOD"
    elif not methods["status"].eq("ok").any():
        worst = methods.iloc[0]
        yield f"none of its methods has a value ({worst['attributor']}: {worst['status']}, {worst['note']})"
    gone = unknown_metrics(rows)
    if gone:
        yield f"this version has no metric {', '.join(gone)}; install their plugin, or run again"


def _incomplete(record: Mapping[str, Any], rows: pd.DataFrame) -> Iterable[str]:
    """Cells that the run planned and did not compute: of methods without a row, and of methods with some."""
    pairs, found = int(record["dataset"].get("pairs") or 0), []
    for section, part in rows.groupby(list(SECTION), observed=True, sort=True):
        planned = pairs * part["metric"].nunique()
        counts = part["attributor"].value_counts()
        found += [
            f"{name} on {section[2]} lacks {planned - n} of {planned} cells" for name, n in counts.items() if 0 < n < planned
        ]
    there = {(cm, name) for cm, name in rows[["countermeasure", "attributor"]].drop_duplicates().itertuples(index=False)}
    spec = record["spec"]
    absent = [(cm, a) for cm in spec.get("countermeasures", ()) for a in spec.get("attributors", ()) if (cm, a) not in there]
    found += [f"{name} on {cm} has no cell" for cm, name in absent]
    if found:
        few = ", ".join(sorted(found)[:_NAMED]) + (f" and {len(found) - _NAMED} others" if len(found) > _NAMED else "")
        yield f"incomplete: {few}; the same `xaibench run` command computes what is missing"


def run_facts(record: Mapping[str, Any], rows: pd.DataFrame) -> dict[str, Any]:
    """What of run.json a pack holds: no folder of anybody's; of a manifest, the file's name."""
    data = _base(record["identity"].get("data", ""))
    origins = dict(record["origins"])
    for group, names in (("metrics", set(rows["metric"].unique()) - set(METRICS)), ("datasets", {data})):
        for name in sorted(names & set(registry.plugins(group))):
            plugin = registry.find(group, name)
            origins[f"{group}/{name}"] = f"{plugin.distribution} {plugin.version}"
    return {
        "identity": {"precision": "fp32", **record["identity"], "data": data},
        **_stamp(record),
        "earlier": [_stamp(stamp) for stamp in record.get("earlier", [])],
        "truths": record["truths"],
        "countermeasures": {name: _only(facts, _COUNTERMEASURE) for name, facts in record["countermeasures"].items()},
        "dataset": _only(record["dataset"], _DATASET),
        "origins": origins,
        "plugins": dict(record.get("plugins", {})),
        "days": list(record.get("days", [])),
        "sizes": dict(record.get("sizes", {})),
    }


def _stamp(stamp: Mapping[str, Any]) -> dict[str, Any]:
    """Spec and environments of one invocation."""
    spec = {**_only(stamp.get("spec", {}), _SPEC), "data": _base(stamp.get("spec", {}).get("data", ""))}
    return {
        "spec": spec,
        "environment": _only(stamp.get("environment", {}), _ENVIRONMENT),
        "workers": [_only(worker, _ENVIRONMENT) for worker in stamp.get("workers", [])],
    }


def _only(facts: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: facts[name] for name in names if name in facts}


def _base(data: str) -> str:
    """A data set's name; of a manifest's path the file's."""
    return Path(data).name if str(data).endswith(".toml") else str(data)


def _scrubbed(rows: pd.DataFrame, scrub: Scrubber) -> pd.DataFrame:
    """Reasons without paths, and no run's name. What an encoded column holds once is scrubbed once."""
    reasons = {note: scrub(note)[:LONGEST_NOTE] for note in rows["note"].cat.categories}
    notes = rows["note"].astype(object).map(reasons).astype("category")
    return rows.assign(note=notes, run=pd.Categorical([""] * len(rows)))


def _check_nothing_leaves(rows: pd.DataFrame, members: Sequence[Any], scrub: Scrubber) -> None:
    for column in rows[list(ROW_COLUMNS)].select_dtypes("category"):
        for text in rows[column].cat.categories:
            if found := scrub.leak(text, names=column == "note"):
                raise SubmissionError(
                    f"a {column} of these rows holds {found!r}, a place on a machine; rename it, run again"
                )
    for text in texts(list(members)):
        if found := scrub.leak(text):
            raise SubmissionError(f"the run's record holds {found!r} in {text!r}, which says whose machine it was")


def _notes(record: Mapping[str, Any], rows: pd.DataFrame, scrubbed: int) -> Iterable[str]:
    """What is in the pack and not as its author may expect."""
    if scrubbed:
        yield f"{scrubbed} texts named a folder, an account or a machine; {GONE} stands there now"
    void = rows[rows["status"].eq("void")]
    for name, part in void.groupby("attributor", observed=True):
        yield f"{name} is void and will not be ranked: {part['note'].iloc[0]}"
    failed = rows[rows["status"].eq("failed")]
    for name, part in failed.groupby("attributor", observed=True):
        yield f"{len(part)} cells of {name} failed; they lower its coverage: {part['note'].iloc[0]}"
    if not set(rows["attributor"].unique()) & set(FLOORS):
        yield "no control is in the run, so its methods have no skill; `xaibench run` adds the controls"
    if str(record["identity"].get("data", "")).endswith(".toml"):
        yield "the data set is a manifest of yours: others need the same files and `xaibench verify --data`"
