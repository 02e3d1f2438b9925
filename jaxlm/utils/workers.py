"""Call functions in other threads or processes."""

import collections
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


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


def call_in_thread(function: Callable[[], R]) -> R:
    """Call `function` in a daemon thread and return its result. Ctrl-C interrupts the caller, not the call.

    For a library whose calls take long and do not return when a signal arrives.

    >>> call_in_thread(lambda: 2 + 2)
    4
    """
    future: Future[R] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)  # which `result` raises

    threading.Thread(target=call, daemon=True).start()
    return future.result()
