"""PyTorch's own checkpoints (`torch.save`), read without running anything in them and without `torch.load`.

Weights of ours are safetensors (`xaibench.weights`). Others publish pickles, and the checkpoint of a training holds the
optimiser's state, too. `torch.load(weights_only=True)` imports nothing that it does not know, but it makes what it is told
to: a `bytearray` of any size, a tensor of 2^40 numbers over one. Here the pickle is read by `xaibench.unpickle`, with
stand-ins for tensors; a tensor is made only where all its numbers are in the file.

Read are the zip files of PyTorch 1.6 and later, members stored and not compressed, and the older stream of pickles with the
numbers behind it (NII's, torchvision's). TorchScript archives and tar files (before 0.2) are not.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from xaibench import reading
from xaibench.errors import CheckpointError, told
from xaibench.unpickle import MALFORMED, Machine, Stream

#: Bytes of a checkpoint. The largest that is used, of a training of XLS-R 300M, has 5 GB.
LARGEST = 1 << 34
LARGEST_PICKLE = 1 << 26  # bytes; names, shapes and an optimiser's numbers, without the tensors
LARGEST_LIST = 1 << 23  # bytes of a zip file's list of members
MOST_OPCODES = 1 << 22
MOST_VALUES = 1 << 18  # of dictionaries and lists, all together
SHARED = 4  # times the file's own bytes that tensors may have which share their numbers
DEEPEST = 100

_TYPES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16, "Long": torch.int64,
    "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
}  # fmt: skip
#: How the older stream opens, and the version it then says.
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def load_state(path: Path, *, most: int = LARGEST, hint: str = "is the name right?") -> Any:
    """What a checkpoint holds: tensors, on the CPU, in dictionaries, lists and tuples, with numbers and text.

    A `.safetensors` file is read as one: a dictionary of tensors. Raises CheckpointError, naming the file: none, not a
    file, more than `most` bytes, damaged, or holding more than plain data. hint: what to do where there is no such file.
    """
    path = Path(path)
    with reading.opened(path, CheckpointError, what="checkpoint", hint=hint, most=most) as file:
        try:
            if path.suffix == ".safetensors":
                return _safe(path)
            size = os.fstat(file.fileno()).st_size
            made, numbers = (_zipped if file.read(4) == b"PK\3\4" else _streamed)(file, size)
            return _Tensors(numbers, SHARED * size).within(made)
        except (*MALFORMED, zipfile.BadZipFile, NotImplementedError, SafetensorError) as error:
            raise CheckpointError(
                f"{path}: damaged, or holds more than tensors and plain data ({told(error)}); nothing in it was run. "
                f"Expected a state_dict, as torch.save or safetensors writes it"
            ) from error


@dataclass(frozen=True)
class _Storage:
    """Numbers that are elsewhere in the file: under which key, of which type and how many."""

    key: str
    kind: torch.dtype
    count: int

    @property
    def bytes(self) -> int:
        return self.count * self.kind.itemsize


@dataclass(frozen=True)
class _View:
    """A tensor that is to be made."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raises ValueError where a number of it would be none of the storage, or there are more of them than there."""
        if not isinstance(self.storage, _Storage) or not all(map(_numbers, (self.shape, self.stride, (self.offset,)))):
            raise ValueError("a tensor without storage, shape or stride")
        if len(self.shape) != len(self.stride) or len(self.shape) > 32:
            raise ValueError(f"a tensor of {len(self.shape)} dimensions and {len(self.stride)} strides")
        count, last = 1, self.offset
        for size, step in zip(self.shape, self.stride, strict=True):
            count, last = count * size, last + max(size - 1, 0) * step
        if count > self.storage.count or self.offset > self.storage.count or (count and last >= self.storage.count):
            raise ValueError(f"a tensor {self.shape} of {self.storage.count:,} numbers")


def _numbers(values: object) -> bool:
    return isinstance(values, tuple) and all(type(v) is int and 0 <= v < 1 << 62 for v in values)


class _Kind:
    """Stands in for `torch.FloatStorage` and its kin: has no use but to be named."""

    def __init__(self, kind: torch.dtype) -> None:
        self.kind = kind


class _Ordered(dict[Any, Any]):
    """Stands in for OrderedDict, whose state (the versions of modules) is not needed."""

    def __setstate__(self, state: object) -> None:
        pass


def _view(storage: Any, offset: Any, shape: Any, stride: Any, *_: object) -> _View:
    """`torch._utils._rebuild_tensor_v2`; the rest is of gradients and hooks."""
    return _View(storage, offset, shape, stride)


def _parameter(view: Any, *_: object) -> Any:
    return view


_NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Ordered,
    ("torch._utils", "_rebuild_tensor_v2"): _view,
    ("torch._utils", "_rebuild_tensor"): _view,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", f"{name}Storage"): _Kind(kind) for name, kind in _TYPES.items()},
}


class _Pickle(Machine):
    """One pickle of a checkpoint. `storages`: those that were named so far, by key."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream, _NAMES, most=MOST_OPCODES)
        self.storages: dict[str, _Storage] = {}

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage: `("storage", type, key, device, numbers)`, and in old files how it is a part of another: None."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage" or pid[5:] not in ((), (None,)):
            raise ValueError("a persistent id that is no storage")
        kind, key, count = pid[1], pid[2], pid[4]
        if not isinstance(kind, _Kind) or type(key) is not str or not _numbers((count,)):
            raise ValueError("a storage without type, key or size")
        new = _Storage(key, kind.kind, count)
        if self.storages.setdefault(key, new) != new:
            raise ValueError(f"storage {key!r} is of two types or sizes")
        return new


#: A storage -> its bytes.
_Numbers = Callable[[_Storage], bytearray]


def _zipped(file: BinaryIO, size: int) -> tuple[Any, _Numbers]:
    """The pickle of a zip file, read, and where its numbers are."""
    file.seek(0)
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined] # before the list is read, which is made of objects
    if not end or end[5] > LARGEST_LIST:
        raise ValueError("its list of members is missing, or too long")
    archive = zipfile.ZipFile(file)
    members = {info.filename: info for info in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise ValueError("two members of one name")
    found = [name for name in members if PurePosixPath(name).name == "data.pkl" and name.count("/") == 1]
    if len(found) != 1:
        raise ValueError(f"{len(found)} members data.pkl, expected one")
    top = found[0].removesuffix("data.pkl")
    if f"{top}constants.pkl" in members:
        raise ValueError("a TorchScript archive, which holds code; save the state_dict of its module")
    if any(info.compress_type or info.flag_bits & 1 or info.compress_size != info.file_size for info in members.values()):
        raise ValueError("a member that is compressed or encrypted, as torch writes none")
    if sum(info.file_size for info in members.values()) > size:
        raise ValueError("its members are larger than itself")

    def content(name: str, expected: int) -> bytearray:
        info = members.get(top + name)
        if info is None or info.file_size > expected:
            raise ValueError(f"member {name!r} is missing, or larger than {expected:,} bytes")
        buffer = bytearray(info.file_size)
        with archive.open(info) as member:
            read = 0
            while read < len(buffer) and (part := member.read(min(1 << 24, len(buffer) - read))):
                buffer[read : read + len(part)] = part
                read += len(part)
            member.read(1)  # behind the end its checksum is compared
        if read < len(buffer):
            raise EOFError(f"member {name!r} ends early")
        return buffer

    if f"{top}byteorder" in members and content("byteorder", 16) != b"little":
        raise ValueError("numbers of another byte order")
    made = _Pickle(io.BytesIO(content("data.pkl", LARGEST_PICKLE))).load()
    return made, lambda storage: _whole(storage, content(f"data/{storage.key}", storage.bytes))


def _streamed(file: BinaryIO, size: int) -> tuple[Any, _Numbers]:
    """The pickles of the older stream, read, and the numbers behind them, read as well."""
    file.seek(0)
    stream = _Short(file)
    if _Pickle(stream).load() != _MAGIC or _Pickle(stream).load() != _PROTOCOL:
        raise ValueError("its first bytes are not those of a checkpoint")
    machine = _Pickle(stream)
    system = machine.load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("numbers of another byte order")
    main = _Pickle(stream)
    made, keys = main.load(), _Pickle(stream).load()
    if not isinstance(keys, list) or set(map(str, keys)) != set(main.storages) or len(keys) != len(main.storages):
        raise ValueError("its list of storages is not that of its tensors")
    if sum(storage.bytes + 8 for storage in main.storages.values()) > size:
        raise ValueError("its tensors are larger than itself")
    numbers = {}
    for key in keys:
        storage = main.storages[str(key)]
        if int.from_bytes(file.read(8), "little") != storage.count:
            raise ValueError(f"storage {key!r} is of two sizes")
        numbers[storage.key] = _whole(storage, bytearray(file.read(storage.bytes)))
    return made, lambda storage: numbers[storage.key]


class _Short:
    """The pickles of a stream: a text or a number of theirs has no more bytes than a whole pickle may."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.left = file, LARGEST_PICKLE

    def read(self, size: int) -> bytes:
        return self.file.read(self._spent(size))

    def readline(self) -> bytes:
        line = self.file.readline(1 << 12)
        self._spent(len(line))
        return line

    def readinto(self, buffer: Any) -> int:
        self._spent(len(buffer))
        return self.file.readinto(buffer)  # type: ignore[attr-defined]

    def _spent(self, size: int) -> int:
        self.left -= size
        if size < 0 or self.left < 0:
            raise ValueError(f"pickles of more than {LARGEST_PICKLE:,} bytes")
        return size


def _whole(storage: _Storage, content: bytearray) -> bytearray:
    if len(content) != storage.bytes:
        raise ValueError(f"storage {storage.key!r} has {len(content):,} bytes, expected {storage.bytes:,}")
    return content


@dataclass
class _Tensors:
    """Makes the tensors of what a pickle gave. left: bytes that they may still have."""

    numbers: _Numbers
    left: int
    values: int = MOST_VALUES
    known: dict[str, Tensor] = field(default_factory=dict)

    def within(self, value: Any, depth: int = 0) -> Any:
        """The same with tensors. Raises ValueError for too many values, as lists of one list of one list are, and so on."""
        self.values -= 1
        if self.values < 0 or depth > DEEPEST:
            raise ValueError(f"more than {MOST_VALUES:,} values, or nested deeper than {DEEPEST} levels")
        if isinstance(value, _View):
            return self.tensor(value)
        if isinstance(value, dict):
            return {key: self.within(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.within(inner, depth + 1) for inner in value)
        if value is None or isinstance(value, str | int | float | bytes):
            return value
        raise ValueError(f"a {type(value).__name__.lstrip('_')} among plain data")

    def tensor(self, view: _View) -> Tensor:
        """A tensor; of one storage they share their numbers, as they did when they were saved."""
        storage = view.storage
        numbers = self.known.get(storage.key)
        if numbers is None:
            content = self.numbers(storage)
            numbers = torch.frombuffer(content, dtype=storage.kind) if content else torch.zeros(0, dtype=storage.kind)
            self.known[storage.key] = numbers
        found = numbers.as_strided(view.shape, view.stride, view.offset)
        self.left -= found.numel() * storage.kind.itemsize
        if self.left < 0:
            raise ValueError(f"tensors of more than {SHARED} times its own bytes")
        return found


def _safe(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
