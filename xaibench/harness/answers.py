"""What a process of `--isolate` sends to the run, as bytes, and read again so that it cannot do anything but be read.

A method that went wrong, or was meant to, has the run of its own process, and could send whatever it likes. So an answer is
a pickle of plain data, read by `xaibench.unpickle`, with four names: a record of ours, which is checked field by field
against its annotations, an error of ours, an array, and a path. Nothing is imported for it, and nothing called but these.
"""

from __future__ import annotations

import io
import pickle
import types
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from xaibench import errors
from xaibench.errors import RunError, XaibenchError, told
from xaibench.harness.cell import Kept, Outcome
from xaibench.harness.engine import Refusal
from xaibench.harness.preflight import Verdict
from xaibench.harness.tasks import Task
from xaibench.harness.verdicts import Check
from xaibench.harness.warned import Said
from xaibench.harness.worker import Done, ForeignWorker, LostDevice
from xaibench.types import Pair, Row, Utterance
from xaibench.unpickle import MALFORMED, Machine

MOST = 1 << 32  # bytes of an answer; maps of half an hour have 200 MB
MOST_OPCODES = 1 << 24
_KINDS = {np.dtype(name).str: np.dtype(name) for name in ("b1", "u1", "i4", "i8", "f2", "f4", "f8")}
_RECORDS: dict[str, Any] = {r.__name__: r for r in (Done, Outcome, Kept, Row, Verdict, Check, Said, Pair, Utterance)}
_ERRORS: dict[str, Any] = {
    **{n: e for n, e in vars(errors).items() if isinstance(e, type) and issubclass(e, XaibenchError)},
    **{e.__name__: e for e in (Refusal, ForeignWorker, LostDevice)},
}


def written(thing: Done | XaibenchError) -> bytes:
    """An answer as bytes. Raises what pickle raises for something that no answer holds."""
    stream = io.BytesIO()
    _Writer(stream, protocol=4).dump(thing)
    return stream.getvalue()


def read(answer: bytes, task: Task | None = None) -> Any:
    """A `Done` or an error of ours. Raises RunError for anything else, and for what is not about the task."""
    try:
        found = Machine(io.BytesIO(answer), _NAMES, most=MOST_OPCODES).load()
        if not isinstance(found, Done | XaibenchError):
            raise ValueError(f"a {type(found).__name__}")
        if task is not None and isinstance(found, Done):
            _check(found, task)
    except (*MALFORMED, XaibenchError) as error:
        raise RunError(f"a process of --isolate gave an answer that cannot be read: {told(error)}") from error
    return found


class _Writer(pickle.Pickler):
    """Every object becomes a call of one of the functions below."""

    def reducer_override(self, thing: Any) -> Any:
        if type(thing) in _RECORDS.values():
            return _record, (type(thing).__name__, *(getattr(thing, f.name) for f in fields(thing)))
        if isinstance(thing, XaibenchError):
            known = next(c.__name__ for c in type(thing).__mro__ if c in _ERRORS.values())
            return _error, (known, *map(str, thing.args))
        if isinstance(thing, np.ndarray | np.generic):
            array = np.ascontiguousarray(thing)
            return _array, (array.dtype.str, np.shape(thing), array.tobytes())
        if isinstance(thing, Path):
            return _path, (str(thing),)
        return NotImplemented


def _record(name: str, *values: Any) -> Any:
    """A record of ours, each field of its kind."""
    kind, hints = _RECORDS[name], _hints(name)
    if len(values) != len(hints):
        raise ValueError(f"a {name} of {len(values)} fields")
    for (field, hint), value in zip(hints.items(), values, strict=True):
        if not _fits(value, hint):
            raise ValueError(f"{field} of a {name} is of type {type(value).__name__}")
    return kind(*values)


def _error(name: str, *said: str) -> XaibenchError:
    if not all(isinstance(part, str) for part in said):
        raise ValueError(f"what a {name} says is no text")
    return _ERRORS[name](*said)


def _array(kind: str, shape: tuple[int, ...], content: bytes) -> Any:
    """An array; of no dimensions the number itself."""
    return np.frombuffer(content, _KINDS[kind]).reshape(tuple(map(int, shape))).copy() if shape else np.frombuffer(
        content, _KINDS[kind])[0].item()  # fmt: skip


def _path(text: str) -> Path:
    return Path(text)


_NAMES = {(__name__, function.__name__): function for function in (_record, _error, _array, _path)}


@cache
def _hints(name: str) -> dict[str, Any]:
    hints = get_type_hints(_RECORDS[name])
    return {field.name: hints[field.name] for field in fields(_RECORDS[name])}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type; of `Any`, whether it is an array.

    >>> _fits(("a", "b"), tuple[str, ...]), _fits((1,), tuple[str, ...]), _fits(None, float | None)
    (True, False, True)
    """
    inner, origin = get_args(hint), get_origin(hint)
    if hint is Any:
        return isinstance(value, np.ndarray) or _is_plain(value)
    if origin is tuple:
        wanted = inner[:1] * len(value) if inner[1:] == (...,) and isinstance(value, tuple) else inner
        return isinstance(value, tuple) and len(value) == len(wanted) and all(map(_fits, value, wanted))
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    if origin is types.UnionType:
        return any(_fits(value, one) for one in inner)
    if hint is float:
        return type(value) in (float, int)
    if hint is int:
        return type(value) is int
    return isinstance(value, hint)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _check(done: Done, task: Task) -> None:
    """Raises ValueError for rows, maps and truths that are not of the chunks they answer."""
    if len(done.outcomes) != len(task.chunks):
        raise ValueError(f"{len(done.outcomes)} outcomes of {len(task.chunks)} chunks")
    for chunk, outcome in zip(task.chunks, done.outcomes, strict=True):
        asked = {(p.spoof.source, p.spoof.vocoder) for p in chunk.pairs}
        what = (chunk.countermeasure, chunk.route, chunk.attributor)
        for row in outcome.rows:
            if (row.countermeasure, row.route, row.attributor) != what or (row.utterance, row.vocoder) not in asked:
                raise ValueError(f"a row of {row.attributor} on {row.countermeasure} that was not asked for")
            if row.metric not in chunk.metrics:
                raise ValueError(f"a row of {row.metric}, which was not asked for")
        kept = [(k.pair, k.values, *k.curves.values()) for k in outcome.maps]
        for pair, *arrays in [*kept, *outcome.truths]:
            if (pair.spoof.source, pair.spoof.vocoder) not in asked:
                raise ValueError("a map of an utterance that was not asked for")
            if not all(isinstance(array, np.ndarray) for array in arrays):
                raise ValueError("a map that is no array")
