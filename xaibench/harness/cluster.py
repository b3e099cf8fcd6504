"""Workers of a Dask cluster as an engine: processes of this machine, or whatever has joined a scheduler.

Local processes, Slurm and PBS (dask-jobqueue), Kubernetes and one worker a GPU (dask-cuda) all look the same from here: a
scheduler's address. Dask hands a killed worker's task to another one; xaibench adds what a benchmark needs: a worker with
other versions or data is retired by name, a task that kills every worker it meets becomes `failed` rows, and after the loss
of the scheduler its unfinished tasks are handed out again.

Needs the extra `cluster` (dask and distributed). docs/scale.md is the guide.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from textwrap import shorten
from typing import Any

from xaibench.errors import RunError, first_line
from xaibench.harness.engine import Engine, Gone
from xaibench.harness.tasks import Task
from xaibench.harness.worker import introduce

#: Seconds to wait for a scheduler and its first worker, at the start and after a loss.
PATIENCE = 120.0
#: Seconds in which a scheduler answers who it is.
PING = 20.0
#: Workers of one host that are refused before the run gives up: a cluster that restarts them would bring them back forever.
REFUSALS = 8


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started within ignore Ctrl-C, which a terminal sends to all: the run ends them, in order and silently."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class DaskEngine(Engine):
    """Tasks go to `distributed.Client.get_executor()`.

    scheduler: its address (`tcp://host:8786`); None starts a cluster of processes on this machine.
    workers:   how many, for a cluster started here; of a scheduler, tasks are sized for those that are there.
    patience:  seconds to wait for the scheduler, and for a first worker.

    Use as a context manager. Raises RunError when Dask is not installed or nobody answers.
    """

    def __init__(self, scheduler: str | None = None, *, workers: int | None = None, patience: float = PATIENCE) -> None:
        try:
            import distributed
            from distributed.comm import CommClosedError
            from distributed.gc import disable_gc_diagnosis
        except ImportError as error:
            raise RunError("--engine dask needs Dask: pip install 'xaibench[cluster]'") from error
        self._distributed, self._closed = distributed, CommClosedError
        self._broken = (OSError, TimeoutError, RuntimeError, CommClosedError)
        self.scheduler, self.patience, self.remote = scheduler, patience, True
        self.notes: list[str] = []
        self._refused: dict[str, set[str]] = {}
        self._cluster = None
        if workers is not None and workers < 1:
            raise RunError(f"--workers must be at least 1, got {workers}")
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what it says of lost connections, we say
        if scheduler is not None:
            try:
                distributed.comm.get_address_host_port(scheduler)
            except ValueError as error:
                raise RunError(f"--scheduler {scheduler!r}: {error}; expected tcp://HOST:8786") from error
        else:
            count = _cores() if workers is None else workers
            try:
                with _deaf_to_interrupts():
                    self._cluster = distributed.LocalCluster(
                        n_workers=count, threads_per_worker=1, processes=True, dashboard_address=":0",
                        memory_limit=0,  # none: a share each would stop torch on a laptop
                        silence_logs=logging.CRITICAL,
                    )  # fmt: skip
            except (RuntimeError, OSError) as error:
                raise RunError(
                    f"{count} processes of dask could not be started ({first_line(error)}); is the limit of open files "
                    f"(`ulimit -n`), of processes or of memory too low? Take fewer --workers, or --engine local"
                ) from error
        disable_gc_diagnosis(force=True)  # its callback swallows a Ctrl-C that arrives within it
        self._connect()

    def __enter__(self) -> DaskEngine:
        return self

    def __exit__(self, *raised: object) -> None:
        if len(raised) > 1 and isinstance(raised[1], KeyboardInterrupt):
            self._end_workers()
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()

    def _end_workers(self) -> None:
        """End our own processes at once: in the middle of a pass they would take seconds to hear that they should."""
        for nanny in self._cluster.workers.values() if self._cluster is not None else ():
            nanny.auto_restart = False
            if process := nanny.pid:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    @property
    def workers(self) -> int:  # type: ignore[override]  # nobody sets it: a cluster's workers come and go
        """How many there are now. Raises Gone when the scheduler does not answer."""
        try:
            return max(1, len(self._client.nthreads()))
        except self._broken as error:
            raise Gone from error

    def _connect(self) -> None:
        deadline = time.monotonic() + self.patience
        address = self.scheduler if self._cluster is None else self._cluster.scheduler_address
        while True:
            left = max(deadline - time.monotonic(), 1.0)
            try:
                self._client = self._distributed.Client(address, timeout=left, set_as_default=False)
                break
            except (OSError, TimeoutError) as error:
                if time.monotonic() >= deadline:
                    raise RunError(
                        f"{address}: no Dask scheduler answers ({error or type(error).__name__}); start one with `dask "
                        f"scheduler`, and workers with `dask worker {address} --nthreads 1`"
                    ) from error
                time.sleep(0.5)
        try:
            self._client.wait_for_workers(1, timeout=max(deadline - time.monotonic(), 1.0))
        except TimeoutError as error:
            self._client.close()
            raise RunError(
                f"{address}: the scheduler has no workers after {self.patience:.0f} s; start some with `dask worker "
                f"{address} --nthreads 1` (workers end when they lose their scheduler)"
            ) from error
        self._scheduler, self._seen = self._client.sync(self._identity), time.monotonic()
        self.executor = self._client.get_executor(pure=False, retries=0)

    def submit(self, work: Callable[[Task], Any], task: Task) -> Future:
        """Start a task on whichever worker is free."""
        try:
            return self.executor.submit(work, task)
        except self._broken as error:
            raise Gone from error

    def introductions(self, device: str) -> list[dict[str, Any]]:
        """What every worker says of itself. Raises RunError naming a worker that cannot (no xaibench, no such device)."""
        found = self._client.run(introduce, device, on_error="return")
        for address, answer in found.items():
            if isinstance(answer, BaseException):
                raise RunError(f"worker {address} cannot take part: {type(answer).__name__}: {answer}") from answer
        return list(found.values())

    def alive(self) -> bool:
        """Whether the scheduler that has our tasks still answers: another one at its address knows nothing of them."""
        if self._client.status != "running":
            return False
        try:
            same = self._client.sync(self._identity, callback_timeout=PING) == self._scheduler
            workers = self._client.nthreads()
        except self._broken:
            return False
        if workers:
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > self.patience:
            raise RunError(
                f"{self._client.scheduler.address}: no worker has been there for {self.patience:.0f} s; finished rows are "
                f"kept, the same command continues"
            )
        return same

    async def _identity(self) -> str:
        return (await self._client.scheduler.identity())["id"]

    def worker_died(self, error: BaseException) -> bool:
        """Dask gives up on a task after it lost its worker four times (`distributed.scheduler.allowed-failures`)."""
        return isinstance(error, self._distributed.KilledWorker)

    def lost(self, error: BaseException) -> bool:
        """Also a connection that closed while an answer was on its way."""
        return super().lost(error) or isinstance(error, self._closed)

    def refuse(self, worker: str, why: str) -> None:
        """Retire the worker; its tasks go to others. Raises RunError when no other is left."""
        named = self._refused.setdefault(_host(worker), set())
        if worker not in named:  # its next task says the same
            named.add(worker)
            self.notes.append(f"worker {worker} is refused: {shorten(why, 300, placeholder=' ...')}")
        self._client.retire_workers(workers=[worker], close_workers=True)
        if not any(self._may_work(other) for other in self._client.nthreads()):
            raise RunError(f"no worker is left that may compute this run: {'; '.join(dict.fromkeys(self.notes))}")

    def _may_work(self, worker: str) -> bool:
        named = self._refused.get(_host(worker), set())
        return worker not in named and len(named) <= REFUSALS

    def recover(self) -> None:
        """Find the scheduler again, at the same address. Raises RunError if it does not come back in time."""
        self.notes.append("the scheduler was lost; its unfinished tasks were handed out again")
        self._client.close(timeout=2)
        try:
            self._connect()
        except RunError as error:
            raise RunError(f"{error}; finished rows are kept, the same command continues") from error


def _host(worker: str) -> str:
    return worker.rpartition(":")[0]
