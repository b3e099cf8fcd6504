"""Reading ahead changes when something is read, and nothing else."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from xaibench.errors import AudioError
from xaibench.harness.device import staged, to_device
from xaibench.harness.prefetch import Prefetch


class Reader:
    """Remembers who read what; `gate` holds it back."""

    def __init__(self) -> None:
        self.read: list[tuple[str, str]] = []
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()

    def __call__(self, key: str) -> str:
        self.begun.set()
        assert self.gate.wait(5)
        self.read.append((key, threading.current_thread().name))
        if key == "broken":
            raise AudioError("broken: not readable")
        return key.upper()

    @property
    def ahead(self) -> list[str]:
        return [key for key, thread in self.read if thread.startswith("xaibench-prefetch")]


def test_the_same_answers_with_and_without_reading_ahead():
    plain, ahead, reader = Reader(), None, Reader()
    ahead = Prefetch(reader, most=3)
    keys = ["b", "a", "c", "a"]
    answers = []
    for i, key in enumerate(keys):
        answers.append(ahead(key))
        for following in keys[i + 1 : i + 2]:
            ahead.soon(following)
    assert answers == [plain(key) for key in keys]
    assert sorted(k for k, _ in reader.read) == sorted(keys)  # nothing is read twice
    ahead.forget()


def test_it_reads_on_another_thread_before_it_is_asked():
    reader = Reader()
    ahead = Prefetch(reader)
    ahead.soon("a")
    assert reader.begun.wait(5)
    assert ahead("a") == "A" and reader.ahead == ["a"]
    ahead.forget()


def test_no_more_than_so_many_wait_and_a_second_asking_begins_nothing():
    reader = Reader()
    reader.gate.clear()
    ahead = Prefetch(reader, most=2)
    ahead.soon("a")
    assert reader.begun.wait(5)
    for key in ("b", "a", "c", "d"):  # nobody comes for a; b is dropped before it has begun
        ahead.soon(key)
    reader.gate.set()
    assert [ahead(key) for key in ("c", "d", "b")] == ["C", "D", "B"]
    ahead.forget()  # waits for the thread
    assert sorted(k for k, _ in reader.read) == ["a", "b", "c", "d"]
    assert "b" not in reader.ahead
    ahead.forget()


def test_what_has_not_begun_is_read_by_whoever_asks():
    reader = Reader()
    reader.gate.clear()
    ahead = Prefetch(reader)
    ahead.soon("a")
    assert reader.begun.wait(5)  # the thread is busy with a, so b has not begun
    ahead.soon("b")
    asking = threading.Timer(0.05, reader.gate.set)
    asking.start()
    assert ahead("b") == "B" and ahead("a") == "A"
    assert reader.ahead == ["a"]
    ahead.forget()


def test_an_error_is_raised_when_asked_for_and_only_then():
    reader = Reader()
    ahead = Prefetch(reader)
    ahead.soon("broken")
    assert reader.begun.wait(5)
    assert ahead("a") == "A"
    with pytest.raises(AudioError, match="broken: not readable"):
        ahead("broken")
    with pytest.raises(AudioError, match="broken"):  # and it is not kept
        ahead("broken")
    assert len([k for k, _ in reader.read if k == "broken"]) == 2
    ahead.forget()


def test_what_is_forgotten_is_read_again():
    reader = Reader()
    ahead = Prefetch(reader)
    ahead.soon("a")
    assert reader.begun.wait(5)
    ahead.forget()
    assert ahead("a") == "A" and len(reader.read) == 2
    ahead.soon("b")
    assert ahead("b") == "B"
    ahead.forget()


def test_a_waveform_reaches_the_device_whole_and_only_cuda_is_pinned(monkeypatch):
    samples = np.random.default_rng(0).standard_normal((3, 50)).astype(np.float32)[:, ::2]
    cpu = torch.device("cpu")
    assert torch.equal(to_device(samples, cpu), torch.from_numpy(samples.copy()))
    owned = np.zeros(4, np.float32)
    assert staged(owned, cpu).data_ptr() == owned.ctypes.data  # nothing is copied

    asked = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: asked.append("pinned") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, **options: asked.append((device.type, options)) or self)
    to_device(samples, torch.device("cuda"))
    to_device(staged(samples, torch.device("cuda")), torch.device("cuda"))  # read ahead: pinned once, by its own thread
    assert asked == ["pinned", ("cuda", {"non_blocking": True})] * 2
