"""Options and helpers of several subcommands: open a model, choose a device, read a text, print a table."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

import jaxlm
from jaxlm.utils.terminal import escape_controls, print_plain

Console = Any  # of rich, which takes 0.1 s to import, and --help does not need it
TYRO_CONFIG = FlagCreatePairsOff, OmitArgPrefixes


# The comments after the fields of all options are their help text.
@dataclass(frozen=True)
class CommandOptions:
    """Options of every subcommand."""

    _: KW_ONLY
    json: bool = False  # Print one JSON document to standard output, everything else to standard error.


@dataclass(frozen=True)
class ModelOptions(CommandOptions):
    """Options of a subcommand that opens a model."""

    # Run directory, saved model directory, or exported file.
    model: Annotated[Path, Positional, arg(metavar="MODEL")]
    _: KW_ONLY
    # Checkpoint of a run: final, best (lowest validation loss), last, or a number of steps.
    checkpoint: Literal["final", "best", "last"] | int = "final"


@contextlib.contextmanager
def on_cpu() -> Iterator[None]:
    """Make the CPU the default device of JAX within the block, unless JAX_PLATFORMS excludes it."""
    import jax

    has_cpu = "cpu" in (jax.config.jax_platforms or "cpu").split(",")  # type: ignore[attr-defined]
    with jax.default_device(jaxlm.resolve_device("cpu") if has_cpu else None):
        yield


def open_model_on_cpu(options: ModelOptions) -> tuple[Any, Any, Any]:
    """Return the model, its variables on the CPU, and its tokenizer, which it must have."""
    with on_cpu():
        saved = jaxlm.load_model(options.model, options.checkpoint)
    if saved.tokenizer is None:
        raise ValueError(f"{options.model} was saved without a tokenizer, which the command needs")
    return saved


def load_text(text: Path | None, corpus: str | None) -> "jaxlm.Corpus":
    """Return the text of `--text`, or else of `--corpus`."""
    return jaxlm.load_corpus(corpus or "") if text is None else jaxlm.read_text(text)


def describe_text(corpus: "jaxlm.Corpus") -> dict[str, str]:
    """Return the name (of a file, its path), source and checksum of a text as JSON."""
    from jaxlm.text.corpora import CORPORA

    name = corpus.name if corpus.name in CORPORA else corpus.source
    return {"text": name, "source": corpus.source, "sha256": corpus.sha256}


def print_table(console: Console, *rows: Iterable[Any]) -> None:
    """Print rows in aligned columns, with "-" for None. Long lines are not wrapped."""
    cells = [["-" if value is None else escape_controls(str(value)) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print_plain(console, "  ".join(map(str.ljust, row, widths)).rstrip())
