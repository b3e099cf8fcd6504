"""What happens to a task, wherever it is computed: in the calling process, in another one, on another machine.

A worker in another process is sent a `Job` and a `Task`. It makes its workbench once a job, so countermeasures and data
sets are opened once a worker, not once a chunk; and it refuses a job whose versions, code, weights or data are not its own,
because rows of one folder must come from one program.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from xaibench import registry
from xaibench.errors import AudioError, ManifestError, RunError, XaibenchError, told
from xaibench.harness.cell import Explained, Outcome, run_chunk
from xaibench.harness.device import choose_device, tune_allocator
from xaibench.harness.engine import Refusal
from xaibench.harness.environment import PACKAGES, environment
from xaibench.harness.plan import Chunk, batches, ordered_pairs, reference_pairs, source_hash
from xaibench.harness.preflight import Verdict, check, unjudged
from xaibench.harness.sizes import is_poisoned, lost_device, with_room
from xaibench.harness.spec import RunSpec
from xaibench.harness.tasks import Task, combination
from xaibench.harness.workbench import PRIOR_PAIRS, Prepared, Workbench
from xaibench.installed import versions
from xaibench.manifest import pairs, verify
from xaibench.types import Pair


class ForeignWorker(Refusal):
    """A worker that cannot compute this run's rows: other versions, other data, no weights. `worker` is its name."""

    def __init__(self, worker: str, why: str) -> None:
        super().__init__(worker, why)  # both, so that it can be sent between processes
        self.worker, self.why = worker, why

    def __str__(self) -> str:
        return f"worker {self.worker} is refused: {self.why}"


@dataclass(frozen=True)
class Job:
    """What a worker is told of a run. `device` is a name as on the command line, looked up on the worker.

    expects: fact -> value; what the worker's own `facts` must say.
    known: what `Workbench.known` gave on this very machine, so that it is not found out again; {} elsewhere.
    """

    spec: RunSpec
    run: str
    device: str
    batch_size: int  # utterances a chunk
    inputs: int | None  # inputs at a time as asked for; None: each worker measures
    expects: Mapping[str, str]
    known: Mapping[str, Any] = field(default_factory=dict, compare=False)


#: Torch's settings and generators are the process': tasks of one process take turns.
_alone = threading.RLock()


@dataclass(frozen=True, eq=False)
class Done:
    """What came of a task: one outcome a chunk, and the verdict if it was to be judged."""

    outcomes: tuple[Outcome, ...]
    verdict: Verdict | None = None


def facts(bench: Workbench, spec: RunSpec | None = None) -> dict[str, str]:
    """What two workers must share for their rows to share a folder: versions, code, weights and data, in short form.

    spec: a part of the bench's own.
    """
    spec = spec or bench.spec
    found = {f"version of {name}": value for name, value in versions(PACKAGES).items()}
    found |= {f"weights of {name}": bench.countermeasure(name).weights[:12] for name in spec.countermeasures}
    packages = {"xaibench"}
    for group, names in (("countermeasures", spec.countermeasures), ("attributors", spec.attributors)):
        packages |= {registry.find(group, name).package for name in names}
    found |= {f"code of {name}": source_hash(name)[:12] for name in sorted(packages)}
    return {**found, f"manifest of {bench.corpus.name}": bench.corpus.hash[:12]}


def compute(bench: Workbench, run: str, task: Task) -> Done:
    """Judge if need be, then compute every chunk. Raises only for what no row can say (a device that is lost)."""
    with _alone:
        return _computed(bench, run, task)


def _computed(bench: Workbench, run: str, task: Task) -> Done:
    verdict: Verdict | None = None
    explained: Explained | None = None
    void = task.void
    if task.soon is not None:
        bench.read_ahead(task.soon.countermeasure, task.soon.route, task.soon.pairs)
    if task.judge:
        verdict, explained = judge(bench, task.chunks[0])
        void = (verdict.void,)
    outcomes = [
        run_chunk(bench, chunk, run, void=why, explained=explained) for chunk, why in zip(task.chunks, void, strict=True)
    ]
    return Done(tuple(outcomes), verdict)


def first_batch(bench: Workbench) -> tuple[Pair, ...]:
    """The utterances on which methods are judged: a batch, because a method that mixes utterances shows in no single one."""

    def chosen() -> tuple[Pair, ...]:
        return batches(ordered_pairs(bench.corpus, bench.spec.split)[: bench.spec.pairs], bench.batch_size)[0]

    return bench.once(("first",), chosen)


def judge(bench: Workbench, chunk: Chunk) -> tuple[Verdict, Explained | None]:
    """The verdict on the chunk's method; and its maps of exactly this chunk, if they were made on the way."""

    def attempt() -> tuple[Verdict, Explained | None, tuple[Pair, ...]]:
        prepared, pairs = _readable(bench, chunk, first_batch(bench))
        return (*check(bench, prepared, chunk.attributor), pairs)

    explained = None
    smaller = partial(bench.halve, chunk.countermeasure, chunk.route, chunk.attributor)
    try:
        verdict, explained, judged = with_room(attempt, smaller, bench.device)
    except Exception as error:  # the cells will say `failed`, with the traceback
        if is_poisoned(error):
            raise RunError(lost_device(error, bench.device, f"{chunk.attributor} on {chunk.countermeasure}")) from error
        bench.forget(chunk.countermeasure)
        verdict = unjudged(told(error))
    else:
        explained = explained if chunk.pairs == judged else None
    if verdict.changed:
        bench.forget(chunk.countermeasure)
    return verdict, explained


def _readable(bench: Workbench, chunk: Chunk, first: tuple[Pair, ...]) -> tuple[Prepared, tuple[Pair, ...]]:
    """The first batch, without the pairs whose files are wrong: these cost their own cells only."""
    try:
        return bench.prepare(chunk.countermeasure, chunk.route, first), first
    except AudioError:
        n_samples = bench.countermeasure(chunk.countermeasure).module.n_samples
        good = tuple(p for p in first if bench.readable(p, n_samples))
        return bench.prepare(chunk.countermeasure, chunk.route, good), good


_bench: tuple[Job, Workbench] | None = None


def introduce(device: str) -> dict[str, Any]:
    """What a worker says of itself: its environment, and the kind of device that it would compute on."""
    chosen = choose_device(device)
    return {**environment(chosen), "device_type": chosen.type}


def compute_remotely(job: Job, task: Task) -> Done:
    """`compute`, in a process that knows nothing of the run yet. Raises ForeignWorker if it must not take part."""
    with _alone:
        bench = _opened(job)
        soon = task.soon and _own(bench, task.soon)
        mine = replace(task, chunks=tuple(_own(bench, c) for c in task.chunks), soon=soon)
        try:
            done = compute(bench, job.run, mine)
        except RunError as error:
            if not is_poisoned(error):
                raise
            raise LostDevice(here(), str(error)) from error  # its tasks go to processes whose device still works
    return replace(done, outcomes=tuple(_portable(o) for o in done.outcomes))


class LostDevice(ForeignWorker):
    """A worker whose device answers nothing more: its process must end."""


@dataclass(frozen=True)
class Remotely:
    """`compute_remotely` with its job: what is called with a task in another process."""

    job: Job

    def ready(self, task: Task) -> None:
        """Open everything that the task needs, which is nobody's fault if it takes long."""
        bench = _opened(self.job)
        with suppress(XaibenchError):  # the cells will say it
            bench.attributor(task.chunks[0].attributor)

    def __call__(self, task: Task) -> Done:
        return compute_remotely(self.job, task)


class Apart:
    """The work of an engine whose processes look at one countermeasure each: of a task it makes what its process is sent."""

    def __init__(self, bench: Workbench, job: Job) -> None:
        self._bench, self._job = bench, job
        self._made: dict[tuple[str, str], Remotely] = {}

    def __call__(self, task: Task) -> Remotely:
        """The job narrowed to the task's countermeasure, with what is found out here once for all its processes."""
        name, route, _ = combination(task.chunks[0])
        if (name, route) not in self._made:
            spec = self._job.spec.only(name)
            with suppress(Exception):  # a damaged file, a model that fails: the processes say it, in the cells it costs
                self._bench.prepare(name, route, first_batch(self._bench))
            job = replace(self._job, spec=spec, expects=facts(self._bench, spec), known=self._bench.known())
            self._made[name, route] = Remotely(job)
        return self._made[name, route]


def here() -> str:
    """This worker's name: its address in a cluster, else host and process."""
    distributed = sys.modules.get("distributed")
    if distributed is not None:
        try:
            return distributed.get_worker().address
        except ValueError:
            pass  # a process that knows of clusters, but is no worker of one
    return f"{socket.gethostname()}:{os.getpid()}"


def _opened(job: Job) -> Workbench:
    global _bench
    if _bench is None or _bench[0] != job:
        if _bench is not None:
            _bench[1].close()
        _bench = None  # what another job holds is let go before this one's is loaded
        tune_allocator()
        try:
            bench = Workbench(job.spec, device=choose_device(job.device), batch_size=job.inputs)
            bench.batch_size = job.batch_size
            bench.adopt(job.known)
            verify(u for p in reference_pairs(bench.corpus, most=PRIOR_PAIRS) for u in p.halves)
            mine = facts(bench)
        except (XaibenchError, OSError) as error:
            raise ForeignWorker(here(), str(error)) from error
        differ = [f"{k} is {mine.get(k, 'absent')} there, {v} here" for k, v in job.expects.items() if mine.get(k) != v]
        if differ:
            raise ForeignWorker(here(), "; ".join(differ))
        _bench = job, bench
    return _bench[1]


def _own(bench: Workbench, chunk: Chunk) -> Chunk:
    """The same chunk with this machine's files, each checked once a worker: an equal path elsewhere is another file."""
    known = bench.once(("by id",), lambda: {p.id: p for p in pairs(bench.corpus, split=bench.spec.split)})
    mine = tuple(known[p.id] for p in chunk.pairs)
    try:
        for pair in mine:
            bench.once(("verified", pair.id), partial(verify, pair.halves))
    except ManifestError as error:
        raise ForeignWorker(here(), str(error)) from error
    return replace(chunk, pairs=mine)


def _portable(outcome: Outcome) -> Outcome:
    """With numpy arrays instead of tensors, which every way of sending objects understands."""
    maps = tuple(
        replace(kept, values=kept.values.numpy(), curves={n: c.numpy() for n, c in kept.curves.items()})
        for kept in outcome.maps
    )
    truths = tuple((pair, *(t.numpy() for t in tensors)) for pair, *tensors in outcome.truths)
    return replace(outcome, maps=maps, truths=truths)
