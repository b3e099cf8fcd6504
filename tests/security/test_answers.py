"""What a hostile process of `--isolate` sends: an answer of the right form, or a sentence. The run runs none of it."""

from __future__ import annotations

import os
import pickle
import random
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import seeds

from xaibench.errors import RunError, Undefined, XaibenchError
from xaibench.harness import isolate
from xaibench.harness.answers import MOST, read, written
from xaibench.harness.cell import Kept, Outcome
from xaibench.harness.isolated import HEAD, MARK, first
from xaibench.harness.plan import Chunk
from xaibench.harness.preflight import Verdict
from xaibench.harness.tasks import Task
from xaibench.harness.verdicts import Check
from xaibench.harness.warned import Said
from xaibench.harness.worker import Done, ForeignWorker, LostDevice
from xaibench.types import Pair, Row, Utterance


def utterance(vocoder: str) -> Utterance:
    return Utterance("a", "s", "eval", vocoder, Path("/data/a.wav"), segments=((0.0, 1.0, "spoof"),))


PAIR = Pair(utterance("bonafide"), utterance("hifigan"))
TASK = Task((Chunk("lcnn", "grid", "saliency", 0, (PAIR,), ("rank-accuracy",), ("f",)),), ("",))
ROW = Row("r", "d", "a", "s", "hifigan", "lcnn", "saliency", "grid", "eq2", "rank-accuracy", 0.5, "ok", 1.0, "", "f")
MAP = Kept(PAIR, np.arange(6, dtype=np.float32).reshape(2, 3), ("time",), {"deletion": np.linspace(0, 1, 3)})
OUTCOME = Outcome(
    (ROW,), (MAP,), ((PAIR, *[np.ones((2, 3), bool)] * 3),), "boom", {"lcnn": {"grid": 4}}, (Said("x", "y", ("a",)),)
)
DONE = Done((OUTCOME,), Verdict("", {"seed": np.float32(0.5)}, ("w",), checks=(Check("seed", "passed", 0.0),)))


def test_an_answer_comes_through():
    found = read(written(DONE), TASK)
    assert found.outcomes[0].rows == (ROW,) and found.verdict == replace(DONE.verdict, measured={"seed": 0.5})
    assert np.array_equal(found.outcomes[0].maps[0].values, MAP.values) and found.outcomes[0].maps[0].pair == PAIR
    assert found.outcomes[0].truths[0][1].dtype == bool and found.outcomes[0].sizes == OUTCOME.sizes
    assert found.outcomes[0].said == OUTCOME.said and found.outcomes[0].error == "boom"


@pytest.mark.parametrize("error", [RunError("x"), Undefined("y"), ForeignWorker("w", "why"), LostDevice("w", "why")])
def test_an_error_comes_through(error):
    found = read(written(error), TASK)
    assert type(found) is type(error) and found.args == error.args


class Trap:
    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


def owned(path: Path) -> list[bytes]:
    """Pickles that write a file where they are believed."""
    code = f"open({str(path)!r}, 'w')"
    from numpy.testing import runstring

    text = b"X" + struct.pack("<I", len(str(path))) + str(path).encode()
    return [
        pickle.dumps(Trap(os.system, f"touch {path}")),
        pickle.dumps(Trap(exec, code)),
        pickle.dumps(Trap(runstring, code, {})),  # which the run took until now, as a name of numpy
        pickle.dumps(Trap(Path.touch, path)),
        b"cxaibench.files\nwrite_text\n(cpathlib\nPosixPath\n(" + text + b"tRX\x01\x00\x00\x00atR.",
        b"cxaibench.harness.isolate\npickle.loads\n(C\x01.tR.",
        b"ccollections\nnamedtuple\n(X\x01\x00\x00\x00aX\x01\x00\x00\x00btR.",
    ]  # fmt: skip


def test_nothing_is_run(tmp_path):
    for number, answer in enumerate(owned(tmp_path / "owned")):
        with pytest.raises(RunError, match=r"cannot be read: Foreign"):
            read(answer, TASK)
        assert not (tmp_path / "owned").exists(), number
    pickle.loads(owned(tmp_path / "owned")[2])
    assert (tmp_path / "owned").exists()  # it would have


ROWS = {
    "another method's": replace(ROW, attributor="lime"),
    "another model's": replace(ROW, countermeasure="aasist"),
    "another utterance's": replace(ROW, utterance="../../x"),
    "another metric's": replace(ROW, metric="insertion"),
}
WRONG = {
    **{name: Done((replace(OUTCOME, rows=(row,)),)) for name, row in ROWS.items()},
    "no outcome": Done(()),
    "a map of another": Done(
        (replace(OUTCOME, maps=(replace(MAP, pair=Pair(None, replace(utterance("x"), source="../b"))),)),)
    ),
    "a map of text": Done((replace(OUTCOME, maps=(replace(MAP, values="x"),)),)),
    "rows of text": Done((replace(OUTCOME, rows=("x",)),)),
    "a note of bytes": Done((replace(OUTCOME, error=b"x"),)),
    "a verdict of text": Done((OUTCOME,), "x"),
    "sizes of a list": Done((replace(OUTCOME, sizes=[1]),)),
    "a list": [DONE],
    "a path": Path("x"),
    "an array": np.zeros(3),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_answer_of_another_form(name):
    with pytest.raises(RunError, match="cannot be read"):
        read(written(WRONG[name]), TASK)


def test_enormous_numbers():
    name = "xaibench.harness.answers"
    for program in (
        b"\x80\x04}r\xff\xff\xff\xff.",
        b"\x80\x04B\xff\xff\xff\xff.",
        b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
        f"c{name}\n_array\n(X\x03\x00\x00\x00<f4J\xff\xff\xff\x7f\x85C\x04".encode() + b"0000tR.",
        f"c{name}\n_array\n(X\x03\x00\x00\x00|O8".encode() + b"K\x01\x85C\x08" + bytes(8) + b"tR.",
        f"c{name}\n_record\n(X\x04\x00\x00\x00Trap".encode() + b"tR.",
        f"c{name}\n_error\n(X\x09\x00\x00\x00Exception".encode() + b"tR.",
        b"N" + b"\x85" * 200_000 + b".",
    ):
        with pytest.raises(RunError, match="cannot be read"):
            read(program, TASK)


def test_a_message_says_how_long_it_is_and_may_not_be_endless():
    for length in (MOST, 1 << 62, (1 << 64) - 1):
        with pytest.raises(ValueError, match="bytes"):
            first(bytearray(HEAD.pack(MARK, length)))
    assert first(bytearray(HEAD.pack(MARK, 3) + b"r")) is None


@pytest.mark.parametrize("content", [b"[" * 9999, b'["a"]', b'["a", "b"]', b"{}", b'["a", 1e999]', b"\xff", b'["a", true]'])
def test_who_runs_is_a_name_and_a_number(content):
    with pytest.raises(ValueError, match=r"name and a number|JSON|Expecting|nested|decode"):
        isolate._what_runs(content)


def test_a_thousand_damaged_answers():
    draw, whole, read_ = random.Random(seeds.SEED or 0), written(DONE), 0
    for _ in range(1_000):
        content = bytearray(whole)
        for _ in range(draw.choice((1, 1, 2, 6))):
            content[draw.randrange(len(content))] = draw.randrange(256)
        try:
            assert isinstance(
                read(bytes(content[: draw.choice((len(content), draw.randrange(len(content))))]), TASK), Done | XaibenchError
            )
            read_ += 1
        except RunError as error:
            assert len(str(error)) < 2_000
    assert read_ < 900
