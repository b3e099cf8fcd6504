"""PyTorch checkpoints that an enemy wrote: a state dict, or a sentence that names the file. Nothing is run or unpacked."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import resource
import struct
import zipfile
from pathlib import Path

import pytest
import seeds
import torch
from torch import nn

from xaibench import states, weights
from xaibench.errors import CheckpointError
from xaibench.states import load_state

SEED = seeds.SEED or 0
HEAD = b"\x80\x02"


def text(said: str) -> bytes:
    return b"X" + struct.pack("<I", len(said.encode())) + said.encode()


def number(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def several(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(count: int = 1, *, key: str = "0", kind: str = "FloatStorage") -> bytes:
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(made: bytes, shape: bytes, stride: bytes, *, offset: int = 0) -> bytes:
    end = b"\x89ccollections\nOrderedDict\n)RtR"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + made + number(offset) + shape + stride + end


def state(value: bytes) -> bytes:
    """The pickle of `{"a": value}`."""
    return HEAD + b"}" + text("a") + value + b"s."


def zipped(content: bytes, *members: tuple[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as file:
        for name, data in [("data.pkl", content), ("byteorder", b"little"), ("version", b"3\n"), *members]:
            file.writestr(f"x/{name}", data)
    return stream.getvalue()


def saved(thing: object, **how: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(thing, stream, **how)
    return stream.getvalue()


class Trap:
    def __reduce__(self):
        return Path.touch, (Path("owned"),)


ONE = ("data/0", bytes(4))
#: Each list holds the one before it twice.
LAUGHS = b"".join(b"]q" + bytes([i + 1]) + 2 * (b"h" + bytes([i]) + b"a") for i in range(60))
HOSTILE = {
    "runs code": (saved({"a": Trap()}), "refers to"),
    "runs code, older": (saved({"a": Trap()}, _use_new_zipfile_serialization=False), "refers to"),
    "a bare pickle": (pickle.dumps(Trap()), "damaged"),
    "a module": (saved(nn.Linear(1, 1)), "refers to torch.nn.modules.linear.Linear"),
    "8 GB of bytes": (zipped(state(b"c__builtin__\nbytearray\n" + number(8 << 30) + b"\x85R"), ONE), "refers to"),
    "2^40 of one": (zipped(state(tensor(storage(), several(1 << 40), several(0))), ONE), "of 1 numbers"),
    "2^80 of none": (zipped(state(tensor(storage(0), several(1 << 40, 1 << 40), several(1, 1)))), "of 0 numbers"),
    "behind the end": (zipped(state(tensor(storage(), several(1), several(1), offset=1 << 40)), ONE), "of 1 numbers"),
    "a step behind": (zipped(state(tensor(storage(2), several(2), several(9))), ("data/0", bytes(8))), "of 2 numbers"),
    "backwards": (zipped(state(tensor(storage(2), several(2), several(-1))), ("data/0", bytes(8))), "without storage"),
    "a negative size": (zipped(state(tensor(storage(), several(-1), several(1))), ONE), "without storage"),
    "a negative storage": (zipped(state(tensor(storage(-1), several(1), several(1))), ONE), "without type"),
    "more than there is": (zipped(state(tensor(storage(1 << 24), several(1 << 24), several(1))), ONE), "has 4 bytes"),
    "a member missing": (zipped(state(tensor(storage(), several(1), several(1)))), "is missing"),
    "up and away": (zipped(state(tensor(storage(key="../../etc"), several(1), several(1))), ONE), "is missing"),
    "no tensor": (zipped(state(tensor(b"N", several(1), several(1))), ONE), "without storage"),
    "a name as data": (zipped(state(b"ctorch\nFloatStorage\n")), "a Kind among plain data"),
    "strides for three": (zipped(state(tensor(storage(), several(1), several(1, 1, 1))), ONE), "3 strides"),
    "a bomb": (zipped(bytes(1 << 24), how=zipfile.ZIP_DEFLATED), "compressed"),
    "TorchScript": (zipped(state(b"N"), ("constants.pkl", b""), ("code/x.py", b"import os")), "TorchScript"),
    "big-endian": (zipped(state(b"N")).replace(b"little", b"bigggg"), "damaged"),
    "lists of lists": (zipped(HEAD + b"]q\x00" + LAUGHS + b"."), "values, or nested"),
    "a list of itself": (zipped(HEAD + b"]q\x00h\x00a."), "nested deeper"),
    "a key of tuples": (zipped(HEAD + b"}N\x85q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"Ns."), "no name"),
    "a memo of 64 GB": (zipped(HEAD + b"}r\xff\xff\xff\xff."), None),
    "a text of 4 GB": (saved({}, _use_new_zipfile_serialization=False)[:-30] + b"X\xff\xff\xff\xff", "damaged"),
    "the old tar": (b"sys_info" + bytes(504) + b"ustar", "damaged"),
    "nothing": (b"", "damaged"),
    "half a zip": (saved({"a": torch.ones(9)})[:300], "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_checkpoint_is_refused_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, said = HOSTILE[name]
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if said is None:  # harmless here
        assert load_state(path) == {}
    else:
        with pytest.raises(CheckpointError) as caught:
            load_state(path)
        assert str(path) in str(caught.value) and said in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 18  # KiB
    assert not (tmp_path / "owned").exists()


def test_one_storage_is_not_copied_a_thousand_times(tmp_path):
    many = b"".join(text(f"a{n}") + tensor(storage(1 << 16), several(1 << 16), several(1)) for n in range(50))
    path = tmp_path / "x.pt"
    path.write_bytes(zipped(HEAD + b"}(" + many + b"u.", ("data/0", bytes(1 << 18))))
    with pytest.raises(CheckpointError, match="times its own bytes"):
        load_state(path)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "round.pth").symlink_to("round.pth")
    (tmp_path / "zero.pth").symlink_to("/dev/zero")
    for name in ("pipe.pth", "folder.pth", "round.pth", "zero.pth", "absent.pth", "x" * 300, "a\0b"):
        with pytest.raises(CheckpointError, match=r"expected a checkpoint|no such file|cannot be opened|have this name"):
            load_state(tmp_path / name)
    large = tmp_path / "large.pth"
    with large.open("wb") as file:
        file.truncate(states.LARGEST + 1)
    with pytest.raises(CheckpointError, match="at most"):
        load_state(large)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "stream"])
def test_what_torch_saves_is_read_as_torch_reads_it(new, tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.LSTM(4, 4))
    model[2].weight_hh_l0 = model[2].weight_ih_l0  # shared
    odd = {
        "half": torch.ones(3).half(),
        "brain": torch.ones(2).bfloat16(),
        "none": torch.zeros(0, 3),
        "one": torch.tensor(7),
    }
    part = {
        "strided": torch.arange(12.0).view(3, 4)[:, ::2],
        "flags": torch.tensor([True, False]),
        "generator": torch.get_rng_state(),
    }
    plain = {"list": [1, 2.5, None, "x", (1, True)], 3: {"deep": []}}
    path = tmp_path / "x.pt"
    path.write_bytes(saved({"model": model.state_dict(), **odd, **part, **plain}, _use_new_zipfile_serialization=new))
    ours, theirs = load_state(path), torch.load(path, weights_only=True)
    same(ours, theirs)
    model.load_state_dict(ours["model"])
    assert ours["model"]["2.weight_hh_l0"].data_ptr() == ours["model"]["2.weight_ih_l0"].data_ptr()


def same(ours, theirs) -> None:
    if isinstance(theirs, torch.Tensor):
        assert ours.dtype == theirs.dtype and ours.stride() == theirs.stride() and torch.equal(ours, theirs)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            same(ours[key], theirs[key])
    elif isinstance(theirs, list | tuple):
        assert type(ours) is type(theirs) and len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
    else:
        assert ours == theirs


@pytest.mark.parametrize("new", [True, False], ids=["zip", "stream"])
def test_a_thousand_damaged_checkpoints(new, tmp_path):
    draw = random.Random(SEED)
    whole = saved(nn.Linear(3, 3).state_dict(), _use_new_zipfile_serialization=new)
    path, refused = tmp_path / "x.pt", 0
    for _ in range(500):
        content = bytearray(whole)
        for _ in range(draw.choice((1, 1, 2, 8))):
            at = draw.randrange(len(content))
            content[at : at + draw.choice((0, 1, 1, 4))] = draw.randbytes(draw.choice((1, 1, 4)))
        path.write_bytes(content[: draw.choice((len(content), len(content), draw.randrange(len(content))))])
        try:
            load_state(path)
        except CheckpointError as error:
            assert str(path) in str(error) and len(str(error)) < 1_000
            refused += 1
    assert refused > 100


# safetensors ---------------------------------------------------------------------------------------------------------------


def safe(header: bytes, data: bytes = b"", *, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if size is None else size) + header + data


def tensors(*found: tuple[str, str, list[int], list[int]]) -> bytes:
    """The header of a file: name, type, shape and place of each tensor."""
    return json.dumps({n: {"dtype": d, "shape": s, "data_offsets": o} for n, d, s, o in found}).encode()


WEIGHT, BIAS = ("weight", "F32", [1, 1], [0, 4]), ("bias", "F32", [1], [4, 8])
SAFE = {
    "a header of 2^62": safe(b"{}", size=1 << 62),
    "a header of 90 MB": safe(b"{}" + b" " * 100, size=90 << 20),
    "overlapping": safe(tensors(WEIGHT, ("bias", "F32", [1], [0, 4])), bytes(4)),
    "behind the end": safe(tensors(("weight", "F32", [1, 1], [0, 400])), bytes(4)),
    "backwards": safe(tensors(("weight", "F32", [1, 1], [4, 0])), bytes(4)),
    "2^64 numbers": safe(tensors(("weight", "F32", [(1 << 64) - 1, 2], [0, 4])), bytes(4)),
    "a strange type": safe(tensors(("weight", "O", [1, 1], [0, 4])), bytes(4)),
    "deep": safe(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "not an object": safe(b"[1]"),
    "escapes in a name": safe(tensors(("\x1b[31m\0", "F32", [1], [0, 4])), bytes(4)),
    "NaN": safe(tensors(WEIGHT, BIAS), b"\xff" * 8),
    "numbers for floats": safe(tensors(("weight", "I32", [1, 1], [0, 4]), BIAS), bytes(8)),
}


@pytest.mark.parametrize("name", SAFE)
def test_hostile_safetensors(name, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(SAFE[name])
    with pytest.raises(CheckpointError) as caught:
        weights.load_weights(nn.Linear(1, 1), path)
    assert str(path) in str(caught.value) and str(caught.value).isprintable()
    if name not in ("NaN", "numbers for floats", "escapes in a name"):  # which are tensors, of another network
        with pytest.raises(CheckpointError, match=r"x\.safetensors: damaged"):
            load_state(path)


CARDS = {
    "deep": b'{"a":' * 100_000,
    "a list": b"[]",
    "64 MB": b'{"a":"' + b"x" * (1 << 26) + b'"}',
    "a zero byte": b'{"a":\0}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "options of text": b'{"options": "\\u001b[31m"}',
    "5,000 digits": b'{"a":' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("name", CARDS)
def test_a_hostile_card(name, tmp_path):
    (tmp_path / "x.json").write_bytes(CARDS[name])
    with pytest.raises(CheckpointError, match=r"x\.json") as caught:
        weights.read_card(tmp_path / "x.safetensors")
    assert str(caught.value).isprintable()
