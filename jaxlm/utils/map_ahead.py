"""Call a function on several workers, and take the results in order."""

import collections
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
