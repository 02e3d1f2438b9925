"""`jaxlm encode`."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from jaxlm.cli.shared import Console, WorkerOptions, open_executor
from jaxlm.utils.terminal import print_plain


@dataclass(frozen=True)
class EncodeOptions(WorkerOptions):
    """Encode text files of any size for `--tokens`. The same command continues an interrupted one."""

    # UTF-8 text files, folders and globs; also .gz, .zst, .jsonl and, with jaxlm[parquet], .parquet.
    paths: Annotated[tuple[Path, ...], Positional, arg(metavar="PATH...")]
    _: KW_ONLY
    out: Path  # Directory of token ids to write.
    # Unit of a token: character, byte, or byte-pair encoding, trained on these files; or the file of a tokenizer.
    tokenizer: Literal["char", "byte", "bpe"] | Path = "bpe"
    vocab_size: int | None = None  # bpe: size of the vocabulary, at least 256; None means 4096.
    field: str = "text"  # Field of the text in .jsonl and .parquet files.


def encode_paths(options: EncodeOptions, console: Console) -> dict[str, Any]:
    """Encode the files and report the size of the result."""
    import jaxlm

    with open_executor(options) as (executor, workers):
        stream = jaxlm.encode_files(
            options.paths,
            options.tokenizer,
            options.out,
            field=options.field,
            vocab_size=options.vocab_size,
            workers=workers,
            executor=executor,
            console=console,
        )
    size = f"{len(stream):,} tokens, vocabulary of {stream.vocab_size:,}, {stream.dtype}"
    print_plain(console, f"{options.out}: {size}; to train on them: jaxlm train --tokens {options.out}")
    return {
        "out": str(options.out),
        "tokens": len(stream),
        "vocab_size": stream.vocab_size,
        "dtype": str(stream.dtype),
    }
