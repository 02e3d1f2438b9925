"""Call functions in other threads or processes."""

import collections
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, TypeVar, final

T = TypeVar("T")
R = TypeVar("R")

_MAX_WORKERS = 1024  # each can be a thread


def check_workers(workers: int) -> None:
    """Raise a ValueError unless the number of workers is in [1, 1024]."""
    if not 1 <= workers <= _MAX_WORKERS:
        raise ValueError(f"workers must be in [1, {_MAX_WORKERS}], got {workers}")


@final
class DaemonExecutor(Executor):
    """A thread pool that does not wait for its calls when the block or the process ends, as after Ctrl-C.

    Unlike Python's own pools, it takes calls of a thread that outlives the main thread. For calls that release
    Python's lock.

    >>> with DaemonExecutor(2) as executor:
    ...     executor.submit(len, "three").result()
    5
    """

    def __init__(self, num_threads: int) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._num_threads = num_threads
        for _ in range(num_threads):
            threading.Thread(target=self._work, daemon=True).start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Schedule the call."""
        future: Future[Any] = Future()
        self._calls.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end after their calls."""
        for _ in range(self._num_threads):
            self._calls.put(None)

    def _work(self) -> None:
        while call := self._calls.get():
            future, function = call
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)  # which `result` raises
            del call, future, function  # an idle thread would keep the result


def map_ahead(
    executor: Executor | None, function: Callable[[T], R], items: Iterable[T], *, ahead: int = 4
) -> Iterator[R]:
    """Yield `function(item)` for each item, in order. Unlike `Executor.map`, do not read all items at once.

    Args:
        executor: where the calls run; None means in this thread, one at a time.
        ahead: maximum number of calls in flight beyond the one that is yielded next.

    >>> list(map_ahead(None, len, ["one", "three"]))
    [3, 5]
    """
    if executor is None:
        yield from map(function, items)
        return
    pending: collections.deque[Future[R]] = collections.deque()
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
