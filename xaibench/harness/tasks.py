"""Which chunks are handed out next, and together: a queue between the plan and the engine.

Chunks of one batch share what no attribution changes (a bona fide twin's score, fifty random subsets), so they are cheapest
on one worker; but the last ones must be spread, or workers wait for each other. Both is had by guided self-scheduling
(Polychronopoulos and Kuck, IEEE Transactions on Computers C-36, 1987): a task is a run of chunks of one batch, as many as
the remaining chunks divided by twice the number of workers, so that tasks shrink towards the end.

A method is judged on a countermeasure once (`xaibench.harness.preflight`), by the worker that gets its first chunk. Until
the verdict is in, its other chunks wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from xaibench.harness.plan import Chunk

#: Countermeasure, route, attributor: what a verdict is about.
Combination = tuple[str, str, str]


@dataclass(frozen=True)
class Task:
    """Chunks of one batch, in order. `void` says for each why nothing is to be computed, "" where all is well.

    judge: the first chunk's method is not judged yet; the task holds that chunk alone, and `void` nothing of meaning.
    soon:  a chunk of another batch that is likely to be next, so that its recordings can be read meanwhile.
    """

    chunks: tuple[Chunk, ...]
    void: tuple[str, ...]
    judge: bool = False
    soon: Chunk | None = None


def combination(chunk: Chunk) -> Combination:
    """What the verdict of a chunk is about."""
    return chunk.countermeasure, chunk.route, chunk.attributor


class Queue:
    """The chunks that nobody has yet.

    verdicts: what is known beforehand: combination -> the sentence that makes it void, or "".
    workers:  how many tasks are computed at a time; with one, every task is one chunk.
    """

    def __init__(self, chunks: Iterable[Chunk], verdicts: Mapping[Combination, str], *, workers: int = 1) -> None:
        self.verdicts = dict(verdicts)
        self.workers = workers
        self._waiting = deque(chunks)
        self._judging: set[Combination] = set()
        self._alone: set[str] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> Task | None:
        """The next task; None when all are taken, or those left wait for a verdict."""
        held: list[Chunk] = []
        task = None
        while self._waiting and task is None:
            chunk = self._waiting.popleft()
            what = combination(chunk)
            if what in self._judging:
                held.append(chunk)
            elif what in self.verdicts:
                task = self._together(chunk)
            else:
                self._judging.add(what)
                task = Task((chunk,), ("",), judge=True)
        self._waiting.extendleft(reversed(held))
        return task and replace(task, soon=self._soon(task.chunks[-1]))

    def _soon(self, last: Chunk) -> Chunk | None:
        """The next chunk, if it opens another batch: with several workers it may go to somebody else."""
        chunk = self._waiting[0] if self._waiting else None
        return chunk if chunk is not None and chunk.pairs != last.pairs else None

    def _together(self, first: Chunk) -> Task:
        most = 1 if self.workers == 1 else max(1, (len(self._waiting) + 1) // (2 * self.workers))
        chunks = [first]
        while len(chunks) < most and self._waiting and self._joins(first, self._waiting[0]):
            chunks.append(self._waiting.popleft())
        return Task(tuple(chunks), tuple(self.verdicts[combination(c)] for c in chunks))

    def _joins(self, first: Chunk, chunk: Chunk) -> bool:
        of_one_batch = (first.countermeasure, first.route, first.batch) == (chunk.countermeasure, chunk.route, chunk.batch)
        return of_one_batch and combination(chunk) in self.verdicts and not {first.name, chunk.name} & self._alone

    def judged(self, what: Combination, void: str) -> None:
        """A verdict came in: the combination's other chunks can go."""
        self.verdicts[what] = void
        self._judging.discard(what)

    def back(self, task: Task, *, alone: bool = False) -> None:
        """A task that was not done, to be handed out again; `alone` one chunk at a time, to find the one to blame."""
        if task.judge:
            self._judging.discard(combination(task.chunks[0]))
        if alone:
            self._alone |= {c.name for c in task.chunks}
        self._waiting.extendleft(reversed(task.chunks))

    def instead(self, task: Task, chunks: Sequence[Chunk]) -> None:
        """Hand out these chunks and not the task. A method that could not be judged goes without a verdict; where only a
        metric was to blame, which shows in the first chunk's being without it, the method is judged again.
        """
        if task.judge and chunks[0].metrics == task.chunks[0].metrics:
            self.judged(combination(task.chunks[0]), "")
        elif task.judge:
            self._judging.discard(combination(task.chunks[0]))
        self._waiting.extendleft(reversed(chunks))


def by_combination(chunks: Iterable[Chunk]) -> list[Chunk]:
    """The same chunks, those of one combination behind each other, otherwise in order."""
    groups: dict[Combination, list[Chunk]] = {}
    for chunk in chunks:
        groups.setdefault(combination(chunk), []).append(chunk)
    return [chunk for group in groups.values() for chunk in group]
