"""The loop over an engine: answers, lost answers, workers that must not take part, chunks that kill their workers."""

from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest
from test_tasks import plan

from xaibench.errors import RunError
from xaibench.harness.engine import Engine, completed
from xaibench.harness.tasks import Queue
from xaibench.harness.worker import ForeignWorker

KNOWN = {("cm", "native", f"a{m}"): "" for m in range(9)}


class Deadly(Exception):
    """What an engine raises when a task took its worker along."""


class Scripted(Executor):
    """Hands out futures whose fate a function of the task decides: a value, an exception, or "cancelled"."""

    def __init__(self, fate):
        self.fate = fate

    def submit(self, fn, task):
        future, fate = Future(), self.fate(task)
        if fate == "cancelled":
            future.cancel()
            future.set_running_or_notify_cancel()
        elif isinstance(fate, Exception):
            future.set_exception(fate)
        else:
            future.set_result(fate)
        return future


class Hardy(Engine):
    """Goes on after everything, and remembers."""

    def worker_died(self, error):
        return isinstance(error, Deadly)

    def refuse(self, worker, why):
        self.notes.append(f"{worker}: {why}")

    def recover(self):
        self.notes.append("recovered")


def names(done):
    return sorted(c.name for task, _ in done for c in task.chunks)


def test_what_was_lost_with_the_connection_is_handed_out_again():
    chunks, times = plan(2, 4), []

    def fate(task):
        times.append(task)
        return "cancelled" if len(times) in (2, 3) else len(times)

    engine = Hardy(Scripted(fate), workers=2, remote=True)
    done = list(completed(engine, None, Queue(chunks, KNOWN, workers=2), ForeignWorker))
    assert names(done) == sorted(c.name for c in chunks)
    assert engine.notes and set(engine.notes) == {"recovered"}


def test_a_refused_worker_costs_nothing():
    chunks, times = plan(1, 3), []

    def fate(task):
        times.append(task)
        return ForeignWorker("tcp://odd", "captum is 9.9 there") if len(times) == 1 else "fine"

    engine = Hardy(Scripted(fate), workers=1)
    assert names(completed(engine, None, Queue(chunks, KNOWN), ForeignWorker)) == sorted(c.name for c in chunks)
    assert engine.notes == ["tcp://odd: captum is 9.9 there"]
    with pytest.raises(RunError, match=r"worker tcp://odd is refused: captum is 9\.9 there"):
        times.clear()
        list(completed(Engine(Scripted(fate)), None, Queue(chunks, KNOWN), ForeignWorker))


def test_a_chunk_that_kills_its_workers_is_found_and_the_others_of_its_task_are_computed():
    chunks = plan(1, 8)

    def fate(task):
        return Deadly("killed") if chunks[1] in task.chunks else "fine"

    done = list(completed(Hardy(Scripted(fate), workers=2), None, Queue(chunks, KNOWN, workers=2), ForeignWorker))
    assert names(done) == sorted(c.name for c in chunks)
    assert [task.chunks for task, result in done if isinstance(result, Deadly)] == [(chunks[1],)]


def test_any_other_error_ends_the_run():
    with pytest.raises(ZeroDivisionError):
        list(completed(Hardy(Scripted(lambda task: ZeroDivisionError())), None, Queue(plan(1, 1), KNOWN), ForeignWorker))


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_the_executors_of_the_standard_library_are_engines(kind):
    chunks = plan(2, 3)
    with kind(2) as pool:
        done = list(completed(Engine(pool, workers=2), abs_of_batch, Queue(chunks, KNOWN, workers=2), ForeignWorker))
    assert names(done) == sorted(c.name for c in chunks)
    assert all(result == task.chunks[0].batch for task, result in done)


def abs_of_batch(task):
    return abs(task.chunks[0].batch)


def test_a_broken_pool_says_that_finished_rows_are_kept():
    engine = Engine(Scripted(lambda task: BrokenProcessPool()))
    with pytest.raises(RunError, match="finished rows are kept, the same command continues"):
        list(completed(engine, None, Queue(plan(1, 1), KNOWN), ForeignWorker))


def test_a_refusal_survives_the_way_between_processes():
    import pickle

    error = pickle.loads(pickle.dumps(ForeignWorker("tcp://a:1", "no weights")))
    assert (error.worker, error.why, str(error)) == ("tcp://a:1", "no weights", "worker tcp://a:1 is refused: no weights")
