"""Turn SIGINT and SIGTERM into a flag that a loop can poll."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

_STOP_SIGNALS = signal.SIGINT, signal.SIGTERM
_PAIR_SECONDS = 0.1  # `timeout` signals the process and its group: count both as one request
_Handler = Callable[[int, FrameType | None], object] | int | None  # as in `signal.signal`


@contextlib.contextmanager
def end_process_on_second_signal() -> Iterator[None]:
    """Within the block, let the first SIGINT or SIGTERM raise KeyboardInterrupt, and the second end the process.

    Ignore SIGHUP, which a closing terminal sends. For a command, not for a library: a notebook's kernel must live.
    Ignored signals stay ignored. In a thread other than the main thread, nothing changes.
    """
    hangup = [] if os.name == "nt" else [signal.SIGHUP]
    with _replace_handlers(signal.SIG_IGN, hangup), _replace_handlers(_interrupt_command):
        yield


@contextlib.contextmanager
def catch_stop_signals() -> Iterator[Callable[[], str | None]]:
    """Within the block, let the first SIGINT or SIGTERM set a flag, and a second one raise KeyboardInterrupt.

    Yields a function that returns the name of the first signal, or None. Call it again after the block, because a
    signal may arrive after the loop's last call.

    Python runs a handler only when the current call, such as a compiled program, returns. Within
    `end_process_on_second_signal`, the second signal ends the process even during a call. Ignored signals stay
    ignored. In a thread other than the main thread, nothing changes.
    """
    received: list[str] = []
    is_command = _interrupt_command in map(signal.getsignal, _STOP_SIGNALS)

    def request_stop(signum: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(signum).name)
        _handle_next(signal.SIG_DFL if is_command else _interrupt)
        with contextlib.suppress(AttributeError, ValueError, OSError):  # it is missing, closed or broken
            descriptor = sys.__stderr__.fileno()  # type: ignore[union-attr]
            show_cursor = b"\x1b[?25h\n" if os.isatty(descriptor) else b""  # a progress bar hides it
            # Not the stream's own `write`, which the signal may have interrupted.
            os.write(descriptor, show_cursor + b"stopping after this step; a second signal stops at once\n")

    with _replace_handlers(request_stop):
        yield lambda: received[0] if received else None


def terminate_as_interrupt() -> contextlib.AbstractContextManager[None]:
    """Within the block, let SIGTERM raise KeyboardInterrupt as Ctrl-C does, so that `finally` clauses run.

    Nothing changes if SIGTERM is ignored or already handled, or outside of the main thread.
    """
    is_default = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    return _replace_handlers(_interrupt, [signal.SIGTERM] if is_default else [])


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(signum).name)


def _interrupt_command(signum: int, frame: FrameType | None) -> None:
    _handle_next(signal.SIG_DFL)
    _interrupt(signum, frame)


def _handle_next(handler: _Handler) -> None:
    """Ignore signals for a moment, then handle the next one. SIG_DFL ends the process, even during a call."""
    replaced = _set_handlers(signal.SIG_IGN)
    time.sleep(_PAIR_SECONDS)
    for signum in replaced:
        signal.signal(signum, handler)


@contextlib.contextmanager
def _replace_handlers(handler: _Handler, signums: Iterable[int] = _STOP_SIGNALS) -> Iterator[None]:
    replaced = _set_handlers(handler, signums)  # a signal before `try` leaves them set, which is accepted
    try:
        yield
    finally:
        for signum, previous in replaced.items():
            signal.signal(signum, previous)


def _set_handlers(handler: _Handler, signums: Iterable[int] = _STOP_SIGNALS) -> dict[int, _Handler]:
    """Set the handler of each signal that is not ignored. Return the previous handlers; none in another thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    fixed = signal.SIG_IGN, None  # None is a handler that was not installed from Python and cannot be restored
    return {signum: signal.signal(signum, handler) for signum in signums if signal.getsignal(signum) not in fixed}
