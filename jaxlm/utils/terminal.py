"""Print text, progress and one-line errors for the command line."""

import contextlib
import io
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any, TypeVar, final

from jaxlm.utils.signals import end_process_on_second_signal

if TYPE_CHECKING:
    from rich.console import Console  # imported late, because `--help` does not need it

T = TypeVar("T")

_LINE_SECONDS = 10.0
_BAR_SECONDS = 0.1  # an update takes 10 us, as much as encoding a short document

# Controls, surrogates, and the embeddings, overrides and isolates of bidirectional text, which can show a line in
# another order. Joiners and other invisible characters are part of Persian, Hindi and emoji.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def make_console(*, stderr: bool = False) -> "Console":
    """Return a console for standard output or error. Output to a closed pipe is discarded.

    On standard output, characters that the encoding lacks are printed as `?`. Lines are cut to the width of a
    terminal only. A pipe or a log is never a terminal, also with FORCE_COLOR or TTY_COMPATIBLE, which CI may set.
    """
    from rich.console import Console

    class PipeConsole(Console):
        def on_broken_pipe(self) -> None:
            _redirect_to_devnull(self.file.fileno())

    if not stderr and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    plain: dict[str, Any] = {"force_terminal": False, "force_interactive": False, "width": 10_000}
    return PipeConsole(stderr=stderr, **({} if is_terminal else plain))


def print_plain(console: "Console", text: str) -> None:
    """Print `text` without markup, emoji codes, colors or wrapping. Standard error may be on a full disk."""
    try:
        console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
    except OSError:
        if not console.stderr:
            raise
        _redirect_to_devnull(console.file.fileno())


def write(console: "Console", text: str) -> None:
    """Write `text` without a line end and flush. On a terminal, control characters are escaped."""
    console.file.write(escape_controls(text) if console.is_terminal else text)
    console.file.flush()


def escape_controls(text: str) -> str:
    """Escape the characters that can control a terminal, except line ends and tabs."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


@contextlib.contextmanager
def progress(console: "Console", title: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """Show a bar on a terminal, and lines elsewhere and for TERM=dumb. Yields `update(steps_done, status)`."""
    if not console.is_interactive:
        yield lambda done, status: print_plain(console, f"{title}: step {done}/{total}  {status}")
        return
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress("{task.description}", *columns, "{task.fields[status]}", console=console) as bars:
        bar = bars.add_task(escape(title), total=total, status="compiling")
        yield lambda done, status: bars.update(bar, completed=done, status=escape(status))


def track(console: "Console | None", title: str, items: Iterable[tuple[T, int]], total: int) -> Iterator[T]:
    """Yield the items of (item, bytes) pairs. Show how many bytes of `total` were taken, unless `console` is None.

    A bar on a terminal, and a line every 10 seconds elsewhere.
    """
    if console is None:
        yield from (item for item, _ in items)
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = "{task.description}", BarColumn(20), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    seconds = _BAR_SECONDS if console.is_interactive else _LINE_SECONDS
    done, shown = 0, time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_interactive, transient=True) as bars:
        bar = bars.add_task(title, total=total)
        for item, num_bytes in items:
            yield item
            done += num_bytes
            if time.monotonic() < shown + seconds:
                continue
            if console.is_interactive:
                bars.update(bar, completed=done)
            else:
                print_plain(console, f"{title}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB")
            shown = time.monotonic()


@contextlib.contextmanager
def drop_output_errors(console: "Console | None") -> "Iterator[Console]":
    """Yield the console, or a quiet one. Within the block, output that cannot be written is dropped."""
    from rich.console import Console

    console = console or Console(quiet=True)
    file = console.file
    console.file = _LossyFile(file)  # type: ignore[assignment]
    try:
        yield console
    finally:
        console.file = file


def run_command(command: Callable[[], object]) -> tuple[int, str]:
    """Run `command` and return its exit code and the message of its error, which is "" on success.

    The code is 0 for success, 2 for an error that the user can fix, and 130 if interrupted. The error is printed
    in one line on standard error. A second SIGINT or SIGTERM ends the process at once. A closed pipe, as in
    `jaxlm ... | head`, ends the command with code 0. Other exceptions are bugs and propagate.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, as in `jaxlm ... >&-`; also occupies its descriptor
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
    try:
        with end_process_on_second_signal():
            command()
        return 0, ""
    except BrokenPipeError:
        _redirect_to_devnull(sys.stdout.fileno())
        return 0, ""
    except (ValueError, OSError, FloatingPointError) as error:
        message = str(error)
        if isinstance(error, OSError) and error.strerror is not None:  # omit the errno
            message = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
        code, message = 2, " ".join(message.split())
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise  # JAX did not run out of memory
        reason = str(error).partition("\n")[0]
        code, message = 2, f"out of memory ({reason}); make the model, the batch or the text smaller"
    except KeyboardInterrupt as error:
        code, message = 130, f"interrupted by {error}" if error.args else "interrupted"
    print_plain(make_console(stderr=True), escape_controls(message if code == 130 else f"error: {message}"))
    return code, message


@final
class _LossyFile:
    """A text file that ignores errors of writing to another."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _redirect_to_devnull(descriptor: int) -> None:
    """Redirect output that cannot be written, so that flushing it at exit does not raise another error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
