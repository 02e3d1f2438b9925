"""Types of the options that several subcommands share, with their help lines."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import DisallowNone, Positional, arg

if TYPE_CHECKING:
    from rich.console import Console as Console
else:
    Console = Any  # rich takes 0.1 s to import, and --help does not need it

OptionalPath = DisallowNone[Path | None]
ModelPath = Annotated[
    Path, Positional, arg(metavar="MODEL", help="Run directory, saved model directory, or exported file.")
]
Checkpoint = Annotated[
    Literal["final", "best", "last"] | int,
    arg(help="Checkpoint of a run: final, best (lowest validation loss), last, or a number of steps."),
]
Device = Annotated[str, arg(help="auto, cpu, gpu, cuda, rocm, tpu or metal.")]
JsonFlag = Annotated[
    bool, arg(help="Print one JSON document to standard output, everything else to standard error.")
]
