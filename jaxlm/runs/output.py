"""Print progress to a terminal that may go away."""

import contextlib
from collections.abc import Iterator
from typing import IO, Any, final

from rich.console import Console


@final
class _LossyFile:
    """A text file that ignores errors of writing to another."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextlib.contextmanager
def drop_output_errors(console: Console | None) -> Iterator[Console]:
    """Yield the console, or a quiet one. Within the block, output that cannot be written is dropped."""
    console = console or Console(quiet=True)
    file = console.file
    console.file = _LossyFile(file)  # type: ignore[assignment]
    try:
        yield console
    finally:
        console.file = file
