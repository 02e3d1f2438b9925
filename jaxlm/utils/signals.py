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


@contextlib.contextmanager
def end_process_on_second_signal() -> Iterator[None]:
    """Within the block, let the first SIGINT or SIGTERM raise KeyboardInterrupt, and the second end the process.

    For a command, not for a library: a notebook's kernel must live. Ignored signals stay ignored. In a thread
    other than the main thread, nothing changes.
    """
    with _replace_handlers(_interrupt_command):
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
    is_requested = False

    def request_stop(signum: int, frame: FrameType | None) -> None:
        nonlocal is_requested
        received.append(signal.Signals(signum).name)
        if is_requested:
            raise KeyboardInterrupt(received[-1])
        if len(received) == 1:
            time.sleep(_PAIR_SECONDS)
            is_requested = True
            if is_command:
                _restore_defaults()
            _print_stopping()

    is_command = _interrupt_command in map(signal.getsignal, _STOP_SIGNALS)
    with _replace_handlers(request_stop):
        yield lambda: received[0] if received else None


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Within the block, let SIGTERM raise KeyboardInterrupt as Ctrl-C does, so that `finally` clauses run.

    Nothing changes if SIGTERM is ignored or already handled, or outside of the main thread.
    """
    is_default = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    with _replace_handlers(_interrupt, (signal.SIGTERM,) if is_default else ()):
        yield


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(signum).name)


def _interrupt_command(signum: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, and let the next signal end the process."""
    time.sleep(_PAIR_SECONDS)
    _restore_defaults()
    _interrupt(signum, frame)


@contextlib.contextmanager
def _replace_handlers(
    handler: Callable[[int, FrameType | None], None], signums: Iterable[signal.Signals] = _STOP_SIGNALS
) -> Iterator[None]:
    """Within the block, handle the signals, unless they are ignored or this is not the main thread."""
    is_main = threading.current_thread() is threading.main_thread()
    before = {signum: signal.getsignal(signum) for signum in signums if is_main}
    # None is a handler that was not installed from Python and cannot be restored.
    replaced = {signum: old for signum, old in before.items() if old not in (signal.SIG_IGN, None)}
    try:
        for signum in replaced:
            signal.signal(signum, handler)
        yield
    finally:
        for signum, previous in replaced.items():
            signal.signal(signum, previous)


def _restore_defaults() -> None:
    """Let the next signal end the process, even during a call."""
    for signum in _STOP_SIGNALS:
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)


def _print_stopping() -> None:
    with contextlib.suppress(AttributeError, ValueError, OSError):  # standard error is missing, closed or broken
        descriptor = sys.__stderr__.fileno()  # type: ignore[union-attr]
        show_cursor = b"\x1b[?25h\n" if os.isatty(descriptor) else b""  # a progress bar hides it
        # Not the stream's own `write`, which the signal may have interrupted.
        os.write(descriptor, show_cursor + b"stopping after this step; a second signal stops at once\n")
