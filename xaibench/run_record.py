"""What a run says of itself: the facts of its run.json, read as anybody's file may be. No torch is imported here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from xaibench import checksums, reading
from xaibench.errors import RunError, first_line

#: What a field of a spec is made of.
PARTS = {"truth": ("name",), "grid": ("sample_rate", "n_fft", "hop", "window")}
#: What is read of a run's folder, beside its maps.
FILES, FOLDERS = ("run.json", checksums.NAME, ".lock"), ("rows", "preflight", "warnings", "errors")
_AGAIN = "remove it and run again with the same --out to have it made again"


def read_record(run: Path) -> dict[str, Any]:
    """The whole of run.json. Raises RunError: no such folder, no run folder, damaged, edited, of another form, or with
    links that lead out of it (`check_links`).
    """
    path = Path(run) / "run.json"
    if not path.is_file():
        hint = "no such folder" if not Path(run).is_dir() else "it has no run.json"
        raise RunError(f"{run}: not a run folder ({hint}); expected the --out of `xaibench run`")
    check_links(run)
    try:
        content = reading.content(path, RunError, what="file of JSON", hint=_AGAIN, most=reading.LARGEST_JSON)
        checksums.check(path, content, checksums.known(Path(run)))  # read after the file: a run may be writing both
        record = reading.parsed(content)
    except ValueError as error:
        raise RunError(f"{path}: damaged ({first_line(error)}); {_AGAIN}") from error
    return checked(record, path)


def check_links(run: Path, *, writing: bool = False) -> None:
    """Refuse a run folder that is somebody's way to other files: with a link in it that leads out of it. Raises RunError.

    writing: whether something is to be written to the folder, so that maps (of which there can be a million, and which are
    checked one by one as they are read) must have no such folder either.
    """
    found = list(reading.links_out(run, FILES + FOLDERS))
    found += list(reading.links_out(run, ("maps", "stale", "damaged"), levels=3 if writing else 0))
    if found:
        raise RunError(
            f"{min(found)}: a link that leads out of the run folder, where nothing is read or written; put what it leads to "
            "in its place, or make the whole run folder the link"
        )


def checked(record: object, path: Path) -> dict[str, Any]:
    """A record whose parts, where it has them, are of the kinds that a run writes. Raises RunError naming the first other.

    >>> checked({"spec": {}, "days": []}, Path("run.json"))
    {'spec': {}, 'days': []}
    """
    if not isinstance(record, dict):
        raise RunError(f"{path}: expected an object, got {type(record).__name__}; is it another program's file?")
    for name, value, kind in _parts(record):
        if not isinstance(value, kind):
            name = first_line(name)
            raise RunError(f"{path}: damaged ({name} is {type(value).__name__}, which no run writes there); {_AGAIN}")
        unknown = value is None or (value != value and name.endswith(".eer"))
        if kind is _NUMBER and not unknown and not abs(value) <= LARGEST:
            raise RunError(f"{path}: damaged ({first_line(name)} is no number that a run counts to); {_AGAIN}")
    return record


def _parts(record: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Parts of a record that are read without a further look: name, value, and the kind it must be of."""
    for name in ("identity", "spec", "environment", "dataset", "truths", "origins", "plugins", "sizes", "countermeasures"):
        yield name, record.get(name, {}), dict
    for name in ("earlier", "days", "workers"):
        yield name, record.get(name, []), list
    for number, day in enumerate(record.get("days", ())):
        yield f"days.{number}", day, str
    yield from _of_stamp("", record)
    for number, stamp in enumerate(record.get("earlier", ())):
        yield f"earlier.{number}", stamp, dict
        yield from _of_stamp(f"earlier.{number}.", stamp)
    yield from _of("dataset.", record.get("dataset", {}), _DATASET)
    for name, facts in record.get("countermeasures", {}).items():
        yield f"countermeasures.{name}", facts, dict
        yield from _of(f"countermeasures.{name}.", facts, _COUNTERMEASURE)
    for name, facts in record.get("plugins", {}).items():
        yield f"plugins.{name}", facts, dict
        yield from _of(f"plugins.{name}.", facts, _PLUGIN)


LARGEST = 1e15  # of a number in a record: a share, or how many pairs
_TEXT = (str, NoneType)
_NUMBER = (int, float, NoneType)
_DATASET = {"name": _TEXT, "hash": _TEXT, "pairs": _NUMBER}
_COUNTERMEASURE = {"eer": _NUMBER, "weights": _TEXT, "card": (dict, NoneType)}
_PLUGIN = {"options": (dict, NoneType), "needs": (list, NoneType), "flags": (list, NoneType)}
_SPEC = {
    "data": _TEXT,
    "precision": _TEXT,
    "options": (dict, NoneType),
    "checkpoints": (dict, NoneType),
    "countermeasures": (list, NoneType),
    "attributors": (list, NoneType),
}
_ENVIRONMENT = {"git_commit": _TEXT, "packages": dict}


def _of(where: str, facts: Mapping[str, Any], kinds: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    yield from ((f"{where}{name}", facts[name], kind) for name, kind in kinds.items() if name in facts)


def _of_stamp(where: str, stamp: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What is said of one command: its spec and its environment."""
    for name, kinds in (("spec", _SPEC), ("environment", _ENVIRONMENT)):
        yield f"{where}{name}", stamp.get(name, {}), dict
        yield from _of(f"{where}{name}.", stamp.get(name, {}), kinds)
    for name in ("countermeasures", "attributors"):
        for number, part in enumerate(stamp.get("spec", {}).get(name) or ()):
            yield f"{where}spec.{name}.{number}", part, str
    options = stamp.get("spec", {}).get("options") or {}
    yield from ((f"{where}spec.options.{name}", given, (dict, NoneType)) for name, given in options.items())


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
