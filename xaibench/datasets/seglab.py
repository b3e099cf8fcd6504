"""The label files of PartialSpoof, `SPLIT_seglab_RESOLUTION.npy`, read without running anything in them.

A NumPy file that holds a pickled dictionary: utterance -> array of strings, "1" (bona fide) or "0" (spoof), one a stretch of
RESOLUTION seconds. A pickle can run any code, so `numpy.load(allow_pickle=True)` is not used. It is read by
`xaibench.unpickle`: opcodes that make plain data, stand-ins for the few names that a NumPy array is rebuilt by, and an error
for every other name. NumPy sees the header of the file and the bytes of arrays without references, never the pickle.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from xaibench import reading
from xaibench.errors import ManifestError, told
from xaibench.reading import shown
from xaibench.unpickle import MALFORMED, Foreign, Machine

#: Bytes. The largest real one (eval, 0.01 s: 71,237 utterances of 3 s in 4-byte characters) is near 100 MB.
LARGEST = 1 << 28

#: Opcodes, of which the largest real one has two million, and labels, 25 million. A byte of a pickle can make an object of
#: 56, and the bytes of one array can serve any number of them: without these bounds a file of 200 MB fills any memory.
MOST_OPCODES = 1 << 24
MOST_LABELS = 1 << 26


def read_label_file(path: Path) -> dict[str, Any]:
    """A label file's dictionary: utterance -> labels, an array or list of "1" and "0", not yet checked one by one.

    Nothing in the file is run. Raises ManifestError, naming the file: too large, not a NumPy file of one pickled object,
    a pickle that names anything but an array's parts (the name is in the message), or that holds no dictionary.
    """
    with reading.opened(path, ManifestError, what="label file", most=LARGEST) as file:
        stream = io.BytesIO(file.read())
    if stream.read(6) != b"\x93NUMPY":
        raise ManifestError(f"{path}: not a NumPy file, which labels are; is it cut off, or another file?")
    wide = 2 if stream.read(2) == b"\x01\x00" else 4  # versions 2 and 3 have longer headers
    header = stream.read(min(int.from_bytes(stream.read(wide), "little"), LONGEST_HEADER)).decode("latin-1")
    if not _HEADER.fullmatch(header):
        found = shown(header.strip())
        raise ManifestError(f"{path}: its header is {found}, expected one pickled dictionary ('|O', shape ())")
    try:
        made = Machine(stream, _names(), most=MOST_OPCODES).load()
    except Foreign as error:
        raise ManifestError(
            f"{path}: its pickle refers to {error.name}, which a label file has no use for; nothing was run. Get the file "
            f"again from Zenodo 5766198"
        ) from error
    except MALFORMED as error:
        raise ManifestError(f"{path}: not a pickle of labels ({told(error)})") from error
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
            f"{path}: {shown(utterance)} has {type(labels).__name__} for labels, expected an array of '1' and '0'"
        )
    cells = [_LABELS.get(i, "") if isinstance(i, (str, int, float)) else "" for i in items]
    if "" in cells:
        stray = items[cells.index("")]  # a list within a list within a list has no end when it is printed
        said = shown(stray, 40) if isinstance(stray, (str, int, float)) else f"of type {type(stray).__name__}"
        raise ManifestError(f"{path}: {shown(utterance)} has the label {said}, expected '1' (bona fide) or '0' (spoof)")
    return cells


#: A label as it may be stored -> the label. Numbers and booleans, too: True is 1 and 0.0 is 0.
_LABELS: dict[object, str] = {"0": "0", "1": "1", 0: "0", 1: "1"}


#: How NumPy describes an array that holds one object. Its own reader of headers compiles them.
_HEADER = re.compile(r"\{'descr': '\|?O[48]?', 'fortran_order': (False|True), 'shape': \(\), \}\s*")
LONGEST_HEADER = 10_000  # characters, NumPy's own bound

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


class _Budget:
    """How many labels may still be made."""

    def __init__(self) -> None:
        self.labels = MOST_LABELS

    def spend(self, labels: int) -> None:
        """Raises ValueError where there would be too many."""
        self.labels -= labels
        if self.labels < 0:
            raise ValueError(f"more than {MOST_LABELS:,} labels")


class _Type:
    """Stands in for a dtype: its name, and the byte order its state adds."""

    __slots__ = ("name", "order")

    def __init__(self, name: object) -> None:
        if not isinstance(name, str) or (name.lstrip("<>|=") not in _PLAIN and name.lstrip("|") not in ("O", "O8", "O4")):
            raise ValueError(f"element type {shown(name) if isinstance(name, str) else type(name).__name__}")
        self.name, self.order = name.lstrip("<>|="), "|"

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise ValueError("malformed element type")
        self.order = state[1]

    def read(self, data: object, count: int) -> list[Any]:
        """`count` elements of raw bytes as plain Python values."""
        if not isinstance(data, bytes):
            raise ValueError(f"{type(data).__name__} for the bytes of an array of {self.name}")
        plain = {"U1": "u4", "S1": "u1"}.get(self.name, self.name)  # characters as numbers: four bytes can be none
        values = np.frombuffer(data, dtype=np.dtype(self.order.replace("|", "=") + plain))
        if len(values) != count:
            raise ValueError(f"{len(values)} elements, the array's shape says {count}")
        if plain == self.name:
            return values.tolist()
        if values.max(initial=0) > 127:
            raise ValueError("labels in letters beyond ASCII")
        return list(values.astype(np.uint8).tobytes().decode("ascii"))


class _Array:
    """Stands in for an array: its elements as a list."""

    __slots__ = ("budget", "items")

    def __init__(self, budget: _Budget) -> None:
        self.budget = budget
        self.items: list[Any] = []

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("malformed array")
        _, shape, kind, _, data = state
        if not isinstance(kind, _Type) or not isinstance(shape, tuple) or len(shape) > 1:
            raise ValueError("an array whose shape or kind is none, expected (n,) elements of a kind")
        count = shape[0] if shape else 1
        if type(count) is not int or count < 0:
            raise ValueError("an array whose length is no whole number")
        self.budget.spend(count)
        if kind.name.startswith("O"):
            if not isinstance(data, list) or len(data) != count:
                raise ValueError(f"an array of {count} objects that does not hold them")
            self.items = data
        else:
            self.items = kind.read(data, count)


def _names() -> dict[tuple[str, str], _Name]:
    """The table of a file: its names share one budget."""
    budget = _Budget()
    return {place: _Name(kind, budget) for place, kind in _NAMES.items()}


class _Name:
    """Stands in for a name the pickle may refer to; calling it makes another stand-in."""

    __slots__ = ("budget", "kind")

    def __init__(self, kind: str, budget: _Budget) -> None:
        self.kind, self.budget = kind, budget

    def __call__(self, *arguments: Any) -> Any:
        if self.kind == "_reconstruct":
            return _Array(self.budget)
        if self.kind == "dtype":
            return _Type(arguments[0])
        if self.kind == "scalar":
            return arguments[0].read(arguments[1], 1)[0]
        if self.kind == "encode" and arguments[1:] in ((), ("latin1",)) and isinstance(arguments[0], str):
            self.budget.spend(len(arguments[0]))
            return arguments[0].encode("latin1")
        raise ValueError(f"{self.kind} cannot be called here")

    def __setstate__(self, state: object) -> None:
        raise ValueError(f"{self.kind} has no state")
