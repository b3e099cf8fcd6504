"""A second device that computes, for machines that have none: it finds the tensor that was made on the wrong one.

    with SecondDevice() as second:
        view = native_view(cm, to_second(spoof), ...)      # everything behind is on `DEVICE`
    second.to_device, second.to_host                       # how often arrays were copied each way

A `Tagged` tensor says that it is on `DEVICE` (torch's own slot for devices from outside, PrivateUse1, registered from
Python when a block is first entered) and keeps its values in a plain CPU tensor. Every operation is computed there and its
result tagged, autograd above it is torch's own. As on CUDA

- a tagged tensor that meets a plain one of one dimension or more raises RuntimeError, and so does a plain scalar where the
  operation is not element-wise; plain indices are copied to the device, and counted;
- `.numpy()`, and numpy's functions, raise TypeError; `.cpu()`, `.tolist()`, `.to(...)`, `copy_` are counted as copies,
  `.item()`, `bool()` and shapes that depend on values as `reads`, for which the host waits;
- a random number drawn there needs a generator of there. (Its values are the CPU's, unlike CUDA's; `draws` counts them.)

A device that is registered stays: enter a block in a process that may have it (the kit asks in a fork of `probe`).

What it cannot show: speed, memory, streams, other rounding, operations that CUDA does not have or orders otherwise.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

aten = torch.ops.aten


class _Module(_DummyBackendModule):
    """What torch asks of a device's module: here only that its autocast can be turned off."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


DEVICE = torch.device("privateuseone", 0)  # called "second" once it is registered

#: Besides element-wise operations those that take a scalar of the CPU.
TAKE_SCALARS = {"aten::fill_", "aten::fill", "aten::masked_fill", "aten::masked_fill_", "aten::where", "aten::index_put_"}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
COPIES = {"aten::copy_", "aten::copy", "aten::_copy_from", "aten::_copy_from_and_resize"}
#: The host must know a value before it can go on.
READS = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2", "aten::unique_dim",
    "aten::unique_consecutive", "aten::bincount",
}  # fmt: skip


class Tagged(Tensor):
    """A tensor on `DEVICE`."""

    plain: Tensor

    @staticmethod
    def __new__(cls, plain: Tensor) -> Tagged:
        plain = plain.resolve_conj().resolve_neg()
        self = Tensor._make_wrapper_subclass(
            cls, plain.shape, strides=plain.stride(), storage_offset=plain.storage_offset(), dtype=plain.dtype,
            device=DEVICE,
        )  # fmt: skip
        self.plain = plain
        return self

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _handle(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents=None):
        return f"Tagged({self.plain!r})"

    def __deepcopy__(self, memo: dict) -> Tagged:
        if id(self) not in memo:
            twin = self.detach().clone()
            twin = torch.nn.Parameter(twin, self.requires_grad) if isinstance(self, torch.nn.Parameter) else twin
            memo[id(self)] = twin.requires_grad_(self.requires_grad)
        return memo[id(self)]

    def numpy(self, *, force: bool = False):
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first")

    def tolist(self):
        return self.detach().cpu().tolist()


class SecondDevice(TorchDispatchMode):
    """Within the block `DEVICE` exists for factories, too, and what happens on it is counted.

    to_device, to_host: copies of arrays of one dimension or more, or of scalars made on the other side.
    reads:    values the host waited for.
    draws:    random tensors made on the device, by operation: CUDA would draw other numbers than the CPU.
    largest:  elements of the largest array copied each way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.to_device = self.to_host = self.reads = 0
        self.draws: Counter[str] = Counter()
        self.largest = {"to_device": 0, "to_host": 0}

    def __enter__(self):
        register()
        _counting.append(self)
        # Backward passes stay in this thread: the engine counted the devices before this one was there.
        self.before = torch.autograd.is_multithreading_enabled()
        torch.autograd.set_multithreading_enabled(False)
        return super().__enter__()

    def __exit__(self, *failure):
        super().__exit__(*failure)
        torch.autograd.set_multithreading_enabled(self.before)
        _counting.pop()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _handle(func, args, kwargs or {})

    @property
    def copies(self) -> int:
        """Arrays copied either way."""
        return self.to_device + self.to_host

    def copied(self, where: str, tensor: Tensor) -> None:
        setattr(self, where, getattr(self, where) + 1)
        self.largest[where] = max(self.largest[where], tensor.numel())


_counting: list[SecondDevice] = [SecondDevice()]


def to_second(tensor: Tensor) -> Tagged:
    """A tensor put there by a test: not counted."""
    return Tagged(tensor.detach().clone())


def plain(tensor: Tensor) -> Tensor:
    """Its values, read by a test: not counted."""
    found = tensor.detach()
    return found.plain if isinstance(found, Tagged) else found


def _on_second(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _value(x: object) -> object:
    return x.plain if isinstance(x, Tagged) else x


def _tag(x: object) -> object:
    return Tagged(x) if isinstance(x, Tensor) and not isinstance(x, Tagged) else x


def _handle(func, args, kwargs):
    name = func._schema.name
    leaves, _ = tree_flatten((args, kwargs))
    tensors = [x for x in leaves if isinstance(x, Tensor)]
    here = any(isinstance(x, Tagged) for x in tensors)
    count, asked = _counting[-1], kwargs.get("device")
    if not here and not _on_second(asked):
        return func(*args, **kwargs)
    if name == "aten::_to_copy":
        return _to_copy(func, args, kwargs, count)
    if name in COPIES:
        return _copy(func, args, kwargs, count)
    if name in READS:
        count.reads += 1
    if here:
        _check_mates(func, name, args, kwargs, count)
    wrap = here
    if asked is not None:
        wrap = _on_second(asked)
        kwargs = {**kwargs, "device": "cpu"}
    if torch.Tag.nondeterministic_seeded in func.tags and wrap:
        if kwargs.get("generator") is not None:
            raise RuntimeError(f"Expected a {DEVICE.type!r} device type for generator but found 'cpu'")
        count.draws[name] += 1
    result = func(*tree_map(_value, args), **tree_map(_value, kwargs))
    written = _written(func, args, kwargs)
    if written:
        _same_geometry(func, written, args, kwargs)
        result = written if isinstance(result, tuple | list) and len(result) == len(written) > 1 else written[0]
        return result if func._schema.returns else None
    return tree_map(_tag, result) if wrap else result


def _to_copy(func, args, kwargs, count):
    source, asked = args[0], kwargs.get("device")
    target = isinstance(source, Tagged) if asked is None else _on_second(asked)
    if target != isinstance(source, Tagged):
        count.copied("to_device" if target else "to_host", source)
    rest = {k: v for k, v in kwargs.items() if k not in ("device", "pin_memory", "non_blocking")}
    same = not {k for k, v in rest.items() if v is not None and k != "layout"}
    result = _value(source).clone() if same else func(_value(source), **rest)
    return Tagged(result) if target else result


def _copy(func, args, kwargs, count):
    source, target = (args[0], args[1]) if "_copy_from" in func._schema.name else (args[1], args[0])
    if isinstance(source, Tagged) != isinstance(target, Tagged):
        count.copied("to_device" if isinstance(target, Tagged) else "to_host", source)
    _value(target).copy_(_value(source))
    return target


def _check_mates(func, name, args, kwargs, count) -> None:
    """Raise as CUDA does where a plain tensor takes part; count the indices that CUDA would fetch."""
    indices = args[1] if name in INDEXING else ()
    if isinstance(args[0] if args else None, Tagged):
        for index in indices:
            if isinstance(index, Tensor) and not isinstance(index, Tagged):
                count.copied("to_device", index)
            elif isinstance(index, Tagged) and index.dtype in (torch.bool, torch.uint8) and not _one_value(name, args):
                count.reads += 1
        fetched = {id(i) for i in indices if isinstance(i, Tensor)}
    else:
        fetched = set()
    leaves, _ = tree_flatten((args, kwargs))
    scalars = torch.Tag.pointwise in func.tags or name in TAKE_SCALARS
    for mate in leaves:
        if not isinstance(mate, Tensor) or isinstance(mate, Tagged) or id(mate) in fetched:
            continue
        if not (scalars and mate.ndim == 0 and mate is not _first(args)):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {DEVICE} and cpu! "
                f"({name}: a CPU tensor of shape {tuple(mate.shape)})"
            )


def _one_value(name: str, args) -> bool:
    """`x[mask] = 1` fills by the mask; other values would have to be counted first."""
    return name.endswith("_") and len(args) > 2 and isinstance(args[2], Tensor) and args[2].numel() == 1


def _first(args) -> object:
    return args[0] if args and isinstance(args[0], Tensor) and args[0].ndim else None


def _written(func, args, kwargs) -> list[Tensor]:
    """The arguments that the operation writes and returns."""
    found = []
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = kwargs.get(argument.name) if i >= len(args) else args[i]
            found += list(value) if isinstance(value, list | tuple) else [value]
    return [x for x in found if isinstance(x, Tensor)]


def _same_geometry(func, written: list[Tensor], args, kwargs) -> None:
    """`transpose_` and its like change a tensor's own shape: that of the tag, too."""
    if torch.Tag.inplace_view in func.tags:
        with torch._C._DisableTorchDispatch():
            func(*args, **kwargs)
    for tensor in written:
        if isinstance(tensor, Tagged) and tuple(tensor.shape) != tuple(tensor.plain.shape):
            raise NotImplementedError(f"{func}: in place, it made {tuple(tensor.plain.shape)} of {tuple(tensor.shape)}")


def _beneath(overload):
    """A kernel of what torch runs beneath Python, for `torch.tensor(..., device=DEVICE)`."""
    return lambda *args, **kwargs: _handle(overload, args, kwargs)


@cache
def register() -> torch.library.Library:
    """Register the device with torch, for the rest of the process; it is kept alive, as a registration goes with it."""
    _setup_privateuseone_for_python_backend("second", backend_module=_Module())
    library = torch.library.Library("aten", "IMPL")
    for name, overload in (
        ("empty.memory_format", aten.empty.memory_format), ("empty_strided", aten.empty_strided.default),
        ("_copy_from", aten._copy_from.default),
    ):  # fmt: skip
        library.impl(name, _beneath(overload), "PrivateUse1")
    return library
