"""Where the work runs: any `concurrent.futures.Executor`. In the calling process by default."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any, TypeVar

Work = TypeVar("Work")


class InProcess(Executor):
    """Runs each call at once, in this process and thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - an executor hands errors to whoever asks for the result
            future.set_exception(error)
        return future


def completed(
    executor: Executor, work: Callable[[Work], Any], items: Iterable[Work], *, in_flight: int = 1
) -> Iterator[tuple[Work, Any]]:
    """Yield `(item, work(item))` as they finish, never holding more than `in_flight` of them."""
    pending: dict[Future, Work] = {}
    for item in items:
        pending[executor.submit(work, item)] = item
        while len(pending) >= in_flight:
            yield from _collect(pending)
    while pending:
        yield from _collect(pending)


def _collect(pending: dict[Future, Any]) -> Iterator[tuple[Any, Any]]:
    done, _ = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        item = pending.pop(future)
        yield item, future.result()
