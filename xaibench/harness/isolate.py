"""A process of its own for each countermeasure and method: what a plugin does to its process costs its own cells only.

A combination's chunks follow each other, so its process is started once (`xaibench.harness.nursery`), used for all of them,
and ended before the next one's begins. The run itself imports no attributor (`registry.stand_in`).

When a process ends over a task, or takes too long, its utterances are tried one by one in new processes, so that only those
to blame are lost. A method that is always to blame must not cost its time limit for every utterance, so a combination is
given up, and its remaining cells fail without being tried,

- as soon as two utterances tried alone were lost and more were lost than were finished, or
- after TOO_LATE of them took too long.

A metric of a plugin that ends the process costs its own cells of that chunk; the others are computed without it.
docs/isolation.md says what this protects from and what not.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import Any

import torch

from xaibench import reading
from xaibench.errors import RunError, first_line
from xaibench.harness import nursery
from xaibench.harness.answers import read
from xaibench.harness.cell import singles
from xaibench.harness.engine import Died, Engine
from xaibench.harness.isolated import DONE, READY, RUNS, first
from xaibench.harness.plan import Chunk
from xaibench.harness.tasks import Combination, Task, combination
from xaibench.harness.worker import Done, LostDevice, Remotely
from xaibench.probe import ended

#: Utterances of one combination that may take too long, one at a time, before it is given up.
TOO_LATE = 10
#: Seconds for a process to open data and countermeasure, where cells have a time limit: nobody's fault, but an end.
OPENING = 600.0
#: Characters of a process' output that are kept.
TAIL = 20_000
_LOOK = 1.0  # seconds between two looks whether a silent process lives
_AT_ONCE = 2**20  # bytes of an answer read in one go


class Isolated(Engine):
    """The engine of `--isolate`. workers: processes at a time; they share torch's threads.

    cell_timeout: seconds that one method may take for one utterance, explained and scored; None for no limit. Preflight
    counts as a batch and three utterances more. source: where processes come from, other than what the system has.

    Use as a context manager.
    """

    def __init__(
        self, *, workers: int = 1, cell_timeout: float | None = None, source: nursery.Nursery | nursery.Fresh | None = None
    ) -> None:
        if workers < 1:
            raise RunError(f"--workers must be at least 1, got {workers}")
        if cell_timeout is not None and not cell_timeout > 0:
            raise RunError(f"--cell-timeout must be more than 0 seconds, got {cell_timeout:g}")
        super().__init__(ThreadPoolExecutor(workers, "isolate"), workers, remote=True, apart=True)
        self.cell_timeout = cell_timeout
        self._source, self._own = source or nursery.here(), source is None
        self._closed = False
        self._threads = max(1, torch.get_num_threads() // workers)
        self._turn = threading.Lock()
        self._processes: set[_Process] = set()
        self._idle: list[_Process] = []
        self._tally: dict[Combination, _Tally] = {}
        self._doomed: dict[str, Died] = {}  # chunks of a metric that ended its process, by name

    def __exit__(self, *_: object) -> None:
        """End every process, at once, and the source unless it was given."""
        with self._turn:
            self._closed = True
            living = list(self._processes)
        try:
            for process in living:
                process.end()
        finally:
            if self._own:
                self._source.close()
            self.executor.shutdown(cancel_futures=True)
            for process in self._processes:
                process.hang_up()

    @property
    def in_flight(self) -> int:
        """One task a process: its time begins when it is handed out."""
        return self.workers

    def submit(self, work: Callable[[Task], Any], task: Task) -> Future:
        """Start a task, or say at once that it is given up. work: `Apart`, which says what the task's process is sent."""
        what, chunk = combination(task.chunks[0]), task.chunks[0]
        tally = self._tally.setdefault(what, _Tally())
        soon = task.soon if task.soon is not None and combination(task.soon) == what else None
        given_up = tally.given_up or self._doomed.get(chunk.name)
        if given_up is not None:
            future: Future = Future()
            future.set_exception(given_up)
            return future
        return self.executor.submit(self._done, work(task), replace(task, soon=soon))

    def worker_died(self, error: BaseException) -> bool:
        """Each end of a process."""
        return isinstance(error, Died)

    def instead(self, task: Task, error: BaseException) -> list[Chunk]:
        """Without the metric that was running; one utterance at a time; or, when it was one already, nothing."""
        (chunk,) = task.chunks
        tally = self._tally[combination(chunk)]
        if error in (tally.given_up, self._doomed.get(chunk.name)):
            return []
        if isinstance(error, Died) and error.metric in chunk.metrics:
            alone = replace(chunk, metrics=(error.metric,))
            self._doomed[alone.name] = error
            rest = tuple(m for m in chunk.metrics if m != error.metric)
            return [replace(chunk, metrics=rest), alone] if rest else [alone]
        if task.judge:
            self.notes.append(f"{chunk.attributor} on {chunk.countermeasure} was not judged beforehand: {error}")
        if task.judge or len(chunk.pairs) > 1:
            return singles(chunk)
        tally.loses(error)
        return []

    def refuse(self, worker: str, why: str) -> None:
        """A process that finds other code or weights than the run did. Raises RunError."""
        raise RunError(f"code or data changed while the run went on ({why}); finished rows are kept, run again")

    def alive(self) -> bool:
        """Whether answers can still come; each process has its own watch."""
        return True

    def _done(self, work: Remotely, task: Task) -> Done:
        """In a thread of its own: what a process makes of a task. Raises Died, or what the process raised."""
        chunk = task.chunks[0]
        process = self._process(combination(chunk))
        try:
            done = process.ask(work, task, self._threads, self.cell_timeout)
        except BaseException:
            self._ends(process)
            raise
        with self._turn:
            self._idle.append(process)
            self._tally[combination(chunk)].finished += len(chunk.pairs)
        return done

    def _process(self, what: Combination) -> _Process:
        """The combination's own process, or a new one in the place of another's."""
        with self._turn:
            mine = next((p for p in self._idle if p.what == what), None)
            if mine is not None:
                self._idle.remove(mine)
                return mine
            old = self._idle.pop(0) if len(self._processes) >= self.workers and self._idle else None
        if old is not None:
            self._ends(old)
        new = _Process(what, self._source)
        with self._turn:
            self._processes.add(new)
            closed = self._closed
        if closed:  # meanwhile, by a Ctrl-C
            self._ends(new)
            raise Died("the run is over")
        return new

    def _ends(self, process: _Process) -> None:
        try:
            process.end()
        finally:
            process.hang_up()
            with self._turn:
                self._processes.discard(process)


@dataclass
class _Tally:
    """Utterances of a combination: finished, lost alone, of these lost to time; and the end of it, once it has come."""

    finished: int = 0
    lost: int = 0
    late: int = 0
    given_up: Died | None = None

    def loses(self, error: BaseException) -> None:
        """One utterance, tried alone."""
        self.lost += 1
        self.late += isinstance(error, Died) and error.late
        if (self.lost >= 2 and self.lost > self.finished) or self.late >= TOO_LATE:
            self.given_up = Died(f"{error}; given up after {self.lost} utterances alone")


@dataclass
class _Watch:
    """The time limits of a task: of all of it, and of the call of a plugin that runs. Monotonic seconds."""

    cell: float | None
    whole: float
    call: float = float("inf")

    def begins(self, utterances: int) -> None:
        """Everything is open: the method's time counts."""
        if self.cell is not None:
            self.whole = time.monotonic() + self.cell * utterances

    def runs(self, name: str, utterances: int) -> None:
        """A plugin's code began, or (no name) ended."""
        self.call = time.monotonic() + self.cell * utterances if name and self.cell is not None else float("inf")

    @property
    def left(self) -> float:
        return min(self.whole, self.call) - time.monotonic()


def _what_runs(content: bytes) -> tuple[str, int]:
    """Whose code begins, over how many utterances. Raises ValueError for anything else."""
    said = reading.parsed(content)
    if not isinstance(said, list) or [type(part) for part in said] != [str, int]:
        raise ValueError("what runs is a name and a number")
    return first_line(said[0]), max(0, said[1])


@dataclass(eq=False)
class _Process:
    """One combination's process, seen from the run."""

    what: Combination
    source: nursery.Nursery | nursery.Fresh
    said: bytes = b""
    running: str = ""  # whose code
    _came: bytearray = field(default_factory=bytearray)
    _work: Remotely | None = None
    _over: bool = False
    _deaf: bool = False  # it closed its output
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.connection, theirs = Pipe()
        self.paper, writes = os.pipe()
        try:
            self.process = self.source.start(theirs.fileno(), writes)
        finally:
            theirs.close()
            os.close(writes)

    def ask(self, work: Remotely, task: Task, threads: int, cell: float | None) -> Done:
        """What it makes of a task. Raises Died with the reason, or what it raised."""
        watch = _Watch(cell, float("inf") if cell is None else time.monotonic() + OPENING)
        chunk, self.running = task.chunks[0], ""
        utterances = len(chunk.pairs) + (work.job.batch_size + 3 if task.judge else 0)
        try:
            self.connection.send_bytes(pickle.dumps((threads, None if work is self._work else work, task)))
            self._work = work
            while True:
                message = self._message(watch)
                kind, content = message[:1], message[1:]
                if kind == READY:
                    watch.begins(utterances)
                elif kind == RUNS:
                    self.running, count = _what_runs(content)
                    watch.runs(self.running, count)
                else:
                    break
        except TimeoutError as error:
            raise self._died(f"took longer than {cell:g} s an utterance", late=True) from error
        except ValueError as error:
            self.end()
            raise self._died("wrote into its connection to the run") from error
        except (EOFError, OSError) as error:
            status = self.end(hung_up=True)
            raise self._died("closed its connection to the run" if status == nursery.STUCK else ended(status)) from error
        try:
            answer = read(content, task)
        except RunError as error:
            self.end()
            raise self._died("gave an answer that cannot be read") from error
        if isinstance(answer, LostDevice):  # another process has it still
            raise self._died(answer.why)
        if (kind == DONE) != isinstance(answer, Done):
            self.end()
            raise self._died("gave an answer that cannot be read")
        if isinstance(answer, Done):
            return answer
        raise answer

    def _message(self, watch: _Watch) -> bytes:
        """Raises TimeoutError when time is up, EOFError when the process is gone."""
        while (message := first(self._came)) is None:
            speaks: list[Any] = [self.connection] if self._deaf else [self.connection, self.paper]
            ready = wait(speaks, max(0.0, min(_LOOK, watch.left)))
            if self.paper in ready:
                self._deaf = not self._hear()
            if self.connection in ready:
                new = os.read(self.connection.fileno(), _AT_ONCE)
                if not new:
                    raise EOFError
                self._came += new
            elif watch.left <= 0:
                raise TimeoutError
            if not ready and not self.source.runs(self.process):
                raise EOFError  # something that it started holds the connection open
        return message

    def _hear(self) -> bool:
        """Take what it printed; False when there will be no more."""
        new = os.read(self.paper, 65_536)
        self.said = (self.said + new)[-TAIL:]
        return bool(new)

    def _died(self, how: str, *, late: bool = False) -> Died:
        while wait([self.paper], 0) and self._hear():
            pass
        by = self.running or self.what[2]
        metric = by.removeprefix("metric ") if by.startswith("metric ") else ""
        said = self.said.decode("utf-8", "replace")
        return Died(f"{by} {how}" if late else f"{by}: {how}", said=said, late=late, metric=metric)

    def end(self, *, hung_up: bool = False) -> int:
        """End it with all that it started. Returns its exit status; 0 when it was ended before."""
        with self._turn:
            if self._over:
                return 0
            self._over = True
        return self.source.end(self.process, hung_up=hung_up)

    def hang_up(self) -> None:
        """Close our ends."""
        self.connection.close()
        os.close(self.paper)
