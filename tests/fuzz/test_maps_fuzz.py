"""Kept maps that were damaged, or written by somebody else to be read by us: the map as it was written, or a RunError that
names the file. Never another exception, never NaN, and never more memory than the file itself asks for.
"""

from __future__ import annotations

import json
import struct
import tracemalloc

import numpy as np
import pytest
from fuzzing import TIMES, fuzz, handed
from hypothesis import given
from hypothesis import strategies as st

from xaibench import maps
from xaibench.errors import RunError, XaibenchError

VALUES = np.arange(35, dtype=np.float32).reshape(5, 7) - 10
CURVES = {"fractions": np.linspace(0, 1, 4), "deletion-twin": np.array([3.0, 1.0, 0.5, -2.0])}


def written(folder):
    """A map with curves and a truth, as a run keeps them."""
    a, b = folder / "u__world.safetensors", folder / "t__world.safetensors"
    maps.write_map(a, VALUES, metadata={"utterance": "u", "grid": "16000/64/32/hann"}, curves=CURVES)
    maps.write_truth(b, abs(VALUES), VALUES > 20, VALUES > -9, metadata={"truth": "eq2"})
    return a, b


def by_hand(tensors, body: bytes = b"", **metadata) -> bytes:
    """A file of these header entries: name -> (type, shape, first and last byte)."""
    entries = {n: {"dtype": d, "shape": s, "data_offsets": [i, j]} for n, (d, s, i, j) in tensors.items()}
    head = json.dumps({**({"__metadata__": metadata} if metadata else {}), **entries}).encode()
    return struct.pack("<Q", len(head)) + head + body


def seen(path):
    """What every reader says of a file."""
    found = []
    for read in (maps.read_map, maps.read_truth, maps.read_curves):
        try:
            found.append(read(path))
        except RunError as error:
            assert str(path) in str(error), error
    for one in found:
        if isinstance(one, maps.StoredMap):
            assert one.values.dtype == np.float32 and one.values.ndim == 2 and np.isfinite(one.values).all()
        curves = one.curves if isinstance(one, maps.StoredMap) else one
        assert all(c.ndim == 1 and np.isfinite(c).all() for c in curves.values())
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    return [path.read_bytes() for path in written(folder)]


#: What is done to the bytes of a file: where (a share of its length), and what stands there then.
HARM = st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["flip", "cut", "insert", "zero", "repeat"]), st.binary(
    min_size=1, max_size=9)), min_size=1, max_size=4)  # fmt: skip


def harmed(data: bytes, harm) -> bytes:
    for share, how, junk in harm:
        at = int(share * len(data))
        data = {
            "flip": data[:at] + bytes(b ^ 1 << (junk[0] % 8) for b in data[at : at + 1]) + data[at + 1 :],
            "cut": data[:at], "insert": data[:at] + junk + data[at:],
            "zero": data[:at] + bytes(len(junk)) + data[at + len(junk) :], "repeat": data[:at] + data[at // 2 :],
        }[how]  # fmt: skip
    return data


@pytest.mark.parametrize("times", [TIMES, pytest.param(30 * TIMES, marks=pytest.mark.heavy)])
def test_a_damaged_file_is_never_read_as_another_map(tmp_path, files, times):
    handed["maps"] = 0

    @fuzz(700, times=times)
    @given(which=st.integers(0, 1), harm=HARM)
    def read(which, harm):
        data = harmed(files[which], harm)
        path = tmp_path / "harmed.safetensors"
        path.write_bytes(data)
        handed["maps"] += 1
        for found in seen(path):
            if isinstance(found, maps.StoredMap):  # whole, or of before there were checksums
                known = (VALUES, abs(VALUES))
                assert any(np.array_equal(found.values, v) for v in known) or b"sha256:" not in data

    read()
    assert handed["maps"] >= 700 * times


TYPES = {"F32": 4, "F64": 8, "F16": 2, "BF16": 2, "I64": 8, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "C64": 8, "F4": 1, "?": 1}
NAMES = ["values", "region", "valid", "curve:fractions", "curve:deletion-twin", "curve:", "weight", "", "__metadata__", "\0"]
TENSOR = st.tuples(
    st.sampled_from(list(TYPES)), st.lists(st.sampled_from([0, 1, 2, 3, 5, 2**31, 2**63, -1]), max_size=3),
    st.sampled_from([0.0, 1.0, np.nan, np.inf, -3e38]),
)  # fmt: skip


@pytest.mark.parametrize("times", [TIMES, pytest.param(30 * TIMES, marks=pytest.mark.heavy)])
def test_a_file_made_by_hand_is_a_map_or_refused_by_name(tmp_path, times):
    handed["by hand"] = handed["by hand, read"] = 0

    @fuzz(700, times=times)
    @given(tensors=st.dictionaries(st.sampled_from(NAMES), TENSOR, max_size=5), lie=st.sampled_from([0, 0, 0, 1, -1, 10**9]))
    def read(tensors, lie):
        entries, body = {}, b""
        for name, (kind, shape, value) in tensors.items():
            size = int(np.prod([float(n) for n in shape])) * TYPES[kind]
            data = np.resize(np.array([value], "<f4"), max(min(size, 400) // 4, 1)).tobytes()[: max(min(size, 400), 0)]
            entries[name] = (kind, shape, len(body), len(body) + len(data) + lie)
            body += data
        path = tmp_path / "hand.safetensors"
        path.write_bytes(by_hand(entries, body))
        handed["by hand"] += 1
        handed["by hand, read"] += bool(seen(path))

    read()
    assert handed["by hand"] >= 700 * times and handed["by hand, read"] > 0


F32 = ("F32", [2, 2], 0, 16)
ONES = np.ones(4, "<f4").tobytes()
HOSTILE = {
    "empty": b"",
    "short": b"\0" * 7,
    "header of 2^60 bytes": struct.pack("<Q", 2**60) + b"{}",
    "no JSON": by_hand({})[:8] + b"hi",
    "a list": struct.pack("<Q", 2) + b"[]",
    "deep": struct.pack("<Q", 100_000) + b"[" * 100_000,
    "2^80 cells": by_hand({"values": ("F32", [2**40, 2**40], 0, 16)}, ONES),
    "2^40 x 0 cells": by_hand({"values": ("F32", [2**40, 0], 0, 0)}),
    "bfloat16": by_hand({"values": ("BF16", [2, 4], 0, 16)}, ONES),
    "float8": by_hand({"values": ("F8_E5M2", [4, 4], 0, 16)}, ONES),
    "float4": by_hand({"values": ("F4", [4, 8], 0, 16)}, ONES),
    "float64": by_hand({"values": ("F64", [1, 2], 0, 16)}, ONES),
    "integers": by_hand({"values": ("I64", [1, 2], 0, 16)}, ONES),
    "complex": by_hand({"values": ("C64", [1, 2], 0, 16)}, ONES),
    "NaN": by_hand({"values": F32}, np.full(4, np.nan, "<f4").tobytes()),
    "three dimensions": by_hand({"values": ("F32", [1, 2, 2], 0, 16)}, ONES),
    "other": by_hand({"weight": F32}, ONES),
    "a curve of another length": by_hand({"values": F32, "curve:deletion-twin": ("F64", [2], 16, 32)}, ONES + ONES),
    "a mask of twos": by_hand(
        {"values": F32, "region": ("U8", [2, 2], 16, 20), "valid": ("U8", [2, 2], 20, 24)}, ONES + b"\2" * 8
    ),
    "a mask of another shape": by_hand(
        {"values": F32, "region": ("U8", [1, 4], 16, 20), "valid": ("U8", [2, 2], 20, 24)}, ONES + bytes(8)
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_little_memory(tmp_path, name):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    try:
        with pytest.raises(RunError, match=r"hostile\.safetensors: "):
            maps.read_truth(path)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_a_file_larger_than_any_map_is_not_opened(tmp_path):
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: no bytes on the disk
    for read in (maps.read_map, maps.read_truth, maps.read_curves):
        with pytest.raises(RunError, match=r"large\.safetensors: 1099511627776 bytes, more than"):
            read(path)


@pytest.mark.parametrize("grid", ["", "a/b/c/d", "16000/512", "1/2/3/hann/5", "\x1b[31m"])
def test_a_grid_that_is_none_is_refused(grid):
    with pytest.raises(XaibenchError, match="the grid of a kept map is"):
        maps.grid_of({"grid": grid})
