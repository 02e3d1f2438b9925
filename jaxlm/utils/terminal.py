"""How a command speaks to a person: plain lines, a progress bar on a terminal, errors in one line."""

import contextlib
import io
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console  # imported late, for `--help` needs none of it


def stdout_console() -> "Console":
    """Standard output as a console; what its encoding lacks is shown as `?`, for no run shall end on that."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return _console(stderr=False)


def stderr_console() -> "Console":
    """Standard error as a console."""
    return _console(stderr=True)


def print_plain(console: "Console", text: str) -> None:
    """Prints `text` as it is: no markup, no emoji codes, no colours, no wrapping."""
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


def write(console: "Console", text: str) -> None:
    """Writes `text` at once and without a line's end: as it is to a file or a pipe, `escape_controls` to a terminal."""
    if console.quiet:
        return
    console.file.write(escape_controls(text) if console.is_terminal else text)
    console.file.flush()


def escape_controls(text: str) -> str:
    r"""`text` without what steers a terminal, line ends and tabs aside: such characters are shown as escapes.

    >>> escape_controls("\x1b[2J is no text")
    '\\x1b[2J is no text'
    """
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs")
        else character.encode("unicode_escape").decode()
        for character in text
    )


@contextlib.contextmanager
def progress(console: "Console", title: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A function to be told how many of `total` steps are done, and a word on how it stands.

    On a terminal it moves a bar; elsewhere it prints a line.
    """
    if not console.is_terminal:
        yield lambda done, status: print_plain(console, f"{title}: step {done}/{total}  {status}")
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}", markup=False),
    )
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task(title, total=total, status="compiling")
        yield lambda done, status: bars.update(bar, completed=done, status=status)


def run_command(command: Callable[[], object], on_failure: Callable[[str], object] | None = None) -> int:
    """Runs `command`: 0 done, 2 what the user can mend (told in one line on standard error), 130 interrupted.

    `on_failure` is given that line too. A reader that has gone, as `head` does, ends the command quietly.
    """

    def fail(code: int, message: str) -> int:
        print_plain(stderr_console(), escape_controls(message))
        if on_failure is not None:
            on_failure(message.removeprefix("error: "))
        return code

    try:
        command()
    except BrokenPipeError:
        _forget_reader(sys.stdout.fileno())
        return 0
    except (ValueError, OSError, FloatingPointError) as error:
        return fail(2, "error: " + " ".join(_reason(error).split()))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):  # JAX's word for no memory
            raise
        reason = str(error).partition("\n")[0]
        return fail(2, f"error: out of memory ({reason}); make the model or the batch smaller")
    except KeyboardInterrupt as error:
        return fail(130, " ".join(["interrupted", *map(str, error.args)]))
    return 0


def _forget_reader(descriptor: int) -> None:
    """What is still in the buffer cannot be written, and Python would say so when it ends: now it can be."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _reason(error: Exception) -> str:
    """What the error says; of one of the system's, without its number."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


def _console(*, stderr: bool) -> "Console":
    """A console whose reader may go, as `head` does: what is still said is lost, and no work ends on that."""
    from rich.console import Console

    class Unbroken(Console):
        def on_broken_pipe(self) -> None:
            _forget_reader(self.file.fileno())

    return Unbroken(stderr=stderr)
