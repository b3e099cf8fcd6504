"""The label files of PartialSpoof, `SPLIT_seglab_RESOLUTION.npy`, read without running anything in them.

A NumPy file that holds a pickled dictionary: utterance -> array of strings, "1" (bona fide) or "0" (spoof), one a stretch of
RESOLUTION seconds. A pickle can run any code, so `numpy.load(allow_pickle=True)` is not used. It is read by a machine of
its own: opcodes that make plain data, stand-ins for the few names that a NumPy array is rebuilt by, and an error for
every other name. NumPy sees the header of the file and the bytes of arrays without references, never the pickle.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from xaibench.errors import ManifestError

#: Bytes. The largest real one (eval, 0.01 s: 71,237 utterances of 3 s in 4-byte characters) is near 100 MB.
LARGEST = 1 << 29


def read_label_file(path: Path) -> dict[str, Any]:
    """A label file's dictionary: utterance -> labels, an array or list of "1" and "0", not yet checked one by one.

    Nothing in the file is run. Raises ManifestError, naming the file: too large, not a NumPy file of one pickled object,
    a pickle that names anything but an array's parts (the name is in the message), or that holds no dictionary.
    """
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= LARGEST else b""
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror})") from error
    if size > LARGEST:
        raise ManifestError(f"{path}: {size} bytes, expected at most {LARGEST}; is it a label file?")
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(stream)
    except ValueError as error:
        raise ManifestError(f"{path}: not a NumPy file ({error})") from error
    if not dtype.hasobject or shape != ():
        raise ManifestError(f"{path}: an array {shape} of {dtype}, expected one pickled dictionary (shape (), object)")
    try:
        made = _Machine(stream, path).load()
    except _MALFORMED as error:
        raise ManifestError(f"{path}: not a pickle of labels ({type(error).__name__}: {error})") from error
    labels = made.items if isinstance(made, _Array) else made
    if isinstance(labels, list) and len(labels) == 1:  # an array of shape ()
        labels = labels[0]
    if not isinstance(labels, dict) or not all(isinstance(name, str) for name in labels):
        raise ManifestError(f"{path}: holds {type(labels).__name__}, expected a dictionary from utterance to labels")
    return labels


def label_cells(labels: Any, *, path: Path, utterance: str) -> list[str]:
    """Labels of one utterance, as `read_label_file` gives them, as "1" and "0".

    Raises ManifestError, naming file and utterance, for anything else.
    """
    items = labels.items if isinstance(labels, _Array) else labels
    if not isinstance(items, (list, tuple)) or not items:
        raise ManifestError(
            f"{path}: {utterance!r} has {type(labels).__name__} for labels, expected an array of '1' and '0'"
        )
    cells = [str(int(i)) if i in (0, 1) else i for i in items]  # numbers and booleans, too
    if not all(isinstance(c, str) for c in cells) or not set(cells) <= {"0", "1"}:
        stray = next(c for c in cells if c not in ("0", "1"))
        raise ManifestError(
            f"{path}: {utterance!r} has the label {str(stray)[:40]!r}, expected '1' (bona fide) or '0' (spoof)"
        )
    return cells


#: What malformed input can make the machine raise. Nothing else of the pickle reaches us as an exception.
_MALFORMED = (
    pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, ValueError, AttributeError, AssertionError,
    OverflowError, RecursionError, MemoryError,
)  # fmt: skip

#: Names a pickled array refers to (NumPy 1 and 2; `encode` where it was written by pickle protocol 2) -> stand-in.
_NAMES = {
    **{(f"{core}.multiarray", name): name for core in ("numpy.core", "numpy._core") for name in ("_reconstruct", "scalar")},
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    ("codecs", "encode"): "encode",
}

#: Element type of an array -> how NumPy is asked to read its bytes. Nothing here can hold a reference.
_PLAIN = {"U1", "S1", "b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"}


class _Type:
    """Stands in for a dtype: its name, and the byte order its state adds."""

    __slots__ = ("name", "order")

    def __init__(self, name: object) -> None:
        if not isinstance(name, str) or (name.lstrip("<>|=") not in _PLAIN and name.lstrip("|") not in ("O", "O8", "O4")):
            raise ValueError(f"element type {name!r}")
        self.name, self.order = name.lstrip("<>|="), "|"

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise ValueError("malformed element type")
        self.order = state[1]

    def read(self, data: object, count: int) -> list[Any]:
        """`count` elements of raw bytes as plain Python values."""
        if not isinstance(data, bytes):
            raise ValueError(f"{type(data).__name__} for the bytes of an array of {self.name}")
        values = np.frombuffer(data, dtype=np.dtype(self.order.replace("|", "=") + self.name))
        if len(values) != count:
            raise ValueError(f"{len(values)} elements, the array's shape says {count}")
        return [v.decode("latin1") for v in values.tolist()] if self.name == "S1" else values.tolist()


class _Array:
    """Stands in for an array: its elements as a list."""

    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: list[Any] = []

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("malformed array")
        _, shape, kind, _, data = state
        if not isinstance(kind, _Type) or not isinstance(shape, tuple) or len(shape) > 1:
            raise ValueError(f"an array of shape {shape!r}, expected (n,)")
        count = shape[0] if shape else 1
        if kind.name.startswith("O"):
            if not isinstance(data, list) or len(data) != count:
                raise ValueError(f"an array of {count} objects that does not hold them")
            self.items = data
        else:
            self.items = kind.read(data, count)


class _Name:
    """Stands in for a name the pickle may refer to; calling it makes another stand-in."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, *arguments: Any) -> Any:
        if self.kind == "_reconstruct":
            return _Array()
        if self.kind == "dtype":
            return _Type(arguments[0])
        if self.kind == "scalar":
            return arguments[0].read(arguments[1], 1)[0]
        if self.kind == "encode" and arguments[1:] in ((), ("latin1",)) and isinstance(arguments[0], str):
            return arguments[0].encode("latin1")
        raise ValueError(f"{self.kind} cannot be called here")

    def __setstate__(self, state: object) -> None:
        raise ValueError(f"{self.kind} has no state")


#: Opcodes of plain data, of a name, of calling it and of giving the result its state. No others: not NEWOBJ, INST, EXT.
_OPCODES = (
    pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.POP, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE,
    pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT, pickle.BINUNICODE,
    pickle.SHORT_BINUNICODE, pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.EMPTY_LIST, pickle.EMPTY_TUPLE,
    pickle.EMPTY_DICT, pickle.APPEND, pickle.APPENDS, pickle.SETITEM, pickle.SETITEMS, pickle.TUPLE, pickle.TUPLE1,
    pickle.TUPLE2, pickle.TUPLE3, pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE,
    pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.BUILD,
)  # fmt: skip


class _Machine(pickle._Unpickler):  # the interpreted one: its memo is a dictionary, and its opcodes can be chosen
    dispatch: ClassVar[dict[int, Any]] = {code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OPCODES}

    def __init__(self, stream: io.BytesIO, path: Path) -> None:
        super().__init__(stream, encoding="latin1")
        self.path = path

    def find_class(self, module: str, name: str) -> _Name:
        if (module, name) not in _NAMES:
            raise ManifestError(
                f"{self.path}: its pickle refers to {module}.{name}, which a label file has no use for; nothing was run. "
                f"Get the file again from Zenodo 5766198"
            )
        return _Name(_NAMES[module, name])

    def persistent_load(self, pid: object) -> None:
        raise pickle.UnpicklingError("a persistent id")
