"""How a command speaks to a person: plain lines, a progress bar on a terminal, errors in one line."""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def standard_output() -> Console:
    """Standard output as a console; what its encoding lacks is shown as `?`, for no run shall end on that."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console()


def say(console: Console, text: str) -> None:
    """Prints `text` as it is: no markup, no emoji codes, no colours, no wrapping."""
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def progress(console: Console, title: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A function to be told how many of `total` steps are done, and a word on how it stands.

    On a terminal it moves a bar; elsewhere it prints a line.
    """
    if not console.is_terminal:
        yield lambda done, status: say(console, f"{title}: step {done}/{total}  {status}")
        return
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


def exit_code(command: Callable[[], object]) -> int:
    """Runs `command`: 0 done, 2 what the user can mend (told in one line on standard error), 130 interrupted."""
    try:
        command()
    except (ValueError, OSError, FloatingPointError) as error:
        message = " ".join(str(error).split())
        say(Console(stderr=True), f"error: {message}")
        return 2
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):  # JAX's word for no memory
            raise
        reason = str(error).partition("\n")[0]
        say(Console(stderr=True), f"error: out of memory ({reason}); make the model or the batch smaller")
        return 2
    except KeyboardInterrupt:
        say(Console(stderr=True), "interrupted")
        return 130
    return 0
