"""Inputs at a time: how many are chosen, what is an error of memory, and what is a lost device."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
import toybench
from toys import LinearCM, view_of

from xaibench.errors import RunError
from xaibench.harness import sizes
from xaibench.harness.cell import run_chunk
from xaibench.harness.plan import Chunk, fingerprint, ordered_pairs
from xaibench.harness.sizes import Size, fitting_batch, is_out_of_memory, is_poisoned, lost_device, with_room
from xaibench.harness.workbench import Workbench

ILLEGAL = (
    "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported at some "
    "other API call, so the stacktrace below might be incorrect."
)


def chained(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 15.77 GiB"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError("Unable to allocate 512. TiB for an array"),
        chained(ValueError("the library gave up"), torch.OutOfMemoryError("CUDA out of memory")),
    ],
)
def test_errors_of_memory(error):
    assert is_out_of_memory(error) and not is_poisoned(error)


def test_the_cpu_s_own_allocator_says_so():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**46)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError(ILLEGAL),
        RuntimeError(ILLEGAL),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: unspecified launch failure"),
        RuntimeError("CUDA error: misaligned address"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        chained(torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(ILLEGAL)),
    ],
)
def test_errors_that_poison_the_context(error):
    assert is_poisoned(error) and not is_out_of_memory(error), "a lost context must not be tried again"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: invalid argument"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("an illegal memory access was encountered"),  # somebody's text, not CUDA's
        ZeroDivisionError("division by zero"),
    ],
)
def test_other_errors_are_neither(error):
    assert not is_out_of_memory(error) and not is_poisoned(error)


def test_a_code_says_as_much_as_the_words():
    error = torch.AcceleratorError("CUDA error: something new")
    error.error_code = 719
    assert is_poisoned(error)


def test_the_sentence_names_host_process_and_what_cuda_said():
    error = chained(ValueError("the library gave up"), RuntimeError(ILLEGAL))
    said = lost_device(error, torch.device("cuda", 1), "grad-cam on lcnn")
    assert "grad-cam on lcnn: cuda:1 on " in said and "an illegal memory access was encountered'" in said
    assert sizes.socket.gethostname() in said and str(sizes.os.getpid()) in said and "same command" in said


# ---- trying again ------------------------------------------------------------------------------------------------------


def test_what_is_tried_again_finds_its_memory_free():
    seen: list[weakref.ref] = []
    left = [3]

    def work() -> int:
        assert all(reference() is None for reference in seen), "the failed try is still in memory"
        large = torch.zeros(1000)
        seen.append(weakref.ref(large))
        if left[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return len(seen)

    def smaller() -> bool:
        left[0] -= 1
        return True

    assert with_room(work, smaller, torch.device("cpu")) == 4


@pytest.mark.parametrize("error", [RuntimeError(ILLEGAL), ValueError("no"), torch.OutOfMemoryError("CUDA out of memory")])
def test_nothing_else_is_tried_again(error):
    calls = []

    def work() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        with_room(work, lambda: False, torch.device("cpu"))
    assert len(calls) == 1


# ---- how many ----------------------------------------------------------------------------------------------------------


class Costly(torch.nn.Module):
    """Runs out of memory beyond `room` inputs, and remembers how many it was given."""

    def __init__(self, model: torch.nn.Module, room: int = 10**9) -> None:
        super().__init__()
        self.model, self.room = model, room
        self.seen: list[int] = []

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.model(x)


def costly(monkeypatch, *, need=0, room=10**9):
    """A view whose model needs so many bytes however many inputs it is given, on a machine with 1000 bytes, all free."""
    monkeypatch.setattr(sizes, "_needs", lambda work, device: need * (work() is None))
    monkeypatch.setattr(sizes, "free_memory", lambda device: 1000)
    monkeypatch.setattr(sizes, "total_memory", lambda device: 1000)
    view = view_of(LinearCM(), count=3)
    return replace(view, model=Costly(view.model, room))


def test_no_clock_is_asked_so_the_same_command_takes_the_same_size_on_a_busy_machine():
    assert not {"time", "perf_counter", "monotonic"} & set(vars(sizes))
    view = view_of(LinearCM(), count=3)
    assert {fitting_batch(view) for _ in range(3)} == {Size(16, "no more than 16 at a time")}


@pytest.mark.parametrize(("room", "chosen"), [(1, 1), (5, 4), (15, 8), (0, 1)])
def test_it_stops_where_memory_runs_out(monkeypatch, room, chosen):
    view = costly(monkeypatch, room=room)
    assert fitting_batch(view) == Size(chosen, f"{2 * chosen if room else 1} run out of memory")


def test_all_the_memory_decides_and_what_is_free_only_where_hardly_any_is(monkeypatch):
    view = costly(monkeypatch, need=100)
    assert fitting_batch(view).inputs == 16, "200 of 1000 bytes are well within a quarter"
    monkeypatch.setattr(sizes, "free_memory", lambda device: 260)
    assert fitting_batch(view).inputs == 16, "what others take may change no number as long as it fits"
    monkeypatch.setattr(sizes, "free_memory", lambda device: 240)
    assert fitting_batch(view) == Size(1, "2 would take more than 80% of what is free of the memory now")
    view = costly(monkeypatch, need=200)
    assert fitting_batch(view) == Size(1, "2 would take more than 25% of the memory") and max(view.model.seen) == 1


def test_gradients_are_tried_too(monkeypatch):
    view = costly(monkeypatch)
    real, graphs = view.model.forward, []

    def forward(x):
        if torch.is_grad_enabled():
            graphs.append(len(x))
            if len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return real(x)

    monkeypatch.setattr(view.model, "forward", forward)
    assert fitting_batch(view).inputs == 2 and graphs == [1, 2, 4]


def test_what_is_tried_are_the_batch_s_own_utterances(monkeypatch):
    view = costly(monkeypatch)
    real, unknown = view.model.forward, []

    def forward(x):
        same = (x[:, None] == view.inputs[None]).flatten(2).all(-1)
        unknown.append(int((~same.any(1)).sum()))
        return real(x)

    monkeypatch.setattr(view.model, "forward", forward)
    fitting_batch(view)
    assert unknown and not any(unknown)


def test_free_memory_is_bounded_by_the_process_cgroup(tmp_path):
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert sizes._cgroup_headroom(tmp_path) == 2000 and sizes._cgroup_number("memory.max", tmp_path) == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert sizes._cgroup_headroom(tmp_path) is None and sizes._cgroup_headroom(tmp_path / "none") is None
    assert sizes.free_memory(torch.device("cpu")) > 2**20 and sizes.peak_memory() > 2**20
    assert sizes.total_memory(torch.device("cpu")) >= sizes.free_memory(torch.device("cpu"))


# ---- in the workbench --------------------------------------------------------------------------------------------------


def test_a_size_is_measured_once_a_countermeasure_and_route(root, monkeypatch):
    toybench.install(monkeypatch)
    calls = []
    monkeypatch.setattr(
        "xaibench.harness.workbench.fitting_batch", lambda view: calls.append(view.route) or Size(5, "told so")
    )
    bench = Workbench(toybench.spec(root, "energy"))
    pairs = ordered_pairs(bench.corpus, "eval")
    views = [bench.prepare("toy", route, pairs[i : i + 2]).view for route in ("native", "grid") for i in (0, 2, 4)]
    assert calls == ["native", "grid"] and {v.batch_size for v in views} == {5} and bench.batch_size == 4
    assert bench.sizes == {f"toy/{r}": {"inputs": 5, "why": "told so"} for r in ("grid", "native")}
    asked = Workbench(bench.spec, batch_size=3)
    assert asked.prepare("toy", "native", pairs[:2]).view.batch_size == 3 and len(calls) == 2
    assert asked.sizes == {"toy/native": {"inputs": 3, "why": "asked for"}}


def test_a_model_that_fails_is_not_the_measurement_s_business(root, monkeypatch):
    toybench.install(monkeypatch)

    def broken(view):
        raise ZeroDivisionError("no")

    monkeypatch.setattr("xaibench.harness.workbench.fitting_batch", broken)
    bench = Workbench(toybench.spec(root, "energy"))
    assert bench.prepare("toy", "native", ordered_pairs(bench.corpus, "eval")[:2]).view.batch_size == 4
    assert "ZeroDivisionError" in bench.sizes["toy/native"]["why"]


def test_what_a_method_cannot_take_costs_that_method_only(root, monkeypatch):
    toybench.install(monkeypatch, "toy-gradient")
    monkeypatch.setattr("xaibench.harness.workbench.fitting_batch", lambda view: Size(8, "told so"))
    bench = Workbench(toybench.spec(root, "toy-gradient", "energy"))
    pairs = ordered_pairs(bench.corpus, "eval")[:2]
    bench.prepare("toy", "native", pairs)
    assert bench.halve("toy", "native", "toy-gradient") and bench.halve("toy", "native", "toy-gradient")
    prepared = bench.prepare("toy", "native", pairs)
    assert prepared.view.batch_size == 8
    assert bench.view_for(prepared, bench.attributor("energy")).batch_size == 8
    assert bench.view_for(prepared, bench.attributor("toy-gradient")).batch_size == 2
    assert bench.halve("toy", "native"), "a metric's passes are everyone's"
    prepared = bench.prepare("toy", "native", pairs)
    assert prepared.view.batch_size == 4
    assert bench.sizes["toy/native"] == {"inputs": 4, "why": "8 ran out of memory"}
    assert bench.halve("toy", "native") and bench.halve("toy", "native") and not bench.halve("toy", "native")
    assert not bench.halve("toy", "native", "toy-gradient")


def test_a_lost_device_ends_the_chunk_with_one_sentence(root, monkeypatch):
    toybench.install(monkeypatch)
    bench = Workbench(toybench.spec(root, "energy"), batch_size=2)
    pairs = ordered_pairs(bench.corpus, "eval")[:2]
    facts = bench.facts("toy", "native", "energy")
    prints = tuple(fingerprint(bench.spec, p, facts) for p in pairs)
    chunk = Chunk("toy", "native", "energy", 0, tuple(pairs), bench.spec.metrics, prints)

    calls = []

    def lost(*_):
        calls.append(1)
        raise torch.AcceleratorError(ILLEGAL)

    monkeypatch.setattr(Workbench, "prepare", lost)
    with pytest.raises(RunError, match=r"energy on toy: cpu on .* was lost to 'CUDA error: an illegal memory access"):
        run_chunk(bench, chunk, "run")
    assert len(calls) == 1
