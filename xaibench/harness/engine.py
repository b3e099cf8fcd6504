"""Where the work runs: any `concurrent.futures.Executor`. In the calling process by default.

An `Engine` is an executor with what the run loop must know of it: how many workers it has, which of its errors mean that
an answer was lost rather than wrong, and how to go on after them. `xaibench.harness.cluster` has one for Dask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from xaibench.errors import RunError
from xaibench.harness.plan import Chunk
from xaibench.harness.tasks import Queue, Task


class InProcess(Executor):
    """Runs each call at once, in this process and thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - an executor hands errors to whoever asks for the result
            future.set_exception(error)
        return future


@dataclass(repr=False, eq=False)
class Engine:
    """An executor and its habits; this one is for executors that lose nothing, or everything.

    workers: tasks computed at a time. remote: whether they are other processes, which hold no workbench of ours. apart:
    whether each combination of countermeasure and method has a process of its own, so that a task is one chunk and the
    chunks of a combination follow each other.
    """

    executor: Executor = field(default_factory=InProcess)
    workers: int = 1
    remote: bool = False
    apart: bool = False
    notes: list[str] = field(default_factory=list)  # what happened to workers, for the summary

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close: whoever made the executor closes it."""

    @property
    def in_flight(self) -> int:
        """Tasks handed out at a time: one more for each worker than it computes, so that none waits for the next."""
        return 2 * self.workers if self.remote else self.workers

    def submit(self, work: Callable[[Task], Any], task: Task) -> Future:
        """Start a task."""
        return self.executor.submit(work, task)

    def introductions(self, device: str) -> list[dict[str, Any]]:
        """What `worker.introduce` says on every worker there is; nothing where workers cannot be asked one by one."""
        return []

    def worker_died(self, error: BaseException) -> bool:
        """Whether an error means that the task's worker died with it, more often than bad luck explains."""
        return False

    def instead(self, task: Task, error: BaseException) -> list[Chunk]:
        """Smaller chunks to try, to find the one to blame for the death of this task's worker; none where it is found."""
        return []

    def alive(self) -> bool:
        """Whether answers can still come: asked when none has come for `PATIENCE` seconds."""
        return True

    def lost(self, error: BaseException) -> bool:
        """Whether an error means that nobody will ever get the answer."""
        return isinstance(error, LOST)

    def refuse(self, worker: str, why: str) -> None:
        """Give this worker no more tasks. Raises RunError where an engine cannot choose its workers, or has no other."""
        raise RunError(f"worker {worker} is refused: {why}")

    def recover(self) -> None:
        """After the connection was lost, with all that was handed out. Raises RunError if it stays lost."""
        raise RunError("the workers are gone; finished rows are kept, the same command continues")


class Refusal(RunError):
    """By which a worker says that it must not take part: its name, and why."""

    worker: str
    why: str


class Died(Exception):
    """A worker ended over a task, or was ended; in a sentence.

    said: the last that it printed, a traceback perhaps. late: it took too long. metric: which one ran then, if any did.
    """

    def __init__(self, sentence: str, *, said: str = "", late: bool = False, metric: str = "") -> None:
        super().__init__(sentence)
        self.said, self.late, self.metric = said, late, metric


class Gone(Exception):
    """The engine cannot be reached: nothing can be handed out now. `Engine.recover` finds it again, or gives up."""


#: Seconds without an answer after which an engine is asked whether it is alive.
PATIENCE = 5.0
#: Errors of a future whose answer nobody will ever get.
LOST = (CancelledError, BrokenProcessPool)


def completed(
    engine: Engine, work: Callable[[Task], Any], queue: Queue, refused: type[Refusal]
) -> Iterator[tuple[Task, Any]]:
    """Yield `(task, what work made of it)` as they finish, until the queue is empty and nothing is under way.

    Whoever consumes this puts verdicts into the queue. `work` is yielded as an exception where a single chunk's worker died.
    refused: the error by which a worker says that it must not take part.
    """
    pending: dict[Future, Task] = {}
    while True:
        gone = not _handed_out(engine, work, queue, pending)
        if not pending and not gone:
            return
        done, _ = wait(pending, timeout=0 if gone else PATIENCE, return_when=FIRST_COMPLETED)
        finished = [(pending.pop(future), future) for future in done]
        lost = [task for task, future in finished if (error := _error(future)) is not None and engine.lost(error)]
        if gone or lost or (not done and not engine.alive()):
            for future, task in pending.items():
                future.cancel()
                lost.append(task)
            pending.clear()
            for task in reversed(lost):
                queue.back(task)
            engine.recover()
        for task, future in finished:
            error = _error(future)
            if error is None:
                yield task, future.result()
            elif isinstance(error, refused):
                queue.back(task)
                engine.refuse(error.worker, error.why)
            elif engine.worker_died(error):
                smaller = engine.instead(task, error)
                if smaller:
                    queue.instead(task, smaller)
                elif len(task.chunks) == 1:
                    yield task, error
                else:
                    queue.back(task, alone=True)
            elif not engine.lost(error):
                raise error


def _handed_out(engine: Engine, work: Callable[[Task], Any], queue: Queue, pending: dict[Future, Task]) -> bool:
    """Fill the engine up; False where it cannot be reached: what was not handed out is in the queue again."""
    task = None
    try:
        room = engine.in_flight - len(pending)
        while room > 0 and (task := queue.take()) is not None:
            pending[engine.submit(work, task)] = task
            room -= 1
    except Gone:
        if task is not None:
            queue.back(task)
        return False
    return True


def _error(future: Future) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:
        return error
