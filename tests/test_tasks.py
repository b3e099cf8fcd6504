"""The queue between plan and engine: nothing twice, nothing lost, one batch a task, one verdict a method."""

from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from xaibench.harness.plan import Chunk
from xaibench.harness.tasks import Queue, combination


def chunk(batch: int, attributor: str, countermeasure: str = "cm") -> Chunk:
    pair = SimpleNamespace(id=f"u{batch}")
    return Chunk(countermeasure, "native", attributor, batch, (pair,), ("m",), (f"{countermeasure}{attributor}{batch}",))


def plan(batches: int, methods: int) -> list[Chunk]:
    return [chunk(b, f"a{m}") for b in range(batches) for m in range(methods)]


@settings(max_examples=60, deadline=None)
@given(
    batches=st.integers(1, 7), methods=st.integers(1, 6), workers=st.integers(1, 5), known=st.integers(0, 6),
    order=st.randoms(use_true_random=False),
)  # fmt: skip
def test_every_chunk_is_handed_out_once_in_tasks_of_one_batch(batches, methods, workers, known, order):
    chunks = plan(batches, methods)
    queue = Queue(chunks, {("cm", "native", f"a{m}"): "" for m in range(min(known, methods))}, workers=workers)
    under_way, seen, judged = [], [], []
    while True:
        while len(under_way) < 2 * workers and (task := queue.take()):
            under_way.append(task)
        if not under_way:
            break
        task = under_way.pop(order.randrange(len(under_way)))
        assert len({c.batch for c in task.chunks}) == 1
        if task.judge:
            assert len(task.chunks) == 1
            judged.append(combination(task.chunks[0]))
            queue.judged(judged[-1], "")
        else:
            assert all(combination(c) in queue.verdicts for c in task.chunks)
        seen += [c.name for c in task.chunks]
    assert sorted(seen) == sorted(c.name for c in chunks)
    assert len(judged) == len(set(judged)) == max(methods - known, 0)


def test_tasks_shrink_towards_the_end():
    queue = Queue(plan(4, 6), {("cm", "native", f"a{m}"): "" for m in range(6)}, workers=2)
    sizes = []
    while task := queue.take():
        sizes.append(len(task.chunks))
    assert sizes == [6, 4, 2, 3, 2, 1, 1, 1, 1, 1, 1, 1]  # 24 // 4, 18 // 4, the rest of its batch, 12 // 4, ...


def test_one_worker_gets_one_chunk_at_a_time():
    queue = Queue(plan(2, 3), {("cm", "native", f"a{m}"): "" for m in range(3)})
    assert [len(queue.take().chunks) for _ in range(6)] == [1] * 6


def test_other_chunks_wait_for_the_verdict_and_get_its_sentence():
    queue = Queue(plan(3, 1), {}, workers=2)
    first = queue.take()
    assert first.judge and queue.take() is None and len(queue) == 2
    queue.judged(combination(first.chunks[0]), "it mixes utterances")
    assert queue.take().void == ("it mixes utterances",)


def test_what_comes_back_goes_out_again_in_its_order_and_alone_if_asked():
    queue = Queue(plan(1, 8), {("cm", "native", f"a{m}"): "" for m in range(8)}, workers=2)
    task = queue.take()
    assert len(task.chunks) == 2
    queue.back(task)
    assert queue.take() == task
    queue.back(task, alone=True)
    assert [queue.take().chunks for _ in range(2)] == [(c,) for c in task.chunks]
    judging = Queue(plan(1, 1), {})
    judging.back(judging.take())
    assert judging.take().judge
