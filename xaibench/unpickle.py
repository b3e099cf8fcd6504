"""A machine for the few pickles there is no better file of: it makes plain data, and runs nothing.

A pickle is a program. Ours has opcodes for numbers, text, bytes, lists, tuples and dictionaries, and one way to name
anything: a table of names, each with a stand-in of the caller's, which is all that a pickle can call or give a state to. It
imports nothing. How much it does is bounded by the number of opcodes, as a byte of a pickle can make an object of 56.
Used for the label files of PartialSpoof (`xaibench.datasets.seglab`) and PyTorch's checkpoints (`xaibench.states`).
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from xaibench.errors import first_line

#: What malformed input can make the machine raise. Nothing else of a pickle reaches the caller as an exception.
MALFORMED = (
    pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, ValueError, AttributeError, AssertionError,
    OverflowError, RecursionError, MemoryError, SystemError, struct.error,
)  # fmt: skip

#: Opcodes of plain data, of a name, of calling it and of giving the result its state. No others: not NEWOBJ, INST, EXT.
_OPCODES = (
    pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.POP, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE,
    pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT, pickle.BINUNICODE,
    pickle.SHORT_BINUNICODE, pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.EMPTY_LIST, pickle.EMPTY_TUPLE,
    pickle.EMPTY_DICT, pickle.APPEND, pickle.APPENDS, pickle.SETITEM, pickle.SETITEMS, pickle.TUPLE, pickle.TUPLE1,
    pickle.TUPLE2, pickle.TUPLE3, pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE,
    pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.BUILD, pickle.BINPERSID,
)  # fmt: skip


class Stream(Protocol):
    """What is read of a file or of bytes."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...
    def readinto(self, buffer: Any, /) -> int: ...


class Foreign(pickle.UnpicklingError):
    """A pickle refers to something that is not in the table; `name` is it, printable."""

    def __init__(self, module: object, name: object) -> None:
        self.name = first_line(f"{module}.{name}")
        super().__init__(f"it refers to {self.name}")


class Machine(pickle._Unpickler):  # the interpreted one: its memo is a dictionary, and its opcodes can be chosen
    """`Machine(stream, names, most=OPCODES).load()`; raises `Foreign` or another of `MALFORMED`.

    names: (module, name) -> stand-in. A stand-in that may be called is callable, and one that may get a state has
    `__setstate__`. persistent_load: a subclass may take what the pickle keeps elsewhere.

    >>> import io
    >>> Machine(io.BytesIO(pickle.dumps({"a": [1, None]})), {}, most=100).load()
    {'a': [1, None]}
    >>> Machine(io.BytesIO(pickle.dumps(print)), {}, most=100).load()
    Traceback (most recent call last):
    xaibench.unpickle.Foreign: it refers to builtins.print
    """

    dispatch: ClassVar[dict[int, Any]] = {code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OPCODES}

    def __init__(self, stream: Stream, names: Mapping[tuple[str, str], Any], *, most: int) -> None:
        super().__init__(stream, encoding="latin1")
        self.names = names
        vars(self)["dispatch"] = _Counted(self.dispatch, most)  # the loop takes its opcodes from there

    def _set(self: Any) -> None:
        """SETITEM."""
        _check_items(self.stack[-3], self.stack[-2:-1])
        self.load_setitem()

    def _set_all(self: Any) -> None:
        """SETITEMS: keys and values since the mark, and the dictionary before it."""
        _check_items(self.metastack[-1][-1], self.stack[::2])
        self.load_setitems()

    def _build(self: Any) -> None:
        """BUILD, of a stand-in alone: what has no state of its own would be given attributes."""
        if not hasattr(type(self.stack[-2]), "__setstate__"):
            raise ValueError(f"{type(self.stack[-2]).__name__} has no state")
        self.load_build()

    dispatch |= {pickle.SETITEM[0]: _set, pickle.SETITEMS[0]: _set_all, pickle.BUILD[0]: _build}

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name. Raises Foreign."""
        try:
            return self.names[module, name]
        except (KeyError, TypeError) as error:
            raise Foreign(module, name) from error

    def persistent_load(self, pid: Any) -> Any:
        """What the pickle keeps elsewhere: nothing."""
        raise pickle.UnpicklingError("a persistent id")


class _Counted(dict[int, Any]):
    """Opcodes by their byte, each look-up of which is counted."""

    def __init__(self, known: Mapping[int, Any], most: int) -> None:
        super().__init__(known)
        self.most = self.left = most

    def __getitem__(self, code: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"more than {self.most:,} opcodes")
        return super().__getitem__(code)


def _check_items(holder: Any, keys: list[Any]) -> None:
    """Items of a dictionary, by a text or a number. To hash a tuple of two tuples, of two each, and so on, does not end."""
    if not isinstance(holder, dict) or not all(type(key) in (str, int) for key in keys):
        raise ValueError("a key that is no name")
