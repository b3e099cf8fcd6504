"""Reading ahead: what is needed next is read on a thread of its own while the device computes.

Recordings are decoded by libsndfile and numpy, which let other threads run. Nothing depends on it: what was not read ahead,
or not begun yet, is read when it is asked for, by the one who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Thing = TypeVar("Thing")


class Prefetch(Generic[Key, Thing]):
    """`read(key)`, begun before it is needed; at most `most` answers are under way or wait to be fetched.

    `read` must be a function of its key that another thread may call. One thread calls `soon` and the object itself.

    >>> ahead = Prefetch(str.upper)
    >>> ahead.soon("a")
    >>> ahead("a"), ahead("b")
    ('A', 'B')
    """

    def __init__(self, read: Callable[[Key], Thing], *, most: int = 2) -> None:
        self._read, self._most = read, most
        self._under_way: dict[Key, Future[Thing]] = {}
        self._thread: ThreadPoolExecutor | None = None

    def soon(self, key: Key) -> None:
        """Begin to read, unless it has begun. Of more than `most` the oldest is dropped: nobody came for it."""
        if key in self._under_way:
            return
        while len(self._under_way) >= self._most:
            self._under_way.pop(next(iter(self._under_way))).cancel()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="xaibench-prefetch")
        self._under_way[key] = self._thread.submit(self._read, key)

    def __call__(self, key: Key) -> Thing:
        """What `read` gives, handed out once: kept by the caller or read again. Raises what `read` raises."""
        future = self._under_way.pop(key, None)
        if future is None or future.cancel():  # cancelled: not begun, so nobody waits behind other reading
            return self._read(key)
        return future.result()

    def forget(self) -> None:
        """Drop what was read and never asked for, and the thread; a later `soon` begins anew."""
        for future in self._under_way.values():
            future.cancel()
        self._under_way.clear()
        if self._thread is not None:
            self._thread.shutdown(wait=True)
            self._thread = None
