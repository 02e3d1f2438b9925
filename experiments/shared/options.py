"""Command-line options that several experiments have, each declared once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxlm.runs.directory import check_run_path
from jaxlm.utils.checks import check_at_least


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of every experiment."""

    quick: bool = False
    """Run a small version that writes every file. Its figures mean nothing."""
    out: Path | None = None
    """Run directory. None: runs/EXPERIMENT-DATE-TIME."""
    overwrite: bool = False
    """Replace the run in --out."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions(RunOptions):
    """Options of an experiment that times variants against each other."""

    repeats: int = 5
    """Samples of each variant."""


@dataclass(frozen=True, kw_only=True)
class SeedOptions(RunOptions):
    """Options of an experiment with random choices."""

    seed: int = 0
    """Seed of every random choice, in [0, 2**32)."""


@dataclass(frozen=True, kw_only=True)
class TextOptions(SeedOptions):
    """Options of an experiment on a text."""

    corpus: str = "tinyshakespeare"
    """A built-in corpus: tinyshakespeare, or shakespeare (all plays)."""
    text: Path | None = None
    """A UTF-8 text file to use instead of --corpus."""


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions(TextOptions):
    """Options of an experiment on a text with a tokenizer of the user's choice."""

    tokenizer: Literal["char", "byte", "bpe"] = "bpe"
    """Kind of token: characters, bytes, or byte-pair encoding."""
    vocab_size: int | None = None
    """Vocabulary size of --tokenizer bpe, at least 256. None: 4096, or 512 with --quick."""


def check_options(options: RunOptions) -> None:
    """Check the options declared in this module.

    Raises:
        ValueError: an option is out of range.
        FileExistsError: `--out` must not be written to.
    """
    if options.out is not None:
        check_run_path(options.out, overwrite=options.overwrite)
    if isinstance(options, BenchmarkOptions):
        check_at_least("--repeats", options.repeats, 1)
    if isinstance(options, SeedOptions) and not 0 <= options.seed < 2**32:
        raise ValueError(f"--seed must be in [0, 2**32), got {options.seed}")
    if isinstance(options, TokenizerOptions) and options.tokenizer != "bpe" and options.vocab_size is not None:
        raise ValueError(
            f"--vocab-size {options.vocab_size} requires --tokenizer bpe; "
            f"--tokenizer {options.tokenizer} has a fixed vocabulary"
        )
