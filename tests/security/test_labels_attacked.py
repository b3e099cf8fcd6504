"""PartialSpoof's label files with programs of an enemy in them: no import, no call, in bounded memory."""

from __future__ import annotations

import os
import pickle
import random
import resource
import struct
import sys
from pathlib import Path

import pytest
import seeds

from xaibench.datasets.seglab import label_cells, read_label_file
from xaibench.errors import ManifestError

SEED = seeds.SEED or 0
#: Names that do something; each would leave a trace in `ASKED`.
NAMES = (
    "os\nsystem", "posix\nsystem", "builtins\nexec", "builtins\neval", "builtins\ngetattr", "builtins\n__import__",
    "subprocess\nPopen", "numpy\nload", "numpy.testing\nrunstring", "numpy\nndarray", "numpy\ndtype", "_codecs\nencode",
    "numpy.core.multiarray\n_reconstruct", "numpy._core.multiarray\nscalar", "xaibench.datasets.seglab\n_Array",
    "numpy\ndtype.__class__", "numpy.f2py.crackfortran\nmyeval", "pickle\nloads", "ctypes\nstring_at", "\n", "é\n\x1b[2J",
)  # fmt: skip
EVENTS = {"os.system", "subprocess.Popen", "exec", "import", "os.posix_spawn", "ctypes.dlopen", "socket.connect"}
ASKED: list[str] = []
_watching = [False]


def _watch(event: str, _: tuple[object, ...]) -> None:
    if _watching[0] and event in EVENTS:
        ASKED.append(event)


sys.addaudithook(_watch)


def label_file(path: Path, program: bytes) -> Path:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    header += b" " * (117 - len(header)) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + program)
    return path


def operand(draw: random.Random) -> bytes:
    """An opcode with something behind it, well-formed more often than not."""
    kind = draw.randrange(12)
    if kind == 0:
        return b"c" + draw.choice(NAMES).encode() + b"\n"
    if kind == 1:
        module, name = draw.choice(NAMES).encode().split(b"\n")[:2]
        return b"\x8c" + bytes([len(module)]) + module + b"\x8c" + bytes([len(name)]) + name + b"\x93"
    if kind == 2:
        return b"X" + struct.pack("<I", draw.choice((0, 1, 3, 1 << 31))) + b"a01"
    if kind == 3:
        return draw.choice((b"J", b"r", b"j", b"B", b"X", b"T", b"\x84", b"G")) + draw.randbytes(4)
    if kind == 4:
        return draw.choice((b"h", b"q", b"K", b"\x80", b"C", b"\x8c")) + bytes([draw.randrange(8)])
    if kind == 5:
        return b"\x95" + struct.pack("<Q", draw.choice((0, 9, 1 << 40, (1 << 64) - 1)))
    if kind == 6:
        return draw.choice((b"\x8d", b"\x8e", b"\x96", b"\x8b", b"\x82", b"\x83")) + draw.randbytes(8)
    if kind <= 8:
        return bytes([draw.randrange(256)])
    return draw.choice((b"R", b"b", b"o", b"i", b"\x81", b"\x92", b"s", b"u", b"a", b"e", b"t", b"(", b")", b"]", b"}",
                        b"\x85", b"\x86", b"\x87", b"\x94", b"0", b"1", b"2", b"Q", b"P", b"N", b"\x88"))  # fmt: skip


def stream(draw: random.Random) -> bytes:
    body = b"".join(operand(draw) for _ in range(draw.randrange(1, 40)))
    return b"\x80" + bytes([draw.choice((2, 4, 5))]) + draw.choice((b"", b"}", b"]", b"(")) + body + b"."


def attack(folder: Path, count: int, seed: int) -> tuple[int, int]:
    """How many of the streams were read, and refused. Anything else is raised."""
    draw, read, refused = random.Random(seed), 0, 0
    path = folder / "x.npy"
    for _ in range(count):
        label_file(path, stream(draw))
        try:
            for name, labels in read_label_file(path).items():
                label_cells(labels, path=path, utterance=name)
            read += 1
        except ManifestError as error:
            assert str(path) in str(error) and str(error).isprintable() and len(str(error)) < 1_500
            refused += 1
    return read, refused


def in_a_child(folder: Path, count: int, seed: int) -> str:
    """The same with 2 GB more of address space than now, and a minute of processor time; what went wrong, or nothing."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        try:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30),) * 2)
            resource.setrlimit(resource.RLIMIT_CPU, (200, 200))
            attack(folder, 20, seed + 1)  # whatever is imported late
            _watching[0] = True
            _, refused = attack(folder, count, seed)
            said = f"asked for {ASKED[:3]}" if ASKED else "" if refused > count // 2 else f"only {refused} were refused"
        except BaseException as error:  # noqa: BLE001 - of a child, which says it
            said = f"{type(error).__name__}: {error}"
        os.write(writes, said.encode()[:4000])
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as answer:
        said = answer.read()
    status = os.waitpid(child, 0)[1]
    return said or ("" if status == 0 else f"ended with {status}")


def test_random_programs_run_nothing(tmp_path):
    assert in_a_child(tmp_path, 2_000, SEED) == ""


@pytest.mark.heavy
def test_twenty_thousand_random_programs(tmp_path):
    assert in_a_child(tmp_path, 20_000, SEED + 1) == ""


def test_the_watch_sees_what_it_should():
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        _watching[0] = True
        pickle.loads(b"cbuiltins\nexec\n(X\x04\x00\x00\x00passtR.")
        os.write(writes, b"seen" if "exec" in ASKED else b"blind")
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as answer:
        assert answer.read() == "seen"
    os.waitpid(child, 0)


PROGRAMS = {
    "a state for a name": b"cnumpy\ndtype\n}X\x04\x00\x00\x00kindX\x04\x00\x00\x00execsb.",
    "a state for a dictionary": b"}}X\x09\x00\x00\x00__class__Nsb.",
    "a state for a list": b"]N}X\x01\x00\x00\x00aNs\x86b.",
    "a state for a text": b"X\x01\x00\x00\x00a}b.",
    "an item of an array": b"cnumpy.core.multiarray\n_reconstruct\n)RK\x00Ns.",
    "an item of a list": b"]NaK\x00K\x01s.",
    "items of a list": b"]Na(K\x00K\x01u.",
    "calling a list": b"])R.",
    "a name of names": b"\x8c\x05numpy\x8c\x12ndarray.__reduce__\x93.",
    "a name that is no text": b"K\x01K\x02\x93.",
    "a persistent id": b"X\x01\x00\x00\x00aQ.",
    "an extension": b"\x82\x01.",
    "a new object": b"cnumpy\ndtype\n)\x81.",
    "an instance": b"(cnumpy\ndtype\no.",
    "by its old name": b"(iposix\nsystem\n.",
    "bytes to change": b"\x96" + struct.pack("<Q", 1 << 40) + b".",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_refused(name, tmp_path):
    path = label_file(tmp_path / "x.npy", b"\x80\x04" + PROGRAMS[name])
    with pytest.raises(ManifestError, match=r"x\.npy: (not a pickle of labels|its pickle refers to)"):
        read_label_file(path)
