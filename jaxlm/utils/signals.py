"""Turn SIGINT and SIGTERM into a flag that a loop can poll."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

# `timeout` sends its signal twice, to the process and to its group: one request.
_SAME_REQUEST_SECONDS = 0.1
_SHOW_CURSOR = "\x1b[?25h"  # a progress bar hides it


@contextlib.contextmanager
def catch_stop_signals() -> Iterator[Callable[[], str | None]]:
    """Within the block, the first SIGINT or SIGTERM sets a flag, and a second one ends the process.

    The block's value is a function that returns the first signal's name, or None. A loop that polls it can finish
    its step and save. Poll it once more after the block: a signal may arrive after the last poll.

    Python handles a signal when the call that is running, such as a compiled program, returns. The handler then
    prints a line and restores the operating system's default, so the second signal ends the process even during
    a call, with a shell's status 130 (SIGINT) or 143 (SIGTERM). Ignored signals stay ignored. Outside of the main
    thread, which alone can handle signals, the block has no effect.

    >>> with catch_stop_signals() as stop_requested:
    ...     for step in range(1000):
    ...         if stop_requested():
    ...             break
    >>> step, stop_requested()
    (999, None)
    """
    received: list[int] = []
    replaced = {}
    if threading.current_thread() is threading.main_thread():
        replaced = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    # None is a handler that was not installed from Python and cannot be restored.
    replaced = {signum: handler for signum, handler in replaced.items() if handler not in (signal.SIG_IGN, None)}

    def request_stop(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        if len(received) == 1:
            time.sleep(_SAME_REQUEST_SECONDS)
            for each in replaced:
                signal.signal(each, signal.SIG_DFL)
            _print_stopping()

    try:
        for signum in replaced:
            signal.signal(signum, request_stop)
        yield lambda: signal.Signals(received[0]).name if received else None
    finally:
        for signum, handler in replaced.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Within the block, SIGTERM raises KeyboardInterrupt like Ctrl-C, so that `finally` clauses run.

    No effect if SIGTERM is ignored or already handled, or outside of the main thread.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    try:
        signal.signal(signal.SIGTERM, _raise_interrupt)
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _raise_interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(signum).name)


def _print_stopping() -> None:
    line = "stopping after this step; a second signal ends the process at once\n"
    with contextlib.suppress(AttributeError, ValueError, OSError):  # standard error is missing, closed or broken
        descriptor = sys.__stderr__.fileno()  # type: ignore[union-attr]
        prefix = f"{_SHOW_CURSOR}\n" if os.isatty(descriptor) else ""
        os.write(descriptor, (prefix + line).encode())  # the stream's own write may be the one interrupted
