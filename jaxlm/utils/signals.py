"""Turn SIGINT and SIGTERM into a flag that a loop can poll."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def catch_stop_signals() -> Iterator[Callable[[], str | None]]:
    """Within the block, let the first SIGINT or SIGTERM set a flag, and the second end the process.

    Yields a function that returns the name of the first signal, or None. Call it again after the block, because a
    signal may arrive after the loop's last call.

    Python runs a handler only when the current call, such as a compiled program, returns. The first signal's
    handler restores the operating system's defaults, so the second signal ends the process even during a call.
    Ignored signals stay ignored. In a thread other than the main thread, nothing changes.

    >>> with catch_stop_signals() as stop_requested:
    ...     for step in range(1000):
    ...         if stop_requested():
    ...             break
    >>> step, stop_requested()
    (999, None)
    """
    received: list[str] = []
    signals = (signal.SIGINT, signal.SIGTERM) if _in_main_thread() else ()
    kept = signal.SIG_IGN, None  # None is a handler that was not installed from Python and cannot be restored
    replaced = {signum: handler for signum in signals if (handler := signal.getsignal(signum)) not in kept}

    def request_stop(signum: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(signum).name)
        if len(received) == 1:
            time.sleep(0.1)  # `timeout` sends its signal twice, to the process and to its group: one request
            for each in replaced:
                signal.signal(each, signal.SIG_DFL)
            _print_stopping()

    try:
        for signum in replaced:
            signal.signal(signum, request_stop)
        yield lambda: received[0] if received else None
    finally:
        for signum, handler in replaced.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Within the block, let SIGTERM raise KeyboardInterrupt as Ctrl-C does, so that `finally` clauses run.

    Nothing changes if SIGTERM is ignored or already handled, or outside of the main thread.
    """

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(signum).name)

    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    try:
        signal.signal(signal.SIGTERM, interrupt)
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _print_stopping() -> None:
    with contextlib.suppress(AttributeError, ValueError, OSError):  # standard error is missing, closed or broken
        descriptor = sys.__stderr__.fileno()  # type: ignore[union-attr]
        show_cursor = b"\x1b[?25h\n" if os.isatty(descriptor) else b""  # a progress bar hides it
        # Not the stream's own `write`, which the signal may have interrupted.
        os.write(descriptor, show_cursor + b"stopping after this step; a second signal ends the process at once\n")
