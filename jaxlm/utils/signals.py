"""Ctrl-C and SIGTERM as a wish that a loop can ask for, heard while a compiled program runs too."""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TextIO

_STOPPING = b"stopping after this step; once more ends at once\n"
_SHOW_CURSOR = b"\x1b[?25h\n"  # a progress bar hides it

# What follows the first so soon is the same wish: `timeout` sends its signal to the process and to its group.
_SAME_WISH_SECONDS = 0.1


@contextlib.contextmanager
def catch_stop_signals() -> Iterator[Callable[[], str | None]]:
    """Within it the first Ctrl-C or SIGTERM only notes the wish; a second ends the process at once, with 130.

    It gives a function that returns the name of the first signal, "SIGINT" or "SIGTERM", or None as long as
    none came. Nothing is raised, so that a loop can end its step and save: within the block, for after it
    Ctrl-C raises again. A line on standard error says at once that the wish was heard.

    A signal may come after the last time that the loop asked. It is kept: ask once more after the block.

    All this holds while the main thread is inside a call that lets other threads run, as XLA's compiler and
    programs do; a call that does not, say the match of a regular expression, puts it off until it returns.

    A signal that was ignored before, as a shell ignores Ctrl-C for what it starts in the background, stays
    ignored. Outside of the main thread, which alone may handle signals, and inside another such block, nothing
    changes: the function always returns None.

    >>> with catch_stop_signals() as requested:
    ...     for step in range(1000):  # and one Ctrl-C would end it in order
    ...         if requested():
    ...             break
    >>> step, requested()
    (999, None)
    """
    signals = _signals_to_note()
    if not signals:
        yield lambda: None
        return
    notes = _Notes([])
    with contextlib.ExitStack() as handlers:
        for signum in signals:
            handlers.enter_context(_handled_by(notes, signum))
        with _watching(signals, notes):
            yield notes.first


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Within it SIGTERM raises KeyboardInterrupt as Ctrl-C does, so that every `finally` runs.

    Only where it would end the process: a SIGTERM that is ignored, or that somebody handles, is left as it is.
    No effect outside of the main thread.
    """
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    with _handled_by(_raise_as_interrupt, signal.SIGTERM):
        yield


def _raise_as_interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(signum).name)


@dataclass(frozen=True)
class _Notes:
    """A handler that raises nothing and keeps the signals that came."""

    signals: list[int]

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.signals.append(signum)

    def first(self) -> str | None:
        return signal.Signals(self.signals[0]).name if self.signals else None


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _signals_to_note() -> list[int]:
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    if not _in_main_thread() or any(isinstance(handler, _Notes) for handler in handlers.values()):
        return []
    # None: a handler that is not Python's, and that Python could not restore.
    return [signum for signum, handler in handlers.items() if handler not in (signal.SIG_IGN, None)]


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None], signum: int) -> Iterator[None]:
    previous = signal.getsignal(signum)
    try:
        signal.signal(signum, handler)
        yield
    finally:
        signal.signal(signum, previous)


@contextlib.contextmanager
def _watching(signals: Collection[int], notes: _Notes) -> Iterator[None]:
    """A thread is told of the signals by the C handler; Python's waits until the main thread runs Python again."""
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        watcher = threading.Thread(target=_watch, args=(reader, signals, notes), name="signals", daemon=True)
        watcher.start()
        previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            writer.send(bytes(notes.signals[:1]))  # it came after the handlers and before the watcher
            yield
        finally:
            signal.set_wakeup_fd(previous)
            writer.shutdown(socket.SHUT_WR)  # the watcher reads what is left, and then the end
            watcher.join()


def _watch(reader: socket.socket, signals: Collection[int], notes: _Notes) -> None:
    first_at = None
    while received := reader.recv(64):
        came = [signum for signum in received if signum in signals]
        now = time.monotonic()
        if not came:
            continue
        if first_at is None:
            first_at = now
            notes.signals.append(came[0])
            on_own_line = b"\n" if _is_terminal(sys.__stderr__) else b""  # after a bar, or the echo of Ctrl-C
            _write(sys.__stderr__, on_own_line + _STOPPING)
        elif now - first_at > _SAME_WISH_SECONDS:
            _end()


def _end() -> None:
    try:
        for stream in (sys.__stderr__, sys.__stdout__):
            if _is_terminal(stream):
                _write(stream, _SHOW_CURSOR)
                break
    finally:
        os._exit(130)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def _write(stream: TextIO | None, line: bytes) -> None:
    """Past the stream's buffer, whose lock another thread may hold; nothing where it would have to wait."""
    if stream is None or stream.closed:
        return
    with contextlib.suppress(OSError):  # nobody reads it
        descriptor = stream.fileno()
        if os.name == "nt" or select.select([], [descriptor], [], 0)[1]:
            os.write(descriptor, line)
